//! What all requests are answered from, and which part answers what.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use falaj_log::{Log, LogError, Partition, Stored, Topic};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, ConsumerGroupHeartbeatResponse, DescribeClusterResponse,
    FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse, ProducerId,
    RequestKind, ResponseKind, api_versions_response, describe_cluster_response,
    find_coordinator_response,
};
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::apis::APIS;
use crate::budget::{Budget, Paid};
use crate::coordinator::Coordinator;
use crate::offsets::OFFSETS_TOPIC;
use crate::options::Options;

/// The one broker of the cluster.
pub(crate) const NODE: BrokerId = BrokerId(1);

/// The one epoch of each partition: its leader never changes.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// The work behind an answer ended in a panic: a fault of falaj. The connection ends with it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a request could not be answered")]
pub(crate) struct Crashed;

/// Who asks.
pub(crate) struct Client {
    /// The name it gives itself.
    pub name: StrBytes,
    /// Its address, as Kafka shows it.
    pub host: String,
    /// Host and port it is told to use.
    pub advertised: (StrBytes, i32),
}

/// An answer, and what is held until it is written.
pub(crate) struct Answer {
    pub reply: ResponseKind,
    /// For each partition of a Fetch reply, in their order: records that are read when they are
    /// written, in place of those in `reply`.
    pub stored: Vec<Option<Stored>>,
    pub held: Option<Paid>,
}

impl From<ResponseKind> for Answer {
    fn from(reply: ResponseKind) -> Self {
        Self {
            reply,
            stored: Vec::new(),
            held: None,
        }
    }
}

/// What all connections share.
pub(crate) struct Broker {
    pub log: Arc<Log>,
    pub options: Options,
    pub coordinator: Coordinator,
    /// Bytes of requests that are being read or answered.
    pub requests: Budget,
    /// Bytes of replies that are being written.
    pub replies: Budget,
    /// Ends waiting for new records.
    pub stop: CancellationToken,
    cluster: StrBytes,
    watch: Mutex<HashMap<Uuid, Arc<Notify>>>,
}

impl Broker {
    pub fn new(log: Arc<Log>, options: Options, stop: CancellationToken) -> Result<Self, LogError> {
        let coordinator = Coordinator::open(&log, &options)?;
        // An identity that stays with the data, in the form Kafka gives it.
        let cluster = BASE64_URL_SAFE_NO_PAD.encode(coordinator.offsets.id().as_bytes());
        Ok(Self {
            requests: Budget::new(options.limits.requests_bytes),
            replies: Budget::new(options.limits.replies_bytes),
            cluster: StrBytes::from_string(cluster),
            watch: Mutex::default(),
            log,
            options,
            coordinator,
            stop,
        })
    }

    /// Answers anything but Produce and the SASL requests, which belong to a connection.
    pub async fn answer(
        self: &Arc<Self>,
        request: RequestKind,
        version: i16,
        client: &Client,
    ) -> Result<Answer, Crashed> {
        use RequestKind as Q;
        use ResponseKind as R;
        let node = (client.advertised.0.clone(), client.advertised.1);
        let reply = match request {
            Q::ApiVersions(_) => R::ApiVersions(api_versions()),
            Q::Metadata(q) => {
                R::Metadata(self.on_disk(move |b| b.metadata(q, version, node)).await?)
            }
            Q::Fetch(q) => return self.fetch(q).await,
            Q::ListOffsets(q) => {
                R::ListOffsets(self.on_disk(move |b| b.list_offsets(q, version)).await?)
            }
            Q::OffsetForLeaderEpoch(q) => R::OffsetForLeaderEpoch(self.offset_for_leader_epoch(q)),
            Q::CreateTopics(q) => {
                R::CreateTopics(self.on_disk(move |b| b.create_topics(&q, version)).await?)
            }
            Q::DeleteTopics(q) => {
                R::DeleteTopics(self.on_disk(move |b| b.delete_topics(q, version)).await?)
            }
            Q::CreatePartitions(q) => {
                R::CreatePartitions(self.on_disk(move |b| b.create_partitions(q)).await?)
            }
            Q::DeleteRecords(q) => {
                R::DeleteRecords(self.on_disk(move |b| b.delete_records(q)).await?)
            }
            Q::DescribeConfigs(q) => R::DescribeConfigs(self.describe_configs(q)),
            Q::AlterConfigs(q) => R::AlterConfigs(self.on_disk(move |b| b.alter_configs(q)).await?),
            Q::IncrementalAlterConfigs(q) => R::IncrementalAlterConfigs(
                self.on_disk(move |b| b.incremental_alter_configs(q))
                    .await?,
            ),
            Q::DescribeCluster(q) => {
                R::DescribeCluster(self.describe_cluster(q.endpoint_type, version, node))
            }
            Q::InitProducerId(q) => {
                R::InitProducerId(self.on_disk(move |b| b.init_producer_id(&q)).await?)
            }
            Q::FindCoordinator(q) => {
                let keys = if version >= 4 {
                    q.coordinator_keys
                } else {
                    vec![q.key]
                };
                R::FindCoordinator(find_coordinator(keys, q.key_type, version, node))
            }
            Q::JoinGroup(q) => R::JoinGroup(self.join_group(q, version, client).await),
            Q::SyncGroup(q) => R::SyncGroup(self.sync_group(q, version).await),
            Q::Heartbeat(q) => R::Heartbeat(self.heartbeat(&q)),
            Q::LeaveGroup(q) => R::LeaveGroup(self.leave_group(&q, version)),
            Q::OffsetCommit(q) => R::OffsetCommit(self.offset_commit(q).await?),
            Q::OffsetFetch(q) => R::OffsetFetch(self.offset_fetch(q, version)),
            Q::OffsetDelete(q) => R::OffsetDelete(self.offset_delete(q).await?),
            Q::ConsumerGroupHeartbeat(_) => R::ConsumerGroupHeartbeat(no_second_protocol()),
            Q::ListGroups(q) => R::ListGroups(self.list_groups(&q)),
            Q::DescribeGroups(q) => R::DescribeGroups(self.describe_groups(q)),
            Q::DeleteGroups(q) => R::DeleteGroups(self.delete_groups(q).await?),
            // Not in the list of what is answered, or answered by the connection.
            _ => return Err(Crashed),
        };
        Ok(reply.into())
    }

    /// Runs work that may touch files where it holds up no connection.
    pub async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Crashed> {
        let broker = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&broker))
            .await
            .map_err(|_| Crashed)
    }

    pub fn cluster(&self) -> StrBytes {
        self.cluster.clone()
    }

    /// Told whenever offsets of `topic` move, or it goes away.
    pub fn watch(&self, topic: &Topic) -> Arc<Notify> {
        let mut watch = self.watch.lock();
        if let Some(notify) = watch.get(&topic.id()) {
            return Arc::clone(notify);
        }
        let live: std::collections::HashSet<Uuid> =
            self.log.topics().iter().map(|t| t.id()).collect();
        watch.retain(|id, _| live.contains(id));
        let notify = Arc::new(Notify::new());
        topic.on_advance({
            let notify = Arc::clone(&notify);
            move || notify.notify_waiters()
        });
        watch.insert(topic.id(), Arc::clone(&notify));
        notify
    }

    fn describe_cluster(
        &self,
        endpoints: i8,
        version: i16,
        (host, port): (StrBytes, i32),
    ) -> DescribeClusterResponse {
        let mut reply = DescribeClusterResponse::default().with_cluster_id(self.cluster());
        if version >= 1 && endpoints != 1 {
            // Brokers are all there is; the endpoint type of controllers is 2.
            return reply
                .with_error_code(ResponseError::UnsupportedEndpointType.code())
                .with_error_message(Some(text("This broker has no controller endpoint.")));
        }
        reply.controller_id = NODE;
        reply.brokers = vec![
            describe_cluster_response::DescribeClusterBroker::default()
                .with_broker_id(NODE)
                .with_host(host)
                .with_port(port),
        ];
        reply
    }

    fn init_producer_id(&self, q: &InitProducerIdRequest) -> InitProducerIdResponse {
        let reply = InitProducerIdResponse::default()
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        if q.transactional_id.is_some() {
            // Transactions are not offered: nobody is authorized to use a transactional id.
            return reply.with_error_code(ResponseError::TransactionalIdAuthorizationFailed.code());
        }
        match self.log.producer_id() {
            Ok(id) => reply
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(0),
            Err(error) => reply.with_error_code(kafka_error(&error).code()),
        }
    }
}

/// What is offered, in which versions.
pub(crate) fn api_versions() -> ApiVersionsResponse {
    let keys = APIS.iter().map(|api| {
        api_versions_response::ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(*api.versions.start())
            .with_max_version(*api.versions.end())
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}

/// The second group protocol (KIP-848) is answered as by a Kafka where it is switched off: clients
/// give up at once and say why.
fn no_second_protocol() -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_error_message(Some(text(
            "This broker offers the classic group protocol only: set group.protocol=classic.",
        )))
}

fn find_coordinator(
    keys: Vec<StrBytes>,
    kind: i8,
    version: i16,
    (host, port): (StrBytes, i32),
) -> FindCoordinatorResponse {
    // 0 is a group, 1 a transaction.
    let error = match kind {
        0 => None,
        1 => Some(ResponseError::TransactionalIdAuthorizationFailed),
        _ => Some(ResponseError::InvalidRequest),
    };
    let (node, host, port) = match error {
        None => (NODE, host, port),
        Some(_) => (BrokerId(-1), StrBytes::new(), -1),
    };
    let code = error.map_or(0, |error| error.code());
    let message = error.map(|error| text(sentence(error)));
    if version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_node_id(node)
            .with_host(host)
            .with_port(port);
    }
    let coordinators = keys.into_iter().map(|key| {
        find_coordinator_response::Coordinator::default()
            .with_key(key)
            .with_error_code(code)
            .with_error_message(message.clone())
            .with_node_id(node)
            .with_host(host.clone())
            .with_port(port)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

/// A text for a reply.
pub(crate) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// Kafka's own words for an error, where clients show them.
pub(crate) fn sentence(error: ResponseError) -> &'static str {
    match error {
        ResponseError::TransactionalIdAuthorizationFailed => {
            "The transactional id authorization failed."
        }
        ResponseError::InvalidTopicException => {
            "The request attempted to perform an operation on an invalid topic."
        }
        ResponseError::UnknownTopicOrPartition => "This server does not host this topic-partition.",
        ResponseError::UnknownTopicId => "This server does not host this topic ID.",
        ResponseError::KafkaStorageError => {
            "Disk error when trying to access log file on the disk."
        }
        ResponseError::InvalidRequest => "The request is malformed or not offered by this broker.",
        _ => "The request could not be answered.",
    }
}

/// The code of an error, or of none.
pub(crate) fn code(error: Option<ResponseError>) -> i16 {
    error.map_or(0, |error| error.code())
}

/// How Kafka says what the log says.
pub(crate) fn kafka_error(error: &LogError) -> ResponseError {
    match error {
        LogError::Overtaken { .. } | LogError::BeyondEnd { .. } => ResponseError::OffsetOutOfRange,
        LogError::Name { .. } => ResponseError::InvalidTopicException,
        LogError::Partitions { .. } => ResponseError::InvalidPartitions,
        LogError::Exists(_) => ResponseError::TopicAlreadyExists,
        LogError::NoTopic(_) | LogError::Deleted(_) => ResponseError::UnknownTopicOrPartition,
        LogError::TooLarge { .. } => ResponseError::MessageTooLarge,
        LogError::OutOfOrder { .. } => ResponseError::OutOfOrderSequenceNumber,
        LogError::Fenced { .. } => ResponseError::InvalidProducerEpoch,
        // A wrong checksum may be the network's fault: clients send such a batch again.
        LogError::Refused { reason } if reason.contains("checksum") => {
            ResponseError::CorruptMessage
        }
        LogError::NoKey { .. } | LogError::Refused { .. } => ResponseError::InvalidRecord,
        disk => {
            warn!(error = %disk, "a Kafka client is told of a storage error");
            ResponseError::KafkaStorageError
        }
    }
}

/// Whether clients may read a topic and nothing else.
pub(crate) fn internal(topic: &str) -> bool {
    topic == OFFSETS_TOPIC
}

/// A partition that a client named, if there is one and its leader is the one the client knows.
pub(crate) fn known_partition(
    topic: Option<&Topic>,
    partition: i32,
    leader_epoch: i32,
) -> Result<Arc<Partition>, ResponseError> {
    let partition = topic
        .and_then(|topic| topic.partition(partition))
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    if leader_epoch > LEADER_EPOCH {
        return Err(ResponseError::UnknownLeaderEpoch);
    }
    Ok(partition)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// A time-out that a client named; below 0 is none.
pub(crate) fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
