//! What somebody's own program does with librdkafka: the same calls and settings against every broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

/// Partitions of every topic here, as in the example.
pub const PARTITIONS: i32 = 4;
/// Nothing takes longer than that, unless something is wrong.
const PATIENCE: Duration = Duration::from_mins(5);

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

/// Makes a topic, which must not be there.
pub async fn create(brokers: &str, topic: &str, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create().expect("a client");
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    let new = settings
        .iter()
        .fold(new, |new, (key, value)| new.set(key, value));
    let made = admin.create_topics(&[new], &options()).await;
    made.expect("the broker answers")
        .remove(0)
        .expect("the topic is made");
}

/// Deletes a topic.
pub async fn delete(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create().expect("a client");
    let gone = admin.delete_topics(&[topic], &options()).await;
    gone.expect("the broker answers")
        .remove(0)
        .expect("the topic was there");
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE))
}

/// A consumer of all partitions from their first message on.
pub fn consumer(brokers: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = config(brokers)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        // The default, a second, halves the speed of catching up and costs as much.
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let added = list.add_partition_offset(topic, partition, Offset::Beginning);
        added.expect("it is an offset");
    }
    consumer.assign(&list).expect("it is assigned");
    consumer
}

/// Reads so many messages of a topic, which are all it has. The consumer is given back so that its
/// end is not measured, nor how long a broker lets it wait for more.
pub fn read(
    brokers: &str,
    topic: &str,
    messages: u64,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> BaseConsumer {
    let consumer = consumer(brokers, topic);
    for _ in 0..messages {
        each(&next(&consumer));
    }
    consumer
}

/// The next message.
pub fn next(consumer: &BaseConsumer) -> BorrowedMessage<'_> {
    let message = consumer.poll(PATIENCE).expect("something comes");
    message.unwrap_or_else(|error| panic!("cannot read: {error}"))
}

/// A producer whose messages are acknowledged by all replicas; each batch waits `linger_ms` for more.
pub struct Producer {
    native: BaseProducer<Failures>,
    topic: String,
    partition: i32,
    sent: u64,
}

/// Counts messages that were not acknowledged.
#[derive(Default, Clone)]
pub struct Failures(Arc<AtomicU64>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Failures {
    pub fn expect_none(&self) {
        let failed = self.0.load(Ordering::Relaxed);
        assert_eq!(failed, 0, "every message is acknowledged");
    }
}

fn producing(brokers: &str, linger_ms: u32) -> ClientConfig {
    let mut config = config(brokers);
    config
        .set("acks", "all")
        .set("linger.ms", linger_ms.to_string());
    config
}

impl Producer {
    pub fn new(brokers: &str, topic: &str, linger_ms: u32) -> Self {
        let native = producing(brokers, linger_ms).create_with_context(Failures::default());
        Self {
            native: native.expect("a producer"),
            topic: topic.to_owned(),
            partition: 0,
            sent: 0,
        }
    }

    /// Queues a message for the next partition; waits where the queue is full.
    pub fn send(&mut self, value: &[u8], timestamp_ms: Option<i64>) {
        let mut record = BaseRecord::<(), [u8]>::to(&self.topic)
            .partition(self.partition)
            .payload(value);
        record.timestamp = timestamp_ms;
        while let Err((error, again)) = self.native.send(record) {
            let full = error.rdkafka_error_code() == Some(Code::QueueFull);
            assert!(full, "cannot produce: {error}");
            self.native.poll(Duration::from_millis(10));
            record = again;
        }
        self.partition = (self.partition + 1) % PARTITIONS;
        self.sent += 1;
        if self.sent.is_multiple_of(1000) {
            self.native.poll(Duration::ZERO);
        }
    }

    /// Waits until all are acknowledged.
    pub fn finish(self) {
        self.native.flush(PATIENCE).expect("all are acknowledged");
        self.native.context().expect_none();
    }
}

/// The same with a thread of its own for what the broker answers.
pub fn threaded(brokers: &str, linger_ms: u32) -> (ThreadedProducer<Failures>, Failures) {
    let failures = Failures::default();
    let native = producing(brokers, linger_ms).create_with_context(failures.clone());
    (native.expect("a producer"), failures)
}
