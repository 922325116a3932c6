//! Cutting records out of a reply.
//!
//! Always: a reply is validated to its end before any of its records is used.
//! Always: records are slices of the reply; no value is built, and nested values are skipped without
//! recursion, so that no nesting can exhaust the stack.

use std::fmt;

use bytes::Bytes;
use falaj_record::Hint;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// Why no record of a reply can be used. Reads as what is said of a reply or a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// JSON that ends too early.
    #[error("breaks off in the middle of its JSON")]
    Cut,
    /// Something else than JSON.
    #[error("is not JSON (line {line})")]
    NotJson {
        /// Where the first thing stands that is wrong; 1 is the first line.
        line: usize,
    },
    /// An `error` in place of records, or beside them.
    #[error("carries an `error` in place of records")]
    ServiceError,
    /// No such key.
    #[error("has nothing at `{path}`")]
    Missing {
        /// `records` of the source.
        path: String,
    },
    /// Something else than an array.
    #[error("has no array at `{path}`")]
    NotArray {
        /// `records` of the source.
        path: String,
    },
    /// Neither an array nor an object.
    #[error("is neither an array of records nor a record")]
    NoRecords,
}

impl Unusable {
    /// Whether `records` of the pipeline file is more likely wrong than the reply.
    #[must_use]
    pub fn likely_configuration(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. } | Self::NotArray { .. } | Self::NoRecords
        )
    }
}

impl Hint for Unusable {
    fn hint(&self) -> Option<String> {
        self.likely_configuration().then(|| {
            "`records` is where the array is, as keys joined by dots; leave it out where the reply \
             is the array itself"
                .into()
        })
    }
}

/// The records of a reply that is one JSON value: the array at `keys`, or without keys the array or
/// the one object that the reply is. The last duplicate of a key wins.
pub(crate) fn split(reply: &Bytes, keys: &[String]) -> Result<Vec<Bytes>, Unusable> {
    let text = text(reply)?;
    let (records, end) = first_value(text, keys)?;
    if text[end..].trim_ascii().is_empty() {
        Ok(slices(reply, records))
    } else {
        let line = line_at(text, end);
        Err(Unusable::NotJson { line })
    }
}

/// The records of a saved document: one reply, or several one after the other. Without keys each may
/// be an array, an object with an array `results`, or one record.
pub(crate) fn split_saved(document: &Bytes, keys: &[String]) -> Result<Vec<Bytes>, Unusable> {
    let results = ["results".to_owned()];
    let text = text(document)?;
    let (mut all, mut at) = (Vec::new(), 0);
    loop {
        let rest = &text[at..];
        let (records, end) = if keys.is_empty() && rest.trim_ascii_start().starts_with('{') {
            match first_value(rest, &results) {
                Err(Unusable::Missing { .. } | Unusable::NotArray { .. }) => {
                    first_value(rest, keys)
                }
                found => found,
            }
        } else {
            first_value(rest, keys)
        }
        .map_err(|cause| match cause {
            Unusable::NotJson { line } => {
                let line = line + line_at(text, at) - 1;
                Unusable::NotJson { line }
            }
            other => other,
        })?;
        all.extend(slices(document, records));
        at += end;
        if text[at..].trim_ascii().is_empty() {
            return Ok(all);
        }
    }
}

fn text(reply: &Bytes) -> Result<&str, Unusable> {
    let text = std::str::from_utf8(reply).map_err(|e| match e.error_len() {
        None => Unusable::Cut,
        Some(_) => Unusable::NotJson {
            line: 1 + memchr::memchr_iter(b'\n', &reply[..e.valid_up_to()]).count(),
        },
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn line_at(text: &str, at: usize) -> usize {
    1 + memchr::memchr_iter(b'\n', &text.as_bytes()[..at]).count()
}

fn slices(reply: &Bytes, records: Vec<&str>) -> Vec<Bytes> {
    records
        .into_iter()
        .map(|record| reply.slice_ref(record.as_bytes()))
        .collect()
}

/// The records in the first JSON value of `text`, and where that value ends.
fn first_value<'a>(text: &'a str, keys: &[String]) -> Result<(Vec<&'a str>, usize), Unusable> {
    let mut search = Search::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let step = Step {
        keys,
        top: true,
        search: &mut search,
    };
    step.deserialize(&mut json)
        .map_err(|e| match e.classify() {
            Category::Eof => Unusable::Cut,
            _ => Unusable::NotJson { line: e.line() },
        })?;
    let end = json.into_iter::<IgnoredAny>().byte_offset();
    if search.error {
        return Err(Unusable::ServiceError);
    }
    let path = || keys.join(".");
    match search.found {
        Found::Records(records) => Ok((records, end)),
        Found::Whole => Ok((vec![text[..end].trim_ascii()], end)),
        Found::Other | Found::Nothing if keys.is_empty() => Err(Unusable::NoRecords),
        Found::Other => Err(Unusable::NotArray { path: path() }),
        Found::Nothing => Err(Unusable::Missing { path: path() }),
    }
}

#[derive(Default)]
struct Search<'a> {
    found: Found<'a>,
    /// The document has an `error` at its top that says something.
    error: bool,
}

#[derive(Default)]
enum Found<'a> {
    #[default]
    Nothing,
    /// A value that is no array.
    Other,
    /// The document is one object, and nothing in it was asked for.
    Whole,
    Records(Vec<&'a str>),
}

/// Follows the first of `keys` into a value.
struct Step<'k, 's, 'a> {
    keys: &'k [String],
    top: bool,
    search: &'s mut Search<'a>,
}

impl Step<'_, '_, '_> {
    /// A value that is neither array nor object.
    fn scalar(self) {
        self.search.found = if self.keys.is_empty() {
            Found::Other
        } else {
            Found::Nothing
        };
    }
}

impl<'a> DeserializeSeed<'a> for Step<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Step<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<(), A::Error> {
        if !self.keys.is_empty() {
            while array.next_element::<IgnoredAny>()?.is_some() {}
            self.scalar();
            return Ok(());
        }
        let mut records = Vec::new();
        while let Some(record) = array.next_element::<&'a RawValue>()? {
            records.push(record.get());
        }
        self.search.found = Found::Records(records);
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, mut object: A) -> Result<(), A::Error> {
        self.search.found = match (self.keys, self.top) {
            ([], true) => Found::Whole,
            ([], false) => Found::Other,
            _ => Found::Nothing,
        };
        let key = KeyIs {
            wanted: self.keys.first(),
            top: self.top,
        };
        while let Some(key) = object.next_key_seed(key)? {
            match key {
                Key::Wanted => {
                    self.search.found = Found::Nothing;
                    object.next_value_seed(Step {
                        keys: &self.keys[1..],
                        top: false,
                        search: &mut *self.search,
                    })?;
                }
                Key::Error => {
                    let value = object.next_value::<&'a RawValue>()?.get();
                    self.search.error =
                        !matches!(value, "null" | "false" | "0" | "\"\"" | "[]" | "{}");
                }
                Key::Other => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.search.found = Found::Nothing;
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.scalar();
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.scalar();
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.scalar();
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.scalar();
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.scalar();
        Ok(())
    }
}

enum Key {
    Wanted,
    Error,
    Other,
}

/// Tells what a key is for without keeping it.
#[derive(Clone, Copy)]
struct KeyIs<'k> {
    wanted: Option<&'k String>,
    top: bool,
}

impl<'a> DeserializeSeed<'a> for KeyIs<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Key, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
        Ok(if self.wanted.is_some_and(|wanted| wanted == key) {
            Key::Wanted
        } else if self.top && key == "error" {
            Key::Error
        } else {
            Key::Other
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(path: &str) -> Vec<String> {
        path.split('.')
            .filter(|key| !key.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn cut(reply: &str, path: &str) -> Result<Vec<String>, Unusable> {
        let records = split(&Bytes::from(reply.to_owned()), &keys(path))?;
        Ok(records
            .iter()
            .map(|record| String::from_utf8(record.to_vec()).expect("text"))
            .collect())
    }

    #[test]
    fn records_are_the_elements_as_they_stand() {
        for (reply, path, records) in [
            (
                r#"{"results":[{"a":1}, {"b":[2,{}]} ],"info":{"results":9}}"#,
                "results",
                vec![r#"{"a":1}"#, r#"{"b":[2,{}]}"#],
            ),
            (r#"{"info":{},"results":[]}"#, "results", vec![]),
            (
                r#"{"data":{"users":[1,"x",null]}}"#,
                "data.users",
                vec!["1", "\"x\"", "null"],
            ),
            (r#"{"re\u0073ults":[1]}"#, "results", vec!["1"]),
            (r#"{"results":[1],"results":[2]}"#, "results", vec!["2"]),
            ("\u{feff} [ {\"a\" : 1} ] \n", "", vec!["{\"a\" : 1}"]),
            (
                " {\"a\":{\"results\":[]}} \r\n",
                "",
                vec!["{\"a\":{\"results\":[]}}"],
            ),
            (r#"{"error":null,"results":[1]}"#, "results", vec!["1"]),
            (
                r#"{"results":[{"error":"mine"}]}"#,
                "results",
                vec![r#"{"error":"mine"}"#],
            ),
            (r#"{"results":["\ud800"]}"#, "results", vec![r#""\ud800""#]),
        ] {
            assert_eq!(
                cut(reply, path),
                Ok(records.into_iter().map(Into::into).collect()),
                "{reply}"
            );
        }
    }

    #[test]
    fn a_reply_is_used_whole_or_not_at_all() {
        let missing = |path: &str| Unusable::Missing { path: path.into() };
        let not_array = |path: &str| Unusable::NotArray { path: path.into() };
        let not_json = |line| Unusable::NotJson { line };
        for (reply, path, cause) in [
            ("", "results", Unusable::Cut),
            ("{\"results\":[{\"a\":1},{\"b\":", "results", Unusable::Cut),
            ("{\"results\":[{\"a\":1}]", "results", Unusable::Cut),
            ("[1,2", "", Unusable::Cut),
            ("<html>", "results", not_json(1)),
            ("{\"results\":[{\"a\":1}\n{}]}", "results", not_json(2)),
            ("{\"results\":[{\"a\":01}]}", "results", not_json(1)),
            ("{\"results\":[]}\n{}", "results", not_json(1)),
            ("cb({\"results\":[]});", "results", not_json(1)),
            ("{\"results\":[],\"x\":\"\u{1}\"}", "results", not_json(1)),
            ("{\"error\":\"no\"}", "results", Unusable::ServiceError),
            ("{\"error\":\"no\"}", "", Unusable::ServiceError),
            (
                "{\"results\":[1],\"error\":{\"code\":5}}",
                "results",
                Unusable::ServiceError,
            ),
            ("{\"users\":[]}", "results", missing("results")),
            ("{\"results\":null}", "results", missing("results")),
            ("{\"a\":{\"b\":[1]},\"a\":{}}", "a.b", missing("a.b")),
            ("{\"a\":[{\"b\":[1]}]}", "a.b", missing("a.b")),
            ("{\"a\":5}", "a.b", missing("a.b")),
            ("[]", "results", missing("results")),
            ("{\"results\":{\"a\":1}}", "results", not_array("results")),
            ("{\"results\":\"none\"}", "results", not_array("results")),
            ("5", "", Unusable::NoRecords),
            ("null", "", Unusable::NoRecords),
        ] {
            assert_eq!(cut(reply, path), Err(cause), "{reply}");
        }
        let invalid = Bytes::from_static(b"{\"results\":[\"\xff\"]}");
        assert_eq!(split(&invalid, &keys("results")), Err(not_json(1)));
        let half = Bytes::from_static(b"{\"results\":[\"\xc3");
        assert_eq!(split(&half, &keys("results")), Err(Unusable::Cut));
    }

    #[test]
    fn nesting_cannot_exhaust_the_stack() {
        let deep = format!("[{}{}]", "[".repeat(2_000_000), "]".repeat(2_000_000));
        assert_eq!(cut(&deep, "").expect("valid")[0].len(), 4_000_000);
        let open = "{\"a\":".repeat(2_000_000);
        assert_eq!(cut(&open, "results"), Err(Unusable::Cut));
    }

    #[test]
    fn records_share_the_memory_of_the_reply() {
        let reply = Bytes::from_static(b"{\"results\":[{\"a\":1}]}");
        let records = split(&reply, &keys("results")).expect("valid");
        assert_eq!(records[0].as_ptr(), reply[12..].as_ptr());
    }

    #[test]
    fn saved_documents_may_follow_each_other() {
        let saved = |text: &str, path: &str| {
            split_saved(&Bytes::from(text.to_owned()), &keys(path)).map(|records| records.len())
        };
        for (text, path, count) in [
            ("{\"results\":[1,2]}", "", 2),
            (
                "{\"info\":{},\n\"results\":[1,2]}\n{\"results\":[3]}\n",
                "",
                3,
            ),
            ("[1,2]\n[3]", "", 3),
            ("{\n\"nat\":\"DE\"\n}\n", "", 1),
            ("{\"users\":[1]}{\"users\":[2]}", "users", 2),
        ] {
            assert_eq!(saved(text, path), Ok(count), "{text}");
        }
        assert_eq!(
            saved("[1,2]\n\n[3,\n}", ""),
            Err(Unusable::NotJson { line: 4 })
        );
        assert_eq!(
            saved("{\"results\":[1]}\n{\"results\":", ""),
            Err(Unusable::Cut)
        );
        assert_eq!(saved("", ""), Err(Unusable::Cut));
    }
}
