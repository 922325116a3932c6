use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use falaj_randomuser::{Options, Query, Version, write_records};
use serde_json::Value;

use crate::shape::Shape;

/// Recorded replies of the real service: `records.ndjson`, and `index.tsv` with each line's version.
fn recorded() -> Option<Vec<(Version, String)>> {
    let default = PathBuf::from(env!("FALAJ_CHECKOUT")).join("../shared/data/random-users");
    let folder = std::env::var_os("FALAJ_SAMPLES").map_or(default, PathBuf::from);
    let read = |name| std::fs::read_to_string(folder.join(name)).ok();
    let (Some(index), Some(records)) = (read("index.tsv"), read("records.ndjson")) else {
        eprintln!("SKIPPED: no recorded replies; set FALAJ_SAMPLES to the folder that holds them");
        return None;
    };
    let versions = index
        .lines()
        .skip(1)
        .filter_map(|line| line.split('\t').nth(1));
    let pairs = versions
        .zip(records.lines())
        .filter_map(|(version, record)| {
            let version = Version::parse(version.trim_end_matches('*'))?;
            Some((version, record.to_owned()))
        });
    let pairs: Vec<_> = pairs.collect();
    assert!(pairs.len() > 2000, "the recorded replies are not whole");
    Some(pairs)
}

fn ours(version: Version, query: &str) -> Vec<String> {
    let query = Query::parse(version, query, "samples");
    let mut lines = Vec::new();
    write_records(&mut lines, 4000, &query, &Options::default(), UNIX_EPOCH).unwrap();
    String::from_utf8(lines)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn shape(record: &str) -> Shape {
    serde_json::from_str(record).expect("JSON")
}

/// Letters become `A`, digits `#`.
fn mask(text: &str) -> String {
    let masked = text.chars().map(|c| match c {
        c if c.is_ascii_digit() => '#',
        c if c.is_ascii_alphabetic() => 'A',
        c => c,
    });
    masked.collect()
}

/// The fields that a record shows, as `inc` lists them. Some recorded ones were asked for with `inc`.
fn shown(record: &Shape) -> String {
    let Shape::Object(entries) = record else {
        panic!("a record is an object")
    };
    entries
        .iter()
        .map(|(key, _)| key.as_str())
        .collect::<Vec<_>>()
        .join(",")
}

#[test]
fn key_order_and_types_are_those_of_the_real_records() {
    let Some(recorded) = recorded() else { return };
    let mut compared = 0;
    let mut known: BTreeMap<(Version, String), BTreeSet<Shape>> = BTreeMap::new();
    for (version, record) in &recorded {
        let real = shape(record);
        let inc = shown(&real);
        let shapes = known.entry((*version, inc.clone())).or_insert_with(|| {
            let query = format!("inc={inc}");
            ours(*version, &query)
                .iter()
                .map(|line| shape(line))
                .collect()
        });
        assert!(
            shapes.contains(&real),
            "{version} inc={inc}: a real record has another shape"
        );
        compared += 1;
    }
    assert_eq!(compared, recorded.len());
}

#[test]
fn numbers_of_telephones_identities_and_postcodes_have_the_real_forms() {
    let Some(recorded) = recorded() else { return };
    let text = |record: &Value, path: &str| match record.pointer(path) {
        Some(Value::String(text)) => Some(format!("text {}", mask(text))),
        // A number's length says nothing: 200 to 99999.
        Some(Value::Number(_)) => Some("number".to_owned()),
        Some(Value::Null) => Some("null".to_owned()),
        _ => None,
    };
    for version in Version::ALL {
        let mut forms: BTreeMap<(String, &str), BTreeSet<String>> = BTreeMap::new();
        let paths = [
            "/phone",
            "/cell",
            "/id/name",
            "/id/value",
            "/location/postcode",
            "/name/title",
        ];
        for line in ours(version, "") {
            let record: Value = serde_json::from_str(&line).unwrap();
            for path in paths {
                let nat = record["nat"].as_str().unwrap().to_owned();
                forms
                    .entry((nat, path))
                    .or_default()
                    .extend(text(&record, path));
            }
        }
        for (_, record) in recorded.iter().filter(|(of, _)| *of == version) {
            let record: Value = serde_json::from_str(record).unwrap();
            let Some(nat) = record["nat"].as_str() else {
                continue;
            };
            for path in paths {
                let Some(form) = text(&record, path) else {
                    continue;
                };
                // Few British forms are made: the service copies some sixty area codes.
                if (nat, path) == ("GB", "/phone") {
                    continue;
                }
                let known = &forms[&(nat.to_owned(), path)];
                assert!(
                    known.contains(&form),
                    "{version} {nat} {path}: {form} not in {known:?}"
                );
            }
        }
    }
}

#[test]
fn the_shape_of_each_version_is_as_documented() {
    for version in Version::ALL {
        for line in ours(version, "").iter().take(200) {
            let record = shape(line);
            let is = |path: &[&str], wanted: Option<Shape>| {
                assert_eq!(record.at(path), wanted.as_ref(), "{version} {path:?}");
            };
            let since = |first: Version| (version >= first).then_some(Shape::Text);
            assert_eq!(
                shown(&record),
                "gender,name,location,email,login,dob,registered,phone,cell,id,picture,nat"
            );
            is(&["location", "country"], since(Version::V1_3));
            is(&["location", "timezone", "offset"], since(Version::V1_2));
            is(
                &["location", "coordinates", "latitude"],
                since(Version::V1_2),
            );
            is(&["login", "uuid"], since(Version::V1_2));
            is(&["location", "street", "name"], since(Version::V1_3));
            is(&["dob", "date"], since(Version::V1_2));
            if version < Version::V1_3 {
                is(&["location", "street"], Some(Shape::Text));
            }
            if version == Version::V1_1 {
                is(&["dob"], Some(Shape::Text));
            }
        }
    }
}
