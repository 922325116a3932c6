//! What readers may see, kept up to date by the pipeline.
//!
//! Always: feeding it ([`Hub::show`], [`Hub::set_status`], ..) takes a short lock and waits for
//! nobody; readers copy pointers under that lock and do their rendering outside.
//! Always: nothing is queued per reader. Readers of the event stream walk the one ring of deltas with
//! a cursor of their own, so a hundred slow readers cost what one costs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use falaj_record::{Publication, Value, ViewInfo, ViewKind};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::ChartConfig;
use crate::ingest::Ingest;
use crate::render;
use crate::status::{PrivacyPanel, Status, Time};

/// How long a delta is kept for readers that come back.
const RING_AGE_MAX: Duration = Duration::from_mins(1);
/// Rows the ring keeps at most: bounds its memory at some tens of megabytes.
const RING_ROWS_MAX: usize = 200_000;
/// Deltas a reader may be behind; beyond, a snapshot is smaller and sooner right.
const BACKLOG_DELTAS_MAX: u64 = 1_000;
/// Deltas handed to a reader at once.
const BURST_DELTAS_MAX: usize = 64;
/// Samples behind the sparklines: five minutes.
const HISTORY_SAMPLES_MAX: usize = 300;
/// Shortest distance of two samples (a little less than a second, for clocks that jitter).
const SAMPLE_EVERY: Duration = Duration::from_millis(900);
/// Readers of the event stream at a time.
pub(crate) const CLIENTS_MAX: usize = 200;

/// The newest published rows of every view, the newest status, and who is to be told.
///
/// Cheap to clone: all clones are the same hub.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    pipeline: String,
    /// Differs from every other run's, so that no id of an earlier run is taken for one of this.
    epoch: String,
    views: Vec<Arc<ViewInfo>>,
    charts: Vec<ChartConfig>,
    state: Mutex<State>,
    signal: watch::Sender<Signal>,
    counters: Counters,
}

/// What a reader of the event stream waits for a change of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Signal {
    /// Number of the newest delta.
    pub seq: u64,
    /// Number of the newest status.
    pub status: u64,
    /// Whether the run has ended.
    pub over: bool,
}

/// falaj's own counts of serving.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Readers of the event stream now.
    pub clients: AtomicUsize,
    /// Readers turned away because there were too many.
    pub refused: AtomicU64,
    /// Fresh snapshots for readers that had fallen behind.
    pub lagged: AtomicU64,
    /// Events sent, by name.
    pub snapshots: AtomicU64,
    /// See `snapshots`.
    pub deltas: AtomicU64,
    /// See `snapshots`.
    pub statuses: AtomicU64,
    /// Answers by status code.
    pub responses: Mutex<BTreeMap<u16, u64>>,
}

#[derive(Default)]
struct State {
    seq: u64,
    ring: VecDeque<Arc<Delta>>,
    ring_rows: usize,
    boards: BTreeMap<String, Board>,
    status: Option<Arc<Status>>,
    history: History,
    privacy: Option<Arc<PrivacyPanel>>,
    ingest: Desk,
}

/// Where requests with records go.
#[derive(Clone, Default)]
pub(crate) enum Desk {
    /// Nowhere: the pipeline takes none.
    #[default]
    Absent,
    /// To the pipeline, once it runs here.
    Closed { has_token: bool },
    /// To the pipeline.
    Open(Arc<dyn Ingest>),
}

impl Desk {
    /// Whether anybody who reaches the server may send records, now or later.
    pub fn exposed(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::Closed { has_token } => !has_token,
            Self::Open(ingest) => !ingest.has_token(),
        }
    }
}

/// A row's `_key` and its values in SELECT order.
pub(crate) type Row = (Arc<str>, Arc<[Value]>);

/// The published rows of one aggregate view.
struct Board {
    info: Arc<ViewInfo>,
    rows: BTreeMap<Arc<str>, Arc<[Value]>>,
    version: i64,
    watermark: Option<i64>,
    suppressed: u64,
    publications: u64,
}

/// A copy of a [`Board`] that can be read at leisure; it shares the values.
pub(crate) struct Table {
    pub info: Arc<ViewInfo>,
    pub rows: Vec<Row>,
    pub version: i64,
    pub watermark: Option<i64>,
    pub suppressed: u64,
}

/// A publication on its way to the readers.
pub(crate) struct Delta {
    pub seq: u64,
    pub info: Arc<ViewInfo>,
    pub version: i64,
    pub watermark: Option<i64>,
    pub suppressed: u64,
    pub upserts: Vec<Row>,
    pub deletes: Vec<String>,
    at: Instant,
    /// As sent: rendered by the first reader who wants it, or never.
    pub event: OnceLock<Bytes>,
}

/// What a reader of the event stream gets next.
pub(crate) enum Next {
    /// It has everything.
    Nothing,
    /// It misses these.
    Deltas(Vec<Arc<Delta>>),
    /// It misses something that is not kept any more, or too much.
    Snapshot,
}

/// Everything a reader needs to start with.
pub(crate) struct Snapshot {
    pub seq: u64,
    pub boards: Vec<Table>,
    pub status: Option<Arc<Status>>,
    pub status_number: u64,
    pub history: Vec<Sample>,
    pub privacy: Option<Arc<PrivacyPanel>>,
}

/// One point of the sparklines.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    /// Records a second out of the source.
    pub r#in: f64,
    /// Rows a second into all stores.
    pub out: f64,
    /// Records the views are behind.
    pub lag: u64,
    /// Records rejected since the sample before.
    pub rejected: u64,
    /// Records withheld since the sample before.
    pub withheld: u64,
    /// Groups folded or held back.
    pub protected: u64,
}

#[derive(Default)]
struct History {
    samples: VecDeque<Sample>,
    taken: Option<Instant>,
    rejected: u64,
    withheld: u64,
}

impl Hub {
    /// A hub that shows nothing yet. Row views are listed, but their rows are never shown.
    #[must_use]
    pub fn new(pipeline: &str, views: &[Arc<ViewInfo>], charts: Vec<ChartConfig>) -> Self {
        let boards = views
            .iter()
            .filter(|view| view.kind == ViewKind::Aggregate)
            .map(|view| (view.name.clone(), Board::new(view)))
            .collect();
        Self(Arc::new(Shared {
            pipeline: pipeline.to_owned(),
            epoch: format!("{:x}", Time::now().0),
            views: views.to_vec(),
            charts,
            state: Mutex::new(State {
                boards,
                ..State::default()
            }),
            signal: watch::Sender::new(Signal::default()),
            counters: Counters::default(),
        }))
    }

    /// Shows publications: applies them to what newcomers see and tells the readers who are there.
    ///
    /// Publications of views that the hub does not know and of row views are dropped (and logged).
    pub fn show(&self, publications: &[Publication]) {
        self.show_at(publications, Instant::now());
    }

    fn show_at(&self, publications: &[Publication], now: Instant) {
        if publications.is_empty() {
            return;
        }
        let seq = {
            let mut state = self.0.state.lock();
            for publication in publications {
                state.apply(publication, now);
            }
            state.forget(now);
            state.seq
        };
        self.0
            .signal
            .send_if_modified(|signal| std::mem::replace(&mut signal.seq, seq) != seq);
    }

    /// Shows a new status; the page wants one a second.
    pub fn set_status(&self, status: Status) {
        self.set_status_at(status, Instant::now());
    }

    fn set_status_at(&self, status: Status, now: Instant) {
        let mut state = self.0.state.lock();
        let protected = state.boards.values().map(|b| b.suppressed).sum();
        state.history.take(&status, protected, now);
        state.status = Some(Arc::new(status));
        // Under the lock, so that a snapshot never holds a newer status than its number says.
        self.0.signal.send_modify(|signal| signal.status += 1);
    }

    /// Shows what the privacy policy does.
    pub fn set_privacy(&self, panel: PrivacyPanel) {
        self.0.state.lock().privacy = Some(Arc::new(panel));
    }

    /// Where `/ingest` brings its requests; without it there is no such route.
    pub fn set_ingest(&self, ingest: Arc<dyn Ingest>) {
        self.0.state.lock().ingest = Desk::Open(ingest);
    }

    /// Says that `/ingest` takes requests once the pipeline runs here, and not before.
    pub fn close_ingest(&self, has_token: bool) {
        self.0.state.lock().ingest = Desk::Closed { has_token };
    }

    pub(crate) fn ingest(&self) -> Desk {
        self.0.state.lock().ingest.clone()
    }

    /// What this falaj does while it does not run the pipeline; none where it does, or where nobody
    /// has said.
    pub(crate) fn inactive(&self) -> Option<Arc<Status>> {
        self.status().filter(|status| !status.state.active())
    }

    /// Says good-bye to the readers of the event stream; nothing is sent after it.
    pub fn bye(&self) {
        self.0.signal.send_modify(|signal| signal.over = true);
    }

    pub(crate) fn pipeline(&self) -> &str {
        &self.0.pipeline
    }

    pub(crate) fn epoch(&self) -> &str {
        &self.0.epoch
    }

    pub(crate) fn views(&self) -> &[Arc<ViewInfo>] {
        &self.0.views
    }

    pub(crate) fn charts(&self) -> &[ChartConfig] {
        &self.0.charts
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    pub(crate) fn listen(&self) -> watch::Receiver<Signal> {
        self.0.signal.subscribe()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.signal.borrow().over
    }

    pub(crate) fn status(&self) -> Option<Arc<Status>> {
        self.0.state.lock().status.clone()
    }

    pub(crate) fn privacy(&self) -> Option<Arc<PrivacyPanel>> {
        self.0.state.lock().privacy.clone()
    }

    /// The rows of one aggregate view, in the order of [`render::sort`].
    pub(crate) fn rows(&self, view: &str) -> Option<Table> {
        let mut rows = self.0.state.lock().boards.get(view).map(Board::copy)?;
        render::sort(&mut rows);
        Some(rows)
    }

    /// Everything at one moment.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut snapshot = {
            let state = self.0.state.lock();
            Snapshot {
                seq: state.seq,
                boards: state.boards.values().map(Board::copy).collect(),
                status: state.status.clone(),
                status_number: self.0.signal.borrow().status,
                history: state.history.samples.iter().copied().collect(),
                privacy: state.privacy.clone(),
            }
        };
        snapshot.boards.iter_mut().for_each(render::sort);
        snapshot
    }

    /// For metrics: name, rows, folded groups, publications of each aggregate view.
    pub(crate) fn board_counts(&self) -> Vec<(String, usize, u64, u64)> {
        let state = self.0.state.lock();
        let counts = |b: &Board| {
            (
                b.info.name.clone(),
                b.rows.len(),
                b.suppressed,
                b.publications,
            )
        };
        state.boards.values().map(counts).collect()
    }

    /// What a reader gets who has all up to delta `cursor`.
    pub(crate) fn next(&self, cursor: u64) -> Next {
        let state = self.0.state.lock();
        if cursor == state.seq {
            return Next::Nothing;
        }
        // A cursor beyond `seq` is none that this hub gave out.
        let oldest = state.ring.front().map_or(u64::MAX, |delta| delta.seq);
        if cursor > state.seq || cursor + 1 < oldest || state.seq - cursor > BACKLOG_DELTAS_MAX {
            return Next::Snapshot;
        }
        let first = usize::try_from(cursor + 1 - oldest).unwrap_or(usize::MAX);
        Next::Deltas(
            state
                .ring
                .iter()
                .skip(first)
                .take(BURST_DELTAS_MAX)
                .cloned()
                .collect(),
        )
    }
}

impl State {
    fn apply(&mut self, publication: &Publication, now: Instant) {
        let Some(board) = self.boards.get_mut(&publication.view.name) else {
            let view = publication.view.name.as_str();
            tracing::error!(
                view,
                "a publication of a view that is never published was dropped"
            );
            return;
        };
        let upserts: Vec<Row> = publication
            .upserts
            .iter()
            .map(|row| (row.key.as_str().into(), row.values.as_slice().into()))
            .collect();
        for (key, values) in &upserts {
            board.rows.insert(key.clone(), values.clone());
        }
        for key in &publication.deletes {
            board.rows.remove(key.as_str());
        }
        board.version = publication.version;
        board.watermark = publication.watermark;
        board.suppressed = publication.suppressed;
        board.publications += 1;
        self.seq += 1;
        let delta = Delta {
            seq: self.seq,
            info: board.info.clone(),
            version: publication.version,
            watermark: publication.watermark,
            suppressed: publication.suppressed,
            upserts,
            deletes: publication.deletes.clone(),
            at: now,
            event: OnceLock::new(),
        };
        self.ring_rows += delta.weight();
        self.ring.push_back(Arc::new(delta));
    }

    /// Cuts the ring to its age and size.
    fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.ring.front() {
            let old = now.duration_since(oldest.at) > RING_AGE_MAX;
            if !old && self.ring_rows <= RING_ROWS_MAX {
                break;
            }
            self.ring_rows -= oldest.weight();
            self.ring.pop_front();
        }
    }
}

impl Delta {
    fn weight(&self) -> usize {
        1 + self.upserts.len() + self.deletes.len()
    }
}

impl Board {
    fn new(info: &Arc<ViewInfo>) -> Self {
        Self {
            info: info.clone(),
            rows: BTreeMap::new(),
            version: 0,
            watermark: None,
            suppressed: 0,
            publications: 0,
        }
    }

    fn copy(&self) -> Table {
        Table {
            info: self.info.clone(),
            rows: self
                .rows
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            version: self.version,
            watermark: self.watermark,
            suppressed: self.suppressed,
        }
    }
}

impl History {
    fn take(&mut self, status: &Status, protected: u64, now: Instant) {
        if self
            .taken
            .is_some_and(|taken| now.duration_since(taken) < SAMPLE_EVERY)
        {
            return;
        }
        // The first status has no sample before it: what happened earlier is not of this second.
        let first = self.taken.is_none();
        let since = |total: u64, before: u64| {
            if first {
                0
            } else {
                total.saturating_sub(before)
            }
        };
        let sample = Sample {
            r#in: status.source.as_ref().map_or(0.0, |source| source.rate),
            out: status.sinks.iter().map(|sink| sink.rate).sum(),
            lag: status.lag.records,
            rejected: since(status.rejected(), self.rejected),
            withheld: since(status.withheld, self.withheld),
            protected,
        };
        (self.rejected, self.withheld) = (status.rejected(), status.withheld);
        self.taken = Some(now);
        if self.samples.len() == HISTORY_SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }
}

/// A place among the readers of the event stream; given back when dropped.
pub(crate) struct Place(Hub);

impl Place {
    /// A place, if one is free.
    pub(crate) fn take(hub: &Hub) -> Option<Self> {
        let counters = hub.counters();
        let taken = counters
            .clients
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < CLIENTS_MAX).then_some(n + 1)
            });
        if taken.is_err() {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(hub.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counters().clients.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use falaj_record::{Column, PublishedRow};

    use super::*;

    fn view(name: &str, kind: ViewKind) -> Arc<ViewInfo> {
        let column = |name: &str, data_type, key| Column {
            name: name.into(),
            data_type,
            key,
            nullable: true,
        };
        Arc::new(ViewInfo {
            name: name.into(),
            kind,
            columns: vec![
                column("nat", DataType::Utf8, true),
                column("users", DataType::Int64, false),
            ],
            window: None,
            fields: Vec::new(),
            sql: String::new(),
        })
    }

    fn publication(view: &Arc<ViewInfo>, version: i64, nat: &str, users: i64) -> Publication {
        Publication {
            view: view.clone(),
            version,
            watermark: None,
            suppressed: 1,
            upserts: vec![PublishedRow {
                key: format!("[\"{nat}\"]"),
                values: vec![Value::Text(nat.into()), Value::Int(users)],
            }],
            deletes: vec![],
        }
    }

    fn users(hub: &Hub) -> Vec<serde_json::Value> {
        let rows = hub.rows("by_nat").expect("the hub was made with this view");
        rows.rows
            .iter()
            .map(|(_, values)| values[1].json())
            .collect()
    }

    #[test]
    fn rows_are_upserted_and_deleted_by_key() {
        let view = view("by_nat", ViewKind::Aggregate);
        let hub = Hub::new("p", std::slice::from_ref(&view), vec![]);
        hub.show(&[
            publication(&view, 1, "CH", 5),
            publication(&view, 2, "FR", 6),
        ]);
        hub.show(&[publication(&view, 3, "CH", 7)]);
        assert_eq!(users(&hub), [7, 6]);
        let gone = Publication {
            upserts: vec![],
            deletes: vec!["[\"CH\"]".into()],
            ..publication(&view, 4, "CH", 0)
        };
        hub.show(&[gone]);
        assert_eq!(users(&hub), [6]);
    }

    #[test]
    fn a_row_view_is_never_shown() {
        let people = view("people", ViewKind::Row);
        let hub = Hub::new("p", std::slice::from_ref(&people), vec![]);
        hub.show(&[publication(&people, 1, "CH", 5)]);
        assert!(hub.rows("people").is_none());
        assert!(hub.snapshot().boards.is_empty());
        assert_eq!(hub.snapshot().seq, 0);
    }

    #[test]
    fn a_reader_gets_what_it_misses_or_a_snapshot() {
        let view = view("by_nat", ViewKind::Aggregate);
        let hub = Hub::new("p", std::slice::from_ref(&view), vec![]);
        let start = Instant::now();
        for version in 1..=3 {
            hub.show_at(&[publication(&view, version, "CH", version)], start);
        }
        let missed = |cursor| match hub.next(cursor) {
            Next::Nothing => vec![],
            Next::Deltas(deltas) => deltas.iter().map(|delta| delta.seq).collect(),
            Next::Snapshot => vec![0],
        };
        assert_eq!(missed(3), [0; 0]);
        assert_eq!(missed(1), [2, 3]);
        assert_eq!(missed(0), [1, 2, 3]);
        assert_eq!(missed(4), [0], "a cursor from the future");
        let later = start + RING_AGE_MAX + Duration::from_secs(1);
        hub.show_at(&[publication(&view, 4, "CH", 4)], later);
        assert_eq!(missed(2), [0], "deltas older than a minute are gone");
        assert_eq!(missed(3), [4]);
    }

    #[test]
    fn the_ring_is_bounded_and_so_is_the_way_back() {
        let view = view("by_nat", ViewKind::Aggregate);
        let hub = Hub::new("p", std::slice::from_ref(&view), vec![]);
        let now = Instant::now();
        let mut wide = publication(&view, 1, "CH", 1);
        wide.upserts = vec![wide.upserts[0].clone(); RING_ROWS_MAX / 4];
        for _ in 0..8 {
            hub.show_at(std::slice::from_ref(&wide), now);
        }
        assert!(hub.0.state.lock().ring_rows <= RING_ROWS_MAX);
        assert!(matches!(hub.next(1), Next::Snapshot), "cut by size");
        assert!(matches!(hub.next(7), Next::Deltas(_)));
        let seen = hub.snapshot().seq;
        for version in 0..=BACKLOG_DELTAS_MAX {
            hub.show_at(
                &[publication(
                    &view,
                    10,
                    "CH",
                    i64::try_from(version).unwrap_or(0),
                )],
                now,
            );
        }
        assert!(matches!(hub.next(seen), Next::Snapshot), "too far behind");
        assert!(matches!(hub.next(seen + 1), Next::Deltas(d) if d.len() == BURST_DELTAS_MAX));
    }

    #[test]
    fn places_are_capped_and_given_back() {
        let hub = Hub::new("p", &[], vec![]);
        let places: Vec<_> = (0..CLIENTS_MAX).map_while(|_| Place::take(&hub)).collect();
        assert_eq!(places.len(), CLIENTS_MAX);
        assert!(Place::take(&hub).is_none());
        drop(places);
        assert!(Place::take(&hub).is_some());
        assert_eq!(hub.counters().refused.load(Ordering::Relaxed), 1);
    }
}
