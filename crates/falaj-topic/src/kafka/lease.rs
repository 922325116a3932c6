//! A lease on a cluster: membership in a group elects one falaj, and the epoch of its transactional
//! producer shuts out all that came before it (docs/decisions/0008-lease-and-fencing.md).
//!
//! Always: the lease is held only after its producer has fenced the one before.
//! Always: a lease that was lost is not taken up again here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::watch;
use tracing::info;

use super::cluster::{Cluster, Context, client};
use super::producer::Producer;
use crate::lease::{SUFFIX, Standing};
use crate::{Compression, Lease, TopicError};

/// How long after its last sign of life a falaj is taken for dead: the least that brokers allow by
/// default.
const SESSION_MS: &str = "6000";
const HEARTBEAT_MS: &str = "1500";
/// How often the group's events are served.
const TICK: Duration = Duration::from_millis(100);

/// The topic whose only partition is the lease `name`.
pub(super) fn topic(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

/// A member of the group that the lease goes through.
pub(super) struct Leased {
    name: String,
    group: String,
    member: Arc<BaseConsumer<Member>>,
    producer: Arc<Producer>,
    standing: watch::Receiver<Standing>,
    stop: Arc<AtomicBool>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// Listens to the group.
#[derive(Default)]
pub(super) struct Member {
    context: Context,
    turn: Mutex<Turn>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Waiting,
    Given,
    Taken,
    /// The group cannot be joined at all.
    Refused(String),
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut turn = self.turn.lock();
        match rebalance {
            Rebalance::Assign(list) if list.count() > 0 && *turn == Turn::Waiting => {
                *turn = Turn::Given;
            }
            Rebalance::Revoke(list) if list.count() > 0 => *turn = Turn::Taken,
            _ => {}
        }
    }
}

impl Leased {
    /// Joins the group and begins to wait. Blocks for a moment.
    pub fn ask(
        cluster: &Arc<Cluster>,
        compression: Compression,
        name: &str,
        group: &str,
    ) -> Result<Arc<Self>, TopicError> {
        let producer = Arc::new(Producer::leased(cluster, compression, name, group)?);
        let mut settings = cluster.settings();
        let mut unless_set = |key: &str, value: &str| {
            if settings.get(key).is_none() {
                settings.set(key, value);
            }
        };
        unless_set("session.timeout.ms", SESSION_MS);
        unless_set("heartbeat.interval.ms", HEARTBEAT_MS);
        settings
            .set("group.id", group)
            // Whoever has the partition keeps it while others come and go.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "latest")
            // Nothing is in it.
            .set("fetch.wait.max.ms", "5000");
        let member: BaseConsumer<Member> = settings
            .create_with_context(Member::default())
            .map_err(client)?;
        member
            .subscribe(&[&topic(name)])
            .map_err(|error| cluster.error(&format!("join group `{group}`"), &error))?;
        let member = Arc::new(member);
        let (tell, standing) = watch::channel(Standing::Waiting);
        let stop = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            member: Arc::clone(&member),
            producer: Arc::clone(&producer),
            stop: Arc::clone(&stop),
            tell,
        };
        let spawned = std::thread::Builder::new()
            .name("falaj-lease".into())
            .spawn(move || keeper.keep())
            .map_err(|error| TopicError::Refused {
                doing: format!("keep lease `{name}`"),
                reason: error.to_string(),
            })?;
        Ok(Arc::new(Self {
            name: name.to_owned(),
            group: group.to_owned(),
            member,
            producer,
            standing,
            stop,
            keeper: Mutex::new(Some(spawned)),
        }))
    }

    /// The lease for the caller; it is given back when that is dropped.
    pub fn lease(leased: Arc<Self>) -> Lease {
        let (name, standing) = (leased.name.clone(), leased.standing.clone());
        Lease::kept(&name, standing, Box::new(GivenBack(leased)))
    }

    /// The producer, while the lease is held.
    pub fn producer(&self) -> Result<Arc<Producer>, TopicError> {
        let reason = match &*self.standing.borrow() {
            Standing::Held => return Ok(Arc::clone(&self.producer)),
            Standing::Waiting => "it is not held yet".to_owned(),
            Standing::Lost(reason) => reason.clone(),
        };
        Err(TopicError::LeaseLost {
            name: self.name.clone(),
            reason,
        })
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    pub fn member(&self) -> Arc<dyn super::Commits> {
        Arc::clone(&self.member) as _
    }

    fn give_back(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(keeper) = self.keeper.lock().take() {
            let member = Arc::clone(&self.member);
            // Leaving talks to the brokers: not on a thread that others wait for.
            std::thread::spawn(move || {
                let _ = keeper.join();
                drop(member);
            });
        }
    }
}

/// Ends a lease when its holder drops it.
struct GivenBack(Arc<Leased>);

impl Drop for GivenBack {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// Serves the group on a thread of its own.
struct Keeper {
    member: Arc<BaseConsumer<Member>>,
    producer: Arc<Producer>,
    stop: Arc<AtomicBool>,
    tell: watch::Sender<Standing>,
}

impl Keeper {
    fn keep(self) {
        let lost = loop {
            if self.stop.load(Ordering::Acquire) {
                break "it was given back".to_owned();
            }
            if let Some(Err(error)) = self.member.poll(TICK)
                && let Some(code) = error.rdkafka_error_code()
                && matches!(
                    code,
                    Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed | Code::Fatal
                )
            {
                *self.member.context().turn.lock() = Turn::Refused(code.to_string());
            }
            let turn = self.member.context().turn.lock().clone();
            match turn {
                Turn::Waiting => {}
                Turn::Given => {
                    if let Some(why) = self.hold() {
                        break why;
                    }
                }
                Turn::Taken => break "the group gave it to another, or its session ended".into(),
                Turn::Refused(why) => break why,
            }
        };
        info!(reason = lost, "the lease ended");
        self.tell.send_replace(Standing::Lost(lost));
        // Others need not wait for the session to end.
        self.member.unsubscribe();
        for _ in 0..10 {
            let _ = self.member.poll(TICK / 10);
        }
    }

    /// Holds it, once those before are fenced; says why it cannot go on.
    fn hold(&self) -> Option<String> {
        if let Some(why) = self.producer.fatal() {
            return Some(why);
        }
        if *self.tell.borrow() == Standing::Held {
            return None;
        }
        match self.producer.fence() {
            Ok(true) => {
                self.tell.send_replace(Standing::Held);
                None
            }
            Ok(false) => None,
            Err(error) => Some(error.to_string()),
        }
    }
}
