//! Finding records by time.
//!
//! Always: the answer is exact, inside compressed batches too; only a batch that may hold it is
//! unpacked. One that cannot be unpacked (nobody looks inside when it comes) answers with its first
//! offset and its newest timestamp.
//! A batch is passed over by the newest timestamp that its head states, as in Kafka.

use std::cmp::Reverse;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::SegmentFile;
use crate::partition::Partition;
use crate::segment::{Closed, head_at};
use crate::{HEAD_BYTES, Head, LogError, Record, Records};

/// Offset and timestamp of a record.
type Found = (i64, i64);

/// A segment as it was when the search began.
struct Held {
    path: PathBuf,
    bytes: u64,
    newest_ms: i64,
    base: i64,
    file: File,
}

enum File {
    Closed(Arc<Closed>),
    /// Open, and where the first batch stands that is new enough, or a little before.
    Active(Arc<dyn SegmentFile>, u64),
}

impl Partition {
    /// The first record with a timestamp of `timestamp_ms` or later: its offset and its timestamp,
    /// in milliseconds since 1970. `None` where there is none yet.
    ///
    /// # Errors
    /// [`LogError::Files`] or [`LogError::Damaged`] where a segment cannot be read,
    /// [`LogError::Deleted`].
    pub fn find(&self, timestamp_ms: i64) -> Result<Option<Found>, LogError> {
        self.search(
            |_| timestamp_ms,
            |segments, readable| {
                for held in segments.iter().filter(|s| s.newest_ms >= timestamp_ms) {
                    let (file, from) = self.open_at(held, timestamp_ms)?;
                    let mut found = None;
                    held.walk(&*file, from, readable, |head, batch| {
                        if head.newest_ms < timestamp_ms {
                            return Ok(ControlFlow::Continue(()));
                        }
                        self.each(head, &batch()?, readable, |offset, ms| {
                            if found.is_none() && ms >= timestamp_ms {
                                found = Some((offset, ms));
                            }
                        });
                        Ok(match found {
                            Some(_) => ControlFlow::Break(()),
                            None => ControlFlow::Continue(()),
                        })
                    })?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                Ok(None)
            },
        )
    }

    /// The record with the highest timestamp, the first of several: its offset and its timestamp, in
    /// milliseconds since 1970. `None` where there is no record.
    ///
    /// # Errors
    /// As [`Partition::find`].
    pub fn newest(&self) -> Result<Option<Found>, LogError> {
        self.search(
            |newest_ms| newest_ms,
            |segments, readable| {
                segments.sort_by_key(|s| (Reverse(s.newest_ms), s.base));
                let mut best: Option<Found> = None;
                for held in segments.iter() {
                    let beaten = |ms: i64, best: Option<Found>| best.is_some_and(|b| b.1 >= ms);
                    if beaten(held.newest_ms, best) {
                        break;
                    }
                    let (file, from) = self.open_at(held, held.newest_ms)?;
                    // What made the segment's time may be gone or not to be read yet: then all of
                    // the segment is looked through.
                    for from in [from, 0] {
                        held.walk(&*file, from, readable, |head, batch| {
                            if !beaten(head.newest_ms, best) {
                                self.each(head, &batch()?, readable, |offset, ms| {
                                    if !beaten(ms, best) {
                                        best = Some((offset, ms));
                                    }
                                });
                            }
                            Ok(ControlFlow::Continue(()))
                        })?;
                        if from == 0 || beaten(held.newest_ms, best) {
                            break;
                        }
                    }
                }
                Ok(best)
            },
        )
    }

    /// Runs `look` over the segments and over what of them may be read; again where one of them was
    /// dropped or replaced meanwhile. `time` says what is looked for in the active segment, whose
    /// newest timestamp it is given.
    fn search(
        &self,
        time: impl Fn(i64) -> i64,
        look: impl Fn(&mut [Held], &Range<i64>) -> Result<Option<Found>, LogError>,
    ) -> Result<Option<Found>, LogError> {
        loop {
            let (mut segments, readable) = self.held(&time)?;
            match look(&mut segments, &readable) {
                Err(_) if segments.iter().any(|held| self.lost(held)) => {}
                looked => return looked,
            }
        }
    }

    fn held(&self, time: impl Fn(i64) -> i64) -> Result<(Vec<Held>, Range<i64>), LogError> {
        let state = self.state.lock();
        if let Some(gone @ LogError::Deleted(_)) = &state.broken {
            return Err(gone.clone());
        }
        let closed = state.closed.iter().map(|closed| Held {
            path: closed.path.clone(),
            bytes: closed.extent.bytes,
            newest_ms: closed.extent.newest_ms,
            base: closed.extent.base,
            file: File::Closed(Arc::clone(closed)),
        });
        let (active, extent) = (&state.active, &state.active.extent);
        let from = active.index.at_time(time(extent.newest_ms));
        let active = Held {
            path: active.path.clone(),
            bytes: extent.bytes,
            newest_ms: extent.newest_ms,
            base: extent.base,
            file: File::Active(Arc::clone(&active.file), from),
        };
        Ok((closed.chain([active]).collect(), state.start..state.end))
    }

    fn lost(&self, held: &Held) -> bool {
        match &held.file {
            File::Closed(closed) => self.gone(closed),
            File::Active(..) => false,
        }
    }

    /// The file, and where to begin looking for `ms` in it.
    fn open_at(&self, held: &Held, ms: i64) -> Result<(Arc<dyn SegmentFile>, u64), LogError> {
        match &held.file {
            File::Closed(closed) => {
                let file = closed.open(&*self.around.disk)?;
                let from = closed.index(&*file)?.at_time(ms);
                Ok((file, from))
            }
            File::Active(file, from) => Ok((Arc::clone(file), *from)),
        }
    }

    /// Offset and timestamp of each record of a batch that may be read.
    fn each(
        &self,
        head: &Head,
        batch: &[u8],
        readable: &Range<i64>,
        mut each: impl FnMut(i64, i64),
    ) {
        let mut show = |record: Record<'_>| {
            if readable.contains(&record.offset) {
                each(record.offset, record.timestamp_ms);
            }
        };
        let payload = &batch[HEAD_BYTES..];
        let unpacked = self.around.unpacker.with(head, payload, |records| {
            Records::new(head, records)
                .map_while(Result::ok)
                .for_each(&mut show);
        });
        if unpacked.is_err() {
            each(head.base.max(readable.start), head.newest_ms);
        }
    }
}

/// Reads the batch of the head that is shown.
type ReadBatch<'a> = &'a dyn Fn() -> Result<Vec<u8>, LogError>;

impl Held {
    /// Shows the heads of batches that may be read, from byte `from` on.
    fn walk(
        &self,
        file: &dyn SegmentFile,
        from: u64,
        readable: &Range<i64>,
        mut each: impl FnMut(&Head, ReadBatch<'_>) -> Result<ControlFlow<()>, LogError>,
    ) -> Result<(), LogError> {
        let mut at = from;
        while at < self.bytes {
            let head = head_at(&self.path, file, at, self.bytes)?;
            if head.base >= readable.end {
                return Ok(());
            }
            let read = || {
                let mut batch = vec![0; head.bytes];
                file.read_at(&mut batch, at)
                    .map_err(LogError::files("read", &self.path))?;
                Ok(batch)
            };
            if head.next() > readable.start && each(&head, &read)?.is_break() {
                return Ok(());
            }
            at += head.bytes as u64;
        }
        Ok(())
    }
}
