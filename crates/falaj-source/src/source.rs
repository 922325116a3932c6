use std::path::PathBuf;

use async_trait::async_trait;
use falaj_record::{ByteSize, Raw};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::file::FileSource;
use crate::http::HttpSource;
use crate::{Backoff, SourceConfig, SourceError, SourceStatus};

/// Where raw records come from.
#[async_trait]
pub trait Source: Send {
    /// The word of the pipeline file: `http`, `file`.
    fn kind(&self) -> &'static str;

    /// A name for people: the address without its query, the path as written. No secret.
    fn label(&self) -> &str;

    /// Whether it comes to an end by itself.
    fn finite(&self) -> bool;

    /// What its identity is derived from, the same after a restart. May hold bytes of a record, so
    /// it must be hashed with a key before it goes anywhere.
    fn material(&self) -> &[u8];

    /// Goes on after `position`, the highest that the topic holds of this source. Before the first
    /// [`Source::next`]; without it a source begins at its first record.
    fn resume_after(&mut self, position: u64);

    /// How it is doing, now and whenever that changes.
    fn status(&self) -> watch::Receiver<SourceStatus>;

    /// The next records, never an empty list, positions growing strictly. `None` at the end of a
    /// finite source, and as soon as the stop token fires. May be dropped at any await: nothing
    /// that was to be handed on is lost.
    ///
    /// # Errors
    /// Where the source cannot be read on. An API's bad day is not an error, see
    /// [`SourceStatus`].
    async fn next(&mut self) -> Result<Option<Vec<Raw>>, SourceError>;
}

/// What a source needs to know beside its own part of the pipeline file.
#[derive(Debug, Clone)]
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
        }
    }
}

/// Opens a source. An API is not asked yet; of a file the first record is read, since its identity
/// depends on it (on standard input this waits for it).
///
/// # Errors
/// Where the configuration cannot work, a secret is missing, or the file cannot be read.
pub async fn open(config: &SourceConfig, opening: Opening) -> Result<Box<dyn Source>, SourceError> {
    Ok(match config {
        SourceConfig::Http(http) => Box::new(HttpSource::open(http, opening)?),
        SourceConfig::File(file) => Box::new(FileSource::open(file, opening).await?),
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
