//! Memory that all connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted in.
const PERMIT_BYTES: usize = 1024;

/// So much each connection may always hold, whatever the others do: bounded by their number.
pub(crate) const SMALL_BYTES: usize = 64 << 10;

/// So many bytes, and who holds how many of them.
pub(crate) struct Budget {
    permits: Arc<Semaphore>,
    total: u32,
    waiting: AtomicUsize,
}

/// A part of a budget; given back when dropped.
pub(crate) struct Paid(OwnedSemaphorePermit);

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX)
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        let total = permits(bytes);
        Self {
            permits: Arc::new(Semaphore::new(total as usize)),
            total,
            waiting: AtomicUsize::new(0),
        }
    }

    /// So many bytes, once they are free. Whoever came first is served first; what is more than there
    /// is at all counts as all there is.
    pub async fn pay(&self, bytes: usize) -> Paid {
        if let Some(paid) = self.try_pay(bytes) {
            return paid;
        }
        let _waiting = Waiting::new(&self.waiting);
        let count = permits(bytes).min(self.total);
        let free = Arc::clone(&self.permits).acquire_many_owned(count).await;
        Paid(free.expect("a budget is never closed"))
    }

    /// So many bytes, if they are free now.
    pub fn try_pay(&self, bytes: usize) -> Option<Paid> {
        let count = permits(bytes).min(self.total);
        Arc::clone(&self.permits)
            .try_acquire_many_owned(count)
            .ok()
            .map(Paid)
    }

    /// Whether somebody waits.
    pub fn pressed(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl Paid {
    /// Keeps so many bytes of it and gives the rest back.
    pub fn keep(&mut self, bytes: usize) {
        let unneeded = self.0.num_permits().saturating_sub(permits(bytes) as usize);
        drop(self.0.split(unneeded));
    }
}

/// Counts whoever waits, also where the waiting is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_is_given_back_is_there_for_others() {
        let budget = Budget::new(10 * PERMIT_BYTES);
        let mut all = budget.try_pay(1 << 30).expect("all there is");
        assert!(budget.try_pay(1).is_none());
        let waited = timeout(Duration::from_millis(1), async {
            let paying = budget.pay(1);
            tokio::pin!(paying);
            assert!(futures::poll!(&mut paying).is_pending() && budget.pressed());
            paying.await
        });
        assert!(waited.await.is_err());
        assert!(!budget.pressed(), "nobody waits any more");
        all.keep(9 * PERMIT_BYTES - 1);
        let rest = budget.try_pay(PERMIT_BYTES).expect("what was not kept");
        assert!(budget.try_pay(1).is_none());
        drop((all, rest));
        assert!(budget.try_pay(10 * PERMIT_BYTES).is_some());
    }
}
