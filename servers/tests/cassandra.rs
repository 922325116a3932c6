//! The recipe itself: a node starts, keeps its rows over kill -9, asks for a login and speaks TLS
//! where it was asked to, and is gone with the value that holds it.

use std::process::{Command, Stdio};

use falaj_servers::{Cassandra, CassandraOptions};

/// Runs a command and gives what it printed.
fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Whether a process is there; one that ended and that nobody has asked after yet is not.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .starts_with(" Z")
    })
}

#[test]
fn a_node_keeps_its_rows_over_a_kill_and_leaves_nothing_behind() {
    let Some(node) = Cassandra::start(&CassandraOptions {
        durable: true,
        ..CassandraOptions::default()
    }) else {
        return;
    };
    let made = "CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}; \
                CREATE TABLE k.t (id int PRIMARY KEY, name text); \
                INSERT INTO k.t (id, name) VALUES (1, 'kept')";
    let Some(mut cqlsh) = node.cqlsh(made) else {
        return;
    };
    said(&mut cqlsh);
    let first = node.pid();
    node.kill();
    assert!(!runs(first));
    node.restart();
    let second = node.pid();
    assert_ne!(first, second);
    let mut cqlsh = node.cqlsh("SELECT name FROM k.t").expect("it was there");
    assert!(said(&mut cqlsh).contains("kept"), "{}", node.log());
    assert!(node.memory() > 100 << 20, "a JVM holds more than 100 MiB");
    assert!(!node.cpu().is_zero());
    said(&mut node.nodetool(["flush", "k"]));
    let table = std::fs::read_dir(node.data().join("k")).expect("it has a folder");
    assert_eq!(table.count(), 1);

    drop(node);
    assert!(!runs(second));
}

#[test]
fn a_node_takes_those_who_log_in_and_speaks_tls() {
    let Some(node) = Cassandra::start(&CassandraOptions {
        password: true,
        tls: true,
        ..CassandraOptions::default()
    }) else {
        return;
    };
    let Some(clients) = Cassandra::clients() else {
        return;
    };
    let (_, port) = node
        .address()
        .rsplit_once(':')
        .map(|(h, p)| (h.to_owned(), p.to_owned()))
        .expect("an address has a port");
    let authority = node.certificates().authority();
    said(clients.python().args(["-c", LOGINS, &port]).arg(authority));
}

/// Logs in with TLS and without, with the right password and with a wrong one.
const LOGINS: &str = r#"
import ssl, sys
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster

port, authority = sys.argv[1:]
trusting = ssl.create_default_context(cafile=authority)
trusting.check_hostname = False
strange = ssl.create_default_context()
strange.check_hostname = False

def answers(password, tls):
    login = PlainTextAuthProvider("cassandra", password) if password else None
    cluster = Cluster(["127.0.0.1"], port=int(port), auth_provider=login, ssl_context=tls, connect_timeout=60, control_connection_timeout=60)
    try:
        return bool(list(cluster.connect().execute("SELECT release_version FROM system.local")))
    except Exception:
        return False
    finally:
        cluster.shutdown()

assert answers("cassandra", None)
assert answers("cassandra", trusting)
assert not answers("guessed", trusting)
assert not answers(None, trusting)
assert not answers("cassandra", strange), "an authority that nobody knows"
"#;
