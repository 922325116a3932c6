//! A row view while it runs: what came since the last drain, one row a person.
//!
//! Always: a pid lives in one partition, whose records come in order, so the last of a pid's rows is
//! its newest. Beyond the last drain nothing is kept: stores hold the rows.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, AsArray, BooleanArray, RecordBatch, StringArray, UInt64Array,
};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use datafusion::common::Result;
use falaj_record::{OFFSET, PARTITION, PID, ViewLedger, ViewUpdate};
use hashbrown::HashSet;

use crate::plan::{RowPlan, evaluate};

/// A row view.
pub(crate) struct RowView {
    pub plan: RowPlan,
    pub ledger: ViewLedger,
    /// Pid, partition, offset, then the view's columns.
    schema: SchemaRef,
    pending: Vec<RecordBatch>,
}

/// Columns before those of the view.
const HIDDEN: usize = 3;

impl RowView {
    pub fn new(plan: RowPlan) -> Self {
        let mut fields = vec![
            Arc::new(Field::new(PID, DataType::Utf8, true)),
            Arc::new(Field::new(PARTITION, DataType::Int32, false)),
            Arc::new(Field::new(OFFSET, DataType::Int64, false)),
        ];
        // Columns are told apart by place: a view may well select `pid`.
        let own = plan.common.output_schema.fields();
        fields.extend(
            own.iter()
                .enumerate()
                .map(|(i, f)| Arc::new(Field::new(format!("c{i}"), f.data_type().clone(), true))),
        );
        Self {
            plan,
            ledger: ViewLedger::default(),
            schema: Arc::new(Schema::new(fields)),
            pending: Vec::new(),
        }
    }

    /// Takes records.
    pub fn push(&mut self, records: &RecordBatch) -> Result<()> {
        let passes = self.plan.common.passes(records)?;
        let through = passes
            .as_ref()
            .map_or(records.num_rows(), BooleanArray::true_count);
        self.ledger.filtered += (records.num_rows() - through) as u64;
        self.ledger.applied += through as u64;
        if through == 0 {
            return Ok(());
        }
        let records = match &passes {
            None => records.clone(),
            Some(mask) => filter_record_batch(records, mask)?,
        };
        let schema = records.schema();
        let hidden = [PID, PARTITION, OFFSET].map(|name| schema.index_of(name));
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for index in hidden {
            columns.push(Arc::clone(records.column(index?)));
        }
        let inputs = self.plan.common.inputs(&records)?;
        columns.extend(evaluate(&self.plan.outputs, &inputs)?);
        self.pending
            .push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        Ok(())
    }

    /// The newest row of each pid since the last drain.
    pub fn drain(&mut self, version: i64, watermark: Option<i64>) -> Result<Option<ViewUpdate>> {
        if self.pending.is_empty() {
            return Ok(None);
        }
        let rows = concat_batches(&self.schema, &std::mem::take(&mut self.pending))?;
        let rows = newest(&rows)?;
        let keys = keys(&rows);
        let own: Vec<usize> = (HIDDEN..rows.num_columns()).collect();
        let columns = rows.project(&own)?.columns().to_vec();
        let schema = Arc::clone(&self.plan.common.output_schema);
        Ok(Some(ViewUpdate {
            view: Arc::clone(&self.plan.common.info),
            rows: RecordBatch::try_new(schema, columns)?,
            keys,
            version,
            watermark,
            people: None,
        }))
    }

    /// Lets go of the rows that were not drained.
    pub fn forget(&mut self) {
        self.pending.clear();
    }

    /// Schema of the rows that were not drained yet.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Rows that were not drained yet.
    pub fn pending(&self) -> &[RecordBatch] {
        &self.pending
    }

    /// Replaces the rows that were not drained yet.
    pub fn restore(&mut self, pending: Vec<RecordBatch>) {
        self.pending = pending;
    }
}

/// The last row of each pid; every row without one.
fn newest(rows: &RecordBatch) -> Result<RecordBatch> {
    let pids = rows.column(0).as_string::<i32>();
    let mut seen = HashSet::with_capacity(pids.len());
    let mut kept: Vec<u64> = Vec::with_capacity(pids.len());
    for row in (0..pids.len()).rev() {
        if pids.is_null(row) || seen.insert(pids.value(row)) {
            kept.push(row as u64);
        }
    }
    if kept.len() == rows.num_rows() {
        return Ok(rows.clone());
    }
    kept.reverse();
    Ok(take_record_batch(rows, &UInt64Array::from(kept))?)
}

/// The pid, or `<partition>/<offset>` of a record without one.
fn keys(rows: &RecordBatch) -> StringArray {
    let pids = rows.column(0).as_string::<i32>();
    if pids.null_count() == 0 {
        return pids.clone();
    }
    let partitions = rows.column(1).as_primitive::<Int32Type>();
    let offsets = rows.column(2).as_primitive::<Int64Type>();
    let key = |row: usize| {
        if pids.is_null(row) {
            format!("{}/{}", partitions.value(row), offsets.value(row))
        } else {
            pids.value(row).to_owned()
        }
    };
    (0..rows.num_rows()).map(|row| Some(key(row))).collect()
}
