//! MongoDB: a collection per view, by the official driver.
//!
//! A document has the row's key as its `_id`, the view's columns in SELECT order, `_key`,
//! `_version`, and `_expires` where the view has a retention. Integers are long, floats double,
//! decimals Decimal128 (text where a value has more than the 34 digits of that), texts string,
//! times and dates Date. A Date has milliseconds only: the microseconds beyond stand in `_micros`,
//! under the column's name, where there are any.
//!
//! Always: an acknowledged write is in the journals of a majority of the replica set, so it
//! survives the loss of any one member, and a checkpoint may forget it.
//! Always: an older version never overwrites a newer one, whoever else writes at the same time: the
//! version stands in the filter of the write itself, and nothing is read before.
//! Always: the collection `_falaj` says which collections falaj made, and with which columns; what
//! is not in it is never written, emptied or dropped.
//! Absent on purpose: transactions, since a row is one document and its write one operation; and
//! the bulk write of MongoDB 8, since an `update` command does the same on every version.

mod address;
mod cells;
mod fault;
mod inspect;
mod rows;
mod server;
mod tables;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use falaj_record::{Secret, ViewInfo, ViewUpdate};
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

pub use self::address::MongodbUri;

use self::address::Address;
use self::rows::Erased;
use self::server::Server;
use self::tables::Table;
use crate::{
    Inspection, Kind, Prepared, Selection, Sink, SinkConfig, SinkError, Terms, Written, now_us,
};

/// The word of `type = ".."`.
const NAME: &str = "mongodb";
/// How long [`Sink::close`] waits for the server to say goodbye.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How the registry lists it.
pub(crate) const KIND: Kind = Kind {
    name: NAME,
    about: "a MongoDB database with a collection per view",
    example: r#"[sinks.documents]
type     = "mongodb"
uri      = "mongodb://db1:27017,db2:27017,db3:27017/?replicaSet=rs0"
database = "falaj"
user     = "falaj"
password = { env = "MONGODB_PASSWORD" }   # or { file = "path" }
ca       = "certs/ca.pem"                 # switches TLS on
views    = ["*"]
"#,
    read: |keys| {
        let config = MongodbConfig::deserialize(keys)?;
        config.check().map_err(|(key, cause)| {
            serde_json::Error::custom(format!("`{key}` cannot be used: {cause}"))
        })?;
        Ok(SinkConfig::Mongodb(config))
    },
};

/// Settings of a MongoDB sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MongodbConfig {
    /// Connection string: `mongodb://HOST:PORT,../?replicaSet=NAME` or `mongodb+srv://HOST`, with
    /// the options of MongoDB's drivers and without a login. As a secret, `{ env = "NAME" }` or
    /// `{ file = "path" }`, it may hold the login, too.
    pub uri: MongodbUri,
    /// The database that holds the collections.
    #[serde(default = "default_database")]
    pub database: String,
    /// Who logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password of `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// PEM file with the certificates of the authorities that vouch for the server, relative to the
    /// pipeline file; it switches TLS on. With TLS and without `ca`, those of Mozilla count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Whether falaj makes collections and indexes. With `false` they have to be there, and a
    /// rebuilt view's collection is emptied and not dropped.
    #[serde(default = "yes")]
    pub create: bool,
    /// The views it gets, by name; `["*"]`, the default, is all of them.
    #[serde(default)]
    pub views: Selection,
}

fn default_database() -> String {
    "falaj".into()
}

fn yes() -> bool {
    true
}

/// A MongoDB database as a sink.
pub struct MongodbSink {
    address: Address,
    create: bool,
    terms: Terms,
    erased: Erased,
    open: Option<Open>,
    /// Views whose collections bear this pipeline's mark.
    ours: HashSet<String>,
    /// The view whose collection was found to be no longer the one that was prepared.
    lost: Option<String>,
}

struct Open {
    server: Arc<Server>,
    tables: HashMap<String, Table>,
}

impl MongodbSink {
    /// The sink of these settings, which [`Sink::prepare`] connects. `base` is the folder of the
    /// pipeline file.
    ///
    /// # Errors
    /// Where a setting cannot be used, or a secret or a certificate cannot be read.
    pub fn new(
        config: &MongodbConfig,
        base: &Path,
        terms: impl Into<Terms>,
    ) -> Result<Self, SinkError> {
        let setting = |(key, cause)| SinkError::Setting { key, cause };
        Ok(Self {
            address: config.address(base).map_err(setting)?,
            create: config.create,
            terms: terms.into(),
            erased: Erased::default(),
            open: None,
            ours: HashSet::new(),
            lost: None,
        })
    }

    /// The server, connected to where it was not.
    async fn server(&mut self) -> Result<Arc<Server>, SinkError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => Open {
                server: Arc::new(Server::connect(&self.address).await?),
                tables: HashMap::new(),
            },
        };
        Ok(Arc::clone(&self.open.insert(open).server))
    }

    /// Checks that the collections are those that were prepared.
    ///
    /// # Errors
    /// Where one is not: a server that was away may have come back without its data.
    async fn check_kept(&mut self) -> Result<(), SinkError> {
        let Some(Open { server, tables }) = &self.open else {
            return Ok(());
        };
        if self.lost.is_none() && server.was_disturbed() {
            self.lost = tables::lost(server, tables).await?;
        }
        match &self.lost {
            Some(view) => Err(tables::loss(server, view)),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Sink for MongodbSink {
    fn kind(&self) -> &'static str {
        NAME
    }

    async fn prepare(&mut self, views: &[Arc<ViewInfo>]) -> Result<Prepared, SinkError> {
        let server = self.server().await?;
        server.was_disturbed();
        let (tables, prepared) =
            tables::prepare(&server, views, &self.terms, &self.ours, self.create).await?;
        self.ours = tables.keys().cloned().collect();
        if let Some(open) = &mut self.open {
            open.tables = tables;
        }
        self.lost = None;
        Ok(prepared)
    }

    async fn write(&mut self, updates: &[ViewUpdate]) -> Result<Written, SinkError> {
        let Some(Open { server, tables }) = &self.open else {
            return match updates.first() {
                None => Ok(Written::default()),
                Some(update) => Err(SinkError::UnknownView {
                    view: update.view.name.clone(),
                }),
            };
        };
        if let Some(view) = &self.lost {
            return Err(tables::loss(server, view));
        }
        let written = rows::write(server, tables, updates, &mut self.erased, now_us()).await?;
        self.check_kept().await?;
        Ok(written)
    }

    async fn drop_view(&mut self, view: &str) -> Result<(), SinkError> {
        let server = self.server().await?;
        if let Some(open) = &mut self.open {
            open.tables.remove(view);
        }
        self.ours.remove(view);
        tables::drop_view(&server, view, self.create).await
    }

    async fn erase(&mut self, pid: &str) -> Result<u64, SinkError> {
        let server = self.server().await?;
        self.erased.add(pid, now_us());
        let none = HashMap::new();
        let tables = self.open.as_ref().map_or(&none, |open| &open.tables);
        tables::erase(&server, tables, pid).await
    }

    /// The server removes rows by itself, by an index; that is put back where somebody dropped it.
    /// A collection that was dropped as a whole is remembered, and the next write says so.
    async fn expire(&mut self) -> Result<u64, SinkError> {
        let Some(Open { server, tables }) = &self.open else {
            return Ok(0);
        };
        if self.lost.is_none() {
            self.lost = tables::lost(server, tables).await?;
        }
        if self.create {
            for table in tables.values() {
                tables::keep_expiring(server, table).await?;
            }
        }
        Ok(0)
    }

    async fn ping(&mut self) -> Result<(), SinkError> {
        if let Some(Open { server, .. }) = &self.open {
            server.ping().await?;
        }
        self.check_kept().await
    }

    async fn inspect(&mut self, views: &[Arc<ViewInfo>]) -> Result<Inspection, SinkError> {
        let server = self.server().await?;
        inspect::inspect(&server, views, &self.terms.retention, self.create).await
    }

    async fn close(mut self: Box<Self>) -> Result<(), SinkError> {
        if let Some(Open { server, .. }) = self.open.take() {
            // Without it the driver's own tasks would outlive the sink.
            let _ = tokio::time::timeout(CLOSE_WAIT, server.shut_down()).await;
        }
        Ok(())
    }
}
