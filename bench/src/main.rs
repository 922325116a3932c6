//! What falaj costs, measured beside the floor of the same run; see `README.md` in this folder.
//!
//! Always: each scenario runs in a process of its own, so CPU time and memory are its own.
//! Always: what a scenario computes is checked; a wrong result ends the run.
//! Absent on purpose: limits on timings. Machines differ, people judge.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

mod answer;
mod example;
mod floor;
mod measure;
mod scenarios;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Parser, ValueEnum};
use falaj_randomuser::Domains;

use crate::measure::Cost;
use crate::scenarios::{Data, Outcome, Scenario};

/// Measures what falaj costs and prints a table in Markdown.
#[derive(Parser)]
struct Cli {
    /// How many records.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// How often each scenario runs; the table holds medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the data set is made [default: the system's temporary folder].
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Runs one scenario over a data set that is there; how the runner calls itself.
    #[arg(long, hide = true, requires = "dir")]
    only: Option<Scenario>,
}

fn main() {
    let cli = Cli::parse();
    let data = |folder: &Path, scratch: PathBuf| Data {
        records: cli.records,
        file: folder.join("records.ndjson"),
        topic: folder.join("topic"),
        scratch,
    };
    if let (Some(scenario), Some(folder)) = (cli.only, &cli.dir) {
        let scratch = tempfile::tempdir_in(folder).expect("the folder can be written");
        let data = data(folder, scratch.path().to_owned());
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let outcome = runtime.block_on(scenarios::run(scenario, &data));
        println!("{}", serde_json::to_string(&outcome).expect("plain data"));
        return;
    }
    let folder = cli.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(folder).expect("the folder can be written");
    let data = data(folder.path(), folder.path().to_owned());
    let bytes = generate(&data);
    let rows = measure(&cli, folder.path());
    print!("{}", table(&rows, cli.records, bytes, cli.rounds));
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

/// A scenario and what each of its rounds took.
type Row = (Scenario, Vec<Cost>);

/// Runs all scenarios, one round after the other.
fn measure(cli: &Cli, folder: &Path) -> Vec<Row> {
    run(Scenario::Fill, cli.records, folder);
    let scenarios = Scenario::value_variants()
        .iter()
        .filter(|s| **s != Scenario::Fill);
    let mut rows: Vec<Row> = scenarios.map(|scenario| (*scenario, Vec::new())).collect();
    let mut expected = None;
    for round in 1..=cli.rounds {
        for (scenario, costs) in &mut rows {
            eprintln!("round {round} of {}: {}", cli.rounds, scenario.name());
            let Outcome { cost, answer } = run(*scenario, cli.records, folder);
            costs.push(cost);
            let Some(answer) = answer else { continue };
            let name = scenario.name();
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
fn run(scenario: Scenario, records: u64, folder: &Path) -> Outcome {
    let name = scenario.name();
    let output = Command::new(std::env::current_exe().expect("it is there"))
        .args(["--only", &name, "--records", &records.to_string(), "--dir"])
        .arg(folder)
        .stderr(Stdio::inherit())
        .output()
        .expect("it can start itself");
    assert!(output.status.success(), "`{name}` failed");
    serde_json::from_slice(&output.stdout).expect("its outcome")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "there are fewer than 2^52 records and bytes"
)]
fn table(rows: &[Row], records: u64, bytes: u64, rounds: u32) -> String {
    let cpu = |costs: &[Cost]| median(costs, |cost| cost.cpu_s * 1e6 / records as f64);
    let of = |wanted| {
        let row = rows.iter().find(|(scenario, _)| *scenario == wanted);
        row.map_or(f64::NAN, |(_, costs)| cpu(costs))
    };
    let floor = of(Scenario::FloorParse);
    let mut text = format!(
        "{records} records of {} bytes on average, median of {rounds} rounds.\n\n\
         | scenario | records/s | CPU s per million | lowest, highest | peak MB | CPU to `floor-parse` |\n\
         |---|--:|--:|--:|--:|--:|\n",
        bytes / records
    );
    for (scenario, costs) in rows {
        let each = || costs.iter().map(|cost| cost.cpu_s * 1e6 / records as f64);
        let _ = writeln!(
            text,
            "| `{}` | {:.0} | {:.2} | {:.2}, {:.2} | {:.0} | {:.2} |",
            scenario.name(),
            median(costs, |cost| records as f64 / cost.wall_s),
            cpu(costs),
            each().fold(f64::INFINITY, f64::min),
            each().fold(0.0, f64::max),
            median(costs, |cost| cost.peak_mb),
            cpu(costs) / floor,
        );
    }
    let (both, views) = (floor + of(Scenario::FloorRead), of(Scenario::TopicViews));
    let _ = writeln!(
        text,
        "\n`topic-views` is {:.2} times `floor-parse` + `floor-read` ({both:.2} CPU s per million).",
        views / both
    );
    text
}

fn median(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    let mut all: Vec<f64> = costs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
