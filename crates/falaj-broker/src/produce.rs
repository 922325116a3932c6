//! Produce: batches into the log, as they come.
//!
//! Always: batches of one connection are appended in the order of its requests; acknowledgements
//! follow when they are durable, several requests on one sync.
//! Absent on purpose: transactions; formats before v2.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use falaj_log::{Batches, LogError, Topic};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use tokio::sync::oneshot;

use crate::broker::{Broker, Crashed, internal, kafka_error, known_partition, text};

/// A request whose batches are appended, and not known to be durable yet.
pub(crate) struct Producing {
    topics: Vec<(TopicName, Vec<Appending>)>,
    /// The client waits for an answer.
    answered: bool,
}

struct Appending {
    reply: PartitionProduceResponse,
    durable: Option<oneshot::Receiver<Result<(), LogError>>>,
}

impl Broker {
    /// Appends all batches of a request.
    pub async fn produce(self: &Arc<Self>, q: ProduceRequest) -> Result<Producing, Crashed> {
        self.on_disk(move |broker| {
            let answered = q.acks != 0;
            let refused = if !matches!(q.acks, -1..=1) {
                Some(ResponseError::InvalidRequiredAcks)
            } else if q.transactional_id.is_some() {
                Some(ResponseError::TransactionalIdAuthorizationFailed)
            } else {
                None
            };
            let topics = q.topic_data.into_iter().map(|t| {
                let topic = broker.log.topic(&t.name);
                let refused = refused
                    .or_else(|| internal(&t.name).then_some(ResponseError::InvalidTopicException));
                let partitions = t.partition_data.into_iter().map(|p| {
                    let records = p.records.unwrap_or_default();
                    match refused {
                        Some(error) => Appending::failed(p.index, error, None),
                        None => Appending::begin(topic.as_deref(), p.index, &records),
                    }
                });
                (t.name, partitions.collect())
            });
            Producing {
                topics: topics.collect(),
                answered,
            }
        })
        .await
    }
}

impl Appending {
    fn failed(index: i32, error: ResponseError, message: Option<String>) -> Self {
        let reply = PartitionProduceResponse::default()
            .with_index(index)
            .with_error_code(error.code())
            .with_error_message(message.map(text))
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1);
        Self {
            reply,
            durable: None,
        }
    }

    fn begin(topic: Option<&Topic>, index: i32, records: &Bytes) -> Self {
        let partition = match known_partition(topic, index, -1) {
            Ok(partition) => partition,
            Err(error) => return Self::failed(index, error, None),
        };
        if records.is_empty() {
            return Self::failed(index, ResponseError::InvalidRecord, None);
        }
        let (tell, told) = oneshot::channel();
        // A copy, since offsets are written into it.
        let appended = Batches::checked(BytesMut::from(&records[..])).and_then(|batches| {
            partition.append_then(
                batches,
                Box::new(move |durable| {
                    // Who waited may be gone.
                    let _ = tell.send(durable);
                }),
            )
        });
        match appended {
            Ok(appended) => Self {
                reply: PartitionProduceResponse::default()
                    .with_index(index)
                    .with_base_offset(appended.offsets.start)
                    .with_log_append_time_ms(appended.append_ms.unwrap_or(-1))
                    .with_log_start_offset(partition.offsets().start),
                durable: Some(told),
            },
            Err(error) => Self::failed(index, kafka_error(&error), Some(error.to_string())),
        }
    }
}

impl Producing {
    /// Whether something was refused.
    pub fn failed(&self) -> bool {
        let mut all = self.topics.iter().flat_map(|(_, partitions)| partitions);
        all.any(|appending| appending.reply.error_code != 0)
    }

    /// Whether the client waits for an answer.
    pub fn answered(&self) -> bool {
        self.answered
    }

    /// The answer, once everything is durable.
    pub async fn durable(self, version: i16) -> ProduceResponse {
        let mut topics = Vec::with_capacity(self.topics.len());
        for (name, partitions) in self.topics {
            let mut replies = Vec::with_capacity(partitions.len());
            for appending in partitions {
                let mut reply = appending.reply;
                if let Some(durable) = appending.durable {
                    let durable = durable.await.unwrap_or(Err(LogError::Closed));
                    if let Err(error) = durable {
                        let failed = Appending::failed(
                            reply.index,
                            kafka_error(&error),
                            Some(error.to_string()),
                        );
                        reply = failed.reply;
                    }
                }
                if version < 8 {
                    reply.error_message = None;
                }
                replies.push(reply);
            }
            topics.push(
                TopicProduceResponse::default()
                    .with_name(name)
                    .with_partition_responses(replies),
            );
        }
        ProduceResponse::default().with_responses(topics)
    }
}
