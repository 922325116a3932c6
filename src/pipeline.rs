//! The whole data path: source → gate → topic → decode → views → sinks and page.
//!
//! Always: a record counts as in only when the topic has it, or it was rejected or withheld.
//! Always: a checkpoint holds positions, state and what sinks have not acknowledged, all of one
//! moment between two batches; so a kill at any point loses nothing and counts nothing twice.
//! Absent on purpose: how the stages are opened (`line.rs`) and what is reported (`report.rs`).

use std::time::{Duration, Instant};

use falaj_serve::RunState;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::failure::{Failure, Fault};
use crate::line::{Derive, Intake, Line};

/// Most bytes taken from the topic in one read.
const FETCH_BYTES_MAX: usize = 1 << 20;
/// Longest wait of one read for new records; also the pace of an idle pipeline.
const FETCH_WAIT: Duration = Duration::from_millis(50);
/// Longest time that changed rows wait while the pipeline catches up.
const DRAIN_EVERY: Duration = Duration::from_millis(200);
/// How often charts may change; all groups of a view change on the same tick.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for sinks at the end; what they have not taken then stays in the checkpoint.
const SINKS_WAIT_MAX: Duration = Duration::from_secs(10);

/// When a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Somebody stops it.
    Stopped,
    /// The source is read and the topic processed to its end.
    CaughtUp,
}

/// Runs the line until `until` or `stop`; then drains, checkpoints and returns.
///
/// # Errors
/// Where a stage cannot go on. What was acknowledged before is on disk.
pub async fn run(line: Line, until: Until, stop: CancellationToken) -> Result<Derive, Failure> {
    let Line {
        mut intake,
        mut derive,
        lock: _lock,
        ..
    } = line;
    let ended = CancellationToken::new();
    let taking = async {
        take_in(&mut intake, &stop).await?;
        if until == Until::Stopped {
            stop.cancelled().await;
        }
        ended.cancel();
        Ok(())
    };
    let deriving = derive_views(&mut derive, &ended);
    tokio::try_join!(taking, deriving)?;
    derive.sinks.drained(SINKS_WAIT_MAX).await;
    if derive.checkpoint().await? {
        return Ok(derive);
    }
    Err(Failure::run(
        Fault::new("cannot write the last checkpoint; the one before it is still there")
            .hint("make room on the disk of the data directory and start again: nothing is lost"),
    ))
}

/// Source → gate → topic.
async fn take_in(intake: &mut Intake, stop: &CancellationToken) -> Result<(), Failure> {
    while !stop.is_cancelled() {
        let next = tokio::select! {
            next = intake.source.next() => next.map_err(|e| Failure::stage(&e))?,
            () = stop.cancelled() => break,
        };
        let Some(raws) = next else { break };
        let passage = intake.gate.clear(&raws, now_ms());
        intake.publish(&raws, passage, stop).await?;
    }
    if stop.is_cancelled() {
        intake
            .notes
            .note(|noted| noted.state = Some(RunState::Stopping));
    }
    Ok(())
}

/// Topic → decode → views → sinks and page, until the topic's end after `ended`.
async fn derive_views(derive: &mut Derive, ended: &CancellationToken) -> Result<(), Failure> {
    let (mut drained, mut published) = (Instant::now(), Instant::now());
    loop {
        let last = ended.is_cancelled();
        let wait = if last { Duration::ZERO } else { FETCH_WAIT };
        let fetched = derive.fetch(FETCH_BYTES_MAX, wait).await?;
        let at_end = fetched.is_empty();
        if !at_end {
            let decoded = derive.decoder.decode(&fetched, now_ms());
            derive
                .views
                .push(&decoded.batch)
                .map_err(|e| Failure::stage(&e))?;
            derive.count(&fetched, decoded).await?;
        }
        if at_end || drained.elapsed() >= DRAIN_EVERY || Derive::is_near_end(&fetched) {
            derive.drain().await?;
            drained = Instant::now();
        }
        if published.elapsed() >= PUBLISH_EVERY || (at_end && last) {
            derive.publish()?;
            published = Instant::now();
        }
        if derive.checkpoint_is_due() {
            derive.checkpoint().await?;
        }
        if at_end && last {
            return Ok(());
        }
    }
}
