//! Committed offsets: where each consumer group goes on.
//!
//! They lie in the log itself, in the compacted topic `__consumer_offsets` of one partition, in
//! Kafka's own format (key version 1, value version 3), so that other tools can read them.
//!
//! Always: a commit is answered when it is on the disk, and what was answered survives a kill.
//! Always: memory and log see changes in the same order.
//! Absent on purpose: members of groups (Kafka keeps them in the same topic); records of other
//! versions than these are passed over.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use falaj_log::{
    Batches, Cleanup, Durability, HEAD_BYTES, Head, Log, LogError, Record, Records, Settings, Topic,
};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{self, Compression, RecordBatchEncoder, RecordEncodeOptions};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::warn;

/// The topic that holds committed offsets, by the name every Kafka tool knows.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

const KEY_VERSION: i16 = 1;
const VALUE_VERSION: i16 = 3;

/// Longest remark that may be committed with an offset, as in Kafka.
pub(crate) const METADATA_BYTES_MAX: usize = 4096;

/// Longest name of a group.
pub(crate) const GROUP_BYTES_MAX: usize = 1024;

/// Records of a batch: with the longest texts they stay below the largest batch that is taken.
const BATCH_RECORDS_MAX: usize = 128;
const _: () = assert!(BATCH_RECORDS_MAX * (METADATA_BYTES_MAX + GROUP_BYTES_MAX + 512) < 1 << 20);

const READ_BYTES: usize = 1 << 20;
const SEGMENT_BYTES: u64 = 16 << 20;

/// Where a group goes on in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    /// The client's own remark.
    pub metadata: String,
    /// When it was committed, in milliseconds since 1970.
    pub at_ms: i64,
}

/// Topic and partition.
pub(crate) type Place = (String, i32);

/// A new offset, or none any more.
pub(crate) type Change = (Place, Option<Committed>);

/// Committed offsets of all groups.
pub(crate) struct Offsets {
    topic: Arc<Topic>,
    /// Held over an append and its place in memory, so that both are in the same order.
    appending: Mutex<()>,
    groups: Mutex<BTreeMap<String, BTreeMap<Place, Committed>>>,
}

/// Tells when a change is on the disk.
pub(crate) type Durable = oneshot::Receiver<Result<(), LogError>>;

impl Offsets {
    /// Opens them, and makes their topic where it is not there.
    pub fn open(log: &Log, durability: Durability) -> Result<Self, LogError> {
        let settings = Settings {
            retention_ms: None,
            segment_bytes: SEGMENT_BYTES,
            durability,
            cleanup: Cleanup::Compact,
            ..Settings::default()
        };
        let topic = match log.topic(OFFSETS_TOPIC) {
            Some(topic) => topic,
            None => log.create(OFFSETS_TOPIC, 1, settings)?,
        };
        let offsets = Self {
            topic,
            appending: Mutex::new(()),
            groups: Mutex::default(),
        };
        offsets.load()?;
        Ok(offsets)
    }

    /// Identity of the topic they are in.
    pub fn id(&self) -> uuid::Uuid {
        self.topic.id()
    }

    fn load(&self) -> Result<(), LogError> {
        let Some(partition) = self.topic.partition(0) else {
            return Err(LogError::NoTopic(OFFSETS_TOPIC.into()));
        };
        let mut groups = self.groups.lock();
        let mut next = partition.offsets().start;
        loop {
            let batches = partition.read(next, READ_BYTES)?.batches;
            if batches.is_empty() {
                return Ok(());
            }
            let mut at = 0;
            while let Some(head) = Head::parse(&batches[at..]) {
                let payload = &batches[at + HEAD_BYTES..at + head.bytes];
                for record in Records::new(&head, payload) {
                    let change = record.ok().as_ref().and_then(parsed);
                    if let Some((group, change)) = change {
                        apply(&mut groups, &group, [change]);
                    } else {
                        warn!(
                            offset = head.base,
                            "committed offset passed over: not of a known version"
                        );
                    }
                }
                next = head.next();
                at += head.bytes;
            }
        }
    }

    /// Changes offsets of `group`: all of them or, after a crash, none. Does file work.
    pub fn change(
        &self,
        group: &str,
        changes: Vec<Change>,
        now_ms: i64,
    ) -> Result<Durable, LogError> {
        let (tell, told) = oneshot::channel();
        if changes.is_empty() {
            // Nothing to wait for.
            let _ = tell.send(Ok(()));
            return Ok(told);
        }
        let partition = self
            .topic
            .partition(0)
            .ok_or_else(|| LogError::NoTopic(OFFSETS_TOPIC.into()))?;
        let batches = Batches::encoded_here(encoded(group, &changes, now_ms)?)?;
        let _appending = self.appending.lock();
        partition.append_then(
            batches,
            Box::new(move |durable| {
                // Who waited may be gone.
                let _ = tell.send(durable);
            }),
        )?;
        apply(&mut self.groups.lock(), group, changes);
        Ok(told)
    }

    /// Offsets of `group`.
    pub fn of(&self, group: &str) -> BTreeMap<Place, Committed> {
        self.groups.lock().get(group).cloned().unwrap_or_default()
    }

    /// Whether `group` has committed anything.
    pub fn knows(&self, group: &str) -> bool {
        self.groups.lock().contains_key(group)
    }

    /// All groups that have committed something.
    pub fn groups(&self) -> Vec<String> {
        self.groups.lock().keys().cloned().collect()
    }

    /// How many groups have.
    pub fn count(&self) -> usize {
        self.groups.lock().len()
    }

    /// Removals of all offsets that `gone` names, by group.
    pub fn removals(
        &self,
        gone: impl Fn(&str, &Place, &Committed) -> bool,
    ) -> Vec<(String, Vec<Change>)> {
        let groups = self.groups.lock();
        let removals = groups.iter().map(|(group, offsets)| {
            let places = offsets.iter().filter(|(place, c)| gone(group, place, c));
            let places: Vec<Change> = places.map(|(place, _)| (place.clone(), None)).collect();
            (group.clone(), places)
        });
        removals.filter(|(_, places)| !places.is_empty()).collect()
    }
}

fn apply(
    groups: &mut BTreeMap<String, BTreeMap<Place, Committed>>,
    group: &str,
    changes: impl IntoIterator<Item = Change>,
) {
    let offsets = groups.entry(group.to_owned()).or_default();
    for (place, committed) in changes {
        match committed {
            Some(committed) => offsets.insert(place, committed),
            None => offsets.remove(&place),
        };
    }
    if offsets.is_empty() {
        groups.remove(group);
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    // Longer texts than a length has room for are refused where they come in.
    let length = i16::try_from(text.len()).unwrap_or(i16::MAX);
    out.put_i16(length);
    out.put_slice(&text.as_bytes()[..usize::from(length.unsigned_abs())]);
}

fn take_text(from: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(from.try_get_i16().ok()?).ok()?;
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn encoded(group: &str, changes: &[Change], now_ms: i64) -> Result<BytesMut, LogError> {
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    let mut out = BytesMut::new();
    for chunk in changes.chunks(BATCH_RECORDS_MAX) {
        let rows: Vec<records::Record> = (0_i32..)
            .zip(chunk)
            .map(|(sequence, ((topic, partition), committed))| {
                let mut key = BytesMut::new();
                key.put_i16(KEY_VERSION);
                put_text(&mut key, group);
                put_text(&mut key, topic);
                key.put_i32(*partition);
                records::Record {
                    transactional: false,
                    control: false,
                    delete_horizon: false,
                    partition_leader_epoch: 0,
                    producer_id: records::NO_PRODUCER_ID,
                    producer_epoch: records::NO_PRODUCER_EPOCH,
                    timestamp_type: records::TimestampType::Creation,
                    offset: i64::from(sequence),
                    // The encoder takes those for one batch whose sequences count up with offsets.
                    sequence: records::NO_SEQUENCE + sequence,
                    timestamp: now_ms,
                    key: Some(key.freeze()),
                    value: committed.as_ref().map(value),
                    headers: IndexMap::new(),
                }
            })
            .collect();
        RecordBatchEncoder::encode(&mut out, &rows, &options).map_err(|_| LogError::Refused {
            reason: "committed offsets do not fit a batch",
        })?;
    }
    Ok(out)
}

fn value(committed: &Committed) -> Bytes {
    let mut value = BytesMut::new();
    value.put_i16(VALUE_VERSION);
    value.put_i64(committed.offset);
    value.put_i32(committed.leader_epoch);
    put_text(&mut value, &committed.metadata);
    value.put_i64(committed.at_ms);
    value.freeze()
}

/// Group and change of a record; `None` where it is none of ours.
fn parsed(record: &Record<'_>) -> Option<(String, Change)> {
    let mut key = record.key?;
    if key.try_get_i16().ok()? != KEY_VERSION {
        return None;
    }
    let group = take_text(&mut key)?;
    let place = (take_text(&mut key)?, key.try_get_i32().ok()?);
    let Some(mut value) = record.value else {
        return Some((group, (place, None)));
    };
    if value.try_get_i16().ok()? != VALUE_VERSION {
        return None;
    }
    let committed = Committed {
        offset: value.try_get_i64().ok()?,
        leader_epoch: value.try_get_i32().ok()?,
        metadata: take_text(&mut value)?,
        at_ms: value.try_get_i64().ok()?,
    };
    Some((group, (place, Some(committed))))
}
