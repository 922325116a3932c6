//! The embedded log, read and written through its own Kafka listener as if it were a cluster, keeps
//! the topic's contract: without transactions, and so without leases.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use falaj_broker::{Listener, Options};
use falaj_log::{Log, LogOptions};
use falaj_topic::conformance::{self, End, Stand};
use falaj_topic::{Broker, TopicConfig, connect};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A log in a folder behind a listener. A crash is a copy of the folder, taken while the log is in
/// use; what it would still have written goes to the old one.
struct Listening {
    dir: tempfile::TempDir,
    life: u32,
    log: Arc<Log>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    broker: Arc<dyn Broker>,
}

impl Listening {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (log, stop, running, broker) = open(&dir.path().join("0")).await;
        Self {
            dir,
            life: 0,
            log,
            stop,
            running,
            broker,
        }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join(self.life.to_string())
    }
}

async fn open(folder: &Path) -> (Arc<Log>, CancellationToken, JoinHandle<()>, Arc<dyn Broker>) {
    let log = Arc::new(Log::open(folder, LogOptions::default()).expect("opened"));
    let options = Options {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        auto_create: None,
        ..Options::default()
    };
    let listener = Listener::bind(Arc::clone(&log), options).expect("bound");
    let config = TopicConfig {
        brokers: listener.address().to_string(),
        ..TopicConfig::default()
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { listener.run(stop).await.expect("served") }
    });
    let nowhere = Path::new("/nowhere");
    let broker = connect(&config, nowhere, nowhere).await.expect("connected");
    (log, stop, running, broker)
}

#[async_trait]
impl Stand for Listening {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.broker)
    }

    async fn restart(&mut self, end: End) {
        let old = self.folder();
        if end == End::Crash {
            self.life += 1;
            copy(&old, &self.folder());
        }
        self.broker.close().await;
        self.stop.cancel();
        (&mut self.running).await.expect("it ends");
        self.log.close();
        let opened = open(&self.folder()).await;
        (self.log, self.stop, self.running, self.broker) = opened;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            match fs::copy(&path, &target) {
                // A replacement that got its name meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                copied => {
                    copied.expect("copied");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_behind_its_listener_keeps_the_contract() {
    conformance::run(&mut Listening::new().await).await;
}
