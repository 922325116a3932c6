//! The Cassandra sink against a real Cassandra: the suite of every sink, and what only Cassandra
//! can show. Other people's clients say what is there.

mod erasing;
mod faults;
mod making;
mod server;
mod shapes;
mod writing;

use server::{alone, new_store};

falaj_sinks::conformance_tests!(new_store);
falaj_sinks::outage_tests!(alone);
