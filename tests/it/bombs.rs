//! Batches that are small on the wire and huge or broken once they are unpacked, written by another
//! client through the Kafka listener: rejects with their places, in bounded memory, while the line
//! goes on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Running, Workplace, assert_balanced, output, stderr, stdout};

const HEAD_BYTES: usize = 61;
/// What a bomb unpacks to: three times what is allowed.
const BOMB_BYTES: usize = 192 << 20;
/// What is allowed, but not often at once.
const DENSE_BYTES: usize = 60 << 20;
const DENSE: u64 = 20;
/// A falaj that keeps all dense batches at once, or one bomb as it wants to be, needs more.
const PEAK_BYTES_MAX: u64 = 900 << 20;
const RECORDS: u64 = 500;
const RAW: &str = "messages";
const OWN: &str = "messages.cleared";

const PIPELINE: &str = r#"
[pipeline]
name = "bombs"
checkpoint = "100ms"
[source.kafka]
topic = "messages"
[topic]
name = "messages.cleared"
partitions = 1
listen = "127.0.0.1:0"
[privacy]
k = 1
delta_k = 1
[purpose.test]
legal_basis = "contract"
retention = "1d"
[fields]
n = { from = "n", type = "int", class = "non_personal", purpose = "test" }
[views.total]
sql = "SELECT count(*) AS records, sum(n) AS total FROM records"
[sinks.local]
type = "sqlite"
views = ["*"]
"#;

fn batch(values: &[Bytes], compression: Compression) -> BytesMut {
    let records: Vec<Record> = (0_i32..)
        .zip(values)
        .map(|(n, value)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset: n.into(),
            sequence: n - 1,
            timestamp: 1_767_225_600_000,
            key: None,
            value: Some(value.clone()),
            headers: indexmap::IndexMap::default(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes
}

/// A batch of one record with another payload than its own, and the right checksum.
fn forged(compression: Compression, payload: &[u8]) -> BytesMut {
    let mut bytes = batch(&[Bytes::from_static(b"x")], compression);
    bytes.truncate(HEAD_BYTES);
    bytes.extend_from_slice(payload);
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// One bomb of each codec. What snappy packs is a twentieth at best, so its bomb is a block that
/// claims to be of 4 GiB.
fn bombs() -> [BytesMut; 4] {
    let zeros = [Bytes::from(vec![0; BOMB_BYTES])];
    [
        batch(&zeros, Compression::Gzip),
        forged(Compression::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
        batch(&zeros, Compression::Lz4),
        batch(&zeros, Compression::Zstd),
    ]
}

/// Appends a batch through the listener, as any client does; gives the offset of its first record.
fn produce(stream: &mut TcpStream, topic: &str, batch: &BytesMut) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match answered(stream, topic, batch) {
            (0, offset) => return offset,
            // The raw topic is made when the source opens.
            (3, _) => assert!(Instant::now() < deadline, "`{topic}` is never made"),
            (code, _) => panic!("`{topic}`: error {code}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn answered(stream: &mut TcpStream, topic: &str, batch: &BytesMut) -> (i16, i64) {
    const VERSION: i16 = 9;
    let partition = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(batch.clone().freeze()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_data(vec![partition]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    let mut bytes = BytesMut::new();
    bytes.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(ApiKey::Produce as i16)
        .with_request_api_version(VERSION)
        .with_correlation_id(1)
        .encode(&mut bytes, ApiKey::Produce.request_header_version(VERSION))
        .unwrap();
    request.encode(&mut bytes, VERSION).unwrap();
    let length = i32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&bytes).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut answer).unwrap();
    let mut answer = Bytes::from(answer);
    let header = ApiKey::Produce.response_header_version(VERSION);
    ResponseHeader::decode(&mut answer, header).unwrap();
    let answer = ProduceResponse::decode(&mut answer, VERSION).unwrap();
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// Most memory that a process has held, in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    kib * 1024
}

#[test]
fn a_bomb_of_each_codec_is_a_reject_with_its_place_and_the_line_goes_on_in_bounded_memory() {
    let place = Workplace::new();
    let pipeline = place.write("bombs.toml", PIPELINE.as_bytes());
    let running = Running::start(&place.run_args(&pipeline, &[]));
    let address: SocketAddr = running.told("kafka: ").parse().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();

    let dense = batch(&[Bytes::from(vec![0; DENSE_BYTES])], Compression::Zstd);
    let broken = forged(Compression::Gzip, b"not gzip at all");
    let mut places = Vec::new();
    for topic in [RAW, OWN] {
        for bomb in bombs() {
            assert!(bomb.len() < 1 << 20, "it is small on the wire");
            let length = bomb.len();
            let offset = produce(&mut stream, topic, &bomb);
            places.push((topic, "batch_too_large", offset, length));
        }
        for _ in 0..DENSE {
            produce(&mut stream, topic, &dense);
        }
        let offset = produce(&mut stream, topic, &broken);
        places.push((topic, "batch_broken", offset, broken.len()));
    }
    // Whoever writes well is read as ever, behind all of that.
    for n in 0..RECORDS {
        let value = json!({ "n": n }).to_string();
        produce(&mut stream, RAW, &batch(&[value.into()], Compression::Lz4));
    }
    let unusable = 4 + DENSE + 1;
    let full = |status: &Value| {
        let (source, topic) = (&status["ledger"]["source"], &status["ledger"]["topic"]);
        source["in"] == RECORDS + unusable && topic["read"] == RECORDS + unusable
    };
    let status = running.wait_for("/api/v1/status", full);
    let ledger = &status["ledger"];
    assert_balanced(ledger);
    assert_eq!(ledger["source"]["rejected"], unusable);
    assert_eq!(ledger["topic"]["rejected"], unusable);
    assert_eq!(ledger["topic"]["out"], RECORDS);
    assert_eq!(running.get("/readyz").status, 200);
    let peak = peak(running.pid());
    eprintln!("peak memory {} MiB", peak >> 20);
    assert!(peak < PEAK_BYTES_MAX, "it held {} MiB", peak >> 20);
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");

    let listed = output([
        "rejects",
        "list",
        &pipeline.display().to_string(),
        "--json",
        "--data-dir",
        &place.data().display().to_string(),
    ]);
    assert!(listed.status.success(), "{}", stderr(&listed));
    let listed: Vec<Value> = stdout(&listed)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (topic, reason, offset, length) in places {
        let found = listed.iter().filter(|reject| {
            let (at, position) = if topic == OWN {
                (&reject["at"]["topic"]["offset"], offset)
            } else {
                // A record's position in a raw topic is its offset and 1.
                (&reject["at"]["source"]["position"], offset + 1)
            };
            *at == position && reject["reason"] == reason && reject["length"] == length
        });
        assert_eq!(found.count(), 1, "{topic} {offset} {reason}");
    }
    assert_eq!(listed.len() as u64, 2 * unusable);

    // A second run reads none of it again.
    let running = Running::start(&place.run_args(&pipeline, &[]));
    let again = running.wait_for("/api/v1/status", full);
    assert_eq!(again["ledger"]["source"], ledger["source"]);
    assert_eq!(again["ledger"]["topic"], ledger["topic"]);
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
}
