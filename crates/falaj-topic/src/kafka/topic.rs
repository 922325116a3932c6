//! One topic of a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use falaj_privacy::Cleared;
use falaj_record::{Fetched, Outbound, Positions, Reject};
use parking_lot::Mutex;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;
use tracing::warn;

use super::broker::{Shared, rejects_config};
use super::cluster::{CALL_WAIT, Known};
use super::marks::Marks;
use super::producer::{BATCH_BYTES_MAX, Letter, Producer};
use super::reader::{Reader, Stop};
use super::{blocking, group_of};
use crate::encode::Part;
use crate::rejects::{mark, part, rejects_topic};
use crate::{Compression, PartitionOffsets, Topic, TopicError};

/// The longest a fetch waits; any longer is as good as forever.
const WAIT_MAX: Duration = Duration::from_hours(1);
/// Readers kept for the next fetch: of the views, of sinks that read on their own, of a look.
const READERS_MAX: usize = 4;
/// A reader that nobody used for so long reads ahead for nobody.
const READER_IDLE_MAX: Duration = Duration::from_secs(10);
/// How long nothing comes before the ends are asked for, where they may lie beyond what can be read.
const GAP_AFTER: Duration = Duration::from_millis(200);
/// How soon the cluster is asked again, where a partition has no leader or the topic seems gone.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Answers that a topic is gone, until that is so.
const SURE_AFTER: usize = 10;
/// How long a fetch hears nothing over a failing connection before it says so.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a record takes in a batch beside what it counts itself.
const BATCH_EXTRA_BYTES: usize = 100;
/// How much is read at once where records are looked through ..
const SCAN_BYTES: usize = 1 << 20;
/// .. and where rejects are listed: a few hundred of them.
const LIST_BYTES: usize = 64 << 10;

/// A topic of a cluster, as all who use it share it.
pub(super) struct KafkaTopic {
    shared: Arc<Shared>,
    name: String,
    id: String,
    partitions: i32,
    /// The largest batch that the topic takes.
    batch_bytes_max: usize,
    compression: Compression,
    deleted: AtomicBool,
    readers: Mutex<Vec<Reader>>,
    producer: tokio::sync::Mutex<Option<Arc<Producer>>>,
    marks: tokio::sync::Mutex<Marks>,
    rejecting: tokio::sync::Mutex<Option<Rejects>>,
}

/// The topic of rejects, and the highest of each order that it holds.
struct Rejects {
    topic: Arc<KafkaTopic>,
    highest: BTreeMap<Arc<str>, u64>,
}

impl KafkaTopic {
    pub fn new(
        shared: Arc<Shared>,
        name: &str,
        known: &Known,
        batch_bytes_max: usize,
        compression: Compression,
    ) -> Self {
        Self {
            shared,
            name: name.to_owned(),
            id: known.id.clone(),
            partitions: known.partitions,
            batch_bytes_max,
            compression,
            deleted: AtomicBool::new(false),
            readers: Mutex::default(),
            producer: tokio::sync::Mutex::default(),
            marks: tokio::sync::Mutex::new(Marks::default()),
            rejecting: tokio::sync::Mutex::default(),
        }
    }

    /// Whether this is what the cluster knows by its name.
    pub fn is(&self, known: &Known) -> bool {
        (&self.id, self.partitions) == (&known.id, known.partitions)
            && !self.deleted.load(Ordering::Acquire)
    }

    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// From here on it is gone, whatever has its name.
    pub fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
        self.readers.lock().clear();
    }

    /// Lets go of all connections.
    pub async fn close(&self) {
        self.readers.lock().clear();
        let producer = self.producer.lock().await.take();
        drop_elsewhere(producer);
        if let Some(rejects) = self.rejecting.lock().await.take() {
            Box::pin(rejects.topic.close()).await;
        }
    }

    fn check(&self) -> Result<(), TopicError> {
        self.shared.cluster.check_open()?;
        if self.deleted.load(Ordering::Acquire) {
            return Err(self.gone());
        }
        Ok(())
    }

    fn gone(&self) -> TopicError {
        TopicError::Deleted {
            topic: self.name.clone(),
        }
    }

    /// Asks the cluster whether this is still the topic of its name. One answer is not enough: a
    /// broker may know of a topic later than the others.
    async fn check_identity(&self) -> Result<(), TopicError> {
        for _ in 0..SURE_AFTER {
            let (shared, name) = (Arc::clone(&self.shared), self.name.clone());
            let found = blocking(move || shared.cluster.look_up(&name)).await?;
            if found.is_some_and(|known| known.id == self.id) {
                return Ok(());
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        self.delete();
        Err(self.gone())
    }

    async fn letters_sent(&self, letters: Vec<Letter>) -> Result<(), TopicError> {
        self.check()?;
        for letter in &letters {
            if !(0..self.partitions).contains(&letter.partition) {
                return Err(TopicError::NoPartition {
                    topic: self.name.clone(),
                    partition: letter.partition,
                });
            }
            let bytes = letter.part.bytes();
            if bytes + BATCH_EXTRA_BYTES > self.batch_bytes_max {
                return Err(TopicError::TooLarge { bytes });
            }
        }
        if letters.is_empty() {
            return Ok(());
        }
        if self.batch_bytes_max < BATCH_BYTES_MAX {
            return Err(TopicError::Refused {
                doing: format!("publish to topic `{}`", self.name),
                reason: format!(
                    "its `max.message.bytes` is {}, and falaj needs {BATCH_BYTES_MAX}",
                    self.batch_bytes_max
                ),
            });
        }
        let producer = self.producer().await?;
        let published = producer.publish(&self.name, letters).await;
        let gone = matches!(published, Err(TopicError::Deleted { .. }));
        if gone || producer.id(&self.name).is_some_and(|id| id != self.id) {
            self.check_identity().await?;
        }
        if gone {
            return Err(TopicError::Unavailable {
                doing: format!("publish to topic `{}`", self.name),
                reason: "a broker does not know it yet".into(),
            });
        }
        published
    }

    /// The producer to publish through: that of the lease, where one was asked for.
    async fn producer(&self) -> Result<Arc<Producer>, TopicError> {
        if let Some(leased) = self.shared.leased()? {
            return Ok(leased);
        }
        let mut producer = self.producer.lock().await;
        if let Some(held) = &*producer
            && !held.spent().await
        {
            return Ok(Arc::clone(held));
        }
        let (cluster, compression) = (Arc::clone(&self.shared.cluster), self.compression);
        let new = blocking(move || Producer::plain(&cluster, compression)).await?;
        let new = Arc::new(new);
        drop_elsewhere(producer.replace(Arc::clone(&new)));
        Ok(new)
    }

    /// First and end offsets, by asking.
    pub async fn ask_offsets(&self) -> Result<Vec<PartitionOffsets>, TopicError> {
        let starts = self.ask(Offset::Beginning).await?;
        let ends = self.ask(Offset::End).await?;
        Ok(starts
            .into_iter()
            .map(|(partition, start)| PartitionOffsets {
                partition,
                start,
                end: ends.get(&partition).copied().unwrap_or(start).max(start),
            })
            .collect())
    }

    /// One side of each partition. A partition that has no leader yet is waited for.
    async fn ask(&self, side: Offset) -> Result<BTreeMap<i32, i64>, TopicError> {
        let until = Instant::now() + CALL_WAIT;
        loop {
            let (shared, name, partitions) =
                (Arc::clone(&self.shared), self.name.clone(), self.partitions);
            let asked = blocking(move || Ok(offsets(&shared, &name, partitions, side))).await?;
            let error = match asked {
                Ok(sides) => return Ok(sides),
                Err(Asked::Unknown) => {
                    self.check_identity().await?;
                    TopicError::Unavailable {
                        doing: format!("give the offsets of topic `{}`", self.name),
                        reason: "a partition is not there yet".into(),
                    }
                }
                Err(Asked::Failed(error)) => error,
            };
            let passes = matches!(error, TopicError::Unavailable { .. });
            if !passes || Instant::now() >= until {
                return Err(error);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// A reader that stands at `from`, taken from those that are kept where one does.
    async fn reader(&self, from: &Positions) -> Result<Reader, TopicError> {
        let kept = {
            let mut readers = self.readers.lock();
            readers.retain(|reader| !reader.is_idle(READER_IDLE_MAX));
            if let Some(at) = readers.iter().position(|reader| reader.stands_at(from)) {
                return Ok(readers.remove(at));
            }
            (readers.len() >= READERS_MAX).then(|| readers.remove(0))
        };
        let mut ends = BTreeMap::new();
        for held in self.ask_offsets().await? {
            let (partition, wanted) = (held.partition, from.next(held.partition));
            if wanted < held.start {
                return Err(TopicError::Overtaken {
                    topic: self.name.clone(),
                    partition,
                    wanted,
                    start: held.start,
                });
            }
            if wanted > held.end {
                return Err(TopicError::BeyondEnd {
                    topic: self.name.clone(),
                    partition,
                    wanted,
                    end: held.end,
                });
            }
            ends.insert(partition, held.end);
        }
        let (shared, name, partitions, from) = (
            Arc::clone(&self.shared),
            self.name.clone(),
            self.partitions,
            from.clone(),
        );
        blocking(move || {
            let mut reader = match kept {
                Some(reader) => reader,
                None => Reader::open(&shared.cluster, &name, &group_of(&name), partitions)?,
            };
            reader.go_to(&from, &ends)?;
            Ok(reader)
        })
        .await
    }

    /// Reads on with `reader`; see [`Topic::fetch`].
    async fn read(
        &self,
        reader: &mut Kept<'_>,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Fetched>, TopicError> {
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        let mut look = Instant::now() + GAP_AFTER;
        // Once the wait is over: what must have been read before "nothing" is the answer.
        let mut owed: Option<(BTreeMap<i32, i64>, Instant)> = None;
        loop {
            match reader.get().take(bytes_max) {
                Ok(fetched) if fetched.is_empty() => {}
                Ok(fetched) => {
                    if reader.get().id().is_some_and(|id| id != self.id) {
                        self.check_identity().await?;
                    }
                    return Ok(fetched);
                }
                Err(stop) => return Err(self.stopped(reader, stop).await),
            }
            let now = Instant::now();
            let gaps = reader.get().may_have_gaps();
            if let Some((ends, until)) = &owed {
                if reader.get().has_up_to(ends) {
                    return Ok(Vec::new());
                }
                if now >= *until {
                    reader.discard();
                    return Err(self.shared.cluster.unreachable("no records came"));
                }
            } else if now >= deadline {
                // Who waits learns from the brokers that there is nothing; who does not, asks.
                if !wait.is_zero() && reader.get().has_all() && !gaps {
                    self.check_cut_off(reader).await?;
                    return Ok(Vec::new());
                }
                let ends = self.ask(Offset::End).await?;
                reader.learn(&ends).await?;
                owed = Some((ends, Instant::now() + CALL_WAIT));
                look = Instant::now() + GAP_AFTER;
                continue;
            }
            if gaps && now >= look {
                let ends = self.ask(Offset::End).await?;
                reader.learn(&ends).await?;
                look = Instant::now() + GAP_AFTER;
                continue;
            }
            let until = owed.as_ref().map_or(deadline, |(_, until)| *until);
            reader
                .get()
                .wait(if gaps { until.min(look) } else { until })
                .await;
        }
    }

    /// Whether the cluster still answers, where a connection failed and nothing came since.
    async fn check_cut_off(&self, reader: &mut Kept<'_>) -> Result<(), TopicError> {
        if reader.get().is_cut_off(PATIENCE) {
            self.check_identity().await?;
            reader.get().hear();
        }
        Ok(())
    }

    /// What made a reader stop.
    async fn stopped(&self, reader: &mut Kept<'_>, stop: Stop) -> TopicError {
        let from = reader.discard();
        match stop {
            Stop::Failed(error) => error,
            Stop::Unknown => match self.check_identity().await {
                Ok(()) => TopicError::Unavailable {
                    doing: format!("read topic `{}`", self.name),
                    reason: "a partition has no leader".into(),
                },
                Err(error) => error,
            },
            Stop::Outside => {
                if let Err(error) = self.check_identity().await {
                    return error;
                }
                match self.reader(&from).await {
                    Err(error) => error,
                    // It is inside again, as after a leader lost its end and got it back.
                    Ok(_) => TopicError::Unavailable {
                        doing: format!("read topic `{}`", self.name),
                        reason: "an offset is not there yet".into(),
                    },
                }
            }
        }
    }

    /// Reads all from `from` up to `to` in each partition that both name, and hands it over.
    pub async fn scan(
        &self,
        from: &BTreeMap<i32, i64>,
        to: &BTreeMap<i32, i64>,
        mut each: impl FnMut(&Fetched),
    ) -> Result<(), TopicError> {
        // The others stand at their ends, where nothing is.
        let mut positions = Positions(self.ask(Offset::End).await?);
        positions.0.extend(from);
        let open = |positions: &Positions| {
            to.iter()
                .any(|(partition, end)| positions.next(*partition) < *end)
        };
        while open(&positions) {
            let fetched = self.fetch(&positions, SCAN_BYTES, Duration::ZERO).await?;
            if fetched.is_empty() {
                break;
            }
            for part in fetched {
                positions.advance(part.partition, part.next);
                each(&part);
            }
        }
        Ok(())
    }

    /// The topic of rejects, made where it is not there and `make` says so.
    async fn rejects_topic(&self, make: bool) -> Result<Option<Arc<KafkaTopic>>, TopicError> {
        let name = rejects_topic(&self.name);
        match Shared::open(&self.shared, &name, self.compression).await {
            Err(TopicError::Missing { .. }) if make => {}
            Err(TopicError::Missing { .. }) => return Ok(None),
            found => return found.map(Some),
        }
        let rejects = rejects_config(&self.shared.config_of(&self.name));
        match self.shared.create(&rejects).await {
            Ok(()) | Err(TopicError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        Shared::open(&self.shared, &name, self.compression)
            .await
            .map(Some)
    }

    /// The rejects as they are now, looked through once.
    async fn known_rejects(&self) -> Result<Rejects, TopicError> {
        let topic = self.rejects_topic(true).await?;
        let topic = topic.ok_or_else(|| self.gone())?;
        let mut highest = BTreeMap::new();
        let held = topic.ask_offsets().await?;
        let starts = held.iter().map(|o| (o.partition, o.start)).collect();
        let ends = held.iter().map(|o| (o.partition, o.end)).collect();
        topic
            .scan(&starts, &ends, |fetched| {
                for message in &fetched.messages {
                    let src = message.src.as_deref().and_then(falaj_record::Src::parse);
                    if let Some((id, position)) = src {
                        let held = highest.entry(Arc::from(id)).or_insert(position);
                        *held = position.max(*held);
                    }
                }
            })
            .await?;
        Ok(Rejects { topic, highest })
    }
}

/// Why offsets could not be given.
enum Asked {
    Unknown,
    Failed(TopicError),
}

fn offsets(
    shared: &Shared,
    topic: &str,
    partitions: i32,
    side: Offset,
) -> Result<BTreeMap<i32, i64>, Asked> {
    let cluster = &shared.cluster;
    let mut list = TopicPartitionList::with_capacity(usize::try_from(partitions).unwrap_or(0));
    for partition in 0..partitions {
        // Kafka's protocol asks for a side as for a time; it is never out of range.
        let _ = list.add_partition_offset(topic, partition, side);
    }
    let doing = || format!("give the offsets of topic `{topic}`");
    let gone = |code: Code| {
        matches!(
            code,
            Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicId
        )
    };
    let told = cluster.probe().offsets_for_times(list, CALL_WAIT);
    let told = told.map_err(|error| match error.rdkafka_error_code() {
        Some(code) if gone(code) => Asked::Unknown,
        _ => Asked::Failed(cluster.error(&doing(), &error)),
    })?;
    let mut sides = BTreeMap::new();
    for element in told.elements() {
        if let Err(error) = element.error() {
            return Err(match error.rdkafka_error_code() {
                Some(code) if gone(code) => Asked::Unknown,
                _ => Asked::Failed(cluster.error(&doing(), &error)),
            });
        }
        let Offset::Offset(offset) = element.offset() else {
            return Err(Asked::Unknown);
        };
        sides.insert(element.partition(), offset);
    }
    Ok(sides)
}

/// A reader that goes back to those kept when a call ends, also where it is dropped.
struct Kept<'a> {
    topic: &'a KafkaTopic,
    reader: Option<Reader>,
    from: Positions,
}

impl Kept<'_> {
    fn get(&mut self) -> &mut Reader {
        self.reader.as_mut().expect("it is taken only at the end")
    }

    /// Drops it: it cannot go on. Gives where it was to read from.
    fn discard(&mut self) -> Positions {
        self.reader = None;
        self.from.clone()
    }

    async fn learn(&mut self, ends: &BTreeMap<i32, i64>) -> Result<(), TopicError> {
        let Some(mut reader) = self.reader.take() else {
            return Ok(());
        };
        let ends = ends.clone();
        let reader = blocking(move || {
            reader.learn(&ends);
            Ok(reader)
        });
        self.reader = Some(reader.await?);
        Ok(())
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if let Some(mut reader) = self.reader.take()
            && self.topic.check().is_ok()
        {
            reader.rest();
            self.topic.readers.lock().push(reader);
        }
    }
}

/// Closing talks to the brokers: not on a thread that others wait for.
fn drop_elsewhere<T: Send + 'static>(client: Option<T>) {
    if let Some(client) = client {
        std::thread::spawn(move || drop(client));
    }
}

#[async_trait]
impl Topic for KafkaTopic {
    async fn publish(&self, records: Cleared<Outbound>) -> Result<(), TopicError> {
        let Outbound { policy, messages } = records.into_inner();
        let letter = |message: falaj_record::Outgoing| Letter {
            partition: message.partition,
            part: Part {
                timestamp_ms: message.timestamp_ms,
                key: Some(message.key),
                value: message.value,
                policy: Some(policy.clone()),
                src: Some(message.src),
            },
        };
        self.letters_sent(messages.into_iter().map(letter).collect())
            .await
    }

    async fn fetch(
        &self,
        from: &Positions,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Fetched>, TopicError> {
        self.check()?;
        if let Some(partition) = from.0.keys().find(|p| !(0..self.partitions).contains(*p)) {
            return Err(TopicError::NoPartition {
                topic: self.name.clone(),
                partition: *partition,
            });
        }
        let mut reader = Kept {
            topic: self,
            reader: Some(self.reader(from).await?),
            from: from.clone(),
        };
        self.read(&mut reader, bytes_max, wait).await
    }

    async fn offsets(&self) -> Result<Vec<PartitionOffsets>, TopicError> {
        self.check()?;
        self.ask_offsets().await
    }

    async fn highest(&self, source: &str) -> Result<BTreeMap<i32, u64>, TopicError> {
        self.check()?;
        if let Some(producer) = self.shared.leased()? {
            producer.settle().await?;
        }
        let mut marks = self.marks.lock().await;
        marks.look(self, source).await
    }

    // By reading: offsets that hold no record are not told otherwise.
    async fn count(&self, from: &Positions) -> Result<u64, TopicError> {
        self.check()?;
        let (mut starts, mut ends) = (BTreeMap::new(), BTreeMap::new());
        for held in self.ask_offsets().await? {
            let next = from.next(held.partition).max(held.start);
            if next < held.end {
                starts.insert(held.partition, next);
                ends.insert(held.partition, held.end);
            }
        }
        let mut count = 0;
        self.scan(&starts, &ends, |fetched| {
            let end = ends.get(&fetched.partition).copied().unwrap_or(0);
            let within = fetched.messages.iter().filter(|m| m.offset < end);
            count += within.count() as u64;
        })
        .await?;
        Ok(count)
    }

    fn identity(&self) -> String {
        self.id.clone()
    }

    async fn commit(&self, group: &str, positions: &Positions) -> Result<(), TopicError> {
        self.check()?;
        let mut list = TopicPartitionList::with_capacity(positions.0.len());
        for (partition, next) in &positions.0 {
            // Positions are never out of range.
            let _ = list.add_partition_offset(&self.name, *partition, Offset::Offset(*next));
        }
        if list.count() == 0 {
            return Ok(());
        }
        let consumer = self.shared.committer(group).await?;
        let shared = Arc::clone(&self.shared);
        let doing = format!("commit positions to group `{group}`");
        let committed = blocking(move || {
            consumer
                .commit(&list, CommitMode::Sync)
                .map_err(|error| shared.cluster.error(&doing, &error))
        });
        match tokio::time::timeout(CALL_WAIT, committed).await {
            Ok(committed) => committed,
            Err(_) => Err(self.shared.cluster.unreachable("no positions were taken")),
        }
    }

    async fn reject(&self, rejects: &[Reject]) -> Result<u64, TopicError> {
        if rejects.is_empty() {
            return Ok(0);
        }
        self.check()?;
        let mut known = self.rejecting.lock().await;
        let mut held = match known.take() {
            Some(held) if held.topic.check().is_ok() => held,
            _ => Box::pin(self.known_rejects()).await?,
        };
        let mut letters = Vec::with_capacity(rejects.len());
        for reject in rejects {
            let mark = mark(reject);
            if held
                .highest
                .get(&mark.id)
                .is_none_or(|held| mark.position > *held)
            {
                letters.push(Letter {
                    partition: 0,
                    part: part(reject, &mark),
                });
                held.highest.insert(mark.id, mark.position);
            }
        }
        let count = letters.len() as u64;
        // Where this fails, `known` stays empty: what is there is looked through again.
        held.topic.letters_sent(letters).await?;
        *known = Some(held);
        Ok(count)
    }

    async fn rejects(&self, from: i64, count_max: usize) -> Result<Vec<(i64, Reject)>, TopicError> {
        self.check()?;
        let Some(topic) = self.rejects_topic(false).await? else {
            return Ok(Vec::new());
        };
        let start = topic
            .ask(Offset::Beginning)
            .await?
            .get(&0)
            .copied()
            .unwrap_or(0);
        let mut positions = Positions::default();
        positions.advance(0, from.max(start));
        let (mut rejects, mut piece) = (Vec::new(), 0);
        // Who lists on from the last one goes on with the same reader, so nothing is read that is
        // not given: that would be fetched again.
        while rejects.is_empty() || rejects.len() + piece <= count_max {
            let fetched = match topic.fetch(&positions, LIST_BYTES, Duration::ZERO).await {
                // Listed from beyond the end there is nothing.
                Err(TopicError::BeyondEnd { .. }) => break,
                fetched => fetched?,
            };
            if fetched.is_empty() {
                break;
            }
            piece = fetched.iter().map(|part| part.messages.len()).sum();
            for part in fetched {
                positions.advance(part.partition, part.next);
                for message in part.messages {
                    let value = message.value.unwrap_or_else(Bytes::new);
                    match serde_json::from_slice(&value) {
                        Ok(reject) if rejects.len() < count_max => {
                            rejects.push((message.offset, reject));
                        }
                        Ok(_) => break,
                        Err(_) => warn!(
                            topic = topic.name,
                            offset = message.offset,
                            "a record is no reject; another client wrote it"
                        ),
                    }
                }
            }
        }
        Ok(rejects)
    }
}
