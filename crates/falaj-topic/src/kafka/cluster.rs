//! One cluster, and the settings, logs and errors of all clients that falaj has of it.
//!
//! Always: a call that the cluster does not answer ends within seconds, with the most telling thing
//! that librdkafka said meanwhile.
//! Always: librdkafka's log goes to `tracing`; it holds addresses, topics and numbers, never records.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tracing::{debug, warn};

use crate::{TopicConfig, TopicError, options};

/// The longest a call waits for an answer.
pub(super) const CALL_WAIT: Duration = Duration::from_secs(10);
/// The longest that connecting takes before it is told.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// One try of connecting. What cannot change by trying again is told after the first.
const CONNECT_TRY: Duration = Duration::from_secs(1);
/// What serving a client's events takes at most, beside the events themselves.
const SERVE: Duration = Duration::from_millis(1);
/// How often events are served while a line of the log is awaited.
const SERVE_ROUNDS: usize = 50;

/// A cluster that falaj is connected to.
pub(super) struct Cluster {
    pub brokers: String,
    settings: BTreeMap<String, String>,
    /// Asks about topics and offsets; reads nothing.
    probe: BaseConsumer<Context>,
    closed: AtomicBool,
}

/// What a cluster knows of a topic.
pub(super) struct Known {
    pub partitions: i32,
    pub id: String,
    /// Each partition has a leader, so that it can be used.
    pub led: bool,
}

/// What librdkafka last said about a connection, the most telling kind of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Down(String),
    UnknownHost(String),
    Tls(String),
    Unauthenticated(String),
}

/// Listens to one client.
#[derive(Default)]
pub(super) struct Context {
    trouble: Mutex<Option<(Trouble, Instant)>>,
    /// Identity of each topic that the client has met, as its log tells it.
    ids: Mutex<HashMap<String, String>>,
}

impl Context {
    pub fn id(&self, topic: &str) -> Option<String> {
        self.ids.lock().get(topic).cloned()
    }

    /// Whether a connection failed since `moment`.
    pub fn troubled_since(&self, moment: Instant) -> bool {
        self.trouble
            .lock()
            .as_ref()
            .is_some_and(|(_, at)| *at >= moment)
    }

    fn clear(&self) {
        *self.trouble.lock() = None;
    }
}

/// A topic's name and new identity in a line of librdkafka's log.
///
/// It is the only place where the safe interface of `rdkafka` tells it; the library is built in, so
/// the line changes only with `Cargo.lock`, and the conformance suite fails where it does.
fn changed_id(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("Topic ")?;
    let (topic, rest) = rest.split_once(" changed id from ")?;
    let (_, id) = rest.split_once(" to ")?;
    Some((topic, id.trim()))
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if let Some((topic, id)) = changed_id(line) {
            self.ids.lock().insert(topic.to_owned(), id.to_owned());
        }
        match level {
            // Asked for only because of the line above.
            RDKafkaLogLevel::Debug => {}
            // Settings of consumers are passed to producers, too, and the other way round.
            _ if facility == "CONFWARN" => {}
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => debug!(facility, line, "kafka"),
            _ => warn!(facility, line, "kafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let reason = reason.to_owned();
        let trouble = match error.rdkafka_error_code() {
            Some(Code::Resolve) => Trouble::UnknownHost(reason),
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
                Trouble::Unauthenticated(reason)
            }
            Some(Code::SSL) => Trouble::Tls(reason),
            Some(Code::BrokerTransportFailure | Code::OperationTimedOut) => Trouble::Down(reason),
            // Says only that what was said before holds for all.
            Some(Code::AllBrokersDown) => Trouble::Down(String::new()),
            _ => {
                debug!(%error, reason, "kafka");
                return;
            }
        };
        let mut last = self.trouble.lock();
        let kept = last.take().map(|(kept, _)| kept);
        let telling = match kept {
            Some(kept) if trouble == Trouble::Down(String::new()) || kept > trouble => kept,
            _ => trouble,
        };
        *last = Some((telling, Instant::now()));
    }
}

impl ConsumerContext for Context {}

impl Cluster {
    /// Connects and waits for the first answer. `base` is the folder of the pipeline file.
    pub async fn connect(config: &TopicConfig, base: &Path) -> Result<Arc<Self>, TopicError> {
        let settings = options::read(&config.options, base)?;
        let (brokers, topic) = (config.brokers.clone(), config.name.clone());
        super::blocking(move || {
            let config = settings_of(&brokers, &settings);
            let probe = config.create_with_context(Context::default());
            let cluster = Self {
                brokers,
                settings,
                probe: probe.map_err(client)?,
                closed: AtomicBool::new(false),
            };
            cluster.greet(&topic)?;
            Ok(Arc::new(cluster))
        })
        .await
    }

    fn greet(&self, topic: &str) -> Result<(), TopicError> {
        let until = Instant::now() + CONNECT_WAIT;
        loop {
            let Err(error) = self.probe.fetch_metadata(Some(topic), CONNECT_TRY) else {
                self.probe.context().clear();
                return Ok(());
            };
            self.serve();
            let told = self.error("connect", &error);
            if Instant::now() >= until || !told.passing() {
                return Err(told);
            }
        }
    }

    /// Settings that every client of this cluster has.
    pub fn settings(&self) -> ClientConfig {
        settings_of(&self.brokers, &self.settings)
    }

    pub fn check_open(&self) -> Result<(), TopicError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(TopicError::Closed);
        }
        Ok(())
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub fn probe(&self) -> &BaseConsumer<Context> {
        &self.probe
    }

    /// Serves the probe's events: its log and its errors.
    fn serve(&self) {
        let until = Instant::now() + SERVE;
        while Instant::now() < until {
            // Errors have gone to the context; a consumer that reads nothing has no messages.
            let _ = self.probe.poll(SERVE);
        }
    }

    /// What the cluster says of one topic or of all. Blocks.
    pub fn metadata(&self, topic: Option<&str>) -> Result<Metadata, TopicError> {
        let metadata = self.probe.fetch_metadata(topic, CALL_WAIT);
        self.serve();
        match metadata {
            Ok(metadata) => {
                self.probe.context().clear();
                Ok(metadata)
            }
            Err(error) => Err(self.error("list topics", &error)),
        }
    }

    /// What the cluster knows of a topic; nothing where it does not exist. Blocks.
    pub fn look_up(&self, topic: &str) -> Result<Option<Known>, TopicError> {
        let metadata = self.metadata(Some(topic))?;
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else {
            return Ok(None);
        };
        if let Some(error) = found.error() {
            let code = Code::from(error);
            return match code {
                Code::UnknownTopicOrPartition | Code::UnknownTopic => Ok(None),
                code => Err(self.refusal(&format!("use topic `{topic}`"), code)),
            };
        }
        let mut known = Known {
            partitions: i32::try_from(found.partitions().len()).unwrap_or(i32::MAX),
            led: found.partitions().iter().all(|p| p.leader() >= 0),
            // A cluster from before topics had identities: the name is all there is.
            id: topic.to_owned(),
        };
        for _ in 0..SERVE_ROUNDS {
            if let Some(id) = self.probe.context().id(topic) {
                known.id = id;
                break;
            }
            self.serve();
        }
        Ok(Some(known))
    }

    /// Whether the ends of partitions lie beyond these offsets; nothing where that cannot be told.
    /// Blocks.
    pub fn readable(&self, topic: &str, last: &BTreeMap<i32, i64>) -> Option<bool> {
        let mut asked = TopicPartitionList::with_capacity(last.len());
        for partition in last.keys() {
            asked
                .add_partition_offset(topic, *partition, Offset::End)
                .ok()?;
        }
        let ends = self.probe.offsets_for_times(asked, CALL_WAIT).ok()?;
        let beyond = |partition: i32, end: Offset| match end {
            Offset::Offset(end) => last.get(&partition).is_none_or(|last| *last < end),
            _ => false,
        };
        let ends = ends.elements();
        Some(ends.iter().all(|e| beyond(e.partition(), e.offset())))
    }

    /// What went wrong in a call.
    pub fn error(&self, doing: &str, error: &KafkaError) -> TopicError {
        let code = match error {
            KafkaError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        match code {
            Some(code) => self.refusal(doing, code),
            None => TopicError::Refused {
                doing: doing.to_owned(),
                reason: error.to_string(),
            },
        }
    }

    /// What an error code means.
    pub fn refusal(&self, doing: &str, code: Code) -> TopicError {
        let (doing, reason) = (doing.to_owned(), text(code));
        match code {
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed => {
                TopicError::Unauthorized { doing, reason }
            }
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::MessageTimedOut
            | Code::RequestTimedOut
            | Code::NetworkException
            | Code::BrokerNotAvailable
            | Code::Resolve
            | Code::SSL
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::TimedOutQueue
            | Code::WaitingForCoordinator => self.unreachable(&reason),
            Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::ReplicaNotAvailable
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NotController
            | Code::KafkaStorageError
            | Code::ConcurrentTransactions
            | Code::UnknownLeaderEpoch
            | Code::FencedLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::ThrottlingQuotaExceeded => TopicError::Unavailable { doing, reason },
            _ => TopicError::Refused { doing, reason },
        }
    }

    /// The most telling reason why nobody answers.
    pub fn unreachable(&self, otherwise: &str) -> TopicError {
        let brokers = self.brokers.clone();
        let trouble = self.probe.context().trouble.lock().clone();
        match trouble.map(|(trouble, _)| trouble) {
            Some(Trouble::Unauthenticated(reason)) => {
                TopicError::Unauthenticated { brokers, reason }
            }
            Some(Trouble::Tls(reason)) => TopicError::Tls { brokers, reason },
            Some(Trouble::UnknownHost(reason)) => TopicError::UnknownHost { brokers, reason },
            Some(Trouble::Down(reason)) if !reason.is_empty() => {
                TopicError::Unreachable { brokers, reason }
            }
            _ => TopicError::Unreachable {
                brokers,
                reason: otherwise.to_owned(),
            },
        }
    }
}

/// What librdkafka calls a code.
fn text(code: Code) -> String {
    code.to_string()
}

/// Why a client cannot be made: a file that is not there, a certificate that cannot be read.
pub(super) fn client(error: KafkaError) -> TopicError {
    options::unknown(error)
}

fn settings_of(brokers: &str, options: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "falaj")
        // Told within seconds, and tried again as often.
        .set("socket.connection.setup.timeout.ms", "5000")
        .set("socket.timeout.ms", "10000")
        .set("reconnect.backoff.max.ms", "2000")
        .set("socket.keepalive.enable", "true")
        // A topic that is deleted is gone: no grace for one that was just made elsewhere.
        .set("topic.metadata.propagation.max.ms", "2000")
        .set("topic.metadata.refresh.interval.ms", "60000");
    for (key, value) in options {
        config.set(key, value);
    }
    config
        .set("bootstrap.servers", brokers)
        .set("allow.auto.create.topics", "false")
        .set("enable.metrics.push", "false")
        // Topics' identities are in this part of the log.
        .set("debug", "topic")
        .set_log_level(RDKafkaLogLevel::Debug);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_from_the_log() {
        let line = "[thrd:main]: Topic messages changed id from AAAAAAAAAAAAAAAAAAAAAA to x_9-QQ";
        assert_eq!(changed_id(line), Some(("messages", "x_9-QQ")));
        assert_eq!(changed_id("[thrd:main]: Topic messages [0] Leader 1"), None);
    }

    #[test]
    fn the_most_telling_trouble_is_kept() {
        let context = Context::default();
        let told = |code, reason| context.error(KafkaError::Global(code), reason);
        told(Code::SSL, "certificate verify failed");
        told(Code::BrokerTransportFailure, "closed");
        told(Code::AllBrokersDown, "1/1 brokers are down");
        let kept = context.trouble.lock().clone().map(|(trouble, _)| trouble);
        assert_eq!(kept, Some(Trouble::Tls("certificate verify failed".into())));
        context.clear();
        told(Code::BrokerTransportFailure, "Connection refused");
        told(Code::AllBrokersDown, "1/1 brokers are down");
        let kept = context.trouble.lock().clone().map(|(trouble, _)| trouble);
        assert_eq!(kept, Some(Trouble::Down("Connection refused".into())));
    }
}
