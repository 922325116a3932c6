//! Views: Spark SQL over `records`, kept up incrementally.
//!
//! Always: a view's rows depend on the records and their order within a partition, never on how they
//! were cut into batches, on interleaving, or on restarts (sums of floats may differ in their last
//! digit, as additions are grouped differently).
//! Always: the state of an aggregate view is a short list of immutable runs, Arrow batches of partial
//! aggregate states; a checkpoint is those runs.
//! Always: what is accepted means the same on Spark 4 (ANSI mode, session time zone UTC); what could
//! mean something else there is refused with a position and a hint.
//! Always: no error, `Debug` or name carries a value of a record.
//! Absent on purpose: clocks, I/O, threads. `push` and `drain` are CPU work; the caller passes the time.
//!
//! Views are parsed with sqlparser's Spark dialect and lowered, typed, into `DataFusion` expressions
//! (`lower.rs`, `functions.rs`); grouping and accumulators are `DataFusion`'s (`table.rs`).

mod aggregate;
mod aggregates;
mod calendar;
mod checkpoint;
mod coerce;
mod draft;
mod error;
mod functions;
mod kernel;
mod key;
mod literals;
mod lower;
mod people;
mod plan;
mod row;
mod runs;
mod scope;
mod sql;
mod table;
mod types;
mod views;
mod watermark;
mod window;

pub use error::{ViewError, ViewsError};
pub use functions::functions;
pub use views::{ViewOptions, ViewSpec, Views};
