//! Opening a line: data directory, topic, checkpoint, stages, so that `pipeline.rs` can run it.
//!
//! Always: what a checkpoint says is taken up whole or not at all; a changed policy or view refuses
//! to resume until somebody says what to do.
//! Always: records that the topic already has are not published again, whatever the source repeats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use falaj_privacy::{
    Decoded, Decoder, Gate, Key, KeyedPseudonyms, Keys, Passage, Publisher, PublisherState, Seen,
    source_identity,
};
use falaj_record::{
    At, Fetched, Ledger, Positions, Publication, Raw, Src, TopicLedger, ViewKind, ViewUpdate,
};
use falaj_serve::{Hub, Time};
use falaj_sinks::{Limits, Outlet, Pending, Places};
use falaj_source::{Opening, Source};
use falaj_topic::{Broker, Topic};
use falaj_views::Views;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpoint, Checkpoints, Found, Moment, SourceState};
use crate::clock::{VersionClock, now_ms, now_us};
use crate::data_dir::{DataDir, Lock, Policies};
use crate::failure::{Failure, Fault};
use crate::plan::Plan;
use crate::report::Notes;

/// Names of the blobs in a checkpoint.
const VIEWS: &str = "views";
const SEEN: &str = "decoder";
const PUBLISHER: &str = "publisher";
const SINK: &str = "sink:";

/// Waits between tries to publish while the topic's disk is full or failing.
const PUBLISH_RETRY: Duration = Duration::from_millis(500);
/// Most rejects read at once while counting those of the source.
const REJECTS_READ_MAX: usize = 4096;
/// Most bytes taken from the topic in one read while a view is computed again.
const REBUILD_BYTES_MAX: usize = 8 << 20;

/// Everything a run needs, opened and resumed.
pub struct Line {
    pub intake: Intake,
    pub derive: Derive,
    pub notes: Arc<Notes>,
    pub hub: Hub,
    /// Held until the line has ended.
    pub lock: Lock,
}

/// Source → gate → topic.
pub struct Intake {
    pub source: Box<dyn Source>,
    pub gate: Gate,
    topic: Arc<dyn Topic>,
    /// Highest position of this source that each partition had at the start.
    held: BTreeMap<i32, u64>,
    state: Arc<Mutex<SourceState>>,
    pub notes: Arc<Notes>,
}

/// Topic → views → sinks and page.
pub struct Derive {
    pub decoder: Decoder,
    pub views: Views,
    pub sinks: Outlets,
    broker: Arc<dyn Broker>,
    topic: Arc<dyn Topic>,
    policy: String,
    publisher: Publisher,
    hub: Hub,
    positions: Positions,
    ledger: TopicLedger,
    rejects: BTreeMap<String, u64>,
    source: Arc<Mutex<SourceState>>,
    clock: VersionClock,
    checkpoints: Checkpoints,
    checkpoint_every: Duration,
    checkpoint_at: Instant,
    idle_after: Duration,
    /// When each partition last gave records.
    moved: BTreeMap<i32, Instant>,
    notes: Arc<Notes>,
}

fn locked(state: &Mutex<SourceState>) -> MutexGuard<'_, SourceState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Intake {
    /// Makes what passed the gate durable on the topic, rejects on theirs, and then counts them.
    ///
    /// # Errors
    /// Where the topic cannot go on. While its disk is full or failing, this waits and tries again,
    /// until `stop`: then the records are as if the source had not given them.
    pub async fn publish(
        &mut self,
        raws: &[Raw],
        passage: Passage,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let Passage {
            mut cleared,
            rejects,
            withheld,
        } = passage;
        let published = cleared.get().messages.len() as u64;
        loop {
            let held = &self.held;
            if !held.is_empty() {
                cleared.retain(|message| {
                    let position = Src::parse(&message.src).map_or(0, |(_, position)| position);
                    held.get(&message.partition)
                        .is_none_or(|highest| position > *highest)
                });
            }
            match self.topic.publish(cleared.clone()).await {
                Ok(()) => break,
                Err(e) if e.passing() => {
                    self.notes
                        .failing("topic", Some(Fault::from_error(&e).chain()));
                    if stop
                        .run_until_cancelled(tokio::time::sleep(PUBLISH_RETRY))
                        .await
                        .is_none()
                    {
                        return Ok(());
                    }
                    // Some partitions may have taken their part: those must not get it twice.
                    let source = locked(&self.state).id.clone();
                    self.held = self
                        .topic
                        .highest(&source)
                        .await
                        .map_err(|e| Failure::stage(&e))?;
                }
                Err(e) => return Err(Failure::stage(&e)),
            }
        }
        self.notes.failing("topic", None);
        self.topic
            .reject(&rejects)
            .await
            .map_err(|e| Failure::stage(&e))?;
        let offsets = self.topic.offsets().await.map_err(|e| Failure::stage(&e))?;
        if let Some(last) = raws.last() {
            let mut state = locked(&self.state);
            state.position = last.position;
            state.ledger.r#in += raws.len() as u64;
            state.ledger.published += published;
            state.ledger.rejected += rejects.len() as u64;
            state.ledger.withheld += withheld;
            state.ends = Positions(offsets.iter().map(|o| (o.partition, o.end)).collect());
            if self.held.values().all(|highest| *highest <= last.position) {
                self.held.clear();
            }
        }
        self.notes.note(|noted| {
            noted.cleared += published;
            noted.published += published;
            noted.withheld += withheld;
            noted.offsets = offsets;
            for reject in &rejects {
                noted.reject(reject.reason);
            }
        });
        Ok(())
    }
}

impl Derive {
    /// Reads on from where the views are.
    ///
    /// # Errors
    /// Where the topic cannot be read, or retention has overtaken the views.
    pub async fn fetch(&self, bytes_max: usize, wait: Duration) -> Result<Vec<Fetched>, Failure> {
        self.topic
            .fetch(&self.positions, bytes_max, wait)
            .await
            .map_err(|e| Failure::stage(&e))
    }

    /// Whether nothing more was to be had behind what was just read.
    pub fn is_near_end(fetched: &[Fetched]) -> bool {
        fetched.iter().all(|part| part.next >= part.end)
    }

    /// Counts what was decoded and moves the positions on; rejects go to their topic.
    ///
    /// # Errors
    /// Where the rejects cannot be written.
    pub async fn count(&mut self, fetched: &[Fetched], decoded: Decoded) -> Result<(), Failure> {
        let out = decoded.batch.get().len() as u64;
        let late = self.views.take_late(now_ms());
        let mut rejects = decoded.rejects;
        self.ledger.read += decoded.read;
        self.ledger.out += out;
        self.ledger.rejected += rejects.len() as u64;
        self.ledger.duplicate += decoded.duplicates;
        let late_count = late.len() as u64;
        rejects.extend(late);
        self.topic
            .reject(&rejects)
            .await
            .map_err(|e| Failure::stage(&e))?;
        let mut newest = None;
        for part in fetched {
            self.positions.advance(part.partition, part.next);
            self.moved.insert(part.partition, Instant::now());
            newest = newest.max(part.messages.last().map(|m| m.timestamp_ms * 1000));
        }
        for reject in &rejects {
            *self.rejects.entry(reject.reason.to_string()).or_insert(0) += 1;
        }
        self.notes.note(|noted| {
            noted.decoded += out;
            noted.late += late_count;
            noted.newest_us = noted.newest_us.max(newest);
            noted.positions = self.positions.clone();
            for reject in &rejects {
                noted.reject(reject.reason);
            }
        });
        Ok(())
    }

    /// Hands changed rows to the sinks and to the publisher.
    ///
    /// # Errors
    /// Where a view cannot go on.
    pub async fn drain(&mut self) -> Result<(), Failure> {
        let idle = self.idle();
        self.views.set_idle(&idle);
        let Some(version) = self.version() else {
            return Ok(());
        };
        let updates = self.views.drain(version).map_err(|e| Failure::stage(&e))?;
        if updates.is_empty() {
            return Ok(());
        }
        for update in &updates {
            self.publisher.apply(update);
        }
        self.sinks.offer(&updates).await
    }

    /// Lets the charts change, under the k rule.
    ///
    /// # Errors
    /// Where a view cannot go on.
    pub fn publish(&mut self) -> Result<(), Failure> {
        let Some(version) = self.version() else {
            return Ok(());
        };
        let mut failed = None;
        let views = &mut self.views;
        let publications = self.publisher.tick(version, &mut |view, keys| {
            views.fold(&view.name, keys).unwrap_or_else(|e| {
                failed = Some(e);
                None
            })
        });
        if let Some(e) = failed {
            return Err(Failure::stage(&e));
        }
        self.hub.show(&publications);
        let watermark = self.views.watermark();
        self.notes.note(|noted| noted.watermark = watermark);
        Ok(())
    }

    /// Shows what is published, as it was, and takes all groups of the views in: those whose rows
    /// an earlier run had not shown yet, and those of rebuilt views.
    async fn show_all(&mut self) -> Result<(), Failure> {
        let shown: Vec<Publication> = self
            .views
            .info()
            .iter()
            .filter_map(|info| self.publisher.rows(&info.name))
            .filter(|published| !published.rows.is_empty())
            .map(|published| Publication {
                view: published.view,
                version: published.version,
                watermark: published.watermark,
                suppressed: published.suppressed,
                upserts: published.rows,
                deletes: Vec::new(),
            })
            .collect();
        self.hub.show(&shown);
        let Some(version) = self.version() else {
            return Ok(());
        };
        let all = self.views.all(version).map_err(|e| Failure::stage(&e))?;
        for update in &all {
            self.publisher.apply(update);
        }
        self.sinks.refill(&all).await
    }

    /// Ends the topic's work; nothing is published after that.
    pub async fn close(&self) {
        self.sinks.close().await;
        self.broker.close().await;
    }

    pub fn checkpoint_is_due(&self) -> bool {
        self.checkpoint_at.elapsed() >= self.checkpoint_every
    }

    /// Writes a checkpoint of this moment, and says whether it could: a disk that is full or failing
    /// is tried again at the next one.
    ///
    /// # Errors
    /// Where the state cannot be put into bytes.
    pub async fn checkpoint(&mut self) -> Result<bool, Failure> {
        self.checkpoint_at = Instant::now();
        self.drain().await?;
        for (view, keys) in self.views.expire().map_err(|e| Failure::stage(&e))? {
            self.publisher.retire(&view, &keys);
        }
        let source = locked(&self.source).clone();
        let ledger = Ledger {
            source: source.ledger.clone(),
            topic: self.ledger.clone(),
            views: self.views.ledger(),
        };
        let mut blobs = self.sinks.pending()?;
        blobs.insert(
            VIEWS.into(),
            self.views.checkpoint().map_err(|e| Failure::stage(&e))?,
        );
        blobs.insert(SEEN.into(), json(self.decoder.seen()));
        blobs.insert(
            PUBLISHER.into(),
            postcard::to_stdvec(&self.publisher.state()).expect("state is plain data"),
        );
        let checkpoint = Checkpoint::new(
            Moment {
                at_ms: now_ms(),
                policy: self.policy.clone(),
                topic: self.topic.identity(),
                positions: self.positions.clone(),
                source,
                ledger: ledger.clone(),
                rejects: self.rejects.clone(),
            },
            blobs,
        );
        // Written on this thread: it is bounded by the state, and nothing may change meanwhile.
        let written = tokio::task::block_in_place(|| self.checkpoints.write(&checkpoint));
        match written {
            Ok(bytes) => {
                let duration_ms = self.checkpoint_at.elapsed().as_secs_f64() * 1000.0;
                self.notes.failing("views", None);
                self.notes.note(|noted| {
                    noted.checkpoint = Some((Time(now_us()), bytes, duration_ms));
                    noted.ledger = ledger;
                });
                Ok(true)
            }
            Err(e) => {
                self.notes
                    .failing("views", Some(format!("cannot write a checkpoint: {e}")));
                Ok(false)
            }
        }
    }

    /// The ledger of this moment.
    pub fn ledger(&self) -> Ledger {
        Ledger {
            source: locked(&self.source).ledger.clone(),
            topic: self.ledger.clone(),
            views: self.views.ledger(),
        }
    }

    /// The next version; none while the disk is full or failing. What changed waits in the views.
    fn version(&mut self) -> Option<i64> {
        let version = self.clock.next();
        if let Err(e) = &version {
            let why = format!("cannot reserve versions in the data directory: {e}");
            self.notes.failing("views", Some(why));
        }
        version.ok()
    }

    /// Partitions that stand at the log's end and have not moved for a while.
    fn idle(&self) -> BTreeSet<i32> {
        let quiet = |at: &Instant| at.elapsed() >= self.idle_after;
        let read = |partition, end| self.positions.next(partition) >= end;
        self.notes.note(|noted| {
            noted
                .offsets
                .iter()
                .filter(|o| read(o.partition, o.end))
                .filter(|o| self.moved.get(&o.partition).is_some_and(quiet))
                .map(|o| o.partition)
                .collect()
        })
    }
}

fn json(state: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(state).expect("state is plain data")
}

/// The sinks of a line, each behind its own queue, with the views whose table was empty at the start.
pub struct Outlets(Vec<(Arc<Outlet>, BTreeSet<String>)>);

impl Outlets {
    /// Offers updates to all sinks. A full queue of row views pushes back on the topic.
    async fn offer(&self, updates: &[ViewUpdate]) -> Result<(), Failure> {
        for (outlet, _) in &self.0 {
            outlet
                .offer(updates.to_vec())
                .await
                .map_err(|e| Failure::stage(&e))?;
        }
        Ok(())
    }

    /// Offers each sink the current rows of the views whose table was empty at the start.
    async fn refill(&self, all: &[ViewUpdate]) -> Result<(), Failure> {
        for (outlet, empty) in &self.0 {
            let owed = all
                .iter()
                .filter(|update| empty.contains(&update.view.name))
                .cloned();
            outlet
                .offer(owed.collect())
                .await
                .map_err(|e| Failure::stage(&e))?;
        }
        Ok(())
    }

    /// Views to compute again: those asked for, and row views that a sink has no row of, since
    /// their rows are nowhere but on the topic.
    fn rebuild(&self, plan: &Plan) -> BTreeSet<String> {
        let infos = plan.views.info();
        let rows = infos
            .iter()
            .filter(|info| info.kind == ViewKind::Row)
            .map(|info| &info.name);
        let lost = rows.filter(|name| self.0.iter().any(|(_, empty)| empty.contains(*name)));
        plan.rebuild.iter().chain(lost).cloned().collect()
    }

    /// Waits until the sinks have everything, but not longer than `patience`.
    pub async fn drained(&self, patience: Duration) {
        let all = futures::future::join_all(self.0.iter().map(|(outlet, _)| outlet.drained()));
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("a sink has not taken all rows; the rest is kept in the checkpoint");
        }
    }

    /// What each sink has not acknowledged, for the checkpoint.
    fn pending(&self) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let blob = |(outlet, _): &(Arc<Outlet>, BTreeSet<String>)| {
            let bytes = outlet
                .pending()
                .to_bytes()
                .map_err(|e| Failure::stage(&e))?;
            Ok((format!("{SINK}{}", outlet.name()), bytes))
        };
        self.0.iter().map(blob).collect()
    }

    /// Handles that outlive the line, for the reporter.
    pub fn handles(&self) -> Vec<Arc<Outlet>> {
        self.0
            .iter()
            .map(|(outlet, _)| Arc::clone(outlet))
            .collect()
    }

    async fn close(&self) {
        for (outlet, _) in &self.0 {
            outlet.close().await;
        }
    }
}

/// Opens everything a plan names and takes up where the last run stopped.
///
/// # Errors
/// Where something cannot be opened, or what was kept does not fit the plan.
pub async fn open(plan: Plan, dir: &DataDir, stop: &CancellationToken) -> Result<Line, Failure> {
    let lock = dir.lock()?;
    let keys = Keys::new(&Key::new(dir.key_or_new()?));
    let notes = Arc::new(Notes::default());
    let broker = falaj_topic::connect(&plan.config.topic, &dir.topic())
        .await
        .map_err(|e| Failure::stage(&e))?;
    let topic = broker
        .topic(&plan.config.topic)
        .await
        .map_err(|e| Failure::stage(&e))?;
    let (checkpoints, found) = Checkpoints::open(&dir.checkpoints()).map_err(|e| {
        Failure::run(Fault::new("cannot read the checkpoints in the data directory").cause(e))
    })?;
    let kept = Kept::of(found);
    kept.check(&plan, topic.as_ref()).await?;
    let earlier = Policies::open(dir)?.with(plan.policy.declarations())?;

    let mut source = open_source(&plan, stop).await?;
    let id = source_identity(&keys, source.kind(), source.material());
    let state = resume_source(source.as_mut(), &id, kept.source(), topic.as_ref()).await?;
    let held = topic.highest(&id).await.map_err(|e| Failure::stage(&e))?;
    let pseudonyms = Arc::new(KeyedPseudonyms::new(&keys));
    let partitions = plan.config.topic.partitions;
    let gate = Gate::new(Arc::clone(&plan.policy), pseudonyms, &keys, id, partitions);
    let state = Arc::new(Mutex::new(state));

    let mut decoder = Decoder::new(Arc::clone(&plan.policy), &keys, &earlier);
    if let Some(bytes) = kept.blob(SEEN) {
        decoder.resume(serde_json::from_slice::<Seen>(bytes).map_err(|_| unreadable(SEEN))?);
    }
    let infos = plan.views.info();
    let hub = Hub::new(
        &plan.config.pipeline.name,
        &infos,
        plan.config.charts.clone(),
    );
    hub.set_privacy(crate::panel::panel(&plan));
    let (k, delta_k) = (plan.policy.k(), plan.policy.delta_k());
    let publisher = match kept.blob(PUBLISHER) {
        Some(bytes) => {
            let state: PublisherState =
                postcard::from_bytes(bytes).map_err(|_| unreadable(PUBLISHER))?;
            Publisher::resume(k, delta_k, state, &infos)
        }
        None => Publisher::new(k, delta_k),
    };
    let sinks = open_sinks(&plan, dir, &kept).await?;
    let rebuild = sinks.rebuild(&plan);
    let views = resume_views(&plan, &rebuild, &kept, &keys, &earlier, topic.as_ref()).await?;
    let positions = match kept.0 {
        Some(_) => kept.positions(),
        // Retention may have moved the start on before the first checkpoint was written.
        None => starts(topic.as_ref()).await?,
    };
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
        policy: plan.policy.hash().to_owned(),
        publisher,
        hub: hub.clone(),
        positions,
        ledger: kept.ledger().topic,
        rejects: kept.rejects(),
        source: Arc::clone(&state),
        clock: VersionClock::open(&dir.clock()).map_err(|e| {
            Failure::run(Fault::new(format!("cannot read `{}`", dir.clock().display())).cause(e))
        })?,
        checkpoints,
        checkpoint_every: plan.config.pipeline.checkpoint.0,
        checkpoint_at: Instant::now(),
        idle_after: plan.config.pipeline.idle_after.0,
        moved: (0..partitions.cast_signed())
            .map(|p| (p, Instant::now()))
            .collect(),
        notes: Arc::clone(&notes),
    };
    derive.show_all().await?;
    let intake = Intake {
        source,
        gate,
        topic,
        held,
        state,
        notes: Arc::clone(&notes),
    };
    Ok(Line {
        intake,
        derive,
        notes,
        hub,
        lock,
    })
}

/// What the last run left.
struct Kept(Option<Checkpoint>);

impl Kept {
    fn of(found: Found) -> Self {
        for (path, why) in &found.damaged {
            tracing::warn!(file = %path.display(), why, "a checkpoint is damaged; the one before it is used");
        }
        Self(found.newest)
    }

    /// Whether it belongs to this topic and this policy.
    async fn check(&self, plan: &Plan, topic: &dyn Topic) -> Result<(), Failure> {
        let Some(checkpoint) = &self.0 else {
            return Ok(());
        };
        let head = &checkpoint.head;
        if head.topic != topic.identity() {
            return Err(Failure::run(
                Fault::new(format!(
                    "topic `{}` is another one than the checkpoint belongs to",
                    plan.config.topic.name
                ))
                .hint("bring the old topic back, or start anew with `falaj reset`"),
            ));
        }
        if head.policy != plan.policy.hash() && !plan.rebuilds_all() {
            return Err(Failure::run(
                Fault::new("the declared fields changed since the last run")
                    .hint("`--rebuild '*'` computes all views again from the topic; `falaj reset` starts anew"),
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
                    .hint("the topic lost records it had: restore it, or start anew with `falaj reset`"),
                ));
            }
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

fn unreadable(part: &str) -> Failure {
    Failure::run(
        Fault::new(format!(
            "the `{part}` part of the checkpoint cannot be read"
        ))
        .hint("it was written by another version of falaj: start anew with `falaj reset`"),
    )
}

async fn open_source(plan: &Plan, stop: &CancellationToken) -> Result<Box<dyn Source>, Failure> {
    let opening = Opening {
        inc: plan.policy.inc().to_vec(),
        max_record: plan.config.pipeline.max_record,
        ..Opening::new(&plan.folder, stop.clone())
    };
    falaj_source::open(&plan.config.source, opening)
        .await
        .map_err(|e| Failure::stage(&e))
}

/// Sets the source to go on where the last checkpoint or the topic says, and gives its state.
///
/// A finite source is read again from the checkpoint: what the topic has of it already is counted
/// and not published. Another one is not: what the topic got after the checkpoint is counted here.
async fn resume_source(
    source: &mut dyn Source,
    id: &Arc<str>,
    kept: SourceState,
    topic: &dyn Topic,
) -> Result<SourceState, Failure> {
    let same = *kept.id == **id;
    let mut state = SourceState {
        id: id.to_string(),
        ..kept
    };
    if !same {
        state.position = 0;
    }
    if !source.finite() {
        let held = topic.highest(id).await.map_err(|e| Failure::stage(&e))?;
        let after = state.position;
        state.position = held.values().copied().max().unwrap_or(0).max(after);
        for offsets in topic.offsets().await.map_err(|e| Failure::stage(&e))? {
            let counted = state.ends.next(offsets.partition).max(offsets.start);
            let more = u64::try_from(offsets.end - counted).unwrap_or(0);
            state.ledger.r#in += more;
            state.ledger.published += more;
            state.ends.advance(offsets.partition, offsets.end);
        }
        let mut next = 0;
        loop {
            let rejects = topic
                .rejects(next, REJECTS_READ_MAX)
                .await
                .map_err(|e| Failure::stage(&e))?;
            let Some((last, _)) = rejects.last() else {
                break;
            };
            next = last + 1;
            for (_, reject) in &rejects {
                if let At::Source { source, position } = &reject.at
                    && source == id
                    && *position > after
                {
                    state.ledger.r#in += 1;
                    state.ledger.rejected += 1;
                    state.position = state.position.max(*position);
                }
            }
        }
    }
    source.resume_after(state.position);
    Ok(state)
}

/// The views with the checkpoint's state; those to be rebuilt from the topic as far as it goes back.
async fn resume_views(
    plan: &Plan,
    rebuild: &BTreeSet<String>,
    kept: &Kept,
    keys: &Keys,
    earlier: &[falaj_privacy::Declarations],
    topic: &dyn Topic,
) -> Result<Views, Failure> {
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
    let mut positions = starts(topic).await?;
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
    }
    views.adopt(again, rebuild, &kept.ledger().topic);
    Ok(views)
}

/// The first offset that each partition still holds.
async fn starts(topic: &dyn Topic) -> Result<Positions, Failure> {
    let offsets = topic.offsets().await.map_err(|e| Failure::stage(&e))?;
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

/// Opens the sinks; tables of views that are computed again are made anew.
async fn open_sinks(plan: &Plan, dir: &DataDir, kept: &Kept) -> Result<Outlets, Failure> {
    let places = Places {
        pipeline: &plan.folder,
        data: dir.path(),
    };
    let infos = plan.views.info();
    let mut stores = BTreeMap::new();
    let mut outlets = Vec::new();
    for (name, config) in &plan.config.sinks {
        if let Some(other) = stores.insert(config.store(places), name) {
            return Err(Failure::usage(
                Fault::new(format!(
                    "sinks `{other}` and `{name}` write to the same store"
                ))
                .hint("give one of them another store, or name all views in one sink"),
            ));
        }
        let views: Vec<_> = infos
            .iter()
            .filter(|view| config.views().takes(&view.name))
            .cloned()
            .collect();
        let owed: Vec<_> = views
            .iter()
            .filter(|view| !plan.rebuild.contains(&view.name))
            .cloned()
            .collect();
        let pending = kept
            .blob(&format!("{SINK}{name}"))
            .map(|bytes| Pending::from_bytes(bytes, &owed))
            .transpose()
            .map_err(|e| Failure::stage(&e))?;
        let mut sink = config.sink(places);
        for view in plan
            .rebuild
            .iter()
            .filter(|view| config.views().takes(view))
        {
            sink.drop_view(view).await.map_err(|e| Failure::stage(&e))?;
        }
        let prepared = sink.prepare(&views).await.map_err(|e| Failure::stage(&e))?;
        let outlet = Outlet::new(name, sink, views, Limits::default());
        if let Some(pending) = pending {
            outlet.restore(pending);
        }
        outlets.push((Arc::new(outlet), prepared.empty.into_iter().collect()));
    }
    Ok(Outlets(outlets))
}
