//! `falaj run`: opens the line, serves the page, runs until it is over, says how it ended.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use falaj_broker::{Listener, Options};
use falaj_serve::{Hub, Listen, RunState, ServeError, Server, Time};
use tokio_util::sync::CancellationToken;

use crate::active::activate;
use crate::cli;
use crate::data_dir::{DataDir, Lock, write_atomically};
use crate::failure::{Failure, Fault};
use crate::line::{self, Derive, Line};
use crate::pipeline::{self, Ended, Until};
use crate::plan::{self, Plan};
use crate::report::{Inactive, Notes, Reporter, STATUS_EVERY};
use crate::stdio;

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
pub async fn supervise(plan: Plan, terms: Terms, stop: &CancellationToken) -> Result<(), Failure> {
    for warning in &plan.warnings {
        stdio::warn(warning);
    }
    let started = Time::now();
    let hub = line::hub(&plan);
    // Nobody else may run it on the embedded log: said before a port is.
    let lock = if plan.config.topic.embedded() {
        Some(terms.data_dir.lock()?)
    } else {
        None
    };
    let inactive = Inactive::new(&hub, &plan.config.pipeline.name, started);
    let page = Page::open(&plan, &terms, &hub).await?;
    let running = run_lines(plan, &terms, lock, stop, (&hub, &inactive, &page));
    let over = Box::pin(running).await;
    page.close().await;
    match over? {
        Some(derive) => finish(&derive, terms.until).await,
        None => Ok(()),
    }
}

/// Runs the line whenever this falaj is the active one, until it came to its end; nothing where
/// `stop` came while it was not.
async fn run_lines(
    mut plan: Plan,
    terms: &Terms,
    mut lock: Option<Lock>,
    stop: &CancellationToken,
    (hub, inactive, page): (&Hub, &Inactive, &Page),
) -> Result<Option<Box<Derive>>, Failure> {
    let (dir, until) = (&terms.data_dir, terms.until);
    let tell = |state, detail| {
        inactive.tell(state, detail);
        if state != RunState::Starting {
            page.announce();
        }
    };
    loop {
        let activating = activate(&plan, dir, lock.take(), until, stop, &tell);
        let Some(active) = inactive.during(activating).await? else {
            return Ok(None);
        };
        page.note();
        let opening = line::open(&plan, dir, hub, active, stop);
        let line = inactive.during(opening).await?;
        let reporter = Reporter::new(&plan.config.pipeline.name, inactive.started());
        let reporting = Reporting::of(reporter, plan.config.source.kind(), &line);
        page.announce();
        let listener = kafka_listener(&plan, &line)?;
        match serve(line, reporting, listener, until, stop).await? {
            Ended::Done(derive) => return Ok(Some(derive)),
            Ended::Lost => {}
        }
        // The page stays: whoever looks sees why it does not go on.
        stdio::say("standby: the lease on the cluster was lost; waiting to take over again");
        page.forget();
        line::close_ingest(&plan, hub);
        let lost = "the lease on the cluster was lost";
        inactive.tell(RunState::Standby, Some(lost.to_owned()));
        plan.rebuild.clear();
    }
}

/// The page and the API, for as long as the process is there.
struct Page {
    address: SocketAddr,
    url: String,
    announced: AtomicBool,
    closing: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    /// Where its address is noted for whoever looks into the data directory.
    noted: PathBuf,
}

impl Page {
    async fn open(plan: &Plan, terms: &Terms, hub: &Hub) -> Result<Self, Failure> {
        let server = Server::bind(&terms.listen, hub.clone());
        let server = server.await.map_err(|e| refused(&e, plan))?;
        let (address, url) = (server.address(), server.url());
        let closing = CancellationToken::new();
        let serving = server.run(closing.clone());
        Ok(Self {
            address,
            url,
            announced: AtomicBool::new(false),
            serving: tokio::spawn(async {
                let _ = serving.await;
            }),
            closing,
            noted: terms.data_dir.address(),
        })
    }

    /// Says once where it is: when there is something to see.
    fn announce(&self) {
        if !self.announced.swap(true, Ordering::Relaxed) {
            stdio::say(&format!("dashboard: {}", self.url));
        }
    }

    /// Notes the address of the falaj that is active, which holds the lock.
    fn note(&self) {
        let address = self.address.to_string();
        if let Err(e) = write_atomically(&self.noted, address.as_bytes()) {
            tracing::warn!(error = %e, "cannot note the page's address");
        }
    }

    /// Takes the note back, unless it is another one's by now.
    fn forget(&self) {
        let noted = std::fs::read_to_string(&self.noted);
        if noted.is_ok_and(|noted| noted == self.address.to_string()) {
            let _ = std::fs::remove_file(&self.noted);
        }
    }

    async fn close(self) {
        self.forget();
        self.closing.cancel();
        let _ = self.serving.await;
    }
}

/// Why there is no page. Where a standby may be, it may be one.
fn refused(error: &ServeError, plan: &Plan) -> Failure {
    let mut fault = Fault::from_error(error);
    if matches!(error, ServeError::PortInUse { .. }) && !plan.config.topic.embedded() {
        let hint = fault.hint.take().unwrap_or_default();
        fault = fault.hint(format!(
            "{hint}; a standby on the same machine needs a port of its own"
        ));
    }
    Failure::run(fault)
}

/// Runs a line with its status and its listener.
async fn serve(
    line: Line,
    reporting: Reporting,
    listener: Option<Listener>,
    until: Until,
    stop: &CancellationToken,
) -> Result<Ended, Failure> {
    let closing = CancellationToken::new();
    let reporting = tokio::spawn(reporting.run(closing.clone()));
    let listening = listener.map(|listener| tokio::spawn(listener.run(closing.clone())));
    // All stages are in it: on the heap, callers stay small.
    let over = Box::pin(pipeline::run(line, until, stop.clone())).await;
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

/// Shows the status of a line while it runs.
struct Reporting {
    reporter: Reporter,
    kind: &'static str,
    notes: Arc<Notes>,
    hub: Hub,
    source: tokio::sync::watch::Receiver<falaj_source::SourceStatus>,
    sinks: Vec<Arc<falaj_sinks::Outlet>>,
}

impl Reporting {
    /// Shows it for the first time.
    fn of(reporter: Reporter, kind: &'static str, line: &Line) -> Self {
        line.notes
            .note(|noted| noted.state = Some(RunState::Running));
        let mut reporting = Self {
            reporter,
            kind,
            notes: Arc::clone(&line.notes),
            hub: line.hub.clone(),
            source: line.intake.source.status(),
            sinks: line.derive.sinks.handles(),
        };
        reporting.show();
        reporting
    }

    fn show(&mut self) {
        let source = self.source.borrow().clone();
        let sinks: Vec<_> = self.sinks.iter().map(|s| s.status()).collect();
        let source = (self.kind, &source);
        let status = self.reporter.status(&self.notes, source, &sinks);
        self.hub.set_status(status);
    }

    async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(STATUS_EVERY);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.show();
        }
        self.show();
    }
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
