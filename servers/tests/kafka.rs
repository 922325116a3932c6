//! The recipe itself: a broker starts, keeps its data over kill -9, answers on each listener it was
//! asked for, and is gone with the value that holds it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use falaj_servers::{Kafka, KafkaOptions, Listener, User, Venv, have};

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
fn a_broker_keeps_its_topics_over_a_kill_and_leaves_nothing_behind() {
    let Some(kafka) = Kafka::start(&KafkaOptions::default()) else {
        return;
    };
    let created = ["--create", "--topic", "messages", "--partitions", "3"];
    said(&mut kafka.tool("TopicCommand", created));
    let first = kafka.pid();
    kafka.kill();
    assert!(!runs(first));
    kafka.restart();
    let second = kafka.pid();
    assert_ne!(first, second);
    let listed = said(&mut kafka.tool("TopicCommand", ["--list"]));
    assert_eq!(listed.trim(), "messages", "{}", kafka.log());
    assert!(kafka.memory() > 50 << 20, "a JVM holds more than 50 MiB");
    assert!(!kafka.cpu().is_zero());

    drop(kafka);
    assert!(!runs(second));
}

#[test]
fn a_test_that_is_killed_leaves_nothing_behind() {
    const NAME: &str = "a_test_that_is_killed_leaves_nothing_behind";
    const HOLD: &str = "FALAJ_SERVERS_HOLD";
    if std::env::var_os(HOLD).is_some() {
        let kafka = Kafka::start(&KafkaOptions::default()).expect("the outer test has looked");
        eprintln!("broker {}", kafka.pid());
        std::thread::sleep(Duration::from_mins(5));
        return;
    }
    if !have(&["java", "mvn", "setsid", "flock"]) {
        return;
    }
    let mut held = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", NAME, "--nocapture"])
        .env(HOLD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let stderr = BufReader::new(held.stderr.take().expect("piped"));
    let mut lines = stderr.lines().map_while(Result::ok);
    let broker = lines
        .find_map(|line| line.strip_prefix("broker ")?.parse().ok())
        .expect("it says which");
    assert!(runs(broker));
    held.kill().expect("the process is ours");
    held.wait().expect("the process is ours");
    let deadline = Instant::now() + Duration::from_mins(1);
    while runs(broker) {
        assert!(Instant::now() < deadline, "the broker outlives the test");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Its guard has the last word: how long the start took, and the peak of memory.
    let note = lines.find_map(|line| {
        let (seconds, peak) = line
            .strip_prefix("kafka: started in ")?
            .split_once(" s, ")?;
        let mib = peak.strip_prefix("peak memory ")?.strip_suffix(" MiB")?;
        Some((seconds.parse::<f64>().ok()?, mib.parse::<u64>().ok()?))
    });
    let (seconds, mib) = note.expect("a note with both");
    assert!(seconds > 0.0, "a JVM takes a while");
    assert!(mib > 50, "a JVM holds more than {mib} MiB");
}

#[test]
fn each_listener_answers_those_who_log_in_and_nobody_else() {
    let Some(kafka) = Kafka::start(&KafkaOptions {
        tls: true,
        users: vec![User {
            name: "alice".to_owned(),
            password: "alice-secret".to_owned(),
        }],
        properties: vec![("auto.create.topics.enable".to_owned(), "true".to_owned())],
        ..KafkaOptions::default()
    }) else {
        return;
    };
    let requirements = Path::new(env!("FALAJ_CHECKOUT")).join("tests/clients/requirements.txt");
    let (Some(python), Some(mut kcat)) = (Venv::of(&requirements), falaj_servers::kcat()) else {
        return;
    };
    let authority = kafka.certificates().authority();
    let authority = authority.to_str().expect("UTF-8");
    let mut logins = python.python();
    logins.args(["-c", LOGINS, authority]).args([
        kafka.address(Listener::Ssl),
        kafka.address(Listener::SaslPlaintext),
        kafka.address(Listener::SaslSsl),
    ]);
    said(&mut logins);

    let nobody = kafka.address(Listener::Ssl);
    kcat.args([
        "-L",
        "-m",
        "3",
        "-X",
        "security.protocol=SSL",
        "-b",
        &nobody,
    ]);
    let refused = kcat.output().expect("it starts");
    assert!(!refused.status.success(), "an authority that nobody knows");
    let plain = kafka.brokers();
    let mut kcat = falaj_servers::kcat().expect("it was there");
    said(kcat.args(["-L", "-m", "10", "-b", &plain]));
}

/// Logs in at each listener by each mechanism, with the right password and with a wrong one.
const LOGINS: &str = r#"
import sys
from confluent_kafka.admin import AdminClient

authority, ssl, sasl, sasl_ssl = sys.argv[1:]

def answers(brokers, seconds, **config):
    config = {key.replace("_", "."): value for key, value in config.items()}
    try:
        admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0, "ssl.ca.location": authority} | config)
        return len(admin.list_topics(timeout=seconds).brokers) == 1
    except Exception:
        return False

assert answers(ssl, 20, security_protocol="SSL")
assert not answers(sasl_ssl, 1, security_protocol="SSL"), "nobody logged in"
for brokers, protocol in ((sasl, "SASL_PLAINTEXT"), (sasl_ssl, "SASL_SSL")):
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        config = {"security_protocol": protocol, "sasl_mechanism": mechanism, "sasl_username": "alice"}
        assert answers(brokers, 20, sasl_password="alice-secret", **config), (protocol, mechanism)
        assert not answers(brokers, 1, sasl_password="guessed", **config), (protocol, mechanism)
"#;
