//! The embedded log's listener next to a real Kafka: the same client, the same messages, and for each
//! promise of durability a topic on either.
//!
//! Always: every message is acknowledged and read again, or the run ends.
//! A topic's `flush.messages` says how durable it is, on both sides: 1, each batch is on the disk before
//! it is acknowledged; the largest number, the system has it. So one process of each serves both.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use falaj_servers::Kafka;
use rdkafka::Message as _;
use rdkafka::producer::{BaseRecord, Producer as _};

use crate::client::{self, PARTITIONS, Producer};
use crate::measure::{Whose, cpu_s, peak_mb};
use crate::process::BrokerProcess;
use crate::table::{count, highest, line, lowest, median};

const MESSAGE_BYTES: usize = 1024;
/// None, and what librdkafka and the Java client have by default.
const LINGERS_MS: [u32; 2] = [0, 5];
/// At how many a second messages come where the time to their reader is measured, and for how long.
/// The first second does not count.
const PER_SECOND: [u32; 2] = [100, 500];
const SECONDS: u32 = 6;
/// Nothing takes longer than that, unless something is wrong. A broker that makes each message durable
/// on its own may not keep up with the rate.
const PATIENCE: Duration = Duration::from_mins(5);

const ON_DISK: &str = "1";
const IN_MEMORY: &str = "9223372036854775807";

/// A broker and a promise.
struct Side {
    name: &'static str,
    durable: &'static str,
    flush: &'static str,
    brokers: String,
    process: String,
}

/// What one round gave.
struct Round {
    produced_mb_s: f64,
    fetched_mb_s: f64,
    /// From producing to consuming, for each rate.
    times_ms: [Times; 2],
    /// CPU seconds of the broker for each gigabyte.
    produce_s: f64,
    fetch_s: f64,
}

/// Half of all messages, and 99 of 100, are read within so many milliseconds.
#[derive(Clone, Copy)]
struct Times {
    half_ms: f64,
    most_ms: f64,
}

impl Times {
    fn of(mut all_ms: Vec<f64>) -> Self {
        all_ms.sort_by(f64::total_cmp);
        Self {
            half_ms: all_ms[all_ms.len() / 2],
            most_ms: all_ms[all_ms.len() * 99 / 100],
        }
    }
}

/// A side with one linger, and its rounds.
struct Row {
    side: usize,
    linger_ms: u32,
    rounds: Vec<Round>,
}

/// Measures, and gives the table.
pub async fn measure(kafka: &Kafka, folder: &Path, messages: u64, rounds: u32) -> String {
    let falaj = BrokerProcess::start(&folder.join("falaj"));
    let sides = sides(&falaj, kafka);
    let pairs = (0..sides.len()).flat_map(|side| LINGERS_MS.map(|linger| (side, linger)));
    let mut rows: Vec<Row> = pairs
        .map(|(side, linger_ms)| Row {
            side,
            linger_ms,
            rounds: Vec::new(),
        })
        .collect();
    let sync_ms = sync_ms(folder);
    // The first does not count: a JVM is slow before it has compiled what it runs.
    for round in 0..=rounds {
        for row in &mut rows {
            let side = &sides[row.side];
            eprintln!(
                "round {round} of {rounds}: {}, {}, linger {} ms",
                side.name, side.durable, row.linger_ms
            );
            // What the row before left to be written back would hold up this one's disk.
            let synced = std::process::Command::new("sync").status();
            assert!(synced.is_ok_and(|s| s.success()), "the disk takes it");
            let one = one(side, row.linger_ms, messages).await;
            if round > 0 {
                row.rounds.push(one);
            }
        }
    }
    table(&sides, &rows, messages, sync_ms)
}

fn sides(falaj: &BrokerProcess, kafka: &Kafka) -> [Side; 4] {
    let falaj = |durable, flush| Side {
        name: "falaj",
        durable,
        flush,
        brokers: falaj.brokers().to_owned(),
        process: falaj.process(),
    };
    let kafka = |durable, flush| Side {
        name: "Kafka",
        durable,
        flush,
        brokers: kafka.brokers(),
        process: kafka.pid().to_string(),
    };
    [
        falaj("on the disk", ON_DISK),
        kafka("on the disk", ON_DISK),
        falaj("in the system's memory", IN_MEMORY),
        kafka("in the system's memory", IN_MEMORY),
    ]
}

/// Produces, fetches and measures the time between both, on topics of their own.
async fn one(side: &Side, linger_ms: u32, messages: u64) -> Round {
    let settings = [("flush.messages", side.flush)];
    client::create(&side.brokers, "bulk", &settings).await;
    let (produced, produce_s) = spent(side, || produce(side, linger_ms, messages));
    let (fetched, fetch_s) = spent(side, || fetch(side, messages));
    client::delete(&side.brokers, "bulk").await;
    let mut times_ms = Vec::new();
    for rate in PER_SECOND {
        let topic = format!("trickle-{rate}");
        client::create(&side.brokers, &topic, &settings).await;
        times_ms.push(times(side, &topic, linger_ms, rate));
        client::delete(&side.brokers, &topic).await;
    }
    let megabytes = count(messages * MESSAGE_BYTES as u64) / 1e6;
    Round {
        produced_mb_s: megabytes / produced.as_secs_f64(),
        fetched_mb_s: megabytes / fetched.as_secs_f64(),
        times_ms: [times_ms[0], times_ms[1]],
        produce_s: produce_s / megabytes * 1000.0,
        fetch_s: fetch_s / megabytes * 1000.0,
    }
}

/// What a piece of work gives, and the CPU seconds of the broker meanwhile.
fn spent<T>(side: &Side, work: impl FnOnce() -> T) -> (T, f64) {
    let before = cpu_s(&side.process, Whose::Own);
    let done = work();
    (done, cpu_s(&side.process, Whose::Own) - before)
}

/// The time until all is acknowledged.
fn produce(side: &Side, linger_ms: u32, messages: u64) -> Duration {
    let mut producer = Producer::new(&side.brokers, "bulk", linger_ms);
    let value = noise();
    let start = Instant::now();
    for _ in 0..messages {
        producer.send(&value, None);
    }
    producer.finish();
    start.elapsed()
}

/// The time until all is read.
fn fetch(side: &Side, messages: u64) -> Duration {
    let start = Instant::now();
    let mut bytes = 0;
    let consumer = client::read(&side.brokers, "bulk", messages, |message| {
        bytes += message.payload().map_or(0, <[u8]>::len);
    });
    let took = start.elapsed();
    drop(consumer);
    assert_eq!(bytes as u64, messages * MESSAGE_BYTES as u64, "as a whole");
    took
}

/// From the call that produces a message to the one that gives it.
fn times(side: &Side, topic: &str, linger_ms: u32, rate: u32) -> Times {
    let total = rate * SECONDS;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let consumer = client::consumer(&side.brokers, topic);
            let mut times = Vec::new();
            while times.len() < total as usize {
                let message = client::next(&consumer);
                times.push(start.elapsed().saturating_sub(sent_at(&message)));
            }
            times
        });
        trickle(side, topic, linger_ms, rate, start);
        let times = reading.join().expect("it reads all");
        let counted = times.iter().skip(rate as usize);
        Times::of(counted.map(|time| time.as_secs_f64() * 1e3).collect())
    })
}

/// When a message was sent, which it says itself.
fn sent_at(message: &impl rdkafka::Message) -> Duration {
    let value = message.payload().and_then(|value| value.first_chunk());
    Duration::from_nanos(u64::from_be_bytes(*value.expect("the time")))
}

/// Produces at a rate, each message with its time.
fn trickle(side: &Side, topic: &str, linger_ms: u32, rate: u32, start: Instant) {
    let (producer, failures) = client::threaded(&side.brokers, linger_ms);
    let mut value = noise();
    let first = Instant::now();
    for n in 0..rate * SECONDS {
        let due = first + Duration::from_secs(1) / rate * n;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = u64::try_from(start.elapsed().as_nanos()).expect("it is soon");
        value[..8].copy_from_slice(&now.to_be_bytes());
        let partition = n.cast_signed() % PARTITIONS;
        let record = BaseRecord::<(), [u8]>::to(topic).partition(partition);
        let sent = producer.send(record.payload(&value));
        assert!(sent.is_ok(), "the queue is never full");
    }
    producer.flush(PATIENCE).expect("all are acknowledged");
    failures.expect_none();
}

/// A message that does not compress.
fn noise() -> Vec<u8> {
    let mut state = 42_u64;
    let bytes = (0..MESSAGE_BYTES / 8).flat_map(|_| {
        // An xorshift generator.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    });
    bytes.collect()
}

/// What the disk takes to make 4 KiB durable, in milliseconds: what no broker can do better.
fn sync_ms(folder: &Path) -> f64 {
    let file = File::create(folder.join("sync")).expect("the folder can be written");
    let times: Vec<f64> = (0..100)
        .map(|n| {
            let start = Instant::now();
            file.write_all_at(&[1; 4096], n * 4096)
                .expect("there is room");
            file.sync_data().expect("the disk works");
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    median(&times)
}

fn table(sides: &[Side], rows: &[Row], messages: u64, sync_ms: f64) -> String {
    let rounds = rows[0].rounds.len();
    let mut text = format!(
        "{messages} messages of {MESSAGE_BYTES} bytes, {PARTITIONS} partitions, `acks=all`, without compression; median of {rounds} rounds (lowest to highest).\n\
         p50, p99: from producing to consuming, at so many messages a second.\n\
         The disk takes {sync_ms:.2} ms to make 4 KiB durable.\n\n"
    );
    let columns = [
        "acknowledged when it is",
        "linger",
        "broker",
        "produce MB/s",
        "fetch MB/s",
        "p50, p99 ms at 100/s",
        "p50, p99 ms at 500/s",
        "broker's CPU s per GB produced",
        "per GB fetched",
    ];
    line(&mut text, &columns.map(str::to_owned));
    let _ = writeln!(text, "|---|--:|---|{}", "--:|".repeat(columns.len() - 3));
    // Side by side what promises the same.
    let mut order: Vec<&Row> = rows.iter().collect();
    order.sort_by_key(|row| (row.side / 2, row.linger_ms, row.side));
    for row in &order {
        let side = &sides[row.side];
        let with_range = |of: fn(&Round) -> f64| {
            let all: Vec<f64> = row.rounds.iter().map(of).collect();
            let (least, most) = (lowest(&all), highest(&all));
            format!("{:.0} ({least:.0} to {most:.0})", median(&all))
        };
        let cells = [
            side.durable.to_owned(),
            format!("{} ms", row.linger_ms),
            side.name.to_owned(),
            with_range(|r| r.produced_mb_s),
            with_range(|r| r.fetched_mb_s),
            row.times(0),
            row.times(1),
            format!("{:.1}", row.median(|r| r.produce_s)),
            format!("{:.1}", row.median(|r| r.fetch_s)),
        ];
        line(&mut text, &cells);
    }
    text.push('\n');
    for pair in order.chunks(2) {
        let [falaj, kafka] = pair else { continue };
        let ratio = |of: fn(&Round) -> f64| falaj.median(of) / kafka.median(of);
        let _ = writeln!(
            text,
            "- {}, linger {} ms: falaj produces {:.2} times and fetches {:.2} times as fast as Kafka; at {} messages a second p50 is {:.2} and p99 {:.2} times as long.",
            sides[falaj.side].durable,
            falaj.linger_ms,
            ratio(|r| r.produced_mb_s),
            ratio(|r| r.fetched_mb_s),
            PER_SECOND[0],
            ratio(|r| r.times_ms[0].half_ms),
            ratio(|r| r.times_ms[0].most_ms),
        );
    }
    let peak = |side: &Side| peak_mb(&side.process).expect("it still runs");
    let _ = writeln!(
        text,
        "\nPeak memory: falaj {:.0} MB, Kafka {:.0} MB.",
        peak(&sides[0]),
        peak(&sides[1])
    );
    text
}

impl Row {
    fn times(&self, rate: usize) -> String {
        let half = self.median(|r| r.times_ms[rate].half_ms);
        let most = self.median(|r| r.times_ms[rate].most_ms);
        format!("{half:.1}, {most:.1}")
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let all: Vec<f64> = self.rounds.iter().map(of).collect();
        median(&all)
    }
}
