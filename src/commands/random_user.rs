//! `falaj random-user serve`: a local server that speaks the Random User API.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use falaj_randomuser::{RandomUserError, ServerConfig, serve};

use crate::cli;
use crate::commands::run::stop_on_signal;
use crate::failure::{Failure, Fault};
use crate::stdio;

/// Serves until it is stopped.
///
/// # Errors
/// Where an option cannot be read (code 2) or the port is taken.
pub async fn serve_until_stopped(args: cli::RandomUserServe) -> Result<(), Failure> {
    let config = ServerConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        rate_limit: option("rate-limit", args.rate_limit)?,
        faults: option("fault", args.fault)?.unwrap_or_default(),
        domains: option("domains", args.domains)?.unwrap_or_default(),
        ..ServerConfig::default()
    };
    let stop = stop_on_signal()?;
    let server = serve(config).await.map_err(|e| Failure::stage(&e))?;
    stdio::say(&format!("random user api: http://{}/api/", server.addr()));
    stop.cancelled().await;
    server.shutdown().await;
    Ok(())
}

/// The value of `--name`, if it was given.
fn option<T: FromStr<Err = RandomUserError>>(
    name: &str,
    text: Option<String>,
) -> Result<Option<T>, Failure> {
    text.map(|text| text.parse()).transpose().map_err(|e| {
        let mut fault = Fault::from_error(&e);
        fault.message = format!("`--{name}`: {}", fault.message);
        Failure::usage(fault)
    })
}
