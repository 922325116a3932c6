//! An HTTP API that is asked again and again.
//!
//! Always: one request at a time, on a fixed schedule; what takes longer puts off the next request
//! to the next multiple of the period.
//! Always: whatever a service does wrong is tried again and told in the status; it never ends the
//! source.
//! Absent on purpose: replaying a reply. Positions only count the records of this source.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use falaj_record::Hint;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backlog::Backlog;
use crate::endpoint::{Endpoint, Seen};
use crate::source::{Opening, Portion, Source, records_path};
use crate::{Backoff, Fault, HttpConfig, SourceError, SourceState, SourceStatus, reply};

pub(crate) const KIND: &str = "http";

/// [`HttpConfig`], opened.
pub(crate) struct HttpSource {
    endpoint: Endpoint,
    keys: Vec<String>,
    material: Vec<u8>,
    every: Duration,
    backoff: Backoff,
    /// When the next request is due; at once where there was none yet.
    due: Option<Instant>,
    /// Attempts in a row without records, and why the last one gave none.
    attempts: u32,
    fault: Option<Fault>,
    backlog: Backlog,
    status: watch::Sender<SourceStatus>,
    stop: CancellationToken,
}

impl HttpSource {
    pub(crate) fn open(config: &HttpConfig, opening: Opening) -> Result<Self, SourceError> {
        let keys = records_path(KIND, config.records.as_deref())?;
        if config.every.0.is_zero() {
            return Err(SourceError::EveryZero);
        }
        let endpoint = Endpoint::new(config, &opening)?;
        let mut material = endpoint.label().to_owned();
        for (name, value) in &config.query {
            // A secret may change without the source becoming another one.
            let value = value.open_text().unwrap_or_default();
            material.extend(["\n", name, "=", &value]);
        }
        Ok(Self {
            endpoint,
            keys,
            material: material.into_bytes(),
            every: config.every.0,
            backoff: opening.backoff,
            due: None,
            attempts: 0,
            fault: None,
            backlog: Backlog::default(),
            status: watch::Sender::default(),
            stop: opening.stop,
        })
    }

    /// Asks once.
    async fn ask(&self, seen: &mut Seen) -> Result<Vec<Bytes>, Fault> {
        let body = self.endpoint.fetch(seen).await?;
        let records = reply::split(&body, &self.keys).map_err(Fault::Unusable)?;
        if records.is_empty() {
            return Err(Fault::Empty);
        }
        Ok(records)
    }

    fn answered(&mut self, asked: Instant, records: Vec<Bytes>, seen: &Seen) {
        if self.fault.take().is_some() {
            tracing::info!(
                source = self.endpoint.label(),
                "the source gives records again"
            );
        }
        tracing::debug!(records = records.len(), bytes = seen.bytes, "reply");
        self.attempts = 0;
        self.due = Some(next_due(asked, self.every, Instant::now()));
        self.backlog = Backlog::new(records, self.backlog.position());
        self.status.send_modify(|status| {
            status.well(SourceState::Ok);
            status.last_status = seen.status;
            status.replies_ok += 1;
            status.bytes += seen.bytes;
        });
    }

    fn failed(&mut self, fault: Fault, seen: &Seen) {
        self.attempts = self.attempts.saturating_add(1);
        let own = match fault {
            // Not a failure: asking more often than declared would be rude.
            Fault::Empty => self.backoff.after(self.attempts).max(self.every),
            _ if fault.likely_configuration() => self.backoff.slow(),
            _ => self.backoff.after(self.attempts),
        };
        let wait = own.max(seen.retry_after.unwrap_or_default());
        self.due = Some(Instant::now() + wait);
        self.status.send_modify(|status| {
            status.state = SourceState::Retrying;
            status.detail = Some(fault.to_string());
            status.hint = fault.hint();
            status.likely_configuration = fault.likely_configuration();
            status.retry_at_ms = Some(now_ms().saturating_add(millis(wait)));
            status.last_status = seen.status;
            status.attempts = self.attempts;
            status.bytes += seen.bytes;
            match fault {
                Fault::Empty => status.replies_empty += 1,
                _ => status.replies_failed += 1,
            }
        });
        let (source, attempts) = (self.endpoint.label(), self.attempts);
        let retry_ms = millis(wait);
        // The same trouble again is no news.
        if self.fault.as_ref() == Some(&fault) {
            tracing::debug!(source, attempts, retry_ms, "no records: {fault}");
        } else {
            tracing::warn!(source, attempts, retry_ms, "no records: {fault}");
        }
        self.fault = Some(fault);
    }
}

#[async_trait]
impl Source for HttpSource {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn label(&self) -> &str {
        self.endpoint.label()
    }

    fn finite(&self) -> bool {
        false
    }

    fn rereads(&self) -> bool {
        false
    }

    fn material(&self) -> &[u8] {
        &self.material
    }

    fn resume_after(&mut self, _part: i32, position: u64) {
        self.backlog = Backlog::new(Vec::new(), position);
    }

    fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    async fn next(&mut self) -> Result<Option<Portion>, SourceError> {
        let stop = self.stop.clone();
        loop {
            if stop.is_cancelled() {
                return Ok(None);
            }
            if let Some(batch) = self.backlog.batch() {
                let records = batch.len() as u64;
                self.status.send_modify(|status| status.records += records);
                return Ok(Some(Portion::new(batch)));
            }
            let due = self.due.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep_until(due) => {}
            }
            let mut seen = Seen::default();
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                answer = self.ask(&mut seen) => answer,
            };
            match answer {
                Ok(records) => self.answered(due, records, &seen),
                Err(fault) => self.failed(fault, &seen),
            }
        }
    }
}

/// The first time after `now` that is a whole number of periods after `last`.
fn next_due(last: Instant, every: Duration, now: Instant) -> Instant {
    let passed = now.saturating_duration_since(last).as_nanos();
    let periods = passed / every.as_nanos().max(1) + 1;
    let ahead = u64::try_from(every.as_nanos().saturating_mul(periods)).unwrap_or(u64::MAX);
    // A period of centuries has no such time; a day on falaj looks again.
    last.checked_add(Duration::from_nanos(ahead))
        .unwrap_or(now + Duration::from_hours(24))
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, millis)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_keep_to_the_schedule_and_never_pile_up() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        for (now, due) in [
            (0, 100),
            (40, 100),
            (99, 100),
            (100, 200),
            (101, 200),
            (950, 1000),
        ] {
            assert_eq!(
                next_due(start, ms(100), start + ms(now)),
                start + ms(due),
                "at {now}"
            );
        }
        assert!(next_due(start, Duration::MAX, start) > start);
    }
}
