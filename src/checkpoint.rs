//! Checkpoints: one file that holds everything needed to go on, or nothing.
//!
//! ```text
//! magic "FALAJCK1" · length of the rest u64 · CRC-32C of the rest u32
//! length of the head u32 · head (JSON) · blobs, as long as the head says
//! ```
//!
//! Always: written beside, fsynced, renamed, folder fsynced; the newest whole one wins; two are
//! kept, so that a damaged newest still leaves one to resume from.
//! Absent on purpose: incremental checkpoints. Runs are immutable, so they can come.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use falaj_record::{Ledger, Positions, SourceLedger};
use serde::{Deserialize, Serialize};

use crate::data_dir::write_atomically;

const MAGIC: &[u8; 8] = b"FALAJCK1";
/// Bytes before the part that the checksum covers.
const FRAME_BYTES: usize = 8 + 8 + 4;
/// How many checkpoints are kept.
const KEPT: usize = 2;

/// Where the source stood, at a moment when all before was acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// Identity of the source.
    pub id: String,
    /// Highest position that is acknowledged, rejected or withheld, with all before it.
    pub position: u64,
    /// Counts up to that position.
    pub ledger: SourceLedger,
    /// End of each topic partition at that moment.
    pub ends: Positions,
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

/// The folder of checkpoints.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    next: u64,
}

/// What was found at the start.
#[derive(Debug)]
pub struct Found {
    /// The newest whole one.
    pub newest: Option<Checkpoint>,
    /// Newer ones that could not be used, and why.
    pub damaged: Vec<(PathBuf, String)>,
}

impl Checkpoints {
    /// Opens the folder, making it where it is missing, and reads the newest whole checkpoint.
    ///
    /// # Errors
    /// Where the folder cannot be made or listed.
    pub fn open(folder: &Path) -> io::Result<(Self, Found)> {
        fs::create_dir_all(folder)?;
        let numbers = numbers(folder)?;
        let mut found = Found {
            newest: None,
            damaged: Vec::new(),
        };
        for number in numbers.iter().rev() {
            let path = file(folder, *number);
            match fs::read(&path)
                .map_err(|e| e.to_string())
                .and_then(|bytes| Checkpoint::decode(&bytes).map_err(|damage| damage.to_string()))
            {
                Ok(checkpoint) => {
                    found.newest = Some(checkpoint);
                    break;
                }
                Err(why) => found.damaged.push((path, why)),
            }
        }
        let next = numbers.last().map_or(1, |n| n + 1);
        Ok((
            Self {
                folder: folder.to_owned(),
                next,
            },
            found,
        ))
    }

    /// Writes `checkpoint` durably and drops all but the newest two. Returns its size in bytes.
    ///
    /// # Errors
    /// As the file system gives them; the checkpoints before are still there then.
    pub fn write(&mut self, checkpoint: &Checkpoint) -> io::Result<u64> {
        let bytes = checkpoint.encode();
        write_atomically(&file(&self.folder, self.next), &bytes)?;
        self.next += 1;
        let numbers = numbers(&self.folder)?;
        for old in numbers.iter().rev().skip(KEPT) {
            fs::remove_file(file(&self.folder, *old))?;
        }
        Ok(bytes.len() as u64)
    }
}

fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}.checkpoint"))
}

/// Numbers of the checkpoints in `folder`, growing.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = fs::read_dir(folder)?
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_suffix(".checkpoint")?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let (mut checkpoints, found) = Checkpoints::open(dir.path()).unwrap();
        assert!(found.newest.is_none());
        for at in 1..=5 {
            checkpoints.write(&checkpoint(at)).unwrap();
        }
        assert_eq!(numbers(dir.path()).unwrap(), [4, 5]);
        let (_, found) = Checkpoints::open(dir.path()).unwrap();
        let newest = found.newest.unwrap();
        assert_eq!((newest.head.at_ms, newest.head.positions.next(1)), (5, 42));
        assert_eq!(newest.blobs["views"], [1, 2, 3]);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed_and_the_one_before_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let (mut checkpoints, _) = Checkpoints::open(dir.path()).unwrap();
        checkpoints.write(&checkpoint(1)).unwrap();
        checkpoints.write(&checkpoint(2)).unwrap();
        let newest = file(dir.path(), 2);
        let whole = fs::read(&newest).unwrap();
        let damaged = (0..whole.len()).flat_map(|i| {
            let mut flipped = whole.clone();
            flipped[i] ^= 0x20;
            [flipped, whole[..i].to_vec()]
        });
        for bytes in damaged {
            fs::write(&newest, bytes).unwrap();
            let (_, found) = Checkpoints::open(dir.path()).unwrap();
            assert_eq!(found.newest.map(|c| c.head.at_ms), Some(1));
            assert_eq!(found.damaged.len(), 1);
        }
    }
}
