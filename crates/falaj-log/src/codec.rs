//! What is inside compressed batches, for the few who must look: whoever reads records, the cleaner,
//! the check for keys, searches by time. Everything else passes a batch on as it came.
//!
//! Always: a batch unpacks to no more than [`UNPACKED_BYTES_MAX`], so a small batch that claims to be
//! a huge one costs a bounded piece of memory. Within itself one log unpacks one batch at a time.
//! The codecs are the crates that `kafka-protocol` links too: its own functions know no such limit.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use parking_lot::Mutex;

use crate::Head;

/// The most that a batch may unpack to, in bytes.
pub const UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is kept of the buffer between two batches, in bytes.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;

/// How snappy's Java library frames its blocks: this, two version numbers, then lengths and blocks.
const FRAMED: &[u8; 8] = b"\x82SNAPPY\0";
const FRAMED_HEAD: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const FRAMED_BLOCK_BYTES: usize = 32 * 1024;

/// Why a batch cannot be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub enum UnpackError {
    /// It would be more than [`UNPACKED_BYTES_MAX`], or claims to be.
    TooLarge,
    /// It is not what its codec makes, or its codec is not known.
    Broken,
}

impl UnpackError {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "it unpacks to more than 64 MiB",
            Self::Broken => "it cannot be unpacked",
        }
    }
}

impl Head {
    /// The records of this batch: `payload`, which follows the head, or what it unpacks to.
    ///
    /// # Errors
    /// Why it cannot be unpacked.
    pub fn unpack(&self, payload: &Bytes) -> Result<Bytes, UnpackError> {
        if self.compression() == 0 {
            return Ok(payload.clone());
        }
        let mut records = Vec::new();
        unpack(self.compression(), payload, &mut records)?;
        Ok(records.into())
    }
}

/// Unpacks one batch at a time, always into the same buffer.
#[derive(Default)]
pub(crate) struct Unpacker {
    buffer: Mutex<Vec<u8>>,
}

impl Unpacker {
    /// Shows `look` the records of a batch: `payload`, or what it unpacks to.
    ///
    /// # Errors
    /// Why it cannot be unpacked.
    pub(crate) fn with<T>(
        &self,
        head: &Head,
        payload: &[u8],
        look: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, UnpackError> {
        if head.compression() == 0 {
            return Ok(look(payload));
        }
        let mut buffer = self.buffer.lock();
        buffer.clear();
        let looked = unpack(head.compression(), payload, &mut buffer).map(|()| look(&buffer));
        buffer.clear();
        buffer.shrink_to(BUFFER_KEPT_BYTES);
        looked
    }
}

fn unpack(codec: i16, payload: &[u8], into: &mut Vec<u8>) -> Result<(), UnpackError> {
    let unpacked = match codec {
        1 => drain(MultiGzDecoder::new(payload), into),
        2 => return unsnap(payload, into),
        3 => lz4::Decoder::new(payload).and_then(|from| drain(from, into)),
        4 => zstd::Decoder::with_buffer(payload).and_then(|from| drain(from, into)),
        _ => return Err(UnpackError::Broken),
    };
    match unpacked {
        _ if into.len() > UNPACKED_BYTES_MAX => Err(UnpackError::TooLarge),
        Ok(()) => Ok(()),
        Err(_) => Err(UnpackError::Broken),
    }
}

fn drain(from: impl Read, into: &mut Vec<u8>) -> io::Result<()> {
    from.take(UNPACKED_BYTES_MAX as u64 + 1)
        .read_to_end(into)
        .map(drop)
}

/// One raw block, or the Java library's row of blocks.
fn unsnap(mut payload: &[u8], into: &mut Vec<u8>) -> Result<(), UnpackError> {
    if !payload.starts_with(FRAMED) {
        return unsnap_block(payload, into);
    }
    payload = payload
        .get(FRAMED_HEAD.len()..)
        .ok_or(UnpackError::Broken)?;
    while !payload.is_empty() {
        let (length, rest) = payload
            .split_first_chunk::<4>()
            .ok_or(UnpackError::Broken)?;
        let length =
            usize::try_from(u32::from_be_bytes(*length)).map_err(|_| UnpackError::Broken)?;
        let (block, rest) = rest.split_at_checked(length).ok_or(UnpackError::Broken)?;
        unsnap_block(block, into)?;
        payload = rest;
    }
    Ok(())
}

fn unsnap_block(block: &[u8], into: &mut Vec<u8>) -> Result<(), UnpackError> {
    let length = snap::raw::decompress_len(block).map_err(|_| UnpackError::Broken)?;
    let from = into.len();
    // Looked at before there is room for it: the length is only what the block claims.
    if length > UNPACKED_BYTES_MAX - from {
        return Err(UnpackError::TooLarge);
    }
    into.resize(from + length, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut into[from..])
        .map(drop)
        .map_err(|_| UnpackError::Broken)
}

/// Compresses records as a Kafka client would.
///
/// # Errors
/// Where the codec is not known or its library fails.
pub(crate) fn pack(codec: i16, records: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        0 => Ok(records.to_vec()),
        1 => {
            let mut out = GzEncoder::new(Vec::new(), Compression::default());
            out.write_all(records)?;
            out.finish()
        }
        2 => {
            let mut out = FRAMED_HEAD.to_vec();
            let mut encoder = snap::raw::Encoder::new();
            for block in records.chunks(FRAMED_BLOCK_BYTES) {
                let packed = encoder.compress_vec(block)?;
                let length = u32::try_from(packed.len()).map_err(io::Error::other)?;
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(&packed);
            }
            Ok(out)
        }
        3 => {
            let mut out = lz4::EncoderBuilder::new()
                .block_mode(lz4::BlockMode::Independent)
                .build(Vec::new())?;
            out.write_all(records)?;
            let (out, finished) = out.finish();
            finished.map(|()| out)
        }
        4 => zstd::encode_all(records, 0),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_back_what_was_packed_and_no_more_than_the_limit() {
        let small: Vec<u8> = (0..200_000_u32)
            .flat_map(|n| (n % 777).to_be_bytes())
            .collect();
        let huge = vec![7; UNPACKED_BYTES_MAX + 1];
        let mut out = Vec::new();
        for codec in 1..=4 {
            for records in [&b""[..], &b"x"[..], &small[..]] {
                out.clear();
                let packed = pack(codec, records).unwrap();
                assert_eq!(unpack(codec, &packed, &mut out), Ok(()), "codec {codec}");
                assert!(out == records, "codec {codec}");
                for cut in [packed.len() / 3, packed.len() / 2] {
                    out.clear();
                    let torn = unpack(codec, &packed[..cut], &mut out);
                    assert!(torn.is_err() || records.starts_with(&out), "codec {codec}");
                }
            }
            out.clear();
            let packed = pack(codec, &huge).unwrap();
            assert_eq!(
                unpack(codec, &packed, &mut out),
                Err(UnpackError::TooLarge),
                "codec {codec}"
            );
            assert!(out.capacity() <= 3 * UNPACKED_BYTES_MAX);
        }
        assert!(unpack(5, b"x", &mut out).is_err() && pack(5, b"x").is_err());
        // A raw block, as some clients send it.
        out.clear();
        let raw = snap::raw::Encoder::new().compress_vec(&small).unwrap();
        assert_eq!(unpack(2, &raw, &mut out), Ok(()));
        assert!(out == small);
    }
}
