//! People whose every value can be recognised again, for tests that look for leaks.

use std::borrow::Cow;
use std::time::UNIX_EPOCH;

use crate::forms::Postcode;
use crate::people::{Draw, Options, Person, uuid};
use crate::query::{Fields, Query};
use crate::reply::Tree;
use crate::stream::{Key, Stream};

/// A piece of text that stands in one field of one person and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// The path of the field, as in `location.street.name`.
    pub field: String,
    /// What to look for: it stands in the field's value as it is, with other text around it or without.
    pub token: String,
}

/// The tokens of the person at `index` (from 0) of `query`, when [`Options::canary`] is set: one for
/// every value of the record but `nat`, `gender` and `dob.age`, whatever `inc` shows. Where a version
/// writes the street as one text, it holds two.
///
/// Tokens depend on version, seed, page, index and field, not on the domains or the time: dates and
/// UUIDs are tokens themselves, so are the hashes, numbers have 15 digits, the rest is 16 letters.
#[must_use]
pub fn canaries(query: &Query, index: u64) -> Vec<Canary> {
    let options = Options {
        canary: true,
        ..Options::default()
    };
    let query = Query {
        fields: Fields::ALL,
        ..query.clone()
    };
    let draw = Draw::new(&query, &options, UNIX_EPOCH);
    let mut leaves = Leaves::default();
    draw.person(index).walk(&mut leaves, &query);

    let mut found = Vec::new();
    for (field, value) in leaves.values {
        let parts: &[&str] = match field.as_str() {
            "gender" | "nat" | "dob.age" => continue,
            "location.street" => &["location.street.number", "location.street.name"],
            whole => &[whole],
        };
        for part in parts {
            let tokens = Tokens {
                key: draw.key(),
                index,
            };
            let inside = [tokens.letters(part), tokens.digits(part).to_string()];
            let token = inside
                .into_iter()
                .find(|token| value.contains(token.as_str()));
            let token = token.unwrap_or_else(|| value.clone());
            found.push(Canary {
                field: (*part).to_owned(),
                token,
            });
        }
    }
    found
}

/// Puts a token into every value of `person` but nationality, gender and age.
pub(crate) fn mark(person: &mut Person, key: Key, index: u64, domain: &str) {
    let tokens = Tokens { key, index };
    let name = |field| Cow::Owned(proper(&tokens.letters(field), person));
    let [first, last, street, city, state, country, zone, id_name] = [
        "name.first",
        "name.last",
        "location.street.name",
        "location.city",
        "location.state",
        "location.country",
        "location.timezone.description",
        "id.name",
    ]
    .map(name);
    (person.first, person.last, person.street, person.city) = (first, last, street, city);
    (person.state, person.country, person.zone, person.id_name) = (state, country, zone, id_name);
    person.title = Cow::Owned(format!("{} {}", person.title, tokens.letters("name.title")));
    person.street_number = tokens.digits("location.street.number");
    person.postcode = match person.postcode {
        Postcode::Number(_) => Postcode::Number(tokens.digits("location.postcode")),
        Postcode::Text(_) => Postcode::Text(tokens.digits("location.postcode").to_string()),
    };
    for (degrees, field) in [
        (&mut person.latitude, "location.coordinates.latitude"),
        (&mut person.longitude, "location.coordinates.longitude"),
    ] {
        let whole = degrees.split('.').next().unwrap_or_default();
        *degrees = format!("{whole}.{}", tokens.digits(field));
    }
    person.offset = Cow::Owned(format!("+{}:00", tokens.digits("location.timezone.offset")));
    person.email = format!("{}@{domain}", tokens.letters("email"));
    person.uuid = uuid(&mut Stream::of_field(key, index, "login.uuid"));
    person.username = format!("{}100", tokens.letters("login.username"));
    person.password = Cow::Owned(tokens.letters("login.password"));
    person.salt = tokens.letters("login.salt");
    person.registered_age = tokens.digits("registered.age");
    person.phone = format!("+1-555-01{}", tokens.digits("phone"));
    person.cell = format!("+1-555-01{}", tokens.digits("cell"));
    person.id_value = Some(tokens.digits("id.value").to_string());
    person.pictures =
        ["picture.large", "picture.medium", "picture.thumbnail"].map(|field| tokens.digits(field));
}

/// `token` as a name: a syllable before it takes the capital letter where the version writes them.
fn proper(token: &str, person: &Person) -> String {
    let syllable = if person.title.starts_with(char::is_uppercase) {
        "Mo"
    } else {
        "mo"
    };
    format!("{syllable}{token}")
}

struct Tokens {
    key: Key,
    index: u64,
}

impl Tokens {
    /// 16 letters that can be spoken: 53 bits.
    fn letters(&self, field: &str) -> String {
        let mut stream = Stream::of_field(self.key, self.index, field);
        (0..8)
            .flat_map(|_| {
                [
                    stream.one_of(b"bcdfghjklmnpqrstvwxz"),
                    stream.one_of(b"aeiou"),
                ]
            })
            .collect()
    }

    /// A number of 15 digits, which every JSON reader keeps exactly: almost 50 bits.
    fn digits(&self, field: &str) -> i64 {
        let mut stream = Stream::of_field(self.key, self.index, field);
        stream.between(100_000_000_000_000, 999_999_999_999_999)
    }
}

/// Every value of a record with its path.
#[derive(Default)]
struct Leaves {
    path: Vec<&'static str>,
    values: Vec<(String, String)>,
}

impl Leaves {
    fn leaf(&mut self, key: &'static str, value: String) {
        let mut path = self.path.clone();
        path.push(key);
        self.values.push((path.join("."), value));
    }
}

impl Tree for Leaves {
    fn open(&mut self, key: &'static str) {
        self.path.push(key);
    }

    fn close(&mut self, _: &'static str) {
        self.path.pop();
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.leaf(key, value.to_owned());
    }

    fn int(&mut self, key: &'static str, value: i64) {
        self.leaf(key, value.to_string());
    }

    fn null(&mut self, key: &'static str) {
        self.leaf(key, String::new());
    }

    // A record has no lists.
    fn open_list(&mut self, _: &'static str) {}
    fn close_list(&mut self, _: &'static str) {}
    fn open_item(&mut self, _: &'static str) {}
    fn close_item(&mut self, _: &'static str) {}
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::SystemTime;

    use serde_json::Value;

    use super::*;
    use crate::query::Version;
    use crate::reply::render;

    fn records(query: &Query) -> Vec<Value> {
        let options = Options {
            canary: true,
            ..Options::default()
        };
        let reply = render(query, &options, SystemTime::now());
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        reply["results"].as_array().unwrap().clone()
    }

    /// Every value of a record with its path.
    fn leaves(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
        match value {
            Value::Object(entries) => {
                for (key, value) in entries {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    leaves(&path, value, found);
                }
            }
            Value::String(text) => found.push((path.to_owned(), text.clone())),
            other => found.push((path.to_owned(), other.to_string())),
        }
    }

    #[test]
    fn every_value_but_three_holds_its_token() {
        for version in Version::ALL {
            let query = Query {
                results: 60,
                page: 3,
                ..Query::new(version, "canary")
            };
            for (index, record) in records(&query).iter().enumerate() {
                let canaries = canaries(&query, index as u64);
                let mut values = Vec::new();
                leaves("", record, &mut values);
                for (path, value) in values {
                    if ["gender", "nat", "dob.age"].contains(&path.as_str()) {
                        continue;
                    }
                    let named = canaries.iter().filter(|c| {
                        c.field == path || path == "location.street" && c.field.starts_with(&path)
                    });
                    let tokens: Vec<_> = named.map(|c| &c.token).collect();
                    assert!(!tokens.is_empty(), "{version} {path} has no token");
                    for token in tokens {
                        assert!(value.contains(token.as_str()), "{version} {path}");
                        assert!(
                            token.len() >= 15,
                            "{version} {path}: too short to be told apart"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn no_token_comes_twice() {
        let mut seen = HashSet::new();
        for page in [1, 2] {
            let query = Query {
                page,
                ..Query::new(Version::V1_4, "canary")
            };
            for index in 0..500 {
                for canary in canaries(&query, index) {
                    assert!(
                        seen.insert(canary.token),
                        "{} of person {index}",
                        canary.field
                    );
                }
            }
        }
        assert_eq!(seen.len() % 1000, 0);
    }

    #[test]
    fn nationality_gender_age_and_types_stay_as_they_are() {
        let plain = Query {
            results: 100,
            ..Query::new(Version::V1_4, "canary")
        };
        let reply = render(&plain, &Options::default(), SystemTime::now());
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        for (marked, plain) in records(&plain)
            .iter()
            .zip(reply["results"].as_array().unwrap())
        {
            assert_eq!(marked["nat"], plain["nat"]);
            assert_eq!(marked["gender"], plain["gender"]);
            assert_eq!(marked["dob"]["age"], plain["dob"]["age"]);
            let number = |record: &Value| record["location"]["postcode"].is_i64();
            assert_eq!(number(marked), number(plain));
            assert!(marked["email"].as_str().unwrap().ends_with("@example.com"));
        }
    }
}
