//! Every function, operator and aggregate with every kind of argument: what is accepted runs.

mod records;

use std::time::Duration;

use arrow::array::Array as _;
use falaj_record::Value;
use falaj_views::{ViewOptions, ViewSpec, Views};
use records::{Decoding, Record};

/// One argument of each kind: columns, literals, NULL.
const ARGS: [&str; 14] = [
    "s",
    "n",
    "x",
    "ok",
    "pid",
    "event_time",
    "to_date(event_time)",
    "NULL",
    "'day'",
    "''",
    "2",
    "5e-1",
    "true",
    "DATE '2026-01-31'",
];

fn records() -> Vec<Record> {
    let values = [
        r"{}",
        r#"{"pid":"abcdefghijklmnopqrstuvwxyz","s":"Straße","n":9223372036854775807,"x":1e300,"ok":true}"#,
        r#"{"pid":"bbcdefghijklmnopqrstuvwxyz","s":"","n":-9223372036854775808,"x":-0.0,"ok":false}"#,
        r#"{"pid":"abcdefghijklmnopqrstuvwxyz","s":"day","n":0,"x":0.125}"#,
    ];
    let record = |(offset, value): (i64, &&str)| Record {
        partition: 0,
        offset,
        time_ms: offset * 86_400_000_123,
        value: (*value).to_owned(),
    };
    (0..).zip(&values).map(record).collect()
}

fn check(texts: impl Iterator<Item = String>) -> (usize, usize) {
    let fields = [
        ("s", "string"),
        ("n", "int"),
        ("x", "float"),
        ("ok", "bool"),
    ];
    let mut decoding = Decoding::new(&fields);
    let batch = decoding.batch(&records());
    let options = ViewOptions {
        lateness: Duration::ZERO,
        people: 2,
        partitions: 1,
        pid_required: true,
    };
    let (mut accepted, mut refused) = (0, 0);
    for sql in texts {
        let view = ViewSpec {
            name: "v".into(),
            sql: sql.clone(),
        };
        let mut views = match Views::plan(decoding.schema(), &[view], &options) {
            Ok(views) => views,
            Err(errors) => {
                let message = &errors[0].message;
                assert!(!message.contains("engine"), "{sql}: {message}");
                let syntax = message.starts_with("not Spark SQL");
                assert!(errors[0].hint.is_some() != syntax, "{sql}: {message}");
                refused += 1;
                continue;
            }
        };
        accepted += 1;
        let updates = views.push(&batch).and_then(|()| views.drain(1));
        match updates {
            Ok(updates) => {
                let Some(update) = updates.first() else {
                    continue;
                };
                assert_eq!(update.rows.num_rows(), update.keys.len(), "{sql}");
                let column = &update.view.columns[0];
                let values = update.rows.column(0);
                assert_eq!(values.data_type(), &column.data_type, "{sql}");
                for row in 0..update.rows.num_rows() {
                    let _: Value = Value::at(values, row);
                }
            }
            Err(error) => {
                let text = error.to_string();
                assert_eq!(text, "view `v`: a number left the range of BIGINT", "{sql}");
            }
        }
    }
    (accepted, refused)
}

#[test]
fn every_accepted_call_runs() {
    let calls = falaj_views::functions().filter_map(|call| call.split('(').next());
    let calls: Vec<&str> = calls.collect();
    let texts = calls.iter().flat_map(|name| {
        let one = ARGS
            .iter()
            .map(move |a| format!("SELECT {name}({a}) AS v FROM records"));
        let two = ARGS.iter().flat_map(move |a| {
            ARGS.iter()
                .map(move |b| format!("SELECT {name}({a}, {b}) AS v FROM records"))
        });
        one.chain(two)
    });
    let (accepted, refused) = check(texts);
    assert!(accepted > 300 && refused > 300, "{accepted} {refused}");
}

#[test]
fn every_accepted_call_of_three_runs() {
    let names = [
        "if",
        "coalesce",
        "concat",
        "replace",
        "substring",
        "greatest",
        "round",
    ];
    let texts = names.iter().flat_map(|name| {
        ARGS.iter().flat_map(move |a| {
            ARGS.iter().flat_map(move |b| {
                let text = move |c| format!("SELECT {name}({a}, {b}, {c}) AS v FROM records");
                ["s", "n", "x", "NULL", "2"].into_iter().map(text)
            })
        })
    });
    let (accepted, refused) = check(texts);
    assert!(accepted > 100 && refused > 100, "{accepted} {refused}");
}

#[test]
fn every_accepted_operator_runs() {
    let binary = [
        "+",
        "-",
        "*",
        "/",
        "%",
        "=",
        "<>",
        "<",
        "<=",
        ">",
        ">=",
        "<=>",
        "AND",
        "OR",
        "||",
        "IS DISTINCT FROM",
        "IS NOT DISTINCT FROM",
        "LIKE",
        "NOT LIKE",
    ];
    let pairs = || ARGS.iter().flat_map(|a| ARGS.iter().map(move |b| (a, b)));
    let binary = binary
        .iter()
        .flat_map(|op| pairs().map(move |(a, b)| format!("SELECT {a} {op} {b} AS v FROM records")));
    let others = pairs().flat_map(|(a, b)| {
        [
            format!("SELECT {a} IN ({b}, NULL) AS v FROM records"),
            format!("SELECT {a} NOT IN ({b}, {a}) AS v FROM records"),
            format!("SELECT {a} BETWEEN {b} AND {a} AS v FROM records"),
            format!("SELECT CASE {a} WHEN {b} THEN {a} ELSE {b} END AS v FROM records"),
            format!("SELECT count(DISTINCT {a}) FILTER (WHERE {b}) AS v FROM records"),
            format!("SELECT {a} AS v, min({b}) AS low, count(DISTINCT {b}) AS n FROM records GROUP BY {a}"),
            format!("SELECT sum({a}) AS v FROM records WHERE {b} IS NOT NULL"),
        ]
    });
    let types = ["BIGINT", "DOUBLE", "STRING", "BOOLEAN", "TIMESTAMP", "DATE"];
    let unary = ARGS.iter().flat_map(|a| {
        let forms = [
            "- {}",
            "NOT {}",
            "{} IS NULL",
            "{} IS NOT TRUE",
            "+ {}",
            "{} IS NOT FALSE",
        ];
        let forms = forms.into_iter().map(move |f| f.replace("{}", a));
        let casts = types.into_iter().map(move |t| format!("CAST({a} AS {t})"));
        forms
            .chain(casts)
            .map(|e| format!("SELECT {e} AS v FROM records"))
    });
    let (accepted, refused) = check(binary.chain(others).chain(unary));
    assert!(accepted > 500 && refused > 500, "{accepted} {refused}");
}
