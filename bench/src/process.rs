//! The binary, run as a person runs it.
//!
//! Always: what is started ends with the value that holds it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use falaj_record::Ledger;

use crate::example::{KEY, Pipeline};
use crate::measure::{Cost, Whose, cpu_s, peak_mb};

/// How often a running process is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How often what it wrote is looked at.
const READ: Duration = Duration::from_millis(50);

/// `falaj`, which `bench/run` built beside this program.
pub fn falaj() -> Command {
    let own = std::env::current_exe().expect("it is there");
    Command::new(own.with_file_name("falaj"))
}

/// A falaj that runs a pipeline.
pub struct Running {
    child: Child,
    peak_mb: f64,
    start: Instant,
    before_s: f64,
}

impl Running {
    /// Runs a pipeline in `folder`, with its page on a free port.
    pub fn start(pipeline: &Pipeline, folder: &Path, options: &[&str]) -> Self {
        let file = folder.join("falaj.toml");
        fs::write(&file, pipeline.text()).expect("there is room");
        let (start, before_s) = (Instant::now(), cpu_s("self", Whose::Children));
        let child = falaj()
            .arg("run")
            .arg(file)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`bench/run` built falaj");
        Self {
            child,
            peak_mb: 0.0,
            start,
            before_s,
        }
    }

    /// Waits until `done`, and asks it to end.
    pub fn until(&mut self, done: impl Fn() -> bool) {
        while !done() {
            assert!(self.look().is_none(), "falaj ended before its time");
            std::thread::sleep(READ);
        }
        ask_to_end(&self.child);
    }

    fn look(&mut self) -> Option<ExitStatus> {
        let now = peak_mb(&self.child.id().to_string()).unwrap_or(0.0);
        self.peak_mb = self.peak_mb.max(now);
        self.child.try_wait().expect("it is our child")
    }

    /// What it took until its end, and what it said on stdout.
    pub fn ended(mut self) -> (Cost, String) {
        let status = loop {
            match self.look() {
                Some(status) => break status,
                None => std::thread::sleep(LOOK),
            }
        };
        let cost = Cost {
            wall_s: self.start.elapsed().as_secs_f64(),
            cpu_s: cpu_s("self", Whose::Children) - self.before_s,
            peak_mb: self.peak_mb,
        };
        assert!(status.success(), "falaj failed");
        let stdout = self.child.stdout.take().expect("piped");
        (cost, std::io::read_to_string(stdout).expect("UTF-8"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// The ledger that a finite run ends with.
pub fn ledger(stdout: &str) -> Ledger {
    serde_json::from_str(stdout.lines().last().expect("a ledger")).expect("a ledger")
}

/// The key file of a pipeline over a topic that [`crate::example::Example`] cleared.
pub fn key_file(folder: &Path) -> PathBuf {
    let path = folder.join("key");
    let digits = KEY.map(|byte| format!("{byte:02x}")).concat();
    fs::write(&path, digits).expect("there is room");
    path
}

/// `falaj broker` on a free port.
pub struct BrokerProcess {
    child: Child,
    address: String,
    /// Where it goes on to say what it has to say.
    _said: BufReader<ChildStderr>,
}

impl BrokerProcess {
    pub fn start(folder: &Path) -> Self {
        let mut child = falaj()
            .args(["broker", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`bench/run` built falaj");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let address = said
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("kafka: ").map(str::to_owned));
        Self {
            child,
            address: address.expect("it says where it listens"),
            _said: said,
        }
    }

    pub fn brokers(&self) -> &str {
        &self.address
    }

    pub fn process(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// SIGTERM.
fn ask_to_end(child: &Child) {
    let asked = Command::new("kill").arg(child.id().to_string()).status();
    assert!(asked.is_ok_and(|s| s.success()), "falaj is not there");
}

/// Ends a process that may have ended.
fn end(child: &mut Child) {
    // Where it has ended and was waited for, both do nothing.
    let _ = child.kill();
    let _ = child.wait();
}
