//! Where raw records come from: an HTTP API that is polled ([`HttpConfig`]), a file of records or a
//! saved reply ([`FileConfig`]), requests with records ([`IngestConfig`]), a Kafka topic that others
//! write to ([`KafkaConfig`]).
//!
//! Always: what a source gives is [`Raw`](falaj_record::Raw), bytes that no gate has seen; nothing
//! of them gets into an error, a status or a log, and neither does a query string or a header.
//! Always: positions grow strictly within a source, or within each part of one (a partition); a file
//! and a topic give the same record the same position each time they are read, so that a restart
//! goes on after the last one on the pipeline's topic.
//! Always: an API's bad day is a [`SourceStatus`], never an error that ends the pipeline; a reply is
//! used whole or not at all.
//! Always: memory is bounded: a reply by `max_body`, a line by `max_record`, what is read ahead of a
//! file by a queue of named length, requests that wait by `queue`.
//! Absent on purpose: looking into records (the gate does that), remembering positions (the
//! checkpoint and the topic do that), and the clients of brokers: a raw topic comes behind
//! [`RawLog`].

mod backlog;
mod backoff;
mod config;
mod endpoint;
mod error;
mod fault;
mod file;
mod format;
mod http;
mod ingest;
mod journal;
mod kafka;
mod lines;
mod reply;
mod reread;
mod source;
mod status;

pub use backoff::Backoff;
pub use config::{Auth, FileConfig, HttpConfig, IngestConfig, KafkaConfig, Setting, SourceConfig};
pub use error::SourceError;
pub use fault::Fault;
pub use ingest::{Desk, Form, Journalled, Place, Receipt, Refusal, Rejected, Request};
pub use kafka::{RawBroker, RawLog, RawLogError, RawOffsets};
pub use reply::Unusable;
pub use reread::{Found, Reread, reread};
pub use source::{Digest, Earlier, Held, Opening, Outcome, Portion, Source, open};
pub use status::{SourceState, SourceStatus};
