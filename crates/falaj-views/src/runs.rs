//! The state of a view: immutable runs of partial aggregate states, merged as in an LSM tree.
//!
//! Always: within a run each group stands once. Runs shrink from the first to the last, each at least
//! twice as heavy as the next, so there are few and every row is merged a logarithmic number of times.
//! Always: groups are found through an index of hashes, never by a scan. Rows that share a hash with
//! what is asked for may come along; callers group them again and keep what they asked for.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{filter_record_batch, take_record_batch};
use datafusion::common::Result;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use hashbrown::HashTable;

use crate::table::{Layout, Table};

/// Hashes of the rows of group columns; the same in every process.
pub(crate) fn row_hashes(groups: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(groups, &RandomState::with_seed(0), &mut hashes)?;
    Ok(hashes)
}

/// One immutable run and the index of its groups.
struct Run {
    batch: RecordBatch,
    hashes: Vec<u64>,
    index: HashTable<u32>,
    weight: usize,
}

impl Run {
    fn new(batch: RecordBatch, layout: &Layout) -> Result<Self> {
        let hashes = row_hashes(layout.groups(&batch), batch.num_rows())?;
        let mut index = HashTable::with_capacity(hashes.len());
        for (row, &hash) in (0_u32..).zip(&hashes) {
            index.insert_unique(hash, row, |&r| hashes[r as usize]);
        }
        let weight = weight(&batch);
        Ok(Self {
            batch,
            hashes,
            index,
            weight,
        })
    }

    /// Rows with one of these hashes.
    fn find(&self, hashes: &[u64]) -> Result<Option<RecordBatch>> {
        let rows: Vec<u32> = hashes
            .iter()
            .flat_map(|&hash| {
                let same = move |r: &&u32| self.hashes[**r as usize] == hash;
                self.index.iter_hash(hash).filter(same).copied()
            })
            .collect();
        if rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(take_record_batch(
            &self.batch,
            &UInt32Array::from(rows),
        )?))
    }
}

/// What merging a run costs: its rows and the elements of its lists.
fn weight(batch: &RecordBatch) -> usize {
    let lists = batch
        .columns()
        .iter()
        .filter_map(|c| c.as_list_opt::<i32>());
    batch.num_rows() + lists.map(|l| l.values().len()).sum::<usize>()
}

/// The runs of one table.
pub(crate) struct Runs {
    pub layout: Arc<Layout>,
    runs: Vec<Run>,
}

impl Runs {
    pub fn new(layout: &Arc<Layout>) -> Self {
        Self {
            layout: Arc::clone(layout),
            runs: Vec::new(),
        }
    }

    /// Adds a run and merges what has piled up.
    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut from = self.runs.len();
        let mut weight = weight(&batch);
        while from > 0 && weight * 2 > self.runs[from - 1].weight {
            from -= 1;
            weight += self.runs[from].weight;
        }
        let merged = if from == self.runs.len() {
            batch
        } else {
            let mut table = Table::new(&self.layout)?;
            for run in self.runs.drain(from..) {
                table.merge(&run.batch)?;
            }
            table.merge(&batch)?;
            table.into_states()?
        };
        self.runs.push(Run::new(merged, &self.layout)?);
        Ok(())
    }

    /// Rows of the groups with one of these hashes, from every run. `hashes` are distinct.
    pub fn find(&self, hashes: &[u64]) -> Result<Vec<RecordBatch>> {
        let found = self.runs.iter().map(|run| run.find(hashes));
        found.filter_map(Result::transpose).collect()
    }

    /// Every run.
    pub fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        self.runs.iter().map(|run| &run.batch)
    }

    /// Keeps the rows that `keep` says of each run; gives the others.
    pub fn retain(
        &mut self,
        keep: impl Fn(&RecordBatch) -> BooleanArray,
    ) -> Result<Vec<RecordBatch>> {
        let mut dropped = Vec::new();
        for run in std::mem::take(&mut self.runs) {
            let mask = keep(&run.batch);
            if mask.true_count() == mask.len() {
                self.runs.push(run);
                continue;
            }
            let others = datafusion::arrow::compute::not(&mask)?;
            dropped.push(filter_record_batch(&run.batch, &others)?);
            let kept = filter_record_batch(&run.batch, &mask)?;
            if kept.num_rows() > 0 {
                self.runs.push(Run::new(kept, &self.layout)?);
            }
        }
        Ok(dropped)
    }

    /// Replaces all runs by those of a checkpoint.
    pub fn replace(&mut self, batches: Vec<RecordBatch>) -> Result<()> {
        self.runs = batches
            .into_iter()
            .map(|batch| Run::new(batch, &self.layout))
            .collect::<Result<_>>()?;
        Ok(())
    }
}

/// Sorted and without repeats: what [`Runs::find`] takes.
pub(crate) fn distinct(mut hashes: Vec<u64>) -> Vec<u64> {
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}
