use std::fmt;
use std::str::FromStr;

use crate::error::RandomUserError;
use crate::stream::Stream;

/// The domains that e-mail addresses end in, each as often as its weight says.
///
/// The default is the real service's: `example.com` alone. Any other list is synthetic, and whoever
/// shows numbers from it says so. Written `gmail.com=30,example.com=20`; without a weight it is 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domains {
    /// Each domain with the sum of the weights up to it; never empty, sums rise.
    sums: Vec<(String, u64)>,
}

impl Domains {
    /// A list of domains with their weights.
    ///
    /// # Errors
    /// Where the list is empty, a weight is 0, or a domain is empty or holds `@`, `=`, `,` or white space.
    pub fn new<'a>(
        list: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> Result<Self, RandomUserError> {
        let mut sums = Vec::new();
        let mut sum = 0;
        for (domain, weight) in list {
            let wrong = |cause| {
                Err(RandomUserError::Domain {
                    part: domain.to_owned(),
                    cause,
                })
            };
            if domain.is_empty() {
                return wrong("there is no domain");
            }
            if domain.contains(|c: char| c.is_whitespace() || c.is_control() || "@=,".contains(c)) {
                return wrong("a domain holds no `@`, `=`, `,` and no white space");
            }
            if weight == 0 {
                return wrong("its weight is 0");
            }
            sum += u64::from(weight);
            sums.push((domain.to_owned(), sum));
        }
        if sums.is_empty() {
            return Err(RandomUserError::Domain {
                part: String::new(),
                cause: "the list is empty",
            });
        }
        Ok(Self { sums })
    }

    pub(crate) fn pick(&self, stream: &mut Stream) -> &str {
        let total = self.sums.last().map_or(1, |(_, sum)| *sum);
        let point = stream.below(total);
        let index = self.sums.partition_point(|(_, sum)| *sum <= point);
        &self.sums[index].0
    }
}

impl Default for Domains {
    fn default() -> Self {
        Self {
            sums: vec![("example.com".to_owned(), 1)],
        }
    }
}

impl FromStr for Domains {
    type Err = RandomUserError;

    fn from_str(text: &str) -> Result<Self, RandomUserError> {
        let mut list = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (domain, weight) = part.split_once('=').unwrap_or((part, "1"));
            let weight = weight.trim().parse().map_err(|_| RandomUserError::Domain {
                part: part.to_owned(),
                cause: "its weight is not a whole number",
            })?;
            list.push((domain.trim(), weight));
        }
        Self::new(list)
    }
}

impl fmt::Display for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = 0;
        for (at, (domain, sum)) in self.sums.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{domain}={}", sum - before)?;
            before = *sum;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::stream::Key;

    #[test]
    fn domains_come_up_as_often_as_their_weights_say() {
        let domains: Domains = "gmail.com=3, example.com=1,bücher.example=4"
            .parse()
            .unwrap();
        let mut counts = HashMap::new();
        let mut stream = Stream::of(Key::of("domains", 1), 0);
        for _ in 0..80_000 {
            *counts.entry(domains.pick(&mut stream)).or_insert(0) += 1;
        }
        for (domain, about) in [
            ("gmail.com", 30_000),
            ("example.com", 10_000),
            ("bücher.example", 40_000),
        ] {
            assert!(
                (about - 1000..about + 1000).contains(&counts[domain]),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn a_list_prints_as_it_can_be_read() {
        for (text, printed) in [
            ("a.org", "a.org=1"),
            (" a.org = 2 , b.org", "a.org=2,b.org=1"),
        ] {
            assert_eq!(text.parse::<Domains>().unwrap().to_string(), printed);
        }
        assert_eq!(Domains::default().to_string(), "example.com=1");
    }

    #[test]
    fn a_list_that_cannot_be_drawn_from_is_refused() {
        for text in [
            "", "a.org,", "=3", "a.org=0", "a.org=-1", "a.org=x", "a@b.org", "a b.org",
        ] {
            assert!(text.parse::<Domains>().is_err(), "{text:?}");
        }
    }
}
