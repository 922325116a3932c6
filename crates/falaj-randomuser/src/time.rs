//! Calendar arithmetic on milliseconds since 1970, and the clock that ages are counted by.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the server gets the time from that ages are counted to.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock that stands still.
    #[must_use]
    pub fn fixed(at: SystemTime) -> Self {
        Self(Arc::new(move || at))
    }

    /// A clock of the caller's own.
    pub fn of(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time it shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Milliseconds since 1970 in UTC; negative before. Far beyond any date of a person it saturates.
pub(crate) fn millis(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis())
            .unwrap_or(MILLIS_MAX)
            .min(MILLIS_MAX),
        Err(before) => i64::try_from(before.duration().as_millis())
            .map_or(-MILLIS_MAX, |ms| -ms.min(MILLIS_MAX)),
    }
}

/// About the year 10000, so that every year is printed with four digits.
const MILLIS_MAX: i64 = 253_402_300_799_999;

const DAY_MS: i64 = 86_400_000;

/// A moment as the calendar shows it, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Civil {
    pub year: i64,
    pub month: u8,
    pub day: u8,
    /// Milliseconds since midnight.
    pub time_ms: i64,
}

impl Civil {
    /// The calendar's view of `ms` since 1970 (proleptic Gregorian; days counted from 1 March, so that
    /// the leap day is a year's last).
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a month is 1..=12 and a day 1..=31"
    )]
    pub fn of(ms: i64) -> Self {
        let days = ms.div_euclid(DAY_MS) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: month as u8,
            day: (day_of_year - (153 * shifted + 2) / 5 + 1) as u8,
            time_ms: ms.rem_euclid(DAY_MS),
        }
    }

    /// Full years from `self` to `now`, never below 0.
    pub fn full_years(self, now: Self) -> i64 {
        let past = (now.month, now.day, now.time_ms) >= (self.month, self.day, self.time_ms);
        (now.year - self.year - i64::from(!past)).max(0)
    }

    /// The year of `now` less the year of `self`: one too many before the birthday.
    pub fn year_difference(self, now: Self) -> i64 {
        (now.year - self.year).max(0)
    }

    /// `1993-09-18` + `separator` + `02:30:31`.
    pub fn text(self, separator: char) -> String {
        let seconds = self.time_ms / 1000;
        format!(
            "{:04}-{:02}-{:02}{separator}{:02}:{:02}:{:02}",
            self.year,
            self.month,
            self.day,
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_agrees_with_known_moments() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00"),
            (-1, "1969-12-31T23:59:59"),
            (-800_000_000_000, "1944-08-25T17:46:40"),
            (1_653_344_189_000, "2022-05-23T22:16:29"),
            (1_016_688_461_000, "2002-03-21T05:27:41"),
            (991_088_189_000, "2001-05-28T22:16:29"),
            (951_782_400_000, "2000-02-29T00:00:00"),
            (4_107_542_400_000, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(Civil::of(ms).text('T'), text);
        }
    }

    #[test]
    fn a_year_is_full_at_the_birthday_and_not_before() {
        let born = Civil {
            year: 1990,
            month: 5,
            day: 20,
            time_ms: 1000,
        };
        for (now, full, difference) in [
            ((2026, 5, 20, 999), 35, 36),
            ((2026, 5, 20, 1000), 36, 36),
            ((2026, 12, 31, 0), 36, 36),
            ((2027, 1, 1, 0), 36, 37),
            ((1980, 1, 1, 0), 0, 0),
        ] {
            let (year, month, day, time_ms) = now;
            let moment = Civil {
                year,
                month,
                day,
                time_ms,
            };
            assert_eq!(born.full_years(moment), full, "{now:?}");
            assert_eq!(born.year_difference(moment), difference, "{now:?}");
        }
    }

    #[test]
    fn times_before_1970_and_far_away_stay_in_range() {
        use std::time::Duration;
        assert_eq!(millis(UNIX_EPOCH - Duration::from_secs(1)), -1000);
        assert_eq!(
            millis(UNIX_EPOCH + Duration::from_secs(u64::MAX / 4)),
            MILLIS_MAX
        );
    }
}
