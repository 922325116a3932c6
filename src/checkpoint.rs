//! Checkpoints: one file that holds everything needed to go on, or nothing.
//!
//! ```text
//! magic "FALAJCK1" · length of the rest u64 · CRC-32C of the rest u32
//! length of the head u32 · head (JSON) · blobs, as long as the head says
//! ```
//!
//! Always: written whole and durably, each under a number of its own; the newest whole one wins; two are
//! kept, so that a damaged newest still leaves one to resume from.
//! Absent on purpose: incremental checkpoints. Runs are immutable, so they can come.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use falaj_record::{Ledger, Positions, SourceLedger};
use serde::{Deserialize, Serialize};

use crate::held::Decided;
use crate::replay::Replays;
use crate::state::State;

const MAGIC: &[u8; 8] = b"FALAJCK1";
/// Bytes before the part that the checksum covers.
const FRAME_BYTES: usize = 8 + 8 + 4;
/// How many checkpoints are kept.
const KEPT: usize = 2;
/// How many sources are remembered that were read before, as where a file a day is.
const SOURCES_KEPT: usize = 1000;
/// Where they are kept.
const FOLDER: &str = "checkpoints";
const SUFFIX: &str = ".checkpoint";

/// Where the source stood, at a moment when all before was acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// Identity of the source.
    pub id: String,
    /// For each part of the source, the highest position that is acknowledged, rejected or withheld,
    /// with all before it. A source without parts has one, 0.
    pub positions: BTreeMap<i32, u64>,
    /// Counts up to those positions.
    pub ledger: SourceLedger,
    /// End of each topic partition at that moment.
    pub ends: Positions,
    /// Offset in the topic of rejects; those of this source before it are counted.
    #[serde(default)]
    pub rejects_from: i64,
    /// Sources that were read before this one, the last one last.
    #[serde(default)]
    pub before: Vec<Before>,
    /// What was read again of the rejects.
    #[serde(default)]
    pub replays: Replays,
}

/// Where a source stood when another one was read in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    pub id: String,
    pub positions: BTreeMap<i32, u64>,
    pub rejects_from: i64,
}

impl SourceState {
    /// Goes over to source `id`, where it stood if it was read before.
    pub fn turn_to(&mut self, id: &str) {
        if self.id == id {
            return;
        }
        let there = self.before.iter().position(|before| before.id == id);
        let there = there.map(|at| self.before.remove(at));
        let left = Before {
            id: std::mem::replace(&mut self.id, id.to_owned()),
            positions: std::mem::take(&mut self.positions),
            rejects_from: std::mem::take(&mut self.rejects_from),
        };
        if let Some(before) = there {
            (self.positions, self.rejects_from) = (before.positions, before.rejects_from);
        }
        if !left.id.is_empty() {
            self.before.push(left);
        }
        if self.before.len() > SOURCES_KEPT {
            self.before.remove(0);
        }
    }

    /// Takes note of what was read again of what was decided before.
    pub fn passed(&mut self, decided: &Decided) {
        if let Some(end) = decided.over() {
            self.rejects_from = self.rejects_from.max(end);
        }
    }

    /// Up to where each part of source `id` is counted; nothing where it was never read.
    pub fn stood(&self, id: &str) -> Option<&BTreeMap<i32, u64>> {
        if self.id == id {
            return Some(&self.positions);
        }
        let before = self.before.iter().find(|before| before.id == id)?;
        Some(&before.positions)
    }
}

/// What stands in the head of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Hash of the policy in force.
    pub policy: String,
    /// Identity of the topic that the positions belong to.
    pub topic: String,
    /// Next offsets.
    pub positions: Positions,
    /// The source.
    pub source: SourceState,
    /// The conservation ledger.
    pub ledger: Ledger,
    /// Reject counts by reason.
    pub rejects: BTreeMap<String, u64>,
    /// Lengths of the blobs, in order.
    lengths: Vec<(String, u64)>,
}

/// A checkpoint: head and named blobs (views, decoder, publisher, a blob for each sink).
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// What is in the head.
    pub head: Head,
    /// State of the stages, as each writes it.
    pub blobs: BTreeMap<String, Vec<u8>>,
}

/// Where a checkpoint starts to be written from.
#[derive(Debug, Clone)]
pub struct Moment {
    pub at_ms: i64,
    pub policy: String,
    pub topic: String,
    pub positions: Positions,
    pub source: SourceState,
    pub ledger: Ledger,
    pub rejects: BTreeMap<String, u64>,
}

impl Checkpoint {
    pub fn new(moment: Moment, blobs: BTreeMap<String, Vec<u8>>) -> Self {
        let lengths = blobs
            .iter()
            .map(|(name, b)| (name.clone(), b.len() as u64))
            .collect();
        let Moment {
            at_ms,
            policy,
            topic,
            positions,
            source,
            ledger,
            rejects,
        } = moment;
        let head = Head {
            at_ms,
            policy,
            topic,
            positions,
            source,
            ledger,
            rejects,
            lengths,
        };
        Self { head, blobs }
    }

    /// Puts where the source stands in its place: nothing else changed since it was written.
    pub fn set_source(&mut self, source: SourceState, at_ms: i64) {
        self.head.ledger.source = source.ledger.clone();
        self.head.source = source;
        self.head.at_ms = at_ms;
    }

    fn encode(&self) -> Vec<u8> {
        let head = serde_json::to_vec(&self.head).expect("a head is plain data");
        let blobs: usize = self.blobs.values().map(Vec::len).sum();
        let mut out = Vec::with_capacity(FRAME_BYTES + 4 + head.len() + blobs);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(
            &u32::try_from(head.len())
                .expect("a head is small")
                .to_le_bytes(),
        );
        out.extend_from_slice(&head);
        for blob in self.blobs.values() {
            out.extend_from_slice(blob);
        }
        let length = (out.len() - FRAME_BYTES) as u64;
        let crc = crc32c::crc32c(&out[FRAME_BYTES..]);
        out[8..16].copy_from_slice(&length.to_le_bytes());
        out[16..20].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let (frame, body) = bytes.split_at_checked(FRAME_BYTES).ok_or(Damage::Short)?;
        if &frame[..8] != MAGIC {
            return Err(Damage::Foreign);
        }
        if u64::from_le_bytes(frame[8..16].try_into().expect("8 bytes")) != body.len() as u64 {
            return Err(Damage::Short);
        }
        if u32::from_le_bytes(frame[16..20].try_into().expect("4 bytes")) != crc32c::crc32c(body) {
            return Err(Damage::Checksum);
        }
        let (length, rest) = body.split_at_checked(4).ok_or(Damage::Short)?;
        let length = u32::from_le_bytes(length.try_into().expect("4 bytes")) as usize;
        let (head, mut rest) = rest.split_at_checked(length).ok_or(Damage::Short)?;
        let head: Head = serde_json::from_slice(head).map_err(|_| Damage::Foreign)?;
        let mut blobs = BTreeMap::new();
        for (name, length) in &head.lengths {
            let length = usize::try_from(*length).map_err(|_| Damage::Short)?;
            let (blob, tail) = rest.split_at_checked(length).ok_or(Damage::Short)?;
            blobs.insert(name.clone(), blob.to_vec());
            rest = tail;
        }
        Ok(Self { head, blobs })
    }
}

/// What is wrong with a checkpoint file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it is shorter than it says")]
    Short,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it is not a checkpoint of this version of falaj")]
    Foreign,
}

/// The checkpoints of a pipeline.
#[derive(Debug)]
pub struct Checkpoints {
    state: Arc<State>,
    next: u64,
}

/// What was found at the start.
#[derive(Debug)]
pub struct Found {
    /// The newest whole one.
    pub newest: Option<Checkpoint>,
    /// Newer ones that could not be used, and why.
    pub damaged: Vec<(String, String)>,
}

impl Checkpoints {
    /// Reads the newest whole checkpoint.
    ///
    /// # Errors
    /// Where they cannot be listed.
    pub fn open(state: Arc<State>) -> io::Result<(Self, Found)> {
        let numbers = numbers(&state)?;
        let mut found = Found {
            newest: None,
            damaged: Vec::new(),
        };
        for number in numbers.iter().rev() {
            let name = name(*number);
            let read = match state.read(&name) {
                Ok(Some(bytes)) => Checkpoint::decode(&bytes).map_err(|damage| damage.to_string()),
                Ok(None) => continue,
                Err(e) => Err(e.to_string()),
            };
            match read {
                Ok(checkpoint) => {
                    found.newest = Some(checkpoint);
                    break;
                }
                Err(why) => found.damaged.push((name, why)),
            }
        }
        let next = numbers.last().map_or(1, |n| n + 1);
        Ok((Self { state, next }, found))
    }

    /// Writes `checkpoint` durably and drops all but the newest two. Returns its size in bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where another falaj has written this one: it has taken over.
    /// Else as the place of state gives them; the checkpoints before are still there then.
    pub fn write(&mut self, checkpoint: &Checkpoint) -> io::Result<u64> {
        let bytes = checkpoint.encode();
        let length = bytes.len() as u64;
        let numbers = numbers(&self.state)?;
        // Looked at first, because the one with this number may be gone again; of two who get past
        // this at once, only one can create it.
        if numbers.last().is_some_and(|newest| *newest >= self.next) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.state.create(&name(self.next), bytes)?;
        self.next += 1;
        for old in numbers.iter().rev().skip(KEPT - 1) {
            self.state.remove(&name(*old))?;
        }
        Ok(length)
    }
}

fn name(number: u64) -> String {
    format!("{FOLDER}/{number:012}{SUFFIX}")
}

/// Numbers of the checkpoints there are, growing.
fn numbers(state: &State) -> io::Result<Vec<u64>> {
    let names = state.list(FOLDER)?;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn open(folder: &Path) -> (Checkpoints, Found) {
        Checkpoints::open(Arc::new(State::Folder(folder.to_owned()))).unwrap()
    }

    fn checkpoint(at_ms: i64) -> Checkpoint {
        let mut positions = Positions::default();
        positions.advance(1, 42);
        let moment = Moment {
            at_ms,
            policy: "p".into(),
            topic: "t".into(),
            positions,
            source: SourceState::default(),
            ledger: Ledger::default(),
            rejects: BTreeMap::new(),
        };
        let blobs = [
            ("views".to_owned(), vec![1, 2, 3]),
            ("sink:local".to_owned(), vec![4]),
        ];
        Checkpoint::new(moment, blobs.into_iter().collect())
    }

    #[test]
    fn the_newest_whole_checkpoint_wins_and_two_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (mut checkpoints, found) = open(dir.path());
        assert!(found.newest.is_none());
        for at in 1..=5 {
            checkpoints.write(&checkpoint(at)).unwrap();
        }
        assert_eq!(numbers(&checkpoints.state).unwrap(), [4, 5]);
        let (_, found) = open(dir.path());
        let newest = found.newest.unwrap();
        assert_eq!((newest.head.at_ms, newest.head.positions.next(1)), (5, 42));
        assert_eq!(newest.blobs["views"], [1, 2, 3]);
    }

    #[test]
    fn a_source_that_is_read_again_goes_on_where_it_stood() {
        let mut state = SourceState::default();
        state.turn_to("a");
        state.positions.insert(0, 7);
        state.rejects_from = 3;
        state.turn_to("b");
        assert!(state.positions.is_empty() && state.rejects_from == 0);
        assert_eq!(state.stood("a"), Some(&[(0, 7)].into()));
        state.turn_to("a");
        assert_eq!((state.positions.get(&0), state.rejects_from), (Some(&7), 3));
        assert_eq!(state.stood("b"), Some(&BTreeMap::new()));
        assert_eq!(state.stood("c"), None);
        for id in 0..2 * SOURCES_KEPT {
            state.turn_to(&format!("file {id}"));
        }
        assert_eq!(state.before.len(), SOURCES_KEPT);
    }

    #[test]
    fn a_checkpoint_of_the_version_before_replays_is_read() {
        let head = r#"{"at_ms":1,"policy":"p","topic":"t","positions":{"0":3},
            "source":{"id":"file-1","positions":{"0":9},
                "ledger":{"in":9,"published":7,"rejected":2,"withheld":0},"ends":{"0":7}},
            "ledger":{"source":{"in":9,"published":7,"rejected":2,"withheld":0},
                "topic":{"read":3,"out":3,"rejected":0,"duplicate":0},"views":{}},
            "rejects":{"wrong type":2},"lengths":[]}"#;
        let head: Head = serde_json::from_str(head).unwrap();
        assert_eq!(head.source.replays, Replays::default());
        assert_eq!(head.ledger.source.replayed, 0);
        assert_eq!(head.ledger.imbalance(), None);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed_and_the_one_before_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let (mut checkpoints, _) = open(dir.path());
        checkpoints.write(&checkpoint(1)).unwrap();
        checkpoints.write(&checkpoint(2)).unwrap();
        let newest = dir.path().join(name(2));
        let whole = fs::read(&newest).unwrap();
        let damaged = (0..whole.len()).flat_map(|i| {
            let mut flipped = whole.clone();
            flipped[i] ^= 0x20;
            [flipped, whole[..i].to_vec()]
        });
        for bytes in damaged {
            fs::write(&newest, bytes).unwrap();
            let (_, found) = open(dir.path());
            assert_eq!(found.newest.map(|c| c.head.at_ms), Some(1));
            assert_eq!(found.damaged.len(), 1);
        }
    }

    #[test]
    fn a_falaj_that_was_overtaken_cannot_put_its_checkpoint_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let (mut paused, _) = open(dir.path());
        paused.write(&checkpoint(1)).unwrap();
        let (mut active, _) = open(dir.path());
        for at in 2..=4 {
            active.write(&checkpoint(at)).unwrap();
            let error = paused.write(&checkpoint(100)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            let (_, found) = open(dir.path());
            assert_eq!(found.newest.map(|c| c.head.at_ms), Some(at));
        }
    }
}
