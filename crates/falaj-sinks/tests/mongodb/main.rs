//! The MongoDB sink: the suite of every sink, and what only this kind of store can show.
//!
//! The server is the one of `FALAJ_TEST_MONGODB_URI`, else a `mongod`, else the compatible
//! SecantusDB; the run says which. What only a mongod shows runs where there is one.

mod connect;
mod documents;
mod lost;
mod replica_set;
mod rows;
mod scripted;
mod store;

use store::{Database, new_store, store_of_its_own};

falaj_sinks::conformance_tests!(given);
falaj_sinks::outage_tests!(own);

async fn given() -> Option<Database> {
    Some(new_store().await)
}

async fn own() -> Option<Database> {
    Some(store_of_its_own().await)
}
