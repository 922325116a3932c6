//! Reading a topic of the embedded log beside the process that writes it, for `falaj tap`.
//!
//! Always: nothing is written, locked or repaired; a batch that is not whole yet ends a read.
//! Absent on purpose: the promise that what is shown is durable. Nothing is derived from it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use falaj_log::{Head, Slice};
use falaj_record::Fetched;

use crate::TopicError;
use crate::decode::decode;

/// A reader of all partitions of one topic, from their starts on.
#[derive(Debug)]
pub struct Follower {
    topic: String,
    partitions: Vec<Following>,
    bytes_max: usize,
}

/// Where the reader stands in one partition.
#[derive(Debug)]
struct Following {
    partition: i32,
    folder: PathBuf,
    next: i64,
    /// Base offset of the open segment, and how far it is read.
    segment: Option<(i64, File, u64)>,
}

impl Follower {
    /// Opens `topic` in the log at `folder`, or nothing where there is no such topic (yet). One read
    /// takes about `bytes_max` bytes, and at least one batch.
    ///
    /// # Errors
    /// Where the folder cannot be listed.
    pub fn open(folder: &Path, topic: &str, bytes_max: usize) -> Result<Option<Self>, TopicError> {
        let entries = match fs::read_dir(folder.join(topic)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(topic, e)),
        };
        let mut partitions = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| unreadable(topic, e))?;
            if let Some(partition) = entry.file_name().to_str().and_then(|n| n.parse().ok()) {
                let folder = entry.path();
                partitions.push(Following {
                    partition,
                    folder,
                    next: 0,
                    segment: None,
                });
            }
        }
        partitions.sort_by_key(|p| p.partition);
        Ok(Some(Self {
            topic: topic.to_owned(),
            partitions,
            bytes_max,
        }))
    }

    /// What has come since the last read, nothing where nothing has.
    ///
    /// # Errors
    /// Where a file cannot be read, or holds what no record batch is.
    pub fn read(&mut self) -> Result<Vec<Fetched>, TopicError> {
        let mut fetched = Vec::new();
        for following in &mut self.partitions {
            let batches = following
                .batches(self.bytes_max)
                .map_err(|e| unreadable(&self.topic, e))?;
            if batches.is_empty() {
                continue;
            }
            let slice = Slice {
                batches,
                start: following.next,
                end: following.next,
            };
            let part = decode(&self.topic, following.partition, following.next, &slice)?;
            following.next = part.next;
            fetched.push(part);
        }
        Ok(fetched)
    }
}

impl Following {
    /// The next whole batches.
    fn batches(&mut self, bytes_max: usize) -> io::Result<Bytes> {
        loop {
            let later = self.segment_after()?;
            if self.segment.is_none() {
                let Some(base) = self.segment_holding()? else {
                    return Ok(Bytes::new());
                };
                match File::open(self.folder.join(format!("{base:020}.log"))) {
                    Ok(file) => self.segment = Some((base, file, 0)),
                    // Retention took it between the look and the open.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                }
            }
            let Some((_, file, at)) = &mut self.segment else {
                continue;
            };
            let batches = whole(file, *at, bytes_max)?;
            if !batches.is_empty() {
                *at += batches.len() as u64;
                return Ok(batches);
            }
            // Listed before the read found nothing: then the open segment is read to its end.
            match later {
                Some(base) => {
                    self.next = self.next.max(base);
                    self.segment = None;
                }
                None => return Ok(Bytes::new()),
            }
        }
    }

    fn bases(&self) -> io::Result<Vec<i64>> {
        let mut bases: Vec<i64> = fs::read_dir(&self.folder)?
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                name.to_str()?.strip_suffix(".log")?.parse().ok()
            })
            .collect();
        bases.sort_unstable();
        Ok(bases)
    }

    /// The segment that holds `next`, or the first one after it.
    fn segment_holding(&self) -> io::Result<Option<i64>> {
        let bases = self.bases()?;
        let holding = bases.iter().rev().find(|base| **base <= self.next);
        Ok(holding.or(bases.first()).copied())
    }

    /// The segment after the open one.
    fn segment_after(&self) -> io::Result<Option<i64>> {
        let Some((open, ..)) = &self.segment else {
            return Ok(None);
        };
        Ok(self.bases()?.into_iter().find(|base| base > open))
    }
}

/// Whole batches of `file` from `at` on, about `bytes_max` bytes, but at least one if it is there.
fn whole(file: &File, at: u64, bytes_max: usize) -> io::Result<Bytes> {
    let mut wanted = bytes_max;
    loop {
        let mut bytes = BytesMut::zeroed(wanted);
        let mut filled = 0;
        while filled < wanted {
            match file.read_at(&mut bytes[filled..], at + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        let mut end = 0;
        let mut first = None;
        while let Some(head) = Head::parse(&bytes[end..]) {
            first = first.or(Some(head.bytes));
            if bytes.len() - end < head.bytes {
                break;
            }
            end += head.bytes;
        }
        match first {
            // The first batch is longer than asked for, and there may be more of it in the file.
            Some(length) if end == 0 && length > wanted && filled == wanted => wanted = length,
            _ => {
                bytes.truncate(end);
                return Ok(bytes.freeze());
            }
        }
    }
}

fn unreadable(topic: &str, cause: io::Error) -> TopicError {
    TopicError::Unreadable {
        topic: topic.to_owned(),
        cause: std::sync::Arc::new(cause),
    }
}
