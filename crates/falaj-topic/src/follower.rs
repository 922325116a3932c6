//! Reading a topic of the embedded log beside the process that writes it, for `falaj tap`.
//!
//! Always: nothing is written, locked or repaired; a batch that is not whole yet ends a read.
//! Always: a batch that cannot be taken apart is told as such, and read past.
//! Absent on purpose: the promise that what is shown is durable. Nothing is derived from it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use falaj_log::{HEAD_BYTES, Head, SegmentName, Slice};
use falaj_record::Fetched;

use crate::TopicError;
use crate::decode::{Decoded, decode};

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
    /// The open segment, and how far it is read.
    segment: Option<(SegmentName, File, u64)>,
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
    /// Where a file cannot be read.
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
            let decoded = decode(following.partition, following.next, &slice, self.bytes_max);
            following.go_on(&decoded);
            fetched.push(decoded.fetched);
        }
        Ok(fetched)
    }
}

impl Following {
    /// The next whole batches, the first of which ends after `next`.
    fn batches(&mut self, bytes_max: usize) -> io::Result<Bytes> {
        loop {
            // Listed before the read finds nothing: then the open segment was read to its end.
            let holding = self.segment_holding()?;
            if let Some((_, file, at)) = &mut self.segment {
                let mut batches = whole(file, *at, bytes_max)?;
                if !batches.is_empty() {
                    // A segment that the cleaner put in the place of several is entered in the middle.
                    while let Some(head) = Head::parse(&batches)
                        && head.next() <= self.next
                    {
                        *at += batches.split_to(head.bytes).len() as u64;
                    }
                    if batches.is_empty() {
                        continue;
                    }
                    return Ok(batches);
                }
            }
            let open = self.segment.as_ref().map(|(name, ..)| *name);
            let Some(holding) = holding.filter(|holding| Some(*holding) != open) else {
                return Ok(Bytes::new());
            };
            match File::open(holding.path(&self.folder)) {
                Ok(file) => {
                    self.next = self.next.max(holding.base);
                    self.segment = Some((holding, file, 0));
                }
                // Retention or the cleaner took it between the look and the open.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Goes on after what was decoded of what [`Following::batches`] gave.
    fn go_on(&mut self, decoded: &Decoded) {
        self.next = self.next.max(decoded.fetched.next);
        if let Some((_, _, at)) = &mut self.segment {
            *at += decoded.done as u64;
        }
    }

    /// The segment that holds `next`, or the first one after it.
    fn segment_holding(&self) -> io::Result<Option<SegmentName>> {
        let segments = SegmentName::list(&self.folder)?;
        let holding = segments.iter().rev().find(|s| s.base <= self.next);
        Ok(holding.or(segments.first()).copied())
    }
}

/// Whole batches of `file` from `at` on, about `bytes_max` bytes, but at least one if it is there.
fn whole(file: &File, at: u64, bytes_max: usize) -> io::Result<Bytes> {
    let mut wanted = bytes_max.max(HEAD_BYTES);
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

#[cfg(test)]
mod tests {
    use falaj_log::{Cleanup, Durability, Log, LogOptions, Settings};

    use super::*;
    use crate::encode::{Part, encode};

    #[test]
    fn a_topic_that_is_cleaned_while_it_is_followed_is_read_to_its_end_in_order() {
        for (segment_bytes, bytes_max) in [(1, 1), (700, 1), (700, 1 << 20), (2000, 300)] {
            let dir = tempfile::tempdir().unwrap();
            let log = Log::open(dir.path(), LogOptions::default()).unwrap();
            let settings = Settings {
                cleanup: Cleanup::Compact,
                durability: Durability::Os,
                segment_bytes,
                ..Settings::default()
            };
            let topic = log.create("t", 1, settings).unwrap();
            let partition = topic.partition(0).unwrap();
            let mut follower = Follower::open(dir.path(), "t", bytes_max).unwrap().unwrap();
            let mut seen = Vec::new();
            let mut follow = |reads: usize| {
                for _ in 0..reads {
                    for part in follower.read().unwrap() {
                        seen.extend(part.messages.iter().map(|m| m.offset));
                    }
                }
                seen.clone()
            };
            for n in 0..60_u8 {
                let parts = (0..3).map(|i| Part {
                    timestamp_ms: 0,
                    key: Some(Bytes::from(vec![n % 4, i])),
                    value: Bytes::from(vec![n]),
                    policy: None,
                    src: None,
                });
                partition.append(encode(parts.collect()).unwrap()).unwrap();
                if n % 7 == 0 {
                    follow(2);
                }
                if n % 10 == 0 {
                    log.clean(0);
                }
            }
            log.clean(0);
            let seen = follow(200);
            assert!(seen.windows(2).all(|w| w[0] < w[1]), "each once, in order");
            // What is left of every key was seen, whatever went meanwhile.
            let mut at = partition.offsets().start;
            while at < partition.offsets().end {
                let slice = partition.read(at, 1 << 20).unwrap();
                let left = decode(0, at, &slice, 1 << 20).fetched;
                assert!(left.messages.iter().all(|m| seen.contains(&m.offset)));
                at = left.next;
            }
        }
    }
}
