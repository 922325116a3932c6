//! The keyspace and its tables: what is there, and making it what the views ask for.

use std::sync::Arc;
use std::time::Duration;

use falaj_record::{PID, ViewInfo};
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;

use super::connect::Connection;
use super::failure::rule_of_the_nodes;
use super::table::{
    Fit, KEY, Layout, Order, Part, Stored, column_type, comment, made_by_falaj, quoted, table,
};
use super::{Consistency, Replication};
use crate::{Prepared, SinkError, Standing, Terms, now_us};

/// Replicas of a keyspace that falaj makes, where there are as many nodes.
const REPLICAS: usize = 3;

/// What the sink may make, and how.
#[derive(Debug, Clone)]
pub(super) struct Making {
    /// Whether keyspace and tables are made and changed.
    pub create: bool,
    pub replication: Option<Replication>,
    pub consistency: Consistency,
}

/// A view's table, ready to be written.
pub(super) struct Table {
    pub view: Arc<ViewInfo>,
    pub layout: Layout,
    pub insert: PreparedStatement,
    /// How long a row is kept after its last write.
    pub kept: Option<Duration>,
}

/// A statement, and what it does.
struct Step {
    cql: String,
    what: String,
}

impl Connection {
    /// Makes keyspace and tables what the views ask for. A misfit is found before anything is
    /// changed.
    pub(super) async fn prepare_tables(
        &self,
        making: &Making,
        views: &[Arc<ViewInfo>],
        terms: &Terms,
    ) -> Result<(Vec<Table>, Prepared), SinkError> {
        let layouts = layouts(views)?;
        let standings = self.standings(making, views, terms).await?;
        let mut steps = self.keyspace_steps(making).await?;
        for (view, layout) in views.iter().zip(&layouts) {
            let kept = terms.retention.get(&view.name).copied();
            steps.extend(self.table_steps(making, view, layout, kept).await?);
        }
        for Step { cql, what } in steps {
            self.run(cql, &what).await?;
        }
        let (mut tables, mut prepared) = (Vec::new(), Prepared::default());
        for ((view, layout), standing) in views.iter().zip(layouts).zip(standings) {
            let name = &view.name;
            let kept = terms.retention.get(name).copied();
            let insert = self.insert_of(view, &layout, kept.is_some()).await?;
            self.may_write(name, &insert).await?;
            // A table that was just made is read, too: there may be too few nodes for it.
            let empty = self.is_empty(name, making.consistency).await?;
            match standing {
                Some(standing) => {
                    if let Standing::New(filling) = &standing {
                        self.set_mark(name, &terms.mark(name, filling)).await?;
                    }
                    prepared.marked(name, &standing);
                }
                None if empty => prepared.empty.push(name.clone()),
                None => {}
            }
            tables.push(Table {
                view: Arc::clone(view),
                layout,
                insert,
                kept,
            });
        }
        Ok((tables, prepared))
    }

    async fn insert_of(
        &self,
        view: &ViewInfo,
        layout: &Layout,
        expires: bool,
    ) -> Result<PreparedStatement, SinkError> {
        let cql = layout.insert(&self.access.keyspace, &view.name, expires);
        self.prepare(cql, &format!("write the table `{}`", view.name))
            .await
    }

    async fn keyspace_steps(&self, making: &Making) -> Result<Vec<Step>, SinkError> {
        let keyspace = &self.access.keyspace;
        match (self.has_keyspace().await?, making.create) {
            (true, _) => Ok(Vec::new()),
            (false, false) => Err(self.missing(format!("keyspace `{keyspace}`"))),
            (false, true) => Ok(vec![Step {
                cql: self.create_keyspace(making.replication.as_ref()),
                what: format!("make the keyspace `{keyspace}`"),
            }]),
        }
    }

    pub(super) fn create_keyspace(&self, replication: Option<&Replication>) -> String {
        let here = self.datacenter.as_deref();
        let replicas = match (replication, here) {
            (Some(Replication::Datacenters(replicas)), _) => {
                let each = replicas
                    .iter()
                    .map(|(name, n)| format!("{}: {n}", text(name)));
                format!(
                    "'NetworkTopologyStrategy', {}",
                    each.collect::<Vec<_>>().join(", ")
                )
            }
            (replication, here) => {
                let replicas = match replication {
                    Some(Replication::Replicas(replicas)) => usize::from(*replicas),
                    _ => self.nodes_near().clamp(1, REPLICAS),
                };
                match here {
                    Some(name) => format!("'NetworkTopologyStrategy', {}: {replicas}", text(name)),
                    None => format!("'SimpleStrategy', 'replication_factor': {replicas}"),
                }
            }
        };
        let keyspace = quoted(&self.access.keyspace);
        format!(
            "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {{'class': {replicas}}}"
        )
    }

    /// Nodes in the datacenter that is written to, those that are down, too.
    pub(super) fn nodes_near(&self) -> usize {
        let state = self.session.get_cluster_state();
        let near = |datacenter: &Option<String>| *datacenter == self.datacenter;
        let nodes = state.get_nodes_info().iter();
        nodes.filter(|node| near(&node.datacenter)).count()
    }

    async fn table_steps(
        &self,
        making: &Making,
        view: &ViewInfo,
        layout: &Layout,
        kept: Option<Duration>,
    ) -> Result<Vec<Step>, SinkError> {
        let (name, keyspace) = (&view.name, &self.access.keyspace);
        let mut steps = match self.columns(name).await? {
            None if making.create => vec![Step {
                cql: layout.create(keyspace, view, kept),
                what: format!("make the table `{name}`"),
            }],
            None => return Err(self.missing(format!("table `{name}`"))),
            Some(stored) => {
                let fit = Fit::of(&self.access.store, view, layout, &stored)?;
                self.evolve(making, name, fit).await?
            }
        };
        if making.create && layout.needs_pid_index() && self.index_on_pid(name).await?.is_none() {
            let (table, pid) = (table(keyspace, name), quoted(PID));
            steps.push(Step {
                cql: format!("CREATE INDEX IF NOT EXISTS ON {table} ({pid}) USING 'sai'"),
                what: format!("make an index on the table `{name}`"),
            });
        }
        Ok(steps)
    }

    /// Statements that add what is new, and remove what the view no longer has with all its values.
    async fn evolve(&self, making: &Making, name: &str, fit: Fit) -> Result<Vec<Step>, SinkError> {
        if !making.create {
            // Columns that the view does not have are somebody's own there.
            return match fit.add.first() {
                Some((column, _)) => {
                    Err(self.missing(format!("column `{column}` of table `{name}`")))
                }
                None => Ok(Vec::new()),
            };
        }
        let what = format!("change the table `{name}`");
        let step = |cql: String| Step {
            cql,
            what: what.clone(),
        };
        let place = table(&self.access.keyspace, name);
        let mut steps = Vec::new();
        if !fit.add.is_empty() {
            let dropped = self.dropped(name).await?;
            for (column, cql) in fit.add {
                // Cassandra keeps the type of a dropped column for what is still on the disk.
                if let Some((_, was)) = dropped.iter().find(|(n, t)| *n == column && t != cql) {
                    let stored = format!("{was} (dropped since)");
                    return Err(column_type(name, &column, &stored, "that", cql));
                }
                steps.push(step(format!(
                    "ALTER TABLE {place} ADD {} {cql}",
                    quoted(&column)
                )));
            }
        }
        if !fit.drop.is_empty() {
            if fit.drop.iter().any(|column| column == PID)
                && let Some(index) = self.index_on_pid(name).await?
            {
                let index = table(&self.access.keyspace, &index);
                steps.push(step(format!("DROP INDEX IF EXISTS {index}")));
            }
            let columns: Vec<_> = fit.drop.iter().map(|column| quoted(column)).collect();
            // By falaj's clock, as all versions are: what is written to a column of the same name
            // later on is newer.
            let (columns, now) = (columns.join(", "), now_us());
            steps.push(step(format!(
                "ALTER TABLE {place} DROP ({columns}) USING TIMESTAMP {now}"
            )));
        }
        Ok(steps)
    }

    /// Whether rows may be written, found out without writing: a row without a key is refused for
    /// its NULL to those who may, and for something else to all others.
    pub(super) async fn may_write(
        &self,
        name: &str,
        insert: &PreparedStatement,
    ) -> Result<(), SinkError> {
        let Err(error) = self.session.execute_unpaged(insert, NoRow).await else {
            return Ok(());
        };
        if let ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            DbError::Invalid,
            text,
        )) = &error
        {
            if text.contains("null") {
                return Ok(());
            }
            if rule_of_the_nodes(text).is_some() {
                let what = format!("write the table `{name}`");
                return Err(self.access.doing(&what).execution(&error));
            }
            return Err(SinkError::Store {
                store: self.access.store.clone(),
                cause: format!("it takes no row for the table `{name}`, whatever the row holds"),
            });
        }
        let what = format!("write the table `{name}`");
        Err(self.access.doing(&what).execution(&error))
    }

    /// Whether a table holds no row that can be read.
    async fn is_empty(&self, name: &str, consistency: Consistency) -> Result<bool, SinkError> {
        let place = table(&self.access.keyspace, name);
        let mut statement = Statement::new(format!("SELECT {} FROM {place} LIMIT 1", quoted(KEY)));
        statement.set_consistency(consistency.reading());
        statement.set_is_idempotent(true);
        let what = format!("read the table `{name}`");
        let of = self.access.doing(&what);
        match self.session.query_unpaged(statement, ()).await {
            Ok(rows) => {
                let rows = rows.into_rows_result().map_err(|_| of.unexpected())?;
                Ok(rows.rows_num() == 0)
            }
            // More rows than Cassandra reads over have expired or been erased: nobody emptied it,
            // since that leaves nothing behind.
            Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(
                DbError::ReadFailure { .. },
                _,
            ))) => Ok(false),
            Err(error) => Err(of.execution(&error)),
        }
    }

    pub(super) async fn has_keyspace(&self) -> Result<bool, SinkError> {
        let cql = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
        let rows: Vec<(String,)> = self.rows(cql, (&self.access.keyspace,)).await?;
        Ok(!rows.is_empty())
    }

    /// Names of all tables; none where there is no keyspace.
    pub(super) async fn tables(&self) -> Result<Vec<String>, SinkError> {
        let cql = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
        let rows: Vec<(String,)> = self.rows(cql, (&self.access.keyspace,)).await?;
        Ok(rows.into_iter().map(|(name,)| name).collect())
    }

    /// The columns of a table; `None` where there is no table of this name.
    pub(super) async fn columns(&self, table: &str) -> Result<Option<Vec<Stored>>, SinkError> {
        let cql = "SELECT column_name, type, kind, position, clustering_order \
             FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?";
        let rows: Vec<(String, String, String, i32, String)> =
            self.rows(cql, (&self.access.keyspace, table)).await?;
        let stored = |(name, cql, kind, position, order): (_, _, String, _, String)| {
            let order = match order.as_str() {
                "desc" => Order::Descending,
                _ => Order::Ascending,
            };
            let part = match kind.as_str() {
                "partition_key" => Part::Partition(position),
                "clustering" => Part::Clustering(position, order),
                _ => Part::None,
            };
            Stored { name, cql, part }
        };
        let columns: Vec<_> = rows.into_iter().map(stored).collect();
        Ok(Some(columns).filter(|columns| !columns.is_empty()))
    }

    /// Names and types of the columns that a table once had.
    async fn dropped(&self, table: &str) -> Result<Vec<(String, String)>, SinkError> {
        let cql = "SELECT column_name, type FROM system_schema.dropped_columns \
             WHERE keyspace_name = ? AND table_name = ?";
        self.rows(cql, (&self.access.keyspace, table)).await
    }

    /// The index that finds people in a table.
    pub(super) async fn index_on_pid(&self, table: &str) -> Result<Option<String>, SinkError> {
        type Options = std::collections::HashMap<String, String>;
        let cql = "SELECT index_name, options FROM system_schema.indexes \
             WHERE keyspace_name = ? AND table_name = ?";
        let rows: Vec<(String, Options)> = self.rows(cql, (&self.access.keyspace, table)).await?;
        let on_pid = |options: &Options| options.get("target").is_some_and(|on| on == PID);
        let mut names = rows.into_iter().filter(|(_, options)| on_pid(options));
        Ok(names.next().map(|(name, _)| name))
    }

    /// Whether a table still takes rows as it was prepared: a request that Cassandra calls invalid
    /// may be so because somebody changed the table, or set up a rule that no row can follow.
    pub(super) async fn still_takes_rows(&self, prepared: &Table) -> Result<(), SinkError> {
        let name = &prepared.view.name;
        let Some(stored) = self.columns(name).await? else {
            return Err(self.missing(format!("table `{name}`")));
        };
        let fit = Fit::of(
            &self.access.store,
            &prepared.view,
            &prepared.layout,
            &stored,
        )?;
        match fit.add.first() {
            Some((column, _)) => Err(self.missing(format!("column `{column}` of table `{name}`"))),
            None => self.may_write(name, &prepared.insert).await,
        }
    }

    /// Removes a view's table; where falaj makes none, its rows.
    pub(super) async fn drop_table(&self, create: bool, name: &str) -> Result<(), SinkError> {
        let Some(stored) = self.columns(name).await? else {
            return Ok(());
        };
        made_by_falaj(&self.access.store, name, &stored)?;
        let place = table(&self.access.keyspace, name);
        if create {
            let what = format!("drop the table `{name}`");
            self.run(format!("DROP TABLE IF EXISTS {place}"), &what)
                .await
        } else {
            let what = format!("empty the table `{name}`");
            self.run(format!("TRUNCATE TABLE {place}"), &what).await
        }
    }

    /// What each view's table is to this pipeline, as its comment says; nothing where falaj may not
    /// change tables.
    async fn standings(
        &self,
        making: &Making,
        views: &[Arc<ViewInfo>],
        terms: &Terms,
    ) -> Result<Vec<Option<Standing>>, SinkError> {
        if !making.create {
            return Ok(vec![None; views.len()]);
        }
        let mut standings = Vec::new();
        let mut foreign = Vec::new();
        for view in views {
            let name = &view.name;
            let (mut holds_rows, mut comment) = (false, None);
            if let Some(stored) = self.columns(name).await? {
                made_by_falaj(&self.access.store, name, &stored)?;
                holds_rows = !self.is_empty(name, making.consistency).await?;
                comment = self.comment_of(name).await?;
            }
            let about = about(name);
            let mark = comment.as_ref().and_then(|text| text.strip_prefix(&about));
            let standing = terms.standing(name, mark, holds_rows);
            if standing == Standing::Foreign {
                foreign.push(name.clone());
            }
            standings.push(Some(standing));
        }
        if foreign.is_empty() {
            return Ok(standings);
        }
        Err(SinkError::ForeignRows {
            tables: foreign,
            store: self.access.store.clone(),
        })
    }

    async fn set_mark(&self, name: &str, mark: &str) -> Result<(), SinkError> {
        let (place, comment) = (table(&self.access.keyspace, name), about(name) + mark);
        let cql = format!("ALTER TABLE {place} WITH comment = {}", text(&comment));
        self.run(cql, &format!("change the table `{name}`")).await
    }

    async fn comment_of(&self, table: &str) -> Result<Option<String>, SinkError> {
        let cql = "SELECT comment FROM system_schema.tables \
             WHERE keyspace_name = ? AND table_name = ?";
        let rows: Vec<(Option<String>,)> = self.rows(cql, (&self.access.keyspace, table)).await?;
        Ok(rows.into_iter().next().and_then(|(comment,)| comment))
    }

    pub(super) fn missing(&self, what: String) -> SinkError {
        SinkError::Missing {
            what,
            store: self.access.store.clone(),
        }
    }
}

pub(super) fn layouts(views: &[Arc<ViewInfo>]) -> Result<Vec<Layout>, SinkError> {
    views.iter().map(|view| Layout::of(view)).collect()
}

/// What stands before the mark in the comment of a view's table.
fn about(view: &str) -> String {
    format!("{}, rows of ", comment(view))
}

/// A text as CQL takes it.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Values for [`Layout::insert`] without any: every column is NULL, the key, too.
struct NoRow;

impl SerializeRow for NoRow {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        for column in context.columns() {
            let cell = writer.make_cell_writer();
            // How `USING TIMESTAMP ?` and `TTL ?` are called.
            let proof = match column.name() {
                // As a row's of this moment: there may be rules about old ones.
                "[timestamp]" => cell.set_value(&now_us().to_be_bytes()),
                "[ttl]" => cell.set_value(&1_i32.to_be_bytes()),
                _ => Ok(cell.set_null()),
            };
            proof.map_err(SerializationError::new)?;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        false
    }
}
