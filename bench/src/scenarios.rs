//! The scenarios: each prepares, measures one part of the line, and checks what came out.
//!
//! Event times are made up, an hour over the whole data set, so that there are 60 windows.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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
use crate::example::{Example, pipeline_file};
use crate::floor::{self, Counts};
use crate::measure::{Cost, Meter, Whose, cpu_s, peak_mb};

/// Records of one call to the gate and to the topic.
const BATCH: usize = 1000;
/// Bytes of one read of the topic, where a read costs least.
const FETCH_BYTES: usize = 256 << 10;
/// As `pipeline.rs` does while it catches up.
const DRAIN_EVERY: Duration = Duration::from_millis(200);
/// 2026-01-01T00:00:00Z.
const FIRST_MS: i64 = 1_767_225_600_000;
const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

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
}

impl Scenario {
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
    let pipeline = data.scratch.join("falaj.toml");
    fs::write(&pipeline, pipeline_file(&data.file)).expect("there is room");
    let falaj = std::env::current_exe()
        .expect("it is there")
        .with_file_name("falaj");
    let (start, before) = (Instant::now(), cpu_s(Whose::Children));
    let mut child = Command::new(falaj)
        .arg("run")
        .arg(&pipeline)
        .arg("--data-dir")
        .arg(data.scratch.join("data"))
        .args(["--until-caught-up", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("`bench/run` built falaj");
    let id = child.id().to_string();
    let mut peak = 0.0;
    let status = loop {
        peak = peak_mb(&id).unwrap_or(0.0).max(peak);
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let cost = Cost {
        wall_s: start.elapsed().as_secs_f64(),
        cpu_s: cpu_s(Whose::Children) - before,
        peak_mb: peak,
    };
    assert!(status.success(), "falaj failed");
    let text = std::io::read_to_string(child.stdout.take().expect("piped")).expect("UTF-8");
    let ledger: falaj_record::Ledger =
        serde_json::from_str(text.lines().last().expect("a ledger")).expect("a ledger");
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
    fn time_ms(&self, n: u64) -> i64 {
        let signed = |n: u64| i64::try_from(n).expect("fewer than 2^63 records");
        FIRST_MS + signed(n) * HOUR_MS / signed(self.records)
    }

    /// All records in memory.
    fn raws(&self) -> Vec<Raw> {
        let file = BufReader::new(File::open(&self.file).expect("the data set is there"));
        file.split(b'\n')
            .map(|line| Bytes::from(line.expect("the data set can be read")))
            .zip(0..)
            .map(|(bytes, position)| Raw::new(bytes, position))
            .collect()
    }

    fn cleared(&self, example: &Example) -> Vec<Cleared<Outbound>> {
        let mut gate = example.gate();
        self.raws()
            .chunks(BATCH)
            .map(|raws| gate.clear(raws, self.time_ms(raws[0].position)).cleared)
            .collect()
    }

    fn expect_all(&self, count: usize) {
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
struct Drained {
    views: Views,
    at: Instant,
    version: i64,
}

impl Drained {
    fn new(views: Views) -> Self {
        Self {
            views,
            at: Instant::now(),
            version: 0,
        }
    }

    fn push(&mut self, batch: &Cleared<falaj_record::Batch>) {
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

    fn finish(mut self, meter: Meter) -> Outcome {
        self.drain();
        let cost = meter.stop();
        Outcome {
            cost,
            answer: Some(Answer::of(&mut self.views, self.version + 1)),
        }
    }
}
