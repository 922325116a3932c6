//! The service's bad days, on demand: which request gets which is a matter of its number and a seed.

use std::fmt;
use std::str::FromStr;

use crate::error::RandomUserError;
use crate::stream::mix;

/// What can go wrong with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// `429` with the service's error object, whatever the limit says.
    TooMany,
    /// `503` with an HTML page.
    Unavailable,
    /// `502` with a proxy's HTML page.
    BadGateway,
    /// `504` with a proxy's HTML page.
    GatewayTimeout,
    /// No answer ever.
    Hang,
    /// The body comes in ten pieces with pauses between them.
    Slow,
    /// The body ends after 15 % of its bytes, as a whole and valid HTTP reply.
    Cut,
    /// `200` with `"results":[]`; the info block still claims people.
    Empty,
    /// `200` with `{"error":..}`.
    ErrorOk,
    /// `500` with `{"error":..}`.
    Error,
    /// The CORS header is missing; comes on top of whatever else happens.
    NoCors,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::TooMany,
        Self::Unavailable,
        Self::BadGateway,
        Self::GatewayTimeout,
        Self::Hang,
        Self::Slow,
        Self::Cut,
        Self::Empty,
        Self::ErrorOk,
        Self::Error,
        Self::NoCors,
    ];

    /// As it is written in a list of faults.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooMany => "429",
            Self::Unavailable => "503",
            Self::BadGateway => "502",
            Self::GatewayTimeout => "504",
            Self::Hang => "hang",
            Self::Slow => "slow",
            Self::Cut => "cut",
            Self::Empty => "empty",
            Self::ErrorOk => "error-200",
            Self::Error => "error-500",
            Self::NoCors => "no-cors",
        }
    }
}

/// How often a fault happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Often {
    /// This share of the requests, 0 to 1, drawn by the seed.
    Share(f64),
    /// Every N-th request, N at least 1.
    Every(u64),
}

/// One fault and how often it happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultRule {
    /// What goes wrong.
    pub kind: FaultKind,
    /// How often.
    pub often: Often,
}

/// The faults of a server. Written `503=0.1,cut=every 50,hang`; without a frequency a fault is constant.
///
/// Each rule decides on its own; of several that strike the same request the first counts, `no-cors`
/// apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Faults(pub Vec<FaultRule>);

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    pub fault: Option<FaultKind>,
    pub cors: bool,
}

impl Faults {
    /// What happens to request `number` (from 0) of a server with `seed`.
    pub(crate) fn fate(&self, number: u64, seed: u64) -> Fate {
        let mut fate = Fate {
            fault: None,
            cors: true,
        };
        for (rule, place) in self.0.iter().zip(1_u64..) {
            let strikes = match rule.often {
                Often::Share(share) => unit(mix(mix(seed ^ place) ^ number)) < share,
                Often::Every(every) => (number + 1).is_multiple_of(every),
            };
            match rule.kind {
                FaultKind::NoCors => fate.cors &= !strikes,
                kind if strikes && fate.fault.is_none() => fate.fault = Some(kind),
                _ => {}
            }
        }
        fate
    }
}

/// A number from 0 up to, but not including, 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
fn unit(word: u64) -> f64 {
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

impl FromStr for Faults {
    type Err = RandomUserError;

    fn from_str(text: &str) -> Result<Self, RandomUserError> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for FaultRule {
    type Err = RandomUserError;

    fn from_str(text: &str) -> Result<Self, RandomUserError> {
        let wrong = |cause| RandomUserError::Fault {
            part: text.to_owned(),
            cause,
        };
        let (name, often) = text.split_once('=').unwrap_or((text, "1"));
        let kind = FaultKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name.trim());
        let kind = kind.ok_or_else(|| wrong("there is no such kind"))?;
        let often = often.trim();
        let often = match often.strip_prefix("every") {
            Some(count) => count
                .trim_start_matches([' ', '-', ':'])
                .parse()
                .ok()
                .filter(|every| *every > 0)
                .map(Often::Every)
                .ok_or_else(|| wrong("`every` needs a whole number from 1 on"))?,
            None => often
                .parse()
                .ok()
                .filter(|share| (0.0..=1.0).contains(share))
                .map(Often::Share)
                .ok_or_else(|| wrong("its share is no number from 0 to 1"))?,
        };
        Ok(Self { kind, often })
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, rule) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let name = rule.kind.name();
            match rule.often {
                Often::Share(share) => write!(f, "{comma}{name}={share}")?,
                Often::Every(every) => write!(f, "{comma}{name}=every {every}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_faults_is_read_and_printed() {
        for (text, printed) in [
            ("503=0.1", "503=0.1"),
            ("503=0.1, hang=every 7", "503=0.1,hang=every 7"),
            (
                "cut=every-3,slow=every:4,no-cors",
                "cut=every 3,slow=every 4,no-cors=1",
            ),
            ("", ""),
        ] {
            assert_eq!(text.parse::<Faults>().unwrap().to_string(), printed);
        }
        for kind in FaultKind::ALL {
            let faults: Faults = kind.name().parse().unwrap();
            assert_eq!(faults.fate(0, 0).fault.is_some(), kind != FaultKind::NoCors);
        }
    }

    #[test]
    fn a_fault_that_cannot_be_read_is_refused() {
        for text in [
            "505=0.1",
            "503=1.1",
            "503=-1",
            "503=NaN",
            "503=every 0",
            "503=every",
            "=1",
            "503=",
        ] {
            assert!(text.parse::<Faults>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_strikes_about_as_often_as_it_says_and_the_same_each_time() {
        let faults: Faults = "503=0.1,cut=0.5,no-cors=0.25".parse().unwrap();
        let fates = |seed| {
            (0..10_000)
                .map(|n| faults.fate(n, seed))
                .collect::<Vec<_>>()
        };
        let count = |fates: &[Fate], wanted: &dyn Fn(&Fate) -> bool| {
            fates.iter().filter(|fate| wanted(fate)).count()
        };
        let fates_1 = fates(1);
        for (range, wanted) in [
            (
                900..1100,
                &(|f: &Fate| f.fault == Some(FaultKind::Unavailable)) as &dyn Fn(&Fate) -> bool,
            ),
            // Half of the nine tenths that are left.
            (4300..4700, &|f: &Fate| f.fault == Some(FaultKind::Cut)),
            (2300..2700, &|f: &Fate| !f.cors),
        ] {
            let found = count(&fates_1, wanted);
            assert!(range.contains(&found), "{found} is not in {range:?}");
        }
        assert_eq!(fates_1, fates(1));
        assert_ne!(fates_1, fates(2));
    }

    #[test]
    fn every_nth_request_counts_from_one() {
        let faults: Faults = "hang=every 3".parse().unwrap();
        let struck: Vec<_> = (0..9)
            .filter(|n| faults.fate(*n, 5).fault.is_some())
            .collect();
        assert_eq!(struck, [2, 5, 8]);
    }
}
