//! Literals and type names of a SQL text.

use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, Value};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::error::{Checked, Refusal};
use crate::types::{Type, Typed};

/// A literal.
pub(crate) fn literal(value: &Value, span: Span) -> Checked<Typed> {
    Ok(match value {
        Value::Number(digits, _) => return number(digits, span),
        Value::Boolean(b) => Typed::literal(ScalarValue::Boolean(Some(*b)), Type::Bool),
        Value::Null => Typed::literal(ScalarValue::Null, Type::Null),
        other => Typed::text(&text_of(other, span)?),
    })
}

/// The text of a string literal.
pub(crate) fn text_of(value: &Value, span: Span) -> Checked<String> {
    match value {
        Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => {
            if text.contains('\\') {
                return Err(
                    Refusal::new(span, "a backslash in a text is not supported in views")
                        .hint("Spark reads it as an escape; write the character itself"),
                );
            }
            Ok(text.clone())
        }
        _ => Err(
            Refusal::new(span, "this kind of literal is not supported in views")
                .hint("write texts in single quotes: 'text'"),
        ),
    }
}

/// A number with its sign.
pub(crate) fn number(digits: &str, span: Span) -> Checked<Typed> {
    if digits.contains(['e', 'E']) {
        if let Ok(value) = digits.parse::<f64>()
            && value.is_finite()
        {
            return Ok(Typed::literal(
                ScalarValue::Float64(Some(value)),
                Type::Float,
            ));
        }
    } else if digits.contains('.') {
        if let Ok(value) = digits.parse::<f64>() {
            return Ok(Typed::literal(
                ScalarValue::Float64(Some(value)),
                Type::Decimal,
            ));
        }
    } else if let Ok(value) = digits.parse::<i64>() {
        return Ok(Typed::literal(ScalarValue::Int64(Some(value)), Type::Int));
    }
    Err(
        Refusal::new(span, "this number does not fit BIGINT or DOUBLE")
            .hint("whole numbers reach from -9223372036854775808 to 9223372036854775807"),
    )
}

/// A literal text as a time.
pub(crate) fn time_literal(text: &Typed, ty: Type, span: Span) -> Checked<Typed> {
    let (form, known) = match ty {
        Type::Timestamp => ("'2026-01-31 12:00:00'", "a timestamp"),
        Type::Date => ("'2026-01-31'", "a date"),
        _ => {
            return Err(
                Refusal::new(span, "this kind of literal is not supported in views")
                    .hint("write TIMESTAMP '2026-01-31 12:00:00' or DATE '2026-01-31'"),
            );
        }
    };
    let value = text
        .literal_text()
        .map(|t| ScalarValue::Utf8(Some(t.to_owned())))
        .and_then(|t| t.cast_to(&ty.arrow()).ok())
        .filter(|v| !v.is_null());
    match value {
        Some(value) => Ok(Typed::literal(value, ty)),
        None => Err(Refusal::new(span, format!("this text is not {known}"))
            .hint(format!("write it as {form}, in UTC"))),
    }
}

/// The type that a cast names.
pub(crate) fn cast_type(sql: &SqlType, span: Span) -> Checked<Type> {
    Ok(match sql {
        SqlType::BigInt(None) => Type::Int,
        SqlType::Double(_) | SqlType::DoublePrecision => Type::Float,
        SqlType::String(None) => Type::Text,
        SqlType::Boolean => Type::Bool,
        SqlType::Timestamp(None, _) => Type::Timestamp,
        SqlType::Date => Type::Date,
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::SmallInt(_) | SqlType::TinyInt(_) => {
            return Err(
                Refusal::new(span, format!("the type {sql} is not supported in views"))
                    .hint("whole numbers are BIGINT here: write `CAST(x AS BIGINT)`"),
            );
        }
        SqlType::Float(_) | SqlType::Real | SqlType::Decimal(_) | SqlType::Numeric(_) => {
            return Err(
                Refusal::new(span, format!("the type {sql} is not supported in views"))
                    .hint("write `CAST(x AS DOUBLE)`"),
            );
        }
        SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Text => {
            return Err(
                Refusal::new(span, format!("the type {sql} is not supported in views"))
                    .hint("write `CAST(x AS STRING)`"),
            );
        }
        _ => {
            return Err(
                Refusal::new(span, format!("the type {sql} is not supported in views"))
                    .hint("types are BIGINT, DOUBLE, STRING, BOOLEAN, TIMESTAMP, DATE"),
            );
        }
    })
}
