//! An aggregate view while it runs: fresh groups since the last drain, and the runs below them.
//!
//! Always: a drain costs in the groups that changed, never in all of them.
//! Always: `count(DISTINCT x)` counts a pair of group and value when it comes for the first time. The
//! pairs have runs of their own, so a group of a million people is not read again for each new one.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions,
    TimestampMicrosecondArray, UInt32Array, new_empty_array, new_null_array,
};
use datafusion::arrow::compute::{FilterBuilder, filter, filter_record_batch, is_not_null, take};
use datafusion::arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::{Result, internal_err};
use falaj_record::{EVENT_TIME, People, Value, ViewLedger, ViewUpdate};

use crate::key;
use crate::plan::{AggregatePlan, KeyPlan, evaluate};
use crate::runs::{Runs, distinct, row_hashes};
use crate::table::{Layout, Results, Table};
use crate::window::Windows;

/// Pairs of group and value of one `count(DISTINCT x)`.
struct Pairs {
    /// Since the last drain.
    fresh: Table,
    /// Each pair stands in one run only.
    runs: Runs,
}

/// An aggregate view.
pub(crate) struct AggregateView {
    pub plan: AggregatePlan,
    pub ledger: ViewLedger,
    /// Groups that changed since the last drain, with what came since then.
    fresh: Table,
    runs: Runs,
    /// One for each aggregate, where it is distinct.
    pairs: Vec<Option<Pairs>>,
}

/// State of an aggregate view, as a checkpoint holds it.
pub(crate) struct State {
    pub runs: Vec<RecordBatch>,
    pub fresh: RecordBatch,
    /// For each distinct aggregate its runs and what is fresh.
    pub pairs: Vec<(Vec<RecordBatch>, RecordBatch)>,
}

/// Records that a view takes: which rows, and the start of the window of each.
struct Taken {
    rows: Rows,
    starts: Option<ArrayRef>,
}

enum Rows {
    All,
    Filtered(BooleanArray),
    /// A row may stand here several times, once for each of its windows.
    Picked(UInt32Array),
}

impl AggregateView {
    pub fn new(plan: AggregatePlan) -> Result<Self> {
        let pairs = |layout: &Option<Arc<Layout>>| {
            let pairs = |layout: &Arc<Layout>| {
                Ok(Pairs {
                    fresh: Table::new(layout)?,
                    runs: Runs::new(layout),
                })
            };
            layout.as_ref().map(pairs).transpose()
        };
        Ok(Self {
            fresh: Table::new(&plan.layout)?,
            runs: Runs::new(&plan.layout),
            pairs: plan.pairs.iter().map(pairs).collect::<Result<_>>()?,
            plan,
            ledger: ViewLedger::default(),
        })
    }

    /// Takes records. `bounds` tells for each up to which end windows are closed to it; `late` is set
    /// for those that find all their windows closed.
    pub fn push(
        &mut self,
        records: &RecordBatch,
        people: &ArrayRef,
        bounds: &[i64],
        late: &mut [bool],
    ) -> Result<()> {
        let passes = self.plan.common.passes(records)?;
        let through = passes
            .as_ref()
            .map_or(records.num_rows(), BooleanArray::true_count);
        self.ledger.filtered += (records.num_rows() - through) as u64;
        let taken = match self.plan.windows {
            None => {
                self.ledger.applied += through as u64;
                let rows = passes.map_or(Rows::All, Rows::Filtered);
                Taken { rows, starts: None }
            }
            Some((windows, _)) => {
                let Some(times) = records.column_by_name(EVENT_TIME) else {
                    return internal_err!("records have an event time");
                };
                let times = times.as_primitive::<TimestampMicrosecondType>();
                self.assign(windows, times, passes.as_ref(), bounds, late)
            }
        };
        let inputs = taken.of(&self.plan.common.inputs(records)?)?;
        if inputs.num_rows() > 0 {
            let people = taken.of_column(people)?;
            self.aggregate(&inputs, taken.starts, &people)?;
        }
        Ok(())
    }

    /// Gives each record its windows, and counts it as applied or late.
    fn assign(
        &mut self,
        windows: Windows,
        times: &TimestampMicrosecondArray,
        passes: Option<&BooleanArray>,
        bounds: &[i64],
        late: &mut [bool],
    ) -> Taken {
        let tumbling = windows.slide == windows.size;
        let mut rows: Vec<u32> = Vec::new();
        let mut starts: Vec<i64> = Vec::with_capacity(times.len());
        // Only written where a record is left out or stands several times.
        let mut dense = tumbling;
        let mut current = windows.last_start(0);
        for (row, (&time, &bound)) in (0_u32..).zip(times.values().iter().zip(bounds)) {
            let i = row as usize;
            let before = starts.len();
            let through = passes.is_none_or(|p| p.value(i));
            if through && tumbling {
                // Records come roughly in order, so most fall into the window of the one before.
                if time < current || time >= windows.end(current) {
                    current = windows.last_start(time);
                }
                if windows.end(current) > bound {
                    starts.push(current);
                }
            } else if through {
                starts.extend(windows.starts(time).filter(|&s| windows.end(s) > bound));
            }
            let new = starts.len() - before;
            if through {
                self.ledger.applied += u64::from(new > 0);
                self.ledger.late += u64::from(new == 0);
                late[i] |= new == 0;
            }
            if dense && new == 0 {
                dense = false;
                rows.extend(0..row);
            }
            if !dense {
                rows.extend(std::iter::repeat_n(row, new));
            }
        }
        let rows = if dense {
            Rows::All
        } else {
            Rows::Picked(rows.into())
        };
        let starts = TimestampMicrosecondArray::from(starts);
        Taken {
            rows,
            starts: Some(Arc::new(starts)),
        }
    }

    fn aggregate(
        &mut self,
        inputs: &RecordBatch,
        mut starts: Option<ArrayRef>,
        people: &ArrayRef,
    ) -> Result<()> {
        let mut keys = Vec::with_capacity(self.plan.keys.len());
        for key in &self.plan.keys {
            match key {
                KeyPlan::Value(e) => keys.push(e.evaluate(inputs)?.into_array(inputs.num_rows())?),
                KeyPlan::Window => keys.extend(starts.take()),
            }
        }
        let mut args = evaluate(&self.plan.args, inputs)?;
        for (arg, pairs) in args.iter_mut().zip(&mut self.pairs) {
            let Some(pairs) = pairs else {
                continue;
            };
            // The count takes nothing now: at the drain it takes the pairs that are new.
            let values = std::mem::replace(arg, new_empty_array(arg.data_type()));
            let mut columns = keys.clone();
            columns.push(values);
            drop_nulls(&mut columns)?;
            let rows = columns[0].len();
            if rows > 0 {
                pairs.fresh.intern(&columns, rows)?;
            }
        }
        self.fresh
            .update(&keys, &args, Some(people), inputs.num_rows())
    }

    /// Counts the pairs that came for the first time since the last drain.
    fn settle_pairs(&mut self) -> Result<()> {
        for (function, pairs) in self.pairs.iter_mut().enumerate() {
            let Some(pairs) = pairs else {
                continue;
            };
            let layout = Arc::clone(&pairs.runs.layout);
            let fresh = std::mem::replace(&mut pairs.fresh, Table::new(&layout)?).into_states()?;
            let new = pairs.new_ones(&fresh)?;
            if new.num_rows() == 0 {
                continue;
            }
            let (values, keys) = match new.columns().split_last() {
                Some((values, keys)) => (Arc::clone(values), keys.to_vec()),
                None => return internal_err!("a pair has a value"),
            };
            self.fresh.update_one(function, &keys, &values)?;
            pairs.runs.push(new)?;
        }
        Ok(())
    }

    /// Rows of the groups that changed since the last drain.
    pub fn drain(&mut self, version: i64, watermark: Option<i64>) -> Result<Option<ViewUpdate>> {
        if self.fresh.len() == 0 {
            return Ok(None);
        }
        self.settle_pairs()?;
        let layout = &self.plan.layout;
        let run = std::mem::replace(&mut self.fresh, Table::new(layout)?).into_states()?;
        let hashes = distinct(row_hashes(layout.groups(&run), run.num_rows())?);
        let mut table = Table::new(layout)?;
        table.merge(&run)?;
        for older in self.runs.find(&hashes)? {
            table.merge(&older)?;
        }
        // The run's groups come first; behind them may stand some that share a hash.
        let results = table.into_results()?;
        let columns = results
            .columns
            .iter()
            .map(|c| c.slice(0, run.num_rows()))
            .collect();
        let counts = results.people[..run.num_rows()].to_vec();
        let Some(recent) = run.columns().last().and_then(|c| c.as_list_opt::<i32>()) else {
            return internal_err!("people stand last");
        };
        let recent = recent.clone();
        let people = People {
            count: counts,
            recent,
        };
        let update = self.update(columns, people, version, watermark)?;
        self.runs.push(run)?;
        Ok(Some(update))
    }

    /// Every row as of the last drain.
    pub fn all(&self, version: i64, watermark: Option<i64>) -> Result<Option<ViewUpdate>> {
        let mut table = Table::new(&self.plan.layout)?;
        for run in self.runs.batches() {
            table.merge(run)?;
        }
        let rows = table.len();
        if rows == 0 {
            return Ok(None);
        }
        let Results { columns, people } = table.into_results()?;
        let nobody = new_null_array(&crate::people::list_type(), rows);
        let people = People {
            count: people,
            recent: nobody.as_list::<i32>().clone(),
        };
        self.update(columns, people, version, watermark).map(Some)
    }

    fn update(
        &self,
        columns: Vec<ArrayRef>,
        people: People,
        version: i64,
        watermark: Option<i64>,
    ) -> Result<ViewUpdate> {
        let rows = people.count.len();
        let keys = key::texts(&columns[..self.plan.keys.len()], rows);
        let rows = self.outputs(columns, rows)?;
        Ok(ViewUpdate {
            view: Arc::clone(&self.plan.common.info),
            rows,
            keys,
            version,
            watermark,
            people: Some(people),
        })
    }

    fn outputs(&self, results: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.plan.result_schema);
        let results = RecordBatch::try_new_with_options(schema, results, &options)?;
        self.plan.common.outputs(&self.plan.outputs, &results)
    }

    /// One row over all records of these groups, as of the last drain; key columns hold `other`.
    pub fn fold(&self, keys: &[String]) -> Result<Option<Vec<Value>>> {
        let layout = &self.plan.layout;
        let Some((groups, rows)) = key::parse(keys, &layout.keys) else {
            return Ok(None);
        };
        let asked = Asked::new(layout, &groups, rows)?;
        let mut table = Table::new(layout)?;
        for run in self.runs.find(&asked.hashes)? {
            let run = asked.only(&run, layout.groups(&run))?;
            if run.num_rows() > 0 {
                table.merge_into_one(&run)?;
            }
        }
        if table.len() == 0 {
            return Ok(None);
        }
        let mut results = table.into_one_result()?.columns;
        for (function, pairs) in self.pairs.iter().enumerate() {
            if let Some(pairs) = pairs {
                let count = pairs.distinct_values(&asked, layout.keys.len())?;
                results[layout.keys.len() + function] = Arc::new(Int64Array::from(vec![count]));
            }
        }
        let row = self.outputs(results, 1)?;
        let columns = self.plan.common.info.columns.iter().zip(row.columns());
        let values = columns.map(|(column, values)| {
            if column.key {
                Value::Text("other".into())
            } else {
                Value::at(values, 0)
            }
        });
        Ok(Some(values.collect()))
    }

    /// Drops the state of windows that end at `floor` or before; gives their keys. A view with rows
    /// that were not drained yet keeps all.
    pub fn expire(&mut self, floor: i64) -> Result<Vec<String>> {
        let Some((windows, key)) = self.plan.windows else {
            return Ok(Vec::new());
        };
        if self.fresh.len() > 0 {
            return Ok(Vec::new());
        }
        let open = |run: &RecordBatch| -> BooleanArray {
            let starts = run.column(key).as_primitive::<TimestampMicrosecondType>();
            starts
                .values()
                .iter()
                .map(|s| Some(windows.end(*s) > floor))
                .collect()
        };
        let mut dropped = BTreeSet::new();
        for run in self.runs.retain(open)? {
            let texts = key::texts(self.plan.layout.groups(&run), run.num_rows());
            dropped.extend(texts.iter().flatten().map(str::to_owned));
        }
        for pairs in self.pairs.iter_mut().flatten() {
            pairs.runs.retain(open)?;
        }
        Ok(dropped.into_iter().collect())
    }

    /// The whole state. What is fresh stays fresh.
    pub fn state(&mut self) -> Result<State> {
        Ok(State {
            runs: self.runs.batches().cloned().collect(),
            fresh: copy(&mut self.fresh, &self.plan.layout)?,
            pairs: self
                .pairs
                .iter_mut()
                .flatten()
                .map(|pairs| {
                    let runs = pairs.runs.batches().cloned().collect();
                    Ok((runs, copy(&mut pairs.fresh, &pairs.runs.layout)?))
                })
                .collect::<Result<_>>()?,
        })
    }

    /// Replaces the whole state.
    pub fn restore(&mut self, state: State) -> Result<()> {
        self.runs.replace(state.runs)?;
        self.fresh = Table::new(&self.plan.layout)?;
        self.fresh.merge(&state.fresh)?;
        for (pairs, (runs, fresh)) in self.pairs.iter_mut().flatten().zip(state.pairs) {
            pairs.runs.replace(runs)?;
            pairs.fresh = Table::new(&pairs.runs.layout)?;
            pairs.fresh.merge(&fresh)?;
        }
        Ok(())
    }
}

/// The states of a table that goes on.
fn copy(table: &mut Table, layout: &Arc<Layout>) -> Result<RecordBatch> {
    let states = std::mem::replace(table, Table::new(layout)?).into_states()?;
    table.merge(&states)?;
    Ok(states)
}

/// Drops the rows whose last column is NULL.
fn drop_nulls(columns: &mut [ArrayRef]) -> Result<()> {
    let Some(values) = columns.last().filter(|v| v.logical_null_count() > 0) else {
        return Ok(());
    };
    let known = is_not_null(values)?;
    for column in columns {
        *column = filter(column, &known)?;
    }
    Ok(())
}

impl Pairs {
    /// Those of `fresh` that stand in no run.
    fn new_ones(&self, fresh: &RecordBatch) -> Result<RecordBatch> {
        let hashes = distinct(row_hashes(fresh.columns(), fresh.num_rows())?);
        let older = self.runs.find(&hashes)?;
        if older.is_empty() {
            return Ok(fresh.clone());
        }
        // Older pairs take the first numbers, so a fresh one with a later number is new.
        let mut table = Table::new(&self.runs.layout)?;
        for run in &older {
            table.intern(run.columns(), run.num_rows())?;
        }
        let known = table.len();
        let rows = table.intern(fresh.columns(), fresh.num_rows())?;
        let new: BooleanArray = rows.iter().map(|&r| Some(r >= known)).collect();
        Ok(filter_record_batch(fresh, &new)?)
    }

    /// How many values the asked groups have between them. Reads every pair.
    fn distinct_values(&self, asked: &Asked, keys: usize) -> Result<i64> {
        let value_type = self.runs.layout.keys[keys].clone();
        let values = Layout::new(vec![value_type], Vec::new(), None)?;
        let mut values = Table::new(&values)?;
        for run in self.runs.batches() {
            let own = asked.only(run, &run.columns()[..keys])?;
            if own.num_rows() > 0 {
                values.intern(&own.columns()[keys..], own.num_rows())?;
            }
        }
        Ok(i64::try_from(values.len()).unwrap_or(i64::MAX))
    }
}

/// Groups that are asked for.
struct Asked {
    layout: Arc<Layout>,
    groups: Vec<ArrayRef>,
    rows: usize,
    hashes: Vec<u64>,
}

impl Asked {
    fn new(layout: &Arc<Layout>, groups: &[ArrayRef], rows: usize) -> Result<Self> {
        Ok(Self {
            layout: Layout::new(layout.keys.clone(), Vec::new(), None)?,
            groups: groups.to_vec(),
            rows,
            hashes: distinct(row_hashes(groups, rows)?),
        })
    }

    /// The rows of `run` whose groups are asked for.
    fn only(&self, run: &RecordBatch, groups: &[ArrayRef]) -> Result<RecordBatch> {
        let mut table = Table::new(&self.layout)?;
        table.intern(&self.groups, self.rows)?;
        let asked = table.len();
        let rows = table.intern(groups, run.num_rows())?;
        let mask: BooleanArray = rows.iter().map(|&r| Some(r < asked)).collect();
        Ok(filter_record_batch(run, &mask)?)
    }
}

impl Taken {
    fn of(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = match &self.rows {
            Rows::All => return Ok(batch.clone()),
            Rows::Filtered(mask) => mask.true_count(),
            Rows::Picked(rows) => rows.len(),
        };
        let columns = match &self.rows {
            Rows::Filtered(mask) => {
                let filter = FilterBuilder::new(mask).optimize().build();
                let columns = batch.columns().iter().map(|c| filter.filter(c));
                columns.collect::<std::result::Result<_, _>>()?
            }
            _ => batch
                .columns()
                .iter()
                .map(|c| self.of_column(c))
                .collect::<Result<_>>()?,
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(
            batch.schema(),
            columns,
            &options,
        )?)
    }

    fn of_column(&self, column: &ArrayRef) -> Result<ArrayRef> {
        Ok(match &self.rows {
            Rows::All => Arc::clone(column),
            Rows::Filtered(mask) => filter(column, mask)?,
            Rows::Picked(rows) => take(column, rows, None)?,
        })
    }
}
