use std::fmt;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type};
use falaj_record::{OFFSET, PARTITION};

/// Proof that what is inside passed the gate (or was decoded under its policy again).
///
/// Only `falaj-privacy` can make one: the field is private and there is no public constructor.
/// Topic and views take nothing else.
///
/// ```compile_fail
/// let forged = falaj_privacy::Cleared(vec![1_u8]);
/// ```
///
/// ```compile_fail
/// let forged: falaj_privacy::Cleared<u8> = falaj_privacy::Cleared::new(1);
/// ```
pub struct Cleared<T>(T);

impl<T> Cleared<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self(inner)
    }

    /// Looks inside.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.0
    }

    /// Takes it out; what is taken out is no proof any more.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl Cleared<falaj_record::Outbound> {
    /// Leaves out messages; what is left is as cleared as before.
    pub fn retain(&mut self, keep: impl FnMut(&falaj_record::Outgoing) -> bool) {
        self.0.messages.retain(keep);
    }
}

impl Cleared<falaj_record::Batch> {
    /// The records that `keep` says yes to, by partition and offset; they are as cleared as before.
    ///
    /// # Panics
    /// Never: a cleared batch has both columns.
    #[must_use]
    pub fn retain(&self, keep: impl Fn(i32, i64) -> bool) -> Self {
        let records = &self.0.0;
        let column = |name| records.column_by_name(name).expect("every batch has it");
        let partitions = column(PARTITION).as_primitive::<Int32Type>();
        let offsets = column(OFFSET).as_primitive::<Int64Type>();
        let both = partitions.values().iter().zip(offsets.values());
        let mask: BooleanArray = both.map(|(p, o)| Some(keep(*p, *o))).collect();
        let kept = filter_record_batch(records, &mask);
        Self(falaj_record::Batch(
            kept.expect("the mask has an entry for each record"),
        ))
    }
}

/// What is cleared stays so in a copy.
impl<T: Clone> Clone for Cleared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Cleared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cleared(..)")
    }
}
