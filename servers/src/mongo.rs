//! A server that speaks MongoDB's protocol: the one that `FALAJ_TEST_MONGODB_URI` names, else a
//! `mongod` (`FALAJ_MONGOD`, or on the path), else the compatible SecantusDB.
//!
//! Always: [`Mongo::flavour`] says which, and its text never calls a stand-in MongoDB.
//! Not run so far: a real `mongod`, since no package registry ships one.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::certificates::Certificates;
use crate::kafka::User;
use crate::python::Venv;
use crate::server::{Server, free_ports};
use crate::tool::{have, line_of, script};

/// Starts before a port that somebody else took in between is taken for another fault.
const STARTS_MAX: usize = 3;
/// A server that runs elsewhere, as a connection string of a user who may do everything.
const GIVEN: &str = "FALAJ_TEST_MONGODB_URI";
/// The program of a real server.
const MONGOD: &str = "FALAJ_MONGOD";

/// How to start a server. The default is one without TLS and login.
#[derive(Debug, Clone, Default)]
pub struct MongoOptions {
    /// A server that the test may kill or pause, even where `FALAJ_TEST_MONGODB_URI` names one.
    pub own: bool,
    /// TLS and nothing else; see [`Mongo::certificates`]. A server of the test's own.
    pub tls: bool,
    /// A user who may do everything; nobody else may do anything.
    pub user: Option<User>,
}

/// Which server it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flavour {
    /// The one of `FALAJ_TEST_MONGODB_URI`.
    Given,
    /// A real mongod, with its version.
    Mongod(String),
    /// The stand-in, with its version.
    SecantusDb(String),
}

/// A running server, gone when this value is, unless it was given.
#[derive(Debug)]
pub struct Mongo {
    flavour: Flavour,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Given(String),
    Own(Own),
}

#[derive(Debug)]
struct Own {
    server: Server,
    port: u16,
    certificates: Option<Certificates>,
    user: Option<User>,
    /// `HOST:PORT,..` of a larger replica set that it is a member of.
    set: Option<String>,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => write!(f, "the server of {GIVEN}"),
            Self::Mongod(version) => f.write_str(version),
            Self::SecantusDb(version) => {
                write!(f, "{version}, MongoDB-compatible; not MongoDB")
            }
        }
    }
}

impl Mongo {
    /// A server that answers: the given one, or one on a free port of 127.0.0.1, within some 2
    /// seconds, and half a minute more at the first start on a machine, which fetches the packages.
    /// None where Python is absent, which is said on stderr.
    ///
    /// # Panics
    ///
    /// Where a tool is absent and `CI=true`, and where the server does not start.
    #[must_use]
    pub fn start(options: &MongoOptions) -> Option<Self> {
        let given = std::env::var(GIVEN).ok().filter(|uri| !uri.is_empty());
        if let Some(uri) = given.filter(|_| !options.own && !options.tls) {
            return Some(Self {
                flavour: Flavour::Given,
                place: Place::Given(uri),
            });
        }
        if !have(&["python3", "setsid", "flock"]) {
            return None;
        }
        for _ in 1..STARTS_MAX {
            let [port] = free_ports();
            if let Ok(mongo) = Own::prepare(options, port, None).start() {
                return Some(mongo);
            }
        }
        let [port] = free_ports();
        Some(
            Own::prepare(options, port, None)
                .start()
                .unwrap_or_else(|said| panic!("no server: {said}")),
        )
    }

    /// Three real mongods as one replica set, the first of them its first primary, or None where
    /// there is no mongod on this machine: only a mongod elects. That is said on stderr, and is the
    /// one thing that may be left out with `CI=true`.
    ///
    /// # Panics
    ///
    /// Where they do not start.
    #[must_use]
    pub fn replica_set() -> Option<[Self; 3]> {
        if !has_mongod() {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: a replica set of three needs a real mongod; set {MONGOD} to one"
            );
            return None;
        }
        let ports: [u16; 3] = free_ports();
        let hosts = ports.map(|port| format!("127.0.0.1:{port}"));
        let options = MongoOptions {
            own: true,
            ..MongoOptions::default()
        };
        let members = ports.map(|port| {
            Own::prepare(&options, port, Some(hosts.join(",")))
                .start()
                .unwrap_or_else(|said| panic!("no member: {said}"))
        });
        let mut initiate = members[0].python();
        initiate
            .arg(script("mongo/initiate.py").get_program())
            .arg(members[0].own().server.folder())
            .args(&hosts);
        let said = initiate.output().expect("Python is there");
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "no replica set: {text}");
        Some(members)
    }

    /// Which server it is.
    #[must_use]
    pub fn flavour(&self) -> &Flavour {
        &self.flavour
    }

    /// Its connection string without a login.
    #[must_use]
    pub fn uri(&self) -> String {
        match &self.place {
            Place::Given(uri) => without_login(uri),
            Place::Own(own) => own.uri(None),
        }
    }

    /// Its connection string with the login of the user who may do everything.
    #[must_use]
    pub fn root_uri(&self) -> String {
        match &self.place {
            Place::Given(uri) => uri.clone(),
            Place::Own(own) => own.uri(own.user.as_ref()),
        }
    }

    /// What the server shows, and what a client trusts.
    ///
    /// # Panics
    ///
    /// Where the options did not ask for TLS.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        let made = self.own().certificates.as_ref();
        made.expect("the server was started without TLS")
    }

    /// kill -9. The server can be started again.
    pub fn kill(&self) {
        self.own().server.stop("KILL");
    }

    /// Shuts it down. The server can be started again.
    pub fn stop(&self) {
        self.own().server.stop("TERM");
    }

    /// Starts it again on the same port with the same data, and waits until it answers.
    ///
    /// # Panics
    ///
    /// Where it does not start.
    pub fn restart(&self) {
        let output = self.own().recipe().output().expect("bash is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the server does not start: {said}");
    }

    /// Stops its process without ending it (SIGSTOP): connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.own().server.signal("STOP");
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.own().server.signal("CONT");
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.own().server.pid()
    }

    /// Most memory the process has held so far, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.own().server.memory()
    }

    /// Processor time the process has used so far.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        self.own().server.cpu()
    }

    /// What the server logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.own().server.log()
    }

    /// Everything it keeps: data, settings and log.
    ///
    /// # Panics
    ///
    /// Where the server was given.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.own().server.folder()
    }

    /// A Python interpreter that has `pymongo`, MongoDB's own driver.
    ///
    /// # Panics
    ///
    /// Where the packages cannot be installed.
    #[must_use]
    pub fn python(&self) -> Command {
        Venv::at(line_of(&mut script("mongo/venv.sh"))).python()
    }

    fn own(&self) -> &Own {
        match &self.place {
            Place::Own(own) => own,
            Place::Given(_) => panic!("the server of {GIVEN} is somebody's; ask for `own`"),
        }
    }
}

impl Own {
    fn prepare(options: &MongoOptions, port: u16, set: Option<String>) -> Self {
        let server = Server::new("mongo", None);
        let folder = server.folder();
        if let Some(User { name, password }) = &options.user {
            std::fs::write(folder.join("users"), format!("{name} {password}\n"))
                .expect("the folder can be written");
        }
        let certificates = options.tls.then(|| Certificates::make(&folder.join("tls")));
        Self {
            server,
            port,
            certificates,
            user: options.user.clone(),
            set,
        }
    }

    fn recipe(&self) -> Command {
        let mut command = script("mongo/start.sh");
        command
            .arg(self.server.folder())
            .arg(self.port.to_string())
            .env_remove("MONGO_SET");
        if let Some(set) = &self.set {
            command.env("MONGO_SET", set);
        }
        command
    }

    /// Err where the port is taken by now; any other fault is a panic.
    fn start(self) -> Result<Mongo, String> {
        let output = self.recipe().output().expect("bash is there");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let taken = said.contains("is taken") || said.contains("already in use");
            assert!(taken, "the server does not start: {said}");
            return Err(said);
        }
        let flavour = std::fs::read_to_string(self.server.folder().join("flavour"))
            .expect("the recipe says which");
        let flavour = flavour.trim().to_owned();
        Ok(Mongo {
            flavour: match flavour.strip_prefix("SecantusDB") {
                Some(_) => Flavour::SecantusDb(flavour),
                None => Flavour::Mongod(flavour),
            },
            place: Place::Own(self),
        })
    }

    fn uri(&self, user: Option<&User>) -> String {
        let login = user.map_or_else(String::new, |u| format!("{}:{}@", u.name, u.password));
        match &self.set {
            Some(set) => format!("mongodb://{login}{set}/?replicaSet=falaj"),
            None => format!(
                "mongodb://{login}127.0.0.1:{}/?directConnection=true",
                self.port
            ),
        }
    }
}

/// Whether a real mongod can be started.
fn has_mongod() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).any(|folder| folder.join("mongod").is_file());
    std::env::var_os(MONGOD).is_some_and(|program| PathBuf::from(program).is_file()) || on_path()
}

/// A connection string without `user:password@`.
fn without_login(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.to_owned();
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let from = authority.rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[from..])
}
