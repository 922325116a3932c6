//! The command line: what was typed. What it does stands in the modules it names.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use falaj_privacy::Code;

/// Real-time data pipelines in one binary, private by construction.
#[derive(Debug, Parser)]
#[command(
    name = "falaj",
    version,
    max_term_width = 100,
    propagate_version = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// What is logged to stderr.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "warn",
        env = "FALAJ_LOG"
    )]
    pub log: Level,
}

/// Log levels, from silent to everything.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A whole pipeline on this machine: local Random User API, topic, views, page.
    Demo(Demo),
    /// Runs a pipeline.
    Run(Run),
    /// Checks a pipeline file: its keys, its privacy rules, its SQL.
    Check(Check),
    /// Shows cleared records, or a view's changing rows, as they pass.
    Tap(Tap),
    /// Writes a pipeline file to start from.
    Init(Init),
    /// Forgets everything a pipeline keeps: topic, checkpoints, views, keys.
    Reset(Reset),
    /// Lists the records that could not be used.
    #[command(subcommand)]
    Rejects(Rejects),
    /// Prints the JSON Schema of the pipeline file, for editors.
    Schema,
    /// A local server that speaks the Random User API.
    #[command(subcommand, name = "random-user")]
    RandomUser(RandomUser),
    /// Prints a completion script.
    Completions {
        /// The shell to complete in.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Records a second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Port of the page; 0 takes a free one.
    #[arg(long, default_value_t = 8050)]
    pub port: u16,
    /// Where the demo keeps its data.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What all commands about a pipeline take.
#[derive(Debug, Args)]
pub struct Pipeline {
    /// The pipeline file.
    #[arg(value_name = "PIPELINE")]
    pub file: PathBuf,
    /// Sets a value of the pipeline file, for example `topic.partitions=8`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where the pipeline keeps its data [default: `$XDG_DATA_HOME/falaj/<name>`].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub pipeline: Pipeline,
    /// Reads a finite source once, processes the topic to its end, and exits.
    #[arg(long)]
    pub until_caught_up: bool,
    /// Computes a changed view again from the topic; may be repeated.
    #[arg(long, value_name = "VIEW")]
    pub rebuild: Vec<String>,
    /// Address of the page [default: 127.0.0.1:8050].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Allows an address that other machines can reach, without TLS and login.
    #[arg(long)]
    pub insecure: bool,
}

#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub pipeline: Pipeline,
    /// Says what the code of a privacy error means.
    #[arg(long, value_name = "CODE")]
    pub explain: Option<Code>,
    /// The plan as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Tap {
    #[command(flatten)]
    pub pipeline: Pipeline,
    /// `topic`, or the name of a view.
    #[arg(long, default_value = "topic")]
    pub at: String,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// Ends after this many records or rows.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Init {
    /// The folder to write `falaj.toml` into.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct Reset {
    #[command(flatten)]
    pub pipeline: Pipeline,
    /// Does not ask.
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Debug, Subcommand)]
pub enum Rejects {
    /// Position, reason, path and length of each reject; never its value.
    List(RejectsList),
}

#[derive(Debug, Args)]
pub struct RejectsList {
    #[command(flatten)]
    pub pipeline: Pipeline,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum RandomUser {
    /// Serves until it is stopped.
    Serve(RandomUserServe),
}

#[derive(Debug, Args)]
pub struct RandomUserServe {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 8051)]
    pub port: u16,
    /// Users per address and window, for example `20000/300s`; without it there is no limit.
    #[arg(long, value_name = "USERS/WINDOW")]
    pub rate_limit: Option<String>,
    /// Faults to serve, for example `503=0.1,cut=0.05`; see the reference.
    #[arg(long, value_name = "FAULTS")]
    pub fault: Option<String>,
    /// Weighted e-mail domains, for example `gmail.com=3,example.com=1` (synthetic).
    #[arg(long, value_name = "DOMAINS")]
    pub domains: Option<String>,
}
