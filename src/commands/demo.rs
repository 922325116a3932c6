//! `falaj demo`: the example's pipeline against a local Random User API, in one process.
//!
//! Always: the gate, the topic, the views, the sink and the page are those of `falaj run`; only the
//! source's address, the pace and the labels of synthetic things differ.

use falaj_randomuser::{ServerConfig, serve};
use falaj_serve::Listen;

use crate::cli;
use crate::commands::init::EXAMPLE;
use crate::commands::run::{Terms, stop_on_signal, supervise};
use crate::data_dir::DataDir;
use crate::document::Document;
use crate::failure::Failure;
use crate::pipeline::Until;
use crate::plan::Plan;
use crate::stdio;

/// Weighted domains, so that the third chart has something to show: the real service gives every
/// address the same one.
const DOMAINS: &str = "gmail.com=30,outlook.com=14,yahoo.com=12,icloud.com=9,example.com=8,proton.me=6,gmx.de=5,orange.fr=4,mail.ru=3,web.de=3,libero.it=2,uol.com.br=2,yandex.ru=1,fastmail.com=1";
/// Polls a second at most; more records come in larger replies.
const POLLS_PER_SECOND: u32 = 4;

/// Where Kafka clients look first.
const KAFKA_PORT: u16 = 9092;

/// The port asked for; else Kafka's own, or any where somebody has that.
fn kafka_port(asked: Option<u16>) -> u16 {
    let free = |port| std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).is_ok();
    asked.unwrap_or_else(|| if free(KAFKA_PORT) { KAFKA_PORT } else { 0 })
}

/// Runs the demo until it is stopped.
///
/// # Errors
/// As `falaj run`.
pub async fn demo(args: cli::Demo) -> Result<(), Failure> {
    let stop = stop_on_signal()?;
    let api = serve(ServerConfig {
        domains: DOMAINS.parse().expect("the demo's domains are well-formed"),
        ..ServerConfig::default()
    })
    .await
    .map_err(|e| Failure::stage(&e))?;
    let polls = args.rate.min(POLLS_PER_SECOND);
    let mut document = Document::of_text("falaj.toml", EXAMPLE);
    for assignment in [
        "pipeline.name=\"demo\"".to_owned(),
        format!("source.http.url=\"http://{}/api/\"", api.addr()),
        format!(
            "source.http.query.results={}",
            (args.rate / polls).min(5000)
        ),
        format!("source.http.every=\"{}ms\"", 1000 / polls),
        "topic.retention=\"1d\"".to_owned(),
        format!("topic.listen=\"127.0.0.1:{}\"", kafka_port(args.kafka_port)),
    ] {
        document.set(&assignment)?;
    }
    let mut plan = Plan::of(&document)?;
    for chart in &mut plan.config.charts {
        if chart.view == "email_domains" {
            chart.note = Some(
                "Synthetic: the demo's local API draws these domains; the real service gives example.com only"
                    .to_owned(),
            );
        }
    }
    let data_dir = DataDir::locate(args.data_dir.as_deref(), "demo")?;
    stdio::say(&format!(
        "demo: {} fictitious people a second, kept in {}",
        args.rate,
        data_dir.path().display()
    ));
    let listen = Listen {
        address: (falaj_serve::DEFAULT_ADDRESS.ip(), args.port).into(),
        ..Listen::default()
    };
    let over = supervise(
        plan,
        Terms {
            data_dir,
            listen,
            until: Until::Stopped,
        },
        &stop,
    )
    .await;
    api.shutdown().await;
    over
}
