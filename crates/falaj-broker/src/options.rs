//! How the listener works: where, for whom, and within which bounds.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use falaj_log::Durability;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::BrokerError;
pub use crate::sasl::Users;

/// How a [`crate::Listener`] works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Host and port that clients are told to use; without them, where they connected to.
    pub advertised: Option<(String, u16)>,
    /// Partitions of a topic that is made because a client asked for it, and of one that is made
    /// without saying how many; `None` makes none by itself.
    pub auto_create: Option<i32>,
    /// When writes to topics made through the listener are acknowledged.
    pub durability: Durability,
    /// Encryption; without it, loopback only.
    pub tls: Option<Tls>,
    /// Who may connect; without them everybody, on loopback only.
    pub users: Option<Users>,
    /// Bounds of what clients can make the broker do.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9092)),
            advertised: None,
            auto_create: Some(1),
            durability: Durability::Fsync,
            tls: None,
            users: None,
            limits: Limits::default(),
        }
    }
}

/// Bounds of what clients can make the broker do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time. The one that has been idle for longest makes room for a new one.
    pub connections: usize,
    /// Bytes of one request.
    pub request_bytes: usize,
    /// Bytes of all requests that are being read or answered.
    pub requests_bytes: usize,
    /// Bytes of records in one reply to a fetch; a larger batch still travels whole.
    pub fetch_bytes: usize,
    /// Bytes of records in all replies that are being written.
    pub replies_bytes: usize,
    /// Longest time from connecting to the first request of somebody who may be here.
    pub handshake: Duration,
    /// Longest time between two requests.
    pub idle: Duration,
    /// Longest time for which a request stays unfinished or a reply is not taken.
    pub stalled: Duration,
    /// Longest time for what was asked to be finished after a stop.
    pub drain: Duration,
    /// Partitions of all topics.
    pub partitions: usize,
    /// Consumer groups.
    pub groups: usize,
    /// Members of one group.
    pub members: usize,
    /// What a member may choose as the time after which it counts as gone.
    pub session: RangeInclusive<Duration>,
    /// How long the first member of a group waits for others before partitions are given out.
    pub first_rebalance: Duration,
    /// Committed offsets of a group that nobody uses are kept that long.
    pub offsets_retention: Duration,
    /// How often committed offsets are looked through for what has expired.
    pub housekeeping: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1000,
            request_bytes: 32 << 20,
            requests_bytes: 128 << 20,
            fetch_bytes: 32 << 20,
            replies_bytes: 128 << 20,
            handshake: Duration::from_secs(10),
            idle: Duration::from_mins(10),
            stalled: Duration::from_secs(30),
            drain: Duration::from_secs(5),
            partitions: 4096,
            groups: 10_000,
            members: 1000,
            session: Duration::from_secs(6)..=Duration::from_mins(30),
            first_rebalance: Duration::from_millis(200),
            offsets_retention: Duration::from_hours(7 * 24),
            housekeeping: Duration::from_mins(1),
        }
    }
}

/// A certificate and its key, ready for connections.
#[derive(Clone)]
pub struct Tls(pub(crate) Arc<ServerConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(redacted)")
    }
}

impl Tls {
    /// Reads a certificate with its chain, and its private key, from PEM files.
    ///
    /// # Errors
    /// [`BrokerError::Certificate`] where one cannot be read, holds nothing, or the two do not
    /// belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, BrokerError> {
        let unusable = |path: &Path, reason: String| BrokerError::Certificate {
            path: path.to_owned(),
            reason,
        };
        let read = |path: &Path| fs::read(path).map_err(|e| unusable(path, e.to_string()));
        let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| unusable(certificate, "it is not PEM".into()))?;
        if chain.is_empty() {
            return Err(unusable(certificate, "it holds no certificate".into()));
        }
        let secret = zeroize::Zeroizing::new(read(key)?);
        let secret = PrivateKeyDer::from_pem_slice(&secret)
            .map_err(|_| unusable(key, "it holds no private key".into()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(chain, secret)
            })
            .map(|config| Self(Arc::new(config)))
            .map_err(|e| unusable(certificate, e.to_string()))
    }
}
