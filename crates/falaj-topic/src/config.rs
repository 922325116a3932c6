//! `[topic]` of the pipeline file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use falaj_log::{Settings, valid_name};
use falaj_record::{ByteSize, Hint, Period};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::TopicError;
use crate::rejects::SUFFIX;

/// The one broker that is built in.
const EMBEDDED: &str = "embedded";
/// As many as the embedded log takes.
const PARTITIONS_MAX: u32 = 1024;
/// Smaller segments would make more files than records.
const SEGMENT_BYTES_MIN: u64 = 100_000;

/// The topic that cleared records go through.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopicConfig {
    /// Its name: 1 to 241 of `a-z`, `A-Z`, `0-9`, `.`, `_` and `-`.
    pub name: String,
    /// `embedded`: a log in the data directory. Later also addresses of a Kafka cluster.
    pub brokers: String,
    /// Into how many partitions it is cut. The records of a person are always in the same one, in
    /// order.
    pub partitions: u32,
    /// How long records are kept, counted from when they came in.
    pub retention: Period,
    /// A partition keeps its newest records up to about this size, also when `retention` would keep
    /// more.
    pub retention_bytes: Option<ByteSize>,
    /// Size of the files that a partition is cut into; whole files are dropped by retention.
    pub segment_bytes: ByteSize,
    /// When a record counts as received: `fsync`, when it is on the disk, or `os`, when the
    /// operating system has it (lost at a power cut).
    pub durability: Durability,
    /// Address on which other Kafka clients may reach the embedded broker.
    pub listen: Option<SocketAddr>,
    /// Settings for the Kafka client, where `brokers` is a cluster.
    pub options: BTreeMap<String, String>,
}

/// When a record counts as received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When it is on the disk.
    #[default]
    Fsync,
    /// When the operating system has it: survives a crash of falaj, not a power cut.
    Os,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            name: "messages".into(),
            brokers: EMBEDDED.into(),
            partitions: 4,
            retention: Period(Duration::from_hours(7 * 24)),
            retention_bytes: None,
            segment_bytes: ByteSize(128 << 20),
            durability: Durability::Fsync,
            listen: None,
            options: BTreeMap::new(),
        }
    }
}

impl TopicConfig {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// [`TopicError::Setting`] with the key and what is wrong about it.
    pub fn check(&self) -> Result<(), TopicError> {
        let wrong = |key, reason: String, hint: &str| {
            Err(TopicError::Setting {
                key,
                reason,
                hint: hint.to_owned(),
            })
        };
        if let Err(error) = valid_name(&self.name) {
            let hint = error.hint().unwrap_or_default();
            return wrong("name", error.to_string(), &hint);
        }
        // Room for the name of the topic of rejects.
        if let Err(error) = valid_name(&format!("{}{SUFFIX}", self.name)) {
            return wrong("name", error.to_string(), "use at most 241 characters");
        }
        if self.brokers != EMBEDDED {
            return wrong(
                "brokers",
                format!("`{}` cannot be connected to yet", self.brokers),
                "use `brokers = \"embedded\"`; Kafka clusters come with a later version",
            );
        }
        if self.listen.is_some() {
            return wrong(
                "listen",
                "the embedded broker cannot be opened to other clients yet".into(),
                "remove `listen`; the Kafka listener comes with a later version",
            );
        }
        if !self.options.is_empty() {
            return wrong(
                "options",
                "the embedded broker has no client settings".into(),
                "remove `[topic.options]`; it is for Kafka clusters",
            );
        }
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return wrong(
                "partitions",
                format!(
                    "a topic has 1 to {PARTITIONS_MAX} partitions, not {}",
                    self.partitions
                ),
                "4 are enough for one machine",
            );
        }
        if self.retention.0.is_zero() {
            return wrong(
                "retention",
                "records must be kept for some time".into(),
                "\"7d\"",
            );
        }
        if self.segment_bytes.0 < SEGMENT_BYTES_MIN {
            return wrong(
                "segment_bytes",
                format!("{} is less than 100kB", self.segment_bytes),
                "\"128MiB\" suits most disks",
            );
        }
        Ok(())
    }

    /// Number of partitions, as Kafka counts.
    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions).unwrap_or(i32::MAX)
    }

    /// What the embedded log makes of it.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            retention_ms: Some(u64::try_from(self.retention.0.as_millis()).unwrap_or(u64::MAX)),
            retention_bytes: self.retention_bytes.map(|size| size.0),
            segment_bytes: self.segment_bytes.0,
            durability: match self.durability {
                Durability::Fsync => falaj_log::Durability::Fsync,
                Durability::Os => falaj_log::Durability::Os,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TopicConfig, String> {
        toml::from_str(text).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn an_empty_table_is_the_embedded_default() {
        let config = read("").unwrap();
        assert_eq!(config, TopicConfig::default());
        assert_eq!(
            (
                &*config.name,
                config.partitions,
                config.retention.to_string()
            ),
            ("messages", 4, "7d".into())
        );
        config.check().unwrap();
    }

    #[test]
    fn what_cannot_be_is_an_error_that_names_the_key() {
        for (text, key, part) in [
            ("name = 'a b'", "name", "`a b` is not a topic name"),
            ("name = ''", "name", "it is empty"),
            (
                "brokers = 'kafka1:9092'",
                "brokers",
                "`kafka1:9092` cannot be connected to yet",
            ),
            ("listen = '127.0.0.1:9092'", "listen", "cannot be opened"),
            ("options = { 'a' = 'b' }", "options", "no client settings"),
            ("partitions = 0", "partitions", "not 0"),
            ("partitions = 5000", "partitions", "not 5000"),
            ("retention = '0s'", "retention", "some time"),
            ("segment_bytes = '1kB'", "segment_bytes", "less than 100kB"),
        ] {
            let error = read(text).unwrap().check().unwrap_err();
            let message = error.to_string();
            assert!(
                message.starts_with(&format!("`topic.{key}`: ")),
                "{message}"
            );
            assert!(message.contains(part), "{message}");
            assert!(error.hint().is_some());
        }
        let long = format!("name = '{}'", "x".repeat(242));
        assert!(read(&long).unwrap().check().is_err());
        assert!(
            read("name = 'x'\nretentoin = '1d'")
                .unwrap_err()
                .contains("unknown field")
        );
        assert!(read("durability = 'maybe'").is_err());
    }
}
