//! Running the binary: temporary pipelines, a small HTTP client, processes that end with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything; reached only when something is broken.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Whether the long runs are asked for; see `CONTRIBUTING.md`.
pub fn long() -> bool {
    std::env::var_os("FALAJ_LONG").is_some_and(|long| long == "1")
}

/// The binary under test.
pub fn falaj<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(args: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_falaj"));
    command
        .args(args)
        .env_remove("FALAJ_LOG")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn output<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(args: I) -> Output {
    falaj(args).output().expect("the binary starts")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8")
}

/// Where the repository is.
pub fn repository() -> &'static Path {
    Path::new(env!("FALAJ_CHECKOUT"))
}

/// Recorded replies of the Random User API, where there are any on this machine.
pub fn samples() -> Option<PathBuf> {
    let folder = std::env::var_os("FALAJ_SAMPLES").map_or_else(
        || repository().join("../shared/data/random-users"),
        PathBuf::from,
    );
    let file = folder.join("records.ndjson");
    if file.is_file() {
        return Some(file);
    }
    eprintln!(
        "SKIPPED: no recorded replies in `{}` (set FALAJ_SAMPLES)",
        folder.display()
    );
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "CI must not skip this test"
    );
    None
}

/// A pipeline in a folder of its own, gone with the test.
pub struct Workplace {
    folder: tempfile::TempDir,
}

impl Workplace {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub fn sqlite(&self) -> PathBuf {
        self.data().join("views.sqlite")
    }

    /// Writes the example's pipeline with `source` (TOML) in place of its own source.
    pub fn pipeline(&self, source: &str) -> PathBuf {
        let example =
            std::fs::read_to_string(repository().join("examples/random-users/falaj.toml"))
                .expect("the example is there");
        let start = example.find("[source.http]").expect("the example's source");
        let end = example.find("[topic]").expect("the example's topic");
        let text = format!("{}{source}\n\n{}", &example[..start], &example[end..]);
        self.write("falaj.toml", text.as_bytes())
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("the temporary folder can be written");
        path
    }

    /// `falaj run PIPELINE --data-dir .. --listen 127.0.0.1:0 ARGS`.
    pub fn run_args(&self, pipeline: &Path, args: &[&str]) -> Vec<String> {
        let mut all = vec![
            "run".to_owned(),
            pipeline.display().to_string(),
            "--data-dir".to_owned(),
            self.data().display().to_string(),
            "--listen".to_owned(),
            "127.0.0.1:0".to_owned(),
        ];
        all.extend(args.iter().map(|a| (*a).to_owned()));
        all
    }

    /// Runs a finite pipeline to its end and gives the ledger.
    pub fn run_to_end(&self, pipeline: &Path, args: &[&str]) -> Value {
        let mut args: Vec<&str> = args.to_vec();
        args.push("--until-caught-up");
        let output = output(self.run_args(pipeline, &args));
        assert!(output.status.success(), "{}", stderr(&output));
        let text = stdout(&output);
        serde_json::from_str(text.lines().last().expect("a last line")).expect("the ledger")
    }

    /// The newest checkpoint; positions and counts are JSON in it.
    pub fn newest_checkpoint(&self) -> String {
        let files = std::fs::read_dir(self.data().join("checkpoints")).expect("checkpoints");
        let newest = files.map(|file| file.unwrap().path()).max();
        let bytes = std::fs::read(newest.expect("a checkpoint")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What `tap --at topic --json` prints for a pipeline that is not running.
    pub fn tap(&self, pipeline: &Path) -> PathBuf {
        let data = self.data().display().to_string();
        let pipeline = pipeline.display().to_string();
        let tapped = output([
            "tap",
            &pipeline,
            "--at",
            "topic",
            "--json",
            "--data-dir",
            &data,
        ]);
        assert!(tapped.status.success(), "{}", stderr(&tapped));
        self.write("tap.jsonl", &tapped.stdout)
    }

    /// Compares all views of the example with an independent computation.
    pub fn compare(&self, records: &Path, tap: &Path) {
        compare(records, tap, &self.sqlite());
    }
}

/// Compares all views of the example, in the SQLite file `store`, with an independent computation.
pub fn compare(records: &Path, tap: &Path, store: &Path) {
    compare_stores(
        Command::new("python3").arg("-B"),
        records,
        tap,
        &[store.display().to_string()],
    );
}

/// As [`compare`], of several stores; `python` has their drivers.
pub fn compare_stores(python: &mut Command, records: &Path, tap: &Path, stores: &[String]) {
    let compared = python
        .arg(repository().join("tests/independent.py"))
        .args([records, tap])
        .args(stores)
        .output()
        .expect("python3 is there");
    let said = format!("{}{}", stdout(&compared), stderr(&compared));
    assert!(compared.status.success(), "{said}");
    eprintln!("{said}");
}

/// A falaj that runs until the test ends it.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    pub address: SocketAddr,
    /// What it wrote to stderr until its address was known.
    pub said: Vec<String>,
}

impl Running {
    /// Starts it and waits until it says where its page is.
    pub fn start(args: &[String]) -> Self {
        Self::start_into(args, Stdio::null())
    }

    /// As [`Running::start`], with its stdout kept.
    pub fn start_into(args: &[String], stdout: Stdio) -> Self {
        let mut child = falaj(args)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut said = Vec::new();
        let address = loop {
            let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("no dashboard line; it said: {said:?}");
            });
            let address = line
                .strip_prefix("dashboard: http://")
                .and_then(|a| a.trim_end_matches('/').parse().ok());
            said.push(line);
            if let Some(address) = address {
                break address;
            }
        };
        Self {
            child,
            lines,
            address,
            said,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What follows `prefix` in the next line on stderr that begins with it.
    pub fn told(&self, prefix: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("no line `{prefix}..`"));
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
    }

    /// Body of `GET path`, as JSON.
    pub fn json(&self, path: &str) -> Value {
        let reply = get(self.address, path);
        serde_json::from_str(&reply.body).unwrap_or_else(|e| panic!("{path}: {e}: {}", reply.body))
    }

    pub fn get(&self, path: &str) -> Reply {
        get(self.address, path)
    }

    /// Asks for `path` until `enough` says so.
    pub fn wait_for(&self, path: &str, enough: impl Fn(&Value) -> bool) -> Value {
        self.wait_longer_for(path, PATIENCE, enough)
    }

    /// As [`Running::wait_for`], for what takes its time.
    pub fn wait_longer_for(
        &self,
        path: &str,
        patience: Duration,
        enough: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + patience;
        loop {
            let value = self.json(path);
            if enough(&value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{path} stays at {value}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGTERM, then everything else it said and its exit code.
    pub fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        let pid = self.pid().to_string();
        let killed = Command::new("kill")
            .arg(&pid)
            .status()
            .expect("`kill` is there");
        assert!(killed.success());
        let deadline = Instant::now() + PATIENCE;
        let code = loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                break status.code();
            }
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut said = std::mem::take(&mut self.said);
        said.extend(self.lines.iter());
        (code, said)
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP reply.
pub struct Reply {
    pub status: u16,
    pub body: String,
}

/// `GET path`, the connection closed afterwards.
pub fn get(address: SocketAddr, path: &str) -> Reply {
    let mut stream = TcpStream::connect(address).expect("the page is served");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .expect("the request is sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the reply is read");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head[9..12].parse().expect("a status");
    Reply {
        status,
        body: body.to_owned(),
    }
}

/// `POST /ingest`; nothing where the connection does not hold.
pub fn post(address: SocketAddr, headers: &[(&str, &str)], body: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let length = body.len();
    let mut request = format!(
        "POST /ingest HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n"
    )
    .into_bytes();
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").expect("memory takes it");
    }
    request.extend(b"\r\n");
    stream.write_all(&request).ok()?;
    stream.write_all(body).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(Reply {
        status: head.get(9..12)?.parse().ok()?,
        body: body.to_owned(),
    })
}

/// Checks the ledger's equations.
pub fn assert_balanced(ledger: &Value) {
    let n = |v: &Value| v.as_u64().unwrap_or_else(|| panic!("no count in {ledger}"));
    let (s, t) = (&ledger["source"], &ledger["topic"]);
    assert_eq!(
        n(&s["in"]),
        n(&s["published"]) + n(&s["rejected"]) + n(&s["withheld"]),
        "{ledger}"
    );
    assert_eq!(
        n(&t["read"]),
        n(&t["out"]) + n(&t["rejected"]) + n(&t["duplicate"]),
        "{ledger}"
    );
    for (name, v) in ledger["views"].as_object().expect("views") {
        let sum = n(&v["applied"]) + n(&v["filtered"]) + n(&v["late"]);
        assert_eq!(n(&t["out"]), sum, "view `{name}` in {ledger}");
    }
}

/// A small generator, so that a failing round can be repeated: set `FALAJ_SEED` to what it printed.
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Self {
        let seed = std::env::var("FALAJ_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                u64::try_from(now.unwrap().as_nanos() % u128::from(u64::MAX)).unwrap() | 1
            });
        eprintln!("FALAJ_SEED={seed}");
        Self(seed)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
