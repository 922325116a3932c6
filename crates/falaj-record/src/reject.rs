use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where a rejected record stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// In a source, before the topic.
    Source {
        /// Source id.
        source: Arc<str>,
        /// Position in it.
        position: u64,
    },
    /// On the topic.
    Topic {
        /// Partition.
        partition: i32,
        /// Offset.
        offset: i64,
    },
    /// A view's row on its way to a store. Its record is in the view all the same.
    Sink {
        /// Sink, as the pipeline file names it.
        sink: Arc<str>,
        /// View.
        view: Arc<str>,
        /// Larger than that of every earlier reject of this sink: the row's version, or one more
        /// than the last one's.
        number: i64,
    },
}

/// Why a record could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Bytes that are not valid UTF-8.
    NotUtf8,
    /// Text that is not one JSON value.
    NotJson,
    /// A JSON value that is not an object.
    NotObject,
    /// More than `max_record` bytes.
    TooLong,
    /// Objects or arrays nested deeper than the gate reads.
    TooDeep,
    /// A declared field holds a value of another JSON type.
    WrongType,
    /// A number that does not fit the declared type.
    OutOfRange,
    /// The subject's field holds nothing to tell a subject by.
    NoSubject,
    /// No usable event time at the declared path.
    NoEventTime,
    /// A topic message without a valid `falaj.policy` header.
    NotCleared,
    /// A batch of records that cannot be unpacked, or does not hold the records it announces.
    BatchBroken,
    /// A batch of records that unpacks to more than is ever taken.
    BatchTooLarge,
    /// A record that is older than the state of every window it falls into.
    Late,
    /// A view's row that is larger than a store takes.
    TooLargeForStore,
    /// A view's row that a store refuses for what it holds.
    RefusedByStore,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "not valid UTF-8",
            Self::NotJson => "not JSON",
            Self::NotObject => "not a JSON object",
            Self::TooLong => "longer than max_record",
            Self::TooDeep => "nested too deeply",
            Self::WrongType => "wrong type",
            Self::OutOfRange => "number out of range",
            Self::NoSubject => "no subject",
            Self::NoEventTime => "no event time",
            Self::NotCleared => "not cleared",
            Self::BatchBroken => "batch that cannot be unpacked",
            Self::BatchTooLarge => "batch that unpacks to more than 64 MiB",
            Self::Late => "late",
            Self::TooLargeForStore => "too large for the store",
            Self::RefusedByStore => "refused by the store",
        })
    }
}

/// A record that could not be used: where, why, at which declared path, how long. Never the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Where it stands.
    pub at: At,
    /// Why.
    pub reason: Reason,
    /// The declared JSON path it is about (text of the pipeline file, never of the record).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<Arc<str>>,
    /// Length in bytes of the record, or of the batch where that cannot be taken apart.
    pub length: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
}
