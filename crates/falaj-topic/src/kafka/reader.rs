//! Reading a topic of a cluster from given positions on.
//!
//! Always: positions are falaj's own; no group assigns partitions, nothing is reset.
//! Always: one copy of a message's bytes, from librdkafka's buffers into one block for each call.
//! Always: offsets that hold no message (ends of transactions, what compaction took) are gone past,
//! but only after a fetch from there has shown that they hold none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use falaj_record::{Fetched, Message, Positions};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::cluster::{Cluster, Context, client};
use crate::TopicError;
use crate::encode::{POLICY_HEADER, SRC_HEADER};

/// How long the fetcher pauses when enough is read ahead. The library's own default, a second, halves
/// the speed of catching up.
const PAUSE_MS: &str = "5";
/// How long a broker holds a fetch that finds nothing; the end of a partition is told after it.
const HOLD_MS: &str = "100";
/// What is read ahead at most, of all partitions together: each has a queue of its own, and the
/// library bounds queues. A small message takes several times its bytes there, so both are bounded.
const AHEAD_KILOBYTES: i32 = 32 << 10;
const AHEAD_MESSAGES: i32 = 100_000;
/// What each partition may have however many there are.
const AHEAD_KILOBYTES_MIN: i32 = 1 << 10;
const AHEAD_MESSAGES_MIN: i32 = 1_000;
/// Events of the client served with each fetch.
const EVENTS_A_TURN: usize = 4;
/// What a message counts beside its bytes, so that tiny ones do not make endless lists.
const MESSAGE_EXTRA_BYTES: usize = 64;
const BLOCK_BYTES_MIN: usize = 4 << 10;
const BLOCK_BYTES_MAX: usize = 1 << 20;

/// A consumer with a queue for each partition.
pub(super) struct Reader {
    parts: Vec<Part>,
    consumer: Arc<BaseConsumer<Context>>,
    topic: String,
    /// Something came that may be worth a look.
    wake: Arc<Notify>,
    /// Memory for the next call.
    memory: BytesMut,
    /// Which partition has the first turn.
    turn: usize,
    /// When something last came from the brokers.
    heard: Instant,
    /// When it was last used.
    rests: Instant,
}

/// One partition.
struct Part {
    partition: i32,
    queue: PartitionQueue<Context>,
    /// The next offset that the caller has not had.
    next: i64,
    /// A fetch has found nothing at `next`.
    at_end: bool,
    /// The end when it was last asked for.
    end: i64,
    /// A fetch from `next` is under way to show that there is nothing before this offset.
    gap_to: Option<i64>,
    /// Came behind messages that were given first.
    failed: Option<KafkaError>,
}

/// Why a reader cannot go on.
pub(super) enum Stop {
    /// Offsets are not what they were: ask for them.
    Outside,
    /// The topic may be gone: ask for it.
    Unknown,
    Failed(TopicError),
}

impl Reader {
    /// A reader that stands nowhere yet. Blocks.
    pub fn open(
        cluster: &Cluster,
        topic: &str,
        group: &str,
        partitions: i32,
    ) -> Result<Self, TopicError> {
        let mut settings = cluster.settings();
        let mut unless_set = |key: &str, value: &str| {
            if settings.get(key).is_none() {
                settings.set(key, value);
            }
        };
        unless_set("fetch.queue.backoff.ms", PAUSE_MS);
        unless_set("fetch.wait.max.ms", HOLD_MS);
        let share = |all: i32, least: i32| (all / partitions.max(1)).max(least).to_string();
        let kilobytes = share(AHEAD_KILOBYTES, AHEAD_KILOBYTES_MIN);
        unless_set("queued.max.messages.kbytes", &kilobytes);
        let messages = share(AHEAD_MESSAGES, AHEAD_MESSAGES_MIN);
        unless_set("queued.min.messages", &messages);
        unless_set("fetch.error.backoff.ms", "100");
        settings
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed");
        let wake = Arc::new(Notify::new());
        let awake = |wake: &Arc<Notify>| {
            let wake = Arc::clone(wake);
            move || wake.notify_one()
        };
        let mut consumer: BaseConsumer<Context> = settings
            .create_with_context(Context::default())
            .map_err(client)?;
        consumer.set_nonempty_callback(awake(&wake));
        let consumer = Arc::new(consumer);
        let mut parts = Vec::new();
        for partition in 0..partitions {
            // Before the partitions are assigned, so that nothing goes to the common queue.
            let queue = consumer.split_partition_queue(topic, partition);
            let mut queue = queue.ok_or_else(|| TopicError::NoPartition {
                topic: topic.to_owned(),
                partition,
            })?;
            queue.set_nonempty_callback(awake(&wake));
            parts.push(Part {
                partition,
                queue,
                next: -1,
                at_end: false,
                end: 0,
                gap_to: None,
                failed: None,
            });
        }
        Ok(Self {
            parts,
            consumer,
            topic: topic.to_owned(),
            wake,
            memory: BytesMut::new(),
            turn: 0,
            heard: Instant::now(),
            rests: Instant::now(),
        })
    }

    /// Whether the next fetch goes on from `from`.
    pub fn stands_at(&self, from: &Positions) -> bool {
        self.parts
            .iter()
            .all(|part| part.next == from.next(part.partition))
    }

    /// Goes to `from`, which lies within what the partitions hold; `ends` are theirs. Blocks.
    pub fn go_to(&mut self, from: &Positions, ends: &BTreeMap<i32, i64>) -> Result<(), TopicError> {
        let mut list = TopicPartitionList::with_capacity(self.parts.len());
        for part in &mut self.parts {
            part.next = from.next(part.partition);
            part.end = ends.get(&part.partition).copied().unwrap_or(0);
            part.at_end = part.next >= part.end;
            (part.gap_to, part.failed) = (None, None);
            let offset = Offset::Offset(part.next);
            if list
                .add_partition_offset(&self.topic, part.partition, offset)
                .is_err()
            {
                return Err(self.cannot_go("an offset is out of range"));
            }
        }
        self.heard = Instant::now();
        self.consumer
            .assign(&list)
            .map_err(|error| self.cannot_go(&error.to_string()))
    }

    fn cannot_go(&self, reason: &str) -> TopicError {
        TopicError::Refused {
            doing: format!("read topic `{}`", self.topic),
            reason: reason.to_owned(),
        }
    }

    /// The topic's identity as this client last met it.
    pub fn id(&self) -> Option<String> {
        self.consumer.context().id(&self.topic)
    }

    /// Whether a connection failed after something was last heard, longer than `patience` ago.
    pub fn is_cut_off(&self, patience: Duration) -> bool {
        self.heard.elapsed() > patience && self.consumer.context().troubled_since(self.heard)
    }

    /// Nobody uses it for now.
    pub fn rest(&mut self) {
        self.rests = Instant::now();
    }

    /// Whether nobody used it for longer than `patience`.
    pub fn is_idle(&self, patience: Duration) -> bool {
        self.rests.elapsed() > patience
    }

    /// Something was heard after all.
    pub fn hear(&mut self) {
        self.heard = Instant::now();
    }

    /// Whether every partition was read to an end that a broker has told.
    pub fn has_all(&self) -> bool {
        self.parts
            .iter()
            .all(|part| part.at_end && part.gap_to.is_none())
    }

    /// Whether everything before `end` was read, as asked for just now.
    pub fn has_up_to(&self, ends: &BTreeMap<i32, i64>) -> bool {
        let end = |part: &Part| ends.get(&part.partition).copied().unwrap_or(0);
        self.parts.iter().all(|part| part.next >= end(part))
    }

    /// Partitions whose end may lie beyond what can be read.
    pub fn may_have_gaps(&self) -> bool {
        self.parts
            .iter()
            .any(|part| part.at_end && part.next != part.end)
    }

    /// Takes note of the ends, and looks into what lies before them where nothing was found. Blocks.
    pub fn learn(&mut self, ends: &BTreeMap<i32, i64>) {
        let mut gaps = TopicPartitionList::new();
        for part in &mut self.parts {
            let end = ends.get(&part.partition).copied().unwrap_or(0);
            part.end = end;
            if part.at_end && part.gap_to.is_none() && part.next < end {
                let offset = Offset::Offset(part.next);
                if gaps
                    .add_partition_offset(&self.topic, part.partition, offset)
                    .is_ok()
                {
                    (part.gap_to, part.at_end) = (Some(end), false);
                }
            }
        }
        if gaps.count() > 0 {
            // Where it fails the partition is not being fetched, and will be from `next` on.
            let _ = self
                .consumer
                .seek_partitions(gaps, super::cluster::CALL_WAIT);
        }
    }

    /// Waits until something may have come, or `until`.
    pub async fn wait(&self, until: tokio::time::Instant) -> bool {
        tokio::time::timeout_at(until, self.wake.notified())
            .await
            .is_ok()
    }

    /// What has come, about `bytes_max` bytes in all; partitions that have more take turns.
    pub fn take(&mut self, bytes_max: usize) -> Result<Vec<Fetched>, Stop> {
        for _ in 0..EVENTS_A_TURN {
            match self.consumer.poll(Duration::ZERO) {
                Some(Err(error)) => {
                    if let Some(stop) = self.trouble(&error) {
                        return Err(stop);
                    }
                }
                Some(Ok(_)) => return Err(Stop::Failed(self.cannot_go("a message came astray"))),
                None => {}
            }
        }
        let count = self.parts.len();
        let first = self.turn % count.max(1);
        self.turn = self.turn.wrapping_add(1);
        let mut memory = std::mem::take(&mut self.memory);
        let mut blocks = Blocks::new(bytes_max, &mut memory);
        let mut taken = Vec::new();
        let mut left = bytes_max;
        for n in 0..count {
            let share = left / (count - n);
            let part = &mut self.parts[(first + n) % count];
            // The first that has something always gives it.
            let share = if taken.is_empty() {
                share.max(1)
            } else {
                share
            };
            let bytes = part.take(share, &mut blocks, &mut taken);
            left = left.saturating_sub(bytes);
            if let Some(error) = part.failed.take_if(|_| bytes == 0)
                && let Some(stop) = self.trouble(&error)
            {
                return Err(stop);
            }
        }
        if !taken.is_empty() {
            self.heard = Instant::now();
        }
        let fetched = blocks.cut(taken);
        self.memory = memory;
        Ok(fetched)
    }

    /// What an error of a queue means; nothing where the library goes on by itself.
    fn trouble(&self, error: &KafkaError) -> Option<Stop> {
        match error.rdkafka_error_code()? {
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
                Some(Stop::Outside)
            }
            Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicId => Some(Stop::Unknown),
            code @ (Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => {
                Some(Stop::Failed(TopicError::Unauthorized {
                    doing: format!("read topic `{}`", self.topic),
                    reason: code.to_string(),
                }))
            }
            Code::BadMessage | Code::BadCompression | Code::InvalidMessage => {
                let failed = |part: &&Part| !part.at_end;
                let part = self.parts.iter().find(failed);
                Some(Stop::Failed(TopicError::Malformed {
                    topic: self.topic.clone(),
                    partition: part.map_or(0, |part| part.partition),
                    offset: part.map_or(0, |part| part.next),
                }))
            }
            _ => None,
        }
    }
}

impl Part {
    /// Takes about `share` bytes of what has come, and says how many.
    fn take(&mut self, share: usize, blocks: &mut Blocks<'_>, taken: &mut Vec<Taken>) -> usize {
        let mut messages = Vec::new();
        let (mut bytes, from) = (0, self.next);
        while bytes < share && self.failed.is_none() {
            match self.queue.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    if message.offset() >= self.next {
                        let (place, more) = blocks.add(&message);
                        bytes += more;
                        (self.next, self.at_end, self.gap_to) = (place.offset + 1, false, None);
                        messages.push(place);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at_end = true;
                    if let Some(end) = self.gap_to.take() {
                        self.next = self.next.max(end);
                    }
                }
                Some(Err(error)) => self.failed = Some(error),
                None => break,
            }
        }
        if self.next > from {
            taken.push(Taken {
                partition: self.partition,
                messages,
                next: self.next,
                // Asked for a while ago, unless all of it was read meanwhile.
                end: self.end.max(self.next),
            });
        }
        bytes
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Closing talks to the brokers: not on a thread that others wait for.
        let parts = std::mem::take(&mut self.parts);
        let consumer = Arc::clone(&self.consumer);
        std::thread::spawn(move || {
            drop(parts);
            drop(consumer);
        });
    }
}

/// What one partition gave, its bytes still in the blocks.
struct Taken {
    partition: i32,
    messages: Vec<Place>,
    next: i64,
    end: i64,
}

/// A message whose bytes lie in a block.
struct Place {
    offset: i64,
    timestamp_ms: i64,
    block: usize,
    key: Option<(usize, usize)>,
    value: Option<(usize, usize)>,
    policy: Option<Bytes>,
    src: Option<(usize, usize)>,
}

/// The bytes of the messages of one call, in few pieces.
struct Blocks<'a> {
    size: usize,
    /// The first block is cut from this: where the messages of earlier calls are dropped by now, it
    /// is memory that was just used.
    memory: &'a mut BytesMut,
    all: Vec<BytesMut>,
    /// Most messages have the policy of the one before.
    policy: Option<Bytes>,
}

impl<'a> Blocks<'a> {
    fn new(bytes_max: usize, memory: &'a mut BytesMut) -> Self {
        Self {
            size: bytes_max.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX),
            memory,
            all: Vec::new(),
            policy: None,
        }
    }

    /// Copies a message, and says where it lies and how many bytes it has.
    fn add(&mut self, message: &BorrowedMessage<'_>) -> (Place, usize) {
        let (mut policy, mut src) = (None, None);
        if let Some(headers) = message.headers() {
            for header in headers.iter() {
                if header.key == POLICY_HEADER {
                    policy = header.value;
                } else if header.key == SRC_HEADER {
                    src = header.value;
                }
            }
        }
        let (key, value) = (message.key(), message.payload());
        let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        let bytes = length(key) + length(value) + length(src);
        let fits = |block: &BytesMut| block.capacity() - block.len() >= bytes;
        if !self.all.last().is_some_and(fits) {
            let block = if self.all.is_empty() && bytes <= self.size {
                self.memory.reserve(self.size);
                self.memory.split_off(0)
            } else {
                BytesMut::with_capacity(self.size.max(bytes))
            };
            self.all.push(block);
        }
        let at = self.all.len() - 1;
        let block = &mut self.all[at];
        let mut copy = |part: Option<&[u8]>| {
            part.map(|part| {
                let start = block.len();
                block.extend_from_slice(part);
                (start, block.len())
            })
        };
        let place = Place {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
            block: at,
            key: copy(key),
            value: copy(value),
            src: copy(src),
            policy: policy.map(|policy| self.shared(policy)),
        };
        (place, bytes + MESSAGE_EXTRA_BYTES)
    }

    fn shared(&mut self, policy: &[u8]) -> Bytes {
        match &self.policy {
            Some(last) if last == policy => last.clone(),
            _ => self.policy.insert(Bytes::copy_from_slice(policy)).clone(),
        }
    }

    /// The messages with their bytes.
    fn cut(self, taken: Vec<Taken>) -> Vec<Fetched> {
        let blocks: Vec<Bytes> = self.all.into_iter().map(BytesMut::freeze).collect();
        let message = |place: Place| {
            let slice = |range: Option<(usize, usize)>| {
                range.map(|(start, end)| blocks[place.block].slice(start..end))
            };
            Message {
                offset: place.offset,
                timestamp_ms: place.timestamp_ms,
                key: slice(place.key),
                value: slice(place.value),
                policy: place.policy,
                src: slice(place.src),
            }
        };
        taken
            .into_iter()
            .map(|taken| Fetched {
                partition: taken.partition,
                messages: taken.messages.into_iter().map(message).collect(),
                // librdkafka takes batches apart, and stops at what it cannot.
                unreadable: Vec::new(),
                next: taken.next,
                end: taken.end,
            })
            .collect()
    }
}
