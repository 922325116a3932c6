//! Becoming the one falaj that runs a pipeline.
//!
//! Always: one is active. On the embedded log the lock on the data directory says who; on a cluster a
//! lease does, and the cluster refuses what the loser of a lease publishes.
//! Always: a second one on a cluster waits as standby, and takes over where the checkpoints say.
//! Always: a command that changes what a pipeline keeps never waits: it is the one, or it is refused.
//! Always: whoever waits says what for, on stderr and on its page.
//! Absent on purpose: a standby of the embedded log. Whoever restarts the process is its standby.

use std::sync::Arc;
use std::time::Duration;

use falaj_log::Log;
use falaj_serve::RunState;
use falaj_topic::{Broker, Embedded, Lease};
use tokio_util::sync::CancellationToken;

use crate::data_dir::{DataDir, Lock};
use crate::failure::{Failure, Fault};
use crate::pipeline::Until;
use crate::plan::Plan;
use crate::stdio;

/// How often a standby looks whether the data directory is free.
const LOCK_LOOK: Duration = Duration::from_millis(500);
/// Waits between tries to reach the cluster.
const CONNECT_RETRY: Duration = Duration::from_secs(2);
/// How long a lease may take that nobody else holds; only then it is said that falaj waits.
const LEASE_PATIENCE: Duration = Duration::from_secs(4);
/// Longest wait for a lease whose holder may have died: the cluster notices that after 6 s.
const LEASE_WAIT_MAX: Duration = Duration::from_secs(15);

/// What the page says of a standby.
const STANDBY: &str = "another falaj runs this pipeline";

/// Is told whenever it changes what is waited for.
pub type Tell<'a> = &'a dyn Fn(RunState, Option<String>);

/// What only the active falaj has.
pub struct Active {
    pub lock: Lock,
    pub broker: Arc<dyn Broker>,
    /// The embedded log, where the topic is in it.
    pub log: Option<Arc<Log>>,
    pub lease: Lease,
}

/// Waits until this falaj is the active one; nothing where `stop` comes first. `lock` is that of the
/// data directory, where it is held already.
///
/// # Errors
/// Where the data directory cannot be used, or the broker cannot be used. A cluster that does not
/// answer is waited for, unless the run is to end by itself.
pub async fn activate(
    plan: &Plan,
    dir: &DataDir,
    lock: Option<Lock>,
    until: Until,
    stop: &CancellationToken,
    tell: Tell<'_>,
) -> Result<Option<Active>, Failure> {
    let ready = async {
        let lock = match lock {
            Some(lock) => lock,
            None => locked(dir, tell).await?,
        };
        let (broker, log) = connected(plan, dir, until, tell).await?;
        let lease = leased(plan, broker.as_ref(), tell).await?;
        Ok(Active {
            lock,
            broker,
            log,
            lease,
        })
    };
    stop.run_until_cancelled(ready).await.transpose()
}

/// Becomes the active one where no falaj runs the pipeline.
///
/// # Errors
/// Where one does, or as [`activate`].
pub async fn activate_now(plan: &Plan, dir: &DataDir) -> Result<Active, Failure> {
    let lock = dir.lock()?;
    let (broker, log) = connected(plan, dir, Until::CaughtUp, &|_, _| ()).await?;
    let topic = &plan.config.topic;
    let lease = broker.lease(&topic.name).await;
    let lease = lease.map_err(|e| Failure::stage(&e))?;
    match tokio::time::timeout(LEASE_WAIT_MAX, lease.wait()).await {
        Ok(held) => held.map_err(|e| Failure::stage(&e))?,
        Err(_) => {
            return Err(Failure::run(
                Fault::new(format!(
                    "another falaj is running this pipeline on `{}`",
                    topic.brokers
                ))
                .hint("stop it and its standbys first"),
            ));
        }
    }
    Ok(Active {
        lock,
        broker,
        log,
        lease,
    })
}

async fn locked(dir: &DataDir, tell: Tell<'_>) -> Result<Lock, Failure> {
    let mut said = false;
    loop {
        if let Some(lock) = dir.try_lock()? {
            if said {
                tell(RunState::Starting, None);
            }
            return Ok(lock);
        }
        if !std::mem::replace(&mut said, true) {
            let place = dir.path().display();
            stdio::say(&format!(
                "standby: {STANDBY} in `{place}`; waiting to take over"
            ));
            tell(RunState::Standby, Some(STANDBY.to_owned()));
        }
        tokio::time::sleep(LOCK_LOOK).await;
    }
}

async fn connected(
    plan: &Plan,
    dir: &DataDir,
    until: Until,
    tell: Tell<'_>,
) -> Result<(Arc<dyn Broker>, Option<Arc<Log>>), Failure> {
    if plan.config.topic.embedded() {
        let embedded = Embedded::open(&dir.topic()).await;
        let embedded = embedded.map_err(|e| Failure::stage(&e))?;
        let log = Arc::clone(embedded.log());
        return Ok((Arc::new(embedded), Some(log)));
    }
    let mut said = None;
    loop {
        let broker = falaj_topic::connect(&plan.config.topic, &dir.topic(), &plan.folder).await;
        match broker {
            Ok(broker) => {
                if said.is_some() {
                    tell(RunState::Starting, None);
                }
                return Ok((broker, None));
            }
            Err(e) if e.passing() && until == Until::Stopped => {
                let why = Fault::from_error(&e);
                if said.replace(why.chain()) != Some(why.chain()) {
                    stdio::warn(&why);
                    stdio::say("waiting for the cluster; Ctrl-C ends it");
                    tell(RunState::Waiting, Some(why.chain()));
                }
                tokio::time::sleep(CONNECT_RETRY).await;
            }
            Err(e) => return Err(Failure::stage(&e)),
        }
    }
}

async fn leased(plan: &Plan, broker: &dyn Broker, tell: Tell<'_>) -> Result<Lease, Failure> {
    let topic = &plan.config.topic;
    let mut said = false;
    loop {
        let lease = broker
            .lease(&topic.name)
            .await
            .map_err(|e| Failure::stage(&e))?;
        let soon = tokio::time::timeout(LEASE_PATIENCE, lease.wait()).await;
        let held = if let Ok(held) = soon {
            held
        } else {
            if !std::mem::replace(&mut said, true) {
                stdio::say(&format!(
                    "standby: {STANDBY} on `{}`; waiting to take over",
                    topic.brokers
                ));
                tell(RunState::Standby, Some(STANDBY.to_owned()));
            }
            lease.wait().await
        };
        match held {
            Ok(()) => {
                if said {
                    stdio::say("active: this falaj runs the pipeline now");
                    tell(RunState::Starting, None);
                }
                return Ok(lease);
            }
            // It was taken away before it was used: asked for again.
            Err(e) => {
                tracing::warn!(error = %e, "the lease was lost while waiting");
                tokio::time::sleep(CONNECT_RETRY).await;
            }
        }
    }
}
