//! A listener of a test, and a client that says exactly what it is told to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use falaj_broker::{Limits, Listener, Options};
use falaj_log::{Log, LogOptions};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything; reached only when something is broken.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Whether the long runs are asked for; see `CONTRIBUTING.md`.
pub fn long() -> bool {
    std::env::var_os("FALAJ_LONG").is_some_and(|long| long == "1")
}

/// A listener that ends with its test.
pub struct Running {
    pub address: SocketAddr,
    pub log: Arc<Log>,
    pub stop: CancellationToken,
    pub folder: Arc<TempDir>,
    serving: JoinHandle<()>,
}

/// What tests change nothing about.
pub fn options() -> Options {
    Options {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        limits: Limits {
            session: Duration::from_millis(300)..=Duration::from_mins(30),
            first_rebalance: Duration::from_millis(50),
            ..Limits::default()
        },
        ..Options::default()
    }
}

impl Running {
    pub async fn start(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(Arc::new(folder), options).await
    }

    pub async fn start_in(folder: Arc<TempDir>, options: Options) -> Self {
        let path = folder.path().to_owned();
        let (log, listener) = tokio::task::spawn_blocking(move || open(&path, options))
            .await
            .expect("it opens");
        let address = listener.address();
        let stop = CancellationToken::new();
        let serving = tokio::spawn({
            let stop = stop.clone();
            async move { listener.run(stop).await.expect("it serves") }
        });
        Self {
            address,
            log,
            stop,
            folder,
            serving,
        }
    }

    pub async fn client(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.address).await.expect("it listens"))
    }

    /// Ends it as a stop does, and gives its folder.
    pub async fn end(self) -> Arc<TempDir> {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving)
            .await
            .expect("it drains")
            .expect("it ends without a panic");
        let log = self.log;
        tokio::task::spawn_blocking(move || log.close())
            .await
            .expect("the log closes");
        self.folder
    }
}

fn open(path: &Path, options: Options) -> (Arc<Log>, Listener) {
    let log = Arc::new(Log::open(path, LogOptions::default()).expect("the log opens"));
    let listener = Listener::bind(Arc::clone(&log), options).expect("it binds");
    (log, listener)
}

/// One connection.
pub struct Client<S> {
    stream: S,
    correlation: i32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            correlation: 0,
        }
    }

    /// Sends a request and reads its answer.
    pub async fn ask<Q: Request>(&mut self, version: i16, q: &Q) -> Q::Response {
        self.send(version, q).await;
        self.answer::<Q>(version).await.expect("an answer")
    }

    pub async fn send<Q: Request>(&mut self, version: i16, q: &Q) {
        self.correlation += 1;
        let bytes = request(version, self.correlation, q);
        self.raw(&bytes).await.expect("it takes requests");
    }

    pub async fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next answer, if there is one before the connection ends.
    pub async fn answer<Q: Request>(&mut self, version: i16) -> Option<Q::Response> {
        let mut bytes = self.frame().await?;
        let key = ApiKey::try_from(Q::KEY).expect("a known kind");
        let header = ResponseHeader::decode(&mut bytes, key.response_header_version(version))
            .expect("a header");
        assert_eq!(
            header.correlation_id, self.correlation,
            "answers are in order"
        );
        let answer = Q::Response::decode(&mut bytes, version).expect("an answer of that version");
        assert!(
            !bytes.has_remaining(),
            "{key:?} v{version}: bytes behind the answer"
        );
        Some(answer)
    }

    /// The next frame without its length.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let read = async {
            let length = self.stream.read_i32().await.ok()?;
            let mut bytes = vec![0; usize::try_from(length).expect("a length")];
            self.stream.read_exact(&mut bytes).await.ok()?;
            Some(Bytes::from(bytes))
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("an answer or an end in time")
    }

    pub async fn create(&mut self, topic: &str, partitions: i32) {
        let q = CreateTopicsRequest::default()
            .with_timeout_ms(1000)
            .with_topics(vec![
                CreatableTopic::default()
                    .with_name(name(topic))
                    .with_num_partitions(partitions)
                    .with_replication_factor(1),
            ]);
        let made = self.ask(7, &q).await;
        assert_eq!(made.topics[0].error_code, 0, "{:?}", made.topics[0]);
    }

    /// Appends records without keys to partition 0; gives the offset of the first.
    pub async fn produce(&mut self, topic: &str, values: &[&str]) -> i64 {
        let answer = self.ask(9, &produce(topic, -1, batch(values))).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0, "{partition:?}");
        partition.base_offset
    }

    /// Values of partition 0 from an offset on, as far as they are there.
    pub async fn values(&mut self, topic: &str, from: i64) -> Vec<String> {
        let mut values = Vec::new();
        let mut next = from;
        loop {
            let answer = self.ask(12, &fetch(topic, next, 0, 1 << 20)).await;
            let partition = &answer.responses[0].partitions[0];
            assert_eq!(partition.error_code, 0, "{partition:?}");
            let records = records(&answer);
            let Some(last) = records.last() else {
                return values;
            };
            next = last.offset + 1;
            let new = records.iter().filter(|r| r.offset >= from);
            values.extend(new.map(|r| {
                String::from_utf8(r.value.clone().expect("a value").to_vec()).expect("a text")
            }));
        }
    }
}

/// Produces much, little and nothing, and fetches all of it at once in every version.
pub async fn many_batches<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>) {
    const TOPICS: [(&str, usize); 5] = [
        ("much", 40),
        ("little", 1),
        ("nothing", 0),
        ("more", 60),
        ("again-little", 2),
    ];
    const BYTES_MAX: i32 = 8 << 20;
    let value = "x".repeat(30_000);
    let mut expected = Vec::new();
    for (topic, batches) in TOPICS {
        client.create(topic, 1).await;
        let mut bytes = Vec::new();
        for n in 0..batches {
            client.produce(topic, &[&format!("{n} {value}")]).await;
            // A single batch is too little to be sent out of a file.
            let offset = i64::try_from(n).expect("it is small");
            let one = client.ask(12, &fetch(topic, offset, 0, 60_000)).await;
            let one = one.responses[0].partitions[0].records.clone();
            bytes.extend(one.expect("a batch"));
        }
        expected.push(bytes);
    }
    for version in 4..=12 {
        let topics = TOPICS.map(|(topic, _)| fetch(topic, 0, 0, BYTES_MAX).topics.remove(0));
        let q = FetchRequest::default()
            .with_max_bytes(BYTES_MAX)
            .with_topics(topics.into());
        let answer = client.ask(version, &q).await;
        assert_eq!(answer.responses.len(), TOPICS.len());
        for ((answer, expected), (topic, batches)) in
            answer.responses.iter().zip(&expected).zip(TOPICS)
        {
            assert_eq!(answer.topic, name(topic));
            let data = &answer.partitions[0];
            assert_eq!(data.error_code, 0);
            assert_eq!(usize::try_from(data.high_watermark), Ok(batches));
            let records = data.records.as_deref().expect("they are there");
            assert!(records == expected, "{topic} v{version}");
        }
    }
}

/// A request on the wire.
pub fn request<Q: Encodable + Request>(version: i16, correlation: i32, q: &Q) -> BytesMut {
    let key = ApiKey::try_from(Q::KEY).expect("a known kind");
    let mut bytes = BytesMut::new();
    bytes.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("a-test")))
        .encode(&mut bytes, key.request_header_version(version))
        .expect("a header");
    q.encode(&mut bytes, version)
        .expect("a request of that version");
    let length = i32::try_from(bytes.len() - 4).expect("it is short");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

pub fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

pub fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A producer and the sequence of its first record.
#[derive(Clone, Copy)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
}

/// Records without keys.
pub fn batch(values: &[&str]) -> Bytes {
    batch_by(values, None, Compression::None)
}

pub fn batch_by(values: &[&str], producer: Option<Producer>, compression: Compression) -> Bytes {
    let producer = producer.unwrap_or(Producer {
        id: -1,
        epoch: -1,
        sequence: -1,
    });
    let records: Vec<Record> = (0_i32..)
        .zip(values)
        .map(|(index, value)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(index),
            sequence: producer.sequence + index,
            timestamp: 1_700_000_000_000 + i64::from(index),
            key: None,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: IndexMap::new(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("a batch");
    bytes.freeze()
}

pub fn produce(topic: &str, acks: i16, batch: Bytes) -> ProduceRequest {
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(name(topic))
                .with_partition_data(vec![
                    PartitionProduceData::default()
                        .with_index(0)
                        .with_records(Some(batch)),
                ]),
        ])
}

/// A fetch of partition 0 that wants at least a byte within `wait_ms`.
pub fn fetch(topic: &str, offset: i64, wait_ms: i32, bytes_max: i32) -> FetchRequest {
    FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(bytes_max)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(name(topic))
                .with_partitions(vec![
                    FetchPartition::default()
                        .with_partition(0)
                        .with_fetch_offset(offset)
                        .with_partition_max_bytes(bytes_max),
                ]),
        ])
}

/// All records of an answer.
pub fn records(answer: &FetchResponse) -> Vec<Record> {
    let partitions = answer.responses.iter().flat_map(|t| &t.partitions);
    let bytes = partitions.filter_map(|p| p.records.clone());
    bytes
        .flat_map(|mut bytes| RecordBatchDecoder::decode_all(&mut bytes).expect("whole batches"))
        .flat_map(|set| set.records)
        .collect()
}

/// The error of the first partition of an answer.
pub fn produced(answer: &ProduceResponse) -> (i16, i64) {
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}
