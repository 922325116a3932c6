//! Serves the page with made-up aggregates, to look at it without a pipeline.
//!
//! `cargo run --release -p falaj-serve --example page -- [PORT] [busy|empty|standby|single|failing|hostile]`

mod made_up;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use falaj_serve::{Listen, Server};
use made_up::{MadeUp, Scene};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().as_deref().unwrap_or("8050").parse()?;
    let scene: Scene = arguments.next().as_deref().unwrap_or("busy").parse()?;
    let mut made_up = MadeUp::new(scene);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let server = Server::bind(&Listen::from(address), made_up.hub()).await?;
    eprintln!("dashboard: {}", server.url());
    let stop = CancellationToken::new();
    let feed = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            made_up.step();
        }
    };
    let interrupt = async {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = server.run(stop.clone()) => ended?,
        () = feed => {}
        () = interrupt => {}
    }
    Ok(())
}
