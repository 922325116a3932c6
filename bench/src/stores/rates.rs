//! Rows a second of each sink, next to a loop of the same writes by hand in the store's own driver.
//!
//! Always: both write the same rows with the same promise: acknowledged by the same server with the
//! same settings, and never over a newer one.
//! Each round writes every key again with a newer version, so the first, which does not count, inserts.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use falaj_record::{Column, ViewInfo, ViewKind, ViewUpdate};
use falaj_sinks::{Places, Sink, SinkConfig, Terms};
use futures::StreamExt as _;
use mongodb::bson::{Document, doc};
use rusqlite::{Connection, params};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::prepared::PreparedStatement;
use serde_json::json;

use super::Stores;
use crate::table::{highest, line, lowest, median};

/// Rows that a sink is given at once: what a fast topic gives it.
const WRITE_ROWS: usize = 10_000;
/// Writes that the loop over Cassandra has under way.
const UNDER_WAY: usize = 512;
/// Rows of a command of the loop over MongoDB.
const COMMAND_ROWS: usize = 1_000;

struct Person {
    pid: String,
    nat: &'static str,
    gender: &'static str,
    age_band: &'static str,
}

fn people(count: usize) -> Vec<Person> {
    let pick = |list: &[&'static str]| list[fastrand::usize(..list.len())];
    fastrand::seed(42);
    (0..count)
        .map(|_| Person {
            pid: std::iter::repeat_with(fastrand::lowercase)
                .take(26)
                .collect(),
            nat: pick(&["DE", "FR", "NL", "ES", "BR", "IN"]),
            gender: pick(&["female", "male"]),
            age_band: pick(&["20-29", "30-39", "40-49", "50-59"]),
        })
        .collect()
}

fn view() -> Arc<ViewInfo> {
    let column = |name: &str| Column {
        name: name.to_owned(),
        data_type: DataType::Utf8,
        key: name == "pid",
        nullable: name != "pid",
    };
    Arc::new(ViewInfo {
        name: "users".to_owned(),
        kind: ViewKind::Row,
        columns: ["pid", "nat", "gender", "age_band"].map(column).into(),
        window: None,
        fields: Vec::new(),
        sql: String::new(),
    })
}

fn update(view: &Arc<ViewInfo>, people: &[Person], version: i64) -> ViewUpdate {
    let fields: Vec<_> = view
        .columns
        .iter()
        .map(|c| Field::new(&c.name, DataType::Utf8, true))
        .collect();
    let texts = |of: fn(&Person) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(people.iter().map(of)))
    };
    let columns = vec![
        texts(|p| &p.pid),
        texts(|p| p.nat),
        texts(|p| p.gender),
        texts(|p| p.age_band),
    ];
    ViewUpdate {
        view: Arc::clone(view),
        rows: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("four columns"),
        keys: StringArray::from_iter_values(people.iter().map(|p| &p.pid)),
        version,
        watermark: None,
        people: None,
    }
}

/// The loop by hand.
enum ByHand {
    Sqlite(Connection),
    Cassandra(Box<Session>, PreparedStatement),
    Mongodb(mongodb::Database),
}

impl ByHand {
    fn sqlite(folder: &Path) -> Self {
        let connection = Connection::open(folder.join("by_hand.sqlite")).expect("there is room");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 CREATE TABLE users (pid TEXT PRIMARY KEY, nat TEXT, gender TEXT, age_band TEXT,
                 _version INTEGER) WITHOUT ROWID",
            )
            .expect("a new file");
        Self::Sqlite(connection)
    }

    async fn cassandra(address: &str) -> Self {
        let session = SessionBuilder::new().known_node(address).build().await;
        let session = session.expect("it was started");
        for statement in [
            "CREATE KEYSPACE by_hand WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
            "CREATE TABLE by_hand.users (pid text PRIMARY KEY, nat text, gender text, age_band text, \
             key text, version bigint)",
        ] {
            session.query_unpaged(statement, ()).await.expect("made");
        }
        let insert = session
            .prepare(
                "INSERT INTO by_hand.users (pid, nat, gender, age_band, key, version) \
                 VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await
            .expect("the table is there");
        Self::Cassandra(Box::new(session), insert)
    }

    async fn mongodb(uri: &str) -> Self {
        let client = mongodb::Client::with_uri_str(uri)
            .await
            .expect("an address");
        Self::Mongodb(client.database("by_hand"))
    }

    async fn write(&mut self, people: &[Person], version: i64) {
        match self {
            Self::Sqlite(connection) => {
                let transaction = connection.transaction().expect("it is ours");
                let mut upsert = transaction
                    .prepare_cached(
                        "INSERT INTO users VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (pid) DO UPDATE SET
                         nat = excluded.nat, gender = excluded.gender, age_band = excluded.age_band,
                         _version = excluded._version WHERE excluded._version > _version",
                    )
                    .expect("the table is there");
                for p in people {
                    let values = params![p.pid, p.nat, p.gender, p.age_band, version];
                    upsert.execute(values).expect("there is room");
                }
                drop(upsert);
                transaction.commit().expect("there is room");
            }
            Self::Cassandra(session, insert) => {
                let (session, insert) = (&*session, &*insert);
                futures::stream::iter(people)
                    .map(|p| async move {
                        let values = (
                            &p.pid, p.nat, p.gender, p.age_band, &p.pid, version, version,
                        );
                        session.execute_unpaged(insert, values).await
                    })
                    .buffer_unordered(UNDER_WAY)
                    .for_each(|done| async move { drop(done.expect("it takes rows")) })
                    .await;
            }
            Self::Mongodb(database) => {
                let database = &*database;
                futures::stream::iter(people.chunks(COMMAND_ROWS))
                    .map(|people| database.run_command(command(people, version)).into_future())
                    .buffer_unordered(4)
                    .for_each(|done| async move { drop(done.expect("it takes rows")) })
                    .await;
            }
        }
    }
}

fn command(people: &[Person], version: i64) -> Document {
    let updates: Vec<_> = people
        .iter()
        .map(|p| {
            doc! {
                "q": { "_id": &p.pid, "_version": { "$lt": version } },
                "u": { "pid": &p.pid, "nat": p.nat, "gender": p.gender, "age_band": p.age_band,
                       "_key": &p.pid, "_version": version },
                "upsert": true,
            }
        })
        .collect();
    doc! {
        "update": "users", "updates": updates, "ordered": false,
        "writeConcern": { "w": "majority", "j": true },
    }
}

/// A store, the loop and the sink over it.
struct Pair {
    name: &'static str,
    rows: usize,
    by_hand: ByHand,
    sink: Box<dyn Sink>,
}

/// Measures, and gives the table.
pub async fn measure(stores: &Stores, folder: &Path, records: usize, rounds: u32) -> String {
    let sink = |config| {
        let config: SinkConfig = serde_json::from_value(config).expect("a sink's settings");
        let places = Places {
            pipeline: folder,
            data: folder,
        };
        config
            .sink(places, &Terms::default())
            .expect("they are right")
    };
    let (nodes, uri) = (stores.cassandra.address(), stores.mongo.uri());
    let mut pairs = [
        Pair {
            name: "SQLite",
            rows: records,
            by_hand: ByHand::sqlite(folder),
            sink: sink(json!({ "type": "sqlite", "path": "sink.sqlite" })),
        },
        Pair {
            name: "Cassandra",
            rows: records,
            by_hand: ByHand::cassandra(&nodes).await,
            sink: sink(json!({ "type": "cassandra", "nodes": [nodes], "keyspace": "falaj" })),
        },
        Pair {
            name: stores.mongo_name,
            rows: records / 10,
            by_hand: ByHand::mongodb(&uri).await,
            sink: sink(json!({ "type": "mongodb", "uri": uri, "database": "falaj" })),
        },
    ];
    let view = view();
    let people = people(records);
    let mut text = String::new();
    let head = [
        "store",
        "rows",
        "sink, rows/s",
        "by hand, rows/s",
        "sink to by hand",
        "lowest, highest",
    ];
    line(&mut text, &head.map(str::to_owned));
    text.push_str("|---|--:|--:|--:|--:|--:|\n");
    for pair in &mut pairs {
        let prepared = pair.sink.prepare(&[Arc::clone(&view)]).await;
        prepared.expect("the store can be prepared");
        let (mut sink_s, mut by_hand_s) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            eprintln!("round {round} of {rounds}: {}", pair.name);
            let version = i64::from(round) + 1;
            let people = &people[..pair.rows];
            // In turn first, so that neither always meets the store in the better state.
            for of in [round % 2, (round + 1) % 2] {
                let start = Instant::now();
                for people in people.chunks(WRITE_ROWS) {
                    if of == 0 {
                        let updates = [update(&view, people, version)];
                        let written = pair.sink.write(&updates).await;
                        assert!(written.expect("it takes rows").refused.is_empty());
                    } else {
                        pair.by_hand.write(people, version).await;
                    }
                }
                let took = start.elapsed().as_secs_f64();
                match (round, of) {
                    (0, _) => {}
                    (_, 0) => sink_s.push(took),
                    _ => by_hand_s.push(took),
                }
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52")]
        let rate = |seconds: &[f64]| format!("{:.0}", pair.rows as f64 / median(seconds));
        let ratios: Vec<_> = sink_s.iter().zip(&by_hand_s).map(|(s, h)| h / s).collect();
        let cells = [
            pair.name.to_owned(),
            pair.rows.to_string(),
            rate(&sink_s),
            rate(&by_hand_s),
            format!("{:.2}", median(&ratios)),
            format!("{:.2}, {:.2}", lowest(&ratios), highest(&ratios)),
        ];
        line(&mut text, &cells);
    }
    for pair in pairs {
        let _ = pair.sink.close().await;
        if let ByHand::Mongodb(database) = pair.by_hand {
            database.client().clone().shutdown().await;
        }
    }
    text
}
