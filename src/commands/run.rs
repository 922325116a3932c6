//! `falaj run`: opens the line, serves the page, runs until it is over, says how it ended.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use falaj_broker::{Listener, Options};
use falaj_serve::{Hub, Listen, RunState, Server};
use tokio_util::sync::CancellationToken;

use crate::active::activate;
use crate::cli;
use crate::data_dir::{DataDir, write_atomically};
use crate::failure::{Failure, Fault};
use crate::line::{self, Derive, Line};
use crate::pipeline::{self, Ended, Until};
use crate::plan::{self, Plan};
use crate::report::{Notes, Reporter};
use crate::stdio;

/// How often the status is renewed.
const STATUS_EVERY: Duration = Duration::from_millis(500);

/// How a plan is run.
pub struct Terms {
    pub data_dir: DataDir,
    pub listen: Listen,
    pub until: Until,
}

/// `falaj run`.
///
/// # Errors
/// Code 2 where the file or the command line is wrong, 1 where the run fails.
pub async fn run(args: cli::Run) -> Result<(), Failure> {
    let mut plan = plan::load(&args.pipeline.file, &args.pipeline.set)?;
    plan.rebuild(&args.rebuild)?;
    let until = if args.until_caught_up {
        Until::CaughtUp
    } else {
        Until::Stopped
    };
    if until == Until::CaughtUp && !plan.config.source.finite() {
        return Err(Failure::usage(
            Fault::new(format!(
                "`--until-caught-up` needs a source that ends, and `[source.{}]` does not",
                plan.config.source.kind()
            ))
            .hint("leave the option out and stop falaj with Ctrl-C, or read from `[source.file]`"),
        ));
    }
    let data_dir = DataDir::locate(
        args.pipeline.data_dir.as_deref(),
        &plan.config.pipeline.name,
    )?;
    let listen = Listen {
        address: args.listen.unwrap_or_else(|| {
            // A finite run is over before anybody looks; it takes no fixed port by itself.
            let port = if until == Until::CaughtUp {
                0
            } else {
                falaj_serve::DEFAULT_ADDRESS.port()
            };
            SocketAddr::new(falaj_serve::DEFAULT_ADDRESS.ip(), port)
        }),
        insecure: args.insecure,
        ..Listen::default()
    };
    supervise(
        plan,
        Terms {
            data_dir,
            listen,
            until,
        },
        &stop_on_signal()?,
    )
    .await
}

/// Runs a plan until it is over: page, status and line together.
///
/// # Errors
/// Where something cannot be opened or a stage cannot go on.
pub async fn supervise(
    mut plan: Plan,
    terms: Terms,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    for warning in &plan.warnings {
        stdio::warn(warning);
    }
    let Terms {
        data_dir,
        listen,
        until,
    } = terms;
    let hub = line::hub(&plan);
    let mut page = None;
    while let Some(active) = activate(&plan, &data_dir, until, stop).await? {
        let line = line::open(&plan, &data_dir, &hub, active, stop).await?;
        if page.is_none() {
            page = Some(Page::open(&listen, &hub, &data_dir).await?);
        }
        let listener = kafka_listener(&plan, &line)?;
        let ended = serve(&plan, line, listener, until, stop).await;
        if let Ok(Ended::Lost) = &ended {
            // The page stays: whoever looks sees how far it came, and why it does not go on.
            stdio::say("standby: the lease on the cluster was lost; waiting to take over again");
            plan.rebuild.clear();
            continue;
        }
        if let Some(page) = page.take() {
            page.close().await;
        }
        if let Ended::Done(derive) = ended? {
            finish(&derive, until).await?;
        }
        return Ok(());
    }
    if let Some(page) = page {
        page.close().await;
    }
    Ok(())
}

/// The page and the API, for as long as the process is there.
struct Page {
    closing: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    /// Where its address is noted for other commands.
    noted: PathBuf,
}

impl Page {
    async fn open(listen: &Listen, hub: &Hub, data_dir: &DataDir) -> Result<Self, Failure> {
        let server = Server::bind(listen, hub.clone())
            .await
            .map_err(|e| Failure::stage(&e))?;
        stdio::say(&format!("dashboard: {}", server.url()));
        let noted = data_dir.address();
        if let Err(e) = write_atomically(&noted, server.address().to_string().as_bytes()) {
            tracing::warn!(error = %e, "cannot note the page's address");
        }
        let closing = CancellationToken::new();
        let serving = server.run(closing.clone());
        Ok(Self {
            serving: tokio::spawn(async {
                let _ = serving.await;
            }),
            closing,
            noted,
        })
    }

    async fn close(self) {
        self.closing.cancel();
        let _ = self.serving.await;
        let _ = std::fs::remove_file(self.noted);
    }
}

/// Runs a line with its status and its listener.
async fn serve(
    plan: &Plan,
    line: Line,
    listener: Option<Listener>,
    until: Until,
    stop: &CancellationToken,
) -> Result<Ended, Failure> {
    let closing = CancellationToken::new();
    let notes = Arc::clone(&line.notes);
    let reporting = tokio::spawn(report(
        Reporter::new(&plan.config.pipeline.name),
        plan.config.source.kind(),
        Watched::of(&line),
        closing.clone(),
    ));
    let listening = listener.map(|listener| tokio::spawn(listener.run(closing.clone())));
    let over = pipeline::run(line, until, stop.clone()).await;
    if let Ok(Ended::Lost) = &over {
        let why = "the lease on the cluster was lost; waiting to take over again";
        notes.failing("topic", Some(why.to_owned()));
    }
    closing.cancel();
    if let Some(listening) = listening
        && let Ok(Err(e)) = listening.await
    {
        tracing::warn!(error = %e, "the Kafka listener ended");
    }
    let _ = reporting.await;
    over
}

/// Opens the embedded log to other Kafka clients, where the file says so.
fn kafka_listener(plan: &Plan, line: &Line) -> Result<Option<Listener>, Failure> {
    let topic = &plan.config.topic;
    let Some((address, log)) = topic.listen.zip(line.log.as_ref()) else {
        return Ok(None);
    };
    let options = Options {
        address,
        auto_create: Some(i32::try_from(topic.partitions).unwrap_or(1)),
        ..Options::default()
    };
    let listener = Listener::bind(Arc::clone(log), options).map_err(|e| Failure::stage(&e))?;
    stdio::say(&format!("kafka: {}", listener.address()));
    Ok(Some(listener))
}

/// Ends a run that came to its end.
async fn finish(derive: &Derive, until: Until) -> Result<(), Failure> {
    derive.close().await;
    let ledger = derive.ledger();
    if let Some(wrong) = ledger.imbalance() {
        return Err(Failure::run(
            Fault::new("the ledger does not balance").cause(wrong).hint(
                "this is a fault of falaj: please report it with the data directory's checkpoint",
            ),
        ));
    }
    if until == Until::CaughtUp {
        stdio::data(&serde_json::to_string(&ledger).expect("a ledger is plain data"));
    }
    Ok(())
}

/// What the reporter looks at while the line runs.
struct Watched {
    notes: Arc<Notes>,
    hub: Hub,
    source: tokio::sync::watch::Receiver<falaj_source::SourceStatus>,
    sinks: Vec<Arc<falaj_sinks::Outlet>>,
}

impl Watched {
    fn of(line: &Line) -> Self {
        line.notes
            .note(|noted| noted.state = Some(RunState::Running));
        Self {
            notes: Arc::clone(&line.notes),
            hub: line.hub.clone(),
            source: line.intake.source.status(),
            sinks: line.derive.sinks.handles(),
        }
    }
}

async fn report(
    mut reporter: Reporter,
    kind: &'static str,
    watched: Watched,
    stop: CancellationToken,
) {
    let mut show = || {
        let source = watched.source.borrow().clone();
        let sinks: Vec<_> = watched.sinks.iter().map(|s| s.status()).collect();
        let status = reporter.status(&watched.notes, (kind, &source), &sinks);
        watched.hub.set_status(status);
    };
    let mut tick = tokio::time::interval(STATUS_EVERY);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        show();
    }
    show();
}

/// A token that Ctrl-C and SIGTERM cancel; the second one ends the process at once.
///
/// # Errors
/// Where the system gives no signals.
pub fn stop_on_signal() -> Result<CancellationToken, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let open = |kind| {
        signal(kind).map_err(|e| Failure::run(Fault::new("cannot listen for signals").cause(e)))
    };
    let (mut interrupt, mut terminate) = (
        open(SignalKind::interrupt())?,
        open(SignalKind::terminate())?,
    );
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if token.is_cancelled() {
                // 128 + SIGINT, as shells have it.
                std::process::exit(130);
            }
            stdio::say("stopping: draining and writing a checkpoint; once more ends at once");
            token.cancel();
        }
    });
    Ok(stop)
}
