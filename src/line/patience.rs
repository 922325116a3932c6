//! Waiting for a topic whose disk is full or whose cluster is away.

use std::future::Future;
use std::time::Duration;

use falaj_topic::TopicError;
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Fault};
use crate::report::Notes;

/// Waits between tries while the topic's disk is full or failing, or its cluster is away.
pub(super) const TOPIC_RETRY: Duration = Duration::from_millis(500);

/// Calls until it works, while what is wrong may pass; nothing where `stop` comes first. `stage` is
/// shown as failing meanwhile.
///
/// # Errors
/// What will not pass.
pub async fn patiently<T, F: Future<Output = Result<T, TopicError>>>(
    notes: &Notes,
    stage: &'static str,
    stop: &CancellationToken,
    call: impl Fn() -> F,
) -> Result<Option<T>, Failure> {
    let mut failed = false;
    loop {
        match call().await {
            Ok(done) => {
                if failed {
                    notes.failing(stage, None);
                }
                return Ok(Some(done));
            }
            Err(e) if e.passing() => {
                failed = true;
                notes.failing(stage, Some(Fault::from_error(&e).chain()));
                let pause = tokio::time::sleep(TOPIC_RETRY);
                if stop.run_until_cancelled(pause).await.is_none() {
                    return Ok(None);
                }
            }
            Err(e) => return Err(Failure::stage(&e)),
        }
    }
}

/// A stop came while the topic could not be used.
pub fn interrupted() -> Failure {
    Failure::run(
        Fault::new("stopped while the topic could not be used")
            .hint("start again: it goes on from the last checkpoint, and nothing is lost"),
    )
}
