//! Topics of a real Kafka cluster, through librdkafka.
//!
//! Always: positions are falaj's; what is committed to a group is for people to see.
//! Always: calls of librdkafka that block run on tokio's threads for blocking calls.
//! Absent on purpose: a cluster's settings are never changed, partitions are never added, and no
//! offset is ever reset.

mod broker;
mod cluster;
mod lease;
mod marks;
mod producer;
mod reader;
mod topic;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;

pub(crate) use broker::Kafka;

use crate::TopicError;

/// The group that shows how far a topic is read, and that its lease goes through.
pub(crate) fn group_of(topic: &str) -> String {
    format!("falaj.{topic}")
}

/// A client that commits positions to its group.
trait Commits: Send + Sync {
    fn commit(&self, list: &TopicPartitionList, mode: CommitMode) -> KafkaResult<()>;
}

impl<C: ConsumerContext> Commits for BaseConsumer<C> {
    fn commit(&self, list: &TopicPartitionList, mode: CommitMode) -> KafkaResult<()> {
        Consumer::commit(self, list, mode)
    }
}

/// Runs a call that blocks where it stalls nobody.
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
