//! The topic of cleared records, behind one trait: [`Topic`] to publish and to fetch, [`Broker`] to
//! make, describe, list and delete topics.
//!
//! Always: what is published has passed the gate; the type says so.
//! Always: an acknowledged record is durable, and is read by everybody in the order of its partition.
//! Always: a position that the topic does not hold is an error with numbers, never a silent skip.
//! Always: rejects travel as position, reason, declared path and length, on a topic of their own.
//! [`conformance`] turns this contract into tests that every implementation runs.
//! Absent on purpose: decoding of values (the gate's crate does it), checkpoints, SQL.

pub mod conformance;

mod config;
mod decode;
mod drift;
mod embedded;
mod encode;
mod error;
mod follower;
mod kafka;
mod lease;
mod options;
mod rejects;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use falaj_privacy::Cleared;
use falaj_record::{Fetched, Outbound, Positions, Reject};

pub use config::{Compression, Durability, TopicConfig};
pub use drift::Drift;
pub use embedded::Embedded;
pub use error::TopicError;
pub use follower::Follower;
pub use lease::Lease;
pub use options::ClientOption;
pub use rejects::rejects_topic;

use kafka::Kafka;

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The partition.
    pub partition: i32,
    /// First offset held; moves on with retention.
    pub start: i64,
    /// First offset that does not exist yet.
    pub end: i64,
}

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its identity: another one after it was deleted and made again.
    pub id: String,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionOffsets>,
    /// How long records are kept.
    pub retention: Option<Duration>,
    /// Bytes that it takes on disk, where that is known.
    pub bytes: Option<u64>,
}

/// A topic of cleared records. All calls may run at the same time.
#[async_trait]
pub trait Topic: Send + Sync {
    /// Publishes records, in their order within each partition; returns when all are durable.
    ///
    /// Calls that overlap keep the order in which they were first polled. After an error some of
    /// the records may be on the topic: published again, they are repeats that `falaj.src` tells.
    async fn publish(&self, records: Cleared<Outbound>) -> Result<(), TopicError>;

    /// Reads on from `from`, about `bytes_max` bytes in all and at least one batch; partitions that
    /// have more than that take turns. About 256 KiB a call cost least. Where there is nothing yet, waits up to `wait` and then gives
    /// nothing. A partition that `from` does not name is read from offset 0.
    ///
    /// [`TopicError::Overtaken`] where retention has taken the offset, [`TopicError::BeyondEnd`]
    /// where it does not exist.
    async fn fetch(
        &self,
        from: &Positions,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Fetched>, TopicError>;

    /// Start and end of each partition, by number.
    async fn offsets(&self) -> Result<Vec<PartitionOffsets>, TopicError>;

    /// The highest `falaj.src` position of `source` in each partition that has any. Meant for a
    /// start, before the first publish: it is then what the topic durably holds (or held, before
    /// retention).
    async fn highest(&self, source: &str) -> Result<BTreeMap<i32, u64>, TopicError>;

    /// How many records lie from `from` on. A partition that `from` does not name counts from its
    /// start.
    async fn count(&self, from: &Positions) -> Result<u64, TopicError> {
        let mut count = 0;
        for held in self.offsets().await? {
            let next = from.next(held.partition).max(held.start);
            count += u64::try_from(held.end - next).unwrap_or(0);
        }
        Ok(count)
    }

    /// Identity of the topic: another one after it was deleted and made again.
    fn identity(&self) -> String;

    /// Shows `positions` to others as those of the consumer group `group`, so that tools can tell
    /// how far it has come. Nothing here ever reads them. The group of a pipeline's own topic is
    /// [`group_of`] its name.
    async fn commit(&self, group: &str, positions: &Positions) -> Result<(), TopicError> {
        let _ = (group, positions);
        Ok(())
    }

    /// Writes rejects to `<topic>.rejects`; returns when they are durable, with how many were new.
    ///
    /// A reject that is already there is skipped: each source gives its rejects in the order of its
    /// positions, and so does each partition for each reason, so whatever is not beyond the highest
    /// one held has come before.
    async fn reject(&self, rejects: &[Reject]) -> Result<u64, TopicError>;

    /// Rejects with their offsets, from `from` (or what is left after it) on, at most `count_max`.
    async fn rejects(&self, from: i64, count_max: usize) -> Result<Vec<(i64, Reject)>, TopicError>;
}

/// Where topics live.
#[async_trait]
pub trait Broker: Send + Sync {
    /// The topic of `config`, made where it is not there. Settings other than the number of
    /// partitions are brought to what `config` says.
    async fn topic(&self, config: &TopicConfig) -> Result<Arc<dyn Topic>, TopicError>;

    /// A topic that is there, as it is: also one that others write to, whose records nothing has
    /// cleared.
    async fn existing(&self, topic: &str) -> Result<Arc<dyn Topic>, TopicError>;

    /// Makes a topic that is not there.
    async fn create(&self, config: &TopicConfig) -> Result<TopicDescription, TopicError>;

    /// What is known of a topic.
    async fn describe(&self, topic: &str) -> Result<TopicDescription, TopicError>;

    /// Deletes a topic, its records and its rejects.
    async fn delete(&self, topic: &str) -> Result<(), TopicError>;

    /// Names of all topics, in order.
    async fn list(&self) -> Result<Vec<String>, TopicError>;

    /// Where the topic of `config`, that of its rejects and that of its lease are not what falaj
    /// would make of the file. Nothing of one that is not there, and where [`Broker::topic`] brings
    /// it to that.
    async fn drift(&self, config: &TopicConfig) -> Result<Vec<Drift>, TopicError> {
        let _ = config;
        Ok(Vec::new())
    }

    /// Asks for the right to run the pipeline of topic `name`: one falaj has it at a time.
    ///
    /// On a cluster, what topics of this broker publish from here on is refused until the lease is
    /// held, and for good once it was lost. The embedded broker's is held at once: the data
    /// directory's lock keeps others out.
    async fn lease(&self, name: &str) -> Result<Lease, TopicError> {
        Ok(Lease::for_good(name))
    }

    /// Makes all durable and lets go of files or connections. Nothing can be published after that.
    async fn close(&self);
}

/// Connects to the broker that `config` names. `folder` is where an embedded one keeps its topics;
/// the caller holds a lock on it. `base` is the folder of the pipeline file, which paths in
/// `[topic.options]` are relative to.
///
/// # Errors
/// What the file says wrongly, what the embedded log finds damaged, or why the cluster cannot be
/// reached: told within seconds.
pub async fn connect(
    config: &TopicConfig,
    folder: &Path,
    base: &Path,
) -> Result<Arc<dyn Broker>, TopicError> {
    config.check()?;
    if config.embedded() {
        return Ok(Arc::new(Embedded::open(folder).await?));
    }
    Ok(Arc::new(Kafka::connect(config, base).await?))
}

/// The consumer group that shows how far the pipeline of `topic` has read it.
#[must_use]
pub fn group_of(topic: &str) -> String {
    kafka::group_of(topic)
}
