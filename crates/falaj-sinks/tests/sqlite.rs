//! The SQLite sink: the suite of every sink, and what only a file can show.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use falaj_record::{Column, Hint, Reason, Value, ViewInfo, ViewKind, ViewUpdate};
use falaj_sinks::conformance::{Misfit, Outage, Store, StoredRow};
use falaj_sinks::{Retention, Sink, SinkError, SqliteSink, Terms, Written};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};
use tempfile::TempDir;

struct File {
    folder: TempDir,
}

impl File {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("views.sqlite")
    }

    /// A connection as another program would make it.
    fn reader(&self) -> Connection {
        let reader = Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_ONLY);
        reader.expect("the file can be read")
    }

    fn query(&self, sql: &str) -> String {
        self.reader()
            .query_row(sql, [], |row| row.get(0))
            .expect(sql)
    }
}

#[expect(clippy::unused_async, reason = "other stores have to be waited for")]
async fn new_store() -> Option<File> {
    Some(File::new())
}

#[async_trait]
impl Store for File {
    async fn sink_on(&self, terms: Terms) -> Box<dyn Sink> {
        Box::new(SqliteSink::new(self.path(), terms))
    }

    async fn rows(&self, view: &ViewInfo) -> Vec<StoredRow> {
        let names: Vec<_> = view
            .columns
            .iter()
            .map(|c| format!("\"{}\"", c.name))
            .collect();
        let table = &view.name;
        let sql = format!(
            "SELECT _key, _version, {} FROM \"{table}\" ORDER BY _key",
            names.join(", ")
        );
        let reader = self.reader();
        let mut statement = reader
            .prepare(&sql)
            .expect("the table has the view's columns");
        let read = |row: &Row<'_>| {
            let value = |(at, column)| stored(row.get_ref_unwrap(at + 2), column).json();
            Ok(StoredRow {
                key: row.get(0)?,
                version: row.get(1)?,
                values: view.columns.iter().enumerate().map(value).collect(),
            })
        };
        let rows = statement.query_map([], read).expect("it can be read");
        rows.collect::<Result<_, _>>()
            .expect("every row has a key and a version")
    }

    /// A file of a later write format may be read, not written: so it is for every user, root too.
    async fn make_read_only(&self) {
        let mut bytes = std::fs::read(self.path()).expect("the file is there");
        bytes[18] = 3;
        std::fs::write(self.path(), bytes).expect("and can be written");
    }

    /// SQLite takes every text, so the table gets a rule of somebody's.
    async fn refused_text(&self, view: &ViewInfo) -> (String, Reason) {
        let sql = format!(
            "CREATE TRIGGER no_atlantis BEFORE INSERT ON {} WHEN NEW.nat = 'Atlantis'
             BEGIN SELECT RAISE(ABORT, 'no such place'); END",
            view.name
        );
        let writer = Connection::open(self.path()).expect("the file is there");
        writer.execute_batch(&sql).expect("a rule can be made");
        ("Atlantis".into(), Reason::RefusedByStore)
    }

    /// A row that is removed leaves nothing in the file that would tell its version.
    fn erasure_stays(&self) -> bool {
        false
    }

    async fn misfits(&self) -> Vec<Misfit> {
        let text = self.folder.path().join("notes.txt");
        std::fs::write(&text, "no database, but long enough to be asked").expect("written");
        let sink = |file: PathBuf| Box::new(SqliteSink::new(file, Retention::new()));
        vec![
            Misfit {
                what: "no folder",
                sink: sink(self.folder.path().join("nowhere/views.sqlite")),
                told_by: |error| matches!(error, SinkError::Open { .. }),
            },
            Misfit {
                what: "another kind of file",
                sink: sink(text),
                told_by: |error| matches!(error, SinkError::NotADatabase { .. }),
            },
        ]
    }

    /// Another program holds the file's lock: for a while, or for longer than the sink waits.
    async fn outage(&self, outage: Outage) {
        let time = match outage {
            Outage::Stalled(time) => time,
            Outage::Ended => Duration::from_secs(7),
        };
        let other = Connection::open(self.path()).expect("the file is there");
        other.execute_batch("BEGIN IMMEDIATE").expect("locked");
        std::thread::spawn(move || {
            std::thread::sleep(time);
            other.execute_batch("ROLLBACK").expect("let go of");
        });
    }
}

/// A stored value as the view's value: the type in the file must be the one its column asks for.
fn stored(value: ValueRef<'_>, column: &Column) -> Value {
    match (value, &column.data_type) {
        (ValueRef::Null, _) => Value::Null,
        (ValueRef::Integer(v), DataType::Boolean) => Value::Bool(v == 1),
        (ValueRef::Integer(v), DataType::Int64) => Value::Int(v),
        (ValueRef::Real(v), DataType::Float64) => Value::Float(v),
        (
            ValueRef::Text(v),
            DataType::Utf8 | DataType::Timestamp(..) | DataType::Date32 | DataType::Decimal128(..),
        ) => Value::Text(String::from_utf8(v.to_vec()).expect("text is UTF-8")),
        (other, expected) => panic!("{:?} in a column for {expected}", other.data_type()),
    }
}

falaj_sinks::conformance_tests!(new_store);
falaj_sinks::outage_tests!(new_store);

fn view(name: &str, columns: &[(&str, DataType)]) -> Arc<ViewInfo> {
    let column = |(name, data_type): &(&str, DataType)| Column {
        name: (*name).to_owned(),
        data_type: data_type.clone(),
        key: *name == "pid",
        nullable: *name != "pid",
    };
    Arc::new(ViewInfo {
        name: name.to_owned(),
        kind: ViewKind::Row,
        columns: columns.iter().map(column).collect(),
        window: None,
        fields: Vec::new(),
        sql: String::new(),
    })
}

fn users() -> Arc<ViewInfo> {
    view(
        "users",
        &[("pid", DataType::Utf8), ("age", DataType::Int64)],
    )
}

fn user(view: &Arc<ViewInfo>, version: i64, pids: &[&str]) -> ViewUpdate {
    let fields = view
        .columns
        .iter()
        .map(|c| Field::new(&c.name, c.data_type.clone(), true));
    let ages = (0..).take(pids.len());
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(pids.to_vec())),
        Arc::new(Int64Array::from_iter_values(ages)),
    ];
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    ViewUpdate {
        view: Arc::clone(view),
        rows: RecordBatch::try_new(schema, lists).expect("two columns of equal length"),
        keys: StringArray::from(pids.to_vec()),
        version,
        watermark: None,
        people: None,
    }
}

async fn prepared(file: &File, view: &Arc<ViewInfo>) -> Box<dyn Sink> {
    let mut sink = file.sink().await;
    sink.prepare(&[Arc::clone(view)])
        .await
        .expect("a new file can be prepared");
    sink
}

#[tokio::test]
async fn the_sqlite3_tool_reads_the_file_while_falaj_has_it_open() {
    let (file, view) = (File::new(), users());
    let mut sink = prepared(&file, &view).await;
    for version in 1..=2 {
        sink.write(&[user(&view, version, &["p1", "p2", "p3"])])
            .await
            .expect("written");
        let sql = "SELECT count(*), sum(age), max(_version) FROM users";
        assert_eq!(tool(&file.path(), sql), format!("3|3|{version}"));
    }
}

/// What another program prints: the `sqlite3` tool where it is installed, else Python's module.
fn tool(file: &Path, sql: &str) -> String {
    let script = "import sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).execute(sys.argv[2])
print('|'.join(str(v) for v in rows.fetchone()))";
    let cli = Command::new("sqlite3")
        .arg("-batch")
        .arg(file)
        .arg(sql)
        .output();
    let python = || {
        Command::new("python3")
            .args(["-c", script])
            .arg(file)
            .arg(sql)
            .output()
    };
    let output = cli
        .or_else(|_| python())
        .expect("sqlite3 or python3 is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn a_table_lies_as_documented() {
    let file = File::new();
    let columns = [
        ("pid", DataType::Utf8),
        ("age", DataType::Int64),
        ("score", DataType::Float64),
        ("adult", DataType::Boolean),
        ("born", DataType::Date32),
    ];
    let _sink = prepared(&file, &view("users", &columns)).await;
    assert_eq!(
        file.query("SELECT sql FROM sqlite_schema WHERE name = 'users'"),
        "CREATE TABLE \"users\" (\"pid\" TEXT, \"age\" INTEGER, \"score\" REAL, \"adult\" INTEGER, \
         \"born\" TEXT, \"_key\" TEXT NOT NULL PRIMARY KEY, \"_version\" INTEGER NOT NULL) WITHOUT ROWID"
    );
    assert_eq!(file.query("PRAGMA journal_mode"), "wal");
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_user_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let (file, view) = (File::new(), users());
    let mut sink = prepared(&file, &view).await;
    sink.write(&[user(&view, 1, &["p1"])])
        .await
        .expect("written");
    for entry in std::fs::read_dir(file.folder.path()).expect("the folder is there") {
        let entry = entry.expect("it can be listed");
        let mode = entry
            .metadata()
            .expect("and looked at")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
    }
}

#[tokio::test]
async fn what_was_erased_is_in_no_byte_of_the_files() {
    let (file, view) = (File::new(), users());
    let mut sink = prepared(&file, &view).await;
    let canary = "canary-9f8e7d6c5b4a";
    for version in 1..=3 {
        sink.write(&[user(&view, version, &["p1", canary, "p2"])])
            .await
            .expect("written");
    }
    let mut log = file.path().into_os_string();
    log.push("-wal");
    assert!(
        found(file.folder.path(), canary),
        "the scan finds what is there"
    );
    assert_eq!(sink.erase(canary).await, Ok(1));
    assert!(!found(file.folder.path(), canary));
    assert_eq!(std::fs::metadata(&log).map(|m| m.len()).ok(), Some(0));
}

/// Whether a text is in any file of the folder. Another process looks: closing the file in this
/// one would drop SQLite's locks.
fn found(folder: &Path, text: &str) -> bool {
    let output = Command::new("grep")
        .args(["-rlaF", text])
        .arg(folder)
        .output();
    !output.expect("grep is installed").stdout.is_empty()
}

#[tokio::test]
async fn an_erasure_says_so_where_a_reader_keeps_the_log() {
    let (file, view) = (File::new(), users());
    let mut sink = prepared(&file, &view).await;
    sink.write(&[user(&view, 1, &["p1", "p2"])])
        .await
        .expect("written");
    let mut reader = file.reader();
    let reading = reader.transaction().expect("a read can begin");
    let count: i64 = reading
        .query_row("SELECT count(*) FROM users", [], |r| r.get(0))
        .expect("read");
    assert_eq!(count, 2);
    assert!(matches!(
        sink.erase("p1").await,
        Err(SinkError::Locked { .. })
    ));
    drop(reading);
    assert_eq!(sink.erase("p1").await, Ok(0));
}

#[tokio::test]
async fn a_lock_that_ends_is_waited_for() {
    let (file, view) = (File::new(), users());
    let mut sink = prepared(&file, &view).await;
    let other = Connection::open(file.path()).expect("another program opens it");
    other
        .execute_batch("BEGIN IMMEDIATE")
        .expect("and locks it");
    let updates = [user(&view, 1, &["p1"])];
    let write = sink.write(&updates);
    let unlock = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        other.execute_batch("COMMIT").expect("and lets go");
    };
    let (written, ()) = tokio::join!(write, unlock);
    assert_eq!(written, Ok(Written::default()));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(
        at("text"),
        "not a database, but long enough to be read as one".repeat(99),
    )
    .expect("a file can be written");
    let table = |name: &str, sql: &str| {
        let made = Connection::open(at(name)).and_then(|c| c.execute_batch(sql));
        made.expect("the table can be made");
    };
    table(
        "foreign",
        "CREATE TABLE users (id INTEGER PRIMARY KEY, age INTEGER)",
    );
    table(
        "versionless",
        "CREATE TABLE users (_key TEXT PRIMARY KEY, age INTEGER)",
    );
    table("view", "CREATE VIEW users AS SELECT 1 AS age");
    for (path, text) in [
        (at("no/such/folder.sqlite"), "cannot open the store"),
        (folder.path().to_owned(), "cannot open the store"),
        (at("text"), "is not a SQLite database"),
        (
            at("foreign"),
            "was not made by falaj: its primary key is not `_key`",
        ),
        (
            at("versionless"),
            "was not made by falaj: it has no column `_version`",
        ),
        (
            at("view"),
            "was not made by falaj: its primary key is not `_key`",
        ),
    ] {
        let mut sink = SqliteSink::new(path.clone(), Retention::new());
        let error = sink.prepare(&[users()]).await.expect_err(text);
        assert!(
            error.to_string().contains(text),
            "{}: {error}",
            path.display()
        );
        assert!(error.hint().is_some(), "{error}");
        sink.drop_view("users")
            .await
            .expect_err("what is not falaj's is not dropped");
        assert!(matches!(
            sink.write(&[user(&users(), 1, &["p1"])]).await,
            Err(SinkError::UnknownView { .. })
        ));
    }
}

#[tokio::test]
async fn a_view_whose_names_sqlite_cannot_take_is_refused() {
    for (name, columns, cause) in [
        ("sqlite_users", vec!["pid"], "SQLite's own"),
        ("users", vec!["_key"], "the column `_key` is falaj's own"),
        (
            "users",
            vec!["_VERSION"],
            "the column `_VERSION` is falaj's own",
        ),
        ("users", vec!["age", "Age"], "two columns named `Age`"),
    ] {
        let columns: Vec<_> = columns.into_iter().map(|c| (c, DataType::Utf8)).collect();
        let error = File::new()
            .sink()
            .await
            .prepare(&[view(name, &columns)])
            .await;
        let error = error.expect_err(cause).to_string();
        assert!(error.contains(cause), "{error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_removed_is_not_written_into_the_void() {
    let (file, view) = (File::new(), users());
    let mut sink = prepared(&file, &view).await;
    sink.write(&[user(&view, 1, &["p1"])])
        .await
        .expect("written");
    let aside = file.folder.path().join("aside");
    std::fs::rename(file.path(), &aside).expect("it can be moved");
    let moved = Err(SinkError::Moved {
        store: file.path().display().to_string(),
    });
    for _ in 0..2 {
        assert_eq!(sink.write(&[user(&view, 2, &["p2"])]).await, moved);
    }
    assert_eq!(sink.erase("p1").await.err(), moved.err());
    std::fs::rename(&aside, file.path()).expect("and moved back");
    sink.write(&[user(&view, 2, &["p2"])])
        .await
        .expect("it goes on");
    assert_eq!(file.query("SELECT group_concat(_key) FROM users"), "p1,p2");
}

#[tokio::test]
async fn no_error_and_no_refusal_quotes_a_row() {
    let (file, view) = (File::new(), users());
    let mut sink = prepared(&file, &view).await;
    let other = Connection::open(file.path()).expect("another program opens it");
    other
        .execute_batch(
            "CREATE TRIGGER no BEFORE INSERT ON users BEGIN SELECT RAISE(ABORT, 'no canary'); END",
        )
        .expect("and forbids rows");
    let written = sink.write(&[user(&view, 1, &["canary"])]).await;
    let refused = written.expect("the others are written").refused;
    assert_eq!(refused.len(), 1);
    let text = format!("{refused:?}");
    assert!(!text.contains("canary"), "{text}");
    other.execute_batch("DROP TABLE users").expect("dropped");
    let error = sink
        .write(&[user(&view, 1, &["canary"])])
        .await
        .expect_err("the table is gone");
    let texts = format!("{error} {error:?} {:?}", error.hint());
    assert!(!texts.contains("canary"), "{texts}");
}
