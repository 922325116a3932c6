//! A real Apache Kafka (`KRaft`) from Maven Central, and its command-line tools.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::certificates::Certificates;
use crate::server::{Server, free_ports};
use crate::tool::{have, line_of, script};

/// Starts before a port that somebody else took in between is taken for another fault.
const STARTS_MAX: usize = 3;

/// How to start a broker. The default is one on a plain listener, without auto-created topics.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Listeners with TLS beside the plain one; see [`Kafka::certificates`].
    pub tls: bool,
    /// Listeners with SASL beside the plain one: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 for these users.
    pub users: Vec<User>,
    /// Further server properties, name and value; they win over the recipe's.
    pub properties: Vec<(String, String)>,
    /// Memory, compilers, collector and threads as Kafka is shipped with them, for measuring it.
    /// Without this it starts fast and takes little memory.
    pub shipped: bool,
    /// The folder in which the broker's own is made; absent, the system's for temporary files.
    pub folder: Option<PathBuf>,
}

/// Somebody who may log in.
#[derive(Debug, Clone)]
pub struct User {
    /// Letters, digits and `_`.
    pub name: String,
    /// Letters, digits, `_` and `-`.
    pub password: String,
}

/// Where a broker listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// `security.protocol=PLAINTEXT`; always there.
    Plaintext,
    /// `security.protocol=SSL`; with `tls`.
    Ssl,
    /// `security.protocol=SASL_PLAINTEXT`; with `users`.
    SaslPlaintext,
    /// `security.protocol=SASL_SSL`; with both.
    SaslSsl,
}

/// A running broker of its own, gone when this value is.
#[derive(Debug)]
pub struct Kafka {
    server: Server,
    ports: Ports,
    certificates: Option<Certificates>,
    users: bool,
    shipped: bool,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    plaintext: u16,
    controller: u16,
    ssl: u16,
    sasl: u16,
    sasl_ssl: u16,
}

impl Kafka {
    /// Starts a broker on free ports of 127.0.0.1 and waits until it answers: some 4 seconds, and
    /// 15 more at the first start on a machine, which fetches the jars. None where Java or Maven is
    /// absent, which is said on stderr.
    ///
    /// # Panics
    ///
    /// Where a tool is absent and `CI=true`, and where the broker does not start.
    #[must_use]
    pub fn start(options: &KafkaOptions) -> Option<Self> {
        if !have(&["java", "mvn", "setsid", "flock"]) {
            return None;
        }
        let mut attempt = 1;
        loop {
            let kafka = Self::prepare(options);
            let output = kafka.recipe().output().expect("bash is there");
            if output.status.success() {
                return Some(kafka);
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let taken = said.contains("is taken") || kafka.log().contains("already in use");
            assert!(
                taken && attempt < STARTS_MAX,
                "Kafka does not start: {said}"
            );
            attempt += 1;
        }
    }

    fn prepare(options: &KafkaOptions) -> Self {
        let server = Server::new("kafka", options.folder.as_deref());
        let folder = server.folder();
        let certificates = options.tls.then(|| Certificates::make(&folder.join("tls")));
        if !options.users.is_empty() {
            let users = lines(options.users.iter().map(|u| (&u.name, &u.password)), ' ');
            std::fs::write(folder.join("users"), users).expect("the folder can be written");
        }
        let properties = lines(options.properties.iter().map(|(k, v)| (k, v)), '=');
        std::fs::write(folder.join("extra.properties"), properties)
            .expect("the folder can be written");
        let ports: [u16; 5] = free_ports();
        Self {
            server,
            ports: Ports {
                plaintext: ports[0],
                controller: ports[1],
                ssl: ports[2],
                sasl: ports[3],
                sasl_ssl: ports[4],
            },
            certificates,
            users: !options.users.is_empty(),
            shipped: options.shipped,
        }
    }

    fn recipe(&self) -> Command {
        let mut command = script("kafka/start.sh");
        command
            .arg(self.server.folder())
            .arg(self.ports.plaintext.to_string())
            .arg(self.ports.controller.to_string())
            .env_remove("SSL_PORT")
            .env_remove("SASL_PORT")
            .env_remove("SASL_SSL_PORT")
            .env_remove("KAFKA_SHIPPED");
        if self.shipped {
            command.env("KAFKA_SHIPPED", "1");
        }
        if self.certificates.is_some() {
            command.env("SSL_PORT", self.ports.ssl.to_string());
        }
        if self.users {
            command.env("SASL_PORT", self.ports.sasl.to_string());
        }
        if self.certificates.is_some() && self.users {
            command.env("SASL_SSL_PORT", self.ports.sasl_ssl.to_string());
        }
        command
    }

    /// `127.0.0.1:PORT` of the plain listener.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.address(Listener::Plaintext)
    }

    /// `127.0.0.1:PORT` of a listener.
    ///
    /// # Panics
    ///
    /// Where the options did not ask for it.
    #[must_use]
    pub fn address(&self, listener: Listener) -> String {
        let (tls, users) = (self.certificates.is_some(), self.users);
        let (port, there) = match listener {
            Listener::Plaintext => (self.ports.plaintext, true),
            Listener::Ssl => (self.ports.ssl, tls),
            Listener::SaslPlaintext => (self.ports.sasl, users),
            Listener::SaslSsl => (self.ports.sasl_ssl, tls && users),
        };
        assert!(there, "the broker was started without {listener:?}");
        format!("127.0.0.1:{port}")
    }

    /// What the TLS listeners show, and what a client trusts.
    ///
    /// # Panics
    ///
    /// Where the options did not ask for TLS.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        let made = self.certificates.as_ref();
        made.expect("the broker was started without TLS")
    }

    /// kill -9. The broker can be started again.
    pub fn kill(&self) {
        self.server.stop("KILL");
    }

    /// Shuts it down. The broker can be started again.
    pub fn stop(&self) {
        self.server.stop("TERM");
    }

    /// Starts it again on the same ports with the same data, and waits until it answers. After
    /// [`Kafka::kill`] this takes up to `broker.session.timeout.ms` (4 s here) longer.
    ///
    /// # Panics
    ///
    /// Where it does not start.
    pub fn restart(&self) {
        let output = self.recipe().output().expect("bash is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "Kafka does not start: {said}");
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

    /// What the broker logged (warnings and errors).
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Everything it keeps: data, settings and log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// One of Kafka's command-line tools with `--bootstrap-server` set to this broker.
    #[must_use]
    pub fn tool<S: AsRef<std::ffi::OsStr>>(
        &self,
        class: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let brokers = self.brokers();
        let mut command = kafka_tool(class, ["--bootstrap-server", brokers.as_str()]);
        command.args(args);
        command
    }
}

/// One of Kafka's command-line tools (`TopicCommand`, `ConsoleConsumer`, .. or a class with its
/// package), for any broker. Its stdin is empty unless the caller sets it. Ask `have(&["java"])` first.
#[must_use]
pub fn kafka_tool<S: AsRef<std::ffi::OsStr>>(
    class: &str,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = script("kafka/tool.sh");
    command.arg(class).args(args);
    command
}

/// Compiles a Java source file against Kafka's jars into `classes`, which is made if absent; run it
/// by [`kafka_tool`] with `CLASSPATH` set to `classes` and the class's name with its package.
///
/// # Panics
///
/// Where it does not compile.
pub fn kafka_compile(source: &Path, classes: &Path) {
    let mut command = script("kafka/compile.sh");
    let _: PathBuf = line_of(command.arg(source).arg(classes));
}

fn lines<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>, between: char) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push_str(name);
        text.push(between);
        text.push_str(value);
        text.push('\n');
    }
    text
}
