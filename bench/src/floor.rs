//! The floor: what somebody's own program for the same three results does, and nothing else.

use std::borrow::Cow;
use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use hashbrown::HashMap;
use serde::Deserialize;

use crate::answer::Answer;

const BUFFER: usize = 1 << 20;

/// Reads all bytes and adds them up.
pub fn read(path: &Path) {
    let mut file = File::open(path).expect("the data set is there");
    let mut buffer = vec![0; BUFFER];
    let mut sum = 0_u64;
    loop {
        let len = file.read(&mut buffer).expect("the data set can be read");
        if len == 0 {
            break;
        }
        let (words, _) = buffer[..len].as_chunks::<8>();
        sum = words
            .iter()
            .fold(sum, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    }
    black_box(sum);
}

/// Reads lines and counts what the results need of each.
pub fn parse(path: &Path, minute: impl Fn(u64) -> i64) -> Answer {
    let mut lines = BufReader::with_capacity(BUFFER, File::open(path).expect("it is there"));
    let mut counts = Counts::default();
    let (mut line, mut n) = (Vec::new(), 0);
    while lines.read_until(b'\n', &mut line).expect("it can be read") > 0 {
        counts.add_raw(&line, minute(n));
        line.clear();
        n += 1;
    }
    assert_eq!(counts.invalid, 0, "the file holds records alone");
    counts.answer()
}

/// What the results need of a raw record.
#[derive(Deserialize)]
struct User<'a> {
    #[serde(borrow)]
    nat: Cow<'a, str>,
    #[serde(borrow)]
    email: Cow<'a, str>,
    dob: Dob,
}

#[derive(Deserialize)]
struct Dob {
    age: i64,
}

/// The same of a message on falaj's topic.
#[derive(Deserialize)]
pub struct Cleared<'a> {
    #[serde(borrow)]
    nat: Cow<'a, str>,
    #[serde(borrow)]
    email_domain: Cow<'a, str>,
    age: i64,
}

/// Three results in hash maps.
#[derive(Default)]
pub struct Counts {
    nations: HashMap<String, i64>,
    domains: HashMap<String, i64>,
    windows: HashMap<i64, (i64, i64)>,
    /// Messages that are no record.
    pub invalid: u64,
}

impl Counts {
    pub fn add_raw(&mut self, value: &[u8], minute: i64) {
        let Ok(user) = sonic_rs::from_slice::<User<'_>>(value) else {
            self.invalid += 1;
            return;
        };
        let domain = user.email.rsplit_once('@').map_or("", |(_, domain)| domain);
        self.add(&user.nat, domain, user.dob.age, minute);
    }

    pub fn add_cleared(&mut self, value: &[u8], minute: i64) {
        let user: Cleared<'_> = sonic_rs::from_slice(value).expect("a cleared record");
        self.add(&user.nat, &user.email_domain, user.age, minute);
    }

    fn add(&mut self, nat: &str, domain: &str, age: i64, minute: i64) {
        add_one(&mut self.nations, nat);
        add_one(&mut self.domains, domain);
        let (users, years) = self.windows.entry(minute).or_default();
        *users += 1;
        *years += age;
    }

    pub fn answer(self) -> Answer {
        Answer {
            nations: self.nations.into_iter().collect(),
            domains: self.domains.into_iter().collect(),
            users: self.windows.values().map(|(users, _)| users).sum(),
            years: self.windows.values().map(|(_, years)| years).sum(),
        }
    }
}

fn add_one(counts: &mut HashMap<String, i64>, group: &str) {
    if let Some(count) = counts.get_mut(group) {
        *count += 1;
    } else {
        counts.insert(group.to_owned(), 1);
    }
}
