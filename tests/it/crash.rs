//! kill -9 at random moments, over and over: afterwards every view is what all input gives at
//! once, nothing is doubled, and the ledger balances.

use std::time::{Duration, Instant};

use crate::harness::{Dice, Running, Workplace, assert_balanced, falaj};

/// Kills in a row.
const ROUNDS: u32 = 20;

#[test]
fn a_file_survives_twenty_kills() {
    const RECORDS: u64 = 300_000;
    let place = Workplace::new();
    let records = place.path().join("records.ndjson");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&records).unwrap());
    let domains: falaj_randomuser::Domains =
        "example.com=5,example.org=3,example.net=1".parse().unwrap();
    falaj_randomuser::write_ndjson(&mut out, RECORDS, "crash", &domains).unwrap();
    std::io::Write::flush(&mut out).unwrap();
    drop(out);
    let pipeline = place.pipeline("[source.file]\npath = \"records.ndjson\"");
    let settings = ["--set", "pipeline.checkpoint=100ms"];
    let mut dice = Dice::new();
    for _ in 0..ROUNDS {
        let args = [settings[0], settings[1], "--until-caught-up"];
        let mut child = falaj(place.run_args(&pipeline, &args))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(30 + dice.below(500)));
        let _ = child.kill();
        child.wait().unwrap();
    }
    let ledger = place.run_to_end(&pipeline, &settings);
    assert_balanced(&ledger);
    assert_eq!(ledger["source"]["in"], RECORDS);
    assert_eq!(ledger["topic"]["read"], ledger["source"]["published"]);
    place.compare(&records, &place.tap(&pipeline));
}

#[test]
fn an_api_survives_twenty_kills() {
    let place = Workplace::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime
        .block_on(falaj_randomuser::serve(
            falaj_randomuser::ServerConfig::default(),
        ))
        .unwrap();
    let pipeline = place.pipeline(&format!(
        "[source.http]\nurl = \"http://{}/api/\"\nquery = {{ results = 500 }}\nrecords = \"results\"\nevery = \"20ms\"",
        server.addr()
    ));
    let args = place.run_args(&pipeline, &["--set", "pipeline.checkpoint=100ms"]);
    let mut dice = Dice::new();
    for _ in 0..ROUNDS {
        let running = Running::start(&args);
        std::thread::sleep(Duration::from_millis(dice.below(400)));
        running.kill();
    }
    let running = Running::start(&args);
    let before = Instant::now();
    let status = running.wait_for("/api/v1/status", |s| {
        s["ledger"]["topic"]["read"].as_u64() > Some(0) && before.elapsed() > Duration::from_secs(1)
    });
    assert_balanced(&status["ledger"]);
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");

    // The topic is now the record of what came in: a file of its values must give the same views.
    let tap = place.tap(&pipeline);
    let topic: Vec<serde_json::Value> = std::fs::read_to_string(&tap)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let positions: std::collections::BTreeSet<String> = topic
        .iter()
        .map(|m| m["src"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        positions.len(),
        topic.len(),
        "a record stands on the topic twice"
    );
    let total: i64 = rows(&place, "SELECT sum(users) FROM users_by_nationality");
    assert_eq!(usize::try_from(total).unwrap(), topic.len());
    let people: std::collections::BTreeSet<&str> = topic
        .iter()
        .map(|m| m["value"]["pid"].as_str().unwrap())
        .collect();
    let total: i64 = rows(&place, "SELECT count(*) FROM users");
    assert_eq!(usize::try_from(total).unwrap(), people.len());
    runtime.block_on(server.shutdown());
}

fn rows(place: &Workplace, sql: &str) -> i64 {
    let db = rusqlite::Connection::open(place.sqlite()).unwrap();
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}
