//! librdkafka, as most clients use it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::support::{PATIENCE, Running, options};

fn config(broker: &Running) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker.address.to_string())
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    config
}

fn consumer(broker: &Running, group: &str, strategy: &str) -> BaseConsumer {
    config(broker)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "200")
        .set("partition.assignment.strategy", strategy)
        .create()
        .unwrap()
}

/// Produces numbered values with keys, and waits for all acknowledgements.
async fn produce(producer: &FutureProducer, topic: &str, numbers: std::ops::Range<usize>) {
    let sent = numbers.map(|n| {
        let (key, value) = (format!("key {n}"), format!("value {n}"));
        async move {
            let headers = OwnedHeaders::new().insert(Header {
                key: "number",
                value: Some(&n.to_string()),
            });
            let record = FutureRecord::to(topic)
                .key(&key)
                .payload(&value)
                .headers(headers);
            producer
                .send(record, PATIENCE)
                .await
                .map_err(|(e, _)| e)
                .unwrap();
        }
    });
    futures::future::join_all(sent).await;
}

/// Polls until `enough` says so of all values read.
fn drain(consumer: &BaseConsumer, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
    let (mut values, until) = (Vec::new(), Instant::now() + PATIENCE);
    while !enough(&values) {
        assert!(Instant::now() < until, "{} values only", values.len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message.unwrap();
        let value = std::str::from_utf8(message.payload().unwrap()).unwrap();
        let number = message.headers().unwrap().get(0);
        assert_eq!(
            value,
            format!(
                "value {}",
                std::str::from_utf8(number.value.unwrap()).unwrap()
            )
        );
        values.push(value.to_owned());
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn every_compression_with_idempotence() {
    let broker = Running::start(options()).await;
    broker.client().await.create("packed", 1).await;
    // librdkafka is built here with these; snappy and lz4 come with it.
    let compressions = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (index, compression) in compressions.into_iter().enumerate() {
        let producer: FutureProducer = config(&broker)
            .set("enable.idempotence", "true")
            .set("compression.type", compression)
            .set("linger.ms", "20")
            .create()
            .unwrap();
        produce(&producer, "packed", index * 100..(index + 1) * 100).await;
    }
    let consumer = consumer(&broker, "unpacker", "range");
    consumer.subscribe(&["packed"]).unwrap();
    let values = tokio::task::spawn_blocking(move || drain(&consumer, |v| v.len() == 500));
    let values: BTreeSet<String> = values.await.unwrap().into_iter().collect();
    assert_eq!(values.len(), 500);
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_share_rebalance_commit_and_go_on() {
    for strategy in ["range", "roundrobin", "cooperative-sticky"] {
        let broker = Running::start(options()).await;
        broker.client().await.create("shared", 4).await;
        let producer: FutureProducer = config(&broker).create().unwrap();
        produce(&producer, "shared", 0..200).await;
        let (one, two) = (
            consumer(&broker, "readers", strategy),
            consumer(&broker, "readers", strategy),
        );
        let (one, two) = tokio::task::spawn_blocking(move || {
            one.subscribe(&["shared"]).unwrap();
            assert_eq!(drain(&one, |v| v.len() == 200).len(), 200);
            one.commit_consumer_state(CommitMode::Sync).unwrap();
            two.subscribe(&["shared"]).unwrap();
            let until = Instant::now() + PATIENCE;
            let count = |c: &BaseConsumer| c.assignment().unwrap().count();
            while (count(&one), count(&two)) != (2, 2) {
                assert!(
                    Instant::now() < until,
                    "{strategy}: {} and {}",
                    count(&one),
                    count(&two)
                );
                for consumer in [&one, &two] {
                    assert!(consumer.poll(Duration::from_millis(20)).is_none());
                }
            }
            (one, two)
        })
        .await
        .unwrap();
        // One leaves: the other has everything, and goes on after what was committed.
        produce(&producer, "shared", 200..300).await;
        let values = tokio::task::spawn_blocking(move || {
            drop(one);
            // What was read before the rebalance and not committed is read again.
            drain(&two, |v| v.iter().collect::<BTreeSet<_>>().len() == 100)
        });
        let values: BTreeSet<String> = values.await.unwrap().into_iter().collect();
        assert_eq!(values.len(), 100, "{strategy}");
        assert!(values.contains("value 200") && values.contains("value 299"));
        drop(producer);
        broker.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_watermarks_and_metadata() {
    let broker = Running::start(options()).await;
    let producer: FutureProducer = config(&broker).create().unwrap();
    // The topic is made by producing to it.
    produce(&producer, "automatic", 0..50).await;
    let consumer = consumer(&broker, "looker", "range");
    tokio::task::spawn_blocking(move || {
        let watermarks = consumer.fetch_watermarks("automatic", 0, PATIENCE).unwrap();
        assert_eq!(watermarks, (0, 50));
        let mut times = TopicPartitionList::new();
        times
            .add_partition_offset("automatic", 0, Offset::Offset(0))
            .unwrap();
        let found = consumer.offsets_for_times(times, PATIENCE).unwrap();
        assert_eq!(found.elements()[0].offset(), Offset::Offset(0));
        let mut from = TopicPartitionList::new();
        from.add_partition_offset("automatic", 0, Offset::Offset(45))
            .unwrap();
        consumer.assign(&from).unwrap();
        assert_eq!(drain(&consumer, |v| v.len() == 5)[0], "value 45");
        let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
        assert_eq!(metadata.brokers().len(), 1);
        assert_eq!(metadata.topics().len(), 2);
    })
    .await
    .unwrap();
    producer.flush(PATIENCE).unwrap();
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_fail_at_once_and_for_good() {
    let broker = Running::start(options()).await;
    let producer: FutureProducer = config(&broker)
        .set("transactional.id", "transaction")
        .create()
        .unwrap();
    let begun = tokio::task::spawn_blocking(move || producer.init_transactions(PATIENCE));
    let error = begun.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("ransaction"), "{error}");
    broker.end().await;
}
