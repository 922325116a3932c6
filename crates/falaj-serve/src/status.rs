//! What the pipeline tells about itself, as `/api/v1/status` and `/api/v1/privacy` show it.
//!
//! Always: texts in here come from the pipeline file and from falaj, never from a record. Whoever
//! fills in a `detail` or an `error` keeps a driver's message out: it may quote a row.
//! Times are microseconds since 1970 and are written as RFC 3339 in UTC.

use std::collections::BTreeMap;

use falaj_record::{Ledger, rfc3339};
use serde::{Serialize, Serializer};

/// A point in time: microseconds since 1970, in JSON RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Time {
    /// The system's clock.
    #[must_use]
    pub fn now() -> Self {
        let since_1970 = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
    }

    /// Seconds since 1970.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a metric in seconds needs no microsecond"
    )]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Seconds from `self` until `later`, at least 0.
    #[must_use]
    pub fn until(self, later: Self) -> f64 {
        Self(later.0.saturating_sub(self.0).max(0)).seconds()
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// What the pipeline as a whole is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Opening the topic, the checkpoint, the stores.
    Starting,
    /// The cluster is away, and is waited for.
    Waiting,
    /// Another falaj runs the pipeline; this one takes over when that one ends.
    Standby,
    /// Records flow, or may come at any time.
    Running,
    /// A finite source was read to its end and every row of it is shown.
    #[serde(rename = "caught up")]
    CaughtUp,
    /// Draining and writing the last checkpoint.
    Stopping,
}

impl RunState {
    /// All of them, in the order a run passes them.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Waiting,
        Self::Standby,
        Self::Running,
        Self::CaughtUp,
        Self::Stopping,
    ];

    /// The word in JSON, on the page and in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Standby => "standby",
            Self::Running => "running",
            Self::CaughtUp => "caught up",
            Self::Stopping => "stopping",
        }
    }

    /// Whether this falaj runs the pipeline, so that its rows are those of now.
    #[must_use]
    pub fn active(self) -> bool {
        !matches!(self, Self::Starting | Self::Waiting | Self::Standby)
    }
}

/// Whether a stage, a source or a sink does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Working {
    /// It works; also when there is nothing to do just now.
    Ok,
    /// It has not worked yet, or it waits for something outside: a first reply, a rate limit's end.
    Waiting,
    /// It was tried and fails; it is being retried.
    Failing,
}

impl Working {
    /// The word in JSON, on the page and in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
        }
    }
}

/// One stage of the line: source, gate, topic, decode, views.
#[derive(Debug, Clone, Serialize)]
pub struct StageStatus {
    /// Name, as in the design: `source`, `gate`, `topic`, `views`. Sinks stand in [`Status::sinks`].
    pub name: String,
    /// Whether it works.
    pub state: Working,
    /// What it does or waits for, in a few words; free of values.
    pub detail: Option<String>,
    /// Since when it is in that state.
    pub since: Time,
    /// Records it passed on since the start of this process.
    pub records_total: u64,
    /// Records a second, over the last few seconds.
    pub rate: f64,
}

/// Where records come from.
#[derive(Debug, Clone, Serialize)]
pub struct SourceStatus {
    /// `http`, `file`, `ingest`, `kafka`.
    pub kind: String,
    /// Whether it works.
    pub state: Working,
    /// Why not, or where it is: `429, limited to 20,000 users`, `end of file`.
    pub detail: Option<String>,
    /// When it will be tried again, where it is being retried.
    pub retry_at: Option<Time>,
    /// Records it gave since the start of this process.
    pub records_total: u64,
    /// Bytes it gave since the start of this process.
    pub bytes_total: u64,
    /// Records a second, over the last few seconds.
    pub rate: f64,
    /// Bytes a second, over the last few seconds.
    pub bytes_rate: f64,
    /// Records that are there and were not taken yet, where that is known.
    pub lag: Option<u64>,
}

/// How far one partition of the topic is read.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: i32,
    /// First offset that is still there.
    pub start: i64,
    /// First offset after the last durable message.
    pub end: i64,
    /// Next offset to apply.
    pub next: i64,
    /// `end - next`.
    pub lag: u64,
}

/// How far the views are behind the topic.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct LagStatus {
    /// Records on the topic that are not applied yet.
    pub records: u64,
    /// Age of the oldest of them; 0 where there is none.
    pub seconds: f64,
}

/// A store that views are written to.
#[derive(Debug, Clone, Serialize)]
pub struct SinkStatus {
    /// Name in the pipeline file.
    pub name: String,
    /// `sqlite`, `cassandra`, `mongodb`.
    pub kind: String,
    /// Whether it works.
    pub state: Working,
    /// Rows that wait to be written.
    pub pending: u64,
    /// Whether rows of row views are read again from the topic, beyond those that wait.
    pub behind: bool,
    /// Rows written since the start of this process.
    pub written_total: u64,
    /// Rows that the store refused since then, each for itself.
    pub refused_total: u64,
    /// Rows a second, over the last few seconds.
    pub rate: f64,
    /// The newest failure: code and cause, free of values.
    pub last_error: Option<String>,
    /// What a person can do about it.
    pub hint: Option<String>,
    /// When it is tried again, while it fails.
    pub retry_at: Option<Time>,
    /// Since when it is in that state.
    pub since: Time,
}

/// The newest whole checkpoint.
#[derive(Debug, Clone, Serialize)]
pub struct CheckpointStatus {
    /// When it was written.
    pub at: Time,
    /// Seconds since then.
    pub age: f64,
    /// Its size.
    pub bytes: u64,
    /// How long writing it took.
    pub duration_ms: f64,
}

/// The process itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ProcessStatus {
    /// Resident memory.
    pub rss_bytes: u64,
    /// User and system time.
    pub cpu_seconds: f64,
    /// Version of falaj.
    pub version: String,
}

/// Everything `/api/v1/status` shows.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Version of falaj.
    pub version: String,
    /// When this was taken.
    pub at: Time,
    /// When the process started.
    pub started: Time,
    /// Seconds since then.
    pub uptime: f64,
    /// What the pipeline as a whole is doing.
    pub state: RunState,
    /// What it waits for, in a few words; free of values.
    pub detail: Option<String>,
    /// The stages in the order of the line; none while another falaj runs it.
    pub stages: Vec<StageStatus>,
    /// Where records come from.
    pub source: Option<SourceStatus>,
    /// The topic's partitions.
    pub positions: Vec<PartitionStatus>,
    /// How far the views are behind.
    pub lag: LagStatus,
    /// Lowest watermark of all partitions that are not idle.
    pub watermark: Option<Time>,
    /// The stores.
    pub sinks: Vec<SinkStatus>,
    /// Records that could not be used, by reason, since the start of this process.
    pub rejects: BTreeMap<String, u64>,
    /// Records that were late for all their windows in a view, since the start of this process.
    pub late: u64,
    /// Records that the gate kept out on purpose, since the start of this process.
    pub withheld: u64,
    /// The newest whole checkpoint.
    pub checkpoint: Option<CheckpointStatus>,
    /// The conservation ledger of that checkpoint.
    pub ledger: Ledger,
    /// The process itself.
    pub process: ProcessStatus,
}

impl Status {
    /// Records that could not be used, of all reasons.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejects.values().sum()
    }

    /// Why the pipeline is not ready; empty when every stage and sink works.
    pub(crate) fn unready(&self) -> Vec<Unready<'_>> {
        let run = match self.state {
            RunState::Running | RunState::CaughtUp => None,
            state => Some(Unready {
                part: "pipeline",
                name: &self.pipeline,
                state: state.word(),
                detail: self.detail.as_deref(),
                since: None,
            }),
        };
        let since = self.stages.iter().find(|s| s.name == "source");
        let since = since.map(|stage| stage.since);
        let source = self
            .source
            .iter()
            .map(|s| ("source", s.kind.as_str(), s.state, &s.detail, since));
        let stages = self
            .stages
            .iter()
            // The source tells more than its stage does: one reason is enough.
            .filter(|s| s.name != "source" || self.source.is_none())
            .map(|s| ("stage", s.name.as_str(), s.state, &s.detail, Some(s.since)));
        let sinks = self.sinks.iter().map(|s| {
            (
                "sink",
                s.name.as_str(),
                s.state,
                &s.last_error,
                Some(s.since),
            )
        });
        let parts = source
            .chain(stages)
            .chain(sinks)
            .filter(|part| part.2 != Working::Ok)
            .map(|(part, name, state, detail, since)| Unready {
                part,
                name,
                state: state.word(),
                detail: detail.as_deref(),
                since,
            });
        run.into_iter().chain(parts).collect()
    }
}

/// One reason why `/readyz` answers 503.
#[derive(Debug, Serialize)]
pub(crate) struct Unready<'a> {
    part: &'static str,
    name: &'a str,
    state: &'static str,
    detail: Option<&'a str>,
    since: Option<Time>,
}

/// What `/api/v1/privacy` and the page's privacy panel show: the policy that really runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PrivacyPanel {
    /// Who decides about the data.
    pub controller: String,
    /// Where a person can ask.
    pub contact: Option<String>,
    /// A published group has at least so many people ..
    pub k: u64,
    /// .. and changes by at least so many.
    pub delta_k: u64,
    /// What people are told apart by; none where records have no subject.
    pub subject: Option<SubjectPanel>,
    /// Declared fields, the only ones that are read.
    pub fields: Vec<FieldPanel>,
    /// Paths that can never be declared.
    pub never: Vec<String>,
    /// What fields are used for.
    pub purposes: Vec<PurposePanel>,
    /// How long the topic keeps records, as written: `7d`.
    pub topic_retention: String,
    /// What the source is asked for (`inc=`), where it can be asked for less than all.
    pub requested: Option<Vec<String>>,
}

/// `[privacy.subject]`.
#[derive(Debug, Clone, Serialize)]
pub struct SubjectPanel {
    /// JSON path of what becomes a pid.
    pub from: String,
    /// Whether a record without it is a reject.
    pub required: bool,
}

/// A declared field.
#[derive(Debug, Clone, Serialize)]
pub struct FieldPanel {
    /// Name on the topic and in views.
    pub name: String,
    /// JSON path in the raw record.
    pub from: String,
    /// Type: `string`, `int`, `float`, `bool`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Class of the raw value: `direct`, `quasi`, ..
    pub class: String,
    /// What is done to it: `keep`, `band(10)`, `email_domain`, ..
    pub treatment: String,
    /// Name of its purpose.
    pub purpose: String,
}

/// A `[purpose.NAME]`.
#[derive(Debug, Clone, Serialize)]
pub struct PurposePanel {
    /// Its name.
    pub name: String,
    /// `consent`, `contract`, ..
    pub legal_basis: String,
    /// As written: `30d`.
    pub retention: String,
    /// Whose data it is.
    pub data_subjects: String,
    /// `synthetic` or `ledger`.
    pub consent: Option<String>,
}
