//! Records that others send with HTTP requests.
//!
//! Always: an answer comes after its records are durable on the topic, rejects too.
//! Always: requests are published one at a time, whole, in the order in which they were taken; what
//! waits is bounded in bytes.
//! Always: a request with a key that was answered adds nothing and gets the same answer for a day;
//! one whose try was interrupted is published as far as the topic does not have it.
//! Absent on purpose: HTTP (the server that has the route brings requests to the [`Desk`]), and any
//! word of a body in an answer, an error or a log.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use falaj_record::{At, ByteSize, Hint, Raw, Reason, Reject};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::journal::{Entry, Hash, Journal, Try};
use crate::lines::{Numbered, Piece};
use crate::source::{Digest, Earlier, Held, Opening, Outcome, Portion, Source};
use crate::{IngestConfig, SourceError, SourceState, SourceStatus, reply};

pub(crate) const KIND: &str = "ingest";

/// Most records of one request.
const RECORDS_MAX: usize = 100_000;
/// Most rejects that an answer names.
const REJECTS_NAMED_MAX: usize = 100;
/// Longest key.
const KEY_BYTES_MAX: usize = 255;
/// What a request takes beside its body, and the unit that the queue is counted in.
const PLACE_BYTES: u64 = 1024;
/// Uses of keyed hashes.
const KEYS: &str = "ingest key";
const BODIES: &str = "ingest body";
const TOKENS: &str = "ingest token";

/// What keys of requests are remembered with.
#[derive(Clone)]
pub struct Journalled {
    /// The file; its folder is made where it is not there.
    pub path: PathBuf,
    /// A keyed hash, so that neither keys nor bodies are kept.
    pub digest: Digest,
    /// Partitions of the pipeline's topic: a record without a pid is put by its position.
    pub partitions: u32,
}

/// How the records stand in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object, or an array of them.
    Json,
    /// One JSON object a line.
    Lines,
}

/// A request with records.
pub struct Request {
    /// Its body.
    pub body: Bytes,
    /// What the body is.
    pub form: Form,
    /// Its `Idempotency-Key`.
    pub key: Option<Bytes>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Records in it.
    pub r#in: u64,
    /// On the topic.
    pub published: u64,
    /// Those that could not be used, the first hundred: `in - published - withheld` in all.
    pub rejected: Vec<Rejected>,
    /// Kept out on purpose.
    pub withheld: u64,
}

/// A record that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its line, or its place in the array; 1 is the first.
    pub position: u64,
    /// Why.
    pub reason: Reason,
    /// The declared path it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Arc<str>>,
}

/// Why a request is not taken. Nothing of it was published, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not UTF-8.
    #[error("the body is not UTF-8 text")]
    NotUtf8,
    /// No record in it.
    #[error("the body holds no records")]
    Empty,
    /// An array that is not JSON.
    #[error("the body {0}")]
    NotJson(reply::Unusable),
    /// Too many records.
    #[error("the body holds more than {RECORDS_MAX} records")]
    TooMany,
    /// A key that is none.
    #[error("the `Idempotency-Key` is not 1 to {KEY_BYTES_MAX} visible ASCII characters")]
    Key,
    /// Another body under a key whose first try was interrupted.
    #[error("the `Idempotency-Key` came with another body before, which is published in part")]
    OtherBody,
    /// The queue is full.
    #[error("too many requests are waiting")]
    Busy,
    /// falaj stops.
    #[error("falaj is stopping")]
    Stopping,
    /// What must be remembered cannot be written.
    #[error("the key cannot be remembered: the disk is full or failing")]
    Unwritable,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::NotUtf8 | Self::Empty | Self::NotJson(_) | Self::Key => 400,
            Self::TooMany => 413,
            Self::OtherBody => 422,
            Self::Busy => 429,
            Self::Stopping | Self::Unwritable => 503,
        }
    }
}

impl Hint for Refusal {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotUtf8 => "send JSON as UTF-8".into(),
            Self::Empty => "send a JSON object, an array of them, or one a line".into(),
            Self::NotJson(_) => "send a JSON object or an array of them".into(),
            Self::TooMany => "send them in several requests".into(),
            Self::Key => "a UUID does".into(),
            Self::OtherBody => {
                "send the first body again to have the rest of it published, or use a new key"
                    .into()
            }
            Self::Busy | Self::Stopping | Self::Unwritable => {
                "send it again later, with the same `Idempotency-Key`".into()
            }
        })
    }
}

/// Where requests come in. All clones are the same one.
#[derive(Clone)]
pub struct Desk(Arc<Counter>);

struct Counter {
    max_body: ByteSize,
    /// Hash of the token.
    token: Option<Hash>,
    digest: Digest,
    places: Arc<Semaphore>,
    queue: mpsc::UnboundedSender<Waiting>,
    stop: CancellationToken,
}

/// Room in the queue; given back when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Desk {
    /// Longest body that is taken.
    #[must_use]
    pub fn max_body(&self) -> ByteSize {
        self.0.max_body
    }

    /// Whether a request must show a token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.0.token.is_some()
    }

    /// Whether a request with this token may send records. Takes as long for a wrong token as for
    /// the right one: hashes are compared, and nobody can tell which hash a token has.
    #[must_use]
    pub fn admits(&self, token: Option<&[u8]>) -> bool {
        let given = (self.0.digest)(TOKENS, token.unwrap_or_default());
        self.0.token.is_none_or(|own| own == given)
    }

    /// Takes room for a body of so many bytes, before it is read.
    ///
    /// # Errors
    /// [`Refusal::Busy`] where there is none, [`Refusal::Stopping`] where nothing is taken any more.
    pub fn reserve(&self, body_bytes: u64) -> Result<Place, Refusal> {
        if self.0.stop.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        let wanted = body_bytes.min(self.0.max_body.0);
        let places = Arc::clone(&self.0.places);
        match places.try_acquire_many_owned(units(wanted)) {
            Ok(permit) => Ok(Place { _permit: permit }),
            Err(_) => Err(Refusal::Busy),
        }
    }

    /// Hands a request over and waits until all its records are durable on the topic. Gives the
    /// answer, a [`Receipt`] as JSON.
    ///
    /// # Errors
    /// [`Refusal`]. After [`Refusal::Stopping`] some of its records may be on the topic; a key makes
    /// the next try publish the rest.
    pub async fn take(&self, place: Place, request: Request) -> Result<String, Refusal> {
        let key = match &request.key {
            Some(key) if is_key(key) => Some((self.0.digest)(KEYS, key)),
            Some(_) => return Err(Refusal::Key),
            None => None,
        };
        // Only asked for where a key is.
        let body = key.map_or([0; 16], |_| (self.0.digest)(BODIES, &request.body));
        let records = records(&request)?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            key,
            body,
            records,
            answer,
            _place: place,
        };
        self.0.queue.send(waiting).map_err(|_| Refusal::Stopping)?;
        answered.await.unwrap_or(Err(Refusal::Stopping))
    }
}

fn is_key(key: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic)
}

/// Room that a body takes in the queue.
fn units(body_bytes: u64) -> u32 {
    u32::try_from(body_bytes / PLACE_BYTES + 1).unwrap_or(u32::MAX)
}

/// The records of a body, positions as an answer names them.
fn records(request: &Request) -> Result<Vec<Raw>, Refusal> {
    let body = &request.body;
    let text = std::str::from_utf8(body).map_err(|_| Refusal::NotUtf8)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let array = text.trim_ascii_start().starts_with('[');
    let records = match request.form {
        Form::Json if array => reply::split(body, &[])
            .map_err(Refusal::NotJson)?
            .into_iter()
            .zip(1..)
            .map(|(bytes, position)| Raw::new(bytes, position))
            .collect(),
        Form::Json => {
            let bytes = body.slice_ref(text.trim_ascii().as_bytes());
            let one = Raw::new(bytes, 1);
            if one.bytes.is_empty() {
                vec![]
            } else {
                vec![one]
            }
        }
        Form::Lines => {
            let mut all = Vec::new();
            let lines = Piece::Lines(body.slice_ref(text.as_bytes()));
            let bounded = Numbered::after(0).split(&lines, |batch| {
                all.extend(batch);
                all.len() <= RECORDS_MAX
            });
            if !bounded {
                return Err(Refusal::TooMany);
            }
            all
        }
    };
    match records.len() {
        0 => Err(Refusal::Empty),
        RECORDS_MAX.. if records.len() > RECORDS_MAX => Err(Refusal::TooMany),
        _ => Ok(records),
    }
}

/// A request in the queue.
struct Waiting {
    key: Option<Hash>,
    body: Hash,
    /// Positions as an answer names them.
    records: Vec<Raw>,
    answer: oneshot::Sender<Result<String, Refusal>>,
    _place: Place,
}

/// A request that is being published.
struct Current {
    waiting: Waiting,
    /// Position of its first record in the source.
    first: u64,
}

/// [`IngestConfig`], opened.
pub(crate) struct IngestSource {
    desk: Desk,
    queue: mpsc::UnboundedReceiver<Waiting>,
    current: Option<Current>,
    /// Highest position handed on.
    position: u64,
    partitions: u64,
    path: PathBuf,
    journal: Arc<Mutex<Journal>>,
    /// Answers that could not be written yet.
    unwritten: Vec<(Hash, String)>,
    status: watch::Sender<SourceStatus>,
    stop: CancellationToken,
}

impl IngestSource {
    pub(crate) async fn open(config: &IngestConfig, opening: Opening) -> Result<Self, SourceError> {
        let Some(journalled) = opening.journal else {
            return Err(SourceError::Unsupported { kind: KIND });
        };
        let Journalled {
            path,
            digest,
            partitions,
        } = journalled;
        let token = match &config.token {
            None => None,
            Some(secret) => {
                let token = secret.read(&opening.base).map_err(|cause| {
                    let place = "token".to_owned();
                    SourceError::IngestSecret { place, cause }
                })?;
                if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(SourceError::Token);
                }
                Some(digest(TOKENS, token.as_bytes()))
            }
        };
        let at = path.clone();
        let journal = blocking(move || Journal::open(&at))
            .await
            .map_err(|cause| SourceError::Journal {
                path: path.clone(),
                cause,
            })?;
        let room = units(config.max_body.0).max(units(config.queue.0));
        let (send, queue) = mpsc::unbounded_channel();
        let desk = Desk(Arc::new(Counter {
            max_body: config.max_body,
            token,
            digest,
            places: Arc::new(Semaphore::new(
                usize::try_from(room)
                    .unwrap_or(usize::MAX)
                    .min(Semaphore::MAX_PERMITS),
            )),
            queue: send,
            stop: opening.stop.clone(),
        }));
        let status = watch::Sender::new(SourceStatus {
            // Ready for the first request.
            state: SourceState::Ok,
            ..SourceStatus::default()
        });
        Ok(Self {
            desk,
            queue,
            current: None,
            position: 0,
            partitions: u64::from(partitions.max(1)),
            path,
            journal: Arc::new(Mutex::new(journal)),
            unwritten: Vec::new(),
            status,
            stop: opening.stop,
        })
    }

    /// Works on the journal where it stalls nobody.
    async fn journal<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Journal) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        let journal = Arc::clone(&self.journal);
        blocking(move || work(&mut journal.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Takes a request up: an answer where there is one already, else where to publish it and what
    /// is on the topic of it.
    async fn begin(&self, waiting: &Waiting) -> Result<Result<(u64, Earlier), String>, Refusal> {
        let next = self.position + 1;
        let Some(key) = waiting.key else {
            return Ok(Ok((next, Earlier::default())));
        };
        if let Some((_, answer)) = self.unwritten.iter().find(|(known, _)| *known == key) {
            return Ok(Err(answer.clone()));
        }
        let (body, partitions) = (waiting.body, self.partitions);
        let count = waiting.records.len() as u64;
        let unwritten = self.unwritten.clone();
        let begun = self.journal(move |journal| {
            let now_ms = now_ms();
            for (key, answer) in &unwritten {
                journal.end(key, answer, now_ms)?;
            }
            let (residue, done) = match journal.find(&key, now_ms)? {
                Some(Entry::Answered(answer)) => return Ok(Ok(Err(answer))),
                Some(Entry::Begun { body: other, .. }) if other != body => {
                    return Ok(Err(Refusal::OtherBody));
                }
                Some(Entry::Begun { residue, done, .. }) => (residue, Some(done)),
                None => (next % partitions, None),
            };
            // A record without a pid is put by its position: it must come to where it was.
            let first = next + (residue + partitions - next % partitions) % partitions;
            journal.begin(
                &Try {
                    key,
                    body,
                    count,
                    first,
                    residue,
                },
                now_ms,
            )?;
            let earlier = done.map(|done| done.from(first)).unwrap_or_default();
            Ok(Ok(Ok((first, earlier))))
        });
        begun.await.unwrap_or_else(|error| {
            self.unwritable(&error);
            Err(Refusal::Unwritable)
        })
    }

    fn unwritable(&self, error: &rusqlite::Error) {
        let path = self.path.display();
        tracing::warn!(%path, code = ?error.sqlite_error_code(), "keys cannot be written down");
        self.status.send_modify(|status| {
            status.state = SourceState::Retrying;
            status.detail = Some("keys of requests cannot be written down".into());
            status.hint = Some("make room on the disk of the data directory".into());
        });
    }

    /// Lets go of whoever waits: they are told that falaj stops.
    fn close(&mut self) {
        self.current = None;
        self.queue.close();
        while self.queue.try_recv().is_ok() {}
    }
}

#[async_trait]
impl Source for IngestSource {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn label(&self) -> &'static str {
        "requests to /ingest"
    }

    fn finite(&self) -> bool {
        false
    }

    fn rereads(&self) -> bool {
        false
    }

    fn material(&self) -> &[u8] {
        // A pipeline has one, and its keys are its own.
        &[]
    }

    fn resume_after(&mut self, _part: i32, position: u64) {
        self.position = position;
    }

    async fn resume_with(&mut self, held: &Held) -> Result<(), SourceError> {
        let held = held.clone();
        let settled = self.journal(move |journal| journal.settle(&held)).await;
        settled.map_err(|cause| SourceError::Journal {
            path: self.path.clone(),
            cause,
        })
    }

    fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    async fn next(&mut self) -> Result<Option<Portion>, SourceError> {
        let stop = self.stop.clone();
        loop {
            // The one before was not published to its end.
            self.current = None;
            let waiting = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.close();
                    return Ok(None);
                }
                waiting = self.queue.recv() => waiting,
            };
            let Some(waiting) = waiting else {
                return Ok(None);
            };
            let (first, earlier) = match self.begin(&waiting).await {
                Ok(Ok(begun)) => begun,
                Ok(Err(answer)) => {
                    let _ = waiting.answer.send(Ok(answer));
                    continue;
                }
                Err(refusal) => {
                    let _ = waiting.answer.send(Err(refusal));
                    continue;
                }
            };
            let raws: Vec<Raw> = waiting
                .records
                .iter()
                .zip(first..)
                .map(|(record, position)| Raw::new(record.bytes.clone(), position))
                .collect();
            self.position = first + raws.len() as u64 - 1;
            let bytes: u64 = raws.iter().map(|raw| raw.bytes.len() as u64).sum();
            self.status.send_modify(|status| {
                status.well(SourceState::Ok);
                status.records += raws.len() as u64;
                status.bytes += bytes;
            });
            self.current = Some(Current { waiting, first });
            return Ok(Some(Portion {
                earlier,
                ..Portion::new(raws)
            }));
        }
    }

    async fn done(&mut self, outcome: Outcome<'_>) {
        let Some(Current { waiting, first }) = self.current.take() else {
            return;
        };
        let receipt = Receipt {
            r#in: waiting.records.len() as u64,
            published: outcome.published,
            rejected: named(outcome.rejects, &waiting.records, first),
            withheld: outcome.withheld,
        };
        let answer = serde_json::to_string(&receipt).expect("numbers and texts are always JSON");
        if let Some(key) = waiting.key {
            let mut unwritten = std::mem::take(&mut self.unwritten);
            unwritten.push((key, answer.clone()));
            let all = unwritten.clone();
            let written = self.journal(move |journal| {
                let now_ms = now_ms();
                all.iter()
                    .try_for_each(|(key, answer)| journal.end(key, answer, now_ms))
            });
            // What is published is published: the answer is remembered here until it can be written.
            if let Err(error) = written.await {
                self.unwritable(&error);
                self.unwritten = unwritten;
            }
        }
        // Whoever sent it may be gone.
        let _ = waiting.answer.send(Ok(answer));
    }

    fn desk(&self) -> Option<Desk> {
        Some(self.desk.clone())
    }
}

/// The first rejects, by the place of their records in the request.
fn named(rejects: &[Reject], records: &[Raw], first: u64) -> Vec<Rejected> {
    let place = |reject: &Reject| match &reject.at {
        At::Source { position, .. } => {
            let index = usize::try_from(position.checked_sub(first)?).ok()?;
            records.get(index).map(|record| record.position)
        }
        At::Topic { .. } | At::Sink { .. } => None,
    };
    rejects
        .iter()
        .take(REJECTS_NAMED_MAX)
        .filter_map(|reject| {
            Some(Rejected {
                position: place(reject)?,
                reason: reject.reason,
                path: reject.path.clone(),
            })
        })
        .collect()
}

/// Runs file work where it stalls nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> rusqlite::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going; nothing is published any more.
            Err(_) => Err(rusqlite::Error::InvalidQuery),
        },
    }
}

fn now_ms() -> i64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}
