//! The pipeline file as a person wrote it. It only composes the settings of the stages; what they
//! mean together is decided in `plan.rs`.

use falaj_privacy::{FieldConfig, PrivacyConfig, PurposeConfig};
use falaj_record::{ByteSize, Period};
use falaj_serve::ChartConfig;
use falaj_sinks::SinkConfig;
use falaj_source::SourceConfig;
use falaj_topic::TopicConfig;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// A falaj pipeline: one TOML file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What holds for the pipeline as a whole.
    pub pipeline: PipelineConfig,
    /// Where raw records come from: `[source.http]`, `[source.file]`, `[source.ingest]` or
    /// `[source.kafka]`.
    pub source: SourceConfig,
    /// The Kafka topic of cleared records.
    #[serde(default)]
    pub topic: TopicConfig,
    /// Who is responsible, how small groups are protected, what may never be read.
    pub privacy: PrivacyConfig,
    /// Why the data is processed, on which legal basis, and for how long.
    pub purpose: IndexMap<String, PurposeConfig>,
    /// The declared fields: all else is never read.
    pub fields: IndexMap<String, FieldConfig>,
    /// Spark SQL queries over `records`, or over a row view.
    #[serde(default)]
    pub views: IndexMap<String, ViewConfig>,
    /// Stores that views are written to.
    #[serde(default)]
    pub sinks: IndexMap<String, SinkConfig>,
    /// Charts of the page, in order.
    #[serde(default)]
    pub charts: Vec<ChartConfig>,
}

/// `[pipeline]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// Name of the pipeline: letters, digits, `.`, `_` and `-`. Names the data directory.
    pub name: String,
    /// JSON path of the event time in a raw record; without it, the time of publishing counts.
    pub event_time: Option<String>,
    /// Longest raw record; beyond it a record is a reject.
    #[serde(default = "sixteen_megabytes")]
    pub max_record: ByteSize,
    /// How much older than the newest record of its partition a record may be.
    #[serde(default = "ten_seconds")]
    pub lateness: Period,
    /// A partition without new records for this long no longer holds windows open.
    #[serde(default = "thirty_seconds")]
    pub idle_after: Period,
    /// Where checkpoints, clock and policies are kept: a folder, relative to this file, or
    /// `s3://bucket/prefix`; without it, the data directory. A standby on another machine takes over
    /// from there.
    pub state: Option<String>,
    /// How often a checkpoint is written.
    #[serde(default = "five_seconds")]
    pub checkpoint: Period,
}

/// `[views.NAME]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewConfig {
    /// `SELECT .. FROM records [WHERE ..] [GROUP BY ..]` in Spark SQL.
    pub sql: String,
}

fn sixteen_megabytes() -> ByteSize {
    ByteSize(16_000_000)
}

fn five_seconds() -> Period {
    Period(Duration::from_secs(5))
}

fn ten_seconds() -> Period {
    Period(Duration::from_secs(10))
}

fn thirty_seconds() -> Period {
    Period(Duration::from_secs(30))
}

/// The JSON Schema of the pipeline file, for editors.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Config);
    schema.insert("title".to_owned(), "falaj pipeline".into());
    schema.to_value()
}
