//! Apache Cassandra: a keyspace with a table per view.
//!
//! A table has the view's columns in SELECT order, then a bucket of time where its key needs one,
//! `_key` and `_version`; its primary key comes from the view's groups (see [`table`]).
//! Integers are `bigint`, booleans `boolean`, floats `double`, text `text`, dates `date`, decimals
//! `decimal`. Times are `timestamp`, which has milliseconds; where a time can have microseconds,
//! those beyond the millisecond are in a `smallint` beside it, `_NAME_us`.
//!
//! Always: a row is written with its version as Cassandra's timestamp, so neither a replay nor a
//! write that was overtaken replaces what is newer.
//! Always: a row expires by itself when its view's retention is over.
//! Always: a person's rows are found by key or by index, in tables of views that are gone, too.
//! Absent on purpose: logged batches and lightweight transactions. Every write can be done again,
//! in any order.

mod cells;
mod connect;
mod erase;
mod failure;
mod inspect;
mod pace;
mod schema;
mod table;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use falaj_record::{Period, Secret, ViewInfo, ViewUpdate};
use schemars::JsonSchema;
use scylla::statement::Consistency as Level;
use serde::{Deserialize, Serialize};

use self::connect::{Access, Connection, address, setting};
use self::pace::Pace;
use self::schema::{Making, Table};
use self::table::is_word;
use self::write::{Portion, Told, Writer};
use crate::{
    Inspection, Kind, Places, Prepared, Selection, Sink, SinkConfig, SinkError, Terms, Written,
};

/// The word of `type = ".."`.
const NAME: &str = "cassandra";
/// Longest name of a keyspace.
const KEYSPACE_NAME_MAX: usize = 48;
/// Rows of a server that is compatible with Cassandra 4 (the default of 5.0) expire by
/// 2038-01-19, others by 2106-02-07.
const EXPIRY_MAX_S: i64 = i32::MAX as i64 - 1;
const EXPIRY_MAX_NEW_S: i64 = u32::MAX as i64 - 2;

/// How the registry lists it.
pub(crate) const KIND: Kind = Kind {
    name: NAME,
    about: "Apache Cassandra: a keyspace with a table per view",
    example: r#"[sinks.local]
type     = "cassandra"
nodes    = ["127.0.0.1:9042"]
keyspace = "falaj"
user     = "falaj"                            # user and password: where the cluster asks for them
password = { env = "CASSANDRA_PASSWORD" }     # or { file = "path" }
ca       = "certs/ca.pem"                     # TLS, with this authority; tls = true for the system's
views    = ["*"]
"#,
    read: |keys| CassandraConfig::deserialize(keys).map(|c| SinkConfig::Cassandra(Box::new(c))),
};

/// Settings of a Cassandra sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CassandraConfig {
    /// Some nodes of the cluster, `host` or `host:port` (9042); the others are found through them.
    pub nodes: Vec<String>,
    /// The keyspace: letters, digits and `_`, as written.
    pub keyspace: String,
    /// Who logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// With which password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Whether connections are encrypted; `true` where `ca` or `cert` is given, else `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Certificates of the authorities that may vouch for a node, PEM; by default the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Falaj's own certificate with its chain, PEM, where the cluster asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// The private key of `cert`, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// How many replicas acknowledge a write.
    #[serde(default)]
    pub consistency: Consistency,
    /// The datacenter that is written to; needed where the cluster has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_dc: Option<String>,
    /// Whether falaj makes keyspace and tables, and adds and drops columns.
    #[serde(default = "yes")]
    pub create: bool,
    /// Replicas of a keyspace that falaj makes; by default three, or as many as there are nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<Replication>,
    /// Longest wait for an answer, and longest time that a write goes on without any.
    #[serde(default = "ten_seconds")]
    pub timeout: Period,
    /// The views it gets, by name; `["*"]`, the default, is all of them.
    #[serde(default)]
    pub views: Selection,
}

fn yes() -> bool {
    true
}

fn ten_seconds() -> Period {
    Period(Duration::from_secs(10))
}

/// How many replicas acknowledge a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// One, in the datacenter that is written to.
    LocalOne,
    /// One, anywhere.
    One,
    /// More than half of those in the datacenter that is written to.
    #[default]
    LocalQuorum,
    /// More than half of all.
    Quorum,
    /// More than half of those in each datacenter.
    EachQuorum,
    /// All.
    All,
}

impl Consistency {
    fn level(self) -> Level {
        match self {
            Self::LocalOne => Level::LocalOne,
            Self::One => Level::One,
            Self::LocalQuorum => Level::LocalQuorum,
            Self::Quorum => Level::Quorum,
            Self::EachQuorum => Level::EachQuorum,
            Self::All => Level::All,
        }
    }

    /// The same for reads, which cannot ask for a quorum in each datacenter.
    fn reading(self) -> Level {
        match self {
            Self::EachQuorum => Level::LocalQuorum,
            other => other.level(),
        }
    }

    /// Reads that find whatever was acknowledged.
    fn finding(self) -> Level {
        match self {
            Self::LocalOne | Self::One => Level::All,
            // Few have to be read where all were written.
            Self::All => Level::LocalOne,
            other => other.reading(),
        }
    }

    /// Removals after which no read as above finds the row.
    fn erasing(self) -> Level {
        match self {
            Self::LocalOne | Self::One => Level::All,
            other => other.level(),
        }
    }

    /// Nodes near that have to answer where a keyspace has so many replicas there.
    fn needed(self, replicas: usize) -> usize {
        match self {
            Self::LocalOne | Self::One => 1,
            Self::LocalQuorum | Self::Quorum | Self::EachQuorum => replicas / 2 + 1,
            Self::All => replicas,
        }
    }
}

/// Replicas of a keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "a number of replicas, or a table with one for each datacenter"
)]
pub enum Replication {
    /// So many in the datacenter that is written to.
    Replicas(u8),
    /// So many in each of these datacenters.
    Datacenters(BTreeMap<String, u8>),
}

impl CassandraConfig {
    /// The store it means, as errors name it.
    #[must_use]
    pub fn store(&self) -> String {
        let mut nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|node| address(node).unwrap_or_else(|_| node.clone()))
            .collect();
        nodes.sort_unstable();
        format!("cassandra://{}/{}", nodes.join(","), self.keyspace)
    }

    fn check(&self) -> Result<(), SinkError> {
        if self.nodes.is_empty() {
            return Err(setting("nodes", "it names none".into()));
        }
        let keyspace = &self.keyspace;
        let long = keyspace.len() > KEYSPACE_NAME_MAX;
        if keyspace.is_empty() || long || !keyspace.bytes().all(is_word) {
            let cause = format!("a name has 1 to {KEYSPACE_NAME_MAX} letters, digits and `_`");
            return Err(setting("keyspace", cause));
        }
        if keyspace == "system" || keyspace.starts_with("system_") {
            let cause = format!("`{keyspace}` is Cassandra's own");
            return Err(setting("keyspace", cause));
        }
        if self.timeout.0 < Duration::from_secs(1) {
            return Err(setting("timeout", "a second is the least".into()));
        }
        let none = match &self.replication {
            Some(Replication::Replicas(replicas)) => *replicas == 0,
            Some(Replication::Datacenters(replicas)) => replicas.values().all(|n| *n == 0),
            None => false,
        };
        if none {
            return Err(setting("replication", "it has no replica".into()));
        }
        Ok(())
    }
}

/// What the writes of a sink were, in numbers, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteStats {
    /// Rows acknowledged.
    pub rows: u64,
    /// Requests sent; rows of one partition share one.
    pub requests: u64,
    /// Requests that failed and were sent again.
    pub retries: u64,
    /// Most requests that were under way at once.
    pub under_way_max: usize,
}

/// A keyspace as a sink.
pub struct CassandraSink {
    access: Access,
    making: Making,
    terms: Terms,
    connection: Option<Connection>,
    tables: Vec<Table>,
    pace: Pace,
    stats: WriteStats,
    told: Told,
    expiry_max_s: i64,
}

impl CassandraSink {
    /// The sink, which [`Sink::prepare`] connects.
    ///
    /// # Errors
    /// Where a setting cannot be used, or what it names cannot be read.
    pub fn new(
        config: &CassandraConfig,
        places: Places<'_>,
        terms: impl Into<Terms>,
    ) -> Result<Self, SinkError> {
        config.check()?;
        Ok(Self {
            access: Access::of(config, places)?,
            making: Making {
                create: config.create,
                replication: config.replication.clone(),
                consistency: config.consistency,
            },
            terms: terms.into(),
            connection: None,
            tables: Vec::new(),
            pace: Pace::default(),
            stats: WriteStats::default(),
            told: Told::default(),
            expiry_max_s: EXPIRY_MAX_S,
        })
    }

    /// What its writes were so far.
    #[must_use]
    pub fn stats(&self) -> WriteStats {
        self.stats
    }

    /// The connection, made anew where the cluster no longer answers on it.
    async fn connected(&mut self) -> Result<&Connection, SinkError> {
        let open = match self.connection.take() {
            Some(connection) if connection.ping().await.is_ok() => connection,
            _ => Connection::open(self.access.clone()).await?,
        };
        Ok(self.connection.insert(open))
    }
}

#[async_trait]
impl Sink for CassandraSink {
    fn kind(&self) -> &'static str {
        NAME
    }

    async fn prepare(&mut self, views: &[Arc<ViewInfo>]) -> Result<Prepared, SinkError> {
        let (making, terms) = (self.making.clone(), self.terms.clone());
        let connection = self.connected().await?;
        let (tables, prepared) = connection.prepare_tables(&making, views, &terms).await?;
        let mode = connection.setting("storage_compatibility_mode").await?;
        self.expiry_max_s = if mode.is_some_and(|mode| mode == "NONE") {
            EXPIRY_MAX_NEW_S
        } else {
            EXPIRY_MAX_S
        };
        self.tables = tables;
        Ok(prepared)
    }

    async fn write(&mut self, updates: &[ViewUpdate]) -> Result<Written, SinkError> {
        let mut portions = Vec::with_capacity(updates.len());
        for update in updates {
            let view = &update.view.name;
            let table = self.tables.iter().find(|table| table.view.name == *view);
            let unknown = || SinkError::UnknownView { view: view.clone() };
            portions.push(Portion::of(table.ok_or_else(unknown)?, update)?);
        }
        let Some(connection) = &self.connection else {
            if portions.is_empty() {
                return Ok(Written::default());
            }
            let of = self.access.doing("write");
            return Err(of.unreachable("the connection was closed".into()));
        };
        let mut writer = Writer {
            connection,
            pace: &mut self.pace,
            stats: &mut self.stats,
            told: &mut self.told,
            expiry_max_s: self.expiry_max_s,
        };
        writer.write(&portions).await
    }

    async fn drop_view(&mut self, view: &str) -> Result<(), SinkError> {
        self.tables.retain(|table| table.view.name != view);
        let create = self.making.create;
        self.connected().await?.drop_table(create, view).await
    }

    async fn erase(&mut self, pid: &str) -> Result<u64, SinkError> {
        let written = self.making.consistency;
        self.connected().await?.erase(pid, written).await
    }

    async fn ping(&mut self) -> Result<(), SinkError> {
        match &self.connection {
            Some(connection) => connection.ping().await,
            None => Ok(()),
        }
    }

    async fn inspect(&mut self, views: &[Arc<ViewInfo>]) -> Result<Inspection, SinkError> {
        let (making, terms) = (self.making.clone(), self.terms.clone());
        let connection = self.connected().await?;
        connection.inspect(&making, views, &terms.retention).await
    }

    async fn close(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use falaj_record::Hint;

    use super::*;

    fn new(config: &CassandraConfig) -> Result<CassandraSink, SinkError> {
        let nowhere = Path::new("/nowhere");
        let places = Places {
            pipeline: nowhere,
            data: nowhere,
        };
        CassandraSink::new(config, places, Terms::default())
    }

    fn config(more: &str) -> CassandraConfig {
        let text = format!("nodes = ['b', 'a:9043']\n{more}");
        let named = if more.contains("keyspace") {
            text
        } else {
            format!("keyspace = 'falaj'\n{text}")
        };
        toml::from_str(&named).expect("the settings are right")
    }

    #[test]
    fn a_store_is_its_nodes_and_its_keyspace() {
        assert_eq!(config("").store(), "cassandra://a:9043,b:9042/falaj");
    }

    #[test]
    fn settings_that_cannot_be_used_are_told_by_name() {
        for (more, key, cause) in [
            (
                "keyspace = 'no-such'",
                "keyspace",
                "letters, digits and `_`",
            ),
            ("keyspace = ''", "keyspace", "1 to 48"),
            ("keyspace = 'system_auth'", "keyspace", "Cassandra's own"),
            ("user = 'u'", "password", "`user` needs it"),
            (
                "password = { env = 'FALAJ_NO_SUCH' }",
                "user",
                "`password` needs it",
            ),
            (
                "user = 'u'\npassword = { env = 'FALAJ_NO_SUCH' }",
                "password",
                "`FALAJ_NO_SUCH` is not set",
            ),
            ("tls = false\nca = 'ca.pem'", "ca", "no use for it"),
            ("ca = 'ca.pem'", "ca", "cannot read `/nowhere/ca.pem`"),
            ("replication = 0", "replication", "no replica"),
            ("replication = { a = 0 }", "replication", "no replica"),
            ("timeout = '10ms'", "timeout", "a second"),
        ] {
            let sink = new(&config(more));
            let error = sink.err().expect(more);
            assert!(
                matches!(&error, SinkError::Setting { key: named, .. } if *named == key),
                "{more}: {error}"
            );
            assert!(error.to_string().contains(cause), "{more}: {error}");
            assert!(error.hint().is_some() && !error.passing());
        }
        let none = CassandraConfig {
            nodes: Vec::new(),
            ..config("")
        };
        assert!(new(&none).is_err());
    }

    #[test]
    fn people_are_found_wherever_a_write_was_acknowledged() {
        // Of five replicas: written, and read or removed, are more than five together.
        let replicas = |level: Level| match level {
            Level::One | Level::LocalOne => 1,
            Level::All => 5,
            _ => 3,
        };
        for consistency in [
            Consistency::One,
            Consistency::LocalOne,
            Consistency::LocalQuorum,
            Consistency::Quorum,
            Consistency::EachQuorum,
            Consistency::All,
        ] {
            let written = replicas(consistency.level());
            let (found, erased) = (consistency.finding(), consistency.erasing());
            assert!(written + replicas(found) > 5, "{consistency:?}");
            assert!(
                replicas(erased) + replicas(consistency.finding()) > 5,
                "{consistency:?}"
            );
            assert_eq!(consistency.needed(5), written);
        }
    }
}
