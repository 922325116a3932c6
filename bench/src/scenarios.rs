//! The scenarios: each prepares, measures one part of the line, and checks what came out. Those over
//! a cluster are in `cluster.rs`.
//!
//! Event times are made up, an hour over the whole data set, so that there are 60 windows.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use falaj_privacy::Cleared;
use falaj_record::{Fetched, Message, Outbound, Positions, Raw, ViewKind};
use falaj_source::{FileConfig, Opening, SourceConfig};
use falaj_topic::{Broker, Embedded, Topic};
use falaj_views::Views;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::cluster;
use crate::example::{Example, Pipeline};
use crate::floor::{self, Counts};
use crate::measure::{Cost, Meter};
use crate::process::{Running, ledger};

/// Records of one call to the gate and to the topic.
pub const BATCH: usize = 1000;
/// Bytes of one read of the topic, where a read costs least.
pub const FETCH_BYTES: usize = 256 << 10;
/// As `pipeline.rs` does while it catches up.
const DRAIN_EVERY: Duration = Duration::from_millis(200);
/// 2026-01-01T00:00:00Z.
pub const FIRST_MS: i64 = 1_767_225_600_000;
const HOUR_MS: i64 = 3_600_000;
pub const MINUTE_MS: i64 = 60_000;
/// Of so many records one more is none, where raw records are on a cluster.
const RECORDS_PER_INVALID: u64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    FloorRead,
    FloorParse,
    FloorTopic,
    Gate,
    Decode,
    FileViews,
    Publish,
    /// Fills the topic for those that read it; not in the table.
    Fill,
    TopicViews,
    TopicUsers,
    Line,
    /// Fills the topics of the cluster; not in the table.
    KafkaFill,
    KafkaRead,
    KafkaParse,
    KafkaReadCleared,
    KafkaParseCleared,
    KafkaFetch,
    KafkaViews,
    KafkaLine,
    KafkaRawLine,
}

impl Scenario {
    /// Those of the table, in its order.
    pub fn all(cluster: bool) -> impl Iterator<Item = Self> {
        let fills = [Self::Fill, Self::KafkaFill];
        let all = Self::value_variants().iter().copied();
        all.filter(move |s| s.needs_cluster() == cluster && !fills.contains(s))
    }

    pub fn needs_cluster(self) -> bool {
        self.name().starts_with("kafka-")
    }

    pub fn name(self) -> String {
        self.to_possible_value()
            .expect("none is hidden")
            .get_name()
            .to_owned()
    }
}

/// What a scenario runs on.
#[derive(Clone)]
pub struct Data {
    pub records: u64,
    /// The file of records.
    pub file: PathBuf,
    /// The topic that `fill` made.
    pub topic: PathBuf,
    /// A folder of this run's own.
    pub scratch: PathBuf,
    /// The cluster, where the scenario needs one.
    pub brokers: String,
}

#[derive(Serialize, Deserialize)]
pub struct Outcome {
    pub cost: Cost,
    /// Where there are views: what they say.
    pub answer: Option<Answer>,
}

impl From<Cost> for Outcome {
    fn from(cost: Cost) -> Self {
        Self { cost, answer: None }
    }
}

pub async fn run(scenario: Scenario, data: &Data) -> Outcome {
    match scenario {
        Scenario::FloorRead => floor_read(data),
        Scenario::FloorParse => floor_parse(data),
        Scenario::FloorTopic => floor_topic(data).await,
        Scenario::Gate => gate(data),
        Scenario::Decode => decode(data),
        Scenario::FileViews => file_views(data).await,
        Scenario::Publish => publish(data, &data.scratch).await,
        Scenario::Fill => publish(data, &data.topic).await,
        Scenario::TopicViews => topic_views(data, ViewKind::Aggregate).await,
        Scenario::TopicUsers => topic_views(data, ViewKind::Row).await,
        Scenario::Line => line(data),
        Scenario::KafkaFill => cluster::fill(data).await,
        Scenario::KafkaRead => cluster::read(data, cluster::RAW),
        Scenario::KafkaParse => cluster::parse(data),
        Scenario::KafkaReadCleared => cluster::read(data, cluster::CLEARED),
        Scenario::KafkaParseCleared => cluster::parse_cleared(data),
        Scenario::KafkaFetch => cluster::fetch(data).await,
        Scenario::KafkaViews => cluster::views(data).await,
        Scenario::KafkaLine => cluster::line(data),
        Scenario::KafkaRawLine => cluster::raw_line(data),
    }
}

fn floor_read(data: &Data) -> Outcome {
    let meter = Meter::start();
    floor::read(&data.file);
    meter.stop().into()
}

fn floor_parse(data: &Data) -> Outcome {
    let meter = Meter::start();
    let answer = floor::parse(&data.file, |n| data.time_ms(n) / MINUTE_MS);
    Outcome {
        cost: meter.stop(),
        answer: Some(answer),
    }
}

async fn floor_topic(data: &Data) -> Outcome {
    let topic = Filled::open(data, &Example::new()).await;
    let meter = Meter::start();
    let mut counts = Counts::default();
    let mut positions = Positions::default();
    while let Some(fetched) = topic.next(&mut positions).await {
        for message in fetched.iter().flat_map(|part| &part.messages) {
            let value = message.value.as_ref().expect("no tombstones");
            counts.add_cleared(value, message.timestamp_ms / MINUTE_MS);
        }
    }
    Outcome {
        cost: meter.stop(),
        answer: Some(counts.answer()),
    }
}

fn gate(data: &Data) -> Outcome {
    let mut gate = Example::new().gate();
    let raws = data.raws();
    let meter = Meter::start();
    let mut passed = 0;
    for raws in raws.chunks(BATCH) {
        passed += gate
            .clear(raws, data.time_ms(raws[0].position))
            .cleared
            .get()
            .messages
            .len();
    }
    let cost = meter.stop();
    data.expect_all(passed);
    cost.into()
}

fn decode(data: &Data) -> Outcome {
    let example = Example::new();
    let mut memory = Memory::default();
    let fetched: Vec<_> = data
        .cleared(&example)
        .iter()
        .map(|batch| memory.fetch(batch.get()))
        .collect();
    let mut decoder = example.decoder();
    let meter = Meter::start();
    let mut rows = 0;
    for fetched in &fetched {
        rows += black_box(decoder.decode(fetched, FIRST_MS))
            .batch
            .get()
            .len();
    }
    let cost = meter.stop();
    data.expect_all(rows);
    cost.into()
}

async fn file_views(data: &Data) -> Outcome {
    let example = Example::new();
    let (mut gate, mut decoder) = (example.gate(), example.decoder());
    let mut drained = Drained::new(example.views(ViewKind::Aggregate));
    let mut memory = Memory::default();
    let meter = Meter::start();
    let config = SourceConfig::File(FileConfig {
        path: data.file.clone(),
        records: None,
    });
    let opening = Opening {
        progress: false,
        ..Opening::new(".", CancellationToken::new())
    };
    let mut source = falaj_source::open(&config, opening)
        .await
        .expect("the file is there");
    let mut taken = 0;
    while let Some(portion) = source.next().await.expect("the file can be read") {
        let raws = portion.raws;
        let passage = gate.clear(&raws, data.time_ms(taken));
        taken += raws.len() as u64;
        let fetched = memory.fetch(passage.cleared.get());
        drained.push(&decoder.decode(&fetched, FIRST_MS).batch);
    }
    drained.finish(meter)
}

async fn publish(data: &Data, folder: &Path) -> Outcome {
    let example = Example::new();
    let cleared = data.cleared(&example);
    let broker = Embedded::open(folder).await.expect("a log");
    let topic = broker.topic(example.topic()).await.expect("a topic");
    let meter = Meter::start();
    for records in cleared {
        topic.publish(records).await.expect("there is room");
    }
    let cost = meter.stop();
    let held = topic
        .offsets()
        .await
        .expect("offsets")
        .iter()
        .map(|p| p.end - p.start)
        .sum::<i64>();
    data.expect_all(usize::try_from(held).expect("not negative"));
    broker.close().await;
    cost.into()
}

async fn topic_views(data: &Data, kind: ViewKind) -> Outcome {
    let example = Example::new();
    let topic = Filled::open(data, &example).await;
    let mut decoder = example.decoder();
    let mut drained = Drained::new(example.views(kind));
    let meter = Meter::start();
    let mut positions = Positions::default();
    while let Some(fetched) = topic.next(&mut positions).await {
        drained.push(&decoder.decode(&fetched, FIRST_MS).batch);
    }
    drained.finish(meter)
}

/// The binary as a person runs it: start, page, stores, checkpoints and end included.
fn line(data: &Data) -> Outcome {
    let pipeline = Pipeline::of_file(&data.file);
    let running = Running::start(&pipeline, &data.scratch, &["--until-caught-up"]);
    let (cost, stdout) = running.ended();
    let ledger = ledger(&stdout);
    assert_eq!(
        ledger.source.published, data.records,
        "the line published all records"
    );
    assert_eq!(
        ledger.topic.out, data.records,
        "the line decoded all records"
    );
    cost.into()
}

impl Data {
    /// Event time of record number `n`.
    pub fn time_ms(&self, n: u64) -> i64 {
        let signed = |n: u64| i64::try_from(n).expect("fewer than 2^63 records");
        FIRST_MS + signed(n) * HOUR_MS / signed(self.records)
    }

    /// Messages of the raw topic that are no record.
    pub fn invalid(&self) -> u64 {
        self.records / RECORDS_PER_INVALID
    }

    /// Whether one of them comes after record number `n`.
    pub fn invalid_after(n: u64) -> bool {
        n % RECORDS_PER_INVALID == RECORDS_PER_INVALID - 1
    }

    /// All records in memory.
    pub fn raws(&self) -> Vec<Raw> {
        let file = BufReader::new(File::open(&self.file).expect("the data set is there"));
        file.split(b'\n')
            .map(|line| Bytes::from(line.expect("the data set can be read")))
            .zip(0..)
            .map(|(bytes, position)| Raw::new(bytes, position))
            .collect()
    }

    pub fn cleared(&self, example: &Example) -> Vec<Cleared<Outbound>> {
        let mut gate = example.gate();
        self.raws()
            .chunks(BATCH)
            .map(|raws| gate.clear(raws, self.time_ms(raws[0].position)).cleared)
            .collect()
    }

    pub fn expect_all(&self, count: usize) {
        assert_eq!(count as u64, self.records, "every record comes through");
    }
}

/// Hands on what the gate cleared as if it had been on the topic.
#[derive(Default)]
struct Memory {
    next: [i64; 4],
}

impl Memory {
    fn fetch(&mut self, outbound: &Outbound) -> Vec<Fetched> {
        let mut parts: Vec<Fetched> = (0..4)
            .map(|partition| Fetched {
                partition,
                messages: Vec::new(),
                next: 0,
                end: 0,
                ..Fetched::default()
            })
            .collect();
        for out in &outbound.messages {
            let at = usize::try_from(out.partition).expect("not negative");
            parts[at].messages.push(Message {
                offset: self.next[at],
                timestamp_ms: out.timestamp_ms,
                key: Some(out.key.clone()),
                value: Some(out.value.clone()),
                policy: Some(outbound.policy.clone()),
                src: Some(out.src.clone()),
            });
            self.next[at] += 1;
        }
        for (part, next) in parts.iter_mut().zip(self.next) {
            (part.next, part.end) = (next, next);
        }
        parts
    }
}

/// The filled topic.
struct Filled {
    topic: Arc<dyn Topic>,
    _broker: Embedded,
}

impl Filled {
    async fn open(data: &Data, example: &Example) -> Self {
        let broker = Embedded::open(&data.topic).await.expect("a log");
        let topic = broker.topic(example.topic()).await.expect("a topic");
        Self {
            topic,
            _broker: broker,
        }
    }

    async fn next(&self, positions: &mut Positions) -> Option<Vec<Fetched>> {
        let fetched = self
            .topic
            .fetch(positions, FETCH_BYTES, Duration::ZERO)
            .await
            .expect("it is whole");
        for part in &fetched {
            positions.advance(part.partition, part.next);
        }
        (!fetched.is_empty()).then_some(fetched)
    }
}

/// Views that are drained as often as the line does it.
pub struct Drained {
    views: Views,
    at: Instant,
    version: i64,
}

impl Drained {
    pub fn new(views: Views) -> Self {
        Self {
            views,
            at: Instant::now(),
            version: 0,
        }
    }

    pub fn push(&mut self, batch: &Cleared<falaj_record::Batch>) {
        self.views.push(batch).expect("views take records");
        if self.at.elapsed() >= DRAIN_EVERY {
            self.drain();
        }
    }

    fn drain(&mut self) {
        self.version += 1;
        black_box(self.views.drain(self.version).expect("views give rows"));
        self.at = Instant::now();
    }

    pub fn finish(mut self, meter: Meter) -> Outcome {
        self.drain();
        let cost = meter.stop();
        Outcome {
            cost,
            answer: Some(Answer::of(&mut self.views, self.version + 1)),
        }
    }
}
