//! The listening socket, and who may talk to it.
//!
//! Always: only loopback, unless the person said `--insecure`. Always: on loopback the `Host` header
//! must name this machine, so that no web page elsewhere reads the numbers by rebinding its own name.
//! Always: connections are counted and an idle or stuck one is closed, so that nobody's half-open
//! sockets keep others out.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::routes;
use crate::{Hub, ServeError};

/// Where the page is, unless the person says otherwise.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8050);

/// Connections at a time: the readers of the event stream and some for everything else.
const CONNECTIONS_MAX: usize = crate::hub::CLIENTS_MAX + 312;
/// A connection over which no byte moves for so long is closed. The event stream sends a comment
/// every ten seconds, so only readers that take nothing reach it.
const IDLE_MAX: Duration = Duration::from_mins(1);
/// How long open answers may take once the server is to stop.
const DRAIN_MAX: Duration = Duration::from_millis(1_500);
/// Pause after a failed accept: too many open files mend only by waiting.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Serves other machines too, without a login.
    pub insecure: bool,
    /// Further names that a request may call this machine by, say behind a proxy.
    pub hosts: Vec<String>,
}

impl Default for Listen {
    fn default() -> Self {
        DEFAULT_ADDRESS.into()
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            insecure: false,
            hosts: Vec::new(),
        }
    }
}

impl FromStr for Listen {
    type Err = ServeError;

    fn from_str(text: &str) -> Result<Self, ServeError> {
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        let address: SocketAddr = numeric.parse().map_err(|_| ServeError::Address {
            text: text.to_owned(),
        })?;
        Ok(address.into())
    }
}

/// Which `Host` headers are answered.
#[derive(Debug, Clone)]
pub(crate) enum Hosts {
    /// This machine's names for itself, and those configured.
    Named(Arc<[String]>),
    /// Any: the person serves everybody and named nobody.
    Any,
}

impl Hosts {
    fn of(listen: &Listen) -> Self {
        if listen.hosts.is_empty() && !listen.address.ip().is_loopback() {
            Self::Any
        } else {
            Self::Named(
                listen
                    .hosts
                    .iter()
                    .map(|h| h.to_ascii_lowercase())
                    .collect(),
            )
        }
    }

    /// Whether a request for `host` (with or without a port) is for us.
    pub(crate) fn admit(&self, host: &str) -> bool {
        let Self::Named(names) = self else {
            return true;
        };
        let Some(name) = without_port(host) else {
            return false;
        };
        let name = name.to_ascii_lowercase();
        let ip = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        name == "localhost" || ip.is_ok_and(|ip| ip.is_loopback()) || names.contains(&name)
    }
}

/// The host of `host[:port]`; none where the port is not a number.
fn without_port(host: &str) -> Option<&str> {
    let port_at = match host.rfind(']') {
        Some(end) => host[end..].find(':').map(|colon| end + colon),
        None => host.rfind(':'),
    };
    match port_at {
        None => Some(host),
        Some(at) => host[at + 1..].parse::<u16>().ok().map(|_| &host[..at]),
    }
}

/// A bound socket that serves a hub.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    hub: Hub,
    hosts: Hosts,
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// [`ServeError::Exposed`] for an address beyond loopback without `insecure`;
    /// [`ServeError::ExposedIngest`] for one where anybody could send records;
    /// [`ServeError::PortInUse`] and [`ServeError::Bind`] where the system refuses it.
    pub async fn bind(listen: &Listen, hub: Hub) -> Result<Self, ServeError> {
        let address = listen.address;
        if !address.ip().is_loopback() {
            if !listen.insecure {
                return Err(ServeError::Exposed { address });
            }
            if hub.ingest().exposed() {
                return Err(ServeError::ExposedIngest { address });
            }
            tracing::warn!(%address, "the page is served to other machines without a login");
        }
        let refused = |cause: io::Error| match cause.kind() {
            io::ErrorKind::AddrInUse => ServeError::PortInUse { address },
            _ => ServeError::Bind { address, cause },
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self {
            listener,
            address,
            hub,
            hosts: Hosts::of(listen),
        })
    }

    /// The address, with the port that the system chose where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a browser on this machine finds the page.
    #[must_use]
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}")
    }

    /// Serves until `stop`; then says `bye` to all readers and ends within two seconds.
    ///
    /// # Errors
    /// [`ServeError::Serve`] where the socket fails for good.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        let Self {
            listener,
            address,
            hub,
            hosts,
        } = self;
        let app = routes::app(hub.clone(), hosts);
        let accept = Accept {
            listener,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        let (stopped, drained) = (stop.clone(), stop);
        let serve = axum::serve(accept, app).with_graceful_shutdown(async move {
            stopped.cancelled().await;
            hub.bye();
        });
        let drain = async {
            drained.cancelled().await;
            sleep(DRAIN_MAX).await;
        };
        tokio::select! {
            served = serve => served.map_err(|cause| ServeError::Serve { address, cause }),
            () = drain => Ok(()),
        }
    }
}

struct Accept {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Accept {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = self
            .places
            .clone()
            .acquire_owned()
            .await
            .expect("nobody closes the semaphore");
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Deltas are small and are to be seen at once.
                    let _ = stream.set_nodelay(true);
                    return (Connection::new(stream, place), address);
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when no byte moves for [`IDLE_MAX`].
struct Connection {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            idle: Box::pin(sleep_until(Instant::now() + IDLE_MAX)),
            _place: place,
        }
    }

    /// Puts the end off when something moved, and is the end when nothing did for too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        moved: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE_MAX);
            return moved;
        }
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watch(cx, moved)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, moved)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, moved)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use falaj_record::Hint;

    use super::*;

    #[test]
    fn an_address_is_an_ip_or_localhost_with_a_port() {
        for (text, address) in [
            ("127.0.0.1:8050", Some("127.0.0.1:8050")),
            ("localhost:0", Some("127.0.0.1:0")),
            ("[::1]:80", Some("[::1]:80")),
            ("0.0.0.0:1", Some("0.0.0.0:1")),
            ("8050", None),
            ("localhost", None),
            ("localhost:http", None),
            ("example.com:80", None),
            ("", None),
        ] {
            let listen = text.parse::<Listen>();
            let found = listen
                .as_ref()
                .ok()
                .map(|listen| listen.address.to_string());
            assert_eq!(found.as_deref(), address, "{text}");
            assert!(listen.is_ok() || listen.is_err_and(|e| e.hint().is_some()));
        }
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let mut listen = Listen::default();
        listen.hosts.push("Falaj.Example".into());
        let hosts = Hosts::of(&listen);
        for (host, admitted) in [
            ("localhost", true),
            ("LOCALHOST:8050", true),
            ("127.0.0.1:8050", true),
            ("127.0.0.2", true),
            ("[::1]:9", true),
            ("[::1]", true),
            ("falaj.example:443", true),
            ("evil.example", false),
            ("evil.example:8050", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:8050", false),
            ("localhost:", false),
            ("localhost:x", false),
            ("10.0.0.1", false),
            ("[::2]", false),
            ("]", false),
            ("", false),
        ] {
            assert_eq!(hosts.admit(host), admitted, "{host}");
        }
    }

    #[tokio::test]
    async fn other_machines_are_served_only_on_request() {
        let hub = Hub::new("p", &[], vec![]);
        let mut listen = Listen::from(SocketAddr::from(([0, 0, 0, 0], 0)));
        let error = Server::bind(&listen, hub.clone())
            .await
            .err()
            .expect("it is exposed");
        assert!(matches!(error, ServeError::Exposed { .. }));
        assert!(error.hint().is_some_and(|hint| hint.contains("--insecure")));
        listen.insecure = true;
        let server = Server::bind(&listen, hub)
            .await
            .expect("the person asked for it");
        assert!(server.url().starts_with("http://127.0.0.1:"));
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_next_step() {
        let hub = Hub::new("p", &[], vec![]);
        let any = Listen::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        let first = Server::bind(&any, hub.clone())
            .await
            .expect("the system has a free port");
        let taken = Listen::from(first.address());
        let error = Server::bind(&taken, hub)
            .await
            .err()
            .expect("the port is taken");
        assert_eq!(
            error.to_string(),
            format!("cannot listen on `{}`: the port is in use", first.address())
        );
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("--listen 127.0.0.1:"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_over_which_nothing_moves_is_ended() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut accept = Accept {
            listener,
            places: Arc::new(Semaphore::new(1)),
        };
        let mut client = TcpStream::connect(address).await.expect("it listens");
        let (mut connection, _) = accept.accept().await;
        assert_eq!(accept.places.available_permits(), 0);
        client.write_all(b"x").await.expect("it is open");
        assert_eq!(connection.read_u8().await.expect("a byte came"), b'x');
        let error = connection
            .read_u8()
            .await
            .expect_err("nothing comes any more");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Nobody takes what is written: once the system's buffers are full, it ends too.
        let flood = vec![0; 64 * 1024 * 1024];
        let error = connection
            .write_all(&flood)
            .await
            .expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        assert_eq!(accept.places.available_permits(), 1);
    }
}
