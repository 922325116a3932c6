//! A real Kafka keeps the topic's contract, and what is a cluster's own: transactions, leases, drift,
//! groups, TLS and SASL, a broker that is away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use falaj_record::{At, Hint, Period, Positions, Reason, Reject};
use falaj_servers::{Kafka, KafkaOptions, Listener, User};
use falaj_topic::conformance::{self, End, Stand, together};
use falaj_topic::{Broker, TopicConfig, TopicError, connect};

const NAME: &str = "falaj";
const PASSWORD: &str = "not-so-secret";

/// Retention counts from a record's time, which is long ago in these tests: it is kept from looking.
/// A busy machine does not make a broker lose its session, and with it the lead of all partitions.
fn properties() -> Vec<(String, String)> {
    let property = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    vec![
        property("log.initial.task.delay.ms", "3600000"),
        property("log.retention.check.interval.ms", "3600000"),
        property("broker.session.timeout.ms", "9000"),
    ]
}

/// The broker that all tests share which do not stop it.
fn shared() -> Option<&'static Kafka> {
    static KAFKA: LazyLock<Option<Kafka>> = LazyLock::new(|| {
        Kafka::start(&KafkaOptions {
            tls: true,
            users: vec![User {
                name: NAME.into(),
                password: PASSWORD.into(),
            }],
            properties: properties(),
            ..KafkaOptions::default()
        })
    });
    KAFKA.as_ref()
}

fn own() -> Option<Kafka> {
    Kafka::start(&KafkaOptions {
        properties: properties(),
        ..KafkaOptions::default()
    })
}

fn config(brokers: &str, name: &str) -> TopicConfig {
    TopicConfig {
        name: name.to_owned(),
        brokers: brokers.to_owned(),
        partitions: 3,
        ..TopicConfig::default()
    }
}

async fn broker(config: &TopicConfig) -> Arc<dyn Broker> {
    let nowhere = Path::new("/nowhere");
    connect(config, nowhere, nowhere).await.expect("connected")
}

struct Cluster {
    kafka: Kafka,
    broker: Arc<dyn Broker>,
}

#[async_trait]
impl Stand for Cluster {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.broker)
    }

    async fn restart(&mut self, end: End) {
        match end {
            End::Clean => {
                self.broker.close().await;
                self.kafka.stop();
            }
            End::Crash => self.kafka.kill(),
        }
        self.kafka.restart();
        self.broker = broker(&config(&self.kafka.brokers(), "conformance")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_kafka_keeps_the_contract() {
    let Some(kafka) = own() else { return };
    let broker = broker(&config(&kafka.brokers(), "conformance")).await;
    conformance::run(&mut Cluster { kafka, broker }).await;
}

/// All records from the start, as source positions.
async fn positions_of(topic: &dyn falaj_topic::Topic, source: &str) -> BTreeMap<i32, Vec<u64>> {
    let mut at = Positions::default();
    let mut found: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    loop {
        let fetched = topic
            .fetch(&at, 1 << 20, Duration::ZERO)
            .await
            .expect("fetched");
        if fetched.is_empty() {
            return found;
        }
        for part in fetched {
            at.advance(part.partition, part.next);
            for message in part.messages {
                let src = message.src.expect("a record says where it came from");
                let (id, position) = falaj_record::Src::parse(&src).expect("it is falaj's");
                if id == source {
                    found.entry(part.partition).or_default().push(position);
                }
            }
        }
    }
}

fn split(positions: std::ops::Range<u64>) -> BTreeMap<i32, Vec<u64>> {
    let mut split: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    for position in positions {
        let partition = i32::try_from(position % 3).expect("small");
        split.entry(partition).or_default().push(position);
    }
    split
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_held_by_one_and_shuts_out_whoever_held_it_before() {
    let Some(kafka) = shared() else { return };
    let config = config(&kafka.brokers(), "lease.one");
    let first = broker(&config).await;
    let lease = first.lease(&config.name).await.expect("asked");
    lease.wait().await.expect("nobody else wants it");
    assert!(lease.held());
    let topic = first.topic(&config).await.expect("made");
    topic
        .publish(together("file-1", 0..30, 0))
        .await
        .expect("published");
    topic
        .publish(together("file-1", 30..33, 0))
        .await
        .expect("published");
    assert_eq!(
        topic
            .reject(&[reject(1), reject(2)])
            .await
            .expect("rejected"),
        2
    );

    // A standby waits, and publishes nothing meanwhile.
    let second = broker(&config).await;
    let standby = second.lease(&config.name).await.expect("asked");
    let waited = tokio::time::timeout(Duration::from_secs(3), standby.wait());
    assert!(waited.await.is_err(), "two hold the lease");
    assert!(lease.held(), "a standby takes nothing away");
    let other = second.topic(&config).await.expect("there");
    let early = other.publish(together("file-1", 33..36, 0)).await;
    assert!(
        matches!(early, Err(TopicError::LeaseLost { .. })),
        "{early:?}"
    );

    drop(lease);
    let taken = tokio::time::timeout(Duration::from_secs(20), standby.wait());
    taken
        .await
        .expect("a lease that is given back is taken")
        .expect("held");
    // What was acknowledged is known to the new one, and the old one publishes nothing any more.
    assert_eq!(
        other.highest("file-1").await.expect("highest"),
        BTreeMap::from([(0, 30), (1, 31), (2, 32)])
    );
    let late = topic.publish(together("file-1", 33..36, 0)).await;
    assert!(
        matches!(late, Err(TopicError::LeaseLost { .. })),
        "{late:?}"
    );
    other
        .publish(together("file-1", 33..36, 0))
        .await
        .expect("published");
    assert_eq!(positions_of(&*other, "file-1").await, split(0..36));
    assert_eq!(
        other
            .reject(&[reject(2), reject(3)])
            .await
            .expect("rejected"),
        1
    );
    let listed = other.rejects(0, 10).await.expect("listed");
    assert_eq!(
        listed.into_iter().map(|(_, r)| r).collect::<Vec<_>>(),
        [reject(1), reject(2), reject(3)]
    );
    for broker in [first, second] {
        broker.close().await;
    }
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
        time_ms: 1_767_225_600_000,
    }
}

/// What this test binary does when it is started again as a process of its own: it takes the lease
/// and publishes until it cannot. Nothing where nobody asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_under_a_lease() {
    let Ok(brokers) = std::env::var("FALAJ_TEST_LEASE_BROKERS") else {
        return;
    };
    let config = config(&brokers, "lease.paused");
    let broker = broker(&config).await;
    let lease = broker.lease(&config.name).await.expect("asked");
    lease.wait().await.expect("held");
    let topic = broker.topic(&config).await.expect("made");
    for position in 0.. {
        match topic
            .publish(together("zombie-1", position..position + 1, 0))
            .await
        {
            Ok(()) => eprintln!("published {position}"),
            Err(error) => {
                eprintln!("ended: {error}");
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_paused_longer_than_its_session_publishes_nothing_after_another_took_over()
 {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let Some(kafka) = shared() else { return };
    let mut zombie = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "process_under_a_lease", "--nocapture"])
        .env("FALAJ_TEST_LEASE_BROKERS", kafka.brokers())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut said = BufReader::new(zombie.stderr.take().expect("piped")).lines();
    let begun = said
        .by_ref()
        .map_while(Result::ok)
        .find(|line| line == "published 20");
    assert!(begun.is_some(), "it publishes");
    let signal = |name: &str| {
        let sent = Command::new("kill")
            .args([name, &zombie.id().to_string()])
            .status();
        assert!(sent.expect("kill is there").success());
    };
    signal("-STOP");

    let config = config(&kafka.brokers(), "lease.paused");
    let broker = broker(&config).await;
    let lease = broker.lease(&config.name).await.expect("asked");
    let taken = tokio::time::timeout(Duration::from_secs(40), lease.wait());
    taken.await.expect("a standby takes over").expect("held");
    let topic = broker.topic(&config).await.expect("there");
    let before = topic.highest("zombie-1").await.expect("highest");
    topic
        .publish(together("file-1", 0..30, 0))
        .await
        .expect("published");
    signal("-CONT");
    let rest: Vec<_> = said.map_while(Result::ok).collect();
    assert!(zombie.wait().expect("it ends").success());
    let ended = rest
        .iter()
        .find(|line| line.starts_with("ended: "))
        .expect("it ends by itself");
    assert!(
        ended.contains("no longer holds the lease `lease.paused`"),
        "{ended}"
    );
    topic
        .publish(together("file-1", 30..60, 0))
        .await
        .expect("published");
    assert_eq!(
        topic.highest("zombie-1").await.expect("highest"),
        before,
        "it published nothing more"
    );
    assert_eq!(positions_of(&*topic, "file-1").await, split(0..60));
    assert!(lease.held());
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_away_takes_up_where_it_was_with_nothing_lost_or_out_of_order() {
    let Some(kafka) = own() else { return };
    let config = config(&kafka.brokers(), "away");
    let broker = broker(&config).await;
    let topic = broker.topic(&config).await.expect("made");
    let mut next = 0;
    for _ in 0..20 {
        topic
            .publish(together("file-1", next..next + 30, 100))
            .await
            .expect("published");
        next += 30;
    }
    let mut at = Positions::default();
    for part in topic
        .fetch(&at.clone(), 1000, Duration::ZERO)
        .await
        .expect("fetched")
    {
        at.advance(part.partition, part.next);
    }
    kafka.kill();
    let began = Instant::now();
    let (published, fetched) = tokio::join!(
        topic.publish(together("file-1", next..next + 30, 100)),
        topic.offsets(),
    );
    let published = published.expect_err("nobody is there");
    assert!(published.passing(), "{published}");
    assert!(published.hint().is_some());
    assert!(fetched.expect_err("nobody is there").passing());
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "it is told in time"
    );
    kafka.restart();
    // As a caller does: ask what is there, publish the rest.
    let mut tries = 0;
    loop {
        tries += 1;
        assert!(tries < 60, "the broker is back");
        let held = match topic.highest("file-1").await {
            Ok(held) => held,
            Err(error) => {
                assert!(error.passing(), "{error}");
                continue;
            }
        };
        let missing = (next..next + 30).find(|position| {
            let partition = i32::try_from(position % 3).expect("small");
            held.get(&partition)
                .is_none_or(|highest| position > highest)
        });
        let Some(missing) = missing else { break };
        match topic
            .publish(together("file-1", missing..next + 30, 100))
            .await
        {
            Ok(()) => break,
            Err(error) => assert!(error.passing(), "{error}"),
        }
    }
    let found = positions_of(&*topic, "file-1").await;
    let unique = |positions: &Vec<u64>| {
        let mut positions = positions.clone();
        positions.dedup();
        positions
    };
    let found: BTreeMap<_, _> = found.iter().map(|(p, all)| (*p, unique(all))).collect();
    assert_eq!(found, split(0..next + 30));
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_goes_over_to_a_standby_and_nothing_of_a_call_that_failed_is_seen() {
    let Some(kafka) = own() else { return };
    let config = config(&kafka.brokers(), "lease.away");
    let first = broker(&config).await;
    let lease = first.lease(&config.name).await.expect("asked");
    lease.wait().await.expect("held");
    let topic = first.topic(&config).await.expect("made");
    topic
        .publish(together("file-1", 0..30, 0))
        .await
        .expect("published");
    kafka.kill();
    let failed = topic.publish(together("file-1", 30..60, 0)).await;
    assert!(failed.is_err());
    kafka.restart();
    let lost = tokio::time::timeout(Duration::from_mins(1), lease.lost());
    let lost = lost
        .await
        .expect("its session ended while the broker was away");
    assert!(!lost.passing() && lost.hint().is_some(), "{lost}");
    drop(lease);
    // The same falaj asks again, and finds out what it had published.
    let lease = first.lease(&config.name).await.expect("asked");
    let taken = tokio::time::timeout(Duration::from_mins(1), lease.wait());
    taken.await.expect("it is free").expect("held");
    let held = topic.highest("file-1").await.expect("highest");
    let whole = held == BTreeMap::from([(0, 27), (1, 28), (2, 29)])
        || held == BTreeMap::from([(0, 57), (1, 58), (2, 59)]);
    assert!(whole, "a call is there as a whole or not at all: {held:?}");
    let next = held.values().max().expect("there") + 1;
    topic
        .publish(together("file-1", next..90, 0))
        .await
        .expect("published");
    assert_eq!(positions_of(&*topic, "file-1").await, split(0..90));
    first.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_that_are_committed_are_seen_by_kafkas_own_tool() {
    let Some(kafka) = shared() else { return };
    let lag = |group: &str| {
        let output = kafka
            .tool("ConsumerGroupCommand", ["--describe", "--group", group])
            .output()
            .expect("the tool runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let mut lags: Vec<(String, String)> = Vec::new();
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if words.len() > 5 && words[0] == group && words[1].starts_with("groups.") {
                lags.push((words[2].to_owned(), words[5].to_owned()));
            }
        }
        lags.sort();
        lags
    };
    let lags = |numbers: [i64; 3]| -> Vec<(String, String)> {
        (0..3)
            .zip(numbers)
            .map(|(p, n): (i32, i64)| (p.to_string(), n.to_string()))
            .collect()
    };
    let at = |offsets: [i64; 3]| Positions((0..).zip(offsets).collect());

    // Without a lease, to any group.
    let config = config(&kafka.brokers(), "groups.plain");
    let broker = broker(&config).await;
    let topic = broker.topic(&config).await.expect("made");
    topic
        .publish(together("file-1", 0..30, 0))
        .await
        .expect("published");
    topic
        .commit("someone", &at([4, 10, 0]))
        .await
        .expect("committed");
    assert_eq!(lag("someone"), lags([6, 0, 10]));
    topic
        .commit("someone", &at([5, 10, 10]))
        .await
        .expect("committed");
    assert_eq!(lag("someone"), lags([5, 0, 0]));

    // With a lease, through its member.
    let config = TopicConfig {
        name: "groups.leased".into(),
        ..config
    };
    let lease = broker.lease(&config.name).await.expect("asked");
    lease.wait().await.expect("held");
    let topic = broker.topic(&config).await.expect("made");
    topic
        .publish(together("file-1", 0..30, 0))
        .await
        .expect("published");
    let group = falaj_topic::group_of(&config.name);
    topic
        .commit(&group, &at([4, 10, 0]))
        .await
        .expect("committed");
    // The end of a transaction takes an offset in each partition.
    let seen: Vec<_> = lag(&group)
        .into_iter()
        .filter(|(_, lag)| lag != "-")
        .collect();
    assert_eq!(seen, lags([7, 1, 11]));
    drop(lease);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_of_transactions_are_gone_past_and_records_counted_without_them() {
    let Some(kafka) = shared() else { return };
    let config = config(&kafka.brokers(), "marks");
    let broker = broker(&config).await;
    let lease = broker.lease(&config.name).await.expect("asked");
    lease.wait().await.expect("held");
    let topic = broker.topic(&config).await.expect("made");
    for n in 0..5 {
        topic
            .publish(together("file-1", n * 3..n * 3 + 3, 0))
            .await
            .expect("published");
    }
    let mut at = Positions::default();
    let mut read = 0;
    // Each partition has five records and five ends.
    let ends = Positions(
        topic
            .offsets()
            .await
            .expect("offsets")
            .iter()
            .map(|o| (o.partition, o.end))
            .collect(),
    );
    assert_eq!(ends.0, BTreeMap::from([(0, 10), (1, 10), (2, 10)]));
    let until = Instant::now() + Duration::from_secs(20);
    while at != ends {
        assert!(Instant::now() < until, "{at:?} never comes to the end");
        let fetched = topic
            .fetch(&at, 1 << 20, Duration::from_millis(300))
            .await
            .expect("fetched");
        for part in fetched {
            read += part.messages.len();
            at.advance(part.partition, part.next);
        }
    }
    assert_eq!(read, 15);
    assert_eq!(
        topic.count(&Positions::default()).await.expect("counted"),
        15
    );
    assert_eq!(
        topic
            .count(&Positions([(0, 4), (1, 10), (2, 9)].into()))
            .await
            .expect("counted"),
        3
    );
    drop(lease);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_that_overtakes_a_reader_is_an_error_with_numbers() {
    let Some(kafka) = shared() else { return };
    let config = config(&kafka.brokers(), "overtaken");
    let broker = broker(&config).await;
    let topic = broker.topic(&config).await.expect("made");
    topic
        .publish(together("file-1", 0..30, 0))
        .await
        .expect("published");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("offsets.json");
    let json = r#"{"partitions":[{"topic":"overtaken","partition":1,"offset":6}],"version":1}"#;
    std::fs::write(&file, json).expect("written");
    let file = file.to_str().expect("UTF-8");
    let deleted = kafka
        .tool("DeleteRecordsCommand", ["--offset-json-file", file])
        .output();
    assert!(deleted.expect("the tool runs").status.success());
    let at = |offset| Positions(BTreeMap::from([(1, offset)]));
    match topic.fetch(&at(5), 1000, Duration::from_secs(5)).await {
        Err(TopicError::Overtaken {
            partition: 1,
            wanted: 5,
            start: 6,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    assert!(
        topic
            .fetch(&at(6), 1000, Duration::from_secs(5))
            .await
            .is_ok()
    );
    let starts: Vec<_> = topic
        .offsets()
        .await
        .expect("offsets")
        .iter()
        .map(|o| (o.start, o.end))
        .collect();
    assert_eq!(starts, [(0, 10), (6, 10), (0, 10)]);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_others_delete_or_make_again_is_told() {
    let Some(kafka) = shared() else { return };
    let config = config(&kafka.brokers(), "deleted");
    let (ours, others) = (broker(&config).await, broker(&config).await);
    let topic = ours.topic(&config).await.expect("made");
    topic
        .publish(together("file-1", 0..30, 0))
        .await
        .expect("published");
    let mut at = Positions::default();
    for part in topic
        .fetch(&at.clone(), 1 << 20, Duration::ZERO)
        .await
        .expect("fetched")
    {
        at.advance(part.partition, part.next);
    }
    others.delete(&config.name).await.expect("deleted");
    let again = others.topic(&config).await.expect("made again");
    assert_ne!(again.identity(), topic.identity());
    again
        .publish(together("file-1", 0..60, 0))
        .await
        .expect("published");
    // The one who reads on learns it before anything of the new topic.
    let until = Instant::now() + Duration::from_secs(30);
    let error = loop {
        assert!(Instant::now() < until, "it is never told");
        match topic.fetch(&at, 1 << 20, Duration::from_millis(500)).await {
            Ok(fetched) => assert!(fetched.is_empty(), "records of another topic"),
            Err(error) if error.passing() => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, TopicError::Deleted { .. }), "{error}");
    let published = topic.publish(together("file-1", 30..33, 0)).await;
    assert!(
        matches!(published, Err(TopicError::Deleted { .. })),
        "{published:?}"
    );
    ours.close().await;
    others.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_differ_from_the_file_and_are_told_not_changed() {
    let Some(kafka) = shared() else { return };
    let config = config(&kafka.brokers(), "drift");
    let broker = broker(&config).await;
    let missing = broker.drift(&config).await;
    assert_eq!(missing.expect("compared"), [], "what is not there");
    broker.create(&config).await.expect("made");
    assert_eq!(broker.drift(&config).await.expect("compared"), []);
    let other = TopicConfig {
        retention: Period(Duration::from_hours(1)),
        replication: Some(2),
        ..config.clone()
    };
    broker.topic(&other).await.expect("it is there");
    let drift = broker.drift(&other).await.expect("compared");
    let told: Vec<_> = drift
        .iter()
        .map(|d| (d.key, &*d.file, &*d.cluster))
        .collect();
    assert_eq!(told, [("replication", "2", "1"), ("retention", "1h", "7d")]);
    let described = broker.describe(&config.name).await.expect("described");
    assert_eq!(described.retention, Some(Duration::from_hours(24 * 7)));
    let many = TopicConfig {
        name: "drift.many".into(),
        replication: Some(3),
        ..config.clone()
    };
    match broker.create(&many).await {
        Err(TopicError::Refused { doing, .. }) => assert_eq!(doing, "make topic `drift.many`"),
        other => panic!("three copies on one broker: {other:?}"),
    }
    broker.close().await;
}

fn make(kafka: &Kafka, topic: &str, more: &[&str]) {
    let args = [&["--create", "--topic", topic][..], more].concat();
    let made = kafka.tool("TopicCommand", args).output().expect("it runs");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_and_lease_that_others_made_are_told_and_a_lease_of_several_is_refused() {
    let Some(kafka) = shared() else { return };
    let config = TopicConfig {
        replication: Some(1),
        ..config(&kafka.brokers(), "beside")
    };
    // As falaj makes them there is nothing to tell.
    let ours = broker(&config).await;
    let lease = ours.lease(&config.name).await.expect("asked");
    lease.wait().await.expect("held");
    let topic = ours.topic(&config).await.expect("made");
    let reject = Reject {
        at: At::Source {
            source: "file-1".into(),
            position: 1,
        },
        reason: Reason::NotJson,
        path: None,
        length: 3,
        time_ms: 1_767_225_600_000,
    };
    topic.reject(&[reject]).await.expect("told");
    assert_eq!(ours.drift(&config).await.expect("compared"), []);
    drop((lease, topic));
    ours.close().await;

    let config = TopicConfig {
        name: "beside.others".into(),
        ..config
    };
    make(
        kafka,
        "beside.others.rejects",
        &["--partitions", "2", "--config", "cleanup.policy=compact"],
    );
    make(kafka, "beside.others.lease", &["--partitions", "2"]);
    let ours = broker(&config).await;
    let asked = TopicConfig {
        replication: Some(2),
        ..config.clone()
    };
    let drift = ours.drift(&asked).await.expect("compared");
    let told: Vec<_> = drift
        .iter()
        .map(|d| (&*d.topic, d.key, &*d.file, &*d.cluster))
        .collect();
    let (rejects, lease) = ("beside.others.rejects", "beside.others.lease");
    for one in [
        (rejects, "partitions", "1", "2"),
        (rejects, "replication", "2", "1"),
        (rejects, "cleanup.policy", "delete", "compact"),
        (lease, "partitions", "1", "2"),
        (lease, "replication", "2", "1"),
    ] {
        assert!(told.contains(&one), "{one:?} is not in {told:?}");
    }
    let of_lease = told.iter().filter(|d| d.0 == lease).count();
    assert_eq!(of_lease, 2, "nothing is ever in it: {told:?}");
    // Each of two would be given one of its partitions.
    match ours.lease(&config.name).await.map(drop) {
        Err(error @ TopicError::SharedLease { partitions: 2, .. }) => {
            assert!(error.hint().is_some_and(|hint| hint.contains(lease)));
        }
        other => panic!("{other:?}"),
    }
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_lies_on_as_many_brokers_as_the_file_says() {
    let Some(kafka) = shared() else { return };
    let config = TopicConfig {
        replication: Some(2),
        ..config(&kafka.brokers(), "lease.copies")
    };
    let broker = broker(&config).await;
    // On the one broker there is, that shows in its refusal.
    match broker.lease(&config.name).await.map(drop) {
        Err(TopicError::Refused { doing, .. }) => {
            assert_eq!(doing, "make topic `lease.copies.lease`");
        }
        other => panic!("two copies on one broker: {other:?}"),
    }
    broker.close().await;
}

fn secured(kafka: &Kafka, listener: Listener, options: &str) -> TopicConfig {
    TopicConfig {
        options: toml::from_str(options).expect("TOML"),
        ..config(&kafka.address(listener), "secured")
    }
}

/// A folder as a pipeline file may have it, with a certificate and passwords.
struct Secrets<'a> {
    kafka: &'a Kafka,
    folder: tempfile::TempDir,
}

impl<'a> Secrets<'a> {
    fn of(kafka: &'a Kafka) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::copy(kafka.certificates().authority(), path("ca.pem")).expect("copied");
        std::fs::write(path("right"), PASSWORD).expect("written");
        std::fs::write(path("wrong"), "hunter2").expect("written");
        Self { kafka, folder }
    }

    async fn connect(
        &self,
        listener: Listener,
        options: &str,
    ) -> Result<(Arc<dyn Broker>, TopicConfig), TopicError> {
        let config = secured(self.kafka, listener, options);
        let folder = self.folder.path();
        connect(&config, folder, folder)
            .await
            .map(|broker| (broker, config))
    }
}

fn login(mechanism: &str, password: &str) -> String {
    format!(
        "'sasl.mechanism' = '{mechanism}'\n'sasl.username' = '{NAME}'\n'sasl.password' = {{ file = '{password}' }}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_sasl_are_spoken() {
    let Some(kafka) = shared() else { return };
    let secrets = Secrets::of(kafka);
    let tls = "'ssl.ca.location' = 'ca.pem'\n";
    let mut next = 0;
    let ways = [
        (Listener::Ssl, format!("'security.protocol' = 'ssl'\n{tls}")),
        (
            Listener::SaslPlaintext,
            format!(
                "'security.protocol' = 'sasl_plaintext'\n{}",
                login("PLAIN", "right")
            ),
        ),
        (
            Listener::SaslPlaintext,
            format!(
                "'security.protocol' = 'sasl_plaintext'\n{}",
                login("SCRAM-SHA-256", "right")
            ),
        ),
        (
            Listener::SaslSsl,
            format!(
                "'security.protocol' = 'sasl_ssl'\n{tls}{}",
                login("SCRAM-SHA-512", "right")
            ),
        ),
        (
            Listener::SaslSsl,
            format!(
                "'security.protocol' = 'sasl_ssl'\n{tls}{}",
                login("PLAIN", "right")
            ),
        ),
    ];
    for (listener, options) in ways {
        let (broker, config) = secrets
            .connect(listener, &options)
            .await
            .expect("connected");
        let lease = broker.lease(&config.name).await.expect("asked");
        lease.wait().await.expect("held");
        let topic = broker.topic(&config).await.expect("there");
        topic
            .publish(together("file-1", next..next + 3, 0))
            .await
            .expect("published");
        next += 3;
        assert_eq!(positions_of(&*topic, "file-1").await, split(0..next));
        drop(lease);
        broker.close().await;
    }
}

/// Whether an error is the one to be told.
type Is = fn(&TopicError) -> bool;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_tls_and_sasl_are_told_apart() {
    let Some(kafka) = shared() else { return };
    let secrets = Secrets::of(kafka);
    let tls = "'ssl.ca.location' = 'ca.pem'\n";
    let failures: [(Listener, String, Is); 6] = [
        (
            Listener::SaslPlaintext,
            format!(
                "'security.protocol' = 'sasl_plaintext'\n{}",
                login("SCRAM-SHA-512", "wrong")
            ),
            |e| matches!(e, TopicError::Unauthenticated { .. }),
        ),
        (
            Listener::SaslSsl,
            format!(
                "'security.protocol' = 'sasl_ssl'\n{tls}{}",
                login("PLAIN", "wrong")
            ),
            |e| matches!(e, TopicError::Unauthenticated { .. }),
        ),
        (
            Listener::Ssl,
            "'security.protocol' = 'ssl'\n".to_owned(),
            |e| matches!(e, TopicError::Tls { .. }),
        ),
        (
            Listener::Plaintext,
            format!("'security.protocol' = 'ssl'\n{tls}"),
            |e| matches!(e, TopicError::Tls { .. } | TopicError::Unreachable { .. }),
        ),
        (Listener::Ssl, "'client.id' = 'plain'\n".to_owned(), |e| {
            matches!(e, TopicError::Unreachable { .. })
        }),
        (
            Listener::Ssl,
            "'security.protocol' = 'ssl'\n'ssl.ca.location' = 'not-there.pem'\n".to_owned(),
            |e| matches!(e, TopicError::Setting { .. }),
        ),
    ];
    for (listener, options, is) in failures {
        let began = Instant::now();
        let Err(error) = secrets.connect(listener, &options).await else {
            panic!("connected with {options}")
        };
        assert!(is(&error), "{options}: {error:?}");
        assert!(!error.to_string().contains("hunter2") && !error.to_string().contains(PASSWORD));
        assert!(error.hint().is_some(), "{error}");
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{error} took too long"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_not_there_is_told_within_seconds() {
    let nowhere = Path::new("/nowhere");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr();
    let port = port.expect("bound").port();
    for (brokers, part) in [
        (format!("127.0.0.1:{port}"), "no answer from"),
        (
            "no-such-host.invalid:9092".to_owned(),
            "cannot find a host of",
        ),
    ] {
        let began = Instant::now();
        let error = connect(&config(&brokers, "x"), nowhere, nowhere)
            .await
            .err()
            .expect("nobody");
        assert!(error.to_string().starts_with(part), "{error}");
        assert!(error.passing() && error.hint().is_some());
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "{error} took too long"
        );
    }
}
