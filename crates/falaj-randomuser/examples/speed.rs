//! How fast people are made: `cargo run --release -p falaj-randomuser --example speed`.
//!
//! Prints the best of several runs, since the machine may be busy with other things.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::io;
use std::time::{Duration, Instant, SystemTime};

use falaj_randomuser::{
    Domains, Options, Query, ServerConfig, Version, render, serve, write_ndjson,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const RUNS: usize = 7;
const LINES: u64 = 200_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let query = Query {
        results: Query::RESULTS_MAX,
        ..Query::new(Version::V1_4, "speed")
    };
    let options = Options::default();
    let body = best(|| render(&query, &options, SystemTime::now()).len());
    println!("5,000 people as JSON, in memory: {body:?}");
    let lines = best(|| write_ndjson(&mut io::sink(), LINES, "speed", &Domains::default()));
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = LINES as f64 / lines.as_secs_f64();
    println!("NDJSON: {rate:.0} records/s on one core");

    let server = serve(ServerConfig::default()).await?;
    for (name, header) in [("plain", ""), ("gzip", "Accept-Encoding: gzip\r\n")] {
        let mut shortest = Duration::MAX;
        for _ in 0..RUNS {
            let started = Instant::now();
            let mut stream = TcpStream::connect(server.addr()).await?;
            let request = format!(
                "GET /api/?results=5000&seed=speed HTTP/1.1\r\nHost: local\r\nConnection: close\r\n{header}\r\n"
            );
            stream.write_all(request.as_bytes()).await?;
            let mut reply = Vec::new();
            stream.read_to_end(&mut reply).await?;
            shortest = shortest.min(started.elapsed());
        }
        println!("5,000 people over HTTP, {name}: {shortest:?}");
    }
    server.shutdown().await;
    Ok(())
}

fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    let runs = (0..RUNS).map(|_| {
        let started = Instant::now();
        std::hint::black_box(work());
        started.elapsed()
    });
    runs.min().unwrap_or_default()
}
