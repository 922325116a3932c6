//! Batches that somebody passes on as they lie: where they are, and their bytes piece by piece.
//!
//! Always: they stay readable, though retention or the cleaner removes their file meanwhile: it is
//! held open.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::SegmentFile;
use crate::segment::head_at;
use crate::{LogError, Slice};

/// Less than this is read at once: it costs no more than looking where it ends.
pub(crate) const STORED_BYTES_MIN: u64 = 128 * 1024;

/// What [`crate::Partition::locate`] gave.
pub enum Located {
    /// Little: it was read.
    Read(Slice),
    /// Much: where it lies.
    Stored {
        /// Whole batches, as in [`Slice::batches`].
        batches: Stored,
        /// First offset held.
        start: i64,
        /// First offset that may not be read yet.
        end: i64,
    },
}

/// Whole batches of one segment, not read yet.
pub struct Stored {
    path: PathBuf,
    file: Arc<dyn SegmentFile>,
    from: u64,
    bytes: usize,
}

impl Stored {
    /// The batches between bytes `from` and `to` of a segment, without those that end before
    /// `offset`. With `gaps` the first may also start after it.
    pub(crate) fn of(
        path: &Path,
        file: Arc<dyn SegmentFile>,
        (mut from, to): (u64, u64),
        (offset, gaps): (i64, bool),
    ) -> Result<Self, LogError> {
        loop {
            let damaged = |what: &str| LogError::Damaged {
                path: path.to_owned(),
                at: from,
                what: what.into(),
            };
            if from >= to {
                return Err(damaged("the index and the batches differ"));
            }
            let head = head_at(path, &*file, from, to)?;
            if head.next() > offset {
                if head.base > offset && !gaps {
                    return Err(damaged("a batch has a wrong offset"));
                }
                break;
            }
            from += head.bytes as u64;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            from,
            bytes: usize::try_from(to - from).unwrap_or(usize::MAX),
        })
    }

    /// How many bytes there are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The file that holds them, and from which byte on, where they may be sent from it without
    /// being read.
    #[must_use]
    pub fn system_file(&self) -> Option<(&File, u64)> {
        Some((self.file.system_file()?, self.from))
    }

    /// Fills `into` with those from byte `at` on.
    ///
    /// # Errors
    /// [`LogError::Files`] where the segment cannot be read.
    ///
    /// # Panics
    /// Where there are not so many.
    pub fn read(&self, at: usize, into: &mut [u8]) -> Result<(), LogError> {
        assert!(at + into.len() <= self.bytes, "within the batches");
        self.file
            .read_at(into, self.from + at as u64)
            .map_err(LogError::files("read", &self.path))
    }
}
