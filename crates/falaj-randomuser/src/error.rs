use std::net::SocketAddr;

use falaj_record::Hint;

use crate::fault::FaultKind;

/// Why the local server could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RandomUserError {
    /// The address is taken, or is not one of this machine.
    #[error("the Random User server cannot listen on {addr}")]
    Listen {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system says.
        #[source]
        cause: std::io::Error,
    },
    /// A list of e-mail domains that cannot be read.
    #[error("`{part}` is not a weighted domain: {cause}")]
    Domain {
        /// The part of the list that is wrong.
        part: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// A fault that is not known, or whose frequency cannot be read.
    #[error("`{part}` is not a fault: {cause}")]
    Fault {
        /// The part of the list that is wrong.
        part: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// A rate limit that cannot be read.
    #[error("`{text}` is not a rate limit")]
    RateLimit {
        /// What was given.
        text: String,
    },
}

impl Hint for RandomUserError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Listen { .. } => "choose another port, or port 0 for a free one".to_owned(),
            Self::Domain { .. } => {
                "write domains with whole-number weights, for example gmail.com=30,example.com=20"
                    .to_owned()
            }
            Self::Fault { .. } => {
                let kinds: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
                format!(
                    "write `503=0.1` (a share of the requests) or `503=every 10`; the kinds are {}",
                    kinds.join(", ")
                )
            }
            Self::RateLimit { .. } => "write users and a window, for example 20000/5m".to_owned(),
        })
    }
}
