//! What a start does with the files it finds: trusts what the last snapshot tells of, checks every
//! byte after it, cuts a torn end, and refuses anything else.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tracing::{info, warn};

use crate::LogError;
use crate::disk::{Disk, SegmentFile};
use crate::marks::Marks;
use crate::segment::{Closed, Extent, Index, Scanned, path_of, scan, whole_batch_after};
use crate::snapshot::{Found, Snapshot};

/// How much of a scanned end is written again at once.
const REWRITE_BYTES: usize = 1024 * 1024;

/// The segment that is written to.
pub(crate) struct Active {
    pub extent: Extent,
    pub path: PathBuf,
    pub file: Arc<dyn SegmentFile>,
    pub index: Index,
}

/// A partition as its files have it.
pub(crate) struct Recovered {
    pub start: i64,
    pub closed: VecDeque<Arc<Closed>>,
    pub active: Active,
    pub marks: Marks,
    /// How many bytes no snapshot tells of yet.
    pub scanned_bytes: u64,
}

/// Opens the partition in `folder`, which its topic made; where it is gone, so are its records, and
/// that is an error.
pub(crate) fn recover(folder: &Path, disk: &dyn Disk) -> Result<Recovered, LogError> {
    let snapshot = match Snapshot::load(folder).map_err(LogError::files("read", folder))? {
        Found::Whole(snapshot) => Some(snapshot),
        Found::Nothing => None,
        Found::Unusable(why) => {
            warn!(folder = %folder.display(), why, "snapshot not used; all segments are scanned");
            None
        }
    };
    let (start, known, marks) = match snapshot {
        Some(s) => (s.start, s.segments, s.marks),
        None => (0, Vec::new(), Marks::default()),
    };
    let bases = segments(folder, known.first().map_or(0, |e| e.base))?;
    let known = present(folder, &known, &bases)?;
    if bases.is_empty() {
        return fresh(folder, disk);
    }
    let mut recovered = Walk {
        folder,
        disk,
        closed: VecDeque::new(),
        marks,
        scanned_bytes: 0,
    };
    let mut active = None;
    let mut next = None;
    for (i, &base) in bases.iter().enumerate() {
        let extent = known.get(i).cloned().unwrap_or(Extent::empty(base));
        let frozen = i + 1 < known.len();
        let last = i + 1 == bases.len();
        let opened = recovered.segment(extent, next, frozen, last)?;
        if let Some(opened) = opened {
            next = Some(opened.extent.next);
            if let Some(previous) = active.replace(opened) {
                recovered.close(previous);
            }
        }
    }
    let Walk {
        closed,
        marks,
        scanned_bytes,
        ..
    } = recovered;
    let active = active.expect("the first segment is never skipped");
    let first = closed.front().map_or(active.extent.base, |c| c.extent.base);
    Ok(Recovered {
        start: start.max(first),
        closed,
        active,
        marks,
        scanned_bytes,
    })
}

fn fresh(folder: &Path, disk: &dyn Disk) -> Result<Recovered, LogError> {
    let path = path_of(folder, 0);
    let file = disk.create(&path).map_err(LogError::files("make", &path))?;
    Ok(Recovered {
        start: 0,
        closed: VecDeque::new(),
        active: Active {
            extent: Extent::empty(0),
            path,
            file,
            index: Index::default(),
        },
        marks: Marks::default(),
        scanned_bytes: 0,
    })
}

/// Base offsets of the segments in `folder` from `first` on, in order. What lies before `first` was
/// given up by retention, and half-written replacements by a crash: both are removed.
fn segments(folder: &Path, first: i64) -> Result<Vec<i64>, LogError> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(folder).map_err(LogError::files("list", folder))? {
        let path = entry.map_err(LogError::files("list", folder))?.path();
        let base = path
            .file_stem()
            .and_then(|s| s.to_str())
            .filter(|s| s.len() == 20)
            .and_then(|s| s.parse::<i64>().ok());
        match (path.extension().and_then(|e| e.to_str()), base) {
            (Some("log"), Some(base)) if base >= first => bases.push(base),
            (Some("index"), Some(base)) if base >= first => {}
            (Some("log" | "index"), Some(_)) | (Some("new"), _) => {
                fs::remove_file(&path).map_err(LogError::files("remove", &path))?;
            }
            _ => {}
        }
    }
    bases.sort_unstable();
    Ok(bases)
}

/// The known segments that are there. Only the oldest ones may be gone: retention was at work, or
/// somebody made room by hand.
fn present(folder: &Path, known: &[Extent], bases: &[i64]) -> Result<Vec<Extent>, LogError> {
    let count = known.len();
    let kept: Vec<_> = known
        .iter()
        .skip_while(|e| !bases.contains(&e.base))
        .cloned()
        .collect();
    let gone = match (kept.first(), known.last()) {
        (None, Some(last)) => Some(last),
        _ => kept
            .iter()
            .zip(bases)
            .find(|(e, base)| e.base != **base)
            .map(|(e, _)| e),
    };
    if let Some(gone) = gone.or(kept.get(bases.len())) {
        return Err(LogError::Missing {
            path: path_of(folder, gone.base),
            what: format!("it holds offsets {} to {}", gone.base, gone.next - 1),
        });
    }
    if kept.len() < count {
        warn!(
            folder = %folder.display(),
            segments = count - kept.len(),
            start = kept[0].base,
            "the oldest segments are gone"
        );
    }
    Ok(kept)
}

struct Walk<'a> {
    folder: &'a Path,
    disk: &'a dyn Disk,
    closed: VecDeque<Arc<Closed>>,
    marks: Marks,
    scanned_bytes: u64,
}

impl Walk<'_> {
    fn close(&mut self, segment: Active) {
        let closed = Closed::new(self.folder, segment.extent);
        self.closed.push_back(Arc::new(closed));
    }

    /// Checks what no snapshot tells of in one segment. `None`: an empty file that a failed roll
    /// left behind.
    fn segment(
        &mut self,
        mut extent: Extent,
        next: Option<i64>,
        frozen: bool,
        last: bool,
    ) -> Result<Option<Active>, LogError> {
        let path = path_of(self.folder, extent.base);
        let file = self
            .disk
            .open(&path)
            .map_err(LogError::files("open", &path))?;
        let length = file.length().map_err(LogError::files("read", &path))?;
        let damaged = |at, what: String| LogError::Damaged {
            path: path.clone(),
            at,
            what,
        };
        if length < extent.bytes || (frozen && length > extent.bytes) {
            let what = format!("it was {} bytes long and is {length}", extent.bytes);
            return Err(damaged(length.min(extent.bytes), what));
        }
        if let Some(next) = next.filter(|&next| next != extent.base) {
            if length == 0 && (!last || extent.base < next) {
                fs::remove_file(&path).map_err(LogError::files("remove", &path))?;
                return Ok(None);
            }
            let what = format!("the one before it ends before offset {next}");
            return Err(LogError::Missing { path, what });
        }
        let known_bytes = extent.bytes;
        let mut index = if last {
            Index::load(&path, &*file, known_bytes)?
        } else {
            Index::default()
        };
        let at_ms = modified_ms(&path);
        let span = (known_bytes, length);
        let done = scan(&path, &*file, span, extent.next, |head, batch| {
            extent.add(head, at_ms);
            self.marks.add(head, batch);
            if last {
                index.add(head);
            }
        })?;
        self.scanned_bytes += done.at - known_bytes;
        if let Some(fault) = done.fault {
            let follows = if last {
                whole_batch_after(&path, &*file, (done.at, length), done.next)?
            } else {
                None
            };
            if !last {
                return Err(damaged(done.at, format!("{fault}, and a segment follows")));
            }
            if let Some((at, offset)) = follows {
                let what =
                    format!("{fault}, and whole batches follow from byte {at} (offset {offset})");
                return Err(damaged(done.at, what));
            }
            self.cut(&path, &*file, &done, length, fault)?;
        }
        if last && known_bytes < length {
            settle(&*file, known_bytes, done.at).map_err(LogError::files("write", &path))?;
        }
        Ok(Some(Active {
            extent,
            path,
            file,
            index,
        }))
    }

    fn cut(
        &mut self,
        path: &Path,
        file: &dyn SegmentFile,
        done: &Scanned,
        length: u64,
        fault: &str,
    ) -> Result<(), LogError> {
        warn!(
            file = %path.display(),
            at = done.at,
            bytes = length - done.at,
            offset = done.next,
            fault,
            "torn end cut off: it was never acknowledged as synced"
        );
        self.scanned_bytes += length - done.at;
        file.cut(done.at).map_err(LogError::files("cut", path))
    }
}

/// Makes bytes that a crashed process wrote durable before anybody reads them. They are written
/// again, since after a failed sync the system may hold pages for clean that never got to the disk.
fn settle(file: &dyn SegmentFile, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    let mut buffer = Vec::new();
    while at < to {
        let size = usize::try_from(to - at)
            .unwrap_or(usize::MAX)
            .min(REWRITE_BYTES);
        buffer.resize(size, 0);
        file.read_at(&mut buffer, at)?;
        file.write_at(&buffer, at)?;
        at += size as u64;
    }
    info!(
        bytes = to - from,
        "checked what was written after the last snapshot"
    );
    file.sync()
}

/// When the file was last written to: for retention, where no snapshot tells.
fn modified_ms(path: &Path) -> i64 {
    fs::metadata(path)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
        .and_then(|d| i64::try_from(d.as_millis()).ok())
        .unwrap_or(0)
}
