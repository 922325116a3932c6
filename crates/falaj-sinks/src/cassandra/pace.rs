//! How many writes are under way at once.
//!
//! It rises by a step as long as answers come in good time, and is halved when the store cannot
//! follow (AIMD): so a store that others use too is not run over, and an idle one is kept busy.

use std::time::Duration;

/// Writes under way at first.
const FIRST: usize = 256;
/// At least and at most so many.
const LEAST: usize = 4;
const MOST: usize = 1024;
/// An answer that takes longer on average means that a queue builds up: half of the two seconds
/// after which Cassandra itself gives a write up (`write_request_timeout`).
const SLOW: Duration = Duration::from_secs(1);

/// How many writes may be under way, learnt from the answers. A round is as many answers as
/// writes may be under way: only then has a change of the limit had its effect.
#[derive(Debug)]
pub(super) struct Pace {
    limit: usize,
    answers: usize,
    took: Duration,
    /// Whether it was halved in this round.
    halved: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            limit: FIRST,
            answers: 0,
            took: Duration::ZERO,
            halved: false,
        }
    }
}

impl Pace {
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A write was answered in good order.
    pub(super) fn answered(&mut self, took: Duration) {
        self.answers += 1;
        self.took += took;
        if self.answers < self.limit {
            return;
        }
        let slow = self.took > SLOW * u32::try_from(self.answers).unwrap_or(u32::MAX);
        if slow {
            self.limit = (self.limit - self.limit / 8).max(LEAST);
        } else if !self.halved {
            self.limit = (self.limit + (self.limit / 8).max(LEAST)).min(MOST);
        }
        self.begin_round();
    }

    /// The store could not follow, or nobody answered.
    pub(super) fn congested(&mut self) {
        if self.halved {
            return;
        }
        self.limit = (self.limit / 2).max(LEAST);
        self.begin_round();
        self.halved = true;
    }

    fn begin_round(&mut self) {
        (self.answers, self.took, self.halved) = (0, Duration::ZERO, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(pace: &mut Pace, took: Duration) {
        for _ in 0..pace.limit() {
            pace.answered(took);
        }
    }

    #[test]
    fn it_rises_to_its_bound_while_answers_come_in_good_time() {
        let mut pace = Pace::default();
        round(&mut pace, Duration::from_millis(20));
        assert_eq!(pace.limit(), FIRST + FIRST / 8);
        for _ in 0..100 {
            round(&mut pace, Duration::from_millis(20));
        }
        assert_eq!(pace.limit(), MOST);
    }

    #[test]
    fn it_is_halved_once_a_round_and_rises_again() {
        let mut pace = Pace::default();
        for _ in 0..FIRST {
            pace.congested();
        }
        assert_eq!(pace.limit(), FIRST / 2);
        round(&mut pace, Duration::from_millis(20));
        assert_eq!(pace.limit(), FIRST / 2, "the round of the fall is no proof");
        round(&mut pace, Duration::from_millis(20));
        assert_eq!(pace.limit(), FIRST / 2 + FIRST / 16);
        for _ in 0..20 {
            pace.congested();
            round(&mut pace, Duration::from_millis(20));
        }
        assert_eq!(pace.limit(), LEAST);
    }

    #[test]
    fn slow_answers_bring_it_down_gently() {
        let mut pace = Pace::default();
        round(&mut pace, SLOW * 2);
        assert_eq!(pace.limit(), FIRST - FIRST / 8);
        for _ in 0..100 {
            round(&mut pace, SLOW * 2);
        }
        assert!(pace.limit() < 16);
    }
}
