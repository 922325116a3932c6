//! Opening a line: data directory, topic, checkpoint, stages, so that `pipeline.rs` can run it.
//!
//! Always: what a checkpoint says is taken up whole or not at all; a changed policy or view refuses
//! to resume until somebody says what to do.
//! Always: records that the topic already has are not published again, whatever the source repeats.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use falaj_log::Log;
use falaj_privacy::{
    Cleared, Decoded, Decoder, Gate, Key, KeyedPseudonyms, Keys, Passage, Publisher,
    PublisherState, Seen, source_identity,
};
use falaj_record::{
    At, Fetched, Ledger, Outbound, Positions, Publication, Reason, Reject, Src, TopicLedger,
    ViewKind, ViewUpdate,
};
use falaj_serve::{Hub, Time};
use falaj_sinks::{
    Limits, Outlet, OutletState, OutletStatus, Pending, Place, Places, Sink, SinkConfig, SinkError,
    Terms,
};
use falaj_source::{Held, Journalled, Opening, Outcome, Portion, Source, SourceConfig};
use falaj_topic::{Broker, Lease, Topic, TopicError, group_of};
use falaj_views::Views;
use tokio_util::sync::CancellationToken;

use crate::active::Active;
use crate::catch_up::{self, CatchUp, place};
use crate::checkpoint::{Checkpoint, Checkpoints, Found, Head, Moment, SourceState};
use crate::clock::{SharedClock, VersionClock, now_ms, now_us};
use crate::data_dir::{DataDir, Lock, Policies};
use crate::failure::{Failure, Fault};
use crate::held::{self, Decided, part_name};
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

/// Waits between tries while the topic's disk is full or failing, or its cluster is away.
const TOPIC_RETRY: Duration = Duration::from_millis(500);
/// Longest wait for the group to take positions, which nothing depends on.
const SHOW_WAIT_MAX: Duration = Duration::from_secs(2);
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

/// Source → gate → topic.
pub struct Intake {
    pub source: Box<dyn Source>,
    gate: Gate,
    keys: Keys,
    topic: Arc<dyn Topic>,
    /// Identity of each part of the source.
    names: BTreeMap<i32, Arc<str>>,
    /// For each part of the source that gave records: the highest position of it that each
    /// partition of the topic had at the start.
    held: BTreeMap<i32, BTreeMap<i32, u64>>,
    /// What was decided before the start of records that are read once more.
    decided: Decided,
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
    topic_name: String,
    policy: String,
    publisher: Publisher,
    hub: Hub,
    positions: Positions,
    ledger: TopicLedger,
    rejects: BTreeMap<String, u64>,
    source: Arc<Mutex<SourceState>>,
    clock: SharedClock,
    checkpoints: Checkpoints,
    checkpoint_every: Duration,
    checkpoint_at: Instant,
    idle_after: Duration,
    /// When each partition last gave records.
    moved: BTreeMap<i32, Instant>,
    /// Whether it was said that the topic holds what this pipeline has not cleared.
    told_not_cleared: bool,
    notes: Arc<Notes>,
}

fn locked(state: &Mutex<SourceState>) -> MutexGuard<'_, SourceState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Intake {
    /// Waits until it is known which source this is, and sets it to go on where the last checkpoint
    /// or the topic says. False where falaj is to stop.
    ///
    /// # Errors
    /// Where the source cannot be read, or the topic cannot tell what it holds of it.
    pub async fn resume(&mut self) -> Result<bool, Failure> {
        if !self.source.ready().await.map_err(|e| Failure::stage(&e))? {
            return Ok(false);
        }
        let source = self.source.as_mut();
        let id = source_identity(&self.keys, source.kind(), source.material());
        let kept = locked(&self.state).clone();
        let topic = self.topic.as_ref();
        let (mut state, rejects_end) = resume_source(source, &id, kept, topic).await?;
        if source.rereads() {
            let decided = Decided::look(&state, source.parted(), topic).await;
            self.decided = decided.map_err(|e| Failure::stage(&e))?;
            state.passed(&self.decided);
        } else {
            // Not before something was published beyond them: a source that goes on with what was
            // interrupted has to know its rejects.
            self.decided = Decided::counted(rejects_end);
        }
        *locked(&self.state) = state;
        Ok(true)
    }

    /// The next records; nothing at the source's end, and where falaj is to stop.
    ///
    /// # Errors
    /// Where the source cannot be read on.
    pub async fn next(&mut self) -> Result<Option<Portion>, Failure> {
        self.source.next().await.map_err(|e| Failure::stage(&e))
    }

    /// Lets through the gate what may pass.
    pub fn clear(&mut self, portion: &Portion, now_ms: i64) -> Passage {
        let part = self.part(portion.part);
        self.gate.clear_of(&part, &portion.raws, now_ms)
    }

    /// Makes what passed the gate durable on the topic, rejects on theirs, and then counts them.
    ///
    /// # Errors
    /// Where the topic cannot go on. While its disk is full or failing, this waits and tries again,
    /// until `stop`: then the records are as if the source had not given them.
    pub async fn publish(
        &mut self,
        portion: &Portion,
        mut passage: Passage,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let before = self.decided.take_out(portion.part, &mut passage);
        let Passage {
            mut cleared,
            rejects,
            withheld,
        } = passage;
        let part = self.part(portion.part);
        let passed = cleared.get().messages.len() as u64;
        let earlier = &portion.earlier;
        drop_held(&mut cleared, &earlier.held);
        let published = cleared.get().messages.len() as u64 + before.published;
        let first = rejects.partition_point(|reject| {
            matches!(reject.at, At::Source { position, .. } if Some(position) <= earlier.rejected)
        });
        let rejected = &rejects[first..];
        let known = self.held.contains_key(&portion.part);
        if !known && !self.look_what_is_held(portion.part, &part, stop).await? {
            return Ok(());
        }
        let topic = self.topic.as_ref();
        // Rejects first: a record that the topic has not is asked again after a kill, and if the
        // file was changed by then, what it said of the others must stand.
        let rejecting = || topic.reject(rejected);
        let told = patiently(&self.notes, "topic", stop, rejecting).await?;
        let held = self.held.entry(portion.part).or_default();
        if told.is_none() || !publish(topic, &self.notes, &part, cleared, held, stop).await? {
            return Ok(());
        }
        let asking = || self.topic.offsets();
        let Some(offsets) = patiently(&self.notes, "topic", stop, asking).await? else {
            return Ok(());
        };
        let Some(last) = portion.raws.last() else {
            return Ok(());
        };
        {
            let mut state = locked(&self.state);
            state.positions.insert(portion.part, last.position);
            let rejected = rejected.len() as u64 + before.rejected;
            state.ledger.r#in += published + rejected + withheld;
            state.ledger.published += published;
            state.ledger.rejected += rejected;
            state.ledger.withheld += withheld;
            state.ends = Positions(offsets.iter().map(|o| (o.partition, o.end)).collect());
            self.decided.pass(portion.part, last.position);
            state.passed(&self.decided);
        }
        if let Some(held) = self.held.get_mut(&portion.part)
            && held.values().all(|highest| *highest <= last.position)
        {
            held.clear();
        }
        self.notes.note(|noted| {
            noted.cleared += published;
            noted.published += published;
            noted.withheld += withheld;
            noted.offsets = offsets;
            for reject in rejected {
                noted.reject(reject.reason);
            }
        });
        self.source
            .done(Outcome {
                part: portion.part,
                position: last.position,
                published: passed,
                rejects: &rejects,
                withheld,
            })
            .await;
        Ok(())
    }

    /// Identity of a part of the source.
    fn part(&mut self, part: i32) -> Arc<str> {
        let (parted, state) = (self.source.parted(), &self.state);
        let name = self
            .names
            .entry(part)
            .or_insert_with(|| part_name(&locked(state).id, parted, part));
        Arc::clone(name)
    }

    /// Asks the topic what it holds of a part; false where `stop` came before it could tell.
    async fn look_what_is_held(
        &mut self,
        part: i32,
        name: &str,
        stop: &CancellationToken,
    ) -> Result<bool, Failure> {
        let asking = || self.topic.highest(name);
        let held = patiently(&self.notes, "topic", stop, asking).await?;
        Ok(held.map(|held| self.held.insert(part, held)).is_some())
    }
}

/// Calls until it works, while what is wrong may pass; nothing where `stop` comes first. `stage` is
/// shown as failing meanwhile.
///
/// # Errors
/// What will not pass.
pub async fn patiently<T, F: Future<Output = Result<T, TopicError>>>(
    notes: &Notes,
    stage: &'static str,
    stop: &CancellationToken,
    call: impl Fn() -> F,
) -> Result<Option<T>, Failure> {
    let mut failed = false;
    loop {
        match call().await {
            Ok(done) => {
                if failed {
                    notes.failing(stage, None);
                }
                return Ok(Some(done));
            }
            Err(e) if e.passing() => {
                failed = true;
                notes.failing(stage, Some(Fault::from_error(&e).chain()));
                let pause = tokio::time::sleep(TOPIC_RETRY);
                if stop.run_until_cancelled(pause).await.is_none() {
                    return Ok(None);
                }
            }
            Err(e) => return Err(Failure::stage(&e)),
        }
    }
}

/// A stop came while the topic could not be used.
pub fn interrupted() -> Failure {
    Failure::run(
        Fault::new("stopped while the topic could not be used")
            .hint("start again: it goes on from the last checkpoint, and nothing is lost"),
    )
}

/// Publishes records of `source`, but for those up to what each partition holds (`held`); false where
/// `stop` came first. While what is wrong may pass, this waits and tries again.
///
/// # Errors
/// What will not pass.
pub async fn publish(
    topic: &dyn Topic,
    notes: &Notes,
    source: &str,
    mut cleared: Cleared<Outbound>,
    held: &mut BTreeMap<i32, u64>,
    stop: &CancellationToken,
) -> Result<bool, Failure> {
    let mut failed = false;
    loop {
        drop_held(&mut cleared, held);
        match topic.publish(cleared.clone()).await {
            Ok(()) => break,
            Err(e) if e.passing() => {
                failed = true;
                notes.failing("topic", Some(Fault::from_error(&e).chain()));
                let pause = tokio::time::sleep(TOPIC_RETRY);
                if stop.run_until_cancelled(pause).await.is_none() {
                    return Ok(false);
                }
                // Some partitions may have taken their part: those must not get it twice.
                let asking = || topic.highest(source);
                let Some(now) = patiently(notes, "topic", stop, asking).await? else {
                    return Ok(false);
                };
                *held = now;
            }
            Err(e) => return Err(Failure::stage(&e)),
        }
    }
    if failed {
        notes.failing("topic", None);
    }
    Ok(true)
}

/// Leaves out the records up to what each partition holds.
fn drop_held(cleared: &mut Cleared<Outbound>, held: &BTreeMap<i32, u64>) {
    if held.is_empty() {
        return;
    }
    cleared.retain(|message| {
        let position = Src::parse(&message.src).map_or(0, |(_, position)| position);
        held.get(&message.partition)
            .is_none_or(|highest| position > *highest)
    });
}

impl Derive {
    /// Reads on from where the views are. While the cluster is away this waits and tries again, until
    /// `stop`: then there is nothing more.
    ///
    /// # Errors
    /// Where the topic cannot be read, or retention has overtaken the views.
    pub async fn fetch(
        &self,
        bytes_max: usize,
        wait: Duration,
        stop: &CancellationToken,
    ) -> Result<Vec<Fetched>, Failure> {
        let fetching = || self.topic.fetch(&self.positions, bytes_max, wait);
        let fetched = patiently(&self.notes, "views", stop, fetching).await?;
        Ok(fetched.unwrap_or_default())
    }

    /// Says once that the topic holds records of somebody else: they may be all of it, where a data
    /// directory was lost with its key.
    fn tell_not_cleared(&mut self, rejects: &[Reject]) {
        if self.told_not_cleared {
            return;
        }
        let not_cleared = |reject: &&Reject| reject.reason == Reason::NotCleared;
        let Some(first) = rejects.iter().find(not_cleared) else {
            return;
        };
        self.told_not_cleared = true;
        let place = match first.at {
            At::Topic { partition, offset } => {
                format!(", the first at partition {partition}, offset {offset}")
            }
            _ => String::new(),
        };
        crate::stdio::warn(
            &Fault::new(format!(
                "topic `{}` holds records that were not cleared with this pipeline's key{place}; they are rejects",
                self.topic_name
            ))
            .hint("where the data directory is a new one, put back `keys` of the old one or choose another `topic.name`; where another program writes there, let it write to a topic of its own and read that by `[source.kafka]`"),
        );
    }

    /// Whether nothing more was to be had behind what was just read.
    pub fn is_near_end(fetched: &[Fetched]) -> bool {
        fetched.iter().all(|part| part.next >= part.end)
    }

    /// Counts what was decoded and moves the positions on; rejects go to their topic.
    ///
    /// # Errors
    /// Where the rejects cannot be written.
    pub async fn count(
        &mut self,
        fetched: &[Fetched],
        decoded: Decoded,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let out = decoded.batch.get().len() as u64;
        let late = self.views.take_late(now_ms());
        let mut rejects = decoded.rejects;
        self.ledger.read += decoded.read;
        self.ledger.out += out;
        self.ledger.rejected += rejects.len() as u64;
        self.ledger.duplicate += decoded.duplicates;
        let late_count = late.len() as u64;
        rejects.extend(late);
        // Without them this batch was not read: the next run reads it again.
        let told = patiently(&self.notes, "views", stop, || self.topic.reject(&rejects)).await?;
        if told.is_none() {
            return Err(interrupted());
        }
        let mut newest = None;
        for part in fetched {
            self.positions.advance(part.partition, part.next);
            self.moved.insert(part.partition, Instant::now());
            newest = newest.max(part.messages.last().map(|m| m.timestamp_ms * 1000));
        }
        for reject in &rejects {
            *self.rejects.entry(reject.reason.to_string()).or_insert(0) += 1;
        }
        self.tell_not_cleared(&rejects);
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

    /// Hands changed rows to the sinks and to the publisher. No sink is waited for.
    ///
    /// # Errors
    /// Where a view cannot go on.
    pub fn drain(&mut self) -> Result<(), Failure> {
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
        let place = place(&self.positions, self.decoder.seen());
        self.sinks.offer(&updates, &place)
    }

    /// Gives sinks that found a table empty its rows: of aggregate views what the state holds, of
    /// row views what the topic still has.
    ///
    /// # Errors
    /// Where a view cannot go on.
    pub async fn repay(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        let infos = self.views.info();
        for (outlet, owed) in self.sinks.take_owed() {
            let (rows, groups): (Vec<_>, Vec<_>) = infos
                .iter()
                .filter(|info| owed.contains(&info.name))
                .partition(|info| info.kind == ViewKind::Row);
            if !groups.is_empty() {
                self.drain()?;
                let Some(version) = self.version() else {
                    outlet.owe(owed);
                    continue;
                };
                for group in groups {
                    self.tell_dropped(outlet.name(), &group.name);
                }
                let mut all = self.views.all(version).map_err(|e| Failure::stage(&e))?;
                all.retain(|update| owed.contains(&update.view.name));
                outlet.repay(all).map_err(|e| Failure::stage(&e))?;
            }
            if !rows.is_empty() {
                let asking = || starts(self.topic.as_ref());
                let Some(start) = patiently(&self.notes, "views", stop, asking).await? else {
                    outlet.owe(owed);
                    continue;
                };
                outlet.read_again(place(&start, &Seen::default()));
            }
        }
        Ok(())
    }

    /// Says what a table that is filled from the state lacks.
    fn tell_dropped(&self, sink: &str, view: &str) {
        let rows = self.views.dropped(view);
        if rows > 0 {
            crate::stdio::warn(
                &Fault::new(format!(
                    "sink `{sink}`: view `{view}` is filled from the state, which no longer has its closed windows ({rows} rows)"
                ))
                .hint(format!(
                    "`--rebuild {view}` computes all of them again from what the topic still has"
                )),
            );
        }
    }

    /// Writes what stores refused to the rejects, and counts it.
    ///
    /// # Errors
    /// Where the rejects cannot be written.
    pub async fn tell_refused(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        let refused = self.sinks.take_refused();
        if refused.is_empty() {
            return Ok(());
        }
        let telling = || self.topic.reject(&refused);
        if patiently(&self.notes, "views", stop, telling)
            .await?
            .is_none()
        {
            return Err(interrupted());
        }
        for reject in &refused {
            *self.rejects.entry(reject.reason.to_string()).or_insert(0) += 1;
        }
        self.notes.note(|noted| {
            for reject in &refused {
                noted.reject(reject.reason);
            }
        });
        Ok(())
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
    fn show_all(&mut self) -> Result<(), Failure> {
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
        Ok(())
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
    pub async fn checkpoint(&mut self, stop: &CancellationToken) -> Result<bool, Failure> {
        self.checkpoint_at = Instant::now();
        self.drain()?;
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
        // After it was seen what is pending: what was refused before that is told by now.
        self.tell_refused(stop).await?;
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
                self.show_positions().await;
                let duration_ms = self.checkpoint_at.elapsed().as_secs_f64() * 1000.0;
                self.notes.failing("views", None);
                self.notes.note(|noted| {
                    noted.checkpoint = Some((Time(now_us()), bytes, duration_ms));
                    noted.ledger = ledger;
                });
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Failure::run(
                Fault::new("another falaj has taken this pipeline over")
                    .cause("it has written checkpoints since this one's last")
                    .hint("this one has stopped; nothing is lost. Start it again as its standby"),
            )),
            Err(e) => {
                self.notes
                    .failing("views", Some(format!("cannot write a checkpoint: {e}")));
                Ok(false)
            }
        }
    }

    /// Shows the cluster's tools how far the views have come; falaj itself never reads it.
    async fn show_positions(&self) {
        let group = group_of(&self.topic_name);
        let shown = self.topic.commit(&group, &self.positions);
        match tokio::time::timeout(SHOW_WAIT_MAX, shown).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::debug!(error = %e, "positions are not shown to the group"),
            Err(_) => tracing::debug!("positions are not shown to the group in time"),
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

/// The sinks of a line, each behind its own queue.
pub struct Outlets(Vec<Arc<Outlet>>);

impl Outlets {
    /// Offers updates of the records up to `to` to all sinks.
    fn offer(&self, updates: &[ViewUpdate], to: &Place) -> Result<(), Failure> {
        for outlet in &self.0 {
            outlet
                .offer(updates.to_vec(), to.clone())
                .map_err(|e| Failure::stage(&e))?;
        }
        Ok(())
    }

    /// Sinks that found tables empty since the last call, with the views.
    fn take_owed(&self) -> Vec<(Arc<Outlet>, BTreeSet<String>)> {
        let owed = |outlet: &Arc<Outlet>| (Arc::clone(outlet), outlet.take_owed());
        let all = self.0.iter().map(owed);
        all.filter(|(_, views)| !views.is_empty()).collect()
    }

    fn take_refused(&self) -> Vec<Reject> {
        self.0.iter().flat_map(|o| o.take_refused()).collect()
    }

    /// Waits until the sinks have everything, but not longer than `patience`; says whether they do.
    pub async fn drained(&self, patience: Duration) -> bool {
        let all = futures::future::join_all(self.0.iter().map(|outlet| outlet.drained()));
        let drained = tokio::time::timeout(patience, all).await;
        drained.is_ok_and(|all| all.iter().all(Result::is_ok))
    }

    /// Rows that all sinks have acknowledged or that their stores refused.
    pub fn done_rows(&self) -> u64 {
        let statuses = self.0.iter().map(|outlet| outlet.status());
        statuses.map(|s| s.written_rows + s.refused_rows).sum()
    }

    /// What the sinks that do not have everything say of it.
    pub fn undone(&self) -> Vec<OutletStatus> {
        let statuses = self.0.iter().map(|outlet| outlet.status());
        statuses
            .filter(|s| s.pending_rows > 0 || s.behind || s.state == OutletState::Starting)
            .collect()
    }

    /// What each sink has not acknowledged, for the checkpoint.
    fn pending(&self) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let blob = |outlet: &Arc<Outlet>| {
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
        self.0.clone()
    }

    async fn close(&self) {
        for outlet in &self.0 {
            outlet.close().await;
        }
    }
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
    let keys = Keys::new(&Key::new(
        dir.master_key(plan.config.privacy.key.as_ref(), &plan.folder)?,
    ));
    let notes = Arc::new(Notes::default());
    let topic = broker
        .topic(&plan.config.topic)
        .await
        .map_err(|e| Failure::stage(&e))?;
    let place = Arc::new(State::of(plan, dir)?);
    let unreadable_in = |what: &str, cause: io::Error| {
        Failure::run(Fault::new(format!("cannot read {what} in `{}`", place.place())).cause(cause))
    };
    let (checkpoints, found) =
        Checkpoints::open(Arc::clone(&place)).map_err(|e| unreadable_in("the checkpoints", e))?;
    let kept = Kept::of(found);
    kept.check(plan, topic.as_ref()).await?;
    let mut stood = kept.source();
    replay::settle(&mut stood, topic.as_ref()).await?;
    let earlier = Policies::open(&place)?.with(plan.policy.declarations(), &place)?;

    let source = open_source(plan, dir, &keys, &broker, stop).await?;
    let pseudonyms = Arc::new(KeyedPseudonyms::new(&keys));
    let partitions = plan.config.topic.partitions;
    // Each call names the part of the source that its records are of.
    let of = source.kind().into();
    let gate = Gate::new(Arc::clone(&plan.policy), pseudonyms, &keys, of, partitions);
    let state = Arc::new(Mutex::new(stood));

    let mut decoder = Decoder::new(Arc::clone(&plan.policy), &keys, &earlier);
    if let Some(bytes) = kept.blob(SEEN) {
        decoder.resume(serde_json::from_slice::<Seen>(bytes).map_err(|_| unreadable(SEEN))?);
    }
    let infos = plan.views.info();
    if let Some(desk) = source.desk() {
        hub.set_ingest(Arc::new(Requests(desk)));
    }
    let (k, delta_k) = (plan.policy.k(), plan.policy.delta_k());
    let publisher = match kept.blob(PUBLISHER) {
        Some(bytes) => {
            let state: PublisherState =
                postcard::from_bytes(bytes).map_err(|_| unreadable(PUBLISHER))?;
            Publisher::resume(k, delta_k, state, &infos)
        }
        None => Publisher::new(k, delta_k),
    };
    let positions = match kept.0 {
        Some(_) => kept.positions(),
        // Retention may have moved the start on before the first checkpoint was written.
        None => starts(topic.as_ref())
            .await
            .map_err(|e| Failure::stage(&e))?,
    };
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
    let sinks = open_sinks(plan, dir, &kept, &offered, &terms).await?;
    for outlet in sinks.handles() {
        let catch_up = CatchUp {
            outlet,
            broker: Arc::clone(&broker),
            topic: plan.config.topic.name.clone(),
            clock: clock.clone(),
            policy: Arc::clone(&plan.policy),
            keys: keys.clone(),
            earlier: earlier.clone(),
            views: Box::new(plan.row_views()),
        };
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
        moved: (0..partitions.cast_signed())
            .map(|p| (p, Instant::now()))
            .collect(),
        told_not_cleared: false,
        notes: Arc::clone(&notes),
    };
    derive.show_all()?;
    derive.repay(stop).await?;
    let intake = Intake {
        source,
        gate,
        keys,
        topic,
        names: BTreeMap::new(),
        held: BTreeMap::new(),
        decided: Decided::default(),
        state,
        notes: Arc::clone(&notes),
    };
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

/// Sets the source to go on where the last checkpoint or the topic says, and gives its state.
///
/// A source that can be read again is read from the checkpoint on: what the topic has of it already
/// is counted and not published. Another one is not: what the topic got after the checkpoint is
/// counted here.
async fn resume_source(
    source: &mut dyn Source,
    id: &Arc<str>,
    kept: SourceState,
    topic: &dyn Topic,
) -> Result<(SourceState, i64), Failure> {
    let mut state = kept;
    state.turn_to(id);
    let mut rejects_end = state.rejects_from;
    if !source.rereads() {
        let held = topic.highest(id).await.map_err(|e| Failure::stage(&e))?;
        let after = state.positions.get(&0).copied().unwrap_or(0);
        let mut highest = held.values().copied().max().unwrap_or(0).max(after);
        let offsets = topic.offsets().await.map_err(|e| Failure::stage(&e))?;
        let more = topic.count(&state.ends).await;
        let more = more.map_err(|e| Failure::stage(&e))?;
        state.ledger.r#in += more;
        state.ledger.published += more;
        for offsets in offsets {
            state.ends.advance(offsets.partition, offsets.end);
        }
        let mut rejected = None;
        let end = held::rejects(topic, state.rejects_from, |_, reject| {
            let At::Source { source, position } = &reject.at else {
                return;
            };
            if source != id {
                return;
            }
            rejected = rejected.max(Some(*position));
            if *position > after {
                state.ledger.r#in += 1;
                state.ledger.rejected += 1;
                highest = highest.max(*position);
            }
        })
        .await;
        rejects_end = end.map_err(|e| Failure::stage(&e))?;
        state.positions.insert(0, highest);
        let held = Held {
            records: held,
            rejected,
        };
        let resumed = source.resume_with(&held).await;
        resumed.map_err(|e| Failure::stage(&e))?;
    }
    for (part, position) in &state.positions {
        source.resume_after(*part, *position);
    }
    Ok((state, rejects_end))
}

/// The views with the checkpoint's state; those to be rebuilt from the topic as far as it goes back.
async fn resume_views(
    plan: &Plan,
    kept: &Kept,
    keys: &Keys,
    earlier: &[falaj_privacy::Declarations],
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

/// Opens the sinks; tables of views that are computed again are made anew. A store that cannot be
/// reached is tried again while falaj runs, unless a table of it has to be made anew.
async fn open_sinks(
    plan: &Plan,
    dir: &DataDir,
    kept: &Kept,
    offered: &Place,
    terms: &Terms,
) -> Result<Outlets, Failure> {
    let places = Places {
        pipeline: &plan.folder,
        data: dir.path(),
    };
    let mut stores = BTreeMap::new();
    for (name, config) in &plan.config.sinks {
        if let Some(other) = stores.insert(config.store(places), name) {
            return Err(Failure::usage(
                Fault::new(format!(
                    "sinks `{other}` and `{name}` write to the same store"
                ))
                .hint("give one of them another store, or name all views in one sink"),
            ));
        }
    }
    let mut sinks = Vec::new();
    for (name, config) in &plan.config.sinks {
        let sink = config.sink(places, terms);
        sinks.push((name, config, sink.map_err(|e| in_sink(name, &e))?));
    }
    if !plan.rebuild.is_empty() {
        // All of them are reached before the first loses a table: closed windows may be nowhere else.
        let reaching = sinks.iter_mut().map(async |(name, _, sink)| {
            let reached = sink.inspect(&[]).await;
            reached.map_err(|e| in_sink(name, &e))
        });
        futures::future::try_join_all(reaching).await?;
    }
    let opening = sinks
        .into_iter()
        .map(|(name, config, sink)| open_sink(plan, name, config, sink, kept, offered));
    let outlets = futures::future::try_join_all(opening).await?;
    Ok(Outlets(outlets))
}

fn in_sink(name: &str, error: &SinkError) -> Failure {
    Failure::run(fault_in_sink(name, error))
}

fn fault_in_sink(name: &str, error: &SinkError) -> Fault {
    let mut fault = Fault::from_error(error);
    fault.message = format!("sink `{name}`: {}", fault.message);
    fault
}

async fn open_sink(
    plan: &Plan,
    name: &str,
    config: &SinkConfig,
    mut sink: Box<dyn Sink>,
    kept: &Kept,
    offered: &Place,
) -> Result<Arc<Outlet>, Failure> {
    let infos = plan.views.info();
    let taken = infos.iter().filter(|view| config.views().takes(&view.name));
    let views: Vec<_> = taken.cloned().collect();
    let mut resumed = views.clone();
    resumed.retain(|view| !plan.rebuild.contains(&view.name));
    let pending = kept
        .blob(&format!("{SINK}{name}"))
        .map(|bytes| Pending::from_bytes(bytes, &resumed))
        .transpose()
        .map_err(|e| in_sink(name, &e))?;
    // Where nothing says what this sink was given it gets everything: it is new here, was left out
    // for a while, has got another name, or takes more views than it did.
    let pending = pending.unwrap_or_default();
    let anew = plan.rebuild.iter().filter(|v| config.views().takes(v));
    for view in anew {
        sink.drop_view(view).await.map_err(|e| in_sink(name, &e))?;
    }
    let prepared = match sink.prepare(&views).await {
        Ok(prepared) => Some(prepared),
        Err(e) if e.passing() => {
            crate::stdio::warn(&fault_in_sink(name, &e));
            None
        }
        Err(e) => return Err(in_sink(name, &e)),
    };
    let (place, limits) = (offered.clone(), Limits::default());
    let outlet = Outlet::new(name, sink, views, prepared, place, pending, limits);
    Ok(Arc::new(outlet))
}
