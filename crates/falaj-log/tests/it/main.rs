//! The log from outside: what it keeps, what it gives back, and what it does when the disk fails.

mod append;
mod clean;
mod delete;
mod faults;
mod partitions;
mod producers;
mod recovery;
mod retention;
mod search;
mod stored;
mod support;
