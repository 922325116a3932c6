//! Columns of Arrow as values of SQLite.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray, StringViewArray,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use falaj_record::{Value, rfc3339};
use rusqlite::Statement;
use rusqlite::types::Null;

/// The type name of a column in SQLite; `None` for a type that no view can have.
pub(super) fn declared(data_type: &DataType) -> Option<&'static str> {
    match data_type {
        DataType::Boolean | DataType::Int64 => Some("INTEGER"),
        DataType::Float64 => Some("REAL"),
        DataType::Utf8
        | DataType::Utf8View
        | DataType::Date32
        | DataType::Decimal128(..)
        | DataType::Timestamp(TimeUnit::Microsecond, _) => Some("TEXT"),
        _ => None,
    }
}

/// A column, its type looked at once and not for every row.
pub(super) enum Cells<'a> {
    Bool(&'a BooleanArray),
    Int(&'a Int64Array),
    Float(&'a Float64Array),
    Text(&'a StringArray),
    TextView(&'a StringViewArray),
    /// Times, dates and decimals: made into text.
    Spelt(&'a dyn Array),
}

impl<'a> Cells<'a> {
    /// `None` for a type that no view can have.
    pub(super) fn of(column: &'a ArrayRef) -> Option<Self> {
        declared(column.data_type())?;
        Some(match column.data_type() {
            DataType::Boolean => Self::Bool(column.as_boolean()),
            DataType::Int64 => Self::Int(column.as_primitive::<Int64Type>()),
            DataType::Float64 => Self::Float(column.as_primitive::<Float64Type>()),
            DataType::Utf8 => Self::Text(column.as_string()),
            DataType::Utf8View => Self::TextView(column.as_string_view()),
            _ => Self::Spelt(column.as_ref()),
        })
    }

    /// Binds the value of `row` to the parameter at `index`, which counts from 1.
    pub(super) fn bind(
        &self,
        statement: &mut Statement<'_>,
        index: usize,
        row: usize,
    ) -> rusqlite::Result<()> {
        if self.is_null(row) {
            return statement.raw_bind_parameter(index, Null);
        }
        match self {
            Self::Bool(column) => statement.raw_bind_parameter(index, column.value(row)),
            Self::Int(column) => statement.raw_bind_parameter(index, column.value(row)),
            Self::Float(column) => statement.raw_bind_parameter(index, column.value(row)),
            Self::Text(column) => statement.raw_bind_parameter(index, column.value(row)),
            Self::TextView(column) => statement.raw_bind_parameter(index, column.value(row)),
            Self::Spelt(column) => match Value::at(*column, row) {
                Value::Timestamp(us) => statement.raw_bind_parameter(index, rfc3339(us)),
                Value::Decimal(digits) => statement.raw_bind_parameter(index, digits),
                date => statement.raw_bind_parameter(index, date.json().as_str()),
            },
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(column) => column.is_null(row),
            Self::Int(column) => column.is_null(row),
            Self::Float(column) => column.is_null(row) || column.value(row).is_nan(),
            Self::Text(column) => column.is_null(row),
            Self::TextView(column) => column.is_null(row),
            Self::Spelt(column) => column.is_null(row),
        }
    }
}
