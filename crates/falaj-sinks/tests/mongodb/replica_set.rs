//! What only a replica set of real members shows. Runs where there is a mongod; elsewhere it says
//! that it was left out.

use std::sync::Arc;
use std::time::Duration;

use falaj_servers::Mongo;
use falaj_sinks::{MongodbConfig, MongodbSink, MongodbUri, Retention, Selection, Sink};
use mongodb::Client;
use mongodb::bson::{Document, doc};

use crate::store::{counts, groups};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_with_the_primary() {
    let members = tokio::task::spawn_blocking(Mongo::replica_set).await;
    let Some(members) = members.expect("they start") else {
        return;
    };
    let config = MongodbConfig {
        uri: MongodbUri::Text(members[0].uri()),
        database: "falaj".into(),
        user: None,
        password: None,
        ca: None,
        create: true,
        views: Selection::default(),
    };
    let here = std::path::Path::new(".");
    let mut sink = MongodbSink::new(&config, here, Retention::new()).expect("usable");
    let view = counts();
    sink.prepare(&[Arc::clone(&view)]).await.expect("prepared");
    let names: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    for version in 1..=20 {
        if version == 8 {
            primary(&members).await.kill();
        }
        let rows: Vec<_> = names.iter().map(|n| (n.as_str(), version)).collect();
        let mut tries = 0;
        while let Err(error) = sink.write(&[groups(&view, version, &rows)]).await {
            tries += 1;
            assert!(error.passing() && tries < 120, "{error}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    let client = Client::with_uri_str(members[0].uri())
        .await
        .expect("a client");
    let counts = client.database("falaj").collection::<Document>("counts");
    let all = counts.count_documents(doc! {}).await.expect("counted");
    let newest = counts
        .count_documents(doc! { "_version": 20, "users": 20 })
        .await;
    assert_eq!((all, newest.ok()), (500, Some(500)));
    client.shutdown().immediate(true).await;
    Box::new(sink).close().await.expect("closed");
}

/// The member that takes writes now.
async fn primary(members: &[Mongo; 3]) -> &Mongo {
    let client = Client::with_uri_str(members[0].uri())
        .await
        .expect("a client");
    let hello = client
        .database("admin")
        .run_command(doc! { "hello": 1 })
        .await;
    client.shutdown().immediate(true).await;
    let hello = hello.expect("there is a primary");
    let primary = hello.get_str("primary").expect("it is named");
    // A member's connection string names all; each was started on a port of its own.
    let hosts = members[0].uri();
    let hosts = hosts.trim_start_matches("mongodb://");
    let mut hosts = hosts.split(['/', ',']);
    let index = hosts
        .position(|host| host == primary)
        .expect("it is one of them");
    &members[index]
}
