//! Who connects, and what a server is asked for: login, TLS, rights, collections made by others.

use std::sync::Arc;

use falaj_record::{Hint, Secret};
use falaj_servers::{Certificates, Flavour, MongoOptions};
use falaj_sinks::conformance::Store;
use falaj_sinks::{MongodbConfig, MongodbSink, MongodbUri, Retention, Sink, SinkError, Terms};
use mongodb::bson::doc;

use crate::store::{
    Database, PASSWORD, counts, groups, new_store, now_us, people, persons, start, with_login,
    with_option,
};

#[tokio::test]
async fn the_whole_connection_string_may_be_a_secret() {
    let store = new_store().await;
    let view = counts();
    let plain = store.mongo.uri();
    let (scheme, rest) = plain.split_once("://").expect("a scheme");
    let escaped = PASSWORD.replace('%', "%25").replace('@', "%40");
    let escaped = escaped.replace('/', "%2F").replace(':', "%3A");
    let full = format!("{scheme}://falaj:{escaped}@{rest}");
    let full = with_option(&full, &format!("authSource={}", store.name));
    std::fs::write(store.folder.path().join("uri"), full + "\n").expect("written");
    let config = MongodbConfig {
        uri: MongodbUri::Secret(Secret::File("uri".into())),
        user: None,
        password: None,
        ..store.config()
    };
    let mut sink = store.sink_of(&config, Retention::new());
    sink.prepare(&[Arc::clone(&view)]).await.expect("logged in");
    sink.write(&[groups(&view, 1, &[("DE", 3)])])
        .await
        .expect("written");
    sink.close().await.expect("closed");
    assert_eq!(store.documents("counts").await.len(), 1);
}

#[tokio::test]
async fn where_nobody_listens_it_says_so_and_may_try_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    drop(listener);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let sink = |uri: String| {
        let toml = format!("[sinks.documents]\ntype = 'mongodb'\nuri = '{uri}'");
        let mut table: toml::Table = toml.parse().expect("it is TOML");
        let sinks = table.remove("sinks").expect("it has sinks");
        let sink = sinks.get("documents").expect("it has one").clone();
        let config: falaj_sinks::SinkConfig = sink.try_into().expect("it is a sink");
        let places = falaj_sinks::Places {
            pipeline: folder.path(),
            data: folder.path(),
        };
        config
            .sink(places, &Terms::default())
            .expect("the settings can be used")
    };
    let short = "serverSelectionTimeoutMS=1500";
    for (uri, cause) in [
        (format!("mongodb://127.0.0.1:{port}"), "connection refused"),
        (format!("mongodb://falaj.invalid/?{short}"), "lookup"),
        (
            format!("mongodb+srv://falaj.invalid/?{short}"),
            "cannot be resolved",
        ),
    ] {
        let mut sink = sink(uri.clone());
        for error in [
            sink.prepare(&[counts()])
                .await
                .expect_err("nobody is there"),
            sink.inspect(&[counts()])
                .await
                .expect_err("nobody is there"),
        ] {
            assert!(matches!(error, SinkError::Unreachable { .. }), "{error}");
            assert!(error.passing() && error.hint().is_some(), "{error}");
            assert!(error.to_string().contains(cause), "{uri}: {error}");
        }
        sink.close().await.expect("closed");
    }
}

#[tokio::test]
async fn with_tls_the_server_has_to_be_the_one_that_the_authority_vouches_for() {
    let options = MongoOptions {
        tls: true,
        ..with_login()
    };
    let mongo = tokio::task::spawn_blocking(move || start(&options)).await;
    let mongo = mongo.expect("it starts");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("password"), "root-secret").expect("written");
    let other = Certificates::make(&folder.path().join("other"));
    let view = counts();
    let config = |ca: Option<std::path::PathBuf>, option: &str| MongodbConfig {
        uri: MongodbUri::Text(with_option(
            &mongo.uri(),
            &format!("serverSelectionTimeoutMS=3000{option}"),
        )),
        database: "falaj".into(),
        user: Some("root".into()),
        password: Some(Secret::File("password".into())),
        ca,
        create: true,
        views: falaj_sinks::Selection::default(),
    };
    let sink = |config: &MongodbConfig| {
        MongodbSink::new(config, folder.path(), Retention::new()).expect("usable")
    };
    let authority = mongo.certificates().authority();
    let mut good = sink(&config(Some(authority), ""));
    good.prepare(&[Arc::clone(&view)]).await.expect("connected");
    good.write(&[groups(&view, 1, &[("DE", 3)])])
        .await
        .expect("written");
    let found = good.inspect(&[Arc::clone(&view)]).await.expect("looked at");
    assert_eq!(found.findings, []);
    Box::new(good).close().await.expect("closed");

    for (what, config, told_by) in [
        (
            "another authority",
            config(Some(other.authority()), ""),
            (|e| matches!(e, SinkError::Setting { key: "ca", .. })) as fn(&SinkError) -> bool,
        ),
        ("the web's authorities", config(None, "&tls=true"), |e| {
            matches!(e, SinkError::Setting { key: "ca", .. })
        }),
        ("no TLS", config(None, ""), |e| {
            matches!(e, SinkError::Unreachable { .. })
        }),
    ] {
        let mut sink = sink(&config);
        let error = sink.prepare(&[Arc::clone(&view)]).await.expect_err(what);
        assert!(told_by(&error), "{what}: {error}");
        assert!(error.hint().is_some(), "{what}: {error}");
        Box::new(sink).close().await.expect("closed");
    }
}

#[tokio::test]
async fn without_the_right_to_make_collections_they_have_to_be_there() {
    let store = new_store().await;
    let (view, persons_view) = (counts(), people());
    let config = MongodbConfig {
        create: false,
        ..store.config()
    };
    let hour = std::time::Duration::from_hours(1);
    let retention = Retention::from([("people".to_owned(), hour)]);
    let mut sink = store.sink_of(&config, retention);
    let views = [Arc::clone(&view), Arc::clone(&persons_view)];
    let missing = |error: SinkError, what: &str| {
        assert!(matches!(error, SinkError::Missing { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    let error = sink.prepare(&views).await.expect_err("nothing is there");
    missing(error, "collection `counts`");
    let found = sink.inspect(&views).await.expect("looked at").findings;
    assert_eq!(found.iter().filter(|f| f.fatal).count(), 2, "{found:?}");
    store.run(doc! { "create": "counts" }).await;
    store.run(doc! { "create": "people" }).await;
    let error = sink
        .prepare(&views)
        .await
        .expect_err("rows would not expire");
    missing(error, "`_expires`");
    let index = doc! { "key": { "_expires": 1 }, "name": "mine", "expireAfterSeconds": 0 };
    store
        .run(doc! { "createIndexes": "people", "indexes": [index] })
        .await;
    sink.prepare(&views)
        .await
        .expect("what has to be there is there");
    let found = sink.inspect(&views).await.expect("looked at").findings;
    let whats: Vec<_> = found.iter().map(|f| f.what.as_str()).collect();
    let slow = [
        "the collection `counts` has no index on `nat`",
        "the collection `people` has no index on `pid`",
    ];
    assert_eq!(whats, slow);
    assert!(found.iter().all(|f| !f.fatal && !f.hint.is_empty()));
    let updates = [
        groups(&view, 1, &[("DE", 3)]),
        persons(&persons_view, now_us(), &[("p1", "NL")]),
    ];
    sink.write(&updates).await.expect("written");
    // Emptied, not dropped: whoever made it made it with care.
    sink.drop_view("counts").await.expect("emptied");
    assert_eq!(store.collections().await, ["_falaj", "counts", "people"]);
    assert_eq!(store.documents("counts").await, []);
    let empty = sink.prepare(&views).await.expect("prepared").empty;
    assert_eq!(empty, ["counts"]);
}

#[tokio::test]
async fn a_look_tells_the_server_its_clock_and_everything_that_is_wrong() {
    let store = new_store().await;
    let (view, persons_view) = (counts(), people());
    store
        .run(doc! { "insert": "people", "documents": [{ "_id": 1 }] })
        .await;
    let mut sink = store.sink().await;
    let views = [Arc::clone(&view), Arc::clone(&persons_view)];
    let found = sink.inspect(&views).await.expect("looked at");
    let said = found.findings;
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].fatal && said[0].what.contains("`people`") && !said[0].hint.is_empty());
    let ahead = found.clock_ahead_ms.expect("it tells its time");
    if *store.mongo.flavour() != Flavour::Given {
        assert!(ahead.abs() < 60_000, "the same clock: {ahead}");
    }
    match store.mongo.flavour() {
        Flavour::SecantusDb(name) => assert!(found.server.starts_with(name.as_str())),
        _ => assert!(found.server.starts_with("MongoDB "), "{}", found.server),
    }
    assert_eq!(
        store.collections().await,
        ["people"],
        "looking makes nothing"
    );
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let store = new_store().await;
    let rights = |collection: &str, actions: &[&str]| {
        let resource = doc! { "db": &store.name, "collection": collection };
        doc! { "resource": resource, "actions": actions }
    };
    let privileges = vec![rights("", &["find", "listCollections", "listIndexes"])];
    let command = doc! { "createRole": "reader", "privileges": privileges, "roles": [] };
    store.run(command).await;
    let role = doc! { "role": "reader", "db": &store.name };
    store.make_user("reader", vec![role]).await;
    let config = MongodbConfig {
        user: Some("reader".into()),
        ..store.config()
    };
    let mut sink = store.sink_of(&config, Retention::new());
    let error = sink
        .prepare(&[counts()])
        .await
        .expect_err("it may only read");
    let SinkError::Forbidden { what, .. } = &error else {
        panic!("not about rights: {error}");
    };
    assert_eq!(what, "make the collection `counts`");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("create = false"))
    );
    if tells_privileges(&store).await {
        let found = sink.inspect(&[counts()]).await.expect("looked at").findings;
        let texts: Vec<_> = found.iter().map(|f| f.what.as_str()).collect();
        assert!(
            texts.iter().any(|what| what.contains("`insert`")),
            "{texts:?}"
        );
        assert!(
            !texts.iter().any(|what| what.contains("`find`")),
            "{texts:?}"
        );
    }
}

/// Whether the server tells what a user may do; the stand-in does not.
async fn tells_privileges(store: &Database) -> bool {
    let status = store
        .run(doc! { "connectionStatus": 1, "showPrivileges": true })
        .await;
    let login = status
        .get_document("authInfo")
        .expect("somebody is logged in");
    let privileges = login.get_array("authenticatedUserPrivileges");
    privileges.is_ok_and(|privileges| !privileges.is_empty())
}
