//! Reading the topic again for a sink whose row views are behind.
//!
//! Always: with a cursor and a reader of its own, so that a slow sink delays neither the views nor
//! another sink; no further than the views have come, so that the sink gets each partition's records
//! in their order.
//! Always: what a store would have let go of by now, had it had it in time, is left out.
//! Always: what was read and where that ends reach the outlet together; a kill loses nothing.
//! Absent on purpose: counting and rejects. Every record here was counted when the views had it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use falaj_privacy::{Cleared, Declarations, Decoder, Keys, Policy, Seen};
use falaj_record::{Batch, Fetched, Message, Positions};
use falaj_sinks::{Behind, Outlet, Place};
use falaj_topic::{Broker, Topic, TopicError};

use crate::clock::{SharedClock, now_ms};
use crate::failure::{Failure, Fault};
use crate::plan::Alike;

/// Most bytes taken from the topic in one read.
const READ_BYTES_MAX: usize = 256 << 10;
/// Longest wait for what a cluster has on its way.
const READ_WAIT: Duration = Duration::from_millis(500);
/// Wait between tries while the topic cannot be read.
const RETRY: Duration = Duration::from_secs(1);

/// Reads the topic again for one sink.
pub struct CatchUp {
    pub outlet: Arc<Outlet>,
    pub broker: Arc<dyn Broker>,
    pub topic: String,
    pub clock: SharedClock,
    pub policy: Arc<Policy>,
    pub keys: Keys,
    pub earlier: Vec<Declarations>,
    /// What plans row views without state, see [`crate::plan::Plan::row_views`].
    pub views: Box<dyn Fn() -> Result<Vec<Alike>, Failure> + Send + Sync>,
}

/// Where a reader stands, and what it reads with.
struct Reader {
    topic: Arc<dyn Topic>,
    decoder: Decoder,
    views: Vec<Alike>,
    at: Positions,
}

impl CatchUp {
    /// Reads whenever the outlet is behind and has room, until it is closed.
    pub async fn run(self) {
        let mut reader = None;
        // Closed: whatever is missing then is in the checkpoint.
        while let Ok(behind) = self.outlet.wants_more().await {
            match self.step(&mut reader, behind).await {
                Ok(()) => self.outlet.reading_failed(None),
                Err(why) => {
                    reader = None;
                    self.outlet.reading_failed(Some((why.chain(), why.hint)));
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn step(&self, reader: &mut Option<Reader>, behind: Behind) -> Result<(), Fault> {
        let Behind { from, to } = behind;
        let mut held = match reader.take() {
            Some(held) if held.at == from.positions => held,
            _ => self.open(&from).await?,
        };
        let fetched = held.topic.fetch(&from.positions, READ_BYTES_MAX, READ_WAIT);
        let mut fetched = fetched.await.map_err(|e| overtaken(&e))?;
        held.at = bounded(&mut fetched, from.positions.clone(), &to);
        let now_ms = now_ms();
        let decoded = held.decoder.decode(&fetched, now_ms);
        let version = self
            .clock
            .next()
            .map_err(|e| Fault::new("cannot reserve versions").cause(e))?;
        let mut updates = Vec::new();
        for Alike { kept, names, views } in &mut held.views {
            let young = young(&fetched, *kept, now_ms, &decoded.batch);
            let batch = young.as_ref().unwrap_or(&decoded.batch);
            views.push(batch).map_err(|e| Fault::from_error(&e))?;
            let drained = views.drain(version);
            let drained = drained.map_err(|e| Fault::from_error(&e))?;
            let wanted = drained.into_iter().filter(|u| names.contains(&u.view.name));
            updates.extend(wanted);
        }
        let place = place(&held.at, held.decoder.seen());
        self.outlet
            .refill(&from, updates, place)
            .map_err(|e| Fault::from_error(&e))?;
        *reader = Some(held);
        Ok(())
    }

    async fn open(&self, from: &Place) -> Result<Reader, Fault> {
        let topic = self.broker.existing(&self.topic).await;
        let mut decoder = Decoder::new(Arc::clone(&self.policy), &self.keys, &self.earlier);
        if !from.seen.is_empty() {
            let seen: Seen = serde_json::from_slice(&from.seen)
                .map_err(|_| Fault::new("a place in the topic is damaged"))?;
            decoder.resume(seen);
        }
        Ok(Reader {
            topic: topic.map_err(|e| Fault::from_error(&e))?,
            decoder,
            views: (self.views)().map_err(|_| Fault::new("the row views cannot be planned"))?,
            at: from.positions.clone(),
        })
    }
}

/// The place behind the records that a decoder has had.
pub fn place(positions: &Positions, seen: &Seen) -> Place {
    Place {
        positions: positions.clone(),
        seen: serde_json::to_vec(seen)
            .expect("state is plain data")
            .into(),
    }
}

/// The records that a store may still keep which keeps them for `kept`; nothing where that is all.
fn young(
    fetched: &[Fetched],
    kept: Option<Duration>,
    now_ms: i64,
    batch: &Cleared<Batch>,
) -> Option<Cleared<Batch>> {
    let kept_ms = i64::try_from(kept?.as_millis()).unwrap_or(i64::MAX);
    let since_ms = now_ms.saturating_sub(kept_ms);
    let mut old = BTreeSet::new();
    for part in fetched {
        let over = |message: &&Message| message.timestamp_ms < since_ms;
        let offsets = part.messages.iter().filter(over);
        old.extend(offsets.map(|message| (part.partition, message.offset)));
    }
    (!old.is_empty()).then(|| batch.retain(|partition, offset| !old.contains(&(partition, offset))))
}

/// Leaves out what lies beyond `to`, and says where that ends.
fn bounded(fetched: &mut [Fetched], mut from: Positions, to: &Positions) -> Positions {
    for part in fetched {
        let end = to.next(part.partition);
        part.messages.retain(|message| message.offset < end);
        from.advance(part.partition, part.next.min(end));
    }
    from
}

/// Rows that retention took are nowhere any more: that is said, not passed over.
fn overtaken(error: &TopicError) -> Fault {
    let fault = Fault::from_error(error);
    match error {
        TopicError::Overtaken { .. } => {
            Fault::new("retention has taken records whose rows this sink does not have")
                .cause(fault.chain())
                .hint("start with `--rebuild VIEW` for its row views: they are made anew from what the topic still holds")
        }
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_beyond_where_the_views_are() {
        let message = |offset| Message {
            offset,
            timestamp_ms: 0,
            key: None,
            value: None,
            policy: None,
            src: None,
        };
        let mut fetched = [
            Fetched {
                partition: 0,
                messages: (3..8).map(message).collect(),
                next: 8,
                end: 20,
                ..Fetched::default()
            },
            Fetched {
                partition: 1,
                messages: vec![message(5)],
                next: 6,
                end: 6,
                ..Fetched::default()
            },
        ];
        let from = Positions([(0, 3), (1, 5)].into());
        let to = Positions([(0, 5), (1, 9)].into());
        let at = bounded(&mut fetched, from, &to);
        assert_eq!(at, Positions([(0, 5), (1, 6)].into()));
        let left: Vec<_> = fetched.iter().map(|part| part.messages.len()).collect();
        assert_eq!(left, [2, 1]);
    }
}
