//! Reading rejected records again, after the pipeline file was mended.
//!
//! A replay is a round with a number. What it reads again goes through today's gate under the
//! identity `<part>.r<round>`, so positions of that identity only grow, and neither the topic nor
//! the decoder takes them for those of the run that rejected them.
//!
//! Always: a record is on the topic once. What a round that was killed got onto the topic, or
//! rejected again, is found there ([`settle`]) before anything else happens, and the next round
//! takes the rest.
//! Always: a replayed record came in once: it moves from `rejected` to `published` in the ledger, and
//! `replayed` says how many did.
//! Always: a reject is read again once under the same gate; one whose record is gone stays a reject.
//! Absent on purpose: views and sinks, which the next run brings up to date; records that the last
//! checkpoint does not count yet, which the next run settles.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use falaj_privacy::{Gate, KeyedPseudonyms, source_identity};
use falaj_record::{At, Positions, Reject, SourceLedger};
use falaj_source::Reread;
use falaj_topic::Topic;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::active::{Active, activate_now};
use crate::checkpoint::{Checkpoint, Checkpoints, SourceState};
use crate::clock::now_ms;
use crate::data_dir::{DataDir, Policies};
use crate::failure::{Failure, Fault};
use crate::held::{self, part_name, part_of};
use crate::line;
use crate::plan::Plan;
use crate::report::Notes;
use crate::state::State;

/// Most records read again at once.
const BATCH_RECORDS_MAX: usize = 4096;
/// What stands between a part and the number of a round.
const ROUND: &str = ".r";

/// What became of the rejects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Published now.
    pub replayed: u64,
    /// Read again, and rejected again.
    pub rejected_again: u64,
    /// Read again, and kept out on purpose.
    pub withheld: u64,
    /// No longer in the source, or of another one than the pipeline file names today.
    pub gone: u64,
    /// Nothing to be read again: messages of the topic, late records, records of a source that
    /// gives each once.
    pub not_replayable: u64,
    /// Rejected again by an earlier replay, under this same gate.
    pub unchanged: u64,
    /// Beyond the last checkpoint: the next run counts them.
    pub not_counted_yet: u64,
}

/// What a replay did.
#[derive(Debug)]
pub struct Replayed {
    pub tally: Tally,
    /// Whether the views were made under another policy than today's.
    pub changed: bool,
}

/// What replays did so far; a part of the checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replays {
    /// Rounds that were begun, and how many of them are counted.
    rounds: u32,
    settled: u32,
    /// The gate that a round asked.
    gates: BTreeMap<u32, String>,
    /// Offsets of rejects that were read again. What was rejected again has another one.
    done: Offsets,
}

impl Replays {
    /// Rounds that are not counted.
    fn open(&self) -> RangeInclusive<u32> {
        self.settled + 1..=self.rounds
    }

    fn begin(&mut self, gate: String) -> u32 {
        self.rounds += 1;
        self.gates.insert(self.rounds, gate);
        self.rounds
    }

    /// Counts all rounds: what they read again of `offsets` is done.
    fn close(&mut self, offsets: Vec<i64>) {
        self.settled = self.rounds;
        self.done.extend(offsets);
    }
}

/// A set of offsets, as ranges that grow and do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Offsets(Vec<(i64, i64)>);

impl Offsets {
    fn contains(&self, offset: i64) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= offset);
        after > 0 && offset < self.0[after - 1].1
    }

    fn extend(&mut self, offsets: Vec<i64>) {
        let mut ranges = std::mem::take(&mut self.0);
        ranges.extend(offsets.into_iter().map(|offset| (offset, offset + 1)));
        ranges.sort_unstable();
        for (start, end) in ranges {
            match self.0.last_mut() {
                Some((_, last)) if start <= *last => *last = end.max(*last),
                _ => self.0.push((start, end)),
            }
        }
    }
}

/// Identity of a part's records in a round.
fn round_name(part: &str, round: u32) -> Arc<str> {
    format!("{part}{ROUND}{round}").into()
}

/// The part that an identity is of, and the round; 0 is the run itself.
fn origin(name: &str) -> (&str, u32) {
    name.rsplit_once(ROUND)
        .and_then(|(part, round)| Some((part, round.parse().ok()?)))
        .unwrap_or((name, 0))
}

/// Moves what a replay did not reject again.
fn moved(ledger: &mut SourceLedger, replayed: u64, withheld: u64) -> Result<(), Failure> {
    let left = ledger.rejected.checked_sub(replayed + withheld);
    ledger.rejected = left.ok_or_else(|| {
        Failure::run(
            Fault::new(format!(
                "{replayed} records were replayed, and the ledger has {} rejects",
                ledger.rejected
            ))
            .hint(
                "this is a fault of falaj: please report it with the data directory's checkpoint",
            ),
        )
    })?;
    ledger.published += replayed;
    ledger.replayed += replayed;
    ledger.withheld += withheld;
    Ok(())
}

/// Counts what a round that was interrupted got done, and says how many records it published.
///
/// # Errors
/// Where the topics cannot be read.
pub async fn settle(state: &mut SourceState, topic: &dyn Topic) -> Result<u64, Failure> {
    let open = state.replays.open();
    if open.is_empty() {
        return Ok(0);
    }
    let mut published: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let mut of_a_run = false;
    held::messages(topic, &state.ends, |name, position| {
        let (part, round) = origin(name);
        of_a_run |= round == 0;
        if open.contains(&round) {
            let positions = published.entry(part.to_owned()).or_default();
            positions.insert(position);
        }
    })
    .await
    .map_err(|e| Failure::stage(&e))?;
    let replayed = published.values().map(|p| p.len() as u64).sum();
    let mut read_again = published;
    held::rejects(topic, 0, |_, reject| {
        if let Some((part, round, position)) = stood(reject)
            && open.contains(&round)
        {
            let positions = read_again.entry(part.to_owned()).or_default();
            positions.insert(position);
        }
    })
    .await
    .map_err(|e| Failure::stage(&e))?;
    let mut offsets = Vec::new();
    held::rejects(topic, 0, |offset, reject| {
        if let Some((part, round, position)) = stood(reject)
            && !open.contains(&round)
            && read_again.get(part).is_some_and(|p| p.contains(&position))
        {
            offsets.push(offset);
        }
    })
    .await
    .map_err(|e| Failure::stage(&e))?;
    moved(&mut state.ledger, replayed, 0)?;
    state.replays.close(offsets);
    if !of_a_run {
        state.ends = ends(topic).await?;
    }
    Ok(replayed)
}

/// Part, round and position of a reject that stands in a source.
fn stood(reject: &Reject) -> Option<(&str, u32, u64)> {
    let At::Source { source, position } = &reject.at else {
        return None;
    };
    let (part, round) = origin(source);
    Some((part, round, *position))
}

/// A reject to be read again, in the order of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    part: i32,
    position: u64,
    /// Of the reject.
    offset: i64,
}

/// The source that rejects are looked for in, as the pipeline file has it today.
struct Today<'a> {
    id: &'a str,
    kind: &'a str,
    parted: bool,
    /// Up to where the checkpoint counts each of its parts.
    counted: BTreeMap<i32, u64>,
    /// What its gate depends on; nothing where a reject may be asked again under the same one.
    gate: Option<&'a str>,
}

impl Today<'_> {
    /// Whether `reject` is to be read again; counts those that are not.
    fn wants(
        &self,
        offset: i64,
        reject: &Reject,
        replays: &Replays,
        tally: &mut Tally,
    ) -> Option<Wanted> {
        let Some((name, round, position)) = stood(reject) else {
            tally.not_replayable += 1;
            return None;
        };
        if replays.done.contains(offset) {
            return None;
        }
        let Some(part) = part_of(self.id, self.parted, name) else {
            // Identities begin with the kind of source.
            if name.split('-').next() == Some(self.kind) {
                tally.gone += 1;
            } else {
                tally.not_replayable += 1;
            }
            return None;
        };
        if position > self.counted.get(&part).copied().unwrap_or(0) {
            tally.not_counted_yet += 1;
            return None;
        }
        let asked = replays.gates.get(&round).map(String::as_str);
        if self.gate.is_some() && asked == self.gate {
            tally.unchanged += 1;
            return None;
        }
        Some(Wanted {
            part,
            position,
            offset,
        })
    }
}

/// Reads the rejects of a plan's source again and publishes what passes its gate now. `again` reads
/// also what an earlier replay rejected under the same gate.
///
/// # Errors
/// Where a falaj runs the pipeline, what was kept does not fit the plan, or source or topic cannot
/// be used. What was published before is counted by the next run or replay.
pub async fn replay(
    plan: &Plan,
    dir: &DataDir,
    again: bool,
    stop: &CancellationToken,
) -> Result<Replayed, Failure> {
    if plan.config.topic.embedded() && !dir.exists() {
        return Err(never_run());
    }
    let Active {
        lock: _lock,
        broker,
        lease: _lease,
        ..
    } = activate_now(plan, dir).await?;
    let replayed = replay_on(plan, dir, &broker, again, stop).await;
    broker.close().await;
    replayed
}

async fn replay_on(
    plan: &Plan,
    dir: &DataDir,
    broker: &Arc<dyn falaj_topic::Broker>,
    again: bool,
    stop: &CancellationToken,
) -> Result<Replayed, Failure> {
    let place = Arc::new(State::of(plan, dir)?);
    let mut book = Book::open(&place)?;
    let topic = broker.topic(&plan.config.topic).await;
    let topic = topic.map_err(|e| Failure::stage(&e))?;
    line::check_topic(&book.checkpoint.head, plan, topic.as_ref()).await?;
    let changed = book.checkpoint.head.policy != plan.policy.hash();
    let mut state = book.checkpoint.head.source.clone();
    let mut tally = Tally {
        replayed: settle(&mut state, topic.as_ref()).await?,
        ..Tally::default()
    };
    let policies = Policies::open(&place)?;
    let keys = line::keys(plan, dir, &policies)?;
    let opening = line::opening(plan, dir, broker, false, stop).await?;
    let source = falaj_source::reread(&plan.config.source, opening).await;
    let mut source = source.map_err(|e| Failure::stage(&e))?;
    let id = source_identity(&keys, source.kind(), source.material());
    let gate = plan.policy.gate();
    let wanted = {
        let today = Today {
            id: &id,
            kind: source.kind(),
            parted: source.parted(),
            counted: state.stood(&id).cloned().unwrap_or_default(),
            gate: (!again).then_some(&gate),
        };
        let mut wanted = Vec::new();
        held::rejects(topic.as_ref(), 0, |offset, reject| {
            wanted.extend(today.wants(offset, reject, &state.replays, &mut tally));
        })
        .await
        .map_err(|e| Failure::stage(&e))?;
        wanted.sort_unstable();
        wanted
    };
    if wanted.is_empty() {
        if state != book.checkpoint.head.source {
            book.write(state)?;
        }
        return Ok(Replayed { tally, changed });
    }
    policies.with(plan.policy.declarations(), &place)?;
    let at_end = ends(topic.as_ref()).await? == state.ends;
    let number = state.replays.begin(gate);
    // From here on a kill leaves a round that is settled later.
    book.write(state.clone())?;
    let mut round = Round {
        number,
        id: &id,
        source: source.as_mut(),
        gate: Gate::new(
            Arc::clone(&plan.policy),
            Arc::new(KeyedPseudonyms::new(&keys)),
            &keys,
            Arc::clone(&id),
            plan.config.topic.partitions,
        ),
        topic: topic.as_ref(),
        notes: Notes::default(),
        tally: Tally::default(),
        done: Vec::new(),
    };
    for part in wanted.chunk_by(|a, b| a.part == b.part) {
        if !round.part(part, stop).await? {
            break;
        }
    }
    let Round {
        tally: of_round,
        done,
        ..
    } = round;
    moved(&mut state.ledger, of_round.replayed, of_round.withheld)?;
    state.replays.close(done);
    if at_end {
        // Nothing is there that a run would have to count: it need not look at these again.
        state.ends = ends(topic.as_ref()).await?;
    }
    book.write(state)?;
    tally.replayed += of_round.replayed;
    tally.rejected_again = of_round.rejected_again;
    tally.withheld = of_round.withheld;
    tally.gone += of_round.gone;
    Ok(Replayed { tally, changed })
}

async fn ends(topic: &dyn Topic) -> Result<Positions, Failure> {
    let offsets = topic.offsets().await.map_err(|e| Failure::stage(&e))?;
    Ok(Positions(
        offsets.iter().map(|o| (o.partition, o.end)).collect(),
    ))
}

fn never_run() -> Failure {
    Failure::run(
        Fault::new("this pipeline has no checkpoint, so nothing of its source is counted yet")
            .hint("`falaj run` reads the source; what it rejects can be replayed then"),
    )
}

/// The newest checkpoint, with another source ledger time and again.
struct Book {
    checkpoints: Checkpoints,
    checkpoint: Checkpoint,
}

impl Book {
    fn open(place: &Arc<State>) -> Result<Self, Failure> {
        let unreadable = |cause: std::io::Error| {
            let place = place.place();
            Failure::run(
                Fault::new(format!("cannot read the checkpoints in `{place}`")).cause(cause),
            )
        };
        let (checkpoints, found) = Checkpoints::open(Arc::clone(place)).map_err(unreadable)?;
        let checkpoint = found.newest.ok_or_else(never_run)?;
        Ok(Self {
            checkpoints,
            checkpoint,
        })
    }

    fn write(&mut self, state: SourceState) -> Result<(), Failure> {
        self.checkpoint.set_source(state, now_ms());
        let written =
            tokio::task::block_in_place(|| self.checkpoints.write(&self.checkpoint)).map(drop);
        written.map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::run(
                Fault::new("another falaj has taken this pipeline over")
                    .hint("stop it first; what was replayed so far is on the topic and will be counted"),
            ),
            _ => Failure::run(
                Fault::new("cannot write a checkpoint")
                    .cause(e)
                    .hint("make room on the disk of the data directory, and replay again: nothing is published twice"),
            ),
        })
    }
}

/// A round at work.
struct Round<'a> {
    number: u32,
    id: &'a str,
    source: &'a mut dyn Reread,
    gate: Gate,
    topic: &'a dyn Topic,
    notes: Notes,
    tally: Tally,
    /// Offsets of the rejects that were read again.
    done: Vec<i64>,
}

impl Round<'_> {
    /// Reads the records of a part again; false where `stop` came.
    async fn part(&mut self, wanted: &[Wanted], stop: &CancellationToken) -> Result<bool, Failure> {
        let part = wanted[0].part;
        let name = round_name(&part_name(self.id, self.source.parted(), part), self.number);
        let (topic, notes) = (self.topic, &self.notes);
        let asking = || topic.highest(&name);
        // Nothing, unless the checkpoint that knew of this round was lost.
        let held = line::patiently(notes, "topic", stop, asking).await?;
        let Some(mut held) = held else {
            return Ok(false);
        };
        let mut left = wanted;
        while !left.is_empty() {
            let positions = positions(left);
            let found = self.source.read(part, &positions).await;
            let Some(found) = found.map_err(|e| Failure::stage(&e))? else {
                return Ok(false);
            };
            let last = positions[found.looked_at - 1];
            let (these, rest) = left.split_at(left.partition_point(|w| w.position <= last));
            left = rest;
            let passage = self.gate.clear_of(&name, &found.raws, now_ms());
            let published = passage.cleared.get().messages.len() as u64;
            let (topic, notes) = (self.topic, &self.notes);
            let rejecting = || topic.reject(&passage.rejects);
            let told = line::patiently(notes, "topic", stop, rejecting).await?;
            if told.is_none()
                || !line::publish(topic, notes, &name, passage.cleared, &mut held, stop).await?
            {
                return Err(line::interrupted());
            }
            self.tally.replayed += published;
            self.tally.rejected_again += passage.rejects.len() as u64;
            self.tally.withheld += passage.withheld;
            self.tally.gone += (found.looked_at - found.raws.len()) as u64;
            let there = |w: &&Wanted| {
                let at = |raw: &falaj_record::Raw| raw.position.cmp(&w.position);
                found.raws.binary_search_by(at).is_ok()
            };
            let done = these.iter().filter(there).map(|w| w.offset);
            self.done.extend(done);
        }
        Ok(true)
    }
}

/// The next positions to read, each once.
fn positions(wanted: &[Wanted]) -> Vec<u64> {
    let mut positions: Vec<u64> = wanted
        .iter()
        .take(BATCH_RECORDS_MAX)
        .map(|wanted| wanted.position)
        .collect();
    positions.dedup();
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_kept_as_ranges() {
        let mut offsets = Offsets::default();
        offsets.extend(vec![5, 3, 4, 9]);
        offsets.extend(vec![6, 1, 5]);
        assert_eq!(offsets.0, [(1, 2), (3, 7), (9, 10)]);
        let held: Vec<i64> = (0..12).filter(|o| offsets.contains(*o)).collect();
        assert_eq!(held, [1, 3, 4, 5, 6, 9]);
    }

    #[test]
    fn an_identity_tells_its_part_and_its_round() {
        for (name, part, round) in [
            ("file-0a", "file-0a", 0),
            ("file-0a.r3", "file-0a", 3),
            ("kafka-0a.12", "kafka-0a.12", 0),
            ("kafka-0a.12.r1", "kafka-0a.12", 1),
            ("kafka-0a.r", "kafka-0a.r", 0),
        ] {
            assert_eq!(origin(name), (part, round));
        }
        assert_eq!(&*round_name("kafka-0a.12", 2), "kafka-0a.12.r2");
        assert_eq!(part_of("kafka-0a", true, "kafka-0a.12"), Some(12));
        assert_eq!(part_of("kafka-0a", true, "kafka-0a"), None);
        assert_eq!(part_of("kafka-0a", true, "kafka-0ab.1"), None);
        assert_eq!(part_of("file-0a", false, "file-0a"), Some(0));
        assert_eq!(part_of("file-0a", false, "file-0a.1"), None);
    }

    #[test]
    fn a_ledger_that_would_go_below_nothing_is_a_fault() {
        let mut ledger = SourceLedger {
            r#in: 5,
            published: 2,
            rejected: 3,
            ..SourceLedger::default()
        };
        moved(&mut ledger, 2, 1).unwrap();
        assert_eq!((ledger.published, ledger.rejected), (4, 0));
        assert_eq!((ledger.replayed, ledger.withheld), (2, 1));
        assert!(moved(&mut ledger, 1, 0).is_err());
    }
}
