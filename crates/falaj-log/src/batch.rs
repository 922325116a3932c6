//! Heads of record batches, and batches that were checked before the log takes them.

use bytes::{Bytes, BytesMut};

use crate::{LogError, Records};

/// Length of a batch's head; the records follow it.
pub const HEAD_BYTES: usize = 61;

/// From here on the checksum covers a batch: base offset, length and leader epoch stand before it,
/// so a broker can set them without computing it again.
const CHECKED_FROM: usize = 21;

const COMPRESSION: i16 = 7;
const TRANSACTIONAL: i16 = 16;
const CONTROL: i16 = 32;

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
    /// How many records.
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
    /// offsets that count up from the first, not a transaction's, and (where they are not
    /// compressed) with as many well-formed records as announced.
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
            if head.count == 0 || head.last_delta != head.count - 1 {
                return Err("its offsets do not count its records");
            }
            if head.compression() == 0 {
                for (record, offset) in Records::new(head, &batch[HEAD_BYTES..]).zip(head.base..) {
                    match record {
                        Ok(record) if record.offset == offset => {}
                        _ => return Err("it holds a malformed record"),
                    }
                }
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

    /// Gives the records their offsets, from `next` on.
    pub(crate) fn place(mut self, mut next: i64) -> (Bytes, Vec<Head>) {
        let mut at = 0;
        for head in &mut self.heads {
            head.base = next;
            self.bytes[at..at + 8].copy_from_slice(&next.to_be_bytes());
            self.bytes[at + 12..at + 16].copy_from_slice(&0_i32.to_be_bytes());
            next = head.next();
            at += head.bytes;
        }
        (self.bytes.freeze(), self.heads)
    }
}
