//! What is not Kafka: random, truncated and mutated requests, clients that stall. The listener goes
//! on, and so does everybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Running, batch, fetch, long, name, options, produce, request, string};

const TOPIC: &str = "kept";

/// Spoilt requests of the ordinary run.
const REQUESTS: u64 = 5_000;
/// The long run (`FALAJ_LONG=1`), and the part of it after which everything has been used once: what
/// is held then is what may be held.
const LONG: Duration = Duration::from_mins(10);
const WARM_UP: Duration = Duration::from_mins(2);
/// How long the other client works before, to compare.
const ALONE: Duration = Duration::from_secs(10);
const GROWTH_KIB_MAX: u64 = 32 * 1024;
/// The ordinary run is the same each time.
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// A small generator, so that a failing run can be repeated: set `FALAJ_SEED` to what it printed.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("FALAJ_SEED")
            .ok()
            .and_then(|s| s.parse().ok());
        let other = || if long() { fastrand::u64(1..) } else { SEED };
        let seed = seed.unwrap_or_else(other);
        eprintln!("FALAJ_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

/// Requests that are right, to be spoilt.
fn seeds() -> Vec<BytesMut> {
    let group = || GroupId(string("spoilt"));
    let mut seeds = Vec::new();
    for version in [3, 9] {
        seeds.push(request(
            version,
            1,
            &produce("spoilt", -1, batch(&["a", "b"])),
        ));
    }
    for version in [4, 12] {
        seeds.push(request(version, 1, &fetch("spoilt", 0, 5, 1 << 20)));
    }
    for version in [0, 3] {
        let q = ApiVersionsRequest::default();
        seeds.push(request(version, 1, &q));
    }
    for version in [1, 12] {
        let topic = metadata_request::MetadataRequestTopic::default();
        let q = MetadataRequest::default()
            .with_topics(Some(vec![topic.with_name(Some(name("spoilt")))]));
        seeds.push(request(version, 1, &q));
    }
    for version in [2, 9] {
        let q = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(6000)
            .with_rebalance_timeout_ms(50)
            .with_protocol_type(string("consumer"))
            .with_protocols(vec![
                join_group_request::JoinGroupRequestProtocol::default().with_name(string("range")),
            ]);
        seeds.push(request(version, 1, &q));
    }
    let partition = offset_commit_request::OffsetCommitRequestPartition::default()
        .with_committed_offset(1)
        .with_committed_metadata(Some(StrBytes::new()));
    let q = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![
            offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(name("spoilt"))
                .with_partitions(vec![partition]),
        ]);
    seeds.push(request(8, 1, &q));
    let q = ListOffsetsRequest::default().with_topics(vec![
        list_offsets_request::ListOffsetsTopic::default()
            .with_name(name("spoilt"))
            .with_partitions(vec![list_offsets_request::ListOffsetsPartition::default()]),
    ]);
    seeds.push(request(7, 1, &q));
    let q = CreateTopicsRequest::default().with_topics(vec![
        create_topics_request::CreatableTopic::default()
            .with_name(name("spoilt"))
            .with_num_partitions(1)
            .with_replication_factor(1),
    ]);
    seeds.push(request(7, 1, &q));
    let q = OffsetFetchRequest::default().with_groups(vec![
        offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(group()),
    ]);
    seeds.push(request(8, 1, &q));
    seeds.push(request(
        1,
        1,
        &SaslHandshakeRequest::default().with_mechanism(string("PLAIN")),
    ));
    seeds.push(request(
        4,
        1,
        &InitProducerIdRequest::default().with_transactional_id(None),
    ));
    seeds
}

fn spoilt(dice: &mut Dice, seeds: &[BytesMut]) -> Vec<u8> {
    let mut bytes = seeds[dice.below(seeds.len())].to_vec();
    match dice.below(6) {
        // Anything at all.
        0 => {
            let length = dice.below(200);
            dice.bytes(length)
        }
        // A length, and anything.
        1 => {
            let length = dice.below(300);
            let mut framed = Vec::new();
            framed.put_i32(i32::try_from(length).unwrap());
            framed.extend(dice.bytes(length));
            framed
        }
        // A real kind and version, and anything.
        2 => {
            for byte in &mut bytes[8..] {
                *byte = dice.next().to_le_bytes()[5];
            }
            bytes
        }
        // The end is missing: the length says so, or does not.
        3 => {
            bytes.truncate(4 + dice.below(bytes.len() - 4));
            if dice.below(2) == 0 {
                let length = i32::try_from(bytes.len() - 4).unwrap();
                bytes[..4].copy_from_slice(&length.to_be_bytes());
            }
            bytes
        }
        // Some bytes are others; lengths and counts become large or negative.
        kind => {
            for _ in 0..=dice.below(4) {
                let at = 4 + dice.below(bytes.len() - 4);
                bytes[at] = dice.next().to_le_bytes()[2];
            }
            if kind == 5 {
                let at = 8 + dice.below(bytes.len() - 11);
                let number = [i32::MAX, i32::MIN, -1, -2, 1 << 24, 0x7fff_ff00][dice.below(6)];
                bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            bytes
        }
    }
}

/// Sends spoilt requests, and reads what comes back for a moment, until `enough`.
async fn spoil(broker: &Running, mut dice: Dice, mut enough: impl FnMut(u64) -> bool) -> u64 {
    let seeds = seeds();
    let mut sent = 0;
    while !enough(sent) {
        let Ok(mut stream) = TcpStream::connect(broker.address).await else {
            panic!("nobody listens any more after {sent} requests");
        };
        for _ in 0..=dice.below(4) {
            sent += 1;
            if stream.write_all(&spoilt(&mut dice, &seeds)).await.is_err() {
                break;
            }
            let mut answer = [0; 512];
            let read = tokio::time::timeout(Duration::from_millis(2), stream.read(&mut answer));
            if matches!(read.await, Ok(Ok(0) | Err(_))) {
                break;
            }
        }
    }
    sent
}

/// Produces and reads back for as long as it is told to; gives how long each round took.
async fn work(broker: &Running, topic: &str, stop: &AtomicBool) -> Vec<Duration> {
    let mut client = broker.client().await;
    client.create(topic, 1).await;
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let value = format!("value {}", took.len());
        let start = Instant::now();
        let offset = client.produce(topic, &[&value]).await;
        assert_eq!(
            usize::try_from(offset).unwrap(),
            took.len(),
            "nobody else writes here"
        );
        assert_eq!(client.values(topic, offset).await, [value]);
        took.push(start.elapsed());
    }
    took
}

/// Panics of all threads since the test began; the listener must add none.
fn count_panics() -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let before = std::panic::take_hook();
    let counted = Arc::clone(&count);
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map_or("", |l| l.file());
        if !place.contains("tests/it") {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        before(info);
    }));
    count
}

/// Resident memory of this process in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux");
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .expect("it says so");
    line.split_ascii_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number")
}

/// Says how a client fared that sends what is right.
fn tell(when: &str, mut took: Vec<Duration>) {
    assert!(!took.is_empty(), "it came to nothing");
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    eprintln!(
        "{when}: {} records produced and read back, each in {:?} (median), {:?} (99 %), {:?} (most)",
        took.len(),
        at(50),
        at(99),
        at(100),
    );
}

/// Thousands of them in the ordinary run; ten minutes, and what memory they take, with `FALAJ_LONG=1`.
#[tokio::test(flavor = "multi_thread")]
async fn spoilt_requests_hurt_nobody() {
    let mut options = options();
    options.limits.partitions = 64;
    options.limits.groups = 64;
    let broker = Running::start(options).await;
    let panics = count_panics();
    if long() {
        let stop = AtomicBool::new(false);
        let later = async {
            tokio::time::sleep(ALONE).await;
            stop.store(true, Ordering::Relaxed);
        };
        let (took, ()) = tokio::join!(work(&broker, "alone", &stop), later);
        tell("alone", took);
    }
    let stop = AtomicBool::new(false);
    let (start, before) = (Instant::now(), resident_kib());
    let mut warm = None;
    let enough = |sent| {
        if !long() {
            return sent >= REQUESTS;
        }
        if start.elapsed() > WARM_UP {
            warm.get_or_insert_with(resident_kib);
        }
        start.elapsed() > LONG
    };
    let (sent, took) = tokio::join!(
        async {
            let sent = spoil(&broker, Dice::new(), enough).await;
            stop.store(true, Ordering::Relaxed);
            sent
        },
        work(&broker, TOPIC, &stop),
    );
    let (end, seconds) = (resident_kib(), start.elapsed().as_secs());
    eprintln!(
        "{sent} spoilt requests in {seconds} s, memory {before} KiB before and {end} KiB after"
    );
    tell("beside them", took);
    assert_eq!(panics.load(Ordering::Relaxed), 0, "after {sent} requests");
    if let Some(warm) = warm {
        eprintln!("{warm} KiB once everything had been used");
        assert!(
            end < warm + GROWTH_KIB_MAX,
            "it grew from {warm} KiB to {end} KiB"
        );
    }
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_is_not_there_takes_no_memory() {
    let broker = Running::start(options()).await;
    // 2^31 - 1 topics, and no byte of them: a decoder that believes it asks for 200 GB.
    for (version, flexible) in [(1_i16, false), (12, true)] {
        let mut body = BytesMut::new();
        body.put_i16(3);
        body.put_i16(version);
        body.put_i32(1);
        body.put_i16(-1);
        if flexible {
            body.put_u8(0);
            body.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        } else {
            body.put_i32(i32::MAX);
        }
        let mut client = broker.client().await;
        let mut framed = i32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(body);
        client.raw(&framed).await.unwrap();
        assert!(client.frame().await.is_none(), "v{version}");
    }
    // As many as there may be, all there, but too many to be meant.
    let topics =
        vec![metadata_request::MetadataRequestTopic::default().with_name(Some(name("a"))); 200_000];
    let mut client = broker.client().await;
    client
        .send(12, &MetadataRequest::default().with_topics(Some(topics)))
        .await;
    assert!(client.frame().await.is_none());
    broker.client().await.create("still", 1).await;
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stalls_hurts_nobody_else() {
    let mut options = options();
    options.limits.stalled = Duration::from_millis(500);
    options.limits.requests_bytes = 4 << 20;
    options.limits.replies_bytes = 4 << 20;
    let broker = Running::start(options).await;
    let mut client = broker.client().await;
    client.create(TOPIC, 1).await;
    let value = "x".repeat(500_000);
    for _ in 0..8 {
        client.produce(TOPIC, &[&value]).await;
    }
    // Half a request each, and large replies that nobody takes.
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut half = broker.client().await;
        half.raw(&(8_i32 << 20).to_be_bytes()).await.unwrap();
        half.raw(&vec![0; 1 << 20]).await.unwrap_or(());
        stalled.push(half);
        let mut greedy = broker.client().await;
        for _ in 0..4 {
            greedy.send(12, &fetch(TOPIC, 0, 0, 4 << 20)).await;
        }
        stalled.push(greedy);
    }
    for _ in 0..3 {
        let offset = client.produce(TOPIC, &[&value]).await;
        assert_eq!(client.values(TOPIC, offset).await.len(), 1);
    }
    drop(stalled);
    broker.end().await;
}
