//! One partition: appending, committing, reading, retention.
//!
//! Locks, always taken in this order: `cleaning` (one cleaner at a time), `writing` (one appender or
//! roll at a time; held over file writes), `snapshotting` (which segments there are is changed and
//! written down by one at a time) and `state` (held for moments only, never over file work). So
//! readers wait for nobody, and only an appender's own partition waits for its file.

use std::collections::VecDeque;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard, RwLock};
use tracing::{info, warn};

use crate::batch::Batches;
use crate::codec::Unpacker;
use crate::commit::Queue;
use crate::disk::{Disk, SegmentFile};
use crate::log::Clock;
use crate::marks::Marks;
use crate::producers::{Producers, Verdict, Written};
use crate::recovery::{Active, recover};
use crate::segment::{Closed, Extent, Index, SegmentName, window};
use crate::snapshot::Snapshot;
use crate::stored::{Located, STORED_BYTES_MIN, Stored};
use crate::topic::{Durability, Settings, Stamp, Watchers};
use crate::{Head, LogError};

/// A segment spans at most this part of the retention time, so that its oldest record outstays it
/// by no more than that.
const SEGMENTS_PER_RETENTION: u64 = 8;

/// Called once, when an append is durable or is known not to become so.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// What an append gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Offsets that the records have.
    pub offsets: Range<i64>,
    /// The batch was here already, sent before by the same idempotent producer: it was not appended
    /// again, and the offsets are those it has.
    pub repeated: bool,
    /// The timestamp that all records were given, in milliseconds since 1970, with
    /// [`Stamp::Append`].
    pub append_ms: Option<i64>,
}

/// What a read gave.
#[derive(Clone)]
pub struct Slice {
    /// Whole batches, as they lie; the first may begin before the offset asked for. In a topic that
    /// is compacted it may begin after it, and offsets may be missing in and between batches; a
    /// batch without a record tells only where it ends. Empty at the end.
    pub batches: Bytes,
    /// First offset held.
    pub start: i64,
    /// First offset that may not be read yet.
    pub end: i64,
}

/// What a partition is opened with.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub topic: Arc<str>,
    pub disk: Arc<dyn Disk>,
    pub queue: Arc<Queue>,
    pub clock: Clock,
    pub settings: Arc<RwLock<Settings>>,
    pub watchers: Arc<Watchers>,
    pub unpacker: Arc<Unpacker>,
    /// A snapshot is written when that much was appended since the last one.
    pub snapshot_bytes: u64,
}

/// An ordered row of records, cut into segments.
pub struct Partition {
    id: i32,
    pub(crate) folder: PathBuf,
    pub(crate) around: Surroundings,
    /// Held while the partition is cleaned.
    pub(crate) cleaning: Mutex<()>,
    pub(crate) writing: Mutex<()>,
    pub(crate) state: Mutex<State>,
    /// Held while a snapshot is taken and written, so that an older one never replaces a newer one,
    /// and while closed segments are dropped or replaced.
    pub(crate) snapshotting: Mutex<()>,
}

pub(crate) struct State {
    pub start: i64,
    /// Everything before it is durable and may be read.
    pub end: i64,
    /// Everything before it is written.
    next: i64,
    pub closed: VecDeque<Arc<Closed>>,
    pub active: Active,
    marks: Marks,
    pub producers: Producers,
    /// The cleaner has gone through everything before it.
    pub cleaned: i64,
    /// Appenders that wait for `end` to reach an offset, in order.
    waiting: VecDeque<(i64, Done)>,
    /// In the commit thread's queue already.
    queued: bool,
    /// A failed write left bytes behind that could not be cut yet.
    torn: bool,
    /// Why nothing can be appended any more.
    pub broken: Option<LogError>,
    unsnapped_bytes: u64,
}

impl State {
    /// Those who waited for no more than `end`.
    fn served(&mut self) -> Vec<Done> {
        let count = self.waiting.partition_point(|(next, _)| *next <= self.end);
        self.waiting.drain(..count).map(|(_, done)| done).collect()
    }

    fn all_waiting(&mut self) -> Vec<Done> {
        self.waiting.drain(..).map(|(_, done)| done).collect()
    }
}

impl Partition {
    pub(crate) fn open(id: i32, folder: PathBuf, around: Surroundings) -> Result<Self, LogError> {
        let found = recover(&folder, &*around.disk)?;
        let next = found.active.extent.next;
        let partition = Self {
            id,
            folder,
            around,
            cleaning: Mutex::new(()),
            writing: Mutex::new(()),
            state: Mutex::new(State {
                start: found.start,
                end: next,
                next,
                closed: found.closed,
                active: found.active,
                marks: found.marks,
                producers: found.producers,
                cleaned: found.cleaned,
                waiting: VecDeque::new(),
                queued: false,
                torn: false,
                broken: None,
                unsnapped_bytes: found.scanned_bytes,
            }),
            snapshotting: Mutex::new(()),
        };
        if found.scanned_bytes > 0 {
            partition.snapshot();
        }
        Ok(partition)
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }

    /// First offset held, and first offset that may not be read yet (the high watermark).
    #[must_use]
    pub fn offsets(&self) -> Range<i64> {
        let state = self.state.lock();
        state.start..state.end
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let state = self.state.lock();
        let closed: u64 = state.closed.iter().map(|c| c.extent.bytes).sum();
        closed + state.active.extent.bytes
    }

    /// Highest `falaj.src` position of `source` that was ever appended here. Between a start and
    /// the first append that is what is durable.
    #[must_use]
    pub fn highest(&self, source: &str) -> Option<u64> {
        self.state.lock().marks.get(source)
    }

    /// Appends, and waits until the batches are durable.
    ///
    /// # Errors
    /// As [`Partition::append_then`]; [`LogError::Poisoned`] where the sync failed.
    pub fn append(&self, batches: Batches) -> Result<Appended, LogError> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let appended = self.append_then(
            batches,
            Box::new(move |result| {
                // The receiver is below and waits.
                let _ = tell.send(result);
            }),
        )?;
        told.recv().unwrap_or(Err(LogError::Closed))?;
        Ok(appended)
    }

    /// Appends, and calls `done` when the batches are durable or a failed sync leaves that unknown.
    /// All of them become one write: they get in together or not at all. A batch that its idempotent
    /// producer has sent before is not appended again, and `done` is called when it is durable.
    ///
    /// # Errors
    /// Where nothing was appended; `done` is then never called. [`LogError::TooLarge`],
    /// [`LogError::NoKey`], [`LogError::Refused`], [`LogError::OutOfOrder`] and [`LogError::Fenced`]
    /// are about the batches. [`LogError::Write`] (disk full, for one) can be tried again;
    /// [`LogError::Poisoned`], [`LogError::Deleted`] and [`LogError::Closed`] are for good.
    pub fn append_then(&self, batches: Batches, done: Done) -> Result<Appended, LogError> {
        let settings = self.around.settings.read().clone();
        self.admit(&batches, &settings)?;
        let writing = self.writing.lock();
        if let Some(head) = batches.produced()?
            && let Some(seen) = self.seen(head)?
        {
            return self.repeat(seen, &settings, done);
        }
        self.write(batches, &settings, done, writing)
    }

    /// Whether these batches may come into this topic.
    fn admit(&self, batches: &Batches, settings: &Settings) -> Result<(), LogError> {
        let max = settings.batch_bytes_max;
        let large = |head: &&Head| u32::try_from(head.bytes).is_ok_and(|bytes| bytes > max);
        if let Some(head) = batches.heads().iter().find(large) {
            return Err(LogError::TooLarge {
                bytes: head.bytes,
                max,
            });
        }
        if settings.cleanup.compacts() && !batches.keyed(&self.around.unpacker)? {
            return Err(LogError::NoKey {
                topic: Arc::clone(&self.around.topic),
            });
        }
        Ok(())
    }

    /// The same batch, where it was appended before. The caller holds `writing`.
    fn seen(&self, head: &Head) -> Result<Option<Written>, LogError> {
        let state = self.state.lock();
        if let Some(broken) = &state.broken {
            return Err(broken.clone());
        }
        let (topic, partition) = (Arc::clone(&self.around.topic), self.id);
        match state.producers.judge(head) {
            Verdict::Next => Ok(None),
            Verdict::Repeat(written) => Ok(Some(written)),
            Verdict::Fenced(current) => Err(LogError::Fenced {
                topic,
                partition,
                producer_id: head.producer_id,
                epoch: head.producer_epoch,
                current,
            }),
            Verdict::OutOfOrder(wanted) => Err(LogError::OutOfOrder {
                topic,
                partition,
                producer_id: head.producer_id,
                sequence: head.base_sequence,
                wanted,
            }),
        }
    }

    /// Answers for a batch that is here already, as soon as that one is durable.
    fn repeat(&self, seen: Written, settings: &Settings, done: Done) -> Result<Appended, LogError> {
        let mut state = self.state.lock();
        if let Some(broken) = &state.broken {
            return Err(broken.clone());
        }
        let durable = seen.next <= state.end;
        let mut at_once = None;
        if durable {
            at_once = Some(done);
        } else {
            // Whoever sent it first is in the queue for a sync already.
            let place = state
                .waiting
                .partition_point(|(next, _)| *next <= seen.next);
            state.waiting.insert(place, (seen.next, done));
        }
        drop(state);
        if let Some(done) = at_once {
            done(Ok(()));
        }
        Ok(Appended {
            offsets: seen.base..seen.next,
            repeated: true,
            append_ms: (settings.stamp == Stamp::Append).then_some(seen.newest_ms),
        })
    }

    fn write(
        &self,
        batches: Batches,
        settings: &Settings,
        done: Done,
        writing: MutexGuard<'_, ()>,
    ) -> Result<Appended, LogError> {
        let now_ms = (self.around.clock)();
        let append_ms = (settings.stamp == Stamp::Append).then_some(now_ms);
        let (file, path, at, base) = self.ready(settings, batches.len() as u64, now_ms)?;
        let (bytes, heads) = batches.place(base, append_ms);
        if let Err(cause) = file.write_at(&bytes, at) {
            self.state.lock().torn = file.cut(at).is_err();
            return Err(LogError::Write {
                path,
                cause: Arc::new(cause),
            });
        }
        let mut state = self.state.lock();
        if let Some(broken) = &state.broken {
            // Deleted or poisoned meanwhile: nobody was promised anything yet.
            return Err(broken.clone());
        }
        let mut from = 0;
        for head in &heads {
            let batch = &bytes[from..from + head.bytes];
            from += head.bytes;
            state.active.extent.add(head, now_ms);
            state.active.index.add(head);
            state.marks.add(head, batch);
            state.producers.note(head, now_ms);
            state.next = head.next();
        }
        state.unsnapped_bytes += bytes.len() as u64;
        let offsets = base..state.next;
        let mut served = Vec::new();
        state.waiting.push_back((offsets.end, done));
        let lazy = settings.durability == Durability::Os;
        if lazy {
            state.end = state.next;
            served = state.served();
        }
        let due = !lazy || state.unsnapped_bytes >= self.around.snapshot_bytes;
        let enqueue = due && !std::mem::replace(&mut state.queued, true);
        drop(state);
        drop(writing);
        if enqueue {
            self.around.queue.push(&self.around.topic, self.id);
        }
        if lazy {
            self.tell(served, &Ok(()));
        }
        Ok(Appended {
            offsets,
            repeated: false,
            append_ms,
        })
    }

    /// The segment to write to, where in it, and the next offset; rolls where that is due.
    /// The caller holds `writing`.
    fn ready(
        &self,
        settings: &Settings,
        bytes: u64,
        now_ms: i64,
    ) -> Result<(Arc<dyn SegmentFile>, PathBuf, u64, i64), LogError> {
        let full = {
            let state = self.state.lock();
            if let Some(broken) = &state.broken {
                return Err(broken.clone());
            }
            let extent = &state.active.extent;
            let old = outlived(extent, settings, now_ms);
            extent.bytes > 0 && (old || extent.bytes + bytes > settings.segment_bytes)
        };
        self.mend()?;
        if full {
            self.roll()?;
        }
        let state = self.state.lock();
        let active = &state.active;
        Ok((
            Arc::clone(&active.file),
            active.path.clone(),
            active.extent.bytes,
            state.next,
        ))
    }

    /// Cuts what a failed write left behind, where that failed too. The caller holds `writing`.
    pub(crate) fn mend(&self) -> Result<(), LogError> {
        let (file, path, bytes) = {
            let state = self.state.lock();
            if !state.torn {
                return Ok(());
            }
            let active = &state.active;
            (
                Arc::clone(&active.file),
                active.path.clone(),
                active.extent.bytes,
            )
        };
        file.cut(bytes).map_err(|cause| LogError::Write {
            path,
            cause: Arc::new(cause),
        })?;
        self.state.lock().torn = false;
        Ok(())
    }

    /// Syncs the active segment and begins the next one. The caller holds `writing`.
    pub(crate) fn roll(&self) -> Result<(), LogError> {
        let (file, old_path, next) = {
            let state = self.state.lock();
            let active = &state.active;
            (Arc::clone(&active.file), active.path.clone(), state.next)
        };
        self.sync(&*file, &old_path, next)?;
        let extent = Extent::empty(next);
        let path = SegmentName::of(&extent).path(&self.folder);
        let new = self.around.disk.create(&path).map_err(|cause| {
            // Left behind it would stand in the way of what is appended to the old one now.
            let _ = fs::remove_file(&path);
            LogError::Write {
                path: path.clone(),
                cause: Arc::new(cause),
            }
        })?;
        let old = {
            let mut state = self.state.lock();
            let old = std::mem::replace(
                &mut state.active,
                Active {
                    extent,
                    path,
                    file: new,
                    index: Index::default(),
                },
            );
            let closed = Arc::new(Closed::new(&self.folder, old.extent.clone()));
            state.closed.push_back(closed);
            // The new segment is in no snapshot yet: the commit thread writes one.
            state.unsnapped_bytes = u64::MAX / 2;
            old
        };
        if let Err(error) = old.index.save(&old_path) {
            warn!(file = %old_path.display(), %error, "index not written; it will be made again");
        }
        Ok(())
    }

    /// Syncs `file` and lets everything before `next` be read; a failure is final.
    fn sync(
        &self,
        file: &dyn SegmentFile,
        path: &std::path::Path,
        next: i64,
    ) -> Result<(), LogError> {
        let synced = file.sync().map_err(|cause| LogError::Poisoned {
            path: path.to_owned(),
            cause: Arc::new(cause),
        });
        let mut state = self.state.lock();
        let served = match &synced {
            Ok(()) => {
                state.end = state.end.max(next);
                state.served()
            }
            Err(error) => {
                state.broken.get_or_insert(error.clone());
                state.all_waiting()
            }
        };
        drop(state);
        self.tell(served, &synced);
        synced
    }

    fn tell(&self, served: Vec<Done>, result: &Result<(), LogError>) {
        for done in served {
            done(result.clone());
        }
        self.around.watchers.call();
    }

    /// The commit thread's turn: one sync for everybody who waits, and a snapshot when it is due.
    pub(crate) fn commit(&self) {
        let (file, path, next, due) = {
            let mut state = self.state.lock();
            state.queued = false;
            if state.broken.is_some() {
                return;
            }
            let active = &state.active;
            let due = state.unsnapped_bytes >= self.around.snapshot_bytes;
            (
                Arc::clone(&active.file),
                active.path.clone(),
                state.next,
                due,
            )
        };
        // A failure is told to those who wait and stays with the partition.
        if self.sync(&*file, &path, next).is_ok() && due {
            self.snapshot();
        }
    }

    /// Writes a snapshot of what is durable. A failure costs only time at the next start.
    pub(crate) fn snapshot(&self) {
        let _turn = self.snapshotting.lock();
        self.snapshot_in_turn();
    }

    /// The same for a caller that holds `snapshotting`.
    pub(crate) fn snapshot_in_turn(&self) {
        let start = self.state.lock().start;
        if let Err(error) = self.write_down(start) {
            warn!(folder = %self.folder.display(), %error, "snapshot not written; the next start scans more");
        }
    }

    /// Writes a snapshot by which the partition starts at `start`. The caller holds `snapshotting`.
    /// Nothing is written, nor is that an error, where the partition takes no more writes.
    fn write_down(&self, start: i64) -> Result<(), LogError> {
        let (file, path, next, index, snapshot) = {
            let mut state = self.state.lock();
            if state.broken.is_some() {
                return Ok(());
            }
            state.unsnapped_bytes = 0;
            let mut segments: Vec<_> = state
                .closed
                .iter()
                .filter(|c| c.extent.next > start)
                .map(|c| c.extent.clone())
                .collect();
            segments.push(state.active.extent.clone());
            let active = &state.active;
            (
                Arc::clone(&active.file),
                active.path.clone(),
                state.next,
                active.index.clone(),
                Snapshot {
                    marks: state.marks.clone(),
                    producers: state.producers.clone(),
                    cleaned: state.cleaned,
                    ..Snapshot::new(start, segments)
                },
            )
        };
        // It tells of bytes up to `next`, so these must be on the disk before it is.
        self.sync(&*file, &path, next)?;
        index
            .save(&path)
            .and_then(|()| snapshot.save(&self.folder))
            .map_err(LogError::files("write the snapshot of", &self.folder))
    }

    /// Reads whole batches from the one that holds `offset` on: about `bytes_max`, at least one.
    ///
    /// # Errors
    /// [`LogError::Overtaken`] before the start, [`LogError::BeyondEnd`] after the end.
    pub fn read(&self, offset: i64, bytes_max: usize) -> Result<Slice, LogError> {
        self.at(offset, bytes_max, |span, slice| {
            let batches = span.read((offset, slice.end), bytes_max)?;
            Ok(Slice { batches, ..slice })
        })
        .map(|(slice, read)| read.unwrap_or(slice))
    }

    /// As [`Partition::read`], for who passes batches on as they lie: where there are many, it
    /// only says where, and may leave out some that would fit. Between the first batch and the end
    /// nothing is checked, as in Kafka: whoever gets them does so.
    ///
    /// # Errors
    /// As [`Partition::read`].
    pub fn locate(&self, offset: i64, bytes_max: usize) -> Result<Located, LogError> {
        self.at(offset, bytes_max, |span, slice| {
            let (start, end) = (slice.start, slice.end);
            if let Some(batches) = span.locate(offset)? {
                return Ok(Located::Stored {
                    batches,
                    start,
                    end,
                });
            }
            let batches = span.read((offset, end), bytes_max)?;
            Ok(Located::Read(Slice { batches, ..slice }))
        })
        .map(|(slice, located)| located.unwrap_or(Located::Read(slice)))
    }

    /// What `look` finds in the segment that holds `offset`; none at the end. Again where the segment
    /// was dropped or replaced meanwhile.
    fn at<T>(
        &self,
        offset: i64,
        bytes_max: usize,
        look: impl Fn(&Span, Slice) -> Result<T, LogError>,
    ) -> Result<(Slice, Option<T>), LogError> {
        loop {
            let (slice, place) = self.place(offset, bytes_max)?;
            let (closed, looked) = match place {
                None => return Ok((slice, None)),
                Some(Place::Active(span)) => (None, look(&span, slice.clone())),
                Some(Place::Closed(closed)) => {
                    let bounds = (offset, slice.end, bytes_max);
                    let span = Span::of_closed(&closed, &*self.around.disk, bounds);
                    let looked = span.and_then(|span| look(&span, slice.clone()));
                    (Some(closed), looked)
                }
            };
            match looked {
                Ok(found) => return Ok((slice, Some(found))),
                // Retention or the cleaner took the segment between the look and the read.
                Err(_) if closed.is_some_and(|closed| self.gone(&closed)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn place(&self, offset: i64, bytes_max: usize) -> Result<(Slice, Option<Place>), LogError> {
        let state = self.state.lock();
        let (topic, partition) = (Arc::clone(&self.around.topic), self.id);
        if let Some(gone @ LogError::Deleted(_)) = &state.broken {
            return Err(gone.clone());
        }
        if offset < state.start {
            return Err(LogError::Overtaken {
                topic,
                partition,
                wanted: offset,
                start: state.start,
            });
        }
        if offset > state.end {
            return Err(LogError::BeyondEnd {
                topic,
                partition,
                wanted: offset,
                end: state.end,
            });
        }
        let slice = Slice {
            batches: Bytes::new(),
            start: state.start,
            end: state.end,
        };
        if offset == state.end {
            return Ok((slice, None));
        }
        let after = state.closed.partition_point(|c| c.extent.next <= offset);
        let place = if let Some(closed) = state.closed.get(after) {
            Place::Closed(Arc::clone(closed))
        } else {
            let (index, extent) = (&state.active.index, &state.active.extent);
            let from = index.at_offset(offset);
            Place::Active(Span {
                path: state.active.path.clone(),
                file: Arc::clone(&state.active.file),
                from,
                to: within(index, extent, from, (state.end, bytes_max)),
                length: extent.bytes,
                gaps: false,
            })
        };
        Ok((slice, Some(place)))
    }

    /// Whether a segment was dropped or replaced since it was looked up.
    pub(crate) fn gone(&self, closed: &Arc<Closed>) -> bool {
        let state = self.state.lock();
        matches!(state.broken, Some(LogError::Deleted(_)))
            || !state.closed.iter().any(|c| Arc::ptr_eq(c, closed))
    }

    /// Deletes the records before `offset`, or all that can be read where it is -1. Gives the first
    /// offset held from now on, which lasts over a crash; where that is later already, nothing
    /// changes. Files go as soon as nothing of them is left.
    ///
    /// # Errors
    /// [`LogError::BeyondEnd`] or [`LogError::Overtaken`] for an offset that cannot be, and where it
    /// cannot be written down: then nothing is deleted.
    pub fn delete_before(&self, offset: i64) -> Result<i64, LogError> {
        {
            let _writing = self.writing.lock();
            let whole = {
                let state = self.state.lock();
                if let Some(broken) = &state.broken {
                    return Err(broken.clone());
                }
                let all = state.active.extent.next;
                state.active.extent.bytes > 0 && (offset == -1 || offset == all) && state.end == all
            };
            if whole {
                // So that the active segment's file can go too.
                self.mend()?;
                self.roll()?;
            }
        }
        let turn = self.snapshotting.lock();
        let wanted = {
            let state = self.state.lock();
            let (topic, partition) = (Arc::clone(&self.around.topic), self.id);
            let wanted = if offset == -1 { state.end } else { offset };
            if wanted > state.end {
                return Err(LogError::BeyondEnd {
                    topic,
                    partition,
                    wanted,
                    end: state.end,
                });
            }
            if wanted < 0 {
                return Err(LogError::Overtaken {
                    topic,
                    partition,
                    wanted,
                    start: state.start,
                });
            }
            if wanted <= state.start {
                return Ok(state.start);
            }
            wanted
        };
        self.write_down(wanted)?;
        let dropped: Vec<_> = {
            let mut state = self.state.lock();
            if let Some(broken) = &state.broken {
                return Err(broken.clone());
            }
            state.start = wanted;
            let count = state.closed.partition_point(|c| c.extent.next <= wanted);
            state.closed.drain(..count).collect()
        };
        self.remove(&dropped);
        drop(turn);
        self.around.watchers.call();
        Ok(wanted)
    }

    /// Removes the files of segments that no snapshot tells of any more.
    pub(crate) fn remove(&self, segments: &[Arc<Closed>]) {
        for segment in segments {
            for path in [&segment.path, &segment.path.with_extension("index")] {
                match self.around.disk.remove(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        warn!(file = %path.display(), %error, "segment not removed; the next start will");
                    }
                    _ => {}
                }
            }
        }
    }

    /// Drops whole segments that are older than the retention time or beyond its size. Age counts
    /// from when a record was appended, by this machine's clock: records of an old event are kept as
    /// long as others, and a time stamp in the far future keeps nothing alive.
    pub(crate) fn retain(&self, now_ms: i64) {
        let settings = self.around.settings.read().clone();
        let cutoff_ms = settings
            .retention_ms
            .map(|ms| now_ms.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)));
        // The next snapshot leaves them out too; until then a restart only knows them longer.
        self.state.lock().producers.expire(now_ms);
        if !settings.cleanup.deletes() {
            return;
        }
        let expired = |extent: &Extent| {
            extent.bytes > 0 && cutoff_ms.is_some_and(|cutoff| extent.last_at_ms < cutoff)
        };
        {
            let _writing = self.writing.lock();
            let idle = {
                let state = self.state.lock();
                state.broken.is_none() && expired(&state.active.extent)
            };
            if idle && let Err(error) = self.mend().and_then(|()| self.roll()) {
                warn!(topic = %self.around.topic, partition = self.id, %error, "expired segment not rolled");
            }
        }
        let _turn = self.snapshotting.lock();
        let mut dropped = Vec::new();
        {
            let mut state = self.state.lock();
            if matches!(state.broken, Some(LogError::Deleted(_))) {
                return;
            }
            let closed: u64 = state.closed.iter().map(|c| c.extent.bytes).sum();
            let mut total = closed + state.active.extent.bytes;
            while let Some(oldest) = state.closed.front() {
                let left = total - oldest.extent.bytes;
                let beyond = settings.retention_bytes.is_some_and(|max| left >= max);
                if !beyond && !expired(&oldest.extent) {
                    break;
                }
                total = left;
                state.start = state.start.max(oldest.extent.next);
                dropped.extend(state.closed.pop_front());
            }
        }
        if dropped.is_empty() {
            return;
        }
        // First the snapshot, so that a crash in between leaves files that the next start removes.
        // Where it cannot be written (disk full), the files go all the same, to make room.
        self.snapshot_in_turn();
        self.remove(&dropped);
        info!(
            topic = %self.around.topic,
            partition = self.id,
            segments = dropped.len(),
            start = self.offsets().start,
            "retention"
        );
        self.around.watchers.call();
    }

    /// Commits, writes a snapshot where something was appended, and ends all appending.
    pub(crate) fn close(&self) {
        let writing = self.writing.lock();
        let due = {
            let state = self.state.lock();
            state.unsnapped_bytes > 0 || !state.waiting.is_empty()
        };
        if due {
            self.snapshot();
        }
        self.end(&LogError::Closed);
        drop(writing);
    }

    /// Ends all appending: those who wait get `why`.
    pub(crate) fn end(&self, why: &LogError) {
        let served = {
            let mut state = self.state.lock();
            state.broken.get_or_insert(why.clone());
            state.all_waiting()
        };
        self.tell(served, &Err(why.clone()));
    }
}

/// Whether a segment has been written to for so long that the next one is due.
pub(crate) fn outlived(extent: &Extent, settings: &Settings, now_ms: i64) -> bool {
    settings.retention_ms.is_some_and(|retention_ms| {
        let span_ms = (retention_ms / SEGMENTS_PER_RETENTION).max(1);
        now_ms.saturating_sub(extent.first_at_ms) > i64::try_from(span_ms).unwrap_or(i64::MAX)
    })
}

/// Where to read.
enum Place {
    Closed(Arc<Closed>),
    Active(Span),
}

/// An open segment, and which part of it is looked at.
struct Span {
    path: PathBuf,
    file: Arc<dyn SegmentFile>,
    /// Where the batch with the offset that is asked for stands, or a little before.
    from: u64,
    /// The boundary between batches up to which as many are known as may be given.
    to: u64,
    length: u64,
    /// Whether offsets may be missing between its batches.
    gaps: bool,
}

/// A boundary between batches of a segment at most `bytes_max` bytes after byte `from`, with none
/// that starts at `end` or later before it.
fn within(index: &Index, extent: &Extent, from: u64, (end, bytes_max): (i64, usize)) -> u64 {
    let to = from.saturating_add(bytes_max as u64);
    if to >= extent.bytes && extent.next <= end {
        extent.bytes
    } else {
        index.boundary(to, end)
    }
}

impl Span {
    fn of_closed(
        closed: &Closed,
        disk: &dyn Disk,
        (offset, end, bytes_max): (i64, i64, usize),
    ) -> Result<Self, LogError> {
        let file = closed.open(disk)?;
        let index = closed.index(&*file)?;
        let from = index.at_offset(offset);
        Ok(Self {
            path: closed.path.clone(),
            file,
            from,
            to: within(&index, &closed.extent, from, (end, bytes_max)),
            length: closed.extent.bytes,
            gaps: closed.gaps(),
        })
    }

    /// Many batches from the one that holds `offset` on; none where there are few.
    fn locate(&self, offset: i64) -> Result<Option<Stored>, LogError> {
        if self.to.saturating_sub(self.from) < STORED_BYTES_MIN {
            return Ok(None);
        }
        let file = Arc::clone(&self.file);
        let span = (self.from, self.to);
        Stored::of(&self.path, file, span, (offset, self.gaps)).map(Some)
    }

    fn read(&self, (offset, end): (i64, i64), bytes_max: usize) -> Result<Bytes, LogError> {
        let span = (self.from, self.length);
        let bounds = (offset, end, self.gaps);
        window(&self.path, &*self.file, span, bounds, bytes_max)
    }
}
