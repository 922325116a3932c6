//! Reading chosen records of a source once more, by their positions.
//!
//! Always: positions mean what they mean to [`Source`]; so a reject that says where it stood is
//! enough to find its record again.
//! Always: what is no longer there is left out, and never taken for another record.
//! Absent on purpose: APIs, requests and standard input, which give a record once; waiting for a
//! topic or a broker that is not there, since somebody waits for the answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use falaj_record::{Fetched, Positions, Raw};
use tokio_util::sync::CancellationToken;

use crate::backlog::BATCH_BYTES_MAX;
use crate::file::{self, FileSource};
use crate::kafka::{self, failed};
use crate::source::{Opening, Source};
use crate::{FileConfig, KafkaConfig, RawLog, RawLogError, SourceConfig, SourceError};

/// Bytes read of a topic at once: records that are read again are few among many.
const FETCH_BYTES_MAX: usize = 256 << 10;
/// Records that are read over rather than jumped over: a jump costs a cluster more than they do.
const SKIPPED_MAX: i64 = 10_000;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The records that are there, positions growing.
    pub raws: Vec<Raw>,
    /// How many of the positions that were asked for were looked at, from the first on: at least
    /// one. What is not among the records of these is not there any more.
    pub looked_at: usize,
    bytes: usize,
}

impl Found {
    /// Notes a position that was looked at; whether there is room for the next one.
    fn note(&mut self, raw: Option<Raw>) -> bool {
        self.looked_at += 1;
        self.bytes += raw.as_ref().map_or(0, |raw| raw.bytes.len());
        self.raws.extend(raw);
        self.bytes < BATCH_BYTES_MAX
    }
}

/// A source whose records are read once more.
#[async_trait]
pub trait Reread: Send {
    /// The word of the pipeline file, as [`Source::kind`].
    fn kind(&self) -> &'static str;

    /// As [`Source::parted`].
    fn parted(&self) -> bool;

    /// As [`Source::material`].
    fn material(&self) -> &[u8];

    /// Reads the records at `wanted`, at least one position, of `part`. Positions grow over all
    /// calls for a part, and a part that was left is not come back to. `None` as soon as the stop
    /// token fires.
    ///
    /// # Errors
    /// Where the source cannot be read. That a record is gone is no error.
    async fn read(&mut self, part: i32, wanted: &[u64]) -> Result<Option<Found>, SourceError>;
}

/// Opens a source to read records of it once more.
///
/// # Errors
/// As [`crate::open`]; where the topic or its broker is not there; [`SourceError::Unsupported`]
/// for a source that gives a record once, see [`SourceConfig::gives_again`].
pub async fn reread(
    config: &SourceConfig,
    opening: Opening,
) -> Result<Box<dyn Reread>, SourceError> {
    Ok(match config {
        SourceConfig::File(file) if config.gives_again() => {
            Box::new(FileAgain::open(file, opening).await?)
        }
        SourceConfig::Kafka(kafka) => Box::new(KafkaAgain::open(kafka, opening).await?),
        other => return Err(SourceError::Unsupported { kind: other.kind() }),
    })
}

/// A file, read through once from the first position wanted.
struct FileAgain {
    source: FileSource,
    begun: bool,
    /// Records that were read and not looked at, growing.
    ahead: std::iter::Peekable<std::vec::IntoIter<Raw>>,
    stop: CancellationToken,
}

impl FileAgain {
    async fn open(config: &FileConfig, opening: Opening) -> Result<Self, SourceError> {
        let stop = opening.stop.clone();
        Ok(Self {
            source: FileSource::open(config, opening).await?,
            begun: false,
            ahead: Vec::new().into_iter().peekable(),
            stop,
        })
    }

    /// The record at `position`, if there is one.
    async fn at(&mut self, position: u64) -> Result<Option<Raw>, SourceError> {
        loop {
            while self.ahead.next_if(|raw| raw.position < position).is_some() {}
            if self.ahead.peek().is_some() {
                return Ok(self.ahead.next_if(|raw| raw.position == position));
            }
            match self.source.next().await? {
                Some(portion) => self.ahead = portion.raws.into_iter().peekable(),
                None => return Ok(None),
            }
        }
    }
}

#[async_trait]
impl Reread for FileAgain {
    fn kind(&self) -> &'static str {
        file::KIND
    }

    fn parted(&self) -> bool {
        self.source.parted()
    }

    fn material(&self) -> &[u8] {
        self.source.material()
    }

    async fn read(&mut self, part: i32, wanted: &[u64]) -> Result<Option<Found>, SourceError> {
        if self.stop.is_cancelled() {
            return Ok(None);
        }
        if let (false, Some(first)) = (self.begun, wanted.first()) {
            self.begun = true;
            self.source.resume_after(part, first.saturating_sub(1));
        }
        let mut found = Found::default();
        for position in wanted {
            let raw = self.at(*position).await?;
            // The file's end and a stop look the same.
            if raw.is_none() && self.stop.is_cancelled() {
                return Ok(None);
            }
            if !found.note(raw) {
                break;
            }
        }
        Ok(Some(found))
    }
}

/// A topic that others write raw records to, read where records are wanted.
struct KafkaAgain {
    topic: String,
    log: Arc<dyn RawLog>,
    material: Vec<u8>,
    /// The part that is read, and what of it is known.
    at: Option<Place>,
    stop: CancellationToken,
}

/// Where a partition is read.
struct Place {
    partition: i32,
    /// First offset held, and first that does not exist yet.
    start: i64,
    end: i64,
    /// All from `from` up to `next` was read; what was not looked at of it is `ahead`.
    from: i64,
    next: i64,
    ahead: std::iter::Peekable<std::vec::IntoIter<Raw>>,
    /// Where a fetch begins. The other partitions stand at their ends, where nothing is.
    positions: Positions,
}

impl Place {
    /// The record at `offset`, as far as that was read: `Err` where it was not.
    fn read(&mut self, offset: i64) -> Result<Option<Raw>, ()> {
        if !(self.start..self.end).contains(&offset) {
            return Ok(None);
        }
        if !(self.from..self.next).contains(&offset) {
            return Err(());
        }
        let position = kafka::position(offset);
        while self.ahead.next_if(|raw| raw.position < position).is_some() {}
        // Compaction, or a producer's aborted transaction, leaves offsets without a record.
        Ok(self.ahead.next_if(|raw| raw.position == position))
    }

    /// Sets it to fetch what holds `offset`.
    fn aim(&mut self, offset: i64) {
        let ahead = offset - self.next;
        if !(0..=SKIPPED_MAX).contains(&ahead) {
            (self.from, self.next) = (offset, offset);
        }
        self.ahead = Vec::new().into_iter().peekable();
        self.positions.0.insert(self.partition, self.next);
    }

    /// Takes what was fetched.
    fn take(&mut self, fetched: Vec<Fetched>) {
        if fetched.is_empty() {
            // Nothing is to be had from here on.
            self.end = self.next;
        }
        for part in fetched {
            if part.partition != self.partition {
                // Somebody wrote to it meanwhile.
                self.positions.advance(part.partition, part.next);
                continue;
            }
            (self.next, self.end) = (part.next, part.end);
            let raws = kafka::raws(part.messages, &part.unreadable);
            self.ahead = raws.into_iter().peekable();
        }
    }

    /// Takes note that retention was faster.
    fn overtaken(&mut self, start: i64) {
        (self.start, self.from, self.next) = (start, start, start);
    }
}

impl KafkaAgain {
    async fn open(config: &KafkaConfig, opening: Opening) -> Result<Self, SourceError> {
        let Some(broker) = opening.broker else {
            return Err(SourceError::Unsupported { kind: kafka::KIND });
        };
        let topic = config.topic.clone();
        let opened = broker.open(&topic).await;
        let log = opened
            .map_err(|error| failed(&topic, error))?
            .ok_or_else(|| SourceError::NoTopic {
                topic: topic.clone(),
            })?;
        Ok(Self {
            material: log.identity().into_bytes(),
            log,
            topic,
            at: None,
            stop: opening.stop,
        })
    }

    /// Goes to a partition; false where the topic has no such one.
    async fn go_to(&mut self, partition: i32) -> Result<bool, SourceError> {
        if self.at.as_ref().is_some_and(|at| at.partition == partition) {
            return Ok(true);
        }
        let offsets = self.log.offsets().await;
        let offsets = offsets.map_err(|error| failed(&self.topic, error))?;
        let ends = offsets.iter().map(|o| (o.partition, o.end)).collect();
        let held = offsets.iter().find(|o| o.partition == partition);
        self.at = held.map(|held| Place {
            partition,
            start: held.start,
            end: held.end,
            from: held.start,
            next: held.start,
            ahead: Vec::new().into_iter().peekable(),
            positions: Positions(ends),
        });
        Ok(self.at.is_some())
    }

    /// The record at `offset` of the partition it stands at, if there is one.
    async fn at(&mut self, offset: i64) -> Result<Option<Raw>, SourceError> {
        while let Some(at) = &mut self.at {
            if let Ok(raw) = at.read(offset) {
                return Ok(raw);
            }
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            at.aim(offset);
            let (from, partition) = (&at.positions, at.partition);
            let fetched = self.log.fetch(from, FETCH_BYTES_MAX, Duration::ZERO).await;
            match fetched {
                Ok(fetched) => at.take(fetched),
                Err(RawLogError::Overtaken {
                    partition: of,
                    start,
                    ..
                }) if of == partition => at.overtaken(start),
                Err(RawLogError::BeyondEnd {
                    partition: of, end, ..
                }) if of == partition => at.end = end,
                Err(error) => return Err(failed(&self.topic, error)),
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Reread for KafkaAgain {
    fn kind(&self) -> &'static str {
        kafka::KIND
    }

    fn parted(&self) -> bool {
        true
    }

    fn material(&self) -> &[u8] {
        &self.material
    }

    async fn read(&mut self, part: i32, wanted: &[u64]) -> Result<Option<Found>, SourceError> {
        if self.stop.is_cancelled() {
            return Ok(None);
        }
        let there = self.go_to(part).await?;
        let mut found = Found::default();
        for position in wanted {
            let raw = match kafka::offset(*position) {
                Some(offset) if there => self.at(offset).await?,
                _ => None,
            };
            if raw.is_none() && self.stop.is_cancelled() {
                return Ok(None);
            }
            if !found.note(raw) {
                break;
            }
        }
        Ok(Some(found))
    }
}
