//! Event time: how far each partition has come, and what is late.
//!
//! Always: a partition's watermark is its newest event time less `lateness`, followed record by record,
//! so what is late depends on the order within the partition and not on batches or interleaving.
//! Always: state that was dropped does not come back. A partition that was idle may return with old
//! records after windows were dropped without it; those windows lie at or below the floor, and every
//! record is late for them. The floor is part of a checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::arrow::array::{Int32Array, TimestampMicrosecondArray};

/// The watermarks of all partitions.
#[derive(Debug)]
pub(crate) struct Watermarks {
    // Constant.
    lateness_us: i64,
    partitions: i32,
    // State.
    pub newest: BTreeMap<i32, i64>,
    pub floor: Option<i64>,
    pub idle: BTreeSet<i32>,
}

impl Watermarks {
    pub fn new(lateness_us: i64, partitions: i32) -> Self {
        Self {
            lateness_us,
            partitions,
            newest: BTreeMap::new(),
            floor: None,
            idle: BTreeSet::new(),
        }
    }

    /// Moves on over records; gives for each the bound at or below which windows are closed to it.
    pub fn follow(
        &mut self,
        partitions: &Int32Array,
        times: &TimestampMicrosecondArray,
    ) -> Vec<i64> {
        let floor = self.floor.unwrap_or(i64::MIN);
        let mut bounds = Vec::with_capacity(times.len());
        let mut at: Option<(i32, i64)> = None;
        for (&partition, &time) in partitions.values().iter().zip(times.values()) {
            let newest = match at {
                Some((p, newest)) if p == partition => newest,
                _ => {
                    if let Some((p, newest)) = at {
                        self.newest.insert(p, newest);
                    }
                    self.newest.get(&partition).copied().unwrap_or(i64::MIN)
                }
            };
            bounds.push(newest.saturating_sub(self.lateness_us).max(floor));
            at = Some((partition, newest.max(time)));
        }
        if let Some((p, newest)) = at {
            self.newest.insert(p, newest);
        }
        bounds
    }

    /// The lowest watermark of the partitions that are not idle; none as long as one of them has not
    /// had a record, and where all are idle.
    pub fn lowest(&self) -> Option<i64> {
        let active = (0..self.partitions).filter(|p| !self.idle.contains(p));
        let newest: Option<Vec<i64>> = active.map(|p| self.newest.get(&p).copied()).collect();
        let newest = newest?.into_iter().min()?;
        Some(newest.saturating_sub(self.lateness_us))
    }

    /// Raises the floor to the lowest watermark: windows that end there or before may be dropped.
    pub fn raise_floor(&mut self) -> Option<i64> {
        self.floor = self.floor.max(self.lowest());
        self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(marks: &mut Watermarks, records: &[(i32, i64)]) -> Vec<i64> {
        let (p, t): (Vec<i32>, Vec<i64>) = records.iter().copied().unzip();
        marks.follow(&p.into(), &t.into())
    }

    #[test]
    fn bounds_do_not_depend_on_batches_or_interleaving() {
        let records = [(0, 100), (1, 10), (0, 50), (1, 90), (0, 120), (1, 5)];
        let whole = follow(&mut Watermarks::new(10, 2), &records);
        assert_eq!(whole, [i64::MIN, i64::MIN, 90, 0, 90, 80]);
        let mut single = Watermarks::new(10, 2);
        let each: Vec<i64> = records
            .iter()
            .flat_map(|r| follow(&mut single, &[*r]))
            .collect();
        assert_eq!(each, whole);
        assert_eq!(single.lowest(), Some(80));
    }

    #[test]
    fn the_lowest_watermark_waits_for_partitions_that_are_not_idle() {
        let mut marks = Watermarks::new(10, 2);
        assert_eq!(marks.lowest(), None);
        follow(&mut marks, &[(0, 100)]);
        assert_eq!(marks.lowest(), None);
        marks.idle = BTreeSet::from([1]);
        assert_eq!(marks.lowest(), Some(90));
        assert_eq!(marks.raise_floor(), Some(90));
        marks.idle = BTreeSet::from([0, 1]);
        assert_eq!(marks.lowest(), None);
        assert_eq!(marks.raise_floor(), Some(90));
        assert_eq!(follow(&mut marks, &[(1, 20)]), [90]);
    }
}
