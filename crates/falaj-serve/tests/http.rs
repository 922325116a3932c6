//! Every route over a real socket.

mod client;
mod ingest;
#[path = "../examples/made_up/mod.rs"]
mod made_up;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use client::{Event, serve};
use falaj_record::{Publication, PublishedRow, Value, ViewInfo, ViewKind};
use falaj_serve::{Hub, RunState, Working};
use made_up::{MadeUp, Scene};
use serde_json::json;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      connect-src 'self'; img-src 'self' data: blob:";

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of all routes")]
async fn every_route_answers_in_its_own_type_and_with_the_common_headers() {
    let server = serve(MadeUp::new(Scene::Busy).hub()).await;
    for (path, code, media, part) in [
        (
            "/",
            200,
            "text/html; charset=utf-8",
            "<h1>random-users</h1>",
        ),
        (
            "/assets/main.js",
            200,
            "text/javascript; charset=utf-8",
            "import { Card }",
        ),
        ("/assets/style.css", 200, "text/css; charset=utf-8", ":root"),
        ("/assets/icon.svg", 200, "image/svg+xml", "<svg"),
        (
            "/assets/plotly-basic.min.js",
            200,
            "text/javascript; charset=utf-8",
            "plotly.js",
        ),
        (
            "/assets/nothing.js",
            404,
            "application/json",
            "no such file",
        ),
        (
            "/assets/..%2fCargo.toml",
            404,
            "application/json",
            "no such file",
        ),
        (
            "/api/v1/views",
            200,
            "application/json",
            "users_by_nationality",
        ),
        (
            "/api/v1/views/average_age",
            200,
            "application/json",
            "\"minute\"",
        ),
        (
            "/api/v1/views/average_age?format=csv",
            200,
            "text/csv; charset=utf-8; header=present",
            "minute,average_age,users\r\n",
        ),
        (
            "/api/v1/views/average_age?format=xml",
            400,
            "application/json",
            "`format`",
        ),
        (
            "/api/v1/views/average_age?limit=-1",
            400,
            "application/json",
            "`limit`",
        ),
        (
            "/api/v1/views/avarage_age",
            404,
            "application/json",
            "did you mean `average_age`?",
        ),
        ("/api/v1/views/%ff", 400, "application/json", "not text"),
        (
            "/api/v1/views/users",
            403,
            "application/json",
            "never published",
        ),
        ("/api/v1/status", 200, "application/json", "\"ledger\""),
        ("/api/v1/privacy", 200, "application/json", "\"delta_k\":5"),
        (
            "/api/v1/nothing",
            404,
            "application/json",
            "nothing is served",
        ),
        ("/api/v2", 404, "application/json", "nothing is served"),
        ("/favicon.ico", 404, "application/json", "nothing is served"),
        ("/healthz", 200, "application/json", "\"alive\":true"),
        ("/readyz", 200, "application/json", "\"ready\":true"),
        (
            "/metrics",
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            "# TYPE falaj_info gauge",
        ),
    ] {
        let answer = server.get(path).await;
        assert_eq!(
            (answer.code, answer.header("content-type")),
            (code, media),
            "{path}"
        );
        assert!(answer.text().contains(part), "{path}: {}", answer.text());
        assert_eq!(answer.header("content-security-policy"), POLICY, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        let cache = if path.starts_with("/assets/") && code == 200 {
            "no-cache"
        } else {
            "no-store"
        };
        assert_eq!(answer.header("cache-control"), cache, "{path}");
        if media == "application/json" && code >= 400 {
            assert!(answer.json()["error"].is_string(), "{path}");
        }
    }
}

#[tokio::test]
async fn other_methods_and_other_hosts_are_refused_in_json() {
    let server = serve(MadeUp::new(Scene::Busy).hub()).await;
    for path in ["/", "/api/v1/views", "/api/v1/events", "/metrics"] {
        let answer = server
            .ask(
                "POST",
                path,
                &[("Host", "localhost"), ("Content-Length", "0")],
            )
            .await;
        assert_eq!(answer.code, 405, "{path}");
        assert!(answer.header("allow").contains("GET"), "{path}");
        assert_eq!(answer.json()["hint"], "use `GET`", "{path}");
    }
    for (host, code) in [
        ("localhost:8050", 200),
        ("127.0.0.1", 200),
        ("[::1]:1", 200),
        ("falaj.evil.example", 403),
        ("127.0.0.1.evil.example:8050", 403),
        ("", 403),
    ] {
        let answer = server.ask("GET", "/api/v1/status", &[("Host", host)]).await;
        assert_eq!(answer.code, code, "{host}");
        assert!(code == 200 || !answer.text().contains("pipeline"), "{host}");
    }
    assert_eq!(
        server.ask("GET", "/api/v1/status", &[]).await.code,
        403,
        "no host at all"
    );
}

#[tokio::test]
async fn views_say_what_they_are_and_give_their_rows() {
    let server = serve(MadeUp::new(Scene::Single).hub()).await;
    let views = server.get("/api/v1/views").await.json();
    assert_eq!(
        views[0],
        json!({
            "view": "users_by_nationality",
            "kind": "aggregate",
            "columns": [{"name": "nat", "type": "string"}, {"name": "users", "type": "bigint"}],
            "published": true,
        })
    );
    assert_eq!(
        views[1]["columns"][0],
        json!({"name": "minute", "type": "timestamp"})
    );
    assert_eq!(
        (&views[3]["kind"], &views[3]["published"]),
        (&json!("row"), &json!(false))
    );
    let rows = server.get("/api/v1/views/email_domains").await.json();
    assert_eq!(rows["view"], "email_domains");
    assert_eq!(
        rows["rows"],
        json!([{"email_domain": "example.com", "users": 12_345}])
    );
    assert!(rows["version"].is_i64());
    assert_eq!(rows["suppressed"], 0);
}

#[tokio::test]
async fn limits_cut_and_csv_is_safe_to_open() {
    let server = serve(MadeUp::new(Scene::Hostile).hub()).await;
    let limited = server
        .get("/api/v1/views/email_domains?limit=2")
        .await
        .json();
    let labels = |rows: &serde_json::Value| -> Vec<serde_json::Value> {
        rows["rows"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| row["email_domain"].clone())
            .collect()
    };
    assert_eq!(labels(&limited), [json!(null), json!("")]);
    assert_eq!(
        server
            .get("/api/v1/views/email_domains?limit=0")
            .await
            .json()["rows"],
        json!([])
    );
    let csv = server
        .get("/api/v1/views/email_domains?format=csv&limit=7")
        .await;
    assert_eq!(
        csv.header("content-disposition"),
        "attachment; filename=\"email_domains.csv\""
    );
    let labels: Vec<&str> = csv
        .text()
        .split("\r\n")
        .map(|line| line.rsplit_once(',').map_or(line, |(label, _)| label))
        .collect();
    let expected = [
        "email_domain",
        "",
        "\"\"",
        "007",
        "<b>bold</b>",
        "\"'=1+1\"",
        "\"a,\"\"b\"\"\nc\"",
        "other",
        "",
    ];
    assert_eq!(labels, expected);
}

#[tokio::test]
async fn assets_are_compressed_for_those_who_ask_and_sent_once() {
    let server = serve(MadeUp::new(Scene::Empty).hub()).await;
    let path = "/assets/plotly-basic.min.js";
    let plain = server.get(path).await;
    let zipped = server
        .ask(
            "GET",
            path,
            &[("Host", "localhost"), ("Accept-Encoding", "br, gzip")],
        )
        .await;
    assert_eq!(
        (
            plain.header("content-encoding"),
            zipped.header("content-encoding")
        ),
        ("", "gzip")
    );
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&zipped.body[..])
        .read_to_end(&mut unpacked)
        .expect("it is gzip");
    assert!(unpacked == plain.body, "both are the same file");
    let tag = plain.header("etag");
    let again = server
        .ask(
            "GET",
            path,
            &[("Host", "localhost"), ("If-None-Match", tag)],
        )
        .await;
    assert_eq!((again.code, again.body.len()), (304, 0));
}

#[tokio::test]
async fn readiness_names_every_part_that_does_not_work() {
    let fresh = serve(Hub::new("p", &[], vec![])).await;
    let answer = fresh.get("/readyz").await;
    assert_eq!(answer.code, 503);
    assert_eq!(
        answer.json()["reasons"][0]["detail"],
        "no stage has reported yet"
    );
    assert_eq!(fresh.get("/api/v1/status").await.code, 503);
    assert_eq!(fresh.get("/api/v1/privacy").await.code, 503);
    assert_eq!(fresh.get("/healthz").await.code, 200);

    let failing = serve(MadeUp::new(Scene::Failing).hub()).await;
    let answer = failing.get("/readyz").await;
    assert_eq!(answer.code, 503);
    let reasons = answer.json()["reasons"].clone();
    let parts: Vec<_> = reasons
        .as_array()
        .into_iter()
        .flatten()
        .map(|reason| {
            (
                reason["part"].as_str(),
                reason["name"].as_str(),
                reason["state"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        parts,
        [
            (Some("source"), Some("http"), Some("failing")),
            (Some("sink"), Some("people"), Some("failing")),
        ]
    );
    assert_eq!(reasons[0]["detail"], "429: rate limited");

    let starting = serve(MadeUp::new(Scene::Empty).hub()).await;
    let reasons = starting.get("/readyz").await.json()["reasons"].clone();
    assert_eq!(reasons[0]["state"], RunState::Starting.word());
    assert_eq!(reasons[1]["state"], Working::Waiting.word());
}

#[tokio::test]
async fn a_standby_answers_and_gives_no_rows_as_if_there_were_none() {
    let made_up = MadeUp::new(Scene::Standby);
    let hub = made_up.hub();
    hub.close_ingest(true);
    let server = serve(hub).await;
    assert_eq!(server.get("/healthz").await.code, 200);
    let ready = server.get("/readyz").await;
    assert_eq!(ready.code, 503);
    assert_eq!(
        ready.json()["reasons"],
        json!([{
            "part": "pipeline",
            "name": "random-users",
            "state": "standby",
            "detail": "another falaj runs this pipeline",
            "since": null,
        }])
    );
    let status = server.get("/api/v1/status").await.json();
    assert_eq!(status["state"], "standby");
    assert_eq!(status["detail"], "another falaj runs this pipeline");
    for (path, method) in [
        ("/api/v1/views/average_age", "GET"),
        ("/api/v1/views/average_age?format=csv", "GET"),
        ("/ingest", "POST"),
    ] {
        let answer = server
            .ask(
                method,
                path,
                &[("Host", "127.0.0.1"), ("Content-Length", "0")],
            )
            .await;
        assert_eq!(
            (answer.code, answer.header("retry-after")),
            (503, "1"),
            "{path}"
        );
        assert_eq!(
            answer.json()["error"],
            "standby: another falaj runs this pipeline"
        );
    }
    // What does not depend on who runs it is there.
    assert_eq!(server.get("/api/v1/views/users").await.code, 403);
    assert_eq!(server.get("/api/v1/views/nothing").await.code, 404);
    assert_eq!(server.get("/api/v1/views").await.code, 200);
    assert_eq!(server.get("/api/v1/privacy").await.code, 200);
    let page = server.get("/").await;
    assert!(page.text().contains("standby, up "));
    assert!(page.text().contains("another falaj runs this pipeline"));
    let metrics = server.get("/metrics").await;
    assert!(
        metrics
            .text()
            .contains("falaj_state{state=\"standby\"} 1\n")
    );
    assert!(metrics.text().contains("falaj_ready 0\n"));
    let snapshot = server.events(None).await.next_named("snapshot").await;
    assert_eq!(snapshot.data["status"]["state"], "standby");
}

#[tokio::test]
async fn status_has_the_shape_of_the_contract() {
    let server = serve(MadeUp::new(Scene::Busy).hub()).await;
    let status = server.get("/api/v1/status").await.json();
    let keys = |of: &serde_json::Value| -> BTreeSet<String> {
        of.as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect()
    };
    let set =
        |keys: &[&str]| -> BTreeSet<String> { keys.iter().map(|k| (*k).to_owned()).collect() };
    let ledger = &status["ledger"];
    assert_eq!(keys(ledger), set(&["source", "topic", "views"]));
    assert_eq!(
        keys(&ledger["source"]),
        set(&["in", "published", "rejected", "withheld", "replayed"])
    );
    assert_eq!(
        keys(&ledger["topic"]),
        set(&["read", "out", "rejected", "duplicate"])
    );
    assert_eq!(
        keys(&ledger["views"]["average_age"]),
        set(&["applied", "filtered", "late"])
    );
    assert_eq!(
        keys(&status["positions"][0]),
        set(&["partition", "start", "end", "next", "lag"])
    );
    assert_eq!(status["state"], "running");
    assert_eq!(status["stages"][0]["state"], "ok");
    assert!(
        status["started"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
}

/// One family of metrics: its type and its series.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

#[tokio::test]
async fn metrics_pass_the_format_check() {
    let mut made_up = MadeUp::new(Scene::Failing);
    made_up.step();
    let server = serve(made_up.hub()).await;
    server.get("/nothing").await;
    let answer = server.get("/metrics").await;
    let mut families = Families::new();
    let mut current = String::new();
    for line in answer.text().lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(help.ends_with('.'), "{line}");
            assert!(!families.contains_key(name), "{name} twice");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, current, "HELP and TYPE belong together");
            assert!(name.starts_with("falaj_"), "{name}");
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{name}"
            );
            assert_eq!(
                name.ends_with("_total"),
                kind == "counter",
                "{name} is a {kind}"
            );
            assert!(
                ["_ms", "_milliseconds", "_kb", "_percent"]
                    .iter()
                    .all(|u| !name.ends_with(u))
            );
            families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split_once('{').map_or(series, |(name, _)| name);
            assert_eq!(name, current, "a family stands together");
            let all = &mut families.get_mut(name).expect("it has a type").1;
            assert!(all.insert(series.to_owned()), "{series} twice");
        }
    }
    for series in [
        "falaj_stage_up{stage=\"views\"}",
        "falaj_sink_up{sink=\"people\",kind=\"mongodb\"}",
        "falaj_lag_records{partition=\"3\"}",
        "falaj_rejected_records_total{reason=\"wrong type\"}",
        "falaj_view_suppressed_groups{view=\"average_age\"}",
        "falaj_http_responses_total{code=\"404\"}",
    ] {
        assert!(
            families.values().any(|(_, all)| all.contains(series)),
            "{series} is missing"
        );
    }
    assert!(answer.text().contains("falaj_ledger_balanced 1\n"));
    let replayed = "falaj_ledger_records_total{stage=\"source\",view=\"\",entry=\"replayed\"} 3\n";
    assert!(answer.text().contains(replayed));
    assert!(answer.text().contains("falaj_ready 0\n"));
    assert!(
        !answer.text().contains("view=\"users\""),
        "row views are no business of metrics"
    );
}

#[tokio::test]
async fn the_page_is_readable_without_its_script() {
    let server = serve(MadeUp::new(Scene::Busy).hub()).await;
    let page = server.get("/").await;
    for part in [
        "<b>2,000</b> <span>/s</span>",
        "<h2>Users by nationality</h2>",
        "<td>CH</td><td class=\"n\">",
        "<td>unknown</td>",
        "synthetic",
        "Nothing lost",
        "<noscript><meta http-equiv=\"refresh\"",
        "login.**",
    ] {
        assert!(page.text().contains(part), "{part}");
    }
    assert!(page.body.len() < 50_000, "{} bytes", page.body.len());
    assert!(!page.text().contains("://"), "the page names another host");
    let hostile = serve(MadeUp::new(Scene::Hostile).hub()).await;
    assert!(!hostile.get("/").await.text().contains("<b>bold"));
}

fn counted() -> Arc<ViewInfo> {
    let column = |name: &str, data_type, key| falaj_record::Column {
        name: name.into(),
        data_type,
        key,
        nullable: true,
    };
    Arc::new(ViewInfo {
        name: "by_nat".into(),
        kind: ViewKind::Aggregate,
        columns: vec![
            column("nat", arrow::datatypes::DataType::Utf8, true),
            column("users", arrow::datatypes::DataType::Int64, false),
        ],
        window: None,
        fields: Vec::new(),
        sql: String::new(),
    })
}

fn publication(view: &Arc<ViewInfo>, version: i64, nat: &str, users: i64) -> Publication {
    Publication {
        view: view.clone(),
        version,
        watermark: Some(0),
        suppressed: 2,
        upserts: vec![PublishedRow {
            key: format!("[\"{nat}\"]"),
            values: vec![Value::Text(nat.into()), Value::Int(users)],
        }],
        deletes: vec![],
    }
}

#[tokio::test]
async fn a_stream_starts_with_a_snapshot_and_goes_on_with_deltas() {
    let view = counted();
    let hub = Hub::new("p", std::slice::from_ref(&view), vec![]);
    hub.show(&[publication(&view, 1, "CH", 5)]);
    let server = serve(hub.clone()).await;
    let mut events = server.events(None).await;
    let snapshot = events.next().await.expect("a first event");
    assert_eq!(snapshot.name, "snapshot");
    assert_eq!(
        snapshot.data["views"][0]["rows"],
        json!([{"_key": "[\"CH\"]", "nat": "CH", "users": 5}])
    );
    let (epoch, seq) = snapshot.id.rsplit_once('-').expect("epoch-seq");
    assert_eq!(seq, "1");
    let gone = Publication {
        upserts: vec![],
        deletes: vec!["[\"CH\"]".into()],
        ..publication(&view, 3, "", 0)
    };
    hub.show(&[publication(&view, 2, "FR", 6), gone]);
    let delta = events.next().await.expect("a delta");
    assert_eq!(
        (delta.name.as_str(), delta.id),
        ("delta", format!("{epoch}-2"))
    );
    assert_eq!(
        delta.data,
        json!({
            "view": "by_nat",
            "version": 2,
            "watermark": "1970-01-01T00:00:00Z",
            "suppressed": 2,
            "upserts": [{"_key": "[\"FR\"]", "nat": "FR", "users": 6}],
            "deletes": [],
        })
    );
    let delta = events.next().await.expect("another delta");
    assert_eq!(
        (delta.id, &delta.data["deletes"]),
        (format!("{epoch}-3"), &json!(["[\"CH\"]"]))
    );
}

#[tokio::test]
async fn a_reader_that_comes_back_gets_exactly_what_it_missed() {
    let view = counted();
    let hub = Hub::new("p", std::slice::from_ref(&view), vec![]);
    let server = serve(hub.clone()).await;
    let first = server.events(None).await.next().await.expect("a snapshot");
    for version in 1..=200 {
        hub.show(&[publication(&view, version, "CH", version)]);
    }
    let mut events = server.events(Some(&first.id)).await;
    for version in 1..=200 {
        let event = events.next().await.expect("a missed delta");
        assert_eq!(
            (event.name.as_str(), &event.data["version"]),
            ("delta", &json!(version))
        );
    }
    let up_to_date = events;
    drop(up_to_date);
    let epoch = first.id.rsplit_once('-').expect("epoch-seq").0;
    for id in [
        "0-1",
        &format!("{epoch}-201"),
        "nonsense",
        &format!("{epoch}-x"),
    ] {
        let event = server
            .events(Some(id))
            .await
            .next()
            .await
            .expect("an event");
        assert_eq!(event.name, "snapshot", "{id}");
        assert_eq!(event.data["views"][0]["rows"][0]["users"], 200, "{id}");
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_delays_nobody_and_ends_up_right() {
    let view = counted();
    let hub = Hub::new("p", std::slice::from_ref(&view), vec![]);
    let server = serve(hub.clone()).await;
    let mut slow = server.events(None).await;
    assert_eq!(slow.next().await.expect("a snapshot").name, "snapshot");
    // Far more than sockets buffer, and more than the way back may be.
    let long = "x".repeat(2_000);
    let last: i64 = 12_000;
    for version in 1..=last {
        hub.show(&[publication(&view, version, &long, version)]);
        if version % 500 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(
        server.get("/api/v1/views/by_nat").await.json()["version"],
        last
    );
    let mut snapshots = 0;
    let (mut version, mut users) = (0, 0);
    while version < last {
        let event: Event = slow.next().await.expect("the stream goes on");
        let (new, row) = if event.name == "snapshot" {
            snapshots += 1;
            (
                &event.data["views"][0]["version"],
                &event.data["views"][0]["rows"][0],
            )
        } else {
            (&event.data["version"], &event.data["upserts"][0])
        };
        let new = new.as_i64().expect("a version");
        assert!(new > version, "{new} after {version}");
        (version, users) = (new, row["users"].as_i64().expect("a count"));
    }
    assert_eq!(users, last);
    assert!(
        snapshots >= 1,
        "it was behind by more than the ring lets it be"
    );
    let metrics = server.get("/metrics").await;
    assert!(metrics.text().contains("falaj_sse_lagged_total"));
    assert!(!metrics.text().contains("falaj_sse_lagged_total 0\n"));
}

#[tokio::test]
async fn status_events_keep_the_tiles_live() {
    let mut made_up = MadeUp::new(Scene::Busy);
    let server = serve(made_up.hub()).await;
    let mut events = server.events(None).await;
    let snapshot = events.next().await.expect("a snapshot");
    assert_eq!(snapshot.data["status"]["pipeline"], "random-users");
    assert!(
        snapshot.data["history"]
            .as_array()
            .is_some_and(|samples| !samples.is_empty())
    );
    made_up.step();
    made_up.step();
    let status = events.next_named("status").await;
    assert_eq!(status.data["source"]["records_total"], 98_000);
    let again = events.next_named("status").await;
    assert_eq!(
        again.data["at"], status.data["at"],
        "an unchanged status is repeated"
    );
}

#[tokio::test]
async fn a_stop_says_bye_to_open_streams_and_ends() {
    let server = serve(MadeUp::new(Scene::Busy).hub()).await;
    let mut events = server.events(None).await;
    events.next().await.expect("a snapshot");
    let stuck = server.events(None).await;
    server.stop.cancel();
    assert_eq!(events.next_named("bye").await.data["reason"], "stopped");
    assert!(events.next().await.is_none(), "nothing comes after bye");
    server
        .task
        .await
        .expect("it does not panic")
        .expect("it ends well");
    drop(stuck);
}

#[tokio::test]
async fn the_two_hundred_and_first_reader_is_asked_to_come_later() {
    let server = serve(MadeUp::new(Scene::Empty).hub()).await;
    let mut readers = Vec::new();
    for _ in 0..200 {
        readers.push(server.events(None).await);
    }
    let refused = server.get("/api/v1/events").await;
    assert_eq!((refused.code, refused.header("retry-after")), (503, "5"));
    assert!(refused.json()["error"].is_string());
    assert_eq!(server.get("/healthz").await.code, 200, "other routes go on");
    readers.clear();
    // The server notices at its own pace that they left.
    let mut free = server.get("/metrics").await;
    while free.text().contains("falaj_sse_clients 200\n") {
        tokio::task::yield_now().await;
        free = server.get("/metrics").await;
    }
    server
        .events(None)
        .await
        .next()
        .await
        .expect("a place is free again");
}
