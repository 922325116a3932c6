//! A database of its own for each case, in one server or in a server of its own.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use falaj_record::{Column, Reason, Secret, Value, ViewInfo, ViewKind, ViewUpdate};
use falaj_servers::{Flavour, Mongo, MongoOptions, User};
use falaj_sinks::conformance::{Misfit, Outage, Store, StoredRow};
use falaj_sinks::{
    MongodbConfig, MongodbSink, MongodbUri, Retention, Selection, Sink, SinkError, Terms,
};
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use tempfile::TempDir;

pub const PASSWORD: &str = "p@ss/w:rd%1";

/// The server that most cases share, each with a database of its own.
fn shared() -> &'static Arc<Mongo> {
    static SHARED: OnceLock<Arc<Mongo>> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mongo = start(&with_login());
        // Past what the test harness holds back.
        let _ = writeln!(
            std::io::stderr(),
            "MongoDB tests run against: {}",
            mongo.flavour()
        );
        mongo
    })
}

pub fn with_login() -> MongoOptions {
    MongoOptions {
        user: Some(User {
            name: "root".into(),
            password: "root-secret".into(),
        }),
        ..MongoOptions::default()
    }
}

pub fn start(options: &MongoOptions) -> Arc<Mongo> {
    Arc::new(Mongo::start(options).expect("Python 3 with its module venv is installed"))
}

/// A database of its own, and a user who may read and write it and nothing else.
pub struct Database {
    pub mongo: Arc<Mongo>,
    pub name: String,
    pub folder: TempDir,
}

pub async fn new_store() -> Database {
    let mongo = tokio::task::spawn_blocking(|| Arc::clone(shared())).await;
    Database::new(mongo.expect("it starts")).await
}

/// A database in a server of its own, which may be killed.
pub async fn store_of_its_own() -> Database {
    let options = MongoOptions {
        own: true,
        ..with_login()
    };
    let mongo = tokio::task::spawn_blocking(move || start(&options)).await;
    Database::new(mongo.expect("it starts")).await
}

impl Database {
    pub async fn new(mongo: Arc<Mongo>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let database = Self {
            mongo,
            name: format!("falaj_test_{}_{number}", std::process::id()),
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
        };
        std::fs::write(database.folder.path().join("password"), PASSWORD).expect("written");
        let role = doc! { "role": "readWrite", "db": &database.name };
        database.make_user("falaj", vec![role]).await;
        database
    }

    pub async fn make_user(&self, name: &str, roles: Vec<Document>) {
        let command = doc! { "createUser": name, "pwd": PASSWORD, "roles": roles };
        self.run(command).await;
    }

    /// As somebody who may do everything would.
    pub async fn run(&self, command: Document) -> Document {
        let client = self.client().await;
        let reply = client.database(&self.name).run_command(command).await;
        client.shutdown().immediate(true).await;
        reply.expect("the command works")
    }

    pub async fn client(&self) -> Client {
        let client = Client::with_uri_str(self.mongo.root_uri()).await;
        client.expect("it is a connection string")
    }

    pub fn config(&self) -> MongodbConfig {
        MongodbConfig {
            uri: MongodbUri::Text(with_option(
                &self.mongo.uri(),
                &format!("authSource={}", self.name),
            )),
            database: self.name.clone(),
            user: Some("falaj".into()),
            password: Some(Secret::File("password".into())),
            ca: None,
            create: true,
            views: Selection::default(),
        }
    }

    pub fn sink_of(&self, config: &MongodbConfig, terms: impl Into<Terms>) -> Box<dyn Sink> {
        let sink = MongodbSink::new(config, self.folder.path(), terms);
        Box::new(sink.expect("the settings can be used"))
    }

    pub async fn documents(&self, collection: &str) -> Vec<Document> {
        let command = doc! { "find": collection, "batchSize": 1_000_000, "sort": { "_id": 1 } };
        let client = self.client().await;
        let database = client.database(&self.name);
        let mut cursor = database.run_cursor_command(command).await.expect("found");
        let mut documents = Vec::new();
        while cursor.advance().await.expect("it can be read") {
            documents.push(cursor.deserialize_current().expect("it is a document"));
        }
        drop(cursor);
        client.shutdown().immediate(true).await;
        documents
    }

    /// Names of all collections, sorted.
    pub async fn collections(&self) -> Vec<String> {
        let client = self.client().await;
        let names = client.database(&self.name).list_collection_names().await;
        client.shutdown().immediate(true).await;
        let mut names = names.expect("they can be listed");
        names.sort_unstable();
        names
    }

    /// Names of a collection's indexes, sorted.
    pub async fn indexes(&self, collection: &str) -> Vec<String> {
        let client = self.client().await;
        let collection = client
            .database(&self.name)
            .collection::<Document>(collection);
        let names = collection.list_index_names().await;
        client.shutdown().immediate(true).await;
        let mut names = names.expect("they can be listed");
        names.sort_unstable();
        names
    }

    /// The one document of a collection.
    pub async fn only(&self, collection: &str) -> Document {
        let mut documents = self.documents(collection).await;
        assert_eq!(documents.len(), 1);
        documents.remove(0)
    }

    /// What MongoDB's own driver for Python prints, given the database as `db`.
    pub fn python(&self, code: &str) -> String {
        let prelude = "import sys\nfrom pymongo import MongoClient\ndb = MongoClient(sys.argv[1])[sys.argv[2]]\n";
        let output = self
            .mongo
            .python()
            .args(["-c", &format!("{prelude}{code}")])
            .args([&self.mongo.root_uri(), &self.name])
            .output()
            .expect("Python is there");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Database {
    /// Leaves nothing behind in somebody's server; others are gone with their folder.
    fn drop(&mut self) {
        if *self.mongo.flavour() == Flavour::Given {
            self.python(
                "db.command('dropAllUsersFromDatabase')\n\
                 db.command('dropAllRolesFromDatabase')\n\
                 db.client.drop_database(db.name)",
            );
        }
    }
}

pub fn with_option(uri: &str, option: &str) -> String {
    match uri.split_once("://").map(|(_, rest)| rest) {
        Some(rest) if rest.contains('?') => format!("{uri}&{option}"),
        Some(rest) if rest.contains('/') => format!("{uri}?{option}"),
        _ => format!("{uri}/?{option}"),
    }
}

#[async_trait]
impl Store for Database {
    async fn sink_on(&self, terms: Terms) -> Box<dyn Sink> {
        self.sink_of(&self.config(), terms)
    }

    async fn rows(&self, view: &ViewInfo) -> Vec<StoredRow> {
        let documents = self.documents(&view.name).await;
        let row = |document: &Document| {
            let key = document.get_str("_key").expect("a key");
            assert_eq!(document.get_str("_id").ok(), Some(key));
            let value = |column| stored(document, column).json();
            StoredRow {
                key: key.to_owned(),
                version: document.get_i64("_version").expect("a version"),
                values: view.columns.iter().map(value).collect(),
            }
        };
        documents.iter().map(row).collect()
    }

    /// Its user may read, and no more.
    async fn make_read_only(&self) {
        let role = doc! { "role": "read", "db": &self.name };
        self.run(doc! { "updateUser": "falaj", "roles": [role] })
            .await;
    }

    /// MongoDB takes every text, so the collection gets a rule of somebody's.
    async fn refused_text(&self, view: &ViewInfo) -> (String, Reason) {
        let places = doc! { "nat": { "not": { "enum": ["Atlantis"] } } };
        let rule = doc! { "$jsonSchema": { "properties": places } };
        self.run(doc! { "collMod": &view.name, "validator": rule })
            .await;
        ("Atlantis".into(), Reason::RefusedByStore)
    }

    async fn misfits(&self) -> Vec<Misfit> {
        self.make_user("nobody", Vec::new()).await;
        self.run(doc! { "insert": "counts", "documents": [{ "_id": 1 }] })
            .await;
        std::fs::write(self.folder.path().join("guessed"), "guessed").expect("written");
        let config = || self.config();
        let misfit = |what, config, told_by| Misfit {
            what,
            sink: self.sink_of(&config, Retention::new()),
            told_by,
        };
        vec![
            misfit(
                "a wrong password",
                MongodbConfig {
                    password: Some(Secret::File("guessed".into())),
                    ..config()
                },
                |error| matches!(error, SinkError::Login { .. }),
            ),
            misfit(
                "no login where one is asked for",
                MongodbConfig {
                    user: None,
                    password: None,
                    ..config()
                },
                |error| matches!(error, SinkError::Login { .. }),
            ),
            misfit(
                "a user who may do nothing",
                MongodbConfig {
                    user: Some("nobody".into()),
                    ..config()
                },
                |error| matches!(error, SinkError::Forbidden { .. }),
            ),
            misfit("somebody's collection", config(), |error| {
                matches!(error, SinkError::ForeignTable { .. })
            }),
        ]
    }

    fn many_rows(&self) -> i64 {
        match self.mongo.flavour() {
            // It syncs its disk for every row.
            Flavour::SecantusDb(_) => 5000,
            _ => 100_000,
        }
    }

    async fn outage(&self, outage: Outage) {
        let mongo = Arc::clone(&self.mongo);
        match outage {
            Outage::Stalled(time) => {
                mongo.pause();
                std::thread::spawn(move || {
                    std::thread::sleep(time);
                    mongo.resume();
                });
            }
            Outage::Ended => {
                // In the middle of what it does, a little later.
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(300));
                    mongo.kill();
                    std::thread::sleep(Duration::from_secs(1));
                    mongo.restart();
                });
            }
        }
    }
}

/// A stored value as the view's value: the type in the document must be the documented one.
fn stored(document: &Document, column: &Column) -> Value {
    let micros = || {
        let all = document.get_document("_micros").ok();
        all.map_or(0, |all| all.get_i32(&column.name).unwrap_or(0))
    };
    match (document.get(&column.name), &column.data_type) {
        (None | Some(Bson::Null), _) => Value::Null,
        (Some(Bson::Boolean(v)), DataType::Boolean) => Value::Bool(*v),
        (Some(Bson::Int64(v)), DataType::Int64) => Value::Int(*v),
        (Some(Bson::Double(v)), DataType::Float64) => Value::Float(*v),
        (Some(Bson::String(v)), DataType::Utf8) => Value::Text(v.clone()),
        (Some(Bson::DateTime(v)), DataType::Timestamp(..)) => {
            Value::Timestamp(v.timestamp_millis() * 1000 + i64::from(micros()))
        }
        (Some(Bson::DateTime(v)), DataType::Date32) => {
            let days = v.timestamp_millis() / 86_400_000;
            Value::Date(i32::try_from(days).expect("a day"))
        }
        (Some(Bson::Decimal128(v)), DataType::Decimal128(..)) => Value::Decimal(v.to_string()),
        // More digits than a Decimal128 has.
        (Some(Bson::String(v)), DataType::Decimal128(..)) => {
            assert!(v.bytes().filter(u8::is_ascii_digit).count() > 34);
            Value::Decimal(v.clone())
        }
        (Some(other), expected) => panic!("{:?} for {expected}", other.element_type()),
    }
}

/// A view whose first `keys` columns are its key.
pub fn view(
    name: &str,
    kind: ViewKind,
    columns: &[(&str, DataType)],
    keys: usize,
) -> Arc<ViewInfo> {
    let column = |(at, (name, data_type)): (usize, &(&str, DataType))| Column {
        name: (*name).to_owned(),
        data_type: data_type.clone(),
        key: at < keys,
        nullable: true,
    };
    Arc::new(ViewInfo {
        name: name.to_owned(),
        kind,
        columns: columns.iter().enumerate().map(column).collect(),
        window: None,
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
    let fields = view
        .columns
        .iter()
        .map(|c| Field::new(&c.name, c.data_type.clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    ViewUpdate {
        view: Arc::clone(view),
        rows: RecordBatch::try_new(schema, lists).expect("equal lengths"),
        keys: StringArray::from(keys.to_vec()),
        version,
        watermark: None,
        people: None,
    }
}

/// `SELECT pid, nat FROM records`.
pub fn people() -> Arc<ViewInfo> {
    let columns = [("pid", DataType::Utf8), ("nat", DataType::Utf8)];
    view("people", ViewKind::Row, &columns, 1)
}

/// A row for each pid, with what stands in `nat`.
pub fn persons(view: &Arc<ViewInfo>, version: i64, rows: &[(&str, &str)]) -> ViewUpdate {
    let (pids, nats): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(pids.clone())),
        Arc::new(StringArray::from(nats)),
    ];
    update(view, version, &pids, lists)
}

/// `SELECT nat, count(*) AS users FROM records GROUP BY nat`.
pub fn counts() -> Arc<ViewInfo> {
    let columns = [("nat", DataType::Utf8), ("users", DataType::Int64)];
    view("counts", ViewKind::Aggregate, &columns, 1)
}

/// A row for each group.
pub fn groups(view: &Arc<ViewInfo>, version: i64, rows: &[(&str, i64)]) -> ViewUpdate {
    let keys: Vec<_> = rows.iter().map(|(nat, _)| format!("[\"{nat}\"]")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let (nats, users): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(nats)),
        Arc::new(Int64Array::from(users)),
    ];
    update(view, version, &keys, lists)
}

/// A sink that is ready for these views.
pub async fn prepared(store: &Database, views: &[&Arc<ViewInfo>]) -> Box<dyn Sink> {
    prepared_keeping(store, views, Retention::new()).await
}

/// A sink that is ready for these views and keeps their rows for as long.
pub async fn prepared_keeping(
    store: &Database,
    views: &[&Arc<ViewInfo>],
    retention: Retention,
) -> Box<dyn Sink> {
    let mut sink = store.sink_on(retention.into()).await;
    let views: Vec<_> = views.iter().map(|view| Arc::clone(view)).collect();
    sink.prepare(&views).await.expect("the database is ready");
    sink
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since.expect("after 1970").as_micros();
    i64::try_from(micros).expect("in this age")
}
