//! What a piece of work costs: time, CPU time and peak memory of a process.

use std::fs;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What one run of a scenario took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cost {
    pub wall_s: f64,
    pub cpu_s: f64,
    pub peak_mb: f64,
}

/// Started just before the measured part.
pub struct Meter {
    start: Instant,
    cpu_s: f64,
}

impl Meter {
    pub fn start() -> Self {
        // The peak of the preparation does not count; what it left in memory does.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self {
            start: Instant::now(),
            cpu_s: cpu_s("self", Whose::Own),
        }
    }

    pub fn stop(self) -> Cost {
        Cost {
            wall_s: self.start.elapsed().as_secs_f64(),
            cpu_s: cpu_s("self", Whose::Own) - self.cpu_s,
            peak_mb: peak_mb("self").expect("the system is Linux"),
        }
    }
}

/// Whose CPU time.
#[derive(Clone, Copy)]
pub enum Whose {
    Own,
    /// Of all child processes that ended and were waited for.
    Children,
}

/// User and system time of `process` in seconds; Linux counts hundredths.
pub fn cpu_s(process: &str, whose: Whose) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process is there");
    let (_, rest) = stat.rsplit_once(") ").expect("the name stands in brackets");
    // Behind the name: `utime` and `stime` are numbers 11 and 12, those of children come next.
    let skipped = match whose {
        Whose::Own => 11,
        Whose::Children => 13,
    };
    seconds(rest.split(' ').skip(skipped).take(2))
}

fn seconds<'a>(ticks: impl Iterator<Item = &'a str>) -> f64 {
    let ticks = ticks.map(|tick| tick.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}

/// How busy the machine was, beside what is measured.
pub struct Machine {
    start: Instant,
    busy_s: f64,
}

impl Machine {
    pub fn watch() -> Self {
        Self {
            start: Instant::now(),
            busy_s: busy_s(),
        }
    }

    /// The part of the machine's CPU time since then, in per cent, that others took: not this
    /// process, not its children, and not `servers_s` seconds of others that belong to it.
    pub fn others(&self, servers_s: f64) -> f64 {
        let own = cpu_s("self", Whose::Own) + cpu_s("self", Whose::Children) + servers_s;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        #[expect(
            clippy::cast_precision_loss,
            reason = "there are fewer than 2^52 cores"
        )]
        let there = self.start.elapsed().as_secs_f64() * cores as f64;
        ((busy_s() - self.busy_s - own) / there * 100.0).max(0.0)
    }
}

/// What all processes together used since the machine started.
fn busy_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("the system is Linux");
    let mut ticks = stat.lines().next().unwrap_or("").split_whitespace().skip(1);
    // user, nice, system; idle and iowait left out; irq, softirq, steal.
    let working = seconds(ticks.by_ref().take(3));
    working + seconds(ticks.skip(2).take(3))
}

/// The most memory that `process` held; `None` where it has ended.
pub fn peak_mb(process: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kb: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kb * 1024.0 / 1e6)
}
