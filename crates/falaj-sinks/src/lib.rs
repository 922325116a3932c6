//! Stores that views are written to, and the bounded queue in front of each.
//!
//! Always: writing an update twice changes nothing, and an older version never overwrites a newer
//! one; so whatever was not acknowledged may be written again.
//! Always: an acknowledged write survives a power cut, so a checkpoint may forget it.
//! Always: errors and status carry names, counts and codes, never a value of a row.
//! Absent on purpose: the k rule. Stores hold exact values, for staff who may see them.
//!
//! To add a sink: one new file like `sqlite.rs` (config, [`Kind`], `impl Sink`), its lines in this
//! file and in [`SinkConfig`], the driver in `Cargo.toml`, and a test that runs [`conformance`].

mod config;
pub mod conformance;
mod error;
mod outlet;
mod pending;
mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use falaj_record::{ViewInfo, ViewUpdate};

pub use config::{Kind, Places, Selection, SinkConfig};
pub use error::SinkError;
pub use outlet::{Limits, Outlet, OutletState, OutletStatus};
pub use pending::Pending;
pub use sqlite::{SqliteConfig, SqliteSink};

/// Every kind of sink this version has; `type = ".."` of a `[sinks.NAME]` table names one.
pub const KINDS: &[Kind] = &[sqlite::KIND];

/// A store that holds the current rows of views: a table (collection) per view.
///
/// A row is found by `_key` and carries the `_version` of its last write.
#[async_trait]
pub trait Sink: Send {
    /// The word of `type = ".."`.
    fn kind(&self) -> &'static str;

    /// Connects, and makes or evolves a table for each view: new columns are added, columns that
    /// the view no longer has become NULL. Called again (after a failure, too) it changes nothing.
    ///
    /// # Errors
    /// Where the store cannot be reached or written, or holds a table that does not fit the view.
    async fn prepare(&mut self, views: &[Arc<ViewInfo>]) -> Result<Prepared, SinkError>;

    /// Makes all these rows durable, all or none. Within one call a later update wins over an
    /// earlier one, and a larger version over a smaller one.
    ///
    /// # Errors
    /// Where the store does not take them, or a view was not prepared; nothing is written then.
    async fn write(&mut self, updates: &[ViewUpdate]) -> Result<(), SinkError>;

    /// Removes a view's table with all its rows, so that a rebuilt view begins with nothing; the
    /// view has to be prepared again. Where there is no such table it does nothing.
    ///
    /// # Errors
    /// Where the store does not let go of it, or somebody else made the table.
    async fn drop_view(&mut self, view: &str) -> Result<(), SinkError>;

    /// Removes every row of this subject: rows of row views, and rows that have its pid in a
    /// column `pid`; gives their number. When it returns, the bytes are gone from the store's files.
    ///
    /// # Errors
    /// Where rows or their bytes may be left; calling it again goes on.
    async fn erase(&mut self, pid: &str) -> Result<u64, SinkError>;

    /// Lets go of the store.
    ///
    /// # Errors
    /// Where the store complains about it; it is let go of all the same.
    async fn close(self: Box<Self>) -> Result<(), SinkError>;
}

/// What [`Sink::prepare`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Views whose table holds no row: new, or emptied by somebody. The pipeline owes such a table
    /// all rows the view has by now.
    pub empty: Vec<String>,
}
