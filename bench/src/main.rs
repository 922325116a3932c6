//! What falaj costs, measured beside the floor of the same run; see `README.md` in this folder.
//!
//! Always: each scenario runs in a process of its own, so CPU time and memory are its own.
//! Always: what a scenario computes is checked; a wrong result ends the run.
//! Absent on purpose: limits on timings. Machines differ, people judge.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

mod answer;
mod client;
mod cluster;
mod example;
mod floor;
mod listener;
mod measure;
mod process;
mod scenarios;
mod stores;
mod table;

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Parser;
use falaj_randomuser::Domains;
use falaj_servers::{Kafka, KafkaOptions};

use crate::measure::Machine;
use crate::scenarios::{Data, Outcome, Scenario};
use crate::table::Row;

/// Measures what falaj costs and prints a table in Markdown.
#[derive(Parser)]
struct Cli {
    /// Over a real Kafka, which is started for it: reading a topic by hand and by falaj.
    #[arg(long, conflicts_with = "listener")]
    kafka: bool,
    /// The embedded log's listener next to a real Kafka, by the same client.
    #[arg(long)]
    listener: bool,
    /// Views in SQLite, Cassandra and what plays MongoDB, next to loops by hand in their drivers.
    #[arg(long, conflicts_with_all = ["kafka", "listener"])]
    stores: bool,
    /// How many records; with `--listener`, messages of 1 KiB.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// How often each scenario runs; the table holds medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where data set, topics and servers are made [default: the system's temporary folder].
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Runs one scenario over a data set that is there; how the runner calls itself.
    #[arg(long, hide = true, requires = "dir")]
    only: Option<Scenario>,
    /// The cluster of that scenario.
    #[arg(long, hide = true, default_value = "")]
    brokers: String,
}

fn main() {
    let cli = Cli::parse();
    let data = |folder: &Path, scratch: PathBuf| Data {
        records: cli.records,
        file: folder.join("records.ndjson"),
        topic: folder.join("topic"),
        scratch,
        brokers: cli.brokers.clone(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    if let (Some(scenario), Some(folder)) = (cli.only, &cli.dir) {
        let scratch = tempfile::tempdir_in(folder).expect("the folder can be written");
        let data = data(folder, scratch.path().to_owned());
        let outcome = runtime.block_on(scenarios::run(scenario, &data));
        println!("{}", serde_json::to_string(&outcome).expect("plain data"));
        return;
    }
    let machine = Machine::watch();
    let folder = cli.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(folder).expect("the folder can be written");
    if cli.stores {
        let data = data(folder.path(), folder.path().to_owned());
        generate(&data);
        let stores = stores::Stores::start();
        let (records, rounds) = (cli.records, cli.rounds);
        let measuring = stores::measure(&stores, folder.path(), &data.file, records, rounds);
        print!("{}", runtime.block_on(measuring));
        let others = machine.others(stores.cpu_s());
        println!("\nOthers took {others:.0} % of the machine's CPU time meanwhile.");
        return;
    }
    let kafka = (cli.kafka || cli.listener).then(|| kafka(folder.path()));
    let table = match &kafka {
        Some(kafka) if cli.listener => runtime.block_on(listener::measure(
            kafka,
            folder.path(),
            cli.records,
            cli.rounds,
        )),
        kafka => {
            let data = data(folder.path(), folder.path().to_owned());
            let bytes = generate(&data);
            let rows = measure(&cli, folder.path(), kafka.as_ref());
            let floors: &[Scenario] = match kafka {
                Some(_) => &[Scenario::KafkaParse, Scenario::KafkaParseCleared],
                None => &[Scenario::FloorParse],
            };
            table::table(&rows, cli.records, bytes, floors)
        }
    };
    print!("{table}");
    let servers_s = kafka.map_or(0.0, |kafka| kafka.cpu().as_secs_f64());
    println!(
        "\nOthers took {:.0} % of the machine's CPU time meanwhile.",
        machine.others(servers_s)
    );
}

/// A real Kafka as it is shipped, its data in `folder`.
fn kafka(folder: &Path) -> Kafka {
    eprintln!("starting a Kafka");
    let options = KafkaOptions {
        shipped: true,
        folder: Some(folder.to_owned()),
        ..KafkaOptions::default()
    };
    Kafka::start(&options).expect("Java and Maven are there")
}

/// Writes the data set and gives its size.
fn generate(data: &Data) -> u64 {
    eprintln!("generating {} records", data.records);
    let rare: Vec<String> = (0..200).map(|n| format!("rare{n}.example")).collect();
    let common = [
        ("mail.example", 300),
        ("post.example", 250),
        ("inbox.example", 150),
        ("example.com", 100),
        ("example.org", 60),
        ("example.net", 40),
        ("letters.example", 20),
    ];
    let all = common
        .into_iter()
        .chain(rare.iter().map(|domain| (domain.as_str(), 1)));
    let domains = Domains::new(all).expect("they are right");
    let file = File::create(&data.file).expect("the folder can be written");
    let mut out = BufWriter::with_capacity(1 << 20, file);
    falaj_randomuser::write_ndjson(&mut out, data.records, "42", &domains).expect("there is room");
    out.flush().expect("there is room");
    fs::metadata(&data.file).expect("it was written").len()
}

/// Runs all scenarios, one round after the other.
fn measure(cli: &Cli, folder: &Path, kafka: Option<&Kafka>) -> Vec<Row> {
    let run = |scenario| run(scenario, cli.records, folder, kafka);
    let broker_s = || kafka.map_or(0.0, |kafka| kafka.cpu().as_secs_f64());
    if kafka.is_some() {
        eprintln!("filling the topics");
        run(Scenario::KafkaFill);
        // So that the first round meets a broker that has served readers.
        run(Scenario::KafkaRead);
        run(Scenario::KafkaReadCleared);
    } else {
        run(Scenario::Fill);
    }
    let scenarios = Scenario::all(kafka.is_some());
    let mut rows: Vec<Row> = scenarios.map(Row::new).collect();
    let mut expected = None;
    for round in 1..=cli.rounds {
        for row in &mut rows {
            let name = row.scenario.name();
            eprintln!("round {round} of {}: {name}", cli.rounds);
            let before_s = broker_s();
            let Outcome { cost, answer } = run(row.scenario);
            row.costs.push(cost);
            if kafka.is_some() {
                row.broker_s.push(broker_s() - before_s);
            }
            let Some(answer) = answer else { continue };
            assert!(
                answer.is_of(cli.records),
                "`{name}` does not count every record once"
            );
            // Compared by hand: a panic must not print what the records say.
            let first = expected.get_or_insert(answer.clone());
            assert!(
                *first == answer,
                "`{name}` says something else than the floor"
            );
        }
    }
    rows
}

/// Runs one scenario in a process of its own.
fn run(scenario: Scenario, records: u64, folder: &Path, kafka: Option<&Kafka>) -> Outcome {
    let name = scenario.name();
    let mut command = Command::new(std::env::current_exe().expect("it is there"));
    command
        .args(["--only", &name, "--records", &records.to_string(), "--dir"])
        .arg(folder);
    if let Some(kafka) = kafka {
        command.args(["--brokers", &kafka.brokers()]);
    }
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.expect("it can start itself");
    assert!(output.status.success(), "`{name}` failed");
    serde_json::from_slice(&output.stdout).expect("its outcome")
}
