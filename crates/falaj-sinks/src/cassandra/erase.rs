//! Removing a person's rows from every table that falaj made.
//!
//! Always: rows are found where a write was acknowledged, whatever the consistency of writes is.
//! Always: what is removed is removed at a time later than its version, so that a replay of it
//! does not bring it back.

use falaj_record::PID;
use futures::{StreamExt, TryStreamExt, stream};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlValue, Row};

use super::Consistency;
use super::connect::Connection;
use super::table::{
    KEY, Stored, VERSION, made_by_falaj, quoted, stored_clustering, stored_partition, table,
};
use crate::{SinkError, now_us};

/// Rows that are removed at once.
const AT_ONCE: usize = 32;

impl Connection {
    /// Removes the rows of this person, and gives their number.
    pub(super) async fn erase(&self, pid: &str, written: Consistency) -> Result<u64, SinkError> {
        let mut erased = 0;
        for name in self.tables().await? {
            let Some(stored) = self.columns(&name).await? else {
                continue;
            };
            if made_by_falaj(&self.access.store, &name, &stored).is_err() {
                continue;
            }
            for condition in self.conditions(&name, &stored).await? {
                let place = Place {
                    name: &name,
                    stored: &stored,
                    condition,
                };
                erased += self.erase_where(pid, written, &place).await?;
            }
        }
        Ok(erased)
    }

    /// How a person's rows are found in a table. Keys of groups are JSON arrays, so none is a pid.
    async fn conditions(&self, name: &str, stored: &[Stored]) -> Result<Vec<String>, SinkError> {
        let partition = stored_partition(stored);
        let mut conditions = Vec::new();
        if partition == [KEY] {
            conditions.push(format!("{} = ?", quoted(KEY)));
        }
        if stored
            .iter()
            .any(|column| column.name == PID && column.cql == "text")
        {
            let mut condition = format!("{} = ?", quoted(PID));
            // Without an index every row is read: slow, and right.
            if partition != [PID] && self.index_on_pid(name).await?.is_none() {
                condition += " ALLOW FILTERING";
            }
            conditions.push(condition);
        }
        Ok(conditions)
    }

    async fn erase_where(
        &self,
        pid: &str,
        written: Consistency,
        place: &Place<'_>,
    ) -> Result<u64, SinkError> {
        let find = self
            .prepared(place, place.select(&self.access.keyspace))
            .await?;
        let delete = self
            .prepared(place, place.delete(&self.access.keyspace))
            .await?;
        let (find, delete) = (at(find, written.finding()), &at(delete, written.erasing()));
        let what = format!("erase from the table `{}`", place.name);
        let of = self.access.doing(&what);
        let pager = self.session.execute_iter(find, (pid,)).await;
        let rows = pager.map_err(|e| of.pager(&e))?.rows_stream::<Row>();
        let rows = rows.map_err(|_| of.unexpected())?.map_err(|e| of.row(&e));
        // All are found before the first goes: the pages would shift.
        let rows: Vec<Row> = rows.try_collect().await?;
        let count = rows.len() as u64;
        let removals = rows.into_iter().map(|row| async move {
            let values = removal(row).ok_or_else(|| of.unexpected())?;
            let removed = self.session.execute_unpaged(delete, values).await;
            removed.map(drop).map_err(|e| of.execution(&e))
        });
        let mut removals = stream::iter(removals).buffer_unordered(AT_ONCE);
        while let Some(removed) = removals.next().await {
            removed?;
        }
        Ok(count)
    }

    async fn prepared(
        &self,
        place: &Place<'_>,
        cql: String,
    ) -> Result<PreparedStatement, SinkError> {
        self.prepare(cql, &format!("erase from the table `{}`", place.name))
            .await
    }
}

fn at(
    mut statement: PreparedStatement,
    level: scylla::statement::Consistency,
) -> PreparedStatement {
    statement.set_consistency(level);
    statement
}

/// Rows of a table.
struct Place<'a> {
    name: &'a str,
    stored: &'a [Stored],
    condition: String,
}

impl Place<'_> {
    fn key(&self) -> Vec<String> {
        let clustering = stored_clustering(self.stored)
            .into_iter()
            .map(|(name, _)| name);
        let key = stored_partition(self.stored).into_iter().chain(clustering);
        key.map(quoted).collect()
    }

    /// Version and key of the rows.
    fn select(&self, keyspace: &str) -> String {
        let (place, key) = (table(keyspace, self.name), self.key().join(", "));
        format!(
            "SELECT {}, {key} FROM {place} WHERE {}",
            quoted(VERSION),
            self.condition
        )
    }

    /// Removes a row by its key, at a time.
    fn delete(&self, keyspace: &str) -> String {
        let place = table(keyspace, self.name);
        let key: Vec<_> = self
            .key()
            .iter()
            .map(|name| format!("{name} = ?"))
            .collect();
        format!(
            "DELETE FROM {place} USING TIMESTAMP ? WHERE {}",
            key.join(" AND ")
        )
    }
}

/// Values for [`Place::delete`] of a row that [`Place::select`] found.
fn removal(row: Row) -> Option<Vec<CqlValue>> {
    let mut values = row.columns.into_iter();
    let version = match values.next()? {
        Some(CqlValue::BigInt(version)) => version,
        None => 0,
        Some(_) => return None,
    };
    let time = Some(CqlValue::BigInt(now_us().max(version)));
    std::iter::once(time).chain(values).collect()
}
