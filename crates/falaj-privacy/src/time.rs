//! Points in time as records write them: ISO 8601 text, or a count since 1970.

/// Last millisecond of the year 9999.
pub(crate) const TIME_MS_MAX: i64 = 253_402_300_799_999;
/// First millisecond of the year 0.
const TIME_MS_MIN: i64 = -62_167_219_200_000;
/// From here on a whole number is taken as milliseconds: as seconds it would be the year 5138.
const SECONDS_MAX: u64 = 100_000_000_000;

/// Milliseconds since 1970 of an ISO 8601 date, or date and time: `2026-01-31`,
/// `2026-01-31T10:00Z`, `2026-01-31 10:00:00.123+05:30`. No zone is UTC; digits of the fraction
/// beyond the third are cut; second 60 is the next minute's first.
pub(crate) fn parse_iso(text: &str) -> Option<i64> {
    let mut rest = text.trim().as_bytes();
    let (year, month, day) = (
        digits(&mut rest, 4)?,
        after(&mut rest, b'-', 2)?,
        after(&mut rest, b'-', 2)?,
    );
    if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) {
        return None;
    }
    let midnight_ms = days_since_1970(year, month, day) * 86_400_000;
    let [b'T' | b't' | b' ', clock @ ..] = rest else {
        return rest.is_empty().then_some(midnight_ms);
    };
    rest = clock;
    let (hour, minute) = (digits(&mut rest, 2)?, after(&mut rest, b':', 2)?);
    let (mut second, mut milli) = (0, 0);
    if rest.first() == Some(&b':') {
        second = after(&mut rest, b':', 2)?;
        if let [b'.' | b',', fraction @ ..] = rest {
            let count = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if count == 0 {
                return None;
            }
            milli = (0..3).fold(0, |sum, at| {
                sum * 10 + fraction[..count].get(at).map_or(0, |b| i64::from(b - b'0'))
            });
            rest = &fraction[count..];
        }
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let offset_min = match rest {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), zone @ ..] => {
            rest = zone;
            let hours = digits(&mut rest, 2)?;
            let minutes = match rest {
                [] => 0,
                [b':', ..] => after(&mut rest, b':', 2)?,
                _ => digits(&mut rest, 2)?,
            };
            if !rest.is_empty() || hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    Some(midnight_ms + ((hour * 60 + minute - offset_min) * 60 + second) * 1000 + milli)
}

/// Milliseconds since 1970 of a whole number that is a point in time: seconds below 10^11 (the
/// year 5138), milliseconds from there on.
pub(crate) fn event_ms(number: i64) -> Option<i64> {
    if number.unsigned_abs() < SECONDS_MAX {
        number.checked_mul(1000)
    } else {
        Some(number)
    }
}

/// The year of a point in time; `None` outside 0..=9999.
pub(crate) fn year_of(ms: i64) -> Option<i64> {
    if !(TIME_MS_MIN..=TIME_MS_MAX).contains(&ms) {
        return None;
    }
    let days = ms.div_euclid(86_400_000);
    // A first guess by the mean length of a year is off by one at most.
    let guess = 1970 + (days * 400).div_euclid(146_097);
    (guess - 1..=guess + 1)
        .rev()
        .find(|year| days_since_1970(*year, 1, 1) <= days)
}

fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    head.iter().try_fold(0, |sum, b| {
        b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0'))
    })
}

fn after(rest: &mut &[u8], mark: u8, count: usize) -> Option<i64> {
    let (first, tail) = rest.split_first()?;
    if *first != mark {
        return None;
    }
    *rest = tail;
    digits(rest, count)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date of the Gregorian calendar (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms").
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_texts_are_points_in_time() {
        for (text, ms) in [
            ("1970-01-01", 0),
            ("1970-01-01T00:00Z", 0),
            (" 2026-01-01T00:00:00.25Z ", 1_767_225_600_250),
            ("2026-01-01 00:00:00,2509", 1_767_225_600_250),
            ("2026-01-01T05:30:00+05:30", 1_767_225_600_000),
            ("2025-12-31T19:00:00-0500", 1_767_225_600_000),
            ("2025-12-31t23:00:00-01", 1_767_225_600_000),
            ("2000-02-29T00:00:00z", 951_782_400_000),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ] {
            assert_eq!(parse_iso(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "2026",
            "2026-1-1",
            "2026-13-01",
            "2026-00-01",
            "2026-02-29",
            "2026-01-01T",
            "2026-01-01T24:00Z",
            "2026-01-01T10:60Z",
            "2026-01-01T10:00:61Z",
            "2026-01-01T10:00:00.Z",
            "2026-01-01T10:00:00+5",
            "2026-01-01T10:00:00+05:3",
            "2026-01-01T10:00Zx",
            "20x6-01-01",
            "2026-01-01x",
            "٢٠٢٦-01-01",
        ] {
            assert_eq!(parse_iso(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_is_read_as_it_is_printed() {
        for day in -150_000..150_000_i64 {
            let ms = day * 86_400_000;
            let text = falaj_record::rfc3339(ms * 1000);
            assert_eq!(parse_iso(&text), Some(ms), "{text}");
            assert_eq!(year_of(ms), text[..4].parse().ok(), "{text}");
            assert_eq!(
                year_of(ms - 1),
                falaj_record::rfc3339((ms - 1) * 1000)[..4].parse().ok()
            );
        }
    }

    #[test]
    fn whole_numbers_are_seconds_or_milliseconds() {
        assert_eq!(event_ms(1_767_225_600), Some(1_767_225_600_000));
        assert_eq!(event_ms(1_767_225_600_250), Some(1_767_225_600_250));
        assert_eq!(event_ms(i64::MIN), Some(i64::MIN));
        assert_eq!(year_of(TIME_MS_MAX), Some(9999));
        assert_eq!(year_of(TIME_MS_MAX + 1), None);
        assert_eq!(year_of(TIME_MS_MIN), Some(0));
        assert_eq!(year_of(i64::MIN), None);
    }
}
