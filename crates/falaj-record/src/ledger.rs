use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts up to the topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLedger {
    /// Records the source gave.
    pub r#in: u64,
    /// Acknowledged by the topic.
    pub published: u64,
    /// Could not be used.
    pub rejected: u64,
    /// Kept out on purpose.
    pub withheld: u64,
    /// Of those published: rejected once, and published by a replay. A replay moves a record from
    /// `rejected` to `published`; it came in once.
    #[serde(default)]
    pub replayed: u64,
}

/// Counts from the topic to the views.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicLedger {
    /// Messages read.
    pub read: u64,
    /// Handed to the views.
    pub out: u64,
    /// Could not be used.
    pub rejected: u64,
    /// Repeats, dropped.
    pub duplicate: u64,
}

/// Counts of one view over `records`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewLedger {
    /// In the view.
    pub applied: u64,
    /// Left out by WHERE.
    pub filtered: u64,
    /// All windows were closed.
    pub late: u64,
}

/// The conservation ledger: every record is accounted for exactly once at each stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Up to the topic.
    pub source: SourceLedger,
    /// From the topic on.
    pub topic: TopicLedger,
    /// Views over `records`, by name.
    pub views: BTreeMap<String, ViewLedger>,
}

impl Ledger {
    /// The first equation that does not hold, as a sentence; `None` when the ledger balances.
    #[must_use]
    pub fn imbalance(&self) -> Option<String> {
        let (s, t) = (&self.source, &self.topic);
        if s.r#in != s.published + s.rejected + s.withheld {
            return Some(format!(
                "source: in {} is not published {} + rejected {} + withheld {}",
                s.r#in, s.published, s.rejected, s.withheld
            ));
        }
        if s.replayed > s.published {
            return Some(format!(
                "source: replayed {} is more than published {}",
                s.replayed, s.published
            ));
        }
        if t.read != t.out + t.rejected + t.duplicate {
            return Some(format!(
                "topic: read {} is not out {} + rejected {} + duplicate {}",
                t.read, t.out, t.rejected, t.duplicate
            ));
        }
        self.views.iter().find_map(|(name, v)| {
            (t.out != v.applied + v.filtered + v.late).then(|| {
                format!(
                    "view `{name}`: out {} is not applied {} + filtered {} + late {}",
                    t.out, v.applied, v.filtered, v.late
                )
            })
        })
    }
}
