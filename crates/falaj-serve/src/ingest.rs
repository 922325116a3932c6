//! `/ingest`: requests with records, for whoever publishes them.
//!
//! Always: room is taken before a body is read, so what is in memory is bounded.
//! Always: nothing of a request is in an answer or a log: no body, no query, no header, no key.
//! Absent on purpose: what records are. The pipeline's source says so, behind [`Ingest`].

use std::any::Any;
use std::future::ready;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::time::timeout;

use crate::hub::{Desk, Hub};
use crate::routes::{JSON, Problem, answer, problem_with};

/// Longest time for a body to come.
const BODY_WAIT_MAX: Duration = Duration::from_mins(1);
/// Longest time, and most bytes, to take the rest of a body that is refused: a sender who is cut off
/// in the middle never reads why.
const REST_WAIT_MAX: Duration = Duration::from_secs(2);
const REST_BYTES_MAX: usize = 64 << 20;
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Media types of one record a line; there is none that everybody writes.
const LINES: [&str; 6] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/jsonlines",
    "application/json-lines",
];

/// Takes requests with records. All calls may run at the same time.
#[async_trait]
pub trait Ingest: Send + Sync {
    /// Longest body, in bytes.
    fn max_body(&self) -> u64;

    /// Whether a request must show a token.
    fn has_token(&self) -> bool;

    /// Whether a request with this token (`Authorization: Bearer ..`) may send records. Must not
    /// tell by its time how wrong a token is.
    fn admits(&self, token: Option<&[u8]>) -> bool;

    /// Takes room for a body of at most so many bytes; it is given back when dropped.
    ///
    /// # Errors
    /// [`Refused`] where there is none.
    fn reserve(&self, body_bytes: u64) -> Result<Box<dyn Any + Send>, Refused>;

    /// Publishes a request's records. Returns when all are durable, with the answer as JSON.
    ///
    /// # Errors
    /// [`Refused`] where they are not published.
    async fn take(&self, room: Box<dyn Any + Send>, posted: Posted) -> Result<String, Refused>;
}

/// A request with records.
pub struct Posted {
    /// Its body.
    pub body: Bytes,
    /// Whether records stand one a line; else the body is one JSON value.
    pub lines: bool,
    /// Its `Idempotency-Key`.
    pub key: Option<Bytes>,
}

/// Why a request is not taken. Free of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// What is wrong.
    pub error: String,
    /// What to try.
    pub hint: Option<String>,
}

/// What is wrong with a request.
struct Wrong {
    status: StatusCode,
    problem: Problem,
    headers: &'static [(HeaderName, &'static str)],
}

impl Wrong {
    fn new(status: StatusCode, problem: Problem) -> Self {
        Self {
            status,
            problem,
            headers: &[],
        }
    }
}

/// `POST /ingest`.
pub(crate) async fn ingest(State(hub): State<Hub>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut body = body.into_data_stream();
    match taken(&hub, &parts.headers, &mut body).await {
        Ok(receipt) => answer(JSON, receipt),
        Err(wrong) => {
            let mut left = REST_BYTES_MAX;
            let rest = body.take_while(|piece| {
                left = piece
                    .as_ref()
                    .map_or(0, |piece| left.saturating_sub(piece.len()));
                ready(left > 0)
            });
            let _ = timeout(REST_WAIT_MAX, rest.for_each(|_| ready(()))).await;
            problem_with(wrong.status, &wrong.problem, wrong.headers)
        }
    }
}

async fn taken(hub: &Hub, headers: &HeaderMap, body: &mut BodyDataStream) -> Result<String, Wrong> {
    let ingest = match hub.ingest() {
        Desk::Open(ingest) => ingest,
        Desk::Closed { .. } => {
            return Err(Wrong {
                headers: &[(header::RETRY_AFTER, "1")],
                ..Wrong::new(StatusCode::SERVICE_UNAVAILABLE, Problem::inactive(hub))
            });
        }
        Desk::Absent => {
            let none = Problem::new("this pipeline takes no requests with records")
                .hint("its source is another one; `[source.ingest]` is the one that does");
            return Err(Wrong::new(StatusCode::NOT_FOUND, none));
        }
    };
    if !ingest.admits(bearer(headers)) {
        let wrong = Problem::new("the token is missing or wrong")
            .hint("send `Authorization: Bearer TOKEN`");
        return Err(Wrong {
            headers: &[(header::WWW_AUTHENTICATE, "Bearer")],
            ..Wrong::new(StatusCode::UNAUTHORIZED, wrong)
        });
    }
    let lines = form(headers)?;
    let key = key(headers)?;
    let max = ingest.max_body();
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > max) {
        return Err(too_long(max));
    }
    let room = ingest.reserve(length.unwrap_or(max)).map_err(refused)?;
    let Ok(body) = timeout(BODY_WAIT_MAX, whole(body, length.unwrap_or(0), max)).await else {
        let slow = Problem::new("the body did not come within a minute")
            .hint("send fewer records in a request");
        return Err(Wrong::new(StatusCode::REQUEST_TIMEOUT, slow));
    };
    let body = body?;
    let posted = Posted { body, lines, key };
    ingest.take(room, posted).await.map_err(refused)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let given = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = given.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Whether records stand one a line.
fn form(headers: &HeaderMap) -> Result<bool, Wrong> {
    let unsupported = |problem| Wrong::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem);
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding.as_bytes() != b"identity")
    {
        let packed =
            Problem::new("a body with a `Content-Encoding` is not taken").hint("send it unpacked");
        return Err(unsupported(packed));
    }
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|media| media.to_str().ok())
        .and_then(|media| media.split(';').next())
        .map(|media| media.trim().to_ascii_lowercase());
    // Forms and plain text are what a page of another origin may send without being asked.
    match media.as_deref() {
        Some("application/json") => Ok(false),
        Some(media) if LINES.contains(&media) => Ok(true),
        _ => Err(unsupported(
            Problem::new("the `Content-Type` is not one of JSON").hint(
                "send `application/json` for an object or an array of them, `application/x-ndjson` for one a line",
            ),
        )),
    }
}

fn key(headers: &HeaderMap) -> Result<Option<Bytes>, Wrong> {
    let mut keys = headers.get_all(KEY).iter();
    let key = keys.next();
    if keys.next().is_some() {
        let many = Problem::new("there is more than one `Idempotency-Key`");
        return Err(Wrong::new(StatusCode::BAD_REQUEST, many));
    }
    Ok(key.map(|key| Bytes::copy_from_slice(key.as_bytes())))
}

/// A body of at most `max` bytes, about `length` of which are told of.
async fn whole(body: &mut BodyDataStream, length: u64, max: u64) -> Result<Bytes, Wrong> {
    let mut whole = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
    while let Some(piece) = body.next().await {
        let Ok(piece) = piece else {
            let cut = Problem::new("the body broke off");
            return Err(Wrong::new(StatusCode::BAD_REQUEST, cut));
        };
        if whole.len() as u64 + piece.len() as u64 > max {
            return Err(too_long(max));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

fn too_long(max: u64) -> Wrong {
    let long = Problem::new(format!("the body is longer than `max_body` ({max} bytes)"))
        .hint("send its records in several requests");
    Wrong::new(StatusCode::PAYLOAD_TOO_LARGE, long)
}

fn refused(refused: Refused) -> Wrong {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut problem = Problem::new(refused.error);
    if let Some(hint) = refused.hint {
        problem = problem.hint(hint);
    }
    let headers: &[_] = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            &[(header::RETRY_AFTER, "1")]
        }
        _ => &[],
    };
    Wrong {
        status,
        problem,
        headers,
    }
}
