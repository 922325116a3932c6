//! The example pipeline, `examples/random-users/falaj.toml`, as stages.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use falaj_privacy::{
    Decoder, FieldConfig, Gate, Key, KeyedPseudonyms, Keys, Policy, PolicyParts, PrivacyConfig,
    PurposeConfig,
};
use falaj_record::{ByteSize, ViewKind};
use falaj_topic::TopicConfig;
use falaj_views::{ViewOptions, ViewSpec, Views};
use indexmap::IndexMap;
use serde::Deserialize;

const TEXT: &str = include_str!("../../examples/random-users/falaj.toml");

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
            keys: Keys::new(&Key::new([7; 32])),
        }
    }

    pub fn topic(&self) -> &TopicConfig {
        &self.file.topic
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

/// The example with `records` as its source.
pub fn pipeline_file(records: &Path) -> String {
    let mut table: toml::Table = toml::from_str(TEXT).expect("the example is right");
    let path = records.to_str().expect("a path in UTF-8");
    let file = toml::Table::from_iter([("path".to_owned(), path.into())]);
    table["source"] = toml::Table::from_iter([("file".to_owned(), file.into())]).into();
    toml::to_string(&table).expect("it came from TOML")
}
