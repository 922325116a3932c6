//! Where raw records come from: an HTTP API that is polled ([`HttpConfig`]) and a file of records or
//! a saved reply ([`FileConfig`]).
//!
//! Always: what a source gives is [`Raw`](falaj_record::Raw), bytes that no gate has seen; nothing
//! of them gets into an error, a status or a log, and neither does a query string or a header.
//! Always: positions grow strictly within a source, and a file gives the same record the same
//! position each time it is read, so that a restart goes on after the last one on the topic.
//! Always: an API's bad day is a [`SourceStatus`], never an error that ends the pipeline; a reply is
//! used whole or not at all.
//! Always: memory is bounded: a reply by `max_body`, a line by `max_record`, what is read ahead of a
//! file by a queue of named length.
//! Absent on purpose: looking into records (the gate does that), and remembering positions (the
//! topic does that).

mod backlog;
mod backoff;
mod config;
mod endpoint;
mod error;
mod fault;
mod file;
mod format;
mod http;
mod lines;
mod reply;
mod source;
mod status;

pub use backoff::Backoff;
pub use config::{Auth, FileConfig, HttpConfig, Setting, SourceConfig};
pub use error::SourceError;
pub use fault::Fault;
pub use reply::Unusable;
pub use source::{Opening, Source, open};
pub use status::{SourceState, SourceStatus};
