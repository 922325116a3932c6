//! How fast a file is read, next to reading the same bytes and nothing else: `cargo run --release
//! -p falaj-source --example source_speed [megabytes]`.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::error::Error;
use std::io::{Read, Write};
use std::time::Instant;

use falaj_source::{FileConfig, Opening, SourceConfig, open};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let megabytes: u64 = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 1000,
    };
    let folder = tempfile::tempdir()?;
    let record = format!("{{\"nat\":\"DE\",\"text\":\"{}\"}}\n", "x".repeat(1060));
    let piece = record.repeat(1000);
    let times = megabytes * 1_000_000 / piece.len() as u64;
    for name in ["lines", "saved"] {
        let mut file = std::fs::File::create(folder.path().join(name))?;
        let piece = match name {
            "lines" => piece.clone(),
            _ => piece.replace('\n', ","),
        };
        file.write_all(if name == "saved" {
            b"{\"results\":["
        } else {
            b""
        })?;
        for _ in 0..times {
            file.write_all(piece.as_bytes())?;
        }
        file.write_all(if name == "saved" { b"{}]}" } else { b"" })?;
    }
    for name in ["lines", "saved"] {
        for _ in 0..2 {
            let began = Instant::now();
            let mut file = std::fs::File::open(folder.path().join(name))?;
            let (mut buffer, mut bytes) = (vec![0; 4 << 20], 0);
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    read => bytes += read,
                }
            }
            show("floor", name, 0, bytes as u64, began);

            let began = Instant::now();
            let config = SourceConfig::File(FileConfig {
                path: name.into(),
                records: None,
            });
            let opening = Opening::new(folder.path(), CancellationToken::new());
            let mut source = open(&config, opening).await?;
            let (mut records, mut bytes) = (0, 0);
            while let Some(portion) = source.next().await? {
                let batch = portion.raws;
                records += batch.len();
                bytes += batch
                    .iter()
                    .map(|raw| raw.bytes.len() as u64 + 1)
                    .sum::<u64>();
            }
            show("source", name, records, bytes, began);
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn show(what: &str, name: &str, records: usize, bytes: u64, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    let rate = bytes as f64 / seconds / 1e9;
    let per_second = records as f64 / seconds / 1e6;
    println!("{what:6} {name}: {rate:.2} GB/s, {per_second:.2} million records/s");
}
