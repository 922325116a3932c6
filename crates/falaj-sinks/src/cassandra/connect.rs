//! Reaching a cluster: addresses, login, TLS, the datacenter that is near.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use scylla::client::PoolSize;
use scylla::client::SelfIdentity;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;

use super::CassandraConfig;
use super::failure::Of;
use crate::{Places, SinkError, is_this_machine};

/// Longest wait for one node.
const NODE_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for the cluster. Nodes are tried one after the other.
const CLUSTER_WAIT: Duration = Duration::from_secs(12);
/// Longest wait until all nodes know of a new table.
const AGREEMENT_WAIT: Duration = Duration::from_secs(20);
/// Between two signs of life on a connection where nothing else goes on, and for each.
const KEEPALIVE: Duration = Duration::from_secs(10);
const PORT: u16 = 9042;

/// What is needed to connect; secrets and certificates are read.
#[derive(Clone)]
pub(super) struct Access {
    /// As errors name it.
    pub store: String,
    pub nodes: Vec<String>,
    pub login: Option<(String, String)>,
    pub tls: Option<Arc<ClientConfig>>,
    pub consistency: Consistency,
    pub local_dc: Option<String>,
    pub keyspace: String,
    /// For one request.
    pub timeout: Duration,
}

impl Access {
    /// # Errors
    /// Where a setting cannot be used, or what it names cannot be read.
    pub(super) fn of(config: &CassandraConfig, places: Places<'_>) -> Result<Self, SinkError> {
        let nodes = config.nodes.iter().map(|node| address(node));
        let login = match (&config.user, &config.password) {
            (None, None) => None,
            (Some(user), Some(password)) => {
                let password = password.read(places.pipeline);
                Some((
                    user.clone(),
                    password.map_err(|cause| setting("password", cause))?,
                ))
            }
            (Some(_), None) => return Err(setting("password", "`user` needs it, too".into())),
            (None, Some(_)) => return Err(setting("user", "`password` needs it, too".into())),
        };
        Ok(Self {
            store: config.store(),
            nodes: nodes.collect::<Result<_, _>>()?,
            login,
            tls: tls(config, places.pipeline)?,
            consistency: config.consistency.level(),
            local_dc: config.local_dc.clone(),
            keyspace: config.keyspace.clone(),
            timeout: config.timeout.0,
        })
    }

    /// Whether rows leave the machine without TLS.
    pub(super) fn exposed(&self) -> bool {
        self.tls.is_none() && !self.nodes.iter().all(|node| is_this_machine(node))
    }

    /// Whose errors they are, and of what.
    pub(super) fn doing<'a>(&'a self, what: &'a str) -> Of<'a> {
        Of {
            store: &self.store,
            what,
        }
    }
}

pub(super) fn setting(key: &'static str, cause: String) -> SinkError {
    SinkError::Setting { key, cause }
}

/// `host`, `host:port`, `[v6]:port`, or an address of version 6 as it is.
pub(super) fn address(node: &str) -> Result<String, SinkError> {
    let wrong = || setting("nodes", format!("`{node}` is not a host or `host:port`"));
    let (host, port) = match node.rsplit_once(':') {
        // More than one colon is an address of version 6, with brackets where a port follows.
        Some((host, _)) if host.contains(':') && !host.ends_with(']') => (node, None),
        Some((host, port)) if !host.is_empty() => (host, Some(port.parse().map_err(|_| wrong())?)),
        Some(_) => return Err(wrong()),
        None => (node, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(wrong());
    }
    let port = port.unwrap_or(PORT);
    Ok(if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    })
}

/// An open cluster.
pub(super) struct Connection {
    pub session: Session,
    pub access: Access,
    /// The datacenter of the nodes that are asked; none where a node did not tell.
    pub datacenter: Option<String>,
}

impl Connection {
    /// # Errors
    /// Where nobody answers in time, the login is refused, or the datacenter is none of the cluster's.
    pub(super) async fn open(access: Access) -> Result<Self, SinkError> {
        let of = access.doing("connect");
        let opened = tokio::time::timeout(CLUSTER_WAIT, builder(&access).build()).await;
        let session = match opened {
            Ok(session) => session.map_err(|e| of.session(&e))?,
            Err(_) => return Err(of.no_answer(CLUSTER_WAIT)),
        };
        let datacenter = datacenter(&session, access.local_dc.as_deref())?;
        Ok(Self {
            session,
            access,
            datacenter,
        })
    }

    /// Asks whether the cluster still answers.
    ///
    /// # Errors
    /// Where it does not, or not in time.
    pub(super) async fn ping(&self) -> Result<(), SinkError> {
        match tokio::time::timeout(NODE_WAIT, self.version()).await {
            Ok(version) => version.map(drop),
            Err(_) => Err(self.access.doing("answer").no_answer(NODE_WAIT)),
        }
    }

    /// All rows of a query about the cluster itself.
    pub(super) async fn rows<R>(
        &self,
        cql: &str,
        values: impl SerializeRow,
    ) -> Result<Vec<R>, SinkError>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm> + 'static,
    {
        let of = self.access.doing("read the schema");
        let mut statement = Statement::new(cql);
        statement.set_consistency(Consistency::LocalOne);
        statement.set_is_idempotent(true);
        let pager = self.session.query_iter(statement, values).await;
        let rows = pager.map_err(|e| of.pager(&e))?.rows_stream::<R>();
        let rows = rows.map_err(|_| of.unexpected())?;
        rows.try_collect().await.map_err(|e| of.row(&e))
    }

    /// Runs a statement without values, such as one that makes a table.
    pub(super) async fn run(&self, cql: String, what: &str) -> Result<(), SinkError> {
        let mut statement = Statement::new(cql);
        // Whoever makes a table waits until all nodes know of it.
        statement.set_request_timeout(Some(self.access.timeout.max(AGREEMENT_WAIT)));
        let done = self.session.query_unpaged(statement, ()).await;
        done.map_err(|e| self.access.doing(what).execution(&e))?;
        Ok(())
    }

    pub(super) async fn prepare(
        &self,
        cql: String,
        what: &str,
    ) -> Result<PreparedStatement, SinkError> {
        let of = self.access.doing(what);
        // The driver itself waits for a node without end.
        let prepared = tokio::time::timeout(self.access.timeout, self.session.prepare(cql)).await;
        let prepared = prepared.map_err(|_| of.no_answer(self.access.timeout))?;
        let mut statement = prepared.map_err(|e| of.prepare(&e))?;
        statement.set_is_idempotent(true);
        Ok(statement)
    }
}

fn builder(access: &Access) -> SessionBuilder {
    let profile = ExecutionProfile::builder()
        .consistency(access.consistency)
        .request_timeout(Some(access.timeout))
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&access.nodes)
        .default_execution_profile_handle(profile.into_handle())
        .pool_size(PoolSize::PerHost(1.try_into().expect("one is not zero")))
        .connection_timeout(NODE_WAIT)
        .hostname_resolution_timeout(Some(NODE_WAIT))
        .metadata_request_clientside_timeout(NODE_WAIT)
        // For ScyllaDB alone; the driver warns of one that is longer than the client's.
        .metadata_request_serverside_timeout(NODE_WAIT)
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .schema_agreement_timeout(AGREEMENT_WAIT)
        // Where replicas of its rows are is all it has to know of the schema.
        .keyspaces_to_fetch([&access.keyspace])
        .fetch_full_schema_metadata(false)
        .driver_config_reporting(false)
        .custom_identity(SelfIdentity::new().with_application_name("falaj"))
        .tls_context(access.tls.clone());
    if let Some((user, password)) = &access.login {
        builder = builder.user(user, password);
    }
    if let Some(datacenter) = &access.local_dc {
        builder = builder.prefer_datacenter(datacenter.clone());
    }
    builder
}

/// The datacenter that rows are written to. Where there are several, somebody has to say which is
/// near: to pick one would be to write over long distances unnoticed.
fn datacenter(session: &Session, local: Option<&str>) -> Result<Option<String>, SinkError> {
    let state = session.get_cluster_state();
    let nodes = state.get_nodes_info().iter();
    let mut all: Vec<_> = nodes.filter_map(|node| node.datacenter.clone()).collect();
    all.sort_unstable();
    all.dedup();
    let listed = || {
        let names: Vec<_> = all.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    match local {
        Some(local) if all.is_empty() || all.iter().any(|name| name == local) => {
            Ok(Some(local.to_owned()))
        }
        Some(local) => Err(setting(
            "local_dc",
            format!("the cluster has no datacenter `{local}`, but {}", listed()),
        )),
        None if all.len() > 1 => Err(setting(
            "local_dc",
            format!(
                "the cluster has the datacenters {}, so one is to be named",
                listed()
            ),
        )),
        None => Ok(all.pop()),
    }
}

/// How connections are encrypted, if they are.
fn tls(config: &CassandraConfig, folder: &Path) -> Result<Option<Arc<ClientConfig>>, SinkError> {
    let files = [
        ("ca", config.ca.is_some()),
        ("cert", config.cert.is_some()),
        ("key", config.key.is_some()),
    ];
    match (config.tls, files.iter().find(|(_, given)| *given)) {
        (Some(false), Some((key, _))) => {
            return Err(setting(key, "`tls = false` leaves no use for it".into()));
        }
        (Some(false) | None, None) => return Ok(None),
        (Some(true), _) | (None, Some(_)) => {}
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier {
        inner: WebPkiServerVerifier::builder_with_provider(
            Arc::new(authorities(config, folder)?),
            Arc::clone(&provider),
        )
        .build()
        .map_err(|e| setting("ca", e.to_string()))?,
        names: names(&config.nodes),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| setting("tls", e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let client = match (&config.cert, &config.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates("cert", &folder.join(cert))?;
            let key = PrivateKeyDer::from_pem_slice(&read("key", &folder.join(key))?)
                .map_err(|_| setting("key", "it holds no private key in PEM form".into()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| setting("cert", e.to_string()))?
        }
        (Some(_), None) => return Err(setting("key", "`cert` needs it, too".into())),
        (None, Some(_)) => return Err(setting("cert", "`key` needs it, too".into())),
    };
    Ok(Some(Arc::new(client)))
}

/// Who may vouch for a node: the authorities of `ca`, or those the system trusts.
fn authorities(config: &CassandraConfig, folder: &Path) -> Result<RootCertStore, SinkError> {
    let mut roots = RootCertStore::empty();
    match &config.ca {
        Some(file) => {
            for certificate in certificates("ca", &folder.join(file))? {
                roots
                    .add(certificate)
                    .map_err(|e| setting("ca", e.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        let cause = "the system trusts no authority; name one by `ca`".into();
        return Err(setting("tls", cause));
    }
    Ok(roots)
}

fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, SinkError> {
    let bytes = read(key, file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => {
            let file = file.display();
            Err(setting(
                key,
                format!("`{file}` holds no certificate in PEM form"),
            ))
        }
    }
}

fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, SinkError> {
    fs::read(file).map_err(|e| {
        setting(
            key,
            format!("cannot read `{}`: {}", file.display(), e.kind()),
        )
    })
}

/// The hosts of `nodes` that are names.
fn names(nodes: &[String]) -> Vec<ServerName<'static>> {
    let host = |node: &String| {
        let address = address(node).ok()?;
        let (host, _) = address.rsplit_once(':')?;
        let name = ServerName::try_from(host.to_owned()).ok()?;
        matches!(name, ServerName::DnsName(_)).then_some(name)
    };
    nodes.iter().filter_map(host).collect()
}

/// Takes a certificate that the authorities vouch for, and that is for the node's address or for
/// one of the names in `nodes`: nodes tell each other's addresses and never their names.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |name: &ServerName<'_>| {
            self.inner
                .verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        let by_address = verify(server_name);
        let Err(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) = by_address
        else {
            return by_address;
        };
        let by_name = self.names.iter().find_map(|name| verify(name).ok());
        by_name.map_or(by_address, Ok)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    #[test]
    fn rows_that_leave_the_machine_without_tls_are_noticed() {
        for (settings, expected) in [
            ("nodes = ['127.0.0.1:9043', 'localhost', '::1']", false),
            ("nodes = ['127.0.0.1', 'db1']", true),
            ("nodes = ['db1']\ntls = true", false),
        ] {
            let config = toml::from_str(&format!("keyspace = 'falaj'\n{settings}"));
            let config: CassandraConfig = config.expect("the settings are right");
            let folder = Path::new("");
            let access = Access::of(
                &config,
                Places {
                    pipeline: folder,
                    data: folder,
                },
            );
            let exposed = access.map(|access| access.exposed());
            assert_eq!(exposed, Ok(expected), "{settings}");
        }
    }

    #[test]
    fn nodes_are_hosts_with_or_without_a_port() {
        for (node, full) in [
            ("db1", "db1:9042"),
            ("db1.example.org:19042", "db1.example.org:19042"),
            ("127.0.0.1:9043", "127.0.0.1:9043"),
            ("::1", "[::1]:9042"),
            ("[::1]", "[::1]:9042"),
            ("[2001:db8::7]:9043", "[2001:db8::7]:9043"),
        ] {
            assert_eq!(address(node), Ok(full.to_owned()), "{node}");
        }
        for node in [
            "",
            ":9042",
            "db1:",
            "db1:cql",
            "db1:99999",
            "db 1",
            "cassandra://db1",
        ] {
            let error = address(node).expect_err(node);
            assert!(
                matches!(error, SinkError::Setting { key: "nodes", .. }),
                "{error}"
            );
        }
    }

    /// An authority, and a certificate of it for `name`.
    fn certificates(name: &str) -> (CertificateDer<'static>, CertificateDer<'static>) {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = authority.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(authority, key);
        let node = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let node = node.signed_by(&key, &issuer).expect("a certificate");
        (root.der().clone(), node.der().clone())
    }

    #[test]
    fn a_certificate_is_for_the_address_or_for_a_name_in_nodes() {
        let at = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
        let taken = |name: &str, nodes: &[&str], trusted: bool| {
            let (root, node) = certificates(name);
            let root = if trusted { root } else { certificates(name).0 };
            let mut roots = RootCertStore::empty();
            roots.add(root).expect("an authority");
            let provider = Arc::new(aws_lc_rs::default_provider());
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
            let nodes: Vec<String> = nodes.iter().map(|&node| node.to_owned()).collect();
            let verifier = Verifier {
                inner: inner.build().expect("a verifier"),
                names: names(&nodes),
            };
            let now = UnixTime::now();
            verifier
                .verify_server_cert(&node, &[], &at, &[], now)
                .is_ok()
        };
        assert!(taken("127.0.0.1", &["db1"], true));
        assert!(taken("db1", &["db0:9042", "db1:9042"], true));
        assert!(!taken("db2", &["db0", "db1"], true));
        assert!(
            !taken("10.0.0.1", &["10.0.0.1"], true),
            "an address is no name"
        );
        assert!(!taken("127.0.0.1", &["db1"], false));
        assert!(!taken("db1", &["db1"], false));
    }
}
