//! How many people stand behind a group: sets of hashed pids that stop growing at the guard's size.
//!
//! Always: the size of a set is exact below the limit and the limit above it, in whatever order and
//! cut the records came, since a union of cut sets is cut only where it has reached the limit.
//! A record without a pid counts as nobody.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, StringArray, UInt32Array, UInt64Array,
};
use datafusion::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{DataType, Field, UInt64Type};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

/// Type of the sets in a run.
pub(crate) fn list_type() -> DataType {
    DataType::List(Arc::new(item()))
}

fn item() -> Field {
    Field::new("item", DataType::UInt64, false)
}

/// The hash of each pid; null where a record has none. Stable, as checkpoints hold it.
pub(crate) fn hashes(pids: &StringArray) -> UInt64Array {
    let values: ScalarBuffer<u64> = (0..pids.len())
        .map(|i| hash(pids.value(i).as_bytes()))
        .collect();
    UInt64Array::new(values, pids.nulls().cloned())
}

/// A 64-bit hash by folded multiplication. Pids are random, so nobody can aim at collisions.
fn hash(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
    let fold = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(FACTOR);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are kept")]
        let folded = (product as u64) ^ ((product >> 64) as u64);
        folded
    };
    let mut words = bytes.chunks_exact(8);
    let mut state = SEED ^ bytes.len() as u64;
    for word in words.by_ref() {
        state = fold(
            state,
            u64::from_le_bytes(word.try_into().unwrap_or_default()),
        );
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    fold(fold(state, u64::from_le_bytes(last)), SEED)
}

/// The sets of people of many groups.
pub(crate) struct PeopleAccumulator {
    // Constant.
    limit: usize,
    // State.
    sets: Vec<Vec<u64>>,
}

impl PeopleAccumulator {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            sets: Vec::new(),
        }
    }

    fn add(&mut self, group: usize, person: u64) {
        let set = &mut self.sets[group];
        if set.len() < self.limit && !set.contains(&person) {
            set.push(person);
        }
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<u64>> {
        emit_to.take_needed(&mut self.sets)
    }
}

impl GroupsAccumulator for PeopleAccumulator {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let ([people], None) = (values, opt_filter) else {
            return internal_err!("people take one column and no filter");
        };
        let people = people.as_primitive::<UInt64Type>();
        self.sets.resize_with(total_num_groups, Vec::new);
        if people.null_count() == 0 {
            for (&group, &person) in group_indices.iter().zip(people.values()) {
                self.add(group, person);
            }
        } else {
            for (&group, person) in group_indices.iter().zip(people) {
                if let Some(person) = person {
                    self.add(group, person);
                }
            }
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        let Some(lists) = values.first().and_then(|v| v.as_list_opt::<i32>()) else {
            return internal_err!("people merge lists");
        };
        self.sets.resize_with(total_num_groups, Vec::new);
        let people = lists.values().as_primitive::<UInt64Type>().values();
        for (&group, range) in group_indices.iter().zip(lists.offsets().windows(2)) {
            let [from, to] = [range[0], range[1]].map(|o| usize::try_from(o).unwrap_or_default());
            for &person in &people[from..to] {
                self.add(group, person);
            }
        }
        Ok(())
    }

    /// Sizes of the sets.
    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sizes = self
            .take(emit_to)
            .into_iter()
            .map(|set| u32::try_from(set.len()).unwrap_or(u32::MAX));
        Ok(Arc::new(UInt32Array::from_iter_values(sizes)))
    }

    /// The sets themselves.
    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let sets = self.take(emit_to);
        let offsets = OffsetBuffer::from_lengths(sets.iter().map(Vec::len));
        let people = UInt64Array::from_iter_values(sets.into_iter().flatten());
        let lists = ListArray::try_new(Arc::new(item()), offsets, Arc::new(people), None)?;
        Ok(vec![Arc::new(lists)])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, Array::len);
        let groups: Vec<usize> = (0..rows).collect();
        let mut single = Self::new(self.limit);
        single.update_batch(values, &groups, opt_filter, rows)?;
        single.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        let sets: usize = self
            .sets
            .iter()
            .map(|s| s.capacity() * size_of::<u64>())
            .sum();
        sets + self.sets.capacity() * size_of::<Vec<u64>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_stops_growing_at_its_limit_and_a_null_is_nobody() -> Result<()> {
        let people: ArrayRef = Arc::new(UInt64Array::from(vec![
            Some(1),
            Some(1),
            None,
            Some(2),
            Some(3),
            Some(4),
        ]));
        let mut sets = PeopleAccumulator::new(3);
        sets.update_batch(&[people], &[0, 0, 1, 0, 0, 0], None, 2)?;
        let state = sets.state(EmitTo::All)?;
        let mut merged = PeopleAccumulator::new(3);
        merged.merge_batch(&state, &[0, 1], 2)?;
        merged.merge_batch(&state, &[1, 1], 2)?;
        let sizes = merged.evaluate(EmitTo::All)?;
        assert_eq!(sizes.as_ref(), &UInt32Array::from(vec![3, 3]) as &dyn Array);
        Ok(())
    }

    #[test]
    fn hashes_differ_where_texts_differ() {
        let texts = [
            "",
            "\0",
            "a",
            "a\0",
            "abcdefgh",
            "abcdefgi",
            "abcdefghi",
            "bbcdefghi",
        ];
        let hashes: std::collections::HashSet<u64> =
            texts.iter().map(|t| hash(t.as_bytes())).collect();
        assert_eq!(hashes.len(), texts.len());
        assert_eq!(hash(b"abcdefgh"), hash(b"abcdefgh"));
    }
}
