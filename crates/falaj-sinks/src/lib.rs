//! Stores that views are written to, and the bounded queue in front of each.
//!
//! Always: writing an update twice changes nothing, and an older version never overwrites a newer
//! one; so whatever was not acknowledged may be written again.
//! Always: a row that a store refuses is told and left out; it holds up no other row.
//! Always: an acknowledged write survives a power cut, so a checkpoint may forget it.
//! Always: errors and status carry names, counts and codes, never a value of a row.
//! Absent on purpose: the k rule. Stores hold exact values, for staff who may see them.
//!
//! To add a sink: one new file like `sqlite.rs` (config, [`Kind`], `impl Sink`), its lines in this
//! file and in [`SinkConfig`], the driver in `Cargo.toml`, and a test that runs [`conformance`].

mod cassandra;
mod config;
pub mod conformance;
mod error;
mod mongodb;
mod outlet;
mod pending;
mod sqlite;
mod terms;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use falaj_record::{Hint, Reason, ViewInfo, ViewUpdate};

pub use self::mongodb::{MongodbConfig, MongodbSink, MongodbUri};
pub use cassandra::{CassandraConfig, CassandraSink, Consistency, Replication, WriteStats};
pub use config::{Kind, Places, Selection, SinkConfig};
pub use error::SinkError;
pub use outlet::{Behind, Limits, Outlet, OutletState, OutletStatus, Place};
pub use pending::Pending;
pub use sqlite::{SqliteConfig, SqliteSink};
pub(crate) use terms::Standing;
pub use terms::{Retention, Terms};

/// Every kind of sink this version has; `type = ".."` of a `[sinks.NAME]` table names one.
pub const KINDS: &[Kind] = &[cassandra::KIND, sqlite::KIND, self::mongodb::KIND];

/// Whether what goes to `address` (a host, `host:port` or `[v6]:port`) stays on this machine, as far
/// as its name tells.
#[must_use]
pub fn is_this_machine(address: &str) -> bool {
    let address = address.trim();
    let host = match address.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') || host.ends_with(']') => host,
        _ => address,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

/// A store that holds the current rows of views: a table (collection) per view.
///
/// A row is found by its key and carries the `_key` and `_version` of its last write.
#[async_trait]
pub trait Sink: Send {
    /// The word of `type = ".."`.
    fn kind(&self) -> &'static str;

    /// Connects, and makes or evolves a table for each view: new columns are added, columns that
    /// the view no longer has become NULL. A table that holds no rows is marked with whose rows it
    /// will hold ([`Terms::owners`]) and a name for this filling. Called again (after a failure, too)
    /// it changes nothing but the marks of tables without rows, and connects anew where the connection
    /// was lost.
    ///
    /// # Errors
    /// Where the store cannot be reached or written, or holds a table that does not fit the view.
    /// [`SinkError::ForeignRows`] where tables hold rows and are not marked as this pipeline's:
    /// nothing is changed then. Where marking takes a right that falaj has not (`create = false`),
    /// rows are taken for this pipeline's.
    async fn prepare(&mut self, views: &[Arc<ViewInfo>]) -> Result<Prepared, SinkError>;

    /// Makes these rows durable. Within one call a later update wins over an earlier one, and a
    /// larger version over a smaller one, in the store, too: that a newer version is there is no
    /// fault. A row that the store refuses for what it holds is left out and told; the others are
    /// written.
    ///
    /// # Errors
    /// Where the store does not take rows at all, a view was not prepared or an update has other
    /// columns. In the last two cases nothing is written; else some rows may be, and writing all
    /// of them again is right.
    async fn write(&mut self, updates: &[ViewUpdate]) -> Result<Written, SinkError>;

    /// Removes a view's table with all its rows, so that a rebuilt view begins with nothing; the
    /// view has to be prepared again. Where there is no such table it does nothing.
    ///
    /// # Errors
    /// Where the store does not let go of it, or somebody else made the table.
    async fn drop_view(&mut self, view: &str) -> Result<(), SinkError>;

    /// Removes every row of this subject: rows of row views, and rows that have its pid in a
    /// column `pid`, in tables of views that are gone, too; gives their number. When it returns,
    /// nobody can read them any more, and no write of before brings them back. When their
    /// bytes leave the store's files is the store's matter, and said in its reference page.
    ///
    /// # Errors
    /// Where rows may be left; calling it again goes on.
    async fn erase(&mut self, pid: &str) -> Result<u64, SinkError>;

    /// Removes rows whose retention is over, and gives their number. Called from time to time.
    /// A store that lets rows expire by itself has nothing to do.
    ///
    /// # Errors
    /// Where rows may be left; calling it again goes on.
    async fn expire(&mut self) -> Result<u64, SinkError> {
        Ok(0)
    }

    /// Asks a prepared store whether it is still there. Called while there is nothing to write, so
    /// that a store that is away is known before rows wait for it. Where the store is a file there is
    /// nobody to ask.
    ///
    /// # Errors
    /// Where it does not answer; it has to be prepared again.
    async fn ping(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Looks at the store and changes nothing: which server and version it is, and what would keep
    /// these views from being written to it, or make them wrong.
    ///
    /// # Errors
    /// Where the store cannot be reached or does not take the login.
    async fn inspect(&mut self, views: &[Arc<ViewInfo>]) -> Result<Inspection, SinkError>;

    /// Lets go of the store.
    ///
    /// # Errors
    /// Where the store complains about it; it is let go of all the same.
    async fn close(self: Box<Self>) -> Result<(), SinkError>;
}

/// What [`Sink::prepare`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Views whose table holds no row (it is new, or somebody emptied it) or was lost and made anew
    /// since, whatever it holds. The pipeline owes such a table all rows the view has by now.
    pub empty: Vec<String>,
    /// The name of each table's filling, by view: another one than before says that all rows of
    /// before may be missing. None for a table that bears no mark.
    pub fillings: BTreeMap<String, String>,
}

impl Prepared {
    /// Takes note of a view's table that bears the mark of this pipeline.
    pub(crate) fn marked(&mut self, view: &str, standing: &Standing) {
        let (Standing::Kept(filling) | Standing::New(filling)) = standing else {
            return;
        };
        if let Standing::New(_) = standing {
            self.empty.push(view.to_owned());
        }
        self.fillings.insert(view.to_owned(), filling.clone());
    }
}

/// What [`Sink::write`] made of the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows that the store refused, each for itself. They are not written, and not tried again.
    pub refused: Vec<Refused>,
}

/// A row that a store refused. It says which view and how long, never what the row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The view.
    pub view: String,
    /// Version of the row.
    pub version: i64,
    /// [`Reason::TooLargeForStore`] or [`Reason::RefusedByStore`].
    pub reason: Reason,
    /// The column it is about, where that is known.
    pub column: Option<String>,
    /// Length of the row's values in bytes, about.
    pub length: u64,
}

/// What [`Sink::inspect`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The server and its version, such as `Cassandra 5.0.9`.
    pub server: String,
    /// How far the server's clock is ahead of this machine's, in milliseconds, where it tells its
    /// time.
    pub clock_ahead_ms: Option<i64>,
    /// What should be known before rows are written.
    pub findings: Vec<Finding>,
}

/// Something that keeps views from being written, or makes them wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is so.
    pub what: String,
    /// What a person can do about it.
    pub hint: String,
    /// Whether a run would fail for it.
    pub fatal: bool,
}

impl Refused {
    /// The row `row` of `update`, refused for `reason`.
    pub(crate) fn of(
        update: &ViewUpdate,
        row: usize,
        reason: Reason,
        column: Option<&str>,
    ) -> Self {
        let columns = update.rows.columns().iter();
        let length = columns.map(|column| length(column, row)).sum::<u64>();
        Self {
            view: update.view.name.clone(),
            version: update.version,
            reason,
            column: column.map(str::to_owned),
            length: length + update.keys.value(row).len() as u64,
        }
    }
}

/// Checks that an update fits `view` as a sink prepared it. Types are alike where the store `declared`
/// them alike.
///
/// # Errors
/// Where it has other columns, or a row without a key.
fn check_shape(
    view: &ViewInfo,
    update: &ViewUpdate,
    declared: fn(&DataType) -> Option<&'static str>,
) -> Result<(), SinkError> {
    let (columns, rows) = (&view.columns, &update.rows);
    let fits =
        update.view.columns == *columns
            && rows.num_columns() == columns.len()
            && update.keys.len() == rows.num_rows()
            && update.keys.null_count() == 0
            && rows.columns().iter().zip(columns).all(|(values, column)| {
                declared(values.data_type()) == declared(&column.data_type)
            });
    fits.then_some(()).ok_or_else(|| SinkError::shape(view))
}

/// Bytes of a value: of texts as they are, eight of everything else.
fn length(column: &ArrayRef, row: usize) -> u64 {
    match column.data_type() {
        _ if column.is_null(row) => 0,
        DataType::Utf8 => column.as_string::<i32>().value(row).len() as u64,
        DataType::Utf8View => column.as_string_view().value(row).len() as u64,
        _ => 8,
    }
}

impl Finding {
    /// What `error` says, found before a run would.
    pub(crate) fn of(error: &SinkError) -> Self {
        Self {
            what: error.to_string(),
            hint: error.hint().unwrap_or_default(),
            fatal: true,
        }
    }
}

/// Microseconds since 1970 by the system clock.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine_with_and_without_a_port() {
        for here in [
            "localhost",
            "localhost:9042",
            "127.0.0.1:1",
            "::1",
            "[::1]",
            " [::1]:9 ",
        ] {
            assert!(is_this_machine(here), "{here}");
        }
        for there in [
            "localhost.example:9042",
            "10.0.0.1:9042",
            "fd00::1",
            "[fd00::1]:9",
            "",
        ] {
            assert!(!is_this_machine(there), "{there}");
        }
    }
}
