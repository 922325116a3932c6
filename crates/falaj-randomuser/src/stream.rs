//! Numbers that look random and are the same on every machine.
//!
//! A person's stream depends on seed, page and index alone. It is no source of secrets.

use md5::{Digest, Md5};

/// What a seed and a page boil down to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    high: u64,
    low: u64,
}

impl Key {
    /// The key of `page` of `seed`: page 1 is the bare seed, page P that of the seed followed by P.
    pub fn of(seed: &str, page: u32) -> Self {
        let mut hash = Md5::new();
        hash.update(seed);
        if page != 1 {
            hash.update(page.to_string());
        }
        let digest = hash.finalize();
        let word = |at: usize| {
            digest[at..at + 8]
                .iter()
                .fold(0, |word, byte| (word << 8) | u64::from(*byte))
        };
        Self {
            high: word(0),
            low: word(8),
        }
    }
}

/// One person's numbers (`SplitMix64`: small, quick, well spread from any start).
#[derive(Debug)]
pub(crate) struct Stream(u64);

/// 2^64 divided by the golden ratio: the step of `SplitMix64`.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Stream {
    /// The stream of the person at `index`.
    pub fn of(key: Key, index: u64) -> Self {
        Self(mix(key.high ^ mix(key.low ^ mix(index.wrapping_add(STEP)))))
    }

    /// The stream of one named field of the person at `index`, apart from all others.
    pub fn of_field(key: Key, index: u64, field: &str) -> Self {
        let name = field
            .bytes()
            .fold(STEP, |state, byte| mix(state ^ u64::from(byte)));
        Self(mix(Self::of(key, index).0 ^ name))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        scramble(self.0)
    }

    /// A number from 0 to `bound - 1`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low.wrapping_add_unsigned(self.below(high.abs_diff(low) + 1))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the bound came from a length in memory"
    )]
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// `mask` with a digit for every `#` and a capital letter for every `A`.
    pub fn fill(&mut self, mask: &str) -> String {
        mask.chars()
            .map(|c| match c {
                '#' => self.digit(),
                'A' => self.one_of(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
                other => other,
            })
            .collect()
    }

    /// One character of an ASCII set.
    pub fn one_of(&mut self, set: &[u8]) -> char {
        char::from(*self.pick(set))
    }

    pub fn digit(&mut self) -> char {
        self.one_of(b"0123456789")
    }
}

/// A mixing step: every bit of the input moves about half of the bits of the output.
pub(crate) fn mix(word: u64) -> u64 {
    scramble(word.wrapping_add(STEP))
}

fn scramble(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The seed that a server started with `seed` gives to its request number `request` (from 0) when the
/// request brings none: 16 hex digits. A test can so name the people that a run has seen.
#[must_use]
pub fn drawn_seed(seed: u64, request: u64) -> String {
    format!("{:016x}", mix(seed ^ mix(request)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_page_one_of_the_seed_followed_by_its_number() {
        let numbers = |seed, page| {
            let mut stream = Stream::of(Key::of(seed, page), 7);
            [stream.next(), stream.next()]
        };
        assert_eq!(numbers("abc", 12), numbers("abc12", 1));
        assert_ne!(numbers("abc", 1), numbers("abc1", 1));
        assert_ne!(numbers("abc", 1), numbers("abc", 2));
    }

    #[test]
    fn every_value_of_a_range_comes_up_about_equally_often() {
        let mut stream = Stream::of(Key::of("range", 1), 0);
        let mut counts = [0_u32; 21];
        for _ in 0..210_000 {
            counts[usize::try_from(stream.between(-10, 10) + 10).unwrap()] += 1;
        }
        assert!(
            counts.iter().all(|count| (9_500..10_500).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_mask_keeps_its_marks_and_replaces_digits_and_letters() {
        let filled = Stream::of(Key::of("mask", 1), 0).fill("(0##) A##-#");
        let shape: String = filled
            .chars()
            .enumerate()
            .map(|(at, c)| match c {
                '0' if at == 1 => '0',
                c if c.is_ascii_digit() => '#',
                c if c.is_ascii_uppercase() => 'A',
                c => c,
            })
            .collect();
        assert_eq!(shape, "(0##) A##-#");
    }

    #[test]
    fn drawn_seeds_are_sixteen_hex_digits_and_differ_by_request() {
        let seeds: std::collections::HashSet<_> = (0..1000).map(|n| drawn_seed(1, n)).collect();
        assert_eq!(seeds.len(), 1000);
        for seed in seeds {
            assert!(
                seed.len() == 16 && seed.bytes().all(|b| b.is_ascii_hexdigit()),
                "{seed}"
            );
        }
    }
}
