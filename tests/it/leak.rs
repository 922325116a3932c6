//! The leak test: people whose every value can be recognised again go through the running binary,
//! with faults, damaged records and everything logged; then every byte it wrote or answered is
//! searched for what no field declares, and for the part of the address before the `@`.
//!
//! Always: a failure names the field, its writing and the place, never the value.
//! Always: the same search must find what is planted into the same material, else it shows nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use falaj_randomuser::{Query, ServerConfig, Version, drawn_seed, serve};
use serde_json::{Value, json};

use crate::canary::{Material, Sought, plant};
use crate::harness::{
    PATIENCE, Running, Workplace, assert_balanced, falaj, repository, stderr, stdout,
};
use crate::stores::Servers;

/// Decides people and faults.
const SEED: u64 = 4711;
/// People in a reply; ten replies a second.
const RESULTS: u64 = 50;
/// Each fault costs a wait of one to two seconds; the first 25 requests see every kind.
const FAULTS: &str = "503=every 9,cut=every 14,error-200=every 20,empty=every 25";
const REQUESTS_MIN: u64 = 26;
/// Records of the damaged file.
const LINES: u64 = 600;
/// Which of twenty damaged records gets a byte that is not UTF-8.
const NOT_UTF8: usize = 16;
/// People in a reply that `falaj.real.toml` asks for.
const REAL_RESULTS: u64 = 250;
/// What the stores may have, and nothing else.
const COLUMNS: [(&str, &str, &str); 8] = [
    ("cassandra", "users_by_nationality", "nat users"),
    ("cassandra", "average_age", "minute average_age users"),
    ("cassandra", "email_domains", "email_domain users"),
    ("cassandra", "users", "pid nat gender age_band"),
    ("mongodb", "users_by_nationality", "nat users"),
    ("mongodb", "average_age", "minute average_age users"),
    ("mongodb", "email_domains", "email_domain users"),
    ("mongodb", "users", "pid nat gender age_band"),
];
/// Columns that falaj adds.
const OWN: [&str; 5] = ["_day", "_expires", "_id", "_key", "_version"];
/// How long the stream of changes is read.
const EVENTS: Duration = Duration::from_secs(5);

#[test]
fn nothing_undeclared_is_found_in_anything_that_falaj_writes_or_answers() {
    let mut material = Material::default();
    let mut sought = Sought::default();
    polled(&mut material, &mut sought);
    damaged(&mut material, &mut sought);
    posted(&mut material, &mut sought);
    search(&mut material, &mut sought);
}

/// Every value in every writing is sought, and what is planted must be found.
fn search(material: &mut Material, sought: &mut Sought) {
    sought.ready();
    let bytes: usize = material.0.iter().map(|(_, bytes)| bytes.len()).sum();
    eprintln!(
        "{} values in {} writings, sought in {} places of {bytes} bytes together",
        sought.tokens.len(),
        sought.patterns.len(),
        material.0.len(),
    );

    let found = sought.found_in(material);
    assert!(found.is_empty(), "undeclared values are found: {found:#?}");

    let planted = plant(material, &sought.sample);
    let found = sought.found_in(material);
    let missed: Vec<_> = planted.difference(&found).collect();
    assert!(missed.is_empty(), "planted, but not found: {missed:#?}");
}

/// People who pass through `falaj.real.toml` as it stands, but for where things are: other people's
/// clients show the aggregates and the rows, and no server keeps anything undeclared, in what it
/// answers, on its disk, or in its log.
#[test]
fn nothing_undeclared_is_found_in_any_server_of_the_real_pipeline() {
    let Some(servers) = Servers::start() else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ServerConfig {
        canary: true,
        seed: Some(SEED),
        faults: FAULTS.parse().unwrap(),
        ..ServerConfig::default()
    };
    let api = runtime.block_on(serve(config)).unwrap();
    let place = Workplace::new();
    let file = repository().join("examples/random-users/falaj.real.toml");
    let mut text = std::fs::read_to_string(file).unwrap();
    for (there, here) in [
        // Without `inc = false` the source would not even ask for what is not declared.
        (
            "\"https://randomuser.me/api/\"",
            format!("\"{}\"\ninc = false", api.url()),
        ),
        ("every   = \"5s\"", "every = \"100ms\"".to_owned()),
        ("127.0.0.1:9092", servers.kafka.brokers()),
        ("127.0.0.1:9042", servers.cassandra.address()),
        (
            "mongodb://127.0.0.1:27017/?directConnection=true",
            servers.mongo.uri(),
        ),
    ] {
        assert!(text.contains(there), "no {there}");
        text = text.replacen(there, &here, 1);
    }
    let pipeline = place.write("falaj.real.toml", text.as_bytes());
    let (mut material, mut sought) = (Material::default(), Sought::default());

    let running = Running::start(&place.run_args(&pipeline, &["--log", "trace"]));
    running.wait_for("/api/v1/status", |status| {
        status["ledger"]["source"]["published"].as_u64() > Some(2_000)
            && api.requests() >= REQUESTS_MIN
    });
    // One may be asked for between the two lines; to seek who was not given costs nothing.
    let requests = api.requests() + 1;
    runtime.block_on(api.shutdown());
    for request in 0..requests {
        let query = Query::new(Version::V1_4, drawn_seed(SEED, request));
        sought.people(&query, REAL_RESULTS);
    }
    let status = running.wait_for("/api/v1/status", |status| {
        let sinks = status["sinks"].as_array().unwrap();
        status["ledger"]["topic"]["out"] == status["ledger"]["source"]["published"]
            && sinks.iter().all(|sink| {
                sink["state"] == "ok" && sink["pending"] == 0 && sink["behind"] == false
            })
    });
    assert_balanced(&status["ledger"]);
    assert_eq!(status["sinks"].as_array().unwrap().len(), 3);
    material.routes(running.address);
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "it did not end well");
    material.add("stderr", said.join("\n").into_bytes());
    material.folder("falaj", &place.data());
    servers.compare(&place, Path::new("-"), &place.tap(&pipeline));

    let pids = shown(&servers, &mut material);
    let published = status["ledger"]["source"]["published"].as_u64().unwrap();
    assert!(pids.len() > 1_000 && pids.len() as u64 <= published);
    kept(&servers, &mut material, &pids);
    search(&mut material, &mut sought);
}

/// What the servers answer to other people's clients; the pids among it.
fn shown(servers: &Servers, material: &mut Material) -> BTreeSet<String> {
    for (view, column) in [
        ("users_by_nationality", "nat"),
        ("average_age", "average_age"),
        ("email_domains", "email_domain"),
        ("users", "age_band"),
    ] {
        let Some(mut cqlsh) = servers
            .cassandra
            .cqlsh(&format!("SELECT * FROM falaj.{view}"))
        else {
            return BTreeSet::new();
        };
        let shown = cqlsh.output().unwrap();
        let text = stdout(&shown);
        assert!(shown.status.success(), "{}", stderr(&shown));
        assert!(
            text.contains(column) && !text.contains("(0 rows)"),
            "{text}"
        );
        material.add(format!("cqlsh {view}"), shown.stdout);
    }
    let mut python = servers.python.python();
    let all = python
        .arg(repository().join("tests/stores/everything.py"))
        .args(servers.stores())
        .output()
        .unwrap();
    assert!(all.status.success(), "{}", stderr(&all));
    let (mut columns, mut own, mut pids) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for line in stdout(&all).lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let [store, place, row] = ["store", "place", "row"].map(|key| &row[key]);
        let place = place.as_str().unwrap();
        let Some(view) = place.strip_prefix("falaj.") else {
            continue;
        };
        // What falaj notes of its own tables.
        if view == "_falaj" {
            continue;
        }
        for column in row.as_object().unwrap().keys() {
            if column.starts_with('_') {
                own.insert(column.clone());
                continue;
            }
            columns.insert(format!("{} {view} {column}", store.as_str().unwrap()));
        }
        if view == "users" {
            pids.insert(row["pid"].as_str().unwrap().to_owned());
        }
    }
    let wanted = COLUMNS.map(|(store, view, columns)| {
        let columns = columns.split(' ');
        columns.map(move |column| format!("{store} {view} {column}"))
    });
    assert_eq!(columns, wanted.into_iter().flatten().collect());
    assert_eq!(own, OWN.map(str::to_owned).into());
    material.add("everything", all.stdout);

    if let Some(mut kcat) = falaj_servers::kcat() {
        let brokers = servers.kafka.brokers();
        kcat.args([
            "-b",
            &brokers,
            "-C",
            "-t",
            "messages",
            "-o",
            "beginning",
            "-e",
            "-q",
        ]);
        let topic = kcat.args(["-f", "%k %s %h\n"]).output().unwrap();
        assert!(topic.status.success(), "{}", stderr(&topic));
        let text = stdout(&topic);
        assert!(pids.iter().all(|pid| text.contains(pid.as_str())));
        material.add("topic", topic.stdout);
    }
    pids
}

/// What lies in the servers' folders. Pids are random, as what is sought is: that they are found there
/// shows that the search looks where records are, and that compression does not hide such values.
fn kept(servers: &Servers, material: &mut Material, pids: &BTreeSet<String>) {
    for view in [
        "users_by_nationality",
        "average_age",
        "email_domains",
        "users",
    ] {
        let plain = format!("ALTER TABLE falaj.{view} WITH compression = {{'enabled': 'false'}}");
        let Some(mut cqlsh) = servers.cassandra.cqlsh(&plain) else {
            return;
        };
        let altered = cqlsh.output().unwrap();
        assert!(altered.status.success(), "{}", stderr(&altered));
    }
    for args in [["flush"].as_slice(), &["upgradesstables", "-a", "falaj"]] {
        let done = servers
            .cassandra
            .nodetool(args.iter().copied())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
    }
    servers.mongo.stop();
    servers.kafka.stop();
    for (name, folder) in [
        ("kafka", servers.kafka.folder()),
        ("cassandra", servers.cassandra.folder()),
        ("mongo", servers.mongo.folder()),
    ] {
        let before = material.0.len();
        material.folder(name, folder);
        let places = &material.0[before..];
        let found = pids.iter().filter(|pid| {
            let mut places = places.iter();
            places.any(|(_, bytes)| memchr::memmem::find(bytes, pid.as_bytes()).is_some())
        });
        let found = found.count();
        eprintln!("{found} of {} pids are found in {name}'s files", pids.len());
        assert!(
            found * 2 > pids.len(),
            "{name}: {found} of {} pids",
            pids.len()
        );
    }
}

/// A source with bad moments, polled.
fn polled(material: &mut Material, sought: &mut Sought) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ServerConfig {
        canary: true,
        seed: Some(SEED),
        faults: FAULTS.parse().unwrap(),
        ..ServerConfig::default()
    };
    let server = runtime.block_on(serve(config)).unwrap();
    let place = Workplace::new();
    let pipeline = place.pipeline(&format!(
        "[source.http]\nurl = \"{}\"\nquery = {{ results = {RESULTS} }}\nrecords = \"results\"\n\
         every = \"100ms\"\ninc = false",
        server.url()
    ));
    let args = place.run_args(&pipeline, &["--log", "trace"]);
    let out = File::create(place.path().join("stdout")).unwrap();
    let running = Running::start_into(&args, Stdio::from(out));

    let address = running.address;
    let events = std::thread::spawn(move || exchange(address, "GET", "/api/v1/events", EVENTS));
    let deadline = Instant::now() + PATIENCE;
    let mut seen = BTreeSet::new();
    let status = loop {
        material.routes(address);
        let status = running.json("/api/v1/status");
        seen.insert(
            status["source"]["state"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        );
        let published = status["ledger"]["source"]["published"]
            .as_u64()
            .unwrap_or_default();
        if published > 700 && server.requests() >= REQUESTS_MIN {
            break status;
        }
        assert!(Instant::now() < deadline, "the status stays at {status}");
        std::thread::sleep(Duration::from_millis(500));
    };
    assert!(seen.len() > 1, "no fault was seen: {seen:?}");
    assert_balanced(&status["ledger"]);
    let events = events.join().unwrap();
    assert!(
        events.len() > 1000,
        "too little of the stream of changes came"
    );
    material.add("SSE", events);
    for name in assets(&running.get("/").body) {
        material.exchange(address, "GET", &name);
    }
    // While it runs SQLite has its write-ahead log, and the lock is held.
    material.folder("live", &place.data());
    material.commands(&place, &pipeline, &["--limit", "500"]);
    material.output("run beside", place.run_args(&pipeline, &["--log", "trace"]));

    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "it did not end well");
    assert!(
        said.iter().any(|line| line.contains("TRACE")),
        "nothing was logged at trace level"
    );
    material.add("stderr", said.join("\n").into_bytes());
    material.add(
        "stdout",
        std::fs::read(place.path().join("stdout")).unwrap(),
    );
    material.folder("polled", &place.data());
    material.commands(&place, &pipeline, &[]);
    material.output(
        "no reset",
        [
            "reset",
            &pipeline.display().to_string(),
            "--set",
            "topic.x=1",
        ],
    );

    for request in 0..server.requests() {
        let query = Query::new(Version::V1_4, drawn_seed(SEED, request));
        sought.people(&query, RESULTS);
    }
    runtime.block_on(server.shutdown());
}

/// A file of records that are cut, of wrong types, too deep, not UTF-8, or no objects.
fn damaged(material: &mut Material, sought: &mut Sought) {
    let query = Query::new(Version::V1_4, "damaged");
    let records = sought.people(&query, LINES);
    let place = Workplace::new();
    let lines: Vec<Vec<u8>> = records
        .into_iter()
        .enumerate()
        .map(|(i, r)| damage(i, r))
        .collect();
    place.write("input.ndjson", &lines.join(&b'\n'));
    let pipeline = place.pipeline("[source.file]\npath = \"input.ndjson\"");
    let args = place.run_args(&pipeline, &["--until-caught-up", "--log", "trace"]);
    let run = material.output("run over a damaged file", args);
    let ledger: Value = serde_json::from_slice(&run).expect("the ledger");
    assert_balanced(&ledger);
    assert!(
        ledger["source"]["rejected"].as_u64() > Some(LINES / 3),
        "{ledger}"
    );
    assert!(
        ledger["source"]["published"].as_u64() > Some(LINES / 3),
        "{ledger}"
    );
    material.folder("damaged", &place.data());
    material.commands(&place, &pipeline, &[]);
    for setting in [
        "pipeline.max_record=1KB",
        "views.users.sql=SELECT phone FROM records",
    ] {
        let mut args = place.run_args(&pipeline, &["--until-caught-up", "--log", "trace"]);
        args.extend(["--set".to_owned(), setting.to_owned()]);
        material.output(setting, args);
    }
}

/// Requests with records, whose bodies, queries, headers and keys say all about people, also those
/// that are refused.
fn posted(material: &mut Material, sought: &mut Sought) {
    let query = Query::new(Version::V1_4, "posted");
    let records = sought.people(&query, LINES);
    let place = Workplace::new();
    place.write("token", b"a-token-of-this-test\n");
    let pipeline =
        place.pipeline("[source.ingest]\nmax_body = \"200kB\"\ntoken = { file = \"token\" }");
    let args = place.run_args(&pipeline, &["--log", "trace"]);
    let running = Running::start(&args);
    let mut taken = 0;
    for (at, some) in records.chunks(20).enumerate() {
        let text = |path: &str| {
            let value = some[0].pointer(path).expect("a record has all fields");
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let lines: Vec<Vec<u8>> = (0..)
            .zip(some)
            // A body that is not UTF-8 is refused as a whole.
            .filter(|(i, _)| *i != NOT_UTF8 || at % 10 == 8)
            .map(|(i, r)| damage(i, r.clone()))
            .collect();
        let (lines, array) = (lines.join(&b'\n'), serde_json::to_vec(some).unwrap());
        let (mut media, mut body, mut key) = ("x-ndjson", lines, text("/login/uuid"));
        let mut token = "a-token-of-this-test".to_owned();
        match at % 10 {
            1 => (media, body) = ("json", array),
            2 => (media, body) = ("json", [array.as_slice(), b"]"].concat()),
            3 => media = "xml",
            4 => key.push_str(" and more"),
            5 => token = text("/login/password"),
            6 => body = body.repeat(20),
            7 => (media, body) = ("json", serde_json::to_vec(&some[0]).unwrap()),
            _ => {}
        }
        let mut request = format!(
            "POST /ingest?email={}&phone={} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\nContent-Type: application/{media}\r\n\
             Idempotency-Key: {key}\r\nUser-Agent: {}\r\nX-Person: {}\r\nCookie: id={}\r\n\
             Content-Length: {}\r\n\r\n",
            text("/email"),
            text("/login/sha1"),
            running.address,
            text("/login/username"),
            text("/login/salt"),
            text("/login/md5"),
            body.len(),
        )
        .into_bytes();
        request.extend_from_slice(&body);
        for again in ["", " again"] {
            let answer = exchange_as_is(running.address, &request, PATIENCE);
            let status = answer.get(9..12).unwrap_or_default().to_vec();
            let want: &[u8] = match at % 10 {
                2 | 4 | 8 => b"400",
                3 => b"415",
                5 => b"401",
                6 => b"413",
                _ => b"200",
            };
            assert_eq!(status, want, "request {at}{again}");
            taken += u32::from(status == b"200");
            material.add(format!("answer to request {at}{again}"), answer);
        }
    }
    assert!(taken > 20, "only {taken} requests were taken");
    let status = running.wait_for("/api/v1/status", |status| {
        status["ledger"]["source"]["published"].as_u64() > Some(LINES / 6)
    });
    assert_balanced(&status["ledger"]);
    assert!(status["ledger"]["source"]["rejected"].as_u64() > Some(LINES / 20));
    material.routes(running.address);
    material.folder("posted live", &place.data());
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "it did not end well");
    material.add("stderr of requests", said.join("\n").into_bytes());
    material.folder("posted", &place.data());
    material.commands(&place, &pipeline, &[]);
}

/// The record's line, in every second case with undeclared values where declared ones belong.
fn damage(index: usize, mut record: Value) -> Vec<u8> {
    let phone = record["phone"].clone();
    let local = record["email"]
        .as_str()
        .unwrap()
        .split('@')
        .next()
        .unwrap()
        .to_owned();
    match index % 20 {
        1 => record["dob"]["age"] = phone.clone(),
        3 => record["nat"] = json!([phone]),
        5 => record["email"] = json!({ "address": record["email"] }),
        7 => record["email"] = json!(local),
        11 => record["dob"] = phone.clone(),
        13 => record["gender"] = json!({ "is": record["login"] }),
        _ => {}
    }
    let mut line = serde_json::to_vec(&record).unwrap();
    match index % 20 {
        // Digits that an age cannot have, in a number that fits and in one that does not.
        9 => {
            let most = if index % 40 == 9 { 12 } else { usize::MAX };
            let digits = phone.as_str().unwrap().chars();
            let digits = digits.filter(char::is_ascii_digit).take(most);
            let age = format!("\"age\":{}", record["dob"]["age"]);
            let long = format!("\"age\":{}", digits.collect::<String>());
            line = String::from_utf8(line)
                .unwrap()
                .replacen(&age, &long, 1)
                .into_bytes();
        }
        15 => line.truncate(line.len() * 6 / 10),
        NOT_UTF8 => line.insert(line.len() / 2, 0xff),
        17 => line = [b"[".as_slice(), &line, b"]"].concat(),
        18 => line = serde_json::to_vec(&record["login"]["username"]).unwrap(),
        19 => line = [b"{\"a\":".repeat(2000), line, b"}".repeat(2000)].concat(),
        _ => {}
    }
    line
}

impl Material {
    fn routes(&mut self, address: SocketAddr) {
        for path in [
            "/",
            "/api/v1/views",
            "/api/v1/views/users_by_nationality",
            "/api/v1/views/users_by_nationality?format=csv",
            "/api/v1/views/average_age",
            "/api/v1/views/average_age?format=csv",
            "/api/v1/views/email_domains",
            "/api/v1/views/email_domains?format=csv",
            "/api/v1/views/users",
            "/api/v1/views/users?format=csv",
            "/api/v1/views/records",
            "/api/v1/views/email_domains?limit=x",
            "/api/v1/status",
            "/api/v1/privacy",
            "/metrics",
            "/readyz",
            "/healthz",
            "/nothing/here",
            "/assets/nothing.js",
        ] {
            self.exchange(address, "GET", path);
        }
        self.exchange(address, "POST", "/api/v1/status");
    }

    fn exchange(&mut self, address: SocketAddr, method: &str, path: &str) {
        let answer = exchange(address, method, path, PATIENCE);
        assert!(
            answer.starts_with(b"HTTP/1.1 "),
            "{method} {path} has no answer"
        );
        self.add(format!("{method} {path}"), answer);
    }

    /// Runs falaj to its end; keeps what it says and gives its stdout.
    fn output<S: AsRef<std::ffi::OsStr>>(
        &mut self,
        name: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Vec<u8> {
        let output = falaj(args).output().expect("the binary starts");
        self.add(format!("stderr of {name}"), output.stderr);
        self.add(format!("stdout of {name}"), output.stdout.clone());
        output.stdout
    }

    /// What the commands about a pipeline print.
    fn commands(&mut self, place: &Workplace, pipeline: &Path, tapped: &[&str]) {
        let (pipeline, data) = (
            pipeline.display().to_string(),
            place.data().display().to_string(),
        );
        let common = [&pipeline, "--data-dir", &data, "--log", "trace"];
        for command in [
            ["check"].as_slice(),
            &["check", "--json"],
            &["rejects", "list"],
        ] {
            self.output(&command.join(" "), command.iter().chain(&common));
        }
        self.output(
            "rejects list --json",
            ["rejects", "list", "--json"].iter().chain(&common),
        );
        for at in ["topic", "users", "average_age", "email_domains", "nothing"] {
            for format in [["--at", at].as_slice(), &["--at", at, "--json"]] {
                let name = format!("tap {}", format.join(" "));
                // Where it follows a running falaj, a view with few rows would not end it.
                let few = ["--limit", "1"];
                let limit = match tapped {
                    [] => tapped,
                    _ if at == "topic" || at == "users" => tapped,
                    _ => few.as_slice(),
                };
                let shown = ["tap"].iter().chain(&common).chain(format).chain(limit);
                let shown = self.output(&name, shown);
                assert_eq!(shown.is_empty(), at == "nothing", "{name}");
            }
        }
    }
}

/// An answer as it lies on the wire, or what came of it within `time`.
fn exchange(address: SocketAddr, method: &str, path: &str, time: Duration) -> Vec<u8> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    exchange_as_is(address, request.as_bytes(), time)
}

/// As [`exchange`], for a request as it is.
fn exchange_as_is(address: SocketAddr, request: &[u8], time: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the page is served");
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    stream.write_all(request).expect("the request is sent");
    let (deadline, mut answer, mut part) = (Instant::now() + time, Vec::new(), vec![0; 64 << 10]);
    while Instant::now() < deadline {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&part[..n]),
            // Nothing within the timeout; the deadline decides.
            Err(_) => {}
        }
    }
    answer
}

/// Paths of the files that the page names.
fn assets(page: &str) -> Vec<String> {
    let names: Vec<String> = page
        .split('"')
        .filter(|part| part.trim_start_matches('/').starts_with("assets/"))
        .map(|part| format!("/{}", part.trim_start_matches('/')))
        .collect();
    assert!(!names.is_empty(), "the page names no file");
    names
}
