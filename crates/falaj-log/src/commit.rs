//! The commit thread: one a log. It syncs each partition that was written to once for all who wait,
//! and looks after retention.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Partitions that wait to be synced. Bounded by their number: each stands here at most once.
#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Default)]
struct Inner {
    dirty: VecDeque<(Arc<str>, i32)>,
    stop: bool,
}

/// What the commit thread does next.
pub(crate) enum Turn {
    /// Sync these.
    Commit(VecDeque<(Arc<str>, i32)>),
    /// Time for retention.
    Housekeeping,
    /// The log is being closed.
    Stop,
}

impl Queue {
    pub(crate) fn push(&self, topic: &Arc<str>, partition: i32) {
        self.inner
            .lock()
            .dirty
            .push_back((Arc::clone(topic), partition));
        self.wake.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.inner.lock().stop = true;
        self.wake.notify_one();
    }

    /// Waits for something to do. Who is in the queue is served before a stop.
    pub(crate) fn turn(&self, housekeeping_at: Instant) -> Turn {
        let mut inner = self.inner.lock();
        loop {
            if Instant::now() >= housekeeping_at {
                return Turn::Housekeeping;
            }
            if !inner.dirty.is_empty() {
                return Turn::Commit(std::mem::take(&mut inner.dirty));
            }
            if inner.stop {
                return Turn::Stop;
            }
            self.wake.wait_until(&mut inner, housekeeping_at);
        }
    }
}

/// The next time for retention.
pub(crate) fn after(period: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(period)
        .unwrap_or(now + Duration::from_hours(24))
}
