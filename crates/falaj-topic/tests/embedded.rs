//! The embedded broker keeps the topic's contract, and what is its own: crashes, retention, a
//! connection by configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use falaj_record::{At, Period, Positions, Reason, Reject};
use falaj_topic::conformance::{self, End, Stand};
use falaj_topic::{Broker, Embedded, TopicConfig, TopicError, connect};

/// A log in a folder. A crash is a copy of the folder, taken while the log is in use; what it would
/// still have written goes to the old one.
struct Local {
    dir: tempfile::TempDir,
    life: AtomicU64,
    broker: Arc<Embedded>,
}

impl Local {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Embedded::open(&dir.path().join("0")).await.unwrap();
        Self {
            dir,
            life: AtomicU64::new(0),
            broker: Arc::new(broker),
        }
    }

    fn folder(&self) -> PathBuf {
        self.dir
            .path()
            .join(self.life.load(Ordering::SeqCst).to_string())
    }
}

#[async_trait]
impl Stand for Local {
    fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    async fn restart(&mut self, end: End) {
        let old = self.folder();
        match end {
            End::Clean => self.broker.close().await,
            End::Crash => {
                self.life.fetch_add(1, Ordering::SeqCst);
                copy(&old, &self.folder());
            }
        }
        self.broker = Arc::new(Embedded::open(&self.folder()).await.unwrap());
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            match fs::copy(&path, &target) {
                // A replacement that got its name meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                copied => {
                    copied.unwrap();
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_broker_keeps_the_contract() {
    conformance::run(&mut Local::new().await).await;
}

#[tokio::test]
async fn it_keeps_the_contract_on_one_thread_too() {
    conformance::run(&mut Local::new().await).await;
}

fn reject(position: u64) -> Reject {
    Reject {
        at: At::Source {
            source: "file-1".into(),
            position,
        },
        reason: Reason::NotJson,
        path: None,
        length: 1,
        time_ms: 0,
    }
}

#[tokio::test]
async fn retention_that_overtakes_a_reader_is_an_error_with_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Embedded::open(dir.path()).await.unwrap();
    let config = TopicConfig {
        partitions: 1,
        retention: Period(Duration::from_mins(1)),
        ..TopicConfig::default()
    };
    let topic = broker.topic(&config).await.unwrap();
    assert_eq!(topic.reject(&[reject(1), reject(4)]).await.unwrap(), 2);
    // The topic of rejects is a topic too, and shows what retention does to one.
    let rejects = broker
        .topic(&TopicConfig {
            name: "messages.rejects".into(),
            ..config.clone()
        })
        .await
        .unwrap();
    let all = rejects
        .fetch(&Positions::default(), 1000, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!((all[0].messages.len(), all[0].next), (2, 2));
    broker.log().retain(i64::MAX);
    match rejects
        .fetch(&Positions::default(), 1000, Duration::ZERO)
        .await
    {
        Err(TopicError::Overtaken {
            wanted: 0,
            start: 2,
            partition: 0,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    // Listing begins at what is left, and what was held once is still known.
    assert_eq!(topic.rejects(0, 10).await.unwrap(), []);
    assert_eq!(topic.reject(&[reject(4), reject(5)]).await.unwrap(), 1);
    assert_eq!(topic.rejects(0, 10).await.unwrap(), [(2, reject(5))]);
}

#[tokio::test]
async fn settings_are_brought_to_what_the_file_says() {
    let dir = tempfile::tempdir().unwrap();
    let config = TopicConfig::default();
    let broker = connect(&config, dir.path(), dir.path()).await.unwrap();
    broker.topic(&config).await.unwrap();
    let shorter = TopicConfig {
        retention: Period(Duration::from_mins(1)),
        ..config.clone()
    };
    broker.topic(&shorter).await.unwrap();
    broker.close().await;
    let broker = connect(&config, dir.path(), dir.path()).await.unwrap();
    let described = broker.describe("messages").await.unwrap();
    assert_eq!(described.retention, Some(Duration::from_mins(1)));
    broker.close().await;
    assert!(matches!(
        broker.delete("messages").await,
        Err(TopicError::Closed)
    ));
}

#[tokio::test]
async fn the_embedded_broker_has_no_drift_and_its_lease_is_held_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = TopicConfig::default();
    let broker = connect(&config, dir.path(), dir.path()).await.unwrap();
    assert_eq!(broker.drift(&config).await.unwrap(), []);
    let lease = broker.lease("messages").await.unwrap();
    lease.wait().await.unwrap();
    assert!(lease.held());
    let lost = tokio::time::timeout(Duration::from_millis(50), lease.lost());
    assert!(lost.await.is_err(), "nothing can take it away");
    let topic = broker.topic(&config).await.unwrap();
    let positions = Positions([(0, 7)].into());
    topic.commit("falaj.messages", &positions).await.unwrap();
}
