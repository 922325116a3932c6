//! What callers of views rely on beside the rows: plans, watermarks, checkpoints, errors.

mod records;

use std::collections::BTreeSet;
use std::time::Duration;

use falaj_record::{At, Hint, Reason, TopicLedger, Value, ViewKind, Window};
use falaj_views::{ViewOptions, ViewSpec, Views, ViewsError};
use records::{Decoding, Record};

const FIELDS: [(&str, &str); 2] = [("nat", "string"), ("n", "int")];
const COUNTS: &str = "SELECT nat, count(*) AS users FROM records GROUP BY nat";
const MINUTES: &str = "SELECT sum(n) AS total, window.end AS until, nat, window.start AS since \
     FROM records GROUP BY nat, window(event_time, '1 minute')";

fn plan_with(views: &[(&str, &str)], options: &ViewOptions) -> (Decoding, Views) {
    let decoding = Decoding::new(&FIELDS);
    let specs: Vec<ViewSpec> = views
        .iter()
        .map(|(name, sql)| ViewSpec {
            name: (*name).into(),
            sql: (*sql).into(),
        })
        .collect();
    let views = Views::plan(decoding.schema(), &specs, options).expect("the views are right");
    (decoding, views)
}

fn options() -> ViewOptions {
    ViewOptions {
        lateness: Duration::from_secs(10),
        people: 3,
        partitions: 2,
        pid_required: true,
    }
}

fn plan(views: &[(&str, &str)]) -> (Decoding, Views) {
    plan_with(views, &options())
}

fn record(partition: i32, offset: i64, second: i64, n: i64) -> Record {
    Record {
        partition,
        offset,
        time_ms: second * 1000,
        value: format!(r#"{{"nat":"DE","n":{n}}}"#),
    }
}

#[test]
fn a_view_is_known_before_its_first_record() {
    let (_, views) = plan(&[("minutes", MINUTES), ("raw", "SELECT n, pid FROM records")]);
    let info = views.info();
    let names: Vec<(&str, String, bool)> = info[0]
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.type_name(), c.key))
        .collect();
    assert_eq!(
        names,
        [
            ("total", "bigint".into(), false),
            ("until", "timestamp".into(), true),
            ("nat", "string".into(), true),
            ("since", "timestamp".into(), true),
        ]
    );
    let window = Window {
        size_us: 60_000_000,
        slide_us: 60_000_000,
        start: Some(3),
        end: Some(1),
    };
    assert_eq!(info[0].window, Some(window));
    assert_eq!(
        (info[0].kind, info[0].sql.as_str()),
        (ViewKind::Aggregate, MINUTES)
    );
    assert_eq!((info[1].kind, info[1].window), (ViewKind::Row, None));
    let keys: Vec<bool> = info[1].columns.iter().map(|c| c.key).collect();
    assert_eq!(keys, [false, true]);
    assert_eq!(format!("{views:?}"), r#"["minutes", "raw"]"#);
}

#[test]
fn views_can_move_to_another_thread() {
    fn movable<T: Send>(_: &T) {}
    movable(&plan(&[("counts", COUNTS)]).1);
}

#[test]
fn updates_carry_the_lowest_watermark_of_partitions_that_are_not_idle() {
    let (mut decoding, mut views) = plan(&[("counts", COUNTS)]);
    views
        .push(&decoding.batch(&[record(0, 0, 100, 1)]))
        .expect("records");
    assert_eq!(
        views.drain(1).expect("rows")[0].watermark,
        None,
        "partition 1 had no record"
    );
    views
        .push(&decoding.batch(&[record(1, 0, 50, 1)]))
        .expect("records");
    assert_eq!(views.watermark(), Some(40_000_000));
    views.set_idle(&BTreeSet::from([1]));
    assert_eq!(views.drain(2).expect("rows")[0].watermark, Some(90_000_000));
    assert!(views.drain(3).expect("rows").is_empty(), "nothing changed");
}

#[test]
fn a_record_that_is_late_for_several_views_is_listed_once() {
    let (mut decoding, mut views) = plan(&[("a", MINUTES), ("b", MINUTES), ("c", COUNTS)]);
    let batch = [
        record(0, 7, 600, 1),
        record(0, 8, 0, 1),
        record(0, 9, 599, 1),
    ];
    views.push(&decoding.batch(&batch)).expect("records");
    let late = views.take_late(5);
    assert_eq!(late.len(), 1);
    assert_eq!(
        late[0].at,
        At::Topic {
            partition: 0,
            offset: 8
        }
    );
    assert_eq!(
        (late[0].reason, late[0].time_ms, late[0].length),
        (Reason::Late, 5, 0)
    );
    assert!(views.take_late(6).is_empty());
    let ledger = views.ledger();
    for (view, applied, late) in [("a", 2, 1), ("b", 2, 1), ("c", 3, 0)] {
        let counts = &ledger[view];
        assert_eq!(
            (counts.applied, counts.filtered, counts.late),
            (applied, 0, late),
            "{view}"
        );
    }
}

#[test]
fn only_views_over_records_are_in_the_ledger() {
    let (_, views) = plan(&[
        ("over", "SELECT a, count(*) AS n FROM rows_of GROUP BY a"),
        ("rows_of", "SELECT nat AS a FROM records"),
    ]);
    assert_eq!(views.ledger().keys().collect::<Vec<_>>(), ["rows_of"]);
}

#[test]
fn state_with_rows_that_were_not_drained_is_kept() {
    let (mut decoding, mut views) = plan(&[("minutes", MINUTES)]);
    let first = [
        record(0, 0, 0, 1),
        record(0, 1, 300, 2),
        record(1, 0, 300, 4),
    ];
    views.push(&decoding.batch(&first)).expect("records");
    assert!(
        views.expire().expect("state").is_empty(),
        "nothing was drained"
    );
    assert_eq!(views.drain(1).expect("rows")[0].rows.num_rows(), 2);
    let key = r#"["DE","1970-01-01T00:00:00Z"]"#.to_owned();
    assert_eq!(
        views.expire().expect("state"),
        [("minutes".to_owned(), vec![key])]
    );
    assert!(views.expire().expect("state").is_empty(), "once");
    assert_eq!((views.dropped("minutes"), views.dropped("counts")), (1, 0));
    let kept = views.checkpoint().expect("state");
    let (_, mut resumed) = plan(&[("minutes", MINUTES)]);
    resumed
        .restore(&kept, &BTreeSet::new())
        .expect("the same views");
    assert_eq!(resumed.dropped("minutes"), 1);
}

#[test]
fn groups_fold_into_one_row() {
    let (mut decoding, mut views) = plan(&[("counts", COUNTS), ("raw", "SELECT n FROM records")]);
    views
        .push(&decoding.batch(&[record(0, 0, 0, 1), record(0, 1, 0, 1)]))
        .expect("records");
    let keys = [r#"["DE"]"#.to_owned(), r#"["FR"]"#.to_owned()];
    assert_eq!(
        views.fold("counts", &keys).expect("a row"),
        None,
        "not drained yet"
    );
    views.drain(1).expect("rows");
    let row = views.fold("counts", &keys).expect("a row");
    assert_eq!(row, Some(vec![Value::Text("other".into()), Value::Int(2)]));
    for view in ["raw", "none"] {
        assert!(
            matches!(views.fold(view, &keys), Err(ViewsError::Unknown { .. })),
            "{view}"
        );
    }
}

#[test]
fn a_checkpoint_of_other_views_is_refused_by_name() {
    let (mut decoding, mut views) = plan(&[("a", COUNTS), ("b", MINUTES)]);
    views
        .push(&decoding.batch(&[record(0, 0, 0, 1)]))
        .expect("records");
    let bytes = views.checkpoint().expect("bytes");

    let spaced = COUNTS.replace(' ', "\n  ");
    let (_, mut same) = plan(&[("b", MINUTES), ("a", &spaced)]);
    same.restore(&bytes, &BTreeSet::new())
        .expect("white space and order are no change");
    assert_eq!(same.drain(1).expect("rows").len(), 2);
    let (_, mut fewer) = plan(&[("b", MINUTES)]);
    fewer
        .restore(&bytes, &BTreeSet::new())
        .expect("a view that is gone is passed over");
    assert_eq!(fewer.ledger()["b"].applied, 1);

    let other = COUNTS.replace("count(*)", "count(nat)");
    let more = ViewOptions {
        people: 4,
        ..options()
    };
    let later = ViewOptions {
        lateness: Duration::from_secs(11),
        ..options()
    };
    for (views, options, changed) in [
        (vec![("a", other.as_str()), ("b", MINUTES)], options(), "a"),
        (
            vec![("a", COUNTS), ("b", MINUTES), ("c", COUNTS)],
            options(),
            "c",
        ),
        (vec![("a", COUNTS)], more, "a"),
        (vec![("a", COUNTS), ("b", MINUTES)], later, "b"),
    ] {
        let (_, mut views) = plan_with(&views, &options);
        let error = views
            .restore(&bytes, &BTreeSet::new())
            .expect_err("something changed");
        assert!(
            matches!(&error, ViewsError::Changed { view } if view == changed),
            "{error}"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("--rebuild")));
    }
}

#[test]
fn a_changed_view_is_rebuilt_beside_the_others() {
    let (mut decoding, mut views) = plan(&[("a", COUNTS), ("b", COUNTS)]);
    let records: Vec<Record> = (0..4).map(|i| record(0, i, i, i)).collect();
    views.push(&decoding.batch(&records)).expect("records");
    views.drain(1).expect("rows");
    let bytes = views.checkpoint().expect("bytes");

    let sums = "SELECT nat, sum(n) AS total FROM records WHERE n > 1 GROUP BY nat";
    let changed = [("a", COUNTS), ("b", sums)];
    let rebuild = BTreeSet::from(["b".to_owned()]);
    let (_, mut views) = plan(&changed);
    views.restore(&bytes, &rebuild).expect("`a` is the same");
    assert!(views.drain(2).expect("rows").is_empty());
    let (_, mut again) = plan(&changed);
    // Retention took the first record.
    again.push(&decoding.batch(&records[1..])).expect("records");
    let topic = TopicLedger {
        read: 4,
        out: 4,
        ..TopicLedger::default()
    };
    views.adopt(again, &rebuild, &topic);

    let updates = views.drain(3).expect("rows");
    assert_eq!(updates.len(), 1, "`a` has nothing new");
    assert_eq!(updates[0].view.name, "b");
    assert_eq!(Value::at(updates[0].rows.column(1), 0), Value::Int(5));
    let ledger = views.ledger();
    for (view, applied, filtered) in [("a", 4, 0), ("b", 2, 2)] {
        assert_eq!(
            (ledger[view].applied, ledger[view].filtered),
            (applied, filtered),
            "{view}"
        );
    }
}

#[test]
fn a_checkpoint_that_is_not_whole_is_refused() {
    let sql = "SELECT nat, count(DISTINCT n) AS n FROM records GROUP BY nat";
    let views = [("a", sql), ("raw", "SELECT n FROM records")];
    let (mut decoding, mut planned) = plan(&views);
    planned
        .push(&decoding.batch(&[record(0, 0, 0, 1)]))
        .expect("records");
    let bytes = planned.checkpoint().expect("bytes");
    for length in (0..bytes.len()).step_by(7) {
        let (_, mut again) = plan(&views);
        let error = again
            .restore(&bytes[..length], &BTreeSet::new())
            .expect_err("cut bytes");
        assert!(matches!(error, ViewsError::Checkpoint { .. }), "{length}");
    }
    let longer = [&bytes[..], b"more"].concat();
    assert!(plan(&views).1.restore(&longer, &BTreeSet::new()).is_err());
    plan(&views)
        .1
        .restore(&bytes, &BTreeSet::new())
        .expect("whole bytes");
}

#[test]
fn a_batch_of_other_columns_is_refused() {
    let (_, mut views) = plan(&[("counts", COUNTS)]);
    let mut other = Decoding::new(&[("nat", "string"), ("n", "float")]);
    let error = views
        .push(&other.batch(&[record(0, 0, 0, 1)]))
        .expect_err("other columns");
    assert!(matches!(error, ViewsError::Columns));
}

#[test]
fn an_error_names_the_view_and_no_value() {
    let (mut decoding, mut views) = plan(&[
        ("fine", COUNTS),
        ("sums", "SELECT sum(n) AS n FROM records"),
    ]);
    let huge = i64::MAX - 4_711;
    views
        .push(&decoding.batch(&[record(0, 0, 0, huge), record(0, 1, 0, huge)]))
        .expect("records");
    let error = views.drain(1).expect_err("the sum is too large");
    let texts = format!("{error} {error:?} {:?}", error.hint());
    assert_eq!(
        error.to_string(),
        "view `sums`: a number left the range of BIGINT"
    );
    assert!(error.hint().is_some());
    assert!(!texts.contains("922337"), "{texts}");
}

#[test]
fn every_listed_function_is_one() {
    let listed: Vec<&str> = falaj_views::functions().collect();
    assert!(listed.contains(&"upper(text)") && listed.contains(&"count(DISTINCT value)"));
    let names: BTreeSet<&str> = listed
        .iter()
        .filter_map(|call| call.split('(').next())
        .collect();
    for name in names {
        let decoding = Decoding::new(&FIELDS);
        let sql = format!("SELECT {name}() AS x FROM records");
        let view = ViewSpec {
            name: "v".into(),
            sql,
        };
        let errors = Views::plan(decoding.schema(), &[view], &options()).expect_err("no arguments");
        assert!(
            !errors[0].message.contains("there is no function"),
            "{name}"
        );
    }
}

#[test]
fn deep_and_long_texts_are_refused_and_not_followed_to_the_end() {
    let decoding = Decoding::new(&FIELDS);
    for sql in [
        format!(
            "SELECT {}n{} AS x FROM records",
            "(".repeat(5000),
            ")".repeat(5000)
        ),
        format!("SELECT n{} AS x FROM records", "+n".repeat(5000)),
        format!("SELECT {}n AS x FROM records", "- ".repeat(5000)),
        format!("SELECT n{} AS x FROM records", "+abs(n)".repeat(2000)),
        format!("SELECT n{} AS x FROM records", " IS NULL".repeat(1500)),
        format!(
            "SELECT n AS x FROM records WHERE {}",
            "n > 0 AND ".repeat(5000)
        ),
    ] {
        let view = ViewSpec {
            name: "v".into(),
            sql,
        };
        assert!(Views::plan(decoding.schema(), &[view], &options()).is_err());
    }
}
