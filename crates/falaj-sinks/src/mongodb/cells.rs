//! Columns of Arrow as values of BSON.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use mongodb::bson::raw::CStr;
use mongodb::bson::{DateTime, Decimal128, RawBsonRef, RawDocumentBuf};

/// Digits that a Decimal128 has.
const DECIMAL_DIGITS: u32 = 34;
const DAY_MS: i64 = 86_400_000;

/// The type of a column as MongoDB's `$type` names it; `None` for a type that no view can have.
pub(super) fn declared(data_type: &DataType) -> Option<&'static str> {
    match data_type {
        DataType::Boolean => Some("bool"),
        DataType::Int64 => Some("long"),
        DataType::Float64 => Some("double"),
        DataType::Utf8 | DataType::Utf8View => Some("string"),
        DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _) => Some("date"),
        DataType::Decimal128(..) => Some("decimal"),
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
    Date(&'a Date32Array),
    Time(&'a TimestampMicrosecondArray),
    Decimal(&'a Decimal128Array),
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
            DataType::Date32 => Self::Date(column.as_primitive::<Date32Type>()),
            DataType::Timestamp(..) => {
                Self::Time(column.as_primitive::<TimestampMicrosecondType>())
            }
            _ => Self::Decimal(column.as_primitive::<Decimal128Type>()),
        })
    }

    /// Adds the value of `row` to a document, NULL as null.
    pub(super) fn append(&self, document: &mut RawDocumentBuf, name: &CStr, row: usize) {
        if self.is_null(row) {
            return document.append(name, RawBsonRef::Null);
        }
        match self {
            Self::Bool(column) => document.append(name, column.value(row)),
            Self::Int(column) => document.append(name, column.value(row)),
            Self::Float(column) => document.append(name, column.value(row)),
            Self::Text(column) => document.append(name, column.value(row)),
            Self::TextView(column) => document.append(name, column.value(row)),
            Self::Date(column) => {
                let day = i64::from(column.value(row));
                document.append(name, DateTime::from_millis(day * DAY_MS));
            }
            Self::Time(column) => {
                let whole = column.value(row).div_euclid(1000);
                document.append(name, DateTime::from_millis(whole));
            }
            Self::Decimal(column) => {
                let text = column.value_as_string(row);
                match exact(column.value(row), &text) {
                    Some(decimal) => document.append(name, decimal),
                    None => document.append(name, text),
                }
            }
        }
    }

    /// Microseconds of a time that its Date has no room for, where there are any.
    pub(super) fn micros(&self, row: usize) -> Option<i32> {
        let Self::Time(column) = self else {
            return None;
        };
        if column.is_null(row) {
            return None;
        }
        let rest = column.value(row).rem_euclid(1000);
        i32::try_from(rest).ok().filter(|rest| *rest > 0)
    }

    /// The text of `row`, where it is a column of texts.
    pub(super) fn text(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Text(column) if !column.is_null(row) => Some(column.value(row)),
            Self::TextView(column) if !column.is_null(row) => Some(column.value(row)),
            _ => None,
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(column) => column.is_null(row),
            Self::Int(column) => column.is_null(row),
            Self::Float(column) => column.is_null(row),
            Self::Text(column) => column.is_null(row),
            Self::TextView(column) => column.is_null(row),
            Self::Date(column) => column.is_null(row),
            Self::Time(column) => column.is_null(row),
            Self::Decimal(column) => column.is_null(row),
        }
    }
}

/// A decimal with every digit, where it has no more than a Decimal128: the driver would round.
fn exact(unscaled: i128, text: &str) -> Option<Decimal128> {
    if unscaled.unsigned_abs() >= 10_u128.pow(DECIMAL_DIGITS) {
        return None;
    }
    text.parse().ok()
}
