use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use datafusion::common::DataFusionError;
use falaj_privacy::Cleared;
use falaj_record::{
    At, Batch, EVENT_TIME, OFFSET, PARTITION, PID, Reason, Reject, Schema, TopicLedger, Value,
    ViewInfo, ViewLedger, ViewUpdate,
};

use crate::aggregate::{AggregateView, State};
use crate::checkpoint::{Header, Reader, ViewHeader, Writer, broken};
use crate::error::{Cause, ViewError, ViewsError};
use crate::people;
use crate::plan::{self, Common, Plan};
use crate::row::RowView;
use crate::watermark::Watermarks;

/// A view as the pipeline file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewSpec {
    /// Its name.
    pub name: String,
    /// Its Spark SQL text.
    pub sql: String,
}

/// What views need to know beside their SQL.
#[derive(Debug, Clone)]
pub struct ViewOptions {
    /// How far behind the newest event time of its partition a record may come and not be late.
    pub lateness: Duration,
    /// Size at which the sets of people of a group stop growing: the larger of `k` and `delta_k`.
    pub people: usize,
    /// Number of the topic's partitions.
    pub partitions: i32,
    /// Whether every record has a pid.
    pub pid_required: bool,
}

/// The views of a pipeline and their state.
///
/// `push` records as they come, `drain` what changed, `checkpoint` between drains.
pub struct Views {
    schema: SchemaRef,
    list: Vec<View>,
    watermarks: Watermarks,
    /// Partition and offset of late records that were not taken yet.
    late: Vec<(i32, i64)>,
    windowed: bool,
    /// Rows of closed windows that are no longer in the state, by view.
    dropped: BTreeMap<String, u64>,
}

enum View {
    Row(Box<RowView>),
    Aggregate(Box<AggregateView>),
}

impl View {
    fn common(&self) -> &Common {
        match self {
            Self::Row(view) => &view.plan.common,
            Self::Aggregate(view) => &view.plan.common,
        }
    }

    fn ledger(&self) -> &ViewLedger {
        match self {
            Self::Row(view) => &view.ledger,
            Self::Aggregate(view) => &view.ledger,
        }
    }

    fn ledger_mut(&mut self) -> &mut ViewLedger {
        match self {
            Self::Row(view) => &mut view.ledger,
            Self::Aggregate(view) => &mut view.ledger,
        }
    }

    /// Names this view in what `DataFusion` reports, and leaves its text out: it may quote a value.
    fn failed(&self) -> impl Fn(DataFusionError) -> ViewsError + use<> {
        let view = self.common().info.name.clone();
        move |error| ViewsError::Compute {
            view: view.clone(),
            cause: Cause::from(&error),
        }
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.list.iter().map(|v| v.common().info.name.as_str());
        f.debug_list().entries(names).finish()
    }
}

impl Views {
    /// Plans `views` over the relation `records` of `schema`, or over each other.
    ///
    /// # Errors
    /// One for each view that cannot be planned, in the order of `views`.
    pub fn plan(
        schema: &Schema,
        views: &[ViewSpec],
        options: &ViewOptions,
    ) -> Result<Self, Vec<ViewError>> {
        let plans = plan::plan(schema, views, options)?;
        let mut planned = Vec::with_capacity(plans.len());
        let mut errors = Vec::new();
        for plan in plans {
            match plan {
                Plan::Row(plan) => planned.push(View::Row(Box::new(RowView::new(plan)))),
                Plan::Aggregate(plan) => {
                    let view = plan.common.info.name.clone();
                    match AggregateView::new(plan) {
                        Ok(view) => planned.push(View::Aggregate(Box::new(view))),
                        Err(_) => errors.push(ViewError {
                            view,
                            line: 1,
                            column: 1,
                            message: "the engine does not take these aggregates".into(),
                            hint: Some("write them another way, and please report it".into()),
                        }),
                    }
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let windowed = planned.iter().any(|v| v.common().info.window.is_some());
        let lateness = i64::try_from(options.lateness.as_micros()).unwrap_or(i64::MAX);
        Ok(Self {
            schema: Arc::clone(schema.arrow()),
            list: planned,
            watermarks: Watermarks::new(lateness, options.partitions),
            late: Vec::new(),
            windowed,
            dropped: BTreeMap::new(),
        })
    }

    /// What is known of each view, in the order they were given.
    #[must_use]
    pub fn info(&self) -> Vec<Arc<ViewInfo>> {
        let info = |v: &View| Arc::clone(&v.common().info);
        self.list.iter().map(info).collect()
    }

    /// For each view, by name, what changes with what it is computed by: its SQL, the fields it reads
    /// with their types, and how late its records may be.
    pub fn fingerprints(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|view| {
            let common = view.common();
            (common.info.name.as_str(), common.fingerprint.as_str())
        })
    }

    /// Takes records into all views.
    ///
    /// # Errors
    /// Where a view cannot compute on them; then the views' state is undefined.
    pub fn push(&mut self, batch: &Cleared<Batch>) -> Result<(), ViewsError> {
        self.apply(batch.get())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), ViewsError> {
        let records = &batch.0;
        if records.schema_ref().fields() != self.schema.fields() {
            return Err(ViewsError::Columns);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let column = |name| records.column_by_name(name).ok_or(ViewsError::Columns);
        let partitions = column(PARTITION)?.as_primitive::<Int32Type>();
        let times = column(EVENT_TIME)?.as_primitive::<TimestampMicrosecondType>();
        let bounds = self.watermarks.follow(partitions, times);
        let people: ArrayRef = Arc::new(people::hashes(column(PID)?.as_string::<i32>()));
        let mut late = vec![false; if self.windowed { batch.len() } else { 0 }];
        for view in &mut self.list {
            let failed = view.failed();
            match view {
                View::Row(view) => view.push(records).map_err(failed)?,
                View::Aggregate(view) => view
                    .push(records, &people, &bounds, &mut late)
                    .map_err(failed)?,
            }
        }
        if late.contains(&true) {
            let offsets = column(OFFSET)?.as_primitive::<Int64Type>();
            let places = partitions.values().iter().zip(offsets.values());
            let late = places.zip(late).filter(|(_, late)| *late);
            self.late.extend(late.map(|((p, o), _)| (*p, *o)));
        }
        Ok(())
    }

    /// Rows that changed since the last drain, with their new values, all at `version`.
    ///
    /// # Errors
    /// Where a view cannot compute its rows (a sum beyond BIGINT); then the views' state is undefined.
    pub fn drain(&mut self, version: i64) -> Result<Vec<ViewUpdate>, ViewsError> {
        let watermark = self.watermarks.lowest();
        let mut updates = Vec::new();
        for view in &mut self.list {
            let failed = view.failed();
            let update = match view {
                View::Row(view) => view.drain(version, watermark),
                View::Aggregate(view) => view.drain(version, watermark),
            };
            updates.extend(update.map_err(failed)?);
        }
        Ok(updates)
    }

    /// Lets go of the rows of row views that were not drained. They count as applied: somebody reads
    /// them again.
    pub fn forget_rows(&mut self) {
        for view in &mut self.list {
            if let View::Row(view) = view {
                view.forget();
            }
        }
    }

    /// Every row of the aggregate views as of the last drain, all at `version`: what to show after a
    /// restore. Rows of windows whose state was dropped are in the stores only.
    ///
    /// # Errors
    /// As [`Views::drain`].
    pub fn all(&mut self, version: i64) -> Result<Vec<ViewUpdate>, ViewsError> {
        let watermark = self.watermarks.lowest();
        let mut updates = Vec::new();
        for view in &self.list {
            if let View::Aggregate(aggregate) = view {
                updates.extend(aggregate.all(version, watermark).map_err(view.failed())?);
            }
        }
        Ok(updates)
    }

    /// The row over all records of the groups `keys` (texts of `_key`) as of the last drain: values in
    /// SELECT order, with the text `other` in key columns. None where no such group is there.
    ///
    /// # Errors
    /// [`ViewsError::Unknown`] where no aggregate view is named `view`; else as [`Views::drain`].
    pub fn fold(&mut self, view: &str, keys: &[String]) -> Result<Option<Vec<Value>>, ViewsError> {
        let found = self.list.iter().find(|v| v.common().info.name == view);
        match found {
            Some(found @ View::Aggregate(aggregate)) => {
                aggregate.fold(keys).map_err(found.failed())
            }
            _ => Err(ViewsError::Unknown { view: view.into() }),
        }
    }

    /// Counts of the views that read `records` itself: every record is applied, filtered or late.
    #[must_use]
    pub fn ledger(&self) -> BTreeMap<String, ViewLedger> {
        self.list
            .iter()
            .filter(|v| v.common().over_records)
            .map(|v| (v.common().info.name.clone(), v.ledger().clone()))
            .collect()
    }

    /// Late records since the last call, each once, as rejects of the time `now_ms` (milliseconds
    /// since 1970). Their length is not known here and given as 0.
    pub fn take_late(&mut self, now_ms: i64) -> Vec<Reject> {
        let reject = |(partition, offset)| Reject {
            at: At::Topic { partition, offset },
            reason: Reason::Late,
            path: None,
            length: 0,
            time_ms: now_ms,
        };
        self.late.drain(..).map(reject).collect()
    }

    /// Says which partitions are idle: at the log's end for so long that nobody waits for them.
    pub fn set_idle(&mut self, idle: &BTreeSet<i32>) {
        self.watermarks.idle.clone_from(idle);
    }

    /// The lowest watermark of all partitions that are not idle, in microseconds since 1970. None
    /// until each of them had a record, and while all are idle.
    #[must_use]
    pub fn watermark(&self) -> Option<i64> {
        self.watermarks.lowest()
    }

    /// Drops the state of windows that every partition which is not idle has passed, and gives their
    /// keys by view. The caller knows that every sink has their last rows.
    ///
    /// From then on every record of such a window is late, also of a partition that was idle: a window
    /// never comes back with a part of its records. Views with rows that were not drained keep theirs
    /// until the next call.
    ///
    /// # Errors
    /// Where the engine fails; then the views' state is undefined.
    pub fn expire(&mut self) -> Result<Vec<(String, Vec<String>)>, ViewsError> {
        let Some(floor) = self.watermarks.raise_floor() else {
            return Ok(Vec::new());
        };
        let mut expired = Vec::new();
        for view in &mut self.list {
            let failed = view.failed();
            let name = view.common().info.name.clone();
            if let View::Aggregate(view) = view {
                let keys = view.expire(floor).map_err(failed)?;
                if !keys.is_empty() {
                    *self.dropped.entry(name.clone()).or_insert(0) += keys.len() as u64;
                    expired.push((name, keys));
                }
            }
        }
        Ok(expired)
    }

    /// How many rows of closed windows of a view were dropped from the state: those are in the stores
    /// only, see [`Views::all`].
    #[must_use]
    pub fn dropped(&self, view: &str) -> u64 {
        self.dropped.get(view).copied().unwrap_or(0)
    }

    /// The whole state as bytes.
    ///
    /// # Errors
    /// Where the engine fails.
    pub fn checkpoint(&mut self) -> Result<Vec<u8>, ViewsError> {
        let mut header = Header {
            newest: self.watermarks.newest.clone(),
            floor: self.watermarks.floor,
            late: self.late.clone(),
            views: Vec::new(),
        };
        let mut batches: Vec<RecordBatch> = Vec::new();
        for view in &mut self.list {
            let name = &view.common().info.name;
            let mut entry = ViewHeader {
                name: name.clone(),
                fingerprint: view.common().fingerprint.clone(),
                ledger: view.ledger().clone(),
                dropped: self.dropped.get(name).copied().unwrap_or(0),
                ..ViewHeader::default()
            };
            let failed = view.failed();
            match view {
                View::Row(view) => {
                    entry.batches = view.pending().len();
                    batches.extend_from_slice(view.pending());
                }
                View::Aggregate(view) => {
                    let state = view.state().map_err(failed)?;
                    entry.batches = state.runs.len();
                    entry.fresh = true;
                    batches.extend(state.runs);
                    batches.push(state.fresh);
                    for (runs, fresh) in state.pairs {
                        entry.pairs.push(runs.len());
                        batches.extend(runs);
                        batches.push(fresh);
                    }
                }
            }
            header.views.push(entry);
        }
        let mut writer = Writer::new(&header)?;
        for batch in &batches {
            writer.batch(batch)?;
        }
        Ok(writer.finish())
    }

    /// Takes up the state of [`Views::checkpoint`]. A view that is gone is passed over; those named in
    /// `rebuild` stay empty, whatever the checkpoint has of them: see [`Views::adopt`].
    ///
    /// # Errors
    /// [`ViewsError::Changed`] names a view that is new or whose SQL, fields or settings are others;
    /// [`ViewsError::Checkpoint`] where the bytes are not whole. Then the views' state is undefined.
    pub fn restore(&mut self, bytes: &[u8], rebuild: &BTreeSet<String>) -> Result<(), ViewsError> {
        let (header, mut reader) = Reader::new(bytes)?;
        let kept = |view: &View| !rebuild.contains(&view.common().info.name);
        for view in self.list.iter().filter(|v| kept(v)) {
            let Common {
                info, fingerprint, ..
            } = view.common();
            let same = |v: &ViewHeader| v.name == info.name && v.fingerprint == *fingerprint;
            if !header.views.iter().any(same) {
                return Err(ViewsError::Changed {
                    view: info.name.clone(),
                });
            }
        }
        for entry in header.views {
            let named = |v: &&mut View| v.common().info.name == entry.name && kept(v);
            match self.list.iter_mut().find(named) {
                Some(view) => {
                    if entry.dropped > 0 {
                        self.dropped.insert(entry.name.clone(), entry.dropped);
                    }
                    view.restore(entry, &mut reader)?;
                }
                None => reader.skip(entry.sections())?,
            }
        }
        reader.finish()?;
        self.watermarks.newest = header.newest;
        self.watermarks.floor = header.floor;
        self.late = header.late;
        Ok(())
    }
}

impl Views {
    /// Takes the views `names` with all their state from `rebuilt`, which had the same plans and read
    /// the topic again up to where these views are. Their rows all come with the next drain.
    ///
    /// `topic` is the ledger up to there: records that retention took since then are in no rebuilt
    /// view, and are counted as filtered.
    pub fn adopt(&mut self, rebuilt: Self, names: &BTreeSet<String>, topic: &TopicLedger) {
        for mut view in rebuilt.list {
            let name = view.common().info.name.clone();
            let Some(own) = self.list.iter_mut().find(|v| v.common().info.name == name) else {
                continue;
            };
            if !names.contains(&name) {
                continue;
            }
            let ledger = view.ledger_mut();
            let counted = ledger.applied + ledger.filtered + ledger.late;
            ledger.filtered += topic.out.saturating_sub(counted);
            *own = view;
            self.dropped.remove(&name);
        }
    }
}

impl ViewHeader {
    /// How many batches belong to the view.
    fn sections(&self) -> usize {
        self.batches + usize::from(self.fresh) + self.pairs.iter().map(|p| p + 1).sum::<usize>()
    }
}

impl View {
    fn restore(&mut self, entry: ViewHeader, reader: &mut Reader<'_>) -> Result<(), ViewsError> {
        let failed = self.failed();
        match self {
            Self::Row(view) => {
                view.ledger = entry.ledger;
                let pending = reader.batches(entry.batches, view.schema())?;
                view.restore(pending);
                Ok(())
            }
            Self::Aggregate(view) => {
                view.ledger = entry.ledger;
                let schema = Arc::clone(&view.plan.layout.state_schema);
                let layouts: Vec<_> = view.plan.pairs.iter().flatten().cloned().collect();
                if layouts.len() != entry.pairs.len() || !entry.fresh {
                    return Err(broken("runs of a view"));
                }
                let runs = reader.batches(entry.batches, &schema)?;
                let fresh = reader.batch(&schema)?;
                let mut pairs = Vec::with_capacity(layouts.len());
                for (layout, count) in layouts.iter().zip(entry.pairs) {
                    let runs = reader.batches(count, &layout.state_schema)?;
                    pairs.push((runs, reader.batch(&layout.state_schema)?));
                }
                let state = State { runs, fresh, pairs };
                view.restore(state).map_err(failed)
            }
        }
    }
}
