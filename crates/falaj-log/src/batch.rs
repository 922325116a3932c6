//! Heads of record batches, and batches that were checked before the log takes them.

use bytes::{Bytes, BytesMut};

use crate::codec::Unpacker;
use crate::{LogError, Record, Records};

/// Length of a batch's head; the records follow it.
pub const HEAD_BYTES: usize = 61;

/// From here on the checksum covers a batch: base offset, length and leader epoch stand before it,
/// so a broker can set them without computing it again.
const CHECKED_FROM: usize = 21;

const COMPRESSION: i16 = 7;
/// The timestamps are the log's, all equal to the batch's newest.
const APPEND_TIME: i16 = 8;
const TRANSACTIONAL: i16 = 16;
const CONTROL: i16 = 32;
/// The first timestamp is when the batch's tombstones may go (KIP-534); a cleaner sets it.
const HORIZON: i16 = 64;

/// The head of a record batch, format v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Offset of the first record.
    pub base: i64,
    /// Length of the whole batch, head included.
    pub bytes: usize,
    /// Compression, timestamp type, transactional, control.
    pub attributes: i16,
    /// Offset of the last record, counted from `base`.
    pub last_delta: i32,
    /// Timestamp that the records' timestamps are counted from.
    pub first_ms: i64,
    /// Newest timestamp in the batch.
    pub newest_ms: i64,
    /// The idempotent producer that sent it; -1 for any other.
    pub producer_id: i64,
    /// Which life of that producer.
    pub producer_epoch: i16,
    /// Sequence of the first record; -1 without an idempotent producer.
    pub base_sequence: i32,
    /// How many records. A cleaned batch may hold fewer than `last_delta` tells of.
    pub count: i32,
    crc: u32,
}

impl Head {
    /// The head at the start of `bytes`; `None` where there is none of format v2.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD_BYTES>()?;
        let length = usize::try_from(i32::from_be_bytes(part(head, 8))).ok()?;
        let parsed = Self {
            base: i64::from_be_bytes(part(head, 0)),
            bytes: length + 12,
            crc: u32::from_be_bytes(part(head, 17)),
            attributes: i16::from_be_bytes(part(head, 21)),
            last_delta: i32::from_be_bytes(part(head, 23)),
            first_ms: i64::from_be_bytes(part(head, 27)),
            newest_ms: i64::from_be_bytes(part(head, 35)),
            producer_id: i64::from_be_bytes(part(head, 43)),
            producer_epoch: i16::from_be_bytes(part(head, 51)),
            base_sequence: i32::from_be_bytes(part(head, 53)),
            count: i32::from_be_bytes(part(head, 57)),
        };
        (head[16] == 2
            && parsed.bytes >= HEAD_BYTES
            && (0..=i64::MAX / 2).contains(&parsed.base)
            && parsed.last_delta >= 0
            && parsed.count >= 0)
            .then_some(parsed)
    }

    /// The first offset after this batch.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.base + i64::from(self.last_delta) + 1
    }

    /// Number of the compression codec, 0 for none.
    #[must_use]
    pub fn compression(&self) -> i16 {
        self.attributes & COMPRESSION
    }

    /// Sequence of the last record, for a batch of an idempotent producer: after [`i32::MAX`]
    /// comes 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + i64::from(self.last_delta);
        let wrapped = last.rem_euclid(i64::from(i32::MAX) + 1);
        i32::try_from(wrapped).unwrap_or(i32::MAX)
    }

    /// Whether its timestamps are the log's: all records have [`Head::newest_ms`].
    #[must_use]
    pub fn append_time(&self) -> bool {
        self.attributes & APPEND_TIME != 0
    }

    /// When its tombstones may go, in milliseconds since 1970: known once it was cleaned.
    #[must_use]
    pub fn horizon_ms(&self) -> Option<i64> {
        (self.attributes & HORIZON != 0).then_some(self.first_ms)
    }

    /// Its attributes with or without a time for its tombstones.
    pub(crate) fn with_horizon(&self, horizon: bool) -> i16 {
        if horizon {
            self.attributes | HORIZON
        } else {
            self.attributes & !HORIZON
        }
    }

    /// Whether it holds a transaction marker and no records of anybody.
    #[must_use]
    pub fn control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether the checksum of `batch` (the whole batch) is right.
    #[must_use]
    pub(crate) fn intact(&self, batch: &[u8]) -> bool {
        batch.len() == self.bytes && crc32c::crc32c(&batch[CHECKED_FROM..]) == self.crc
    }
}

fn part<const N: usize>(head: &[u8; HEAD_BYTES], at: usize) -> [u8; N] {
    head[at..]
        .first_chunk()
        .copied()
        .expect("every field lies inside the head")
}

/// Whole, valid record batches, ready to be appended.
pub struct Batches {
    bytes: BytesMut,
    heads: Vec<Head>,
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Batches({} of {} bytes)",
            self.heads.len(),
            self.bytes.len()
        )
    }
}

impl Batches {
    /// Batches from somebody else: each must be whole, of format v2, with the right checksum, with
    /// offsets that count up from the first, not a transaction's, with nothing set that is the
    /// log's to set, and (where they are not compressed) with as many well-formed records as
    /// announced.
    ///
    /// # Errors
    /// [`LogError::Refused`] with the first thing that is wrong.
    pub fn checked(bytes: BytesMut) -> Result<Self, LogError> {
        Self::of(bytes, |head, batch| {
            if !head.intact(batch) {
                return Err("its checksum is wrong");
            }
            if head.attributes & (TRANSACTIONAL | CONTROL) != 0 {
                return Err("transactions are not offered");
            }
            if head.attributes & (APPEND_TIME | HORIZON) != 0 {
                return Err("its timestamps claim to be a broker's");
            }
            if head.producer_id >= 0 && (head.producer_epoch < 0 || head.base_sequence < 0) {
                return Err("it has a producer and no epoch or no sequence");
            }
            if head.count == 0 || head.last_delta != head.count - 1 {
                return Err("its offsets do not count its records");
            }
            if head.compression() == 0 && !well_formed(head, &batch[HEAD_BYTES..], |_| true) {
                return Err("it holds a malformed record");
            }
            Ok(())
        })
    }

    /// Batches that this process has just encoded itself: only their heads are looked at.
    ///
    /// # Errors
    /// [`LogError::Refused`] where they are not whole batches of format v2.
    pub fn encoded_here(bytes: BytesMut) -> Result<Self, LogError> {
        Self::of(bytes, |_, _| Ok(()))
    }

    fn of(
        bytes: BytesMut,
        check: impl Fn(&Head, &[u8]) -> Result<(), &'static str>,
    ) -> Result<Self, LogError> {
        let refused = |reason| LogError::Refused { reason };
        let mut heads = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let head = Head::parse(&bytes[at..]).ok_or(refused("it has no head of format v2"))?;
            let batch = bytes
                .get(at..at + head.bytes)
                .ok_or(refused("it is cut off"))?;
            check(&head, batch).map_err(refused)?;
            at += head.bytes;
            heads.push(head);
        }
        if heads.is_empty() {
            return Err(refused("it is empty"));
        }
        Ok(Self { bytes, heads })
    }

    /// Length of all of them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: there is at least one batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The head of each, in order. Offsets in them count from the sender's 0.
    #[must_use]
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// The one batch of an idempotent producer, `None` for others.
    ///
    /// # Errors
    /// [`LogError::Refused`] where such a batch is not alone: what of it is a repeat would be
    /// unclear. Kafka refuses that too.
    pub(crate) fn produced(&self) -> Result<Option<&Head>, LogError> {
        match self.heads.iter().find(|head| head.producer_id >= 0) {
            Some(_) if self.heads.len() > 1 => Err(LogError::Refused {
                reason: "an idempotent producer's batch is not alone",
            }),
            found => Ok(found),
        }
    }

    /// Whether every record has a key.
    ///
    /// # Errors
    /// [`LogError::Refused`] where one cannot be read.
    pub(crate) fn keyed(&self, unpacker: &Unpacker) -> Result<bool, LogError> {
        let mut at = 0;
        let mut keyed = true;
        for head in &self.heads {
            let payload = &self.bytes[at + HEAD_BYTES..at + head.bytes];
            at += head.bytes;
            let read = unpacker.with(head, payload, |records| {
                well_formed(head, records, |record| {
                    keyed &= record.key.is_some();
                    true
                })
            });
            match read {
                Ok(true) => {}
                Ok(false) => {
                    return Err(LogError::Refused {
                        reason: "it holds a malformed record",
                    });
                }
                Err(error) => {
                    return Err(LogError::Refused {
                        reason: error.reason(),
                    });
                }
            }
        }
        Ok(keyed)
    }

    /// Gives the records their offsets, from `next` on, and the time `append_ms` where there is one.
    pub(crate) fn place(mut self, mut next: i64, append_ms: Option<i64>) -> (Bytes, Vec<Head>) {
        let mut at = 0;
        for head in &mut self.heads {
            let batch = &mut self.bytes[at..at + head.bytes];
            head.base = next;
            batch[0..8].copy_from_slice(&next.to_be_bytes());
            batch[12..16].copy_from_slice(&0_i32.to_be_bytes());
            if let Some(ms) = append_ms {
                head.attributes |= APPEND_TIME;
                head.newest_ms = ms;
                batch[21..23].copy_from_slice(&head.attributes.to_be_bytes());
                batch[35..43].copy_from_slice(&ms.to_be_bytes());
                head.crc = seal(batch);
            }
            next = head.next();
            at += head.bytes;
        }
        (self.bytes.freeze(), self.heads)
    }
}

/// Whether `records` (unpacked) are those that `head` announces, counted up without a gap, and
/// `each` takes all of them.
fn well_formed(head: &Head, records: &[u8], mut each: impl FnMut(&Record<'_>) -> bool) -> bool {
    Records::new(head, records)
        .zip(head.base..)
        .all(|(record, offset)| match record {
            Ok(record) => record.offset == offset && each(&record),
            Err(_) => false,
        })
}

/// Writes the length and the checksum of a changed batch into its head; gives the checksum.
fn seal(batch: &mut [u8]) -> u32 {
    let length = u32::try_from(batch.len() - 12).expect("a batch has less than 2 GiB");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CHECKED_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    crc
}

/// What the cleaner changes in a head.
pub(crate) struct Change {
    pub attributes: i16,
    pub first_ms: i64,
    pub newest_ms: i64,
    pub count: i32,
}

/// `batch` with other records: offsets, producer and sequence stay.
pub(crate) fn rewritten(batch: &[u8], change: &Change, payload: &[u8]) -> Vec<u8> {
    let mut new = Vec::with_capacity(HEAD_BYTES + payload.len());
    new.extend_from_slice(&batch[..HEAD_BYTES]);
    new[21..23].copy_from_slice(&change.attributes.to_be_bytes());
    new[27..35].copy_from_slice(&change.first_ms.to_be_bytes());
    new[35..43].copy_from_slice(&change.newest_ms.to_be_bytes());
    new[57..61].copy_from_slice(&change.count.to_be_bytes());
    new.extend_from_slice(payload);
    seal(&mut new);
    new
}

/// `batch` without records: only its head, which says where it ended.
pub(crate) fn emptied(batch: &[u8], head: &Head) -> Vec<u8> {
    let change = Change {
        attributes: head.with_horizon(false) & !COMPRESSION,
        first_ms: head.first_ms,
        newest_ms: head.newest_ms,
        count: 0,
    };
    rewritten(batch, &change, &[])
}
