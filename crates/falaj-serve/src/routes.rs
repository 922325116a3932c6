//! The routes of the design, and what every answer has in common.
//!
//! Always: an answer that is no page and no file of it is JSON, errors included:
//! `{"error": "what happened", "hint": "what to try"}`.
//! Always: no answer is kept by a cache, framed, or read by a page of another origin.

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::routing::{get, post};
use falaj_record::ViewKind;
use serde::{Deserialize, Serialize};

use crate::chart::nearest;
use crate::hub::Hub;
use crate::render::{self, ViewJson, json};
use crate::server::Hosts;
use crate::status::RunState;
use crate::{assets, events, ingest, metrics, page};

pub(crate) const JSON: &str = "application/json";
/// The one route that takes something.
const INGEST: &str = "/ingest";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      connect-src 'self'; img-src 'self' data: blob:";

/// Headers of every answer. The chart code sets inline styles; scripts come from files only.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// All routes over one hub.
pub(crate) fn app(hub: Hub, hosts: Hosts) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/assets/{name}", get(asset))
        .route("/api/v1/views", get(views))
        .route("/api/v1/views/{view}", get(view))
        .route("/api/v1/status", get(status))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/privacy", get(privacy))
        .route(INGEST, post(ingest::ingest))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state((hub.clone(), hosts), frame))
        .with_state(hub)
}

/// An error as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// This falaj does not run the pipeline, or not yet.
    pub(crate) fn inactive(hub: &Hub) -> Self {
        let status = hub.inactive();
        let state = status.as_ref().map_or(RunState::Starting, |s| s.state);
        let detail = status.as_ref().and_then(|s| s.detail.as_deref());
        let problem = match (state, detail) {
            (RunState::Starting, _) | (_, None) => Self::new("falaj is starting"),
            (state, Some(detail)) => Self::new(format!("{}: {detail}", state.word())),
        };
        problem.hint(match state {
            RunState::Standby => "ask the falaj that runs the pipeline, or wait for this one",
            RunState::Waiting => "try again when it runs; `/readyz` says so",
            _ => "try again in a second",
        })
    }
}

pub(crate) fn problem_with(
    status: StatusCode,
    problem: &Problem,
    headers: &[(HeaderName, &'static str)],
) -> Response<Body> {
    let mut response = answer(JSON, json(problem));
    *response.status_mut() = status;
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn problem(status: StatusCode, problem: &Problem) -> Response<Body> {
    problem_with(status, problem, &[])
}

pub(crate) fn answer(media: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// Refuses requests that are not for this machine, and puts the common headers on every answer.
async fn frame(
    State((hub, hosts)): State<(Hub, Hosts)>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let mut response = if hosts.admit(host.unwrap_or_default()) {
        next.run(request).await
    } else {
        let refused = Problem::new("this host name is not served")
            .hint("open the page as `http://127.0.0.1` or `http://localhost` with its port");
        problem(StatusCode::FORBIDDEN, &refused)
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    *hub.counters()
        .responses
        .lock()
        .entry(response.status().as_u16())
        .or_default() += 1;
    response
}

async fn index(State(hub): State<Hub>) -> Response<Body> {
    answer("text/html; charset=utf-8", page::page(&hub))
}

async fn asset(name: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Response<Body> {
    name.ok()
        .and_then(|Path(name)| assets::answer(&name, &headers))
        .unwrap_or_else(|| problem(StatusCode::NOT_FOUND, &Problem::new("no such file")))
}

async fn views(State(hub): State<Hub>) -> Response<Body> {
    let views: Vec<_> = hub.views().iter().map(|view| ViewJson(view)).collect();
    answer(JSON, json(&views))
}

/// Parameters of a view; others are ignored.
#[derive(Deserialize)]
struct ViewQuery {
    format: Option<String>,
    limit: Option<String>,
}

#[derive(Clone, Copy)]
enum Format {
    Json,
    Csv,
}

async fn view(
    State(hub): State<Hub>,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<ViewQuery>, QueryRejection>,
) -> Response<Body> {
    let Ok(Path(name)) = name else {
        let bad = Problem::new("the view's name is not text");
        return problem(StatusCode::BAD_REQUEST, &bad);
    };
    let Some(info) = hub.views().iter().find(|view| view.name == name) else {
        return problem(StatusCode::NOT_FOUND, &unknown_view(&hub, &name));
    };
    if info.kind == ViewKind::Row {
        let error = format!("view `{name}` holds one row a person and is never published");
        let hint = "read it in a store, with the rights that takes";
        return problem(StatusCode::FORBIDDEN, &Problem::new(error).hint(hint));
    }
    let (format, limit) = match query.map(|Query(query)| query.check()) {
        Ok(Ok(query)) => query,
        Ok(Err(bad)) => return problem(StatusCode::BAD_REQUEST, &bad),
        Err(_) => {
            let bad = Problem::new("the query is not `name=value` pairs");
            return problem(StatusCode::BAD_REQUEST, &bad);
        }
    };
    if hub.inactive().is_some() {
        return unavailable(&Problem::inactive(&hub));
    }
    let Some(rows) = hub.rows(&name) else {
        return problem(StatusCode::NOT_FOUND, &unknown_view(&hub, &name));
    };
    match format {
        Format::Json => answer(JSON, render::view_json(&rows, limit)),
        Format::Csv => {
            let csv = render::view_csv(&rows, limit);
            let mut response = answer("text/csv; charset=utf-8; header=present", csv);
            // Names of views are `[a-z][a-z0-9_]*`.
            let file = format!("attachment; filename=\"{name}.csv\"");
            if let Ok(value) = HeaderValue::from_str(&file) {
                response
                    .headers_mut()
                    .insert(header::CONTENT_DISPOSITION, value);
            }
            response
        }
    }
}

impl ViewQuery {
    fn check(self) -> Result<(Format, usize), Problem> {
        let format = match self.format.as_deref() {
            None | Some("json") => Format::Json,
            Some("csv") => Format::Csv,
            Some(_) => return Err(Problem::new("unknown `format`").hint("use `json` or `csv`")),
        };
        let limit = match self.limit {
            None => usize::MAX,
            Some(limit) => limit.parse().map_err(|_| {
                Problem::new("`limit` is not a whole number").hint("say how many rows: `limit=10`")
            })?,
        };
        Ok((format, limit))
    }
}

fn unknown_view(hub: &Hub, name: &str) -> Problem {
    let names = hub.views().iter().map(|view| view.name.as_str());
    let problem = Problem::new(format!("view `{name}` does not exist"));
    match nearest(name, names) {
        Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
        None => problem.hint("`/api/v1/views` lists them"),
    }
}

async fn status(State(hub): State<Hub>) -> Response<Body> {
    match hub.status() {
        Some(status) => answer(JSON, json(&*status)),
        None => unavailable(&Problem::inactive(&hub)),
    }
}

async fn privacy(State(hub): State<Hub>) -> Response<Body> {
    match hub.privacy() {
        Some(panel) => answer(JSON, json(&*panel)),
        None => unavailable(&Problem::inactive(&hub)),
    }
}

fn unavailable(problem: &Problem) -> Response<Body> {
    problem_with(
        StatusCode::SERVICE_UNAVAILABLE,
        problem,
        &[(header::RETRY_AFTER, "1")],
    )
}

async fn healthz() -> Response<Body> {
    answer(JSON, "{\"alive\":true}".to_owned())
}

async fn readyz(State(hub): State<Hub>) -> Response<Body> {
    let body = |ready: bool, reasons: serde_json::Value| {
        let mut response = answer(
            JSON,
            serde_json::json!({"ready": ready, "reasons": reasons}).to_string(),
        );
        if !ready {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    };
    let Some(status) = hub.status() else {
        let reason = serde_json::json!([{
            "part": "pipeline",
            "name": hub.pipeline(),
            "state": "starting",
            "detail": "no stage has reported yet",
            "since": null,
        }]);
        return body(false, reason);
    };
    let reasons = status.unready();
    body(
        reasons.is_empty(),
        serde_json::to_value(&reasons).unwrap_or_default(),
    )
}

async fn prometheus(State(hub): State<Hub>) -> Response<Body> {
    answer(
        "text/plain; version=0.0.4; charset=utf-8",
        metrics::text(&hub),
    )
}

async fn nothing_here(uri: Uri) -> Response<Body> {
    let error = format!("nothing is served at `{}`", uri.path());
    let hint = "the page is at `/`, the API starts at `/api/v1/views`";
    problem(StatusCode::NOT_FOUND, &Problem::new(error).hint(hint))
}

async fn wrong_method(method: Method, uri: Uri) -> Response<Body> {
    let error = format!("`{method}` does not work at `{}`", uri.path());
    let hint = if uri.path() == INGEST {
        "use `POST`"
    } else {
        "use `GET`"
    };
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        &Problem::new(error).hint(hint),
    )
}
