//! The proleptic Gregorian calendar over microseconds since 1970 in UTC.
//!
//! Always: total and without panics for every `i64`, before 1970 too.

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A part of a time, as Spark's functions of that name give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Year,
    Quarter,
    Month,
    Day,
    /// 1 is Sunday.
    DayOfWeek,
    DayOfYear,
    Hour,
    Minute,
    Second,
}

/// What `date_trunc` cuts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Unit {
    Year,
    Quarter,
    Month,
    /// Weeks begin on Monday.
    Week,
    /// Microseconds, for units of constant length.
    Length(i64),
}

impl Unit {
    /// The unit of a format of Spark's `date_trunc`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "year" | "yyyy" | "yy" => Self::Year,
            "quarter" => Self::Quarter,
            "month" | "mon" | "mm" => Self::Month,
            "week" => Self::Week,
            "day" | "dd" => Self::Length(DAY),
            "hour" => Self::Length(3600 * SECOND),
            "minute" => Self::Length(60 * SECOND),
            "second" => Self::Length(SECOND),
            "millisecond" => Self::Length(1000),
            "microsecond" => Self::Length(1),
            _ => return None,
        })
    }
}

/// `part` of the time `us`.
pub(crate) fn part(part: Part, us: i64) -> i64 {
    let (days, rest) = (us.div_euclid(DAY), us.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    match part {
        Part::Year => year,
        Part::Quarter => (month - 1) / 3 + 1,
        Part::Month => month,
        Part::Day => day,
        Part::DayOfWeek => (days + 4).rem_euclid(7) + 1,
        Part::DayOfYear => days - days_from_civil(year, 1) + 1,
        Part::Hour => rest / (3600 * SECOND),
        Part::Minute => rest / (60 * SECOND) % 60,
        Part::Second => rest / SECOND % 60,
    }
}

/// The begin of the `unit` that holds `us`.
pub(crate) fn trunc(unit: Unit, us: i64) -> i64 {
    let days = us.div_euclid(DAY);
    let (year, month, _) = civil(days);
    let day = match unit {
        Unit::Length(length) => return us.saturating_sub(us.rem_euclid(length)),
        Unit::Year => days_from_civil(year, 1),
        Unit::Quarter => days_from_civil(year, (month - 1) / 3 * 3 + 1),
        Unit::Month => days_from_civil(year, month),
        Unit::Week => days - (days + 3).rem_euclid(7),
    };
    day.saturating_mul(DAY)
}

/// Days since 1970 of a time.
pub(crate) fn day(us: i64) -> i32 {
    // `i64` microseconds span fewer than 2^28 days.
    i32::try_from(us.div_euclid(DAY)).unwrap_or(i32::MAX)
}

/// The first microsecond of a day.
pub(crate) fn midnight(days: i32) -> i64 {
    i64::from(days).saturating_mul(DAY)
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
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let day = doy - (153 * mp + 2) / 5 + 1;
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970 of the first of a month.
fn days_from_civil(year: i64, month: i64) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = if month > 2 { month - 3 } else { month + 9 };
    let doy = (153 * mp + 2) / 5;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

/// `value` rounded to `scale` decimals, halves away from zero, judged by the shortest decimal text of
/// the double, as Spark's `round` does: `round(2.675, 2)` is 2.68.
pub(crate) fn round(value: f64, scale: usize) -> f64 {
    if !value.is_finite() {
        return value;
    }
    let text = value.abs().to_string();
    let Some((whole, fraction)) = text.split_once('.') else {
        return value + 0.0;
    };
    if fraction.len() <= scale {
        return value;
    }
    let up = fraction.as_bytes()[scale] >= b'5';
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes().take(scale)).collect();
    let mut carry = up;
    for digit in digits.iter_mut().rev() {
        if !carry {
            break;
        }
        carry = *digit == b'9';
        *digit = if carry { b'0' } else { *digit + 1 };
    }
    if carry {
        digits.insert(0, b'1');
    }
    digits.insert(digits.len() - scale, b'.');
    let rounded: f64 = std::str::from_utf8(&digits)
        .ok()
        .and_then(|t| t.parse().ok())
        .unwrap_or(value.abs());
    if rounded == 0.0 {
        0.0
    } else {
        rounded.copysign(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "the very double is what is promised")]
    fn halves_are_rounded_by_their_decimal_text() {
        for (value, scale, rounded) in [
            (2.675, 2, 2.68),
            (1.005, 2, 1.01),
            (2.5, 0, 3.0),
            (-2.5, 0, -3.0),
            (0.5, 0, 1.0),
            (-0.4, 0, 0.0),
            (99.95, 1, 100.0),
            (9.999, 2, 10.0),
            (1e300, 2, 1e300),
            (1e-300, 2, 0.0),
            (41.25, 3, 41.25),
            (7.0, 1, 7.0),
        ] {
            let got = round(value, scale);
            assert!(
                got == rounded && got.is_sign_negative() == rounded.is_sign_negative(),
                "{value}"
            );
        }
        assert!(round(f64::NAN, 1).is_nan());
    }

    #[test]
    fn times_before_1970_are_cut_downwards() {
        let at = -1;
        for (unit, us) in [
            ("second", -SECOND),
            ("day", -DAY),
            ("week", -3 * DAY),
            ("month", -31 * DAY),
            ("quarter", -92 * DAY),
            ("year", -365 * DAY),
        ] {
            assert_eq!(Unit::parse(unit).map(|u| trunc(u, at)), Some(us), "{unit}");
        }
        let parts = [
            (Part::Year, 1969),
            (Part::Quarter, 4),
            (Part::Month, 12),
            (Part::Day, 31),
            (Part::DayOfWeek, 4),
            (Part::DayOfYear, 365),
            (Part::Hour, 23),
            (Part::Minute, 59),
            (Part::Second, 59),
        ];
        for (which, value) in parts {
            assert_eq!(part(which, at), value, "{which:?}");
        }
    }

    #[test]
    fn no_time_is_too_far() {
        for us in [i64::MIN, i64::MIN + 1, 0, i64::MAX] {
            for unit in ["year", "quarter", "month", "week", "day", "second"] {
                assert!(Unit::parse(unit).is_some_and(|u| trunc(u, us) <= us || us == i64::MIN));
            }
            assert!((1..=366).contains(&part(Part::DayOfYear, us)));
            assert!((1..=7).contains(&part(Part::DayOfWeek, us)));
        }
    }
}
