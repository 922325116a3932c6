//! One process that was started in a folder, its guard, and what the system says about it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::tool::script;

/// Below what Linux gives to outgoing connections (32768 and above): a port of ours is not taken
/// by one while its server is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A folder with the server that was started in it.
#[derive(Debug)]
pub(crate) struct Server {
    folder: PathBuf,
    guard: Child,
    /// Closing it ends the server.
    lifeline: Option<ChildStdin>,
}

impl Server {
    /// A new folder within another one, else among the system's temporary files, guarded from now
    /// on.
    pub(crate) fn new(name: &str, within: Option<&Path>) -> Self {
        let within = within.map_or_else(std::env::temp_dir, Path::to_owned);
        let folder = tempfile::Builder::new()
            .prefix(&format!("falaj-{name}-"))
            .tempdir_in(within)
            .expect("a temporary folder")
            .keep();
        // A session of its own: what ends the tests as a group must not end it.
        let mut guard = Command::new("setsid")
            .arg(script("guard.sh").get_program())
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("setsid is there");
        let lifeline = guard.stdin.take();
        Self {
            folder,
            guard,
            lifeline,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends the server and waits until it is gone.
    pub(crate) fn stop(&self, signal: &str) {
        let stopped = script("stop.sh")
            .arg(&self.folder)
            .arg(signal)
            .status()
            .expect("bash is there");
        assert!(stopped.success(), "the server does not stop");
    }

    /// Sends a signal without waiting for anything.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .expect("`kill` is there");
        assert!(sent.success(), "the server is not there");
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.folder.join("pid")).expect("it was started");
        let mut words = text.split_whitespace();
        let pid = words.next().and_then(|w| w.parse().ok());
        let start = words.next().map(str::to_owned);
        let pid: u32 = pid.expect("a process id");
        assert_eq!(fields(pid).get(19).cloned(), start, "it has ended");
        pid
    }

    /// Most memory it has held so far, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the system says");
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|line| line.split_whitespace().next())
            .and_then(|kib| kib.parse::<u64>().ok());
        peak.expect("a peak in KiB") * 1024
    }

    /// Processor time it has used so far.
    pub(crate) fn cpu(&self) -> Duration {
        // User and system time, in the ticks of 10 ms that Linux reports in.
        let fields = fields(self.pid());
        let ticks = fields[11..13].iter().map(|f| f.parse::<u64>());
        Duration::from_millis(10 * ticks.map(|t| t.expect("a count")).sum::<u64>())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lifeline.take();
        let _ = self.guard.wait();
    }
}

/// The fields of `/proc/PID/stat` from the third (the state) on; none when there is no such process.
fn fields(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold blanks and parentheses: the fields start behind the last one.
    let rest = text.rsplit(')').next().unwrap_or_default();
    rest.split_whitespace().map(str::to_owned).collect()
}

/// `N` ports of 127.0.0.1 on which nobody listens.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until the last is found, so that none comes twice.
    let held: [TcpListener; N] = std::array::from_fn(|_| {
        std::iter::repeat_with(|| TcpListener::bind(("127.0.0.1", fastrand::u16(PORTS))))
            .take(1_000)
            .find_map(Result::ok)
            .expect("a free port")
    });
    held.map(|listener| listener.local_addr().expect("it is bound").port())
}
