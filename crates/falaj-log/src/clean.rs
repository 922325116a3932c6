//! The log cleaner: keeps of a compacted topic the newest record of each key.
//!
//! A pass goes as Kafka's does. It reads what was not cleaned yet and notes for each key where its
//! newest record lies; then it reads all closed segments from the first on and writes them again
//! without the records that a later one of their key has replaced. Where the keys do not fit in
//! memory, it stops at the record up to which they do, and the next pass goes on from there.
//!
//! Always: only closed segments are touched, and nothing after the point up to which the keys are
//! known; order, offsets and timestamps of what stays do not change.
//! Always: a batch that loses records keeps its first and its last offset, so both gaps in a batch and
//! gaps between batches mean records that are gone. A batch that loses all of them goes, unless it
//! holds the last sequence of a producer that is remembered, or the end of a segment: so the
//! segments of a partition join without a gap, and a missing one is noticed.
//! Always: a tombstone stays for a while after the records before it went; its batch says until when
//! (KIP-534), so that is not forgotten over a restart.
//! Always: rewritten segments come into being under a name of their own, by one rename, and the old
//! ones go after that ([`crate::SegmentName`]); who reads an old one reads on.
//! Always: a key is known by 128 bits of two keyed hashes, as unlikely to be taken for another as by
//! Kafka's MD5; nobody outside knows the hashes' keys, so nobody can make two keys meet.
//! Absent on purpose: pacing of the disk; a pass is as fast as the disk lets it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use tracing::{debug, info};

use crate::batch::{Change, emptied, rewritten};
use crate::codec::{Unpacker, pack};
use crate::disk::{Disk, SegmentFile};
use crate::partition::{Partition, outlived};
use crate::segment::{Closed, DRAFT, Extent, Index, SegmentName, scan};
use crate::topic::Settings;
use crate::{HEAD_BYTES, Head, LogError, Records};

/// A partition is cleaned when at least this part of it has not been, in percent, as in Kafka.
const DIRTY_PERCENT_MIN: u64 = 50;

/// It is cleaned anyway when something in it has waited for so long.
const WAIT_MAX_MS: i64 = 24 * 60 * 60 * 1000;

/// Written at once.
const WRITE_BYTES: usize = 1024 * 1024;

/// Why and how a partition is cleaned.
pub(crate) struct Cleaning<'a> {
    /// What time it is, in milliseconds since 1970.
    pub now_ms: i64,
    /// Also where little is to be won.
    pub all: bool,
    /// The most bytes that the map of keys takes.
    pub map_bytes: usize,
    /// Set when the log is being closed.
    pub stop: &'a AtomicBool,
}

/// What one pass is about.
struct Pass<'a> {
    cleaning: &'a Cleaning<'a>,
    settings: Settings,
    /// Records before it were deleted.
    start: i64,
    /// Closed segments that may be cleaned.
    segments: Vec<Arc<Closed>>,
    keys: Keys,
    /// Where the last batch of each producer ends.
    producers: BTreeMap<i64, i64>,
}

/// Where the newest record of each key lies.
struct Keys {
    hashes: (RandomState, RandomState),
    newest: HashMap<(u64, u64), i64>,
    count_max: usize,
    /// It holds the keys of all records before this offset.
    end: i64,
}

impl Keys {
    fn new(bytes_max: usize, end: i64) -> Self {
        // A table of 2^n slots of 25 bytes is filled to 7/8; while it grows to that, its half is
        // there too.
        let slots = (bytes_max / 38).max(8);
        let slots = 1_usize << slots.ilog2();
        Self {
            hashes: (RandomState::new(), RandomState::new()),
            newest: HashMap::new(),
            count_max: slots / 8 * 7,
            end,
        }
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.hashes.0.hash_one(key), self.hashes.1.hash_one(key))
    }

    /// Notes a record; whether there was room for it.
    fn note(&mut self, key: Option<&[u8]>, offset: i64) -> bool {
        if let Some(key) = key {
            let hash = self.hash(key);
            let full = self.newest.len() >= self.count_max;
            match self.newest.get_mut(&hash) {
                Some(newest) => *newest = offset,
                None if full => return false,
                None => {
                    self.newest.insert(hash, offset);
                }
            }
        }
        self.end = offset + 1;
        true
    }

    /// Whether a later record has the key of the one at `offset`.
    fn replaced(&self, key: &[u8], offset: i64) -> bool {
        let newest = self.newest.get(&self.hash(key));
        newest.is_some_and(|newest| *newest > offset)
    }
}

impl Partition {
    /// Cleans what can be cleaned.
    ///
    /// # Errors
    /// Where files cannot be read or written; what was cleaned before that stays so.
    pub(crate) fn clean(&self, cleaning: &Cleaning<'_>) -> Result<(), LogError> {
        let _turn = self.cleaning.lock();
        let settings = self.around.settings.read().clone();
        if !settings.cleanup.compacts() {
            return Ok(());
        }
        self.close_old(&settings, cleaning.now_ms)?;
        loop {
            let Some(mut pass) = self.pass(&settings, cleaning)? else {
                return Ok(());
            };
            let from = pass.keys.end;
            let bytes_before = self.bytes();
            // Where retention takes a segment meanwhile, the rest is cleaned the next time.
            match pass.read_keys(self) {
                Err(_) if pass.segments.iter().any(|s| self.gone(s)) => return Ok(()),
                read => read?,
            }
            for mut due in pass.due(from) {
                while !due.is_empty() {
                    match self.rewrite(due, &pass) {
                        Err(_) if due.iter().any(|s| self.gone(s)) => return Ok(()),
                        done => due = &due[done?..],
                    }
                }
            }
            self.state.lock().cleaned = pass.keys.end;
            let _turn = self.snapshotting.lock();
            self.snapshot_in_turn();
            info!(
                topic = %self.around.topic,
                partition = self.id(),
                from,
                to = pass.keys.end,
                keys = pass.keys.newest.len(),
                bytes_before,
                bytes = self.bytes(),
                "cleaned"
            );
            let last = pass.segments.last().map_or(from, |s| s.extent.next);
            if pass.keys.end >= last {
                return Ok(());
            }
        }
    }

    /// Closes the active segment where it is so old that the next append would: records in it are
    /// cleaned although nothing comes any more.
    fn close_old(&self, settings: &Settings, now_ms: i64) -> Result<(), LogError> {
        let _writing = self.writing.lock();
        let old = {
            let state = self.state.lock();
            let extent = &state.active.extent;
            state.broken.is_none() && extent.bytes > 0 && outlived(extent, settings, now_ms)
        };
        if old {
            self.mend()?;
            self.roll()?;
        }
        Ok(())
    }

    /// What is to be done, if anything.
    fn pass<'a>(
        &self,
        settings: &Settings,
        cleaning: &'a Cleaning<'a>,
    ) -> Result<Option<Pass<'a>>, LogError> {
        let state = self.state.lock();
        if let Some(broken) = &state.broken {
            return Err(broken.clone());
        }
        let lag_ms = i64::try_from(settings.compaction_lag_ms).unwrap_or(i64::MAX);
        let settled_ms = cleaning.now_ms.saturating_sub(lag_ms);
        let segments: Vec<_> = state
            .closed
            .iter()
            .take_while(|s| lag_ms == 0 || s.extent.last_at_ms <= settled_ms)
            .cloned()
            .collect();
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Ok(None);
        };
        let from = state.cleaned.clamp(first.extent.base, last.extent.next);
        let dirty = segments.iter().filter(|s| s.extent.next > from);
        let dirty_bytes: u64 = dirty.clone().map(|s| s.extent.bytes).sum();
        let bytes: u64 = segments.iter().map(|s| s.extent.bytes).sum();
        let waited = dirty
            .clone()
            .any(|s| cleaning.now_ms.saturating_sub(s.extent.last_at_ms) >= WAIT_MAX_MS);
        let worth = cleaning.all || waited || dirty_bytes * 100 >= bytes * DIRTY_PERCENT_MIN;
        let due = segments
            .iter()
            .any(|s| s.extent.base < from && horizon_passed(&s.extent, cleaning.now_ms));
        if !(due || dirty_bytes > 0 && worth) {
            return Ok(None);
        }
        Ok(Some(Pass {
            cleaning,
            settings: settings.clone(),
            start: state.start,
            keys: Keys::new(cleaning.map_bytes, from),
            producers: state.producers.ends(),
            segments,
        }))
    }

    /// Writes the first of `segments` again, and what follows it as long as both are one segment
    /// then, and puts the new one in their place. Gives how many these were.
    fn rewrite(&self, segments: &[Arc<Closed>], pass: &Pass<'_>) -> Result<usize, LogError> {
        let extent = Extent::empty(segments[0].extent.base);
        let draft = SegmentName::of(&extent)
            .path(&self.folder)
            .with_extension(DRAFT);
        let disk = &*self.around.disk;
        let mut out = Output::new(&draft, disk, extent)?;
        let replaced = (|| {
            let mut count = 0;
            while let Some(segment) = segments.get(count)
                && (count == 0 || pass.fits(&segments[..count], segment, out.bytes()))
            {
                out.take(segment, pass, self)?;
                count += 1;
            }
            let group = &segments[..count];
            if count == 1 && !out.changed {
                return Ok((count, false));
            }
            let (extent, index) = out.finish(group)?;
            let new = Arc::new(Closed::with_index(&self.folder, extent, index));
            Ok((count, self.put_in_place(group, &new, &draft)?))
        })();
        if !matches!(replaced, Ok((_, true))) {
            // Where it cannot be removed now, the next start does.
            let _ = disk.remove(&draft);
        }
        replaced.map(|(count, _)| count)
    }

    /// Gives the draft its name and lets the old segments go. Not where they have gone meanwhile.
    fn put_in_place(
        &self,
        group: &[Arc<Closed>],
        new: &Arc<Closed>,
        draft: &Path,
    ) -> Result<bool, LogError> {
        // Retention, deleting and snapshots wait: which segments there are is changed by one at a
        // time.
        let _turn = self.snapshotting.lock();
        let place = {
            let state = self.state.lock();
            let first = state.closed.iter().position(|s| Arc::ptr_eq(s, &group[0]));
            match first {
                Some(first) if state.broken.is_none() => first,
                _ => return Ok(false),
            }
        };
        // Retention takes from the front only, so with the first one all are there.
        self.around
            .disk
            .rename(draft, &new.path)
            .map_err(LogError::files("name", draft))?;
        // Retention goes by when records were appended. Where no snapshot tells of it, a start goes
        // by the file's time.
        let appended = Duration::from_millis(u64::try_from(new.extent.last_at_ms).unwrap_or(0));
        let dated = File::options()
            .write(true)
            .open(&new.path)
            .and_then(|file| file.set_modified(UNIX_EPOCH + appended));
        if let Err(error) = dated {
            debug!(file = %new.path.display(), %error, "time of a cleaned segment not set");
        }
        {
            let mut state = self.state.lock();
            state.closed.drain(place..place + group.len());
            state.closed.insert(place, Arc::clone(new));
        }
        if let Err(error) = new.save_index() {
            debug!(file = %new.path.display(), %error, "index not written; it will be made again");
        }
        self.remove(group);
        Ok(true)
    }
}

fn horizon_passed(extent: &Extent, now_ms: i64) -> bool {
    extent.horizon_ms.is_some_and(|horizon| horizon <= now_ms)
}

impl Pass<'_> {
    fn stopped(&self) -> Result<(), LogError> {
        if self.cleaning.stop.load(Ordering::Relaxed) {
            Err(LogError::Closed)
        } else {
            Ok(())
        }
    }

    /// Notes the keys of what is not cleaned yet, as far as they fit.
    fn read_keys(&mut self, partition: &Partition) -> Result<(), LogError> {
        let from = self.keys.end;
        let (start, stop) = (self.start, self.cleaning.stop);
        for segment in self.segments.iter().filter(|s| s.extent.next > from) {
            let keys = &mut self.keys;
            let mut full = false;
            each_batch(segment, &*partition.around.disk, |head, batch| {
                if stop.load(Ordering::Relaxed) {
                    return Err(LogError::Closed);
                }
                if head.next() <= from {
                    return Ok(ControlFlow::Continue(()));
                }
                // What cannot be unpacked has no keys, and stays as it is.
                let payload = &batch[HEAD_BYTES..];
                let read = partition.around.unpacker.with(head, payload, |records| {
                    Records::new(head, records)
                        .map_while(Result::ok)
                        .filter(|record| record.offset >= from.max(start))
                        .all(|record| keys.note(record.key, record.offset))
                });
                full = read == Ok(false);
                if full {
                    return Ok(ControlFlow::Break(()));
                }
                keys.end = head.next();
                Ok(ControlFlow::Continue(()))
            })?;
            if full {
                break;
            }
            self.keys.end = segment.extent.next;
        }
        Ok(())
    }

    /// Neighbours that are to be written again. Where there are no new keys, only those whose
    /// tombstones may go, each alone.
    fn due(&self, from: i64) -> Vec<&[Arc<Closed>]> {
        let known = self
            .segments
            .partition_point(|s| s.extent.base < self.keys.end);
        let known = &self.segments[..known];
        if self.keys.end > from {
            return vec![known];
        }
        known
            .chunks(1)
            .filter(|s| horizon_passed(&s[0].extent, self.cleaning.now_ms))
            .collect()
    }

    /// Whether `next` can join those that have become `bytes` bytes.
    fn fits(&self, group: &[Arc<Closed>], next: &Closed, bytes: u64) -> bool {
        let (first, next) = (&group[0].extent, &next.extent);
        bytes + next.bytes <= self.settings.segment_bytes
            && next.next - first.base < i64::from(i32::MAX)
            // Dropped by age is only a segment as a whole.
            && !(self.settings.cleanup.deletes()
                && outlived(first, &self.settings, next.last_at_ms))
    }

    /// What becomes of a batch.
    fn fate(&self, head: &Head, batch: &[u8], unpacker: &Unpacker) -> io::Result<Fate> {
        if head.base >= self.keys.end {
            return Ok(Fate::Whole);
        }
        let last_of_producer = self.producers.get(&head.producer_id) == Some(&head.next());
        if head.count == 0 {
            return Ok(if last_of_producer {
                Fate::Whole
            } else {
                Fate::Emptied
            });
        }
        let payload = &batch[HEAD_BYTES..];
        let sifted = unpacker.with(head, payload, |records| self.sift(head, records));
        let Ok(Some(sifted)) = sifted else {
            debug!(
                offset = head.base,
                "batch that cannot be read left as it is"
            );
            return Ok(Fate::Whole);
        };
        Ok(match sifted {
            Sifted::All => Fate::Whole,
            Sifted::Nothing if last_of_producer => Fate::Changed(emptied(batch, head)),
            Sifted::Nothing => Fate::Emptied,
            Sifted::Some(change, records) => {
                let payload = pack(head.compression(), &records)?;
                Fate::Changed(rewritten(batch, &change, &payload))
            }
        })
    }

    /// The records of a batch that stay; `None` where one of them cannot be read.
    fn sift(&self, head: &Head, records: &[u8]) -> Option<Sifted> {
        // A part of a batch may lie beyond the keys: its tombstones are not cleaned yet.
        let clean = head.next() <= self.keys.end;
        let now_ms = self.cleaning.now_ms;
        let passed = clean && head.horizon_ms().is_some_and(|horizon| horizon <= now_ms);
        let mut reader = Records::new(head, records);
        let (mut stay, mut tombstones) = (Vec::new(), false);
        while let Some(read) = reader.next_encoded() {
            let (record, encoded) = read.ok()?;
            let tombstone = record.value.is_none();
            let gone = record.offset < self.start
                || record
                    .key
                    .is_none_or(|key| self.keys.replaced(key, record.offset))
                    && record.offset < self.keys.end
                || tombstone && passed;
            if !gone {
                tombstones |= tombstone;
                stay.push((encoded, record.timestamp_ms));
            }
        }
        let horizon_ms = match (tombstones, head.horizon_ms()) {
            (true, None) if clean => {
                let stay_ms = i64::try_from(self.settings.delete_retention_ms).unwrap_or(i64::MAX);
                Some(now_ms.saturating_add(stay_ms))
            }
            (true, known) => known,
            (false, _) => None,
        };
        let count = i32::try_from(stay.len()).ok()?;
        if count == head.count && horizon_ms == head.horizon_ms() {
            return Some(Sifted::All);
        }
        if stay.is_empty() {
            return Some(Sifted::Nothing);
        }
        let first_ms = horizon_ms.unwrap_or(head.first_ms);
        let mut kept = Vec::with_capacity(records.len());
        for (encoded, ms) in &stay {
            if first_ms == head.first_ms {
                kept.extend_from_slice(encoded.whole);
            } else {
                encoded.retimed(ms.wrapping_sub(first_ms), &mut kept);
            }
        }
        let newest_ms = stay.iter().map(|(_, ms)| *ms).max()?;
        let change = Change {
            attributes: head.with_horizon(horizon_ms.is_some()),
            first_ms,
            newest_ms,
            count,
        };
        Some(Sifted::Some(change, kept))
    }
}

/// What becomes of a batch.
enum Fate {
    Whole,
    Changed(Vec<u8>),
    /// It goes, but for its end where that is the segment's.
    Emptied,
}

/// Which records of a batch stay.
enum Sifted {
    All,
    Some(Change, Vec<u8>),
    Nothing,
}

/// Shows the batches of a segment, each checked, until `each` has enough.
fn each_batch(
    segment: &Closed,
    disk: &dyn Disk,
    each: impl FnMut(&Head, &[u8]) -> Result<ControlFlow<()>, LogError>,
) -> Result<(), LogError> {
    let file = segment.open(disk)?;
    let span = (0, segment.extent.bytes);
    let from = (segment.extent.base, segment.gaps());
    let scanned = scan(&segment.path, &*file, span, from, each)?;
    match scanned.fault {
        Some(fault) => Err(LogError::Damaged {
            path: segment.path.clone(),
            at: scanned.at,
            what: fault.into(),
        }),
        None => Ok(()),
    }
}

/// A segment in the making.
struct Output {
    path: PathBuf,
    file: Arc<dyn SegmentFile>,
    /// Not written yet.
    buffer: Vec<u8>,
    /// Bytes written.
    at: u64,
    extent: Extent,
    index: Index,
    /// The end of what was taken last, where its records went and nothing has followed yet.
    end: Option<Vec<u8>>,
    /// It is not what it was made from.
    changed: bool,
}

impl Output {
    fn new(path: &Path, disk: &dyn Disk, extent: Extent) -> Result<Self, LogError> {
        let made = disk.create(path).inspect_err(|_| {
            // Where a part of it cannot be removed now, the next start does.
            let _ = disk.remove(path);
        });
        Ok(Self {
            path: path.to_owned(),
            file: made.map_err(LogError::files("make", path))?,
            buffer: Vec::new(),
            at: 0,
            extent,
            index: Index::default(),
            end: None,
            changed: false,
        })
    }

    fn bytes(&self) -> u64 {
        self.extent.bytes
    }

    /// Takes what stays of a segment.
    fn take(
        &mut self,
        segment: &Closed,
        pass: &Pass<'_>,
        partition: &Partition,
    ) -> Result<(), LogError> {
        let unpacker = &partition.around.unpacker;
        each_batch(segment, &*partition.around.disk, |head, batch| {
            pass.stopped()?;
            let fate = pass.fate(head, batch, unpacker);
            match fate.map_err(write_error(&self.path))? {
                Fate::Whole => self.push(head, batch)?,
                Fate::Changed(batch) => {
                    self.changed = true;
                    self.push_new(&batch)?;
                }
                Fate::Emptied if head.next() == segment.extent.next => {
                    self.changed |= head.count > 0;
                    self.end = Some(emptied(batch, head));
                }
                Fate::Emptied => self.changed = true,
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn push_new(&mut self, batch: &[u8]) -> Result<(), LogError> {
        let head = Head::parse(batch).expect("a batch made here has a head");
        self.push(&head, batch)
    }

    fn push(&mut self, head: &Head, batch: &[u8]) -> Result<(), LogError> {
        self.end = None;
        self.extent.add(head, 0);
        self.index.add(head);
        self.buffer.extend_from_slice(batch);
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.file
            .write_at(&self.buffer, self.at)
            .map_err(write_error(&self.path))?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes it durable. It stands for `group` and must end where that does.
    fn finish(&mut self, group: &[Arc<Closed>]) -> Result<(Extent, Index), LogError> {
        if let Some(end) = self.end.take() {
            self.push_new(&end)?;
        }
        self.flush()?;
        let times = group.iter().map(|s| &s.extent);
        let generation = times.clone().map(|e| e.generation).max().unwrap_or(0);
        self.extent.generation = generation + 1;
        self.extent.first_at_ms = times.clone().map(|e| e.first_at_ms).min().unwrap_or(0);
        self.extent.last_at_ms = times.clone().map(|e| e.last_at_ms).max().unwrap_or(0);
        let end = times.map(|e| e.next).max();
        if end != Some(self.extent.next) {
            return Err(LogError::Damaged {
                path: self.path.clone(),
                at: self.at,
                what: format!("it was to end before offset {}", end.unwrap_or(0)),
            });
        }
        self.file.sync().map_err(write_error(&self.path))?;
        Ok((self.extent.clone(), std::mem::take(&mut self.index)))
    }
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |cause| LogError::Write {
        path,
        cause: Arc::new(cause),
    }
}
