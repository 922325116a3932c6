//! What a partition remembers of idempotent producers (KIP-98, without transactions), so that a
//! batch which is sent again is not appended again.
//!
//! Decided as Kafka's broker does since 2.5: of each producer the epoch and the last five batches
//! are known. One of these again is a repeat. A next batch carries on the sequence, or starts a new
//! epoch at 0. A producer that is not known is taken at any sequence: its state went with time, and
//! refusing would lose what it has to say (KIP-360). Retention and deleting of records take no state
//! away, only a day without a batch does.
//! Always: the state follows from the heads of the batches in their order, so a start makes it again
//! from the last snapshot and what came after.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::Head;

/// How many batches of a producer may be on their way at once, as in Kafka.
const BATCHES: usize = 5;

/// A producer that sent nothing for that long is forgotten, as in Kafka.
const IDLE_MS: i64 = 24 * 60 * 60 * 1000;

/// The most producers a partition knows; beyond, the longest idle are forgotten first. Bounds
/// memory at about 20 MB.
const PRODUCERS_MAX: usize = 1 << 16;

/// Producers of one partition, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Producers(BTreeMap<i64, Producer>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Producer {
    epoch: i16,
    /// The last ones of this epoch, oldest first; never empty.
    batches: VecDeque<Written>,
    /// When it was last heard of, by this machine's clock.
    last_at_ms: i64,
}

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// Sequences of its first and its last record.
    sequences: (i32, i32),
    /// Offset of its first record.
    pub base: i64,
    /// First offset after it.
    pub next: i64,
    /// Its newest timestamp.
    pub newest_ms: i64,
}

/// What a batch of an idempotent producer is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The one that follows.
    Next,
    /// One that is here already.
    Repeat(Written),
    /// Of an epoch that is over; the present one is told.
    Fenced(i16),
    /// Not the one that follows; the sequence that would is told.
    OutOfOrder(i32),
}

impl Producers {
    pub(crate) fn judge(&self, head: &Head) -> Verdict {
        let Some(known) = self.0.get(&head.producer_id) else {
            return Verdict::Next;
        };
        if head.producer_epoch < known.epoch {
            return Verdict::Fenced(known.epoch);
        }
        if head.producer_epoch > known.epoch {
            return match head.base_sequence {
                0 => Verdict::Next,
                _ => Verdict::OutOfOrder(0),
            };
        }
        let sequences = (head.base_sequence, head.last_sequence());
        if let Some(same) = known.batches.iter().find(|b| b.sequences == sequences) {
            return Verdict::Repeat(*same);
        }
        let wanted = known
            .batches
            .back()
            .map_or(0, |last| match last.sequences.1 {
                i32::MAX => 0,
                sequence => sequence + 1,
            });
        if head.base_sequence == wanted {
            Verdict::Next
        } else {
            Verdict::OutOfOrder(wanted)
        }
    }

    /// Notes a batch that was appended. One that it knows of (a start meets those again that the
    /// cleaner has rewritten) changes nothing.
    pub(crate) fn note(&mut self, head: &Head, at_ms: i64) {
        if head.producer_id < 0 {
            return;
        }
        let written = Written {
            sequences: (head.base_sequence, head.last_sequence()),
            base: head.base,
            next: head.next(),
            newest_ms: head.newest_ms,
        };
        if let Some(known) = self.0.get_mut(&head.producer_id) {
            let seen = known.batches.back().is_some_and(|b| head.base < b.next);
            if seen || head.producer_epoch < known.epoch {
                return;
            }
            if head.producer_epoch > known.epoch {
                known.batches.clear();
            }
            known.epoch = head.producer_epoch;
            known.batches.push_back(written);
            if known.batches.len() > BATCHES {
                known.batches.pop_front();
            }
            known.last_at_ms = known.last_at_ms.max(at_ms);
            return;
        }
        if self.0.len() >= PRODUCERS_MAX {
            self.forget_longest_idle();
        }
        self.0.insert(
            head.producer_id,
            Producer {
                epoch: head.producer_epoch,
                batches: [written].into(),
                last_at_ms: at_ms,
            },
        );
    }

    /// A quarter at once, so that it is seldom due.
    fn forget_longest_idle(&mut self) {
        let mut heard: Vec<_> = self.0.values().map(|p| p.last_at_ms).collect();
        heard.sort_unstable();
        let cutoff = heard[heard.len() / 4];
        let mut surplus = heard.len() / 4 + 1;
        self.0.retain(|_, p| {
            let goes = p.last_at_ms <= cutoff && surplus > 0;
            surplus -= usize::from(goes);
            !goes
        });
    }

    /// Forgets those who sent nothing for a day. Whether there were any.
    pub(crate) fn expire(&mut self, now_ms: i64) -> bool {
        let before = self.0.len();
        self.0
            .retain(|_, p| now_ms.saturating_sub(p.last_at_ms) < IDLE_MS);
        self.0.len() < before
    }

    /// Where the last batch of each ends: a cleaner keeps these heads, since they say where the
    /// sequence goes on.
    pub(crate) fn ends(&self) -> BTreeMap<i64, i64> {
        self.0
            .iter()
            .filter_map(|(id, p)| Some((*id, p.batches.back()?.next)))
            .collect()
    }

    /// The ids of all.
    pub(crate) fn ids(&self) -> impl Iterator<Item = i64> {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HEAD_BYTES;

    fn head(base: i64, epoch: i16, sequence: i32, count: i32) -> Head {
        let mut bytes = [0; HEAD_BYTES];
        bytes[8..12].copy_from_slice(&49_i32.to_be_bytes());
        bytes[16] = 2;
        let mut head = Head::parse(&bytes).unwrap();
        (head.base, head.last_delta, head.count) = (base, count - 1, count);
        (head.producer_id, head.producer_epoch) = (7, epoch);
        head.base_sequence = sequence;
        head
    }

    #[test]
    fn a_batch_is_next_repeated_fenced_or_out_of_order_as_kafka_has_it() {
        const MAX: i32 = i32::MAX;
        // (epoch, sequence, records) of what came, then of what is judged.
        type Batch = (i16, i32, i32);
        let next = Verdict::Next;
        let repeat = |base: i64, next, sequences| {
            Verdict::Repeat(Written {
                sequences,
                base,
                next,
                newest_ms: 0,
            })
        };
        let six: &[Batch] = &[
            (0, 0, 2),
            (0, 2, 2),
            (0, 4, 2),
            (0, 6, 2),
            (0, 8, 2),
            (0, 10, 2),
        ];
        let cases: Vec<(&[Batch], Batch, Verdict)> = vec![
            (&[], (0, 0, 1), Verdict::Next),
            (&[], (3, 99, 1), Verdict::Next),
            (&[(0, 0, 3)], (0, 3, 1), Verdict::Next),
            (&[(0, 0, 3)], (0, 0, 3), repeat(0, 3, (0, 2))),
            (&[(0, 0, 3)], (0, 0, 2), Verdict::OutOfOrder(3)),
            (&[(0, 0, 3)], (0, 4, 1), Verdict::OutOfOrder(3)),
            (&[(0, 0, 3)], (1, 0, 1), Verdict::Next),
            (&[(0, 0, 3)], (1, 3, 1), Verdict::OutOfOrder(0)),
            (&[(2, 5, 1)], (1, 6, 1), Verdict::Fenced(2)),
            (&[(0, 0, 1), (1, 0, 1)], (1, 0, 1), repeat(1, 2, (0, 0))),
            (&[(0, 0, 1), (1, 0, 1)], (0, 0, 1), Verdict::Fenced(1)),
            (six, (0, 2, 2), repeat(2, 4, (2, 3))),
            (six, (0, 0, 2), Verdict::OutOfOrder(12)),
            (&[(0, MAX, 1)], (0, 0, 1), Verdict::Next),
            (&[(0, MAX - 1, 4)], (0, 2, 1), Verdict::Next),
            (
                &[(0, MAX - 1, 4)],
                (0, MAX - 1, 4),
                repeat(0, 4, (MAX - 1, 1)),
            ),
        ];
        for (came, (epoch, sequence, count), verdict) in cases {
            let mut producers = Producers::default();
            let mut base = 0;
            for (epoch, sequence, count) in came {
                let head = head(base, *epoch, *sequence, *count);
                assert_eq!(producers.judge(&head), next);
                producers.note(&head, 0);
                base = head.next();
            }
            let judged = producers.judge(&head(base, epoch, sequence, count));
            assert_eq!(judged, verdict, "{came:?} then {epoch} {sequence} {count}");
        }
    }

    #[test]
    fn memory_is_bounded_and_the_idle_are_forgotten_first() {
        let mut producers = Producers::default();
        for id in 0..200_000 {
            let mut head = head(id, 0, 0, 1);
            head.producer_id = id;
            producers.note(&head, id);
        }
        assert!(producers.0.len() <= PRODUCERS_MAX);
        assert_eq!(producers.ids().max(), Some(199_999));
        assert!(!producers.0.contains_key(&0));
        assert!(producers.expire(199_000 + IDLE_MS));
        assert_eq!(producers.0.len(), 999);
        assert!(!producers.expire(199_000 + IDLE_MS));
    }
}
