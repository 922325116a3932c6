use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use falaj_record::{ByteSize, Raw, Reject};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::file::FileSource;
use crate::http::HttpSource;
use crate::ingest::{Desk, IngestSource, Journalled};
use crate::kafka::KafkaSource;
use crate::{Backoff, RawBroker, SourceConfig, SourceError, SourceStatus};

/// Records of one part of a source, positions growing strictly.
#[derive(Debug, Default)]
pub struct Portion {
    /// The part: a partition of a raw topic; 0 where a source has no parts.
    pub part: i32,
    /// The records, at least one.
    pub raws: Vec<Raw>,
    /// What an earlier try to publish these very records left, in positions of this try.
    pub earlier: Earlier,
}

impl Portion {
    /// Records that were never tried before, of a source without parts.
    pub(crate) fn new(raws: Vec<Raw>) -> Self {
        Self {
            raws,
            ..Self::default()
        }
    }
}

/// What an interrupted try to publish a portion left. Empty where there was none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Earlier {
    /// For each partition of the pipeline's topic: records up to and with this position are on it.
    pub held: BTreeMap<i32, u64>,
    /// Rejects up to and with this position are written.
    pub rejected: Option<u64>,
}

/// What became of a portion: all of it is durable.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// Its part.
    pub part: i32,
    /// Position of its last record.
    pub position: u64,
    /// How many records passed the gate and are on the topic.
    pub published: u64,
    /// Those that could not be used.
    pub rejects: &'a [Reject],
    /// How many were kept out on purpose.
    pub withheld: u64,
}

/// What the pipeline's topic holds of a source without parts, at a start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The highest position on each partition that has any.
    pub records: BTreeMap<i32, u64>,
    /// The highest position of a reject.
    pub rejected: Option<u64>,
}

/// Where raw records come from.
#[async_trait]
pub trait Source: Send {
    /// The word of the pipeline file: `http`, `file`, `ingest`, `kafka`.
    fn kind(&self) -> &'static str;

    /// A name for people: the address without its query, the path as written. No secret.
    fn label(&self) -> &str;

    /// Whether it comes to an end by itself.
    fn finite(&self) -> bool;

    /// Whether it gives the same records at the same positions again. What it gave after the last
    /// checkpoint is then read again; from any other source it is gone.
    fn rereads(&self) -> bool;

    /// Whether it has parts whose positions count each by itself.
    fn parted(&self) -> bool {
        false
    }

    /// Waits until it is known which source this is. False as soon as the stop token fires.
    ///
    /// # Errors
    /// Where that can never be known.
    async fn ready(&mut self) -> Result<bool, SourceError> {
        Ok(true)
    }

    /// What its identity is derived from, the same after a restart; known once it is
    /// [ready](Source::ready). May hold bytes of a record, so it must be hashed with a key before
    /// it goes anywhere.
    fn material(&self) -> &[u8];

    /// Goes on after `position` in `part`. Before the first [`Source::next`]; without it a part
    /// begins at its first record.
    fn resume_after(&mut self, part: i32, position: u64);

    /// Takes note of what the topic holds of it. Before the first [`Source::next`], for a source
    /// that does not give the same records again.
    ///
    /// # Errors
    /// Where the source cannot keep what it must remember.
    async fn resume_with(&mut self, _held: &Held) -> Result<(), SourceError> {
        Ok(())
    }

    /// How it is doing, now and whenever that changes.
    fn status(&self) -> watch::Receiver<SourceStatus>;

    /// The next records. `None` at the end of a finite source, and as soon as the stop token fires.
    /// May be dropped at any await: nothing that was to be handed on is lost.
    ///
    /// # Errors
    /// Where the source cannot be read on. An API's bad day is not an error, see
    /// [`SourceStatus`].
    async fn next(&mut self) -> Result<Option<Portion>, SourceError>;

    /// Tells that all of the last portion is durable. Not called where that was not reached.
    async fn done(&mut self, _outcome: Outcome<'_>) {}

    /// Where requests with records come in, for a source that is given them.
    fn desk(&self) -> Option<Desk> {
        None
    }
}

/// A keyed hash: the use, and what to hash.
pub type Digest = Arc<dyn Fn(&str, &[u8]) -> [u8; 16] + Send + Sync>;

/// What a source needs to know beside its own part of the pipeline file.
#[derive(Clone)]
pub struct Opening {
    /// Folder of the pipeline file: relative paths start here.
    pub base: PathBuf,
    /// Top-level names that the declared fields need, for `inc=`.
    pub inc: Vec<String>,
    /// Longest record that the gate takes. A longer line of a file is handed on cut to one byte
    /// more than this, so that the gate rejects it and memory stays bounded; the length in that
    /// reject is then a lower bound.
    pub max_record: ByteSize,
    /// Waits after an API's failures.
    pub backoff: Backoff,
    /// Whether a file may show its progress, if stderr is a terminal.
    pub progress: bool,
    /// Ends every wait at once.
    pub stop: CancellationToken,
    /// Where the topic of `[source.kafka]` is.
    pub broker: Option<Arc<dyn RawBroker>>,
    /// What `[source.ingest]` remembers keys with.
    pub journal: Option<Journalled>,
}

impl Opening {
    /// The defaults: no `inc=`, records up to 16 MB, back-off from 1 s to 60 s, progress shown.
    #[must_use]
    pub fn new(base: impl Into<PathBuf>, stop: CancellationToken) -> Self {
        Self {
            base: base.into(),
            inc: Vec::new(),
            max_record: ByteSize(16_000_000),
            backoff: Backoff::default(),
            progress: true,
            stop,
            broker: None,
            journal: None,
        }
    }
}

/// Opens a source. An API and a topic are not asked yet; of a file the first record is read, since its identity
/// depends on it (on standard input this waits for it).
///
/// # Errors
/// Where the configuration cannot work, a secret is missing, the file cannot be read, or the opening
/// lacks what a kind of source needs.
pub async fn open(config: &SourceConfig, opening: Opening) -> Result<Box<dyn Source>, SourceError> {
    Ok(match config {
        SourceConfig::Http(http) => Box::new(HttpSource::open(http, opening)?),
        SourceConfig::File(file) => Box::new(FileSource::open(file, opening).await?),
        SourceConfig::Ingest(ingest) => Box::new(IngestSource::open(ingest, opening).await?),
        SourceConfig::Kafka(kafka) => Box::new(KafkaSource::open(kafka, opening)?),
    })
}

/// The keys of a `records` path; none where it is absent.
pub(crate) fn records_path(
    kind: &'static str,
    path: Option<&str>,
) -> Result<Vec<String>, SourceError> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let keys: Vec<_> = path.split('.').map(str::to_owned).collect();
    if keys.iter().any(|key| key.trim().is_empty()) || keys.len() > RECORDS_KEYS_MAX {
        let path = path.to_owned();
        return Err(SourceError::RecordsPath { kind, path });
    }
    Ok(keys)
}

/// Longest `records` path: looking for it recurses once a key.
const RECORDS_KEYS_MAX: usize = 32;
