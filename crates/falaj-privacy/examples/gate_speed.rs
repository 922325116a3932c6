//! How fast gate and decoder are, next to the floor: reading the same bytes, and parsing the three
//! declared paths of the example and nothing else.
//!
//!     cargo run --release -p falaj-privacy --example gate_speed [RECORDS] [ROUNDS]
#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(
    clippy::cast_precision_loss,
    reason = "there are fewer than 2^52 records"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Duration;

use common::people::{Dice, person};
use common::{FIELDS, HEAD, fetched, gate, keys, policy};
use falaj_privacy::{Decoder, KeyedPseudonyms, Pseudonyms, Subject};
use falaj_record::Raw;
use serde::Deserialize;

/// What the floor parses: the declared fields, nothing else.
#[derive(Deserialize)]
struct Declared<'a> {
    #[serde(borrow)]
    nat: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    gender: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    email: Option<std::borrow::Cow<'a, str>>,
    dob: Option<Dob>,
}

#[derive(Deserialize)]
struct Dob {
    age: Option<i64>,
}

const BATCH: usize = 1000;

/// Time that this thread had a processor, so that what else the machine does counts less. Wall
/// time where the system does not say (it is Linux that does).
fn cpu_time() -> Duration {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|stat| stat.split(' ').next()?.parse().ok())
        .map_or_else(
            || {
                let epoch = std::time::SystemTime::UNIX_EPOCH;
                epoch.elapsed().expect("it is after 1970")
            },
            Duration::from_nanos,
        )
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|n| n.parse::<usize>().expect("a number"));
    let records = arguments.next().unwrap_or(100_000);
    let rounds = arguments.next().unwrap_or(5);
    let mut dice = Dice(42);
    let raw: Vec<Raw> = (0..records as u64)
        .map(|position| Raw::new(person(&mut dice).into(), position))
        .collect();
    let bytes: usize = raw.iter().map(|record| record.bytes.len()).sum();
    println!(
        "{records} records, {} bytes each, CPU time over {rounds} rounds",
        bytes / records
    );

    let report = |name: &str, work: &mut dyn FnMut()| {
        // The kernel counts in ticks of milliseconds, so all rounds are taken together.
        let start = cpu_time();
        for _ in 0..rounds {
            work();
        }
        let us = cpu_time().saturating_sub(start).as_secs_f64() * 1e6 / (records * rounds) as f64;
        println!("{name:<34} {us:7.3} us/record {:>11.0} records/s", 1e6 / us);
    };

    report("read all bytes", &mut || {
        let sum: u64 = raw
            .iter()
            .flat_map(|record| record.bytes.as_chunks::<8>().0)
            .fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
        black_box(sum);
    });
    report("check UTF-8 (std)", &mut || {
        for record in &raw {
            black_box(std::str::from_utf8(&record.bytes)).expect("UTF-8");
        }
    });
    report("sonic-rs typed, UTF-8 checked", &mut || {
        for record in &raw {
            let declared: Declared<'_> = sonic_rs::from_slice(&record.bytes).expect("a record");
            let age = declared.dob.and_then(|dob| dob.age);
            black_box((declared.nat, declared.gender, declared.email, age));
        }
    });
    let form = policy(
        &HEAD.replace("from = \"email\"", "from = \"absent\"\nrequired = false"),
        &[],
    );
    let mut bare = gate(&form);
    report("gate that declares nothing", &mut || {
        for batch in raw.chunks(BATCH) {
            black_box(bare.clear(batch, 0));
        }
    });
    let pseudonyms = KeyedPseudonyms::new(&keys());
    report("one pid (normalise, HMAC)", &mut || {
        for _ in &raw {
            let subject = Subject::new(black_box("ann.lee4711@example.com")).expect("a subject");
            black_box(pseudonyms.pid(&subject));
        }
    });
    let policy = policy(HEAD, FIELDS);
    let mut gate = gate(&policy);
    report("gate, the example's five fields", &mut || {
        for batch in raw.chunks(BATCH) {
            black_box(gate.clear(batch, 0));
        }
    });
    let read: Vec<_> = raw
        .chunks(BATCH)
        .map(|batch| fetched(gate.clear(batch, 1_767_225_600_000).cleared.get()))
        .collect();
    report("decode", &mut || {
        let mut decoder = Decoder::new(std::sync::Arc::clone(&policy), &keys(), &[]);
        for read in &read {
            let out = decoder.decode(read, 0);
            assert!(out.rejects.is_empty());
            black_box(out);
        }
    });
}
