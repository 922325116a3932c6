//! Keyspace and tables: made, changed, left to others, looked at.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::DataType;
use falaj_record::{Hint, ViewInfo, ViewKind};
use falaj_sinks::conformance::Store;
use falaj_sinks::{Finding, Retention, Sink, SinkError};
use scylla::value::CqlValue;

use crate::server::{
    Given, Keyspace, MINUTE_US, TIME, new_store, prepare, update, user, users, view,
};

const NAT: Given = ("nat", DataType::Utf8, true, true);
const USERS: Given = ("users", DataType::Int64, false, true);

fn counts(columns: &[Given]) -> Arc<ViewInfo> {
    view("counts", ViewKind::Aggregate, columns, None)
}

async fn text(keyspace: &Keyspace, statement: &str) -> String {
    let rows = keyspace.cql(statement).await;
    format!("{:?}", rows[0].columns[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_gets_replicas_as_nodes_there_are_or_as_asked() {
    for (settings, replicas) in [
        ("", "\"datacenter1\": \"1\""),
        ("replication = 2", "\"datacenter1\": \"2\""),
        (
            "replication = { datacenter1 = 3 }",
            "\"datacenter1\": \"3\"",
        ),
    ] {
        let Some(keyspace) = new_store().await else {
            return;
        };
        let mut sink = keyspace.sink_with(settings);
        // With more replicas than nodes nothing can be read; the keyspace is there all the same.
        let prepared = sink.prepare(&[users()]).await;
        assert_eq!(prepared.is_ok(), settings.is_empty());
        let name = &keyspace.name;
        let made = text(
            &keyspace,
            &format!("SELECT CAST(toJson(replication) AS text) FROM system_schema.keyspaces WHERE keyspace_name = '{name}'"),
        )
        .await
        .replace('\\', "");
        assert!(made.contains("NetworkTopologyStrategy"), "{made}");
        assert!(made.contains(replicas), "{made}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_another_primary_key_has_to_be_made_anew() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let before = counts(&[NAT, USERS]);
    let after = counts(&[("nat", DataType::Utf8, true, false), USERS]);
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&before]).await;
    let error = sink
        .prepare(&[Arc::clone(&after)])
        .await
        .expect_err("another key");
    let expected = SinkError::PrimaryKey {
        table: "counts".into(),
        stored: "((_key))".into(),
        given: "((nat))".into(),
    };
    assert_eq!(error, expected);
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("--rebuild counts"))
    );
    assert!(!error.passing());
    sink.drop_view("counts").await.expect("dropped");
    let prepared = sink.prepare(&[after]).await.expect("prepared");
    assert_eq!(prepared.empty, ["counts"]);
    assert_eq!(keyspace.key("counts").await, "((nat))");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misfit_of_one_view_changes_no_other() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let before = counts(&[NAT, USERS]);
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&before]).await;
    let misfit = counts(&[NAT, ("users", DataType::Utf8, false, true)]);
    sink.prepare(&[users(), misfit])
        .await
        .expect_err("another type");
    let name = &keyspace.name;
    let tables =
        format!("SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{name}'");
    assert_eq!(keyspace.cql(&tables).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_comes_and_goes_with_its_values_and_its_index() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let with = counts(&[
        NAT,
        ("pid", DataType::Utf8, false, true),
        ("at", TIME, false, true),
    ]);
    let without = counts(&[NAT]);
    let mut sink = keyspace.sink().await;
    let name = keyspace.name.clone();
    let indexes =
        format!("SELECT index_name FROM system_schema.indexes WHERE keyspace_name = '{name}'");
    let columns = format!(
        "SELECT column_name FROM system_schema.columns WHERE keyspace_name = '{name}' AND table_name = 'counts'"
    );
    for _ in 0..2 {
        prepare(sink.as_mut(), &[&with]).await;
        assert_eq!(keyspace.cql(&indexes).await.len(), 1);
        assert_eq!(keyspace.cql(&columns).await.len(), 6);
        prepare(sink.as_mut(), &[&without]).await;
        assert_eq!(keyspace.cql(&indexes).await.len(), 0);
        assert_eq!(keyspace.cql(&columns).await.len(), 3);
    }
    // Cassandra keeps the type of a column that was dropped.
    let other = counts(&[NAT, ("at", DataType::Int64, false, true)]);
    let error = sink.prepare(&[other]).await.expect_err("another type");
    assert!(
        matches!(&error, SinkError::ColumnType { column, stored, .. } if column == "at" && stored.contains("timestamp")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_dropped_column_do_not_come_back_with_it() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let (with, without) = (counts(&[NAT, USERS]), counts(&[NAT]));
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&with]).await;
    let lists = |n: i64| -> Vec<ArrayRef> {
        vec![
            Arc::new(StringArray::from(vec!["DE"])),
            Arc::new(Int64Array::from(vec![n])),
        ]
    };
    let now = crate::server::now_us;
    sink.write(&[update(&with, now(), &["[\"DE\"]"], lists(3))])
        .await
        .expect("written");
    prepare(sink.as_mut(), &[&without]).await;
    prepare(sink.as_mut(), &[&with]).await;
    assert_eq!(
        keyspace.rows(&with).await[0].values[1],
        serde_json::Value::Null
    );
    sink.write(&[update(&with, now(), &["[\"DE\"]"], lists(4))])
        .await
        .expect("written");
    assert_eq!(keyspace.rows(&with).await[0].values[1], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_somebody_else_is_left_alone() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let mut sink = keyspace.sink().await;
    sink.prepare(&[]).await.expect("the keyspace is made");
    let name = &keyspace.name;
    keyspace
        .cql(&format!(
            "CREATE TABLE {name}.users (pid text PRIMARY KEY, nat text)"
        ))
        .await;
    let error = sink.prepare(&[users()]).await.expect_err("it is theirs");
    assert!(matches!(error, SinkError::ForeignTable { .. }), "{error}");
    let error = sink.drop_view("users").await.expect_err("it is theirs");
    assert!(matches!(error, SinkError::ForeignTable { .. }), "{error}");
}

fn what(findings: &[Finding]) -> Vec<(&str, bool)> {
    findings
        .iter()
        .map(|f| (f.what.as_str(), f.fatal))
        .collect()
}

/// The statement that a finding's hint ends with.
fn statement(finding: &Finding) -> &str {
    let at = ["CREATE ", "ALTER "]
        .iter()
        .find_map(|word| finding.hint.find(word));
    &finding.hint[at.expect("it says how")..]
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_can_make_everything_by_what_the_findings_say() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let columns = [
        ("pid", DataType::Utf8, true, true),
        ("start", TIME, true, false),
    ];
    let visits = view("visits", ViewKind::Aggregate, &columns, Some(MINUTE_US));
    let views = [users(), Arc::clone(&visits)];
    let mut sink = keyspace.sink_with("create = false");
    let name = &keyspace.name;
    let mut made = Vec::new();
    loop {
        let findings = sink
            .inspect(&views)
            .await
            .expect("it can be looked at")
            .findings;
        if findings.is_empty() {
            break;
        }
        for finding in &findings {
            made.push(finding.what.split(" is missing").next().map(str::to_owned));
            keyspace.cql(statement(finding)).await;
        }
        keyspace
            .cql(&format!("GRANT SELECT ON KEYSPACE {name} TO {name}"))
            .await;
        keyspace
            .cql(&format!("GRANT MODIFY ON KEYSPACE {name} TO {name}"))
            .await;
        keyspace.rights_change().await;
        assert!(made.len() < 9, "{made:?}");
    }
    let index = "the table `visits` has no index on `pid`, so erasing a person reads all of it";
    let made: Vec<_> = made.iter().flatten().map(String::as_str).collect();
    let keyspace_itself = format!("keyspace `{name}`");
    assert_eq!(
        made,
        [
            keyspace_itself.as_str(),
            "table `users`",
            "table `visits`",
            index
        ]
    );
    let prepared = sink.prepare(&views).await.expect("prepared");
    assert_eq!(prepared.empty, ["users", "visits"]);
    assert!(prepared.fillings.is_empty(), "it may not mark them");
    sink.write(&[user(&views[0], 1, &["p1"], "NL")])
        .await
        .expect("written");
    // What falaj did not make it empties only.
    sink.drop_view("users").await.expect("emptied");
    assert_eq!(keyspace.rows(&views[0]).await, []);
    assert_eq!(keyspace.key("users").await, "((pid))");
    // A column that the view has now, and one that somebody wants beside it.
    let columns = [
        ("pid", DataType::Utf8, true, false),
        ("nat", DataType::Utf8, false, true),
        ("age", DataType::Int64, false, true),
    ];
    let older = view("users", ViewKind::Row, &columns, None);
    keyspace
        .cql(&format!("ALTER TABLE {name}.users ADD note text"))
        .await;
    let error = sink
        .prepare(&[Arc::clone(&older)])
        .await
        .expect_err("a column is missing");
    assert!(
        matches!(&error, SinkError::Missing { what, .. } if what == "column `age` of table `users`"),
        "{error}"
    );
    let findings = sink
        .inspect(&[Arc::clone(&older)])
        .await
        .expect("it can be looked at")
        .findings;
    keyspace.cql(statement(&findings[0])).await;
    sink.prepare(&[older]).await.expect("prepared");
    let count = format!(
        "SELECT column_name FROM system_schema.columns WHERE keyspace_name = '{name}' AND table_name = 'users'"
    );
    assert_eq!(
        keyspace.cql(&count).await.len(),
        6,
        "the note is left alone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_are_found_and_told() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let name = keyspace.name.clone();
    let views = [users()];
    keyspace
        .cql(&format!("REVOKE CREATE ON ALL KEYSPACES FROM {name}"))
        .await;
    keyspace.rights_change().await;
    let mut sink = keyspace.sink().await;
    let found = async |sink: &mut dyn Sink| {
        let findings = sink
            .inspect(&views)
            .await
            .expect("it can be looked at")
            .findings;
        let error = sink.prepare(&views).await.expect_err("it has no right");
        assert!(matches!(error, SinkError::Forbidden { .. }), "{error}");
        assert!(error.hint().is_some());
        assert_eq!(what(&findings), [(error.to_string().as_str(), true)]);
        error.to_string()
    };
    let told = found(sink.as_mut()).await;
    assert!(
        told.contains(&format!("make the keyspace `{name}`")),
        "{told}"
    );
    keyspace
        .cql(&format!("CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"))
        .await;
    let told = found(sink.as_mut()).await;
    assert!(told.contains("make the table `users`"), "{told}");
    let grants = |right: &str| format!("GRANT {right} ON KEYSPACE {name} TO {name}");
    keyspace.cql(&grants("CREATE")).await;
    keyspace.rights_change().await;
    prepare(sink.as_mut(), &[&views[0]]).await;
    keyspace.make_read_only().await;
    let told = found(sink.as_mut()).await;
    assert!(told.contains("write the table `users`"), "{told}");
    keyspace.cql(&grants("MODIFY")).await;
    keyspace
        .cql(&format!("REVOKE SELECT ON TABLE {name}.users FROM {name}"))
        .await;
    keyspace
        .cql(&format!("REVOKE ALTER ON TABLE {name}.users FROM {name}"))
        .await;
    keyspace.rights_change().await;
    let error = sink.prepare(&views).await.expect_err("it may not read");
    assert!(
        error.to_string().contains("read the table `users`"),
        "{error}"
    );
    keyspace
        .cql(&format!("GRANT SELECT ON TABLE {name}.users TO {name}"))
        .await;
    keyspace.rights_change().await;
    let columns = [
        ("pid", DataType::Utf8, true, false),
        ("nat", DataType::Utf8, false, true),
        ("age", DataType::Int64, false, true),
    ];
    let grown = view("users", ViewKind::Row, &columns, None);
    let error = sink
        .prepare(&[Arc::clone(&grown)])
        .await
        .expect_err("it may not change");
    assert!(
        error.to_string().contains("change the table `users`"),
        "{error}"
    );
    let found = sink.inspect(&[grown]).await.expect("it can be looked at");
    assert_eq!(what(&found.findings), [(error.to_string().as_str(), true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_tells_server_clock_and_what_may_be_lost() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let name = &keyspace.name;
    let found = keyspace.sink().await.inspect(&[users()]).await;
    let found = found.expect("it can be looked at");
    assert!(found.server.starts_with("Cassandra 5."), "{}", found.server);
    let ahead = found.clock_ahead_ms.expect("Cassandra tells its time");
    assert!(ahead.abs() < 60_000, "{ahead}");
    assert_eq!(found.findings, []);
    // Who may see the settings learns that this node answers before it has written, before there is
    // a keyspace and after.
    keyspace
        .cql(&format!("GRANT SELECT ON KEYSPACE system_views TO {name}"))
        .await;
    keyspace.rights_change().await;
    let mut sink = keyspace.sink().await;
    for made in [false, true] {
        if made {
            prepare(sink.as_mut(), &[]).await;
        }
        let found = sink.inspect(&[users()]).await;
        let findings = found.expect("it can be looked at").findings;
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].what.contains("power cut") && !findings[0].fatal);
    }
    keyspace
        .cql(&format!(
            "ALTER KEYSPACE {name} WITH replication = {{'class': 'NetworkTopologyStrategy', 'datacenter1': 3}}"
        ))
        .await;
    let found = keyspace.sink().await.inspect(&[]).await;
    let findings = found.expect("it can be looked at").findings;
    let fatal = findings.iter().find(|finding| finding.fatal);
    let told = "3 replicas, of which 2 must answer, on 1 nodes";
    assert!(
        fatal.is_some_and(|finding| finding.what.contains(told)),
        "{findings:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_kept_as_their_rows_live() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let minutes = view(
        "minutes",
        ViewKind::Aggregate,
        &[("start", TIME, true, false), USERS],
        Some(MINUTE_US),
    );
    let month = std::time::Duration::from_hours(24 * 30);
    let mut sink = keyspace.sink_that_keeps(Retention::from([("minutes".into(), month)]));
    prepare(&mut sink, &[&minutes, &users(), &counts(&[NAT, USERS])]).await;
    let name = &keyspace.name;
    let mut classes = Vec::new();
    for table in ["minutes", "users", "counts"] {
        let rows = keyspace
            .cql(&format!(
                "SELECT compaction, comment FROM system_schema.tables WHERE keyspace_name = '{name}' AND table_name = '{table}'"
            ))
            .await;
        let Some(CqlValue::Map(options)) = &rows[0].columns[0] else {
            panic!("options are a map");
        };
        let class = options
            .iter()
            .find(|(key, _)| key.as_text().is_some_and(|key| key == "class"));
        let class = class
            .and_then(|(_, class)| class.as_text())
            .cloned()
            .unwrap_or_default();
        classes.push(class.rsplit('.').next().unwrap_or_default().to_owned());
        let comment = rows[0].columns[1].as_ref().and_then(CqlValue::as_text);
        let about = format!("view {table} of falaj, rows of ");
        assert!(comment.is_some_and(|comment| comment.starts_with(&about)));
    }
    assert_eq!(
        classes[..2],
        ["TimeWindowCompactionStrategy", "LeveledCompactionStrategy"]
    );
}
