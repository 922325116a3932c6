//! The tests that run falaj as a person does: the binary, its files, its HTTP routes.
//!
//! One test binary, so that it is linked once. Everything runs on loopback, in temporary
//! directories, and stops what it started.

mod canary;
mod harness;

mod architecture;
mod bombs;
mod broker;
mod cli;
mod clients;
mod crash;
mod ingest;
mod kafka;
mod leak;
mod people;
mod pipeline;
mod replay;
mod source_kafka;
mod stores;
