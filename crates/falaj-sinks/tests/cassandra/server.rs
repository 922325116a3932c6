//! A server for all tests, with a keyspace and a role for each; another one for those that end it.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use falaj_record::{Column, Reason, Value, ViewInfo, ViewKind, ViewUpdate, Window};
use falaj_servers::{Cassandra, CassandraOptions};
use falaj_sinks::conformance::{Misfit, Outage, Store, StoredRow};
use falaj_sinks::{CassandraConfig, CassandraSink, Places, Retention, Sink, SinkError, Terms};
use futures::TryStreamExt;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::value::{CqlDecimal, CqlValue, Row};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// Everybody's password.
const PASSWORD: &str = "not-so-secret";
/// A row of more bytes than this is too large.
const MUTATION_MAX: &str = "1MiB";

/// A keyspace of its own, not made yet, and a role that may make it.
pub struct Keyspace {
    server: &'static Cassandra,
    pub admin: Session,
    pub name: String,
    folder: TempDir,
    /// Of the server that nobody else may use meanwhile.
    _alone: Option<MutexGuard<'static, ()>>,
}

fn shared() -> Option<&'static Cassandra> {
    static SERVER: LazyLock<Option<Cassandra>> = LazyLock::new(|| {
        Cassandra::start(&CassandraOptions {
            password: true,
            tls: true,
            durable: false,
            settings: vec![
                ("max_mutation_size".into(), MUTATION_MAX.into()),
                // A rule that no row of a sink can follow.
                (
                    "write_consistency_levels_disallowed".into(),
                    "[EACH_QUORUM]".into(),
                ),
            ],
        })
    });
    SERVER.as_ref()
}

/// A keyspace on the server that all share.
pub async fn new_store() -> Option<Keyspace> {
    Some(Keyspace::on(shared()?, None).await)
}

/// A keyspace on a server that nobody else uses at the same time, and that loses nothing.
pub async fn alone() -> Option<Keyspace> {
    static SERVER: LazyLock<Option<Cassandra>> = LazyLock::new(|| {
        Cassandra::start(&CassandraOptions {
            password: true,
            durable: true,
            // A guardrail that only a wrong clock breaks.
            settings: vec![("maximum_timestamp_fail_threshold".into(), "365d".into())],
            ..CassandraOptions::default()
        })
    });
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    Some(Keyspace::on(SERVER.as_ref()?, Some(turn)).await)
}

impl Keyspace {
    async fn on(server: &'static Cassandra, alone: Option<MutexGuard<'static, ()>>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("case_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for (file, text) in [("password", PASSWORD), ("wrong", "guessed")] {
            std::fs::write(folder.path().join(file), text).expect("a file can be written");
        }
        let keyspace = Self {
            server,
            admin: admin(server).await,
            name,
            folder,
            _alone: alone,
        };
        let role = &keyspace.name;
        keyspace
            .cql(&format!(
                "CREATE ROLE {role} WITH PASSWORD = '{PASSWORD}' AND LOGIN = true"
            ))
            .await;
        keyspace
            .cql(&format!("GRANT CREATE ON ALL KEYSPACES TO {role}"))
            .await;
        keyspace
    }

    pub fn server(&self) -> &'static Cassandra {
        self.server
    }

    /// The settings as a user would write them, and more of them.
    pub fn config(&self, more: &str) -> CassandraConfig {
        let address = self.server.address();
        self.config_at(&address, more)
    }

    pub fn config_at(&self, address: &str, more: &str) -> CassandraConfig {
        let name = &self.name;
        let mut text = format!("nodes = ['{address}']\nkeyspace = '{name}'\n");
        for (key, value) in [
            ("user", format!("'{name}'")),
            ("password", "{ file = 'password' }".into()),
        ] {
            if !more.contains(&format!("{key} =")) {
                writeln!(text, "{key} = {value}").expect("memory takes it");
            }
        }
        toml::from_str(&(text + more)).expect("the settings are right")
    }

    pub fn places(&self) -> Places<'_> {
        Places {
            pipeline: self.folder.path(),
            data: Path::new("/nowhere"),
        }
    }

    pub fn sink_of(&self, config: &CassandraConfig) -> Result<CassandraSink, SinkError> {
        CassandraSink::new(config, self.places(), Retention::new())
    }

    /// A sink with more settings.
    pub fn sink_with(&self, more: &str) -> CassandraSink {
        let sink = self.sink_of(&self.config(more));
        sink.expect("the settings can be used")
    }

    pub fn sink_that_keeps(&self, terms: impl Into<Terms>) -> CassandraSink {
        let sink = CassandraSink::new(&self.config(""), self.places(), terms);
        sink.expect("the settings can be used")
    }

    /// Waits until the server asks for rights again.
    pub async fn rights_change(&self) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// Runs a statement as somebody who may do everything.
    pub async fn cql(&self, statement: &str) -> Vec<Row> {
        let pager = self.admin.query_iter(statement, ()).await;
        let rows = pager.expect(statement).rows_stream::<Row>();
        let rows = rows.expect("any row will do");
        rows.try_collect().await.expect(statement)
    }

    /// What the shell that most people use shows: a row a line, values as it writes them.
    pub fn cqlsh(&self, statement: &str) -> Vec<Vec<String>> {
        let statement = format!("USE {}; {statement}", self.name);
        let output = self
            .server
            .cqlsh(&statement)
            .expect("Python is there")
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{statement}: {complaint}");
        // Behind the line under the heads, up to the blank line before the number of rows.
        let lines = said.lines().skip_while(|line| !line.starts_with("--"));
        let lines = lines.skip(1).take_while(|line| !line.trim().is_empty());
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
        lines.map(cells).collect()
    }

    /// The primary key of a table, as Cassandra tells of it.
    pub async fn key(&self, table: &str) -> String {
        let columns = self
            .cql(&format!(
                "SELECT column_name, kind, position, clustering_order FROM system_schema.columns \
                 WHERE keyspace_name = '{}' AND table_name = '{table}'",
                self.name
            ))
            .await;
        let text = |row: &Row, at: usize| match &row.columns[at] {
            Some(CqlValue::Text(text)) => text.clone(),
            _ => String::new(),
        };
        let part = |kind: &str| {
            let mut part: Vec<_> = columns
                .iter()
                .filter(|row| text(row, 1) == kind)
                .map(|row| {
                    let order = if text(row, 3) == "desc" { " DESC" } else { "" };
                    let at = row.columns[2].as_ref().and_then(CqlValue::as_int);
                    (at, format!("{}{order}", text(row, 0)))
                })
                .collect();
            part.sort();
            let names = part.into_iter().map(|(_, name)| name);
            names.collect::<Vec<_>>().join(", ")
        };
        match part("clustering").as_str() {
            "" => format!("(({}))", part("partition_key")),
            clustering => format!("(({}), {clustering})", part("partition_key")),
        }
    }
}

async fn admin(server: &Cassandra) -> Session {
    let builder = SessionBuilder::new()
        .known_node(server.address())
        .user(Cassandra::USER, Cassandra::USER);
    builder.build().await.expect("the administrator can log in")
}

#[async_trait]
impl Store for Keyspace {
    async fn sink_on(&self, terms: Terms) -> Box<dyn Sink> {
        Box::new(self.sink_that_keeps(terms))
    }

    async fn rows(&self, view: &ViewInfo) -> Vec<StoredRow> {
        let statement = format!("SELECT * FROM {}.\"{}\"", self.name, view.name);
        // The driver comes back to a server that was away later than the sink's.
        let until = Instant::now() + Duration::from_mins(1);
        let pager = loop {
            match self.admin.query_iter(statement.as_str(), ()).await {
                Ok(pager) => break pager,
                Err(error) => assert!(Instant::now() < until, "the table can be read: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        let names: Vec<String> = pager
            .column_specs()
            .iter()
            .map(|column| column.name().to_owned())
            .collect();
        let rows = pager.rows_stream::<Row>().expect("any row will do");
        let rows: Vec<Row> = rows.try_collect().await.expect("every row can be read");
        let stored = |row: Row| {
            let mut values: HashMap<&str, Option<CqlValue>> =
                names.iter().map(String::as_str).zip(row.columns).collect();
            stored_row(view, &mut values)
        };
        let mut rows: Vec<_> = rows.into_iter().map(stored).collect();
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        rows
    }

    async fn make_read_only(&self) {
        let name = &self.name;
        // Who makes something may do everything with it.
        let tables =
            format!("SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{name}'");
        for row in self.cql(&tables).await {
            let Some(CqlValue::Text(table)) = &row.columns[0] else {
                panic!("a table without a name");
            };
            self.cql(&format!(
                "REVOKE MODIFY ON TABLE {name}.\"{table}\" FROM {name}"
            ))
            .await;
        }
        self.cql(&format!("REVOKE MODIFY ON KEYSPACE {name} FROM {name}"))
            .await;
        self.rights_change().await;
    }

    async fn refused_text(&self, _: &ViewInfo) -> (String, Reason) {
        ("long ".repeat(300_000), Reason::TooLargeForStore)
    }

    async fn misfits(&self) -> Vec<Misfit> {
        let sink = |more: &str| Box::new(self.sink_with(more));
        vec![
            Misfit {
                what: "a wrong password",
                sink: sink("password = { file = 'wrong' }"),
                told_by: |error| matches!(error, SinkError::Login { .. }),
            },
            Misfit {
                what: "a user that nobody knows",
                sink: sink("user = 'nobody'"),
                told_by: |error| matches!(error, SinkError::Login { .. }),
            },
            Misfit {
                what: "no keyspace, and none to be made",
                sink: sink("create = false"),
                told_by: |error| matches!(error, SinkError::Missing { .. }),
            },
            Misfit {
                what: "a datacenter that the cluster does not have",
                sink: sink("local_dc = 'atlantis'"),
                told_by: |error| {
                    matches!(
                        error,
                        SinkError::Setting {
                            key: "local_dc",
                            ..
                        }
                    )
                },
            },
        ]
    }

    async fn outage(&self, outage: Outage) {
        let server = self.server;
        match outage {
            Outage::Stalled(time) => {
                server.pause();
                std::thread::spawn(move || {
                    std::thread::sleep(time);
                    server.resume();
                });
            }
            Outage::Ended => {
                server.kill();
                std::thread::spawn(move || server.restart());
            }
        }
    }
}

fn stored_row(view: &ViewInfo, values: &mut HashMap<&str, Option<CqlValue>>) -> StoredRow {
    let micros = |values: &HashMap<&str, Option<CqlValue>>, name: &str| {
        let beside = values.get(format!("_{name}_us").as_str());
        match beside {
            Some(Some(CqlValue::SmallInt(micros))) => i64::from(*micros),
            _ => 0,
        }
    };
    let (Some(Some(CqlValue::Text(key))), Some(Some(CqlValue::BigInt(version)))) =
        (values.remove("_key"), values.remove("_version"))
    else {
        panic!("a row without key or version");
    };
    let value = |column: &Column| {
        let micros = micros(values, &column.name);
        // A column that the view has no longer is not there.
        let stored = values.get(column.name.as_str()).cloned().flatten();
        value(stored, micros, column)
    };
    let values: Vec<Json> = view.columns.iter().map(value).collect();
    StoredRow {
        key,
        version,
        values,
    }
}

/// A stored value as the view's value: the type in the table must be the one its column asks for.
fn value(stored: Option<CqlValue>, micros: i64, column: &Column) -> Json {
    let value = match (stored, &column.data_type) {
        (None, _) => Value::Null,
        (Some(CqlValue::Boolean(v)), DataType::Boolean) => Value::Bool(v),
        (Some(CqlValue::BigInt(v)), DataType::Int64) => Value::Int(v),
        (Some(CqlValue::Double(v)), DataType::Float64) => Value::Float(v),
        (Some(CqlValue::Text(v)), DataType::Utf8) => Value::Text(v),
        (Some(CqlValue::Date(v)), DataType::Date32) => {
            Value::Date(i32::try_from(i64::from(v.0) - (1 << 31)).expect("a date of a view"))
        }
        (Some(CqlValue::Timestamp(v)), DataType::Timestamp(..)) => {
            Value::Timestamp(v.0 * 1000 + micros)
        }
        (Some(CqlValue::Decimal(v)), DataType::Decimal128(_, scale)) => {
            Value::Decimal(decimal(&v, *scale))
        }
        (Some(_), other) => panic!("another type in a column for {other}"),
    };
    value.json()
}

fn decimal(decimal: &CqlDecimal, scale: i8) -> String {
    let (bytes, exponent) = decimal.as_signed_be_bytes_slice_and_exponent();
    assert_eq!(exponent, i32::from(scale));
    let negative = bytes[0] & 0x80 != 0;
    let mut all = [if negative { 0xff } else { 0 }; 16];
    all[16 - bytes.len()..].copy_from_slice(bytes);
    let scale = usize::try_from(scale).expect("digits behind the point");
    let value = i128::from_be_bytes(all);
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if negative { "-" } else { "" })
}

pub const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
pub const MINUTE_US: i64 = 60_000_000;
/// 2026-01-01.
pub const NEW_YEAR_US: i64 = 1_767_225_600_000_000;

/// A column: name, type, whether it is a group, whether it may be NULL.
pub type Given = (&'static str, DataType, bool, bool);

/// A view; `window` is the size of its windows, whose start is in the column `start`.
pub fn view(name: &str, kind: ViewKind, columns: &[Given], window: Option<i64>) -> Arc<ViewInfo> {
    let column = |(name, data_type, key, nullable): &Given| Column {
        name: (*name).to_owned(),
        data_type: data_type.clone(),
        key: *key,
        nullable: *nullable,
    };
    Arc::new(ViewInfo {
        name: name.to_owned(),
        kind,
        columns: columns.iter().map(column).collect(),
        window: window.map(|size_us| Window {
            size_us,
            slide_us: size_us,
            start: columns.iter().position(|column| column.0 == "start"),
            end: None,
        }),
        fields: Vec::new(),
        sql: String::new(),
    })
}

pub fn update(
    view: &Arc<ViewInfo>,
    version: i64,
    keys: &[&str],
    lists: Vec<ArrayRef>,
) -> ViewUpdate {
    let columns = view.columns.iter();
    let fields = columns.map(|c| Field::new(&c.name, c.data_type.clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    ViewUpdate {
        view: Arc::clone(view),
        rows: RecordBatch::try_new(schema, lists).expect("columns as the view has them"),
        keys: StringArray::from(keys.to_vec()),
        version,
        watermark: None,
        people: None,
    }
}

/// `SELECT pid, nat FROM records`.
pub fn users() -> Arc<ViewInfo> {
    let columns = [
        ("pid", DataType::Utf8, true, false),
        ("nat", DataType::Utf8, false, true),
    ];
    view("users", ViewKind::Row, &columns, None)
}

/// People of one nationality.
pub fn user(view: &Arc<ViewInfo>, version: i64, pids: &[&str], nat: &str) -> ViewUpdate {
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(pids.to_vec())),
        Arc::new(StringArray::from(vec![nat; pids.len()])),
    ];
    update(view, version, pids, lists)
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since: Duration = since.expect("after 1970");
    i64::try_from(since.as_micros()).expect("before the year 294247")
}

/// Prepares views in a sink.
pub async fn prepare(sink: &mut dyn Sink, views: &[&Arc<ViewInfo>]) {
    let views: Vec<_> = views.iter().map(|view| Arc::clone(view)).collect();
    sink.prepare(&views)
        .await
        .expect("the views can be prepared");
}
