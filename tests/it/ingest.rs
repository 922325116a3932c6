//! `[source.ingest]` with the real binary: requests are answered when their records are durable, and
//! one with a key counts once, whatever is killed in between.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Dice, PATIENCE, Running, Workplace, assert_balanced, falaj, output, post, stderr,
};

/// A pipeline whose records can be told apart; `source` is more of `[source.ingest]`.
fn numbered(place: &Workplace, source: &str, subject: &str) -> PathBuf {
    let text = format!(
        r#"
[pipeline]
name = "numbered"
checkpoint = "100ms"
[source.ingest]
{source}
[topic]
partitions = 3
[privacy]
k = 1
delta_k = 1
{subject}
[purpose.test]
legal_basis = "contract"
retention = "1d"
[fields]
n = {{ from = "n", type = "int", class = "non_personal", purpose = "test" }}
[views.total]
sql = "SELECT count(*) AS records, sum(n) AS total FROM records"
[sinks.local]
type = "sqlite"
views = ["*"]
"#
    );
    place.write("numbered.toml", text.as_bytes())
}

const LINES: (&str, &str) = ("Content-Type", "application/x-ndjson");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn posted(running: &Running, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
    let reply = post(running.address, headers, body).expect("an answer");
    let told = serde_json::from_str(&reply.body).unwrap_or_else(|e| panic!("{e}: {}", reply.body));
    (reply.status, told)
}

/// How often each `n` stands on the topic.
fn counted(place: &Workplace, pipeline: &std::path::Path) -> BTreeMap<i64, u32> {
    let tap = std::fs::read_to_string(place.tap(pipeline)).unwrap();
    let mut counted = BTreeMap::new();
    for line in tap.lines() {
        let message: Value = serde_json::from_str(line).unwrap();
        *counted
            .entry(message["value"]["n"].as_i64().unwrap())
            .or_insert(0) += 1;
    }
    counted
}

#[test]
fn requests_are_answered_when_their_records_are_on_the_topic() {
    let place = Workplace::new();
    let pipeline = numbered(&place, "max_body = \"1kB\"", "");
    let args = place.run_args(&pipeline, &[]);
    let running = Running::start(&args);
    let lines = b"{\"n\":1}\n\nnonsense\n{\"n\":\"text\"}\n{\"n\":2}\n";
    let answer = json!({"in": 4, "published": 2, "withheld": 0, "rejected": [
        {"position": 3, "reason": "not_json"},
        {"position": 4, "reason": "wrong_type", "path": "n"},
    ]});
    let key = ("Idempotency-Key", "6c7b1d3e-0b1a-4f3c-9d5e-0123456789ab");
    assert_eq!(
        posted(&running, &[LINES, key], lines),
        (200, answer.clone())
    );
    assert_eq!(
        posted(&running, &[LINES, key], lines),
        (200, answer.clone())
    );
    let (code, told) = posted(&running, &[JSON], b"[{\"n\":3},{\"n\":4}]");
    assert_eq!((code, &told["published"]), (200, &json!(2)));
    for (headers, body, code) in [
        (&[JSON][..], &b"{\"n\":\xff}"[..], 400),
        (&[JSON], b"", 400),
        (&[JSON, ("Idempotency-Key", "")], b"{}", 400),
        (&[JSON], &[b' '; 1001], 413),
        (&[("Content-Type", "text/csv")], b"n\n1", 415),
    ] {
        let (status, told) = posted(&running, headers, body);
        assert_eq!(status, code, "{told}");
        assert!(told["error"].is_string(), "{told}");
    }
    let status = running.wait_for("/api/v1/status", |status| {
        status["ledger"]["topic"]["read"] == 4
    });
    assert_eq!(
        status["ledger"]["source"],
        json!({"in": 6, "published": 4, "rejected": 2, "withheld": 0, "replayed": 0})
    );
    assert_eq!(status["source"]["kind"], "ingest");
    assert_balanced(&status["ledger"]);
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
    assert!(!said.join("\n").contains("nonsense"));

    // A restart forgets no key and counts nothing again.
    let running = Running::start(&args);
    assert_eq!(posted(&running, &[LINES, key], lines), (200, answer));
    let (code, _) = posted(&running, &[JSON], b"{\"n\":5}");
    assert_eq!(code, 200);
    let status = running.wait_for("/api/v1/status", |s| s["ledger"]["topic"]["read"] == 5);
    assert_eq!(status["ledger"]["source"]["in"], 7);
    running.kill();
    assert!((1..=5).all(|n| counted(&place, &pipeline).get(&n) == Some(&1)));
}

#[test]
fn a_request_with_a_key_counts_once_over_kills() {
    const ROUNDS: u32 = 15;
    const CLIENTS: i64 = 3;
    const EACH: i64 = 40;
    for subject in ["", "[privacy.subject]\nfrom = \"n\"\n"] {
        let place = Workplace::new();
        let pipeline = numbered(&place, "", subject);
        let args = place.run_args(&pipeline, &[]);
        let address = Arc::new(Mutex::new(None::<SocketAddr>));
        let over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (address, over) = (Arc::clone(&address), Arc::clone(&over));
                let answered = Arc::clone(&answered);
                std::thread::spawn(move || {
                    let mut request = 0;
                    // Until there were enough kills, and then to the end of a request.
                    while !over.load(Ordering::Relaxed) {
                        let first = (client * 1_000_000 + request) * EACH;
                        send(&address, &format!("{client}-{request}"), first, EACH);
                        request += 1;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    request
                })
            })
            .collect();
        let mut dice = Dice::new();
        for round in 0..ROUNDS {
            let running = Running::start(&args);
            let before = answered.load(Ordering::Relaxed);
            *address.lock().unwrap() = Some(running.address);
            // Every other kill hits a falaj that has answered, however slow the machine is.
            let until = Instant::now() + PATIENCE;
            while round % 2 == 1 && answered.load(Ordering::Relaxed) < before + 3 {
                assert!(Instant::now() < until, "too little is answered");
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(dice.below(200)));
            *address.lock().unwrap() = None;
            running.kill();
        }
        let running = Running::start(&args);
        *address.lock().unwrap() = Some(running.address);
        over.store(true, Ordering::Relaxed);
        let requests: Vec<i64> = clients.into_iter().map(|c| c.join().unwrap()).collect();
        let sent: i64 = requests.iter().sum();
        assert!(
            sent > i64::from(ROUNDS),
            "too little was sent: {requests:?}"
        );
        eprintln!("{sent} requests over {ROUNDS} kills");

        let all = (sent * EACH).unsigned_abs();
        let status = running.wait_for("/api/v1/status", |status| {
            let (source, topic) = (&status["ledger"]["source"], &status["ledger"]["topic"]);
            source["published"].as_u64() >= Some(all) && topic["read"] == source["published"]
        });
        let rejected = sent.unsigned_abs();
        assert_eq!(
            status["ledger"]["source"],
            json!({"in": all + rejected, "published": all, "rejected": rejected, "withheld": 0, "replayed": 0})
        );
        assert_eq!(status["ledger"]["topic"]["duplicate"], 0);
        assert_balanced(&status["ledger"]);
        let (code, said) = running.terminate();
        assert_eq!(code, Some(0), "{said:?}");

        let counted = counted(&place, &pipeline);
        let twice: Vec<_> = counted
            .iter()
            .filter(|(_, count)| **count > 1)
            .take(5)
            .collect();
        assert!(twice.is_empty(), "published more than once: {twice:?}");
        for (client, requests) in (0..).zip(requests) {
            let first = client * 1_000_000 * EACH;
            let missing = (first..first + requests * EACH)
                .filter(|n| !counted.contains_key(n))
                .count();
            assert_eq!(missing, 0, "of client {client}");
        }
        assert_eq!(counted.len() as u64, all);
        let data = place.data().display().to_string();
        let listed = output([
            "rejects",
            "list",
            &pipeline.display().to_string(),
            "--json",
            "--data-dir",
            &data,
        ]);
        assert_eq!(
            crate::harness::stdout(&listed).lines().count() as u64,
            rejected
        );
    }
}

/// Sends one request until it is answered: `count` records, and one that is none in the middle.
fn send(address: &Mutex<Option<SocketAddr>>, key: &str, first: i64, count: i64) {
    let deadline = Instant::now() + PATIENCE;
    let mut lines: Vec<String> = (first..first + count)
        .map(|n| format!("{{\"n\":{n}}}"))
        .collect();
    lines.insert(lines.len() / 2, "no record".to_owned());
    let body = lines.join("\n");
    loop {
        assert!(Instant::now() < deadline, "{key} is not answered");
        let to = *address.lock().unwrap();
        let reply = to.and_then(|to| post(to, &[LINES, ("Idempotency-Key", key)], body.as_bytes()));
        match reply {
            Some(reply) if reply.status == 200 => {
                let told: Value = serde_json::from_str(&reply.body).unwrap();
                let want = json!({"in": count + 1, "published": count, "withheld": 0, "rejected": [
                    {"position": count / 2 + 1, "reason": "not_json"},
                ]});
                assert_eq!(told, want, "{key}");
                return;
            }
            Some(reply) => assert!([429, 503].contains(&reply.status), "{key}: {}", reply.body),
            None => {}
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn other_machines_need_the_token_and_other_sources_take_no_requests() {
    let place = Workplace::new();
    let open = numbered(&place, "", "");
    let mut args = place.run_args(&open, &["--insecure"]);
    let at = args.iter().position(|arg| arg == "127.0.0.1:0").unwrap();
    "0.0.0.0:0".clone_into(&mut args[at]);
    let refused = output(&args);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("there is no token"),
        "{}",
        stderr(&refused)
    );

    place.write("token", b"only-for-this-test\n");
    let closed = numbered(&place, "token = { file = \"token\" }", "");
    let running = Running::start(&place.run_args(&closed, &[]));
    let token = ("Authorization", "Bearer only-for-this-test");
    assert_eq!(posted(&running, &[JSON, token], b"{\"n\":1}").0, 200);
    assert_eq!(posted(&running, &[JSON], b"{\"n\":1}").0, 401);
    let wrong = ("Authorization", "Bearer only-for-that-test");
    assert_eq!(posted(&running, &[JSON, wrong], b"{\"n\":1}").0, 401);
    running.kill();

    let endless = falaj(place.run_args(&closed, &["--until-caught-up"]))
        .output()
        .unwrap();
    assert_eq!(endless.status.code(), Some(2));
    place.write(
        "input.ndjson",
        b"{\"nat\":\"DE\",\"email\":\"a@example.com\"}\n",
    );
    let file = Workplace::new();
    file.write(
        "input.ndjson",
        b"{\"nat\":\"DE\",\"email\":\"a@example.com\"}\n",
    );
    let pipeline = file.pipeline("[source.file]\npath = \"input.ndjson\"");
    let running = Running::start(&file.run_args(&pipeline, &[]));
    assert_eq!(posted(&running, &[JSON], b"{}").0, 404);
}
