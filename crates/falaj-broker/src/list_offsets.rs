//! Offsets by what they stand for: first, next, newest, by time, by leader epoch.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};

use crate::broker::{Broker, LEADER_EPOCH, code, kafka_error, known_partition};

/// "Timestamps" that stand for something else.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const NEWEST: i64 = -3;

/// From this version on, replies hold leader epochs.
const WITH_EPOCHS: i16 = 4;

impl Broker {
    pub(crate) fn list_offsets(&self, q: ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
        let topics = q.topics.into_iter().map(|t| {
            let topic = self.log.topic(&t.name);
            let partitions = t.partitions.iter().map(|p| {
                let found =
                    known_partition(topic.as_deref(), p.partition_index, p.current_leader_epoch)
                        .and_then(|partition| match p.timestamp {
                            LATEST => Ok(Some((partition.offsets().end, -1))),
                            EARLIEST => Ok(Some((partition.offsets().start, -1))),
                            NEWEST => partition.newest().map_err(|e| kafka_error(&e)),
                            at if at >= 0 => partition.find(at).map_err(|e| kafka_error(&e)),
                            _ => Err(ResponseError::UnsupportedVersion),
                        });
                let (offset, timestamp) =
                    found.as_ref().ok().copied().flatten().unwrap_or((-1, -1));
                let epoch = if version >= WITH_EPOCHS && offset >= 0 {
                    LEADER_EPOCH
                } else {
                    -1
                };
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(p.partition_index)
                    .with_error_code(code(found.err()))
                    .with_offset(offset)
                    .with_timestamp(timestamp)
                    .with_leader_epoch(epoch)
            });
            let partitions = partitions.collect();
            ListOffsetsTopicResponse::default()
                .with_name(t.name)
                .with_partitions(partitions)
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }

    pub(crate) fn offset_for_leader_epoch(
        &self,
        q: OffsetForLeaderEpochRequest,
    ) -> OffsetForLeaderEpochResponse {
        let topics = q.topics.into_iter().map(|t| {
            let topic = self.log.topic(&t.topic);
            let partitions = t.partitions.iter().map(|p| {
                let end = known_partition(topic.as_deref(), p.partition, p.current_leader_epoch)
                    .map(|partition| match p.leader_epoch {
                        LEADER_EPOCH => (LEADER_EPOCH, partition.offsets().end),
                        _ => (-1, -1),
                    });
                let (epoch, offset) = *end.as_ref().unwrap_or(&(-1, -1));
                EpochEndOffset::default()
                    .with_partition(p.partition)
                    .with_error_code(code(end.err()))
                    .with_leader_epoch(epoch)
                    .with_end_offset(offset)
            });
            let partitions = partitions.collect();
            OffsetForLeaderTopicResult::default()
                .with_topic(t.topic)
                .with_partitions(partitions)
        });
        OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
    }
}
