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
                    DbError::Invalid if rule_of_the_nodes(text).is_some() => Failure::Away(told()),
                    DbError::Invalid => Failure::Invalid(reason(text)),
                    DbError::AuthenticationError | DbError::Unauthorized if is_not_asked(text) => {
                        Failure::Away(told())
                    }
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
                ConnectionSetupRequestErrorKind::DbError(code, text) => self.database(code, text),
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
            RequestAttemptError::DbError(code, text) => self.database(code, text),
            RequestAttemptError::BrokenConnectionError(error) => self.broken(error),
            RequestAttemptError::UnableToAllocStreamId => {
                self.failed("too many requests are under way")
            }
            _ => self.unexpected(),
        }
    }

    fn database(self, code: &DbError, text: &str) -> SinkError {
        let store = self.store.to_owned();
        let cause = match code {
            DbError::AuthenticationError | DbError::Unauthorized if is_not_asked(text) => {
                return self.unreachable("its nodes cannot read who may log in and do what".into());
            }
            DbError::Invalid if rule_of_the_nodes(text) == Some(DISK_RULE) => {
                return SinkError::Full { store };
            }
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
            DbError::Invalid if let Some(rule) = rule_of_the_nodes(text) => {
                format!("falaj's clock breaks its guardrail `{rule}`")
            }
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

/// The guardrail about the disks of a row's replicas.
const DISK_RULE: &str = "replica_disk_usage";

/// The guardrail that a request breaks, where it is one about the nodes or the clock: by it each
/// row is refused, and none for what it holds. There is no code for it, only a text.
pub(super) fn rule_of_the_nodes(text: &str) -> Option<&'static str> {
    let broken = text.strip_prefix("Guardrail ")?;
    let (name, _) = broken.split_once(" violated")?;
    let rules = [
        DISK_RULE,
        "local_data_disk_usage",
        "maximum_timestamp",
        "minimum_timestamp",
    ];
    rules.into_iter().find(|rule| *rule == name)
}

/// Whether a login or a right is refused since nodes cannot read what they know of it: too few
/// replicas of `system_auth` answer. It has the code of a wrong password, and another text.
fn is_not_asked(text: &str) -> bool {
    [
        "Unable to perform authentication:",
        "Unable to perform authorization of ",
    ]
    .iter()
    .any(|words| text.starts_with(words))
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

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Of<'static> = Of {
        store: "store",
        what: "write the table `users`",
    };

    fn answer(code: DbError, text: &str) -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(code, text.into()))
    }

    /// Texts as Cassandra 5.0.9 has them.
    #[test]
    fn a_guardrail_about_the_nodes_costs_no_row() {
        let full = "Guardrail replica_disk_usage violated: Write request failed because disk usage \
            exceeds failure threshold";
        let ahead = "Guardrail maximum_timestamp violated: The modification to table users has a \
            timestamp 9 after the maximum allowable failure threshold 8. Timestamps too far in the \
            future can lead to data that can't be easily overwritten";
        let behind = "Guardrail minimum_timestamp violated: The modification to table users has a \
            timestamp 7 before the minimum allowable failure threshold 8";
        for (text, expected) in [
            (full, "no space is left"),
            (ahead, "`maximum_timestamp`"),
            (behind, "`minimum_timestamp`"),
        ] {
            let Failure::Away(error) = OF.write(&answer(DbError::Invalid, text)) else {
                panic!("a row is lost: {text}");
            };
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.passing(), "{error}");
        }
        for text in [
            "Guardrail column_value_size violated: Value of column 'nat' has size 9",
            "Out of bound timestamp, must be between -9223372036854775807 and 9223372036854775807",
        ] {
            let failure = OF.write(&answer(DbError::Invalid, text));
            assert!(matches!(failure, Failure::Invalid(_)), "{text}");
        }
    }

    #[test]
    fn a_login_that_the_nodes_cannot_look_up_is_not_refused() {
        let (wrong, right) = (DbError::AuthenticationError, DbError::Unauthorized);
        for (code, text) in [
            (
                &wrong,
                "Unable to perform authentication: Cannot achieve consistency level LOCAL_ONE",
            ),
            (
                &right,
                "Unable to perform authorization of permissions: Cannot achieve consistency level",
            ),
            (
                &right,
                "Unable to perform authorization of login permission: Operation timed out",
            ),
        ] {
            let error = answer(code.clone(), text);
            let told = OF.execution(&error);
            assert!(matches!(told, SinkError::Unreachable { .. }), "{told}");
            assert!(matches!(OF.write(&error), Failure::Away(_)), "{text}");
        }
        let refused = OF.execution(&answer(
            wrong,
            "Provided username a and/or password are incorrect",
        ));
        assert!(matches!(refused, SinkError::Login { .. }), "{refused}");
        let refused = answer(
            right,
            "User a has no MODIFY permission on <table k.t> or any of its parents",
        );
        assert!(matches!(
            OF.write(&refused),
            Failure::Fatal(SinkError::Forbidden { .. })
        ));
    }
}
