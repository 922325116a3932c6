//! Kafka record batches into messages.
//!
//! Uncompressed batches (all that falaj writes) are read in place by `falaj-log`: key, value and the
//! two headers are slices of what was read from the file. The codec of `kafka-protocol` costs
//! several times as much, since it makes a map of headers for every record; it serves in tests as
//! the measure.
//!
//! Always: what others wrote never stops a read. A batch that cannot be taken apart, or that unpacks
//! to more than `falaj-log` allows, gives none of its records and is told as [`Unreadable`].
//! Always: memory is bounded. Compressed batches count by what they unpack to, one call gives at most
//! [`MESSAGES_MAX`] messages, and the next one goes on from there, in the middle of a batch too.

use bytes::Bytes;
use falaj_log::{HEAD_BYTES, Head, Records, Slice, UnpackError};
use falaj_record::{Fetched, Message, Reason, Unreadable};

use crate::encode::{POLICY_HEADER, SRC_HEADER};

/// No record takes less: a length, attributes, two deltas, two lengths, a count. (Compressed ones
/// may, and are then a reason to grow.)
const RECORD_BYTES_MIN: usize = 7;
/// The most messages of one call: a small batch may unpack to millions of tiny ones.
const MESSAGES_MAX: usize = 1 << 17;

/// What one call made of a slice.
pub(crate) struct Decoded {
    pub fetched: Fetched,
    /// Bytes of the slice whose batches are done with.
    pub done: usize,
    /// Bytes that the batches took, unpacked.
    pub unpacked: usize,
}

/// The messages of `slice` from offset `from` on: of about `bytes_max` bytes of unpacked batches, and
/// of one at least.
pub(crate) fn decode(partition: i32, from: i64, slice: &Slice, bytes_max: usize) -> Decoded {
    let mut fetched = Fetched {
        partition,
        messages: Vec::with_capacity(announced(&slice.batches).min(MESSAGES_MAX)),
        unreadable: Vec::new(),
        next: from,
        end: slice.end,
    };
    let (mut done, mut unpacked) = (0, 0);
    while let Some(head) = Head::parse(&slice.batches[done..])
        && unpacked < bytes_max.max(1)
    {
        let end = slice.batches.len().min(done + head.bytes);
        let batch = slice.batches.slice(done..end);
        if !head.control() {
            match take(&head, &batch, from, &mut fetched.messages) {
                Ok(Taken { bytes, next: None }) => unpacked += bytes,
                Ok(Taken {
                    bytes,
                    next: Some(next),
                }) => {
                    (unpacked, fetched.next) = (unpacked + bytes, next);
                    break;
                }
                Err(reason) => {
                    unpacked += batch.len();
                    fetched.unreadable.push(Unreadable {
                        first: head.base,
                        next: head.next(),
                        reason,
                        length: batch.len() as u64,
                    });
                }
            }
        }
        (done, fetched.next) = (end, head.next());
    }
    Decoded {
        fetched,
        done,
        unpacked,
    }
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

/// What was taken of a batch.
struct Taken {
    /// Its bytes, unpacked.
    bytes: usize,
    /// Offset of the first record that there was no room for.
    next: Option<i64>,
}

/// Adds the messages of one batch, as far as there is room; none of them where it cannot be taken
/// apart. That is looked at to its end each time, so that every read decides the same.
fn take(
    head: &Head,
    batch: &Bytes,
    from: i64,
    messages: &mut Vec<Message>,
) -> Result<Taken, Reason> {
    let payload = head.unpack(&batch.slice(HEAD_BYTES.min(batch.len())..));
    let payload = payload.map_err(|error| match error {
        UnpackError::TooLarge => Reason::BatchTooLarge,
        UnpackError::Broken => Reason::BatchBroken,
    })?;
    let mut taken = Taken {
        bytes: payload.len(),
        next: None,
    };
    let (before, mut last) = (messages.len(), head.base - 1);
    for record in Records::new(head, &payload) {
        let Some(record) = record.ok().filter(|record| record.offset > last) else {
            messages.truncate(before);
            return Err(Reason::BatchBroken);
        };
        last = record.offset;
        if record.offset < from || taken.next.is_some() {
            continue;
        }
        if messages.len() == MESSAGES_MAX {
            taken.next = Some(record.offset);
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
    Ok(taken)
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
            let ours = decode(3, 0, &slice, usize::MAX).fetched;
            assert_eq!(ours.unreadable, []);
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
            let rest = decode(3, last, &slice, usize::MAX).fetched;
            assert!(rest.messages.iter().all(|m| m.offset >= last) && !rest.messages.is_empty());
        }
    }

    #[test]
    fn damaged_batches_are_told_and_never_panics() {
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
                let read = decode(0, 0, &slice, usize::MAX).fetched;
                assert!(read.messages.len() <= 40);
                if let Some(batch) = read.unreadable.first() {
                    assert!(read.messages.is_empty(), "all of a batch or nothing");
                    assert_eq!((batch.first, batch.next), (0, read.next));
                    assert_eq!(batch.length, slice.batches.len() as u64);
                }
            }
        }
    }

    fn packed(values: &[Bytes], compression: Compression) -> BytesMut {
        let mut dice = Dice(11);
        let record = random_records(&mut dice).swap_remove(0);
        let records: Vec<Record> = (0_i32..)
            .zip(values)
            .map(|(n, value)| Record {
                offset: n.into(),
                sequence: n - 1,
                key: None,
                value: Some(value.clone()),
                headers: indexmap::IndexMap::new(),
                ..record.clone()
            })
            .collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions {
            version: 2,
            compression,
        };
        RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
        bytes
    }

    /// The batches one after the other, as a log places them.
    fn placed(batches: impl IntoIterator<Item = BytesMut>) -> Slice {
        let (mut all, mut next) = (BytesMut::new(), 0_i64);
        for mut batch in batches {
            batch[..8].copy_from_slice(&next.to_be_bytes());
            next = Head::parse(&batch).unwrap().next();
            all.extend_from_slice(&batch);
        }
        Slice {
            batches: all.freeze(),
            start: 0,
            end: next,
        }
    }

    /// Reads a slice to its end in calls of `bytes_max`, each going on where the one before stopped.
    fn read_to_end(slice: &Slice, bytes_max: usize, mut each: impl FnMut(&Decoded)) -> Vec<i64> {
        let (mut offsets, mut next, mut rest) = (Vec::new(), 0, slice.clone());
        while next < slice.end {
            let decoded = decode(0, next, &rest, bytes_max);
            assert!(decoded.fetched.next > next, "it stays at {next}");
            each(&decoded);
            offsets.extend(decoded.fetched.messages.iter().map(|m| m.offset));
            next = decoded.fetched.next;
            rest.batches = rest.batches.slice(decoded.done..);
        }
        assert!(rest.batches.is_empty());
        offsets
    }

    const COMPRESSIONS: [Compression; 4] = [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    #[test]
    fn a_bomb_is_told_with_its_place_and_what_stands_around_it_is_read() {
        let some = || packed(&[Bytes::from_static(b"small")], Compression::Lz4);
        let huge = Bytes::from(vec![0; falaj_log::UNPACKED_BYTES_MAX]);
        for compression in COMPRESSIONS {
            // The value fits, and with what belongs to a record it does not.
            let bomb = packed(&[Bytes::from_static(b"a"), huge.clone()], compression);
            let length = bomb.len() as u64;
            let slice = placed([some(), bomb, some()]);
            let read = decode(0, 0, &slice, usize::MAX).fetched;
            let offsets: Vec<_> = read.messages.iter().map(|m| m.offset).collect();
            assert_eq!((offsets, read.next), (vec![0, 3], 4), "{compression:?}");
            let told = Unreadable {
                first: 1,
                next: 3,
                reason: Reason::BatchTooLarge,
                length,
            };
            assert_eq!(read.unreadable, [told], "{compression:?}");
        }
        // A block that claims to be huge, for those who make room before they look.
        let mut liar = packed(&[Bytes::from_static(b"a")], Compression::Snappy);
        liar.truncate(HEAD_BYTES);
        liar.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        let length = i32::try_from(liar.len() - 12).unwrap();
        liar[8..12].copy_from_slice(&length.to_be_bytes());
        let read = decode(0, 0, &placed([liar, some()]), usize::MAX).fetched;
        assert_eq!(read.unreadable[0].reason, Reason::BatchTooLarge);
        assert_eq!(read.messages.len(), 1);
    }

    #[test]
    fn one_call_takes_about_as_much_as_it_is_told_to_however_small_it_lies_there() {
        let value = Bytes::from(vec![0; 4 << 20]);
        for compression in COMPRESSIONS {
            let one = packed(std::slice::from_ref(&value), compression);
            let slice = placed((0..20).map(|_| one.clone()));
            let mut calls = 0;
            let offsets = read_to_end(&slice, 10 << 20, |decoded| {
                calls += 1;
                assert!(decoded.unpacked < 15 << 20, "{compression:?}");
            });
            assert_eq!((offsets, calls), ((0..20).collect(), 7), "{compression:?}");
        }
    }

    #[test]
    fn a_batch_of_very_many_records_is_read_in_several_calls() {
        let count = 2 * MESSAGES_MAX + MESSAGES_MAX / 2;
        let tiny = packed(&vec![Bytes::new(); count], Compression::Zstd);
        let some = packed(&[Bytes::from_static(b"small")], Compression::None);
        let slice = placed([some.clone(), tiny, some]);
        let offsets = read_to_end(&slice, usize::MAX, |decoded| {
            assert!(decoded.fetched.messages.len() <= MESSAGES_MAX);
        });
        assert!(offsets.iter().copied().eq(0..slice.end));
    }

    #[test]
    fn a_batch_whose_offsets_do_not_grow_is_broken() {
        let record = |delta: u8| [12, 0, 0, delta * 2, 1, 1, 0];
        for (deltas, whole) in [([0, 1], true), ([1, 0], false), ([1, 1], false)] {
            let mut batch = packed(&[Bytes::new(), Bytes::new()], Compression::None);
            batch.truncate(HEAD_BYTES);
            batch.extend(deltas.into_iter().flat_map(record));
            let length = i32::try_from(batch.len() - 12).unwrap();
            batch[8..12].copy_from_slice(&length.to_be_bytes());
            let read = decode(0, 0, &placed([batch]), usize::MAX).fetched;
            assert_eq!(read.messages.len() == 2, whole, "{deltas:?}");
            let reasons: Vec<_> = read.unreadable.iter().map(|b| b.reason).collect();
            assert_eq!(reasons.is_empty(), whole);
            assert!(reasons.iter().all(|r| *r == Reason::BatchBroken));
        }
    }
}
