use std::sync::Arc;

use falaj_log::LogError;
use falaj_record::Hint;

/// What a topic cannot do, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// A setting that cannot be.
    #[error("`topic.{key}`: {reason}")]
    Setting {
        /// Key in `[topic]`.
        key: &'static str,
        /// What is wrong about it.
        reason: String,
        /// What to write instead.
        hint: String,
    },
    /// There is no such topic.
    #[error("topic `{topic}` does not exist")]
    Missing {
        /// Its name.
        topic: String,
    },
    /// The topic is there already.
    #[error("topic `{topic}` exists already")]
    Exists {
        /// Its name.
        topic: String,
    },
    /// The topic was deleted while it was in use.
    #[error("topic `{topic}` was deleted")]
    Deleted {
        /// Its name.
        topic: String,
    },
    /// The topic has another number of partitions than the pipeline file.
    #[error("topic `{topic}` has {has} partitions, and `topic.partitions` is {wants}")]
    Partitions {
        /// Its name.
        topic: String,
        /// How many it has.
        has: i32,
        /// How many the file wants.
        wants: i32,
    },
    /// A partition that the topic does not have.
    #[error("topic `{topic}` has no partition {partition}")]
    NoPartition {
        /// Its name.
        topic: String,
        /// The partition asked for.
        partition: i32,
    },
    /// An offset that retention has already taken.
    #[error(
        "retention overtook offset {wanted} of `{topic}` partition {partition}: it starts at {start}"
    )]
    Overtaken {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        wanted: i64,
        /// First offset held.
        start: i64,
    },
    /// An offset that does not exist.
    #[error("offset {wanted} of `{topic}` partition {partition} is beyond the end, {end}")]
    BeyondEnd {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        wanted: i64,
        /// First offset that does not exist yet.
        end: i64,
    },
    /// A batch that cannot be taken apart though its checksum is right.
    #[error("`{topic}` partition {partition} holds a malformed batch at offset {offset}")]
    Malformed {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// First offset of the batch.
        offset: i64,
    },
    /// A record that no batch can hold.
    #[error("a record of {bytes} bytes is too large for a topic")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A file of the topic cannot be read beside its writer.
    #[error("cannot read the files of topic `{topic}`")]
    Unreadable {
        /// The topic.
        topic: String,
        /// What the system says.
        #[source]
        cause: Arc<std::io::Error>,
    },
    /// No broker of the cluster answers.
    #[error("no answer from `{brokers}`: {reason}")]
    Unreachable {
        /// Addresses in `topic.brokers`.
        brokers: String,
        /// What the client library says.
        reason: String,
    },
    /// A host name of the cluster is unknown.
    #[error("cannot find a host of `{brokers}`: {reason}")]
    UnknownHost {
        /// Addresses in `topic.brokers`.
        brokers: String,
        /// What the client library says.
        reason: String,
    },
    /// The cluster did not take the credentials.
    #[error("`{brokers}` refuses the credentials: {reason}")]
    Unauthenticated {
        /// Addresses in `topic.brokers`.
        brokers: String,
        /// What the client library says.
        reason: String,
    },
    /// No encrypted connection could be made.
    #[error("no TLS connection to `{brokers}`: {reason}")]
    Tls {
        /// Addresses in `topic.brokers`.
        brokers: String,
        /// What the client library says.
        reason: String,
    },
    /// The cluster does not allow it.
    #[error("the cluster does not allow falaj to {doing}: {reason}")]
    Unauthorized {
        /// What was tried.
        doing: String,
        /// What the cluster says.
        reason: String,
    },
    /// The cluster cannot do it now: a leader is missing, too few replicas are in sync.
    #[error("the cluster cannot {doing} now: {reason}")]
    Unavailable {
        /// What was tried.
        doing: String,
        /// What the cluster says.
        reason: String,
    },
    /// The cluster refused it, and would again.
    #[error("cannot {doing}: {reason}")]
    Refused {
        /// What was tried.
        doing: String,
        /// What the cluster or the client library says.
        reason: String,
    },
    /// The topic whose only partition is a lease has several: as many could hold it.
    #[error("topic `{topic}` has {partitions} partitions, and a lease is one")]
    SharedLease {
        /// Its name.
        topic: String,
        /// How many it has.
        partitions: i32,
    },
    /// Another falaj runs the pipeline, or may do so by now.
    #[error("this falaj no longer holds the lease `{name}`: {reason}")]
    LeaseLost {
        /// Name of the lease.
        name: String,
        /// How it was lost.
        reason: String,
    },
    /// Nothing can be published any more.
    #[error("the topic is closed")]
    Closed,
    /// The embedded log failed.
    #[error("the log of the topic failed")]
    Log(#[source] LogError),
}

impl From<LogError> for TopicError {
    fn from(error: LogError) -> Self {
        let name = |topic: Arc<str>| topic.to_string();
        match error {
            LogError::NoTopic(topic) => Self::Missing { topic },
            LogError::Exists(topic) => Self::Exists { topic },
            LogError::Deleted(topic) => Self::Deleted { topic: name(topic) },
            LogError::Closed => Self::Closed,
            LogError::Overtaken {
                topic,
                partition,
                wanted,
                start,
            } => Self::Overtaken {
                topic: name(topic),
                partition,
                wanted,
                start,
            },
            LogError::BeyondEnd {
                topic,
                partition,
                wanted,
                end,
            } => Self::BeyondEnd {
                topic: name(topic),
                partition,
                wanted,
                end,
            },
            other => Self::Log(other),
        }
    }
}

impl TopicError {
    /// Whether the same call may succeed later: the disk was full, a write failed, the cluster is
    /// away.
    #[must_use]
    pub fn passing(&self) -> bool {
        matches!(
            self,
            Self::Log(LogError::Write { .. })
                | Self::Unreachable { .. }
                | Self::UnknownHost { .. }
                | Self::Unavailable { .. }
        )
    }
}

impl Hint for TopicError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Setting { hint, .. } => hint.clone(),
            Self::Partitions { has, .. } => format!(
                "set `partitions = {has}`, or give the topic another name: its records cannot be moved to other partitions"
            ),
            Self::Missing { topic } => format!("run `falaj topic create {topic}`"),
            Self::Overtaken { .. } => {
                "records were dropped before they were read: rebuild the views from what is left (`--rebuild VIEW`), and keep more (`topic.retention`)".into()
            }
            Self::BeyondEnd { .. } => {
                "the checkpoint is of another topic, or the topic lost its end: run `falaj reset`".into()
            }
            Self::TooLarge { .. } => {
                "raise `max.message.bytes` of the topic on the cluster, or declare fewer fields".into()
            }
            Self::Unreachable { .. } => {
                "check that the brokers run, that `topic.brokers` has their address, and that `security.protocol` in `[topic.options]` is theirs".into()
            }
            Self::UnknownHost { .. } => "check the spelling of `topic.brokers`".into(),
            Self::Unauthenticated { .. } => {
                "check `sasl.mechanism`, `sasl.username` and `sasl.password` in `[topic.options]`".into()
            }
            Self::Tls { .. } => {
                "check `ssl.ca.location` in `[topic.options]`, and that the port is a TLS listener".into()
            }
            Self::Unauthorized { .. } => {
                "give falaj's user the rights listed in docs/reference/kafka.md".into()
            }
            Self::SharedLease { topic, .. } => format!(
                "delete topic `{topic}` while no falaj runs this pipeline: nothing is in it, and it is made again"
            ),
            Self::LeaseLost { .. } => {
                "start again: it waits as standby while another falaj runs the pipeline".into()
            }
            Self::Malformed { .. } => "another client wrote it; delete the topic, or read on after it".into(),
            Self::Log(error) => return error.hint(),
            _ => return None,
        })
    }
}
