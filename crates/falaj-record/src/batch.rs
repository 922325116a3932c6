use std::fmt;

use arrow::record_batch::RecordBatch;

/// Decoded records, in the shape of [`crate::Schema::arrow`].
///
/// Rows of one partition stand in the order of their offsets; rows of several partitions may follow
/// each other in any interleaving.
#[derive(Clone)]
pub struct Batch(pub RecordBatch);

impl Batch {
    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.num_rows()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.num_rows() == 0
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} records)", self.len())
    }
}
