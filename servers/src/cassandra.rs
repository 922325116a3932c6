//! A real Apache Cassandra from Maven Central, its nodetool, and the shell most people use.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::certificates::Certificates;
use crate::python::Venv;
use crate::server::{Server, free_ports};
use crate::tool::{have, script};

/// Starts before a port that somebody else took in between is taken for another fault.
const STARTS_MAX: usize = 3;

/// How to start a node. The default is one that everybody may use, without TLS.
#[derive(Debug, Clone, Default)]
pub struct CassandraOptions {
    /// Clients log in and need rights; [`Cassandra::USER`] may do everything.
    pub password: bool,
    /// The port takes TLS as well as plain connections; see [`Cassandra::certificates`].
    pub tls: bool,
    /// A row is on the disk before it is acknowledged; else, as by default, up to a second later.
    pub durable: bool,
    /// Further settings of `cassandra.yaml`, name and value; they win over the recipe's.
    pub settings: Vec<(String, String)>,
}

/// A running node of its own, gone when this value is.
#[derive(Debug)]
pub struct Cassandra {
    server: Server,
    ports: Ports,
    certificates: Option<Certificates>,
    password: bool,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    cql: u16,
    storage: u16,
    jmx: u16,
}

impl Cassandra {
    /// Who may do everything where clients log in; the password is the same word.
    pub const USER: &str = "cassandra";

    /// Starts a node on free ports of 127.0.0.1 and waits until it answers: some 10 seconds, and
    /// 30 more at the first start on a machine, which fetches the jars. None where Java or Maven is
    /// absent, which is said on stderr.
    ///
    /// # Panics
    ///
    /// Where a tool is absent and `CI=true`, and where the node does not start.
    #[must_use]
    pub fn start(options: &CassandraOptions) -> Option<Self> {
        if !have(&["java", "mvn", "setsid", "flock"]) {
            return None;
        }
        let mut attempt = 1;
        loop {
            let node = Self::prepare(options);
            let output = node.recipe().output().expect("bash is there");
            if output.status.success() {
                return Some(node);
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let taken = said.contains("is taken") || node.log().contains("already in use");
            assert!(
                taken && attempt < STARTS_MAX,
                "Cassandra does not start: {said}"
            );
            attempt += 1;
        }
    }

    fn prepare(options: &CassandraOptions) -> Self {
        let server = Server::new("cassandra", None);
        let folder = server.folder();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).expect("the folder can be written");
        };
        let certificates = options.tls.then(|| Certificates::make(&folder.join("tls")));
        for (name, wanted) in [("password", options.password), ("durable", options.durable)] {
            if wanted {
                write(name, "");
            }
        }
        let settings = options.settings.iter();
        let lines = settings.map(|(name, value)| format!("{name}: {value}\n"));
        write("extra.yaml", &lines.collect::<String>());
        let [cql, storage, jmx] = free_ports();
        Self {
            server,
            ports: Ports { cql, storage, jmx },
            certificates,
            password: options.password,
        }
    }

    fn recipe(&self) -> Command {
        let Ports { cql, storage, jmx } = self.ports;
        let mut command = script("cassandra/start.sh");
        command
            .arg(self.server.folder())
            .args([cql, storage, jmx].map(|port| port.to_string()));
        command
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.cql)
    }

    /// What the port shows with TLS, and what a client trusts.
    ///
    /// # Panics
    ///
    /// Where the options did not ask for TLS.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        let made = self.certificates.as_ref();
        made.expect("the node was started without TLS")
    }

    /// kill -9. The node can be started again.
    pub fn kill(&self) {
        self.server.stop("KILL");
    }

    /// Shuts it down. The node can be started again.
    pub fn stop(&self) {
        self.server.stop("TERM");
    }

    /// Starts it again on the same ports with the same data, and waits until it answers.
    ///
    /// # Panics
    ///
    /// Where it does not start.
    pub fn restart(&self) {
        let output = self.recipe().output().expect("bash is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "Cassandra does not start: {said}");
    }

    /// Stops its process without ending it (SIGSTOP): connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.server.signal("STOP");
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.server.signal("CONT");
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Most memory the process has held so far, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.server.memory()
    }

    /// Processor time the process has used so far.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        self.server.cpu()
    }

    /// What the node logged (warnings and errors).
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Everything it keeps: data, settings and log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// Where it keeps its tables.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.server.folder().join("data")
    }

    /// Cassandra's own tool for operators, for this node.
    #[must_use]
    pub fn nodetool<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = script("cassandra/nodetool.sh");
        command.arg(self.ports.jmx.to_string()).args(args);
        command
    }

    /// The shell with a statement to run. None where Python is absent, which is said on stderr.
    ///
    /// # Panics
    ///
    /// Where Python is absent and `CI=true`, and where the shell cannot be installed.
    #[must_use]
    pub fn cqlsh(&self, statement: &str) -> Option<Command> {
        let mut command = Self::clients()?.program("cqlsh");
        if self.password {
            command.args(["-u", Self::USER, "-p", Self::USER]);
        }
        let port = self.ports.cql.to_string();
        command.args(["--no-color", "-e", statement, "127.0.0.1", &port]);
        Some(command)
    }

    /// The shell, and the Python driver it is made with. None where Python is absent, which is
    /// said on stderr.
    ///
    /// # Panics
    ///
    /// Where Python is absent and `CI=true`, and where they cannot be installed.
    #[must_use]
    pub fn clients() -> Option<Venv> {
        Venv::of(&crate::tool::folder().join("cassandra/requirements.txt"))
    }
}
