//! People are found and removed wherever they are.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use falaj_record::{ViewInfo, ViewKind};
use falaj_sinks::Sink;
use falaj_sinks::conformance::Store;

use crate::server::{
    Given, MINUTE_US, NEW_YEAR_US, TIME, new_store, now_us, prepare, update, user, users, view,
};

const PID: Given = ("pid", DataType::Utf8, true, false);
const PID_OR_NULL: Given = ("pid", DataType::Utf8, true, true);
const NAT: Given = ("nat", DataType::Utf8, true, false);
const START: Given = ("start", TIME, true, false);

/// Views with people in them, each with another primary key.
fn views() -> Vec<Arc<ViewInfo>> {
    let view = |name, kind, columns: &[Given], window| view(name, kind, columns, window);
    let minute = Some(MINUTE_US);
    vec![
        view(
            "by_pid",
            ViewKind::Row,
            &[PID, ("nat", DataType::Utf8, false, true)],
            None,
        ),
        view(
            "by_position",
            ViewKind::Row,
            &[PID_OR_NULL, ("nat", DataType::Utf8, false, true)],
            None,
        ),
        view("visits", ViewKind::Aggregate, &[PID, NAT], None),
        view("minutes", ViewKind::Aggregate, &[PID, START], minute),
        view("places", ViewKind::Aggregate, &[PID, NAT, START], minute),
        view("days", ViewKind::Aggregate, &[PID_OR_NULL, START], minute),
    ]
}

/// Three rows of `p1` (one in views of people) and one of `p2`.
fn rows(view: &Arc<ViewInfo>, version: i64) -> falaj_record::ViewUpdate {
    let of_people = view.kind == ViewKind::Row;
    let pids = if of_people {
        vec!["p1", "p2"]
    } else {
        vec!["p1", "p1", "p1", "p2"]
    };
    let keys: Vec<String> = (0..)
        .zip(&pids)
        .map(|(n, pid)| {
            if of_people {
                (*pid).to_owned()
            } else {
                format!("[\"{pid}\",{n}]")
            }
        })
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let numbers = 0..i64::try_from(pids.len()).expect("few");
    let list = |(name, data_type): (&str, &DataType)| -> ArrayRef {
        match data_type {
            DataType::Int64 => Arc::new(Int64Array::from_iter_values(numbers.clone())),
            DataType::Timestamp(..) => Arc::new(TimestampMicrosecondArray::from_iter_values(
                numbers.clone().map(|n| NEW_YEAR_US + n * MINUTE_US),
            )),
            _ if name == "pid" => Arc::new(StringArray::from(pids.clone())),
            _ => Arc::new(StringArray::from_iter_values(
                numbers.clone().map(|n| n.to_string()),
            )),
        }
    };
    let columns = view.columns.iter();
    let lists = columns.map(|column| list((column.name.as_str(), &column.data_type)));
    update(view, version, &keys, lists.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_found_whatever_the_primary_key_is() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let views = views();
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &views.iter().collect::<Vec<_>>()).await;
    let mut keys = Vec::new();
    for view in &views {
        keys.push(keyspace.key(&view.name).await);
    }
    assert_eq!(
        keys,
        [
            "((pid))",
            "((_key))",
            "((pid, nat))",
            "((pid), start DESC)",
            "((pid, nat), start DESC)",
            "((_day), start DESC, _key)",
        ]
    );
    let updates: Vec<_> = views.iter().map(|view| rows(view, now_us())).collect();
    sink.write(&updates).await.expect("written");
    // Another sink, which has prepared none of them.
    let mut eraser = keyspace.sink().await;
    assert_eq!(eraser.erase("p1").await, Ok(2 + 4 * 3));
    assert_eq!(eraser.erase("p1").await, Ok(0));
    for view in &views {
        let left = keyspace.rows(view).await;
        assert_eq!(left.len(), 1, "{}", view.name);
        assert_eq!(left[0].values[0], "p2", "{}", view.name);
    }
    // What was under way comes late.
    sink.write(&updates).await.expect("written");
    for view in &views {
        assert_eq!(keyspace.rows(view).await.len(), 1, "{}", view.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_the_future_is_erased_at_its_own_time() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let view = users();
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&view]).await;
    let future = [user(&view, now_us() + 3_600_000_000, &["p1"], "NL")];
    sink.write(&future).await.expect("written");
    assert_eq!(sink.erase("p1").await, Ok(1));
    sink.write(&future).await.expect("written");
    assert_eq!(keyspace.rows(&view).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_index_every_row_is_read() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let view = views().remove(5);
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&view]).await;
    sink.write(&[rows(&view, 1)]).await.expect("written");
    let name = &keyspace.name;
    keyspace
        .cql(&format!("DROP INDEX {name}.days_pid_idx"))
        .await;
    let mut sink = keyspace.sink_with("create = false");
    assert_eq!(sink.erase("p1").await, Ok(3));
    assert_eq!(keyspace.rows(&view).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_others_are_left_alone() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let view = users();
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&view]).await;
    let name = &keyspace.name;
    let statements = [
        format!("CREATE TABLE {name}.theirs (pid text PRIMARY KEY, note text)"),
        format!("INSERT INTO {name}.theirs (pid, note) VALUES ('p1', 'kept')"),
    ];
    for statement in &statements {
        keyspace.cql(statement).await;
    }
    sink.write(&[user(&view, 1, &["p1"], "NL")])
        .await
        .expect("written");
    assert_eq!(sink.erase("p1").await, Ok(1));
    let theirs = keyspace.cql(&format!("SELECT * FROM {name}.theirs")).await;
    assert_eq!(theirs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_leaves_the_files_when_they_are_compacted() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let (view, name) = (users(), keyspace.name.clone());
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&view]).await;
    let canary = "canary-9f8e7d6c5b4a";
    sink.write(&[user(&view, 1, &["p1", canary, "p2"], "NL")])
        .await
        .expect("written");
    let nodetool = |args: &[&str]| {
        let output = keyspace.server().nodetool(args.iter().copied()).output();
        let output = output.expect("bash is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
    };
    let files = keyspace.server().data().join(&name);
    nodetool(&["flush", &name, "users"]);
    assert!(found(&files, canary), "the scan finds what is there");
    assert_eq!(sink.erase(canary).await, Ok(1));
    // What takes ten days otherwise.
    keyspace
        .cql(&format!(
            "ALTER TABLE {name}.users WITH gc_grace_seconds = 0"
        ))
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    nodetool(&["flush", &name, "users"]);
    nodetool(&["compact", &name, "users"]);
    assert!(!found(&files, canary));
    assert_eq!(keyspace.rows(&view).await.len(), 2);
}

/// Whether a text is in any file of the folder.
fn found(folder: &Path, text: &str) -> bool {
    let output = Command::new("grep")
        .args(["-rlaF", text])
        .arg(folder)
        .output();
    !output.expect("grep is installed").stdout.is_empty()
}
