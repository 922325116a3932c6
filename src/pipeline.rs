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
use crate::stdio;

/// Most bytes taken from the topic in one read.
const FETCH_BYTES_MAX: usize = 256 << 10;
/// Longest wait of one read for new records; also the pace of an idle pipeline.
const FETCH_WAIT: Duration = Duration::from_millis(50);
/// Longest time that changed rows wait while the pipeline catches up.
const DRAIN_EVERY: Duration = Duration::from_millis(200);
/// How often charts may change; all groups of a view change on the same tick.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for sinks when falaj is stopped; what they have not taken then stays in the checkpoint.
const SINKS_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest time without a row taken before a run that is to end by itself gives sinks up.
const SINKS_STUCK_MAX: Duration = Duration::from_mins(1);
/// How often it is looked whether sinks get on.
const SINKS_LOOK: Duration = Duration::from_millis(500);

/// When a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Somebody stops it.
    Stopped,
    /// The source is read and the topic processed to its end.
    CaughtUp,
}

/// How a run ended.
pub enum Ended {
    /// As it was to, with everything in the last checkpoint.
    Done(Box<Derive>),
    /// The lease on the cluster was lost: this falaj may not write any more.
    Lost,
}

/// Runs the line until `until` or `stop`; then drains, checkpoints and returns.
///
/// # Errors
/// Where a stage cannot go on. What was acknowledged before is on disk.
pub async fn run(line: Line, until: Until, stop: CancellationToken) -> Result<Ended, Failure> {
    let Line {
        mut intake,
        mut derive,
        lease,
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
    let deriving = derive_views(&mut derive, &ended, &stop);
    let over = tokio::select! {
        over = async { tokio::try_join!(taking, deriving) } => over,
        lost = lease.lost() => Err(Failure::stage(&lost)),
    };
    if let Err(failure) = over {
        if lease.still_held().await {
            return Err(failure);
        }
        // Mostly its consequence. What was wrong besides comes again when this falaj is active again.
        tracing::warn!(%failure, "the lease was lost");
        // Another one may be active by now: nothing more is written, and what was is in its view.
        derive.close().await;
        return Ok(Ended::Lost);
    }
    let drained = drain_sinks(&mut derive, until, &stop).await?;
    if derive.checkpoint(&stop).await? {
        if until == Until::CaughtUp && !drained && !stop.is_cancelled() {
            derive.close().await;
            return Err(unwritten(&derive));
        }
        return Ok(Ended::Done(Box::new(derive)));
    }
    Err(Failure::run(
        Fault::new("cannot write the last checkpoint; the one before it is still there")
            .hint("make room on the disk of the data directory and start again: nothing is lost"),
    ))
}

/// Waits for the sinks: when falaj is stopped for a while, when the run is to end by itself for as
/// long as rows are taken. Says whether they have everything.
async fn drain_sinks(
    derive: &mut Derive,
    until: Until,
    stop: &CancellationToken,
) -> Result<bool, Failure> {
    let (started, mut moved, mut rows) = (Instant::now(), Instant::now(), 0);
    let mut said = false;
    loop {
        derive.repay(stop).await?;
        if derive.sinks.drained(SINKS_LOOK).await {
            return Ok(true);
        }
        if stop.is_cancelled() && !said {
            said = say_who_is_waited_for(derive);
        }
        let done = derive.sinks.done_rows();
        if done != rows {
            (moved, rows) = (Instant::now(), done);
        }
        let patience_over = match until {
            Until::CaughtUp if !stop.is_cancelled() => moved.elapsed() >= SINKS_STUCK_MAX,
            _ => started.elapsed() >= SINKS_WAIT_MAX,
        };
        if patience_over {
            tracing::warn!("a sink has not taken all rows; the rest is kept in the checkpoint");
            return Ok(false);
        }
    }
}

/// False where there is no sink to name.
fn say_who_is_waited_for(derive: &Derive) -> bool {
    let undone = derive.sinks.undone().into_iter();
    let names: Vec<_> = undone.map(|sink| format!("`{}`", sink.sink)).collect();
    if names.is_empty() {
        return false;
    }
    stdio::say(&format!(
        "waiting up to {} s for rows that sink {} has not taken; the rest stays in the checkpoint",
        SINKS_WAIT_MAX.as_secs(),
        names.join(", ")
    ));
    true
}

/// Sinks have not taken what a run that ends by itself was to write.
fn unwritten(derive: &Derive) -> Failure {
    let mut fault = Fault::new("a sink has not taken all rows");
    for sink in derive.sinks.undone() {
        let why = sink.error.as_deref().unwrap_or("it is slow");
        fault = fault.cause(format!("sink `{}`: {why}", sink.sink));
    }
    Failure::run(
        fault.hint("the checkpoint keeps them: mend the store and run the same command again"),
    )
}

/// Source → gate → topic.
async fn take_in(intake: &mut Intake, stop: &CancellationToken) -> Result<(), Failure> {
    if intake.resume().await? {
        // Sources end by themselves when they are to stop: who waits for an answer gets one.
        while let Some(portion) = intake.next().await? {
            let passage = intake.clear(&portion, now_ms());
            intake.publish(&portion, passage, stop).await?;
        }
    }
    if stop.is_cancelled() {
        intake
            .notes
            .note(|noted| noted.state = Some(RunState::Stopping));
    }
    Ok(())
}

/// Topic → decode → views → sinks and page, until the topic's end after `ended`.
async fn derive_views(
    derive: &mut Derive,
    ended: &CancellationToken,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let (mut drained, mut published) = (Instant::now(), Instant::now());
    loop {
        let last = ended.is_cancelled();
        let wait = if last { Duration::ZERO } else { FETCH_WAIT };
        let fetched = derive.fetch(FETCH_BYTES_MAX, wait, stop).await?;
        let at_end = fetched.is_empty();
        if !at_end {
            let decoded = derive.decoder.decode(&fetched, now_ms());
            derive
                .views
                .push(&decoded.batch)
                .map_err(|e| Failure::stage(&e))?;
            derive.count(&fetched, decoded, stop).await?;
        }
        if at_end || drained.elapsed() >= DRAIN_EVERY || Derive::is_near_end(&fetched) {
            derive.drain()?;
            derive.repay(stop).await?;
            derive.tell_refused(stop).await?;
            drained = Instant::now();
        }
        if published.elapsed() >= PUBLISH_EVERY || (at_end && last) {
            derive.publish()?;
            published = Instant::now();
        }
        if derive.checkpoint_is_due() {
            derive.checkpoint(stop).await?;
        }
        if at_end && last {
            return Ok(());
        }
    }
}
