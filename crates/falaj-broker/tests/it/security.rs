//! Who gets in, and how.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use falaj_broker::{BrokerError, Limits, Listener, Options, Tls, Users};
use falaj_log::{Log, LogOptions};
use falaj_record::Hint as _;
use kafka_protocol::messages::*;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Client, Running, many_batches, options, string};

fn users() -> Users {
    Users::new([("alice", "secret"), ("bob", "word")]).unwrap()
}

/// A certificate for localhost, and the PEM that clients trust.
fn certificate(folder: &std::path::Path) -> (Tls, String) {
    let made =
        rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (
        Tls::from_files(&certificate, &key).unwrap(),
        made.cert.pem(),
    )
}

#[test]
fn beyond_loopback_only_with_tls_and_users() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::open(&folder.path().join("log"), LogOptions::default()).unwrap());
    let (tls, _) = certificate(folder.path());
    for (address, tls, users, let_in) in [
        ("127.0.0.1:0", None, None, true),
        ("[::1]:0", None, None, true),
        ("0.0.0.0:0", None, None, false),
        ("0.0.0.0:0", Some(tls.clone()), None, false),
        ("0.0.0.0:0", None, Some(users()), false),
        ("[::]:0", None, None, false),
        ("0.0.0.0:0", Some(tls), Some(users()), true),
    ] {
        let options = Options {
            address: address.parse::<SocketAddr>().unwrap(),
            tls,
            users,
            ..Options::default()
        };
        match Listener::bind(Arc::clone(&log), options) {
            Ok(_) => assert!(let_in, "{address} was let in"),
            Err(error @ BrokerError::Exposed { .. }) => {
                assert!(!let_in, "{address} was refused");
                assert!(error.hint().unwrap().contains("127.0.0.1"));
            }
            // A machine without IPv6.
            Err(error) => assert!(address.starts_with('['), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_before_a_client_is_known() {
    let mut options = options();
    options.users = Some(users());
    let broker = Running::start(options).await;
    // What is offered may be asked; nothing else.
    let mut client = broker.client().await;
    assert_eq!(
        client
            .ask(3, &ApiVersionsRequest::default())
            .await
            .error_code,
        0
    );
    client.send(12, &MetadataRequest::default()).await;
    assert!(client.frame().await.is_none());
    // A request that is longer than any that is needed to say who it is.
    let mut client = broker.client().await;
    client.raw(&(1_i32 << 20).to_be_bytes()).await.unwrap();
    assert!(client.frame().await.is_none());
    // An unknown mechanism names those there are.
    let mut client = broker.client().await;
    let handshake =
        |mechanism: &str| SaslHandshakeRequest::default().with_mechanism(string(mechanism));
    let answer = client.ask(1, &handshake("GSSAPI")).await;
    assert_eq!((answer.error_code, answer.mechanisms.len()), (33, 3));
    // A wrong password ends the connection with an answer.
    let token = |password: &str| {
        SaslAuthenticateRequest::default()
            .with_auth_bytes(Bytes::from(format!("\0alice\0{password}")))
    };
    assert_eq!(client.ask(1, &handshake("PLAIN")).await.error_code, 0);
    let answer = client.ask(2, &token("wrong")).await;
    assert_eq!(answer.error_code, 58);
    assert!(!answer.error_message.unwrap().contains("alice"));
    assert!(client.frame().await.is_none());
    // The first version of the handshake is followed by a bare message.
    for (password, let_in) in [("secret", true), ("wrong", false)] {
        let mut client = broker.client().await;
        assert_eq!(client.ask(0, &handshake("PLAIN")).await.error_code, 0);
        let message = format!("\0alice\0{password}");
        let length = i32::try_from(message.len()).unwrap();
        client.raw(&length.to_be_bytes()).await.unwrap();
        client.raw(message.as_bytes()).await.unwrap();
        assert_eq!(client.frame().await, let_in.then(Bytes::new), "{password}");
        if let_in {
            let metadata = client.ask(12, &MetadataRequest::default()).await;
            assert_eq!(metadata.brokers.len(), 1);
        }
    }
    // The right one gets in.
    let mut client = broker.client().await;
    assert_eq!(client.ask(1, &handshake("PLAIN")).await.error_code, 0);
    assert_eq!(client.ask(2, &token("secret")).await.error_code, 0);
    client.create("inside", 1).await;
    assert_eq!(client.produce("inside", &["a"]).await, 0);
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_batches_come_back_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, authority) = certificate(folder.path());
    let mut options = options();
    options.tls = Some(tls);
    let broker = Running::start(options).await;
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(authority.as_bytes()).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(broker.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream);
    many_batches(&mut Client::new(stream.await.unwrap())).await;
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_holds_a_seat_without_using_it() {
    let mut options = options();
    options.limits = Limits {
        connections: 3,
        handshake: Duration::from_millis(300),
        ..options.limits
    };
    let broker = Running::start(options).await;
    let mut worker = broker.client().await;
    worker.create("busy", 1).await;
    // Mute clients, many more than there are seats: each new client finds room all the same.
    let mut mute = Vec::new();
    for _ in 0..10 {
        mute.push(broker.client().await);
    }
    let mut late = broker.client().await;
    assert_eq!(late.produce("busy", &["a"]).await, 0);
    assert_eq!(worker.produce("busy", &["b"]).await, 1);
    // And they are shown the door after a while.
    for mut client in mute {
        assert!(client.frame().await.is_none());
    }
    assert_eq!(worker.produce("busy", &["c"]).await, 2);
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn librdkafka_gets_in_by_tls_and_every_mechanism() {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    let folder = tempfile::tempdir().unwrap();
    let (tls, pem) = certificate(folder.path());
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, pem).unwrap();
    let mut options = options();
    options.users = Some(users());
    options.tls = Some(tls);
    let broker = Running::start(options).await;
    let address = format!("127.0.0.1:{}", broker.address.port());
    for (mechanism, password, let_in) in [
        ("PLAIN", "word", true),
        ("SCRAM-SHA-256", "word", true),
        ("SCRAM-SHA-512", "word", true),
        ("PLAIN", "wrong", false),
        ("SCRAM-SHA-512", "wrong", false),
    ] {
        let consumer: BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", &address)
            .set("security.protocol", "SASL_SSL")
            .set("sasl.mechanisms", mechanism)
            .set("sasl.username", "bob")
            .set("sasl.password", password)
            .set("ssl.ca.location", trusted.display().to_string())
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
            .create()
            .unwrap();
        let wait = if let_in { 30 } else { 2 };
        let metadata = tokio::task::spawn_blocking(move || {
            consumer
                .fetch_metadata(None, Duration::from_secs(wait))
                .map(|m| m.topics().len())
        });
        let metadata = metadata.await.unwrap();
        assert_eq!(
            metadata.is_ok(),
            let_in,
            "{mechanism} {password}: {metadata:?}"
        );
    }
    // Whoever speaks no TLS is not understood.
    let mut plain = Client::new(
        tokio::net::TcpStream::connect(broker.address)
            .await
            .unwrap(),
    );
    plain.send(3, &ApiVersionsRequest::default()).await;
    let answer = plain.frame().await;
    assert!(answer.is_none(), "{answer:?}");
    broker.end().await;
}
