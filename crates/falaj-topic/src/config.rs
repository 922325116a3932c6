//! `[topic]` of the pipeline file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use falaj_log::{Settings, valid_name};
use falaj_record::{ByteSize, Hint, Period};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::options::{self, ClientOption};
use crate::rejects::SUFFIX;
use crate::{TopicError, lease};

/// The one broker that is built in.
const EMBEDDED: &str = "embedded";
/// As many as the embedded log takes.
const PARTITIONS_MAX: u32 = 1024;
/// Longest batch of the embedded log.
const BATCH_BYTES_MAX: u32 = 256 << 20;
/// Smaller segments would make more files than records.
const SEGMENT_BYTES_MIN: u64 = 100_000;
/// As Kafka has it.
const CLUSTER_SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// The topic that cleared records go through.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopicConfig {
    /// Its name: 1 to 241 of `a-z`, `A-Z`, `0-9`, `.`, `_` and `-`.
    pub name: String,
    /// `embedded`: a log in the data directory. Or a Kafka cluster, by the addresses of some of its
    /// brokers: `kafka1:9092,kafka2:9092`.
    pub brokers: String,
    /// Into how many partitions it is cut. The records of a person are always in the same one, in
    /// order.
    pub partitions: u32,
    /// On how many brokers of a cluster each record lies. Absent: as many as the cluster makes by
    /// default.
    pub replication: Option<u32>,
    /// How long records are kept: counted from when they came in, on a cluster from their event
    /// time.
    pub retention: Period,
    /// A partition keeps its newest records up to about this size, also when `retention` would keep
    /// more.
    pub retention_bytes: Option<ByteSize>,
    /// Size of the files that a partition is cut into; whole files are dropped by retention.
    pub segment_bytes: ByteSize,
    /// When a record counts as received: `fsync`, when it is on the disk, or `os`, when the
    /// operating system has it (lost at a power cut). On a cluster it is always when all replicas
    /// in sync have it.
    pub durability: Durability,
    /// How records are packed on their way to a cluster, and there: `lz4` (where it is absent),
    /// `zstd` or `none`.
    pub compression: Option<Compression>,
    /// Address on which other Kafka clients may reach the embedded broker.
    pub listen: Option<SocketAddr>,
    /// Settings of librdkafka, where `brokers` is a cluster: `security.protocol`, `sasl.*`, `ssl.*`
    /// and others that falaj does not set itself.
    pub options: BTreeMap<String, ClientOption>,
}

/// How records are packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Costs little, and saves most of what there is to save.
    #[default]
    Lz4,
    /// Smaller, and costs more.
    Zstd,
    /// As they are.
    None,
}

impl Compression {
    /// Kafka's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::None => "none",
        }
    }
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
            replication: None,
            retention: Period(Duration::from_hours(7 * 24)),
            retention_bytes: None,
            segment_bytes: ByteSize(128 << 20),
            durability: Durability::Fsync,
            compression: None,
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
        if let Err(error) = valid_name(&self.name) {
            let hint = error.hint().unwrap_or_default();
            return wrong("name", error.to_string(), &hint);
        }
        // Room for the names of the topics beside it.
        for suffix in [SUFFIX, lease::SUFFIX] {
            if let Err(error) = valid_name(&format!("{}{suffix}", self.name)) {
                return wrong("name", error.to_string(), "use at most 241 characters");
            }
        }
        if self.embedded() {
            self.check_embedded()?;
        } else {
            self.check_cluster()?;
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

    /// Whether the broker is the one that is built in.
    #[must_use]
    pub fn embedded(&self) -> bool {
        self.brokers == EMBEDDED
    }

    fn check_embedded(&self) -> Result<(), TopicError> {
        if !self.options.is_empty() {
            return wrong(
                "options",
                "the embedded broker has no client settings".into(),
                "remove `[topic.options]`; it is for Kafka clusters",
            );
        }
        if self.replication.is_some() {
            return wrong(
                "replication",
                "the embedded broker is one process".into(),
                "remove `replication`; it is for Kafka clusters",
            );
        }
        if self.compression.is_some() {
            return wrong(
                "compression",
                "the embedded broker keeps records as they are".into(),
                "remove `compression`; it is for Kafka clusters",
            );
        }
        Ok(())
    }

    fn check_cluster(&self) -> Result<(), TopicError> {
        for address in self.brokers.split(',') {
            if let Err(reason) = address_of(address.trim()) {
                return wrong(
                    "brokers",
                    reason,
                    "write `embedded`, or addresses of brokers: `kafka1:9092,kafka2:9092`",
                );
            }
        }
        if self.listen.is_some() {
            return wrong(
                "listen",
                "a cluster has listeners of its own".into(),
                "remove `listen`; it is for the embedded broker",
            );
        }
        if self.durability != Durability::default() {
            return wrong(
                "durability",
                "a record on a cluster counts as received when all replicas in sync have it".into(),
                "remove `durability`; it is for the embedded broker",
            );
        }
        if self
            .replication
            .is_some_and(|n| !(1..=i16::MAX as u32).contains(&n))
        {
            return wrong(
                "replication",
                "each record lies on at least one broker".into(),
                "remove it: the cluster has a default",
            );
        }
        if self.segment_bytes.0 < CLUSTER_SEGMENT_BYTES_MIN {
            return wrong(
                "segment_bytes",
                format!("{} is less than Kafka's 1MiB", self.segment_bytes),
                "\"128MiB\" suits most disks",
            );
        }
        options::check(&self.options)
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
            // A record may be as long as `pipeline.max_record` allows.
            batch_bytes_max: BATCH_BYTES_MAX,
            ..Settings::default()
        }
    }
}

fn wrong(key: &'static str, reason: String, hint: &str) -> Result<(), TopicError> {
    Err(TopicError::Setting {
        key,
        reason,
        hint: hint.to_owned(),
    })
}

/// Host and port of one broker; the host may be an IPv6 address in brackets.
fn address_of(address: &str) -> Result<(&str, u16), String> {
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| format!("`{address}` is no address: it has no port"))?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let named = !host.is_empty() && !host.contains([':', '/', '@', '[', ']', ' ']);
    if !bracketed && !named {
        return Err(format!("`{address}` is no address: the host is wrong"));
    }
    match port.parse() {
        Ok(port) if port > 0 => Ok((host, port)),
        _ => Err(format!("`{address}` is no address: the port is wrong")),
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
            ("brokers = 'kafka1'", "brokers", "it has no port"),
            ("brokers = 'kafka1:9092,'", "brokers", "it has no port"),
            ("brokers = 'kafka1:0'", "brokers", "the port is wrong"),
            (
                "brokers = 'http://kafka1:9092'",
                "brokers",
                "the host is wrong",
            ),
            ("replication = 3", "replication", "is one process"),
            ("compression = 'zstd'", "compression", "as they are"),
            (
                "brokers = 'k:9092'\ndurability = 'os'",
                "durability",
                "all replicas in sync",
            ),
            (
                "brokers = 'k:9092'\nlisten = '127.0.0.1:9092'",
                "listen",
                "listeners of its own",
            ),
            (
                "brokers = 'k:9092'\nreplication = 0",
                "replication",
                "at least one broker",
            ),
            (
                "brokers = 'k:9092'\nsegment_bytes = '200kB'",
                "segment_bytes",
                "Kafka's 1MiB",
            ),
            (
                "brokers = 'k:9092'\noptions = { 'acks' = 1 }",
                "options",
                "falaj sets `acks` itself",
            ),
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
        for brokers in [
            "kafka1:9092",
            "10.0.0.1:9092, [::1]:19092",
            "a:1,b:2,c:65535",
        ] {
            read(&format!("brokers = '{brokers}'"))
                .unwrap()
                .check()
                .unwrap();
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
