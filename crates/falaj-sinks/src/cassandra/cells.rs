//! Columns of Arrow as values of CQL, in the form they have on the wire.

use std::ops::Range;

use arrow::array::{
    Array, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
use falaj_record::{ViewUpdate, rfc3339};

use super::table::Source;

const DAY_US: i64 = 86_400_000_000;
/// Day 0 of CQL's dates is this many days before 1970.
const DATE_EPOCH: i64 = 1 << 31;

/// A column, its type looked at once and not for every row.
pub(super) enum Cells<'a> {
    Bool(&'a BooleanArray),
    Int(&'a Int64Array),
    Float(&'a Float64Array),
    Text(&'a StringArray),
    TextView(&'a StringViewArray),
    Date(&'a Date32Array),
    Decimal(&'a Decimal128Array),
    Millis(&'a TimestampMicrosecondArray),
    Micros(&'a TimestampMicrosecondArray),
    Day(&'a TimestampMicrosecondArray),
    Year(&'a TimestampMicrosecondArray),
    Version(i64),
}

impl<'a> Cells<'a> {
    /// The values of `source` in the rows of `update`; `None` for a type that no view can have.
    pub(super) fn of(update: &'a ViewUpdate, source: Source) -> Option<Self> {
        let column = |at: usize| update.rows.column(at);
        let time = |at| column(at).as_primitive_opt::<TimestampMicrosecondType>();
        Some(match source {
            Source::Key => Self::Text(&update.keys),
            Source::Version => Self::Version(update.version),
            Source::Micros(at) => Self::Micros(time(at)?),
            Source::Day(at) => Self::Day(time(at)?),
            Source::Year(at) => Self::Year(time(at)?),
            Source::Value(at) => {
                let column = column(at);
                match column.data_type() {
                    DataType::Boolean => Self::Bool(column.as_boolean()),
                    DataType::Int64 => Self::Int(column.as_primitive::<Int64Type>()),
                    DataType::Float64 => Self::Float(column.as_primitive::<Float64Type>()),
                    DataType::Utf8 => Self::Text(column.as_string()),
                    DataType::Utf8View => Self::TextView(column.as_string_view()),
                    DataType::Date32 => Self::Date(column.as_primitive::<Date32Type>()),
                    DataType::Decimal128(..) => {
                        Self::Decimal(column.as_primitive::<Decimal128Type>())
                    }
                    _ => Self::Millis(time(at)?),
                }
            }
        })
    }

    /// Gives the bytes of the value in `row` to `to`; none for NULL.
    pub(super) fn bytes<T>(&self, row: usize, to: impl FnOnce(Option<&[u8]>) -> T) -> T {
        if self.is_null(row) {
            return to(None);
        }
        match self {
            Self::Bool(column) => to(Some(&[u8::from(column.value(row))])),
            Self::Int(column) => to(Some(&column.value(row).to_be_bytes())),
            Self::Float(column) => to(Some(&column.value(row).to_be_bytes())),
            Self::Text(column) => to(Some(column.value(row).as_bytes())),
            Self::TextView(column) => to(Some(column.value(row).as_bytes())),
            Self::Date(column) => to(Some(&date(column.value(row).into()))),
            Self::Decimal(column) => {
                let (bytes, used) = decimal(column.value(row), column.scale());
                to(Some(&bytes[used]))
            }
            Self::Millis(column) => to(Some(&column.value(row).div_euclid(1000).to_be_bytes())),
            Self::Micros(column) => {
                let micros = i16::try_from(column.value(row).rem_euclid(1000));
                to(Some(&micros.expect("less than 1000").to_be_bytes()))
            }
            Self::Day(column) => to(Some(&date(column.value(row).div_euclid(DAY_US)))),
            Self::Year(column) => to(Some(&year(column.value(row)).to_be_bytes())),
            Self::Version(version) => to(Some(&version.to_be_bytes())),
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
            Self::Decimal(column) => column.is_null(row),
            Self::Millis(column)
            | Self::Micros(column)
            | Self::Day(column)
            | Self::Year(column) => column.is_null(row),
            Self::Version(_) => false,
        }
    }
}

/// Days since 1970 as a date of CQL. Every time in microseconds is inside its range.
fn date(days: i64) -> [u8; 4] {
    let days = u32::try_from(days + DATE_EPOCH);
    days.expect("a day of 64 bits of microseconds")
        .to_be_bytes()
}

fn year(us: i64) -> i32 {
    let text = rfc3339(us);
    // A sign may come first.
    let end = text[1..].find('-').map(|at| at + 1);
    let year = end.and_then(|end| text[..end].parse().ok());
    year.expect("RFC 3339 begins with the year")
}

/// The scale, then the digits as the shortest number in two's complement.
fn decimal(value: i128, scale: i8) -> ([u8; 20], Range<usize>) {
    let mut bytes = [0; 20];
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    let redundant = if value < 0 {
        value.leading_ones()
    } else {
        value.leading_zeros()
    };
    // One bit stays for the sign.
    let start = (redundant.saturating_sub(1) / 8) as usize;
    bytes[start..start + 4].copy_from_slice(&i32::from(scale).to_be_bytes());
    (bytes, start..20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_the_shortest_twos_complement_behind_their_scale() {
        let bytes = |value, scale| {
            let (bytes, used) = decimal(value, scale);
            bytes[used].to_vec()
        };
        assert_eq!(bytes(0, 2), [0, 0, 0, 2, 0]);
        assert_eq!(bytes(127, 0), [0, 0, 0, 0, 127]);
        assert_eq!(bytes(128, 0), [0, 0, 0, 0, 0, 128]);
        assert_eq!(bytes(-1, 4), [0, 0, 0, 4, 0xff]);
        assert_eq!(bytes(-128, 4), [0, 0, 0, 4, 0x80]);
        assert_eq!(bytes(-129, 4), [0, 0, 0, 4, 0xff, 0x7f]);
        assert_eq!(bytes(1, -2), [0xff, 0xff, 0xff, 0xfe, 1]);
        assert_eq!(bytes(i128::MAX, 0).len(), 20);
        assert_eq!(bytes(i128::MIN, 0).len(), 20);
    }

    #[test]
    fn years_and_days_are_found_at_both_ends() {
        assert_eq!(year(0), 1970);
        assert_eq!(year(-1), 1969);
        assert_eq!(year(-62_135_596_800_000_000), 1);
        assert_eq!(year(-62_167_219_200_000_001), -1);
        assert_eq!(year(253_402_300_800_000_000), 10_000);
        assert_eq!(date(0), [0x80, 0, 0, 0]);
        assert_eq!(date(-1), [0x7f, 0xff, 0xff, 0xff]);
        let _ = (date(i64::MIN / DAY_US), date(i64::MAX / DAY_US));
    }
}
