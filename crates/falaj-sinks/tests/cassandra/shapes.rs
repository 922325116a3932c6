//! How tables lie, and what they are asked: other people's shell says it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use falaj_record::{ViewInfo, ViewKind};
use falaj_servers::have;
use falaj_sinks::conformance::Store;

use crate::server::{
    Given, Keyspace, MINUTE_US, NEW_YEAR_US, TIME, new_store, prepare, update, user, users, view,
};

const DAY_US: i64 = 86_400_000_000;
const START: Given = ("start", TIME, true, false);
const USERS: Given = ("users", DataType::Int64, false, true);

fn times(us: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(us))
}

fn numbers(numbers: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(numbers))
}

fn texts<'a>(texts: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(texts.into_iter().collect::<StringArray>())
}

/// A keyspace, where the shell can be had, too.
async fn asked() -> Option<Keyspace> {
    let keyspace = new_store().await?;
    have(&["python3"]).then_some(keyspace)
}

/// Writes one update to a new table.
async fn written(keyspace: &Keyspace, view: &Arc<ViewInfo>, keys: &[&str], lists: Vec<ArrayRef>) {
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[view]).await;
    let written = sink.write(&[update(view, 7, keys, lists)]).await;
    assert_eq!(written.expect("written").refused, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_are_never_null_are_asked_for_by_name() {
    let Some(keyspace) = asked().await else {
        return;
    };
    let columns = [
        ("nat", DataType::Utf8, true, false),
        ("band", DataType::Int64, true, false),
        USERS,
    ];
    let view = view("bands", ViewKind::Aggregate, &columns, None);
    let lists = vec![
        texts([Some("DE"), Some(""), Some("FR")]),
        numbers([20, 20, 30]),
        numbers([3, 4, 5]),
    ];
    written(
        &keyspace,
        &view,
        &["[\"DE\",20]", "[\"\",20]", "[\"FR\",30]"],
        lists,
    )
    .await;
    assert_eq!(keyspace.key("bands").await, "((nat, band))");
    let rows = keyspace
        .cqlsh("SELECT users, \"_key\", \"_version\" FROM bands WHERE nat = 'DE' AND band = 20");
    assert_eq!(rows, [["3", "[\"DE\",20]", "7"]]);
    assert_eq!(
        keyspace.rows(&view).await.len(),
        3,
        "one group is an empty text"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_may_be_null_are_asked_for_by_key() {
    let Some(keyspace) = asked().await else {
        return;
    };
    let columns = [("nat", DataType::Utf8, true, true), USERS];
    let view = view("nats", ViewKind::Aggregate, &columns, None);
    let lists = vec![texts([Some("DE"), None]), numbers([3, 4])];
    written(&keyspace, &view, &["[\"DE\"]", "[null]"], lists).await;
    assert_eq!(keyspace.key("nats").await, "((_key))");
    let rows = keyspace.cqlsh("SELECT nat, users FROM nats WHERE \"_key\" = '[null]'");
    assert_eq!(rows, [["null", "4"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_windows_of_a_group_are_one_query() {
    let Some(keyspace) = asked().await else {
        return;
    };
    let columns = [START, ("nat", DataType::Utf8, true, false), USERS];
    let view = view("minutes", ViewKind::Aggregate, &columns, Some(MINUTE_US));
    let minutes = 0..60_i64;
    let keys: Vec<String> = minutes.clone().map(|n| format!("[{n},\"DE\"]")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let lists = vec![
        times(minutes.clone().map(|n| NEW_YEAR_US + n * MINUTE_US)),
        texts(minutes.clone().map(|_| Some("DE"))),
        numbers(minutes),
    ];
    written(&keyspace, &view, &keys, lists).await;
    assert_eq!(keyspace.key("minutes").await, "((nat), start DESC)");
    let rows = keyspace.cqlsh("SELECT start, users FROM minutes WHERE nat = 'DE' LIMIT 2");
    let newest = [
        ["2026-01-01 00:59:00.000000+0000", "59"],
        ["2026-01-01 00:58:00.000000+0000", "58"],
    ];
    assert_eq!(rows, newest);
    let since = "SELECT users FROM minutes WHERE nat = 'DE' AND start >= '2026-01-01 00:57Z'";
    assert_eq!(keyspace.cqlsh(since), [["59"], ["58"], ["57"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_windows_of_a_day_are_one_query() {
    let Some(keyspace) = asked().await else {
        return;
    };
    let all = view(
        "all_minutes",
        ViewKind::Aggregate,
        &[START, USERS],
        Some(MINUTE_US),
    );
    let minutes = 0..3_i64;
    // The last minute of the old year, and two of the new one.
    let lists = vec![
        times(minutes.clone().map(|n| NEW_YEAR_US + (n - 1) * MINUTE_US)),
        numbers(minutes),
    ];
    written(&keyspace, &all, &["[0]", "[1]", "[2]"], lists).await;
    assert_eq!(keyspace.key("all_minutes").await, "((_day), start DESC)");
    let of_day = "SELECT users FROM all_minutes WHERE \"_day\" =";
    assert_eq!(
        keyspace.cqlsh(&format!("{of_day} '2026-01-01' LIMIT 5")),
        [["2"], ["1"]]
    );
    assert_eq!(keyspace.cqlsh(&format!("{of_day} '2025-12-31'")), [["0"]]);
    assert_eq!(keyspace.cqlsh(&format!("{of_day} currentDate()")).len(), 0);

    let columns = [START, ("nat", DataType::Utf8, true, true), USERS];
    let by_nat = view(
        "nat_minutes",
        ViewKind::Aggregate,
        &columns,
        Some(MINUTE_US),
    );
    let lists = vec![
        times([NEW_YEAR_US, NEW_YEAR_US, NEW_YEAR_US + MINUTE_US]),
        texts([Some("DE"), None, Some("DE")]),
        numbers([1, 2, 3]),
    ];
    written(
        &keyspace,
        &by_nat,
        &["[0,\"DE\"]", "[0,null]", "[1,\"DE\"]"],
        lists,
    )
    .await;
    assert_eq!(
        keyspace.key("nat_minutes").await,
        "((_day), start DESC, _key)"
    );
    let rows = keyspace.cqlsh("SELECT nat, users FROM nat_minutes WHERE \"_day\" = '2026-01-01'");
    assert_eq!(rows, [["DE", "3"], ["DE", "1"], ["null", "2"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_windows_are_found_by_their_year() {
    let Some(keyspace) = asked().await else {
        return;
    };
    let view = view("days", ViewKind::Aggregate, &[START, USERS], Some(DAY_US));
    let lists = vec![
        times((-1..2).map(|n| NEW_YEAR_US + n * DAY_US)),
        numbers(0..3),
    ];
    written(&keyspace, &view, &["[0]", "[1]", "[2]"], lists).await;
    assert_eq!(keyspace.key("days").await, "((_year), start DESC)");
    let rows = keyspace.cqlsh("SELECT users FROM days WHERE \"_year\" = 2026");
    assert_eq!(rows, [["2"], ["1"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_has_its_microseconds_beside_it() {
    let Some(keyspace) = asked().await else {
        return;
    };
    let columns = [
        ("hour", TIME, true, false),
        ("seen", TIME, false, true),
        ("day", DataType::Date32, false, true),
    ];
    let view = view("hours", ViewKind::Aggregate, &columns, None);
    let seen: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![
        Some(NEW_YEAR_US + 123_456),
        None,
        Some(-1),
    ]));
    // Two groups that differ in microseconds alone.
    let lists = vec![
        times([NEW_YEAR_US, NEW_YEAR_US + 1, 0]),
        seen,
        Arc::new(Date32Array::from(vec![Some(20_454), None, Some(-1)])),
    ];
    written(&keyspace, &view, &["[0]", "[1]", "[2]"], lists).await;
    assert_eq!(keyspace.key("hours").await, "((hour), _hour_us)");
    let rows = keyspace.cqlsh(
        "SELECT \"_hour_us\", seen, \"_seen_us\", day FROM hours WHERE hour = '2026-01-01 00:00Z'",
    );
    assert_eq!(
        rows,
        [
            ["0", "2026-01-01 00:00:00.123000+0000", "456", "2026-01-01"],
            ["1", "null", "null", "null"],
        ]
    );
    let rows = keyspace
        .cqlsh("SELECT seen, \"_seen_us\", day FROM hours WHERE hour = '1970-01-01 00:00Z'");
    assert_eq!(
        rows,
        [["1969-12-31 23:59:59.999000+0000", "999", "1969-12-31"]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_found_by_pid() {
    let Some(keyspace) = asked().await else {
        return;
    };
    let view = users();
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&view]).await;
    sink.write(&[user(&view, 7, &["p1", "p2"], "NL")])
        .await
        .expect("written");
    assert_eq!(keyspace.key("users").await, "((pid))");
    let rows = keyspace.cqlsh("SELECT nat, \"_key\", writetime(nat) FROM users WHERE pid = 'p2'");
    assert_eq!(rows, [["NL", "p2", "7"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_none_stays_one() {
    let Some(keyspace) = asked().await else {
        return;
    };
    let columns = [("average", DataType::Float64, false, true)];
    let view = view("averages", ViewKind::Aggregate, &columns, None);
    let averages = arrow::array::Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY]);
    written(&keyspace, &view, &["[0]", "[1]"], vec![Arc::new(averages)]).await;
    assert_eq!(keyspace.key("averages").await, "((_key))");
    let of = |key: &str| {
        keyspace.cqlsh(&format!(
            "SELECT average FROM averages WHERE \"_key\" = '{key}'"
        ))
    };
    assert_eq!(of("[0]"), [["NaN"]]);
    assert_eq!(of("[1]"), [["-Infinity"]]);
}
