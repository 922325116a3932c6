//! Raw records that others write to a Kafka topic.
//!
//! Always: the position of a record is its offset and 1, in the part that its partition is. So a
//! restart reads the same records at the same positions again.
//! Always: a value is a record, whatever it holds; no value (a tombstone) is an empty one. The gate
//! says what cannot be used. A batch that cannot be taken apart counts as one record.
//! Always: which topic it is, is its identity and not its name: one that was deleted and made anew
//! is another source.
//! Absent on purpose: keys and headers, which are never read; the client of a broker, which comes
//! behind [`RawLog`]; deciding by the group's offsets, which are shown to others only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use falaj_record::{Fetched, Message, Positions, Raw, Unreadable};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::source::{Opening, Outcome, Portion, Source};
use crate::{Backoff, KafkaConfig, SourceError, SourceState, SourceStatus};

pub(crate) const KIND: &str = "kafka";

/// Bytes read at once from all partitions together. What one partition gives of it is published at once,
/// and a cluster takes that as one transaction, whose cost hardly depends on its size.
const FETCH_BYTES_MAX: usize = 16 << 20;
/// Longest wait of one read for new records.
const FETCH_WAIT: Duration = Duration::from_millis(500);
/// How often ends and new partitions are asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a topic that is not there is looked for.
const MISSING_EVERY: Duration = Duration::from_secs(1);
/// How often positions are shown to the group.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the last positions to be shown, at the end.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(2);

/// What a partition of a raw topic holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawOffsets {
    /// The partition.
    pub partition: i32,
    /// First offset held.
    pub start: i64,
    /// First offset that does not exist yet.
    pub end: i64,
}

/// Where raw topics are.
#[async_trait]
pub trait RawBroker: Send + Sync {
    /// Opens the topic; nothing while it is not there.
    ///
    /// # Errors
    /// [`RawLogError::Passing`] where it may work later.
    async fn open(&self, topic: &str) -> Result<Option<Arc<dyn RawLog>>, RawLogError>;
}

/// A topic that others write raw records to, read only.
#[async_trait]
pub trait RawLog: Send + Sync {
    /// Identity of the topic: another one after it was deleted and made again.
    fn identity(&self) -> String;

    /// Reads on from `from`, about `bytes_max` bytes in all; where there is nothing yet, waits up to
    /// `wait` and then gives nothing.
    ///
    /// # Errors
    /// [`RawLogError`].
    async fn fetch(
        &self,
        from: &Positions,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Fetched>, RawLogError>;

    /// Start and end of each partition.
    ///
    /// # Errors
    /// [`RawLogError`].
    async fn offsets(&self) -> Result<Vec<RawOffsets>, RawLogError>;

    /// Shows how far the topic is used, for tools that tell lag.
    ///
    /// # Errors
    /// [`RawLogError`]; nothing depends on it.
    async fn commit(&self, positions: &Positions) -> Result<(), RawLogError>;
}

/// Why a raw topic cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RawLogError {
    /// Retention has taken the offset.
    #[error("retention took offset {wanted} of partition {partition}: it starts at {start}")]
    Overtaken {
        /// The partition.
        partition: i32,
        /// The offset asked for.
        wanted: i64,
        /// First offset held.
        start: i64,
    },
    /// The offset does not exist.
    #[error("offset {wanted} of partition {partition} is beyond the end, {end}")]
    BeyondEnd {
        /// The partition.
        partition: i32,
        /// The offset asked for.
        wanted: i64,
        /// First offset that does not exist yet.
        end: i64,
    },
    /// The topic is gone.
    #[error("the topic was deleted")]
    Deleted,
    /// It may work later: the broker is away.
    #[error("{cause}")]
    Passing {
        /// What is wrong.
        cause: String,
        /// What to try.
        hint: Option<String>,
    },
    /// It will not work.
    #[error("{cause}")]
    Failed {
        /// What is wrong.
        cause: String,
        /// What to try.
        hint: Option<String>,
    },
}

/// [`KafkaConfig`], opened.
pub(crate) struct KafkaSource {
    label: String,
    topic: String,
    broker: Arc<dyn RawBroker>,
    log: Option<Arc<dyn RawLog>>,
    material: Vec<u8>,
    /// Next offsets to fetch; what was fetched before them is in the backlog or handed on.
    reached: Positions,
    ends: Positions,
    backlog: VecDeque<Portion>,
    /// When the ends were last asked for.
    looked: Option<Instant>,
    /// Next offsets after what is durable, and what the group was shown of them, when.
    durable: Positions,
    shown: Positions,
    showed: Option<Instant>,
    backoff: Backoff,
    /// Attempts in a row that failed.
    attempts: u32,
    status: watch::Sender<SourceStatus>,
    stop: CancellationToken,
}

impl KafkaSource {
    pub(crate) fn open(config: &KafkaConfig, opening: Opening) -> Result<Self, SourceError> {
        let Some(broker) = opening.broker else {
            return Err(SourceError::Unsupported { kind: KIND });
        };
        Ok(Self {
            label: format!("topic `{}`", config.topic),
            topic: config.topic.clone(),
            broker,
            log: None,
            material: Vec::new(),
            reached: Positions::default(),
            ends: Positions::default(),
            backlog: VecDeque::new(),
            looked: None,
            durable: Positions::default(),
            shown: Positions::default(),
            showed: None,
            backoff: opening.backoff,
            attempts: 0,
            status: watch::Sender::default(),
            stop: opening.stop,
        })
    }

    /// Tells what is waited for and waits; an error where waiting does not help.
    async fn wait(&mut self, error: RawLogError) -> Result<(), SourceError> {
        let RawLogError::Passing { cause, hint } = error else {
            return Err(failed(&self.topic, error));
        };
        self.attempts = self.attempts.saturating_add(1);
        let wait = self.backoff.after(self.attempts);
        if self.attempts == 1 {
            tracing::warn!(topic = self.topic, cause, "cannot read raw records for now");
        }
        self.status.send_modify(|status| {
            status.state = SourceState::Retrying;
            status.detail = Some(cause);
            status.hint = hint;
            status.attempts = self.attempts;
            status.retry_at_ms = Some(in_ms(wait));
        });
        self.pause(wait).await;
        Ok(())
    }

    async fn pause(&self, wait: Duration) {
        let _ = self
            .stop
            .run_until_cancelled(tokio::time::sleep(wait))
            .await;
    }

    /// Looks for new partitions and for the ends. A partition that no position is known of is read
    /// from the first record it holds.
    async fn look(&mut self, log: &Arc<dyn RawLog>) -> Result<(), RawLogError> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        for offsets in log.offsets().await? {
            let RawOffsets {
                partition,
                start,
                end,
            } = offsets;
            self.reached.0.entry(partition).or_insert(start);
            self.ends.advance(partition, end);
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// Takes what was fetched into the backlog.
    fn take(&mut self, fetched: Vec<Fetched>) {
        let mut bytes = 0;
        for part in fetched {
            let partition = part.partition;
            self.reached.advance(partition, part.next);
            self.ends.advance(partition, part.end);
            let raws = raws(part.messages, &part.unreadable);
            bytes += raws.iter().map(|raw| raw.bytes.len() as u64).sum::<u64>();
            if raws.is_empty() {
                continue;
            }
            // A partition's next records go with those that wait already.
            let mut waiting = self.backlog.iter_mut();
            match waiting.find(|portion| portion.part == partition) {
                Some(portion) => portion.raws.extend(raws),
                None => self.backlog.push_back(Portion {
                    part: partition,
                    ..Portion::new(raws)
                }),
            }
        }
        let (again, lag) = (self.attempts > 0, self.lag());
        self.attempts = 0;
        if again {
            tracing::info!(topic = self.topic, "raw records can be read again");
        }
        self.status.send_modify(|status| {
            status.well(SourceState::Ok);
            status.bytes += bytes;
            status.lag = Some(lag);
        });
    }

    /// Records that are there and were not handed on. Offsets without a record count, too.
    fn lag(&self) -> u64 {
        let ahead = self.ends.0.iter().map(|(partition, end)| {
            let reached = self.reached.0.get(partition).copied().unwrap_or(0);
            u64::try_from(end - reached).unwrap_or(0)
        });
        let held: usize = self.backlog.iter().map(|portion| portion.raws.len()).sum();
        ahead.sum::<u64>() + held as u64
    }

    /// Shows the group what is durable, at times; a failure is nobody's loss.
    async fn show(&mut self, log: &Arc<dyn RawLog>, now: bool) {
        let due = now || self.showed.is_none_or(|at| at.elapsed() >= COMMIT_EVERY);
        if !due || self.durable == self.shown {
            return;
        }
        let committed = tokio::time::timeout(COMMIT_WAIT_MAX, log.commit(&self.durable)).await;
        self.showed = Some(Instant::now());
        match committed {
            Ok(Ok(())) => self.shown = self.durable.clone(),
            Ok(Err(error)) => {
                tracing::debug!(topic = self.topic, "positions are not shown: {error}");
            }
            Err(_) => tracing::debug!(topic = self.topic, "positions are not shown in time"),
        }
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn finite(&self) -> bool {
        false
    }

    fn rereads(&self) -> bool {
        true
    }

    fn parted(&self) -> bool {
        true
    }

    async fn ready(&mut self) -> Result<bool, SourceError> {
        while self.log.is_none() {
            if self.stop.is_cancelled() {
                return Ok(false);
            }
            let opened = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(false),
                opened = self.broker.open(&self.topic) => opened,
            };
            match opened {
                Ok(Some(log)) => {
                    self.material = log.identity().into_bytes();
                    self.log = Some(log);
                    self.attempts = 0;
                    self.status
                        .send_modify(|status| status.well(SourceState::Waiting));
                }
                Ok(None) => {
                    self.status.send_modify(|status| {
                        status.well(SourceState::Waiting);
                        status.detail = Some(format!("topic `{}` is not there yet", self.topic));
                        status.hint = Some("it is read as soon as somebody makes it".into());
                    });
                    self.pause(MISSING_EVERY).await;
                }
                Err(error) => self.wait(error).await?,
            }
        }
        Ok(true)
    }

    fn material(&self) -> &[u8] {
        &self.material
    }

    fn resume_after(&mut self, part: i32, position: u64) {
        // The position after which to go on is the next offset.
        let next = i64::try_from(position).unwrap_or(i64::MAX);
        self.reached.0.insert(part, next);
        self.durable.0.insert(part, next);
    }

    fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    async fn next(&mut self) -> Result<Option<Portion>, SourceError> {
        let stop = self.stop.clone();
        loop {
            let Some(log) = self.log.clone() else {
                if !self.ready().await? {
                    return Ok(None);
                }
                continue;
            };
            if stop.is_cancelled() {
                self.show(&log, true).await;
                return Ok(None);
            }
            if let Some(portion) = self.backlog.pop_front() {
                let records = portion.raws.len() as u64;
                let lag = self.lag();
                self.status.send_modify(|status| {
                    status.records += records;
                    status.lag = Some(lag);
                });
                return Ok(Some(portion));
            }
            self.show(&log, false).await;
            let fetched = tokio::select! {
                biased;
                () = stop.cancelled() => continue,
                fetched = async {
                    self.look(&log).await?;
                    log.fetch(&self.reached, FETCH_BYTES_MAX, FETCH_WAIT).await
                } => fetched,
            };
            match fetched {
                Ok(fetched) => self.take(fetched),
                Err(error) => self.wait(error).await?,
            }
        }
    }

    async fn done(&mut self, outcome: Outcome<'_>) {
        let next = i64::try_from(outcome.position).unwrap_or(i64::MAX);
        self.durable.advance(outcome.part, next);
    }
}

/// What a partition gave, in the order of its offsets.
pub(crate) fn raws(messages: Vec<Message>, unreadable: &[Unreadable]) -> Vec<Raw> {
    let mut raws: Vec<Raw> = messages
        .into_iter()
        .map(raw)
        // A batch stands at its last record: going on after it leaves all of it behind.
        .chain(unreadable.iter().map(|batch| Raw {
            position: batch.next.unsigned_abs(),
            unreadable: Some(*batch),
            ..Raw::default()
        }))
        .collect();
    raws.sort_unstable_by_key(|raw| raw.position);
    raws
}

/// The record that a message is, whatever it holds.
fn raw(message: Message) -> Raw {
    Raw::new(message.value.unwrap_or_default(), position(message.offset))
}

/// The position of the record at an offset.
pub(crate) fn position(offset: i64) -> u64 {
    // Offsets are not negative.
    offset.unsigned_abs() + 1
}

/// The offset of the record at a position, if one can be there.
pub(crate) fn offset(position: u64) -> Option<i64> {
    i64::try_from(position.checked_sub(1)?).ok()
}

/// What somebody is told who does not wait.
pub(crate) fn failed(topic: &str, error: RawLogError) -> SourceError {
    let topic = topic.to_owned();
    match error {
        RawLogError::Passing { cause, hint } | RawLogError::Failed { cause, hint } => {
            SourceError::Topic { topic, cause, hint }
        }
        RawLogError::Overtaken {
            partition,
            wanted,
            start,
        } => SourceError::Overtaken {
            topic,
            partition,
            wanted,
            start,
        },
        RawLogError::BeyondEnd {
            partition,
            wanted,
            end,
        } => SourceError::LostEnd {
            topic,
            partition,
            wanted,
            end,
        },
        RawLogError::Deleted => SourceError::Deleted { topic },
    }
}

fn in_ms(wait: Duration) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from((now + wait).as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use falaj_record::Reason;

    use super::*;

    #[test]
    fn a_batch_that_cannot_be_taken_apart_stands_where_its_last_record_would() {
        let message = |offset| Message {
            offset,
            timestamp_ms: 0,
            key: None,
            value: None,
            policy: None,
            src: None,
        };
        let batch = Unreadable {
            first: 5,
            next: 8,
            reason: Reason::BatchBroken,
            length: 77,
        };
        let raws = raws(vec![message(4), message(8)], &[batch]);
        let positions: Vec<_> = raws.iter().map(|raw| raw.position).collect();
        assert_eq!(positions, [5, 8, 9]);
        let batches: Vec<_> = raws.iter().map(|raw| raw.unreadable).collect();
        assert_eq!(batches, [None, Some(batch), None]);
    }
}
