//! Publishing to a cluster.
//!
//! Always: idempotent, acknowledged by all replicas in sync, in the order of each partition.
//! Always: after an error, what a partition took of a call is the beginning of what it was given:
//! whatever is left is thrown away as a whole, never skipped over. The positions of a source, which
//! only grow in a partition, rest on it.
//! Always: a full queue makes the caller wait; nothing is dropped.
//! With a lease, a call is one transaction: all of it or nothing, and nothing once another falaj has
//! the lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use tokio::sync::Notify;

use super::cluster::{Cluster, Context, client};
use crate::encode::{POLICY_HEADER, Part, SRC_HEADER};
use crate::{Compression, TopicError};

/// No batch is larger, unless a single record is: every broker takes that much.
pub(super) const BATCH_BYTES_MAX: usize = 900_000;
/// The largest request, and so the largest record, that is sent at all.
pub(super) const REQUEST_BYTES_MAX: usize = 64 << 20;
/// What waits to be sent, at most; then callers wait.
const QUEUE_KILOBYTES_MAX: usize = 64 << 10;
const QUEUE_RECORDS_MAX: usize = 200_000;
/// How long a batch waits for more: records of one call come faster than that.
const LINGER_MS: &str = "2";
/// A call fails when nothing of it was acknowledged for so long.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// How often a waiting call looks.
const LOOK: Duration = Duration::from_millis(100);
/// Records that are queued before others get the thread.
const RECORDS_A_TURN: usize = 512;
/// How long the cluster keeps a transaction of a falaj that is away; as long, it may be away itself.
const TRANSACTION_MS: &str = "300000";
/// How soon it is looked again whether what was committed can be read.
const SEEN_LOOK: Duration = Duration::from_millis(1);
/// One try of a step of a transaction.
const STEP_WAIT: Duration = Duration::from_secs(2);

/// A record for a partition.
pub(super) struct Letter {
    pub partition: i32,
    pub part: Part,
}

/// How far the records of one call have come.
struct Delivery {
    /// Not yet told, and one more while the call still queues.
    left: AtomicUsize,
    failed: Mutex<Option<Code>>,
    /// The last offset in each partition, where that is asked for.
    last: Option<Mutex<BTreeMap<i32, i64>>>,
    told: Arc<Notify>,
}

struct Listener {
    context: Context,
    told: Arc<Notify>,
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Listener {
    type DeliveryOpaque = Arc<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Arc<Delivery>) {
        match (result, &delivery.last) {
            (Err((error, _)), _) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                delivery.failed.lock().get_or_insert(code);
            }
            (Ok(message), Some(last)) => {
                last.lock().insert(message.partition(), message.offset());
            }
            (Ok(_), None) => {}
        }
        delivery.left.fetch_sub(1, Ordering::AcqRel);
        self.told.notify_waiters();
    }
}

/// A producer of one topic, or of all that a lease covers.
pub(super) struct Producer {
    cluster: Arc<Cluster>,
    native: ThreadedProducer<Listener>,
    told: Arc<Notify>,
    /// Set where every call is a transaction.
    lease: Option<String>,
    /// The open transaction was ended, though the call that did it may be gone.
    ended: AtomicBool,
    /// Calls take turns while they queue their records, with a lease until they are done.
    turn: tokio::sync::Mutex<Turn>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Free,
    /// A transaction waits to be ended: the cluster did not say in time whether it was.
    Committing,
    Aborting,
    /// Something was thrown away: no record may come after it through this producer.
    Spent,
}

impl Producer {
    /// A producer without a lease.
    pub fn plain(cluster: &Arc<Cluster>, compression: Compression) -> Result<Self, TopicError> {
        let mut settings = settings(cluster, compression);
        settings
            // What the brokers refuse ends this producer: nothing comes after it.
            .set("enable.gapless.guarantee", "true")
            // A record is given up only together with all that came after it, see `discard`.
            .set("message.timeout.ms", "0");
        Self::new(cluster, &settings, None)
    }

    /// The producer of a lease. Nothing can be published before [`Self::fence`].
    pub fn leased(
        cluster: &Arc<Cluster>,
        compression: Compression,
        lease: &str,
        id: &str,
    ) -> Result<Self, TopicError> {
        let mut settings = settings(cluster, compression);
        settings
            .set("transactional.id", id)
            .set("transaction.timeout.ms", TRANSACTION_MS)
            // Ended by the transaction, never record by record.
            .set("message.timeout.ms", TRANSACTION_MS);
        Self::new(cluster, &settings, Some(lease.to_owned()))
    }

    fn new(
        cluster: &Arc<Cluster>,
        settings: &ClientConfig,
        lease: Option<String>,
    ) -> Result<Self, TopicError> {
        let told = Arc::new(Notify::new());
        let listener = Listener {
            context: Context::default(),
            told: Arc::clone(&told),
        };
        Ok(Self {
            cluster: Arc::clone(cluster),
            native: settings.create_with_context(listener).map_err(client)?,
            told,
            lease,
            ended: AtomicBool::new(false),
            turn: tokio::sync::Mutex::new(Turn::Free),
        })
    }

    /// Shuts out whoever published under this lease before, and ends what they left open. Says
    /// whether it is done; blocks for a moment where it is not yet.
    pub fn fence(&self) -> Result<bool, TopicError> {
        match self.native.init_transactions(STEP_WAIT) {
            Ok(()) => Ok(true),
            Err(KafkaError::Transaction(e)) if e.is_retriable() => Ok(false),
            Err(error) => Err(self.cluster.error("begin to publish under a lease", &error)),
        }
    }

    /// Why nothing can be published any more, if so.
    pub fn fatal(&self) -> Option<String> {
        self.native.client().fatal_error().map(|(_, why)| why)
    }

    /// The identity of a topic as this client last met it.
    pub fn id(&self, topic: &str) -> Option<String> {
        self.native.context().context.id(topic)
    }

    /// Whether it can be used after an error.
    pub async fn spent(&self) -> bool {
        *self.turn.lock().await == Turn::Spent
    }

    /// Publishes, and returns when all is acknowledged (with a lease: committed).
    pub async fn publish(
        self: &Arc<Self>,
        topic: &str,
        letters: Vec<Letter>,
    ) -> Result<(), TopicError> {
        // Fair: calls keep the order in which they were first polled.
        let mut turn = self.turn.lock().await;
        match *turn {
            Turn::Free => {}
            Turn::Spent => return Err(self.cluster.unreachable("an earlier call failed")),
            Turn::Committing | Turn::Aborting => self.end(&mut turn).await?,
        }
        if self.lease.is_some() {
            return self.publish_as_one(&mut turn, topic, letters).await;
        }
        let (delivery, queued) = self.queue(topic, letters).await;
        if let Err(error) = queued {
            *turn = Turn::Spent;
            self.discard(&delivery).await;
            return Err(error);
        }
        drop(turn);
        if let Err(error) = self.delivered(topic, &delivery).await {
            let mut turn = self.turn.lock().await;
            *turn = Turn::Spent;
            self.discard(&delivery).await;
            return Err(error);
        }
        Ok(())
    }

    /// Ends what an earlier call left undecided, so that the topic can be asked what it holds.
    pub async fn settle(self: &Arc<Self>) -> Result<(), TopicError> {
        let mut turn = self.turn.lock().await;
        match *turn {
            Turn::Committing | Turn::Aborting => self.end(&mut turn).await,
            Turn::Free | Turn::Spent => Ok(()),
        }
    }

    /// One call as a transaction.
    async fn publish_as_one(
        self: &Arc<Self>,
        turn: &mut Turn,
        topic: &str,
        letters: Vec<Letter>,
    ) -> Result<(), TopicError> {
        if let Err(error) = self.native.begin_transaction() {
            return Err(self.failed(&error));
        }
        // From here on it must be ended, also where this call is dropped.
        *turn = Turn::Aborting;
        let (delivery, queued) = self.queue(topic, letters).await;
        let delivered = match queued {
            Ok(()) => self.delivered(topic, &delivery).await,
            Err(error) => Err(error),
        };
        match delivered {
            Ok(()) => {
                *turn = Turn::Committing;
                self.end(turn).await?;
                self.seen(topic, &delivery).await;
                Ok(())
            }
            Err(error) => {
                // What failed is told, not that ending it failed too.
                let _ = self.end(turn).await;
                Err(self.lost().unwrap_or(error))
            }
        }
    }

    /// Ends the open transaction. Where that takes too long it stays to be ended by the next call.
    async fn end(self: &Arc<Self>, turn: &mut Turn) -> Result<(), TopicError> {
        let until = Instant::now() + QUIET_MAX;
        let mut aborted = None;
        loop {
            let (producer, committing) = (Arc::clone(self), *turn == Turn::Committing);
            let ended = super::blocking(move || Ok(producer.step(committing))).await?;
            let Err(error) = ended else {
                self.ended.store(false, Ordering::Release);
                *turn = Turn::Free;
                return aborted.map_or(Ok(()), Err);
            };
            let told = self.failed(&error);
            if self.fatal().is_some() {
                return Err(told);
            }
            if Instant::now() >= until {
                return Err(aborted.unwrap_or(told));
            }
            match &error {
                KafkaError::Transaction(e) if e.txn_requires_abort() => {
                    *turn = Turn::Aborting;
                    aborted.get_or_insert(told);
                }
                KafkaError::Transaction(e) if !e.is_retriable() => {
                    // Another thread is still at it, for a call that was dropped.
                    tokio::time::sleep(LOOK).await;
                }
                _ => {}
            }
        }
    }

    /// One try of ending the open transaction. Blocks.
    fn step(&self, committing: bool) -> Result<(), KafkaError> {
        if self.ended.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let done = if committing {
            self.native.commit_transaction(STEP_WAIT)
        } else {
            self.native.abort_transaction(STEP_WAIT)
        };
        if done.is_ok() {
            self.ended.store(true, Ordering::Release);
        }
        done
    }

    /// Waits until what was committed can be read: the cluster answers a little before that.
    async fn seen(self: &Arc<Self>, topic: &str, delivery: &Delivery) {
        let last = delivery.last.as_ref().map(|last| last.lock().clone());
        let (last, until) = (last.unwrap_or_default(), Instant::now() + STEP_WAIT);
        // It is committed: where nobody can tell, it is only seen later.
        while Instant::now() < until {
            let (producer, topic, asked) = (Arc::clone(self), topic.to_owned(), last.clone());
            let all = super::blocking(move || Ok(producer.cluster.readable(&topic, &asked)));
            match all.await {
                Ok(Some(false)) => tokio::time::sleep(SEEN_LOOK).await,
                Ok(Some(true) | None) | Err(_) => return,
            }
        }
    }

    /// What an error of a transaction means.
    fn failed(&self, error: &KafkaError) -> TopicError {
        if let Some(lost) = self.lost() {
            return lost;
        }
        match error {
            KafkaError::Transaction(e) if e.is_retriable() || e.txn_requires_abort() => {
                match self.cluster.refusal("publish", e.code()) {
                    TopicError::Refused { doing, reason } => {
                        TopicError::Unavailable { doing, reason }
                    }
                    other => other,
                }
            }
            KafkaError::Flush(code) => self.cluster.refusal("publish", *code),
            other => self.cluster.error("publish", other),
        }
    }

    /// The lease is gone, where it is: another falaj has fenced this one.
    fn lost(&self) -> Option<TopicError> {
        Some(TopicError::LeaseLost {
            name: self.lease.clone()?,
            reason: self.fatal()?,
        })
    }

    /// Queues all records; waits where the queue is full.
    async fn queue(
        &self,
        topic: &str,
        letters: Vec<Letter>,
    ) -> (Arc<Delivery>, Result<(), TopicError>) {
        let delivery = Arc::new(Delivery {
            left: AtomicUsize::new(0),
            failed: Mutex::new(None),
            last: self.lease.is_some().then(Mutex::default),
            told: Arc::clone(&self.told),
        });
        for (index, letter) in letters.into_iter().enumerate() {
            if index % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
            if let Err(error) = self.queue_one(topic, &letter, &delivery).await {
                return (delivery, Err(error));
            }
        }
        (delivery, Ok(()))
    }

    async fn queue_one(
        &self,
        topic: &str,
        letter: &Letter,
        delivery: &Arc<Delivery>,
    ) -> Result<(), TopicError> {
        let Letter { partition, part } = letter;
        let key = part.key.as_deref();
        let mut since = Instant::now();
        loop {
            let told = self.told.notified();
            let mut record =
                BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, Arc::clone(delivery))
                    .partition(*partition)
                    .payload(&part.value)
                    .timestamp(part.timestamp_ms)
                    .headers(headers(part));
            record.key = key;
            delivery.left.fetch_add(1, Ordering::AcqRel);
            let Err((error, _)) = self.native.send(record) else {
                return Ok(());
            };
            delivery.left.fetch_sub(1, Ordering::AcqRel);
            match error.rdkafka_error_code() {
                Some(Code::QueueFull) => {
                    if tokio::time::timeout(LOOK, told).await.is_ok() {
                        since = Instant::now();
                    } else if since.elapsed() > QUIET_MAX {
                        return Err(self.cluster.unreachable("nothing was acknowledged"));
                    }
                }
                Some(Code::MessageSizeTooLarge) => {
                    return Err(TopicError::TooLarge {
                        bytes: part.bytes(),
                    });
                }
                Some(Code::UnknownPartition) => {
                    return Err(TopicError::NoPartition {
                        topic: topic.to_owned(),
                        partition: *partition,
                    });
                }
                Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => {
                    return Err(TopicError::Deleted {
                        topic: topic.to_owned(),
                    });
                }
                _ => return Err(self.lost().unwrap_or_else(|| self.failed(&error))),
            }
        }
    }

    /// Waits until all records of a call are told to be there.
    async fn delivered(&self, topic: &str, delivery: &Delivery) -> Result<(), TopicError> {
        let mut since = Instant::now();
        let mut left = usize::MAX;
        loop {
            let told = delivery.told.notified();
            if let Some(code) = *delivery.failed.lock() {
                return Err(self.undelivered(topic, code));
            }
            let now = delivery.left.load(Ordering::Acquire);
            if now == 0 {
                return Ok(());
            }
            if now < left {
                (since, left) = (Instant::now(), now);
            }
            if since.elapsed() > QUIET_MAX {
                return Err(self.cluster.unreachable("nothing was acknowledged"));
            }
            let _ = tokio::time::timeout(LOOK, told).await;
        }
    }

    fn undelivered(&self, topic: &str, code: Code) -> TopicError {
        if let Some(lost) = self.lost() {
            return lost;
        }
        match code {
            Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::UnknownTopicId => TopicError::Deleted {
                topic: topic.to_owned(),
            },
            Code::PurgeQueue | Code::PurgeInflight => {
                self.cluster.unreachable("an earlier call failed")
            }
            code => self
                .cluster
                .refusal(&format!("publish to topic `{topic}`"), code),
        }
    }

    /// Throws away all that is queued, and waits until it is told.
    async fn discard(&self, delivery: &Delivery) {
        self.native.purge(PurgeConfig::default().queue().inflight());
        let until = Instant::now() + STEP_WAIT;
        while delivery.left.load(Ordering::Acquire) > 0 && Instant::now() < until {
            let told = delivery.told.notified();
            let _ = tokio::time::timeout(LOOK, told).await;
        }
    }
}

fn settings(cluster: &Cluster, compression: Compression) -> ClientConfig {
    let mut settings = cluster.settings();
    let mut unless_set = |key: &str, value: &str| {
        if settings.get(key).is_none() {
            settings.set(key, value);
        }
    };
    unless_set("linger.ms", LINGER_MS);
    unless_set(
        "queue.buffering.max.kbytes",
        &QUEUE_KILOBYTES_MAX.to_string(),
    );
    unless_set(
        "queue.buffering.max.messages",
        &QUEUE_RECORDS_MAX.to_string(),
    );
    settings
        .set("enable.idempotence", "true")
        .set("compression.codec", compression.name())
        .set("batch.size", BATCH_BYTES_MAX.to_string())
        .set("message.max.bytes", REQUEST_BYTES_MAX.to_string());
    settings
}

fn headers(part: &Part) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(2);
    let both = [(POLICY_HEADER, &part.policy), (SRC_HEADER, &part.src)];
    for (key, value) in both {
        if let Some(value) = value {
            headers = headers.insert(Header {
                key,
                value: Some::<&[u8]>(value),
            });
        }
    }
    headers
}
