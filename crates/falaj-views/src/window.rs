//! Time windows: `window(event_time, 'size' [, 'slide'])`.
//!
//! Always: windows begin at multiples of the slide since 1970, hold their start and not their end.

use datafusion::sql::sqlparser::ast::{Expr, Spanned};

use crate::error::{Checked, Refusal};

/// Most windows that one record may fall into: each costs a row of work.
const OVERLAP_MAX: i64 = 1440;

/// Length and distance of windows in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    pub size: i64,
    pub slide: i64,
}

impl Windows {
    /// Checks size and slide, the second and third argument of `window`.
    pub fn new(args: &[&Expr], text: impl Fn(&Expr) -> Option<String>) -> Checked<Self> {
        let length = |expr: &Expr| -> Checked<i64> {
            let refuse = |message: String| {
                Refusal::new(expr.span(), message)
                    .hint("write a fixed length, such as '30 seconds', '1 minute', '1 hour 30 minutes' or '1 day'")
            };
            let text = text(expr)
                .ok_or_else(|| refuse("a window's length is a text, such as '1 minute'".into()))?;
            interval(&text)
                .map_err(|why| refuse(format!("'{text}' is not a window's length: {why}")))
        };
        let size = length(args[0])?;
        let slide = args.get(1).map_or(Ok(size), |slide| length(slide))?;
        if slide > size {
            return Err(
                Refusal::new(args[1].span(), "windows slide by more than their length")
                    .hint("Spark refuses this too: records between two windows would be lost"),
            );
        }
        if size.div_euclid(slide) > OVERLAP_MAX {
            return Err(Refusal::new(
                args[1].span(),
                format!("a record would fall into more than {OVERLAP_MAX} windows"),
            )
            .hint("slide by a larger step"));
        }
        Ok(Self { size, slide })
    }

    /// Start of the last window that holds `time`.
    pub fn last_start(self, time: i64) -> i64 {
        time.saturating_sub(time.rem_euclid(self.slide))
    }

    /// End of the window that begins at `start`.
    pub fn end(self, start: i64) -> i64 {
        start.saturating_add(self.size)
    }

    /// Starts of all windows that hold `time`, the last first.
    pub fn starts(self, time: i64) -> impl Iterator<Item = i64> {
        let first = self.last_start(time);
        (0..)
            .map_while(move |n: i64| first.checked_sub(self.slide.checked_mul(n)?))
            .take_while(move |start| self.end(*start) > time)
    }
}

/// The length of an interval text of Spark in microseconds.
fn interval(text: &str) -> Result<i64, &'static str> {
    const UNITS: [(&str, i64); 7] = [
        ("microsecond", 1),
        ("millisecond", 1000),
        ("second", 1_000_000),
        ("minute", 60_000_000),
        ("hour", 3_600_000_000),
        ("day", 86_400_000_000),
        ("week", 604_800_000_000),
    ];
    let lower = text.to_lowercase();
    let mut words = lower.split_whitespace().peekable();
    words.next_if_eq(&"interval");
    let mut total = 0_i64;
    let mut any = false;
    while let Some(number) = words.next() {
        let unit = words.next().ok_or("a number needs a unit")?;
        let unit = unit.strip_suffix('s').unwrap_or(unit);
        if matches!(unit, "month" | "year" | "quarter") {
            return Err("months and years have no fixed length");
        }
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or("the unit is not known")?;
        let number: i64 = number.parse().map_err(|_| "it needs a whole number")?;
        total = number
            .checked_mul(*factor)
            .and_then(|us| total.checked_add(us))
            .ok_or("it is too long")?;
        any = true;
    }
    match (any, total) {
        (false, _) => Err("it is empty"),
        (_, ..=0) => Err("it is not positive"),
        _ => Ok(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_spark_reads_them() {
        for (text, us) in [
            ("1 minute", 60_000_000),
            ("30 seconds", 30_000_000),
            ("2 HOURS", 7_200_000_000),
            ("1 day", 86_400_000_000),
            ("1 week", 604_800_000_000),
            ("1 hour 30 minutes", 5_400_000_000),
            ("interval 250 milliseconds", 250_000),
        ] {
            assert_eq!(interval(text), Ok(us), "{text}");
        }
        for text in [
            "",
            "1",
            "minute",
            "0 seconds",
            "-1 minute",
            "1 month",
            "1.5 hours",
            "1 fortnight",
            "9223372036854775807 weeks",
        ] {
            assert!(interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_window_owns_its_start_and_not_its_end() {
        let sliding = Windows { size: 10, slide: 5 };
        for (time, starts) in [
            (0, vec![0, -5]),
            (4, vec![0, -5]),
            (5, vec![5, 0]),
            (-1, vec![-5, -10]),
        ] {
            assert_eq!(sliding.starts(time).collect::<Vec<_>>(), starts, "{time}");
        }
        let uneven = Windows { size: 7, slide: 5 };
        assert_eq!(uneven.starts(6).collect::<Vec<_>>(), [5, 0]);
        assert_eq!(uneven.starts(8).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn times_at_the_ends_of_the_range_have_windows_too() {
        let hour = Windows {
            size: 3_600_000_000,
            slide: 1_800_000_000,
        };
        for time in [i64::MIN, i64::MAX] {
            assert!(hour.starts(time).count() <= 3);
        }
    }
}
