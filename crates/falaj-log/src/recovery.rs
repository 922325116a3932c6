//! What a start does with the files it finds: trusts what the last snapshot tells of, checks every
//! byte after it, cuts a torn end, and refuses anything else.
//!
//! Always: which of a segment and its cleaned successor counts follows from the files' names alone
//! ([`SegmentName`]), so it does not matter whether the last snapshot was written before or after.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tracing::{info, warn};

use crate::LogError;
use crate::disk::{Disk, SegmentFile};
use crate::marks::Marks;
use crate::producers::Producers;
use crate::segment::{Closed, DRAFT, Extent, Index, Scanned, SegmentName, scan, whole_batch_after};
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
    pub producers: Producers,
    /// The cleaner has gone through everything before it.
    pub cleaned: i64,
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
    let snapshot = snapshot.unwrap_or_else(|| Snapshot::new(0, Vec::new()));
    let known = snapshot.segments;
    let names = segments(folder, known.first().map_or(0, |e| e.base))?;
    let known = present(folder, &known, &names)?;
    if names.is_empty() {
        return fresh(folder, disk, 0);
    }
    let mut walk = Walk {
        folder,
        disk,
        closed: VecDeque::new(),
        marks: snapshot.marks,
        producers: snapshot.producers,
        scanned_bytes: 0,
    };
    let mut active: Option<Active> = None;
    let last_known = known.last().map(SegmentName::of);
    for (i, name) in names.iter().enumerate() {
        let extent = known.iter().find(|e| SegmentName::of(e) == *name).cloned();
        let place = Expected {
            next: active.as_ref().map(|a| a.extent.next),
            frozen: extent.is_some() && last_known != Some(*name),
            // The cleaner leaves the active segment alone, so a cleaned one is not it.
            last: i + 1 == names.len() && name.next().is_none(),
        };
        let extent = extent.unwrap_or_else(|| Extent {
            generation: name.generation(),
            ..Extent::empty(name.base)
        });
        if let Some(opened) = walk.segment(*name, extent, &place)?
            && let Some(previous) = active.replace(opened)
        {
            walk.close(previous);
        }
    }
    let mut active = active.expect("the first segment is never skipped");
    if active.extent.generation > 0 {
        // Somebody took the active segment away, and no snapshot tells of it.
        let next = active.extent.next;
        walk.close(std::mem::replace(&mut active, begin(folder, disk, next)?));
    }
    let first = walk
        .closed
        .front()
        .map_or(active.extent.base, |c| c.extent.base);
    Ok(Recovered {
        start: snapshot.start.max(first).min(active.extent.next),
        closed: walk.closed,
        active,
        marks: walk.marks,
        producers: walk.producers,
        cleaned: snapshot.cleaned,
        scanned_bytes: walk.scanned_bytes,
    })
}

fn fresh(folder: &Path, disk: &dyn Disk, base: i64) -> Result<Recovered, LogError> {
    Ok(Recovered {
        start: base,
        closed: VecDeque::new(),
        active: begin(folder, disk, base)?,
        marks: Marks::default(),
        producers: Producers::default(),
        cleaned: 0,
        scanned_bytes: 0,
    })
}

/// An empty segment.
fn begin(folder: &Path, disk: &dyn Disk, base: i64) -> Result<Active, LogError> {
    let extent = Extent::empty(base);
    let path = SegmentName::of(&extent).path(folder);
    let file = disk.create(&path).map_err(LogError::files("make", &path))?;
    Ok(Active {
        extent,
        path,
        file,
        index: Index::default(),
    })
}

/// The segments in `folder` that count, from offset `first` on, in order. What lies before `first`
/// was given up by retention, what was replaced by the cleaner or only half written by a crash:
/// all of these are removed.
fn segments(folder: &Path, first: i64) -> Result<Vec<SegmentName>, LogError> {
    let (mut names, mut gone, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(LogError::files("list", folder))? {
        let path = entry.map_err(LogError::files("list", folder))?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        match (extension, SegmentName::parse(&path)) {
            ("log", Some(name)) if name.base >= first => names.push(name),
            ("index", Some(name)) if name.base >= first => beside.push((name, path)),
            ("log" | "index", Some(_)) | ("new" | DRAFT, _) => gone.push(path),
            _ => {}
        }
    }
    let (names, replaced) = SegmentName::sift(names);
    gone.extend(replaced.iter().map(|name| name.path(folder)));
    let orphans = beside.into_iter().filter(|(name, _)| !names.contains(name));
    gone.extend(orphans.map(|(_, path)| path));
    for path in gone {
        fs::remove_file(&path).map_err(LogError::files("remove", &path))?;
    }
    Ok(names)
}

/// The known segments that are there, without those that the cleaner replaced after the snapshot.
/// Only the oldest ones may be gone: retention was at work, or somebody made room by hand.
fn present(
    folder: &Path,
    known: &[Extent],
    names: &[SegmentName],
) -> Result<Vec<Extent>, LogError> {
    let known: Vec<_> = known
        .iter()
        .map(|extent| (SegmentName::of(extent), extent))
        .filter(|(known, _)| !names.iter().any(|name| name.replaces(known)))
        .collect();
    let kept: Vec<_> = known
        .iter()
        .skip_while(|(name, _)| !names.contains(name))
        .collect();
    let gone = match (kept.first(), known.last()) {
        (None, Some(last)) => Some(last),
        _ => kept.iter().find(|(name, _)| !names.contains(name)).copied(),
    };
    if let Some((name, extent)) = gone {
        return Err(LogError::Missing {
            path: name.path(folder),
            what: format!("it holds offsets {} to {}", extent.base, extent.next - 1),
        });
    }
    if let Some((name, _)) = kept.first()
        && kept.len() < known.len()
    {
        warn!(
            folder = %folder.display(),
            segments = known.len() - kept.len(),
            start = name.base,
            "the oldest segments are gone"
        );
    }
    Ok(kept
        .into_iter()
        .map(|(_, extent)| (*extent).clone())
        .collect())
}

/// What must hold of a segment, by its neighbours and the snapshot.
struct Expected {
    /// Where the one before it ends.
    next: Option<i64>,
    /// It is known to its end.
    frozen: bool,
    /// It is the one that was written to.
    last: bool,
}

struct Walk<'a> {
    folder: &'a Path,
    disk: &'a dyn Disk,
    closed: VecDeque<Arc<Closed>>,
    marks: Marks,
    producers: Producers,
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
        name: SegmentName,
        mut extent: Extent,
        place: &Expected,
    ) -> Result<Option<Active>, LogError> {
        let &Expected { next, frozen, last } = place;
        let path = name.path(self.folder);
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
        let from = (extent.next, name.next().is_some());
        let done = scan(&path, &*file, span, from, |head, batch| {
            extent.add(head, at_ms);
            self.marks.add(head, batch);
            self.producers.note(head, at_ms);
            if last {
                index.add(head);
            }
            Ok(ControlFlow::Continue(()))
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
        if let Some(next) = name.next().filter(|&next| next != done.next) {
            let what = format!("it ends before offset {} and not {next}", done.next);
            return Err(damaged(done.at, what));
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
