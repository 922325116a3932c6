//! Searching everything that was written or answered for values of people who can be recognised.
//!
//! Always: a find names the field, its writing and the place, never the value.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::SystemTime;

use falaj_randomuser::{Canary, Options, Query, canaries, write_records};
use md5::{Digest, Md5};
use serde_json::Value;
use sha1::Sha1;
use sha2::Sha256;

/// Everything that was written or answered, each with its place.
#[derive(Default)]
pub struct Material(pub Vec<(String, Vec<u8>)>);

impl Material {
    pub fn add(&mut self, place: impl Into<String>, bytes: Vec<u8>) {
        self.0.push((place.into(), bytes));
    }

    /// Every file below `folder`.
    pub fn folder(&mut self, name: &str, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{name}/{}", path.file_name().unwrap().to_string_lossy());
            if path.is_dir() {
                self.folder(&name, &path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                // A file may be gone again while falaj runs.
                self.add(name, bytes);
            }
        }
    }
}

/// Bytes that decide whether a place is looked at closely: the shortest writing has as many.
const PREFIX: usize = 15;
const FILTER_BITS: u32 = 27;
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Undeclared values in all their writings.
#[derive(Default)]
pub struct Sought {
    pub tokens: Vec<Canary>,
    /// One person's tokens and whole values, for planting.
    pub sample: Vec<(Canary, String)>,
    bytes: Vec<u8>,
    pub patterns: Vec<Pattern>,
    /// Hash of the beginning and place in `patterns`, sorted.
    index: Vec<(u64, u32)>,
    filter: Vec<u64>,
}

pub struct Pattern {
    start: usize,
    len: usize,
    token: usize,
    writing: &'static str,
}

impl Sought {
    /// Seeks the first `count` people of `query`, and gives their records.
    pub fn people(&mut self, query: &Query, count: u64) -> Vec<Value> {
        let options = Options {
            canary: true,
            ..Options::default()
        };
        let mut lines = Vec::new();
        write_records(&mut lines, count, query, &options, SystemTime::now()).unwrap();
        let records: Vec<Value> = lines
            .split(|b| *b == b'\n')
            .filter_map(|l| serde_json::from_slice(l).ok())
            .collect();
        assert_eq!(records.len() as u64, count);
        for (index, record) in (0..).zip(&records) {
            let person = canaries(query, index);
            assert!(
                person
                    .iter()
                    .any(|c| c.field == "email" && !c.token.contains('@'))
            );
            for canary in person {
                let pointer = format!("/{}", canary.field.replace('.', "/"));
                let whole = match record.pointer(&pointer).expect("a record has all fields") {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                self.seek(&canary, &whole);
                if self.sample.iter().all(|(c, _)| c.field != canary.field) {
                    self.sample.push((canary, whole));
                }
            }
        }
        records
    }

    fn seek(&mut self, canary: &Canary, whole: &str) {
        let token = self.tokens.len();
        for (writing, pattern) in writings(&canary.token, whole) {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&pattern);
            self.patterns.push(Pattern {
                start,
                len: pattern.len(),
                token,
                writing,
            });
        }
        self.tokens.push(canary.clone());
    }

    pub fn ready(&mut self) {
        self.filter = vec![0; 1 << (FILTER_BITS - 6)];
        for (at, pattern) in (0..).zip(&self.patterns) {
            let hash = self.bytes[pattern.start..][..PREFIX]
                .iter()
                .fold(0, |h, b| roll(h, *b, 0));
            let (word, bit) = slot(hash);
            self.filter[word] |= bit;
            self.index.push((hash, at));
        }
        self.index.sort_unstable();
    }

    /// Where what is found: once as it lies there, once with its escapes taken away.
    pub fn found_in(&self, material: &Material) -> BTreeSet<(String, &'static str, String)> {
        let mut found = BTreeSet::new();
        for (place, bytes) in &material.0 {
            for hay in [bytes, &unescaped(bytes)] {
                self.search(hay, |pattern| {
                    let field = self.tokens[pattern.token].field.clone();
                    found.insert((field, pattern.writing, place.clone()));
                });
            }
        }
        found
    }

    fn search(&self, hay: &[u8], mut hit: impl FnMut(&Pattern)) {
        let mut hash = 0;
        for (at, byte) in hay.iter().enumerate() {
            let leaves = at.checked_sub(PREFIX).map_or(0, |gone| hay[gone]);
            hash = roll(hash, *byte, leaves);
            let (word, bit) = slot(hash);
            if at + 1 < PREFIX || self.filter[word] & bit == 0 {
                continue;
            }
            let from = at + 1 - PREFIX;
            let first = self.index.partition_point(|(h, _)| *h < hash);
            for (_, number) in self.index[first..].iter().take_while(|(h, _)| *h == hash) {
                let pattern = &self.patterns[*number as usize];
                let bytes = &self.bytes[pattern.start..][..pattern.len];
                if hay
                    .get(from..from + pattern.len)
                    .is_some_and(|h| h.eq_ignore_ascii_case(bytes))
                {
                    hit(pattern);
                }
            }
        }
    }
}

/// A hash of the last [`PREFIX`] bytes, upper and lower case alike.
#[expect(clippy::cast_possible_truncation, reason = "a prefix has a few bytes")]
fn roll(hash: u64, enters: u8, leaves: u8) -> u64 {
    const LAST: u64 = STEP.wrapping_pow(PREFIX as u32);
    hash.wrapping_mul(STEP)
        .wrapping_add(enters.to_ascii_lowercase().into())
        .wrapping_sub(LAST.wrapping_mul(leaves.to_ascii_lowercase().into()))
}

/// The place of a hash in the filter.
fn slot(hash: u64) -> (usize, u64) {
    let place = (hash ^ (hash >> 32)).wrapping_mul(STEP) >> (64 - FILTER_BITS);
    (
        usize::try_from(place >> 6).expect("27 bits"),
        1 << (place & 63),
    )
}

/// How a value can be written down. What has escapes is found after [`unescaped`].
fn writings(token: &str, whole: &str) -> HashSet<(&'static str, Vec<u8>)> {
    let mut all = HashSet::from([("raw", token.as_bytes().to_vec()), ("hex", hex(token))]);
    for before in 0..3 {
        // The characters that hold bits of the token only.
        let text = base64(&[vec![0; before], token.as_bytes().to_vec()].concat());
        let inside = (before * 8).div_ceil(6)..(before + token.len()) * 8 / 6;
        all.insert(("base64", text[inside].to_vec()));
    }
    for value in [token, whole] {
        for (name, digest) in digests(value) {
            all.insert((name, hex(&digest)));
            all.insert((name, digest));
        }
    }
    all
}

fn digests(value: &str) -> [(&'static str, Vec<u8>); 3] {
    [
        ("MD5", Md5::digest(value).to_vec()),
        ("SHA-1", Sha1::digest(value).to_vec()),
        ("SHA-256", Sha256::digest(value).to_vec()),
    ]
}

fn hex(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    bytes
        .as_ref()
        .iter()
        .flat_map(|b| format!("{b:02x}").into_bytes())
        .collect()
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for three in bytes.chunks(3) {
        let word = (0..3).fold(0, |w, i| {
            w << 8 | usize::from(three.get(i).copied().unwrap_or(0))
        });
        text.extend((0..=three.len()).map(|i| ALPHABET[word >> (18 - 6 * i) & 63]));
    }
    text
}

/// With `%41`, `\u0041` and `\/` as the characters they stand for.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let digits = match rest {
            [b'%', high, low, ..] | [b'\\', b'u' | b'U', b'0', b'0', high, low, ..] => {
                Some([*high, *low])
            }
            _ => None,
        };
        let value = digits.and_then(|d| {
            let text = std::str::from_utf8(&d).ok()?.to_owned();
            u8::from_str_radix(&text, 16).ok()
        });
        let (then, byte) = match (value, first) {
            (Some(value), b'%') => (&rest[3..], value),
            (Some(value), _) => (&rest[6..], value),
            (None, b'\\') if after.first() == Some(&b'/') => (&after[1..], b'/'),
            _ => (after, *first),
        };
        plain.push(byte);
        rest = then;
    }
    plain
}

/// Writes every value of one person in every writing into the middle of the material, and gives what
/// has to be found.
pub fn plant(
    material: &mut Material,
    sample: &[(Canary, String)],
) -> BTreeSet<(String, &'static str, String)> {
    let mut planted = BTreeSet::new();
    let places = material.0.len();
    let (mut seeds, mut count) = (vec![Vec::new(); places], 0);
    for (canary, whole) in sample {
        let token = canary.token.as_str();
        let escaped = |each: fn(u8) -> String| token.bytes().map(each).collect::<String>();
        let mut forms: Vec<(&str, Vec<u8>)> = vec![
            ("raw", token.into()),
            ("raw", token.to_uppercase().into()),
            ("raw", escaped(|b| format!("\\u{b:04x}")).into()),
            ("raw", escaped(|b| format!("%{b:02X}")).into()),
            ("hex", hex(token)),
            ("hex", hex(token).to_ascii_uppercase()),
        ];
        for before in ["", "x", "xy"] {
            forms.push((
                "base64",
                base64(format!("{before}{token} and more").as_bytes()),
            ));
        }
        for value in [token, whole] {
            for (name, digest) in digests(value) {
                forms.extend([(name, hex(&digest)), (name, digest)]);
            }
        }
        for (writing, form) in forms {
            let at = count * 7 % places;
            seeds[at].extend(form);
            // Escapes and tokens of neighbours must not run into each other.
            seeds[at].push(b'\n');
            planted.insert((canary.field.clone(), writing, material.0[at].0.clone()));
            count += 1;
        }
    }
    for ((_, bytes), seeds) in material.0.iter_mut().zip(seeds) {
        let middle = bytes.len() / 2;
        bytes.splice(middle..middle, [b"\n".as_slice(), &seeds].concat());
    }
    planted
}
