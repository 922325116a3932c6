//! Records into Kafka record batches, through the codec of `kafka-protocol`.

use bytes::{Bytes, BytesMut};
use falaj_log::Batches;
use indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use crate::TopicError;

/// The header with the policy that a record was cleared under.
pub(crate) const POLICY_HEADER: &str = "falaj.policy";
/// The header that says where a record came from.
pub(crate) const SRC_HEADER: &str = falaj_log::SRC_HEADER;

/// No batch is larger, unless a single record is: every Kafka client takes that much.
const BATCH_BYTES_MAX: usize = 1_000_000;
/// What a record takes beside its key, its value and its headers' values: lengths, deltas, names.
const RECORD_EXTRA_BYTES: usize = 80;

/// A record to be encoded.
pub(crate) struct Part {
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Bytes,
    pub policy: Option<Bytes>,
    pub src: Option<Bytes>,
}

impl Part {
    /// About what it takes in a batch.
    pub(crate) fn bytes(&self) -> usize {
        let length = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        self.value.len()
            + length(&self.key)
            + length(&self.policy)
            + length(&self.src)
            + RECORD_EXTRA_BYTES
    }
}

/// Batches of these records, in their order. There must be at least one.
pub(crate) fn encode(parts: Vec<Part>) -> Result<Batches, TopicError> {
    let total: usize = parts.iter().map(Part::bytes).sum();
    let mut out = BytesMut::with_capacity(total + 64);
    let mut batch = Vec::with_capacity(parts.len());
    let mut bytes = 0;
    for part in parts {
        let more = part.bytes();
        if i32::try_from(more).is_err() {
            return Err(TopicError::TooLarge { bytes: more });
        }
        if bytes + more > BATCH_BYTES_MAX && !batch.is_empty() {
            seal(&mut out, &mut batch)?;
            bytes = 0;
        }
        bytes += more;
        batch.push(record(batch.len(), part));
    }
    seal(&mut out, &mut batch)?;
    Ok(Batches::encoded_here(out)?)
}

fn seal(out: &mut BytesMut, batch: &mut Vec<Record>) -> Result<(), TopicError> {
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    // The codec refuses only what does not fit in 31 bits, and that was looked at before.
    RecordBatchEncoder::encode(out, batch.iter(), &options)
        .map_err(|_| TopicError::TooLarge { bytes: out.len() })?;
    batch.clear();
    Ok(())
}

fn record(index: usize, part: Part) -> Record {
    let offset = i64::try_from(index).unwrap_or(i64::MAX);
    let mut headers = IndexMap::with_capacity(2);
    if let Some(policy) = part.policy {
        headers.insert(StrBytes::from_static_str(POLICY_HEADER), Some(policy));
    }
    if let Some(src) = part.src {
        headers.insert(StrBytes::from_static_str(SRC_HEADER), Some(src));
    }
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset,
        // Counted up with the offset, so that the codec keeps them in one batch, from -1 ("no
        // sequence") on.
        sequence: i32::try_from(index).unwrap_or(i32::MAX).wrapping_sub(1),
        timestamp: part.timestamp_ms,
        key: part.key,
        value: Some(part.value),
        headers,
    }
}
