//! The bounded queue between the pipeline and one sink.
//!
//! Always: a slow or failing sink delays nobody else. Aggregate rows coalesce, so they never wait;
//! rows of row views are bounded, and [`Outlet::room`] holds back whoever would add more.
//! Always: what the sink has not acknowledged is in [`Outlet::pending`], what it is writing at
//! this moment included; a checkpoint that holds it loses nothing.
//! The state is behind a lock, not owned by the task that writes: a checkpoint must see it in the
//! same instant as the views, even while the sink hangs.

use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use falaj_record::{Hint, ViewInfo, ViewKind, ViewUpdate};
use hashbrown::HashMap;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::pending::{Pending, Queue};
use crate::{Sink, SinkError, now_us};

/// Requests to erase a subject that may wait for the sink at once.
const ERASURES_MAX: usize = 16;

/// Bounds of an outlet.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows of row views that may be unacknowledged before [`Outlet::room`] waits.
    pub person_rows_max: usize,
    /// Rows that one call of [`Sink::write`] gets at most.
    pub write_rows_max: usize,
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
            write_rows_max: 65_536,
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
    /// Rows acknowledged so far.
    pub written_rows: u64,
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

struct State {
    queue: Queue,
    /// Newest version offered of each view.
    newest: HashMap<String, i64>,
    /// What the sink is writing now.
    in_flight: Vec<ViewUpdate>,
    status: OutletStatus,
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

    fn turn(&mut self, state: OutletState) {
        if self.status.state != state {
            self.status.state = state;
            self.status.since_ms = now_ms();
        }
    }
}

impl Outlet {
    /// Starts the task that prepares `views` in `sink` and writes what is offered of them. Must be
    /// called inside a tokio runtime. `name` is the sink's in the pipeline file. Whoever wants to
    /// know of faults at the start, and of empty tables, calls [`Sink::prepare`] before: it may be
    /// called twice.
    #[must_use]
    pub fn new(name: &str, sink: Box<dyn Sink>, views: Vec<Arc<ViewInfo>>, limits: Limits) -> Self {
        let name: Arc<str> = name.into();
        let status = OutletStatus {
            sink: Arc::clone(&name),
            kind: sink.kind(),
            state: OutletState::Starting,
            since_ms: now_ms(),
            attempts: 0,
            retry_at_ms: None,
            error: None,
            hint: None,
            pending_rows: 0,
            written_rows: 0,
            writes: 0,
            failures: 0,
            last_write_us: None,
        };
        let state = State {
            queue: Queue::new(&views),
            newest: HashMap::new(),
            in_flight: Vec::new(),
            status,
        };
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
            prepared: false,
            retry_at: None,
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

    /// Puts back what an earlier run had not got acknowledged. To be called before anything is
    /// offered; updates of views that this sink does not take are dropped.
    pub fn restore(&self, pending: Pending) {
        self.shared
            .state
            .lock()
            .queue
            .put_back(pending.into_updates());
        self.shared.changed.notify_waiters();
    }

    /// Waits until rows of row views may be added again. Waiting here before reading on is how a
    /// slow sink pushes back on the topic.
    ///
    /// # Errors
    /// Where the sink is closed.
    pub async fn room(&self) -> Result<(), SinkError> {
        let max = self.shared.limits.person_rows_max;
        self.shared
            .until(|state| match state.status.state {
                OutletState::Closed => Some(Err(self.shared.closed())),
                _ => (state.person_rows() < max).then_some(Ok(())),
            })
            .await
    }

    /// Adds updates without waiting, all at once; `room` first keeps them bounded. Updates of one
    /// view come in the order of their versions; those of views that this sink does not take are
    /// dropped.
    ///
    /// # Errors
    /// Where the sink is closed or an update is out of order; nothing is added then.
    pub fn push(&self, updates: Vec<ViewUpdate>) -> Result<(), SinkError> {
        let mut guard = self.shared.state.lock();
        let state = &mut *guard;
        if state.status.state == OutletState::Closed {
            return Err(self.shared.closed());
        }
        for update in &updates {
            let newest = state
                .newest
                .entry_ref(update.view.name.as_str())
                .or_insert(i64::MIN);
            if update.version < *newest {
                return Err(SinkError::Order {
                    view: update.view.name.clone(),
                });
            }
            *newest = update.version;
        }
        for update in updates {
            if update.rows.num_rows() > 0 && state.queue.knows(&update.view.name) {
                state.queue.push(update);
            }
        }
        drop(guard);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// [`Outlet::room`], where there are rows of row views, and [`Outlet::push`]. Dropped while it
    /// waits, it has added nothing.
    ///
    /// # Errors
    /// As [`Outlet::push`].
    pub async fn offer(&self, updates: Vec<ViewUpdate>) -> Result<(), SinkError> {
        if updates
            .iter()
            .any(|update| update.view.kind == ViewKind::Row)
        {
            self.room().await?;
        }
        self.push(updates)
    }

    /// Everything that is not acknowledged, at this instant.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let mut guard = self.shared.state.lock();
        let state = &mut *guard;
        let mut updates = state.in_flight.clone();
        updates.extend(state.queue.updates().cloned());
        Pending::new(updates)
    }

    /// How the sink is doing, at this instant.
    #[must_use]
    pub fn status(&self) -> OutletStatus {
        let state = self.shared.state.lock();
        OutletStatus {
            pending_rows: state.rows(),
            ..state.status.clone()
        }
    }

    /// Waits until everything offered so far is acknowledged. While the sink fails it goes on
    /// waiting: [`Outlet::status`] says why.
    ///
    /// # Errors
    /// Where the sink is closed and something is left.
    pub async fn drained(&self) -> Result<(), SinkError> {
        self.shared
            .until(|state| match state.status.state {
                _ if state.rows() == 0 => Some(Ok(())),
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
        let updates = state.queue.take(self.limits.write_rows_max);
        state.in_flight.clone_from(&updates);
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

    fn written(&self, took: Duration) {
        self.worked();
        let mut state = self.state.lock();
        let rows = rows(&std::mem::take(&mut state.in_flight));
        state.status.written_rows += rows as u64;
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
        self.retry_at = match result {
            Ok(()) => None,
            Err(error) => Some(Instant::now() + self.shared.failed(&error)),
        };
    }

    async fn prepare(&mut self) -> Result<(), SinkError> {
        self.sink.prepare(&self.views).await?;
        self.prepared = true;
        self.shared.worked();
        Ok(())
    }

    async fn write(&mut self) -> Result<(), SinkError> {
        let updates = self.shared.begin_write();
        let started = Instant::now();
        self.sink.write(&updates).await?;
        let took = started.elapsed();
        debug!(sink = %self.shared.name, rows = rows(&updates), ?took, "written");
        self.shared.written(took);
        Ok(())
    }

    async fn erase(&mut self, erasure: Erasure) {
        self.shared.state.lock().queue.forget(&erasure.pid);
        self.shared.changed.notify_waiters();
        let erased = self.sink.erase(&erasure.pid).await;
        // Whoever asked may be gone; asking again is harmless.
        let _ = erasure.done.send(erased);
    }
}

fn rows(updates: &[ViewUpdate]) -> usize {
    updates.iter().map(|update| update.rows.num_rows()).sum()
}

fn now_ms() -> i64 {
    now_us() / 1000
}

#[cfg(test)]
mod tests;
