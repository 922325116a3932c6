//! What comes back from the topic, and what does not.

#![expect(
    clippy::similar_names,
    clippy::too_many_lines,
    reason = "a decoder gives what is decoded; tables are long"
)]

mod common;

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use common::people::{Dice, person};
use common::{FIELDS, HEAD, fetched, gate, keys, policy, raw};
use falaj_privacy::{Decoded, Decoder, Key, Keys, Policy, Seen};
use falaj_record::{At, Fetched, Message, Reason, Reject, Unreadable};

const NOW: i64 = 1_767_225_600_000;
const PID: &str = "abcdefghijklmnopqrstuvwxyz";

fn decoder(policy: &Arc<Policy>) -> Decoder {
    Decoder::new(Arc::clone(policy), &keys(), &[])
}

fn message(policy: &Policy, offset: i64, src: &str, value: &str) -> Message {
    Message {
        offset,
        timestamp_ms: NOW + offset,
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        policy: Some(policy.header(&keys())),
        src: Some(Bytes::copy_from_slice(src.as_bytes())),
    }
}

fn part(partition: i32, messages: Vec<Message>) -> Fetched {
    let next = messages.last().map_or(0, |message| message.offset + 1);
    Fetched {
        partition,
        messages,
        next,
        end: next,
        ..Fetched::default()
    }
}

fn batch(decoded: &Decoded) -> &RecordBatch {
    let batch = &decoded.batch.get().0;
    let all = batch.num_rows() as u64 + decoded.rejects.len() as u64 + decoded.duplicates;
    assert_eq!(all, decoded.read, "every message is accounted for");
    batch
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(column).expect("a column");
    column
        .as_string::<i32>()
        .iter()
        .map(|text| text.map(str::to_owned))
        .collect()
}

#[test]
fn what_the_gate_cleared_comes_back_as_columns() {
    let policy = policy(HEAD, FIELDS);
    let mut dice = Dice(11);
    let records: Vec<String> = (0..500).map(|_| person(&mut dice)).collect();
    let outbound = gate(&policy)
        .clear(&raw(&records), NOW)
        .cleared
        .into_inner();
    let read = fetched(&outbound);
    let mut decoder = decoder(&policy);
    let decoded = decoder.decode(&read, NOW);
    let batch = batch(&decoded);
    assert_eq!(&batch.schema(), policy.schema().arrow());
    assert_eq!(
        (decoded.read, decoded.duplicates, decoded.rejects.len()),
        (500, 0, 0)
    );
    let ages = batch
        .column_by_name("age")
        .expect("age")
        .as_primitive::<Int64Type>();
    let times = batch.column_by_name("event_time").expect("time");
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let offsets = batch
        .column_by_name("_offset")
        .expect("offset")
        .as_primitive::<Int64Type>();
    let partitions = batch.column_by_name("_partition").expect("partition");
    let partitions = partitions.as_primitive::<Int32Type>();
    let sent = read
        .iter()
        .flat_map(|part| part.messages.iter().map(|m| (part.partition, m)));
    for (row, (partition, message)) in sent.enumerate() {
        let value = message.value.as_ref().expect("a value");
        let value: serde_json::Value = serde_json::from_slice(value).expect("JSON");
        for name in ["pid", "nat", "gender", "age_band", "email_domain"] {
            let column = batch
                .column_by_name(name)
                .expect("a column")
                .as_string::<i32>();
            assert_eq!(column.value(row), value[name], "{name}");
        }
        assert_eq!(ages.value(row), value["age"]);
        assert_eq!(times.value(row), NOW * 1000);
        assert_eq!(
            (partitions.value(row), offsets.value(row)),
            (partition, message.offset)
        );
    }
}

#[test]
fn every_type_comes_back_with_its_nulls() {
    let field = |kind: &str| {
        format!(r#"from = "{kind}", type = "{kind}", class = "quasi", purpose = "statistics""#)
    };
    let kinds = ["string", "int", "float", "bool"];
    let lines = kinds.map(field);
    let lines: Vec<(&str, &str)> = kinds
        .into_iter()
        .zip(lines.iter().map(String::as_str))
        .collect();
    let head = HEAD.replace("from = \"email\"", "from = \"email\"\nrequired = false");
    let policy = policy(&head, &lines);
    let mut decoder = decoder(&policy);
    let values = [
        r#"{"string":"a\u00e9\n","int":-7,"float":1.5,"bool":true,"pid":null}"#,
        r#"{"string":null,"int":null,"float":null,"bool":null}"#,
        r#"{"bool":false,"float":3,"int":9223372036854775807,"string":"","extra":{"int":1}}"#,
    ];
    let messages = values
        .iter()
        .zip(0..)
        .map(|(value, at)| message(&policy, at, &format!("f@{at}"), value))
        .collect();
    let decoded = decoder.decode(&[part(2, messages)], NOW);
    let batch = batch(&decoded);
    assert_eq!(
        batch.num_columns(),
        1 + 4 + 3,
        "nothing undeclared is there"
    );
    assert_eq!(
        texts(batch, "string"),
        [Some("aé\n".into()), None, Some(String::new())]
    );
    assert_eq!(texts(batch, "pid"), [None, None, None]);
    let ints: Vec<_> = batch.column(2).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(ints, [Some(-7), None, Some(i64::MAX)]);
    let floats: Vec<_> = batch
        .column(3)
        .as_primitive::<Float64Type>()
        .iter()
        .collect();
    assert_eq!(floats, [Some(1.5), None, Some(3.0)]);
    let bools: Vec<_> = batch.column(4).as_boolean().iter().collect();
    assert_eq!(bools, [Some(true), None, Some(false)]);
}

#[test]
fn the_topic_is_not_trusted() {
    let policy = policy(HEAD, FIELDS);
    let good = format!(r#"{{"nat":"CH","age":4,"pid":"{PID}"}}"#);
    let with = |value: &str| message(&policy, 0, "f@1", value);
    let headed = |header: Option<Bytes>| Message {
        policy: header,
        ..with(&good)
    };
    let ours = policy.header(&keys());
    let mut bent = ours.to_vec();
    *bent.last_mut().expect("a byte") ^= 1;
    let foreign = policy.header(&Keys::new(&Key::new([8; 32])));
    let cases: Vec<(Message, Reason, Option<&str>)> = vec![
        (headed(None), Reason::NotCleared, None),
        (headed(Some(Bytes::new())), Reason::NotCleared, None),
        (headed(Some(bent.into())), Reason::NotCleared, None),
        (headed(Some(foreign)), Reason::NotCleared, None),
        (
            headed(Some(policy.hash().to_owned().into())),
            Reason::NotCleared,
            None,
        ),
        (
            Message {
                value: None,
                ..with("")
            },
            Reason::NotObject,
            None,
        ),
        (
            Message {
                value: Some(Bytes::from_static(b"{\"nat\":\"\xff\"}")),
                ..with("")
            },
            Reason::NotUtf8,
            None,
        ),
        (
            Message {
                timestamp_ms: -1,
                ..with(&good)
            },
            Reason::NoEventTime,
            None,
        ),
        (
            Message {
                timestamp_ms: i64::MAX,
                ..with(&good)
            },
            Reason::NoEventTime,
            None,
        ),
        (message(&policy, 0, "f@", &good), Reason::NotCleared, None),
        (message(&policy, 0, "f", &good), Reason::NotCleared, None),
        (
            message(&policy, 0, &format!("{}@1", "f".repeat(300)), &good),
            Reason::NotCleared,
            None,
        ),
        (with(""), Reason::NotJson, None),
        (with("{\"nat\":\"CH\""), Reason::NotJson, None),
        (with("[]"), Reason::NotObject, None),
        (with(&"[".repeat(10_000)), Reason::TooDeep, None),
        (
            with(&good.replace("\"CH\"", "1")),
            Reason::WrongType,
            Some("nat"),
        ),
        (
            with(&good.replace('4', "4.5")),
            Reason::WrongType,
            Some("age"),
        ),
        (
            with(&good.replace('4', "99999999999999999999")),
            Reason::OutOfRange,
            Some("age"),
        ),
        (
            with(&good.replace(PID, "ann@example.com")),
            Reason::WrongType,
            Some("pid"),
        ),
        (
            with(r#"{"nat":"CH","pid":7}"#),
            Reason::WrongType,
            Some("pid"),
        ),
        (with(r#"{"nat":"CH"}"#), Reason::NoSubject, Some("pid")),
    ];
    for (message, reason, path) in cases {
        let decoded = decoder(&policy).decode(&[part(3, vec![message.clone()])], NOW);
        assert_eq!(batch(&decoded).num_rows(), 0);
        let reject = &decoded.rejects[0];
        assert_eq!(
            (reject.reason, reject.path.as_deref()),
            (reason, path),
            "{reject:?}"
        );
        assert_eq!(
            reject.length,
            message.value.map_or(0, |value| value.len() as u64)
        );
        assert_eq!(
            reject.at,
            At::Topic {
                partition: 3,
                offset: 0
            }
        );
    }
    let decoded = decoder(&policy).decode(&[part(3, vec![with(&good)])], NOW);
    assert_eq!(batch(&decoded).num_rows(), 1);
}

#[test]
fn repeats_are_dropped_per_source_and_partition_and_over_a_restart() {
    let policy = policy(HEAD, FIELDS);
    let value = format!(r#"{{"pid":"{PID}"}}"#);
    let messages = |sources: &[&str]| -> Vec<Message> {
        sources
            .iter()
            .zip(0..)
            .map(|(src, at)| message(&policy, at, src, &value))
            .collect()
    };
    let mut first = decoder(&policy);
    let decoded = first.decode(
        &[
            part(
                0,
                messages(&["a@1", "a@3", "a@3", "a@2", "b@1", "a@4", "b@1"]),
            ),
            part(1, messages(&["a@1", "a@3", "c@0", "c@0"])),
            part(0, messages(&["a@4", "a@5"])),
        ],
        NOW,
    );
    assert_eq!((decoded.read, decoded.duplicates), (13, 5));
    assert_eq!(batch(&decoded).num_rows(), 8);
    assert_eq!(first.seen().highest(0, "a"), Some(5));
    assert_eq!(first.seen().highest(1, "c"), Some(0));
    assert_eq!(first.seen().highest(1, "b"), None);

    let saved = serde_json::to_string(first.seen()).expect("JSON");
    let mut second = decoder(&policy);
    second.resume(serde_json::from_str::<Seen>(&saved).expect("JSON"));
    let decoded = second.decode(&[part(0, messages(&["a@5", "a@6", "b@2"]))], NOW);
    assert_eq!((decoded.duplicates, batch(&decoded).num_rows()), (1, 2));
}

#[test]
fn what_was_not_cleared_does_not_count_as_seen() {
    let policy = policy(HEAD, FIELDS);
    let value = format!(r#"{{"pid":"{PID}"}}"#);
    let mut decoder = decoder(&policy);
    let forged = Message {
        policy: Some(Bytes::from_static(b"1:00:00")),
        ..message(&policy, 0, "a@18446744073709551615", &value)
    };
    let honest = message(&policy, 1, "a@1", &value);
    let without = Message {
        src: None,
        ..message(&policy, 2, "", &value)
    };
    let messages = vec![forged, honest, without.clone(), without];
    let decoded = decoder.decode(&[part(0, messages)], NOW);
    assert_eq!((decoded.rejects.len(), decoded.duplicates), (1, 0));
    assert_eq!(batch(&decoded).num_rows(), 3);
}

#[test]
fn a_batch_that_cannot_be_taken_apart_is_one_reject_beside_what_is_read() {
    let policy = policy(HEAD, FIELDS);
    let value = format!(r#"{{"pid":"{PID}"}}"#);
    let broken = Unreadable {
        first: 1,
        next: 900,
        reason: Reason::BatchTooLarge,
        length: 77,
    };
    let part = Fetched {
        unreadable: vec![broken],
        ..part(
            2,
            vec![
                message(&policy, 0, "a@1", &value),
                message(&policy, 900, "a@2", &value),
            ],
        )
    };
    let decoded = decoder(&policy).decode(&[part], NOW);
    assert_eq!(batch(&decoded).num_rows(), 2);
    assert_eq!((decoded.read, decoded.duplicates), (3, 0));
    let reject = Reject {
        at: At::Topic {
            partition: 2,
            offset: 1,
        },
        reason: Reason::BatchTooLarge,
        path: None,
        length: 77,
        time_ms: NOW,
    };
    assert_eq!(decoded.rejects, [reject]);
}

#[test]
fn records_of_an_earlier_policy_give_what_did_not_change() {
    let old = policy(HEAD, FIELDS);
    let changed = FIELDS[3].1.replace("band(10)", "band(5)");
    let hashed = r#"from = "email", type = "string", class = "direct", purpose = "statistics", treat = "hmac(d)""#;
    let lines = [
        FIELDS[4],
        FIELDS[0],
        (FIELDS[3].0, &*changed),
        ("hashed", hashed),
    ];
    let new = policy(HEAD, &lines);
    let value = format!(
        r#"{{"nat":"CH","gender":"male","age":44,"age_band":"40-49","email_domain":"b.ch","hashed":"x","pid":"{PID}"}}"#
    );
    let read = |decoder: &mut Decoder| {
        decoder.decode(&[part(0, vec![message(&old, 0, "a@1", &value)])], NOW)
    };

    let decoded = read(&mut Decoder::new(Arc::clone(&new), &keys(), &[]));
    assert_eq!(decoded.rejects[0].reason, Reason::NotCleared);

    let earlier = serde_json::to_string(old.declarations()).expect("JSON");
    let earlier = [
        serde_json::from_str(&earlier).expect("JSON"),
        new.declarations().clone(),
    ];
    let decoded = read(&mut Decoder::new(Arc::clone(&new), &keys(), &earlier));
    let batch = batch(&decoded);
    let one = |name: &str| texts(batch, name)[0].clone();
    assert_eq!(one("pid").as_deref(), Some(PID));
    assert_eq!(one("nat").as_deref(), Some("CH"));
    assert_eq!(one("email_domain").as_deref(), Some("b.ch"));
    assert_eq!((one("age_band"), one("hashed")), (None, None));

    let other = policy(&HEAD.replace("from = \"email\"", "from = \"name\""), FIELDS);
    let decoded = read(&mut Decoder::new(
        other,
        &keys(),
        &[old.declarations().clone()],
    ));
    assert!(
        decoded.batch.get().0.column(0).is_null(0),
        "a pid of another subject is none"
    );
}

#[test]
fn an_empty_read_gives_an_empty_batch() {
    let policy = policy(HEAD, FIELDS);
    let mut decoder = decoder(&policy);
    for read in [vec![], vec![part(0, vec![])]] {
        let decoded = decoder.decode(&read, NOW);
        assert_eq!((decoded.read, batch(&decoded).num_rows()), (0, 0));
    }
}
