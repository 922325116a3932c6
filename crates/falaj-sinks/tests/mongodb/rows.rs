//! Rows on their way: races, replays, refusals, and what errors say about them.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use falaj_record::{Hint, Reason};
use falaj_sinks::conformance::Store;
use falaj_sinks::{Sink, SinkError};
use mongodb::bson::{Document, doc};
use tokio::sync::Barrier;

use crate::store::{Database, counts, groups, new_store, people, persons, prepared, update};

/// Writers that share every key, each with versions of its own, in orders of their own, and twice.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_the_newest_version_wins() {
    const WRITERS: i64 = 4;
    const ROUNDS: i64 = 6;
    let steps = |writer| {
        // 5, 0, 1, 2, 3, 4, and again.
        let step = move |step| 1 + (step + 5) % ROUNDS * WRITERS + writer;
        (0..ROUNDS * 2).map(step).collect()
    };
    let names = |_| (0..40).map(|n| n.to_string()).collect();
    let documents = race(WRITERS, steps, names).await;
    assert_eq!(documents.len(), 40);
    for document in documents {
        let newest = Some(ROUNDS * WRITERS);
        assert_eq!(document.get_i64("_version").ok(), newest, "{document}");
        assert_eq!(document.get_i64("users").ok(), newest, "{document}");
    }
}

/// The same instant, and no document yet: one writer inserts, the others fail to, and the newest
/// of them has to notice that it is an older one that was faster.
#[tokio::test(flavor = "multi_thread")]
async fn of_writers_of_a_new_key_the_newest_version_wins() {
    const WRITERS: i64 = 4;
    const ROUNDS: i64 = 30;
    let steps = |writer| (0..ROUNDS).map(|step| step * WRITERS + writer).collect();
    let names = |version| {
        let step = version / WRITERS;
        (0..10).map(|n| format!("{step}.{n}")).collect()
    };
    let documents = race(WRITERS, steps, names).await;
    assert_eq!(documents.len(), usize::try_from(ROUNDS).expect("few") * 10);
    for document in documents {
        let version = document.get_i64("_version").expect("a version");
        assert_eq!(version % WRITERS, WRITERS - 1, "{document}");
    }
}

/// Runs writers side by side, in step: each writes its versions, each version with the keys that
/// `names` gives it.
async fn race(
    writers: i64,
    steps: impl Fn(i64) -> Vec<i64>,
    names: fn(i64) -> Vec<String>,
) -> Vec<Document> {
    let store = Arc::new(new_store().await);
    let view = counts();
    prepared(&store, &[&view]).await;
    let barrier = Arc::new(Barrier::new(usize::try_from(writers).expect("few")));
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let (store, view, barrier) = (Arc::clone(&store), Arc::clone(&view), Arc::clone(&barrier));
        let steps = steps(writer);
        tasks.push(tokio::spawn(async move {
            let mut sink = prepared(&store, &[&view]).await;
            for version in steps {
                let names = names(version);
                let rows: Vec<_> = names.iter().map(|n| (n.as_str(), version)).collect();
                barrier.wait().await;
                let written = sink.write(&[groups(&view, version, &rows)]).await;
                assert_eq!(written.expect("a lost race is no fault").refused, []);
            }
            sink.close().await.expect("closed");
        }));
    }
    for task in tasks {
        task.await.expect("no writer fails");
    }
    store.documents("counts").await
}

/// Somebody's hand in the store: a version that is none is not taken for a newer one.
#[tokio::test]
async fn a_document_that_somebody_spoiled_is_written_anew() {
    let store = new_store().await;
    let view = counts();
    let mut sink = prepared(&store, &[&view]).await;
    let rows = [("DE", 1), ("FR", 1)];
    sink.write(&[groups(&view, 1, &rows)])
        .await
        .expect("written");
    let spoil = [
        doc! { "q": { "nat": "DE" }, "u": { "$unset": { "_version": "" } } },
        doc! { "q": { "nat": "FR" }, "u": { "$set": { "_version": "newest" } } },
    ];
    store
        .run(doc! { "update": "counts", "updates": spoil.to_vec() })
        .await;
    sink.write(&[groups(&view, 2, &rows)])
        .await
        .expect("written");
    let documents = store.documents("counts").await;
    let versions: Vec<_> = documents
        .iter()
        .map(|d| d.get_i64("_version").ok())
        .collect();
    assert_eq!(versions, [Some(2), Some(2)]);
}

#[tokio::test]
async fn a_row_takes_the_place_of_all_of_the_older_one() {
    let store = new_store().await;
    let view = counts();
    let mut sink = prepared(&store, &[&view]).await;
    sink.write(&[groups(&view, 1, &[("DE", 1)])])
        .await
        .expect("written");
    let note = doc! { "q": {}, "u": { "$set": { "note": "left by somebody" } } };
    store
        .run(doc! { "update": "counts", "updates": [note] })
        .await;
    sink.write(&[groups(&view, 2, &[("DE", 2)])])
        .await
        .expect("written");
    let key = "[\"DE\"]";
    let whole = doc! { "_id": key, "nat": "DE", "users": 2_i64, "_key": key, "_version": 2_i64 };
    assert_eq!(store.only("counts").await, whole);
}

#[tokio::test]
async fn a_row_larger_than_a_document_may_be_is_refused_before_it_is_sent() {
    const LIMIT: usize = 16 << 20;
    let store = new_store().await;
    let view = people();
    let mut sink = prepared(&store, &[&view]).await;
    // What stands around the text: names, types, lengths, and the pid three times.
    let around = 5 + 12 + 10 + 13 + 18 + 12;
    let texts = [1, LIMIT - around, LIMIT - around + 1, 17_000_000, 1].map(|n| "x".repeat(n));
    let pids = ["p1", "p2", "p3", "p4", "p5"];
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(pids.to_vec())),
        Arc::new(StringArray::from(
            texts.iter().map(String::as_str).collect::<Vec<_>>(),
        )),
    ];
    let written = sink
        .write(&[update(&view, 7, &pids, lists)])
        .await
        .expect("written");
    let refused: Vec<_> = written
        .refused
        .iter()
        .map(|r| (r.reason, r.version))
        .collect();
    assert_eq!(refused, [(Reason::TooLargeForStore, 7); 2]);
    let documents = store.documents("people").await;
    let sizes = documents.iter().map(|document| {
        let text = |field| document.get_str(field).expect("a text");
        (text("_id"), text("nat").len())
    });
    let written = [("p1", 1), ("p2", LIMIT - around), ("p5", 1)];
    assert_eq!(sizes.collect::<Vec<_>>(), written);
}

#[tokio::test]
async fn many_large_rows_go_out_in_several_commands() {
    let store = new_store().await;
    let view = people();
    let mut sink = prepared(&store, &[&view]).await;
    let text = "x".repeat(3 << 20);
    let pids: Vec<_> = (0..12).map(|n| format!("p{n:02}")).collect();
    let rows: Vec<_> = pids
        .iter()
        .map(|pid| (pid.as_str(), text.as_str()))
        .collect();
    sink.write(&[persons(&view, 1, &rows)])
        .await
        .expect("written");
    assert_eq!(store.documents("people").await.len(), 12);
}

#[tokio::test]
async fn a_row_that_breaks_somebodys_rule_holds_up_no_other() {
    let store = new_store().await;
    let view = people();
    let mut sink = prepared(&store, &[&view]).await;
    let index = doc! { "key": { "nat": 1 }, "name": "theirs", "unique": true };
    store
        .run(doc! { "createIndexes": "people", "indexes": [index] })
        .await;
    let written = sink
        .write(&[persons(
            &view,
            1,
            &[("p1", "NL"), ("p2", "DE"), ("p3", "NL"), ("p4", "FR")],
        )])
        .await
        .expect("the others are written");
    let reasons: Vec<_> = written.refused.iter().map(|r| r.reason).collect();
    assert_eq!(reasons, [Reason::RefusedByStore]);
    assert_eq!(store.documents("people").await.len(), 3);
}

#[tokio::test]
async fn no_error_and_no_refusal_quotes_a_row() {
    let store = new_store().await;
    let view = people();
    let mut sink = prepared(&store, &[&view]).await;
    sink.write(&[persons(&view, 5, &[("canary-pid", "canary-nat")])])
        .await
        .expect("written");
    let mut said = Vec::new();
    store.refused_text(&view).await;
    let rows = [("canary-pid", "canary-nat"), ("canary-2", "Atlantis")];
    // A duplicate key, which the server quotes, and a rule that is broken.
    let written = sink
        .write(&[persons(&view, 4, &rows)])
        .await
        .expect("written");
    said.push(format!("{written:?}"));
    store.make_read_only().await;
    let mut sink = store.sink().await;
    let error = sink
        .erase("canary-pid")
        .await
        .expect_err("it may not remove");
    assert!(matches!(error, SinkError::Forbidden { .. }), "{error}");
    said.push(format!("{error} {error:?} {:?}", error.hint()));
    for text in said {
        assert!(
            !text.contains("canary") && !text.contains("Atlantis"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_write_goes_on_while_the_primary_steps_down() {
    let store = new_store_of_its_own_with(&counts()).await;
    let view = counts();
    let mut sink = prepared(&store, &[&view]).await;
    for version in 1..=12 {
        if version == 4 {
            let down = doc! { "replSetStepDown": 2, "force": true };
            let client = store.client().await;
            // The server may hang up instead of answering.
            let _ = client.database("admin").run_command(down).await;
            client.shutdown().immediate(true).await;
        }
        write_patiently(sink.as_mut(), &store, version).await;
    }
    let documents = store.documents("counts").await;
    let versions: Vec<_> = documents
        .iter()
        .filter_map(|d| d.get_i64("_version").ok())
        .collect();
    assert_eq!(versions, [12; 3]);
}

async fn new_store_of_its_own_with(view: &Arc<falaj_record::ViewInfo>) -> Database {
    let store = crate::store::store_of_its_own().await;
    prepared(&store, &[view])
        .await
        .close()
        .await
        .expect("closed");
    store
}

/// Writes as an outlet does: what failed is written again.
async fn write_patiently(sink: &mut dyn Sink, store: &Database, version: i64) {
    let view = counts();
    let rows = [("DE", version), ("FR", version), ("NL", version)];
    for _ in 0..60 {
        match sink.write(&[groups(&view, version, &rows)]).await {
            Ok(written) => return assert_eq!(written.refused, []),
            Err(error) => assert!(error.passing(), "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    panic!("the server does not come back: {}", store.mongo.log());
}
