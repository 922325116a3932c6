//! The version clock: microseconds that only grow, over restarts too.
//!
//! Always: a version is larger than every version given before, whatever the system clock does.
//! Versions order the writes of a key in every store, so a repeated or smaller one would let an
//! old row win. A ceiling is reserved on disk (with fsync) before any version up to it is given.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::data_dir::write_atomically;

/// How far ahead a reservation reaches. A crash skips at most this much.
const RESERVED_US: i64 = 60_000_000;

/// Gives versions; one owner per data directory.
#[derive(Debug)]
pub struct VersionClock {
    path: PathBuf,
    last: i64,
    ceiling: i64,
}

impl VersionClock {
    /// Opens the clock whose ceiling is kept in `path`.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no number.
    pub fn open(path: &Path) -> io::Result<Self> {
        let last = match std::fs::read_to_string(path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, "the file holds no number")
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(e),
        };
        Ok(Self {
            path: path.to_owned(),
            last,
            ceiling: last,
        })
    }

    /// The next version: `max(now, last + 1)`.
    ///
    /// # Errors
    /// Where a new ceiling cannot be written; no version is given then.
    pub fn next(&mut self) -> io::Result<i64> {
        self.next_at(now_us())
    }

    fn next_at(&mut self, now: i64) -> io::Result<i64> {
        let version = now.max(self.last + 1);
        if version > self.ceiling {
            let ceiling = version + RESERVED_US;
            write_atomically(&self.path, format!("{ceiling}\n").as_bytes())?;
            self.ceiling = ceiling;
        }
        self.last = version;
        Ok(version)
    }
}

/// Microseconds since 1970 by the system clock.
pub fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// Milliseconds since 1970 by the system clock.
pub fn now_ms() -> i64 {
    now_us() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_over_restarts_and_clocks_that_run_backwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let mut clock = VersionClock::open(&path).unwrap();
        let a = clock.next_at(1_000).unwrap();
        let b = clock.next_at(500).unwrap();
        assert_eq!((a, b), (1_000, 1_001));
        let mut again = VersionClock::open(&path).unwrap();
        assert!(
            again.next_at(600).unwrap() > b,
            "a version was given twice after a restart"
        );
    }

    #[test]
    fn a_ceiling_that_cannot_be_written_gives_no_version() {
        let dir = tempfile::tempdir().unwrap();
        let mut clock = VersionClock::open(&dir.path().join("missing/clock")).unwrap();
        assert!(clock.next().is_err());
    }
}
