//! What the driver and the server complain about, by its code: their words may quote a row.

use std::io;

use falaj_record::Reason;
use mongodb::error::{Error, ErrorKind};

use crate::SinkError;

/// Nobody is logged in, or who is may not do it.
pub(super) const UNAUTHORIZED: i32 = 13;
/// There is no such collection.
pub(super) const NAMESPACE_NOT_FOUND: i32 = 26;
/// There is one already.
pub(super) const NAMESPACE_EXISTS: i32 = 48;
/// Another document has this value in a unique index.
pub(super) const DUPLICATE_KEY: i32 = 11_000;
const AUTHENTICATION_FAILED: i32 = 18;
const OUT_OF_DISK_SPACE: i32 = 14_031;
/// A member that was the primary, or is going down, or an election.
const NO_PRIMARY: [i32; 8] = [91, 189, 10_058, 10_107, 11_600, 11_602, 13_435, 13_436];
/// Members do not reach each other.
const NETWORK: [i32; 5] = [6, 7, 89, 262, 9001];
/// A majority did not confirm: in time, or at all.
const TOO_FEW_CONFIRM: [i32; 3] = [64, 79, 100];
/// A document that is larger than the store takes.
const TOO_LARGE: [i32; 4] = [10_334, 17_280, 17_419, 17_420];
/// A document that breaks a rule of its collection: `BadValue`, `FailedToParse`, `TypeMismatch`,
/// `InvalidBSON`, `PathNotViable`, `ShardKeyNotFound`, `ImmutableField` (a shard key changed),
/// `DocumentValidationFailure`, `CannotIndexParallelArrays`, a geographic index.
const REFUSED: [i32; 10] = [2, 9, 14, 22, 28, 61, 66, 121, 171, 16_755];

/// What came back instead of an answer.
#[derive(Debug)]
pub(super) struct Fault {
    /// MongoDB's code, or 0.
    pub(super) code: i32,
    /// What it means.
    pub(super) error: SinkError,
}

impl From<Fault> for SinkError {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}

/// Why a server did not answer its last heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Silence {
    /// It is down, or not to be reached.
    Unreachable(String),
    /// Its certificate is nothing that `ca` vouches for.
    Untrusted(String),
}

impl Silence {
    /// What a failed heartbeat means.
    pub(super) fn of(error: &Error) -> Self {
        let ErrorKind::Io(error) = &*error.kind else {
            return Self::Unreachable("it does not speak MongoDB's protocol".into());
        };
        let tls = error.get_ref().and_then(|e| e.downcast_ref());
        match tls {
            Some(rustls::Error::InvalidCertificate(why)) => Self::Untrusted(why.to_string()),
            Some(tls) => Self::Unreachable(format!("no TLS with it: {tls}")),
            None => Self::Unreachable(words(error)),
        }
    }
}

/// What a failure of the network is called. It quotes no row: the system made it.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it closed the connection".into(),
        kind @ (io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::TimedOut) => kind.to_string(),
        _ => error.to_string(),
    }
}

/// Who complains, and about what: the parts of an error that the code does not say.
pub(super) struct About<'a> {
    /// The store.
    pub(super) store: &'a str,
    /// What was to be done, as a verb.
    pub(super) what: &'a str,
    /// Whether somebody is logged in.
    pub(super) login: bool,
    /// Why it does not answer, where it does not.
    pub(super) silence: Option<Silence>,
}

impl About<'_> {
    /// What the driver's error means.
    pub(super) fn fault(self, error: &Error) -> Fault {
        let store = || self.store.to_owned();
        let code = match &*error.kind {
            ErrorKind::Command(error) => error.code,
            _ => 0,
        };
        let error = match &*error.kind {
            ErrorKind::Command(error) => return self.coded(code, &error.code_name),
            ErrorKind::Authentication { .. } => SinkError::Login { store: store() },
            ErrorKind::ServerSelection { .. } => return self.silent(),
            ErrorKind::Io(error) => self.unreachable(words(error)),
            ErrorKind::ConnectionPoolCleared { .. } => {
                self.unreachable("the connection was lost".into())
            }
            ErrorKind::DnsResolve { .. } => self.unreachable("its name cannot be resolved".into()),
            ErrorKind::InvalidTlsConfig { .. } => SinkError::Setting {
                key: "uri",
                cause: "its certificates or keys cannot be used".into(),
            },
            ErrorKind::IncompatibleServer { .. } => SinkError::Store {
                store: store(),
                cause: "it is a version that the driver does not speak with".into(),
            },
            ErrorKind::Shutdown => SinkError::Closed {
                sink: super::NAME.into(),
            },
            _ => SinkError::Store {
                store: store(),
                cause: "it answered in a form not expected".into(),
            },
        };
        Fault { code, error }
    }

    /// What a code of MongoDB's means; its name is a fixed word.
    pub(super) fn coded(self, code: i32, name: &str) -> Fault {
        let store = self.store.to_owned();
        let error = match code {
            AUTHENTICATION_FAILED => SinkError::Login { store },
            UNAUTHORIZED if !self.login => SinkError::Login { store },
            UNAUTHORIZED => SinkError::Forbidden {
                store,
                what: self.what.to_owned(),
            },
            OUT_OF_DISK_SPACE => SinkError::Full { store },
            _ if NO_PRIMARY.contains(&code) => {
                self.unreachable("it has no primary at the moment".into())
            }
            _ if NETWORK.contains(&code) => {
                self.unreachable("its members do not reach each other".into())
            }
            _ if TOO_FEW_CONFIRM.contains(&code) => {
                self.unreachable("no majority of its members confirmed the write".into())
            }
            _ => SinkError::Store {
                store,
                cause: named(code, name),
            },
        };
        Fault { code, error }
    }

    /// Nobody answered for as long as one was looked for.
    fn silent(self) -> Fault {
        let error = match &self.silence {
            None => self.unreachable("it has no primary at the moment".into()),
            Some(Silence::Unreachable(why)) => self.unreachable(why.clone()),
            Some(Silence::Untrusted(why)) => SinkError::Setting {
                key: "ca",
                cause: format!("it does not vouch for the server: {why}"),
            },
        };
        Fault { code: 0, error }
    }

    /// It cannot be reached.
    pub(super) fn unreachable(&self, cause: String) -> SinkError {
        SinkError::Unreachable {
            store: self.store.to_owned(),
            cause,
        }
    }
}

/// `error 50 (MaxTimeMSExpired)`; a name that is no word is left out.
fn named(code: i32, name: &str) -> String {
    let word =
        !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if word {
        format!("error {code} ({name})")
    } else {
        format!("error {code}")
    }
}

/// Whether trying once more, with another connection or primary, may work at once.
pub(super) fn again(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => true,
        ErrorKind::Command(error) => {
            NO_PRIMARY.contains(&error.code) || NETWORK.contains(&error.code)
        }
        _ => false,
    }
}

/// Why a row alone is refused, where its code says that it is the row's fault. A code that is in
/// no list is the store's: what is not known must not cost a row.
pub(super) fn refusal(code: i32) -> Option<Reason> {
    if TOO_LARGE.contains(&code) {
        Some(Reason::TooLargeForStore)
    } else if REFUSED.contains(&code) {
        Some(Reason::RefusedByStore)
    } else {
        None
    }
}
