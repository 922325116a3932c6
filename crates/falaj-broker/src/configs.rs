//! Settings of topics, by the names and in the words of Kafka.
//!
//! Always: what a topic is said to be set to is what it does. A setting of Kafka that would change
//! nothing here is refused, unless it is set to what happens anyway.

use falaj_log::{Cleanup, Durability, Settings, Stamp};

/// Kinds of values, numbered as in `DescribeConfigs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean = 1,
    Text = 2,
    Int = 3,
    Long = 5,
    List = 7,
}

/// A setting that topics have.
pub(crate) struct Config {
    pub name: &'static str,
    pub kind: Kind,
    pub about: &'static str,
    pub get: fn(&Settings) -> String,
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

/// Largest value of `flush.messages`: never, by the topic itself.
const NEVER: &str = "9223372036854775807";

/// Smallest segment, as in Kafka 4.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// All settings of a topic, by name.
pub(crate) const CONFIGS: [Config; 13] = [
    Config {
        name: "cleanup.policy",
        kind: Kind::List,
        about: "What becomes of old records: delete, compact, or both",
        get: |s| cleanup_text(s.cleanup).into(),
        set: |s, text| {
            let mut delete = false;
            let mut compact = false;
            for word in text.split(',').map(str::trim) {
                match word {
                    "delete" => delete = true,
                    "compact" => compact = true,
                    _ => return Err("String must be one of: compact, delete".into()),
                }
            }
            s.cleanup = match (delete, compact) {
                (true, true) => Cleanup::CompactDelete,
                (false, true) => Cleanup::Compact,
                _ => Cleanup::Delete,
            };
            Ok(())
        },
    },
    fixed(
        "compression.type",
        Kind::Text,
        "Batches are kept as their producer compressed them",
        |_| "producer".into(),
        |_, text| only(text, "producer"),
    ),
    Config {
        name: "delete.retention.ms",
        kind: Kind::Long,
        about: "How long a compacted topic keeps that a key was deleted",
        get: |s| s.delete_retention_ms.to_string(),
        set: |s, text| at_least(text, 0).map(|n| s.delete_retention_ms = n.unsigned_abs()),
    },
    Config {
        name: "flush.messages",
        kind: Kind::Long,
        about: "1: a write is acknowledged when it is on the disk; 9223372036854775807: when the system has it",
        get: |s| match s.durability {
            Durability::Fsync => "1".into(),
            Durability::Os => NEVER.into(),
        },
        set: |s, text| {
            s.durability = match text {
                "1" => Durability::Fsync,
                NEVER => Durability::Os,
                _ => return Err(format!("Value must be 1 or {NEVER}")),
            };
            Ok(())
        },
    },
    Config {
        name: "max.message.bytes",
        kind: Kind::Int,
        about: "Largest batch",
        // Topics of falaj itself have no bound; to clients, it is a number of 31 bits.
        get: |s| s.batch_bytes_max.min(i32::MAX.unsigned_abs()).to_string(),
        set: |s, text| {
            let bytes = at_least(text, 0)?;
            s.batch_bytes_max = u32::try_from(bytes)
                .ok()
                .filter(|bytes| i32::try_from(*bytes).is_ok())
                .ok_or("Not a number of type INT")?;
            Ok(())
        },
    },
    fixed(
        "message.timestamp.after.max.ms",
        Kind::Long,
        "Timestamps may lie in the future by any time",
        |_| NEVER.into(),
        |_, text| only(text, NEVER),
    ),
    fixed(
        "message.timestamp.before.max.ms",
        Kind::Long,
        "Timestamps may lie in the past by any time",
        |_| NEVER.into(),
        |_, text| only(text, NEVER),
    ),
    Config {
        name: "message.timestamp.type",
        kind: Kind::Text,
        about: "Whose timestamps records have: the producer's or the broker's",
        get: |s| match s.stamp {
            Stamp::Create => "CreateTime".into(),
            Stamp::Append => "LogAppendTime".into(),
        },
        set: |s, text| {
            s.stamp = match text {
                "CreateTime" => Stamp::Create,
                "LogAppendTime" => Stamp::Append,
                _ => return Err("String must be one of: CreateTime, LogAppendTime".into()),
            };
            Ok(())
        },
    },
    Config {
        name: "min.compaction.lag.ms",
        kind: Kind::Long,
        about: "How long a record stays before compaction may take it",
        get: |s| s.compaction_lag_ms.to_string(),
        set: |s, text| at_least(text, 0).map(|n| s.compaction_lag_ms = n.unsigned_abs()),
    },
    fixed(
        "min.insync.replicas",
        Kind::Int,
        "There is one broker",
        |_| "1".into(),
        |_, text| only(text, "1"),
    ),
    Config {
        name: "retention.bytes",
        kind: Kind::Long,
        about: "Size of a partition beyond which old segments go; -1 for any",
        get: |s| limit_text(s.retention_bytes),
        set: |s, text| at_least(text, -1).map(|n| s.retention_bytes = u64::try_from(n).ok()),
    },
    Config {
        name: "retention.ms",
        kind: Kind::Long,
        about: "Time after which old segments go; -1 for never",
        get: |s| limit_text(s.retention_ms),
        set: |s, text| at_least(text, -1).map(|n| s.retention_ms = u64::try_from(n).ok()),
    },
    Config {
        name: "segment.bytes",
        kind: Kind::Int,
        about: "Size of a segment file",
        get: |s| s.segment_bytes.to_string(),
        set: |s, text| {
            let bytes = at_least(text, SEGMENT_BYTES_MIN.cast_signed())?;
            i32::try_from(bytes).map_err(|_| "Not a number of type INT")?;
            s.segment_bytes = bytes.unsigned_abs();
            Ok(())
        },
    },
];

/// What else Kafka's topics can be set to, and these cannot.
const NOT_OFFERED: [&str; 19] = [
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.zstd.level",
    "file.delete.delay.ms",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "message.downconversion.enable",
    "min.cleanable.dirty.ratio",
    "preallocate",
    "remote.storage.enable",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
];

const fn fixed(
    name: &'static str,
    kind: Kind,
    about: &'static str,
    get: fn(&Settings) -> String,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> Config {
    Config {
        name,
        kind,
        about,
        get,
        set,
    }
}

fn only(text: &str, value: &str) -> Result<(), String> {
    if text == value {
        Ok(())
    } else {
        Err(format!("this broker offers `{value}` only"))
    }
}

fn cleanup_text(cleanup: Cleanup) -> &'static str {
    match cleanup {
        Cleanup::Delete => "delete",
        Cleanup::Compact => "compact",
        Cleanup::CompactDelete => "compact,delete",
    }
}

fn limit_text(limit: Option<u64>) -> String {
    limit.map_or_else(|| "-1".into(), |limit| limit.to_string())
}

fn at_least(text: &str, min: i64) -> Result<i64, String> {
    let value: i64 = text
        .trim()
        .parse()
        .map_err(|_| "Not a number of type LONG")?;
    if value < min {
        return Err(format!("Value must be at least {min}"));
    }
    Ok(value)
}

/// Where a value comes from, numbered as in `DescribeConfigs`.
pub(crate) fn source(value: &str, default: &str) -> i8 {
    /// `DYNAMIC_TOPIC_CONFIG`
    const TOPIC: i8 = 1;
    if value == default { DEFAULT } else { TOPIC }
}

/// `DEFAULT_CONFIG`
pub(crate) const DEFAULT: i8 = 5;

/// What to do with a setting, numbered as in `IncrementalAlterConfigs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Set,
    /// Back to the default.
    Delete,
    /// Adds to a list.
    Append,
    /// Takes from a list.
    Subtract,
}

impl Operation {
    pub fn from_wire(number: i8) -> Option<Self> {
        Some(match number {
            0 => Self::Set,
            1 => Self::Delete,
            2 => Self::Append,
            3 => Self::Subtract,
            _ => return None,
        })
    }
}

/// Changes one setting.
///
/// # Errors
/// Kafka's sentence of what is wrong. It repeats the name and the value, which are no record's.
pub(crate) fn change(
    settings: &mut Settings,
    defaults: &Settings,
    name: &str,
    operation: Operation,
    value: Option<&str>,
) -> Result<(), String> {
    let Some(config) = CONFIGS.iter().find(|config| config.name == name) else {
        if NOT_OFFERED.contains(&name) {
            return Err(format!(
                "this broker does not offer the topic config {name}"
            ));
        }
        return Err(format!("Unknown topic config name: {name}"));
    };
    let value = match (operation, value) {
        (Operation::Delete, _) => (config.get)(defaults),
        (_, None) => {
            return Err(format!(
                "Null value not supported for topic configs: {name}"
            ));
        }
        (Operation::Set, Some(value)) => value.to_owned(),
        (Operation::Append | Operation::Subtract, _) if config.kind != Kind::List => {
            return Err(format!(
                "Config value append is not allowed for config key: {name}"
            ));
        }
        (Operation::Append, Some(value)) => format!("{},{value}", (config.get)(settings)),
        (Operation::Subtract, Some(value)) => {
            let current = (config.get)(settings);
            let taken: Vec<&str> = value.split(',').map(str::trim).collect();
            let left: Vec<&str> = current.split(',').filter(|w| !taken.contains(w)).collect();
            left.join(",")
        }
    };
    (config.set)(settings, &value)
        .map_err(|reason| format!("Invalid value {value} for configuration {name}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_can_be_set_and_is_the_same_afterwards() {
        let defaults = Settings::default();
        let mut settings = defaults.clone();
        for config in &CONFIGS {
            let value = (config.get)(&defaults);
            change(
                &mut settings,
                &defaults,
                config.name,
                Operation::Set,
                Some(&value),
            )
            .unwrap();
            change(
                &mut settings,
                &defaults,
                config.name,
                Operation::Delete,
                None,
            )
            .unwrap();
        }
        assert_eq!(settings, defaults);
        assert!(CONFIGS.is_sorted_by_key(|config| config.name));
    }

    #[test]
    fn settings_are_checked_in_the_words_of_kafka() {
        use Operation::{Append, Set, Subtract};
        let defaults = Settings::default();
        for (name, operation, value, result) in [
            ("retention.ms", Set, "-1", Ok("-1")),
            ("retention.ms", Set, "60000", Ok("60000")),
            (
                "retention.ms",
                Set,
                "-2",
                Err("Invalid value -2 for configuration retention.ms: Value must be at least -1"),
            ),
            (
                "retention.ms",
                Set,
                "soon",
                Err("Invalid value soon for configuration retention.ms: Not a number of type LONG"),
            ),
            (
                "retention.ms",
                Append,
                "1",
                Err("Config value append is not allowed for config key: retention.ms"),
            ),
            (
                "cleanup.policy",
                Set,
                "compact, delete",
                Ok("compact,delete"),
            ),
            ("cleanup.policy", Append, "compact", Ok("compact,delete")),
            (
                "cleanup.policy",
                Subtract,
                "delete",
                Err(
                    "Invalid value  for configuration cleanup.policy: String must be one of: compact, delete",
                ),
            ),
            (
                "max.message.bytes",
                Set,
                "3000000000",
                Err(
                    "Invalid value 3000000000 for configuration max.message.bytes: Not a number of type INT",
                ),
            ),
            (
                "segment.bytes",
                Set,
                "1",
                Err(
                    "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576",
                ),
            ),
            (
                "message.timestamp.type",
                Set,
                "LogAppendTime",
                Ok("LogAppendTime"),
            ),
            ("compression.type", Set, "producer", Ok("producer")),
            (
                "compression.type",
                Set,
                "zstd",
                Err(
                    "Invalid value zstd for configuration compression.type: this broker offers `producer` only",
                ),
            ),
            (
                "segment.ms",
                Set,
                "1000",
                Err("this broker does not offer the topic config segment.ms"),
            ),
            (
                "retention.hours",
                Set,
                "1",
                Err("Unknown topic config name: retention.hours"),
            ),
        ] {
            let mut settings = defaults.clone();
            let changed = change(&mut settings, &defaults, name, operation, Some(value));
            let read = CONFIGS
                .iter()
                .find(|c| c.name == name)
                .map(|c| (c.get)(&settings));
            match result {
                Ok(expected) => assert_eq!(
                    (changed, read.as_deref()),
                    (Ok(()), Some(expected)),
                    "{name}"
                ),
                Err(sentence) => assert_eq!(changed, Err(sentence.into()), "{name}"),
            }
        }
    }
}
