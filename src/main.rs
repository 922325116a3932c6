//! falaj: real-time data pipelines in one binary, private by construction.
//!
//! Reads the command line, runs it, prints an error with its hint, and gives the exit code.
//! The data path is in `pipeline.rs`; `ARCHITECTURE.md` is the map.

mod active;
mod catch_up;
mod checkpoint;
mod cli;
mod clock;
mod commands;
mod config;
mod data_dir;
mod doctor;
mod document;
mod failure;
mod held;
mod ingest;
mod line;
mod panel;
mod pipeline;
mod plan;
mod raw;
mod reader;
mod replay;
mod report;
mod state;
mod stdio;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command, Level, RandomUser, Rejects};
use crate::data_dir::DataDir;
use crate::failure::{Failure, Fault};

/// The line, the page and the stores share these; one waits on the disk while others go on.
const WORKERS: usize = 4;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(run(cli.command));
            // What must be durable was waited for. A call into a cluster that is gone may wait without
            // end on a thread of its own: it is not waited for.
            runtime.shutdown_background();
            done
        }
        Err(e) => Err(Failure::run(Fault::new("cannot start threads").cause(e))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => commands::demo::demo(args).await,
        Command::Run(args) => commands::run::run(args).await,
        Command::Check(args) => commands::check::check(&args).await,
        Command::Tap(args) => commands::tap::tap(args).await,
        Command::Init(args) => {
            let path = commands::init::init(&args.dir)?;
            stdio::say(&format!("wrote {}", path.display()));
            stdio::say(&format!(
                "hint: `falaj check {0}`, then `falaj run {0}`",
                path.display()
            ));
            Ok(())
        }
        Command::Reset(args) => {
            let plan = plan::load(&args.pipeline.file, &args.pipeline.set)?;
            let name = &plan.config.pipeline.name;
            let dir = DataDir::locate(args.pipeline.data_dir.as_deref(), name)?;
            commands::reset::reset(&plan, &dir, args.yes)
        }
        Command::Topic(command) => commands::topic::topic(command).await,
        Command::Rejects(Rejects::List(args)) => commands::rejects::list(&args).await,
        Command::Rejects(Rejects::Replay(args)) => commands::rejects::replay(&args).await,
        Command::Broker(args) => commands::broker::broker(args).await,
        Command::Schema => {
            let text = serde_json::to_string_pretty(&config::schema()).expect("a schema is JSON");
            stdio::data(&text);
            Ok(())
        }
        Command::RandomUser(RandomUser::Serve(args)) => {
            commands::random_user::serve_until_stopped(args).await
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "falaj", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn log_to_stderr(level: Level) {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let level = match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    // The Cassandra driver's own words may quote keys; what went wrong there is told by the sink.
    let targets = Targets::new()
        .with_default(level)
        .with_target("scylla", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(lines)
        .with(targets)
        .init();
}
