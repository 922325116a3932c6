//! The right to run a pipeline: one falaj holds it at a time.
//!
//! Always: a lease that was lost stays lost; who wants it again asks for a new one.
//! Always: on a cluster, what is published under a lost lease is refused by the cluster itself, even
//! where the loser has not noticed (see docs/decisions/0008-lease-and-fencing.md).

use std::any::Any;
use std::time::Duration;

use tokio::sync::watch;

use crate::TopicError;

/// Ends the name of the topic whose only partition is the lease, on a cluster.
pub(crate) const SUFFIX: &str = ".lease";

/// The longest that it takes to notice that a lease was lost.
const NOTICED_AFTER: Duration = Duration::from_secs(1);

/// Where a lease stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Another one holds it, or nobody yet.
    Waiting,
    /// It is ours.
    Held,
    /// It was ours, or was asked for, and will not be ours again.
    Lost(String),
}

/// The right to run a pipeline. Dropping it gives it back.
#[must_use = "a lease that is dropped is given back"]
pub struct Lease {
    name: String,
    standing: watch::Receiver<Standing>,
    /// Whoever keeps the lease; ends with it.
    keeper: Option<Box<dyn Any + Send + Sync>>,
}

impl Lease {
    /// A lease that is held for good: the data directory's lock already keeps others out.
    pub(crate) fn for_good(name: &str) -> Self {
        let (_, standing) = watch::channel(Standing::Held);
        Self {
            name: name.to_owned(),
            standing,
            keeper: None,
        }
    }

    pub(crate) fn kept(
        name: &str,
        standing: watch::Receiver<Standing>,
        keeper: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            standing,
            keeper: Some(keeper),
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is ours now. Publishing does not rely on this: the cluster refuses the loser.
    #[must_use]
    pub fn held(&self) -> bool {
        *self.standing.borrow() == Standing::Held
    }

    /// Whether it is ours still, asked by who has just failed under it: that may be the first sign
    /// that it is lost, so whoever keeps it gets the time to notice.
    pub async fn still_held(&self) -> bool {
        self.keeper.is_none()
            || tokio::time::timeout(NOTICED_AFTER, self.lost())
                .await
                .is_err()
    }

    /// Waits as standby until it is ours; at once where it is.
    ///
    /// # Errors
    /// [`TopicError::LeaseLost`] where it cannot become ours any more: ask for a new one.
    pub async fn wait(&self) -> Result<(), TopicError> {
        let mut standing = self.standing.clone();
        let settled = standing.wait_for(|now| *now != Standing::Waiting).await;
        let reason = match settled.map(|now| now.clone()) {
            Ok(Standing::Lost(reason)) => reason,
            Ok(_) => return Ok(()),
            Err(_) => "its keeper ended".to_owned(),
        };
        Err(TopicError::LeaseLost {
            name: self.name.clone(),
            reason,
        })
    }

    /// Resolves when it is lost, with the reason: the caller stops publishing and writing at once.
    pub async fn lost(&self) -> TopicError {
        let mut standing = self.standing.clone();
        let ended = standing
            .wait_for(|now| matches!(now, Standing::Lost(_)))
            .await
            .map(|now| now.clone());
        let reason = match ended {
            Ok(Standing::Lost(reason)) => reason,
            // Without a keeper nobody can take it away.
            _ if self.keeper.is_none() => return std::future::pending().await,
            _ => "its keeper ended".to_owned(),
        };
        TopicError::LeaseLost {
            name: self.name.clone(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_fails_under_a_lease_learns_whether_it_was_lost() {
        assert!(Lease::for_good("people").still_held().await);
        let (tell, standing) = watch::channel(Standing::Held);
        let lease = Lease::kept("people", standing, Box::new(()));
        assert!(lease.still_held().await);
        let noticing = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            tell.send_replace(Standing::Lost("another one holds it".into()));
        };
        let (held, ()) = tokio::join!(lease.still_held(), noticing);
        assert!(!held);
    }
}
