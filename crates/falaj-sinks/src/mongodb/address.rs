//! Where the database is, and who logs in: `uri` and the settings beside it.
//!
//! Always: a password is in no error, and not in the pipeline file. The driver's words about a
//! connection string are shown only where the string stands in the file for everybody to see.

use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use falaj_record::Secret;
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{
    Acknowledgment, AuthMechanism, ConnectionString, HostInfo, ReadPreference, ServerAddress, Tls,
    TlsOptions,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::MongodbConfig;
use crate::is_this_machine;

/// How long a server is looked for, and a connection tried, where the connection string does not
/// say: a run should say soon that nobody answers.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long a majority may take to confirm a write, where the connection string does not say.
const CONFIRM_WAIT: Duration = Duration::from_secs(30);
/// Longest name of a database, in bytes.
const DATABASE_BYTES_MAX: usize = 63;
/// What names of databases have not, on one system or another.
const NOT_IN_A_DATABASE: &str = "/\\. \"$*<>:|?\0";
/// MongoDB's own databases.
const OWN_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// What is wrong with a setting: its key, and why it cannot be used.
pub(super) type Fault = (&'static str, String);

/// A connection string, written out or as a secret that stands elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum MongodbUri {
    /// As it is; it holds no login.
    Text(String),
    /// `{ env = "NAME" }` or `{ file = "path" }`.
    Secret(Secret),
}

// By hand: serde's untagged enums cannot say what was expected.
impl<'de> Deserialize<'de> for MongodbUri {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UriVisitor)
    }
}

struct UriVisitor;

impl<'de> Visitor<'de> for UriVisitor {
    type Value = MongodbUri;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection string, or a secret: { env = \"NAME\" } or { file = \"path\" }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<MongodbUri, E> {
        Ok(MongodbUri::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MongodbUri, A::Error> {
        Secret::deserialize(MapAccessDeserializer::new(map)).map(MongodbUri::Secret)
    }
}

/// Everything that connecting needs.
pub(super) struct Address {
    /// With the login in it.
    pub(super) connection: ConnectionString,
    /// Name of the database.
    pub(super) database: String,
    /// As errors name it.
    pub(super) store: String,
    /// Whether somebody logs in.
    pub(super) login: bool,
    /// Whether others on the network may read along.
    pub(super) exposed: bool,
    /// How long a majority may take to confirm a write.
    pub(super) confirm_wait: Duration,
}

impl MongodbConfig {
    /// The database it means, as errors name it.
    pub(crate) fn store(&self) -> String {
        match &self.uri {
            MongodbUri::Text(uri) => match self.as_written(uri) {
                Ok(connection) => store(&connection, &self.database),
                Err(_) => format!("{uri}/{}", self.database),
            },
            MongodbUri::Secret(Secret::Env(name)) => format!("${name}/{}", self.database),
            MongodbUri::Secret(Secret::File(path)) => {
                format!("{}/{}", path.display(), self.database)
            }
        }
    }

    /// Looks at everything that can be looked at without reading a secret.
    pub(super) fn check(&self) -> Result<(), Fault> {
        check_database(&self.database)?;
        if self.password.is_some() && self.user.is_none() {
            return Err(("user", "`password` is nobody's without it".into()));
        }
        let MongodbUri::Text(uri) = &self.uri else {
            return Ok(());
        };
        if authority(uri).contains('@') {
            let cause = "it holds a login; write `user` and `password = { env = \"NAME\" }`, or all of it as a secret";
            return Err(("uri", cause.into()));
        }
        let connection = self.as_written(uri);
        let connection = connection.map_err(|error| ("uri", driver_says(&error)))?;
        self.check_options(&connection)
    }

    /// The connection string that stands in the file. Any password does for looking at it.
    fn as_written(&self, uri: &str) -> Result<ConnectionString, Error> {
        let password = self.password.as_ref().map(|_| "password");
        let login = self.user.as_deref().unwrap_or_default();
        ConnectionString::parse(with_login(uri, login, password))
    }

    /// Reads the secrets. `base` is the folder that paths are relative to.
    pub(super) fn address(&self, base: &Path) -> Result<Address, Fault> {
        self.check()?;
        let uri = match &self.uri {
            MongodbUri::Text(uri) => uri.clone(),
            MongodbUri::Secret(secret) => secret.read(base).map_err(|cause| ("uri", cause))?,
        };
        if self.user.is_some() && authority(&uri).contains('@') {
            return Err(("user", "`uri` holds a login, too".into()));
        }
        let password = match &self.password {
            Some(secret) => Some(secret.read(base).map_err(|cause| ("password", cause))?),
            None => None,
        };
        let login = self.user.as_deref().unwrap_or_default();
        let full = with_login(&uri, login, password.as_deref());
        let mut connection = ConnectionString::parse(full).map_err(|error| match &self.uri {
            MongodbUri::Text(_) => ("uri", driver_says(&error)),
            // What the driver says may quote a password that was not written as it expects.
            MongodbUri::Secret(_) => ("uri", "what it holds is no connection string".into()),
        })?;
        self.check_options(&connection)?;
        self.trust(&mut connection, base)?;
        let concern = connection.write_concern.take();
        let confirm_wait = concern
            .and_then(|concern| concern.w_timeout)
            .filter(|wait| !wait.is_zero());
        connection.connect_timeout.get_or_insert(CONNECT_WAIT);
        let select_wait = &mut connection.server_selection_timeout;
        select_wait.get_or_insert(CONNECT_WAIT);
        connection.app_name.get_or_insert_with(|| "falaj".into());
        Ok(Address {
            store: store(&connection, &self.database),
            login: connection.credential.is_some(),
            exposed: exposed(&connection),
            database: self.database.clone(),
            confirm_wait: confirm_wait.unwrap_or(CONFIRM_WAIT),
            connection,
        })
    }

    /// What falaj promises rests on some options.
    fn check_options(&self, connection: &ConnectionString) -> Result<(), Fault> {
        let no = |cause: &str| Err(("uri", cause.to_owned()));
        let concern = connection.write_concern.as_ref();
        if concern.is_some_and(|c| !matches!(c.w, None | Some(Acknowledgment::Majority))) {
            return no("`w` is `majority`, or a row that falaj takes for written may be lost");
        }
        if concern.is_some_and(|c| c.journal == Some(false)) {
            return no("`journal=false` would lose rows at a power cut");
        }
        if connection.retry_writes == Some(false) {
            return no(
                "`retryWrites=false` does not go with it: falaj writes again what was not confirmed",
            );
        }
        if !matches!(
            connection.read_preference,
            None | Some(ReadPreference::Primary)
        ) {
            return no("`readPreference` is `primary`: another member may not have the newest row");
        }
        #[expect(deprecated, reason = "the driver has the field to refuse it")]
        if connection.socket_timeout.is_some() {
            return no("the driver has no `socketTimeoutMS`; falaj waits a minute for an answer");
        }
        let named = connection.default_database.as_deref();
        if let Some(named) = named.filter(|named| *named != self.database) {
            let database = &self.database;
            return no(&format!(
                "it names the database `{named}`, and `database` of the sink is `{database}`; for the login write `authSource={named}`"
            ));
        }
        if self.user.is_some() && self.password.is_none() {
            let mechanism = connection.credential.as_ref().map(|c| &c.mechanism);
            if mechanism != Some(&Some(AuthMechanism::MongoDbX509)) {
                return Err(("password", "`user` needs one".into()));
            }
        }
        match &connection.tls {
            Some(Tls::Enabled(tls)) if tls.allow_invalid_certificates == Some(true) => no(
                "a server that anybody may pretend to be gets no rows; give its authority by `ca`",
            ),
            Some(Tls::Enabled(tls)) if tls.ca_file_path.is_some() && self.ca.is_some() => {
                no("`tlsCAFile` and `ca` of the sink say the same; leave one out")
            }
            Some(Tls::Disabled) if self.ca.is_some() => no("`tls=false` does not go with `ca`"),
            _ => Ok(()),
        }
    }

    /// Switches TLS on where `ca` is given, and makes paths absolute.
    fn trust(&self, connection: &mut ConnectionString, base: &Path) -> Result<(), Fault> {
        if let Some(ca) = &self.ca {
            let tls = connection
                .tls
                .get_or_insert_with(|| TlsOptions::default().into());
            if let Tls::Enabled(tls) = tls {
                tls.ca_file_path = Some(ca.clone());
            }
        }
        let Some(Tls::Enabled(tls)) = &mut connection.tls else {
            return Ok(());
        };
        if let Some(path) = &mut tls.cert_key_file_path {
            *path = base.join(&path);
        }
        if let Some(path) = &mut tls.ca_file_path {
            let key = if self.ca.is_some() { "ca" } else { "uri" };
            *path = base.join(&path);
            certificates(path).map_err(|cause| (key, cause))?;
        }
        Ok(())
    }
}

/// Looks whether a file holds certificates: the driver takes one without any.
fn certificates(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|e| format!("cannot read `{shown}`: {e}"))?;
    match CertificateDer::pem_slice_iter(&text).next() {
        Some(Ok(_)) => Ok(()),
        _ => Err(format!("`{shown}` holds no certificate in PEM")),
    }
}

fn check_database(name: &str) -> Result<(), Fault> {
    let no = |cause: &str| Err(("database", cause.to_owned()));
    if name.is_empty() || name.len() > DATABASE_BYTES_MAX {
        return no("a name has 1 to 63 bytes");
    }
    if name.contains(|c| NOT_IN_A_DATABASE.contains(c)) {
        return no("a name has no blank, and none of / \\ . \" $ * < > : | ?");
    }
    if OWN_DATABASES.contains(&name) {
        return no("it is MongoDB's own");
    }
    Ok(())
}

/// What stands between `://` and the path: login and hosts. A password may hold a `/` that should
/// have been escaped, so everything before the last `@` counts.
fn authority(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let before_options = rest.split('?').next().unwrap_or_default();
    let login = before_options.rfind('@').map_or(0, |at| at + 1);
    let hosts = &before_options[login..];
    &before_options[..login + hosts.find('/').unwrap_or(hosts.len())]
}

/// The connection string with a login in it, as drivers expect it.
fn with_login(uri: &str, user: &str, password: Option<&str>) -> String {
    let Some((scheme, rest)) = uri.split_once("://").filter(|_| !user.is_empty()) else {
        return uri.to_owned();
    };
    let password = password.map_or_else(String::new, |password| format!(":{}", escaped(password)));
    format!("{scheme}://{}{password}@{rest}", escaped(user))
}

/// Percent-encoded, all but letters and digits.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn store(connection: &ConnectionString, database: &str) -> String {
    match &connection.host_info {
        HostInfo::DnsRecord(name) => format!("mongodb+srv://{name}/{database}"),
        HostInfo::HostIdentifiers(hosts) => {
            let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
            format!("mongodb://{}/{database}", hosts.join(","))
        }
        _ => format!("mongodb://../{database}"),
    }
}

/// Whether rows leave the machine without TLS.
fn exposed(connection: &ConnectionString) -> bool {
    let here = |host: &ServerAddress| match host {
        ServerAddress::Tcp { host, .. } => is_this_machine(host),
        // A socket of this machine.
        _ => true,
    };
    match (&connection.tls, &connection.host_info) {
        (Some(Tls::Enabled(_)), _) => false,
        (_, HostInfo::HostIdentifiers(hosts)) => !hosts.iter().all(here),
        // Without `tls=false` such a name means TLS.
        (tls, _) => *tls == Some(Tls::Disabled),
    }
}

/// The driver's words about a connection string that everybody may see.
fn driver_says(error: &Error) -> String {
    match &*error.kind {
        ErrorKind::InvalidArgument { message, .. } => message.clone(),
        _ => "it is no connection string of MongoDB".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Result<MongodbConfig, String> {
        let config: MongodbConfig = toml::from_str(toml).map_err(|e| e.to_string())?;
        config
            .check()
            .map_err(|(key, cause)| format!("{key}: {cause}"))?;
        Ok(config)
    }

    #[test]
    fn what_breaks_a_promise_is_refused_with_the_reason() {
        for (toml, reason) in [
            ("uri = 'mongodb://u:p@h'", "uri: it holds a login"),
            ("uri = 'mongodb://u:p/q@h/?w=1'", "uri: it holds a login"),
            ("uri = 'mongodb://u@h'", "uri: it holds a login"),
            ("uri = 'mongodb://h/?w=1'", "`w` is `majority`"),
            ("uri = 'mongodb://h/?w=0'", "`w` is `majority`"),
            ("uri = 'mongodb://h/?journal=false'", "power cut"),
            ("uri = 'mongodb://h/?retryWrites=false'", "writes again"),
            ("uri = 'mongodb://h/?readPreference=nearest'", "newest row"),
            ("uri = 'mongodb://h/?socketTimeoutMS=5'", "socketTimeoutMS"),
            ("uri = 'mongodb://h/?tls=true&tlsInsecure=true'", "pretend"),
            (
                "uri = 'mongodb://h/?tls=false'\nca = 'ca.pem'",
                "`tls=false`",
            ),
            (
                "uri = 'mongodb://h/?tlsCAFile=a'\nca = 'b'",
                "leave one out",
            ),
            ("uri = 'mongodb://h/other'", "the database `other`"),
            ("uri = 'mongodb://h/?wtimeout=5'", "wtimeout"),
            ("uri = 'h:27017'", "uri: "),
            ("uri = 'mongodb://h:0'", "uri: "),
            (
                "uri = 'mongodb://h'\nuser = 'u'",
                "password: `user` needs one",
            ),
            (
                "uri = 'mongodb://h'\npassword = { env = 'P' }",
                "user: `password` is nobody's",
            ),
            ("uri = 'mongodb://h'\ndatabase = 'admin'", "MongoDB's own"),
            ("uri = 'mongodb://h'\ndatabase = 'a.b'", "no blank"),
            ("uri = 'mongodb://h'\ndatabase = ''", "1 to 63 bytes"),
            (
                "uri = 'mongodb://h'\npassword = 'p'",
                "expected `env` or `file`",
            ),
            ("uri = 3", "a connection string, or a secret"),
            ("database = 'x'", "missing field `uri`"),
        ] {
            let error = config(toml).expect_err(toml);
            assert!(error.contains(reason), "{toml}: {error}");
        }
    }

    #[test]
    fn what_is_usual_is_taken() {
        for (toml, store) in [
            ("uri = 'mongodb://h'", "mongodb://h:27017/falaj"),
            (
                "uri = 'mongodb://A:1,b:2/falaj?replicaSet=rs0&w=majority&authSource=x'",
                "mongodb://a:1,b:2/falaj",
            ),
            (
                "uri = 'mongodb+srv://db.example.com'\ndatabase = 'views'",
                "mongodb+srv://db.example.com/views",
            ),
            (
                "uri = 'mongodb://h/?authMechanism=SCRAM-SHA-256'\nuser = 'u'\npassword = { env = 'P' }",
                "mongodb://h:27017/falaj",
            ),
            (
                "uri = 'mongodb://h/?tls=true&tlsCertificateKeyFile=k.pem&authMechanism=MONGODB-X509'\nuser = 'u'",
                "mongodb://h:27017/falaj",
            ),
            ("uri = { env = 'MONGODB_URI' }", "$MONGODB_URI/falaj"),
        ] {
            assert_eq!(config(toml).map(|c| c.store()), Ok(store.into()), "{toml}");
        }
    }

    #[test]
    fn rows_that_leave_the_machine_without_tls_are_noticed() {
        for (uri, expected) in [
            ("mongodb://localhost,127.0.0.1:1,[::1]", false),
            ("mongodb://127.0.0.1,db.example.com", true),
            ("mongodb://db.example.com/?tls=true", false),
            ("mongodb+srv://db.example.com", false),
            ("mongodb+srv://db.example.com/?tls=false", true),
        ] {
            let connection = ConnectionString::parse(uri).expect(uri);
            assert_eq!(exposed(&connection), expected, "{uri}");
        }
    }

    #[test]
    fn a_login_reaches_the_driver_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("password");
        std::fs::write(&path, "p@ss/w:rd%\u{e9}\n").expect("written");
        let text = format!(
            "uri = 'mongodb://h/?authSource=people&wtimeoutMS=700'\nuser = 'us/er'\npassword = {{ file = '{}' }}",
            path.display()
        );
        let address = config(&text).expect("it is a sink").address(folder.path());
        let address = address.map_err(|(_, cause)| cause).expect("it can be read");
        let login = address.connection.credential.expect("somebody logs in");
        assert_eq!(login.username.as_deref(), Some("us/er"));
        assert_eq!(login.password.as_deref(), Some("p@ss/w:rd%\u{e9}"));
        assert_eq!(login.source.as_deref(), Some("people"));
        assert_eq!(address.confirm_wait, Duration::from_millis(700));
    }

    #[test]
    fn no_fault_tells_what_a_secret_holds() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("uri");
        for uri in [
            "mongodb://user:canary@h/?w=1",
            "mongodb://user:can:ary@h",
            "mongodb://user:p/canary@h",
            "mongodb://h:canary",
            "canary",
            "mongodb://h/?canary",
        ] {
            std::fs::write(&path, uri).expect("written");
            let config = config("uri = { file = 'uri' }").expect("it is a sink");
            let Err((key, cause)) = config.address(folder.path()) else {
                panic!("{uri} is taken");
            };
            assert!(!cause.contains("canary"), "{uri}: {key}: {cause}");
        }
        let config = config("uri = { env = 'FALAJ_TEST_NOT_SET' }").expect("it is a sink");
        let Err((key, cause)) = config.address(folder.path()) else {
            panic!("it is not set");
        };
        assert_eq!((key, cause.contains("FALAJ_TEST_NOT_SET")), ("uri", true));
    }

    #[test]
    fn an_authority_that_cannot_be_read_is_told_at_the_start() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("notes.txt"), "no certificate").expect("written");
        for (ca, cause) in [
            ("absent.pem", "cannot read"),
            ("notes.txt", "no certificate"),
        ] {
            let config = config(&format!("uri = 'mongodb://h'\nca = '{ca}'"));
            let Err((key, said)) = config.expect("it is a sink").address(folder.path()) else {
                panic!("{ca} is taken");
            };
            assert!(key == "ca" && said.contains(cause), "{key}: {said}");
        }
    }
}
