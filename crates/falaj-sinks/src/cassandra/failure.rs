//! The driver's errors as ours. Their texts may quote a row, so only types, codes and counts speak.

use std::io;

use falaj_record::Reason;
use scylla::errors::{
    BadQuery, BrokenConnectionError, BrokenConnectionErrorKind, ConnectionError,
    ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError, MetadataError,
    MetadataFetchErrorKind, NewSessionError, NextPageError, NextRowError, PagerExecutionError,
    PrepareError, RequestAttemptError, RequestError, SchemaAgreementError, UseKeyspaceError,
};

use crate::SinkError;

/// What a failed write means for what comes next.
pub(super) enum Failure {
    /// The store cannot follow: again, but slower.
    Congested(SinkError),
    /// Nobody is there: again, after a while.
    Away(SinkError),
    /// This row cannot be written.
    Row(Reason),
    /// The store calls the request invalid: for this row, or because the table is another.
    Invalid(Reason),
    /// Nothing can be written.
    Fatal(SinkError),
}

/// Whose errors they are.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    /// The store, as errors name it.
    pub store: &'a str,
    /// What was to be done, as a verb.
    pub what: &'a str,
}

impl Of<'_> {
    /// What failed write means.
    pub(super) fn write(self, error: &ExecutionError) -> Failure {
        let told = || self.execution(error);
        match error {
            ExecutionError::BadQuery(
                BadQuery::SerializationError(_) | BadQuery::ValuesTooLongForKey(..),
            ) => Failure::Row(Reason::TooLargeForStore),
            ExecutionError::LastAttemptError(RequestAttemptError::CqlRequestSerialization(_)) => {
                Failure::Row(Reason::TooLargeForStore)
            }
            ExecutionError::LastAttemptError(RequestAttemptError::DbError(code, text)) => {
                match code {
                    DbError::Invalid => Failure::Invalid(reason(text)),
                    DbError::WriteTimeout { .. }
                    | DbError::Overloaded
                    | DbError::RateLimitReached { .. } => Failure::Congested(told()),
                    DbError::Unavailable { .. }
                    | DbError::IsBootstrapping
                    | DbError::WriteFailure { .. }
                    | DbError::ServerError => Failure::Away(told()),
                    _ => Failure::Fatal(told()),
                }
            }
            ExecutionError::RequestTimeout(_)
            | ExecutionError::LastAttemptError(RequestAttemptError::UnableToAllocStreamId) => {
                Failure::Congested(told())
            }
            ExecutionError::EmptyPlan
            | ExecutionError::ConnectionPoolError(_)
            | ExecutionError::LastAttemptError(RequestAttemptError::BrokenConnectionError(_)) => {
                Failure::Away(told())
            }
            _ => Failure::Fatal(told()),
        }
    }

    pub(super) fn session(self, error: &NewSessionError) -> SinkError {
        match error {
            NewSessionError::FailedToResolveAnyHostname(_) => {
                self.unreachable("no address is known for its name".into())
            }
            NewSessionError::MetadataError(error) => self.metadata(error),
            NewSessionError::UseKeyspaceError(UseKeyspaceError::RequestError(error)) => {
                self.attempt(error)
            }
            _ => self.failed("the driver cannot be set up so"),
        }
    }

    pub(super) fn execution(self, error: &ExecutionError) -> SinkError {
        match error {
            ExecutionError::EmptyPlan => self.unreachable("no node is known".into()),
            ExecutionError::PrepareError(error) => self.prepare(error),
            ExecutionError::ConnectionPoolError(error) => self.pool(error),
            ExecutionError::LastAttemptError(error) => self.attempt(error),
            ExecutionError::RequestTimeout(after) => self.no_answer(*after),
            ExecutionError::SchemaAgreementError(error) => self.agreement(error),
            ExecutionError::MetadataError(error) => self.metadata(error),
            _ => self.failed("the driver cannot send such a request"),
        }
    }

    pub(super) fn prepare(self, error: &PrepareError) -> SinkError {
        match error {
            PrepareError::ConnectionPoolError(error) => self.pool(error),
            PrepareError::AllAttemptsFailed { first_attempt } => self.attempt(first_attempt),
            _ => self.failed("its nodes prepare a statement in different ways"),
        }
    }

    pub(super) fn pager(self, error: &PagerExecutionError) -> SinkError {
        match error {
            PagerExecutionError::PrepareError(error) => self.prepare(error),
            PagerExecutionError::NextPageError(error) => self.page(error),
            _ => self.unexpected(),
        }
    }

    pub(super) fn row(self, error: &NextRowError) -> SinkError {
        match error {
            NextRowError::NextPageError(error) => self.page(error),
            _ => self.unexpected(),
        }
    }

    fn page(self, error: &NextPageError) -> SinkError {
        match error {
            NextPageError::RequestFailure(error) => match error {
                RequestError::EmptyPlan => self.unreachable("no node is known".into()),
                RequestError::ConnectionPoolError(error) => self.pool(error),
                RequestError::RequestTimeout(after) => self.no_answer(*after),
                RequestError::LastAttemptError(error) => self.attempt(error),
                _ => self.unexpected(),
            },
            _ => self.unexpected(),
        }
    }

    fn metadata(self, error: &MetadataError) -> SinkError {
        match error {
            MetadataError::ConnectionPoolError(error) => self.pool(error),
            MetadataError::FetchError(error) => match &error.error {
                MetadataFetchErrorKind::PrepareError(error) => self.attempt(error),
                MetadataFetchErrorKind::NextRowError(error) => self.row(error),
                _ => self.unexpected(),
            },
            _ => self.unexpected(),
        }
    }

    fn agreement(self, error: &SchemaAgreementError) -> SinkError {
        match error {
            SchemaAgreementError::ConnectionPoolError(error) => self.pool(error),
            SchemaAgreementError::PrepareError(error) => self.prepare(error),
            SchemaAgreementError::RequestError(error) => self.attempt(error),
            _ => self.failed("its nodes do not agree on the tables"),
        }
    }

    fn pool(self, error: &ConnectionPoolError) -> SinkError {
        match error {
            ConnectionPoolError::Broken {
                last_connection_error,
            } => self.connection(last_connection_error),
            _ => self.unreachable("no connection is open yet".into()),
        }
    }

    fn connection(self, error: &ConnectionError) -> SinkError {
        match error {
            ConnectionError::ConnectTimeout => self.unreachable("no answer".into()),
            ConnectionError::IoError(error) => self.io(error),
            ConnectionError::BrokenConnection(error) => self.broken(error),
            ConnectionError::ConnectionSetupRequestError(error) => match error.get_error() {
                ConnectionSetupRequestErrorKind::DbError(code, _) => self.database(code),
                ConnectionSetupRequestErrorKind::MissingAuthentication => SinkError::Login {
                    store: self.store.to_owned(),
                },
                ConnectionSetupRequestErrorKind::BrokenConnection(error) => self.broken(error),
                _ => self.unreachable("what answers there is not Cassandra".into()),
            },
            _ => self.unreachable("no connection can be opened".into()),
        }
    }

    fn broken(self, error: &BrokenConnectionError) -> SinkError {
        match error.downcast_ref() {
            Some(BrokenConnectionErrorKind::WriteError(error)) => self.io(error),
            Some(BrokenConnectionErrorKind::KeepaliveTimeout(_)) => {
                self.unreachable("no answer".into())
            }
            _ => self.unreachable("the connection was closed".into()),
        }
    }

    fn io(self, error: &io::Error) -> SinkError {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
        match tls {
            Some(rustls::Error::InvalidCertificate(why)) => SinkError::Setting {
                key: "ca",
                cause: format!("the certificate of the store is not trusted: {why:?}"),
            },
            Some(rustls::Error::AlertReceived(alert)) => SinkError::Setting {
                key: "cert",
                cause: format!("the store refuses the connection: {alert:?}"),
            },
            Some(_) => SinkError::Setting {
                key: "tls",
                cause: "what answers there does not speak TLS".into(),
            },
            None => self.unreachable(error.kind().to_string()),
        }
    }

    fn attempt(self, error: &RequestAttemptError) -> SinkError {
        match error {
            RequestAttemptError::DbError(code, _) => self.database(code),
            RequestAttemptError::BrokenConnectionError(error) => self.broken(error),
            RequestAttemptError::UnableToAllocStreamId => {
                self.failed("too many requests are under way")
            }
            _ => self.unexpected(),
        }
    }

    fn database(self, code: &DbError) -> SinkError {
        let store = self.store.to_owned();
        let cause = match code {
            DbError::AuthenticationError => return SinkError::Login { store },
            DbError::Unauthorized => {
                let what = self.what.to_owned();
                return SinkError::Forbidden { store, what };
            }
            DbError::Unavailable {
                consistency,
                required,
                alive,
            } => format!("{alive} replicas are there, and {consistency} needs {required}"),
            DbError::WriteTimeout {
                received, required, ..
            }
            | DbError::ReadTimeout {
                received, required, ..
            } => format!("{received} of {required} replicas answered in time"),
            DbError::WriteFailure { numfailures, .. }
            | DbError::ReadFailure { numfailures, .. } => {
                format!("{numfailures} replicas failed")
            }
            DbError::Overloaded | DbError::RateLimitReached { .. } => "it is overloaded".into(),
            DbError::IsBootstrapping => "a node is only starting".into(),
            DbError::ServerError => "a node has an error inside".into(),
            DbError::SyntaxError => format!("it has no words to {}", self.what),
            DbError::Invalid | DbError::ConfigError => format!("it finds no way to {}", self.what),
            DbError::TruncateError => "a table could not be emptied".into(),
            DbError::Other(code) => format!("error 0x{code:04x}"),
            _ => "it does not understand the driver".into(),
        };
        SinkError::Store { store, cause }
    }

    pub(super) fn no_answer(self, after: std::time::Duration) -> SinkError {
        self.unreachable(format!("no answer in {} s", after.as_secs()))
    }

    pub(super) fn unreachable(self, cause: String) -> SinkError {
        SinkError::Unreachable {
            store: self.store.to_owned(),
            cause,
        }
    }

    fn failed(self, cause: &str) -> SinkError {
        SinkError::Store {
            store: self.store.to_owned(),
            cause: cause.to_owned(),
        }
    }

    pub(super) fn unexpected(self) -> SinkError {
        self.failed("it answered in a form not expected")
    }
}

/// Why a row is refused. There is no code for size, only a text; where Cassandra words it
/// differently some day, the row is refused all the same.
fn reason(text: &str) -> Reason {
    let large = [
        "Rejected an oversized mutation",
        "Request is too big",
        "Key length of",
    ];
    if large.iter().any(|words| text.starts_with(words)) {
        Reason::TooLargeForStore
    } else {
        Reason::RefusedByStore
    }
}
