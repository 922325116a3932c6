//! Views in stores: how many rows a sink writes next to a loop by hand, how soon a row is visible,
//! what one more sink costs.

mod latency;
mod rates;

use std::fs;
use std::path::Path;

use falaj_servers::{Cassandra, CassandraOptions, Flavour, Mongo, MongoOptions};

use crate::example::Pipeline;
use crate::process::{Running, ledger};
use crate::table::{count, line, median};

/// Real servers, started for one run. What plays MongoDB is said in every table.
pub struct Stores {
    cassandra: Cassandra,
    mongo: Mongo,
    mongo_name: &'static str,
}

impl Stores {
    pub fn start() -> Self {
        eprintln!("starting a Cassandra and a MongoDB");
        let cassandra = Cassandra::start(&CassandraOptions::default());
        let mongo = Mongo::start(&MongoOptions::default()).expect("Python is there");
        let mongo_name = match mongo.flavour() {
            Flavour::SecantusDb(_) => "SecantusDB (plays MongoDB)",
            Flavour::Given | Flavour::Mongod(_) => "MongoDB",
        };
        Self {
            cassandra: cassandra.expect("Java and Maven are there"),
            mongo,
            mongo_name,
        }
    }

    /// CPU seconds of all servers so far.
    pub fn cpu_s(&self) -> f64 {
        (self.cassandra.cpu() + self.mongo.cpu()).as_secs_f64()
    }
}

/// Measures, and gives the tables. `file` holds the records for what one more sink costs.
pub async fn measure(
    stores: &Stores,
    folder: &Path,
    file: &Path,
    records: u64,
    rounds: u32,
) -> String {
    let rows = usize::try_from(records).expect("they are in memory");
    let rates = rates::measure(stores, folder, rows, rounds).await;
    let latency = latency::measure(stores, folder).await;
    let costs = costs(stores, folder, file, records, rounds);
    format!(
        "Rows of a row view written, {rounds} rounds, medians:\n\n{rates}\n\
         From sending a record to its view's row in the store, 1,000 records a second:\n\n{latency}\n\
         The whole line over {records} records, medians of {rounds} rounds:\n\n{costs}"
    )
}

/// A sink of a pipeline file, for each round.
type SinkText<'a> = &'a dyn Fn(u32) -> String;

/// What falaj itself takes with more and more sinks.
fn costs(stores: &Stores, folder: &Path, file: &Path, records: u64, rounds: u32) -> String {
    let (nodes, uri) = (stores.cassandra.address(), stores.mongo.uri());
    let cassandra =
        |round| format!("type = \"cassandra\"\nnodes = [\"{nodes}\"]\nkeyspace = \"line_{round}\"");
    // Each row of a person costs the stand-in a write to its disk: it gets the groups.
    let mongodb = |round| {
        let groups = "[\"users_by_nationality\", \"average_age\", \"email_domains\"]";
        format!(
            "type = \"mongodb\"\nuri = \"{uri}\"\ndatabase = \"line_{round}\"\nviews = {groups}"
        )
    };
    let variants: [(&str, Vec<SinkText<'_>>); 3] = [
        ("SQLite", vec![]),
        ("SQLite, Cassandra", vec![&cassandra]),
        (
            "SQLite, Cassandra, MongoDB (groups)",
            vec![&cassandra, &mongodb],
        ),
    ];
    let mut took: Vec<Vec<(f64, f64)>> = variants.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (at, (name, sinks)) in variants.iter().enumerate() {
            eprintln!("round {round} of {rounds}: {name}");
            let place = folder.join(format!("line_{round}_{at}"));
            fs::create_dir_all(&place).expect("there is room");
            let sinks = sinks.iter().enumerate();
            let sinks: Vec<_> = sinks
                .map(|(i, sink)| {
                    (
                        format!("more_{i}"),
                        sink(round * 10 + u32::try_from(at).unwrap_or(0)),
                    )
                })
                .collect();
            let pipeline = Pipeline::of_file(file).with_sinks(&sinks);
            let running = Running::start(&pipeline, &place, &["--until-caught-up"]);
            let (cost, stdout) = running.ended();
            assert_eq!(ledger(&stdout).topic.out, records, "it has every record");
            took[at].push((cost.cpu_s, cost.wall_s));
        }
    }
    let mut text = String::new();
    let head = [
        "sinks",
        "CPU s per million",
        "more than the row above",
        "records/s, stores included",
    ];
    line(&mut text, &head.map(str::to_owned));
    text.push_str("|---|--:|--:|--:|\n");
    let mut before = None;
    for ((name, _), took) in variants.iter().zip(&took) {
        let cpu: Vec<_> = took.iter().map(|t| t.0 / count(records) * 1e6).collect();
        let wall: Vec<_> = took.iter().map(|t| t.1).collect();
        let more = before.map_or(String::new(), |b: f64| format!("{:.2}", median(&cpu) - b));
        before = Some(median(&cpu));
        let cells = [
            (*name).to_owned(),
            format!("{:.2}", median(&cpu)),
            more,
            format!("{:.0}", count(records) / median(&wall)),
        ];
        line(&mut text, &cells);
    }
    text
}
