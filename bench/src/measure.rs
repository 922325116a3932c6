//! What a piece of work costs: time, CPU time of this process, and its peak memory.

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
            cpu_s: cpu_s(Whose::Own),
        }
    }

    pub fn stop(self) -> Cost {
        Cost {
            wall_s: self.start.elapsed().as_secs_f64(),
            cpu_s: cpu_s(Whose::Own) - self.cpu_s,
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

/// User and system time in seconds; Linux counts hundredths.
pub fn cpu_s(whose: Whose) -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("the system is Linux");
    let (_, rest) = stat.rsplit_once(") ").expect("the name stands in brackets");
    // Behind the name: `utime` and `stime` are numbers 11 and 12, those of children come next.
    let skipped = match whose {
        Whose::Own => 11,
        Whose::Children => 13,
    };
    let ticks = rest.split(' ').skip(skipped).take(2);
    ticks
        .map(|tick| tick.parse::<f64>().expect("a number"))
        .sum::<f64>()
        / 100.0
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
