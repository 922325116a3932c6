//! Real servers and other people's clients, for tests.
//!
//! Always: what a test starts ends with it. A guard process holds a pipe to the test and kills the
//! server when the pipe breaks, so a test that panics, is killed, or keeps its server in a `static`
//! leaves neither a process nor a folder behind.
//! Always: a server is ended by its process id together with its start time, never by its name.
//! Always: an absent tool is `SKIPPED: ..` on stderr, and a panic where `CI=true`; anything else that
//! goes wrong is a panic with the end of the server's log.
//! Absent on purpose: how a server is configured. The scripts beside `src/` say that, for a person
//! without this crate as well; see `README.md`.

mod cassandra;
mod certificates;
mod kafka;
mod mongo;
mod python;
mod server;
mod tool;

pub use cassandra::{Cassandra, CassandraOptions};
pub use certificates::Certificates;
pub use kafka::{Kafka, KafkaOptions, Listener, User, kafka_compile, kafka_tool};
pub use mongo::{Flavour, Mongo, MongoOptions};
pub use python::Venv;
pub use tool::{have, kcat};
