//! Answers that a server gives seldom, and a stand-in never: a server that says what the test says.
//! It shows what the sink makes of an answer, and nothing about MongoDB.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use falaj_sinks::{MongodbConfig, MongodbSink, MongodbUri, Retention, Selection, Sink, SinkError};
use mongodb::bson::{Document, RawDocumentBuf, doc};

use crate::store::{counts, groups};

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;

/// Answers to the commands that write rows, or look for their versions, in turn.
type Script = Arc<Mutex<Vec<Document>>>;
/// Those commands, as they came.
type Heard = Arc<Mutex<Vec<Document>>>;

/// A sink that is prepared, and what its server hears from then on.
async fn scripted(answers: Vec<Document>) -> (Box<dyn Sink>, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let script = Arc::new(Mutex::new(answers.into_iter().rev().collect()));
    let heard = Heard::default();
    let (answers, ears) = (Arc::clone(&script), Arc::clone(&heard));
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answers, ears) = (Arc::clone(&answers), Arc::clone(&ears));
            std::thread::spawn(move || serve(stream, &answers, &ears));
        }
    });
    let config = MongodbConfig {
        uri: MongodbUri::Text(format!("mongodb://127.0.0.1:{port}/?directConnection=true")),
        database: "falaj".into(),
        user: None,
        password: None,
        ca: None,
        create: true,
        views: Selection::default(),
    };
    let here = std::path::Path::new(".");
    let sink = MongodbSink::new(&config, here, Retention::new()).expect("usable");
    let mut sink: Box<dyn Sink> = Box::new(sink);
    sink.prepare(&[counts()]).await.expect("prepared");
    (sink, heard)
}

fn serve(mut stream: TcpStream, script: &Script, heard: &Heard) {
    while let Some((id, kind, command)) = receive(&mut stream) {
        let answer = answer(&command, script, heard);
        if send(&mut stream, id, kind, &answer).is_err() {
            return;
        }
    }
}

/// Number, kind and command of the next message.
fn receive(stream: &mut TcpStream) -> Option<(i32, i32, Document)> {
    let mut header = [0; 16];
    stream.read_exact(&mut header).ok()?;
    let int = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let mut body = vec![0; usize::try_from(int(0)).ok()? - 16];
    stream.read_exact(&mut body).ok()?;
    let (id, kind) = (int(4), int(12));
    let start = match kind {
        // Flags, and one section of kind 0.
        OP_MSG => 5,
        // Flags, the collection's name with its zero, two numbers.
        OP_QUERY => 4 + body[4..].iter().position(|byte| *byte == 0)? + 1 + 8,
        _ => return None,
    };
    let length: [u8; 4] = body.get(start..start + 4)?.try_into().ok()?;
    let end = start + usize::try_from(i32::from_le_bytes(length)).ok()?;
    let command = RawDocumentBuf::from_bytes(body.get(start..end)?.to_vec()).ok()?;
    Some((id, kind, command.try_into().ok()?))
}

fn send(stream: &mut TcpStream, to: i32, kind: i32, answer: &Document) -> std::io::Result<()> {
    let answer = RawDocumentBuf::try_from(answer).expect("it is BSON");
    let (kind, around) = match kind {
        OP_MSG => (OP_MSG, vec![0; 5]),
        // Flags, no cursor, from the first, one document.
        _ => (
            OP_REPLY,
            [[0; 16].as_slice(), &1_i32.to_le_bytes()].concat(),
        ),
    };
    let length = 16 + around.len() + answer.as_bytes().len();
    let mut message = Vec::new();
    for number in [i32::try_from(length).expect("short"), 1, to, kind] {
        message.extend(number.to_le_bytes());
    }
    message.extend(around);
    message.extend(answer.as_bytes());
    stream.write_all(&message)
}

fn answer(command: &Document, script: &Script, heard: &Heard) -> Document {
    let name = command
        .keys()
        .next()
        .map(String::as_str)
        .unwrap_or_default();
    let of_rows = command
        .get_str(name)
        .is_ok_and(|collection| collection == "counts");
    match name {
        "hello" | "ismaster" | "isMaster" => doc! {
            "ok": 1, "helloOk": true, "ismaster": true, "isWritablePrimary": true,
            "setName": "rs0", "minWireVersion": 0, "maxWireVersion": 25,
            "maxBsonObjectSize": 16 << 20, "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000, "logicalSessionTimeoutMinutes": 30,
        },
        "update" if of_rows && is_upsert(command) => turn(command, script, heard),
        "find" if of_rows && command.contains_key("filter") => turn(command, script, heard),
        "listCollections" => found(vec![doc! { "name": "counts", "type": "collection" }]),
        "find" if command.get_str(name).is_ok_and(|of| of == "_falaj") => {
            found(vec![doc! { "_id": "counts" }])
        }
        "find" | "listIndexes" => found(vec![]),
        _ => doc! { "ok": 1, "n": 0 },
    }
}

fn is_upsert(command: &Document) -> bool {
    operations(command)
        .iter()
        .any(|operation| operation.contains_key("upsert"))
}

/// The next answer of the script; an answer to more than it foresaw is no answer.
fn turn(command: &Document, script: &Script, heard: &Heard) -> Document {
    heard
        .lock()
        .expect("nobody panics with it")
        .push(command.clone());
    let next = script.lock().expect("nobody panics with it").pop();
    next.unwrap_or_else(|| doc! { "ok": 0, "code": 59, "errmsg": "not in the script" })
}

fn operations(command: &Document) -> Vec<&Document> {
    let list = command
        .get_array("updates")
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter()
        .filter_map(|operation| operation.as_document())
        .collect()
}

/// Keys of the rows of an `update`.
fn keys(command: &Document) -> Vec<&str> {
    let mut keys = Vec::new();
    for operation in operations(command) {
        let filter = operation.get_document("q").expect("a filter");
        keys.push(filter.get_str("_id").expect("a key"));
    }
    keys
}

fn written(n: i32) -> Document {
    doc! { "ok": 1, "n": n, "nModified": 0 }
}

fn duplicate(indexes: &[i32]) -> Document {
    let error = |index: &i32| {
        doc! { "index": index, "code": 11_000, "keyPattern": { "_id": 1 }, "errmsg": "dup key: canary" }
    };
    let errors: Vec<_> = indexes.iter().map(error).collect();
    doc! { "ok": 1, "n": 0, "writeErrors": errors }
}

fn found(documents: Vec<Document>) -> Document {
    doc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "falaj.counts", "firstBatch": documents } }
}

#[tokio::test]
async fn a_race_that_an_older_row_won_is_run_again() {
    let rivals = found(vec![
        doc! { "_id": "[\"FR\"]", "_version": 4_i64 },
        doc! { "_id": "[\"NL\"]", "_version": 6_i64 },
    ]);
    // `FR` is there with an older version, `NL` with a newer one, `US` is gone again.
    let answers = vec![
        duplicate(&[1, 2, 3]),
        rivals,
        duplicate(&[1]),
        found(vec![]),
        written(1),
    ];
    let (mut sink, heard) = scripted(answers).await;
    let rows = [("DE", 1), ("FR", 1), ("NL", 1), ("US", 1)];
    let done = sink.write(&[groups(&counts(), 5, &rows)]).await;
    assert_eq!(done.expect("a lost race is no fault").refused, []);
    let heard = heard.lock().expect("nobody panics with it").clone();
    let all = ["[\"DE\"]", "[\"FR\"]", "[\"NL\"]", "[\"US\"]"];
    assert_eq!(heard.len(), 5);
    assert_eq!(keys(&heard[0]), all);
    assert_eq!(keys(&heard[2]), ["[\"FR\"]", "[\"US\"]"]);
    assert_eq!(keys(&heard[4]), ["[\"US\"]"]);
    let concern = doc! { "w": "majority", "j": true, "wtimeout": 30_000_i64 };
    assert_eq!(heard[4].get_document("writeConcern").ok(), Some(&concern));
    assert_eq!(heard[4].get_bool("ordered").ok(), Some(false));
}

#[tokio::test]
async fn a_race_without_end_is_told() {
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.extend([duplicate(&[0]), found(vec![])]);
    }
    let (mut sink, _) = scripted(answers).await;
    let error = sink.write(&[groups(&counts(), 5, &[("DE", 1)])]).await;
    let error = error.expect_err("not written");
    assert!(
        error.passing() && error.to_string().contains("again and again"),
        "{error}"
    );
}

#[tokio::test]
async fn what_no_majority_confirmed_is_not_written() {
    let unconfirmed = |code, name| {
        let error = doc! { "code": code, "codeName": name, "errmsg": "canary" };
        doc! { "ok": 1, "n": 1, "writeConcernError": error }
    };
    for (answer, cause) in [
        (unconfirmed(64, "WriteConcernTimeout"), "no majority"),
        (unconfirmed(91, "ShutdownInProgress"), "no primary"),
        (
            doc! { "ok": 0, "code": 8000, "codeName": "AtlasError", "errmsg": "canary" },
            "error 8000 (AtlasError)",
        ),
        (
            doc! { "ok": 0, "code": 4711, "codeName": "a canary's name", "errmsg": "canary" },
            "error 4711",
        ),
        (
            doc! { "ok": 1, "n": 0, "writeErrors": [{ "index": 0, "code": 112, "errmsg": "canary" }] },
            "error 112",
        ),
        (
            doc! { "ok": 1, "n": 0, "writeErrors": [{ "index": 9, "code": 121 }] },
            "not expected",
        ),
    ] {
        let (mut sink, _) = scripted(vec![answer]).await;
        let error = sink.write(&[groups(&counts(), 5, &[("DE", 1)])]).await;
        let error = error.expect_err(cause);
        assert!(
            error.passing() && error.to_string().contains(cause),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
    let full = doc! { "ok": 0, "code": 14_031, "codeName": "OutOfDiskSpace" };
    let (mut sink, _) = scripted(vec![full]).await;
    let error = sink.write(&[groups(&counts(), 5, &[("DE", 1)])]).await;
    assert!(matches!(error, Err(SinkError::Full { .. })));
}

#[tokio::test]
async fn an_election_is_tried_once_more() {
    let stepped_down = doc! { "ok": 0, "code": 189, "codeName": "PrimarySteppedDown" };
    let (mut sink, heard) = scripted(vec![stepped_down, written(1)]).await;
    let done = sink.write(&[groups(&counts(), 5, &[("DE", 1)])]).await;
    done.expect("written by the second try");
    let heard = heard.lock().expect("nobody panics with it");
    assert_eq!(keys(&heard[0]), keys(&heard[1]));
}
