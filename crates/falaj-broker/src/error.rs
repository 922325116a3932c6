use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use falaj_log::LogError;
use falaj_record::Hint;

/// Why the listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Others could reach it, and it would let anybody in or be read on the way.
    #[error("{address} can be reached from other machines: a Kafka listener there needs {missing}")]
    Exposed {
        /// Where it was to listen.
        address: SocketAddr,
        /// What was not given.
        missing: &'static str,
    },
    /// The address is taken, or none of this machine.
    #[error("cannot listen for Kafka clients on {address}")]
    Address {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A certificate or key that cannot be used.
    #[error("cannot use `{}` for TLS: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never its content.
        reason: String,
    },
    /// A file of users that cannot be used.
    #[error("cannot use `{}` as list of users: {reason}", path.display())]
    Users {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never a name or a password.
        reason: String,
    },
    /// The topic of committed offsets cannot be opened.
    #[error("cannot use the committed offsets")]
    Offsets(#[source] LogError),
}

impl Hint for BrokerError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Exposed { .. } => {
                "give `--tls-cert`, `--tls-key` and `--users`, or listen on 127.0.0.1".into()
            }
            Self::Address { cause, .. } if cause.kind() == io::ErrorKind::AddrInUse => {
                "another broker may run there; port 0 takes a free one".into()
            }
            Self::Address { .. } => return None,
            Self::Certificate { .. } => {
                "give PEM files: the certificate with its chain, and its unencrypted private key"
                    .into()
            }
            Self::Users { .. } => {
                "one user a line, `name password`, in a file that only its owner may read (mode 0600)"
                    .into()
            }
            Self::Offsets(cause) => return cause.hint(),
        })
    }
}
