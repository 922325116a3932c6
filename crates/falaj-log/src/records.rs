//! The records inside an uncompressed batch, read in place: nothing is copied or allocated.

use crate::Head;

/// Bytes that are not the records which their batch's head announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed record {index} in its batch")]
pub struct Malformed {
    /// Which record of the batch, from 0.
    pub index: i32,
}

/// One record, borrowed from its batch.
#[derive(Clone)]
pub struct Record<'a> {
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, in order; a name may repeat.
    pub headers: Headers<'a>,
}

impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record(offset {})", self.offset)
    }
}

/// The records of one batch.
///
/// Ends after the first [`Malformed`]. A batch that announces fewer records than it holds is
/// malformed too.
#[derive(Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    head: Head,
    index: i32,
}

impl<'a> Records<'a> {
    /// Records of the batch `head`; `payload` is what follows the head, decompressed.
    #[must_use]
    pub fn new(head: &Head, payload: &'a [u8]) -> Self {
        Self {
            rest: payload,
            head: *head,
            index: 0,
        }
    }

    fn read(&mut self) -> Option<(Record<'a>, Encoded<'a>)> {
        let before = self.rest;
        let length = usize::try_from(varint(&mut self.rest)?).ok()?;
        let (mut record, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        let whole = &before[..before.len() - rest.len()];
        let record = &mut record;
        *record = record.get(1..)?; // attributes: none are defined
        let delta_ms = varint(record)?;
        let encoded = Encoded {
            whole,
            after_time: record,
        };
        let delta = i32::try_from(varint(record)?).ok()?;
        let key = slice(record)?;
        let value = slice(record)?;
        let count = i32::try_from(varint(record)?).ok()?;
        let headers = Headers {
            rest: record,
            left: u32::try_from(count).ok()?,
        };
        // Headers are walked here once, so that a broken one is a malformed record and not a
        // surprise later.
        let mut walk = headers.clone();
        for _ in 0..count {
            walk.next()?;
        }
        let read = Record {
            offset: self.head.base + i64::from(delta),
            timestamp_ms: if self.head.append_time() {
                self.head.newest_ms
            } else {
                self.head.first_ms.wrapping_add(delta_ms)
            },
            key,
            value,
            headers,
        };
        (walk.rest.is_empty() && (0..=self.head.last_delta).contains(&delta))
            .then_some((read, encoded))
    }

    /// The next record with its bytes.
    pub(crate) fn next_encoded(&mut self) -> Option<Result<(Record<'a>, Encoded<'a>), Malformed>> {
        let index = self.index;
        if index == self.head.count {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            return Some(Err(Malformed { index }));
        }
        self.index += 1;
        let record = self.read();
        if record.is_none() {
            (self.rest, self.index) = (&[], self.head.count);
        }
        Some(record.ok_or(Malformed { index }))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_encoded()
            .map(|read| read.map(|(record, _)| record))
    }
}

/// A record as it lies in its batch.
#[derive(Clone, Copy)]
pub(crate) struct Encoded<'a> {
    /// All of it, its length first.
    pub whole: &'a [u8],
    /// What follows its timestamp.
    after_time: &'a [u8],
}

impl Encoded<'_> {
    /// Writes it with a timestamp that counts from another first one.
    pub(crate) fn retimed(&self, delta_ms: i64, into: &mut Vec<u8>) {
        let mut time = Vec::with_capacity(10);
        put_varint(delta_ms, &mut time);
        let length = 1 + time.len() + self.after_time.len();
        put_varint(i64::try_from(length).unwrap_or(i64::MAX), into);
        into.push(0);
        into.extend_from_slice(&time);
        into.extend_from_slice(self.after_time);
    }
}

/// Headers of a record: name and value.
#[derive(Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = slice(&mut self.rest)??;
        Some((name, slice(&mut self.rest)?))
    }
}

/// A length and that many bytes; the length -1 is no bytes at all, `Some(None)`.
#[expect(
    clippy::option_option,
    reason = "the outer one is a fault in the bytes, the inner one a null that the format has"
)]
fn slice<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint(from)?;
    if length == -1 {
        return Some(None);
    }
    let (bytes, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(Some(bytes))
}

/// A zigzag varint of at most 64 bits.
#[inline]
fn varint(from: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for (i, &byte) in from.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *from = &from[i + 1..];
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

fn put_varint(value: i64, into: &mut Vec<u8>) {
    let mut rest = (value << 1 ^ value >> 63).cast_unsigned();
    while rest >= 0x80 {
        into.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    into.push(rest.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_zigzag_and_bounded() {
        for (bytes, value) in [
            (&[0_u8][..], Some(0)),
            (&[1], Some(-1)),
            (&[2], Some(1)),
            (&[0xac, 0x02], Some(150)),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
                Some(i64::MIN),
            ),
            (&[], None),
            (&[0x80], None),
            (&[0x80; 11], None),
        ] {
            let mut rest = bytes;
            assert_eq!(varint(&mut rest), value, "{bytes:x?}");
            assert_eq!(rest.is_empty(), value.is_some() || bytes.is_empty());
            if let Some(value) = value {
                let mut written = Vec::new();
                put_varint(value, &mut written);
                assert_eq!(written, bytes);
            }
        }
    }
}
