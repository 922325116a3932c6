//! On what terms a pipeline keeps rows in a store: for how long, and whose they are.
//!
//! Always: rows that somebody else wrote are never added to. A store outlives topic, key, checkpoints
//! and the SQL of a view: what was computed from others (before a reset, with another data directory)
//! would stand beside the rows of now, with people under other pids.
//! Always: a table that lost its rows is told from the one it was, however soon it holds rows again:
//! each filling from nothing has a name of its own.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::now_us;

/// How long a store keeps the rows of a view after their last write, by the view's name. A view
/// that is not in it is kept without end.
pub type Retention = BTreeMap<String, Duration>;

/// How long a store keeps rows, and whose they are.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// How long.
    pub retention: Retention,
    /// For each view, in a few printable ASCII characters, what its rows are computed from. Of a
    /// view that is not in it: nothing, a name like any other.
    pub owners: BTreeMap<String, String>,
}

impl From<Retention> for Terms {
    /// With no word of whose the rows are.
    fn from(retention: Retention) -> Self {
        let owners = BTreeMap::new();
        Self { retention, owners }
    }
}

/// What a table is to a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It holds the pipeline's rows, of the filling with this name.
    Kept(String),
    /// It holds no rows: the name of the filling that begins.
    New(String),
    /// It holds rows that this pipeline did not write.
    Foreign,
}

impl Terms {
    /// What a view's table is whose mark is `mark`.
    pub(crate) fn standing(&self, view: &str, mark: Option<&str>, holds_rows: bool) -> Standing {
        if !holds_rows {
            return Standing::begin();
        }
        match mark.and_then(|mark| mark.rsplit_once(' ')) {
            Some((owner, filling)) if owner == self.owner(view) => Standing::Kept(filling.into()),
            _ => Standing::Foreign,
        }
    }

    /// What stands with a table that holds such rows.
    pub(crate) fn mark(&self, view: &str, filling: &str) -> String {
        format!("{} {filling}", self.owner(view))
    }

    fn owner(&self, view: &str) -> &str {
        self.owners.get(view).map_or("", String::as_str)
    }
}

impl Standing {
    /// A filling that nobody has seen before.
    pub(crate) fn begin() -> Self {
        Self::New(format!("{:016x}", RandomState::new().hash_one(now_us())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kept_of_the_owner_alone_and_each_filling_has_its_name() {
        let owner = |owner: &str| Terms {
            owners: [("users".into(), owner.into())].into(),
            ..Terms::default()
        };
        let (ours, others) = (owner("topic 1"), owner("topic 2"));
        let Standing::New(filling) = ours.standing("users", None, false) else {
            panic!("it holds nothing");
        };
        let mark = ours.mark("users", &filling);
        let kept = ours.standing("users", Some(&mark), true);
        assert_eq!(kept, Standing::Kept(filling.clone()));
        for (terms, view, mark) in [
            (&ours, "users", None),
            (&ours, "users", Some("")),
            (&ours, "users", Some("topic 1")),
            (&ours, "ages", Some(mark.as_str())),
            (&others, "users", Some(mark.as_str())),
            (&Terms::default(), "users", Some(mark.as_str())),
        ] {
            assert_eq!(terms.standing(view, mark, true), Standing::Foreign);
        }
        let again = ours.standing("users", Some(&mark), false);
        assert_ne!(again, Standing::New(filling), "it was emptied");
        let nobody = Terms::default();
        let mark = nobody.mark("users", "f");
        let kept = nobody.standing("users", Some(&mark), true);
        assert_eq!(kept, Standing::Kept("f".into()));
    }
}
