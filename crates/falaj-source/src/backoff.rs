use std::time::Duration;

/// Waits between attempts: doubled after each failure, drawn at random between half and the whole
/// of that, so that many clients of one service do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Shortest wait, after the first failure.
    pub shortest: Duration,
    /// Longest wait, ever.
    pub longest: Duration,
}

impl Default for Backoff {
    /// 1 s to 60 s.
    fn default() -> Self {
        Self {
            shortest: Duration::from_secs(1),
            longest: Duration::from_mins(1),
        }
    }
}

impl Backoff {
    /// How long to wait after the `attempts`-th failure in a row (1 is the first).
    #[must_use]
    pub fn after(&self, attempts: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempts).unwrap_or(u32::MAX);
        let bound = self.shortest.saturating_mul(doubled).min(self.longest);
        Self::jittered(bound)
    }

    /// A wait where trying again soon is pointless: close to the longest one from the first failure.
    #[must_use]
    pub fn slow(&self) -> Duration {
        Self::jittered(self.longest)
    }

    fn jittered(bound: Duration) -> Duration {
        bound.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_the_shortest_to_the_longest_and_differ() {
        let backoff = Backoff::default();
        for (attempts, least, most) in [
            (1, 1, 2),
            (2, 2, 4),
            (3, 4, 8),
            (5, 16, 32),
            (6, 30, 60),
            (7, 30, 60),
            (40, 30, 60),
            (u32::MAX, 30, 60),
        ] {
            for _ in 0..100 {
                let wait = backoff.after(attempts);
                assert!(
                    (Duration::from_secs(least)..=Duration::from_secs(most)).contains(&wait),
                    "{wait:?} after {attempts} failures"
                );
            }
        }
        let waits: std::collections::HashSet<_> = (0..20).map(|_| backoff.slow()).collect();
        assert!(waits.len() > 1);
    }
}
