//! What goes out, in which company, how much of it at once, and for how long it stays.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use falaj_record::{Reason, ViewInfo, ViewKind, ViewUpdate};
use falaj_sinks::conformance::Store;
use falaj_sinks::{Refused, Retention, Sink, SinkError};
use scylla::value::CqlValue;
use serde_json::Value as Json;

use crate::server::{
    MINUTE_US, NEW_YEAR_US, TIME, new_store, now_us, prepare, update, user, users, view,
};

fn windows() -> Arc<ViewInfo> {
    let columns = [
        ("start", TIME, true, false),
        ("nat", DataType::Utf8, true, true),
        ("note", DataType::Utf8, false, true),
    ];
    view("windows", ViewKind::Aggregate, &columns, Some(MINUTE_US))
}

/// Rows of one minute: all of one partition.
fn minute(view: &Arc<ViewInfo>, version: i64, notes: &[&str]) -> ViewUpdate {
    let keys: Vec<String> = (0..notes.len()).map(|n| format!("[0,\"{n}\"]")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let lists: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(vec![
            NEW_YEAR_US;
            notes.len()
        ])),
        Arc::new(StringArray::from_iter_values(
            (0..notes.len()).map(|n| n.to_string()),
        )),
        Arc::new(StringArray::from(notes.to_vec())),
    ];
    update(view, version, &keys, lists)
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hundred_writes_are_under_way_at_once() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let view = users();
    let mut sink = keyspace.sink_with("");
    prepare(&mut sink, &[&view]).await;
    let pids: Vec<String> = (0..5000).map(|n| format!("p{n}")).collect();
    let pids: Vec<&str> = pids.iter().map(String::as_str).collect();
    sink.write(&[user(&view, 1, &pids, "NL")])
        .await
        .expect("written");
    let stats = sink.stats();
    assert!(stats.under_way_max >= 256, "{stats:?}");
    assert_eq!(stats.rows, 5000);
    assert_eq!(stats.requests, 5000 + stats.retries);
    assert_eq!(keyspace.rows(&view).await.len(), 5000);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_partition_go_together() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let view = windows();
    let mut sink = keyspace.sink_with("");
    prepare(&mut sink, &[&view]).await;
    let notes = vec!["short"; 1000];
    sink.write(&[minute(&view, 1, &notes)])
        .await
        .expect("written");
    let short = sink.stats();
    assert_eq!((short.rows, short.requests - short.retries), (1000, 10));
    // Long ones go in smaller company.
    let long = "long ".repeat(2000);
    let notes = vec![long.as_str(); 100];
    sink.write(&[minute(&view, 2, &notes)])
        .await
        .expect("written");
    let all = sink.stats();
    let requests = (all.requests - all.retries) - (short.requests - short.retries);
    assert!((20..100).contains(&requests), "{all:?}");
    let rows = keyspace.rows(&view).await;
    assert_eq!(rows.len(), 1000);
    let newer = rows.iter().filter(|row| row.version == 2).count();
    assert_eq!(newer, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_and_rows_that_overtake_each_other_end_at_the_newest() {
    const GROUPS: i64 = 200;
    const VERSIONS: i64 = 30;
    let Some(keyspace) = new_store().await else {
        return;
    };
    let columns = [
        ("nat", DataType::Int64, true, true),
        ("version", DataType::Int64, false, true),
    ];
    let view = view("groups", ViewKind::Aggregate, &columns, None);
    let keys: Vec<String> = (0..GROUPS).map(|n| format!("[{n}]")).collect();
    let of = |version: i64| {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let lists: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(0..GROUPS)),
            Arc::new(Int64Array::from(vec![version; keys.len()])),
        ];
        update(&view, version, &keys, lists)
    };
    // Each writes all versions: forwards, backwards, and in steps through them.
    let mut writers = Vec::new();
    for step in [1, VERSIONS - 1, 7, 11] {
        let mut sink = keyspace.sink_with("");
        prepare(&mut sink, &[&view]).await;
        let updates: Vec<_> = (1..=VERSIONS)
            .map(|n| of(n * step % VERSIONS + 1))
            .collect();
        writers.push(tokio::spawn(async move {
            for two in updates.chunks(2) {
                sink.write(two).await.expect("written");
            }
        }));
    }
    for writer in writers {
        writer.await.expect("it ends");
    }
    let rows = keyspace.rows(&view).await;
    assert_eq!(i64::try_from(rows.len()), Ok(GROUPS));
    for row in rows {
        assert_eq!(
            (row.version, &row.values[1]),
            (VERSIONS, &Json::from(VERSIONS))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_key_cannot_be_one_is_refused() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let columns = [
        ("nat", DataType::Utf8, true, false),
        ("users", DataType::Int64, false, true),
    ];
    let view = view("nats", ViewKind::Aggregate, &columns, None);
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&view]).await;
    let long = "x".repeat(70_000);
    let nats = StringArray::from(vec![Some("DE"), None, Some(""), Some(&long), Some("FR")]);
    let lists: Vec<ArrayRef> = vec![Arc::new(nats), Arc::new(Int64Array::from_iter_values(0..5))];
    let keys = ["[\"DE\"]", "[null]", "[\"\"]", "[\"xx\"]", "[\"FR\"]"];
    let written = sink.write(&[update(&view, 5, &keys, lists)]).await;
    let refused = |reason, length| Refused {
        view: "nats".into(),
        version: 5,
        reason,
        column: Some("nat".into()),
        length,
    };
    assert_eq!(
        written.expect("the others are written").refused,
        [
            refused(Reason::RefusedByStore, 8 + 6),
            refused(Reason::RefusedByStore, 8 + 4),
            refused(Reason::TooLargeForStore, 70_000 + 8 + 6),
        ]
    );
    let rows = keyspace.rows(&view).await;
    let keys: Vec<_> = rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, ["[\"DE\"]", "[\"FR\"]"]);
    // Its count changes all the time, and it would be a reject each time.
    let group = |version, nat: &str| {
        let lists: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![nat])),
            Arc::new(Int64Array::from(vec![version])),
        ];
        update(&view, version, &[&format!("[\"{nat}\"]")], lists)
    };
    for (version, nat, told) in [(6, "", 0), (7, "", 0), (8, "y".repeat(70_000).as_str(), 1)] {
        let written = sink.write(&[group(version, nat)]).await;
        let refused = written.expect("no fault").refused;
        assert_eq!(refused.len(), told, "version {version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_does_not_take_its_company_along() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let view = windows();
    let mut sink = keyspace.sink_with("");
    prepare(&mut sink, &[&view]).await;
    // Together they are small enough to be sent, and too large to be taken.
    let row = "row ".repeat(3000);
    let mut notes = vec![row.as_str(); 20];
    let large = "large ".repeat(300_000);
    notes[7] = &large;
    let written = sink.write(&[minute(&view, 3, &notes)]).await;
    let refused = written.expect("the others are written").refused;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].reason, Reason::TooLargeForStore);
    assert!(refused[0].length >= large.len() as u64);
    assert_eq!(keyspace.rows(&view).await.len(), 19);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cassandra_calls_invalid_is_refused_alone() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let view = users();
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&view]).await;
    // Versions are times, and this one means none.
    let updates = [
        user(&view, 1, &["p1"], "NL"),
        user(&view, i64::MIN, &["p2"], "NL"),
    ];
    let written = sink.write(&updates).await.expect("the other is written");
    let refused: Vec<_> = written
        .refused
        .iter()
        .map(|r| (r.version, r.reason))
        .collect();
    assert_eq!(refused, [(i64::MIN, Reason::RefusedByStore)]);
    assert_eq!(keyspace.rows(&view).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_cassandra_calls_every_row_invalid_none_is_refused() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let view = users();
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&view]).await;
    let pids: Vec<String> = (0..1500).map(|n| format!("p{n}")).collect();
    let pids: Vec<&str> = pids.iter().map(String::as_str).collect();
    let error = sink.write(&[user(&view, i64::MIN, &pids, "NL")]).await;
    let error = error.expect_err("not one is taken");
    assert!(
        matches!(&error, SinkError::Store { cause, .. } if cause.contains("rows invalid")),
        "{error}"
    );
    let few = user(&view, i64::MIN, &pids[..900], "NL");
    let written = sink.write(&[few]).await.expect("each for itself");
    assert_eq!(written.refused.len(), 900);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_table_that_somebody_changed_are_not_refused() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let (view, name) = (users(), keyspace.name.clone());
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&view]).await;
    let row = [user(&view, 1, &["p1", "p2"], "NL")];
    sink.write(&row).await.expect("written");
    keyspace
        .cql(&format!("ALTER TABLE {name}.users DROP nat"))
        .await;
    let error = sink.write(&row).await.expect_err("a column is missing");
    assert!(
        matches!(&error, SinkError::Missing { what, .. } if what == "column `nat` of table `users`"),
        "{error}"
    );
    keyspace.cql(&format!("DROP TABLE {name}.users")).await;
    let error = sink.write(&row).await.expect_err("the table is missing");
    assert!(
        matches!(&error, SinkError::Missing { what, .. } if what == "table `users`"),
        "{error}"
    );
    prepare(sink.as_mut(), &[&view]).await;
    sink.write(&row).await.expect("written");
    assert_eq!(keyspace.rows(&view).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_no_row_can_follow_refuses_none_of_them() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let mut sink = keyspace.sink_with("consistency = 'each_quorum'");
    let error = sink.prepare(&[users()]).await.expect_err("there is a rule");
    assert!(
        matches!(&error, SinkError::Store { cause, .. } if cause.contains("takes no row")),
        "{error}"
    );
    assert!(error.passing());
    prepare(keyspace.sink().await.as_mut(), &[&users()]).await;
    let found = sink.inspect(&[users()]).await;
    let findings = found.expect("it can be looked at").findings;
    assert_eq!(findings.len(), 1);
    assert!(findings[0].fatal && findings[0].what.contains("takes no row"));
}

/// Seconds that rows have to live, by `nat`.
async fn ttl(keyspace: &crate::server::Keyspace) -> Vec<Option<i32>> {
    let rows = keyspace
        .cql(&format!(
            "SELECT pid, ttl(nat) FROM {}.users",
            keyspace.name
        ))
        .await;
    let mut rows: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let pid = row.columns[0].as_ref().and_then(CqlValue::as_text).cloned();
            (pid, row.columns[1].as_ref().and_then(CqlValue::as_int))
        })
        .collect();
    rows.sort();
    rows.into_iter().map(|(_, ttl)| ttl).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_lives_as_long_as_its_purpose() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let view = users();
    let day = Duration::from_hours(24);
    let mut sink = keyspace.sink_that_keeps(Retention::from([("users".into(), day)]));
    prepare(&mut sink, &[&view]).await;
    let now = now_us();
    let hour_us = 3_600_000_000;
    let updates = [
        user(&view, now - 23 * hour_us, &["p1"], "NL"),
        user(&view, now, &["p2"], "NL"),
        user(&view, now - 25 * hour_us, &["p3"], "NL"),
        user(&view, now + 48 * hour_us, &["p4"], "NL"),
    ];
    sink.write(&updates).await.expect("written");
    let ttl = ttl(&keyspace).await;
    assert_eq!(ttl.len(), 3, "the third one's time is over");
    let within = |ttl: Option<i32>, hours: i32| {
        let ttl = ttl.expect("it expires");
        assert!(ttl > (hours - 1) * 3600 && ttl <= hours * 3600, "{ttl}");
    };
    within(ttl[0], 1);
    within(ttl[1], 24);
    // A version ahead of the clock keeps nothing longer.
    within(ttl[2], 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_life_ends_when_the_servers_calendar_does() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let view = users();
    let years = Duration::from_hours(24 * 365 * 50);
    let mut sink = keyspace.sink_that_keeps(Retention::from([("users".into(), years)]));
    prepare(&mut sink, &[&view]).await;
    sink.write(&[user(&view, now_us(), &["p1"], "NL")])
        .await
        .expect("Cassandra takes no row that would expire later than 2038");
    let ttl = ttl(&keyspace).await;
    let end = i64::from(ttl[0].expect("it expires")) + now_us() / 1_000_000;
    let calendar = i64::from(i32::MAX);
    assert!(end <= calendar && end > calendar - 3600, "{end}");
}
