//! The scenarios over a real Kafka: two topics of four partitions, one of raw records as others write
//! them, one of those that falaj cleared.
//!
//! The raw topic is not compressed; falaj's is as falaj makes it, published under a lease. One message
//! in a thousand of the raw topic is no record.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use falaj_record::{Fetched, Positions, ViewKind};
use falaj_topic::{Broker, Topic};
use rdkafka::Message as _;

use crate::answer::Answer;
use crate::client::{self, Producer};
use crate::example::{Example, Pipeline};
use crate::floor::Counts;
use crate::measure::Meter;
use crate::process::{Running, falaj, key_file, ledger};
use crate::scenarios::{Data, Drained, FETCH_BYTES, FIRST_MS, MINUTE_MS, Outcome};

/// The topic of raw records.
pub const RAW: &str = "raw";
/// The topic of cleared records: the example's.
pub const CLEARED: &str = "messages";
/// As `pipeline.rs` waits for records.
const FETCH_WAIT: Duration = Duration::from_millis(50);
/// How long raw records wait for more, where the topic is filled.
const FILL_LINGER_MS: u32 = 50;

/// Fills both topics.
pub async fn fill(data: &Data) -> Outcome {
    let meter = Meter::start();
    // Not by age: the event times lie in the past.
    client::create(&data.brokers, RAW, &[("retention.ms", "-1")]).await;
    let mut producer = Producer::new(&data.brokers, RAW, FILL_LINGER_MS);
    for (raw, n) in data.raws().iter().zip(0..) {
        let time = Some(data.time_ms(n));
        producer.send(&raw.bytes, time);
        if Data::invalid_after(n) {
            // By turns cut short and something else.
            let invalid = match n / 1000 % 2 {
                0 => &raw.bytes[..raw.bytes.len() / 2],
                _ => b"ERROR upstream timeout",
            };
            producer.send(invalid, time);
        }
    }
    producer.finish();

    let example = Example::new();
    let cluster = Cluster::open(data, &example).await;
    let lease = cluster.broker.lease(CLEARED).await.expect("it is free");
    lease.wait().await.expect("it is given");
    for records in data.cleared(&example) {
        let published = cluster.topic.publish(records).await;
        published.expect("the cluster takes it");
    }
    cluster.broker.close().await;
    meter.stop().into()
}

/// The least: librdkafka reads all messages, and their bytes are counted.
pub fn read(data: &Data, topic: &str) -> Outcome {
    let meter = Meter::start();
    let mut bytes = 0;
    let invalid = if topic == RAW { data.invalid() } else { 0 };
    let consumer = client::read(&data.brokers, topic, data.records + invalid, |message| {
        bytes += message.payload().map_or(0, <[u8]>::len);
    });
    let cost = meter.stop();
    drop(consumer);
    assert!(bytes > 0, "messages hold something");
    cost.into()
}

/// By hand over raw records.
pub fn parse(data: &Data) -> Outcome {
    let meter = Meter::start();
    let mut counts = Counts::default();
    let messages = data.records + data.invalid();
    let consumer = client::read(&data.brokers, RAW, messages, |message| {
        counts.add_raw(message.payload().unwrap_or_default(), minute(message));
    });
    let cost = meter.stop();
    drop(consumer);
    assert_eq!(counts.invalid, data.invalid(), "what is no record is found");
    Outcome {
        cost,
        answer: Some(counts.answer()),
    }
}

/// By hand over what falaj cleared.
pub fn parse_cleared(data: &Data) -> Outcome {
    let meter = Meter::start();
    let mut counts = Counts::default();
    let consumer = client::read(&data.brokers, CLEARED, data.records, |message| {
        counts.add_cleared(message.payload().unwrap_or_default(), minute(message));
    });
    let cost = meter.stop();
    drop(consumer);
    Outcome {
        cost,
        answer: Some(counts.answer()),
    }
}

fn minute(message: &impl rdkafka::Message) -> i64 {
    message.timestamp().to_millis().expect("it has a time") / MINUTE_MS
}

/// falaj's own reading of its topic, without decoding.
pub async fn fetch(data: &Data) -> Outcome {
    let example = Example::new();
    let meter = Meter::start();
    let cluster = Cluster::open(data, &example).await;
    let (mut positions, mut count) = (Positions::default(), 0);
    while let Some(fetched) = cluster.next(&mut positions).await {
        count += fetched
            .iter()
            .map(|part| part.messages.len())
            .sum::<usize>();
    }
    let cost = meter.stop();
    data.expect_all(count);
    cost.into()
}

/// The same into the three aggregate views.
pub async fn views(data: &Data) -> Outcome {
    let example = Example::new();
    let mut decoder = example.decoder();
    let mut drained = Drained::new(example.views(ViewKind::Aggregate));
    let meter = Meter::start();
    let cluster = Cluster::open(data, &example).await;
    let mut positions = Positions::default();
    while let Some(fetched) = cluster.next(&mut positions).await {
        drained.push(&decoder.decode(&fetched, FIRST_MS).batch);
    }
    drained.finish(meter)
}

/// The binary over its filled topic: start, lease, page, SQLite, checkpoints and end included.
pub fn line(data: &Data) -> Outcome {
    let nothing = data.scratch.join("nothing.ndjson");
    std::fs::write(&nothing, "").expect("there is room");
    let pipeline =
        Pipeline::of_file(&nothing).on_cluster(&data.brokers, CLEARED, &key_file(&data.scratch));
    let running = Running::start(&pipeline, &data.scratch, &["--until-caught-up"]);
    let (cost, stdout) = running.ended();
    let out = ledger(&stdout).topic.out;
    assert_eq!(out, data.records, "the line decoded all records");
    Outcome {
        cost,
        answer: Some(stored(data).expect("the store can be read")),
    }
}

/// The binary from raw records on another topic: gate, its own topic, views, SQLite.
pub fn raw_line(data: &Data) -> Outcome {
    let own = format!("{CLEARED}-{}", std::process::id());
    let pipeline =
        Pipeline::of_topic(RAW).on_cluster(&data.brokers, &own, &key_file(&data.scratch));
    let mut running = Running::start(&pipeline, &data.scratch, &[]);
    running.until(|| stored(data).is_ok_and(|answer| answer.is_of(data.records)));
    let (cost, _) = running.ended();
    assert_eq!(rejects(data), data.invalid(), "what is no record is found");
    Outcome {
        cost,
        answer: Some(stored(data).expect("the store can be read")),
    }
}

fn stored(data: &Data) -> rusqlite::Result<Answer> {
    Answer::of_store(&data.scratch.join("data/views.sqlite"))
}

fn rejects(data: &Data) -> u64 {
    let listed = falaj()
        .args(["rejects", "list"])
        .arg(data.scratch.join("falaj.toml"))
        .arg("--data-dir")
        .arg(data.scratch.join("data"))
        .output()
        .expect("`bench/run` built falaj");
    assert!(listed.status.success(), "falaj lists its rejects");
    listed.stdout.split(|byte| *byte == b'\n').count() as u64 - 1
}

/// The example's topic on the cluster.
struct Cluster {
    broker: Arc<dyn Broker>,
    topic: Arc<dyn Topic>,
}

impl Cluster {
    async fn open(data: &Data, example: &Example) -> Self {
        let config = example.cluster_topic(&data.brokers);
        let unused = Path::new("unused");
        let broker = falaj_topic::connect(&config, unused, unused).await;
        let broker = broker.expect("the cluster answers");
        let topic = broker.topic(&config).await.expect("a topic");
        Self { broker, topic }
    }

    async fn next(&self, positions: &mut Positions) -> Option<Vec<Fetched>> {
        let fetched = self.topic.fetch(positions, FETCH_BYTES, FETCH_WAIT).await;
        let fetched = fetched.expect("it can be read");
        for part in &fetched {
            positions.advance(part.partition, part.next);
        }
        (!fetched.is_empty()).then_some(fetched)
    }
}
