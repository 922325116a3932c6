//! Replies on the wire.
//!
//! Always: records that lie in the log are not copied into a reply; they are pieces of their own.

use bytes::{BufMut, Bytes, BytesMut};
use falaj_log::Stored;
use kafka_protocol::messages::{ApiKey, FetchResponse, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::Encodable;
use tracing::error;

use crate::broker::Crashed;

/// From this version on lengths of a Fetch reply are of variable size, and tags end its parts.
const COMPACT: i16 = 12;

pub(crate) enum Piece {
    Bytes(BytesMut),
    Stored(Stored),
}

impl Piece {
    fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Stored(stored) => stored.bytes(),
        }
    }
}

/// The whole of a reply, its length first. Records in `stored` stand for those of a Fetch reply's
/// partitions, as in [`crate::broker::Answer`].
pub(crate) fn encode(
    key: ApiKey,
    version: i16,
    correlation: i32,
    reply: &ResponseKind,
    stored: Vec<Option<Stored>>,
) -> Result<Vec<Piece>, Crashed> {
    encoded(key, version, correlation, reply, stored).ok_or_else(|| {
        error!(?key, version, "a reply could not be encoded");
        Crashed
    })
}

fn encoded(
    key: ApiKey,
    version: i16,
    correlation: i32,
    reply: &ResponseKind,
    stored: Vec<Option<Stored>>,
) -> Option<Vec<Piece>> {
    // Room for all of it at once: growing would copy it.
    let records: usize = match reply {
        ResponseKind::Fetch(reply) => {
            let partitions = reply.responses.iter().flat_map(|t| &t.partitions);
            let records = partitions.map(|p| 128 + p.records.as_ref().map_or(0, Bytes::len));
            records.sum()
        }
        _ => 0,
    };
    let mut writer = Writer {
        pieces: Vec::new(),
        out: BytesMut::with_capacity(records + 512),
        version,
    };
    writer.out.put_i32(0);
    ResponseHeader::default()
        .with_correlation_id(correlation)
        .encode(&mut writer.out, key.response_header_version(version))
        .ok()?;
    match reply {
        ResponseKind::Fetch(reply) => writer.fetch(reply, stored)?,
        reply => reply.encode(&mut writer.out, version).ok()?,
    }
    writer.end()
}

struct Writer {
    pieces: Vec<Piece>,
    out: BytesMut,
    version: i16,
}

impl Writer {
    /// As the field list of its schema says; the parts that hold no records are encoded by the library.
    fn fetch(&mut self, reply: &FetchResponse, stored: Vec<Option<Stored>>) -> Option<()> {
        let mut stored = stored.into_iter();
        self.out.put_i32(reply.throttle_time_ms);
        if self.version >= 7 {
            self.out.put_i16(reply.error_code);
            self.out.put_i32(reply.session_id);
        }
        self.count(reply.responses.len())?;
        for topic in &reply.responses {
            let name = topic.topic.as_bytes();
            if self.version >= COMPACT {
                self.count(name.len())?;
            } else {
                self.out.put_i16(i16::try_from(name.len()).ok()?);
            }
            self.out.put_slice(name);
            self.count(topic.partitions.len())?;
            for partition in &topic.partitions {
                partition.encode(&mut self.out, self.version).ok()?;
                if let Some(stored) = stored.next().flatten() {
                    self.records(stored)?;
                }
            }
            self.no_tags();
        }
        self.no_tags();
        Some(())
    }

    /// Puts records in the place of none at the end of a partition.
    fn records(&mut self, stored: Stored) -> Option<()> {
        // None are a length, and a partition ends in its tags: nothing else stands behind them.
        let end = self
            .out
            .len()
            .checked_sub(if self.version >= COMPACT { 2 } else { 4 })?;
        self.out.truncate(end);
        self.count(stored.bytes())?;
        let before = self.out.split();
        self.pieces
            .extend([Piece::Bytes(before), Piece::Stored(stored)]);
        self.no_tags();
        Some(())
    }

    /// The length of an array or of bytes.
    fn count(&mut self, count: usize) -> Option<()> {
        if self.version >= COMPACT {
            // One more than there are, seven bits a byte, the lowest first.
            let mut rest = u32::try_from(count + 1).ok()?;
            while rest >= 0x80 {
                self.out.put_u8(rest.to_le_bytes()[0] | 0x80);
                rest >>= 7;
            }
            self.out.put_u8(rest.to_le_bytes()[0]);
        } else {
            self.out.put_i32(i32::try_from(count).ok()?);
        }
        Some(())
    }

    fn no_tags(&mut self) {
        if self.version >= COMPACT {
            self.out.put_u8(0);
        }
    }

    /// All of it, with its length in the place that was left for that.
    fn end(mut self) -> Option<Vec<Piece>> {
        self.pieces.push(Piece::Bytes(self.out));
        let bytes: usize = self.pieces.iter().map(Piece::bytes).sum();
        let length = i32::try_from(bytes - 4).ok()?;
        let Some(Piece::Bytes(first)) = self.pieces.first_mut() else {
            return None;
        };
        first[..4].copy_from_slice(&length.to_be_bytes());
        Some(self.pieces)
    }
}
