//! How fast the SQLite sink takes rows: `cargo run --release -p falaj-sinks --example sqlite_rate [ROWS] [ROUNDS]`.
//!
//! Each round writes all rows of a four-column row view in one write: the first inserts, the
//! others change every row. Then the same as writes of one row each, which shows the price of an
//! acknowledgement. Keys come in no order.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use falaj_record::{Column, ViewInfo, ViewKind, ViewUpdate};
use falaj_sinks::{Retention, Sink, SqliteSink};

/// Writes of one row.
const SINGLE_WRITES: i64 = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1);
    let rows = numbers.next().map_or(Ok(100_000), |n| n.parse())?;
    let rounds = numbers.next().map_or(Ok(3), |n| n.parse())?;
    let folder = tempfile::tempdir()?;
    let mut sink = SqliteSink::new(folder.path().join("views.sqlite"), Retention::new());
    let view = view();
    sink.prepare(&[Arc::clone(&view)]).await?;
    for round in 1..=rounds {
        let update = update(&view, round, rows)?;
        let started = Instant::now();
        sink.write(&[update]).await?;
        print("one write", rows, started.elapsed());
    }
    let updates: Vec<_> = (0..SINGLE_WRITES)
        .map(|at| update(&view, rounds + 1 + at, 1))
        .collect::<Result<_, _>>()?;
    let writes = updates.len();
    let started = Instant::now();
    for update in updates {
        sink.write(&[update]).await?;
    }
    print("writes of one row", writes, started.elapsed());
    Box::new(sink).close().await?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print(what: &str, rows: usize, took: Duration) {
    let rate = rows as f64 / took.as_secs_f64();
    println!("{what}: {rows} rows in {took:.1?}, {rate:.0} rows/s");
}

fn view() -> Arc<ViewInfo> {
    let columns = [
        ("pid", DataType::Utf8),
        ("nat", DataType::Utf8),
        ("gender", DataType::Utf8),
        ("age", DataType::Int64),
    ];
    let column = |(name, data_type): (&str, DataType)| Column {
        name: name.to_owned(),
        key: name == "pid",
        nullable: name != "pid",
        data_type,
    };
    Arc::new(ViewInfo {
        name: "users".into(),
        kind: ViewKind::Row,
        columns: columns.into_iter().map(column).collect(),
        window: None,
        fields: Vec::new(),
        sql: String::new(),
    })
}

fn update(
    view: &Arc<ViewInfo>,
    version: i64,
    rows: usize,
) -> Result<ViewUpdate, arrow::error::ArrowError> {
    // An odd factor makes each key once, in no order.
    let pid = |row: usize| {
        format!(
            "{:032x}",
            (row as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        )
    };
    let pids = StringArray::from_iter_values((0..rows).map(pid));
    let lists: Vec<ArrayRef> = vec![
        Arc::new(pids.clone()),
        Arc::new(StringArray::from(vec!["NL"; rows])),
        Arc::new(StringArray::from(vec!["female"; rows])),
        Arc::new(Int64Array::from(vec![version; rows])),
    ];
    let fields = view
        .columns
        .iter()
        .map(|c| Field::new(&c.name, c.data_type.clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    Ok(ViewUpdate {
        view: Arc::clone(view),
        rows: RecordBatch::try_new(schema, lists)?,
        keys: pids,
        version,
        watermark: None,
        people: None,
    })
}
