//! `falaj rejects replay`: rejected records are read again after the file was mended, each gets onto
//! the topic once, and the views are those of the mended file over all input.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use falaj_log::Settings;
use serde_json::{Value, json};

use crate::harness::{Dice, Running, Workplace, assert_balanced, falaj, output, stderr, stdout};
use crate::source_kafka::{RawTopic, caught_up, ended_well, some};

/// Mends the pipeline of [`measured`]: a size may be a fraction.
pub const MENDED: [&str; 2] = ["--set", "fields.size.type=float"];
/// A file whose records are lines of [`line`].
pub const FILE: &str = "[source.file]\npath = \"records.ndjson\"";

/// A pipeline over `source` that takes whole sizes only.
pub fn measured(place: &Workplace, source: &str) -> PathBuf {
    let text = format!(
        r#"
[pipeline]
name = "measured"
checkpoint = "100ms"
{source}
[topic]
name = "messages.cleared"
partitions = 3
[privacy]
k = 1
delta_k = 1
[privacy.subject]
from = "who"
[purpose.test]
legal_basis = "contract"
retention = "1d"
[fields]
n = {{ from = "n", type = "int", class = "non_personal", purpose = "test" }}
town = {{ from = "town", type = "string", class = "non_personal", purpose = "test" }}
size = {{ from = "size", type = "int", class = "non_personal", purpose = "test" }}
[views.total]
sql = "SELECT count(*) AS records, sum(n) AS total FROM records"
[views.towns]
sql = "SELECT town, count(*) AS records, min(n) AS lowest, max(n) AS highest FROM records GROUP BY town"
[views.everybody]
sql = "SELECT pid, n, town FROM records"
[sinks.local]
type = "sqlite"
views = ["*"]
"#
    );
    place.write("measured.toml", text.as_bytes())
}

/// Record `n`, of a person of its own.
pub fn record(n: u64, size: &str) -> String {
    format!(
        r#"{{"n":{n},"who":"person {n}","town":"town {}","size":{size}}}"#,
        n % 7
    )
}

/// What the line of record `n` holds: every tenth size is a fraction, every fiftieth line is none.
pub fn line(n: u64) -> String {
    match n {
        n if n.is_multiple_of(50) => "no record".to_owned(),
        n if n.is_multiple_of(10) => record(n, "1.5"),
        n => record(n, "2"),
    }
}

pub fn lines(numbers: std::ops::RangeInclusive<u64>, line: impl Fn(u64) -> String) -> String {
    numbers.map(|n| line(n) + "\n").collect()
}

pub fn replay_args(place: &Workplace, pipeline: &Path, args: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = ["rejects", "replay"].map(str::to_owned).into();
    all.push(pipeline.display().to_string());
    all.extend(["--data-dir".to_owned(), place.data().display().to_string()]);
    all.extend(args.iter().map(|a| (*a).to_owned()));
    all
}

pub fn try_replay(place: &Workplace, pipeline: &Path, args: &[&str]) -> Output {
    output(replay_args(place, pipeline, args))
}

/// The counts of a replay that works.
pub fn replay(place: &Workplace, pipeline: &Path, args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.push("--json");
    let done = try_replay(place, pipeline, &args);
    assert!(done.status.success(), "{}", stderr(&done));
    serde_json::from_str(stdout(&done).trim_end()).expect("counts")
}

/// `counts` without those that are nothing.
pub fn counts(counts: &Value) -> Value {
    let all = counts.as_object().unwrap().iter();
    let some = all.filter(|(_, count)| **count != 0);
    some.map(|(name, count)| (name.clone(), count.clone()))
        .collect()
}

/// The rows of all views, without pids, which are of a data directory.
pub fn rows(place: &Workplace) -> Vec<String> {
    let db = rusqlite::Connection::open(place.sqlite()).unwrap();
    let mut rows = Vec::new();
    for query in [
        "SELECT 'total', records, total, '', '' FROM total",
        "SELECT 'towns', town, records, lowest, highest FROM towns",
        "SELECT 'everybody', n, town, '', '' FROM everybody",
    ] {
        let mut statement = db.prepare(query).unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            let columns = (0..5).map(|i| Ok(format!("{:?}", row.get_ref(i)?)));
            Ok(columns.collect::<rusqlite::Result<Vec<_>>>()?.join(" "))
        };
        let found = statement.query_map([], row).unwrap();
        rows.extend(found.collect::<rusqlite::Result<Vec<_>>>().unwrap());
    }
    rows.sort();
    rows
}

/// The rows that the mended pipeline gives when it reads all of `records` at once.
pub fn from_scratch(records: &str) -> Vec<String> {
    let place = Workplace::new();
    place.write("records.ndjson", records.as_bytes());
    let pipeline = measured(&place, FILE);
    place.run_to_end(&pipeline, &MENDED);
    rows(&place)
}

/// How often each `n` stands on the topic.
fn published(place: &Workplace, pipeline: &Path) -> BTreeMap<u64, u32> {
    let tap = std::fs::read_to_string(place.tap(pipeline)).unwrap();
    let mut counted = BTreeMap::new();
    for line in tap.lines() {
        let message: Value = serde_json::from_str(line).unwrap();
        *counted
            .entry(message["value"]["n"].as_u64().unwrap())
            .or_insert(0) += 1;
    }
    counted
}

#[track_caller]
pub fn each_once(place: &Workplace, pipeline: &Path, wanted: impl Iterator<Item = u64>) {
    let published = published(place, pipeline);
    let twice: Vec<_> = published.iter().filter(|(_, c)| **c > 1).take(5).collect();
    assert!(twice.is_empty(), "published more than once: {twice:?}");
    let wanted: Vec<u64> = wanted.collect();
    let missing: Vec<_> = wanted
        .iter()
        .filter(|n| !published.contains_key(n))
        .take(5)
        .collect();
    assert!(missing.is_empty(), "not published: {missing:?}");
    assert_eq!(published.len(), wanted.len(), "more is published");
}

/// Runs the mended pipeline to its end, with its views computed again.
pub fn rebuilt(place: &Workplace, pipeline: &Path) -> Value {
    let ledger = place.run_to_end(pipeline, &[MENDED[0], MENDED[1], "--rebuild", "*"]);
    assert_balanced(&ledger);
    assert_eq!(ledger["topic"]["read"], ledger["source"]["published"]);
    assert_eq!(ledger["topic"]["duplicate"], 0);
    ledger
}

pub fn source_ledger(r#in: u64, published: u64, replayed: u64) -> Value {
    json!({
        "in": r#in, "published": published, "rejected": r#in - published, "withheld": 0,
        "replayed": replayed,
    })
}

#[test]
fn a_mended_file_gets_its_rejects_published_once_and_the_ledger_says_so() {
    let place = Workplace::new();
    let records = lines(1..=1000, line);
    place.write("records.ndjson", records.as_bytes());
    let pipeline = measured(&place, FILE);
    let before = place.run_to_end(&pipeline, &[]);
    assert_eq!(before["source"], source_ledger(1000, 900, 0));

    // Nothing was mended: each is read again once, and only once.
    let first = replay(&place, &pipeline, &[]);
    assert_eq!(counts(&first), json!({"rejected_again": 100}));
    let second = replay(&place, &pipeline, &[]);
    assert_eq!(counts(&second), json!({"unchanged": 100}));
    let asked = replay(&place, &pipeline, &["--again"]);
    assert_eq!(counts(&asked), json!({"rejected_again": 100}));
    assert_eq!(place.run_to_end(&pipeline, &[]), before, "nothing moved");

    let said = try_replay(&place, &pipeline, &MENDED);
    assert!(said.status.success(), "{}", stderr(&said));
    assert_eq!(
        stdout(&said),
        "replayed 80, rejected again 20, not there any more 0, not replayable 0\n"
    );
    assert!(
        stderr(&said).contains("falaj run --rebuild '*'"),
        "{}",
        stderr(&said)
    );
    let after = replay(&place, &pipeline, &MENDED);
    assert_eq!(counts(&after), json!({"unchanged": 20}));

    let refused = output(place.run_args(&pipeline, &[MENDED[0], MENDED[1], "--until-caught-up"]));
    assert_eq!(
        refused.status.code(),
        Some(1),
        "a changed policy still refuses"
    );
    let ledger = rebuilt(&place, &pipeline);
    assert_eq!(ledger["source"], source_ledger(1000, 980, 80));
    assert_eq!(rows(&place), from_scratch(&records));
    each_once(&place, &pipeline, (1..=1000).filter(|n| n % 50 != 0));
    assert_eq!(
        place.run_to_end(&pipeline, &MENDED),
        ledger,
        "a second run adds nothing"
    );
    let after = replay(&place, &pipeline, &MENDED);
    assert_eq!(counts(&after), json!({"unchanged": 20}));

    let running = Running::start(&place.run_args(&pipeline, &MENDED));
    let status = running.wait_for("/api/v1/status", |s| s["checkpoint"].is_object());
    assert_eq!(status["ledger"]["source"], ledger["source"]);
    let metrics = running.get("/metrics").body;
    let replayed = r#"falaj_ledger_records_total{stage="source",view="",entry="replayed"} 80"#;
    assert!(metrics.contains(replayed), "{metrics}");
    let page = running.get("/").body;
    assert!(page.contains("published (<b>80</b> replayed)"), "{page}");
    let locked = try_replay(&place, &pipeline, &MENDED);
    assert_eq!(locked.status.code(), Some(1));
    let said = stderr(&locked);
    assert!(
        said.contains("another falaj is running this pipeline"),
        "{said}"
    );
    ended_well(running);
}

#[test]
fn what_was_too_long_is_taken_in_by_the_next_run_without_a_rebuild() {
    let place = Workplace::new();
    let long = |n: u64| match n {
        n if n.is_multiple_of(20) => record(n, "3").replace("person", &"x".repeat(2000)),
        n => record(n, "3"),
    };
    let records = lines(1..=500, long);
    place.write("records.ndjson", records.as_bytes());
    let pipeline = measured(&place, FILE);
    let short = ["--set", "pipeline.max_record=1kB"];
    let before = place.run_to_end(&pipeline, &short);
    assert_eq!(before["source"], source_ledger(500, 475, 0));
    let done = replay(&place, &pipeline, &[]);
    assert_eq!(counts(&done), json!({"replayed": 25}));
    let after = place.run_to_end(&pipeline, &[]);
    assert_balanced(&after);
    assert_eq!(after["source"], source_ledger(500, 500, 25));
    assert_eq!(after["topic"]["read"], 500);
    assert_eq!(rows(&place), from_scratch(&records));
    each_once(&place, &pipeline, 1..=500);
    // The gate that was is stricter, and nothing that it once rejected is asked again by itself.
    assert_eq!(place.run_to_end(&pipeline, &short), after);
    assert_eq!(counts(&replay(&place, &pipeline, &short)), json!({}));
}

#[test]
fn records_that_are_gone_are_told_and_found_again_when_they_are_back() {
    let place = Workplace::new();
    let records = lines(1..=1000, line);
    let file = place.write("records.ndjson", records.as_bytes());
    let pipeline = measured(&place, FILE);
    place.run_to_end(&pipeline, &[]);

    // Another first record is another file.
    std::fs::write(&file, lines(2..=1000, line)).unwrap();
    let gone = replay(&place, &pipeline, &MENDED);
    assert_eq!(counts(&gone), json!({"gone": 100}));
    std::fs::write(&file, lines(1..=500, line)).unwrap();
    let half = replay(&place, &pipeline, &MENDED);
    assert_eq!(
        counts(&half),
        json!({"replayed": 40, "rejected_again": 10, "gone": 50})
    );
    std::fs::write(&file, &records).unwrap();
    let rest = replay(&place, &pipeline, &MENDED);
    assert_eq!(
        counts(&rest),
        json!({"replayed": 40, "rejected_again": 10, "unchanged": 10})
    );
    std::fs::remove_file(&file).unwrap();
    let missing = try_replay(&place, &pipeline, &MENDED);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("does not exist"),
        "{}",
        stderr(&missing)
    );
    std::fs::write(&file, &records).unwrap();
    let ledger = rebuilt(&place, &pipeline);
    assert_eq!(ledger["source"], source_ledger(1000, 980, 80));
    assert_eq!(rows(&place), from_scratch(&records));
}

#[test]
fn another_file_in_between_leaves_the_rejects_of_the_first_to_be_replayed() {
    let place = Workplace::new();
    place.write("records.ndjson", lines(1..=100, line).as_bytes());
    place.write("second.ndjson", lines(101..=200, line).as_bytes());
    let pipeline = measured(&place, FILE);
    place.run_to_end(&pipeline, &[]);
    let second = ["--set", "source.file.path=second.ndjson"];
    let both = place.run_to_end(&pipeline, &second);
    assert_eq!(both["source"], source_ledger(200, 180, 0));

    let done = replay(&place, &pipeline, &MENDED);
    assert_eq!(
        counts(&done),
        json!({"replayed": 8, "rejected_again": 2, "gone": 10})
    );
    let done = replay(
        &place,
        &pipeline,
        &[MENDED[0], MENDED[1], second[0], second[1]],
    );
    assert_eq!(
        counts(&done),
        json!({"replayed": 8, "rejected_again": 2, "gone": 2})
    );
    // The first file goes on where it stood: nothing of it is counted again.
    let ledger = rebuilt(&place, &pipeline);
    assert_eq!(ledger["source"], source_ledger(200, 196, 16));
    each_once(&place, &pipeline, (1..=200).filter(|n| n % 50 != 0));
    assert_eq!(rows(&place), from_scratch(&lines(1..=200, line)));
}

#[test]
fn what_stands_on_the_topic_is_not_replayable_and_what_gives_a_record_once_is_refused() {
    let place = Workplace::new();
    let at = |n: u64, minute: u64, size: &str| {
        record(n, size).replace(
            "\"n\"",
            &format!("\"at\":\"2026-01-01T00:{minute:02}:00Z\",\"n\""),
        )
    };
    let records = [
        at(1, 0, "1"),
        at(2, 50, "1"),
        at(3, 1, "1"),
        at(4, 51, "1.5"),
    ]
    .join("\n");
    place.write("records.ndjson", records.as_bytes());
    let pipeline = measured(&place, FILE);
    let windowed = [
        "--set",
        "pipeline.event_time=at",
        "--set",
        "topic.partitions=1",
        "--set",
        "views.total.sql=SELECT window.start AS minute, count(*) AS records, sum(n) AS total FROM records GROUP BY window(event_time, '1 minute')",
    ];
    let before = place.run_to_end(&pipeline, &windowed);
    assert_eq!(before["views"]["total"]["late"], 1);
    let mended: Vec<&str> = windowed.into_iter().chain(MENDED).collect();
    let said = try_replay(&place, &pipeline, &mended);
    assert_eq!(
        stdout(&said),
        "replayed 1, rejected again 0, not there any more 0, not replayable 1\n"
    );

    for (source, hint) in [
        (
            "[source.http]\nurl = \"http://127.0.0.1:9/\"",
            "what the API gives from now on",
        ),
        ("[source.ingest]", "sent again"),
        ("[source.file]\npath = \"-\"", "keep the records in a file"),
    ] {
        let pipeline = measured(&place, source);
        let refused = try_replay(&place, &pipeline, &[]);
        let said = stderr(&refused);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(
            said.contains("cannot be read again") && said.contains(hint),
            "{said}"
        );
    }
    let pipeline = measured(&place, FILE);
    let elsewhere = place.path().join("elsewhere").display().to_string();
    let path = pipeline.display().to_string();
    let never = output(["rejects", "replay", &path, "--data-dir", &elsewhere]);
    assert_eq!(never.status.code(), Some(1));
    assert!(
        stderr(&never).contains("no checkpoint"),
        "{}",
        stderr(&never)
    );
}

/// Whoever writes into a named pipe: some lines, and no end before the test says so.
struct Writer {
    end: Sender<()>,
    writing: JoinHandle<()>,
}

impl Writer {
    fn start(fifo: &Path, text: String) -> Self {
        let (end, ended) = channel::<()>();
        let fifo = fifo.to_owned();
        let writing = std::thread::spawn(move || {
            let mut pipe = OpenOptions::new().write(true).open(fifo).unwrap();
            // Whoever reads may be killed.
            let _ = pipe.write_all(text.as_bytes());
            let _ = ended.recv();
        });
        Self { end, writing }
    }

    /// Ends the file, for whoever reads it.
    fn end(self) {
        drop(self.end);
        self.writing.join().unwrap();
    }
}

/// What is done between a replay that was killed and the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    /// A run, which counts what the replay published.
    Run,
    /// A replay under the file as it was: it rejects what the other one would have published.
    Unmended,
}

#[test]
fn a_replay_that_is_killed_in_the_middle_is_gone_on_with_and_publishes_each_once() {
    const ALL: u64 = 20_000;
    // So much the first replay is given: it publishes a batch, and is killed while it waits for the
    // rest of the second.
    const GIVEN: u64 = 10_000;
    const BATCH: u64 = 4096;
    let fraction = |n: u64| match n {
        n if n % 4 == 1 => record(n, "1"),
        n => record(n, "1.5"),
    };
    let whole = lines(1..=ALL, fraction);
    let (kept, scratch) = (ALL / 4, from_scratch(&whole));
    for between in [Between::Nothing, Between::Run, Between::Unmended] {
        let place = Workplace::new();
        let fifo = place.path().join("records.ndjson");
        let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let pipeline = measured(&place, FILE);
        let given = |text: &str, work: &dyn Fn() -> Value| {
            let writer = Writer::start(&fifo, text.to_owned());
            // The end comes with the last writer; a pipe holds less than a file.
            std::thread::scope(|scope| {
                scope.spawn(|| writer.end());
                work()
            })
        };
        let before = given(&whole, &|| place.run_to_end(&pipeline, &[]));
        assert_eq!(before["source"], source_ledger(ALL, kept, 0));

        let writer = Writer::start(&fifo, lines(1..=GIVEN, fraction));
        let mut replaying = falaj(replay_args(&place, &pipeline, &MENDED))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It knows the policies that were there when it began, and its own.
        let tapped = output([
            "tap",
            &pipeline.display().to_string(),
            MENDED[0],
            MENDED[1],
            "--limit",
            &(kept + BATCH).to_string(),
            "--json",
            "--data-dir",
            &place.data().display().to_string(),
        ]);
        assert!(tapped.status.success(), "{}", stderr(&tapped));
        replaying.kill().unwrap();
        replaying.wait().unwrap();
        writer.end();
        let done = published(&place, &pipeline).len() as u64 - kept;
        assert_eq!(done, BATCH);

        let mut settled = 0;
        match between {
            Between::Nothing => {}
            Between::Run => {
                let ledger = given(&whole, &|| place.run_to_end(&pipeline, &[]));
                assert_balanced(&ledger);
                assert_eq!(ledger["source"], source_ledger(ALL, kept + done, done));
                assert_eq!(ledger["topic"]["read"], kept + done);
                settled = done;
            }
            Between::Unmended => {
                let counted = given(&whole, &|| replay(&place, &pipeline, &[]));
                let left = ALL - kept - done;
                assert_eq!(
                    counts(&counted),
                    json!({"replayed": done, "rejected_again": left})
                );
                settled = done;
            }
        }
        let rest = given(&whole, &|| replay(&place, &pipeline, &MENDED));
        let want = ALL - kept - settled;
        assert_eq!(counts(&rest), json!({"replayed": want}), "{between:?}");
        // Nothing is left to be read, but its first record tells which file it is.
        let none = given(&whole, &|| replay(&place, &pipeline, &MENDED));
        assert_eq!(counts(&none), json!({}));
        each_once(&place, &pipeline, 1..=ALL);
        let ledger = given(&whole, &|| rebuilt(&place, &pipeline));
        assert_eq!(ledger["source"], source_ledger(ALL, ALL, ALL - kept));
        assert_eq!(rows(&place), scratch, "{between:?}");
    }
}

#[test]
fn a_replay_survives_kills_at_any_moment() {
    const ALL: u64 = 60_000;
    let place = Workplace::new();
    let records = lines(1..=ALL, |n| match n {
        n if n % 5 == 1 => record(n, "1"),
        n if n % 5 == 2 => "no record".to_owned(),
        n => record(n, "1.5"),
    });
    place.write("records.ndjson", records.as_bytes());
    let pipeline = measured(&place, FILE);
    place.run_to_end(&pipeline, &[]);
    let mut dice = Dice::new();
    for round in 0..12 {
        let mut replaying = falaj(replay_args(&place, &pipeline, &MENDED))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20 + dice.below(150)));
        let _ = replaying.kill();
        replaying.wait().unwrap();
        if round == 6 {
            // A run in between counts what was done so far.
            rebuilt(&place, &pipeline);
        }
    }
    let last = replay(&place, &pipeline, &MENDED);
    assert_eq!(last["gone"], 0);
    let ledger = rebuilt(&place, &pipeline);
    assert_eq!(
        ledger["source"],
        source_ledger(ALL, ALL / 5 * 4, ALL / 5 * 3)
    );
    each_once(&place, &pipeline, (1..=ALL).filter(|n| n % 5 != 2));
    assert_eq!(rows(&place), from_scratch(&records));
}

#[test]
fn what_a_killed_run_decided_stays_decided_when_the_file_is_mended_before_it_goes_on() {
    for stricter in [false, true] {
        let place = Workplace::new();
        let file = place.write("records.ndjson", lines(1..=100, line).as_bytes());
        let pipeline = measured(&place, FILE);
        place.run_to_end(&pipeline, &[]);
        let records = lines(1..=5000, line);
        std::fs::write(&file, &records).unwrap();
        let seldom = place.run_args(&pipeline, &["--set", "pipeline.checkpoint=1h"]);
        let running = Running::start(&seldom);
        running.wait_for("/api/v1/status", |status| {
            // There are none while it starts.
            let stages = status["stages"].as_array().into_iter().flatten();
            let mut topic = stages.filter(|stage| stage["name"] == "topic");
            topic.any(|topic| topic["records_total"].as_u64() >= Some(4410))
                && status["rejects"]["wrong type"].as_u64() >= Some(392)
        });
        running.kill();

        // The last checkpoint counts a hundred lines; the rest is the next run's to count.
        let counted = replay(&place, &pipeline, &MENDED);
        assert_eq!(
            counts(&counted),
            json!({"replayed": 8, "rejected_again": 2, "not_counted_yet": 490})
        );
        let changed = if stricter {
            // Now no size passes that was published; it is on the topic all the same.
            ["--set", "fields.size.type=string"]
        } else {
            MENDED
        };
        let ledger = place.run_to_end(&pipeline, &[changed[0], changed[1], "--rebuild", "*"]);
        assert_balanced(&ledger);
        assert_eq!(
            ledger["source"],
            source_ledger(5000, 4508, 8),
            "{changed:?}"
        );
        assert_eq!(ledger["topic"]["read"], 4508);
        assert_eq!(ledger["topic"]["duplicate"], 0);
        let rest = replay(&place, &pipeline, &MENDED);
        assert_eq!(
            counts(&rest),
            json!({"replayed": 392, "rejected_again": 98, "unchanged": 2})
        );
        each_once(&place, &pipeline, (1..=5000).filter(|n| n % 50 != 0));
        let ledger = rebuilt(&place, &pipeline);
        assert_eq!(ledger["source"], source_ledger(5000, 4900, 400));
        assert_eq!(rows(&place), from_scratch(&records));
    }
}

#[test]
fn rejects_of_a_raw_topic_are_read_again_from_each_partition() {
    const EACH: u64 = 12_000;
    let place = Workplace::new();
    let pipeline = measured(&place, "[source.kafka]\ntopic = \"messages\"");
    let raw = RawTopic::of(&place);
    let settings = Settings {
        retention_ms: Some(3_600_000),
        segment_bytes: 20_000,
        ..Settings::default()
    };
    raw.make(3, settings);
    // The second partition has few, far from each other.
    let of = |partition: u64, at: u64| {
        let n = 3 * at + partition;
        let every = if partition == 1 { 5000 } else { 10 };
        if at.is_multiple_of(every) {
            json!({"n": n, "who": n, "town": "x", "size": 0.5})
        } else {
            json!({"n": n, "who": n, "town": "x", "size": 1})
        }
    };
    for partition in 0..3 {
        let mut values: Vec<Option<Bytes>> = (0..EACH).map(|at| some(&of(partition, at))).collect();
        values.push(None);
        raw.write(partition.try_into().unwrap(), &values);
    }
    let args = place.run_args(&pipeline, &[]);
    let running = Running::start(&args);
    caught_up(&running, 3 * EACH + 3);
    ended_well(running);

    // Retention takes the beginning of the third partition.
    let log = raw.open();
    let third = log.topic("messages").unwrap().partition(2).unwrap();
    third.delete_before(6_005).unwrap();
    let start = third.offsets().start.unsigned_abs();
    log.close();
    assert!((1..EACH).contains(&start), "{start}");
    let gone = start.div_ceil(10);
    let (sparse, dense) = (EACH.div_ceil(5000), EACH / 10);

    let mut dice = Dice::new();
    for _ in 0..4 {
        let mut replaying = falaj(replay_args(&place, &pipeline, &MENDED))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20 + dice.below(60)));
        let _ = replaying.kill();
        replaying.wait().unwrap();
    }
    let last = replay(&place, &pipeline, &MENDED);
    assert_eq!(last["gone"], gone, "{last}");
    let again = replay(&place, &pipeline, &MENDED);
    assert_eq!(counts(&again), json!({"gone": gone, "unchanged": 3}));
    let replayed = 2 * dense + sparse - gone;

    let mut args = place.run_args(&pipeline, &MENDED);
    args.extend(["--rebuild".to_owned(), "*".to_owned()]);
    let running = Running::start(&args);
    let status = caught_up(&running, 3 * EACH + 3);
    let published = 3 * EACH - gone;
    assert_eq!(
        status["ledger"]["source"],
        source_ledger(3 * EACH + 3, published, replayed)
    );
    assert_eq!(status["ledger"]["topic"]["duplicate"], 0);
    ended_well(running);
    let lost = |n: &u64| n % 3 == 2 && (n / 3).is_multiple_of(10) && n / 3 < start;
    let left: Vec<u64> = (0..3 * EACH).filter(|n| !lost(n)).collect();
    let total: u64 = left.iter().sum();
    each_once(&place, &pipeline, left.into_iter());
    let db = rusqlite::Connection::open(place.sqlite()).unwrap();
    let row = db.query_row("SELECT records, total FROM total", [], |r| {
        Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?))
    });
    let (records, sum) = row.unwrap();
    assert_eq!(
        (records.unsigned_abs(), sum.unsigned_abs()),
        (published, total)
    );

    // A topic that was made anew holds none of them, and a missing one is not made.
    raw.make(3, Settings::default());
    let elsewhere = replay(&place, &pipeline, &MENDED);
    assert_eq!(counts(&elsewhere), json!({"gone": gone + 3}));
    let log = raw.open();
    log.delete("messages").unwrap();
    log.close();
    let missing = try_replay(&place, &pipeline, &MENDED);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("is not there"),
        "{}",
        stderr(&missing)
    );
    assert!(raw.open().topic("messages").is_none());
}
