//! Fetch: batches out of the log, as they lie.
//!
//! Always: many batches are not read here, but piece by piece when they are written.
//! Always: who waits for records is woken by them, not by a clock.
//! Always: a reply holds at most what was asked for, but for a first batch that is larger.
//! Absent on purpose: fetch sessions (each request names all its partitions) and followers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use falaj_log::{Head, Located, Stored, Topic};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ResponseKind, TopicName};
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use crate::broker::{Answer, Broker, Crashed, kafka_error, known_partition, millis};
use crate::budget::{Paid, SMALL_BYTES};
use crate::send::PIECE_BYTES;

/// Where more is asked for than there is, and some of it came, it is looked at again after this.
const GATHER: Duration = Duration::from_millis(5);

/// What a request asks for in one topic.
#[derive(Clone)]
struct Wanted {
    name: TopicName,
    topic: Option<Arc<Topic>>,
    partitions: Vec<Wish>,
}

#[derive(Clone, Copy)]
struct Wish {
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    bytes_max: usize,
}

/// What one look at the log gave.
struct Look {
    topics: Vec<FetchableTopicResponse>,
    /// For each partition, in their order: where its records lie, unless they are in `topics`.
    stored: Vec<Option<Stored>>,
    bytes: usize,
    failed: bool,
}

impl Broker {
    /// Answers with records once there are enough, or time is up.
    pub async fn fetch(self: &Arc<Self>, q: FetchRequest) -> Result<Answer, Crashed> {
        if q.session_id != 0 || q.session_epoch > 0 {
            // Nobody was given a session here; the client goes on without.
            let reply = FetchResponse::default()
                .with_error_code(ResponseError::FetchSessionIdNotFound.code());
            return Ok(ResponseKind::Fetch(reply).into());
        }
        let wait = millis(q.max_wait_ms).min(self.options.limits.idle);
        let until = Instant::now() + wait;
        let enough = usize::try_from(q.min_bytes).unwrap_or(0);
        let bytes_max = usize::try_from(q.max_bytes)
            .unwrap_or(0)
            .clamp(1, self.options.limits.fetch_bytes);
        let committed_only = q.isolation_level == 1;
        loop {
            // First listen, then look: what comes in between is heard. A topic may be another one, or
            // gone, each time.
            let wanted = self.wanted(&q);
            let mut advances = self.advances(&wanted);
            let now = Instant::now() >= until || self.stop.is_cancelled();
            if now || enough == 0 || wanted.iter().any(Wanted::due) {
                let (held, bytes_max) = self.reserve(&wanted, bytes_max);
                let look = {
                    let wanted = wanted.clone();
                    self.on_disk(move |_| look(&wanted, bytes_max, committed_only))
                        .await?
                };
                let done = look.failed || look.bytes >= enough.min(bytes_max);
                if now || done || wanted.is_empty() {
                    return Ok(answer(look, held));
                }
                if look.bytes > 0 {
                    // Not enough yet: let it gather instead of reading it again at every record.
                    tokio::time::sleep(GATHER).await;
                }
            }
            tokio::select! {
                () = any(&mut advances) => {}
                () = tokio::time::sleep_until(until) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    fn wanted(&self, q: &FetchRequest) -> Vec<Wanted> {
        let topics = q.topics.iter().map(|t| {
            let partitions = t.partitions.iter().map(|p| Wish {
                partition: p.partition,
                offset: p.fetch_offset,
                leader_epoch: p.current_leader_epoch,
                bytes_max: usize::try_from(p.partition_max_bytes).unwrap_or(0),
            });
            Wanted {
                name: t.topic.clone(),
                topic: self.log.topic(&t.topic),
                partitions: partitions.collect(),
            }
        });
        topics.collect()
    }

    fn advances(&self, wanted: &[Wanted]) -> Vec<Pin<Box<OwnedNotified>>> {
        let topics = wanted.iter().filter_map(|w| w.topic.as_ref());
        let advances = topics.map(|topic| {
            let mut notified = Box::pin(self.watch(topic).notified_owned());
            notified.as_mut().enable();
            notified
        });
        advances.collect()
    }

    /// Room for a reply, and how large it may be. Where those who take their replies slowly hold all
    /// room, others go on in small steps.
    fn reserve(&self, wanted: &[Wanted], bytes_max: usize) -> (Option<Paid>, usize) {
        let possible: usize = wanted.iter().map(Wanted::bytes).sum();
        match self.replies.try_pay(possible.min(bytes_max)) {
            Some(paid) => (Some(paid), bytes_max),
            None => (None, bytes_max.min(SMALL_BYTES)),
        }
    }
}

impl Wanted {
    /// Whether looking at it gives something: records, or an error.
    fn due(&self) -> bool {
        self.partitions.iter().any(|wish| {
            known_partition(self.topic.as_deref(), wish.partition, wish.leader_epoch)
                .map_or(true, |partition| partition.offsets().end != wish.offset)
        })
    }

    /// The most bytes that looking at it can give, but for a batch that is larger.
    fn bytes(&self) -> usize {
        let partitions = self.partitions.iter().map(|wish| {
            known_partition(self.topic.as_deref(), wish.partition, wish.leader_epoch).map_or(
                0,
                |partition| {
                    let held = usize::try_from(partition.bytes()).unwrap_or(usize::MAX);
                    wish.bytes_max.min(held)
                },
            )
        });
        partitions.sum()
    }
}

fn look(wanted: &[Wanted], bytes_max: usize, committed_only: bool) -> Look {
    let mut look = Look {
        topics: Vec::with_capacity(wanted.len()),
        stored: Vec::new(),
        bytes: 0,
        failed: false,
    };
    for w in wanted {
        let mut partitions = Vec::with_capacity(w.partitions.len());
        for wish in &w.partitions {
            let left = bytes_max.saturating_sub(look.bytes);
            let (data, stored) = read(w.topic.as_deref(), wish, left, look.bytes == 0);
            look.failed |= data.error_code != 0;
            look.bytes += data.records.as_ref().map_or(0, Bytes::len);
            look.bytes += stored.as_ref().map_or(0, Stored::bytes);
            look.stored.push(stored);
            // There are no transactions, so there is none that was aborted.
            partitions.push(data.with_aborted_transactions(committed_only.then(Vec::new)));
        }
        look.topics.push(
            FetchableTopicResponse::default()
                .with_topic(w.name.clone())
                .with_partitions(partitions),
        );
    }
    look
}

/// Whole batches of a partition within `left` bytes; `first` gives one batch of any size. Many are
/// left where they lie.
fn read(
    topic: Option<&Topic>,
    wish: &Wish,
    left: usize,
    first: bool,
) -> (PartitionData, Option<Stored>) {
    let reply = PartitionData::default()
        .with_partition_index(wish.partition)
        .with_preferred_read_replica(BrokerId(-1));
    let failed = |error: ResponseError| {
        let failed = reply
            .clone()
            .with_error_code(error.code())
            .with_high_watermark(-1)
            .with_last_stable_offset(-1)
            .with_log_start_offset(-1)
            .with_records(Some(Bytes::new()));
        (failed, None)
    };
    let partition = match known_partition(topic, wish.partition, wish.leader_epoch) {
        Ok(partition) => partition,
        Err(error) => return failed(error),
    };
    let bytes_max = wish.bytes_max.min(left);
    let (range, records, stored) = if bytes_max == 0 && !first {
        let range = partition.offsets();
        let in_range = (range.start..=range.end).contains(&wish.offset);
        if !in_range {
            return failed(ResponseError::OffsetOutOfRange);
        }
        (range, Bytes::new(), None)
    } else {
        match partition.locate(wish.offset, bytes_max) {
            Ok(Located::Read(slice)) => {
                let records = within(slice.batches, bytes_max, first);
                (slice.start..slice.end, records, None)
            }
            Ok(Located::Stored {
                batches,
                start,
                end,
            }) => (start..end, Bytes::new(), Some(batches)),
            Err(error) => return failed(kafka_error(&error)),
        }
    };
    let reply = reply
        .with_high_watermark(range.end)
        .with_last_stable_offset(range.end)
        .with_log_start_offset(range.start)
        .with_records(Some(records));
    (reply, stored)
}

/// Those whole batches that fit; `first` takes the first one whatever its size.
fn within(batches: Bytes, bytes_max: usize, first: bool) -> Bytes {
    if batches.len() <= bytes_max {
        return batches;
    }
    let mut end = 0;
    while let Some(head) = Head::parse(&batches[end..]) {
        let next = end + head.bytes;
        if next > bytes_max && !(first && end == 0) {
            break;
        }
        end = next;
    }
    batches.slice(..end)
}

fn answer(look: Look, mut held: Option<Paid>) -> Answer {
    if let Some(held) = &mut held {
        let stored = look.stored.iter().flatten().map(Stored::bytes);
        let stored: usize = stored.sum();
        held.keep(look.bytes - stored + stored.min(2 * PIECE_BYTES));
    }
    let reply = FetchResponse::default().with_responses(look.topics);
    Answer {
        reply: ResponseKind::Fetch(reply),
        stored: look.stored,
        held,
    }
}

/// Ready when one of them is.
async fn any(advances: &mut [Pin<Box<OwnedNotified>>]) {
    std::future::poll_fn(|context| {
        let mut ready = advances.iter_mut().map(|a| a.as_mut().poll(context));
        if ready.any(|poll| poll.is_ready()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
