//! How documents and indexes lie, as MongoDB's own driver for Python sees them, and how they
//! follow their view.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};
use falaj_record::ViewKind;
use falaj_servers::Flavour;
use falaj_sinks::conformance::Store;
use falaj_sinks::{Retention, SinkError};
use mongodb::bson::{Document, doc};

use crate::store::{
    counts, groups, new_store, now_us, people, persons, prepared, prepared_keeping, update, view,
};

#[tokio::test]
async fn documents_lie_as_documented() {
    let store = new_store().await;
    let columns = [
        ("nat", DataType::Utf8),
        ("minute", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("pid", DataType::Utf8),
        ("users", DataType::Int64),
        ("share", DataType::Float64),
        ("adult", DataType::Boolean),
        ("day", DataType::Date32),
        ("paid", DataType::Decimal128(10, 2)),
        ("sum", DataType::Decimal128(38, 0)),
        ("none", DataType::Utf8),
    ];
    let view = view("everything", ViewKind::Aggregate, &columns, 2);
    let decimal = |value: i128, precision, scale| {
        let array = Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale);
        Arc::new(array.expect("the digits fit"))
    };
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["DE"])),
        Arc::new(TimestampMicrosecondArray::from(vec![1_767_225_600_250_007])),
        Arc::new(StringArray::from(vec!["p1"])),
        Arc::new(Int64Array::from(vec![3])),
        Arc::new(Float64Array::from(vec![f64::NAN])),
        Arc::new(BooleanArray::from(vec![true])),
        Arc::new(Date32Array::from(vec![20_454])),
        decimal(1250, 10, 2),
        decimal(10_i128.pow(35), 38, 0),
        Arc::new(StringArray::from(vec![None::<&str>])),
    ];
    let retention = Retention::from([("everything".to_owned(), Duration::from_hours(240_000))]);
    let mut sink = prepared_keeping(&store, &[&view], retention).await;
    // Half a millisecond more than a whole one: what expires is not removed too soon.
    let version = 1_735_689_600_000_500;
    sink.write(&[update(&view, version, &["[\"DE\",1]"], lists)])
        .await
        .expect("written");
    sink.close().await.expect("closed");
    let printed = store.python(
        r#"
[document] = db.everything.find()
for name, value in document.items():
    print(name, type(value).__name__, value)
for index in db.everything.list_indexes():
    print(dict(index["key"]), index.get("expireAfterSeconds"), index["name"])
print(db.everything.count_documents({"paid": {"$gt": 12}, "minute": {"$lt": document["_expires"]}}))
entry = db["_falaj"].find_one({"_id": "everything"})
[listed] = db.list_collections(filter={"name": "everything"})
owner, filling = entry.pop("owner").split(" ")
print(entry.pop("uuid") == listed["info"]["uuid"], owner == "", len(filling), entry)
"#,
    );
    let documented = r#"_id str ["DE",1]
nat str DE
minute datetime 2026-01-01 00:00:00.250000
pid str p1
users Int64 3
share float nan
adult bool True
day datetime 2026-01-01 00:00:00
paid Decimal128 12.50
sum str 100000000000000000000000000000000000
none NoneType None
_micros dict {'minute': 7}
_key str ["DE",1]
_version Int64 1735689600000500
_expires datetime 2052-05-19 00:00:00.001000
{'_id': 1} None _id_
{'_expires': 1} 0 falaj_expires
{'minute': 1} None falaj_minute
{'nat': 1} None falaj_nat
{'pid': 1} None falaj_pid
1
True True 16 {'_id': 'everything', 'made_by': 'falaj', 'columns': [{'name': 'nat', 'type': 'string'}, {'name': 'minute', 'type': 'date'}, {'name': 'pid', 'type': 'string'}, {'name': 'users', 'type': 'long'}, {'name': 'share', 'type': 'double'}, {'name': 'adult', 'type': 'bool'}, {'name': 'day', 'type': 'date'}, {'name': 'paid', 'type': 'decimal'}, {'name': 'sum', 'type': 'decimal'}, {'name': 'none', 'type': 'string'}], 'retention_ms': 864000000000}"#;
    let sorted = |text: &str| {
        // Servers list indexes in orders of their own.
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines[15..20].sort();
        lines
    };
    assert_eq!(sorted(&printed), sorted(documented));
}

#[tokio::test]
async fn a_column_that_is_gone_is_gone_from_every_document() {
    let store = new_store().await;
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let columns = [("nat", DataType::Utf8), ("seen", time)];
    let before = view("counts", ViewKind::Aggregate, &columns, 1);
    let mut sink = prepared(&store, &[&before]).await;
    let lists: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["DE"])),
        Arc::new(TimestampMicrosecondArray::from(vec![1_000_001])),
    ];
    sink.write(&[update(&before, 1, &["[\"DE\"]"], lists)])
        .await
        .expect("written");
    let place = view(
        "counts",
        ViewKind::Aggregate,
        &[("place", DataType::Utf8)],
        1,
    );
    prepared(&store, &[&place]).await;
    let left = doc! { "_id": "[\"DE\"]", "_micros": {}, "_key": "[\"DE\"]", "_version": 1_i64 };
    assert_eq!(store.only("counts").await, left);
    assert_eq!(store.indexes("counts").await, ["_id_", "falaj_place"]);
}

#[tokio::test]
async fn a_new_retention_holds_for_rows_that_are_there() {
    let store = new_store().await;
    let view = people();
    let keeping = |hours| Retention::from([("people".to_owned(), Duration::from_hours(hours))]);
    let version = now_us();
    let mut sink = prepared(&store, &[&view]).await;
    sink.write(&[persons(&view, version, &[("p1", "NL")])])
        .await
        .expect("written");
    let expires = async || {
        let document = store.only("people").await;
        let indexes = store.indexes("people").await;
        let ms = document
            .get_datetime("_expires")
            .ok()
            .map(|t| t.timestamp_millis());
        (ms, indexes.contains(&"falaj_expires".to_owned()))
    };
    assert_eq!(expires().await, (None, false));
    for hours in [48, 24] {
        prepared_keeping(&store, &[&view], keeping(hours)).await;
        let kept_ms = i64::try_from(hours * 3_600_000).expect("in this age");
        let until = (version + 999) / 1000 + kept_ms;
        assert_eq!(expires().await, (Some(until), true), "{hours} h");
    }
    prepared(&store, &[&view]).await;
    assert_eq!(expires().await, (None, false));
    // An hour, over long ago.
    let old = persons(&view, version - 7_200_000_000, &[("p2", "NL")]);
    prepared(&store, &[&view])
        .await
        .write(std::slice::from_ref(&old))
        .await
        .expect("written");
    let mut sink = prepared_keeping(&store, &[&view], keeping(1)).await;
    while store.documents("people").await.len() > 1 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let written = sink.write(&[old]).await.expect("what is over is left out");
    assert_eq!(written.refused, []);
    assert_eq!(store.documents("people").await.len(), 1);
}

#[tokio::test]
async fn an_index_that_rows_expire_by_is_put_back() {
    let store = new_store().await;
    let view = people();
    let retention = Retention::from([("people".to_owned(), Duration::from_hours(1))]);
    let mut sink = prepared_keeping(&store, &[&view], retention).await;
    // Somebody drops it, and maybe makes another.
    let replace = async |other: Option<Document>| {
        let drop = doc! { "dropIndexes": "people", "index": "falaj_expires" };
        store.run(drop).await;
        if let Some(other) = other {
            let make = doc! { "createIndexes": "people", "indexes": [other] };
            store.run(make).await;
        }
    };
    let late = || doc! { "key": { "_expires": 1 }, "name": "late", "expireAfterSeconds": 3600 };
    let never = || doc! { "key": { "_expires": 1 }, "name": "never" };
    let all = ["_id_", "falaj_expires", "falaj_pid"];
    for other in [None, Some(late()), Some(never())] {
        replace(other).await;
        assert_eq!(sink.expire().await, Ok(0));
        assert_eq!(store.indexes("people").await, all);
    }
    for other in [None, Some(late()), Some(never())] {
        replace(other).await;
        let prepared = sink.prepare(&[Arc::clone(&view)]).await;
        assert_eq!(prepared.expect("prepared").empty, ["people"]);
        assert_eq!(store.indexes("people").await, all);
    }
    sink.write(&[persons(&view, now_us(), &[("p1", "NL")])])
        .await
        .expect("nothing else changed");
}

#[tokio::test]
async fn a_version_ahead_of_the_clock_keeps_nothing_longer() {
    let store = new_store().await;
    let view = people();
    let hour = Duration::from_hours(1);
    let retention = Retention::from([("people".to_owned(), hour)]);
    let mut sink = prepared_keeping(&store, &[&view], retention).await;
    let ahead = now_us() + 86_400_000_000;
    sink.write(&[persons(&view, ahead, &[("p1", "NL")])])
        .await
        .expect("written");
    let latest = now_us() / 1000 + 3_600_000 + 1;
    let expires = async || {
        let document = store.only("people").await;
        let expires = document.get_datetime("_expires");
        expires.expect("it expires").timestamp_millis()
    };
    assert!(expires().await <= latest);
    // What is there gets the new retention, by the same rule.
    let retention = Retention::from([("people".to_owned(), hour * 2)]);
    prepared_keeping(&store, &[&view], retention).await;
    let latest = now_us() / 1000 + 7_200_000 + 1;
    assert!(expires().await <= latest);
}

#[tokio::test]
async fn what_others_made_is_neither_written_nor_dropped() {
    let store = new_store().await;
    let view = counts();
    for (make, lack) in [
        (
            doc! { "insert": "counts", "documents": [{ "_id": 1 }] },
            "did not write",
        ),
        (
            doc! { "create": "counts", "capped": true, "size": 4096 },
            "capped",
        ),
        (
            doc! { "create": "counts", "collation": { "locale": "en", "strength": 1 } },
            "collation",
        ),
        (
            doc! { "create": "counts", "viewOn": "others", "pipeline": [] },
            "it is a view",
        ),
    ] {
        store.run(make).await;
        let mut sink = store.sink().await;
        let error = sink.prepare(&[Arc::clone(&view)]).await.expect_err(lack);
        assert!(matches!(error, SinkError::ForeignTable { .. }), "{error}");
        assert!(error.to_string().contains(lack), "{error}");
        let error = sink.drop_view("counts").await.expect_err(lack);
        assert!(matches!(error, SinkError::ForeignTable { .. }), "{error}");
        assert_eq!(sink.erase("1").await, Ok(0));
        sink.close().await.expect("closed");
        let left = store.collections().await;
        assert!(left.contains(&"counts".to_owned()), "{left:?}");
        store.run(doc! { "drop": "counts" }).await;
    }
    // An empty one may have been made for falaj, with a rule or shards.
    store.run(doc! { "create": "counts" }).await;
    let mut sink = prepared(&store, &[&view]).await;
    sink.write(&[groups(&view, 1, &[("DE", 3)])])
        .await
        .expect("written");
}

#[tokio::test]
async fn a_view_whose_names_mongodb_cannot_take_is_refused() {
    let store = new_store().await;
    let long = "v".repeat(250);
    for (name, columns, cause) in [
        ("system.views", vec!["pid"], "none for a collection"),
        ("a$b", vec!["pid"], "none for a collection"),
        ("", vec!["pid"], "none for a collection"),
        (long.as_str(), vec!["pid"], "longer than 255 bytes"),
        ("_falaj", vec!["pid"], "falaj's own"),
        ("users", vec!["_id"], "the column `_id` is falaj's own"),
        ("users", vec!["_version"], "falaj's own"),
        ("users", vec!["a.b"], "no name for a field"),
        ("users", vec!["$a"], "no name for a field"),
        ("users", vec!["age", "age"], "two columns named `age`"),
    ] {
        let columns: Vec<_> = columns.into_iter().map(|c| (c, DataType::Utf8)).collect();
        let view = view(name, ViewKind::Row, &columns, 1);
        let mut sink = store.sink().await;
        let error = sink.prepare(&[Arc::clone(&view)]).await.expect_err(cause);
        assert!(matches!(error, SinkError::Unfit { .. }), "{error}");
        assert!(error.to_string().contains(cause), "{error}");
        let found = sink.inspect(&[view]).await.expect("it can be looked at");
        assert_eq!(found.findings.len(), 1, "{name}");
        sink.close().await.expect("closed");
    }
}

#[tokio::test]
async fn an_erased_person_stays_away_from_older_writes() {
    let store = new_store().await;
    let visits = view(
        "visits",
        ViewKind::Aggregate,
        &[("pid", DataType::Utf8), ("visits", DataType::Int64)],
        1,
    );
    let people = people();
    let mut sink = prepared(&store, &[&people, &visits]).await;
    let version = now_us();
    let visit = |version| {
        let lists: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["p1", "p2"])),
            Arc::new(Int64Array::from(vec![1, 2])),
        ];
        update(&visits, version, &["[\"p1\"]", "[\"p2\"]"], lists)
    };
    let both = |version| {
        [
            persons(&people, version, &[("p1", "NL"), ("p2", "NL")]),
            visit(version),
        ]
    };
    sink.write(&both(version)).await.expect("written");
    assert_eq!(sink.erase("p1").await, Ok(2));
    sink.write(&both(version)).await.expect("written");
    assert_eq!(store.only("people").await.get_str("_key").ok(), Some("p2"));
    assert_eq!(store.only("visits").await.get_str("pid").ok(), Some("p2"));
    sink.write(&both(version + 60_000_000))
        .await
        .expect("written");
    let documents = store.documents("people").await;
    assert_eq!(documents[0].get_str("_id").ok(), Some("p1"));
    // By an index, not by looking at everybody. The stand-in has a planner of its own.
    if let Flavour::SecantusDb(_) = store.mongo.flavour() {
        return;
    }
    let explain = doc! { "explain": { "find": "people", "filter": { "$or": [{ "_id": "p1" }, { "pid": "p1" }] } } };
    let plan = format!(
        "{:?}",
        store.run(explain).await.get_document("queryPlanner")
    );
    assert!(!plan.contains("COLLSCAN"), "{plan}");
}
