//! From the topic's messages to Arrow columns, asking the gate's questions again.
//!
//! The topic is a trust boundary: others can write to it. So a message counts only with the header
//! of a policy that this pipeline made, and what it holds is checked as a raw record is.
//!
//! Always: every message read is in exactly one of the batch, the rejects and the duplicates.
//! Always: what is decided of a message depends on the messages before it in its partition alone,
//! so a replay decides the same.
//! Absent on purpose: I/O and clocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use falaj_record::{At, Batch, Fetched, FieldType, Message, PID, Reason, Reject, Src};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::number::parse_i64;
use crate::policy::Origin;
use crate::scan::{Found, Paths};
use crate::time::TIME_MS_MAX;
use crate::treat::{float, resolved};
use crate::{Cleared, Declarations, Keys, Pid, Policy};

/// Sources that are told apart in a partition, and the longest name of one: who can write to the
/// topic must not be able to fill the memory with names.
const SOURCES_MAX: usize = 65_536;
const SOURCE_NAME_MAX: usize = 256;

/// Bytes of text that one batch may hold: Arrow counts them in 31 bits.
const BATCH_TEXT_MAX: usize = i32::MAX as usize;

/// What became of the messages of one call: `read` = rows of the batch + rejects + duplicates. A
/// batch of the topic that could not be taken apart counts as one message.
#[derive(Debug)]
pub struct Decoded {
    /// What can be used.
    pub batch: Cleared<Batch>,
    /// What cannot.
    pub rejects: Vec<Reject>,
    /// Messages read.
    pub read: u64,
    /// Repeats, dropped.
    pub duplicates: u64,
}

/// The highest source position of each source in each partition: what is not above it came before.
///
/// Goes into the checkpoint, together with the positions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen(BTreeMap<i32, BTreeMap<Arc<str>, u64>>);

impl Seen {
    /// The highest position of a source in a partition.
    #[must_use]
    pub fn highest(&self, partition: i32, source: &str) -> Option<u64> {
        self.0.get(&partition)?.get(source).copied()
    }

    /// Takes note of a message; true where it, or a later one, was there before. Nothing where
    /// there are too many sources.
    fn repeats(&mut self, partition: i32, source: &str, position: u64) -> Option<bool> {
        let sources = self.0.entry(partition).or_default();
        let full = sources.len() >= SOURCES_MAX;
        match sources.get_mut(source) {
            Some(highest) if position <= *highest => Some(true),
            Some(highest) => {
                *highest = position;
                Some(false)
            }
            None if full => None,
            None => {
                sources.insert(source.into(), position);
                Some(false)
            }
        }
    }
}

/// Makes messages of the topic into batches, under one policy.
pub struct Decoder {
    policy: Arc<Policy>,
    /// The policies whose records are read; the current one first.
    known: Vec<Known>,
    paths: Paths,
    names: Vec<Arc<str>>,
    columns: Columns,
    seen: Seen,
    scratch: Zeroizing<String>,
}

/// A policy that messages may have been cleared under.
struct Known {
    header: Bytes,
    current: bool,
    /// Whether the pid means what it means now.
    pid: bool,
    /// For each field, whether it was declared as it is now; what was not is null.
    fields: Vec<bool>,
}

/// A checked value on its way into its column.
#[derive(Clone, Copy)]
enum Cell<'a> {
    Null,
    Text { raw: &'a str, escaped: bool },
    Int(i64),
    Float(f64),
    Bool(bool),
}

/// What is wrong with a message, and with which of its fields.
type Refusal = (Reason, Option<Arc<str>>);

impl Decoder {
    /// A decoder. Records that were cleared under an `earlier` policy of this pipeline are read
    /// too: their fields as far as they were declared just as now, the others as null.
    #[must_use]
    pub fn new(policy: Arc<Policy>, keys: &Keys, earlier: &[Declarations]) -> Self {
        let fields = policy.schema().fields();
        let (paths, _) = Paths::new(fields.iter().map(|f| f.name.as_str()).chain([PID]));
        let now = policy.declarations();
        let known = std::iter::once(now)
            .chain(earlier.iter().filter(|before| before.hash != now.hash))
            .map(|then| Known {
                header: then.header(keys),
                current: then.hash == now.hash,
                pid: policy.subject.is_some() && then.subject == now.subject,
                fields: fields
                    .iter()
                    .zip(&policy.outputs)
                    .map(|(field, output)| {
                        // What is made from the pid changes with it.
                        let from_pid = matches!(output.from, Origin::Pid { .. });
                        then.fields.get(&field.name) == now.fields.get(&field.name)
                            && (then.subject == now.subject || !from_pid)
                    })
                    .collect(),
            })
            .collect();
        Self {
            known,
            paths,
            names: fields
                .iter()
                .map(|field| field.name.as_str().into())
                .collect(),
            columns: Columns::new(fields.iter().map(|field| field.kind)),
            seen: Seen::default(),
            scratch: Zeroizing::default(),
            policy,
        }
    }

    /// What was seen so far, for the checkpoint.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Goes on from a checkpoint.
    pub fn resume(&mut self, seen: Seen) {
        self.seen = seen;
    }

    /// Decodes what was read. `now_ms` is the time of rejects, in milliseconds since 1970.
    ///
    /// A call takes at most 2 GiB of text; records beyond that are rejects.
    #[expect(
        clippy::missing_panics_doc,
        reason = "the columns are made from the schema"
    )]
    pub fn decode(&mut self, fetched: &[Fetched], now_ms: i64) -> Decoded {
        let messages = fetched.iter().map(|part| part.messages.len()).sum();
        self.columns.reserve(messages);
        let mut rejects: Vec<Reject> = fetched
            .iter()
            .flat_map(|part| unreadable(part, now_ms))
            .collect();
        let read = messages + rejects.len();
        let mut duplicates = 0;
        let mut found = Vec::with_capacity(self.paths.slots());
        let mut cells = Vec::with_capacity(self.names.len());
        for part in fetched {
            for message in &part.messages {
                match self.take(part.partition, message, &mut found, &mut cells) {
                    Ok(true) => {}
                    Ok(false) => duplicates += 1,
                    Err((reason, path)) => rejects.push(Reject {
                        at: At::Topic {
                            partition: part.partition,
                            offset: message.offset,
                        },
                        reason,
                        path,
                        length: message.value.as_ref().map_or(0, Bytes::len) as u64,
                        time_ms: now_ms,
                    }),
                }
            }
        }
        zeroize::Zeroize::zeroize(&mut *self.scratch);
        let batch = RecordBatch::try_new(
            Arc::clone(self.policy.schema().arrow()),
            self.columns.finish(),
        )
        .expect("the columns are made from the schema");
        Decoded {
            batch: Cleared::new(Batch(batch)),
            rejects,
            read: read as u64,
            duplicates,
        }
    }

    /// Appends a message to the columns; false where it is a repeat.
    fn take<'a>(
        &mut self,
        partition: i32,
        message: &'a Message,
        found: &mut Vec<Found<'a>>,
        cells: &mut Vec<Cell<'a>>,
    ) -> Result<bool, Refusal> {
        let plain = |reason| (reason, None);
        let header = message.policy.as_deref();
        let known = self
            .known
            .iter()
            .find(|known| header == Some(&*known.header))
            .ok_or(plain(Reason::NotCleared))?;
        if let Some(src) = message.src.as_deref() {
            let repeats = Src::parse(src)
                .filter(|(source, _)| source.len() <= SOURCE_NAME_MAX)
                .and_then(|(source, position)| self.seen.repeats(partition, source, position));
            if repeats.ok_or(plain(Reason::NotCleared))? {
                return Ok(false);
            }
        }
        let value = message.value.as_deref().ok_or(plain(Reason::NotObject))?;
        let text = std::str::from_utf8(value).map_err(|_| plain(Reason::NotUtf8))?;
        self.paths.scan(text, found).map_err(plain)?;
        if !(0..=TIME_MS_MAX).contains(&message.timestamp_ms) {
            return Err(plain(Reason::NoEventTime));
        }

        let (pid, values) = found.split_last().expect("there is a slot for the pid");
        let pid = match pid {
            _ if !known.pid => None,
            Found::Absent | Found::Null => None,
            Found::Text { raw, .. } if Pid::parse(raw).is_some() => Some(*raw),
            _ => return Err((Reason::WrongType, Some(PID.into()))),
        };
        if pid.is_none() && known.current && self.policy.subject_required {
            return Err((Reason::NoSubject, Some(PID.into())));
        }
        cells.clear();
        let mut text_bytes = PID.len();
        for (at, field) in self.policy.schema().fields().iter().enumerate() {
            let value = if known.fields[at] {
                values[at]
            } else {
                Found::Null
            };
            let cell = cell(field.kind, value)
                .map_err(|reason| (reason, Some(Arc::clone(&self.names[at]))))?;
            if let Cell::Text { raw, .. } = cell {
                text_bytes += raw.len();
            }
            cells.push(cell);
        }
        if text_bytes > BATCH_TEXT_MAX - self.columns.text_bytes {
            return Err(plain(Reason::TooLong));
        }

        // From here on nothing fails, so all columns stay equally long.
        let columns = &mut self.columns;
        columns.text_bytes += text_bytes;
        columns.pid.append_option(pid);
        for (column, cell) in columns.fields.iter_mut().zip(cells.iter()) {
            column.append(*cell, &mut self.scratch);
        }
        columns.event_time.append_value(message.timestamp_ms * 1000);
        columns.partition.append_value(partition);
        columns.offset.append_value(message.offset);
        Ok(true)
    }
}

/// The batches of a part that could not be taken apart, each as one reject.
fn unreadable(part: &Fetched, now_ms: i64) -> impl Iterator<Item = Reject> {
    part.unreadable.iter().map(move |batch| Reject {
        at: At::Topic {
            partition: part.partition,
            offset: batch.first,
        },
        reason: batch.reason,
        path: None,
        length: batch.length,
        time_ms: now_ms,
    })
}

/// A value of the declared type, or why it is none.
fn cell(kind: FieldType, found: Found<'_>) -> Result<Cell<'_>, Reason> {
    match (kind, found) {
        (_, Found::Absent | Found::Null) => Ok(Cell::Null),
        (FieldType::String, Found::Text { raw, escaped }) => Ok(Cell::Text { raw, escaped }),
        (FieldType::Int, Found::Number { raw, whole: true }) => {
            parse_i64(raw).map(Cell::Int).ok_or(Reason::OutOfRange)
        }
        (FieldType::Float, Found::Number { raw, .. }) => float(raw).map(Cell::Float),
        (FieldType::Bool, Found::Bool(value)) => Ok(Cell::Bool(value)),
        _ => Err(Reason::WrongType),
    }
}

/// The columns of `records` while they grow.
struct Columns {
    pid: StringBuilder,
    fields: Vec<Column>,
    event_time: TimestampMicrosecondBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
    /// Upper bound of the bytes of text in them.
    text_bytes: usize,
}

enum Column {
    Text(StringBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
}

impl Columns {
    fn new(kinds: impl Iterator<Item = FieldType>) -> Self {
        Self {
            pid: StringBuilder::new(),
            fields: kinds.map(Column::of).collect(),
            event_time: TimestampMicrosecondBuilder::new(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
            text_bytes: 0,
        }
    }

    /// Builders give their memory away with each batch, so they start anew.
    fn reserve(&mut self, rows: usize) {
        self.pid = StringBuilder::with_capacity(rows, rows * 26);
        for column in &mut self.fields {
            match column {
                Column::Text(b) => *b = StringBuilder::with_capacity(rows, rows * 12),
                Column::Int(b) => *b = Int64Builder::with_capacity(rows),
                Column::Float(b) => *b = Float64Builder::with_capacity(rows),
                Column::Bool(b) => *b = BooleanBuilder::with_capacity(rows),
            }
        }
        self.event_time = TimestampMicrosecondBuilder::with_capacity(rows);
        self.partition = Int32Builder::with_capacity(rows);
        self.offset = Int64Builder::with_capacity(rows);
        self.text_bytes = 0;
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(self.pid.finish())];
        arrays.extend(self.fields.iter_mut().map(Column::finish));
        arrays.push(Arc::new(self.event_time.finish()));
        arrays.push(Arc::new(self.partition.finish()));
        arrays.push(Arc::new(self.offset.finish()));
        arrays
    }
}

impl Column {
    fn of(kind: FieldType) -> Self {
        match kind {
            FieldType::String => Self::Text(StringBuilder::new()),
            FieldType::Int => Self::Int(Int64Builder::new()),
            FieldType::Float => Self::Float(Float64Builder::new()),
            FieldType::Bool => Self::Bool(BooleanBuilder::new()),
        }
    }

    fn append(&mut self, cell: Cell<'_>, scratch: &mut String) {
        match (self, cell) {
            (Self::Text(b), Cell::Text { raw, escaped }) => {
                b.append_value(resolved(raw, escaped, scratch));
            }
            (Self::Text(b), _) => b.append_null(),
            (Self::Int(b), Cell::Int(value)) => b.append_value(value),
            (Self::Int(b), _) => b.append_null(),
            (Self::Float(b), Cell::Float(value)) => b.append_value(value),
            (Self::Float(b), _) => b.append_null(),
            (Self::Bool(b), Cell::Bool(value)) => b.append_value(value),
            (Self::Bool(b), _) => b.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(b) => Arc::new(b.finish()),
            Self::Int(b) => Arc::new(b.finish()),
            Self::Float(b) => Arc::new(b.finish()),
            Self::Bool(b) => Arc::new(b.finish()),
        }
    }
}
