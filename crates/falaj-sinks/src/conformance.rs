//! The contract of [`Sink`] as tests that every kind of sink runs:
//! `falaj_sinks::conformance_tests!(new_store)` in a file under `tests/`, where `new_store` is an
//! async function that gives a new, empty [`Store`], or none where this machine cannot run one.
//!
//! A case panics where the sink breaks the contract, as tests do.

#![expect(
    clippy::missing_panics_doc,
    reason = "every function here is a test case, and panics are how it says no"
)]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use falaj_record::{Column, Hint, PID, Reason, Value, ViewInfo, ViewKind, ViewUpdate};
use serde_json::Value as Json;
use tokio::time::Instant;

use crate::{Retention, Sink, SinkError, Terms, now_us};

/// A store of its own for one case, empty at first.
#[async_trait]
pub trait Store: Send + Sync {
    /// A sink over it that keeps rows on these terms; each call is one more connection to the same
    /// store.
    async fn sink_on(&self, terms: Terms) -> Box<dyn Sink>;

    /// A sink over it that keeps rows without end, whoever they are of.
    async fn sink(&self) -> Box<dyn Sink> {
        self.sink_on(Terms::default()).await
    }

    /// The rows of a view's table, as another program sees them, by key.
    async fn rows(&self, view: &ViewInfo) -> Vec<StoredRow>;

    /// Makes it refuse every write from now on. No sink has it open.
    async fn make_read_only(&self);

    /// Makes it refuse rows of this prepared view with a certain text in the column `nat`, where it
    /// does not do so by itself; gives that text and the reason it is refused for.
    async fn refused_text(&self, view: &ViewInfo) -> (String, Reason);

    /// Sinks that must not be able to prepare, each with what is wrong with it, and whether an
    /// error says so: a wrong password, a keyspace that is not there.
    async fn misfits(&self) -> Vec<Misfit>;

    /// Rows of the cases about many of them; fewer where what stands in for a store is slow.
    fn many_rows(&self) -> i64 {
        100_000
    }

    /// Whether the sink itself leaves out older versions of a person it erased. One that does not
    /// relies on its outlet, which drops what is queued of the person.
    fn erasure_stays(&self) -> bool {
        true
    }

    /// Lets it be unavailable: ended hard and started again, or held up for a while. When this
    /// returns it may still be so.
    async fn outage(&self, outage: Outage);
}

/// A sink that cannot work.
pub struct Misfit {
    /// What is wrong with it.
    pub what: &'static str,
    /// The sink.
    pub sink: Box<dyn Sink>,
    /// Whether an error says what is wrong.
    pub told_by: fn(&SinkError) -> bool,
}

/// How a store is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// It answers nothing for this long, then everything.
    Stalled(Duration),
    /// It is ended in the middle of what it does (a file: taken by somebody else for longer than a
    /// sink waits), and is there again later.
    Ended,
}

/// A row as it stands in a store.
#[derive(Debug, PartialEq)]
pub struct StoredRow {
    /// `_key`.
    pub key: String,
    /// `_version`.
    pub version: i64,
    /// Values in SELECT order, each as [`Value::json`] gives it.
    pub values: Vec<Json>,
}

/// A test for each case; the argument is an async function that gives a new, empty [`Store`], or none.
#[macro_export]
macro_rules! conformance_tests {
    ($new_store:path) => {
        $crate::conformance_tests! { $new_store:
            a_write_is_read_back_by_others
            written_twice_changes_nothing
            an_older_version_never_overwrites_a_newer
            of_several_updates_in_one_write_the_newest_wins
            a_store_that_was_closed_goes_on
            a_hundred_thousand_rows_arrive_and_change
            every_type_keeps_its_value
            a_null_group_and_an_empty_one_are_two_rows
            names_that_are_words_of_sql_are_names
            a_new_column_is_added_and_a_dropped_one_is_emptied
            a_changed_column_type_is_refused
            a_dropped_view_begins_with_nothing
            a_read_only_store_is_refused
            a_person_is_erased_everywhere
            a_view_that_was_not_prepared_is_refused
            a_write_with_a_fault_of_ours_writes_nothing
            rows_of_another_shape_are_refused
            an_empty_table_is_told
            rows_of_somebody_else_are_not_added_to
            a_refused_row_holds_up_no_other
            a_store_that_cannot_be_used_says_why
            rows_expire_after_their_retention
            an_erased_person_is_not_brought_back_by_an_older_version
            inspecting_changes_nothing
        }
    };
    ($new_store:path: $($case:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
        async fn $case() {
            if let Some(store) = $new_store().await {
                $crate::conformance::$case(&store).await;
            }
        })*
    };
}

/// The cases that make a store unavailable, which every other user of it notices: a test for each;
/// the argument is an async function that gives a [`Store`] of its own, server included, or none.
#[macro_export]
macro_rules! outage_tests {
    ($new_store:path) => {
        $crate::conformance_tests! { $new_store:
            a_slow_store_is_waited_for
            a_store_restarted_in_the_middle_has_every_row
        }
    };
}

/// Rows that were written are what another program sees.
pub async fn a_write_is_read_back_by_others(store: &impl Store) {
    let view = counts_view();
    let mut sink = prepared(store, &view).await;
    sink.write(&[counts(&view, 1, [(Some("DE"), 3), (Some("FR"), 4)])])
        .await
        .expect("written");
    assert_counts(store, &view, &[("[\"DE\"]", 1, 3), ("[\"FR\"]", 1, 4)]).await;
    sink.write(&[counts(&view, 2, [(Some("FR"), 5)])])
        .await
        .expect("written");
    assert_counts(store, &view, &[("[\"DE\"]", 1, 3), ("[\"FR\"]", 2, 5)]).await;
    sink.write(&[counts(&view, 3, [])])
        .await
        .expect("no rows are no fault");
    sink.write(&[]).await.expect("no updates are no fault");
    assert_counts(store, &view, &[("[\"DE\"]", 1, 3), ("[\"FR\"]", 2, 5)]).await;
}

/// A write whose acknowledgement got lost is written again.
pub async fn written_twice_changes_nothing(store: &impl Store) {
    let view = counts_view();
    let mut sink = prepared(store, &view).await;
    let update = counts(&view, 1, [(Some("DE"), 3)]);
    for _ in 0..2 {
        sink.write(std::slice::from_ref(&update))
            .await
            .expect("written");
        assert_counts(store, &view, &[("[\"DE\"]", 1, 3)]).await;
    }
    sink.write(&[update.clone(), update])
        .await
        .expect("written");
    assert_counts(store, &view, &[("[\"DE\"]", 1, 3)]).await;
}

/// A replay may send what a newer write has overtaken.
pub async fn an_older_version_never_overwrites_a_newer(store: &impl Store) {
    let view = counts_view();
    let mut sink = prepared(store, &view).await;
    sink.write(&[counts(&view, 9, [(Some("DE"), 9)])])
        .await
        .expect("written");
    let replay = counts(&view, 8, [(Some("DE"), 8), (Some("FR"), 8)]);
    sink.write(&[replay])
        .await
        .expect("a lost race is no fault");
    assert_counts(store, &view, &[("[\"DE\"]", 9, 9), ("[\"FR\"]", 8, 8)]).await;
}

/// Updates wait in a queue and go out together.
pub async fn of_several_updates_in_one_write_the_newest_wins(store: &impl Store) {
    let (view, persons) = (counts_view(), people_view());
    let mut sink = store.sink().await;
    sink.prepare(&[Arc::clone(&view), Arc::clone(&persons)])
        .await
        .expect("prepared");
    let updates = [
        counts(&view, 1, [(Some("DE"), 1), (Some("FR"), 1)]),
        people(&persons, 1, &["p1", "p2"]),
        counts(&view, 3, [(Some("DE"), 3)]),
        counts(&view, 2, [(Some("DE"), 2), (Some("NL"), 2)]),
        people(&persons, 2, &["p2"]),
    ];
    sink.write(&updates).await.expect("written");
    let rows = [("[\"DE\"]", 3, 3), ("[\"FR\"]", 1, 1), ("[\"NL\"]", 2, 2)];
    assert_counts(store, &view, &rows).await;
    let versions: Vec<_> = store
        .rows(&persons)
        .await
        .into_iter()
        .map(|r| r.version)
        .collect();
    assert_eq!(versions, [1, 2]);
}

/// A restart finds what was there, and prepares again what is prepared.
pub async fn a_store_that_was_closed_goes_on(store: &impl Store) {
    let view = counts_view();
    let mut sink = prepared(store, &view).await;
    sink.write(&[counts(&view, 5, [(Some("DE"), 5), (Some("FR"), 5)])])
        .await
        .expect("written");
    sink.close().await.expect("closed");
    let mut sink = prepared(store, &view).await;
    sink.prepare(&[Arc::clone(&view)])
        .await
        .expect("preparing twice changes nothing");
    let updates = [
        counts(&view, 4, [(Some("DE"), 4)]),
        counts(&view, 6, [(Some("FR"), 6)]),
    ];
    sink.write(&updates).await.expect("written");
    assert_counts(store, &view, &[("[\"DE\"]", 5, 5), ("[\"FR\"]", 6, 6)]).await;
}

/// Many keys in one write, then every one of them again.
pub async fn a_hundred_thousand_rows_arrive_and_change(store: &impl Store) {
    let view = counts_view();
    let mut sink = prepared(store, &view).await;
    for version in 1..=2 {
        let groups: Vec<_> = (0..store.many_rows())
            .map(|n| (n.to_string(), n * version))
            .collect();
        let rows = groups
            .iter()
            .map(|(group, users)| (Some(group.as_str()), *users));
        sink.write(&[counts(&view, version, rows)])
            .await
            .expect("written");
    }
    let rows = store.rows(&view).await;
    assert_eq!(i64::try_from(rows.len()), Ok(store.many_rows()));
    for row in rows {
        let n: i64 = row.values[0]
            .as_str()
            .and_then(|g| g.parse().ok())
            .expect("a number");
        assert_eq!((row.version, &row.values[1]), (2, &Json::from(n * 2)));
    }
}

/// Each type with its ends, and NULL in each.
pub async fn every_type_keeps_its_value(store: &impl Store) {
    let columns = [
        ("text", DataType::Utf8),
        ("whole", DataType::Int64),
        ("real", DataType::Float64),
        ("flag", DataType::Boolean),
        ("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("day", DataType::Date32),
        ("exact", DataType::Decimal128(38, 4)),
    ];
    let view = view("every_type", ViewKind::Aggregate, &columns, 1);
    let texts = [
        "",
        " a'b\"c;--\\ ",
        "Zoë 李 😀 \u{202e}",
        "x\0y",
        &"long ".repeat(40_000),
        "NULL",
    ];
    let wholes = [0, i64::MAX, i64::MIN, (1 << 53) + 1, -1, 44];
    let reals = [0.0, f64::NAN, -1.5e308, 5e-324, 0.1 + 0.2, 44.0];
    // Years 1, 9999 and 1970, and a moment with microseconds.
    let micros = [
        0,
        -62_135_596_800_000_000,
        253_402_300_799_999_999,
        -1,
        1_767_225_600_250_000,
        1,
    ];
    let days = [0, -719_162, 2_932_896, -1, 20_454, 1];
    let top = 10_i128.pow(38) - 1;
    let exact = [0, top, -top, 1, -15_000, 123_456_789];
    let flags = [true, false, true, false, true, true];
    let exact: Decimal128Array = and_null(exact).collect();
    let exact = exact
        .with_precision_and_scale(38, 4)
        .expect("38 digits fit");
    let lists: Vec<ArrayRef> = vec![
        Arc::new(and_null(texts).collect::<StringArray>()),
        Arc::new(and_null(wholes).collect::<Int64Array>()),
        Arc::new(and_null(reals).collect::<Float64Array>()),
        Arc::new(and_null(flags).collect::<BooleanArray>()),
        Arc::new(and_null(micros).collect::<TimestampMicrosecondArray>()),
        Arc::new(and_null(days).collect::<Date32Array>()),
        Arc::new(exact),
    ];
    let keys: Vec<_> = (0..=texts.len()).map(|row| format!("[{row}]")).collect();
    let written = update(&view, i64::MAX, &keys, lists);
    let mut sink = prepared(store, &view).await;
    sink.write(std::slice::from_ref(&written))
        .await
        .expect("written");
    let rows = store.rows(&view).await;
    assert_eq!(rows.len(), keys.len());
    for (at, row) in rows.iter().enumerate() {
        let values = written
            .rows
            .columns()
            .iter()
            .map(|column| Value::at(column, at).json());
        assert_eq!((&row.key, row.version), (&keys[at], i64::MAX));
        assert_eq!(row.values, values.collect::<Vec<_>>(), "row {at}");
    }
}

/// SQL's NULL group is a group.
pub async fn a_null_group_and_an_empty_one_are_two_rows(store: &impl Store) {
    let view = counts_view();
    let mut sink = prepared(store, &view).await;
    for version in 1..=2 {
        let rows = [(None, version), (Some(""), version * 10)];
        sink.write(&[counts(&view, version, rows)])
            .await
            .expect("written");
    }
    assert_counts(store, &view, &[("[\"\"]", 2, 20), ("[null]", 2, 2)]).await;
    let groups: Vec<_> = store
        .rows(&view)
        .await
        .into_iter()
        .map(|r| r.values[0].clone())
        .collect();
    assert_eq!(groups, [Json::from(""), Json::Null]);
}

/// Names match `[a-z][a-z0-9_]*`, which keywords do.
pub async fn names_that_are_words_of_sql_are_names(store: &impl Store) {
    let columns = [("group", DataType::Utf8), ("from", DataType::Int64)];
    let view = view("select", ViewKind::Aggregate, &columns, 1);
    let mut sink = prepared(store, &view).await;
    sink.write(&[counts(&view, 1, [(Some("DE"), 3)])])
        .await
        .expect("written");
    assert_counts(store, &view, &[("[\"DE\"]", 1, 3)]).await;
}

/// A view's SELECT got another column and lost one.
pub async fn a_new_column_is_added_and_a_dropped_one_is_emptied(store: &impl Store) {
    let before = view(
        "ages",
        ViewKind::Aggregate,
        &[("nat", DataType::Utf8), ("users", DataType::Int64)],
        1,
    );
    let after = view(
        "ages",
        ViewKind::Aggregate,
        &[("nat", DataType::Utf8), ("age", DataType::Float64)],
        1,
    );
    let mut sink = prepared(store, &before).await;
    sink.write(&[counts(&before, 1, [(Some("DE"), 3), (Some("FR"), 4)])])
        .await
        .expect("written");
    sink.close().await.expect("closed");
    let mut sink = prepared(store, &after).await;
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["DE"])),
        Arc::new(Float64Array::from(vec![44.5])),
    ];
    sink.write(&[update(&after, 2, &["[\"DE\"]".into()], lists)])
        .await
        .expect("written");
    let values = |rows: Vec<StoredRow>| rows.into_iter().map(|r| r.values).collect::<Vec<_>>();
    assert_eq!(
        values(store.rows(&after).await),
        [
            [Json::from("DE"), 44.5.into()],
            [Json::from("FR"), Json::Null]
        ]
    );
    assert_eq!(
        values(store.rows(&before).await),
        [
            [Json::from("DE"), Json::Null],
            [Json::from("FR"), Json::Null]
        ]
    );
}

/// A text is not put where numbers were.
pub async fn a_changed_column_type_is_refused(store: &impl Store) {
    let before = counts_view();
    let after = view(
        "counts",
        ViewKind::Aggregate,
        &[("nat", DataType::Utf8), ("users", DataType::Utf8)],
        1,
    );
    let mut sink = prepared(store, &before).await;
    sink.write(&[counts(&before, 1, [(Some("DE"), 3)])])
        .await
        .expect("written");
    sink.close().await.expect("closed");
    let mut sink = store.sink().await;
    let error = sink.prepare(&[after]).await.expect_err("another type");
    let SinkError::ColumnType { table, column, .. } = &error else {
        panic!("not a type's error: {error}");
    };
    assert_eq!((table.as_str(), column.as_str()), ("counts", "users"));
    assert_counts(store, &before, &[("[\"DE\"]", 1, 3)]).await;
}

/// A rebuilt view may have other columns and groups; the views beside it stay.
pub async fn a_dropped_view_begins_with_nothing(store: &impl Store) {
    let (before, persons) = (counts_view(), people_view());
    let columns = [("nat", DataType::Utf8), ("users", DataType::Utf8)];
    let after = view("counts", ViewKind::Aggregate, &columns, 1);
    let mut sink = store.sink().await;
    let first = [Arc::clone(&before), Arc::clone(&persons)];
    let first = sink.prepare(&first).await.expect("prepared");
    let updates = [
        counts(&before, 9, [(Some("DE"), 9), (Some("FR"), 9)]),
        people(&persons, 9, &["p1"]),
    ];
    sink.write(&updates).await.expect("written");
    sink.drop_view("counts").await.expect("dropped");
    sink.drop_view("counts")
        .await
        .expect("nothing to drop is no fault");
    let unknown = SinkError::UnknownView {
        view: "counts".into(),
    };
    assert_eq!(sink.write(&updates[..1]).await, Err(unknown));
    let again = [Arc::clone(&after), Arc::clone(&persons)];
    let again = sink.prepare(&again).await.expect("prepared");
    assert_eq!(again.empty, ["counts"]);
    assert_ne!(again.fillings["counts"], first.fillings["counts"]);
    assert_eq!(again.fillings["people"], first.fillings["people"]);
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["DE"])),
        Arc::new(StringArray::from(vec!["one"])),
    ];
    sink.write(&[update(&after, 10, &["[\"DE\"]".into()], lists)])
        .await
        .expect("written");
    let values: Vec<_> = store
        .rows(&after)
        .await
        .into_iter()
        .map(|r| r.values)
        .collect();
    assert_eq!(values, [[Json::from("DE"), "one".into()]]);
    assert_eq!(store.rows(&persons).await.len(), 1);
}

/// Said when it is prepared, not when the first row comes.
pub async fn a_read_only_store_is_refused(store: &impl Store) {
    let view = counts_view();
    let sink = prepared(store, &view).await;
    sink.close().await.expect("closed");
    store.make_read_only().await;
    let error = store
        .sink()
        .await
        .prepare(&[view])
        .await
        .expect_err("read-only");
    let told = matches!(
        error,
        SinkError::ReadOnly { .. } | SinkError::Forbidden { .. }
    );
    assert!(told, "{error}");
}

/// Rows of row views, rows with a `pid`, tables of views that are gone; nobody else's.
pub async fn a_person_is_erased_everywhere(store: &impl Store) {
    let (persons, groups) = (people_view(), counts_view());
    let columns = [("pid", DataType::Utf8), ("visits", DataType::Int64)];
    let visits = view("visits", ViewKind::Aggregate, &columns, 1);
    let mut sink = store.sink().await;
    let views = [&persons, &groups, &visits].map(Arc::clone);
    sink.prepare(&views).await.expect("prepared");
    let updates = [
        people(&persons, 1, &["p1", "p2", "p3"]),
        counts(&groups, 1, [(Some("p1"), 3)]),
        counts(&visits, 1, [(Some("p1"), 7), (Some("p2"), 8)]),
    ];
    sink.write(&updates).await.expect("written");
    sink.close().await.expect("closed");
    let mut sink = store.sink().await;
    sink.prepare(&[groups.clone(), visits.clone()])
        .await
        .expect("prepared");
    assert_eq!(sink.erase("p1").await, Ok(2));
    assert_eq!(sink.erase("p1").await, Ok(0));
    assert_eq!(sink.erase("nobody").await, Ok(0));
    let keys = |rows: Vec<StoredRow>| rows.into_iter().map(|r| r.key).collect::<Vec<_>>();
    assert_eq!(keys(store.rows(&persons).await), ["p2", "p3"]);
    assert_eq!(keys(store.rows(&visits).await), ["[\"p2\"]"]);
    assert_counts(store, &groups, &[("[\"p1\"]", 1, 3)]).await;
}

/// A sink makes no table that nobody declared.
pub async fn a_view_that_was_not_prepared_is_refused(store: &impl Store) {
    let (view, persons) = (counts_view(), people_view());
    let unknown = |view: &ViewInfo| {
        Err(SinkError::UnknownView {
            view: view.name.clone(),
        })
    };
    let mut sink = store.sink().await;
    assert_eq!(
        sink.write(&[counts(&view, 1, [(Some("DE"), 1)])]).await,
        unknown(&view)
    );
    sink.prepare(&[Arc::clone(&view)]).await.expect("prepared");
    assert_eq!(
        sink.write(&[people(&persons, 1, &["p1"])]).await,
        unknown(&persons)
    );
}

/// What comes before the fault in the same write is not there either.
pub async fn a_write_with_a_fault_of_ours_writes_nothing(store: &impl Store) {
    let (view, persons) = (counts_view(), people_view());
    let mut sink = prepared(store, &view).await;
    let updates = [
        counts(&view, 1, [(Some("DE"), 1)]),
        people(&persons, 1, &["p1"]),
    ];
    sink.write(&updates)
        .await
        .expect_err("people are not prepared");
    assert_counts(store, &view, &[]).await;
    sink.write(&updates[..1]).await.expect("the sink works on");
    assert_counts(store, &view, &[("[\"DE\"]", 1, 1)]).await;
}

/// An update says itself which columns it has; they must be the prepared ones.
pub async fn rows_of_another_shape_are_refused(store: &impl Store) {
    let prepared_view = counts_view();
    let mut sink = prepared(store, &prepared_view).await;
    for columns in [
        vec![("users", DataType::Utf8), ("nat", DataType::Int64)],
        vec![
            ("nat", DataType::Utf8),
            ("users", DataType::Int64),
            ("more", DataType::Int64),
        ],
    ] {
        let other = view("counts", ViewKind::Aggregate, &columns, 1);
        let mut lists: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["DE"])),
            Arc::new(Int64Array::from(vec![1])),
        ];
        lists.resize(columns.len(), Arc::new(Int64Array::from(vec![1])));
        let result = sink
            .write(&[update(&other, 1, &["[\"DE\"]".into()], lists)])
            .await;
        assert_eq!(
            result,
            Err(SinkError::Shape {
                view: "counts".into()
            })
        );
    }
    assert_counts(store, &prepared_view, &[]).await;
}

/// The pipeline owes an empty table everything the view has by now.
pub async fn an_empty_table_is_told(store: &impl Store) {
    let (view, persons) = (counts_view(), people_view());
    let mut sink = store.sink().await;
    let views = [Arc::clone(&view), Arc::clone(&persons)];
    let first = sink.prepare(&views).await.expect("prepared");
    assert_eq!(first.empty, ["counts", "people"]);
    sink.write(&[counts(&view, 1, [(Some("DE"), 1)])])
        .await
        .expect("written");
    let second = sink.prepare(&views).await.expect("prepared");
    assert_eq!(second.empty, ["people"]);
    assert_eq!(second.fillings["counts"], first.fillings["counts"]);
    assert_ne!(second.fillings["people"], first.fillings["people"]);
    sink.close().await.expect("closed");
    let third = store.sink().await.prepare(&views).await.expect("prepared");
    assert_eq!(third.fillings["counts"], first.fillings["counts"]);
}

/// A store outlives topic and key: what an earlier life of the pipeline left is not mixed with this one.
pub async fn rows_of_somebody_else_are_not_added_to(store: &impl Store) {
    let (view, persons) = (counts_view(), people_view());
    let views = [Arc::clone(&view), Arc::clone(&persons)];
    let owned = async |owner: &str| {
        let names = ["counts", "people"];
        let owners = names.map(|view| (view.to_owned(), format!("{owner} {view}")));
        let terms = Terms {
            owners: owners.into(),
            ..Terms::default()
        };
        store.sink_on(terms).await
    };
    let mut before = owned("before").await;
    before.prepare(&views).await.expect("both are empty");
    let rows = [counts(&view, 1, [(Some("DE"), 1)])];
    before.write(&rows).await.expect("written");
    let again = before.prepare(&views).await.expect("they are its own");
    assert_eq!(again.empty, ["people"]);
    before.close().await.expect("closed");

    let mut after = owned("after").await;
    let error = after.prepare(&views).await.expect_err("one holds rows");
    let SinkError::ForeignRows { tables, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*tables, ["counts"]);
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("--rebuild counts"), "{hint}");
    assert!(!error.passing(), "nobody else will take them away");
    // Nor are columns dropped that this life's view does not have.
    let narrow = self::view("counts", ViewKind::Aggregate, &[("nat", DataType::Utf8)], 1);
    let error = after.prepare(&[narrow]).await;
    assert!(matches!(error, Err(SinkError::ForeignRows { .. })));
    assert_counts(store, &view, &[("[\"DE\"]", 1, 1)]).await;

    after.drop_view("counts").await.expect("it is falaj's");
    after.prepare(&views).await.expect("both are empty");
    after.write(&rows).await.expect("written");
    after.close().await.expect("closed");
    let mut next = owned("after").await;
    next.prepare(&views).await.expect("who marked it may go on");
    let error = owned("before").await.prepare(&views).await;
    assert!(matches!(error, Err(SinkError::ForeignRows { .. })));
}

/// Somebody's record is too large, or holds what the store does not take.
pub async fn a_refused_row_holds_up_no_other(store: &impl Store) {
    let persons = people_view();
    let mut sink = prepared(store, &persons).await;
    let (text, reason) = store.refused_text(&persons).await;
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["p1", "p2", "p3"])),
        Arc::new(StringArray::from(vec!["NL", text.as_str(), "NL"])),
    ];
    let keys = ["p1", "p2", "p3"].map(str::to_owned);
    let written = sink
        .write(&[update(&persons, 7, &keys, lists)])
        .await
        .expect("the others are written");
    let refused = &written.refused;
    assert_eq!(refused.len(), 1);
    assert_eq!(
        (refused[0].view.as_str(), refused[0].version),
        ("people", 7)
    );
    assert_eq!(refused[0].reason, reason);
    assert!(refused[0].length >= text.len() as u64);
    sink.write(&[people(&persons, 8, &["p2"])])
        .await
        .expect("the sink works on");
    let rows = store.rows(&persons).await;
    let rows: Vec<_> = rows.iter().map(|r| (r.key.as_str(), r.version)).collect();
    assert_eq!(rows, [("p1", 7), ("p2", 8), ("p3", 7)]);
}

/// Each fault has its own error with a hint.
pub async fn a_store_that_cannot_be_used_says_why(store: &impl Store) {
    let view = counts_view();
    for Misfit {
        what,
        mut sink,
        told_by,
    } in store.misfits().await
    {
        let error = sink
            .prepare(&[Arc::clone(&view)])
            .await
            .expect_err("it cannot be used");
        assert!(told_by(&error), "{what}: {error}");
        assert!(error.hint().is_some(), "{what}: {error}");
        assert!(!error.passing(), "{what}: {error}");
    }
}

/// What is written again is kept for as long again.
pub async fn rows_expire_after_their_retention(store: &impl Store) {
    let (view, persons) = (counts_view(), people_view());
    let retention = Retention::from([(persons.name.clone(), EXPIRES_AFTER)]);
    let mut sink = store.sink_on(retention.into()).await;
    sink.prepare(&[Arc::clone(&view), Arc::clone(&persons)])
        .await
        .expect("prepared");
    let long_ago = now_us() - 3_600_000_000;
    let updates = [
        counts(&view, long_ago, [(Some("DE"), 3)]),
        people(&persons, long_ago, &["over"]),
    ];
    sink.write(&updates).await.expect("written");
    let now = now_us();
    sink.write(&[people(&persons, now, &["p1", "p2"])])
        .await
        .expect("written");
    assert_eq!(
        expired_to(store, sink.as_mut(), &persons, &["p1", "p2"]).await,
        ["p1", "p2"]
    );
    prolonged(store, sink.as_mut(), &persons).await;
    assert_eq!(
        expired_to(store, sink.as_mut(), &persons, &[]).await,
        [] as [&str; 0]
    );
    assert_counts(store, &view, &[("[\"DE\"]", long_ago, 3)]).await;
}

/// Retention in the case about it.
const EXPIRES_AFTER: Duration = Duration::from_secs(6);
/// Longest wait for a store that removes rows by itself: MongoDB looks once a minute.
const EXPIRY_WAIT_MAX: Duration = Duration::from_secs(150);

/// Writes `p2` again and again until `p1`, which was written when it was, is gone: `p2` is there
/// all the time. It is looked for only where so little time passed since its last write that no
/// loaded machine can have made it expire.
async fn prolonged(store: &impl Store, sink: &mut dyn Sink, view: &Arc<ViewInfo>) {
    let until = Instant::now() + EXPIRY_WAIT_MAX;
    loop {
        let written = Instant::now();
        sink.write(&[people(view, now_us(), &["p2"])])
            .await
            .expect("written");
        sink.expire().await.expect("rows can be removed");
        let rows = store.rows(view).await;
        let has = |key: &str| rows.iter().any(|row| row.key == key);
        if written.elapsed() < EXPIRES_AFTER / 2 {
            assert!(has("p2"), "what is written again is kept for as long again");
            if !has("p1") {
                return;
            }
        }
        assert!(Instant::now() < until, "p1 does not expire");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The keys of a view's rows, once they are `keys` or the wait is over.
async fn expired_to(
    store: &impl Store,
    sink: &mut dyn Sink,
    view: &ViewInfo,
    keys: &[&str],
) -> Vec<String> {
    let until = Instant::now() + EXPIRY_WAIT_MAX;
    loop {
        sink.expire().await.expect("rows can be removed");
        let rows = store.rows(view).await;
        let found: Vec<_> = rows.into_iter().map(|row| row.key).collect();
        if found == keys || Instant::now() > until {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// A write that was under way when the person was erased comes late. Not asked of a store where a
/// removed row leaves no trace (SQLite): it has one writer, so nothing is under way when it erases,
/// and the outlet drops what is queued of the person.
pub async fn an_erased_person_is_not_brought_back_by_an_older_version(store: &impl Store) {
    let persons = people_view();
    let mut sink = prepared(store, &persons).await;
    let now = now_us();
    sink.write(&[people(&persons, now, &["p1", "p2"])])
        .await
        .expect("written");
    assert_eq!(sink.erase("p1").await, Ok(1));
    let keys = |rows: Vec<StoredRow>| rows.into_iter().map(|r| r.key).collect::<Vec<_>>();
    assert_eq!(keys(store.rows(&persons).await), ["p2"]);
    if store.erasure_stays() {
        sink.write(&[people(&persons, now, &["p1", "p2"])])
            .await
            .expect("what is left out is no fault");
        assert_eq!(keys(store.rows(&persons).await), ["p2"]);
    }
    sink.write(&[people(&persons, now_us() + 60_000_000, &["p1"])])
        .await
        .expect("who comes back is written");
    assert_eq!(keys(store.rows(&persons).await), ["p1", "p2"]);
}

/// `falaj check --connect` may be run beside the falaj that writes.
pub async fn inspecting_changes_nothing(store: &impl Store) {
    let (view, persons) = (counts_view(), people_view());
    let found = store
        .sink()
        .await
        .inspect(&[Arc::clone(&view), Arc::clone(&persons)])
        .await
        .expect("a new store can be looked at");
    assert!(!found.server.is_empty());
    assert_eq!(found.findings, []);
    let mut sink = store.sink().await;
    let both = [Arc::clone(&view), Arc::clone(&persons)];
    let prepared = sink.prepare(&both).await.expect("prepared");
    assert_eq!(prepared.empty, ["counts", "people"], "nothing was made");
    sink.write(&[counts(&view, 1, [(Some("DE"), 3)])])
        .await
        .expect("written");
    sink.close().await.expect("closed");
    let columns = [("nat", DataType::Utf8), ("users", DataType::Utf8)];
    let other = self::view("counts", ViewKind::Aggregate, &columns, 1);
    let found = store.sink().await.inspect(&[other]).await;
    let findings = found.expect("it can be looked at").findings;
    assert_eq!(findings.len(), 1);
    assert!(findings[0].fatal && findings[0].what.contains("`users`"));
    assert_counts(store, &view, &[("[\"DE\"]", 1, 3)]).await;
}

/// A store under load answers late.
pub async fn a_slow_store_is_waited_for(store: &impl Store) {
    let view = counts_view();
    let mut sink = prepared(store, &view).await;
    store
        .outage(Outage::Stalled(Duration::from_millis(1500)))
        .await;
    patiently(sink.as_mut(), &view, &[counts(&view, 1, [(Some("DE"), 3)])]).await;
    assert_counts(store, &view, &[("[\"DE\"]", 1, 3)]).await;
}

/// What was acknowledged before is there after, and what was not is written again.
pub async fn a_store_restarted_in_the_middle_has_every_row(store: &impl Store) {
    let view = counts_view();
    let mut sink = prepared(store, &view).await;
    let groups: Vec<String> = (0..store.many_rows() / 50).map(|n| n.to_string()).collect();
    let rows = |version: i64| {
        let of = groups.iter().map(move |g| (Some(g.as_str()), version));
        counts(&view, version, of)
    };
    for version in 1..=20 {
        if version == 8 {
            store.outage(Outage::Ended).await;
        }
        patiently(sink.as_mut(), &view, &[rows(version)]).await;
    }
    let stored = store.rows(&view).await;
    assert_eq!(stored.len(), groups.len());
    assert!(stored.iter().all(|row| row.version == 20));
}

/// Writes as an outlet does: what failed is written again, after preparing anew.
async fn patiently(sink: &mut dyn Sink, view: &Arc<ViewInfo>, updates: &[ViewUpdate]) {
    let until = Instant::now() + OUTAGE_MAX;
    while let Err(error) = sink.write(updates).await {
        assert!(error.passing(), "{error}");
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        // While it is away, this fails as well.
        let _ = sink.prepare(&[Arc::clone(view)]).await;
    }
}

/// Longest time that a store may be away.
const OUTAGE_MAX: Duration = Duration::from_mins(4);

/// The values and a NULL.
fn and_null<T>(values: [T; 6]) -> impl Iterator<Item = Option<T>> {
    values.into_iter().map(Some).chain([None])
}

/// Prepares as an outlet does: a store under the load of other tests may be late, and is asked again.
async fn prepared(store: &impl Store, view: &Arc<ViewInfo>) -> Box<dyn Sink> {
    let mut sink = store.sink().await;
    let until = Instant::now() + OUTAGE_MAX;
    while let Err(error) = sink.prepare(&[Arc::clone(view)]).await {
        assert!(error.passing() && Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    sink
}

/// Key, version and count of every row of a view like [`counts_view`].
async fn assert_counts(store: &impl Store, view: &ViewInfo, expected: &[(&str, i64, i64)]) {
    let rows = store.rows(view).await;
    let rows: Vec<_> = rows
        .iter()
        .map(|r| (r.key.as_str(), r.version, r.values[1].as_i64()))
        .collect();
    let expected: Vec<_> = expected.iter().map(|&(k, v, n)| (k, v, Some(n))).collect();
    assert_eq!(rows, expected);
}

/// A view whose first `keys` columns are its key.
fn view(name: &str, kind: ViewKind, columns: &[(&str, DataType)], keys: usize) -> Arc<ViewInfo> {
    let column = |(at, (name, data_type)): (usize, &(&str, DataType))| Column {
        name: (*name).to_owned(),
        data_type: data_type.clone(),
        key: at < keys,
        nullable: *name != PID,
    };
    Arc::new(ViewInfo {
        name: name.to_owned(),
        kind,
        columns: columns.iter().enumerate().map(column).collect(),
        window: None,
        fields: Vec::new(),
        sql: String::new(),
    })
}

fn update(view: &Arc<ViewInfo>, version: i64, keys: &[String], lists: Vec<ArrayRef>) -> ViewUpdate {
    let fields = view
        .columns
        .iter()
        .map(|c| Field::new(&c.name, c.data_type.clone(), true));
    let fields: Vec<_> = fields
        .zip(&lists)
        .map(|(field, list)| field.with_data_type(list.data_type().clone()))
        .collect();
    ViewUpdate {
        view: Arc::clone(view),
        rows: RecordBatch::try_new(Arc::new(Schema::new(fields)), lists).expect("equal lengths"),
        keys: StringArray::from_iter_values(keys),
        version,
        watermark: Some(version.saturating_sub(1)),
        people: None,
    }
}

/// `SELECT nat, count(*) AS users .. GROUP BY nat`.
pub(crate) fn counts_view() -> Arc<ViewInfo> {
    let columns = [("nat", DataType::Utf8), ("users", DataType::Int64)];
    view("counts", ViewKind::Aggregate, &columns, 1)
}

/// Groups with their counts.
pub(crate) fn counts<'a>(
    view: &Arc<ViewInfo>,
    version: i64,
    rows: impl IntoIterator<Item = (Option<&'a str>, i64)>,
) -> ViewUpdate {
    let (groups, users): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let keys: Vec<_> = groups
        .iter()
        .map(|group| Json::from(vec![*group]).to_string())
        .collect();
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(groups)),
        Arc::new(Int64Array::from(users)),
    ];
    update(view, version, &keys, lists)
}

/// `SELECT pid, nat FROM records`.
pub(crate) fn people_view() -> Arc<ViewInfo> {
    view(
        "people",
        ViewKind::Row,
        &[("pid", DataType::Utf8), ("nat", DataType::Utf8)],
        1,
    )
}

/// A row for each pid.
pub(crate) fn people(view: &Arc<ViewInfo>, version: i64, pids: &[&str]) -> ViewUpdate {
    let keys: Vec<_> = pids.iter().map(|&pid| pid.to_owned()).collect();
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(pids.to_vec())),
        Arc::new(StringArray::from(vec!["NL"; pids.len()])),
    ];
    update(view, version, &keys, lists)
}
