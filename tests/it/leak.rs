//! The leak test: people whose every value can be recognised again go through the running binary,
//! with faults, damaged records and everything logged; then every byte it wrote or answered is
//! searched for what no field declares, and for the part of the address before the `@`.
//!
//! Always: a failure names the field, its writing and the place, never the value.
//! Always: the same search must find what is planted into the same material, else it shows nothing.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use falaj_randomuser::{
    Canary, Options, Query, ServerConfig, Version, canaries, drawn_seed, serve, write_records,
};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::Sha256;

use crate::harness::{PATIENCE, Running, Workplace, assert_balanced, falaj};

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
/// How long the stream of changes is read.
const EVENTS: Duration = Duration::from_secs(5);

#[test]
fn nothing_undeclared_is_found_in_anything_that_falaj_writes_or_answers() {
    let mut material = Material::default();
    let mut sought = Sought::default();
    polled(&mut material, &mut sought);
    damaged(&mut material, &mut sought);
    posted(&mut material, &mut sought);
    sought.ready();
    let bytes: usize = material.0.iter().map(|(_, bytes)| bytes.len()).sum();
    eprintln!(
        "{} values in {} writings, sought in {} places of {bytes} bytes together",
        sought.tokens.len(),
        sought.patterns.len(),
        material.0.len(),
    );

    let found = sought.found_in(&material);
    assert!(found.is_empty(), "undeclared values are found: {found:#?}");

    let planted = plant(&mut material, &sought.sample);
    let found = sought.found_in(&material);
    let missed: Vec<_> = planted.difference(&found).collect();
    assert!(missed.is_empty(), "planted, but not found: {missed:#?}");
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

/// Everything that was written or answered, each with its place.
#[derive(Default)]
struct Material(Vec<(String, Vec<u8>)>);

impl Material {
    fn add(&mut self, place: impl Into<String>, bytes: Vec<u8>) {
        self.0.push((place.into(), bytes));
    }

    /// Every file below `folder`.
    fn folder(&mut self, name: &str, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{name}/{}", path.file_name().unwrap().to_string_lossy());
            if path.is_dir() {
                self.folder(&name, &path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                // A file may be gone again while falaj runs.
                self.add(name, bytes);
            }
        }
    }

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

/// Bytes that decide whether a place is looked at closely: the shortest writing has as many.
const PREFIX: usize = 15;
const FILTER_BITS: u32 = 27;
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Undeclared values in all their writings.
#[derive(Default)]
struct Sought {
    tokens: Vec<Canary>,
    /// One person's tokens and whole values, for planting.
    sample: Vec<(Canary, String)>,
    bytes: Vec<u8>,
    patterns: Vec<Pattern>,
    /// Hash of the beginning and place in `patterns`, sorted.
    index: Vec<(u64, u32)>,
    filter: Vec<u64>,
}

struct Pattern {
    start: usize,
    len: usize,
    token: usize,
    writing: &'static str,
}

impl Sought {
    /// Seeks the first `count` people of `query`, and gives their records.
    fn people(&mut self, query: &Query, count: u64) -> Vec<Value> {
        let options = Options {
            canary: true,
            ..Options::default()
        };
        let mut lines = Vec::new();
        write_records(&mut lines, count, query, &options, SystemTime::now()).unwrap();
        let records: Vec<Value> = lines
            .split(|b| *b == b'\n')
            .filter_map(|l| serde_json::from_slice(l).ok())
            .collect();
        assert_eq!(records.len() as u64, count);
        for (index, record) in (0..).zip(&records) {
            let person = canaries(query, index);
            assert!(
                person
                    .iter()
                    .any(|c| c.field == "email" && !c.token.contains('@'))
            );
            for canary in person {
                let pointer = format!("/{}", canary.field.replace('.', "/"));
                let whole = match record.pointer(&pointer).expect("a record has all fields") {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                self.seek(&canary, &whole);
                if self.sample.iter().all(|(c, _)| c.field != canary.field) {
                    self.sample.push((canary, whole));
                }
            }
        }
        records
    }

    fn seek(&mut self, canary: &Canary, whole: &str) {
        let token = self.tokens.len();
        for (writing, pattern) in writings(&canary.token, whole) {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&pattern);
            self.patterns.push(Pattern {
                start,
                len: pattern.len(),
                token,
                writing,
            });
        }
        self.tokens.push(canary.clone());
    }

    fn ready(&mut self) {
        self.filter = vec![0; 1 << (FILTER_BITS - 6)];
        for (at, pattern) in (0..).zip(&self.patterns) {
            let hash = self.bytes[pattern.start..][..PREFIX]
                .iter()
                .fold(0, |h, b| roll(h, *b, 0));
            let (word, bit) = slot(hash);
            self.filter[word] |= bit;
            self.index.push((hash, at));
        }
        self.index.sort_unstable();
    }

    /// Where what is found: once as it lies there, once with its escapes taken away.
    fn found_in(&self, material: &Material) -> BTreeSet<(String, &'static str, String)> {
        let mut found = BTreeSet::new();
        for (place, bytes) in &material.0 {
            for hay in [bytes, &unescaped(bytes)] {
                self.search(hay, |pattern| {
                    let field = self.tokens[pattern.token].field.clone();
                    found.insert((field, pattern.writing, place.clone()));
                });
            }
        }
        found
    }

    fn search(&self, hay: &[u8], mut hit: impl FnMut(&Pattern)) {
        let mut hash = 0;
        for (at, byte) in hay.iter().enumerate() {
            let leaves = at.checked_sub(PREFIX).map_or(0, |gone| hay[gone]);
            hash = roll(hash, *byte, leaves);
            let (word, bit) = slot(hash);
            if at + 1 < PREFIX || self.filter[word] & bit == 0 {
                continue;
            }
            let from = at + 1 - PREFIX;
            let first = self.index.partition_point(|(h, _)| *h < hash);
            for (_, number) in self.index[first..].iter().take_while(|(h, _)| *h == hash) {
                let pattern = &self.patterns[*number as usize];
                let bytes = &self.bytes[pattern.start..][..pattern.len];
                if hay
                    .get(from..from + pattern.len)
                    .is_some_and(|h| h.eq_ignore_ascii_case(bytes))
                {
                    hit(pattern);
                }
            }
        }
    }
}

/// A hash of the last [`PREFIX`] bytes, upper and lower case alike.
#[expect(clippy::cast_possible_truncation, reason = "a prefix has a few bytes")]
fn roll(hash: u64, enters: u8, leaves: u8) -> u64 {
    const LAST: u64 = STEP.wrapping_pow(PREFIX as u32);
    hash.wrapping_mul(STEP)
        .wrapping_add(enters.to_ascii_lowercase().into())
        .wrapping_sub(LAST.wrapping_mul(leaves.to_ascii_lowercase().into()))
}

/// The place of a hash in the filter.
fn slot(hash: u64) -> (usize, u64) {
    let place = (hash ^ (hash >> 32)).wrapping_mul(STEP) >> (64 - FILTER_BITS);
    (
        usize::try_from(place >> 6).expect("27 bits"),
        1 << (place & 63),
    )
}

/// How a value can be written down. What has escapes is found after [`unescaped`].
fn writings(token: &str, whole: &str) -> HashSet<(&'static str, Vec<u8>)> {
    let mut all = HashSet::from([("raw", token.as_bytes().to_vec()), ("hex", hex(token))]);
    for before in 0..3 {
        // The characters that hold bits of the token only.
        let text = base64(&[vec![0; before], token.as_bytes().to_vec()].concat());
        let inside = (before * 8).div_ceil(6)..(before + token.len()) * 8 / 6;
        all.insert(("base64", text[inside].to_vec()));
    }
    for value in [token, whole] {
        for (name, digest) in digests(value) {
            all.insert((name, hex(&digest)));
            all.insert((name, digest));
        }
    }
    all
}

fn digests(value: &str) -> [(&'static str, Vec<u8>); 3] {
    [
        ("MD5", Md5::digest(value).to_vec()),
        ("SHA-1", Sha1::digest(value).to_vec()),
        ("SHA-256", Sha256::digest(value).to_vec()),
    ]
}

fn hex(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    bytes
        .as_ref()
        .iter()
        .flat_map(|b| format!("{b:02x}").into_bytes())
        .collect()
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for three in bytes.chunks(3) {
        let word = (0..3).fold(0, |w, i| {
            w << 8 | usize::from(three.get(i).copied().unwrap_or(0))
        });
        text.extend((0..=three.len()).map(|i| ALPHABET[word >> (18 - 6 * i) & 63]));
    }
    text
}

/// With `%41`, `\u0041` and `\/` as the characters they stand for.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let digits = match rest {
            [b'%', high, low, ..] | [b'\\', b'u' | b'U', b'0', b'0', high, low, ..] => {
                Some([*high, *low])
            }
            _ => None,
        };
        let value = digits.and_then(|d| {
            let text = std::str::from_utf8(&d).ok()?.to_owned();
            u8::from_str_radix(&text, 16).ok()
        });
        let (then, byte) = match (value, first) {
            (Some(value), b'%') => (&rest[3..], value),
            (Some(value), _) => (&rest[6..], value),
            (None, b'\\') if after.first() == Some(&b'/') => (&after[1..], b'/'),
            _ => (after, *first),
        };
        plain.push(byte);
        rest = then;
    }
    plain
}

/// Writes every value of one person in every writing into the middle of the material, and gives what
/// has to be found.
fn plant(
    material: &mut Material,
    sample: &[(Canary, String)],
) -> BTreeSet<(String, &'static str, String)> {
    let mut planted = BTreeSet::new();
    let places = material.0.len();
    let (mut seeds, mut count) = (vec![Vec::new(); places], 0);
    for (canary, whole) in sample {
        let token = canary.token.as_str();
        let escaped = |each: fn(u8) -> String| token.bytes().map(each).collect::<String>();
        let mut forms: Vec<(&str, Vec<u8>)> = vec![
            ("raw", token.into()),
            ("raw", token.to_uppercase().into()),
            ("raw", escaped(|b| format!("\\u{b:04x}")).into()),
            ("raw", escaped(|b| format!("%{b:02X}")).into()),
            ("hex", hex(token)),
            ("hex", hex(token).to_ascii_uppercase()),
        ];
        for before in ["", "x", "xy"] {
            forms.push((
                "base64",
                base64(format!("{before}{token} and more").as_bytes()),
            ));
        }
        for value in [token, whole] {
            for (name, digest) in digests(value) {
                forms.extend([(name, hex(&digest)), (name, digest)]);
            }
        }
        for (writing, form) in forms {
            let at = count * 7 % places;
            seeds[at].extend(form);
            // Escapes and tokens of neighbours must not run into each other.
            seeds[at].push(b'\n');
            planted.insert((canary.field.clone(), writing, material.0[at].0.clone()));
            count += 1;
        }
    }
    for ((_, bytes), seeds) in material.0.iter_mut().zip(seeds) {
        let middle = bytes.len() / 2;
        bytes.splice(middle..middle, [b"\n".as_slice(), &seeds].concat());
    }
    planted
}
