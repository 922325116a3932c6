//! What the topics of a pipeline already hold of its sources.
//!
//! Always: what was decided of a record stays decided. What the topic has is published and what
//! stands among the rejects is rejected, also where the file was changed after a kill and today's
//! gate would say something else; only a replay asks it again (`replay.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use falaj_privacy::Passage;
use falaj_record::{At, Positions, Reject, Src};
use falaj_topic::{Topic, TopicError};

use crate::checkpoint::SourceState;

/// Most bytes taken from the topic in one read.
const BYTES_MAX: usize = 4 << 20;
/// Most rejects taken in one read.
const REJECTS_MAX: usize = 4096;

/// Identity of a part: of the source itself, where that has no parts.
pub fn part_name(source: &str, parted: bool, part: i32) -> Arc<str> {
    if parted {
        format!("{source}.{part}").into()
    } else {
        source.into()
    }
}

/// The part of `source` that `name` is the identity of.
pub fn part_of(source: &str, parted: bool, name: &str) -> Option<i32> {
    let rest = name.strip_prefix(source)?;
    if !parted {
        return rest.is_empty().then_some(0);
    }
    let part = rest.strip_prefix('.')?;
    part.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    part.parse().ok()
}

/// Gives the identity and position that each message from `from` on says it comes from.
///
/// # Errors
/// Where the topic cannot be read.
pub async fn messages(
    topic: &dyn Topic,
    from: &Positions,
    mut each: impl FnMut(&str, u64),
) -> Result<(), TopicError> {
    let (mut positions, mut ends) = (Positions::default(), BTreeMap::new());
    for held in topic.offsets().await? {
        let next = from.next(held.partition).clamp(held.start, held.end);
        positions.advance(held.partition, next);
        ends.insert(held.partition, held.end);
    }
    while ends.iter().any(|(part, end)| positions.next(*part) < *end) {
        let fetched = topic.fetch(&positions, BYTES_MAX, Duration::ZERO).await?;
        if fetched.is_empty() {
            break;
        }
        for part in &fetched {
            positions.advance(part.partition, part.next);
            let sources = part.messages.iter().filter_map(|m| m.src.as_deref());
            for (name, position) in sources.filter_map(Src::parse) {
                each(name, position);
            }
        }
    }
    Ok(())
}

/// Gives each reject from offset `from` on, with its offset, and says where they end.
///
/// # Errors
/// Where they cannot be read.
pub async fn rejects(
    topic: &dyn Topic,
    from: i64,
    mut each: impl FnMut(i64, &Reject),
) -> Result<i64, TopicError> {
    let mut next = from;
    loop {
        let some = topic.rejects(next, REJECTS_MAX).await?;
        let Some((last, _)) = some.last() else {
            return Ok(next);
        };
        next = last + 1;
        for (offset, reject) in &some {
            each(*offset, reject);
        }
    }
}

/// What was decided of records that are read once more, since the last checkpoint did not come to
/// count them.
#[derive(Debug, Default)]
pub struct Decided {
    parts: BTreeMap<i32, Part>,
    /// Where the rejects ended when they were looked through.
    rejects_end: i64,
}

/// Positions of a part, growing.
#[derive(Debug, Default)]
struct Part {
    published: Vec<u64>,
    rejected: Vec<u64>,
}

/// How many records of a portion were decided before.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    pub published: u64,
    pub rejected: u64,
}

impl Decided {
    /// Looks what the topics hold of a source beyond where `state` says it stood.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn look(
        state: &SourceState,
        parted: bool,
        topic: &dyn Topic,
    ) -> Result<Self, TopicError> {
        let beyond = |name: &str, position: u64| {
            let part = part_of(&state.id, parted, name)?;
            let stood = state.positions.get(&part).copied().unwrap_or(0);
            (position > stood).then_some(part)
        };
        let mut parts: BTreeMap<i32, Part> = BTreeMap::new();
        messages(topic, &state.ends, |name, position| {
            if let Some(part) = beyond(name, position) {
                parts.entry(part).or_default().published.push(position);
            }
        })
        .await?;
        let rejects_end = rejects(topic, state.rejects_from, |_, reject| {
            if let At::Source { source, position } = &reject.at
                && let Some(part) = beyond(source, *position)
            {
                parts.entry(part).or_default().rejected.push(*position);
            }
        })
        .await?;
        for part in parts.values_mut() {
            part.published.sort_unstable();
            part.rejected.sort_unstable();
        }
        Ok(Self { parts, rejects_end })
    }

    /// Of a source that gives nothing twice: the rejects are counted up to offset `rejects_end`.
    pub fn counted(rejects_end: i64) -> Self {
        Self {
            rejects_end,
            ..Self::default()
        }
    }

    /// Leaves out of `passage` what was decided before, and says how much that is.
    pub fn take_out(&self, part: i32, passage: &mut Passage) -> Earlier {
        let mut earlier = Earlier::default();
        let Some(part) = self.parts.get(&part) else {
            return earlier;
        };
        let has = |some: &[u64], position: u64| some.binary_search(&position).is_ok();
        passage.cleared.retain(|message| {
            let position = Src::parse(&message.src).map_or(0, |(_, position)| position);
            if has(&part.rejected, position) {
                earlier.rejected += 1;
                return false;
            }
            let published = has(&part.published, position);
            earlier.published += u64::from(published);
            !published
        });
        passage.rejects.retain(|reject| {
            let At::Source { position, .. } = reject.at else {
                return true;
            };
            let published = has(&part.published, position);
            earlier.published += u64::from(published);
            !published
        });
        earlier
    }

    /// Forgets a part that was read on to `position`, where nothing of it is beyond.
    pub fn pass(&mut self, part: i32, position: u64) {
        let beyond = |some: &[u64]| some.last().is_some_and(|last| *last > position);
        if let Some(of) = self.parts.get(&part)
            && !beyond(&of.published)
            && !beyond(&of.rejected)
        {
            self.parts.remove(&part);
        }
    }

    /// Once all of it was read again: offset of the rejects that need not be looked through again.
    pub fn over(&self) -> Option<i64> {
        self.parts.is_empty().then_some(self.rejects_end)
    }
}
