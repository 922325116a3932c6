//! What a sink still owes its store: the queue inside an outlet, and its form in a checkpoint.
//!
//! Rows of aggregate views coalesce: of each key only the newest is kept, so the queue never
//! holds many more rows than the view has groups. Rows of row views stand in the order they came.
//! When rows coalesce they all take the newest version among them: a row that no later update
//! touched is also the newest of its key at that version.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{filter, filter_record_batch, interleave, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use falaj_record::{PID, Value, ViewInfo, ViewKind, ViewUpdate};
use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use crate::{Place, SinkError};

/// Superseded rows that may lie about before a view's updates are coalesced, beyond as many as
/// there are live ones.
const STALE_ROWS_MAX: usize = 8192;
/// Updates of a view that may lie about before they are coalesced: small ones cost more than
/// their rows.
const UPDATES_MAX: usize = 256;

/// Updates of several views, each view's oldest first.
#[derive(Default)]
pub(crate) struct Queue {
    views: Vec<ViewQueue>,
}

struct ViewQueue {
    view: Arc<ViewInfo>,
    updates: VecDeque<ViewUpdate>,
    rows: usize,
    /// Bytes of the values, about; of row views only.
    bytes: usize,
    /// Rows that were left when the updates were coalesced last.
    live: usize,
}

impl Queue {
    pub(crate) fn new(views: &[Arc<ViewInfo>]) -> Self {
        let empty = |view: &Arc<ViewInfo>| ViewQueue {
            view: Arc::clone(view),
            updates: VecDeque::new(),
            rows: 0,
            bytes: 0,
            live: 0,
        };
        Self {
            views: views.iter().map(empty).collect(),
        }
    }

    /// Whether updates of this view belong here.
    pub(crate) fn knows(&self, view: &str) -> bool {
        self.views.iter().any(|queue| queue.view.name == view)
    }

    /// Names of the views here.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.views.iter().map(|queue| &queue.view.name)
    }

    /// Whether any of the views here is a row view.
    pub(crate) fn has_row_views(&self) -> bool {
        let mut kinds = self.views.iter().map(|queue| queue.view.kind);
        kinds.any(|kind| kind == ViewKind::Row)
    }

    pub(crate) fn rows(&self) -> usize {
        self.views.iter().map(|queue| queue.rows).sum()
    }

    /// Bytes of what is there of row views, about.
    pub(crate) fn bytes(&self) -> usize {
        self.views.iter().map(|queue| queue.bytes).sum()
    }

    pub(crate) fn rows_of(&self, kind: ViewKind) -> usize {
        let views = self.views.iter().filter(|queue| queue.view.kind == kind);
        views.map(|queue| queue.rows).sum()
    }

    /// Adds what is newer than everything here. Updates of unknown views are dropped.
    pub(crate) fn push(&mut self, update: ViewUpdate) {
        if let Some(queue) = self.of(&update.view.name) {
            queue.count(&update);
            queue.updates.push_back(ViewUpdate {
                people: None,
                ..update
            });
            if queue.rows > 2 * queue.live + STALE_ROWS_MAX || queue.updates.len() > UPDATES_MAX {
                queue.coalesce();
            }
        }
    }

    /// Puts what [`Queue::take`] gave back in front.
    pub(crate) fn put_back(&mut self, updates: Vec<ViewUpdate>) {
        for update in updates.into_iter().rev() {
            if let Some(queue) = self.of(&update.view.name) {
                queue.count(&update);
                queue.updates.push_front(ViewUpdate {
                    people: None,
                    ..update
                });
            }
        }
    }

    /// Takes out at most `rows_max` rows, oldest first.
    pub(crate) fn take(&mut self, rows_max: usize) -> Vec<ViewUpdate> {
        let mut taken = Vec::new();
        let mut room = rows_max;
        for queue in &mut self.views {
            queue.coalesce();
            while room > 0
                && let Some(update) = queue.updates.pop_front()
            {
                let rows = update.rows.num_rows();
                if rows > room {
                    queue.updates.push_front(slice(&update, room, rows - room));
                    taken.push(slice(&update, 0, room));
                } else {
                    taken.push(update);
                }
                let gone = rows.min(room);
                queue.discount(gone);
                room -= gone;
            }
        }
        taken
    }

    /// Drops what is about this subject.
    pub(crate) fn forget(&mut self, pid: &str) {
        for queue in &mut self.views {
            let left = queue.updates.iter().map(|update| without(update, pid));
            queue.updates = left.filter(|update| update.rows.num_rows() > 0).collect();
            (queue.rows, queue.bytes) = (0, 0);
            for update in std::mem::take(&mut queue.updates) {
                queue.count(&update);
                queue.updates.push_back(update);
            }
        }
    }

    /// All updates, coalesced.
    pub(crate) fn updates(&mut self) -> impl Iterator<Item = &ViewUpdate> {
        self.views.iter_mut().flat_map(|queue| {
            queue.coalesce();
            queue.updates.iter()
        })
    }

    fn of(&mut self, view: &str) -> Option<&mut ViewQueue> {
        self.views.iter_mut().find(|queue| queue.view.name == view)
    }
}

impl ViewQueue {
    fn count(&mut self, update: &ViewUpdate) {
        self.rows += update.rows.num_rows();
        if self.view.kind == ViewKind::Row {
            self.bytes += bytes(update);
        }
    }

    /// So many rows are gone, each as large as all are in the mean.
    fn discount(&mut self, gone: usize) {
        let left = self.rows - gone;
        self.bytes = match left {
            0 => 0,
            _ => self.bytes - self.bytes / self.rows * gone,
        };
        self.rows = left;
    }

    fn coalesce(&mut self) {
        if self.view.kind == ViewKind::Aggregate
            && self.updates.len() > 1
            // Columns that differ between updates (a restored one, say) cannot be joined: they
            // stay side by side, which is only larger.
            && let Ok(update) = newest_of_each_key(self.updates.make_contiguous())
        {
            self.rows = update.rows.num_rows();
            self.updates = VecDeque::from([update]);
        }
        self.live = self.rows;
    }
}

/// Bytes of an update's values, about: of texts as they are, eight of everything else.
pub(crate) fn bytes(update: &ViewUpdate) -> usize {
    let values = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8 => column
            .as_string::<i32>()
            .iter()
            .flatten()
            .map(str::len)
            .sum(),
        DataType::Utf8View => {
            let lengths = column.as_string_view().lengths();
            lengths.map(|length| length as usize).sum()
        }
        _ => 8 * column.len(),
    };
    let keys: usize = update.keys.iter().flatten().map(str::len).sum();
    keys + update.rows.columns().iter().map(values).sum::<usize>()
}

/// One update in place of several, oldest first: of each key the last row.
fn newest_of_each_key(updates: &[ViewUpdate]) -> Result<ViewUpdate, ArrowError> {
    let mut seen = HashSet::new();
    let mut places = Vec::new();
    for (at, update) in updates.iter().enumerate().rev() {
        for row in 0..update.keys.len() {
            if seen.insert(update.keys.value(row)) {
                places.push((at, row));
            }
        }
    }
    let rows: Vec<_> = updates.iter().map(|update| &update.rows).collect();
    let keys: Vec<_> = updates
        .iter()
        .map(|update| &update.keys as &dyn Array)
        .collect();
    let last = &updates[updates.len() - 1];
    Ok(ViewUpdate {
        view: Arc::clone(&last.view),
        rows: interleave_record_batch(&rows, &places)?,
        keys: interleave(&keys, &places)?.as_string::<i32>().clone(),
        version: last.version,
        watermark: last.watermark,
        people: None,
    })
}

fn slice(update: &ViewUpdate, offset: usize, length: usize) -> ViewUpdate {
    ViewUpdate {
        rows: update.rows.slice(offset, length),
        keys: update.keys.slice(offset, length),
        people: None,
        ..update.clone()
    }
}

/// The rows of `update` that are not about this subject: keyed by its pid in a row view, or with
/// it in a column `pid`.
fn without(update: &ViewUpdate, pid: &str) -> ViewUpdate {
    let column = update.rows.column_by_name(PID);
    let pid_is = Value::Text(pid.to_owned());
    let other = |row: usize| {
        (update.view.kind == ViewKind::Aggregate || update.keys.value(row) != pid)
            && column.is_none_or(|column| Value::at(column, row) != pid_is)
    };
    let keep: BooleanArray = (0..update.keys.len()).map(|row| Some(other(row))).collect();
    let same_length = "the mask has an entry for each row";
    ViewUpdate {
        rows: filter_record_batch(&update.rows, &keep).expect(same_length),
        keys: filter(&update.keys, &keep)
            .expect(same_length)
            .as_string::<i32>()
            .clone(),
        people: None,
        ..update.clone()
    }
}

/// Everything that a sink has not acknowledged, for a checkpoint.
#[derive(Clone, Default)]
pub struct Pending {
    updates: Vec<ViewUpdate>,
    /// From where rows of row views have to be read again.
    missing: Option<Place>,
    /// Views of which the sink has, or has before it, everything, with the name of the filling
    /// that has it (empty where its table bears no mark).
    complete: BTreeMap<String, String>,
}

/// First bytes of a saved [`Pending`]; the digit is the version of the form.
const MAGIC: &[u8; 8] = b"falajpu4";
/// Of the form that said of no filling what is complete.
const MAGIC_3: &[u8; 8] = b"falajpu3";
/// Of the form that said nothing of what is complete.
const MAGIC_2: &[u8; 8] = b"falajpu2";
/// Of the form that said nothing but the updates.
const MAGIC_1: &[u8; 8] = b"falajpu1";
/// Column that holds the keys beside a view's own columns. No view has a column of this name.
const KEY: &str = "_key";

/// What stands before the updates.
#[derive(Serialize, Deserialize)]
struct Opening {
    missing: Option<Place>,
    complete: BTreeMap<String, String>,
}

/// The same in the third form.
#[derive(Deserialize)]
struct Opening3 {
    missing: Option<Place>,
}

/// What stands before an update's rows.
#[derive(Serialize, Deserialize)]
struct Head {
    view: String,
    version: i64,
    watermark: Option<i64>,
    /// Length of the Arrow IPC stream that follows.
    bytes: usize,
}

impl Pending {
    pub(crate) fn new(
        updates: Vec<ViewUpdate>,
        missing: Option<Place>,
        complete: BTreeMap<String, String>,
    ) -> Self {
        Self {
            updates,
            missing,
            complete,
        }
    }

    /// The updates, each view's oldest first.
    #[must_use]
    pub fn updates(&self) -> &[ViewUpdate] {
        &self.updates
    }

    pub(crate) fn into_parts(self) -> (Vec<ViewUpdate>, Option<Place>, BTreeMap<String, String>) {
        (self.updates, self.missing, self.complete)
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.updates
            .iter()
            .map(|update| update.rows.num_rows())
            .sum()
    }

    /// As bytes: eight bytes of magic, the length of a JSON text (4 bytes, little endian) and the
    /// text, which says where rows have to be read again from and which views are complete; then for
    /// each update the length of a JSON head, the head, and its rows with their keys as an Arrow IPC
    /// stream. The people behind the rows are not kept: no sink needs them.
    ///
    /// # Errors
    /// Where an update does not have the columns of its view.
    #[expect(clippy::missing_panics_doc, reason = "its own words are always JSON")]
    pub fn to_bytes(&self) -> Result<Vec<u8>, SinkError> {
        let mut bytes = MAGIC.to_vec();
        let opening = serde_json::to_vec(&Opening {
            missing: self.missing.clone(),
            complete: self.complete.clone(),
        });
        let opening = opening.expect("numbers and names are always JSON");
        let length = u32::try_from(opening.len()).unwrap_or(u32::MAX);
        bytes.extend(length.to_le_bytes());
        bytes.extend(opening);
        for update in &self.updates {
            let view = &update.view;
            let shape = || SinkError::shape(view);
            let rows = stream(update).map_err(|_| shape())?;
            let head = serde_json::to_vec(&Head {
                view: view.name.clone(),
                version: update.version,
                watermark: update.watermark,
                bytes: rows.len(),
            });
            let head = head.map_err(|_| shape())?;
            let length = u32::try_from(head.len()).map_err(|_| shape())?;
            bytes.extend(length.to_le_bytes());
            bytes.extend(head);
            bytes.extend(rows);
        }
        Ok(bytes)
    }

    /// Reads what [`Pending::to_bytes`] wrote, of these views only: of one that is gone, or is
    /// computed again, nothing is owed.
    ///
    /// # Errors
    /// Where the bytes have another form or are cut, or the columns of a view changed.
    pub fn from_bytes(bytes: &[u8], views: &[Arc<ViewInfo>]) -> Result<Self, SinkError> {
        let saved = |cause: &str| SinkError::Saved {
            cause: cause.into(),
        };
        let cut = || saved("the bytes are cut");
        let damaged = |_| saved("a place is damaged");
        let (missing, complete, mut rest) = match bytes.split_first_chunk::<8>() {
            Some((MAGIC_1, rest)) => (None, BTreeMap::new(), rest),
            Some((MAGIC_2, rest)) => {
                let (missing, rest) = text(rest).ok_or_else(cut)?;
                (
                    serde_json::from_slice(missing).map_err(damaged)?,
                    BTreeMap::new(),
                    rest,
                )
            }
            Some((MAGIC_3, rest)) => {
                let (opening, rest) = text(rest).ok_or_else(cut)?;
                let opening = serde_json::from_slice(opening).map_err(damaged)?;
                let Opening3 { missing } = opening;
                (missing, BTreeMap::new(), rest)
            }
            Some((MAGIC, rest)) => {
                let (opening, rest) = text(rest).ok_or_else(cut)?;
                let opening = serde_json::from_slice(opening).map_err(damaged)?;
                let Opening { missing, complete } = opening;
                (missing, complete, rest)
            }
            _ => return Err(saved("not in the form of this version")),
        };
        let mut updates = Vec::new();
        while !rest.is_empty() {
            let (head, after) = text(rest).ok_or_else(cut)?;
            let head: Head =
                serde_json::from_slice(head).map_err(|_| saved("a head is damaged"))?;
            let (rows, after) = after.split_at_checked(head.bytes).ok_or_else(cut)?;
            let Some(view) = views.iter().find(|view| view.name == head.view) else {
                rest = after;
                continue;
            };
            let (rows, keys) = read_stream(rows).map_err(|_| saved("rows are damaged"))?;
            if !fits(&rows, view) {
                return Err(saved(&format!(
                    "the columns of view `{}` changed",
                    view.name
                )));
            }
            updates.push(ViewUpdate {
                view: Arc::clone(view),
                rows,
                keys: keys.as_string::<i32>().clone(),
                version: head.version,
                watermark: head.watermark,
                people: None,
            });
            rest = after;
        }
        Ok(Self {
            updates,
            missing,
            complete,
        })
    }
}

/// A text behind its length, and what follows it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, after) = bytes.split_first_chunk::<4>()?;
    after.split_at_checked(u32::from_le_bytes(*length) as usize)
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pending").field(&self.updates).finish()
    }
}

fn stream(update: &ViewUpdate) -> Result<Vec<u8>, ArrowError> {
    let schema = update.rows.schema();
    let mut fields: Vec<_> = schema.fields().iter().map(Arc::clone).collect();
    fields.push(Arc::new(Field::new(KEY, DataType::Utf8, false)));
    let mut columns = update.rows.columns().to_vec();
    columns.push(Arc::new(update.keys.clone()));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(&batch)?;
    writer.into_inner()
}

fn read_stream(bytes: &[u8]) -> Result<(RecordBatch, ArrayRef), ArrowError> {
    let lacking = || ArrowError::SchemaError("no rows with keys".into());
    let mut rows = StreamReader::try_new(bytes, None)?
        .next()
        .ok_or_else(lacking)??;
    let at = rows.schema().column_with_name(KEY).ok_or_else(lacking)?.0;
    let keys = rows.remove_column(at);
    let usable = keys.data_type() == &DataType::Utf8 && keys.null_count() == 0;
    usable.then_some((rows, keys)).ok_or_else(lacking)
}

/// Whether rows have the names and types of a view's columns. How a text lies in memory and how a
/// time zone is spelt may differ: every sink takes both.
fn fits(rows: &RecordBatch, view: &ViewInfo) -> bool {
    let schema = rows.schema();
    let same = |field: &Field, column: &falaj_record::Column| {
        use DataType::{Timestamp, Utf8, Utf8View};
        field.name() == &column.name
            && match (field.data_type(), &column.data_type) {
                (Utf8 | Utf8View, Utf8 | Utf8View) => true,
                (Timestamp(a, _), Timestamp(b, _)) => a == b,
                (a, b) => a == b,
            }
    };
    schema.fields().len() == view.columns.len()
        && schema
            .fields()
            .iter()
            .zip(&view.columns)
            .all(|(field, column)| same(field, column))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::conformance::{counts, counts_view, people, people_view};

    /// Key, count and version of every row, as a store that applies them in order would hold them.
    fn settled<'a>(updates: impl IntoIterator<Item = &'a ViewUpdate>) -> BTreeMap<String, i64> {
        let mut rows = BTreeMap::new();
        for update in updates {
            let users = update.rows.column(1).as_primitive::<Int64Type>();
            for row in 0..update.keys.len() {
                rows.insert(update.keys.value(row).to_owned(), users.value(row));
            }
        }
        rows
    }

    #[test]
    fn aggregate_rows_never_outnumber_the_groups_by_much() {
        let view = counts_view();
        let mut queue = Queue::new(&[Arc::clone(&view)]);
        let mut expected = BTreeMap::new();
        for version in 1..=3000_i64 {
            let groups: Vec<_> = (0..5).map(|i| (version * 7 + i) % 100).collect();
            let rows: Vec<_> = groups.iter().map(|g| (format!("g{g}"), version)).collect();
            expected.extend(rows.iter().map(|(g, users)| (format!("[\"{g}\"]"), *users)));
            queue.push(counts(
                &view,
                version,
                rows.iter().map(|(g, n)| (Some(g.as_str()), *n)),
            ));
            assert!(queue.rows() <= 2 * 100 + STALE_ROWS_MAX);
            assert!(queue.views[0].updates.len() <= UPDATES_MAX + 1);
        }
        let updates: Vec<_> = queue.updates().cloned().collect();
        assert_eq!((updates.len(), updates[0].version), (1, 3000));
        assert_eq!(updates[0].rows.num_rows(), 100);
        assert_eq!(settled(&updates), expected);
    }

    #[test]
    fn what_was_taken_and_put_back_is_older_than_what_came_since() {
        let view = counts_view();
        let mut queue = Queue::new(&[Arc::clone(&view)]);
        queue.push(counts(
            &view,
            1,
            [(Some("a"), 1), (Some("b"), 1), (Some("c"), 1)],
        ));
        let taken = queue.take(2);
        assert_eq!((taken[0].rows.num_rows(), queue.rows()), (2, 1));
        queue.push(counts(&view, 2, [(Some("a"), 2), (Some("c"), 2)]));
        queue.put_back(taken);
        let all = queue.take(usize::MAX);
        assert_eq!(
            settled(&all),
            BTreeMap::from([
                ("[\"a\"]".into(), 2),
                ("[\"b\"]".into(), 1),
                ("[\"c\"]".into(), 2)
            ])
        );
        assert_eq!((queue.rows(), queue.take(9).len()), (0, 0));
    }

    #[test]
    fn rows_of_people_stay_in_order_and_one_person_can_be_forgotten() {
        let view = people_view();
        let mut queue = Queue::new(&[Arc::clone(&view)]);
        for (version, pids) in [(1, &["p", "q", "p2"][..]), (2, &["p"]), (3, &["r", "p"])] {
            queue.push(people(&view, version, pids));
        }
        queue.forget("p");
        let left = queue.take(usize::MAX);
        let keys: Vec<_> = left.iter().flat_map(|u| u.keys.iter().flatten()).collect();
        assert_eq!(keys, ["q", "p2", "r"]);
        assert_eq!(queue.rows(), 0);
    }

    #[test]
    fn saved_updates_read_back_as_they_were() {
        let (groups, persons) = (counts_view(), people_view());
        let views = [Arc::clone(&groups), Arc::clone(&persons)];
        let whole = counts(&groups, 7, [(Some("x"), 9), (None, 1), (Some(""), 2)]);
        let pending = Pending::new(
            vec![slice(&whole, 1, 2), people(&persons, 8, &["p", "q"])],
            Some(Place {
                positions: falaj_record::Positions([(0, 7), (3, i64::MAX)].into()),
                seen: b"anything".as_slice().into(),
            }),
            [(groups.name.clone(), "f1".to_owned())].into(),
        );
        let bytes = pending.to_bytes().expect("updates have their columns");
        let back = Pending::from_bytes(&bytes, &views).expect("nothing changed");
        for (a, b) in pending.updates().iter().zip(back.updates()) {
            assert_eq!((&a.rows, &a.keys, a.version), (&b.rows, &b.keys, b.version));
            assert_eq!((&a.view, a.watermark), (&b.view, b.watermark));
        }
        assert_eq!((back.updates().len(), back.rows()), (2, 4));
        assert_eq!(back.missing, pending.missing);
        assert_eq!(back.complete, pending.complete);
        let none = Pending::default().to_bytes().expect("nothing to write");
        assert_eq!(Pending::from_bytes(&none, &[]).map(|p| p.rows()), Ok(0));
        let gone = Pending::from_bytes(&bytes, &[]).map(|p| p.rows());
        assert_eq!(gone, Ok(0), "rows are owed of a view that is gone");
    }

    #[test]
    fn saved_updates_that_do_not_fit_are_refused() {
        let view = counts_view();
        let updates = vec![counts(&view, 1, [(Some("a"), 1)])];
        let bytes = Pending::new(updates, None, BTreeMap::new()).to_bytes();
        let bytes = bytes.expect("fits");
        let mut other = ViewInfo::clone(&view);
        other.columns[1].data_type = DataType::Float64;
        let (changed, same) = ([Arc::new(other)], [Arc::clone(&view)]);
        for (bytes, views, reason) in [
            (
                &bytes[..],
                &changed[..],
                "the columns of view `counts` changed",
            ),
            (&bytes[..bytes.len() - 1], &same[..], "the bytes are cut"),
            (&bytes[..10], &same[..], "the bytes are cut"),
            (
                b"something else",
                &same[..],
                "not in the form of this version",
            ),
        ] {
            let error = Pending::from_bytes(bytes, views).expect_err(reason);
            assert!(error.to_string().ends_with(reason), "{error}");
        }
    }
}
