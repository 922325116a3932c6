//! One segment: its file of batches, its sparse index, and how it is scanned and read.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, SegmentFile, replace};
use crate::{HEAD_BYTES, Head, LogError};

/// At most about this many bytes lie between two entries of an index, and are read for nothing.
const INDEX_EVERY_BYTES: u64 = 32 * 1024;

/// How much a scan reads at once.
const SCAN_BYTES: usize = 4 * 1024 * 1024;

/// What the cleaner's files end in until they are whole and synced.
pub(crate) const DRAFT: &str = "cleaned";

/// Length of an index entry on disk.
const ENTRY_BYTES: usize = 24;

/// What a snapshot knows of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    /// Offset of its first record when it was appended, which is its name.
    pub base: i64,
    /// First offset after its last record.
    pub next: i64,
    /// How often the cleaner has rewritten what it holds; 0 is as it was appended.
    #[serde(default)]
    pub generation: u32,
    /// When the first of its tombstones may go; none where none was cleaned.
    #[serde(default)]
    pub horizon_ms: Option<i64>,
    /// Length in bytes.
    pub bytes: u64,
    /// Newest timestamp of its records.
    pub newest_ms: i64,
    /// When its first batch was appended, by this machine's clock.
    pub first_at_ms: i64,
    /// When its last batch was appended.
    pub last_at_ms: i64,
}

impl Extent {
    pub(crate) fn empty(base: i64) -> Self {
        Self {
            base,
            next: base,
            generation: 0,
            horizon_ms: None,
            bytes: 0,
            newest_ms: i64::MIN,
            first_at_ms: i64::MAX,
            last_at_ms: i64::MIN,
        }
    }

    pub(crate) fn add(&mut self, head: &Head, at_ms: i64) {
        self.next = head.next();
        self.bytes += head.bytes as u64;
        self.newest_ms = self.newest_ms.max(head.newest_ms);
        let horizons = [self.horizon_ms, head.horizon_ms()];
        self.horizon_ms = horizons.into_iter().flatten().min();
        self.first_at_ms = self.first_at_ms.min(at_ms);
        self.last_at_ms = self.last_at_ms.max(at_ms);
    }
}

/// Name of a segment's file: which offsets it holds, and which of several files that hold them
/// counts.
///
/// `<base>.log` is as it was appended. `<base>-<next>-<generation>.log` was written by the cleaner in
/// place of all segments between `base` and `next`, and counts from the moment that it has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Offset of the first record it ever held.
    pub base: i64,
    /// For a cleaned one: the offset after the last, and how often it was rewritten.
    cleaned: Option<(i64, u32)>,
}

impl SegmentName {
    /// The name of a segment's file, its `.log` or anything else that goes with it.
    #[must_use]
    pub fn parse(path: &Path) -> Option<Self> {
        let stem = path.file_stem()?.to_str()?;
        let offset = |text: &str| match text.len() {
            20 => text.parse::<i64>().ok(),
            _ => None,
        };
        let mut parts = stem.split('-');
        let base = offset(parts.next()?)?;
        let cleaned = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(next), Some(generation), None) => Some((offset(next)?, generation.parse().ok()?)),
            _ => return None,
        };
        Some(Self { base, cleaned })
    }

    pub(crate) fn of(extent: &Extent) -> Self {
        Self {
            base: extent.base,
            cleaned: (extent.generation > 0).then_some((extent.next, extent.generation)),
        }
    }

    /// Its file in a partition's `folder`.
    #[must_use]
    pub fn path(&self, folder: &Path) -> PathBuf {
        let base = self.base;
        folder.join(match self.cleaned {
            None => format!("{base:020}.log"),
            Some((next, generation)) => format!("{base:020}-{next:020}-{generation}.log"),
        })
    }

    pub(crate) fn generation(&self) -> u32 {
        self.cleaned.map_or(0, |(_, generation)| generation)
    }

    /// Where a cleaned one ends; the end of others is where their last batch ends.
    pub(crate) fn next(&self) -> Option<i64> {
        self.cleaned.map(|(next, _)| next)
    }

    /// Whether it stands in the place of `other`.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        self.generation() > other.generation()
            && self.base <= other.base
            && self.next().is_some_and(|next| other.base < next)
    }

    /// Splits names into those that count, by offset, and those that were replaced.
    pub(crate) fn sift(mut names: Vec<Self>) -> (Vec<Self>, Vec<Self>) {
        names.sort_unstable();
        let cleaned: Vec<_> = names
            .iter()
            .filter(|n| n.next().is_some())
            .copied()
            .collect();
        names
            .into_iter()
            .partition(|name| !cleaned.iter().any(|other| other.replaces(name)))
    }

    /// The segments in a partition's `folder` that count, by offset.
    ///
    /// # Errors
    /// Where the folder cannot be listed.
    pub fn list(folder: &Path) -> io::Result<Vec<Self>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "log") {
                names.extend(Self::parse(&path));
            }
        }
        Ok(Self::sift(names).0)
    }
}

/// One batch of a segment that the index knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    offset: i64,
    at: u64,
    /// Newest timestamp of all batches before this one.
    newest_before_ms: i64,
}

/// Sparse index of one segment: where to begin looking for an offset or for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    /// How many bytes of the segment it knows.
    bytes: u64,
    newest_ms: i64,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            bytes: 0,
            newest_ms: i64::MIN,
        }
    }
}

impl Index {
    /// Notes the batch that follows the last one noted.
    pub(crate) fn add(&mut self, head: &Head) {
        let last = self.entries.last();
        if last.is_none_or(|e| self.bytes - e.at >= INDEX_EVERY_BYTES) {
            self.entries.push(Entry {
                offset: head.base,
                at: self.bytes,
                newest_before_ms: self.newest_ms,
            });
        }
        self.bytes += head.bytes as u64;
        self.newest_ms = self.newest_ms.max(head.newest_ms);
    }

    /// Where the batch with `offset` stands, or a little before.
    pub(crate) fn at_offset(&self, offset: i64) -> u64 {
        let after = self.entries.partition_point(|e| e.offset <= offset);
        self.entries[..after].last().map_or(0, |e| e.at)
    }

    /// The last boundary between batches that it knows up to byte `to` and up to offset `end`.
    pub(crate) fn boundary(&self, to: u64, end: i64) -> u64 {
        let after = self
            .entries
            .partition_point(|e| e.at <= to && e.offset <= end);
        self.entries[..after].last().map_or(0, |e| e.at)
    }

    /// Where the first batch stands that has a record at `ms` or later, or a little before.
    pub(crate) fn at_time(&self, ms: i64) -> u64 {
        let after = self.entries.partition_point(|e| e.newest_before_ms < ms);
        self.entries[..after].last().map_or(0, |e| e.at)
    }

    /// The index beside the segment, completed from the segment's heads where it does not know all
    /// of it, or is missing or damaged.
    pub(crate) fn load(
        segment: &Path,
        file: &dyn SegmentFile,
        bytes: u64,
    ) -> Result<Self, LogError> {
        let mut index = fs::read(segment.with_extension("index"))
            .ok()
            .and_then(|saved| Self::decode(&saved))
            .filter(|index| index.bytes <= bytes)
            .unwrap_or_default();
        while index.bytes < bytes {
            index.add(&head_at(segment, file, index.bytes, u64::MAX)?);
        }
        Ok(index)
    }

    pub(crate) fn save(&self, segment: &Path) -> io::Result<()> {
        replace(&segment.with_extension("index"), &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20 + self.entries.len() * ENTRY_BYTES);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.bytes.to_be_bytes());
        out.extend_from_slice(&self.newest_ms.to_be_bytes());
        for e in &self.entries {
            out.extend_from_slice(&e.offset.to_be_bytes());
            out.extend_from_slice(&e.at.to_be_bytes());
            out.extend_from_slice(&e.newest_before_ms.to_be_bytes());
        }
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_be_bytes());
        out
    }

    fn decode(saved: &[u8]) -> Option<Self> {
        let (crc, body) = saved.split_first_chunk::<4>()?;
        let (bytes, rest) = body.split_first_chunk::<8>()?;
        let (newest_ms, rest) = rest.split_first_chunk::<8>()?;
        let (entries, odd) = rest.as_chunks::<ENTRY_BYTES>();
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) || !odd.is_empty() {
            return None;
        }
        let number = |entry: &[u8; ENTRY_BYTES], at: usize| {
            i64::from_be_bytes(*entry[at..].first_chunk().expect("three numbers of 8 bytes"))
        };
        Some(Self {
            bytes: u64::from_be_bytes(*bytes),
            newest_ms: i64::from_be_bytes(*newest_ms),
            entries: entries
                .iter()
                .map(|e| Entry {
                    offset: number(e, 0),
                    at: number(e, 8).cast_unsigned(),
                    newest_before_ms: number(e, 16),
                })
                .collect(),
        })
    }
}

/// The head of the batch that starts at byte `at` of a segment and ends by byte `to`.
pub(crate) fn head_at(
    path: &Path,
    file: &dyn SegmentFile,
    at: u64,
    to: u64,
) -> Result<Head, LogError> {
    let mut buffer = [0; HEAD_BYTES];
    file.read_at(&mut buffer, at)
        .map_err(LogError::files("read", path))?;
    Head::parse(&buffer)
        .filter(|head| head.bytes as u64 <= to - at)
        .ok_or_else(|| LogError::Damaged {
            path: path.to_owned(),
            at,
            what: "no batch starts here".into(),
        })
}

/// A segment that is full: it never changes again (the cleaner puts another in its place). Its file is opened for each read, so that a long
/// log holds no file open.
pub(crate) struct Closed {
    pub extent: Extent,
    pub path: PathBuf,
    index: OnceLock<Arc<Index>>,
}

impl Closed {
    pub(crate) fn new(folder: &Path, extent: Extent) -> Self {
        Self {
            path: SegmentName::of(&extent).path(folder),
            extent,
            index: OnceLock::new(),
        }
    }

    pub(crate) fn with_index(folder: &Path, extent: Extent, index: Index) -> Self {
        let closed = Self::new(folder, extent);
        closed.index.get_or_init(|| Arc::new(index));
        closed
    }

    /// Whether offsets may be missing between its batches.
    pub(crate) fn gaps(&self) -> bool {
        self.extent.generation > 0
    }

    pub(crate) fn open(&self, disk: &dyn Disk) -> Result<Arc<dyn SegmentFile>, LogError> {
        disk.open(&self.path)
            .map_err(LogError::files("open", &self.path))
    }

    /// Writes its index beside it, where it is known.
    pub(crate) fn save_index(&self) -> io::Result<()> {
        self.index
            .get()
            .map_or(Ok(()), |index| index.save(&self.path))
    }

    /// Its index, loaded at first use.
    pub(crate) fn index(&self, file: &dyn SegmentFile) -> Result<Arc<Index>, LogError> {
        if let Some(index) = self.index.get() {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(Index::load(&self.path, file, self.extent.bytes)?);
        Ok(Arc::clone(self.index.get_or_init(|| index)))
    }
}

/// Where a scan came to its end.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// First byte after the last whole batch.
    pub at: u64,
    /// First offset after it.
    pub next: i64,
    /// What is wrong with the bytes there; none at the end of the file.
    pub fault: Option<&'static str>,
}

/// Reads whole batches from byte `from` to `length`, checks each, and shows it to `each`, until that
/// has enough.
/// The first must have offset `next`, and each following one the next; with `gaps` any later one.
pub(crate) fn scan(
    path: &Path,
    file: &dyn SegmentFile,
    (from, length): (u64, u64),
    (next, gaps): (i64, bool),
    mut each: impl FnMut(&Head, &[u8]) -> Result<ControlFlow<()>, LogError>,
) -> Result<Scanned, LogError> {
    let mut done = Scanned {
        at: from,
        next,
        fault: None,
    };
    let mut window = Vec::new();
    let mut need = SCAN_BYTES;
    while done.at < length {
        let size = usize::try_from(length - done.at)
            .unwrap_or(usize::MAX)
            .min(need);
        window.resize(size, 0);
        file.read_at(&mut window, done.at)
            .map_err(LogError::files("read", path))?;
        let whole = done.at + size as u64 == length;
        let mut used = 0;
        need = SCAN_BYTES;
        loop {
            let rest = &window[used..];
            let fault = match Head::parse(rest) {
                _ if rest.is_empty() => break,
                None if rest.len() < HEAD_BYTES && !whole => break,
                None if rest.len() < HEAD_BYTES => "a batch is cut off",
                None => "no batch starts here",
                Some(head) if misplaced(&head, done.next, gaps) => "a batch has the wrong offset",
                Some(head) if head.bytes as u64 > length - done.at => "a batch is cut off",
                Some(head) => match rest.get(..head.bytes) {
                    None => {
                        need = head.bytes.max(SCAN_BYTES);
                        break;
                    }
                    Some(batch) if head.intact(batch) => {
                        let flow = each(&head, batch)?;
                        used += head.bytes;
                        done.at += head.bytes as u64;
                        done.next = head.next();
                        if flow.is_break() {
                            return Ok(done);
                        }
                        continue;
                    }
                    Some(_) => "a batch has a wrong checksum",
                },
            };
            done.fault = Some(fault);
            return Ok(done);
        }
    }
    Ok(done)
}

/// Whether a batch cannot stand where the offset `next` is expected.
fn misplaced(head: &Head, next: i64, gaps: bool) -> bool {
    if gaps {
        head.base < next
    } else {
        head.base != next
    }
}

/// The first whole batch with an offset beyond `next` after byte `at`, if any: its byte and offset.
/// Where there is one, the fault before it is no torn end.
pub(crate) fn whole_batch_after(
    path: &Path,
    file: &dyn SegmentFile,
    (at, length): (u64, u64),
    next: i64,
) -> Result<Option<(u64, i64)>, LogError> {
    const MAGIC: usize = 16;
    let mut rest = vec![0; usize::try_from(length - at).unwrap_or(usize::MAX)];
    file.read_at(&mut rest, at)
        .map_err(LogError::files("read", path))?;
    let found = memchr::memchr_iter(2, &rest)
        .filter(|&magic| magic > MAGIC)
        .find_map(|magic| {
            let candidate = &rest[magic - MAGIC..];
            let head = Head::parse(candidate)?;
            // A segment never spans more offsets than this, and the test costs no checksum.
            let plausible = head.base > next && head.base - next < i64::from(i32::MAX);
            (plausible && head.intact(candidate.get(..head.bytes)?))
                .then(|| (at + (magic - MAGIC) as u64, head.base))
        });
    Ok(found)
}

/// Whole batches of one segment from the one that holds `offset` on: at least one (however large),
/// else as many as fit in `bytes_max`, none that starts at `end` or later. Empty where the segment
/// ends before `offset`. With `gaps` the first batch may also start after it.
pub(crate) fn window(
    path: &Path,
    file: &dyn SegmentFile,
    (mut from, length): (u64, u64),
    (offset, end, gaps): (i64, i64, bool),
    bytes_max: usize,
) -> Result<Bytes, LogError> {
    let slack = usize::try_from(INDEX_EVERY_BYTES).unwrap_or(usize::MAX);
    let mut want = bytes_max.saturating_add(slack).max(HEAD_BYTES);
    let mut expected = None;
    let damaged = |at, what: &str| LogError::Damaged {
        path: path.to_owned(),
        at,
        what: what.into(),
    };
    while from < length {
        let size = usize::try_from(length - from)
            .unwrap_or(usize::MAX)
            .min(want);
        let mut bytes = BytesMut::zeroed(size);
        file.read_at(&mut bytes, from)
            .map_err(LogError::files("read", path))?;
        let (mut at, mut first) = (0, None);
        while let Some(head) = Head::parse(&bytes[at..]) {
            let here = from + at as u64;
            // What the checksum does not cover is checked here, so that damage is never skipped.
            let misplaced = expected.is_some_and(|next| misplaced(&head, next, gaps));
            if misplaced || head.bytes as u64 > length - here {
                return Err(damaged(here, "a batch has a wrong offset or length"));
            }
            let whole = at + head.bytes <= size;
            if first.is_none() && head.next() > offset {
                if head.base > offset && !gaps {
                    return Err(damaged(here, "a batch has a wrong offset"));
                }
                if head.base >= end {
                    return Ok(Bytes::new());
                }
                first = Some(at);
                if !whole {
                    want = head.bytes;
                    break;
                }
            } else if let Some(first) = first
                && (!whole || head.base >= end || at + head.bytes - first > bytes_max)
            {
                break;
            }
            if !whole && first.is_none() {
                // Skipped without reading the rest of it.
                expected = Some(head.next());
                at += head.bytes;
                break;
            }
            expected = Some(head.next());
            at += head.bytes;
        }
        match first {
            Some(first) if at > first => return Ok(bytes.freeze().slice(first..at)),
            Some(first) => from += first as u64,
            None if at == 0 => {
                return Err(damaged(from, "no batch starts here"));
            }
            None => from += at as u64,
        }
    }
    Ok(Bytes::new())
}
