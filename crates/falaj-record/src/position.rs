use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// For each partition of one topic, the next offset to read: the first that is *not* applied yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(pub BTreeMap<i32, i64>);

impl Positions {
    /// Where to resume in `partition`; 0 where nothing was read yet.
    #[must_use]
    pub fn next(&self, partition: i32) -> i64 {
        self.0.get(&partition).copied().unwrap_or(0)
    }

    /// Moves `partition` on to `next`. Never backwards.
    pub fn advance(&mut self, partition: i32, next: i64) {
        let at = self.0.entry(partition).or_insert(0);
        *at = (*at).max(next);
    }
}
