//! What views cost: `cargo run --release -p falaj-views --example views_speed -- [records] [batch]`.
//!
//! Synthetic people go through the three views of the demo, and through others on their own. Time is that
//! of this thread on a CPU (where the system tells it), without generating and decoding the records.

#[path = "../tests/records/mod.rs"]
mod records;

use std::time::{Duration, Instant};

use falaj_views::{ViewOptions, ViewSpec, Views};
use records::{Decoding, Record};

const NATIONS: [&str; 21] = [
    "AU", "BR", "CA", "CH", "DE", "DK", "ES", "FI", "FR", "GB", "IE", "IN", "IR", "MX", "NL", "NO",
    "NZ", "RS", "TR", "UA", "US",
];
const DOMAINS: [&str; 8] = [
    "example.com",
    "example.org",
    "mail.example",
    "post.example",
    "web.example",
    "inbox.example",
    "letters.example",
    "example.net",
];

const DEMO: [(&str, &str); 3] = [
    (
        "nations",
        "SELECT nat, count(*) AS users FROM records GROUP BY nat",
    ),
    (
        "ages",
        "SELECT window.start AS minute, avg(age) AS average_age, count(*) AS users FROM records GROUP BY window(event_time, '1 minute')",
    ),
    (
        "domains",
        "SELECT email_domain, count(*) AS users FROM records GROUP BY email_domain",
    ),
];
const OTHERS: [(&str, &str); 5] = [
    ("users", "SELECT pid, nat, age FROM records"),
    (
        "adults",
        "SELECT nat, sum(age) AS years FROM records WHERE age >= 18 GROUP BY nat",
    ),
    (
        "people",
        "SELECT nat, count(DISTINCT pid) AS people FROM records GROUP BY nat",
    ),
    (
        "persons",
        "SELECT pid, count(*) AS records, max(age) AS age FROM records GROUP BY pid",
    ),
    (
        "sliding",
        "SELECT nat, window.start AS start, count(*) AS users FROM records GROUP BY nat, window(event_time, '5 minutes', '1 minute')",
    ),
];

fn main() {
    let mut args = std::env::args()
        .skip(1)
        .map(|a| a.parse().expect("a number"));
    let records: usize = args.next().unwrap_or(1_000_000);
    let batch: usize = args.next().unwrap_or(65_536);
    let demo: Vec<&(&str, &str)> = DEMO.iter().collect();
    measure("the demo's three views", &demo, records, batch);
    for view in DEMO.iter().chain(&OTHERS) {
        measure(view.0, &[view], records, batch);
    }
}

fn measure(name: &str, views: &[&(&str, &str)], records: usize, size: usize) {
    let fields = [
        ("nat", "string"),
        ("age", "int"),
        ("email_domain", "string"),
    ];
    let mut decoding = Decoding::new(&fields);
    let specs: Vec<ViewSpec> = views
        .iter()
        .map(|(name, sql)| ViewSpec {
            name: (*name).into(),
            sql: (*sql).into(),
        })
        .collect();
    let options = ViewOptions {
        lateness: Duration::from_secs(10),
        people: 5,
        partitions: 4,
        pid_required: true,
    };
    let mut views = Views::plan(decoding.schema(), &specs, &options).expect("the views are right");
    let (mut push, mut drain) = (Duration::ZERO, Duration::ZERO);
    let mut rows = 0;
    for from in (0..records).step_by(size) {
        let batch: Vec<Record> = (from..records.min(from + size)).map(record).collect();
        let batch = decoding.batch(&batch);
        let start = clock();
        views.push(&batch).expect("views take records");
        let pushed = clock();
        let version = i64::try_from(from).expect("few records") + 1;
        let updates = views.drain(version).expect("views give rows");
        drain += clock().saturating_sub(pushed);
        push += pushed.saturating_sub(start);
        rows += updates.iter().map(|u| u.rows.num_rows()).sum::<usize>();
    }
    let start = clock();
    let checkpoint = views.checkpoint().expect("views can be saved");
    let saved = clock().saturating_sub(start);
    let million =
        |d: Duration| d.as_secs_f64() * 1e6 / f64::from(u32::try_from(records).expect("few"));
    #[expect(clippy::print_stdout, reason = "this is what the example is for")]
    {
        println!(
            "{name}: {:.3} CPU s a million records (push {:.3}, drain {:.3}); {rows} rows drained; checkpoint {} bytes in {saved:.1?}",
            million(push + drain),
            million(push),
            million(drain),
            checkpoint.len(),
        );
    }
}

/// One of 200,000 people, in four partitions by person, within an hour.
fn record(i: usize) -> Record {
    let mix = |seed: usize| (i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let person = mix(1) % 200_000;
    let letter = |d: u32| {
        let bits = person
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(d * 5);
        char::from(b"abcdefghijklmnopqrstuvwxyz"[bits % 26])
    };
    let pid: String = (0..26).map(letter).collect();
    let (nat, domain) = (NATIONS[person % 21], DOMAINS[person % 8]);
    let age = mix(2) % 80;
    let offset = i64::try_from(i).expect("few records");
    Record {
        partition: i32::try_from(person % 4).expect("small"),
        offset,
        time_ms: 1_767_225_600_000 + offset * 3600 / 1000,
        value: format!(r#"{{"pid":"{pid}","nat":"{nat}","age":{age},"email_domain":"{domain}"}}"#),
    }
}

/// Time of this thread on a CPU, or where the system does not tell it, time that went by.
fn clock() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let on_cpu = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = on_cpu.and_then(|text| text.split(' ').next()?.parse().ok());
    ns.map_or_else(
        || START.get_or_init(Instant::now).elapsed(),
        Duration::from_nanos,
    )
}
