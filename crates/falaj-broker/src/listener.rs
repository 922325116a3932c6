//! The listener: who may connect, and what runs beside the connections.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use falaj_log::Log;
use kafka_protocol::protocol::StrBytes;
use tokio::net::TcpStream;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::BrokerError;
use crate::broker::{Broker, Client, now_ms, text};
use crate::connection::serve;
use crate::coordinator::TICK;
use crate::options::Options;
use crate::seats::{Guest, Seats};

/// Pause after a connection could not be accepted (out of file descriptors, for one).
const BREATHER: Duration = Duration::from_millis(100);

/// The embedded log, open to Kafka clients.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    broker: Arc<Broker>,
    stop: CancellationToken,
}

impl Listener {
    /// Binds the address and opens the committed offsets. Clients that connect wait until
    /// [`Listener::run`]. Does file work.
    ///
    /// # Errors
    /// [`BrokerError::Exposed`] beyond loopback without TLS and users, [`BrokerError::Address`],
    /// [`BrokerError::Offsets`].
    pub fn bind(log: Arc<Log>, options: Options) -> Result<Self, BrokerError> {
        let address = options.address;
        if !address.ip().to_canonical().is_loopback() {
            let missing = match (&options.tls, &options.users) {
                (None, None) => Some("TLS and users"),
                (None, Some(_)) => Some("TLS"),
                (Some(_), None) => Some("users"),
                (Some(_), Some(_)) => None,
            };
            if let Some(missing) = missing {
                return Err(BrokerError::Exposed { address, missing });
            }
        }
        let unusable = |cause| BrokerError::Address { address, cause };
        let socket = TcpListener::bind(address).map_err(unusable)?;
        socket.set_nonblocking(true).map_err(unusable)?;
        let address = socket.local_addr().map_err(unusable)?;
        let stop = CancellationToken::new();
        let broker = Broker::new(log, options, stop.clone()).map_err(BrokerError::Offsets)?;
        Ok(Self {
            socket,
            address,
            broker: Arc::new(broker),
            stop,
        })
    }

    /// Where it listens, with the port that port 0 chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves clients until `stop`; then finishes what they have asked for, within
    /// [`crate::Limits::drain`].
    ///
    /// # Errors
    /// [`BrokerError::Address`] where the socket cannot be used.
    pub async fn run(self, stop: CancellationToken) -> Result<(), BrokerError> {
        let unusable = |cause| BrokerError::Address {
            address: self.address,
            cause,
        };
        let socket = tokio::net::TcpListener::from_std(self.socket).map_err(unusable)?;
        let limits = self.broker.options.limits.clone();
        let seats = Seats::new(limits.connections);
        let ticking = tokio::spawn(tick(Arc::clone(&self.broker)));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => if let Some(guest) = seats.take() {
                        let broker = Arc::clone(&self.broker);
                        connections.spawn(welcome(stream, peer, broker, guest));
                    } else { debug!(%peer, "no room for a Kafka client") },
                    Err(cause) => {
                        warn!(error = %cause, "a Kafka client could not be let in");
                        tokio::time::sleep(BREATHER).await;
                    }
                },
            }
        }
        drop(socket);
        self.stop.cancel();
        self.broker.coordinator.close();
        ticking.abort();
        let drained = timeout(limits.drain, async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        });
        if drained.await.is_err() {
            warn!(connections = connections.len(), "Kafka clients are cut off");
            connections.shutdown().await;
        }
        Ok(())
    }
}

/// A fault of falaj ends the connection it came up on, and is told to whoever runs it.
fn report(ended: Result<(), JoinError>) {
    if ended.is_err_and(|e| e.is_panic()) {
        error!("a Kafka connection ended in a panic");
    }
}

async fn welcome(stream: TcpStream, peer: SocketAddr, broker: Arc<Broker>, guest: Guest) {
    // Small answers are not held back to be joined with later ones.
    if let Err(cause) = stream.set_nodelay(true) {
        debug!(%peer, error = %cause, "a Kafka client left at once");
        return;
    }
    let advertised = match &broker.options.advertised {
        Some((host, port)) => (text(host.as_str()), i32::from(*port)),
        None => match stream.local_addr() {
            Ok(local) => (text(local.ip().to_string()), i32::from(local.port())),
            Err(_) => return,
        },
    };
    let client = Client {
        name: StrBytes::new(),
        host: format!("/{}", peer.ip()),
        advertised,
    };
    let Some(tls) = &broker.options.tls else {
        let (from, to) = stream.into_split();
        return serve(from, to, client, broker, guest).await;
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.0));
    let accepted = tokio::select! {
        accepted = timeout(broker.options.limits.handshake, acceptor.accept(stream)) => accepted,
        () = guest.leave.cancelled() => return,
        () = broker.stop.cancelled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => {
            let (from, to) = tokio::io::split(stream);
            serve(from, to, client, broker, guest).await;
        }
        Ok(Err(cause)) => debug!(%peer, error = %cause, "a Kafka client speaks no TLS"),
        Err(_) => debug!(%peer, "a Kafka client began no TLS in time"),
    }
}

/// What time brings: sessions of members, rebalances, expired offsets.
async fn tick(broker: Arc<Broker>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let period = broker.options.limits.housekeeping;
    let mut housekeeping_at = Instant::now() + period;
    loop {
        ticks.tick().await;
        broker.coordinator.tick(std::time::Instant::now());
        if Instant::now() >= housekeeping_at {
            let tidied = broker.on_disk(|b| {
                b.coordinator
                    .housekeeping(std::time::Instant::now(), now_ms());
            });
            if tidied.await.is_err() {
                error!("looking through committed offsets ended in a panic");
            }
            housekeeping_at = Instant::now() + period;
        }
    }
}
