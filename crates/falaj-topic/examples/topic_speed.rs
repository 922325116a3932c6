//! What publishing and fetching cost a record, next to decoding by the Kafka codec:
//! `cargo run --release -p falaj-topic --example topic_speed [records] [os]`; with `os` nothing waits
//! for the disk.
//!
//! CPU time is that of the whole process, so clearing the records is measured first and alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use falaj_privacy::{
    Class, FieldConfig, Gate, Key, KeyedPseudonyms, Keys, LegalBasis, Policy, PolicyParts,
    PrivacyConfig, PurposeConfig, SubjectConfig,
};
use falaj_record::{ByteSize, FieldType, Period, Positions, Raw};
use falaj_topic::{Broker, Durability, Embedded, TopicConfig};
use indexmap::IndexMap;
use kafka_protocol::records::RecordBatchDecoder;

const BATCH: u64 = 1000;

fn gate() -> Gate {
    let field = |from: &str, kind, class, treat: Option<&str>| FieldConfig {
        from: from.into(),
        kind,
        class,
        purpose: Some("statistics".into()),
        treat: treat.map(Into::into),
    };
    let fields = IndexMap::from([
        (
            "nat".to_owned(),
            field("nat", FieldType::String, Class::Quasi, None),
        ),
        (
            "gender".to_owned(),
            field("gender", FieldType::String, Class::Quasi, None),
        ),
        (
            "age".to_owned(),
            field("dob.age", FieldType::Int, Class::Quasi, None),
        ),
        (
            "email_domain".to_owned(),
            field(
                "email",
                FieldType::String,
                Class::Direct,
                Some("email_domain"),
            ),
        ),
    ]);
    let purposes = IndexMap::from([(
        "statistics".to_owned(),
        PurposeConfig {
            legal_basis: Some(LegalBasis::LegitimateInterests),
            retention: Some(Period(Duration::from_hours(24))),
            data_subjects: Some("users".into()),
            consent: None,
        },
    )]);
    let privacy = PrivacyConfig {
        controller: Some("Example Ltd".into()),
        contact: Some("dpo@example.com".into()),
        subject: Some(SubjectConfig {
            from: "email".into(),
            required: true,
        }),
        ..PrivacyConfig::default()
    };
    let policy = Policy::compile(&PolicyParts {
        privacy: &privacy,
        purposes: &purposes,
        fields: &fields,
        event_time: None,
        max_record: ByteSize(1 << 20),
    });
    let keys = Keys::new(&Key::new([1; 32]));
    let pseudonyms = Arc::new(KeyedPseudonyms::new(&keys));
    Gate::new(
        Arc::new(policy.expect("right")),
        pseudonyms,
        &keys,
        "file-1".into(),
        4,
    )
}

/// User and system time of this process, in seconds (Linux counts hundredths).
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit_once(") ")
        .map_or("", |(_, rest)| rest)
        .split(' ');
    let ticks: Vec<f64> = fields.filter_map(|f| f.parse().ok()).collect();
    // The state, a letter, is not among the numbers: fields 14 and 15 are at 10 and 11.
    ticks
        .get(10..12)
        .map_or(0.0, |t| t.iter().sum::<f64>() / 100.0)
}

fn report(what: &str, records: u64, since: (Instant, f64)) {
    let (wall, cpu) = (since.0.elapsed().as_secs_f64(), cpu() - since.1);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let each = |seconds: f64| seconds * 1e6 / records as f64;
    eprintln!(
        "{what:<40} {:>7.3} µs wall, {:>7.3} µs CPU a record",
        each(wall),
        each(cpu)
    );
}

/// Reads the same batches as bytes, and decodes them by the Kafka codec.
fn by_the_codec(broker: &Embedded, records: u64) {
    let log = broker.log().topic("messages").expect("it was made");
    let mut batches = Vec::new();
    let since = (Instant::now(), cpu());
    for partition in log.partitions().iter() {
        let mut next = 0;
        while next < partition.offsets().end {
            let mut bytes = partition.read(next, 1 << 20).expect("read").batches;
            batches.push(bytes.clone());
            for info in RecordBatchDecoder::decode_batch_info(&mut bytes).expect("heads") {
                next = info.min_offset + i64::from(info.record_count);
            }
        }
    }
    report("read as bytes", records, since);
    let since = (Instant::now(), cpu());
    let mut count = 0;
    for batch in &batches {
        for set in RecordBatchDecoder::decode_all(&mut batch.clone()).expect("records") {
            count += set.records.len() as u64;
        }
    }
    assert_eq!(count, records);
    report("decode by kafka-protocol", records, since);
}

#[tokio::main]
async fn main() {
    let records = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    let dir = tempfile::tempdir().expect("a folder");
    let broker = Embedded::open(dir.path()).await.expect("a log");
    let durability = match std::env::args().nth(2).as_deref() {
        Some("os") => Durability::Os,
        _ => Durability::Fsync,
    };
    let config = TopicConfig {
        durability,
        ..TopicConfig::default()
    };
    let topic = broker.topic(&config).await.expect("a topic");
    let mut gate = gate();

    let since = (Instant::now(), cpu());
    let cleared: Vec<_> = (0..records / BATCH)
        .map(|batch| {
            let raws: Vec<_> = (batch * BATCH..(batch + 1) * BATCH)
                .map(|n| Raw::new(format!(
                        r#"{{"gender":"female","email":"user{n}@example.com","dob":{{"date":"1992-03-08T15:13:16.688Z","age":{}}},"nat":"CH"}}"#,
                        n % 90
                    )
                    .into(), n))
                .collect();
            gate.clear(&raws, 1_767_225_600_000).cleared
        })
        .collect();
    report("make and clear", records, since);

    let since = (Instant::now(), cpu());
    for records in cleared {
        topic.publish(records).await.expect("published");
    }
    report(
        &format!("publish, 1000 a call, {durability:?}"),
        records,
        since,
    );

    for bytes_max in [256 << 10, 1 << 20, 4 << 20] {
        let since = (Instant::now(), cpu());
        let mut positions = Positions::default();
        let mut count = 0;
        loop {
            let fetched = topic
                .fetch(&positions, bytes_max, Duration::ZERO)
                .await
                .expect("fetched");
            if fetched.is_empty() {
                break;
            }
            for f in fetched {
                positions.advance(f.partition, f.next);
                count += f.messages.len() as u64;
            }
        }
        assert_eq!(count, records);
        report(
            &format!("fetch, {} KiB a call", bytes_max >> 10),
            records,
            since,
        );
    }

    by_the_codec(&broker, records);

    drop(topic);
    broker.close().await;
    drop(broker);
    let since = Instant::now();
    let broker = Embedded::open(dir.path()).await.expect("a log");
    let bytes = broker
        .describe("messages")
        .await
        .expect("it is there")
        .bytes;
    eprintln!(
        "start over {} MB after a clean end: {:.1} ms",
        bytes.unwrap_or(0) / 1_000_000,
        since.elapsed().as_secs_f64() * 1000.0
    );
}
