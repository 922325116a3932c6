use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use falaj_record::Hint;

/// What the log cannot do, and why. Cheap to clone: one failed sync answers many appenders.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A file or folder could not be opened, read, listed, made or removed.
    #[error("cannot {action} `{}`", path.display())]
    Files {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: Arc<io::Error>,
    },
    /// An append did not get into the file; what had been written of it is cut off.
    #[error("cannot write to `{}`; nothing of this write is kept", path.display())]
    Write {
        /// The segment.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: Arc<io::Error>,
    },
    /// A sync failed, so what was written last may or may not be on the disk.
    #[error("`{}` could not be synced to the disk; its partition takes no more writes", path.display())]
    Poisoned {
        /// The segment.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: Arc<io::Error>,
    },
    /// A file does not hold what was written to it.
    #[error("`{}` is damaged at byte {at}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// First byte that cannot be used.
        at: u64,
        /// What is wrong there.
        what: String,
    },
    /// A segment that is known to have been there is gone, or stands in the wrong place.
    #[error("segment `{}` is missing or misplaced: {what}", path.display())]
    Missing {
        /// The segment.
        path: PathBuf,
        /// What was expected.
        what: String,
    },
    /// Bytes that are not whole, valid record batches.
    #[error("record batch refused: {reason}")]
    Refused {
        /// Why.
        reason: &'static str,
    },
    /// A batch that is larger than its topic takes.
    #[error("record batch of {bytes} bytes is larger than its topic takes, {max}")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
        /// The most that is taken, in bytes.
        max: u32,
    },
    /// A record without a key for a topic that keeps the newest record of each key.
    #[error("a record has no key, and `{topic}` is compacted by key")]
    NoKey {
        /// The topic.
        topic: Arc<str>,
    },
    /// A batch of an idempotent producer that does not follow the one before it.
    #[error(
        "producer {producer_id} sent sequence {sequence} to `{topic}` partition {partition}, where {wanted} follows"
    )]
    OutOfOrder {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The producer.
        producer_id: i64,
        /// Sequence of the batch's first record.
        sequence: i32,
        /// Sequence that would follow.
        wanted: i32,
    },
    /// A batch of a producer that another one has taken the place of.
    #[error(
        "producer {producer_id} of epoch {epoch} wrote to `{topic}` partition {partition}, where epoch {current} has begun"
    )]
    Fenced {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The producer.
        producer_id: i64,
        /// Epoch of the batch.
        epoch: i16,
        /// Epoch of the one that has taken its place.
        current: i16,
    },
    /// An offset that retention has already taken.
    #[error(
        "retention overtook offset {wanted} of `{topic}` partition {partition}: it starts at {start}"
    )]
    Overtaken {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        wanted: i64,
        /// First offset held.
        start: i64,
    },
    /// An offset that does not exist yet.
    #[error("offset {wanted} of `{topic}` partition {partition} is beyond the end, {end}")]
    BeyondEnd {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        wanted: i64,
        /// First offset that does not exist yet.
        end: i64,
    },
    /// A name that Kafka would not take either.
    #[error("`{name}` is not a topic name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// A number of partitions that makes no sense.
    #[error("a topic has 1 to {max} partitions, not {wanted}")]
    Partitions {
        /// What was asked for.
        wanted: i32,
        /// The most there may be.
        max: i32,
    },
    /// A number of partitions that is no more than there are.
    #[error("`{topic}` has {has} partitions already, which cannot become {wanted}")]
    NotMore {
        /// The topic.
        topic: Arc<str>,
        /// How many there are.
        has: i32,
        /// How many were asked for, in all.
        wanted: i32,
    },
    /// The topic is there already.
    #[error("topic `{0}` exists already")]
    Exists(String),
    /// There is no such topic.
    #[error("topic `{0}` does not exist")]
    NoTopic(String),
    /// The topic was deleted while it was in use.
    #[error("topic `{0}` was deleted")]
    Deleted(Arc<str>),
    /// The log was closed while it was in use.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// For `map_err`: an I/O failure with what was tried on which path.
    pub(crate) fn files(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Files {
            action,
            path,
            cause: Arc::new(cause),
        }
    }

    /// Whether the disk (or the quota on it) is full.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        match self {
            Self::Files { cause, .. }
            | Self::Write { cause, .. }
            | Self::Poisoned { cause, .. } => {
                matches!(
                    cause.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }
            _ => false,
        }
    }
}

impl Hint for LogError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Poisoned { .. } => {
                "look at the disk (`dmesg`), then start falaj again: it checks what the disk holds"
                    .into()
            }
            Self::Files { .. } | Self::Write { .. } if self.disk_full() => {
                "free some space on the disk; writing goes on by itself".into()
            }
            Self::Damaged { path, at, .. } => format!(
                "restore the file from a copy; `truncate -s {at} '{}'` gives up all that follows in it",
                path.display()
            ),
            Self::Missing { .. } => "restore the file from a copy".into(),
            Self::Overtaken { .. } => {
                "start from the first offset that is left, or keep more: `retention` of the topic"
                    .into()
            }
            Self::BeyondEnd { .. } => {
                "the position is of another topic, or the topic lost its end: reset the reader"
                    .into()
            }
            Self::Name { .. } => {
                "use 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`, but not `.` or `..` alone".into()
            }
            Self::TooLarge { .. } => {
                "send smaller batches, or let the topic take more: `max.message.bytes`".into()
            }
            Self::NoKey { .. } => {
                "give every record a key, or keep records by time: `cleanup.policy=delete`".into()
            }
            Self::OutOfOrder { .. } => {
                "batches before it were lost on the way: start the producer again".into()
            }
            Self::Fenced { .. } => "another producer uses this id: end this one".into(),
            Self::NotMore { .. } => "partitions can be added and not taken away".into(),
            _ => return None,
        })
    }
}
