//! Published rows as JSON and CSV.
//!
//! Always: rows stand in the order of their group columns, NULL first, the folded row last.
//! Always: a CSV cell that a spreadsheet would take for a formula is disarmed.

use std::cmp::Ordering;
use std::collections::HashMap;

use falaj_record::{PublishedRow, Value, ViewInfo, ViewKind};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::hub::{Delta, Row, Snapshot, Table};
use crate::status::Time;

/// Rows of a view in a snapshot of the event stream; the rest is to be had from the views API.
const SNAPSHOT_ROWS_MAX: usize = 5_000;

/// Sorts by the group columns (all columns, where a view has none).
pub(crate) fn sort(rows: &mut Table) {
    let columns = &rows.info.columns;
    let keys: Vec<usize> = (0..columns.len()).filter(|i| columns[*i].key).collect();
    rows.rows.sort_by(|(a_key, a), (b_key, b)| {
        let folded = |key: &str| key == PublishedRow::OTHER;
        folded(a_key).cmp(&folded(b_key)).then_with(|| {
            keys.iter()
                .map(|i| compare(&a[*i], &b[*i]))
                .find(|order| order.is_ne())
                .unwrap_or_else(|| a_key.cmp(b_key))
        })
    });
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a) | Value::Timestamp(a), Value::Int(b) | Value::Timestamp(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => decimal(a).total_cmp(&decimal(b)),
        // One column holds one type.
        _ => Ordering::Equal,
    }
}

fn decimal(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}

/// `{"view","kind","columns":[{"name","type"}],"published"}`.
pub(crate) struct ViewJson<'a>(pub &'a ViewInfo);

impl Serialize for ViewJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("view", &self.0.name)?;
        map.serialize_entry("kind", &self.0.kind)?;
        map.serialize_entry(
            "columns",
            &ColumnsJson {
                info: self.0,
                keys: false,
            },
        )?;
        map.serialize_entry("published", &(self.0.kind == ViewKind::Aggregate))?;
        map.end()
    }
}

struct ColumnsJson<'a> {
    info: &'a ViewInfo,
    /// Whether to tell group columns from the others.
    keys: bool,
}

impl Serialize for ColumnsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct ColumnJson<'a> {
            name: &'a str,
            r#type: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            key: Option<bool>,
        }
        serializer.collect_seq(self.info.columns.iter().map(|column| ColumnJson {
            name: &column.name,
            r#type: column.type_name(),
            key: self.keys.then_some(column.key),
        }))
    }
}

struct RowJson<'a> {
    info: &'a ViewInfo,
    /// The `_key`, for readers that apply deltas. No column has that name: they start with a letter.
    key: Option<&'a str>,
    values: &'a [Value],
}

impl Serialize for RowJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(key) = self.key {
            map.serialize_entry("_key", key)?;
        }
        for (column, value) in self.info.columns.iter().zip(self.values) {
            map.serialize_entry(&column.name, &value.json())?;
        }
        map.end()
    }
}

struct RowsJson<'a> {
    info: &'a ViewInfo,
    rows: &'a [Row],
    keys: bool,
}

impl Serialize for RowsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.rows.len()))?;
        for (key, values) in self.rows {
            let key = self.keys.then_some(&**key);
            seq.serialize_element(&RowJson {
                info: self.info,
                key,
                values,
            })?;
        }
        seq.end()
    }
}

/// The body of `/api/v1/views/{view}`.
pub(crate) fn view_json(view: &Table, limit: usize) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        view: &'a str,
        columns: ColumnsJson<'a>,
        rows: RowsJson<'a>,
        version: i64,
        watermark: Option<Time>,
        suppressed: u64,
    }
    let rows = &view.rows[..limit.min(view.rows.len())];
    json(&Body {
        view: &view.info.name,
        columns: ColumnsJson {
            info: &view.info,
            keys: false,
        },
        rows: RowsJson {
            info: &view.info,
            rows,
            keys: false,
        },
        version: view.version,
        watermark: view.watermark.map(Time),
        suppressed: view.suppressed,
    })
}

/// The data of a `delta` event.
pub(crate) fn delta_json(delta: &Delta) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        view: &'a str,
        version: i64,
        watermark: Option<Time>,
        suppressed: u64,
        upserts: RowsJson<'a>,
        deletes: &'a [String],
    }
    json(&Body {
        view: &delta.info.name,
        version: delta.version,
        watermark: delta.watermark.map(Time),
        suppressed: delta.suppressed,
        upserts: RowsJson {
            info: &delta.info,
            rows: &delta.upserts,
            keys: true,
        },
        deletes: &delta.deletes,
    })
}

/// The data of a `snapshot` event. `order` names the column whose largest values a view that is too
/// long is cut to; a view over windows is cut to the newest.
pub(crate) fn snapshot_json(snapshot: &Snapshot, order: &HashMap<&str, &str>) -> String {
    #[derive(Serialize)]
    struct ViewBody<'a> {
        view: &'a str,
        columns: ColumnsJson<'a>,
        window_seconds: Option<f64>,
        rows: RowsJson<'a>,
        rows_total: usize,
        version: i64,
        watermark: Option<Time>,
        suppressed: u64,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        now: Time,
        status: Option<&'a crate::Status>,
        history: &'a [crate::hub::Sample],
        views: Vec<ViewBody<'a>>,
    }
    let cuts: Vec<Option<Vec<Row>>> = snapshot
        .boards
        .iter()
        .map(|b| cut(b, order.get(b.info.name.as_str()).copied()))
        .collect();
    let views = snapshot
        .boards
        .iter()
        .zip(&cuts)
        .map(|(board, cut)| ViewBody {
            view: &board.info.name,
            columns: ColumnsJson {
                info: &board.info,
                keys: true,
            },
            window_seconds: board.info.window.map(|w| Time(0).until(Time(w.size_us))),
            rows: RowsJson {
                info: &board.info,
                rows: cut.as_deref().unwrap_or(&board.rows),
                keys: true,
            },
            rows_total: board.rows.len(),
            version: board.version,
            watermark: board.watermark.map(Time),
            suppressed: board.suppressed,
        });
    json(&Body {
        now: Time::now(),
        status: snapshot.status.as_deref(),
        history: &snapshot.history,
        views: views.collect(),
    })
}

/// The rows that matter most, where there are too many.
fn cut(board: &Table, order: Option<&str>) -> Option<Vec<Row>> {
    if board.rows.len() <= SNAPSHOT_ROWS_MAX {
        return None;
    }
    let mut rows = board.rows.clone();
    let by = match board.info.window.and_then(|w| w.start.or(w.end)) {
        Some(start) => Some(start),
        None => board
            .info
            .columns
            .iter()
            .position(|c| Some(c.name.as_str()) == order),
    };
    if let Some(by) = by {
        let folded = |row: &Row| &*row.0 == PublishedRow::OTHER;
        rows.sort_by(|a, b| {
            folded(b)
                .cmp(&folded(a))
                .then_with(|| compare(&b.1[by], &a.1[by]))
        });
    }
    rows.truncate(SNAPSHOT_ROWS_MAX);
    Some(rows)
}

/// The rows as CSV (RFC 4180): a header, CRLF, text quoted where it must be.
///
/// NULL is an empty cell, the empty text is `""`. A text that starts like a formula gets a leading
/// apostrophe: spreadsheets would run it.
pub(crate) fn view_csv(view: &Table, limit: usize) -> String {
    let names: Vec<&str> = view.info.columns.iter().map(|c| c.name.as_str()).collect();
    let mut csv = names.join(",");
    csv.push_str("\r\n");
    for (_, values) in view.rows.iter().take(limit) {
        for (i, value) in values.iter().enumerate() {
            if i > 0 {
                csv.push(',');
            }
            push_cell(&mut csv, value);
        }
        csv.push_str("\r\n");
    }
    csv
}

fn push_cell(csv: &mut String, value: &Value) {
    let Value::Text(text) = value else {
        return match value.json() {
            serde_json::Value::Null => {}
            serde_json::Value::String(text) => csv.push_str(&text),
            other => csv.push_str(&other.to_string()),
        };
    };
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let special = |c: char| matches!(c, '"' | ',' | '\r' | '\n');
    let padded = text.starts_with(' ') || text.ends_with(' ');
    if !(text.is_empty() || formula || padded || text.contains(special)) {
        return csv.push_str(text);
    }
    csv.push('"');
    if formula {
        csv.push('\'');
    }
    csv.push_str(&text.replace('"', "\"\""));
    csv.push('"');
}

/// JSON of a value whose `Serialize` cannot fail.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("maps in here have text keys and no Serialize fails")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::DataType;
    use falaj_record::Column;

    use super::*;

    fn rows(rows: &[(&str, Value, Value)]) -> Table {
        let column = |name: &str, data_type, key| Column {
            name: name.into(),
            data_type,
            key,
            nullable: true,
        };
        Table {
            info: Arc::new(ViewInfo {
                name: "by_text".into(),
                kind: ViewKind::Aggregate,
                columns: vec![
                    column("text", DataType::Utf8, true),
                    column("users", DataType::Int64, false),
                ],
                window: None,
                fields: Vec::new(),
                sql: String::new(),
            }),
            rows: rows
                .iter()
                .map(|(key, a, b)| ((*key).into(), [a.clone(), b.clone()].into()))
                .collect(),
            version: 7,
            watermark: Some(0),
            suppressed: 2,
        }
    }

    #[test]
    fn csv_quotes_and_disarms_text_and_leaves_numbers_alone() {
        for (value, cell) in [
            (Value::Text("plain".into()), "plain"),
            (Value::Text("a,b".into()), "\"a,b\""),
            (Value::Text("say \"hi\"".into()), "\"say \"\"hi\"\"\""),
            (Value::Text("two\r\nlines".into()), "\"two\r\nlines\""),
            (Value::Text(String::new()), "\"\""),
            (Value::Text(" padded".into()), "\" padded\""),
            (Value::Text("=1+1".into()), "\"'=1+1\""),
            (Value::Text("@SUM(A1)".into()), "\"'@SUM(A1)\""),
            (Value::Text("-x".into()), "\"'-x\""),
            (Value::Text("+49".into()), "\"'+49\""),
            (Value::Text("\tx".into()), "\"'\tx\""),
            (Value::Null, ""),
            (Value::Int(-5), "-5"),
            (Value::Int(i64::MAX), "9223372036854775807"),
            (Value::Float(-0.5), "-0.5"),
            (Value::Float(f64::NAN), ""),
            (Value::Bool(true), "true"),
            (Value::Decimal("-1.50".into()), "-1.50"),
            (Value::Timestamp(0), "1970-01-01T00:00:00Z"),
            (Value::Date(1), "1970-01-02"),
        ] {
            let mut csv = String::new();
            push_cell(&mut csv, &value);
            assert_eq!(csv, cell);
        }
        let csv = view_csv(&rows(&[("k", Value::Null, Value::Int(1))]), 10);
        assert_eq!(csv, "text,users\r\n,1\r\n");
    }

    #[test]
    fn rows_stand_by_group_with_null_first_and_the_folded_row_last() {
        let text = |t: &str| Value::Text(t.into());
        let mut view = rows(&[
            (PublishedRow::OTHER, text("other"), Value::Int(9)),
            ("[\"zz\"]", text("zz"), Value::Int(1)),
            ("[\"other\"]", text("other"), Value::Int(2)),
            ("[null]", Value::Null, Value::Int(3)),
        ]);
        sort(&mut view);
        assert_eq!(
            view_json(&view, 3),
            r#"{"view":"by_text","columns":[{"name":"text","type":"string"},{"name":"users","type":"bigint"}],"#
                .to_owned()
                + r#""rows":[{"text":null,"users":3},{"text":"other","users":2},{"text":"zz","users":1}],"#
                + r#""version":7,"watermark":"1970-01-01T00:00:00Z","suppressed":2}"#
        );
        assert_eq!(view.rows[3].1[1].json(), 9);
    }

    #[test]
    fn a_long_view_is_cut_to_its_largest_rows_and_keeps_the_folded_one() {
        let n = i64::try_from(SNAPSHOT_ROWS_MAX).unwrap_or(0) + 10;
        let mut long = rows(&[(
            PublishedRow::OTHER,
            Value::Text("other".into()),
            Value::Int(0),
        )]);
        long.rows.extend((0..n).map(|i| {
            (
                format!("[{i}]").into(),
                [Value::Text(i.to_string()), Value::Int(i)].into(),
            )
        }));
        let cut = cut(&long, Some("users")).expect("it is too long");
        assert_eq!(cut.len(), SNAPSHOT_ROWS_MAX);
        assert_eq!(&*cut[0].0, PublishedRow::OTHER);
        assert_eq!(cut[1].1[1].json(), n - 1);
    }
}
