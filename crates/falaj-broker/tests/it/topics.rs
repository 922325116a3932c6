//! Topics and records, over the wire.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::*;
use kafka_protocol::records::Compression;

use crate::support::{
    Producer, Running, batch, batch_by, fetch, many_batches, name, options, produce, produced,
    records, string,
};

const OFFSETS: &str = "__consumer_offsets";

#[tokio::test(flavor = "multi_thread")]
async fn batches_come_back_as_they_went_in() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("verbatim", 1).await;
    let compressions = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let mut sent = Vec::new();
    for (compression, base) in compressions.into_iter().zip((0..).step_by(3)) {
        let batch = batch_by(&["one", "two", "three"], None, compression);
        let answer = client.ask(9, &produce("verbatim", -1, batch.clone())).await;
        assert_eq!(produced(&answer), (0, base), "{compression:?}");
        sent.push(batch);
    }
    let answer = client.ask(12, &fetch("verbatim", 0, 0, 1 << 20)).await;
    let data = &answer.responses[0].partitions[0];
    assert_eq!((data.high_watermark, data.log_start_offset), (15, 0));
    assert_eq!(data.last_stable_offset, 15);
    let got = data.records.as_ref().unwrap();
    let mut at = 0;
    for batch in &sent {
        // All but base offset and leader epoch, which are the broker's to set.
        let got = &got[at..at + batch.len()];
        assert_eq!(got[8..12], batch[8..12]);
        assert_eq!(got[16..], batch[16..]);
        at += batch.len();
    }
    assert_eq!(at, got.len());
    // From inside a batch the whole batch is served; the client skips.
    let answer = client.ask(12, &fetch("verbatim", 13, 0, 1 << 20)).await;
    let offsets: Vec<i64> = records(&answer).iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [12, 13, 14]);
    broker.end().await;
}

/// Many batches are sent out of the log's files, and small ones stand between.
#[tokio::test(flavor = "multi_thread")]
async fn many_batches_come_back_as_they_went_in_in_every_version() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    many_batches(&mut client).await;
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotent_batches_are_stored_once() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("once", 1).await;
    let given = client
        .ask(
            4,
            &InitProducerIdRequest::default().with_transactional_id(None),
        )
        .await;
    let other = client
        .ask(
            4,
            &InitProducerIdRequest::default().with_transactional_id(None),
        )
        .await;
    assert_ne!(given.producer_id, other.producer_id);
    let of = |sequence, epoch| Producer {
        id: given.producer_id.0,
        epoch,
        sequence,
    };
    // (epoch, sequence, what comes back)
    for (epoch, sequence, expected) in [
        (0, 0, (0, 0)),
        (0, 2, (0, 2)),
        (0, 2, (0, 2)),
        (0, 0, (0, 0)),
        (0, 6, (ResponseError::OutOfOrderSequenceNumber.code(), -1)),
        (0, 4, (0, 4)),
        (1, 0, (0, 6)),
        (0, 6, (ResponseError::InvalidProducerEpoch.code(), -1)),
    ] {
        let batch = batch_by(&["a", "b"], Some(of(sequence, epoch)), Compression::None);
        let answer = client.ask(9, &produce("once", -1, batch)).await;
        assert_eq!(
            produced(&answer),
            expected,
            "epoch {epoch}, sequence {sequence}"
        );
    }
    assert_eq!(client.values("once", 0).await.len(), 8);
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn produce_says_what_is_wrong_in_kafkas_codes() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("strict", 1).await;
    let mut corrupt = batch(&["a"]).to_vec();
    *corrupt.last_mut().unwrap() ^= 1;
    // A record less than announced, under a checksum that is right.
    let mut short = batch(&["a"]).to_vec();
    short[60] = 2;
    let checksum = crc32c::crc32c(&short[21..]);
    short[17..21].copy_from_slice(&checksum.to_be_bytes());
    let large = "x".repeat(1_100_000);
    let right = || batch(&["a"]);
    for (topic, acks, batch, error) in [
        (
            "absent",
            -1,
            right(),
            ResponseError::UnknownTopicOrPartition,
        ),
        (OFFSETS, -1, right(), ResponseError::InvalidTopicException),
        ("strict", 2, right(), ResponseError::InvalidRequiredAcks),
        ("strict", -1, corrupt.into(), ResponseError::CorruptMessage),
        ("strict", -1, short.into(), ResponseError::InvalidRecord),
        (
            "strict",
            -1,
            batch(&[&large]),
            ResponseError::MessageTooLarge,
        ),
        (
            "strict",
            1,
            bytes::Bytes::new(),
            ResponseError::InvalidRecord,
        ),
    ] {
        for version in [3, 9] {
            let answer = client
                .ask(version, &produce(topic, acks, batch.clone()))
                .await;
            assert_eq!(
                produced(&answer),
                (error.code(), -1),
                "{error:?} v{version}"
            );
        }
    }
    assert!(client.values("strict", 0).await.is_empty());
    // Without an answer to say it with, a fault ends the connection; what is right goes on.
    client.send(9, &produce("strict", 0, right())).await;
    assert_eq!(client.produce("strict", &["b"]).await, 1);
    client.send(9, &produce("absent", 0, right())).await;
    assert!(client.frame().await.is_none());
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_for_records_and_no_longer() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("awaited", 1).await;
    let mut reader = broker.client().await;
    // An hour: only the record can end it in time.
    reader
        .send(12, &fetch("awaited", 0, 3_600_000, 1 << 20))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.produce("awaited", &["now"]).await;
    let answer = reader.answer::<FetchRequest>(12).await.unwrap();
    assert_eq!(records(&answer).len(), 1);
    // Nothing comes: it is answered when time is up, with nothing.
    let before = Instant::now();
    let answer = reader.ask(12, &fetch("awaited", 1, 200, 1 << 20)).await;
    assert!(records(&answer).is_empty());
    assert!(before.elapsed() >= Duration::from_millis(200));
    // More is wanted than there is: what is there comes when time is up.
    let mut q = fetch("awaited", 0, 200, 1 << 20);
    q.min_bytes = 1 << 20;
    assert_eq!(records(&reader.ask(12, &q).await).len(), 1);
    // A topic that goes away, and a stop, end the waiting too.
    reader
        .send(12, &fetch("awaited", 1, 3_600_000, 1 << 20))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let gone = DeleteTopicsRequest::default().with_topic_names(vec![name("awaited")]);
    assert_eq!(client.ask(5, &gone).await.responses[0].error_code, 0);
    let answer = tokio::time::timeout(Duration::from_secs(30), reader.answer::<FetchRequest>(12));
    let answer = answer.await.expect("the deletion ends it").unwrap();
    let error = answer.responses[0].partitions[0].error_code;
    assert_eq!(error, ResponseError::UnknownTopicOrPartition.code());
    client.create("awaited", 1).await;
    reader
        .send(12, &fetch("awaited", 0, 3_600_000, 1 << 20))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    broker.end().await;
    assert!(reader.answer::<FetchRequest>(12).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_stays_within_its_bounds_but_for_a_first_batch() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("sized", 1).await;
    let value = "x".repeat(1000);
    for _ in 0..10 {
        client.produce("sized", &[&value]).await;
    }
    let one = batch(&[&value]).len();
    for (bytes_max, batches) in [
        (0, 1),
        (1, 1),
        (one, 1),
        (2 * one - 1, 1),
        (2 * one, 2),
        (5 * one + 7, 5),
        (1 << 20, 10),
    ] {
        let bytes_max = i32::try_from(bytes_max).unwrap();
        let answer = client.ask(12, &fetch("sized", 0, 0, bytes_max)).await;
        assert_eq!(records(&answer).len(), batches, "{bytes_max} bytes");
    }
    for (offset, error) in [
        (-1, ResponseError::OffsetOutOfRange.code()),
        (11, ResponseError::OffsetOutOfRange.code()),
        (10, 0),
    ] {
        let answer = client.ask(12, &fetch("sized", offset, 0, 1)).await;
        assert_eq!(
            answer.responses[0].partitions[0].error_code, error,
            "{offset}"
        );
    }
    let mut q = fetch("sized", 0, 0, 1);
    q.session_id = 7;
    q.session_epoch = 1;
    let answer = client.ask(12, &q).await;
    assert_eq!(
        answer.error_code,
        ResponseError::FetchSessionIdNotFound.code()
    );
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_as_asked_or_refused_in_kafkas_words() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("there", 1).await;
    let topic = |topic: &str, partitions, replicas, config: Option<(&str, &str)>| {
        let config = config.map(|(key, value)| {
            CreatableTopicConfig::default()
                .with_name(string(key))
                .with_value(Some(string(value)))
        });
        CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
            .with_configs(config.into_iter().collect())
    };
    let cases = [
        (topic("a", 3, 1, None), 0, ""),
        (topic("b", -1, -1, Some(("retention.ms", "1000"))), 0, ""),
        (
            topic("there", 1, 1, None),
            36,
            "Topic 'there' already exists.",
        ),
        (topic("a/b", 1, 1, None), 17, "is not a topic name"),
        (topic("c", 0, 1, None), 37, "non-positive"),
        (topic("c", 5000, 1, None), 37, "at most 4096 partitions"),
        (
            topic("c", 1, 3, None),
            38,
            "cannot be reached because only 1 broker(s) are registered",
        ),
        (
            topic("c", 1, 1, Some(("retention.hours", "1"))),
            40,
            "Unknown topic config name: retention.hours",
        ),
        (
            topic("c", 1, 1, Some(("retention.ms", "soon"))),
            40,
            "Invalid value soon for configuration retention.ms",
        ),
        (topic(OFFSETS, 1, 1, None), 36, "already exists"),
    ];
    for validate_only in [true, false] {
        for (topic, error, words) in &cases {
            let q = CreateTopicsRequest::default()
                .with_topics(vec![topic.clone()])
                .with_timeout_ms(1000)
                .with_validate_only(validate_only);
            let answer = client.ask(7, &q).await;
            let result = &answer.topics[0];
            assert_eq!(result.error_code, *error, "{result:?}");
            let message = result.error_message.as_deref().unwrap_or_default();
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(broker.log.topic("a").is_some(), !validate_only);
    }
    assert_eq!(broker.log.topic("a").unwrap().partitions().len(), 3);
    assert_eq!(
        broker.log.topic("b").unwrap().settings().retention_ms,
        Some(1000)
    );
    let twice = CreateTopicsRequest::default()
        .with_topics(vec![topic("d", 1, 1, None), topic("d", 1, 1, None)]);
    let answer = client.ask(7, &twice).await;
    assert!(answer.topics.iter().all(|t| t.error_code == 42));
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_grow_shrink_and_go() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("changing", 1).await;
    client.produce("changing", &["a", "b", "c", "d"]).await;
    let grow = |topic: &str, count| {
        CreatePartitionsRequest::default().with_topics(vec![
            create_partitions_request::CreatePartitionsTopic::default()
                .with_name(name(topic))
                .with_count(count)
                .with_assignments(None),
        ])
    };
    for (topic, count, error) in [
        ("changing", 3, 0),
        ("changing", 3, 37),
        ("changing", 2, 37),
        ("absent", 3, 3),
        (OFFSETS, 3, 17),
    ] {
        let answer = client.ask(3, &grow(topic, count)).await;
        assert_eq!(answer.results[0].error_code, error, "{topic} {count}");
    }
    let described = client
        .ask(12, &MetadataRequest::default().with_topics(None))
        .await;
    let mut topics = described.topics.iter().map(|t| {
        let name = t.name.as_ref().unwrap().to_string();
        (name, t.partitions.len(), t.is_internal)
    });
    assert_eq!(topics.next(), Some((OFFSETS.into(), 1, true)));
    assert_eq!(topics.next(), Some(("changing".into(), 3, false)));
    assert_eq!(topics.next(), None);

    let cut = |topic: &str, offset| {
        DeleteRecordsRequest::default().with_topics(vec![
            delete_records_request::DeleteRecordsTopic::default()
                .with_name(name(topic))
                .with_partitions(vec![
                    delete_records_request::DeleteRecordsPartition::default()
                        .with_partition_index(0)
                        .with_offset(offset),
                ]),
        ])
    };
    for (topic, offset, expected) in [
        ("changing", 2, (0, 2)),
        ("changing", 9, (1, -1)),
        ("absent", 0, (3, -1)),
        (OFFSETS, -1, (44, -1)),
        ("changing", -1, (0, 4)),
    ] {
        let answer = client.ask(2, &cut(topic, offset)).await;
        let result = &answer.topics[0].partitions[0];
        assert_eq!(
            (result.error_code, result.low_watermark),
            expected,
            "{topic} {offset}"
        );
    }
    for (topic, error) in [("changing", 0), ("changing", 3), (OFFSETS, 17)] {
        let q = DeleteTopicsRequest::default().with_topic_names(vec![name(topic)]);
        let answer = client.ask(5, &q).await;
        assert_eq!(answer.responses[0].error_code, error, "{topic}");
    }
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_what_they_stand_for() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("timed", 1).await;
    // Timestamps 1_700_000_000_000 and the next two, twice, the second time compressed.
    client.produce("timed", &["a", "b", "c"]).await;
    let batch = batch_by(&["a", "b", "c"], None, Compression::Zstd);
    client.ask(9, &produce("timed", -1, batch)).await;
    for (at, expected) in [
        (-2, (0, -1)),
        (-1, (6, -1)),
        (-3, (2, 1_700_000_000_002)),
        (0, (0, 1_700_000_000_000)),
        (1_700_000_000_001, (1, 1_700_000_000_001)),
        (1_700_000_000_003, (-1, -1)),
    ] {
        let q = ListOffsetsRequest::default().with_topics(vec![
            list_offsets_request::ListOffsetsTopic::default()
                .with_name(name("timed"))
                .with_partitions(vec![
                    list_offsets_request::ListOffsetsPartition::default().with_timestamp(at),
                ]),
        ]);
        let answer = client.ask(7, &q).await;
        let found = &answer.topics[0].partitions[0];
        assert_eq!(
            (found.error_code, found.offset, found.timestamp),
            (0, expected.0, expected.1),
            "{at}"
        );
    }
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_by_asking_where_that_is_allowed() {
    for (allowed, partitions) in [(Some(3), 3), (None, 0)] {
        let mut options = options();
        options.auto_create = allowed;
        let broker = Running::start(options).await;
        let mut client = broker.client().await;
        for (create, expected) in [(false, 0), (true, partitions)] {
            let topic = metadata_request::MetadataRequestTopic::default();
            let q = MetadataRequest::default()
                .with_topics(Some(vec![topic.with_name(Some(name("asked")))]))
                .with_allow_auto_topic_creation(create);
            let answer = client.ask(12, &q).await;
            assert_eq!(answer.topics[0].partitions.len(), expected);
            assert_eq!(answer.topics[0].error_code == 0, expected > 0);
        }
        broker.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_shown_and_changed() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("set", 1).await;
    let incremental = |topic: &str, key: &str, operation, value: Option<&str>| {
        IncrementalAlterConfigsRequest::default().with_resources(vec![
            incremental_alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(string(topic))
                .with_configs(vec![
                    incremental_alter_configs_request::AlterableConfig::default()
                        .with_name(string(key))
                        .with_config_operation(operation)
                        .with_value(value.map(string)),
                ]),
        ])
    };
    for (topic, key, operation, value, error) in [
        ("set", "retention.ms", 0, Some("5000"), 0),
        ("set", "cleanup.policy", 2, Some("compact"), 0),
        ("set", "retention.ms", 0, Some("soon"), 40),
        ("set", "retention.hours", 0, Some("1"), 40),
        ("set", "retention.ms", 9, Some("1"), 40),
        ("absent", "retention.ms", 0, Some("1"), 3),
        (OFFSETS, "cleanup.policy", 0, Some("delete"), 17),
    ] {
        let answer = client
            .ask(1, &incremental(topic, key, operation, value))
            .await;
        assert_eq!(
            answer.responses[0].error_code, error,
            "{topic} {key} {value:?}"
        );
    }
    let describe = DescribeConfigsRequest::default()
        .with_resources(vec![
            describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(string("set"))
                .with_configuration_keys(None),
        ])
        .with_include_synonyms(true);
    let shown = |answer: &DescribeConfigsResponse, key: &str| {
        let mut configs = answer.results[0].configs.iter();
        let config = configs.find(|c| c.name.as_str() == key).unwrap();
        (
            config.value.as_ref().unwrap().to_string(),
            config.config_source,
        )
    };
    let answer = client.ask(4, &describe).await;
    assert_eq!(shown(&answer, "retention.ms"), ("5000".into(), 1));
    assert_eq!(
        shown(&answer, "cleanup.policy"),
        ("compact,delete".into(), 1)
    );
    assert_eq!(shown(&answer, "max.message.bytes"), ("1048588".into(), 5));
    // The older way sets everything: what is not named goes back.
    let all = AlterConfigsRequest::default().with_resources(vec![
        alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(string("set"))
            .with_configs(vec![
                alter_configs_request::AlterableConfig::default()
                    .with_name(string("retention.bytes"))
                    .with_value(Some(string("1000"))),
            ]),
    ]);
    assert_eq!(client.ask(2, &all).await.responses[0].error_code, 0);
    let folder = broker.end().await;
    let broker = Running::start_in(folder, options()).await;
    let answer = broker.client().await.ask(4, &describe).await;
    assert_eq!(shown(&answer, "retention.ms"), ("604800000".into(), 5));
    assert_eq!(shown(&answer, "retention.bytes"), ("1000".into(), 1));
    broker.end().await;
}
