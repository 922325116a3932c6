use std::net::SocketAddr;

use falaj_record::Hint;

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is not one.
    #[error("cannot listen on `{text}`: not an address with a port")]
    Address {
        /// As written.
        text: String,
    },
    /// The address can be reached from other machines, and there is no login yet.
    #[error("will not serve on `{address}`: other machines reach it and the page has no login")]
    Exposed {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address can be reached from other machines, and anybody could send records.
    #[error("will not take records on `{address}`: other machines reach it and there is no token")]
    ExposedIngest {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Another process listens there.
    #[error("cannot listen on `{address}`: the port is in use")]
    PortInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The system refuses the address.
    #[error("cannot listen on `{address}`")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        cause: std::io::Error,
    },
    /// The server cannot go on.
    #[error("serving on `{address}` failed")]
    Serve {
        /// The address served.
        address: SocketAddr,
        /// What the system says.
        #[source]
        cause: std::io::Error,
    },
}

impl Hint for ServeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Address { .. } => {
                Some("write it as `127.0.0.1:8050`, `localhost:8050` or `[::1]:8050`".into())
            }
            Self::Exposed { address } => Some(format!(
                "listen on `127.0.0.1:{0}` and reach it with `ssh -L {0}:127.0.0.1:{0} HOST`; \
                 `--insecure` serves everybody; TLS and tokens come in a later version",
                address.port()
            )),
            Self::ExposedIngest { .. } => Some(
                "set `token = { env = \"NAME\" }` in `[source.ingest]`, or listen on `127.0.0.1`"
                    .into(),
            ),
            Self::PortInUse { address } => Some(format!(
                "end the process that listens there, or choose another port with `--listen {}:{}`",
                bracketed(address),
                address.port().checked_add(1).unwrap_or(0)
            )),
            Self::Bind { cause, .. } => match cause.kind() {
                std::io::ErrorKind::PermissionDenied => Some(
                    "ports below 1024 are the system's: choose one above with `--listen`".into(),
                ),
                _ => Some("choose an address of this machine with `--listen`".into()),
            },
            Self::Serve { .. } => None,
        }
    }
}

fn bracketed(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}
