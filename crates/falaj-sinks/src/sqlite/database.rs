//! The file, its tables, and the statements that write them. Everything here blocks.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::Array;
use falaj_record::{PID, Reason, ViewInfo, ViewUpdate};
use hashbrown::HashMap;
use rusqlite::{
    Connection, ErrorCode, MAIN_DB, OpenFlags, OptionalExtension, Statement, Transaction,
    TransactionBehavior, params,
};

use super::cells::{Cells, declared};
use super::{LOCK_WAIT, NAME};
use crate::{
    Finding, Inspection, Prepared, Refused, SinkError, Standing, Terms, Written, check_shape,
};

/// Statements kept ready: one a view, and some for tables.
const STATEMENTS_KEPT: usize = 128;
/// Pages of the write-ahead log before they are moved into the file: 16 MiB, so that a large write
/// is not copied twice.
const LOG_PAGES: u32 = 4096;
/// Memory for pages, at most: a write of many keys in no order stays inside it.
const CACHE_KIB: u32 = 32 << 10;
/// What the log file may keep on the disk once it is empty.
const LOG_BYTES_KEPT: u32 = 64 << 20;
/// The table that says whose rows the others hold.
const REGISTER: &str = "_falaj";

/// A SQLite file, open or not.
pub(super) struct Database {
    file: PathBuf,
    terms: Terms,
    open: Option<Open>,
}

struct Open {
    connection: Connection,
    tables: HashMap<String, Table>,
    identity: Identity,
}

/// A view's table.
struct Table {
    view: Arc<ViewInfo>,
    upsert: String,
}

impl Database {
    pub(super) fn new(file: PathBuf, terms: Terms) -> Self {
        Self {
            file,
            terms,
            open: None,
        }
    }

    pub(super) fn prepare(&mut self, views: &[Arc<ViewInfo>]) -> Result<Prepared, SinkError> {
        let (store, terms) = (self.store(), self.terms.clone());
        let open = self.opened()?;
        let mut prepared = Prepared::default();
        let mut foreign = Vec::new();
        let mut tables = HashMap::new();
        let failed = |e| failed(&store, &e);
        let transaction = open.begin().map_err(failed)?;
        // Where nothing may be written SQLite begins a reading transaction, and says nothing.
        if transaction.is_readonly(MAIN_DB).map_err(failed)? {
            return Err(SinkError::ReadOnly { store });
        }
        make_register(&transaction).map_err(failed)?;
        for view in views {
            let name = &view.name;
            let columns = declared_columns(view)?;
            let stored = stored_columns(&transaction, name).map_err(failed)?;
            let holds_rows = match &stored {
                None => false,
                Some(stored) => {
                    made_by_falaj(&store, name, stored)?;
                    !is_empty(&transaction, name).map_err(failed)?
                }
            };
            let mark = mark_of(&transaction, name).map_err(failed)?;
            let standing = terms.standing(name, mark.as_deref(), holds_rows);
            if standing == Standing::Foreign {
                foreign.push(name.clone());
                continue;
            }
            let sql = match stored {
                None => create(name, &columns),
                Some(stored) => evolve(view, &columns, &stored)?,
            };
            transaction.execute_batch(&sql).map_err(failed)?;
            if let Standing::New(filling) = &standing {
                set_mark(&transaction, name, &terms.mark(name, filling)).map_err(failed)?;
            }
            prepared.marked(name, &standing);
            let upsert = upsert(&view.name, &columns);
            tables.insert(
                view.name.clone(),
                Table {
                    view: Arc::clone(view),
                    upsert,
                },
            );
        }
        if !foreign.is_empty() {
            // What was changed until here is not.
            let tables = foreign;
            return Err(SinkError::ForeignRows { tables, store });
        }
        transaction.commit().map_err(failed)?;
        open.tables = tables;
        Ok(prepared)
    }

    pub(super) fn write(&mut self, updates: &[ViewUpdate]) -> Result<Written, SinkError> {
        let store = self.store();
        let failed = |e| failed(&store, &e);
        let Some(Open {
            connection,
            tables,
            identity,
        }) = &mut self.open
        else {
            let view = updates
                .first()
                .map_or_else(String::new, |update| update.view.name.clone());
            return Err(SinkError::UnknownView { view });
        };
        if Identity::of(&self.file) != *identity {
            return Err(SinkError::Moved { store });
        }
        let transaction = begin(connection).map_err(failed)?;
        let mut written = Written::default();
        for update in updates {
            let view = &update.view.name;
            let unknown = || SinkError::UnknownView { view: view.clone() };
            let table = tables.get(view.as_str()).ok_or_else(unknown)?;
            let cells = table.cells(update)?;
            let refused = upsert_rows(&transaction, table, &cells, update).map_err(failed)?;
            written.refused.extend(refused);
        }
        transaction.commit().map_err(failed)?;
        Ok(written)
    }

    /// Removes rows whose last write is further back than the retention of their view.
    pub(super) fn expire(&mut self, now_us: i64) -> Result<u64, SinkError> {
        let store = self.store();
        let failed = |e| failed(&store, &e);
        let retention = self.terms.retention.clone();
        let open = self.opened()?;
        let names: Vec<_> = open.tables.keys().cloned().collect();
        let mut rows = 0;
        for (view, kept) in retention {
            if !names.contains(&view) {
                continue;
            }
            let kept = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
            let sql = format!("DELETE FROM {} WHERE \"_version\" <= ?1", quoted(&view));
            // A transaction a view: each is short, and what is done stays done.
            let transaction = open.begin().map_err(failed)?;
            let until = now_us.saturating_sub(kept);
            rows += transaction.execute(&sql, params![until]).map_err(failed)?;
            transaction.commit().map_err(failed)?;
        }
        Ok(rows as u64)
    }

    /// Looks at the file, which stays as it is; where there is none, at the place for it.
    pub(super) fn inspect(&mut self, views: &[Arc<ViewInfo>]) -> Result<Inspection, SinkError> {
        let store = self.store();
        let failed = |e| failed(&store, &e);
        let mut found = Inspection {
            server: format!("SQLite {}", rusqlite::version()),
            ..Inspection::default()
        };
        for view in views {
            declared_columns(view)?;
        }
        if !self.file.exists() {
            let folder = self.file.parent().unwrap_or(Path::new("."));
            if !folder.is_dir() {
                return Err(SinkError::Open {
                    store,
                    cause: format!("there is no folder `{}`", folder.display()),
                });
            }
            return Ok(found);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.file, flags).map_err(failed)?;
        connection.busy_timeout(LOCK_WAIT).map_err(failed)?;
        for view in views {
            let columns = declared_columns(view)?;
            if let Some(stored) = stored_columns(&connection, &view.name).map_err(failed)?
                && let Err(error) = made_by_falaj(&store, &view.name, &stored)
                    .and_then(|()| evolve(view, &columns, &stored))
            {
                found.findings.push(Finding::of(&error));
            }
        }
        if connection.is_readonly(MAIN_DB).map_err(failed)? {
            found
                .findings
                .push(Finding::of(&SinkError::ReadOnly { store }));
        }
        Ok(found)
    }

    /// Every table that falaj made is looked at, those of views that are gone, too.
    pub(super) fn erase(&mut self, pid: &str) -> Result<u64, SinkError> {
        let store = self.store();
        let failed = |e| failed(&store, &e);
        let open = self.opened()?;
        let transaction = open.begin().map_err(failed)?;
        let mut rows = 0;
        for delete in deletes(&transaction).map_err(failed)? {
            rows += transaction.execute(&delete, params![pid]).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        // The log still holds what the rows were. It can be emptied once nobody reads from it.
        let empty_log = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy: i64 = open
            .connection
            .query_row(empty_log, [], |row| row.get(0))
            .map_err(failed)?;
        if busy == 0 {
            Ok(rows as u64)
        } else {
            Err(SinkError::Locked { store })
        }
    }

    pub(super) fn drop_view(&mut self, view: &str) -> Result<(), SinkError> {
        let store = self.store();
        let failed = |e| failed(&store, &e);
        let open = self.opened()?;
        open.tables.remove(view);
        let transaction = open.begin().map_err(failed)?;
        if let Some(stored) = stored_columns(&transaction, view).map_err(failed)? {
            made_by_falaj(&store, view, &stored)?;
            let sql = format!("DROP TABLE {}", quoted(view));
            transaction.execute_batch(&sql).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }

    pub(super) fn close(&mut self) -> Result<(), SinkError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        open.connection
            .close()
            .map_err(|(_, e)| failed(&self.store(), &e))
    }

    fn store(&self) -> String {
        self.file.display().to_string()
    }

    fn opened(&mut self) -> Result<&mut Open, SinkError> {
        let store = self.store();
        let open = match self.open.take() {
            Some(open) => self.open.insert(open),
            None => self.open.insert(connect(&self.file, &store)?),
        };
        if Identity::of(&self.file) == open.identity {
            Ok(open)
        } else {
            Err(SinkError::Moved { store })
        }
    }
}

impl Open {
    fn begin(&mut self) -> rusqlite::Result<Transaction<'_>> {
        begin(&mut self.connection)
    }
}

/// Takes the write lock at once: a lock that is taken half-way cannot be waited for.
fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn connect(file: &Path, store: &str) -> Result<Open, SinkError> {
    let failed = |e| failed(store, &e);
    create_private(file).map_err(|e| SinkError::Open {
        store: store.to_owned(),
        cause: e.to_string(),
    })?;
    let connection = Connection::open(file).map_err(failed)?;
    connection.busy_timeout(LOCK_WAIT).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let log = connection.query_row("PRAGMA journal_mode = WAL", [], |row| {
        row.get::<_, String>(0)
    });
    if log.map_err(failed)? != "wal" {
        let cause = "the file system there cannot share a write-ahead log".into();
        return Err(SinkError::Store {
            store: store.to_owned(),
            cause,
        });
    }
    let settings = format!(
        "PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;
         PRAGMA cache_size = -{CACHE_KIB};
         PRAGMA wal_autocheckpoint = {LOG_PAGES};
         PRAGMA journal_size_limit = {LOG_BYTES_KEPT};"
    );
    connection.execute_batch(&settings).map_err(failed)?;
    Ok(Open {
        connection,
        tables: HashMap::new(),
        identity: Identity::of(file),
    })
}

/// Makes the file, readable by its user only, where there is none. SQLite gives its log the same
/// rights.
fn create_private(file: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(file) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

/// Which file stands at a path: SQLite goes on writing into one that was removed, and says nothing.
#[derive(PartialEq)]
struct Identity(Option<(u64, u64)>);

impl Identity {
    #[cfg(unix)]
    fn of(file: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(
            std::fs::metadata(file)
                .ok()
                .map(|found| (found.dev(), found.ino())),
        )
    }

    /// Elsewhere an open file cannot be removed.
    #[cfg(not(unix))]
    fn of(_: &Path) -> Self {
        Self(None)
    }
}

/// A column of a table: name and declared type.
struct Stored {
    name: String,
    kind: String,
    key: bool,
}

fn declared_columns(view: &ViewInfo) -> Result<Vec<(&str, &'static str)>, SinkError> {
    let unfit = |cause: String| SinkError::Unfit {
        view: view.name.clone(),
        kind: NAME,
        cause,
    };
    if view.name.to_ascii_lowercase().starts_with("sqlite_") {
        return Err(unfit(
            "names that begin with `sqlite_` are SQLite's own".into(),
        ));
    }
    if view.name.eq_ignore_ascii_case(REGISTER) {
        return Err(unfit(format!("the table `{REGISTER}` is falaj's own")));
    }
    let mut columns = Vec::new();
    for column in &view.columns {
        let name = column.name.as_str();
        let taken = |(other, _): &(&str, _)| name.eq_ignore_ascii_case(other);
        if ["_key", "_version"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
        {
            return Err(unfit(format!("the column `{name}` is falaj's own")));
        }
        if columns.iter().any(taken) {
            return Err(unfit(format!("it has two columns named `{name}`")));
        }
        let kind = declared(&column.data_type).ok_or_else(|| {
            unfit(format!(
                "the column `{name}` has a type that views do not have"
            ))
        })?;
        columns.push((name, kind));
    }
    Ok(columns)
}

/// `None` where there is no table of this name.
fn stored_columns(at: &Connection, table: &str) -> rusqlite::Result<Option<Vec<Stored>>> {
    let sql = "SELECT name, type, pk FROM pragma_table_info(?1)";
    let mut statement = at.prepare_cached(sql)?;
    let columns = statement.query_map([table], |row| {
        let key = row.get::<_, i64>(2)? == 1;
        Ok(Stored {
            name: row.get(0)?,
            kind: row.get(1)?,
            key,
        })
    })?;
    let columns = columns.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Some(columns).filter(|columns| !columns.is_empty()))
}

fn create(table: &str, columns: &[(&str, &str)]) -> String {
    let mut sql = format!("CREATE TABLE {} (", quoted(table));
    for (name, kind) in columns {
        let _ = write!(sql, "{} {kind}, ", quoted(name));
    }
    sql += "\"_key\" TEXT NOT NULL PRIMARY KEY, \"_version\" INTEGER NOT NULL) WITHOUT ROWID";
    sql
}

fn find<'a>(stored: &'a [Stored], name: &str) -> Option<&'a Stored> {
    stored
        .iter()
        .find(|column| column.name.eq_ignore_ascii_case(name))
}

fn made_by_falaj(store: &str, table: &str, stored: &[Stored]) -> Result<(), SinkError> {
    let lack = if !find(stored, "_key").is_some_and(|column| column.key) {
        "its primary key is not `_key`"
    } else if find(stored, "_version").is_none() {
        "it has no column `_version`"
    } else {
        return Ok(());
    };
    let (table, store) = (table.to_owned(), store.to_owned());
    Err(SinkError::ForeignTable { table, store, lack })
}

/// Statements that add what is new and empty what the view no longer has.
fn evolve(
    view: &ViewInfo,
    columns: &[(&str, &str)],
    stored: &[Stored],
) -> Result<String, SinkError> {
    let table = &view.name;
    let mut sql = String::new();
    for ((name, kind), column) in columns.iter().zip(&view.columns) {
        match find(stored, name) {
            None => {
                let _ = writeln!(
                    sql,
                    "ALTER TABLE {} ADD COLUMN {} {kind};",
                    quoted(table),
                    quoted(name)
                );
            }
            Some(found) if !found.kind.eq_ignore_ascii_case(kind) => {
                return Err(SinkError::ColumnType {
                    table: table.clone(),
                    column: (*name).to_owned(),
                    stored: found.kind.clone(),
                    given: format!("{} ({kind})", column.type_name()),
                });
            }
            Some(_) => {}
        }
    }
    let kept = |name: &str| {
        let mut names = columns
            .iter()
            .map(|(name, _)| *name)
            .chain(["_key", "_version"]);
        names.any(|kept| kept.eq_ignore_ascii_case(name))
    };
    for column in stored.iter().filter(|column| !kept(&column.name)) {
        let (table, name) = (quoted(table), quoted(&column.name));
        let _ = writeln!(
            sql,
            "UPDATE {table} SET {name} = NULL WHERE {name} IS NOT NULL;"
        );
    }
    Ok(sql)
}

fn is_empty(at: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = format!("SELECT 1 FROM {} LIMIT 1", quoted(table));
    at.query_row(&sql, [], |_| Ok(()))
        .optional()
        .map(|row| row.is_none())
}

fn make_register(at: &Connection) -> rusqlite::Result<()> {
    at.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {REGISTER} \
         (\"view\" TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID"
    ))
}

/// The mark of a table, where it ever got one.
fn mark_of(at: &Connection, view: &str) -> rusqlite::Result<Option<String>> {
    let sql = format!("SELECT owner FROM {REGISTER} WHERE \"view\" = ?1");
    at.query_row(&sql, [view], |row| row.get(0)).optional()
}

fn set_mark(at: &Connection, view: &str, mark: &str) -> rusqlite::Result<()> {
    let sql = format!("INSERT OR REPLACE INTO {REGISTER} VALUES (?1, ?2)");
    at.execute(&sql, params![view, mark]).map(drop)
}

fn upsert(table: &str, columns: &[(&str, &str)]) -> String {
    let mut names: Vec<_> = columns.iter().map(|(name, _)| quoted(name)).collect();
    names.extend(["\"_key\"".into(), "\"_version\"".into()]);
    let set = |name: &String| format!("{name} = excluded.{name}");
    let sets: Vec<_> = names
        .iter()
        .filter(|name| *name != "\"_key\"")
        .map(set)
        .collect();
    let table = quoted(table);
    format!(
        "INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT (\"_key\") DO UPDATE SET {} \
         WHERE excluded.\"_version\" > {table}.\"_version\"",
        names.join(", "),
        vec!["?"; names.len()].join(", "),
        sets.join(", "),
    )
}

impl Table {
    fn cells<'a>(&self, update: &'a ViewUpdate) -> Result<Vec<Cells<'a>>, SinkError> {
        check_shape(&self.view, update, declared)?;
        let columns = update.rows.columns().iter();
        columns
            .map(|column| Cells::of(column).ok_or_else(|| SinkError::shape(&self.view)))
            .collect()
    }
}

fn upsert_rows(
    at: &Connection,
    table: &Table,
    cells: &[Cells<'_>],
    update: &ViewUpdate,
) -> rusqlite::Result<Vec<Refused>> {
    let mut refused = Vec::new();
    let mut statement = at.prepare_cached(&table.upsert)?;
    // In the order of the tree they go into: neighbours share its pages.
    let mut order: Vec<_> = (0..update.keys.len()).collect();
    order.sort_unstable_by_key(|&row| update.keys.value(row));
    for row in order {
        let written = upsert_row(&mut statement, cells, update, row);
        if let Err(error) = written {
            let reason = refusal(&error).ok_or(error)?;
            refused.push(Refused::of(update, row, reason, None));
        }
    }
    Ok(refused)
}

fn upsert_row(
    statement: &mut Statement<'_>,
    cells: &[Cells<'_>],
    update: &ViewUpdate,
    row: usize,
) -> rusqlite::Result<()> {
    for (index, column) in cells.iter().enumerate() {
        column.bind(statement, index + 1, row)?;
    }
    statement.raw_bind_parameter(cells.len() + 1, update.keys.value(row))?;
    statement.raw_bind_parameter(cells.len() + 2, update.version)?;
    statement.raw_execute().map(drop)
}

/// Why a row alone is refused: it is too large, or somebody gave the table a constraint. The
/// transaction it is in goes on.
fn refusal(error: &rusqlite::Error) -> Option<Reason> {
    match error.sqlite_error_code() {
        Some(ErrorCode::TooBig) => Some(Reason::TooLargeForStore),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => {
            Some(Reason::RefusedByStore)
        }
        _ => None,
    }
}

/// A statement for each table that falaj made, removing the rows of the pid `?1`. Keys of groups
/// are JSON arrays, so no pid is one.
fn deletes(at: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = at.prepare_cached(
        "SELECT m.name, EXISTS (SELECT 1 FROM pragma_table_info(m.name) WHERE name = ?1)
         FROM sqlite_schema m WHERE m.type = 'table'
         AND EXISTS (SELECT 1 FROM pragma_table_info(m.name) WHERE name = '_key' AND pk = 1)
         AND EXISTS (SELECT 1 FROM pragma_table_info(m.name) WHERE name = '_version')",
    )?;
    let tables = statement.query_map([PID], |row| {
        let (table, has_pid) = (quoted(&row.get::<_, String>(0)?), row.get::<_, bool>(1)?);
        let or_pid = if has_pid {
            format!(" OR {} = ?1", quoted(PID))
        } else {
            String::new()
        };
        Ok(format!("DELETE FROM {table} WHERE \"_key\" = ?1{or_pid}"))
    })?;
    tables.collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// SQLite's own message may name what it was given, so only its code speaks.
fn failed(store: &str, error: &rusqlite::Error) -> SinkError {
    let store = store.to_owned();
    let rusqlite::Error::SqliteFailure(code, _) = error else {
        return SinkError::Store {
            store,
            cause: "it answered in a form not expected".into(),
        };
    };
    let cause = || rusqlite::ffi::code_to_str(code.extended_code).to_owned();
    match code.code {
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied => SinkError::Open {
            store,
            cause: cause(),
        },
        ErrorCode::NotADatabase => SinkError::NotADatabase { store },
        ErrorCode::ReadOnly => SinkError::ReadOnly { store },
        ErrorCode::DiskFull => SinkError::Full { store },
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => SinkError::Locked { store },
        _ => SinkError::Store {
            store,
            cause: cause(),
        },
    }
}
