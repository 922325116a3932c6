//! Looking at a cluster without changing it.

use std::sync::Arc;

use falaj_record::ViewInfo;
use scylla::cluster::metadata::Strategy;
use scylla::value::CqlTimestamp;

use super::connect::Connection;
use super::schema::Making;
use super::table::{Fit, Layout, quoted, table};
use crate::{Finding, Inspection, Retention, SinkError, now_us};

/// Of Cassandra versions before it nobody has seen this work.
const MAJOR_MIN: u32 = 5;
/// A class that no server has: what names it is understood, allowed or not, and never done.
const NO_CLASS: &str = "falaj.None";

impl Connection {
    /// What would keep these views from being written, or make them wrong.
    pub(super) async fn inspect(
        &self,
        making: &Making,
        views: &[Arc<ViewInfo>],
        retention: &Retention,
    ) -> Result<Inspection, SinkError> {
        let version = self.version().await?;
        let mut found = Inspection {
            server: format!("Cassandra {version}"),
            clock_ahead_ms: self.clock_ahead_ms().await?,
            findings: Vec::new(),
        };
        let findings = &mut found.findings;
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok());
        if major.is_some_and(|major: u32| major < MAJOR_MIN) {
            findings.push(Finding {
                what: format!("Cassandra {version} is older than what falaj is tested with"),
                hint: format!("use Cassandra {MAJOR_MIN} or newer"),
                fatal: false,
            });
        }
        if self.has_keyspace().await? {
            findings.extend(self.replicas(making));
            for view in views {
                let finding = self.table(making, view, retention).await?;
                findings.extend(finding);
            }
        } else {
            findings.extend(self.no_keyspace(making, views).await?);
        }
        findings.extend(self.durability().await?);
        findings.extend(self.access.exposed().then(|| Finding {
            what: "rows and login travel the network without TLS".into(),
            hint: "give the sink `ca`, and the nodes `client_encryption_options`".into(),
            fatal: false,
        }));
        Ok(found)
    }

    pub(super) async fn version(&self) -> Result<String, SinkError> {
        let rows: Vec<(String,)> = self
            .rows("SELECT release_version FROM system.local", ())
            .await?;
        let of = self.access.doing("tell its version");
        let (version,) = rows.into_iter().next().ok_or_else(|| of.unexpected())?;
        Ok(version)
    }

    /// By the clock of one node: the others are kept together by whoever runs them.
    async fn clock_ahead_ms(&self) -> Result<Option<i64>, SinkError> {
        let asked = now_us();
        let rows: Vec<(Option<CqlTimestamp>,)> = self
            .rows("SELECT toTimestamp(now()) FROM system.local", ())
            .await?;
        let answered = now_us();
        let theirs = rows.into_iter().next().and_then(|(time,)| time);
        let ours_ms = (asked / 2 + answered / 2) / 1000;
        // Nobody's clock is exact to the time that asking takes.
        let inexact_ms = (answered - asked).max(0) / 1000;
        Ok(theirs.map(|CqlTimestamp(ms)| match ms - ours_ms {
            ahead if ahead.abs() <= inexact_ms => 0,
            ahead => ahead,
        }))
    }

    /// What is missing where there is no keyspace.
    async fn no_keyspace(
        &self,
        making: &Making,
        views: &[Arc<ViewInfo>],
    ) -> Result<Option<Finding>, SinkError> {
        for view in views {
            Layout::of(view)?;
        }
        let keyspace = &self.access.keyspace;
        let make = self.create_keyspace(making.replication.as_ref());
        if !making.create {
            let missing = self.missing(format!("keyspace `{keyspace}`"));
            return Ok(Some(by_hand(&missing, &make)));
        }
        let probe = format!(
            "CREATE KEYSPACE {} WITH replication = {{'class': '{NO_CLASS}'}}",
            quoted(keyspace)
        );
        let what = format!("make the keyspace `{keyspace}`");
        let forbidden = self.forbidden(probe, &what).await?;
        Ok(forbidden.map(|error| by_hand(&error, &make)))
    }

    /// What keeps a view from its table, if anything does.
    async fn table(
        &self,
        making: &Making,
        view: &ViewInfo,
        retention: &Retention,
    ) -> Result<Option<Finding>, SinkError> {
        let layout = match Layout::of(view) {
            Ok(layout) => layout,
            Err(error) => return Ok(Some(Finding::of(&error))),
        };
        let (name, keyspace) = (&view.name, &self.access.keyspace);
        let kept = retention.get(name).copied();
        let make = layout.create(keyspace, view, kept);
        let Some(stored) = self.columns(name).await? else {
            if !making.create {
                let missing = self.missing(format!("table `{name}`"));
                return Ok(Some(by_hand(&missing, &make)));
            }
            let probe = format!(
                "CREATE TABLE {} (\"_key\" text PRIMARY KEY) WITH compaction = {{'class': '{NO_CLASS}'}}",
                table(keyspace, name)
            );
            let forbidden = self
                .forbidden(probe, &format!("make the table `{name}`"))
                .await?;
            return Ok(forbidden.map(|error| by_hand(&error, &make)));
        };
        let fit = match Fit::of(&self.access.store, view, &layout, &stored) {
            Ok(fit) => fit,
            Err(error) => return Ok(Some(Finding::of(&error))),
        };
        match fit.add.first() {
            Some((column, cql)) if !making.create => {
                let missing = self.missing(format!("column `{column}` of table `{name}`"));
                let place = table(keyspace, name);
                let make = format!("ALTER TABLE {place} ADD {} {cql}", quoted(column));
                return Ok(Some(by_hand(&missing, &make)));
            }
            Some(_) => {
                // A column that is there: refused as such, but only to those who may.
                let probe = format!("ALTER TABLE {} ADD \"_key\" text", table(keyspace, name));
                let forbidden = self
                    .forbidden(probe, &format!("change the table `{name}`"))
                    .await?;
                return Ok(forbidden.as_ref().map(Finding::of));
            }
            None => {}
        }
        let cql = layout.insert(keyspace, name, false);
        let insert = self
            .prepare(cql, &format!("write the table `{name}`"))
            .await?;
        match self.may_write(name, &insert).await {
            Err(error @ SinkError::Forbidden { .. }) => return Ok(Some(Finding::of(&error))),
            Err(error @ SinkError::Store { .. }) => {
                return Ok(Some(Finding {
                    hint: "look at the guardrails in cassandra.yaml".into(),
                    ..Finding::of(&error)
                }));
            }
            other => other?,
        }
        self.people_without_index(making, name, &layout).await
    }

    async fn people_without_index(
        &self,
        making: &Making,
        name: &str,
        layout: &Layout,
    ) -> Result<Option<Finding>, SinkError> {
        let read_through =
            !making.create && layout.needs_pid_index() && self.index_on_pid(name).await?.is_none();
        let place = table(&self.access.keyspace, name);
        Ok(read_through.then(|| Finding {
            what: format!(
                "the table `{name}` has no index on `pid`, so erasing a person reads all of it"
            ),
            hint: format!("make it: CREATE INDEX ON {place} (\"pid\") USING 'sai'"),
            fatal: false,
        }))
    }

    /// Whether enough replicas are there for the consistency of writes.
    fn replicas(&self, making: &Making) -> Option<Finding> {
        let state = self.session.get_cluster_state();
        let keyspace = state.get_keyspace(&self.access.keyspace)?;
        let replicas = match &keyspace.strategy {
            Strategy::SimpleStrategy { replication_factor } => *replication_factor,
            Strategy::NetworkTopologyStrategy {
                datacenter_repfactors,
            } => {
                let here = self.datacenter.as_ref();
                here.and_then(|name| datacenter_repfactors.get(name))
                    .copied()
                    .unwrap_or(0)
            }
            _ => return None,
        };
        let (name, nodes) = (&self.access.keyspace, self.nodes_near());
        let needed = making.consistency.needed(replicas);
        if replicas == 0 {
            let datacenter = self.datacenter.as_deref().unwrap_or_default();
            return Some(Finding {
                what: format!(
                    "the keyspace `{name}` has no replicas in the datacenter `{datacenter}`"
                ),
                hint: "give it some by ALTER KEYSPACE, or name another `local_dc`".into(),
                fatal: true,
            });
        }
        if needed > nodes {
            return Some(Finding {
                what: format!(
                    "the keyspace `{name}` has {replicas} replicas, of which {needed} must answer, on {nodes} nodes"
                ),
                hint: "give it fewer replicas by ALTER KEYSPACE, or start more nodes".into(),
                fatal: true,
            });
        }
        (replicas == 1 && nodes > 1).then(|| Finding {
            what: format!(
                "the keyspace `{name}` has one replica: its rows are lost with their node"
            ),
            hint: "give it three by ALTER KEYSPACE".into(),
            fatal: false,
        })
    }

    /// Whether what is acknowledged may be lost with a node's process or power, as far as this user
    /// may know.
    async fn durability(&self) -> Result<Option<Finding>, SinkError> {
        let (name, state) = (&self.access.keyspace, self.session.get_cluster_state());
        let keyspace = state.get_keyspace(name);
        if keyspace.is_some_and(|keyspace| !keyspace.durable_writes) {
            return Ok(Some(Finding {
                what: format!(
                    "the keyspace `{name}` is without the commit log: its newest rows are lost when a node ends"
                ),
                hint: "set `durable_writes = true` by ALTER KEYSPACE".into(),
                fatal: false,
            }));
        }
        let sync = self.setting("commitlog_sync").await?;
        let periodic = sync.is_some_and(|sync| sync == "periodic");
        let alone = self.nodes_near() == 1;
        Ok((periodic && alone).then(|| Finding {
            what: "the only node acknowledges rows before they are in its log: a kill or a power cut loses the newest".into(),
            hint: "set `commitlog_sync: batch` in cassandra.yaml, or have three replicas".into(),
            fatal: false,
        }))
    }

    /// A setting of a node; none where the user may not see it.
    pub(super) async fn setting(&self, name: &str) -> Result<Option<String>, SinkError> {
        let cql = "SELECT value FROM system_views.settings WHERE name = ?";
        let rows: Result<Vec<(Option<String>,)>, _> = self.rows(cql, (name,)).await;
        match rows {
            Ok(rows) => Ok(rows.into_iter().next().and_then(|(value,)| value)),
            Err(error @ SinkError::Unreachable { .. }) => Err(error),
            // Not allowed, or an older server.
            Err(_) => Ok(None),
        }
    }

    /// The error of a statement that cannot do anything, where it is for want of a right.
    async fn forbidden(&self, probe: String, what: &str) -> Result<Option<SinkError>, SinkError> {
        match self.run(probe, what).await {
            Err(error @ SinkError::Forbidden { .. }) => Ok(Some(error)),
            Err(error @ SinkError::Unreachable { .. }) => Err(error),
            _ => Ok(None),
        }
    }
}

/// What `error` says, and the statement with which somebody else can mend it.
fn by_hand(error: &SinkError, cql: &str) -> Finding {
    let finding = Finding::of(error);
    Finding {
        hint: format!("{}: {cql}", finding.hint),
        ..finding
    }
}
