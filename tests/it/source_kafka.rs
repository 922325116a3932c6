//! `[source.kafka]` on the embedded log, with the real binary: raw records that others wrote come
//! out cleared on the pipeline's own topic, each exactly once, whatever happens in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use falaj_log::{Batches, Log, LogOptions, Settings};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use serde_json::{Value, json};

use crate::harness::{Dice, Running, Workplace, assert_balanced, output, repository, stderr};

/// A raw topic in the log of a pipeline that does not run.
pub struct RawTopic {
    folder: PathBuf,
}

impl RawTopic {
    pub fn of(place: &Workplace) -> Self {
        let folder = place.data().join("topic");
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    pub fn open(&self) -> Log {
        Log::open(&self.folder, LogOptions::default()).unwrap()
    }

    /// Makes it, in place of one that is there.
    pub fn make(&self, partitions: i32, settings: Settings) {
        let log = self.open();
        if log.topic("messages").is_some() {
            log.delete("messages").unwrap();
        }
        log.create("messages", partitions, settings).unwrap();
        log.close();
    }

    /// Appends values, as a producer that compresses sends them: in batches, with keys.
    pub fn write(&self, partition: i32, values: &[Option<Bytes>]) {
        let log = self.open();
        let topic = log.topic("messages").unwrap();
        for some in values.chunks(200) {
            let batch: Vec<Record> = some.iter().cloned().zip(0..).map(record).collect();
            let mut bytes = BytesMut::new();
            let options = RecordEncodeOptions {
                version: 2,
                compression: Compression::Lz4,
            };
            RecordBatchEncoder::encode(&mut bytes, &batch, &options).unwrap();
            let batches = Batches::checked(bytes).unwrap();
            topic.partition(partition).unwrap().append(batches).unwrap();
        }
        log.close();
    }
}

fn record((value, offset): (Option<Bytes>, i32)) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: offset.into(),
        sequence: offset - 1,
        timestamp: 1_767_225_600_000,
        key: Some(Bytes::from_static(b"key-that-is-never-read")),
        value,
        headers: indexmap::IndexMap::default(),
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "as a message has it, whose value may be missing"
)]
pub fn some(value: &Value) -> Option<Bytes> {
    Some(Bytes::from(serde_json::to_vec(value).unwrap()))
}

/// A pipeline whose records can be told apart; `subject` is more of its `[privacy]`.
fn numbered(place: &Workplace, subject: &str) -> PathBuf {
    let text = format!(
        r#"
[pipeline]
name = "numbered"
checkpoint = "100ms"
[source.kafka]
topic = "messages"
[topic]
name = "messages.cleared"
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

/// How often each `n` stands on the pipeline's own topic.
fn counted(place: &Workplace, pipeline: &Path) -> BTreeMap<i64, u32> {
    let tap = std::fs::read_to_string(place.tap(pipeline)).unwrap();
    let mut counted = BTreeMap::new();
    for line in tap.lines() {
        let message: Value = serde_json::from_str(line).unwrap();
        let n = message["value"]["n"].as_i64().unwrap();
        *counted.entry(n).or_insert(0) += 1;
    }
    counted
}

pub fn caught_up(running: &Running, records: u64) -> Value {
    let status = running.wait_for("/api/v1/status", |status| {
        let (source, topic) = (&status["ledger"]["source"], &status["ledger"]["topic"]);
        source["in"].as_u64() >= Some(records) && topic["read"] == source["published"]
    });
    assert_eq!(status["ledger"]["source"]["in"], records);
    assert_balanced(&status["ledger"]);
    status
}

pub fn ended_well(running: Running) {
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
}

#[test]
fn what_a_python_producer_writes_comes_out_cleared_and_the_line_goes_on_over_what_is_no_record() {
    let place = Workplace::new();
    let raw = RawTopic::of(&place);
    raw.make(1, Settings::default());
    let mut people = Vec::new();
    let domains: falaj_randomuser::Domains = "example.com=2,example.org=1".parse().unwrap();
    falaj_randomuser::write_ndjson(&mut people, 300, "python", &domains).unwrap();
    let people: Vec<Value> = people
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let mut values: Vec<Option<Bytes>> = people.iter().map(some).collect();
    // A tombstone, nothing, bytes, a truncated record, one that lacks what is declared.
    values.insert(10, None);
    values.insert(20, Some(Bytes::new()));
    values.insert(30, Some(Bytes::from_static(b"\xff\x00\x17")));
    values.insert(40, Some(Bytes::from_static(b"{\"nat\":\"DE\",")));
    values.push(some(
        &json!({"gender": "female", "undeclared": {"email": "x@example.net"}}),
    ));
    raw.write(0, &values);

    let folder = repository().join("examples/python-producer");
    let pipeline = place.write(
        "example.toml",
        &std::fs::read(folder.join("falaj.toml")).unwrap(),
    );
    let running =
        Running::start(&place.run_args(&pipeline, &["--set", "pipeline.checkpoint=100ms"]));
    let status = caught_up(&running, 305);
    assert_eq!(status["ledger"]["source"]["published"], 301);
    assert_eq!(
        status["rejects"],
        json!({"not JSON": 3, "not valid UTF-8": 1})
    );
    assert_eq!(
        (&status["source"]["kind"], &status["source"]["lag"]),
        (&json!("kafka"), &json!(0))
    );
    let shown = running.wait_for("/api/v1/views/users_by_nationality", |view| {
        let users = view["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["users"].as_u64().unwrap());
        users.sum::<u64>() == 301
    });
    let nobody = shown["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["nat"].is_null());
    assert_eq!(nobody.unwrap()["users"], 1, "what is missing is null");
    ended_well(running);

    let tap = std::fs::read_to_string(place.tap(&pipeline)).unwrap();
    let cleared: Vec<Value> = tap
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let find = |wanted: usize| {
        let end = format!(".0@{wanted}");
        let mut found = cleared
            .iter()
            .filter(|m| m["src"].as_str().unwrap().ends_with(&end));
        let one = found
            .next()
            .unwrap_or_else(|| panic!("position {wanted} is missing"));
        assert!(
            found.next().is_none(),
            "position {wanted} stands there twice"
        );
        one["value"].clone()
    };
    for (offset, value) in values.iter().enumerate() {
        let Some(Ok(person)) = value.as_ref().map(|v| serde_json::from_slice::<Value>(v)) else {
            continue;
        };
        let domain = person["email"]
            .as_str()
            .and_then(|email| email.rsplit('@').next());
        let want = json!({
            "nat": person["nat"], "gender": person["gender"], "age": person["dob"]["age"],
            "email_domain": domain, "pid": null,
        });
        assert_eq!(find(offset + 1), want, "offset {offset}");
    }
    assert_eq!(cleared.len(), 301);
    let raw_left = std::fs::read_dir(place.data().join("topic/messages/0"))
        .unwrap()
        .count();
    assert!(raw_left > 0, "the raw topic is only read");
}

#[test]
fn every_raw_record_is_published_exactly_once_over_kills() {
    const ROUNDS: i64 = 12;
    const EACH: i64 = 6_000;
    for subject in ["", "[privacy.subject]\nfrom = \"n\"\n"] {
        let place = Workplace::new();
        let pipeline = numbered(&place, subject);
        let raw = RawTopic::of(&place);
        raw.make(3, Settings::default());
        let args = place.run_args(&pipeline, &[]);
        let mut dice = Dice::new();
        let mut rejects = 0;
        for round in 0..ROUNDS {
            // Partitions get different shares, and each round something that is no record.
            for partition in 0..3 {
                let numbers = (round * EACH..(round + 1) * EACH)
                    .filter(|n| n % 7 % 3 == i64::from(partition));
                let mut values: Vec<_> = numbers
                    .map(|n| some(&json!({"n": n, "more": "x".repeat(50)})))
                    .collect();
                values.insert(values.len() / 2, None);
                rejects += 1;
                raw.write(partition, &values);
            }
            let running = Running::start(&args);
            std::thread::sleep(Duration::from_millis(dice.below(250)));
            running.kill();
        }
        let running = Running::start(&args);
        let all = ROUNDS * EACH;
        let status = caught_up(&running, all.unsigned_abs() + rejects);
        assert_eq!(status["ledger"]["source"]["rejected"], rejects);
        assert_eq!(status["ledger"]["topic"]["duplicate"], 0);
        ended_well(running);

        let counted = counted(&place, &pipeline);
        let twice: Vec<_> = counted
            .iter()
            .filter(|(_, count)| **count > 1)
            .take(5)
            .collect();
        assert!(twice.is_empty(), "published more than once: {twice:?}");
        let missing: Vec<_> = (0..all)
            .filter(|n| !counted.contains_key(n))
            .take(5)
            .collect();
        assert!(missing.is_empty(), "not published: {missing:?}");
        let db = rusqlite::Connection::open(place.sqlite()).unwrap();
        let view: (i64, i64) = db
            .query_row("SELECT records, total FROM total", [], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })
            .unwrap();
        assert_eq!(view, (all, all * (all - 1) / 2));
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
            rejects
        );
    }
}

#[test]
fn a_topic_that_is_made_anew_is_another_source_and_a_missing_one_is_made() {
    let place = Workplace::new();
    let pipeline = numbered(&place, "");
    let args = place.run_args(&pipeline, &[]);
    // Nobody made it: producers find it as soon as falaj runs.
    let running = Running::start(&args);
    running.wait_for("/api/v1/status", |s| s["source"]["state"] == "ok");
    ended_well(running);
    let raw = RawTopic::of(&place);
    assert_eq!(raw.open().topic("messages").unwrap().partitions().len(), 3);
    for (from, total) in [(0, 50), (50, 100)] {
        raw.make(1, Settings::default());
        let values: Vec<_> = (from..from + 50).map(|n| some(&json!({"n": n}))).collect();
        raw.write(0, &values);
        let running = Running::start(&args);
        caught_up(&running, total);
        ended_well(running);
    }
    let counted = counted(&place, &pipeline);
    assert!((0..100).all(|n| counted[&n] == 1), "{counted:?}");
}

#[test]
fn retention_that_overtakes_the_source_is_an_error_that_says_so() {
    let place = Workplace::new();
    let pipeline = numbered(&place, "");
    let args = place.run_args(&pipeline, &[]);
    let raw = RawTopic::of(&place);
    let settings = Settings {
        retention_ms: Some(3_600_000),
        segment_bytes: 2000,
        ..Settings::default()
    };
    // Long enough that falaj itself drops none of them.
    raw.make(1, settings);
    let values: Vec<_> = (0..10).map(|n| some(&json!({"n": n}))).collect();
    raw.write(0, &values);
    let running = Running::start(&args);
    caught_up(&running, 10);
    ended_well(running);
    for from in 0..20 {
        let values: Vec<_> = (0..200)
            .map(|n| some(&json!({"n": n + 200 * from})))
            .collect();
        raw.write(0, &values);
    }
    let log = raw.open();
    log.retain(i64::MAX / 2);
    let start = log
        .topic("messages")
        .unwrap()
        .partition(0)
        .unwrap()
        .offsets()
        .start;
    assert!(start > 10, "nothing was taken");
    log.close();
    let failed = output(&args);
    assert_eq!(failed.status.code(), Some(1));
    let said = stderr(&failed);
    let what = format!("partition 0 was read up to offset 10 and starts at {start} now");
    assert!(said.contains(&what) && said.contains("hint: "), "{said}");
}

#[test]
fn what_cannot_work_is_told_with_its_place() {
    let place = Workplace::new();
    let pipeline = numbered(&place, "");
    let path = pipeline.display().to_string();
    for (set, part) in [
        (
            "source.kafka.topic=messages.cleared",
            "the pipeline's own topic",
        ),
        (
            "source.kafka.topic=messages.cleared.rejects",
            "the pipeline's own topic",
        ),
        ("source.kafka.topic=a b", "`a b` is not a topic name"),
        ("source.kafka.topik=x", "unknown key `topik`"),
    ] {
        let checked = output(["check", &path, "--set", set]);
        let said = stderr(&checked);
        assert_eq!(checked.status.code(), Some(2), "{set}: {said}");
        assert!(said.contains(part), "{set}: {said}");
    }
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let same = text.replace("topic = \"messages\"", "topic = \"messages.cleared\"");
    let same = place
        .write("same.toml", same.as_bytes())
        .display()
        .to_string();
    let said = stderr(&output(["check", &same]));
    let line = text
        .lines()
        .position(|line| line.starts_with("topic ="))
        .unwrap()
        + 1;
    assert!(said.contains(&format!("same.toml:{line}:")), "{said}");
    let endless = output(place.run_args(&pipeline, &["--until-caught-up"]));
    assert_eq!(endless.status.code(), Some(2));
    assert!(stderr(&endless).contains("[source.kafka]"));
}
