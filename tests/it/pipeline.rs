//! The line, end to end, on the embedded topic.

use std::fmt::Write;

use crate::harness::{Running, Workplace, assert_balanced, output, samples, stderr};

#[test]
fn recorded_replies_give_what_an_independent_computation_gives() {
    let Some(records) = samples() else { return };
    let place = Workplace::new();
    let pipeline = place.pipeline(&format!("[source.file]\npath = {:?}", records.display()));
    let ledger = place.run_to_end(&pipeline, &[]);
    assert_balanced(&ledger);
    let lines = std::fs::read_to_string(&records).unwrap().lines().count();
    assert_eq!(ledger["source"]["in"], lines);
    place.compare(&records, &place.tap(&pipeline));

    let again = place.run_to_end(&pipeline, &[]);
    assert_eq!(again, ledger, "a second run added something");
    place.compare(&records, &place.tap(&pipeline));
}

#[test]
fn a_saved_reply_gives_the_same_as_its_records_line_by_line() {
    let records: Vec<String> = (0..300)
        .map(|i| {
            format!(
                r#"{{"nat":"{}","dob":{{"age":{}}},"email":"p{i}@example.com"}}"#,
                ["DE", "FR"][i % 2],
                20 + i % 50
            )
        })
        .collect();
    let place = Workplace::new();
    let lines = place.write("lines.ndjson", records.join("\n").as_bytes());
    let reply = format!(
        r#"{{"results":[{}],"info":{{"results":300}}}}"#,
        records.join(",\n")
    );
    place.write("reply.json", reply.as_bytes());
    let pipeline = place.pipeline("[source.file]\npath = \"reply.json\"\nrecords = \"results\"");
    let ledger = place.run_to_end(&pipeline, &[]);
    assert_balanced(&ledger);
    assert_eq!(ledger["source"]["published"], 300);
    place.compare(&lines, &place.tap(&pipeline));
}

#[test]
fn standard_input_is_read_to_its_end() {
    let place = Workplace::new();
    let pipeline = place.pipeline("[source.file]\npath = \"-\"");
    let input = place.write("input.ndjson", br#"{"nat":"DE","email":"a@example.com"}"#);
    let done = crate::harness::falaj(place.run_args(&pipeline, &["--until-caught-up"]))
        .stdin(std::fs::File::open(input).unwrap())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(crate::harness::stdout(&done).contains(r#""published":1"#));
}

/// What a source gives once is not asked again, so a start looks only for rejects that no checkpoint
/// counts yet: not through all that there ever were.
#[test]
fn rejects_that_are_counted_are_not_looked_through_at_each_start() {
    let place = Workplace::new();
    let pipeline = place.pipeline("[source.file]\npath = \"-\"");
    let (mut counted, mut input) = (0, String::new());
    for run in 0..3 {
        let bad = "no record\n".repeat(run + 1);
        input += &bad;
        writeln!(input, "{{\"nat\":\"DE\",\"email\":\"p{run}@example.com\"}}").unwrap();
        let input = place.write("input.ndjson", input.as_bytes());
        let done = crate::harness::falaj(place.run_args(&pipeline, &["--until-caught-up"]))
            .stdin(std::fs::File::open(input).unwrap())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        let kept = place.newest_checkpoint();
        assert!(
            kept.contains(&format!("\"rejects_from\":{counted},")),
            "{kept}"
        );
        counted += run + 1;
        assert!(kept.contains(&format!("\"rejected\":{counted},")), "{kept}");
    }
}

#[test]
fn what_cannot_be_used_is_rejected_with_position_and_reason_and_the_rest_goes_on() {
    let place = Workplace::new();
    let deep = format!(
        r#"{{"nat":"DE","email":"d@example.com","x":{}1{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let long = format!(
        r#"{{"nat":"DE","email":"l@example.com","x":"{}"}}"#,
        "a".repeat(10_000_000)
    );
    let mut input: Vec<u8> = Vec::new();
    for line in [
        br#"{"nat":"DE","email":"good@example.com","dob":{"age":44}}"#.as_slice(),
        b"not json at all",
        br#"{"nat":"DE","email":"cut@exam"#,
        br#"{"nat":7,"email":"type@example.com"}"#,
        br#"{"nat":"DE","email":"float@example.com","dob":{"age":44.0}}"#,
        br#"{"nat":"DE","email":"big@example.com","dob":{"age":99999999999999999999}}"#,
        br#"{"nat":"DE"}"#,
        b"[1,2,3]",
        b"{\"nat\":\"D\xff\",\"email\":\"utf@example.com\"}",
        deep.as_bytes(),
        long.as_bytes(),
        b"",
        br#"{"nat":"FR","email":"last@example.com"}"#,
    ] {
        input.extend_from_slice(line);
        input.push(b'\n');
    }
    place.write("input.ndjson", &input);
    let pipeline = place.pipeline("[source.file]\npath = \"input.ndjson\"");
    let ledger = place.run_to_end(&pipeline, &["--set", "pipeline.max_record=5MB"]);
    assert_balanced(&ledger);
    assert_eq!(
        (&ledger["source"]["in"], &ledger["source"]["published"]),
        (&12.into(), &2.into())
    );

    let data = place.data().display().to_string();
    let listed = output([
        "rejects",
        "list",
        &pipeline.display().to_string(),
        "--json",
        "--data-dir",
        &data,
    ]);
    let text = crate::harness::stdout(&listed);
    let reasons: Vec<(u64, String)> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|r| {
            (
                r["at"]["source"]["position"].as_u64().unwrap(),
                r["reason"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected = [
        (2, "not_json"),
        (3, "not_json"),
        (4, "wrong_type"),
        (5, "wrong_type"),
        (6, "out_of_range"),
        (7, "no_subject"),
        (8, "not_object"),
        (9, "not_utf8"),
        (10, "too_deep"),
        (11, "too_long"),
    ];
    assert_eq!(reasons, expected.map(|(p, r)| (p, r.to_owned())));
    assert!(!text.contains("example.com"), "a reject carries a value");
}

#[test]
fn an_empty_file_is_a_whole_run() {
    let place = Workplace::new();
    place.write("empty.ndjson", b"");
    let pipeline = place.pipeline("[source.file]\npath = \"empty.ndjson\"");
    let ledger = place.run_to_end(&pipeline, &[]);
    assert_balanced(&ledger);
    assert_eq!(ledger["source"]["in"], 0);
}

#[test]
fn the_demo_shows_its_charts_and_goes_on_where_it_was() {
    let place = Workplace::new();
    let data = place.data().display().to_string();
    let args: Vec<String> = ["demo", "--rate", "400", "--port", "0", "--data-dir", &data]
        .map(str::to_owned)
        .into();
    let demo = Running::start(&args);
    let views = demo.json("/api/v1/views");
    assert_eq!(views.as_array().unwrap().len(), 4);
    demo.wait_for("/api/v1/views/users_by_nationality", |v| {
        v["rows"].as_array().unwrap().len() > 5
    });
    demo.wait_for("/api/v1/views/average_age", |v| {
        !v["rows"].as_array().unwrap().is_empty()
    });
    let domains = demo.wait_for("/api/v1/views/email_domains", |v| {
        v["rows"].as_array().unwrap().len() > 2
    });
    assert!(domains["version"].is_i64());
    assert_eq!(
        demo.get("/api/v1/views/users").status,
        403,
        "a row view was published"
    );
    assert_eq!(demo.get("/api/v1/views/nothing").status, 404);
    assert_eq!(demo.get("/readyz").status, 200);
    assert_eq!(demo.get("/healthz").status, 200);
    assert!(demo.get("/metrics").body.contains("falaj_"));
    let before = demo.wait_for("/api/v1/status", |s| {
        s["ledger"]["source"]["in"].as_u64() > Some(500)
    });
    assert_balanced(&before["ledger"]);
    let (code, said) = demo.terminate();
    assert_eq!(code, Some(0), "{said:?}");

    let demo = Running::start(&args);
    let after = demo.wait_for("/api/v1/status", |s| {
        s["ledger"]["source"]["in"].as_u64() > Some(0)
    });
    assert!(
        after["ledger"]["source"]["in"].as_u64() >= before["ledger"]["source"]["in"].as_u64(),
        "the demo started again from nothing"
    );
    let (code, said) = demo.terminate();
    assert_eq!(code, Some(0), "{said:?}");
}

#[test]
fn a_source_that_is_down_is_retried_and_said() {
    let place = Workplace::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let pipeline = place.pipeline(&format!(
        "[source.http]\nurl = \"http://{free}/api/\"\nrecords = \"results\"\nevery = \"1s\""
    ));
    let running = Running::start(&place.run_args(&pipeline, &[]));
    let status = running.wait_for("/api/v1/status", |s| s["source"]["state"] == "failing");
    assert!(
        status["source"]["detail"]
            .as_str()
            .is_some_and(|d| !d.is_empty()),
        "{status}"
    );
    let ready = running.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("source"), "{}", ready.body);
    assert!(!ready.body.contains("\"since\":null"), "{}", ready.body);
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
}

/// 300 people of two countries and three ages.
fn people() -> String {
    let line = |i: usize| {
        format!(
            r#"{{"nat":"{}","dob":{{"age":{}}},"email":"p{i}@example.com"}}"#,
            ["DE", "FR"][i % 2],
            [20, 30, 40][i % 3]
        )
    };
    (0..300).map(line).collect::<Vec<_>>().join("\n")
}

fn sql(place: &Workplace, query: &str) -> Vec<(Option<String>, i64)> {
    let db = rusqlite::Connection::open(place.sqlite()).unwrap();
    let mut statement = db.prepare(query).unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_changed_view_refuses_to_resume_until_it_is_rebuilt_from_the_topic() {
    let place = Workplace::new();
    place.write("people.ndjson", people().as_bytes());
    let pipeline = place.pipeline("[source.file]\npath = \"people.ndjson\"");
    let before = place.run_to_end(&pipeline, &[]);
    let changed = [
        "--set",
        "views.users_by_nationality.sql=SELECT nat, count(*) AS users FROM records WHERE age > 25 GROUP BY nat",
    ];

    let refused = output(place.run_args(&pipeline, &[changed[0], changed[1], "--until-caught-up"]));
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(
        said.contains("users_by_nationality") && said.contains("--rebuild"),
        "{said}"
    );
    let query = "SELECT nat, users FROM users_by_nationality ORDER BY nat";
    let row = |nat: &str, users| (Some(nat.to_owned()), users);
    assert_eq!(sql(&place, query), [row("DE", 150), row("FR", 150)]);

    let args = [changed[0], changed[1], "--rebuild", "users_by_nationality"];
    let after = place.run_to_end(&pipeline, &args);
    assert_balanced(&after);
    assert_eq!(sql(&place, query), [row("DE", 100), row("FR", 100)]);
    assert_eq!(after["views"]["users_by_nationality"]["filtered"], 100);
    assert_eq!(
        after["views"]["email_domains"],
        before["views"]["email_domains"]
    );
    let again = place.run_to_end(&pipeline, &changed);
    assert_eq!(again, after);
}

#[test]
fn a_changed_policy_refuses_to_resume_and_a_rebuild_reads_what_is_still_declared_alike() {
    let place = Workplace::new();
    place.write("people.ndjson", people().as_bytes());
    let pipeline = place.pipeline("[source.file]\npath = \"people.ndjson\"");
    place.run_to_end(&pipeline, &[]);
    let changed = ["--set", "fields.age.treat=clamp(0,35)"];
    let refused = output(place.run_args(&pipeline, &[changed[0], changed[1], "--until-caught-up"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("--rebuild"),
        "{}",
        stderr(&refused)
    );
    let after = place.run_to_end(&pipeline, &[changed[0], changed[1], "--rebuild", "*"]);
    assert_balanced(&after);
    assert_eq!(
        sql(&place, "SELECT nat, users FROM users_by_nationality").len(),
        2
    );
    // The age was cleared under another treatment: it is not read as if it had been this one.
    let ages = sql(&place, "SELECT NULL, count(average_age) FROM average_age");
    assert_eq!(ages, [(None, 0)]);
}

#[test]
fn a_sink_whose_file_is_gone_gets_all_rows_again() {
    let place = Workplace::new();
    place.write("people.ndjson", people().as_bytes());
    let pipeline = place.pipeline("[source.file]\npath = \"people.ndjson\"");
    let before = place.run_to_end(&pipeline, &[]);
    let queries = [
        "SELECT nat, users FROM users_by_nationality ORDER BY nat",
        "SELECT minute, users FROM average_age ORDER BY minute",
        "SELECT pid, age_band FROM (SELECT pid, length(age_band) AS age_band FROM users) ORDER BY pid",
    ];
    let rows = queries.map(|query| sql(&place, query));
    assert_eq!(rows[2].len(), 300);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", place.sqlite().display()));
    }
    assert_eq!(place.run_to_end(&pipeline, &[]), before);
    assert_eq!(queries.map(|query| sql(&place, query)), rows);
}

#[test]
fn a_second_falaj_in_the_same_data_directory_is_refused() {
    let place = Workplace::new();
    let data = place.data().display().to_string();
    let args: Vec<String> = ["demo", "--rate", "10", "--port", "0", "--data-dir", &data]
        .map(str::to_owned)
        .into();
    let demo = Running::start(&args);
    let second = output(&args);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        stderr(&second).contains("another falaj"),
        "{}",
        stderr(&second)
    );
    assert_eq!(demo.get("/healthz").status, 200);
}
