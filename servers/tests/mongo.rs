//! The recipe itself: a server starts, says which it is, keeps its data over kill -9, asks for a
//! login and for TLS where it was told to, and is gone with the value that holds it.

use falaj_servers::{Flavour, Mongo, MongoOptions, User};

/// Runs Python with pymongo and gives what it printed.
fn said(mongo: &Mongo, code: &str, args: &[&str]) -> String {
    let output = mongo
        .python()
        .args(["-c", code])
        .args(args)
        .output()
        .expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout)
        .expect("UTF-8")
        .trim()
        .to_owned()
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

fn own() -> MongoOptions {
    MongoOptions {
        own: true,
        ..MongoOptions::default()
    }
}

const WRITE: &str = r#"
import sys
from pymongo import MongoClient, WriteConcern
client = MongoClient(sys.argv[1])
notes = client.notes.get_collection("notes", write_concern=WriteConcern(w="majority", j=True))
notes.insert_many({"_id": n} for n in range(100))
"#;

const COUNT: &str = "
import sys
from pymongo import MongoClient
print(MongoClient(sys.argv[1]).notes.notes.count_documents({}))
";

#[test]
fn a_server_keeps_its_documents_over_a_kill_and_leaves_nothing_behind() {
    let Some(mongo) = Mongo::start(&own()) else {
        return;
    };
    let name = mongo.flavour().to_string();
    match mongo.flavour() {
        Flavour::SecantusDb(_) => assert!(name.ends_with("not MongoDB"), "{name}"),
        Flavour::Mongod(_) => assert!(name.starts_with("MongoDB "), "{name}"),
        Flavour::Given => panic!("asked for one of its own"),
    }
    said(&mongo, WRITE, &[&mongo.uri()]);
    let first = mongo.pid();
    mongo.kill();
    assert!(!runs(first));
    mongo.restart();
    let second = mongo.pid();
    assert_ne!(first, second);
    assert_eq!(said(&mongo, COUNT, &[&mongo.uri()]), "100");
    assert!(mongo.memory() > 10 << 20, "it holds more than 10 MiB");
    assert!(!mongo.cpu().is_zero());
    drop(mongo);
    assert!(!runs(second));
}

#[test]
fn nobody_reads_without_the_login() {
    let user = User {
        name: "root".to_owned(),
        password: "root-secret".to_owned(),
    };
    let options = MongoOptions {
        user: Some(user),
        ..own()
    };
    let Some(mongo) = Mongo::start(&options) else {
        return;
    };
    let code = r#"
import sys
from pymongo import MongoClient
from pymongo.errors import OperationFailure
uri, root = sys.argv[1:]
for refused in (uri, root.replace("root-secret", "guessed")):
    try:
        MongoClient(refused).notes.notes.find_one()
    except OperationFailure as error:
        assert error.code in (13, 18), error
    else:
        sys.exit("read without a login")
MongoClient(root).notes.notes.insert_one({})
"#;
    said(&mongo, code, &[&mongo.uri(), &mongo.root_uri()]);
    mongo.stop();
    mongo.restart();
    said(&mongo, code, &[&mongo.uri(), &mongo.root_uri()]);
}

#[test]
fn with_tls_nothing_else_is_answered() {
    let options = MongoOptions { tls: true, ..own() };
    let Some(mongo) = Mongo::start(&options) else {
        return;
    };
    let code = r#"
import sys
from pymongo import MongoClient
from pymongo.errors import ServerSelectionTimeoutError
uri, authority = sys.argv[1:]
MongoClient(uri, tls=True, tlsCAFile=authority).notes.notes.insert_one({})
for options in ({}, {"tls": True}):
    try:
        MongoClient(uri, serverSelectionTimeoutMS=2000, **options).notes.notes.find_one()
    except ServerSelectionTimeoutError:
        continue
    sys.exit("answered without TLS, or to somebody who does not trust it")
"#;
    let authority = mongo.certificates().authority();
    let authority = authority.to_str().expect("UTF-8");
    said(&mongo, code, &[&mongo.uri(), authority]);
}
