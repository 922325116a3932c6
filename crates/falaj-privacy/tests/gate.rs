//! What passes the gate, in which form, and that nothing else does.

mod common;

use std::collections::HashSet;
use std::sync::Arc;

use common::people::{Dice, person};
use common::{FIELDS, HEAD, compile, gate, policy, raw};
use falaj_privacy::{Gate, Policy};
use falaj_record::{At, Outgoing, Raw, Reason, Src, Unreadable};
use serde_json::{Value, json};

const NOW: i64 = 1_767_225_600_000;

fn record(age: &str) -> String {
    format!(r#"{{"nat":"CH","gender":"male","dob":{{"age":{age}}},"email":"a@b.ch"}}"#)
}

/// The one record's message, or its reject's reason and path.
fn clear_one(gate: &mut Gate, record: &[u8]) -> Result<Outgoing, (Reason, Option<String>)> {
    let mut passage = gate.clear(&raw(&[record]), NOW);
    assert_eq!(passage.withheld, 0);
    let messages = passage.cleared.into_inner().messages;
    assert_eq!(messages.len() + passage.rejects.len(), 1);
    match passage.rejects.pop() {
        None => Ok(messages[0].clone()),
        Some(reject) => {
            assert_eq!(reject.length, record.len() as u64);
            assert_eq!(reject.time_ms, NOW);
            assert_eq!(
                reject.at,
                At::Source {
                    source: "file-0123".into(),
                    position: 1
                }
            );
            Err((reject.reason, reject.path.map(|path| path.to_string())))
        }
    }
}

fn value(message: &Outgoing) -> Value {
    serde_json::from_slice(&message.value).expect("JSON")
}

#[test]
fn a_batch_of_a_raw_topic_that_cannot_be_taken_apart_is_one_reject() {
    let policy = policy(HEAD, FIELDS);
    let batch = Unreadable {
        first: 1,
        next: 8,
        reason: Reason::BatchBroken,
        length: 77,
    };
    let records = [
        raw(&[record("1")]).swap_remove(0),
        Raw {
            position: 8,
            unreadable: Some(batch),
            ..Raw::default()
        },
    ];
    let passage = gate(&policy).clear(&records, NOW);
    assert_eq!(passage.cleared.get().messages.len(), 1);
    let [reject] = &passage.rejects[..] else {
        panic!("{:?}", passage.rejects);
    };
    let at = At::Source {
        source: "file-0123".into(),
        position: 8,
    };
    assert_eq!(
        (&reject.at, reject.reason, reject.length),
        (&at, Reason::BatchBroken, 77)
    );
}

#[test]
fn a_record_passes_as_its_declared_fields_and_a_pid() {
    let policy = policy(HEAD, FIELDS);
    let mut gate = gate(&policy);
    let passage = gate.clear(
        &raw(&[
            r#"{"gender":"female","name":{"first":"Ann"},"email":" Ann@B\u00fccher.de","dob":{"age":131},"nat":"D\"E"}"#,
            r#"{"email":"ann@bücher.DE","dob":{"age":29},"extra":[1,{"nat":"XX"}]}"#,
            r#"{"email":"bob","gender":null,"dob":[],"nat":""}"#,
        ]),
        NOW,
    );
    assert_eq!(passage.rejects, []);
    let outbound = passage.cleared.get();
    assert_eq!(outbound.policy, policy.header(&common::keys()));
    let values: Vec<Value> = outbound.messages.iter().map(value).collect();
    let pid = |at: usize| values[at]["pid"].as_str().expect("a pid");
    assert_eq!(
        values,
        [
            json!({"nat": "D\"E", "gender": "female", "age": 120, "age_band": "130-139", "email_domain": "xn--bcher-kva.de", "pid": pid(0)}),
            json!({"nat": null, "gender": null, "age": 29, "age_band": "20-29", "email_domain": "xn--bcher-kva.de", "pid": pid(1)}),
            json!({"nat": "", "gender": null, "age": null, "age_band": null, "email_domain": null, "pid": pid(2)}),
        ]
    );
    assert_eq!(pid(0), pid(1));
    assert_ne!(pid(0), pid(2));
    assert!(
        outbound.messages[0]
            .value
            .starts_with(br#"{"nat":"D\"E","gender":"#)
    );
    for (message, position) in outbound.messages.iter().zip(1_u64..) {
        let pid = value(message)["pid"].as_str().expect("a pid").to_owned();
        assert_eq!(message.key, format!("{pid}/{position}"));
        assert_eq!(Src::parse(&message.src), Some(("file-0123", position)));
        assert_eq!(message.timestamp_ms, NOW);
        assert!((0..4).contains(&message.partition));
    }
    assert_eq!(
        outbound.messages[0].partition,
        outbound.messages[1].partition
    );
}

#[test]
fn what_cannot_be_used_says_why_and_where() {
    let policy = policy(HEAD, FIELDS);
    let mut gate = gate(&policy);
    let long = format!(r#"{{"email":"a@b.ch","x":"{}"}}"#, "x".repeat(1_000_000));
    let deep = format!(
        r#"{{"email":"a@b.ch","x":{}1{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let cases: Vec<(Vec<u8>, Reason, Option<&str>)> = vec![
        (b"".into(), Reason::NotJson, None),
        (b"not json".into(), Reason::NotJson, None),
        (b"[{}]".into(), Reason::NotObject, None),
        (b"\"email\"".into(), Reason::NotObject, None),
        (b"{\"email\":\"a@b.ch\xff\"}".into(), Reason::NotUtf8, None),
        (
            b"{\"email\":\"a@b.ch\",\"x\":\"\xc3\"}".into(),
            Reason::NotUtf8,
            None,
        ),
        (
            b"{\"email\":\"a@b.ch\",\"x\":\"\\ud800\"}".into(),
            Reason::NotJson,
            None,
        ),
        (b"{\"email\":\"a@b.ch\"".into(), Reason::NotJson, None),
        (b"{\"email\":\"a@b.ch\"}}".into(), Reason::NotJson, None),
        (long.into(), Reason::TooLong, None),
        (deep.into(), Reason::TooDeep, None),
        (record("\"44\"").into(), Reason::WrongType, Some("dob.age")),
        (record("44.0").into(), Reason::WrongType, Some("dob.age")),
        (record("{}").into(), Reason::WrongType, Some("dob.age")),
        (record("1e400").into(), Reason::WrongType, Some("dob.age")),
        (
            record("9223372036854775808").into(),
            Reason::OutOfRange,
            Some("dob.age"),
        ),
        (
            br#"{"email":"a@b.ch","nat":{}}"#.into(),
            Reason::WrongType,
            Some("nat"),
        ),
        (
            br#"{"email":"a@b.ch","gender":true}"#.into(),
            Reason::WrongType,
            Some("gender"),
        ),
        (br#"{"nat":"CH"}"#.into(), Reason::NoSubject, Some("email")),
        (
            br#"{"email":null}"#.into(),
            Reason::NoSubject,
            Some("email"),
        ),
        (
            br#"{"email":" \u00a0"}"#.into(),
            Reason::NoSubject,
            Some("email"),
        ),
        (br#"{"email":[]}"#.into(), Reason::NoSubject, Some("email")),
        (br#"{"email":1.5}"#.into(), Reason::NoSubject, Some("email")),
        // The last of equal keys counts, for what is wrong too.
        (
            br#"{"email":"a@b.ch","email":""}"#.into(),
            Reason::NoSubject,
            Some("email"),
        ),
        (
            br#"{"email":"a@b.ch","nat":"x","nat":1}"#.into(),
            Reason::WrongType,
            Some("nat"),
        ),
    ];
    for (record, reason, path) in cases {
        let shown = String::from_utf8_lossy(&record[..record.len().min(60)]).into_owned();
        assert_eq!(
            clear_one(&mut gate, &record).err(),
            Some((reason, path.map(str::to_owned))),
            "{shown}"
        );
    }
    for usable in [
        record("44"),
        record("null"),
        r#"{"email":"a@b.ch","nat":1,"nat":"x"}"#.into(),
    ] {
        assert!(clear_one(&mut gate, usable.as_bytes()).is_ok(), "{usable}");
    }
}

#[test]
fn a_bad_record_takes_nothing_with_it() {
    let policy = policy(HEAD, FIELDS);
    let mut gate = gate(&policy);
    let records = [
        record("1"),
        record("\"x\""),
        "junk".into(),
        record("2"),
        record("99999999999999999999"),
    ];
    let passage = gate.clear(&raw(&records), NOW);
    let messages = &passage.cleared.get().messages;
    let ages: Vec<Value> = messages.iter().map(|m| value(m)["age"].clone()).collect();
    assert_eq!(ages, [1, 2]);
    assert!(messages[1].key.ends_with(b"/4"));
    assert_eq!(passage.rejects.len(), 3);
}

#[test]
fn records_of_another_source_carry_its_name() {
    let policy = policy(HEAD, FIELDS);
    let mut gate = gate(&policy);
    let records = raw(&[r#"{"nat":"CH","email":"a@example.com"}"#, "junk"]);
    let names = |passage: &falaj_privacy::Passage| {
        let src = passage.cleared.get().messages[0].src.clone();
        (src, passage.rejects[0].at.clone())
    };
    for part in ["kafka-01.0", "kafka-01.17"] {
        let at = At::Source {
            source: part.into(),
            position: 2,
        };
        let passage = gate.clear_of(&part.into(), &records, NOW);
        assert_eq!(names(&passage), (format!("{part}@1").into(), at));
    }
    let own = gate.clear(&records, NOW);
    assert_eq!(names(&own).0, "file-0123@1");
}

#[test]
fn a_subject_that_is_not_required_may_be_missing() {
    let head = HEAD.replace("from = \"email\"", "from = \"email\"\nrequired = false");
    let policy = policy(&head, &FIELDS[..1]);
    let mut gate = gate(&policy);
    let records: Vec<Raw> = (0..8)
        .map(|position| Raw::new(r#"{"nat":"CH","email":{}}"#.into(), position))
        .collect();
    let outbound = gate.clear(&records, NOW).cleared.into_inner();
    for (message, position) in outbound.messages.iter().zip(0..) {
        assert_eq!(&*message.value, br#"{"nat":"CH","pid":null}"#);
        assert_eq!(message.key, format!("/{position}"));
        assert_eq!(message.partition, position % 4);
    }
    let number = clear_one(&mut gate, br#"{"email":42}"#).expect("it passes");
    let text = clear_one(&mut gate, br#"{"email":"42"}"#).expect("it passes");
    assert_eq!(value(&number)["pid"], value(&text)["pid"]);
    assert!(value(&number)["pid"].is_string());
}

#[test]
fn a_hashed_field_is_made_from_the_pid_and_reads_nothing() {
    let hashed = r#"from = "email", type = "string", class = "direct", purpose = "statistics", treat = "hmac(one)""#;
    let other = r#"from = "secret", type = "string", class = "direct", purpose = "statistics", treat = "hmac(two)""#;
    let policy = policy(HEAD, &[("one", hashed), ("two", other)]);
    assert_eq!(policy.inc(), ["email"]);
    let mut gate = gate(&policy);
    let first =
        value(&clear_one(&mut gate, br#"{"email":"a@b.ch","secret":[]}"#).expect("it passes"));
    let again = value(&clear_one(&mut gate, br#"{"email":"A@b.ch "}"#).expect("it passes"));
    assert_eq!(first, again);
    let letters: HashSet<&str> = ["one", "two", "pid"]
        .map(|name| first[name].as_str().expect("a text"))
        .into();
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().all(|text| text.len() == 26));
}

#[test]
fn the_event_time_comes_from_the_record_if_the_policy_says_so() {
    let policy = Arc::new(compile(HEAD, &FIELDS[..1], Some("meta.at")).expect("a policy"));
    assert_eq!(policy.inc(), ["nat", "email", "meta"]);
    let mut gate = gate(&policy);
    for (at, expected) in [
        ("\"2026-01-01T01:00:00+01:00\"", Ok(NOW)),
        ("1767225600", Ok(NOW)),
        ("1767225600000", Ok(NOW)),
        ("\"then\"", Err(Reason::NoEventTime)),
        ("null", Err(Reason::NoEventTime)),
        ("-5", Err(Reason::OutOfRange)),
    ] {
        let record = format!(r#"{{"email":"a@b.ch","meta":{{"at":{at}}}}}"#);
        let found = clear_one(&mut gate, record.as_bytes());
        match expected {
            Ok(ms) => assert_eq!(found.map(|m| m.timestamp_ms), Ok(ms), "{at}"),
            Err(reason) => {
                assert_eq!(found.err(), Some((reason, Some("meta.at".into()))), "{at}");
            }
        }
    }
}

fn mark(value: &mut Value, path: &str, word: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                mark(value, &format!("{path}.{key}"), word);
            }
            map.insert(
                format!("{word}key"),
                json!([word, {"nat": word, "age": word}]),
            );
        }
        _ if matches!(path, ".nat" | ".gender" | ".dob.age" | ".email") => {}
        other => *other = format!("{word} \" \\ {path}").into(),
    }
}

/// A record in which every value that is not declared carries a word of its own.
fn marked(dice: &mut Dice, word: &str) -> String {
    let mut person: Value = serde_json::from_str(&person(dice)).expect("JSON");
    mark(&mut person, "", word);
    person["email"] = format!("{word}@known.example").into();
    person.to_string()
}

#[test]
fn undeclared_values_are_never_copied() {
    let policy = policy(HEAD, FIELDS);
    let mut gate = gate(&policy);
    let mut dice = Dice(1);
    let word = "canary7f3a";
    let records: Vec<String> = (0..300).map(|_| marked(&mut dice, word)).collect();
    // Half of them are rejects: a reject must not carry anything out either.
    let records: Vec<String> = records
        .iter()
        .enumerate()
        .map(|(at, record)| match at % 4 {
            1 => record[..record.len() - 1].to_owned(),
            3 => record.replacen("\"age\":", "\"age\":\"canary7f3a\",\"age\":\"", 1),
            _ => record.clone(),
        })
        .collect();
    assert!(
        records
            .iter()
            .all(|record| record.matches(word).count() > 30)
    );
    let passage = gate.clear(&raw(&records), NOW);
    assert_eq!(passage.rejects.len(), 150);
    let mut out = format!("{passage:?} {:?}", passage.rejects).into_bytes();
    for reject in &passage.rejects {
        out.extend(serde_json::to_vec(reject).expect("JSON"));
    }
    let outbound = passage.cleared.get();
    out.extend_from_slice(&outbound.policy);
    for message in &outbound.messages {
        // All three are slices of the one buffer of the call, and side by side fill it.
        for part in [&message.value, &message.key, &message.src] {
            out.extend_from_slice(part);
        }
    }
    let buffer: usize = outbound
        .messages
        .iter()
        .map(|m| m.value.len() + m.key.len() + m.src.len())
        .sum();
    let (first, last) = (
        &outbound.messages[0],
        &outbound.messages[outbound.messages.len() - 1],
    );
    let span = last.src.as_ptr() as usize + last.src.len() - first.value.as_ptr() as usize;
    assert_eq!(span, buffer, "there is nothing between the messages");
    let text = String::from_utf8(out).expect("UTF-8");
    assert!(text.contains("known.example"), "declared values are there");
    assert!(!text.contains(word), "undeclared values are not");
}

/// What `serde_json` says of a record, in the words of the gate. `None` where the two differ on
/// purpose.
fn oracle(record: &[u8]) -> Option<Result<Value, Reason>> {
    if std::str::from_utf8(record).is_err() {
        return Some(Err(Reason::NotUtf8));
    }
    match serde_json::from_slice::<Value>(record) {
        Ok(value) if value.is_object() => Some(Ok(value)),
        Ok(_) => Some(Err(Reason::NotObject)),
        Err(e) if e.to_string().starts_with("number out of range") => None,
        Err(e) if e.to_string().starts_with("recursion limit") => Some(Err(Reason::TooDeep)),
        Err(_) => Some(Err(Reason::NotJson)),
    }
}

/// A policy whose fields take every text, so that only the record's form decides.
fn lenient() -> Arc<Policy> {
    let head = HEAD.replace("from = \"email\"", "from = \"subject\"\nrequired = false");
    let text = r#"from = "a.b", type = "string", class = "quasi", purpose = "statistics""#;
    let nat = r#"from = "nat", type = "string", class = "quasi", purpose = "statistics""#;
    policy(&head, &[("ab", text), ("nat", nat)])
}

fn compare(gate: &mut Gate, record: &[u8]) -> bool {
    let Some(expected) = oracle(record) else {
        return false;
    };
    let found = clear_one(gate, record);
    let shown = || String::from_utf8_lossy(record).into_owned();
    match (expected, found) {
        (Ok(value), Ok(message)) => {
            let cleared = self::value(&message);
            for (name, want) in [("nat", &value["nat"]), ("ab", &value["a"]["b"])] {
                assert_eq!(&cleared[name], want, "{}", shown());
            }
            true
        }
        // A declared value of another type; the form is right.
        (Ok(value), Err((Reason::WrongType | Reason::OutOfRange, Some(path)))) => {
            let value = if path == "nat" {
                &value["nat"]
            } else {
                &value["a"]["b"]
            };
            assert!(!value.is_null() && !value.is_string(), "{}", shown());
            true
        }
        (Err(want), Err((reason, None))) => {
            assert_eq!(reason, want, "{}", shown());
            true
        }
        (expected, found) => panic!("{expected:?} and {:?} for {}", found.err(), shown()),
    }
}

#[test]
fn mutated_records_are_taken_and_refused_as_serde_json_does() {
    const TOKENS: [&str; 34] = [
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "true",
        "false",
        "NaN",
        "Infinity",
        "-",
        "0",
        "1.5",
        "1e5",
        "1e999",
        "-0",
        "01",
        "\\u00e9",
        "\\ud83d\\ude00",
        "\\ud83d",
        "\\udc00",
        "\\x",
        " ",
        "\t",
        "\u{1}",
        "é",
        "\"nat\":",
        "\"a\":{\"b\":\"z\"}",
        "\"\\u006eat\":\"y\"",
        "{\"b\":null}",
        "\u{7f}",
    ];
    let policy = lenient();
    let mut gate = gate(&policy);
    let mut dice = Dice(99);
    let seeds: Vec<String> = (0..40)
        .map(|_| person(&mut dice))
        .chain([
            r#"{"a":{"b":"x","c":[1,2,{"d":[]}]},"nat":"CH"}"#.into(),
            r#"{"nat":"a\u00e9\"\\\/\b\f\n\r\t\ud83d\ude00","a":{"b":""}}"#.into(),
            r#" { "a" : [ -0.5e-7 , 1E+9 , [ ] , { } ] , "nat" : null } "#.into(),
        ])
        .collect();
    let (mut compared, mut taken) = (0, 0);
    for _ in 0..60_000 {
        // Short seeds are as likely as long ones: there a change hits the structure.
        let seed = if dice.below(2) == 0 {
            &seeds[dice.at(seeds.len())]
        } else {
            &seeds[40 + dice.at(3)]
        };
        let mut record = seed.clone().into_bytes();
        for _ in 0..=dice.below(2) {
            let at = dice.at(record.len() + 1);
            match dice.below(6) {
                0 => record.truncate(at),
                1 if at < record.len() => {
                    record.remove(at);
                }
                2 if at < record.len() => record[at] ^= 1 << dice.below(8),
                3 if at < record.len() => {
                    let end = (at + dice.at(20)).min(record.len());
                    let piece = record[at..end].to_vec();
                    record.splice(at..at, piece);
                }
                4 if at < record.len() => {
                    let end = (at + dice.at(20)).min(record.len());
                    record.drain(at..end);
                }
                _ => {
                    record.splice(at..at, dice.pick(&TOKENS).bytes());
                }
            }
            if record.is_empty() {
                break;
            }
        }
        if compare(&mut gate, &record) {
            compared += 1;
            taken += usize::from(matches!(oracle(&record), Some(Ok(_))));
        }
    }
    assert!(
        compared > 50_000 && taken > 5_000,
        "{compared} compared, {taken} taken"
    );
}

#[test]
fn records_made_of_tokens_are_taken_and_refused_as_serde_json_does() {
    const TOKENS: [&str; 20] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"b\"",
        "\"nat\"",
        "1",
        "-2.5e3",
        "true",
        "false",
        "null",
        " ",
        "\"\"",
        "\"\\u0061\"",
        "{\"b\":1}",
        "{}",
        "[]",
    ];
    let policy = lenient();
    let mut gate = gate(&policy);
    let mut dice = Dice(7);
    let mut taken = 0;
    for _ in 0..60_000 {
        let mut record = String::from("{");
        for _ in 0..dice.below(12) {
            record.push_str(dice.pick(&TOKENS));
        }
        record.push('}');
        compare(&mut gate, record.as_bytes());
        taken += usize::from(matches!(oracle(record.as_bytes()), Some(Ok(_))));
    }
    assert!(taken > 100, "{taken} taken");
}

#[test]
fn depth_ends_where_serde_json_ends() {
    let policy = lenient();
    let mut gate = gate(&policy);
    for levels in [1, 63, 64, 125, 126, 127, 128, 200] {
        for (open, close) in [("[", "]"), (r#"{"b":"#, "}")] {
            for key in ["x", "a"] {
                let record = format!(
                    r#"{{"{key}":{}1{}}}"#,
                    open.repeat(levels),
                    close.repeat(levels)
                );
                assert!(compare(&mut gate, record.as_bytes()), "{levels}");
            }
        }
    }
}

#[test]
fn the_same_input_gives_the_same_output() {
    let policy = policy(HEAD, FIELDS);
    let mut dice = Dice(5);
    let records: Vec<String> = (0..200).map(|_| person(&mut dice)).collect();
    let bytes = |gate: &mut Gate| -> Vec<(Vec<u8>, Vec<u8>, i32)> {
        gate.clear(&raw(&records), NOW)
            .cleared
            .into_inner()
            .messages
            .iter()
            .map(|m| (m.value.to_vec(), m.key.to_vec(), m.partition))
            .collect()
    };
    let mut first = gate(&policy);
    let once = bytes(&mut first);
    assert_eq!(
        once,
        bytes(&mut first),
        "a gate keeps nothing between calls"
    );
    assert_eq!(once, bytes(&mut gate(&policy)));
    let partitions: HashSet<i32> = once.iter().map(|(_, _, partition)| *partition).collect();
    assert_eq!(partitions.len(), 4);
}
