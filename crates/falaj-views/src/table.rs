//! Groups and their accumulators: one hash aggregation of `DataFusion`, driven batch by batch.
//!
//! A [`Table`] takes records (`Partial`) or partial states (`PartialReduce`), and gives partial states or
//! results (`Final`). It is `DataFusion`'s `AggregateExec` without the stream around it: the same group
//! values and the same accumulators, so a micro-batch of ten records costs microseconds.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use crate::people::{self, PeopleAccumulator};

/// Columns of a table: what is grouped by, what is computed.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Types of the group columns.
    pub keys: Vec<DataType>,
    functions: Vec<Arc<AggregateFunctionExpr>>,
    /// Number of state columns of each function.
    state_widths: Vec<usize>,
    /// Size at which sets of people stop growing; none are kept where there is no size.
    people: Option<usize>,
    group_schema: SchemaRef,
    /// Schema of a run: group columns, states, people.
    pub state_schema: SchemaRef,
}

impl Layout {
    pub fn new(
        keys: Vec<DataType>,
        functions: Vec<Arc<AggregateFunctionExpr>>,
        people: Option<usize>,
    ) -> Result<Arc<Self>> {
        let group_fields: Vec<Field> = keys
            .iter()
            .enumerate()
            .map(|(i, data_type)| Field::new(format!("key{i}"), data_type.clone(), true))
            .collect();
        let mut fields = group_fields.clone();
        let mut state_widths = Vec::with_capacity(functions.len());
        for (i, function) in functions.iter().enumerate() {
            let states = function.state_fields()?;
            state_widths.push(states.len());
            fields.extend(states.iter().enumerate().map(|(j, state)| {
                Field::new(format!("state{i}_{j}"), state.data_type().clone(), true)
            }));
        }
        if people.is_some() {
            fields.push(Field::new("people", people::list_type(), true));
        }
        Ok(Arc::new(Self {
            keys,
            functions,
            state_widths,
            people,
            group_schema: Arc::new(Schema::new(group_fields)),
            state_schema: Arc::new(Schema::new(fields)),
        }))
    }

    /// Group columns of a run.
    pub fn groups<'a>(&self, run: &'a RecordBatch) -> &'a [ArrayRef] {
        &run.columns()[..self.keys.len()]
    }
}

fn accumulator(function: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    if function.groups_accumulator_supported() {
        return function.create_groups_accumulator();
    }
    let function = Arc::clone(function);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || {
        function.create_accumulator()
    })))
}

/// Results of groups.
pub(crate) struct Results {
    /// Group columns, then one column a function.
    pub columns: Vec<ArrayRef>,
    /// People of each group, saturating.
    pub people: Vec<u32>,
}

/// Groups and their accumulators.
pub(crate) struct Table {
    layout: Arc<Layout>,
    /// None without group columns: then there is one group, once there is a row.
    values: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    people: Option<PeopleAccumulator>,
    len: usize,
    /// The group of each row of the batch at hand.
    rows: Vec<usize>,
}

impl Table {
    pub fn new(layout: &Arc<Layout>) -> Result<Self> {
        let values = if layout.keys.is_empty() {
            None
        } else {
            let schema = Arc::clone(&layout.group_schema);
            Some(new_group_values(schema, &GroupOrdering::None)?)
        };
        Ok(Self {
            values,
            accumulators: layout
                .functions
                .iter()
                .map(accumulator)
                .collect::<Result<_>>()?,
            people: layout.people.map(PeopleAccumulator::new),
            layout: Arc::clone(layout),
            len: 0,
            rows: Vec::new(),
        })
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The group of each row, new groups made; without touching an accumulator.
    pub fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<&[usize]> {
        if let Some(values) = &mut self.values {
            values.intern(keys, &mut self.rows)?;
            self.len = values.len();
        } else {
            self.rows.clear();
            self.rows.resize(rows, 0);
            self.len = self.len.max(usize::from(rows > 0));
        }
        Ok(&self.rows)
    }

    /// Adds records: the argument of each function, and the people.
    pub fn update(
        &mut self,
        keys: &[ArrayRef],
        args: &[ArrayRef],
        people: Option<&ArrayRef>,
        rows: usize,
    ) -> Result<()> {
        self.intern(keys, rows)?;
        for (accumulator, arg) in self.accumulators.iter_mut().zip(args) {
            let groups = if arg.len() == rows {
                self.rows.as_slice()
            } else {
                &[]
            };
            accumulator.update_batch(std::slice::from_ref(arg), groups, None, self.len)?;
        }
        if let (Some(sets), Some(people)) = (&mut self.people, people) {
            sets.update_batch(std::slice::from_ref(people), &self.rows, None, self.len)?;
        }
        Ok(())
    }

    /// Adds records to one function only, for groups that are there.
    pub fn update_one(&mut self, function: usize, keys: &[ArrayRef], arg: &ArrayRef) -> Result<()> {
        self.intern(keys, arg.len())?;
        let arg = std::slice::from_ref(arg);
        self.accumulators[function].update_batch(arg, &self.rows, None, self.len)
    }

    /// Adds partial states.
    pub fn merge(&mut self, run: &RecordBatch) -> Result<()> {
        let keys = self.layout.groups(run).to_vec();
        self.intern(&keys, run.num_rows())?;
        self.merge_states(run)
    }

    /// Adds partial states, all to one group.
    pub fn merge_into_one(&mut self, run: &RecordBatch) -> Result<()> {
        self.rows.clear();
        self.rows.resize(run.num_rows(), 0);
        self.len = 1;
        self.merge_states(run)
    }

    fn merge_states(&mut self, run: &RecordBatch) -> Result<()> {
        let mut states = &run.columns()[self.layout.keys.len()..];
        let widths = &self.layout.state_widths;
        for (accumulator, width) in self.accumulators.iter_mut().zip(widths) {
            let (own, rest) = states.split_at(*width);
            states = rest;
            accumulator.merge_batch(own, &self.rows, self.len)?;
        }
        if let Some(sets) = &mut self.people {
            sets.merge_batch(states, &self.rows, self.len)?;
        }
        Ok(())
    }

    /// The groups' values, in the order of their first rows.
    fn groups(&mut self) -> Result<Vec<ArrayRef>> {
        match &mut self.values {
            Some(values) => values.emit(EmitTo::All),
            None => Ok(Vec::new()),
        }
    }

    /// A run of partial states.
    pub fn into_states(mut self) -> Result<RecordBatch> {
        if self.len == 0 {
            // Without groups some accumulators give no columns at all.
            let schema = Arc::clone(&self.layout.state_schema);
            return Ok(RecordBatch::new_empty(schema));
        }
        let mut columns = self.groups()?;
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        if let Some(sets) = &mut self.people {
            columns.extend(sets.state(EmitTo::All)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.len));
        let schema = Arc::clone(&self.layout.state_schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }

    /// The final values.
    pub fn into_results(mut self) -> Result<Results> {
        let mut columns = self.groups()?;
        let people = self.finish(&mut columns)?;
        Ok(Results { columns, people })
    }

    /// The final values of the one group that all states were merged into; group columns are NULL.
    pub fn into_one_result(mut self) -> Result<Results> {
        let null = |data_type: &DataType| datafusion::arrow::array::new_null_array(data_type, 1);
        let mut columns: Vec<ArrayRef> = self.layout.keys.iter().map(null).collect();
        let people = self.finish(&mut columns)?;
        Ok(Results { columns, people })
    }

    fn finish(&mut self, columns: &mut Vec<ArrayRef>) -> Result<Vec<u32>> {
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        match &mut self.people {
            Some(sets) => {
                let sizes = sets.evaluate(EmitTo::All)?;
                Ok(sizes.as_primitive::<UInt32Type>().values().to_vec())
            }
            None => Ok(Vec::new()),
        }
    }
}
