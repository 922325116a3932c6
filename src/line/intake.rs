//! From the source through the gate to the topic.
//!
//! Always: records that the topic already has are not published again, whatever the source repeats.
//! Always: rejects stand before what was published beside them, and both before they are counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use falaj_privacy::{Cleared, Gate, KeyedPseudonyms, Keys, Passage, source_identity};
use falaj_record::{At, Outbound, Positions, Src};
use falaj_source::{Held, Outcome, Portion, Source};
use falaj_topic::Topic;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::patience::{TOPIC_RETRY, patiently};
use crate::checkpoint::SourceState;
use crate::failure::{Failure, Fault};
use crate::held::{self, Decided, part_name};
use crate::plan::Plan;
use crate::report::Notes;

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

impl Intake {
    /// The intake of a source that has not been resumed yet.
    pub(super) fn new(
        plan: &Plan,
        source: Box<dyn Source>,
        keys: Keys,
        topic: Arc<dyn Topic>,
        state: Arc<Mutex<SourceState>>,
        notes: Arc<Notes>,
    ) -> Self {
        let pseudonyms = Arc::new(KeyedPseudonyms::new(&keys));
        let partitions = plan.config.topic.partitions;
        // Each call names the part of the source that its records are of.
        let of = source.kind().into();
        let gate = Gate::new(Arc::clone(&plan.policy), pseudonyms, &keys, of, partitions);
        Self {
            source,
            gate,
            keys,
            topic,
            names: BTreeMap::new(),
            held: BTreeMap::new(),
            decided: Decided::default(),
            state,
            notes,
        }
    }

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
        let kept = self.state.lock().clone();
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
        *self.state.lock() = state;
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
            let mut state = self.state.lock();
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
            .or_insert_with(|| part_name(&state.lock().id, parted, part));
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
