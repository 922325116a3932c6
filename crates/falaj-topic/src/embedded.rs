//! The embedded broker: topics in the log on this machine's disk, without a wire between.
//!
//! File work runs on tokio's threads for blocking calls; waiting for the disk's sync holds no thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use falaj_log::{Batches, Log, LogError, LogOptions, Partition, Settings, Topic as LogTopic};
use falaj_privacy::Cleared;
use falaj_record::{Fetched, Outbound, Positions, Reject};
use tokio::sync::{OwnedMutexGuard, oneshot, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::decode::decode;
use crate::encode::{Part, encode};
use crate::rejects::{mark, part, rejects_topic};
use crate::{Broker, PartitionOffsets, Topic, TopicConfig, TopicDescription, TopicError};

/// The longest a fetch waits; any longer is as good as forever.
const WAIT_MAX: Duration = Duration::from_hours(1);
/// How much is read at once where rejects are listed.
const REJECTS_BYTES: usize = 1 << 20;
/// Rejects are few and small.
const REJECTS_SEGMENT_BYTES: u64 = 16 << 20;

/// Topics in the log under one folder.
pub struct Embedded {
    log: Arc<Log>,
    /// Topics in use: all who use one share its order of publishing.
    open: parking_lot::Mutex<BTreeMap<String, Arc<EmbeddedTopic>>>,
}

impl Embedded {
    /// Opens the log in `folder`, which is made where it is not there.
    ///
    /// # Errors
    /// [`TopicError::Log`] where files are damaged or cannot be used.
    pub async fn open(folder: &Path) -> Result<Self, TopicError> {
        let folder = folder.to_owned();
        let log = blocking(move || Ok(Log::open(&folder, LogOptions::default())?)).await?;
        Ok(Self::over(Arc::new(log)))
    }

    /// Topics of a log that is open.
    #[must_use]
    pub fn over(log: Arc<Log>) -> Self {
        Self {
            log,
            open: parking_lot::Mutex::default(),
        }
    }

    /// The log itself, for whoever serves its bytes as they lie.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }
}

impl Embedded {
    /// The one handle of a topic: who publishes through it keeps one order.
    fn held(&self, topic: Arc<LogTopic>) -> Arc<dyn Topic> {
        let mut open = self.open.lock();
        let held = open
            .get(topic.name())
            .filter(|held| held.topic.id() == topic.id());
        if let Some(held) = held {
            return Arc::clone(held) as Arc<dyn Topic>;
        }
        let name = topic.name().to_owned();
        let held = Arc::new(EmbeddedTopic::new(Arc::clone(&self.log), topic));
        open.insert(name, Arc::clone(&held));
        held
    }
}

#[async_trait]
impl Broker for Embedded {
    async fn topic(&self, config: &TopicConfig) -> Result<Arc<dyn Topic>, TopicError> {
        config.check()?;
        let (log, wanted) = (Arc::clone(&self.log), config.clone());
        let topic = blocking(move || {
            let (name, settings) = (&wanted.name, wanted.settings());
            let topic = match log.topic(name) {
                Some(topic) => topic,
                None => match log.create(name, wanted.partition_count(), settings.clone()) {
                    // Somebody was faster.
                    Err(LogError::Exists(_)) => log
                        .topic(name)
                        .ok_or_else(|| LogError::NoTopic(name.clone()))?,
                    made => made?,
                },
            };
            if count(&topic) != wanted.partition_count() {
                return Err(TopicError::Partitions {
                    topic: wanted.name.clone(),
                    has: count(&topic),
                    wants: wanted.partition_count(),
                });
            }
            topic.change(settings)?;
            Ok(topic)
        })
        .await?;
        Ok(self.held(topic))
    }

    async fn existing(&self, topic: &str) -> Result<Arc<dyn Topic>, TopicError> {
        match self.log.topic(topic) {
            Some(topic) => Ok(self.held(topic)),
            None => Err(TopicError::Missing {
                topic: topic.to_owned(),
            }),
        }
    }

    async fn create(&self, config: &TopicConfig) -> Result<TopicDescription, TopicError> {
        config.check()?;
        let (log, config) = (Arc::clone(&self.log), config.clone());
        blocking(move || {
            let topic = log.create(&config.name, config.partition_count(), config.settings())?;
            Ok(description(&topic))
        })
        .await
    }

    async fn describe(&self, topic: &str) -> Result<TopicDescription, TopicError> {
        match self.log.topic(topic) {
            Some(topic) => Ok(description(&topic)),
            None => Err(TopicError::Missing {
                topic: topic.to_owned(),
            }),
        }
    }

    async fn delete(&self, topic: &str) -> Result<(), TopicError> {
        let (log, name) = (Arc::clone(&self.log), topic.to_owned());
        self.open.lock().remove(topic);
        blocking(move || {
            // The rejects first: positions in them mean nothing in a topic that is made anew.
            let rejects = rejects_topic(&name);
            if log.topic(&name).is_some() && log.topic(&rejects).is_some() {
                log.delete(&rejects)?;
            }
            Ok(log.delete(&name)?)
        })
        .await
    }

    async fn list(&self) -> Result<Vec<String>, TopicError> {
        let topics = self.log.topics();
        Ok(topics.iter().map(|topic| topic.name().to_owned()).collect())
    }

    async fn close(&self) {
        let log = Arc::clone(&self.log);
        let closed = blocking(move || {
            log.close();
            Ok(())
        });
        // It fails only where tokio itself is being shut down; dropping the log closes it then.
        let _ = closed.await;
    }
}

fn count(topic: &LogTopic) -> i32 {
    i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)
}

fn offsets(topic: &LogTopic) -> Vec<PartitionOffsets> {
    let partitions = topic.partitions();
    partitions
        .iter()
        .map(|partition| {
            let range = partition.offsets();
            PartitionOffsets {
                partition: partition.id(),
                start: range.start,
                end: range.end,
            }
        })
        .collect()
}

fn description(topic: &LogTopic) -> TopicDescription {
    TopicDescription {
        name: topic.name().to_owned(),
        id: topic.id().to_string(),
        partitions: offsets(topic),
        retention: topic.settings().retention_ms.map(Duration::from_millis),
        bytes: Some(topic.partitions().iter().map(|p| p.bytes()).sum()),
    }
}

/// Runs file work where it stalls nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TopicError> + Send + 'static,
) -> Result<T, TopicError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(TopicError::Closed),
        },
    }
}

/// Told when an append is durable.
type Ack = oneshot::Receiver<Result<(), LogError>>;

/// One topic of the embedded log.
struct EmbeddedTopic {
    log: Arc<Log>,
    topic: Arc<LogTopic>,
    /// Moves whenever something can be read that could not before.
    moved: watch::Sender<()>,
    /// Who publishes holds it while the records get their offsets; tokio's lock is fair, so calls
    /// that overlap keep their order.
    publishing: Arc<tokio::sync::Mutex<()>>,
    rejecting: Arc<tokio::sync::Mutex<()>>,
    /// Which partition the next fetch begins with.
    turn: AtomicUsize,
}

impl EmbeddedTopic {
    fn new(log: Arc<Log>, topic: Arc<LogTopic>) -> Self {
        let moved = watch::Sender::new(());
        topic.on_advance({
            let moved = moved.clone();
            move || {
                moved.send_replace(());
            }
        });
        Self {
            log,
            topic,
            moved,
            publishing: Arc::default(),
            rejecting: Arc::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Partitions that have something after `from`, in the order of this turn.
    fn ready(&self, from: &Positions) -> Result<Vec<(i32, i64)>, TopicError> {
        let partitions = self.topic.partitions();
        let current = self.log.topic(self.topic.name());
        if current.is_none_or(|current| current.id() != self.topic.id()) {
            return Err(TopicError::Deleted {
                topic: self.topic.name().to_owned(),
            });
        }
        if let Some(partition) = from.0.keys().find(|p| self.topic.partition(**p).is_none()) {
            return Err(TopicError::NoPartition {
                topic: self.topic.name().to_owned(),
                partition: *partition,
            });
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % partitions.len();
        let (before, after) = partitions.split_at(first);
        let mut ready = Vec::with_capacity(partitions.len());
        for partition in after.iter().chain(before) {
            let (offset, held) = (from.next(partition.id()), partition.offsets());
            if !(held.start..=held.end).contains(&offset) {
                // Asking for it tells which side it is on.
                partition.read(offset, 0)?;
            }
            if offset < held.end {
                ready.push((partition.id(), offset));
            }
        }
        Ok(ready)
    }

    async fn publish_outbound(&self, records: Outbound) -> Result<(), TopicError> {
        if records.messages.is_empty() {
            return Ok(());
        }
        let turn = Arc::clone(&self.publishing).lock_owned().await;
        let topic = Arc::clone(&self.topic);
        let acks = blocking(move || append(&topic, records, turn)).await?;
        durable(acks).await
    }

    /// The topic of rejects, made at first use.
    fn rejects_topic(log: &Log, of: &LogTopic) -> Result<Arc<LogTopic>, TopicError> {
        let name = rejects_topic(of.name());
        let settings = Settings {
            segment_bytes: of.settings().segment_bytes.min(REJECTS_SEGMENT_BYTES),
            ..of.settings()
        };
        match log.topic(&name) {
            Some(topic) => {
                topic.change(settings)?;
                Ok(topic)
            }
            None => Ok(log.create(&name, 1, settings)?),
        }
    }
}

/// Encodes all, then appends partition by partition: what cannot be encoded appends nothing.
fn append(
    topic: &LogTopic,
    records: Outbound,
    turn: OwnedMutexGuard<()>,
) -> Result<Vec<Ack>, TopicError> {
    let mut parts: Vec<Vec<Part>> = Vec::new();
    let partitions = topic.partitions();
    parts.resize_with(partitions.len(), Vec::new);
    for message in records.messages {
        let of_partition = usize::try_from(message.partition).ok();
        let Some(parts) = of_partition.and_then(|p| parts.get_mut(p)) else {
            return Err(TopicError::NoPartition {
                topic: topic.name().to_owned(),
                partition: message.partition,
            });
        };
        parts.push(Part {
            timestamp_ms: message.timestamp_ms,
            key: Some(message.key),
            value: message.value,
            policy: Some(records.policy.clone()),
            src: Some(message.src),
        });
    }
    let mut encoded = Vec::with_capacity(parts.len());
    for (partition, parts) in partitions.iter().zip(parts) {
        if !parts.is_empty() {
            encoded.push((partition, encode(parts)?));
        }
    }
    let acks = encoded
        .into_iter()
        .map(|(partition, batches)| send(partition, batches))
        .collect();
    drop(turn);
    acks
}

fn send(partition: &Partition, batches: Batches) -> Result<Ack, TopicError> {
    let (tell, told) = oneshot::channel();
    partition.append_then(
        batches,
        Box::new(move |result| {
            // Whoever published may have gone; the records are appended all the same.
            let _ = tell.send(result);
        }),
    )?;
    Ok(told)
}

async fn durable(acks: Vec<Ack>) -> Result<(), TopicError> {
    for ack in acks {
        ack.await.unwrap_or(Err(LogError::Closed))?;
    }
    Ok(())
}

#[async_trait]
impl Topic for EmbeddedTopic {
    async fn publish(&self, records: Cleared<Outbound>) -> Result<(), TopicError> {
        self.publish_outbound(records.into_inner()).await
    }

    async fn fetch(
        &self,
        from: &Positions,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Fetched>, TopicError> {
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        let mut moved = self.moved.subscribe();
        loop {
            // From here on every move is seen below, so none falls between the look and the wait.
            moved.mark_unchanged();
            let ready = self.ready(from)?;
            if !ready.is_empty() {
                let topic = Arc::clone(&self.topic);
                return blocking(move || read(&topic, &ready, bytes_max)).await;
            }
            match tokio::time::timeout_at(deadline, moved.changed()).await {
                Ok(Ok(())) => {}
                // Nothing came in time (the sender lives as long as the topic).
                Ok(Err(_)) | Err(_) => return Ok(Vec::new()),
            }
        }
    }

    async fn offsets(&self) -> Result<Vec<PartitionOffsets>, TopicError> {
        Ok(offsets(&self.topic))
    }

    async fn highest(&self, source: &str) -> Result<BTreeMap<i32, u64>, TopicError> {
        let partitions = self.topic.partitions();
        Ok(partitions
            .iter()
            .filter_map(|p| Some((p.id(), p.highest(source)?)))
            .collect())
    }

    fn identity(&self) -> String {
        self.topic.id().to_string()
    }

    async fn reject(&self, rejects: &[Reject]) -> Result<u64, TopicError> {
        if rejects.is_empty() {
            return Ok(0);
        }
        let turn = Arc::clone(&self.rejecting).lock_owned().await;
        let (log, topic) = (Arc::clone(&self.log), Arc::clone(&self.topic));
        let rejects = rejects.to_vec();
        let (count, acks) = blocking(move || {
            let turn = turn;
            let topic = Self::rejects_topic(&log, &topic)?;
            let partition = only(&topic)?;
            let mut highest = BTreeMap::new();
            let mut parts = Vec::with_capacity(rejects.len());
            for reject in &rejects {
                let mark = mark(reject);
                let held = *highest
                    .entry(mark.id.clone())
                    .or_insert_with(|| partition.highest(&mark.id));
                if held.is_none_or(|held| mark.position > held) {
                    parts.push(part(reject, &mark));
                    highest.insert(mark.id, Some(mark.position));
                }
            }
            let count = parts.len() as u64;
            let acks = match count {
                0 => Vec::new(),
                _ => vec![send(&partition, encode(parts)?)?],
            };
            drop(turn);
            Ok((count, acks))
        })
        .await?;
        durable(acks).await?;
        Ok(count)
    }

    async fn rejects(&self, from: i64, count_max: usize) -> Result<Vec<(i64, Reject)>, TopicError> {
        let Some(topic) = self.log.topic(&rejects_topic(self.topic.name())) else {
            return Ok(Vec::new());
        };
        blocking(move || list(&topic, from, count_max)).await
    }
}

/// Reads from each ready partition its share, in order, until there is enough.
fn read(
    topic: &LogTopic,
    ready: &[(i32, i64)],
    bytes_max: usize,
) -> Result<Vec<Fetched>, TopicError> {
    let share = bytes_max / ready.len();
    let mut left = bytes_max;
    let mut fetched = Vec::with_capacity(ready.len());
    for (partition, offset) in ready {
        // The first always gives something; the others give way where it was large.
        if left == 0 && !fetched.is_empty() {
            break;
        }
        let Some(held) = topic.partition(*partition) else {
            continue;
        };
        let slice = held.read(*offset, share.min(left))?;
        let decoded = decode(*partition, *offset, &slice, share.min(left));
        left = left.saturating_sub(decoded.unpacked.max(decoded.done).max(1));
        fetched.push(decoded.fetched);
    }
    Ok(fetched)
}

/// The one partition of a topic of rejects.
fn only(topic: &LogTopic) -> Result<Arc<Partition>, TopicError> {
    topic.partition(0).ok_or_else(|| TopicError::NoPartition {
        topic: topic.name().to_owned(),
        partition: 0,
    })
}

fn list(topic: &LogTopic, from: i64, count_max: usize) -> Result<Vec<(i64, Reject)>, TopicError> {
    let partition = only(topic)?;
    let mut next = from.max(partition.offsets().start);
    let mut rejects = Vec::new();
    while rejects.len() < count_max && next < partition.offsets().end {
        let slice = partition.read(next, REJECTS_BYTES)?;
        let fetched = decode(0, next, &slice, REJECTS_BYTES).fetched;
        next = fetched.next;
        for batch in &fetched.unreadable {
            warn!(
                topic = topic.name(),
                offset = batch.first,
                "a batch cannot be read; another client wrote it"
            );
        }
        for message in fetched.messages {
            let value = message.value.unwrap_or_else(Bytes::new);
            match serde_json::from_slice(&value) {
                Ok(reject) if rejects.len() < count_max => rejects.push((message.offset, reject)),
                Ok(_) => break,
                Err(_) => warn!(
                    topic = topic.name(),
                    offset = message.offset,
                    "a record is no reject; another client wrote it"
                ),
            }
        }
    }
    Ok(rejects)
}
