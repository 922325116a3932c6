//! The version clock: microseconds that only grow, over restarts too.
//!
//! Always: a version is larger than every version given before, whatever the system clock does.
//! Versions order the writes of a key in every store, so a repeated or smaller one would let an
//! old row win. A ceiling is reserved on disk (with fsync) before any version up to it is given.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::state::State;

/// How far ahead a reservation reaches. A crash skips at most this much.
const RESERVED_US: i64 = 60_000_000;

/// What the ceiling is kept under.
const NAME: &str = "clock";

/// Gives versions; one owner per place of state.
#[derive(Debug)]
pub struct VersionClock {
    state: Arc<State>,
    last: i64,
    ceiling: i64,
}

impl VersionClock {
    /// Opens the clock whose ceiling is kept in `state`.
    ///
    /// # Errors
    /// Where it cannot be read, or is no number.
    pub fn open(state: Arc<State>) -> io::Result<Self> {
        let last = read(&state)?;
        Ok(Self {
            state,
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
            if self.ceiling != 0 && read(&self.state)? != self.ceiling {
                return Err(io::Error::other(
                    "another falaj has reserved versions since",
                ));
            }
            let ceiling = version + RESERVED_US;
            self.state
                .write(NAME, format!("{ceiling}\n").into_bytes())?;
            self.ceiling = ceiling;
        }
        self.last = version;
        Ok(version)
    }
}

/// A clock that several tasks take versions from.
#[derive(Debug, Clone)]
pub struct SharedClock(Arc<Mutex<VersionClock>>);

impl SharedClock {
    pub fn new(clock: VersionClock) -> Self {
        Self(Arc::new(Mutex::new(clock)))
    }

    /// The next version.
    ///
    /// # Errors
    /// As [`VersionClock::next`].
    pub fn next(&self) -> io::Result<i64> {
        let mut clock = self.0.lock();
        clock.next()
    }
}

/// The ceiling that is kept; 0 where there is none yet.
fn read(state: &State) -> io::Result<i64> {
    match state.read(NAME)? {
        Some(bytes) => std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the clock holds no number")),
        None => Ok(0),
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
        let state = Arc::new(State::Folder(dir.path().to_owned()));
        let mut clock = VersionClock::open(Arc::clone(&state)).unwrap();
        let a = clock.next_at(1_000).unwrap();
        let b = clock.next_at(500).unwrap();
        assert_eq!((a, b), (1_000, 1_001));
        let mut again = VersionClock::open(state).unwrap();
        assert!(
            again.next_at(600).unwrap() > b,
            "a version was given twice after a restart"
        );
    }

    #[test]
    fn a_ceiling_that_cannot_be_written_gives_no_version() {
        let dir = tempfile::tempdir().unwrap();
        let missing = State::Folder(dir.path().join("missing"));
        let mut clock = VersionClock::open(Arc::new(missing)).unwrap();
        assert!(clock.next().is_err());
    }

    #[test]
    fn who_was_overtaken_reserves_no_more_versions() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::Folder(dir.path().to_owned()));
        let mut paused = VersionClock::open(Arc::clone(&state)).unwrap();
        let last = paused.next_at(1_000).unwrap();
        let mut active = VersionClock::open(state).unwrap();
        assert!(active.next_at(1_000).unwrap() > last + RESERVED_US - 1);
        assert!(paused.next_at(1_000 + 2 * RESERVED_US).is_err());
    }
}
