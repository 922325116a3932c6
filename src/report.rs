//! What the page, `/api/v1/status`, readiness and metrics say about a running line.
//!
//! Always: counts, names, positions and texts of falaj's own; no driver's message, no value.
//! The tasks of the line note what they did in [`Notes`]; the reporter reads it twice a second.
//! Before there is a line, and after its lease was lost, [`Inactive`] says what is waited for.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::time::{Duration, Instant};

use falaj_record::{Ledger, Positions};
use falaj_serve::{
    CheckpointStatus, Hub, LagStatus, PartitionStatus, ProcessStatus, RunState, SinkStatus,
    SourceStatus, StageStatus, Status, Time, Working,
};
use falaj_sinks::{OutletState, OutletStatus};
use falaj_source::SourceState;
use falaj_topic::PartitionOffsets;
use parking_lot::Mutex;

/// How often the status is renewed.
pub const STATUS_EVERY: Duration = Duration::from_millis(500);
/// Rates are taken over this many samples, half a second apart.
const RATE_SAMPLES: usize = 10;

/// What the tasks of the line did so far, since this process started.
#[derive(Debug, Default)]
pub struct Noted {
    pub state: Option<RunState>,
    pub cleared: u64,
    pub withheld: u64,
    pub published: u64,
    pub decoded: u64,
    pub late: u64,
    pub rejects: BTreeMap<String, u64>,
    pub positions: Positions,
    pub offsets: Vec<PartitionOffsets>,
    /// Event time of the newest record read, in microseconds.
    pub newest_us: Option<i64>,
    pub watermark: Option<i64>,
    pub checkpoint: Option<(Time, u64, f64)>,
    pub ledger: Ledger,
    /// Stages that cannot go on for now, and why.
    pub failing: BTreeMap<&'static str, (String, Time)>,
}

impl Noted {
    /// Counts a reject.
    pub fn reject(&mut self, reason: falaj_record::Reason) {
        *self.rejects.entry(reason.to_string()).or_insert(0) += 1;
    }
}

/// Shared by the tasks of a line.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Noted>);

impl Notes {
    /// Writes something down.
    pub fn note<T>(&self, write: impl FnOnce(&mut Noted) -> T) -> T {
        write(&mut self.0.lock())
    }

    /// A stage cannot go on for now; `None` says that it can again.
    pub fn failing(&self, stage: &'static str, why: Option<String>) {
        self.note(|noted| match why {
            Some(why) => {
                if !noted.failing.contains_key(stage) {
                    tracing::warn!(stage, why, "cannot go on for now");
                }
                let since = noted
                    .failing
                    .get(stage)
                    .map_or_else(Time::now, |(_, since)| *since);
                noted.failing.insert(stage, (why, since));
            }
            None => {
                noted.failing.remove(stage);
            }
        });
    }
}

/// Counters of one moment, for rates.
#[derive(Debug, Clone, Default)]
struct Sample {
    at: Option<Instant>,
    counts: BTreeMap<String, u64>,
}

/// Shows a falaj that does not run the pipeline, or not yet.
pub struct Inactive {
    hub: Hub,
    pipeline: String,
    started: Time,
    now: Mutex<(RunState, Option<String>)>,
}

impl Inactive {
    /// Shows one that starts.
    pub fn new(hub: &Hub, pipeline: &str, started: Time) -> Self {
        let new = Self {
            hub: hub.clone(),
            pipeline: pipeline.to_owned(),
            started,
            now: Mutex::new((RunState::Starting, None)),
        };
        new.show();
        new
    }

    /// When the process began.
    pub fn started(&self) -> Time {
        self.started
    }

    /// Shows another state, and what is waited for; free of values.
    pub fn tell(&self, state: RunState, detail: Option<String>) {
        *self.now.lock() = (state, detail);
        self.show();
    }

    /// Keeps the status up to date while something is worked on.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.keep() => match never {},
        }
    }

    async fn keep(&self) -> Infallible {
        let mut tick = tokio::time::interval(STATUS_EVERY);
        loop {
            tick.tick().await;
            self.show();
        }
    }

    fn show(&self) {
        let (state, detail) = self.now.lock().clone();
        let now = Time::now();
        self.hub.set_status(Status {
            pipeline: self.pipeline.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: now,
            started: self.started,
            uptime: self.started.until(now),
            state,
            detail,
            stages: Vec::new(),
            source: None,
            positions: Vec::new(),
            lag: LagStatus::default(),
            watermark: None,
            sinks: Vec::new(),
            rejects: BTreeMap::new(),
            late: 0,
            withheld: 0,
            checkpoint: None,
            ledger: Ledger::default(),
            process: process(),
        });
    }
}

/// Makes a status of notes, source and sinks.
#[derive(Debug)]
pub struct Reporter {
    pipeline: String,
    started: Time,
    samples: VecDeque<Sample>,
    /// How the source is doing, and since when.
    source: (Working, Time),
}

impl Reporter {
    /// `started` is when the process began.
    pub fn new(pipeline: &str, started: Time) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            started,
            samples: VecDeque::new(),
            source: (Working::Waiting, started),
        }
    }

    /// The status of this moment.
    pub fn status(
        &mut self,
        notes: &Notes,
        source: (&str, &falaj_source::SourceStatus),
        sinks: &[OutletStatus],
    ) -> Status {
        let now = Time::now();
        let (kind, source) = source;
        let state = source_state(source.state);
        if self.source.0 != state {
            self.source = (state, now);
        }
        notes.note(|noted| {
            let mut counts: BTreeMap<String, u64> = [
                ("source", source.records),
                ("bytes", source.bytes),
                ("gate", noted.cleared),
                ("topic", noted.published),
                ("views", noted.decoded),
            ]
            .map(|(name, count)| (name.to_owned(), count))
            .into();
            counts.extend(
                sinks
                    .iter()
                    .map(|s| (format!("sink:{}", s.sink), s.written_rows)),
            );
            self.sample(counts.clone());
            let stages = ["source", "gate", "topic", "views"]
                .map(|name| self.stage(name, counts[name], noted, source));
            let positions = positions(noted);
            let ended = source.state == SourceState::Ended && positions.iter().all(|p| p.lag == 0);
            Status {
                pipeline: self.pipeline.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                at: now,
                started: self.started,
                uptime: self.started.until(now),
                state: match noted.state {
                    Some(RunState::Running) if ended => RunState::CaughtUp,
                    state => state.unwrap_or(RunState::Starting),
                },
                detail: None,
                stages: stages.into(),
                source: Some(SourceStatus {
                    kind: kind.to_owned(),
                    state: self.source.0,
                    detail: source_detail(source),
                    retry_at: source.retry_at_ms.map(|ms| Time(ms * 1000)),
                    records_total: source.records,
                    bytes_total: source.bytes,
                    rate: self.rate("source"),
                    bytes_rate: self.rate("bytes"),
                    lag: source.lag,
                }),
                lag: lag(&positions, noted, now),
                positions,
                watermark: noted.watermark.map(Time),
                sinks: sinks.iter().map(|s| self.sink(s)).collect(),
                rejects: noted.rejects.clone(),
                late: noted.late,
                withheld: noted.withheld,
                checkpoint: noted
                    .checkpoint
                    .map(|(at, bytes, duration_ms)| CheckpointStatus {
                        at,
                        age: at.until(now),
                        bytes,
                        duration_ms,
                    }),
                ledger: noted.ledger.clone(),
                process: process(),
            }
        })
    }

    fn sample(&mut self, counts: BTreeMap<String, u64>) {
        if self.samples.len() == RATE_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            at: Some(Instant::now()),
            counts,
        });
    }

    /// Events a second between the oldest and the newest sample.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    fn rate(&self, name: &str) -> f64 {
        let (Some(old), Some(new)) = (self.samples.front(), self.samples.back()) else {
            return 0.0;
        };
        let seconds = match (old.at, new.at) {
            (Some(old), Some(new)) => (new - old).as_secs_f64(),
            _ => 0.0,
        };
        let count = |s: &Sample| s.counts.get(name).copied().unwrap_or(0);
        if seconds > 0.0 {
            count(new).saturating_sub(count(old)) as f64 / seconds
        } else {
            0.0
        }
    }

    fn stage(
        &self,
        name: &'static str,
        records_total: u64,
        noted: &Noted,
        source: &falaj_source::SourceStatus,
    ) -> StageStatus {
        let (state, detail, since) = match noted.failing.get(name) {
            Some((why, since)) => (Working::Failing, Some(why.clone()), *since),
            None if name == "source" => {
                let (state, since) = self.source;
                (state, source_detail(source), since)
            }
            None => (Working::Ok, None, self.started),
        };
        let name = name.to_owned();
        StageStatus {
            rate: self.rate(&name),
            name,
            state,
            detail,
            since,
            records_total,
        }
    }

    fn sink(&self, status: &OutletStatus) -> SinkStatus {
        SinkStatus {
            name: status.sink.to_string(),
            kind: status.kind.to_owned(),
            state: match status.state {
                OutletState::Starting => Working::Waiting,
                OutletState::Ok => Working::Ok,
                // While a line runs, a sink ends only where something is broken.
                OutletState::Failing | OutletState::Closed => Working::Failing,
            },
            pending: status.pending_rows as u64,
            behind: status.behind,
            written_total: status.written_rows,
            refused_total: status.refused_rows,
            rate: self.rate(&format!("sink:{}", status.sink)),
            last_error: status.error.clone(),
            hint: status.hint.clone(),
            retry_at: status.retry_at_ms.map(|ms| Time(ms * 1000)),
            since: Time(status.since_ms * 1000),
        }
    }
}

fn source_state(state: SourceState) -> Working {
    match state {
        SourceState::Waiting => Working::Waiting,
        SourceState::Ok | SourceState::Ended => Working::Ok,
        SourceState::Retrying => Working::Failing,
    }
}

fn source_detail(source: &falaj_source::SourceStatus) -> Option<String> {
    match (&source.detail, &source.hint) {
        (Some(detail), Some(hint)) => Some(format!("{detail}; {hint}")),
        (Some(detail), None) => Some(detail.clone()),
        (None, _) if source.state == SourceState::Ended => Some("read to its end".to_owned()),
        (None, _) => None,
    }
}

fn positions(noted: &Noted) -> Vec<PartitionStatus> {
    noted
        .offsets
        .iter()
        .map(|o| {
            let next = noted.positions.next(o.partition);
            PartitionStatus {
                partition: o.partition,
                start: o.start,
                end: o.end,
                next,
                lag: u64::try_from(o.end - next).unwrap_or(0),
            }
        })
        .collect()
}

/// Lag in seconds is the age of the newest record applied, as long as any is waiting.
fn lag(positions: &[PartitionStatus], noted: &Noted, now: Time) -> LagStatus {
    let records = positions.iter().map(|p| p.lag).sum();
    let seconds = match noted.newest_us {
        Some(newest) if records > 0 => Time(newest).until(now),
        _ => 0.0,
    };
    LagStatus { records, seconds }
}

/// Memory and CPU time of this process, as Linux tells them; zeros elsewhere.
#[expect(clippy::cast_precision_loss, reason = "seconds of CPU time fit")]
fn process() -> ProcessStatus {
    /// Linux reports CPU time in hundredths of a second to every user program.
    const TICKS_PER_SECOND: f64 = 100.0;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let rss_kb: u64 = read("/proc/self/status")
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().split(' ').next()?.parse().ok())
        .unwrap_or(0);
    let stat = read("/proc/self/stat");
    // The name in brackets may hold blanks; user and system time are the 12th and 13th after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    ProcessStatus {
        rss_bytes: rss_kb * 1024,
        cpu_seconds: ticks as f64 / TICKS_PER_SECOND,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
