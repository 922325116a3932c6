//! The text of a pipeline file, and where in it a key stands.
//!
//! Always: a fault names file, line and column (both from 1) where the file has the key at all.
//! With `--set` the effective text differs from the file; places are still those of the file.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::failure::{Failure, Fault};

/// A pipeline file as read, and with `--set` applied.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    text: String,
    effective: String,
}

impl Document {
    /// Reads the file.
    ///
    /// # Errors
    /// Where it cannot be read or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let fault = Fault::new(format!(
                "cannot read the pipeline file `{}`",
                path.display()
            ))
            .cause(&e);
            Failure::usage(match e.kind() {
                std::io::ErrorKind::NotFound => {
                    fault.hint("`falaj init` writes a pipeline file to start from")
                }
                _ => fault,
            })
        })?;
        Ok(Self {
            path: path.to_owned(),
            effective: text.clone(),
            text,
        })
    }

    /// A document that is not a file: `name` stands for it in messages.
    pub fn of_text(name: &str, text: &str) -> Self {
        Self {
            path: name.into(),
            text: text.to_owned(),
            effective: text.to_owned(),
        }
    }

    /// Sets a value, `key=value`: the key is a dotted path, the value TOML or else plain text.
    ///
    /// # Errors
    /// Where there is no `=`, the path leads through something that is not a table, or the file
    /// is no TOML.
    pub fn set(&mut self, assignment: &str) -> Result<(), Failure> {
        let wrong = |what: &str| {
            Failure::usage(
                Fault::new(format!("`--set {assignment}`: {what}"))
                    .hint("write `--set table.key=value`, for example `--set topic.partitions=8`"),
            )
        };
        let (key, value) = assignment
            .split_once('=')
            .ok_or_else(|| wrong("there is no `=`"))?;
        let value = toml::from_str::<toml::Table>(&format!("v = {}", value.trim()))
            .ok()
            .and_then(|mut table| table.remove("v"))
            .unwrap_or_else(|| toml::Value::String(value.trim().to_owned()));
        let mut root: toml::Table =
            toml::from_str(&self.effective).map_err(|e| self.syntax_fault(&e))?;
        let mut keys: Vec<&str> = key.trim().split('.').collect();
        let last = keys
            .pop()
            .filter(|k| !k.is_empty())
            .ok_or_else(|| wrong("there is no key"))?;
        let mut table = &mut root;
        for key in keys {
            table = table
                .entry(key)
                .or_insert_with(|| toml::Table::new().into())
                .as_table_mut()
                .ok_or_else(|| wrong(&format!("`{key}` is not a table")))?;
        }
        table.insert(last.to_owned(), value);
        self.effective = toml::to_string(&root).expect("a table that was parsed can be written");
        Ok(())
    }

    /// Folder that paths in the file are relative to.
    pub fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// Reads the document as `T`.
    ///
    /// # Errors
    /// With line, column, and for a misspelt key a suggestion.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        toml::from_str(&self.effective).map_err(|e| self.syntax_fault(&e))
    }

    /// A fault about the key at `path`, as near as the file has it.
    pub fn fault(&self, path: &[&str], message: impl Into<String>) -> Fault {
        let mut fault = Fault::new(message);
        fault.place = Some(self.place_of(path));
        fault
    }

    /// A fault inside the text value at `path`, at `line` and `column` (from 1) of that text.
    pub fn fault_in_text(
        &self,
        path: &[&str],
        line: u64,
        column: u64,
        message: impl Into<String>,
    ) -> Fault {
        let mut fault = Fault::new(message);
        fault.place = Some(match span_of(&self.text, path) {
            Some(span) => {
                let (line, column) = (index(line), index(column));
                let start = content_start(&self.text[span.clone()]);
                let at = line_start(&self.text[span.start + start..], line);
                let (first, offset) = line_and_column(&self.text, span.start + start + at);
                format!("{}:{first}:{}", self.path.display(), offset + column - 1)
            }
            None => self.place_of(path),
        });
        fault
    }

    fn place_of(&self, path: &[&str]) -> String {
        let span = (1..=path.len())
            .rev()
            .find_map(|n| span_of(&self.text, &path[..n]));
        match span {
            Some(span) => {
                let (line, column) = line_and_column(&self.text, span.start);
                format!("{}:{line}:{column}", self.path.display())
            }
            None => self.path.display().to_string(),
        }
    }

    fn syntax_fault(&self, error: &toml::de::Error) -> Failure {
        let message = error.message().to_owned();
        let path = error
            .span()
            .map_or(Vec::new(), |span| path_at(&self.effective, span.start));
        let place = match error.span() {
            Some(span) if self.text == self.effective => {
                let (line, column) = line_and_column(&self.text, span.start);
                format!("{}:{line}:{column}", self.path.display())
            }
            _ => self.place_of(&path.iter().map(String::as_str).collect::<Vec<_>>()),
        };
        let within = |path: &[String]| match path {
            [] => String::new(),
            path => format!(" in [{}]", path.join(".")),
        };
        let mut fault = match Unknown::of(&message) {
            Some(Unknown { word, known, field }) => {
                // A name that chooses among tables is a key as well.
                let key = field || path.last().is_some_and(|last| last == word);
                let (what, table) = match path.split_last() {
                    Some((_, table)) if key => ("key", within(table)),
                    _ => ("value", within(&path)),
                };
                let fault = Fault::new(format!("unknown {what} `{word}`{table}"));
                match nearest(word, &known) {
                    Some(near) => fault.hint(format!("did you mean `{near}`?")),
                    None if known.is_empty() => fault,
                    None => fault.hint(format!("known {what}s here: {}", known.join(", "))),
                }
            }
            None => Fault::new(format!("{}{}", message.replace('\n', "; "), within(&path))),
        };
        fault.place = Some(place);
        Failure::usage(fault)
    }
}

/// A word that nothing knows, of serde's message "unknown field `x`, expected one of `a`, `b`".
struct Unknown<'a> {
    word: &'a str,
    known: Vec<String>,
    /// Whether it is a field; else it is a variant, which may be a key or a value.
    field: bool,
}

impl<'a> Unknown<'a> {
    fn of(message: &'a str) -> Option<Self> {
        let (field, rest) = match message.strip_prefix("unknown field `") {
            Some(rest) => (true, rest),
            None => (false, message.strip_prefix("unknown variant `")?),
        };
        let (word, rest) = rest.split_once('`')?;
        let known = rest.split('`').skip(1).step_by(2).map(str::to_owned);
        Some(Self {
            word,
            known: known.collect(),
            field,
        })
    }
}

/// The most similar of `known`, if it is similar enough to be meant.
pub fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| (strsim::jaro_winkler(word, k), k.as_str()))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// Line and column from 1; the column counts characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    (line, before[start..].chars().count() + 1)
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Where the content of a TOML string literal starts: a newline right after `"""` does not count.
fn content_start(literal: &str) -> usize {
    for quote in ["\"\"\"", "'''"] {
        if let Some(rest) = literal.strip_prefix(quote) {
            return match rest.as_bytes() {
                [b'\r', b'\n', ..] => 5,
                [b'\n', ..] => 4,
                _ => 3,
            };
        }
    }
    1
}

/// Byte offset of the start of `line` (from 1) in `text`.
fn line_start(text: &str, line: usize) -> usize {
    text.match_indices('\n')
        .nth(line.wrapping_sub(2))
        .map_or(0, |(i, _)| i + 1)
}

fn span_of(text: &str, path: &[&str]) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    let (first, rest) = path.split_first()?;
    let (key, value) = entry(table.get_ref(), first)?;
    let mut span = if rest.is_empty() {
        value_or_key_span(key, value)
    } else {
        value.span()
    };
    let mut value = value;
    for (i, step) in rest.iter().enumerate() {
        let last = i + 1 == rest.len();
        match value.get_ref() {
            DeValue::Table(table) => {
                let (key, inner) = entry(table, step)?;
                span = if last {
                    value_or_key_span(key, inner)
                } else {
                    inner.span()
                };
                value = inner;
            }
            DeValue::Array(array) => {
                value = array.get(step.parse::<usize>().ok()?)?;
                span = value.span();
            }
            _ => return None,
        }
    }
    Some(span)
}

/// Tables are named by their key; other values stand for themselves.
fn value_or_key_span(key: Range<usize>, value: &Spanned<DeValue<'_>>) -> Range<usize> {
    if matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_)) {
        key
    } else {
        value.span()
    }
}

fn entry<'t, 'i>(
    table: &'t DeTable<'i>,
    name: &str,
) -> Option<(Range<usize>, &'t Spanned<DeValue<'i>>)> {
    table
        .iter()
        .find(|(k, _)| k.get_ref().as_ref() == name)
        .map(|(k, v)| (k.span(), v))
}

/// The path of keys whose key or value covers `offset`, as deep as it goes.
fn path_at(text: &str, offset: usize) -> Vec<String> {
    let mut path = Vec::new();
    if let Ok(table) = DeTable::parse(text) {
        descend(table.get_ref(), offset, &mut path);
    }
    path
}

fn descend(table: &DeTable<'_>, offset: usize, path: &mut Vec<String>) -> bool {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        let covers = |r: Range<usize>| r.contains(&offset) || r.start == offset;
        match value.get_ref() {
            DeValue::Table(inner) if descend(inner, offset, path) => return true,
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    path.push(i.to_string());
                    match item.get_ref() {
                        DeValue::Table(inner) if descend(inner, offset, path) => return true,
                        _ if covers(item.span()) => return true,
                        _ => path.pop(),
                    };
                }
            }
            _ => {}
        }
        if covers(key.span()) || covers(value.span()) {
            return true;
        }
        path.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[topic]\nname = \"messages\"\n\n[views.a]\nsql = \"\"\"\nSELECT x\nFROM records\"\"\"\n\n[views.b]\nsql = 'SELECT y FROM records'\n";

    fn place(fault: Fault) -> String {
        fault.place.unwrap()
    }

    #[test]
    fn faults_carry_line_and_column_of_the_file() {
        let doc = Document::of_text("f.toml", TEXT);
        assert_eq!(place(doc.fault(&["topic", "name"], "m")), "f.toml:2:8");
        assert_eq!(
            place(doc.fault(&["topic", "partitions"], "m")),
            "f.toml:1:2"
        );
        assert_eq!(place(doc.fault(&["nothing"], "m")), "f.toml");
        assert_eq!(
            place(doc.fault_in_text(&["views", "a", "sql"], 1, 8, "m")),
            "f.toml:6:8"
        );
        assert_eq!(
            place(doc.fault_in_text(&["views", "a", "sql"], 2, 6, "m")),
            "f.toml:7:6"
        );
        assert_eq!(
            place(doc.fault_in_text(&["views", "b", "sql"], 1, 8, "m")),
            "f.toml:10:15"
        );
    }

    #[test]
    fn set_changes_nested_values_and_takes_plain_text() {
        let mut doc = Document::of_text("f.toml", TEXT);
        doc.set("topic.partitions=8").unwrap();
        doc.set("topic.name=other").unwrap();
        doc.set("source.http.every=\"5s\"").unwrap();
        let table: toml::Table = doc.parse().unwrap();
        assert_eq!(table["topic"]["partitions"].as_integer(), Some(8));
        assert_eq!(table["topic"]["name"].as_str(), Some("other"));
        assert_eq!(table["source"]["http"]["every"].as_str(), Some("5s"));
        for wrong in ["topic.name", "=1", "topic.name.x=1"] {
            assert!(doc.set(wrong).is_err(), "{wrong}");
        }
    }
}
