//! The bounded queue between the pipeline and one sink.
//!
//! Always: a slow or failing sink delays nobody else, nothing here waits for it. Aggregate rows
//! coalesce; rows of row views are bounded in number and bytes, and what would be beyond the bounds
//! is left out: the outlet is *behind* then, and somebody reads those rows again from the topic, at
//! its own pace, from [`Behind::from`] on ([`Outlet::refill`]).
//! Always: what the sink has not acknowledged is in [`Outlet::pending`], what it is writing at
//! this moment and the place to read again from included; a checkpoint that holds it loses nothing.
//! The state is behind a lock, not owned by the task that writes: a checkpoint must see it in the
//! same instant as the views, even while the sink hangs.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use falaj_record::{At, Hint, Positions, Reject, ViewInfo, ViewKind, ViewUpdate};
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::pending::{self, Pending, Queue};
use crate::{Prepared, Sink, SinkError, Written, now_us};

/// Requests to erase a subject that may wait for the sink at once.
const ERASURES_MAX: usize = 16;
/// Rejects that may wait to be taken; more are counted only.
const REFUSED_LISTED_MAX: usize = 4096;
/// Rows of the first write, and what each has at least.
const WRITE_ROWS_FIRST: usize = 8_192;
const WRITE_ROWS_LEAST: usize = 256;
/// How often a sink that removes what has expired by being asked is asked.
const EXPIRE_EVERY: Duration = Duration::from_mins(1);
/// How long a store may be left alone before it is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(10);

/// Bounds of an outlet.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows of row views that may be unacknowledged before the outlet is behind.
    pub person_rows_max: usize,
    /// Bytes of their values, about, likewise.
    pub person_bytes_max: usize,
    /// Rows that one call of [`Sink::write`] gets at most, once the store has shown that it takes
    /// them within [`Limits::write_time`].
    pub write_rows_max: usize,
    /// What a call may take before the next one gets fewer rows: progress shows, and an erasure or a
    /// stop waits, by the call.
    pub write_time: Duration,
    /// Wait after the first failure; each further one doubles it.
    pub retry_first: Duration,
    /// Longest wait between two tries.
    pub retry_longest: Duration,
    /// How long [`Outlet::close`] waits for a write that is under way.
    pub close_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            person_rows_max: 65_536,
            person_bytes_max: 64 << 20,
            write_rows_max: 65_536,
            write_time: Duration::from_secs(2),
            retry_first: Duration::from_millis(250),
            retry_longest: Duration::from_secs(30),
            close_wait: Duration::from_secs(5),
        }
    }
}

/// How a sink is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutletState {
    /// Not connected yet, and nothing has failed.
    Starting,
    /// The last try worked.
    Ok,
    /// The last try failed; it is tried again.
    Failing,
    /// No longer writing.
    Closed,
}

/// How a sink is doing, in numbers and names only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutletStatus {
    /// Name in the pipeline file.
    pub sink: Arc<str>,
    /// Kind of the sink.
    pub kind: &'static str,
    /// How it is doing.
    pub state: OutletState,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// Failed tries in a row.
    pub attempts: u32,
    /// When it is tried again, in milliseconds since 1970; only while it fails.
    pub retry_at_ms: Option<i64>,
    /// Why it failed, without values; only while it fails.
    pub error: Option<String>,
    /// What a person can do about it.
    pub hint: Option<String>,
    /// Rows not acknowledged (superseded ones may be counted until they coalesce).
    pub pending_rows: usize,
    /// Whether rows of row views are read again from the topic.
    pub behind: bool,
    /// Rows acknowledged so far.
    pub written_rows: u64,
    /// Rows that the store refused so far, each for itself.
    pub refused_rows: u64,
    /// Writes acknowledged so far.
    pub writes: u64,
    /// Tries that failed so far.
    pub failures: u64,
    /// How long the last acknowledged write took, in microseconds.
    pub last_write_us: Option<u64>,
}

/// The queue in front of one sink, and the task that empties it.
///
/// Dropped without [`Outlet::close`], the task ends after the write that is under way.
#[derive(Debug)]
pub struct Outlet {
    shared: Arc<Shared>,
    erasures: mpsc::Sender<Erasure>,
    stop: CancellationToken,
    worker: Mutex<Option<JoinHandle<()>>>,
}

struct Erasure {
    pid: String,
    done: oneshot::Sender<Result<u64, SinkError>>,
}

struct Shared {
    name: Arc<str>,
    limits: Limits,
    state: Mutex<State>,
    /// Something in `state` changed that somebody may wait for.
    changed: Notify,
}

/// A place in the topic, between two records of each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Next offsets.
    pub positions: Positions,
    /// What the reader of the topic has to know to go on from there, in a form of its own.
    pub seen: Arc<[u8]>,
}

/// Row views of a sink have to be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Rows of records from here on are missing.
    pub from: Place,
    /// Up to here: the records behind it are offered as they come, once these are there.
    pub to: Positions,
}

struct State {
    queue: Queue,
    /// Up to where rows were offered.
    offered: Place,
    /// From where rows of row views are missing; none where they are not.
    missing: Option<Place>,
    /// Views whose table lacks rows of before, and whose rows nobody has offered since.
    owed: BTreeSet<String>,
    /// The filling of each view's table that has, or has before it, everything but what is owed.
    fillings: BTreeMap<String, String>,
    /// Rejects that nobody has taken yet.
    refused: Vec<Reject>,
    /// Number of the newest reject.
    refused_number: i64,
    /// Why what is missing cannot be read again.
    reading: Option<Unread>,
    /// Newest version offered of each view.
    newest: HashMap<String, i64>,
    /// What the sink is writing now.
    in_flight: Vec<ViewUpdate>,
    /// Bytes in it that belong to row views, about.
    in_flight_bytes: usize,
    /// Rows that the next write gets at most.
    write_rows: usize,
    status: OutletStatus,
}

/// Why what is missing cannot be read again, since when, and what to do.
struct Unread {
    why: String,
    hint: Option<String>,
    since_ms: i64,
}

impl State {
    fn rows(&self) -> usize {
        self.queue.rows() + rows(&self.in_flight)
    }

    fn person_rows(&self) -> usize {
        let people = |update: &&ViewUpdate| update.view.kind == ViewKind::Row;
        let in_flight = self.in_flight.iter().filter(people);
        self.queue.rows_of(ViewKind::Row) + in_flight.map(|u| u.rows.num_rows()).sum::<usize>()
    }

    /// Whether one more update of row views, so large, is within the bounds; nothing at all is.
    fn has_room(&self, rows: usize, bytes: usize, limits: &Limits) -> bool {
        let held = self.person_rows();
        held == 0
            || (held + rows <= limits.person_rows_max
                && self.queue.bytes() + self.in_flight_bytes + bytes <= limits.person_bytes_max)
    }

    /// Adds an update; of a row view with a version larger than every earlier one of that view.
    fn push(&mut self, mut update: ViewUpdate) {
        let name = &update.view.name;
        if update.rows.num_rows() == 0 || !self.queue.knows(name) {
            return;
        }
        let newest = self.newest.entry(name.clone()).or_insert(i64::MIN);
        if update.view.kind == ViewKind::Row {
            // What is read again and what comes live take their versions at the same time, but
            // stand one behind the other in the topic.
            update.version = update.version.max(newest.saturating_add(1));
        }
        *newest = update.version;
        self.queue.push(update);
    }

    /// Puts back what an earlier run had not got acknowledged; updates of views that this sink does
    /// not take are dropped.
    fn restore(&mut self, pending: Pending) {
        let (updates, missing, complete) = pending.into_parts();
        self.queue.put_back(updates);
        self.missing = missing.filter(|_| self.queue.has_row_views());
        self.fillings = complete;
        self.settle();
    }

    /// Finds out which tables lack rows: those without any, and those that are another filling than
    /// the one that was complete.
    fn prepared(&mut self, prepared: Prepared) {
        self.owed.extend(prepared.empty);
        let names: Vec<_> = self.queue.names().cloned().collect();
        for view in names {
            let filling = prepared.fillings.get(&view);
            let before = self.fillings.get(&view);
            // A table without a mark is taken for the one it was.
            if before.is_none() || filling.is_some_and(|filling| before != Some(filling)) {
                self.owed.insert(view.clone());
            }
            self.fillings
                .insert(view, filling.cloned().unwrap_or_default());
        }
    }

    /// Whether the store has everything.
    fn settled(&self) -> bool {
        let rows = self.rows() == 0 && self.missing.is_none() && self.owed.is_empty();
        rows && self.status.state != OutletState::Starting
    }

    /// Fewer rows for the next write where one took long, more where a full one did not.
    fn pace(&mut self, rows: usize, took: Duration, limits: &Limits) {
        if took > limits.write_time {
            let least = WRITE_ROWS_LEAST.min(limits.write_rows_max);
            self.write_rows = (rows / 2).max(least).min(self.write_rows);
        } else if rows >= self.write_rows && took < limits.write_time / 4 {
            self.write_rows = (self.write_rows * 2).min(limits.write_rows_max);
        }
    }

    /// What is missing, unless it was all read again.
    fn settle(&mut self) {
        let reached = |from: &Place| {
            let mut ends = self.offered.positions.0.iter();
            ends.all(|(partition, end)| from.positions.next(*partition) >= *end)
        };
        if self.missing.as_ref().is_some_and(reached) {
            self.missing = None;
        }
    }

    fn turn(&mut self, state: OutletState) {
        if self.status.state != state {
            self.status.state = state;
            self.status.since_ms = now_ms();
        }
    }
}

impl Outlet {
    /// Starts the task that prepares `views` in `sink` and writes what is offered of them. Must be
    /// called inside a tokio runtime. `name` is the sink's in the pipeline file, `offered` is where
    /// the topic is read from, and `pending` is what an earlier run had not got acknowledged; of views
    /// that it does not call complete, all rows are owed. Whoever wants to know of faults at the start
    /// calls [`Sink::prepare`] before, and passes on what it gave.
    #[must_use]
    pub fn new(
        name: &str,
        sink: Box<dyn Sink>,
        views: Vec<Arc<ViewInfo>>,
        prepared: Option<Prepared>,
        offered: Place,
        pending: Pending,
        limits: Limits,
    ) -> Self {
        let name: Arc<str> = name.into();
        let status = OutletStatus {
            sink: Arc::clone(&name),
            kind: sink.kind(),
            state: match prepared {
                Some(_) => OutletState::Ok,
                None => OutletState::Starting,
            },
            since_ms: now_ms(),
            attempts: 0,
            retry_at_ms: None,
            error: None,
            hint: None,
            pending_rows: 0,
            behind: false,
            written_rows: 0,
            refused_rows: 0,
            writes: 0,
            failures: 0,
            last_write_us: None,
        };
        let is_prepared = prepared.is_some();
        let mut state = State {
            queue: Queue::new(&views),
            offered,
            missing: None,
            owed: BTreeSet::new(),
            fillings: BTreeMap::new(),
            refused: Vec::new(),
            refused_number: 0,
            reading: None,
            newest: HashMap::new(),
            in_flight: Vec::new(),
            in_flight_bytes: 0,
            write_rows: limits.write_rows_max.min(WRITE_ROWS_FIRST),
            status,
        };
        state.restore(pending);
        if let Some(prepared) = prepared {
            state.prepared(prepared);
        }
        let (state, changed) = (Mutex::new(state), Notify::new());
        let shared = Arc::new(Shared {
            name,
            limits,
            state,
            changed,
        });
        let (erasures, requests) = mpsc::channel(ERASURES_MAX);
        let stop = CancellationToken::new();
        let worker = Worker {
            shared: Arc::clone(&shared),
            sink,
            views,
            prepared: is_prepared,
            retry_at: None,
            expire_at: Instant::now(),
            ping_at: Instant::now() + PING_AFTER,
            erasures: requests,
            stop: stop.clone(),
        };
        let worker = Mutex::new(Some(tokio::spawn(worker.run())));
        Self {
            shared,
            erasures,
            stop,
            worker,
        }
    }

    /// Name in the pipeline file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Adds updates, all at once, which are those of the records up to `to`; those of views that
    /// this sink does not take are dropped. Where there is no room for rows of row views these are
    /// left out, and the outlet is behind.
    ///
    /// # Errors
    /// Where the sink is closed or an update of an aggregate view is out of order; nothing is added
    /// then.
    pub fn offer(&self, updates: Vec<ViewUpdate>, to: Place) -> Result<(), SinkError> {
        let mut guard = self.shared.open()?;
        let state = &mut *guard;
        ordered(state, &updates)?;
        let (mut rows, mut bytes) = (0, 0);
        for update in &updates {
            if update.view.kind == ViewKind::Row && state.queue.knows(&update.view.name) {
                rows += update.rows.num_rows();
                bytes += pending::bytes(update);
            }
        }
        let full = rows > 0 && !state.has_room(rows, bytes, &self.shared.limits);
        if full && state.missing.is_none() {
            debug!(sink = %self.shared.name, "behind: row views will be read again");
            state.missing = Some(state.offered.clone());
        }
        let behind = state.missing.is_some();
        for update in updates {
            if update.view.kind == ViewKind::Aggregate || !behind {
                state.push(update);
            }
        }
        state.offered = to;
        drop(guard);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Adds all rows of aggregate views whose table lacks rows, as [`Outlet::take_owed`] named them.
    ///
    /// # Errors
    /// As [`Outlet::offer`].
    pub fn repay(&self, updates: Vec<ViewUpdate>) -> Result<(), SinkError> {
        let mut guard = self.shared.open()?;
        ordered(&mut guard, &updates)?;
        for update in updates {
            guard.push(update);
        }
        drop(guard);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// What of the row views is missing, if anything is.
    #[must_use]
    pub fn behind(&self) -> Option<Behind> {
        let state = self.shared.state.lock();
        let from = state.missing.clone()?;
        let to = state.offered.positions.clone();
        Some(Behind { from, to })
    }

    /// Makes the outlet behind from `from` on, which is not behind what is missing already.
    pub fn read_again(&self, from: Place) {
        let mut guard = self.shared.state.lock();
        if guard.queue.has_row_views() {
            guard.missing = Some(from);
            guard.settle();
        }
        drop(guard);
        self.shared.changed.notify_waiters();
    }

    /// Waits until the outlet is behind and there is room to read on for it.
    ///
    /// # Errors
    /// Where the sink is closed.
    pub async fn wants_more(&self) -> Result<Behind, SinkError> {
        let limits = &self.shared.limits;
        let (rows, bytes) = (limits.person_rows_max / 2, limits.person_bytes_max / 2);
        self.shared
            .until(|state| match (state.status.state, &state.missing) {
                (OutletState::Closed, _) => Some(Err(self.shared.closed())),
                (_, Some(from)) if state.has_room(rows, bytes, limits) => Some(Ok(Behind {
                    from: from.clone(),
                    to: state.offered.positions.clone(),
                })),
                _ => None,
            })
            .await
    }

    /// Adds rows of row views that were missing: those of the records from `from`, which is
    /// [`Behind::from`], up to `to`, which is not beyond [`Behind::to`]. Where by now something else
    /// is missing, as after [`Outlet::read_again`], they are left out: they will be read again.
    ///
    /// # Errors
    /// Where the sink is closed.
    pub fn refill(
        &self,
        from: &Place,
        updates: Vec<ViewUpdate>,
        to: Place,
    ) -> Result<(), SinkError> {
        let mut guard = self.shared.open()?;
        let still = guard.missing.as_ref();
        if still.is_none_or(|missing| missing.positions != from.positions) {
            return Ok(());
        }
        for update in updates {
            if update.view.kind == ViewKind::Row {
                guard.push(update);
            }
        }
        guard.missing = Some(to);
        guard.settle();
        drop(guard);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Says why what is missing cannot be read again, until that is over. Shown while nothing else
    /// fails.
    pub fn reading_failed(&self, why: Option<(String, Option<String>)>) {
        let mut state = self.shared.state.lock();
        let since_ms = state.reading.as_ref().map(|unread| unread.since_ms);
        state.reading = why.map(|(why, hint)| Unread {
            why,
            hint,
            since_ms: since_ms.unwrap_or_else(now_ms),
        });
    }

    /// Puts back what [`Outlet::take_owed`] gave and could not be repaid.
    pub fn owe(&self, views: BTreeSet<String>) {
        self.shared.state.lock().owed.extend(views);
    }

    /// Views whose table was found to lack rows since the last call: all rows they have by now are
    /// owed.
    #[must_use]
    pub fn take_owed(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.shared.state.lock().owed)
    }

    /// Rows that the store refused since the last call, as rejects.
    #[must_use]
    pub fn take_refused(&self) -> Vec<Reject> {
        std::mem::take(&mut self.shared.state.lock().refused)
    }

    /// Everything that is not acknowledged, at this instant.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let mut guard = self.shared.state.lock();
        let state = &mut *guard;
        let mut updates = state.in_flight.clone();
        updates.extend(state.queue.updates().cloned());
        let mut complete = state.fillings.clone();
        complete.retain(|view, _| !state.owed.contains(view));
        Pending::new(updates, state.missing.clone(), complete)
    }

    /// How the sink is doing, at this instant.
    #[must_use]
    pub fn status(&self) -> OutletStatus {
        let state = self.shared.state.lock();
        let mut status = OutletStatus {
            pending_rows: state.rows(),
            behind: state.missing.is_some(),
            ..state.status.clone()
        };
        if let (Some(unread), None) = (&state.reading, &status.error) {
            (status.state, status.since_ms) = (OutletState::Failing, unread.since_ms);
            (status.error, status.hint) = (Some(unread.why.clone()), unread.hint.clone());
        }
        status
    }

    /// Waits until everything offered so far is acknowledged, what is missing included, and nothing
    /// is owed. While the sink fails it goes on waiting: [`Outlet::status`] says why.
    ///
    /// # Errors
    /// Where the sink is closed and something is left.
    pub async fn drained(&self) -> Result<(), SinkError> {
        self.shared
            .until(|state| match state.status.state {
                _ if state.settled() => Some(Ok(())),
                OutletState::Closed => Some(Err(self.shared.closed())),
                _ => None,
            })
            .await
    }

    /// Removes a subject's rows from the queue and from the store, between two writes, and gives
    /// the number of rows removed from the store. Nothing of the subject may be offered any more.
    ///
    /// # Errors
    /// As [`Sink::erase`]; calling it again goes on.
    pub async fn erase(&self, pid: &str) -> Result<u64, SinkError> {
        let (done, answer) = oneshot::channel();
        let request = Erasure {
            pid: pid.to_owned(),
            done,
        };
        self.erasures
            .send(request)
            .await
            .map_err(|_| self.shared.closed())?;
        answer.await.map_err(|_| self.shared.closed())?
    }

    /// Ends the task after the write that is under way, or after [`Limits::close_wait`]. What is
    /// not acknowledged then stays in [`Outlet::pending`]. A second call does nothing.
    pub async fn close(&self) {
        self.stop.cancel();
        let Some(mut worker) = self.worker.lock().take() else {
            return;
        };
        if tokio::time::timeout(self.shared.limits.close_wait, &mut worker)
            .await
            .is_err()
        {
            warn!(sink = %self.shared.name, "given up waiting for the last write");
            worker.abort();
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The state, where the sink is not closed.
    fn open(&self) -> Result<MutexGuard<'_, State>, SinkError> {
        let state = self.state.lock();
        match state.status.state {
            OutletState::Closed => Err(self.closed()),
            _ => Ok(state),
        }
    }

    fn closed(&self) -> SinkError {
        SinkError::Closed {
            sink: self.name.to_string(),
        }
    }

    /// Waits until `answer` gives something.
    async fn until<T>(&self, mut answer: impl FnMut(&State) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(answer) = answer(&self.state.lock()) {
                return answer;
            }
            changed.await;
        }
    }

    /// Waits until it is time to do something for the sink: there are rows (or it is not prepared
    /// yet), and no back-off runs.
    async fn due(&self, prepared: bool, retry_at: Option<Instant>) {
        if let Some(at) = retry_at {
            tokio::time::sleep_until(at).await;
        }
        if prepared {
            self.until(|state| (state.queue.rows() > 0).then_some(()))
                .await;
        }
    }

    fn begin_write(&self) -> Vec<ViewUpdate> {
        let mut state = self.state.lock();
        let rows_max = state.write_rows;
        let updates = state.queue.take(rows_max);
        state.in_flight.clone_from(&updates);
        let people = updates.iter().filter(|u| u.view.kind == ViewKind::Row);
        state.in_flight_bytes = people.map(pending::bytes).sum();
        updates
    }

    fn worked(&self) {
        let mut state = self.state.lock();
        if state.status.state == OutletState::Failing {
            info!(sink = %self.name, attempts = state.status.attempts, "works again");
        }
        state.turn(OutletState::Ok);
        let status = &mut state.status;
        (status.attempts, status.retry_at_ms) = (0, None);
        (status.error, status.hint) = (None, None);
    }

    fn written(&self, written: &Written, took: Duration) {
        self.worked();
        let mut state = self.state.lock();
        let rows = rows(&std::mem::take(&mut state.in_flight));
        state.in_flight_bytes = 0;
        state.pace(rows, took, &self.limits);
        let rows = rows as u64;
        let refused = written.refused.len() as u64;
        state.status.written_rows += rows.saturating_sub(refused);
        state.status.refused_rows += refused;
        for row in &written.refused {
            let number = row.version.max(state.refused_number.saturating_add(1));
            state.refused_number = number;
            if state.refused.len() < REFUSED_LISTED_MAX {
                state.refused.push(Reject {
                    at: At::Sink {
                        sink: Arc::clone(&self.name),
                        view: row.view.as_str().into(),
                        number,
                    },
                    reason: row.reason,
                    path: row.column.as_deref().map(Into::into),
                    length: row.length,
                    time_ms: now_ms(),
                });
            }
        }
        state.status.writes += 1;
        state.status.last_write_us = Some(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        drop(state);
        self.changed.notify_waiters();
    }

    /// Takes note of a failure, and says how long to wait.
    fn failed(&self, error: &SinkError) -> Duration {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.queue.put_back(std::mem::take(&mut state.in_flight));
        state.in_flight_bytes = 0;
        let wait = self.limits.backoff(state.status.attempts);
        if state.status.state == OutletState::Failing {
            debug!(sink = %self.name, %error, attempts = state.status.attempts, "fails still");
        } else {
            warn!(sink = %self.name, %error, "failed, will be tried again");
        }
        state.turn(OutletState::Failing);
        let status = &mut state.status;
        status.attempts = status.attempts.saturating_add(1);
        status.failures += 1;
        status.retry_at_ms = Some(now_ms() + i64::try_from(wait.as_millis()).unwrap_or(0));
        (status.error, status.hint) = (Some(error.to_string()), error.hint());
        wait
    }
}

impl Limits {
    /// The wait after `attempts` earlier failures: doubled each time, and between half and all of
    /// it, so that several sinks of one store do not come back at the same moment.
    fn backoff(&self, attempts: u32) -> Duration {
        let doubled = self.retry_first.saturating_mul(1 << attempts.min(20));
        let whole = doubled.min(self.retry_longest);
        let share = RandomState::new().hash_one(attempts) % 512;
        whole / 2 + whole / 1024 * u32::try_from(share).expect("less than 512")
    }
}

/// The task that owns the sink.
struct Worker {
    shared: Arc<Shared>,
    sink: Box<dyn Sink>,
    views: Vec<Arc<ViewInfo>>,
    prepared: bool,
    retry_at: Option<Instant>,
    /// When rows that have expired are removed next.
    expire_at: Instant,
    /// When the store is asked whether it is there, unless it is used before.
    ping_at: Instant,
    erasures: mpsc::Receiver<Erasure>,
    stop: CancellationToken,
}

/// Says that the outlet is closed, however its task ends.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.state.lock().turn(OutletState::Closed);
        self.0.changed.notify_waiters();
    }
}

impl Worker {
    async fn run(mut self) {
        let ended = Ended(Arc::clone(&self.shared));
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(erasure) = self.erasures.recv() => self.erase(erasure).await,
                () = self.shared.due(self.prepared, self.retry_at) => self.step().await,
                () = tokio::time::sleep_until(self.expire_at), if self.prepared => self.expire().await,
                () = tokio::time::sleep_until(self.ping_at), if self.prepared => self.ping().await,
            }
        }
        if let Err(error) = self.sink.close().await {
            warn!(sink = %ended.0.name, %error, "closing failed");
        }
    }

    async fn step(&mut self) {
        let result = if self.prepared {
            self.write().await
        } else {
            self.prepare().await
        };
        self.used(result);
    }

    async fn ping(&mut self) {
        let result = self.sink.ping().await;
        self.used(result);
    }

    /// Takes note of how the store did.
    fn used(&mut self, result: Result<(), SinkError>) {
        self.ping_at = Instant::now() + PING_AFTER;
        self.retry_at = match result {
            Ok(()) => None,
            Err(error) => {
                // A store that is back may be another one, or have lost its tables.
                self.prepared = false;
                Some(Instant::now() + self.shared.failed(&error))
            }
        };
    }

    async fn prepare(&mut self) -> Result<(), SinkError> {
        let prepared = self.sink.prepare(&self.views).await?;
        self.shared.state.lock().prepared(prepared);
        self.prepared = true;
        self.shared.worked();
        self.shared.changed.notify_waiters();
        Ok(())
    }

    async fn write(&mut self) -> Result<(), SinkError> {
        let updates = self.shared.begin_write();
        let started = Instant::now();
        let written = self.sink.write(&updates).await?;
        let took = started.elapsed();
        debug!(sink = %self.shared.name, rows = rows(&updates), ?took, "written");
        if !written.refused.is_empty() {
            let (sink, rows) = (&self.shared.name, written.refused.len());
            warn!(%sink, rows, "the store refused rows; `falaj rejects list` has them");
        }
        self.shared.written(&written, took);
        Ok(())
    }

    /// A failure here is no failure of the sink: the next write tells whether it works.
    async fn expire(&mut self) {
        self.expire_at = Instant::now() + EXPIRE_EVERY;
        match self.sink.expire().await {
            Ok(0) => {}
            Ok(rows) => debug!(sink = %self.shared.name, rows, "expired"),
            Err(error) => warn!(sink = %self.shared.name, %error, "expired rows may be left"),
        }
    }

    async fn erase(&mut self, erasure: Erasure) {
        self.shared.state.lock().queue.forget(&erasure.pid);
        self.shared.changed.notify_waiters();
        let erased = self.sink.erase(&erasure.pid).await;
        // Whoever asked may be gone; asking again is harmless.
        let _ = erasure.done.send(erased);
    }
}

/// Whether each update of an aggregate view is at least as new as the one before it.
fn ordered(state: &mut State, updates: &[ViewUpdate]) -> Result<(), SinkError> {
    let aggregates = |update: &&ViewUpdate| update.view.kind == ViewKind::Aggregate;
    let mut newest = HashMap::new();
    for update in updates.iter().filter(aggregates) {
        let view = &update.view.name;
        let held = newest
            .entry(view)
            .or_insert_with(|| state.newest.get(view).copied().unwrap_or(i64::MIN));
        if update.version < *held {
            return Err(SinkError::Order { view: view.clone() });
        }
        *held = update.version;
    }
    Ok(())
}

fn rows(updates: &[ViewUpdate]) -> usize {
    updates.iter().map(|update| update.rows.num_rows()).sum()
}

fn now_ms() -> i64 {
    now_us() / 1000
}

#[cfg(test)]
mod tests;
