//! The bytes of the views' part of a checkpoint: a JSON header, then runs as Arrow IPC streams.
//!
//! Always: a run is written as it stands in memory. Reading checks lengths before it takes anything;
//! whether the bytes are those that were written is for the checkpoint file's checksum.

use std::collections::BTreeMap;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use falaj_record::ViewLedger;
use serde::{Deserialize, Serialize};

use crate::error::ViewsError;

const MAGIC: &[u8; 8] = b"falajv01";

/// What stands before the runs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Newest event time of each partition.
    pub newest: BTreeMap<i32, i64>,
    pub floor: Option<i64>,
    /// Late records that were not taken yet.
    pub late: Vec<(i32, i64)>,
    pub views: Vec<ViewHeader>,
}

/// One view: its batches follow in this order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ViewHeader {
    pub name: String,
    pub fingerprint: String,
    pub ledger: ViewLedger,
    /// Rows of closed windows that are no longer in the state.
    #[serde(default)]
    pub dropped: u64,
    /// Rows of a row view that were not drained yet, or the runs of an aggregate view.
    pub batches: usize,
    /// Whether a batch of fresh states follows them.
    pub fresh: bool,
    /// For each distinct aggregate the number of its runs; a batch of fresh pairs follows each.
    pub pairs: Vec<usize>,
}

/// Writes a checkpoint's part.
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new(header: &Header) -> Result<Self, ViewsError> {
        let header = serde_json::to_vec(header).map_err(|_| broken("header"))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        Ok(Self { bytes })
    }

    pub fn batch(&mut self, batch: &RecordBatch) -> Result<(), ViewsError> {
        let at = self.bytes.len();
        self.bytes.extend(0_u64.to_le_bytes());
        let mut stream = StreamWriter::try_new(&mut self.bytes, &batch.schema())
            .map_err(|_| broken("schema of a run"))?;
        stream.write(batch).map_err(|_| broken("run"))?;
        stream.finish().map_err(|_| broken("run"))?;
        drop(stream);
        let length = (self.bytes.len() - at - size_of::<u64>()) as u64;
        self.bytes[at..at + size_of::<u64>()].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a checkpoint's part.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<(Header, Self), ViewsError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| broken("format"))?;
        let mut reader = Self { rest };
        let header = serde_json::from_slice(reader.section()?).map_err(|_| broken("header"))?;
        Ok((header, reader))
    }

    fn section(&mut self) -> Result<&'a [u8], ViewsError> {
        let (length, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| broken("length"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| broken("length"))?;
        let (section, rest) = rest
            .split_at_checked(length)
            .ok_or_else(|| broken("length"))?;
        self.rest = rest;
        Ok(section)
    }

    /// The next batch, which must have this schema.
    pub fn batch(&mut self, schema: &Schema) -> Result<RecordBatch, ViewsError> {
        let mut stream =
            StreamReader::try_new(self.section()?, None).map_err(|_| broken("schema of a run"))?;
        if stream.schema().as_ref() != schema {
            return Err(broken("columns of a run"));
        }
        match stream.next() {
            Some(Ok(batch)) => Ok(batch),
            _ => Err(broken("run")),
        }
    }

    /// The next `count` batches.
    pub fn batches(
        &mut self,
        count: usize,
        schema: &Schema,
    ) -> Result<Vec<RecordBatch>, ViewsError> {
        (0..count).map(|_| self.batch(schema)).collect()
    }

    /// Passes over the next `count` batches.
    pub fn skip(&mut self, count: usize) -> Result<(), ViewsError> {
        for _ in 0..count {
            self.section()?;
        }
        Ok(())
    }

    /// Checks that nothing follows.
    pub fn finish(self) -> Result<(), ViewsError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(broken("end"))
        }
    }
}

pub(crate) fn broken(detail: &'static str) -> ViewsError {
    ViewsError::Checkpoint { detail }
}
