//! The embedded store: one SQLite file with a table per view.
//!
//! A table has the view's columns in SELECT order, then `_key` (its primary key) and `_version`.
//! Integers are INTEGER, booleans INTEGER 0 or 1, floats REAL (infinities too, but NaN is NULL: SQLite has none),
//! text TEXT; times and dates are RFC 3339 TEXT in UTC, decimals TEXT with every digit.
//!
//! Always: an acknowledged write is on the disk (`synchronous = FULL` over a write-ahead log, one
//! transaction a write), so it survives a power cut and a checkpoint may forget it.
//! Always: other programs may read while falaj writes; a program that holds a write lock for
//! longer than [`LOCK_WAIT`] makes a write fail, and it is tried again.
//! Always: what is overwritten or deleted is overwritten with zeros (`secure_delete`), a file that
//! falaj makes can be read by its user only, and values of a column that a view no longer has are
//! set NULL: what is no longer declared is not kept.

mod cells;
mod database;

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use falaj_record::{ViewInfo, ViewUpdate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use self::database::Database;
use crate::{
    Inspection, Kind, Places, Prepared, Selection, Sink, SinkConfig, SinkError, Terms, Written,
    now_us,
};

/// The word of `type = ".."`.
const NAME: &str = "sqlite";
/// How long a statement waits for another program's lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How the registry lists it.
pub(crate) const KIND: Kind = Kind {
    name: NAME,
    about: "a SQLite file with a table per view",
    example: r#"[sinks.local]
type  = "sqlite"
path  = "out/views.sqlite"  # default: views.sqlite in the data directory
views = ["*"]
"#,
    read: |keys| SqliteConfig::deserialize(keys).map(SinkConfig::Sqlite),
};

/// Settings of a SQLite sink.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The file, relative to the pipeline file; by default `views.sqlite` in the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The views it gets, by name; `["*"]`, the default, is all of them.
    #[serde(default)]
    pub views: Selection,
}

impl SqliteConfig {
    /// The file it means.
    #[must_use]
    pub fn file(&self, places: Places<'_>) -> PathBuf {
        match &self.path {
            Some(path) => places.pipeline.join(path),
            None => places.data.join("views.sqlite"),
        }
    }
}

/// A SQLite file as a sink. A thread of its own owns the connection: SQLite blocks.
pub struct SqliteSink {
    jobs: mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce(&mut Database) + Send>;

impl SqliteSink {
    /// The sink over `file`, which [`Sink::prepare`] opens, and makes where there is none.
    ///
    /// # Panics
    /// Where the system gives no thread.
    #[must_use]
    pub fn new(file: PathBuf, terms: impl Into<Terms>) -> Self {
        let terms = terms.into();
        let (jobs, queue) = mpsc::channel::<Job>();
        let work = move || {
            let mut database = Database::new(file, terms);
            for job in queue {
                job(&mut database);
            }
        };
        let thread = std::thread::Builder::new().name("falaj-sqlite".into());
        thread
            .spawn(work)
            .expect("the system gives one more thread");
        Self { jobs }
    }

    /// Runs `job` on the sink's thread. It runs to its end even where nobody waits for it any more.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Database) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |database| {
            // Whoever asked may have given up.
            let _ = reply.send(job(database));
        });
        let ended = || SinkError::Closed { sink: NAME.into() };
        self.jobs.send(job).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

#[async_trait]
impl Sink for SqliteSink {
    fn kind(&self) -> &'static str {
        NAME
    }

    async fn prepare(&mut self, views: &[Arc<ViewInfo>]) -> Result<Prepared, SinkError> {
        let views = views.to_vec();
        self.run(move |database| database.prepare(&views)).await
    }

    async fn write(&mut self, updates: &[ViewUpdate]) -> Result<Written, SinkError> {
        let updates = updates.to_vec();
        self.run(move |database| database.write(&updates)).await
    }

    async fn drop_view(&mut self, view: &str) -> Result<(), SinkError> {
        let view = view.to_owned();
        self.run(move |database| database.drop_view(&view)).await
    }

    async fn erase(&mut self, pid: &str) -> Result<u64, SinkError> {
        let pid = pid.to_owned();
        self.run(move |database| database.erase(&pid)).await
    }

    async fn expire(&mut self) -> Result<u64, SinkError> {
        self.run(|database| database.expire(now_us())).await
    }

    async fn inspect(&mut self, views: &[Arc<ViewInfo>]) -> Result<Inspection, SinkError> {
        let views = views.to_vec();
        self.run(move |database| database.inspect(&views)).await
    }

    async fn close(self: Box<Self>) -> Result<(), SinkError> {
        self.run(Database::close).await
    }
}
