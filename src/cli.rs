//! The command line: what was typed. What it does stands in the modules it names.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use falaj_privacy::Code;
use falaj_record::Period;

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
    /// Makes, lists, describes and deletes topics.
    #[command(subcommand)]
    Topic(Topic),
    /// The embedded log on its own, for Kafka clients.
    Broker(Broker),
    /// Lists the records that could not be used, and reads them again.
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
    /// Port on which Kafka clients reach the embedded log; 0 takes a free one [default: 9092, or a free
    /// one where that is taken].
    #[arg(long)]
    pub kafka_port: Option<u16>,
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
    /// Also connects to brokers and stores: are they there, which versions, may falaj use them, do
    /// their clocks agree? Nothing is made or changed.
    #[arg(long)]
    pub connect: bool,
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

#[derive(Debug, Args)]
pub struct Broker {
    /// Where to listen; port 0 takes a free one. Beyond loopback only with TLS and users.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9092")]
    pub listen: SocketAddr,
    /// Host and port that clients are told to use [default: where they connected to].
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub advertise: Option<(String, u16)>,
    /// Partitions of a topic that does not say how many it has.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1024))]
    pub partitions: i32,
    /// Certificate with its chain, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Who may connect: `name password` a line, in a file that only its owner may read.
    #[arg(long, value_name = "FILE")]
    pub users: Option<PathBuf>,
    /// Where the log is kept [default: `$XDG_DATA_HOME/falaj/broker`].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or("a host and a port: `host:9092`")?;
    // An IPv6 address stands in brackets before its port, and without them on the wire.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("the host is missing: `host:9092`".into());
    }
    let port = port
        .parse()
        .map_err(|_| "the port is a number up to 65535")?;
    Ok((host.to_owned(), port))
}

#[derive(Debug, Subcommand)]
pub enum Topic {
    /// Makes a topic that is not there.
    Create(TopicCreate),
    /// Prints the names of all topics.
    List(Brokers),
    /// Prints identity, retention, and start and end of each partition.
    Describe(TopicDescribe),
    /// Deletes a topic, its records and its rejects.
    Delete(TopicDelete),
}

/// Which broker, and how to reach it.
#[derive(Debug, Clone, Args)]
pub struct Brokers {
    /// Addresses of the brokers; the default is where `falaj demo` and `falaj broker` listen.
    #[arg(long, value_name = "ADDRESSES", default_value = "127.0.0.1:9092")]
    pub brokers: String,
    /// A setting of the Kafka client, for example `security.protocol=SSL` or, for secrets,
    /// `sasl.password=env:NAME` or `..=file:PATH`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub option: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct TopicCreate {
    /// Its name.
    pub topic: String,
    #[command(flatten)]
    pub brokers: Brokers,
    /// How many partitions it is cut into.
    #[arg(long, default_value_t = 4)]
    pub partitions: u32,
    /// How long records are kept.
    #[arg(long, default_value = "7d")]
    pub retention: Period,
}

#[derive(Debug, Args)]
pub struct TopicDescribe {
    /// Its name.
    pub topic: String,
    #[command(flatten)]
    pub brokers: Brokers,
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct TopicDelete {
    /// Its name.
    pub topic: String,
    #[command(flatten)]
    pub brokers: Brokers,
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("it has no `=`")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, Subcommand)]
pub enum Rejects {
    /// Position, reason, path and length of each reject; never its value.
    List(RejectsList),
    /// Reads rejected records again once the pipeline file is mended, and publishes what passes.
    Replay(RejectsReplay),
}

#[derive(Debug, Args)]
pub struct RejectsList {
    #[command(flatten)]
    pub pipeline: Pipeline,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RejectsReplay {
    #[command(flatten)]
    pub pipeline: Pipeline,
    /// Also reads what an earlier replay rejected, though no declared field changed since.
    #[arg(long)]
    pub again: bool,
    /// The counts as one JSON object.
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
