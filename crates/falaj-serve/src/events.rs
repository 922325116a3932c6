//! `/api/v1/events`: server-sent events.
//!
//! Always: a reader gets `snapshot` first, or exactly what it missed since its `Last-Event-ID`; then
//! every `delta` in order and at most one `status` a second; `bye` is the last event.
//! Always: an id is `<epoch>-<seq>`, and an id of an earlier run leads to a snapshot.
//! Absent on purpose: a queue per reader. A reader that is slow finds its cursor behind the hub's ring
//! and gets a snapshot; one that takes nothing at all loses its connection (see `server.rs`).

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures::stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::hub::{Delta, Hub, Next, Place, Signal};
use crate::render;
use crate::routes::{Problem, problem_with};

/// Distance of comments, so that a silent stream is told from a broken one.
const COMMENT_EVERY: Duration = Duration::from_secs(10);
/// Shortest distance of two `status` events.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// An unchanged status is sent again after this, so that the page knows it is not stale.
const STATUS_AGAIN: Duration = Duration::from_secs(3);

struct Reader {
    hub: Hub,
    _place: Place,
    signal: watch::Receiver<Signal>,
    /// Number of the newest delta it has; none before its first snapshot.
    cursor: Option<u64>,
    status: u64,
    status_at: Option<Instant>,
    comment_at: Instant,
    greeted: bool,
    over: bool,
}

/// The route.
pub(crate) async fn events(State(hub): State<Hub>, headers: HeaderMap) -> Response<Body> {
    if hub.is_over() {
        let problem = Problem::new("falaj is stopping").hint("try again in a second");
        return problem_with(
            StatusCode::SERVICE_UNAVAILABLE,
            &problem,
            &[(header::RETRY_AFTER, "1")],
        );
    }
    let Some(place) = Place::take(&hub) else {
        let problem = Problem::new("too many readers of the event stream")
            .hint("try again, or poll `/api/v1/views` and `/api/v1/status`");
        return problem_with(
            StatusCode::SERVICE_UNAVAILABLE,
            &problem,
            &[(header::RETRY_AFTER, "5")],
        );
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let reader = Reader {
        signal: hub.listen(),
        cursor: last.and_then(|id| cursor_of(id, hub.epoch())),
        hub,
        _place: place,
        status: 0,
        status_at: None,
        comment_at: Instant::now() + COMMENT_EVERY,
        greeted: false,
        over: false,
    };
    let stream = stream::unfold(reader, |mut reader| async move {
        let bytes = reader.next().await?;
        Some((Ok::<_, Infallible>(bytes), reader))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    // Proxies in front must not collect the stream.
    let accel = HeaderName::from_static("x-accel-buffering");
    headers.insert(accel, HeaderValue::from_static("no"));
    response
}

/// The delta an id stands for, if it is one of this run.
fn cursor_of(id: &str, epoch: &str) -> Option<u64> {
    let (of, seq) = id.rsplit_once('-')?;
    if of == epoch { seq.parse().ok() } else { None }
}

impl Reader {
    /// What to send next; waits until there is something.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let mut text = String::new();
        if !self.greeted {
            self.greeted = true;
            text.push_str("retry: 1000\n\n");
        }
        loop {
            let signal = *self.signal.borrow_and_update();
            let before = text.len();
            self.push_rows(&mut text);
            if text.len() > before {
                self.push_due(&mut text, signal);
                return Some(text.into());
            }
            if signal.over {
                self.over = true;
                let id = self.id();
                let _ = write!(
                    text,
                    "event: bye\nid: {id}\ndata: {{\"reason\":\"stopped\"}}\n\n"
                );
                return Some(text.into());
            }
            self.push_due(&mut text, signal);
            if !text.is_empty() {
                return Some(text.into());
            }
            let wake = self
                .status_due(signal)
                .map_or(self.comment_at, |at| at.min(self.comment_at));
            tokio::select! {
                changed = self.signal.changed() => if changed.is_err() { return None },
                () = sleep_until(wake) => {}
            }
        }
    }

    /// A snapshot or the deltas it misses.
    fn push_rows(&mut self, text: &mut String) {
        let next = self
            .cursor
            .map_or(Next::Snapshot, |cursor| self.hub.next(cursor));
        match next {
            Next::Nothing => {}
            Next::Deltas(deltas) => {
                for delta in &deltas {
                    let event = delta
                        .event
                        .get_or_init(|| delta_event(self.hub.epoch(), delta));
                    text.push_str(std::str::from_utf8(event).expect("it was made from text"));
                    self.cursor = Some(delta.seq);
                }
                self.hub
                    .counters()
                    .deltas
                    .fetch_add(deltas.len() as u64, Relaxed);
            }
            Next::Snapshot => {
                if self.cursor.is_some() {
                    self.hub.counters().lagged.fetch_add(1, Relaxed);
                }
                let snapshot = self.hub.snapshot();
                let order: HashMap<&str, &str> = self
                    .hub
                    .charts()
                    .iter()
                    .map(|c| (c.view.as_str(), c.y.as_str()))
                    .collect();
                self.cursor = Some(snapshot.seq);
                self.status = snapshot.status_number;
                self.status_at = Some(Instant::now());
                let (id, data) = (self.id(), render::snapshot_json(&snapshot, &order));
                let _ = write!(text, "event: snapshot\nid: {id}\ndata: {data}\n\n");
                self.hub.counters().snapshots.fetch_add(1, Relaxed);
            }
        }
    }

    /// The status and the comment, where it is time for them.
    fn push_due(&mut self, text: &mut String, signal: Signal) {
        let now = Instant::now();
        if self.status_due(signal).is_some_and(|at| at <= now)
            && let Some(status) = self.hub.status()
        {
            (self.status, self.status_at) = (signal.status, Some(now));
            let (id, data) = (self.id(), render::json(&*status));
            let _ = write!(text, "event: status\nid: {id}\ndata: {data}\n\n");
            self.hub.counters().statuses.fetch_add(1, Relaxed);
        }
        if self.comment_at <= now {
            self.comment_at = now + COMMENT_EVERY;
            text.push_str(": still here\n\n");
        }
    }

    /// When the next `status` event is due, if one is.
    fn status_due(&self, signal: Signal) -> Option<Instant> {
        // Before the pipeline's first status there is nothing to say.
        if signal.status == 0 {
            return None;
        }
        let wait = if signal.status == self.status {
            STATUS_AGAIN
        } else {
            STATUS_EVERY
        };
        Some(self.status_at.map_or_else(Instant::now, |at| at + wait))
    }

    fn id(&self) -> String {
        format!("{}-{}", self.hub.epoch(), self.cursor.unwrap_or(0))
    }
}

fn delta_event(epoch: &str, delta: &Delta) -> Bytes {
    let data = render::delta_json(delta);
    format!("event: delta\nid: {epoch}-{}\ndata: {data}\n\n", delta.seq).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_of_this_run_is_a_place_to_resume_from() {
        for (id, cursor) in [
            ("abc-7", Some(7)),
            ("abc-0", Some(0)),
            ("abd-7", None),
            ("abc-", None),
            ("abc--1", None),
            ("7", None),
            ("", None),
            ("abc-99999999999999999999", None),
        ] {
            assert_eq!(cursor_of(id, "abc"), cursor, "{id}");
        }
    }
}
