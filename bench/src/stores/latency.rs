//! How soon a row is visible in each store.
//!
//! A record has a number, a view has the largest. Somebody reads that view's row from each store all
//! the time; a record is visible when a row with its number or a larger one is read.

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use rusqlite::{Connection, OpenFlags};
use scylla::client::session_builder::SessionBuilder;

use super::Stores;
use crate::process::falaj;
use crate::table::line;

/// Records of a request and how often one is sent: 1,000 records a second.
const BATCH: i64 = 20;
const EVERY: Duration = Duration::from_millis(20);
const SECONDS: u64 = 20;
/// Requests of the first seconds do not count.
const UNCOUNTED: usize = 150;
/// How often a store is read.
const LOOK: Duration = Duration::from_millis(2);

/// When which number was seen.
type Sightings = Arc<Mutex<Vec<(Instant, i64)>>>;

/// Measures, and gives the table.
pub async fn measure(stores: &Stores, folder: &Path) -> String {
    let folder = folder.join("latency");
    fs::create_dir_all(&folder).expect("there is room");
    let running = Running::start(&folder, stores);
    // Until all tables are there.
    post(&running.address, 0, 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let over = Arc::new(AtomicBool::new(false));
    let seen: [Sightings; 3] = Default::default();
    let sqlite = {
        let (file, seen, over) = (
            folder.join("data/views.sqlite"),
            Arc::clone(&seen[0]),
            Arc::clone(&over),
        );
        std::thread::spawn(move || watch_sqlite(&file, &seen, &over))
    };
    let cassandra = tokio::spawn(watch_cassandra(
        stores.cassandra.address(),
        Arc::clone(&seen[1]),
        Arc::clone(&over),
    ));
    let mongo = tokio::spawn(watch_mongodb(
        stores.mongo.uri(),
        Arc::clone(&seen[2]),
        Arc::clone(&over),
    ));
    eprintln!("1,000 records a second, for {SECONDS} s");
    let address = running.address.clone();
    let sent = tokio::task::spawn_blocking(move || send(&address))
        .await
        .expect("it sends");
    tokio::time::sleep(Duration::from_secs(5)).await;
    over.store(true, Ordering::Relaxed);
    sqlite.join().expect("it reads");
    cassandra.await.expect("it reads");
    mongo.await.expect("it reads");
    let mut text = String::new();
    let head = ["store", "p50 ms", "p99 ms", "records seen"];
    line(&mut text, &head.map(str::to_owned));
    text.push_str("|---|--:|--:|--:|\n");
    for (name, seen) in ["SQLite", "Cassandra", stores.mongo_name].iter().zip(&seen) {
        let seen = seen.lock().expect("nobody panicked");
        let mut waits: Vec<f64> = sent
            .iter()
            .skip(UNCOUNTED)
            .filter_map(|(at, number)| {
                let first = seen.iter().find(|(_, newest)| newest >= number)?;
                Some(first.0.saturating_duration_since(*at).as_secs_f64() * 1e3)
            })
            .collect();
        waits.sort_by(f64::total_cmp);
        let at = |part: usize| {
            waits
                .get(waits.len() * part / 100)
                .copied()
                .unwrap_or(f64::NAN)
        };
        let cells = [
            (*name).to_owned(),
            format!("{:.0}", at(50)),
            format!("{:.0}", at(99)),
            format!("{} of {}", waits.len(), sent.len() - UNCOUNTED),
        ];
        line(&mut text, &cells);
    }
    text
}

/// When the last record of each request was sent, and its number.
fn send(address: &str) -> Vec<(Instant, i64)> {
    let mut sent = Vec::new();
    let start = Instant::now();
    let requests = SECONDS * 1000 / u64::try_from(EVERY.as_millis()).expect("some");
    std::thread::scope(|scope| {
        for request in 0..u32::try_from(requests).expect("not so many") {
            let due = start + EVERY * request;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let first = i64::from(request) * BATCH + 1;
            sent.push((Instant::now(), first + BATCH - 1));
            scope.spawn(move || post(address, first, BATCH));
        }
    });
    sent
}

/// Posts records with numbers from `first` on.
fn post(address: &str, first: i64, count: i64) {
    let mut lines = Vec::new();
    for n in first..first + count {
        writeln!(lines, "{{\"n\":{n},\"id\":\"person-{n}\"}}").expect("memory takes it");
    }
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "POST /ingest HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        lines.len()
    )
    .expect("it takes requests");
    stream.write_all(&lines).expect("it takes requests");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("it answers");
    assert!(reply.starts_with("HTTP/1.1 200"), "it is refused: {reply}");
}

fn note(seen: &Sightings, newest: Option<i64>) {
    let mut seen = seen.lock().expect("nobody panicked");
    if let Some(newest) = newest
        && seen.last().is_none_or(|(_, last)| *last < newest)
    {
        seen.push((Instant::now(), newest));
    }
}

fn watch_sqlite(file: &Path, seen: &Sightings, over: &AtomicBool) {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(file, flags).expect("the file is there");
    let mut newest = connection
        .prepare("SELECT newest FROM numbers")
        .expect("the table is there");
    while !over.load(Ordering::Relaxed) {
        note(seen, newest.query_row([], |row| row.get(0)).ok());
        std::thread::sleep(LOOK);
    }
}

async fn watch_cassandra(address: String, seen: Sightings, over: Arc<AtomicBool>) {
    let session = SessionBuilder::new().known_node(address).build().await;
    let session = session.expect("it was started");
    let newest = session.prepare("SELECT newest FROM latency.numbers").await;
    let newest = newest.expect("the table is there");
    while !over.load(Ordering::Relaxed) {
        let rows = session
            .execute_unpaged(&newest, ())
            .await
            .expect("it answers");
        let rows = rows.into_rows_result().expect("rows");
        note(
            &seen,
            rows.first_row::<(i64,)>().ok().map(|(newest,)| newest),
        );
        tokio::time::sleep(LOOK).await;
    }
}

async fn watch_mongodb(uri: String, seen: Sightings, over: Arc<AtomicBool>) {
    let client = mongodb::Client::with_uri_str(uri)
        .await
        .expect("an address");
    let numbers = client.database("latency").collection::<Document>("numbers");
    while !over.load(Ordering::Relaxed) {
        let found = numbers.find_one(doc! {}).await.expect("it answers");
        note(&seen, found.and_then(|row| row.get_i64("newest").ok()));
        tokio::time::sleep(LOOK).await;
    }
    client.shutdown().await;
}

/// A falaj with all three sinks.
struct Running {
    child: Child,
    address: String,
}

impl Running {
    fn start(folder: &Path, stores: &Stores) -> Self {
        let pipeline = folder.join("falaj.toml");
        let (nodes, uri) = (stores.cassandra.address(), stores.mongo.uri());
        let text = format!(
            r#"
[pipeline]
name = "latency"
[source.ingest]
[topic]
partitions = 1
[privacy]
k = 1
delta_k = 1
[privacy.subject]
from = "id"
[purpose.measuring]
legal_basis = "contract"
retention = "1d"
[fields]
n = {{ from = "n", type = "int", class = "non_personal", purpose = "measuring" }}
[views.numbers]
sql = "SELECT count(*) AS records, max(n) AS newest FROM records"
[views.people]
sql = "SELECT pid, n FROM records"
[sinks.file]
type = "sqlite"
[sinks.wide]
type = "cassandra"
nodes = ["{nodes}"]
keyspace = "latency"
[sinks.documents]
type = "mongodb"
uri = "{uri}"
database = "latency"
views = ["numbers"]
"#
        );
        fs::write(&pipeline, text).expect("there is room");
        let mut child = falaj()
            .arg("run")
            .arg(&pipeline)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`bench/run` built falaj");
        let said = BufReader::new(child.stderr.take().expect("piped"));
        let mut lines = said.lines().map_while(Result::ok);
        let address = lines
            .find_map(|line| {
                Some(
                    line.strip_prefix("dashboard: http://")?
                        .trim_end_matches('/')
                        .to_owned(),
                )
            })
            .expect("it says where its page is");
        // What it says later goes nowhere, and must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
