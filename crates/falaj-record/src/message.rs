use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::Reason;

/// One raw record as a source gave it: not yet passed by the gate, so it may hold anything.
#[derive(Clone, Default)]
pub struct Raw {
    /// The bytes of one JSON object (or of what was meant to be one).
    pub bytes: Bytes,
    /// Where in the source it stands; strictly growing within one source.
    pub position: u64,
    /// It is no record, but a batch of a topic that cannot be taken apart; there are no bytes then.
    pub unreadable: Option<Unreadable>,
}

impl Raw {
    /// A record.
    #[must_use]
    pub fn new(bytes: Bytes, position: u64) -> Self {
        Self {
            bytes,
            position,
            unreadable: None,
        }
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raw({} bytes at {})", self.bytes.len(), self.position)
    }
}

/// Where a topic message came from: header `falaj.src`, written `<source id>@<position>`.
///
/// The source id is ASCII without `@` and names no file and no host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Src {
    /// Identity of the source, stable over restarts.
    pub id: Arc<str>,
    /// Position in the source; strictly growing within a partition of the topic.
    pub position: u64,
}

impl Src {
    /// The header's text.
    #[must_use]
    pub fn header(&self) -> String {
        format!("{}@{}", self.id, self.position)
    }

    /// Splits a header into source id and position; `None` where it has another form.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<(&str, u64)> {
        let (id, position) = std::str::from_utf8(header).ok()?.rsplit_once('@')?;
        Some((id, position.parse().ok()?))
    }
}

/// One cleared record on its way to the topic.
#[derive(Clone)]
pub struct Outgoing {
    /// Partition, from the pid (or the source position where there is none).
    pub partition: i32,
    /// Record timestamp in milliseconds since 1970: the event time.
    pub timestamp_ms: i64,
    /// `<pid>/<sequence>`.
    pub key: Bytes,
    /// JSON object of the cleared fields and `pid`.
    pub value: Bytes,
    /// Header `falaj.src`.
    pub src: Bytes,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Outgoing({} bytes for partition {})",
            self.value.len(),
            self.partition
        )
    }
}

/// Records on their way to the topic, all cleared under one policy.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Header `falaj.policy`, the same for all.
    pub policy: Bytes,
    /// The records, in source order.
    pub messages: Vec<Outgoing>,
}

/// One message of a topic, as read.
#[derive(Clone)]
pub struct Message {
    /// Offset in its partition.
    pub offset: i64,
    /// Record timestamp in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Key, if any.
    pub key: Option<Bytes>,
    /// Value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Header `falaj.policy`.
    pub policy: Option<Bytes>,
    /// Header `falaj.src`.
    pub src: Option<Bytes>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message(offset {})", self.offset)
    }
}

/// A batch of a topic that cannot be taken apart. None of its records is used; it counts as one
/// that was read, and is a reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable {
    /// Offset of its first record.
    pub first: i64,
    /// First offset after it.
    pub next: i64,
    /// [`Reason::BatchBroken`] or [`Reason::BatchTooLarge`].
    pub reason: Reason,
    /// Its length on the topic, in bytes.
    pub length: u64,
}

/// What one read of one partition gave.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// The partition.
    pub partition: i32,
    /// Messages in offset order.
    pub messages: Vec<Message>,
    /// Batches between them that cannot be taken apart, in offset order.
    pub unreadable: Vec<Unreadable>,
    /// Where to go on reading (past offsets that hold no message, too).
    pub next: i64,
    /// End of what may be read now: first offset after the last durable message.
    pub end: i64,
}
