//! `falaj broker`: the embedded log on its own, for Kafka clients.

use std::sync::Arc;

use falaj_broker::{Listener, Options, Tls, Users};
use falaj_log::{Log, LogOptions};

use crate::cli;
use crate::commands::run::stop_on_signal;
use crate::data_dir::DataDir;
use crate::failure::{Failure, Fault};
use crate::stdio;

/// The data directory where none is named.
const NAME: &str = "broker";

/// Serves Kafka clients until it is stopped.
///
/// # Errors
/// Code 2 where the command line, the certificate or the file of users is wrong; 1 where the data
/// directory or the address cannot be used.
pub async fn broker(args: cli::Broker) -> Result<(), Failure> {
    let unusable = |e: &falaj_broker::BrokerError| Failure::usage(Fault::from_error(e));
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(Tls::from_files(certificate, key).map_err(|e| unusable(&e))?)
        }
        // The command line asks for both or neither.
        _ => None,
    };
    let users = args.users.as_deref().map(Users::from_file).transpose();
    let options = Options {
        address: args.listen,
        advertised: args.advertise,
        auto_create: Some(args.partitions),
        tls,
        users: users.map_err(|e| unusable(&e))?,
        ..Options::default()
    };
    let data_dir = DataDir::locate(args.data_dir.as_deref(), NAME)?;
    let stop = stop_on_signal()?;
    let _lock = data_dir.lock()?;
    let opened = on_disk(move || {
        let log = Log::open(&data_dir.topic(), LogOptions::default());
        let log = Arc::new(log.map_err(|e| Failure::stage(&e))?);
        let listener = Listener::bind(Arc::clone(&log), options).map_err(|e| match e {
            falaj_broker::BrokerError::Exposed { .. } => Failure::usage(Fault::from_error(&e)),
            _ => Failure::stage(&e),
        })?;
        Ok((log, listener))
    });
    let (log, listener) = opened.await?;
    stdio::say(&format!("kafka: {}", listener.address()));
    let served = listener.run(stop).await;
    on_disk(move || {
        log.close();
        Ok(())
    })
    .await?;
    served.map_err(|e| Failure::stage(&e))
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Failure::run(Fault::new("the log cannot be used").cause(e))))
}
