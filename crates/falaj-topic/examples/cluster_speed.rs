//! What a cluster costs: publishing with and without a lease, and fetching next to the least that a
//! consumer of the same library can do (poll, count bytes):
//! `cargo run --release -p falaj-topic --example cluster_speed BROKERS [records]`.
//!
//! CPU time is that of this process; the broker's is not in it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use falaj_record::Positions;
use falaj_topic::conformance::together;
use falaj_topic::{Broker, Topic, TopicConfig, connect};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

const PADDING: usize = 120;
const PARTITIONS: i32 = 3;

/// User and system time of this process, in seconds (Linux counts hundredths).
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit_once(") ")
        .map_or("", |(_, rest)| rest)
        .split(' ');
    let ticks: Vec<f64> = fields.filter_map(|f| f.parse().ok()).collect();
    // The state, a letter, is not among the numbers: fields 14 and 15 are at 10 and 11.
    ticks
        .get(10..12)
        .map_or(0.0, |t| t.iter().sum::<f64>() / 100.0)
}

fn report(what: &str, records: u64, since: (Instant, f64)) {
    let (wall, cpu) = (since.0.elapsed().as_secs_f64(), cpu() - since.1);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let each = |seconds: f64| seconds * 1e6 / records as f64;
    eprintln!(
        "{what:<44} {:>9.3} µs wall, {:>7.3} µs CPU a record",
        each(wall),
        each(cpu)
    );
}

fn config(brokers: &str, name: &str) -> TopicConfig {
    TopicConfig {
        name: name.to_owned(),
        brokers: brokers.to_owned(),
        partitions: PARTITIONS.unsigned_abs(),
        ..TopicConfig::default()
    }
}

async fn publish(what: &str, topic: &dyn Topic, records: u64) {
    for size in [1, 250, 1000] {
        let calls = (records / size).min(if size == 1 { 300 } else { 100_000 });
        let sent: Vec<_> = (0..calls)
            .map(|n| together("file-1", n * size..(n + 1) * size, PADDING))
            .collect();
        let since = (Instant::now(), cpu());
        for records in sent {
            topic.publish(records).await.expect("published");
        }
        report(
            &format!("publish {what}, {size} a call"),
            calls * size,
            since,
        );
    }
}

async fn fetch(topic: &dyn Topic) {
    let offsets = topic.offsets().await.expect("offsets");
    let mut at = Positions(offsets.iter().map(|o| (o.partition, o.start)).collect());
    let since = (Instant::now(), cpu());
    let mut records = 0;
    loop {
        let fetched = topic
            .fetch(&at, 256 << 10, Duration::from_millis(500))
            .await;
        let fetched = fetched.expect("fetched");
        if fetched.is_empty() {
            break;
        }
        for part in fetched {
            records += part.messages.len() as u64;
            at.advance(part.partition, part.next);
        }
    }
    report("fetch", records, since);
}

fn floor(brokers: &str, name: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "floor")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(name, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("assigned");
    let since = (Instant::now(), cpu());
    let (mut ends, mut records, mut bytes) = (0, 0, 0);
    while ends < PARTITIONS {
        match consumer.poll(Duration::from_secs(1)) {
            Some(Ok(message)) => {
                records += 1;
                bytes += message.payload().map_or(0, <[u8]>::len);
            }
            Some(Err(_)) => ends += 1,
            None => {}
        }
    }
    report(
        &format!("poll and count ({} MB)", bytes / 1_000_000),
        records,
        since,
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args().skip(1);
    let brokers = args.next().expect("addresses of brokers");
    let records: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let nowhere = Path::new("/nowhere");
    let plain = config(&brokers, "speed.plain");
    let broker: Arc<dyn Broker> = connect(&plain, nowhere, nowhere).await.expect("connected");
    let topic = broker.topic(&plain).await.expect("made");
    publish("without a lease", &*topic, records).await;
    for _ in 0..2 {
        fetch(&*topic).await;
        let (brokers, name) = (brokers.clone(), plain.name.clone());
        tokio::task::spawn_blocking(move || floor(&brokers, &name))
            .await
            .expect("no panic");
    }
    let leased = config(&brokers, "speed.leased");
    let lease = broker.lease(&leased.name).await.expect("asked");
    lease.wait().await.expect("held");
    let topic = broker.topic(&leased).await.expect("made");
    publish("with a lease", &*topic, records).await;
    for config in [&plain, &leased] {
        broker.delete(&config.name).await.expect("deleted");
    }
    drop(lease);
    broker.close().await;
}
