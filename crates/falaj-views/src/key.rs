//! `_key`: the group values as a JSON array, such as `["DE"]` or `[null,"2026-01-01T00:00:00Z"]`.
//!
//! Always: injective within a view, as each place of the array has one type. NULL is `null`, so it
//! differs from the empty text.

use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray, StringBuilder};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::DataType;
use falaj_record::Value;

/// The `_key` of each row.
pub(crate) fn texts(keys: &[ArrayRef], rows: usize) -> StringArray {
    let mut texts = StringBuilder::with_capacity(rows, rows * 16);
    let mut text = String::new();
    for row in 0..rows {
        text.clear();
        write(&mut text, keys, row);
        texts.append_value(&text);
    }
    texts.finish()
}

fn write(text: &mut String, keys: &[ArrayRef], row: usize) {
    text.push('[');
    for (i, key) in keys.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        let done = match Value::at(key, row) {
            Value::Null => write!(text, "null"),
            Value::Bool(v) => write!(text, "{v}"),
            Value::Int(v) => write!(text, "{v}"),
            Value::Float(v) if v.is_finite() => write!(text, "{v:?}"),
            Value::Float(v) => write!(text, "\"{v}\""),
            other => write!(text, "{}", other.json()),
        };
        done.unwrap_or_else(|_| unreachable!("a String takes everything"));
    }
    text.push(']');
}

/// The group values of `_key` texts, in columns of these types; texts that are no key are left out.
pub(crate) fn parse(texts: &[String], types: &[DataType]) -> Option<(Vec<ArrayRef>, usize)> {
    let rows: Vec<Vec<serde_json::Value>> = texts
        .iter()
        .filter_map(|t| serde_json::from_str::<Vec<serde_json::Value>>(t).ok())
        .filter(|values| values.len() == types.len())
        .collect();
    let columns = types.iter().enumerate().map(|(i, data_type)| {
        let text = |row: &Vec<serde_json::Value>| match &row[i] {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let column: ArrayRef = Arc::new(rows.iter().map(text).collect::<StringArray>());
        let safe = CastOptions::default();
        cast_with_options(&column, data_type, &safe).ok()
    });
    Some((columns.collect::<Option<_>>()?, rows.len()))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{
        BooleanArray, Date32Array, Float64Array, Int64Array, TimestampMicrosecondArray,
    };

    use super::*;

    #[test]
    fn keys_are_told_apart_and_read_back() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![
                None,
                Some(""),
                Some("\"a\",\n"),
                Some("null"),
            ])),
            Arc::new(Int64Array::from(vec![
                None,
                Some(0),
                Some(i64::MAX),
                Some(i64::MIN),
            ])),
            Arc::new(Float64Array::from(vec![
                None,
                Some(0.1),
                Some(f64::NAN),
                Some(1e300),
            ])),
            Arc::new(BooleanArray::from(vec![
                None,
                Some(true),
                Some(false),
                Some(true),
            ])),
            Arc::new(TimestampMicrosecondArray::from(vec![
                None,
                Some(-1),
                Some(0),
                Some(1_767_225_600_250_000),
            ])),
            Arc::new(Date32Array::from(vec![
                None,
                Some(-1),
                Some(0),
                Some(20_000),
            ])),
        ];
        let texts = texts(&columns, 4);
        let texts: Vec<String> = texts.iter().flatten().map(str::to_owned).collect();
        assert_eq!(texts[0], "[null,null,null,null,null,null]");
        assert_eq!(
            texts[1],
            r#"["",0,0.1,true,"1969-12-31T23:59:59.999999Z","1969-12-31"]"#
        );
        let types: Vec<_> = columns.iter().map(|c| c.data_type().clone()).collect();
        let read = parse(&texts, &types);
        assert!(read.is_some_and(|(read, rows)| read == columns && rows == 4));
        let none = parse(&["other".into(), "[1]".into()], &types);
        assert!(none.is_some_and(|(_, rows)| rows == 0));
    }
}
