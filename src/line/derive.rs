//! From the topic through the views to sinks and page.
//!
//! Always: a checkpoint is of one moment: positions, views, what sinks lack and the ledger belong
//! together.
//! Always: no sink is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use falaj_privacy::{Decoded, Decoder, Publisher, Seen};
use falaj_record::{
    At, Fetched, Ledger, Positions, Publication, Reason, Reject, TopicLedger, ViewKind,
};
use falaj_serve::{Hub, Time};
use falaj_topic::{Broker, Topic, group_of};
use falaj_views::Views;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::outlets::Outlets;
use super::patience::{interrupted, patiently};
use super::{PUBLISHER, SEEN, VIEWS, starts};
use crate::catch_up::place;
use crate::checkpoint::{Checkpoint, Checkpoints, Moment, SourceState};
use crate::clock::{SharedClock, now_ms, now_us};
use crate::failure::{Failure, Fault};
use crate::report::Notes;

/// Longest wait for the group to take positions, which nothing depends on.
const SHOW_WAIT_MAX: Duration = Duration::from_secs(2);

/// Topic → views → sinks and page.
pub struct Derive {
    pub decoder: Decoder,
    pub views: Views,
    pub sinks: Outlets,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) topic: Arc<dyn Topic>,
    pub(super) topic_name: String,
    pub(super) policy: String,
    pub(super) publisher: Publisher,
    pub(super) hub: Hub,
    pub(super) positions: Positions,
    pub(super) ledger: TopicLedger,
    pub(super) rejects: BTreeMap<String, u64>,
    pub(super) source: Arc<Mutex<SourceState>>,
    pub(super) clock: SharedClock,
    pub(super) checkpoints: Checkpoints,
    pub(super) checkpoint_every: Duration,
    pub(super) checkpoint_at: Instant,
    pub(super) idle_after: Duration,
    /// When each partition last gave records.
    pub(super) moved: BTreeMap<i32, Instant>,
    /// Whether it was said that the topic holds what this pipeline has not cleared.
    pub(super) told_not_cleared: bool,
    pub(super) notes: Arc<Notes>,
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
    pub(super) fn show_all(&mut self) -> Result<(), Failure> {
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
        let source = self.source.lock().clone();
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
            source: self.source.lock().ledger.clone(),
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
