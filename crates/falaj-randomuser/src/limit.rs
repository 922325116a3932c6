use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use falaj_record::Period;

use crate::error::RandomUserError;

/// How many users an address may ask for in a window of time. Written `20000/5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Users from one address; a request is refused once that many have been given, so the last one
    /// may overshoot.
    pub users: u64,
    /// Every count starts again after it.
    pub window: Duration,
}

impl RateLimit {
    /// What the real service allows: 20,000 users in 300 seconds.
    pub const REAL: Self = Self {
        users: 20_000,
        window: Duration::from_mins(5),
    };
}

impl FromStr for RateLimit {
    type Err = RandomUserError;

    fn from_str(text: &str) -> Result<Self, RandomUserError> {
        let limit = text.split_once('/').and_then(|(users, window)| {
            let users = users.trim().parse().ok()?;
            let Period(window) = window.trim().parse().ok()?;
            (window > Duration::ZERO).then_some(Self { users, window })
        });
        limit.ok_or_else(|| RandomUserError::RateLimit {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.users, Period(self.window))
    }
}

/// Addresses that are counted one by one in a window; those beyond share a count. Bounds memory.
const ADDRESSES_MAX: usize = 65_536;

/// The users given to each address since the window began.
#[derive(Debug)]
pub(crate) struct Counts {
    limit: RateLimit,
    began: Instant,
    given: HashMap<IpAddr, u64>,
}

impl Counts {
    pub fn new(limit: RateLimit, now: Instant) -> Self {
        Self {
            limit,
            began: now,
            given: HashMap::new(),
        }
    }

    /// Counts `users` for `address`.
    ///
    /// # Errors
    /// The number already given, where that has reached the limit.
    pub fn take(&mut self, address: IpAddr, users: u64, now: Instant) -> Result<(), u64> {
        if now.duration_since(self.began) >= self.limit.window {
            self.began = now;
            self.given.clear();
        }
        let known = self.given.contains_key(&address) || self.given.len() < ADDRESSES_MAX;
        let address = if known {
            address
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        let given = self.given.entry(address).or_default();
        if *given >= self.limit.users {
            return Err(*given);
        }
        *given += users;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_is_refused_once_its_count_has_reached_the_limit() {
        let start = Instant::now();
        let limit = RateLimit {
            users: 100,
            window: Duration::from_mins(5),
        };
        let mut counts = Counts::new(limit, start);
        let [one, two] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
        let at = |seconds| start + Duration::from_secs(seconds);
        for (address, users, second, answer) in [
            (one, 99, 0, Ok(())),
            (one, 50, 1, Ok(())), // 99 is below 100, so it overshoots
            (one, 1, 2, Err(149)),
            (two, 100, 2, Ok(())), // counted apart
            (two, 1, 299, Err(100)),
            (one, 1, 300, Ok(())), // a new window
            (two, 1, 301, Ok(())),
        ] {
            assert_eq!(
                counts.take(address, users, at(second)),
                answer,
                "at {second} s"
            );
        }
    }

    #[test]
    fn beyond_the_bound_addresses_share_a_count() {
        let start = Instant::now();
        let limit = RateLimit {
            users: 2,
            window: Duration::from_mins(5),
        };
        let mut counts = Counts::new(limit, start);
        let address = |n: usize| IpAddr::V6(Ipv6Addr::from(n as u128 + 1));
        for n in 0..ADDRESSES_MAX {
            assert_eq!(counts.take(address(n), 1, start), Ok(()));
        }
        assert_eq!(counts.take(address(ADDRESSES_MAX), 2, start), Ok(()));
        assert_eq!(counts.take(address(ADDRESSES_MAX + 1), 1, start), Err(2));
        assert_eq!(
            counts.take(address(0), 1, start),
            Ok(()),
            "the known ones are not affected"
        );
        assert_eq!(counts.given.len(), ADDRESSES_MAX + 1);
    }

    #[test]
    fn a_limit_is_read_and_printed() {
        for text in ["20000/5m", "1/250ms"] {
            assert_eq!(text.parse::<RateLimit>().unwrap().to_string(), text);
        }
        assert_eq!("20000/300s".parse::<RateLimit>().unwrap(), RateLimit::REAL);
        for text in ["", "20000", "/5m", "x/5m", "1/0s", "1/5"] {
            assert!(text.parse::<RateLimit>().is_err(), "{text}");
        }
    }
}
