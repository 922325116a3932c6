//! `falaj broker`: the command, and what a kill -9 leaves of what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};

use crate::harness::{PATIENCE, Workplace, falaj, long, output, stderr};

/// A broker that ends with the test.
struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    fn start(data: &Path) -> Self {
        Self::start_at("127.0.0.1:0", data)
    }

    fn start_at(address: &str, data: &Path) -> Self {
        let data = data.display().to_string();
        let mut child = falaj(["broker", "--listen", address, "--data-dir", &data])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let said = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let line = lines
            .recv_timeout(PATIENCE)
            .expect("it says where it listens");
        let address = line.strip_prefix("kafka: ").and_then(|a| a.parse().ok());
        let address = address.unwrap_or_else(|| panic!("it says `{line}`"));
        Self { child, address }
    }

    fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }

    /// SIGTERM; gives the exit code.
    fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").arg(&pid).status();
        assert!(killed.expect("`kill` is there").success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_says_where_it_listens_and_ends_with_0() {
    let place = Workplace::new();
    let broker = Broker::start(&place.data());
    assert_ne!(broker.address.port(), 0);
    // A second one on the same data is told so.
    let data = place.data().display().to_string();
    let second = output(["broker", "--listen", "127.0.0.1:0", "--data-dir", &data]);
    assert_eq!(second.status.code(), Some(1), "{}", stderr(&second));
    assert!(stderr(&second).contains("hint:"), "{}", stderr(&second));
    // A client that waits for records does not hold it up.
    let mut stream = std::net::TcpStream::connect(broker.address).expect("it listens");
    assert_eq!(broker.terminate(), Some(0));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn what_is_wrong_on_the_command_line_is_said() {
    let place = Workplace::new();
    let data = place.data().display().to_string();
    let open = place.write("users", b"alice secret\n");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let open = open.display().to_string();
    let junk = place.write("junk.pem", b"junk").display().to_string();
    for (args, says) in [
        (&["--listen", "0.0.0.0:0"][..], "needs TLS and users"),
        (
            &["--listen", "0.0.0.0:0", "--users", "nowhere"],
            "cannot use `nowhere`",
        ),
        (&["--users", &open], "others than its owner"),
        (
            &["--tls-cert", &junk, "--tls-key", &junk],
            "it holds no certificate",
        ),
        (&["--tls-cert", &junk], "--tls-key"),
        (&["--partitions", "0"], "0 is not in 1..=1024"),
        (&["--advertise", "nohost"], "a host and a port"),
    ] {
        let all = [&["broker", "--data-dir", &data][..], args].concat();
        let said = output(&all);
        assert_eq!(said.status.code(), Some(2), "{args:?}: {}", stderr(&said));
        assert!(stderr(&said).contains(says), "{args:?}: {}", stderr(&said));
    }
}

/// Kills in a row.
fn rounds() -> u32 {
    if long() { 100 } else { 5 }
}

/// Notes what was acknowledged.
#[derive(Default)]
struct Acknowledged(parking_lot::Mutex<BTreeSet<u64>>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, number: Box<u64>) {
        if delivered.is_ok() {
            self.0.lock().insert(*number);
        }
    }
}

fn config(address: SocketAddr) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address.to_string())
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200")
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    config
}

/// Produces numbers until it is stopped; gives how many there were and which were acknowledged.
fn produce(address: SocketAddr, idempotent: bool, stop: &AtomicBool) -> (u64, BTreeSet<u64>) {
    let producer: BaseProducer<Acknowledged> = config(address)
        .set("acks", "all")
        .set("enable.idempotence", idempotent.to_string())
        .set("linger.ms", "1")
        .set("retry.backoff.ms", "50")
        .create_with_context(Acknowledged::default())
        .expect("a producer");
    let topic = topic(idempotent);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let value = number.to_string();
        let record = BaseRecord::with_opaque_to(topic, Box::new(number))
            .payload(&value)
            .key("k");
        // A full queue waits for the broker to come back.
        if producer.send(record).is_ok() {
            number += 1;
        }
        producer.poll(Duration::from_millis(1));
    }
    producer
        .flush(PATIENCE)
        .expect("everything is delivered in the end");
    let acknowledged = std::mem::take(&mut *producer.context().0.lock());
    (number, acknowledged)
}

fn topic(idempotent: bool) -> &'static str {
    if idempotent { "once" } else { "plain" }
}

/// How often each number stands on a topic.
fn counted(address: SocketAddr, topic: &str) -> BTreeMap<u64, u32> {
    let consumer: BaseConsumer = config(address)
        .set("group.id", "counter")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let (_, end) = consumer
        .fetch_watermarks(topic, 0, PATIENCE)
        .expect("the end");
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning)
        .expect("a partition");
    consumer.assign(&from).expect("it can be read");
    let (mut counts, mut next, until) = (BTreeMap::new(), 0, Instant::now() + PATIENCE);
    while next < end {
        assert!(Instant::now() < until, "{next} of {end} records read");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message.expect("a record");
        let value = std::str::from_utf8(message.payload().expect("a value")).expect("a number");
        *counts.entry(value.parse().expect("a number")).or_default() += 1;
        next = message.offset() + 1;
    }
    counts
}

#[test]
fn what_was_acknowledged_survives_kills_and_is_there_once() {
    let place = Workplace::new();
    let mut broker = Broker::start(&place.data());
    let address = broker.address;
    let stop = Arc::new(AtomicBool::new(false));
    let producing = [true, false].map(|idempotent| {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || produce(address, idempotent, &stop))
    });
    let committer: BaseConsumer = config(address)
        .set("group.id", "committer")
        .create()
        .expect("a consumer");
    let mut committed = 0;
    let mut dice = fastrand::Rng::new();
    eprintln!("FALAJ_SEED={}", dice.get_seed());
    if let Some(seed) = std::env::var("FALAJ_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
    {
        dice = fastrand::Rng::with_seed(seed);
    }
    for round in 0..rounds() {
        std::thread::sleep(Duration::from_millis(dice.u64(200..900)));
        let mut offset = TopicPartitionList::new();
        let next = Offset::Offset(i64::from(round));
        offset
            .add_partition_offset(topic(true), 0, next)
            .expect("a partition");
        let until = Instant::now() + PATIENCE;
        let mut done = committer.commit(&offset, CommitMode::Sync);
        while round == 0 && done.is_err() && Instant::now() < until {
            // The topic is made by the first record.
            std::thread::sleep(Duration::from_millis(20));
            done = committer.commit(&offset, CommitMode::Sync);
        }
        if done.is_ok() {
            committed = i64::from(round);
        }
        broker.kill();
        broker = Broker::start_at(&address.to_string(), &place.data());
        let places = offset;
        let found = committer
            .committed_offsets(places, PATIENCE)
            .expect("committed offsets");
        let Offset::Offset(found) = found.elements()[0].offset() else {
            panic!("nothing is committed in round {round}");
        };
        assert!(
            found >= committed,
            "round {round}: {found} after {committed}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for (idempotent, producing) in [true, false].into_iter().zip(producing) {
        let (sent, acknowledged) = producing.join().expect("the producer ends");
        let counts = counted(address, topic(idempotent));
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|n| !counts.contains_key(n))
            .collect();
        assert!(
            lost.is_empty(),
            "{} acknowledged and lost: {lost:?}",
            topic(idempotent)
        );
        let doubled = counts.values().filter(|count| **count > 1).count();
        eprintln!(
            "{}: {sent} sent, {} acknowledged, {doubled} doubled over {} kills",
            topic(idempotent),
            acknowledged.len(),
            rounds()
        );
        assert!(acknowledged.len() > 100, "there was something to lose");
        assert!(!idempotent || doubled == 0, "{doubled} doubled");
    }
    assert_eq!(broker.terminate(), Some(0));
}
