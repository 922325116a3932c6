use std::fmt;
use std::sync::Arc;

use arrow::array::{ListArray, StringArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::Value;

/// What a view keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewKind {
    /// One row a group; published under the k rule.
    Aggregate,
    /// The newest row of each pid; never published.
    Row,
}

/// A column of a view, as its SELECT names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Type of its values: `Utf8`, `Int64`, `Float64`, `Boolean`, `Timestamp(us)`, `Date32`,
    /// `Decimal128`.
    pub data_type: DataType,
    /// Whether it belongs to the row's key (a group expression, or the pid of a row view).
    pub key: bool,
    /// Whether a row may hold NULL here.
    pub nullable: bool,
}

impl Column {
    /// The type's name in the HTTP API and in Spark: `string`, `bigint`, `double`, `boolean`,
    /// `timestamp`, `date`, `decimal(p,s)`.
    #[must_use]
    pub fn type_name(&self) -> String {
        match &self.data_type {
            DataType::Int64 => "bigint".into(),
            DataType::Float64 => "double".into(),
            DataType::Boolean => "boolean".into(),
            DataType::Timestamp(..) => "timestamp".into(),
            DataType::Date32 => "date".into(),
            DataType::Decimal128(p, s) => format!("decimal({p},{s})"),
            _ => "string".into(),
        }
    }
}

/// `window(event_time, size [, slide])` of a windowed view, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Length of a window.
    pub size_us: i64,
    /// Distance of window starts; equal to the size for tumbling windows.
    pub slide_us: i64,
    /// Index of the `window.start` column in the SELECT, if selected.
    pub start: Option<usize>,
    /// Index of the `window.end` column in the SELECT, if selected.
    pub end: Option<usize>,
}

/// What is known of a view before its first record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewInfo {
    /// Name in the pipeline file; the table's or collection's name in a store.
    pub name: String,
    /// Aggregate or row view.
    pub kind: ViewKind,
    /// Columns in SELECT order.
    pub columns: Vec<Column>,
    /// The window of a windowed aggregate view.
    pub window: Option<Window>,
    /// Columns of `records` that its rows are computed from, WHERE included.
    pub fields: Vec<String>,
    /// The SQL text as written.
    pub sql: String,
}

/// How many people stand behind the rows of an update; sets saturate, so memory stays flat.
#[derive(Clone)]
pub struct People {
    /// Distinct people of each row's group, saturating at the guard's size.
    pub count: Vec<u32>,
    /// For each row, hashes (`UInt64`) of people that came since the last drain, saturating.
    pub recent: ListArray,
}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "People({} rows)", self.count.len())
    }
}

/// Rows of a view that changed, with their new values: an upsert by key.
#[derive(Clone)]
pub struct ViewUpdate {
    /// The view.
    pub view: Arc<ViewInfo>,
    /// Changed rows, columns as in [`ViewInfo::columns`]. Each key occurs once.
    pub rows: RecordBatch,
    /// `_key` of each row: an injective text of the group values, or the pid.
    pub keys: StringArray,
    /// `_version` of all these rows: a later write of a key has a larger one.
    pub version: i64,
    /// Lowest watermark of all partitions that are not idle, in microseconds since 1970.
    pub watermark: Option<i64>,
    /// People behind the rows; aggregate views only.
    pub people: Option<People>,
}

impl fmt::Debug for ViewUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ViewUpdate({}: {} rows)",
            self.view.name,
            self.rows.num_rows()
        )
    }
}

/// A row as charts and the views API may show it: already under the k rule.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedRow {
    /// `_key` of the group; [`PublishedRow::OTHER`] for the folded row.
    pub key: String,
    /// Values in SELECT order. In the folded row the key columns hold the text `other`.
    pub values: Vec<Value>,
}

impl PublishedRow {
    /// Key of the row that small groups are folded into. No group has it: keys of groups are JSON arrays.
    pub const OTHER: &str = "other";
}

impl fmt::Debug for PublishedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublishedRow(..)")
    }
}

/// How the published rows of an aggregate view change, all at once.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The view.
    pub view: Arc<ViewInfo>,
    /// Larger than in every earlier publication of this view.
    pub version: i64,
    /// Lowest watermark, in microseconds since 1970.
    pub watermark: Option<i64>,
    /// How many groups are folded or held back now.
    pub suppressed: u64,
    /// New and changed rows.
    pub upserts: Vec<PublishedRow>,
    /// Keys of rows that are shown no more.
    pub deletes: Vec<String>,
}
