//! The highest source position that each partition holds, found by reading back from its end.
//!
//! Always: what was read once is not read again; a later question reads what came since, and further
//! back only where the source was not met yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use falaj_record::{Fetched, Src};

use super::topic::KafkaTopic;
use crate::TopicError;

/// Records read back at first; each further step is twice as long.
const FIRST_STEP: i64 = 1024;
const STEP_MAX: i64 = 1 << 20;

/// What was read of each partition, and the highest position of each source in it.
#[derive(Default)]
pub(super) struct Marks {
    read: BTreeMap<i32, Read>,
}

struct Read {
    /// First offset that was read, and first after those that were.
    from: i64,
    to: i64,
    highest: BTreeMap<Arc<str>, u64>,
}

impl Read {
    fn note(&mut self, fetched: &Fetched) {
        for message in &fetched.messages {
            let Some((id, position)) = message.src.as_deref().and_then(Src::parse) else {
                continue;
            };
            match self.highest.get_mut(id) {
                Some(held) => *held = position.max(*held),
                None => {
                    self.highest.insert(Arc::from(id), position);
                }
            }
        }
    }
}

impl Marks {
    /// The highest position of `source` in each partition that has any.
    pub async fn look(
        &mut self,
        topic: &KafkaTopic,
        source: &str,
    ) -> Result<BTreeMap<i32, u64>, TopicError> {
        let held = topic.ask_offsets().await?;
        let starts: BTreeMap<i32, i64> = held.iter().map(|o| (o.partition, o.start)).collect();
        let (mut from, mut to) = (BTreeMap::new(), BTreeMap::new());
        for offsets in &held {
            let read = self.read.entry(offsets.partition).or_insert(Read {
                from: offsets.end,
                to: offsets.end,
                highest: BTreeMap::new(),
            });
            if read.to < offsets.end {
                from.insert(offsets.partition, read.to.max(offsets.start));
                to.insert(offsets.partition, offsets.end);
            }
        }
        self.read_through(topic, from, to).await?;
        let mut step = FIRST_STEP;
        loop {
            let (mut from, mut to) = (BTreeMap::new(), BTreeMap::new());
            for (partition, read) in &self.read {
                let start = starts.get(partition).copied().unwrap_or(read.from);
                if !read.highest.contains_key(source) && read.from > start {
                    from.insert(*partition, start.max(read.from - step));
                    to.insert(*partition, read.from);
                }
            }
            if from.is_empty() {
                break;
            }
            self.read_through(topic, from, to).await?;
            step = (step * 2).min(STEP_MAX);
        }
        let highest =
            |(partition, read): (&i32, &Read)| Some((*partition, *read.highest.get(source)?));
        Ok(self.read.iter().filter_map(highest).collect())
    }

    /// Reads ranges that adjoin what was read.
    async fn read_through(
        &mut self,
        topic: &KafkaTopic,
        from: BTreeMap<i32, i64>,
        to: BTreeMap<i32, i64>,
    ) -> Result<(), TopicError> {
        if from.is_empty() {
            return Ok(());
        }
        let read = &mut self.read;
        let note = |fetched: &Fetched| {
            if let Some(read) = read.get_mut(&fetched.partition) {
                read.note(fetched);
            }
        };
        topic.scan(&from, &to, note).await?;
        for (partition, read) in &mut self.read {
            if let (Some(from), Some(to)) = (from.get(partition), to.get(partition)) {
                read.from = read.from.min(*from);
                read.to = read.to.max(*to);
            }
        }
        Ok(())
    }
}
