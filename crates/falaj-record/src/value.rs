use std::fmt;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use serde::{Deserialize, Serialize};

/// One value of a view's row, for sinks and for the page. `Debug` is redacted.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// Boolean.
    Bool(bool),
    /// 64-bit integer.
    Int(i64),
    /// 64-bit float, NaN included.
    Float(f64),
    /// Text.
    Text(String),
    /// Microseconds since 1970, UTC.
    Timestamp(i64),
    /// Days since 1970.
    Date(i32),
    /// A decimal in plain notation.
    Decimal(String),
}

/// Integers beyond this lose digits in a browser, so JSON carries them as strings.
const JSON_INT_MAX: i64 = 1 << 53;

impl Value {
    /// The value of `column` in row `row`.
    ///
    /// # Panics
    /// On a column type that neither a view (see [`crate::Column::data_type`]) nor `records` can have.
    #[must_use]
    pub fn at(column: &dyn Array, row: usize) -> Self {
        if column.is_null(row) {
            return Self::Null;
        }
        match column.data_type() {
            DataType::Boolean => Self::Bool(column.as_boolean().value(row)),
            DataType::Int32 => Self::Int(column.as_primitive::<Int32Type>().value(row).into()),
            DataType::Int64 => Self::Int(column.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => Self::Float(column.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => Self::Text(column.as_string::<i32>().value(row).to_owned()),
            DataType::Utf8View => Self::Text(column.as_string_view().value(row).to_owned()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Timestamp(column.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            DataType::Date32 => Self::Date(column.as_primitive::<Date32Type>().value(row)),
            DataType::Decimal128(..) => {
                Self::Decimal(column.as_primitive::<Decimal128Type>().value_as_string(row))
            }
            other => unreachable!("views never have a column of type {other}"),
        }
    }

    /// As JSON: times are RFC 3339 UTC, integers beyond 2^53 and decimals are strings, NaN and
    /// infinities are null.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(v) => (*v).into(),
            Self::Int(v) if v.unsigned_abs() > JSON_INT_MAX.unsigned_abs() => v.to_string().into(),
            Self::Int(v) => (*v).into(),
            Self::Float(v) => (*v).into(),
            Self::Text(v) | Self::Decimal(v) => v.as_str().into(),
            Self::Timestamp(us) => rfc3339(*us).into(),
            Self::Date(days) => rfc3339(i64::from(*days) * 86_400_000_000)[..10].into(),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(redacted)")
    }
}

/// Microseconds since 1970 as RFC 3339 in UTC, with as many digits of the fraction as needed
/// (none, three or six). Years outside 0000..=9999 are given with a sign, as ISO 8601 has it.
#[must_use]
pub fn rfc3339(us: i64) -> String {
    let (days, rest) = (us.div_euclid(86_400_000_000), us.rem_euclid(86_400_000_000));
    let (year, month, day) = civil(days);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let year = if (0..=9999).contains(&year) {
        format!("{year:04}")
    } else {
        format!("{year:+07}")
    };
    let fraction = match fraction {
        0 => String::new(),
        f if f % 1000 == 0 => format!(".{:03}", f / 1000),
        f => format!(".{f:06}"),
    };
    format!("{year}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{fraction}Z")
}

/// Year, month and day of a day count since 1970 (Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        for (us, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00Z"),
            (1_767_225_600_250_000, "2026-01-01T00:00:00.250Z"),
            (-62_167_219_200_000_000, "0000-01-01T00:00:00Z"),
            (253_402_300_800_000_000, "+010000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(us), text);
        }
    }

    #[test]
    fn json_keeps_every_digit() {
        assert_eq!(Value::Int(i64::MAX).json(), "9223372036854775807");
        assert_eq!(Value::Int(1 << 53).json(), 1_i64 << 53);
        assert_eq!(Value::Float(f64::NAN).json(), serde_json::Value::Null);
        assert_eq!(Value::Decimal("1.50".into()).json(), "1.50");
        assert_eq!(Value::Date(-1).json(), "1969-12-31");
    }
}
