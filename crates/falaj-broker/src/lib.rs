//! The Kafka listener over the embedded log: whatever speaks Kafka works against a laptop's falaj.
//!
//! Always: batches are stored and served as they came; a produce is acknowledged, and a record
//! read, only when it is on the disk (durability `fsync`).
//! Always: beyond loopback only with TLS and users.
//! Always: what a client does is bounded: in memory, connections, bytes, time. Garbage, slow readers
//! and half-open connections end by themselves and never hurt the others.
//! Absent on purpose: transactions, replication, several brokers, access rights of single users,
//! quotas, the second group protocol. Clients see that in the list of what is offered.

mod admin;
mod apis;
mod broker;
mod budget;
mod configs;
mod connection;
mod coordinator;
mod error;
mod fetch;
mod group;
mod list_offsets;
mod listener;
mod login;
mod offsets;
mod options;
mod produce;
mod reply;
mod sasl;
mod seats;
mod send;
mod topics;

pub use error::BrokerError;
pub use listener::Listener;
pub use options::{Limits, Options, Tls, Users};
