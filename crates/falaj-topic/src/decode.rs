//! Kafka record batches into messages.
//!
//! Uncompressed batches (all that falaj writes) are read in place by `falaj-log`: key, value and the
//! two headers are slices of what was read from the file. The codec of `kafka-protocol` costs
//! several times as much, since it makes a map of headers for every record; it serves here to
//! decompress, and in tests as the measure.

use bytes::Bytes;
use falaj_log::{HEAD_BYTES, Head, Records, Slice};
use falaj_record::{Fetched, Message};
use kafka_protocol::compression::{Decompressor, Gzip, Lz4, Snappy, Zstd};

use crate::TopicError;
use crate::encode::{POLICY_HEADER, SRC_HEADER};

/// No record takes less: a length, attributes, two deltas, two lengths, a count. (Compressed ones
/// may, and are then a reason to grow.)
const RECORD_BYTES_MIN: usize = 7;

/// The messages of `slice` from offset `from` on.
pub(crate) fn decode(
    topic: &str,
    partition: i32,
    from: i64,
    slice: &Slice,
) -> Result<Fetched, TopicError> {
    let mut messages = Vec::with_capacity(announced(&slice.batches));
    let mut rest = slice.batches.clone();
    let mut next = from;
    while let Some(head) = Head::parse(&rest) {
        let batch = rest.split_to(head.bytes.min(rest.len()));
        next = head.next();
        if head.control() {
            continue;
        }
        take(&head, &batch, from, &mut messages).ok_or_else(|| TopicError::Malformed {
            topic: topic.to_owned(),
            partition,
            offset: head.base,
        })?;
    }
    Ok(Fetched {
        partition,
        messages,
        next,
        end: slice.end,
    })
}

/// How many records the heads announce.
fn announced(mut batches: &[u8]) -> usize {
    let mut records = 0;
    while let Some(head) = Head::parse(batches) {
        let bytes = head.bytes.min(batches.len());
        let count = usize::try_from(head.count).unwrap_or(0);
        records += count.min(bytes / RECORD_BYTES_MIN);
        batches = &batches[bytes..];
    }
    records
}

/// Adds the messages of one batch; `None` where it is malformed.
fn take(head: &Head, batch: &Bytes, from: i64, messages: &mut Vec<Message>) -> Option<()> {
    let payload = payload(head, batch.slice(HEAD_BYTES.min(batch.len())..))?;
    for record in Records::new(head, &payload) {
        let record = record.ok()?;
        if record.offset < from {
            continue;
        }
        let (mut policy, mut src) = (None, None);
        for (name, value) in record.headers {
            if name == POLICY_HEADER.as_bytes() {
                policy = value;
            } else if name == SRC_HEADER.as_bytes() {
                src = value;
            }
        }
        let own = |part: Option<&[u8]>| part.map(|part| payload.slice_ref(part));
        messages.push(Message {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: own(record.key),
            value: own(record.value),
            policy: own(policy),
            src: own(src),
        });
    }
    Some(())
}

fn payload(head: &Head, mut packed: Bytes) -> Option<Bytes> {
    let whole = |buffer: &mut Bytes| Ok(buffer.clone());
    match head.compression() {
        0 => Some(packed),
        1 => Gzip::decompress(&mut packed, whole).ok(),
        2 => Snappy::decompress(&mut packed, whole).ok(),
        3 => Lz4::decompress(&mut packed, whole).ok(),
        4 => Zstd::decompress(&mut packed, whole).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::records::{
        Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
        TimestampType,
    };

    use super::*;

    /// Numbers that look random (xorshift), so that a failure can be repeated.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }

        fn bytes(&mut self, n: u64) -> Option<Bytes> {
            let length = self.below(n);
            let text = (0..length)
                .map(|_| u8::try_from(self.below(256)).unwrap())
                .collect();
            (self.below(6) > 0).then_some(text)
        }
    }

    fn random_records(dice: &mut Dice) -> Vec<Record> {
        let count = 1 + dice.below(40);
        (0..i32::try_from(count).unwrap())
            .map(|n| Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 0,
                producer_id: -1,
                producer_epoch: -1,
                timestamp_type: TimestampType::Creation,
                offset: i64::from(n),
                sequence: n - 1,
                timestamp: 1_767_225_600_000 + i64::try_from(dice.below(1 << 40)).unwrap(),
                key: dice.bytes(40),
                value: dice.bytes(400),
                headers: ["falaj.policy", "other", "falaj.src", "falaj.srcs"]
                    .into_iter()
                    .filter(|_| dice.below(3) > 0)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .map(|name| (name.into(), dice.bytes(30)))
                    .collect(),
            })
            .collect()
    }

    #[test]
    fn it_reads_what_the_kafka_codec_reads_compressed_or_not() {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
        for round in 0..400 {
            let compression = [
                Compression::None,
                Compression::Gzip,
                Compression::Snappy,
                Compression::Lz4,
                Compression::Zstd,
            ][round % 5];
            let mut bytes = BytesMut::new();
            for _ in 0..=dice.below(3) {
                let options = RecordEncodeOptions {
                    version: 2,
                    compression,
                };
                RecordBatchEncoder::encode(&mut bytes, &random_records(&mut dice), &options)
                    .unwrap();
            }
            let bytes = bytes.freeze();
            let slice = Slice {
                batches: bytes.clone(),
                start: 0,
                end: 1000,
            };
            let ours = decode("t", 3, 0, &slice).unwrap();
            let theirs: Vec<_> = RecordBatchDecoder::decode_all(&mut bytes.clone())
                .unwrap()
                .into_iter()
                .flat_map(|set| set.records)
                .collect();
            assert_eq!(ours.messages.len(), theirs.len());
            for (ours, theirs) in ours.messages.iter().zip(&theirs) {
                let header = |name: &str| theirs.headers.get(name.as_bytes()).cloned().flatten();
                assert_eq!(
                    (ours.offset, ours.timestamp_ms, &ours.key, &ours.value),
                    (theirs.offset, theirs.timestamp, &theirs.key, &theirs.value)
                );
                assert_eq!(ours.policy, header("falaj.policy"));
                assert_eq!(ours.src, header("falaj.src"));
            }
            let last = theirs.last().unwrap().offset;
            assert_eq!((ours.next, ours.end, ours.partition), (last + 1, 1000, 3));
            // From the middle of the last batch.
            let rest = decode("t", 3, last, &slice).unwrap();
            assert!(rest.messages.iter().all(|m| m.offset >= last) && !rest.messages.is_empty());
        }
    }

    #[test]
    fn damaged_batches_are_errors_and_never_panics() {
        let mut dice = Dice(7);
        for compression in [Compression::None, Compression::Snappy, Compression::Zstd] {
            let mut bytes = BytesMut::new();
            let options = RecordEncodeOptions {
                version: 2,
                compression,
            };
            RecordBatchEncoder::encode(&mut bytes, &random_records(&mut dice), &options).unwrap();
            for _ in 0..2000 {
                let mut bytes = bytes.clone();
                let at = usize::try_from(61 + dice.below(bytes.len() as u64 - 61)).unwrap();
                bytes[at] ^= u8::try_from(1 + dice.below(255)).unwrap();
                let slice = Slice {
                    batches: bytes.freeze(),
                    start: 0,
                    end: 0,
                };
                match decode("t", 0, 0, &slice) {
                    Ok(read) => assert!(read.messages.len() <= 40),
                    Err(error) => assert!(matches!(error, TopicError::Malformed { offset: 0, .. })),
                }
            }
        }
    }
}
