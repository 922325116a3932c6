//! The example pipeline, `examples/random-users/falaj.toml`, as stages.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use falaj_privacy::{
    Decoder, FieldConfig, Gate, Key, KeyedPseudonyms, Keys, Policy, PolicyParts, PrivacyConfig,
    PurposeConfig,
};
use falaj_record::{ByteSize, Period, ViewKind};
use falaj_topic::TopicConfig;
use falaj_views::{ViewOptions, ViewSpec, Views};
use indexmap::IndexMap;
use serde::Deserialize;

const TEXT: &str = include_str!("../../examples/random-users/falaj.toml");

/// Longer than the made-up event times lie back.
const KEPT: Duration = Duration::from_hours(24 * 3650);

/// What the stages need of the pipeline file.
#[derive(Deserialize)]
struct File {
    topic: TopicConfig,
    privacy: PrivacyConfig,
    purpose: IndexMap<String, PurposeConfig>,
    fields: IndexMap<String, FieldConfig>,
    views: IndexMap<String, View>,
}

#[derive(Deserialize)]
struct View {
    sql: String,
}

/// The key for pids. Whoever reads a topic must have the one that its records were cleared with.
pub const KEY: [u8; 32] = [7; 32];

pub struct Example {
    file: File,
    policy: Arc<Policy>,
    keys: Keys,
}

impl Example {
    pub fn new() -> Self {
        let file: File = toml::from_str(TEXT).expect("the example is right");
        let policy = Policy::compile(&PolicyParts {
            privacy: &file.privacy,
            purposes: &file.purpose,
            fields: &file.fields,
            event_time: None,
            max_record: ByteSize(16_000_000),
        });
        let policy = Arc::new(policy.expect("the example is right"));
        Self {
            file,
            policy,
            keys: Keys::new(&Key::new(KEY)),
        }
    }

    pub fn topic(&self) -> &TopicConfig {
        &self.file.topic
    }

    /// Its topic on a cluster. The event times are made up, and on a cluster retention goes by them.
    pub fn cluster_topic(&self, brokers: &str) -> TopicConfig {
        TopicConfig {
            brokers: brokers.to_owned(),
            retention: Period(KEPT),
            ..self.file.topic.clone()
        }
    }

    pub fn gate(&self) -> Gate {
        let pseudonyms = Arc::new(KeyedPseudonyms::new(&self.keys));
        let partitions = self.file.topic.partitions;
        Gate::new(
            Arc::clone(&self.policy),
            pseudonyms,
            &self.keys,
            "file-bench".into(),
            partitions,
        )
    }

    pub fn decoder(&self) -> Decoder {
        Decoder::new(Arc::clone(&self.policy), &self.keys, &[])
    }

    /// The three aggregate views; with `ViewKind::Row` the row view `users`, too.
    pub fn views(&self, kind: ViewKind) -> Views {
        let specs: Vec<ViewSpec> = self
            .file
            .views
            .iter()
            .filter(|(name, _)| kind == ViewKind::Row || *name != "users")
            .map(|(name, view)| ViewSpec {
                name: name.clone(),
                sql: view.sql.clone(),
            })
            .collect();
        let options = ViewOptions {
            lateness: Duration::from_secs(10),
            people: self.policy.k().max(self.policy.delta_k()) as usize,
            partitions: self.file.topic.partitions.cast_signed(),
            pid_required: true,
        };
        Views::plan(self.policy.schema(), &specs, &options).expect("the example is right")
    }
}

/// The example as a pipeline file of somebody's own.
pub struct Pipeline(toml::Table);

impl Pipeline {
    fn new(kind: &str, source: toml::Table) -> Self {
        let mut table: toml::Table = toml::from_str(TEXT).expect("the example is right");
        table["source"] = toml::Table::from_iter([(kind.to_owned(), source.into())]).into();
        Self(table)
    }

    /// With the records of a file.
    pub fn of_file(records: &Path) -> Self {
        let path = records.to_str().expect("a path in UTF-8");
        Self::new("file", entry("path", path))
    }

    /// With the raw records of another topic of the same cluster.
    pub fn of_topic(topic: &str) -> Self {
        Self::new("kafka", entry("topic", topic))
    }

    /// With its topic on a cluster, the three aggregate views alone, and several checkpoints in a
    /// short run.
    pub fn on_cluster(mut self, brokers: &str, topic: &str, key: &Path) -> Self {
        let key = key.to_str().expect("a path in UTF-8");
        let retention = Period(KEPT).to_string();
        self.set("topic", "brokers", brokers);
        self.set("topic", "name", topic);
        self.set("topic", "retention", retention);
        self.set("privacy", "key", entry("file", key));
        self.set("pipeline", "checkpoint", "1s");
        let views = self.0["views"].as_table_mut();
        views.expect("the example has views").remove("users");
        self
    }

    /// With further sinks, each a name and its settings.
    pub fn with_sinks(mut self, sinks: &[(String, String)]) -> Self {
        for (name, settings) in sinks {
            let settings: toml::Table = toml::from_str(settings).expect("they are TOML");
            let all = self.0["sinks"]
                .as_table_mut()
                .expect("the example has sinks");
            all.insert(name.clone(), settings.into());
        }
        self
    }

    fn set(&mut self, section: &str, key: &str, value: impl Into<toml::Value>) {
        let table = self.0[section].as_table_mut();
        table
            .expect("a section")
            .insert(key.to_owned(), value.into());
    }

    pub fn text(&self) -> String {
        toml::to_string(&self.0).expect("it came from TOML")
    }
}

fn entry(key: &str, value: &str) -> toml::Table {
    toml::Table::from_iter([(key.to_owned(), value.into())])
}
