//! Data that a server loses while falaj has it open: somebody drops it, or the server comes back
//! from a crash without it. The next row makes the collection again, so a write looks fine.

use std::sync::Arc;

use falaj_record::ViewInfo;
use falaj_sinks::{Sink, SinkError, Terms};
use mongodb::bson::doc;

use crate::store::{Database, counts, groups, new_store, people, persons, store_of_its_own};

const OWNER: &str = "topic 1";

fn sink_of(store: &Database, owner: &str) -> Box<dyn Sink> {
    let owners = ["counts", "people"].map(|view| (view.to_owned(), owner.to_owned()));
    let terms = Terms {
        owners: owners.into(),
        ..Terms::default()
    };
    store.sink_of(&store.config(), terms)
}

/// A sink of this owner that has written a row of each view.
async fn written(store: &Database, views: &[Arc<ViewInfo>]) -> Box<dyn Sink> {
    let mut sink = sink_of(store, OWNER);
    sink.prepare(views).await.expect("prepared");
    let rows = [
        groups(&counts(), 1, &[("DE", 1), ("FR", 1)]),
        persons(&people(), 1, &[("p1", "NL")]),
    ];
    sink.write(&rows).await.expect("written");
    sink
}

fn is_loss(error: &SinkError, view: &str) -> bool {
    error.passing() && error.to_string().contains(&format!("collection `{view}`"))
}

#[tokio::test]
async fn a_collection_that_was_dropped_is_filled_anew() {
    let store = new_store().await;
    let views = [counts(), people()];
    let mut sink = written(&store, &views).await;
    store.run(doc! { "drop": "counts" }).await;
    let newer = [groups(&counts(), 2, &[("DE", 2)])];
    sink.write(&newer).await.expect("nobody has noticed yet");
    assert_eq!(sink.expire().await, Ok(0));
    for _ in 0..2 {
        let error = sink.write(&newer).await.expect_err("rows are missing");
        assert!(is_loss(&error, "counts"), "{error}");
    }
    let prepared = sink.prepare(&views).await.expect("it is its own");
    assert_eq!(prepared.empty, ["counts"]);
    assert_eq!(store.indexes("counts").await, ["_id_", "falaj_nat"]);
    sink.write(&newer).await.expect("works again");
    assert_eq!(sink.prepare(&views).await.expect("prepared").empty, [""; 0]);
    assert_eq!(store.documents("people").await.len(), 1);
}

#[tokio::test]
async fn a_collection_that_was_dropped_while_falaj_was_away_is_filled_anew_by_its_owner_alone() {
    let store = new_store().await;
    let views = [counts(), people()];
    let mut sink = written(&store, &views).await;
    store.run(doc! { "drop": "counts" }).await;
    let newer = [groups(&counts(), 2, &[("DE", 2)])];
    sink.write(&newer).await.expect("nobody notices");
    sink.close().await.expect("closed");
    for (owner, is_owner) in [("topic 2", false), (OWNER, true)] {
        let mut sink = sink_of(&store, owner);
        // Whoever is refused leaves it to the owner to see that rows are missing.
        let prepared = sink.prepare(&views).await;
        if is_owner {
            assert_eq!(prepared.expect("its own").empty, ["counts"]);
        } else {
            let error = prepared.expect_err("rows of somebody else");
            assert!(matches!(error, SinkError::ForeignRows { .. }), "{error}");
        }
    }
    assert_eq!(store.documents("counts").await.len(), 1);
}

#[tokio::test]
async fn a_database_that_was_dropped_is_filled_anew_and_nothing_of_a_person_stays() {
    let store = new_store().await;
    let views = [counts(), people()];
    let mut sink = written(&store, &views).await;
    for collection in ["counts", "people", "_falaj"] {
        store.run(doc! { "drop": collection }).await;
    }
    let newer = [
        groups(&counts(), 2, &[("DE", 2)]),
        persons(&people(), 2, &[("p1", "NL"), ("p2", "NL")]),
    ];
    sink.write(&newer).await.expect("nobody has noticed yet");
    assert_eq!(sink.erase("p1").await, Ok(1));
    assert_eq!(store.documents("people").await.len(), 1);
    assert_eq!(sink.expire().await, Ok(0));
    let error = sink.write(&newer).await.expect_err("rows are missing");
    assert!(is_loss(&error, "counts"), "{error}");

    // To anybody else they are somebody's.
    let mut other = sink_of(&store, OWNER);
    let error = other.prepare(&views).await.expect_err("no word of falaj");
    assert!(matches!(error, SinkError::ForeignTable { .. }), "{error}");
    assert_eq!(store.documents("counts").await.len(), 1);

    let prepared = sink.prepare(&views).await.expect("it wrote them itself");
    assert_eq!(prepared.empty, ["counts", "people"]);
    assert_eq!(store.documents("counts").await, []);
    assert_eq!(store.documents("_falaj").await.len(), 2);
    sink.write(&newer).await.expect("works again");
    assert_eq!(sink.prepare(&views).await.expect("prepared").empty, [""; 0]);
}

/// Ends the store's server with all its data.
fn end(store: &Database) {
    store.mongo.kill();
    let folder = store.mongo.folder();
    std::fs::remove_dir_all(folder.join("data")).expect("it lets go of its data");
    // The first user is gone as well.
    let _ = std::fs::remove_file(folder.join("users.made"));
}

/// Starts the store's server again, with the sink's user.
async fn restart(store: &Database) {
    let mongo = Arc::clone(&store.mongo);
    let restarted = tokio::task::spawn_blocking(move || mongo.restart());
    restarted.await.expect("it starts");
    let role = doc! { "role": "readWrite", "db": &store.name };
    store.make_user("falaj", vec![role]).await;
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_empty_is_noticed_while_there_is_nothing_to_write() {
    let store = store_of_its_own().await;
    let views = [counts(), people()];
    let mut sink = written(&store, &views).await;
    sink.ping().await.expect("it is there");
    end(&store);
    let error = sink.ping().await.expect_err("it is gone");
    assert!(
        matches!(error, SinkError::Unreachable { .. }) && error.passing(),
        "{error}"
    );
    restart(&store).await;
    let error = sink.ping().await.expect_err("rows are missing");
    assert!(error.passing(), "{error}");
    let prepared = sink.prepare(&views).await.expect("prepared");
    assert_eq!(prepared.empty, ["counts", "people"]);
    sink.ping().await.expect("it is there again");
}

#[tokio::test]
async fn a_server_that_comes_back_empty_is_noticed_by_the_first_write() {
    let store = store_of_its_own().await;
    let views = [counts(), people()];
    let mut sink = written(&store, &views).await;
    end(&store);
    restart(&store).await;
    let newer = [groups(&counts(), 2, &[("DE", 2)])];
    let error = sink.write(&newer).await.expect_err("rows are missing");
    assert!(error.passing(), "{error}");
    let prepared = sink.prepare(&views).await.expect("prepared");
    assert_eq!(prepared.empty, ["counts", "people"]);
    sink.write(&newer).await.expect("works again");
}
