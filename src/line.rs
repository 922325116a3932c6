//! Opening a line: data directory, topic, checkpoint, stages, so that `pipeline.rs` can run it.
//!
//! Always: what a checkpoint says is taken up whole or not at all; a changed policy or view refuses
//! to resume until somebody says what to do.

mod derive;
mod intake;
mod outlets;
mod patience;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use falaj_log::Log;
use falaj_privacy::{Declarations, Decoder, Key, Keys, Publisher, PublisherState, Seen};
use falaj_record::{Ledger, Positions};
use falaj_serve::Hub;
use falaj_sinks::Terms;
use falaj_source::{Journalled, Opening, Source, SourceConfig};
use falaj_topic::{Broker, Lease, Topic, TopicError};
use falaj_views::Views;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub use self::derive::Derive;
pub use self::intake::{Intake, publish};
use self::outlets::Outlets;
pub use self::patience::{interrupted, patiently};
use crate::active::Active;
use crate::catch_up::{self, CatchUp};
use crate::checkpoint::{Checkpoint, Checkpoints, Found, Head, SourceState};
use crate::clock::{SharedClock, VersionClock, now_ms};
use crate::data_dir::{DataDir, Lock, Policies};
use crate::failure::{Failure, Fault};
use crate::ingest::Requests;
use crate::plan::{Plan, raw_topic};
use crate::raw::RawTopics;
use crate::replay;
use crate::report::Notes;
use crate::state::State;

/// Names of the blobs in a checkpoint.
const VIEWS: &str = "views";
const SEEN: &str = "decoder";
const PUBLISHER: &str = "publisher";
const SINK: &str = "sink:";

/// Most bytes taken from the topic in one read while a view is computed again.
const REBUILD_BYTES_MAX: usize = 8 << 20;

/// Everything a run needs, opened and resumed.
pub struct Line {
    pub intake: Intake,
    pub derive: Derive,
    pub notes: Arc<Notes>,
    pub hub: Hub,
    /// The embedded log, for whoever opens it to other clients.
    pub log: Option<Arc<Log>>,
    /// Held until the line has ended.
    pub lease: Lease,
    pub lock: Lock,
}

/// Where the page and the API of a plan's pipeline get what they show.
pub fn hub(plan: &Plan) -> Hub {
    let name = &plan.config.pipeline.name;
    let hub = Hub::new(name, &plan.views.info(), plan.config.charts.clone());
    hub.set_privacy(crate::panel::panel(plan));
    close_ingest(plan, &hub);
    hub
}

/// Lets `/ingest` take no requests until a line is open, where its source is what they go to.
pub fn close_ingest(plan: &Plan, hub: &Hub) {
    if let SourceConfig::Ingest(ingest) = &plan.config.source {
        hub.close_ingest(ingest.token.is_some());
    }
}

/// The keys of a plan's pipeline, made at its first start.
///
/// # Errors
/// As [`DataDir::master_key`].
pub fn keys(plan: &Plan, dir: &DataDir, policies: &Policies) -> Result<Keys, Failure> {
    let named = plan.config.privacy.key.as_ref();
    let key = dir.master_key(named, &plan.folder, policies)?;
    Ok(Keys::new(&Key::new(key)))
}

/// Opens everything a plan names and takes up where the last run stopped.
///
/// # Errors
/// Where something cannot be opened, or what was kept does not fit the plan.
pub async fn open(
    plan: &Plan,
    dir: &DataDir,
    hub: &Hub,
    active: Active,
    stop: &CancellationToken,
) -> Result<Line, Failure> {
    let Active {
        lock,
        broker,
        log,
        lease,
    } = active;
    let place = Arc::new(State::of(plan, dir)?);
    let policies = Policies::open(&place)?;
    let keys = keys(plan, dir, &policies)?;
    let notes = Arc::new(Notes::default());
    let topic = broker.topic(&plan.config.topic).await;
    let topic = topic.map_err(|e| Failure::stage(&e))?;
    let unreadable_in = |what: &str, cause: io::Error| {
        Failure::run(Fault::new(format!("cannot read {what} in `{}`", place.place())).cause(cause))
    };
    let (checkpoints, found) =
        Checkpoints::open(Arc::clone(&place)).map_err(|e| unreadable_in("the checkpoints", e))?;
    let kept = Kept::of(found);
    kept.check(plan, topic.as_ref()).await?;
    let mut stood = kept.source();
    replay::settle(&mut stood, topic.as_ref()).await?;
    let earlier = policies.with(plan.policy.declarations(), &place)?;

    let source = open_source(plan, dir, &keys, &broker, stop).await?;
    if let Some(desk) = source.desk() {
        hub.set_ingest(Arc::new(Requests(desk)));
    }
    let state = Arc::new(Mutex::new(stood));

    let decoder = resume_decoder(plan, &kept, &keys, &earlier)?;
    let publisher = resume_publisher(plan, &kept)?;
    let positions = resume_positions(&kept, topic.as_ref()).await?;
    let clock =
        VersionClock::open(Arc::clone(&place)).map_err(|e| unreadable_in("the clock", e))?;
    let clock = SharedClock::new(clock);
    let offered = catch_up::place(&positions, decoder.seen());
    // Before a table is dropped for views that are computed again.
    let views = resume_views(plan, &kept, &keys, &earlier, topic.as_ref()).await?;
    let terms = Terms {
        retention: plan.retention(),
        owners: owners(&keys, topic.as_ref(), &views),
    };
    let sinks = Outlets::open(plan, dir, &kept, &offered, &terms).await?;
    let reading = |outlet| CatchUp {
        outlet,
        broker: Arc::clone(&broker),
        topic: plan.config.topic.name.clone(),
        clock: clock.clone(),
        policy: Arc::clone(&plan.policy),
        keys: keys.clone(),
        earlier: earlier.clone(),
        views: Box::new(plan.row_views()),
    };
    for catch_up in sinks.handles().into_iter().map(reading) {
        tokio::spawn(catch_up.run());
    }
    notes.note(|noted| {
        noted.ledger = kept.ledger();
        noted.positions = positions.clone();
    });
    let mut derive = Derive {
        decoder,
        views,
        sinks,
        broker,
        topic: Arc::clone(&topic),
        topic_name: plan.config.topic.name.clone(),
        policy: plan.policy.hash().to_owned(),
        publisher,
        hub: hub.clone(),
        positions,
        ledger: kept.ledger().topic,
        rejects: kept.rejects(),
        source: Arc::clone(&state),
        clock,
        checkpoints,
        checkpoint_every: plan.config.pipeline.checkpoint.0,
        checkpoint_at: Instant::now(),
        idle_after: plan.config.pipeline.idle_after.0,
        moved: (0..plan.config.topic.partitions.cast_signed())
            .map(|p| (p, Instant::now()))
            .collect(),
        told_not_cleared: false,
        notes: Arc::clone(&notes),
    };
    derive.show_all()?;
    derive.repay(stop).await?;
    let intake = Intake::new(plan, source, keys, topic, state, Arc::clone(&notes));
    Ok(Line {
        intake,
        derive,
        notes,
        hub: hub.clone(),
        log,
        lease,
        lock,
    })
}

/// What the last run left.
struct Kept(Option<Checkpoint>);

impl Kept {
    fn of(found: Found) -> Self {
        for (path, why) in &found.damaged {
            tracing::warn!(file = %path, why, "a checkpoint is damaged; the one before it is used");
        }
        Self(found.newest)
    }

    /// Whether it belongs to this topic and this policy.
    async fn check(&self, plan: &Plan, topic: &dyn Topic) -> Result<(), Failure> {
        let Some(checkpoint) = &self.0 else {
            return Ok(());
        };
        let head = &checkpoint.head;
        check_topic(head, plan, topic).await?;
        if head.policy != plan.policy.hash() && !plan.rebuilds_all() {
            return Err(Failure::run(
                Fault::new("the declared fields changed since the last run")
                    .hint("`--rebuild '*'` computes all views again from the topic; `falaj reset` starts anew"),
            ));
        }
        Ok(())
    }

    fn blob(&self, name: &str) -> Option<&[u8]> {
        self.0.as_ref()?.blobs.get(name).map(Vec::as_slice)
    }

    fn source(&self) -> SourceState {
        self.0
            .as_ref()
            .map(|c| c.head.source.clone())
            .unwrap_or_default()
    }

    fn positions(&self) -> Positions {
        self.0
            .as_ref()
            .map(|c| c.head.positions.clone())
            .unwrap_or_default()
    }

    fn ledger(&self) -> Ledger {
        self.0
            .as_ref()
            .map(|c| c.head.ledger.clone())
            .unwrap_or_default()
    }

    fn rejects(&self) -> BTreeMap<String, u64> {
        self.0
            .as_ref()
            .map(|c| c.head.rejects.clone())
            .unwrap_or_default()
    }
}

/// Whether a checkpoint belongs to the topic that is there, and not to more of it than there is.
///
/// # Errors
/// Where it does not.
pub async fn check_topic(head: &Head, plan: &Plan, topic: &dyn Topic) -> Result<(), Failure> {
    if head.topic != topic.identity() {
        return Err(Failure::run(
            Fault::new(format!(
                "topic `{}` is another one than the checkpoint belongs to",
                plan.config.topic.name
            ))
            .hint("bring the old topic back, or start anew with `falaj reset`"),
        ));
    }
    for offsets in topic.offsets().await.map_err(|e| Failure::stage(&e))? {
        let next = head.positions.next(offsets.partition);
        if next > offsets.end {
            return Err(Failure::run(
                Fault::new(format!(
                    "the checkpoint is at offset {next} of partition {}, and the topic ends at {}",
                    offsets.partition, offsets.end
                ))
                .hint(
                    "the topic lost records it had: restore it, or start anew with `falaj reset`",
                ),
            ));
        }
    }
    Ok(())
}

fn unreadable(part: &str) -> Failure {
    Failure::run(
        Fault::new(format!(
            "the `{part}` part of the checkpoint cannot be read"
        ))
        .hint("it was written by another version of falaj: start anew with `falaj reset`"),
    )
}

async fn open_source(
    plan: &Plan,
    dir: &DataDir,
    keys: &Keys,
    broker: &Arc<dyn Broker>,
    stop: &CancellationToken,
) -> Result<Box<dyn Source>, Failure> {
    let mut opening = opening(plan, dir, broker, true, stop).await?;
    if let SourceConfig::Ingest(_) = &plan.config.source {
        let keys = keys.clone();
        opening.journal = Some(Journalled {
            path: dir.ingest(),
            digest: Arc::new(move |kind, bytes| keys.digest(kind, bytes)),
            partitions: plan.config.topic.partitions,
        });
    }
    falaj_source::open(&plan.config.source, opening)
        .await
        .map_err(|e| Failure::stage(&e))
}

/// What the source of a plan needs to know to be read. `make` says whether a raw topic may be made.
///
/// # Errors
/// Where the broker of a raw topic cannot be used.
pub async fn opening(
    plan: &Plan,
    dir: &DataDir,
    broker: &Arc<dyn Broker>,
    make: bool,
    stop: &CancellationToken,
) -> Result<Opening, Failure> {
    let mut opening = Opening {
        inc: plan.policy.inc().to_vec(),
        max_record: plan.config.pipeline.max_record,
        ..Opening::new(&plan.folder, stop.clone())
    };
    if let SourceConfig::Kafka(kafka) = &plan.config.source {
        let config = raw_topic(kafka, &plan.config.topic);
        let raw = RawTopics::connect(config, plan, broker, &dir.topic(), make).await;
        opening.broker = Some(Arc::new(raw.map_err(|e| Failure::stage(&e))?));
    }
    Ok(opening)
}

/// The decoder, with what it has seen of each source.
fn resume_decoder(
    plan: &Plan,
    kept: &Kept,
    keys: &Keys,
    earlier: &[Declarations],
) -> Result<Decoder, Failure> {
    let mut decoder = Decoder::new(Arc::clone(&plan.policy), keys, earlier);
    if let Some(bytes) = kept.blob(SEEN) {
        let seen: Seen = serde_json::from_slice(bytes).map_err(|_| unreadable(SEEN))?;
        decoder.resume(seen);
    }
    Ok(decoder)
}

/// The publisher, with the groups that it has shown.
fn resume_publisher(plan: &Plan, kept: &Kept) -> Result<Publisher, Failure> {
    let (k, delta_k) = (plan.policy.k(), plan.policy.delta_k());
    let Some(bytes) = kept.blob(PUBLISHER) else {
        return Ok(Publisher::new(k, delta_k));
    };
    let state: PublisherState = postcard::from_bytes(bytes).map_err(|_| unreadable(PUBLISHER))?;
    let views = plan.views.info();
    Ok(Publisher::resume(k, delta_k, state, &views))
}

/// Where the views are on the topic.
async fn resume_positions(kept: &Kept, topic: &dyn Topic) -> Result<Positions, Failure> {
    if kept.0.is_some() {
        return Ok(kept.positions());
    }
    // Retention may have moved the start on before the first checkpoint was written.
    starts(topic).await.map_err(|e| Failure::stage(&e))
}

/// The views with the checkpoint's state; those to be rebuilt from the topic as far as it goes back.
async fn resume_views(
    plan: &Plan,
    kept: &Kept,
    keys: &Keys,
    earlier: &[Declarations],
    topic: &dyn Topic,
) -> Result<Views, Failure> {
    let rebuild = &plan.rebuild;
    let mut views = plan.plan_views()?;
    let Some(bytes) = kept.blob(VIEWS) else {
        return Ok(views);
    };
    views
        .restore(bytes, rebuild)
        .map_err(|e| Failure::stage(&e))?;
    if rebuild.is_empty() {
        return Ok(views);
    }
    let mut again = plan.plan_views()?;
    let mut decoder = Decoder::new(Arc::clone(&plan.policy), keys, earlier);
    let until = kept.positions();
    let mut positions = starts(topic).await.map_err(|e| Failure::stage(&e))?;
    let taken: i64 = positions.0.values().sum();
    if taken > 0 {
        crate::stdio::say(&format!(
            "rebuild: retention already took {taken} records; the rebuilt views are without them"
        ));
    }
    while !reached(&positions, &until) {
        let mut fetched = topic
            .fetch(&positions, REBUILD_BYTES_MAX, Duration::ZERO)
            .await
            .map_err(|e| Failure::stage(&e))?;
        if fetched.is_empty() {
            break;
        }
        for part in &mut fetched {
            let end = until.next(part.partition);
            part.messages.retain(|message| message.offset < end);
            positions.advance(part.partition, part.next);
        }
        let records = decoder.decode(&fetched, now_ms());
        again.push(&records.batch).map_err(|e| Failure::stage(&e))?;
        // Their tables were made anew and are filled from the topic, at the pace of each sink: held
        // here, they would be as many as the topic has people.
        again.forget_rows();
        // They were told when they came.
        again.take_late(0);
    }
    views.adopt(again, rebuild, &kept.ledger().topic);
    Ok(views)
}

/// The first offset that each partition still holds.
async fn starts(topic: &dyn Topic) -> Result<Positions, TopicError> {
    let offsets = topic.offsets().await?;
    Ok(Positions(
        offsets.iter().map(|o| (o.partition, o.start)).collect(),
    ))
}

fn reached(positions: &Positions, until: &Positions) -> bool {
    until
        .0
        .iter()
        .all(|(partition, end)| positions.next(*partition) >= *end)
}

/// Whose rows stores hold: those computed from this topic by this SQL, with people under the pids of
/// this key.
fn owners(keys: &Keys, topic: &dyn Topic, views: &Views) -> BTreeMap<String, String> {
    let owner = |(view, fingerprint): (&str, &str)| {
        let of = format!("{}\n{fingerprint}", topic.identity());
        let digest = keys.digest("owner", of.as_bytes());
        (
            view.to_owned(),
            format!("{:032x}", u128::from_be_bytes(digest)),
        )
    };
    views.fingerprints().map(owner).collect()
}
