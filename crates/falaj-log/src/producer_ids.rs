//! Ids for idempotent producers.
//!
//! Always: none is given twice, over crashes too. They are reserved on the disk by blocks before the
//! first of a block is given; what a crash leaves of a block is never used.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::LogError;
use crate::disk::replace;

/// No topic's name holds a `~`, so none is in the way.
const FILE: &str = "producers~.json";
const FORMAT: u32 = 1;

/// How many are reserved at once.
const BLOCK: i64 = 1000;

/// Content of the file.
#[derive(Serialize, Deserialize)]
struct Reserved {
    format: u32,
    /// All before it may have been given.
    next: i64,
}

pub(crate) struct ProducerIds {
    path: PathBuf,
    /// Reserved and not given yet; none before the first is asked for.
    left: Mutex<Option<Range<i64>>>,
}

impl ProducerIds {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            path: folder.join(FILE),
            left: Mutex::new(None),
        }
    }

    /// A new id. `seen` is the first that no partition knows of, asked for at the first call: so the
    /// loss of the file repeats none that is remembered.
    pub(crate) fn next(&self, seen: impl FnOnce() -> i64) -> Result<i64, LogError> {
        let mut left = self.left.lock();
        let mut ids = if let Some(ids) = left.take() {
            ids
        } else {
            let next = self.load()?.max(seen());
            next..next
        };
        if ids.is_empty() {
            *left = Some(ids.clone());
            let end = ids.end + BLOCK;
            let reserved = Reserved {
                format: FORMAT,
                next: end,
            };
            let text = serde_json::to_vec(&reserved).expect("numbers are always JSON");
            replace(&self.path, &text).map_err(LogError::files("write", &self.path))?;
            ids.end = end;
        }
        let id = ids.start;
        ids.start += 1;
        *left = Some(ids);
        Ok(id)
    }

    fn load(&self) -> Result<i64, LogError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(LogError::files("read", &self.path)(e)),
        };
        match serde_json::from_slice::<Reserved>(&text) {
            Ok(reserved) if reserved.format == FORMAT && reserved.next >= 0 => Ok(reserved.next),
            _ => Err(LogError::Damaged {
                path: self.path.clone(),
                at: 0,
                what: "it does not say which producer ids were given".into(),
            }),
        }
    }
}
