//! Stores that are down, slow or killed: they delay nobody else, and end with what the topic says.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use falaj_servers::{Cassandra, CassandraOptions, Kafka, KafkaOptions, Mongo, MongoOptions, Venv};
use parking_lot::Mutex;
use rusqlite::Connection;
use serde_json::Value;

use crate::harness::{
    Dice, Running, Workplace, assert_balanced, compare, compare_stores, falaj, long, output, post,
    repository, stderr,
};

/// Fictitious people, one JSON object a line.
fn people(place: &Workplace, count: u64, seed: &str) -> PathBuf {
    let path = place.path().join("records.ndjson");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let domains = "example.com=5,example.org=3,example.net=1";
    let domains: falaj_randomuser::Domains = domains.parse().unwrap();
    falaj_randomuser::write_ndjson(&mut out, count, seed, &domains).unwrap();
    std::io::Write::flush(&mut out).unwrap();
    path
}

const FILE: &str = "[source.file]\npath = \"records.ndjson\"";
const OFTEN: [&str; 2] = ["--set", "pipeline.checkpoint=100ms"];

fn sink<'a>(status: &'a Value, name: &str) -> &'a Value {
    let sinks = status["sinks"].as_array().expect("sinks");
    let found = sinks.iter().find(|sink| sink["name"] == name);
    found.unwrap_or_else(|| panic!("no sink `{name}` in {status}"))
}

/// Rows of a table.
fn count(store: &Path, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    let store = Connection::open(store).unwrap();
    store.query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// Somebody takes all rows out of a table.
fn empty(store: &Path, table: &str) {
    let store = Connection::open(store).unwrap();
    let sql = format!("DELETE FROM {table}");
    store.execute_batch(&sql).unwrap();
}

/// A store that is there later than falaj gets everything, too.
#[test]
fn the_order_in_which_things_start_does_not_matter() {
    const RECORDS: u64 = 20_000;
    let place = Workplace::new();
    let records = people(&place, RECORDS, "order");
    let pipeline = place.pipeline(FILE);
    std::fs::create_dir_all(place.data()).unwrap();
    let other = Connection::open(place.sqlite()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let running = Running::start(&place.run_args(&pipeline, &OFTEN));
    let said = running.said.join("\n");
    assert!(
        said.contains("sink `local`") && said.contains("locked"),
        "{said}"
    );
    let status = running.wait_for("/api/v1/status", |status| {
        status["ledger"]["topic"]["out"] == RECORDS
    });
    assert_ne!(sink(&status, "local")["state"], "ok");
    // The page goes on.
    running.wait_for("/api/v1/views/users_by_nationality", |view| {
        view["rows"].as_array().is_some_and(|rows| !rows.is_empty())
    });
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    running.wait_for("/api/v1/status", |status| {
        sink(status, "local")["state"] == "ok" && sink(status, "local")["pending"] == 0
    });
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
    assert_balanced(&place.run_to_end(&pipeline, &[]));
    place.compare(&records, &place.tap(&pipeline));
}

/// A sink that was left out of the file, has another name or takes more views than it did lacks what
/// it was not given, whatever its tables hold.
#[test]
fn a_sink_that_was_not_given_everything_gets_what_it_lacks() {
    let place = Workplace::new();
    let records = people(&place, 900, "left out");
    let pipeline = place.pipeline(FILE);
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let store = place.path().join("second.sqlite");
    let all = std::fs::read_to_string(&records).unwrap();
    let second = |name: &str, views: &str| {
        format!(
            "[sinks.{name}]\ntype = \"sqlite\"\npath = \"second.sqlite\"\nviews = [{views}]\n\n[[charts]]"
        )
    };
    let few = "\"users_by_nationality\"";
    for (part, sink) in [
        second("second", "\"*\""),
        "[[charts]]".to_owned(),
        second("second", few),
        second("second", "\"*\""),
        "[[charts]]".to_owned(),
        second("other", "\"*\""),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(&pipeline, text.replacen("[[charts]]", &sink, 1)).unwrap();
        let upto = (part + 1) * 150;
        let some: String = all.split_inclusive('\n').take(upto).collect();
        std::fs::write(&records, some).unwrap();
        place.run_to_end(&pipeline, &[]);
        let tap = place.tap(&pipeline);
        place.compare(&records, &tap);
        if sink.contains("\"*\"") {
            compare(&records, &tap, &store);
        }
    }
}

/// What a checkpoint calls complete is so of the store that it was written to, and of no other.
#[test]
fn a_sink_that_goes_to_another_store_and_back_gets_what_it_missed() {
    let place = Workplace::new();
    let records = people(&place, 900, "to and fro");
    let pipeline = place.pipeline(FILE);
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let all = std::fs::read_to_string(&records).unwrap();
    for (part, file) in ["one", "other", "one", "other", "one"].iter().enumerate() {
        let sink =
            format!("[sinks.second]\ntype = \"sqlite\"\npath = \"{file}.sqlite\"\n\n[[charts]]");
        std::fs::write(&pipeline, text.replacen("[[charts]]", &sink, 1)).unwrap();
        let upto = (part + 1) * 180;
        let some: String = all.split_inclusive('\n').take(upto).collect();
        std::fs::write(&records, some).unwrap();
        place.run_to_end(&pipeline, &[]);
        let store = place.path().join(file).with_extension("sqlite");
        compare(&records, &place.tap(&pipeline), &store);
    }
}

/// A table that was emptied is being filled when falaj is killed, before the next checkpoint: the one
/// before says that the sink has everything, and the table is not empty any more.
#[test]
fn a_kill_while_a_table_is_filled_again_leaves_no_gap() {
    const RECORDS: i64 = 60_000;
    let place = Workplace::new();
    let records = people(&place, RECORDS.cast_unsigned(), "gap");
    let pipeline = place.pipeline(FILE);
    place.run_to_end(&pipeline, &[]);
    let store = place.sqlite();
    let seldom = ["--set", "pipeline.checkpoint=1h"];
    let mut was_filling = false;
    for _ in 0..20 {
        for table in ["users", "users_by_nationality"] {
            empty(&store, table);
        }
        let running = Running::start(&place.run_args(&pipeline, &seldom));
        let until = Instant::now() + Duration::from_mins(1);
        while count(&store, "users") == 0 {
            assert!(Instant::now() < until, "nothing is filled");
            std::thread::sleep(Duration::from_millis(1));
        }
        running.kill();
        if count(&store, "users") < RECORDS {
            was_filling = true;
            break;
        }
    }
    assert!(was_filling, "it was never killed in time");
    assert_balanced(&place.run_to_end(&pipeline, &[]));
    place.compare(&records, &place.tap(&pipeline));
}

/// Closed windows are in the stores only: a table that was emptied lacks them until it is rebuilt, and
/// that is said.
#[test]
fn a_table_that_is_filled_again_says_that_it_lacks_closed_windows() {
    const MINUTES: i64 = 12;
    let place = Workplace::new();
    let line = |i: i64| {
        let at = 1_767_225_600 + i * MINUTES * 60 / 1200;
        format!(
            "{{\"nat\":\"DE\",\"email\":\"p{i}@example.com\",\"dob\":{{\"age\":44}},\"at\":{at}}}\n"
        )
    };
    let first: String = (0..1200).map(line).collect();
    let records = place.write("records.ndjson", first.as_bytes());
    let pipeline = place.pipeline(FILE);
    let timed = ["--set", "pipeline.event_time=at"];
    place.run_to_end(&pipeline, &timed);
    let windows = || count(&place.sqlite(), "average_age");
    assert_eq!(windows(), MINUTES);
    empty(&place.sqlite(), "average_age");
    std::fs::write(&records, first + &line(1200)).unwrap();
    let run = |more: &[&str]| {
        let mut args = timed.to_vec();
        args.push("--until-caught-up");
        args.extend(more);
        let done = output(place.run_args(&pipeline, &args));
        assert!(done.status.success(), "{}", stderr(&done));
        stderr(&done)
    };
    let said = run(&[]);
    assert!(
        said.contains("closed windows") && said.contains("`--rebuild average_age`"),
        "{said}"
    );
    assert!(
        windows() < MINUTES,
        "state was kept for windows that are closed"
    );
    let said = run(&["--rebuild", "average_age"]);
    assert!(!said.contains("closed windows"), "{said}");
    assert_eq!(windows(), MINUTES + 1);
}

/// A table that is empty since its rows' time was over stays so: the topic keeps records for longer.
#[test]
fn rows_whose_time_is_over_do_not_come_back_from_the_topic() {
    let place = Workplace::new();
    let records = people(&place, 300, "over");
    let pipeline = place.pipeline(FILE);
    let kept = ["--set", "purpose.statistics.retention=4s"];
    place.run_to_end(&pipeline, &kept);
    std::thread::sleep(Duration::from_secs(5));
    let users = || count(&place.sqlite(), "users");
    empty(&place.sqlite(), "users");
    place.run_to_end(&pipeline, &kept);
    assert_eq!(users(), 0, "rows whose time is over came back");
    // What somebody emptied too early does come back.
    let more = "{\"nat\":\"DE\",\"email\":\"late@example.com\",\"dob\":{\"age\":44}}\n";
    let all = std::fs::read_to_string(&records).unwrap();
    std::fs::write(&records, all + more).unwrap();
    place.run_to_end(&pipeline, &["--set", "purpose.statistics.retention=1h"]);
    empty(&place.sqlite(), "users");
    place.run_to_end(&pipeline, &["--set", "purpose.statistics.retention=1h"]);
    assert_eq!(users(), 301);
}

/// With an event time, an old record may have been written just now; and a row view may be over
/// another one that is kept for a shorter time.
#[test]
fn rows_are_read_again_however_old_their_events_and_however_their_views_are_kept() {
    let place = Workplace::new();
    let line = |i: u32| {
        format!(
            "{{\"nat\":\"DE\",\"email\":\"p{i}@example.com\",\"at\":\"2020-01-01T00:00:00Z\"}}\n"
        )
    };
    let all: String = (0..300).map(line).collect();
    place.write("records.ndjson", all.as_bytes());
    let pipeline = place.pipeline(FILE);
    let over = [
        "--set",
        "purpose.other.legal_basis=consent",
        "--set",
        "purpose.other.data_subjects=registered users",
        "--set",
        "purpose.other.consent=synthetic",
        "--set",
        "purpose.other.retention=7d",
        "--set",
        "fields.gender.purpose=other",
        "--set",
        "views.nations.sql=SELECT pid, nat FROM users",
    ];
    let timed = ["--set", "pipeline.event_time=at"];
    for (settings, fresh) in [
        (&over[..], "over"),
        (&[&over[..], &timed[..]].concat(), "timed"),
    ] {
        let data = place.path().join(fresh);
        let data = data.display().to_string();
        let run = || {
            let mut args = place.run_args(&pipeline, settings);
            args[3].clone_from(&data);
            args.push("--until-caught-up".into());
            let done = output(args);
            assert!(done.status.success(), "{}", stderr(&done));
        };
        run();
        let store = Path::new(&data).join("views.sqlite");
        for view in ["users", "nations"] {
            let rows = || count(&store, view);
            assert_eq!(rows(), 300, "{fresh}, {view}");
            empty(&store, view);
            run();
            assert_eq!(rows(), 300, "{fresh}, {view}: not all were read again");
        }
    }
}

/// Another program holds the lock of one of two stores; falaj is killed while that store is behind.
#[test]
fn a_locked_store_delays_nobody_and_has_everything_in_the_end() {
    const RECORDS: u64 = 300_000;
    let place = Workplace::new();
    let records = people(&place, RECORDS, "locked");
    let pipeline = place.pipeline(FILE);
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let second = "[sinks.second]\ntype = \"sqlite\"\npath = \"second.sqlite\"\n\n[[charts]]";
    std::fs::write(&pipeline, text.replacen("[[charts]]", second, 1)).unwrap();
    let store = place.path().join("second.sqlite");
    // Its tables are made, and then somebody takes the lock.
    let all = std::fs::read_to_string(&records).unwrap();
    let first: String = all.split_inclusive('\n').take(1000).collect();
    std::fs::write(&records, first).unwrap();
    place.run_to_end(&pipeline, &[]);
    let other = Connection::open(&store).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::fs::write(&records, all).unwrap();

    let args = place.run_args(&pipeline, &OFTEN);
    let running = Running::start(&args);
    let status = running.wait_for("/api/v1/status", |status| {
        status["ledger"]["topic"]["out"] == RECORDS
            && sink(status, "local")["pending"] == 0
            && sink(status, "local")["behind"] == false
            && sink(status, "second")["state"] == "failing"
    });
    let waiting = sink(&status, "second");
    assert_eq!(waiting["behind"], true, "{waiting}");
    // Groups, and no more rows of people than the bound and one batch.
    assert!(waiting["pending"].as_u64().unwrap() < 70_000, "{waiting}");
    let said = waiting["last_error"].as_str().unwrap();
    assert!(said.contains("locked by another program"), "{said}");
    let ready = running.get("/readyz");
    assert_eq!(ready.status, 503);
    for part in ["\"second\"", "locked by another program", "\"since\""] {
        assert!(ready.body.contains(part), "{}", ready.body);
    }
    running.kill();
    let tap = place.tap(&pipeline);
    place.compare(&records, &tap);

    let running = Running::start(&args);
    std::thread::sleep(Duration::from_secs(1));
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    running.wait_for("/api/v1/status", |status| {
        sink(status, "second")["state"] == "ok"
            && sink(status, "second")["pending"] == 0
            && sink(status, "second")["behind"] == false
    });
    assert_eq!(running.get("/readyz").status, 200);
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
    let ledger = place.run_to_end(&pipeline, &[]);
    assert_balanced(&ledger);
    assert_eq!(ledger["topic"]["out"], RECORDS);
    compare(&records, &tap, &store);
}

/// Posts records in order, a batch at a time, until each is acknowledged: whoever is killed meanwhile.
struct Posting {
    /// Where falaj answers now; none while it is dead.
    address: Mutex<Option<SocketAddr>>,
    acknowledged: AtomicU64,
    over: AtomicBool,
}

impl Posting {
    const BATCH: usize = 50;

    /// One batch each `pace`, until `over`; the lines that were posted.
    fn run(&self, lines: &[&str], pace: Duration) -> usize {
        for (at, batch) in lines.chunks(Self::BATCH).enumerate() {
            if self.over.load(Ordering::Relaxed) {
                return at * Self::BATCH;
            }
            let key = format!("posting-batch-{at:08}");
            let headers = [
                ("Content-Type", "application/x-ndjson"),
                ("Idempotency-Key", key.as_str()),
            ];
            let body = batch.concat();
            loop {
                let address = *self.address.lock();
                let reply = address.and_then(|to| post(to, &headers, body.as_bytes()));
                if reply.is_some_and(|reply| reply.status == 200) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            let batch = batch.len() as u64;
            self.acknowledged.fetch_add(batch, Ordering::Relaxed);
            std::thread::sleep(pace);
        }
        lines.len()
    }
}

/// Whoever may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Falaj,
    Kafka,
    Cassandra,
    Mongo,
}

/// Kafka, Cassandra and a MongoDB (or what is compatible with it) of one test's own.
pub struct Servers {
    pub kafka: Kafka,
    pub cassandra: Cassandra,
    pub mongo: Mongo,
    pub python: Venv,
}

impl Servers {
    pub fn start() -> Option<Self> {
        let requirements = repository().join("tests/stores/requirements.txt");
        Some(Self {
            python: Venv::of(&requirements)?,
            kafka: Kafka::start(&KafkaOptions::default())?,
            // What a single node acknowledges by default is lost where it is killed.
            cassandra: Cassandra::start(&CassandraOptions {
                durable: true,
                ..CassandraOptions::default()
            })?,
            mongo: Mongo::start(&MongoOptions {
                own: true,
                ..MongoOptions::default()
            })?,
        })
    }

    /// The example's pipeline over `source`, with everything in these servers and in SQLite.
    fn pipeline(&self, place: &Workplace, source: &str) -> PathBuf {
        let path = place.pipeline(source);
        let text = std::fs::read_to_string(&path).unwrap();
        let brokers = format!("brokers    = \"{}\"", self.kafka.brokers());
        let sinks = format!(
            "[sinks.wide]\ntype = \"cassandra\"\nnodes = [\"{}\"]\nkeyspace = \"falaj\"\n\n\
             [sinks.documents]\ntype = \"mongodb\"\nuri = \"{}\"\ndatabase = \"falaj\"\n\n[[charts]]",
            self.cassandra.address(),
            self.mongo.uri(),
        );
        let text = text
            .replacen("brokers    = \"embedded\"", &brokers, 1)
            .replacen("[[charts]]", &sinks, 1);
        assert!(text.contains(&brokers) && text.contains(&sinks));
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn compare(&self, place: &Workplace, records: &Path, tap: &Path) {
        let mut stores = vec![place.sqlite().display().to_string()];
        stores.extend(self.stores());
        compare_stores(&mut self.python.python(), records, tap, &stores);
    }

    /// Where falaj's rows are in Cassandra and in MongoDB, as the scripts of the tests take it.
    pub fn stores(&self) -> [String; 2] {
        [
            format!("cassandra://{}/falaj", self.cassandra.address()),
            with_database(&self.mongo.uri(), "falaj"),
        ]
    }

    fn kill(&self, victim: Victim) {
        match victim {
            Victim::Falaj => unreachable!("it is not a server"),
            Victim::Kafka => self.kafka.kill(),
            Victim::Cassandra => self.cassandra.kill(),
            Victim::Mongo => self.mongo.kill(),
        }
    }

    fn restart(&self, victim: Victim) {
        match victim {
            Victim::Falaj => unreachable!("it is not a server"),
            Victim::Kafka => self.kafka.restart(),
            Victim::Cassandra => self.cassandra.restart(),
            Victim::Mongo => self.mongo.restart(),
        }
    }
}

/// A connection string that names a database, as `tests/independent.py` takes it.
fn with_database(uri: &str, database: &str) -> String {
    let (rest, options) = uri.split_once('?').unwrap_or((uri, ""));
    format!("{}/{database}?{options}", rest.trim_end_matches('/'))
}

/// Waits until every sink has everything.
fn settled(running: &Running, out: u64) -> Value {
    running.wait_for("/api/v1/status", |status| {
        let sinks = status["sinks"].as_array().unwrap();
        status["ledger"]["topic"]["out"] == out
            && sinks.iter().all(|sink| {
                sink["state"] == "ok" && sink["pending"] == 0 && sink["behind"] == false
            })
    })
}

/// Each victim three times (twenty in the long run), in an order of chance, falaj also while a server
/// is away.
#[test]
fn kill_9_of_anybody_leaves_every_store_with_what_the_topic_says() {
    let Some(servers) = Servers::start() else {
        return;
    };
    eprintln!("MongoDB is played by {}", servers.mongo.flavour());
    let place = Workplace::new();
    let rounds = if long() { 20 } else { 3 };
    let all = people(&place, 200_000, "anybody");
    let text = std::fs::read_to_string(&all).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let pipeline = servers.pipeline(&place, "[source.ingest]");
    let args = place.run_args(&pipeline, &OFTEN);
    let posting = Posting {
        address: Mutex::new(None),
        acknowledged: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let mut dice = Dice::new();
    let mut victims: Vec<Victim> = [
        Victim::Falaj,
        Victim::Kafka,
        Victim::Cassandra,
        Victim::Mongo,
    ]
    .repeat(rounds);
    for at in (1..victims.len()).rev() {
        victims.swap(at, usize::try_from(dice.below(at as u64 + 1)).unwrap());
    }
    let start = || {
        let running = Running::start(&args);
        *posting.address.lock() = Some(running.address);
        running
    };
    let (posted, running) = std::thread::scope(|scope| {
        let mut running = start();
        let poster = scope.spawn(|| posting.run(&lines, Duration::from_millis(200)));
        for victim in victims {
            std::thread::sleep(Duration::from_millis(dice.below(2_000)));
            let with_falaj = victim == Victim::Falaj || dice.below(3) == 0;
            if victim != Victim::Falaj {
                servers.kill(victim);
                std::thread::sleep(Duration::from_millis(dice.below(2_000)));
            }
            if with_falaj {
                *posting.address.lock() = None;
                running.kill();
                if victim != Victim::Falaj && dice.below(2) == 0 {
                    // The server comes first, or falaj does: the order does not matter.
                    servers.restart(victim);
                    running = start();
                    continue;
                }
                // Without its cluster falaj has no page yet: it is started and not waited for.
                if victim == Victim::Kafka {
                    servers.restart(victim);
                    running = start();
                    continue;
                }
                running = start();
            }
            if victim != Victim::Falaj {
                servers.restart(victim);
            }
        }
        posting.over.store(true, Ordering::Relaxed);
        (poster.join().expect("it posts"), running)
    });
    let posted_lines = &lines[..posted];
    let posted = posting.acknowledged.load(Ordering::Relaxed);
    assert_eq!(posted, posted_lines.len() as u64);
    assert!(posted > 0);
    eprintln!("{posted} records posted");
    let records = place.write("posted.ndjson", posted_lines.concat().as_bytes());
    let status = settled(&running, posted);
    assert_balanced(&status["ledger"]);
    assert_eq!(status["ledger"]["source"]["published"], posted);
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
    servers.compare(&place, &records, &place.tap(&pipeline));
}

/// What the other stores and the page show while one store is away.
#[derive(Debug, Default)]
struct Lags {
    /// Records that the views have not read.
    topic: Vec<u64>,
    /// Rows that wait for the store that is there.
    waiting: Vec<u64>,
    /// Rows that wait for the one that is not.
    kept: Vec<u64>,
    /// Resident memory, in MB.
    memory: Vec<u64>,
}

impl Lags {
    fn watch(running: &Running, seconds: u64) -> Self {
        let mut lags = Self::default();
        for _ in 0..seconds {
            std::thread::sleep(Duration::from_secs(1));
            let status = running.json("/api/v1/status");
            let n = |value: &Value| value.as_u64().unwrap();
            lags.topic.push(n(&status["lag"]["records"]));
            lags.waiting.push(n(&sink(&status, "local")["pending"]));
            lags.kept.push(n(&sink(&status, "wide")["pending"]));
            lags.memory
                .push(n(&status["process"]["rss_bytes"]) / 1_000_000);
        }
        lags
    }

    fn tell(&self, when: &str) {
        let middle = |values: &[u64]| {
            let mut sorted = values.to_vec();
            sorted.sort_unstable();
            (sorted[sorted.len() / 2], sorted[sorted.len() - 1])
        };
        eprintln!(
            "{when}: median and largest of topic lag {:?}, local waiting {:?}, wide waiting {:?}, memory MB {:?}",
            middle(&self.topic),
            middle(&self.waiting),
            middle(&self.kept),
            middle(&self.memory),
        );
    }
}

/// Of one falaj whose store is away, or back and behind.
const MEMORY_MAX_MB: u64 = 512;

/// 1,000 records a second, and one store stopped: for ten minutes in the long run.
#[test]
fn a_store_that_is_away_for_long_is_missed_by_nobody_and_has_everything_in_the_end() {
    let Some(servers) = Servers::start() else {
        return;
    };
    let place = Workplace::new();
    let api = Api::start();
    let source = format!(
        "[source.http]\nurl = \"{}\"\nquery = {{ results = 1000 }}\nrecords = \"results\"\nevery = \"1s\"",
        api.url
    );
    let pipeline = servers.pipeline(&place, &source);
    // Each row of a person costs the stand-in for MongoDB a write to the disk: it gets the groups.
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let groups = "type = \"mongodb\"\nviews = [\"users_by_nationality\", \"average_age\", \"email_domains\"]";
    std::fs::write(&pipeline, text.replacen("type = \"mongodb\"", groups, 1)).unwrap();
    let running = Running::start(&place.run_args(&pipeline, &[]));
    running.wait_for("/api/v1/status", |status| {
        status["sinks"]
            .as_array()
            .is_some_and(|sinks| sinks.len() == 3)
    });
    let (calm, away) = if long() { (60, 600) } else { (5, 15) };
    Lags::watch(&running, calm).tell("before");
    servers.cassandra.kill();
    let lags = Lags::watch(&running, away);
    lags.tell("away");
    assert!(lags.kept.iter().all(|kept| *kept < 100_000), "{lags:?}");
    assert!(lags.memory.iter().all(|mb| *mb < MEMORY_MAX_MB), "{lags:?}");
    let status = running.json("/api/v1/status");
    assert_eq!(sink(&status, "wide")["state"], "failing", "{status}");
    for other in ["local", "documents"] {
        assert_eq!(sink(&status, other)["state"], "ok", "{status}");
        assert_eq!(sink(&status, other)["behind"], false, "{status}");
    }
    servers.cassandra.restart();
    let back = Instant::now();
    let patience = Duration::from_secs(180 + 2 * away);
    running.wait_longer_for("/api/v1/status", patience, |status| {
        let wide = sink(status, "wide");
        wide["state"] == "ok" && wide["behind"] == false
    });
    eprintln!("back and no longer behind after {:.1?}", back.elapsed());
    let lags = Lags::watch(&running, calm);
    lags.tell("after");
    assert!(lags.memory.iter().all(|mb| *mb < MEMORY_MAX_MB), "{lags:?}");
    drop(api);
    running.wait_longer_for("/api/v1/status", patience, |status| {
        let sinks = status["sinks"].as_array().unwrap();
        sinks.iter().all(|sink| sink["pending"] == 0)
    });
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
    let stores = [
        place.sqlite().display().to_string(),
        format!("cassandra://{}/falaj", servers.cassandra.address()),
    ];
    let tap = place.tap(&pipeline);
    compare_stores(&mut servers.python.python(), Path::new("-"), &tap, &stores);
}

/// The local Random User API; ends with the test.
struct Api {
    child: std::process::Child,
    url: String,
}

impl Api {
    fn start() -> Self {
        let mut child = falaj(["random-user", "serve", "--port", "0"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let mut said = String::new();
        BufReader::new(stderr).read_line(&mut said).expect("a line");
        let url = said
            .split_whitespace()
            .find(|word| word.starts_with("http://"));
        let url = url
            .unwrap_or_else(|| panic!("no address in: {said}"))
            .to_owned();
        Self { child, url }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
