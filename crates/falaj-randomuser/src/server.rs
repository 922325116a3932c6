//! The HTTP side: routes, the limit, faults, gzip, chunks.
//!
//! Always: a request is answered or, where a fault says so, left hanging until the client or the server
//! gives up; nothing a client sends is an error of the server.

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::serve::ListenerExt;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::domains::Domains;
use crate::error::RandomUserError;
use crate::fault::{FaultKind, Faults};
use crate::limit::{Counts, RateLimit};
use crate::people::Options;
use crate::query::{Query, Version};
use crate::reply::render_some;
use crate::stream::drawn_seed;
use crate::time::Clock;

/// How a local server behaves. The default is the real service on a good day, without its limit, on a
/// free port of this machine.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where to listen; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// How much one address may ask for; the service has [`RateLimit::REAL`].
    pub rate_limit: Option<RateLimit>,
    /// What goes wrong, and how often.
    pub faults: Faults,
    /// Where e-mail addresses end.
    pub domains: Domains,
    /// Whether people carry the tokens of [`canaries`](crate::canaries).
    pub canary: bool,
    /// The time that ages are counted to.
    pub clock: Clock,
    /// Decides the faults and the seeds of requests without one ([`drawn_seed`]); by chance if absent.
    pub seed: Option<u64>,
    /// The pause between two of the ten pieces of a slow body.
    pub slow_pause: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            rate_limit: None,
            faults: Faults::default(),
            domains: Domains::default(),
            canary: false,
            clock: Clock::system(),
            seed: None,
            slow_pause: Duration::from_secs(1),
        }
    }
}

/// A running server. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// How long a shutdown waits for replies that are under way.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);

/// Starts a server; it runs in the background until [`Server::shutdown`].
///
/// # Errors
/// Where it cannot listen.
pub async fn serve(config: ServerConfig) -> Result<Server, RandomUserError> {
    let failed = |cause| RandomUserError::Listen {
        addr: config.listen,
        cause,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    // Small replies must not wait for the client's acknowledgement; where the option is refused they do.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let (stop, stopped) = watch::channel(false);
    let app = Arc::new(App {
        options: Options {
            domains: config.domains,
            canary: config.canary,
        },
        clock: config.clock,
        counts: config
            .rate_limit
            .map(|limit| Mutex::new(Counts::new(limit, Instant::now()))),
        faults: Mutex::new(config.faults),
        seed: config.seed.unwrap_or_else(chance),
        slow_pause: config.slow_pause,
        renders: Arc::new(Semaphore::new(RENDERS_MAX)),
        requests: AtomicU64::new(0),
        users: AtomicU64::new(0),
        stopped: stopped.clone(),
    });
    let service = Router::new().fallback(answer).with_state(Arc::clone(&app));
    let service = service.into_make_service_with_connect_info::<SocketAddr>();
    let task = tokio::spawn(async move {
        let serving = axum::serve(listener, service).with_graceful_shutdown(until(stopped));
        // It has no error to give: what fails on one connection ends that connection.
        let _ = serving.await;
    });
    Ok(Server {
        addr,
        app,
        stop,
        task,
    })
}

impl Server {
    /// Where it listens, with the port that port 0 chose.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address of the newest version: `http://127.0.0.1:41234/api/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/api/", self.addr)
    }

    /// How many API requests have come, refused and failed ones included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.app.requests.load(Ordering::Relaxed)
    }

    /// How many people have been given away, in cut replies too.
    #[must_use]
    pub fn users(&self) -> u64 {
        self.app.users.load(Ordering::Relaxed)
    }

    /// Changes what goes wrong from the next request on.
    pub fn set_faults(&self, faults: Faults) {
        *self
            .app
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Takes no more requests, lets replies under way finish for two seconds, and ends.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(SHUTDOWN_WAIT, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
        }
    }
}

/// Returns once the server is told to stop, or is dropped.
async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// A number that differs from run to run; no secret.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[derive(Debug)]
struct App {
    options: Options,
    clock: Clock,
    counts: Option<Mutex<Counts>>,
    faults: Mutex<Faults>,
    seed: u64,
    slow_pause: Duration,
    renders: Arc<Semaphore>,
    requests: AtomicU64,
    users: AtomicU64,
    stopped: watch::Receiver<bool>,
}

/// Replies made at the same time. Bounds memory at about 8 × 20 MB (5,000 people with long passwords,
/// as pretty JSON, and the compressed copy).
const RENDERS_MAX: usize = 8;

async fn answer(
    State(app): State<Arc<App>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let Some(version) = version(request.uri().path()) else {
        return reply(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "Not Found",
        );
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "Method Not Allowed";
        let mut refused = reply(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain; charset=utf-8",
            text,
        );
        refused
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let number = app.requests.fetch_add(1, Ordering::Relaxed);
    let fate = app
        .faults
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .fate(number, app.seed);
    if fate.fault == Some(FaultKind::Hang) {
        until(app.stopped.clone()).await;
    }
    if let Some(page) = fate.fault.and_then(proxy_page) {
        return page;
    }

    let drawn = drawn_seed(app.seed, number);
    let query = Query::parse(version, request.uri().query().unwrap_or_default(), &drawn);
    let mut response = match fate.fault {
        Some(FaultKind::TooMany) => too_many(query.results.into()),
        Some(FaultKind::ErrorOk) => service_error(StatusCode::OK),
        Some(FaultKind::Error) => service_error(StatusCode::INTERNAL_SERVER_ERROR),
        fault => match app.take(client, &query) {
            Err(given) => too_many(given),
            Ok(()) => {
                app.give(query, fault, accepts_gzip(request.headers()))
                    .await
            }
        },
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if fate.cors {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
    }
    response
}

/// The version that a path names: `/api/` is the newest, `/api/1.3/` pins one.
fn version(path: &str) -> Option<Version> {
    let rest = path.strip_prefix("/api")?;
    match rest.strip_suffix('/').unwrap_or(rest) {
        "" => Some(Version::default()),
        pinned => Version::parse(pinned.strip_prefix('/')?),
    }
}

impl App {
    fn take(&self, client: SocketAddr, query: &Query) -> Result<(), u64> {
        let Some(counts) = &self.counts else {
            return Ok(());
        };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.take(
            client.ip().to_canonical(),
            query.results.into(),
            Instant::now(),
        )
    }

    /// The people, as bytes made on a thread that may take its time.
    async fn give(
        self: &Arc<Self>,
        query: Query,
        fault: Option<FaultKind>,
        gzip: bool,
    ) -> Response {
        let permit = Arc::clone(&self.renders).acquire_owned().await;
        let shown = if fault == Some(FaultKind::Empty) {
            0
        } else {
            query.results
        };
        self.users.fetch_add(shown.into(), Ordering::Relaxed);
        let (format, download) = (query.format, query.download);
        let app = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || {
            let mut body = render_some(&query, &app.options, app.clock.now(), shown);
            if fault == Some(FaultKind::Cut) {
                body.truncate(body.len() * 15 / 100);
            }
            let body = if gzip { compress(&body) } else { body };
            drop(permit);
            body
        });
        let Ok(body) = made.await else {
            return service_error(StatusCode::INTERNAL_SERVER_ERROR);
        };
        let body = match fault {
            Some(FaultKind::Slow) => self.slowly(body.into()),
            _ if body.len() > CHUNK => chunked(body.into()),
            _ => body.into(),
        };
        let mut response = reply(StatusCode::OK, format.content_type(), body);
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        if gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if download {
            let name = format!("attachment; filename=download.{}", format.extension());
            let name = HeaderValue::try_from(name).expect("an extension is plain ASCII");
            headers.insert(header::CONTENT_DISPOSITION, name);
        }
        response
    }

    /// A body in ten pieces with a pause before each; once the server stops it comes at once.
    fn slowly(&self, body: Bytes) -> Body {
        let size = body.len().div_ceil(10).max(1);
        let (pause, stopped) = (self.slow_pause, self.stopped.clone());
        Body::from_stream(pieces(body, size).then(move |piece| {
            let stopped = stopped.clone();
            async move {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = until(stopped) => {}
                }
                piece
            }
        }))
    }
}

/// Longer bodies come in chunks of this size and without a `Content-Length`.
const CHUNK: usize = 64 * 1024;

fn chunked(body: Bytes) -> Body {
    Body::from_stream(pieces(body, CHUNK))
}

fn pieces(body: Bytes, size: usize) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    let starts = (0..body.len()).step_by(size);
    stream::iter(starts.map(move |at| Ok(body.slice(at..body.len().min(at + size)))))
}

/// Fast rather than small: the other end is on the same machine.
fn compress(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), Compression::fast());
    let written = encoder.write_all(body).and_then(|()| encoder.finish());
    written.expect("memory takes every byte")
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let offers = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    offers.into_iter().any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let gzip = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "*");
        let refused = parts
            .filter_map(|part| part.strip_prefix("q="))
            .any(|quality| quality.parse::<f32>().is_ok_and(|quality| quality <= 0.0));
        gzip && !refused
    })
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

fn too_many(users: u64) -> Response {
    let text = format!(
        "{{\"error\":\"Whoa, ease up there cowboy. You've requested {users} users in the last minute. \
         Please wait a while before you ask for more.\"}}"
    );
    reply(StatusCode::TOO_MANY_REQUESTS, "application/json", text)
}

fn service_error(status: StatusCode) -> Response {
    let text = "{\"error\":\"Uh oh, something has gone wrong. Please tweet us @randomapi about the issue. Thank you.\"}";
    reply(status, "application/json", text)
}

/// The page of a proxy before the service: HTML, and none of the service's headers.
fn proxy_page(fault: FaultKind) -> Option<Response> {
    let (status, title) = match fault {
        // What hung until the server stopped is answered too, so that the connection can end.
        FaultKind::Unavailable | FaultKind::Hang => {
            (StatusCode::SERVICE_UNAVAILABLE, "503 Service Not Available")
        }
        FaultKind::BadGateway => (StatusCode::BAD_GATEWAY, "502 Bad Gateway"),
        FaultKind::GatewayTimeout => (StatusCode::GATEWAY_TIMEOUT, "504 Gateway Time-out"),
        _ => return None,
    };
    let page = format!(
        "<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n</body>\n</html>\n"
    );
    Some(reply(status, "text/html", page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_version_or_nothing() {
        for (path, found) in [
            ("/api", Some(Version::V1_4)),
            ("/api/", Some(Version::V1_4)),
            ("/api/1.1", Some(Version::V1_1)),
            ("/api/1.4/", Some(Version::V1_4)),
            ("/api/1.5/", None),
            ("/api/0.8/", None),
            ("/api/1.4/x", None),
            ("/api1.4", None),
            ("/apis", None),
            ("/", None),
            ("/api//", None),
        ] {
            assert_eq!(version(path), found, "{path}");
        }
    }

    #[test]
    fn gzip_is_used_only_where_it_is_wanted() {
        for (offer, wanted) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("br, deflate", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(offer));
            assert_eq!(accepts_gzip(&headers), wanted, "{offer}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
