use std::sync::Arc;

use falaj_record::{ByteSize, Hint, Period};

use crate::reply::Unusable;

/// Why a request to an API gave no records. Each is tried again; none ends the pipeline, and none
/// holds a byte of a reply, a query or a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No connection.
    #[error("cannot connect to `{host}`: {cause}")]
    Unreachable {
        /// Host and port.
        host: Arc<str>,
        /// Why.
        cause: &'static str,
    },
    /// Nothing, or not everything, in time.
    #[error("no complete reply within {waited}")]
    TimedOut {
        /// `timeout` of the source.
        waited: Period,
    },
    /// A connection that ended early, or a compressed body that cannot be unpacked.
    #[error("the reply broke off after {bytes} bytes")]
    BrokeOff {
        /// Bytes of the body that came.
        bytes: u64,
    },
    /// A status that is not a success.
    #[error("status {status}{}", meaning(*status))]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// More redirects in a row than falaj follows.
    #[error("redirected too often")]
    RedirectLoop,
    /// A redirect to another host, where the request carries a secret.
    #[error("redirected to another host, where falaj does not send a secret")]
    RedirectAway,
    /// A redirect from https to http.
    #[error("redirected from https to http")]
    RedirectDown,
    /// A content type that is not JSON.
    #[error("the reply is {kind}, not JSON")]
    ContentType {
        /// What it is.
        kind: &'static str,
    },
    /// A body beyond `max_body`.
    #[error("the reply is longer than `max_body` ({max})")]
    TooLarge {
        /// `max_body` of the source.
        max: ByteSize,
    },
    /// JSON without usable records, or no JSON.
    #[error("the reply {0}")]
    Unusable(Unusable),
    /// A whole reply with no record in it. Counted apart from failures.
    #[error("the reply holds no records")]
    Empty,
}

impl Fault {
    /// Whether the pipeline file is more likely wrong than the service; such requests are repeated
    /// at the longest interval.
    #[must_use]
    pub fn likely_configuration(&self) -> bool {
        match self {
            Self::Status { status } => {
                (300..500).contains(status) && !matches!(status, 408 | 425 | 429)
            }
            Self::RedirectAway | Self::RedirectDown => true,
            Self::Unusable(cause) => cause.likely_configuration(),
            _ => false,
        }
    }
}

impl Hint for Fault {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable { .. } => "check `url` and the network; falaj keeps trying".into(),
            Self::TimedOut { .. } => "ask for fewer records at once, or raise `timeout`".into(),
            Self::Status { status: 401 | 403 } => "check `auth` and `headers`".into(),
            Self::Status { status: 404 | 410 } => "check `url`".into(),
            Self::Status { status: 429 } => {
                "raise `every`, or ask for fewer records at once".into()
            }
            Self::Status { status } if (300..500).contains(status) => {
                "check `url` and `query`; `inc = false` keeps falaj from adding `inc`".into()
            }
            Self::RedirectAway | Self::RedirectDown => {
                "set `url` to the address that the service now has".into()
            }
            Self::ContentType { .. } => "check `url`; falaj reads JSON".into(),
            Self::TooLarge { .. } => "ask for fewer records at once, or raise `max_body`".into(),
            Self::Unusable(cause) => return cause.hint(),
            Self::BrokeOff { .. } | Self::RedirectLoop | Self::Empty | Self::Status { .. } => {
                return None;
            }
        })
    }
}

fn meaning(status: u16) -> &'static str {
    match status {
        401 => " (not authenticated)",
        403 => " (not allowed)",
        404 => " (not found)",
        408 => " (request timed out)",
        429 => " (too many requests)",
        500 => " (service failed)",
        502 => " (bad gateway)",
        503 => " (service unavailable)",
        504 => " (gateway timed out)",
        _ => "",
    }
}
