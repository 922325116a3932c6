//! The nationalities and their lists of names and places, read from `nations/*.txt`.
//!
//! Always: every list was written for this project, is not empty, and each name has an ASCII form.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::query::Version;

/// A nationality, as `nat` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "a variant is the country code that it prints")]
pub enum Nat {
    Au,
    Br,
    Ca,
    Ch,
    De,
    Dk,
    Es,
    Fi,
    Fr,
    Gb,
    Ie,
    In,
    Ir,
    Mx,
    Nl,
    No,
    Nz,
    Rs,
    Tr,
    Ua,
    Us,
    /// Only by the `lego` flag, never by chance.
    Lego,
}

impl Nat {
    /// The 21 nationalities of version 1.4, by code.
    pub const ALL: [Self; 21] = [
        Self::Au,
        Self::Br,
        Self::Ca,
        Self::Ch,
        Self::De,
        Self::Dk,
        Self::Es,
        Self::Fi,
        Self::Fr,
        Self::Gb,
        Self::Ie,
        Self::In,
        Self::Ir,
        Self::Mx,
        Self::Nl,
        Self::No,
        Self::Nz,
        Self::Rs,
        Self::Tr,
        Self::Ua,
        Self::Us,
    ];

    /// The code that a record carries, as in `"nat":"GB"`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Lego => "LEGO",
            drawn => SOURCES[drawn as usize].0,
        }
    }

    /// The nationalities that `version` draws from: 16, 17 from 1.2 on, 21 in 1.4.
    #[must_use]
    pub fn of(version: Version) -> Vec<Self> {
        Self::ALL
            .into_iter()
            .filter(|nat| nat.since() <= version)
            .collect()
    }

    /// The nationality of a code in any case, where `version` has it.
    #[must_use]
    pub fn parse(code: &str, version: Version) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|nat| nat.code().eq_ignore_ascii_case(code) && nat.since() <= version)
    }

    fn since(self) -> Version {
        match self {
            Self::In | Self::Mx | Self::Rs | Self::Ua => Version::V1_4,
            Self::No => Version::V1_2,
            _ => Version::V1_1,
        }
    }

    /// The lists to draw from. Bricks borrow those of the United States.
    pub(crate) fn lists(self) -> &'static Nation {
        let index = if self == Self::Lego { Self::Us } else { self } as usize;
        &NATIONS[index]
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// In the order of [`Nat`].
const SOURCES: [(&str, &str); 21] = [
    ("AU", include_str!("../nations/AU.txt")),
    ("BR", include_str!("../nations/BR.txt")),
    ("CA", include_str!("../nations/CA.txt")),
    ("CH", include_str!("../nations/CH.txt")),
    ("DE", include_str!("../nations/DE.txt")),
    ("DK", include_str!("../nations/DK.txt")),
    ("ES", include_str!("../nations/ES.txt")),
    ("FI", include_str!("../nations/FI.txt")),
    ("FR", include_str!("../nations/FR.txt")),
    ("GB", include_str!("../nations/GB.txt")),
    ("IE", include_str!("../nations/IE.txt")),
    ("IN", include_str!("../nations/IN.txt")),
    ("IR", include_str!("../nations/IR.txt")),
    ("MX", include_str!("../nations/MX.txt")),
    ("NL", include_str!("../nations/NL.txt")),
    ("NO", include_str!("../nations/NO.txt")),
    ("NZ", include_str!("../nations/NZ.txt")),
    ("RS", include_str!("../nations/RS.txt")),
    ("TR", include_str!("../nations/TR.txt")),
    ("UA", include_str!("../nations/UA.txt")),
    ("US", include_str!("../nations/US.txt")),
];

static NATIONS: LazyLock<Vec<Nation>> =
    LazyLock::new(|| SOURCES.iter().map(|(_, text)| Nation::read(text)).collect());

/// What a nationality's people are made of.
#[derive(Debug)]
pub(crate) struct Nation {
    pub country: Name,
    pub women: Vec<Name>,
    pub men: Vec<Name>,
    pub last: Vec<Name>,
    pub cities: Vec<Name>,
    pub states: Vec<Name>,
    pub streets: Vec<Name>,
}

impl Nation {
    /// Reads `key: entry, entry, ..`; a line that begins with white space goes on with the one before.
    fn read(text: &'static str) -> Self {
        let list = |key: &str| -> Vec<Name> {
            let mut inside = false;
            text.lines()
                .filter_map(|line| {
                    if line.starts_with(char::is_whitespace) {
                        return inside.then_some(line);
                    }
                    let entries = line
                        .strip_prefix(key)
                        .and_then(|rest| rest.strip_prefix(':'));
                    inside = entries.is_some();
                    entries
                })
                .flat_map(|line| line.split(','))
                .map(str::trim)
                .filter(|entry| !entry.is_empty())
                .map(Name::of)
                .collect()
        };
        Self {
            country: list("country").remove(0),
            women: list("women"),
            men: list("men"),
            last: list("last"),
            cities: list("cities"),
            states: list("states"),
            streets: list("streets"),
        }
    }
}

/// A name with the forms that the versions need.
#[derive(Debug)]
pub(crate) struct Name {
    text: &'static str,
    /// Versions 1.1 and 1.2 write lower case.
    lower: String,
    /// Lower case without spaces, for a raw e-mail address.
    joined: String,
    /// The same in ASCII, for an address of 1.3 and later.
    ascii: String,
}

impl Name {
    fn of(text: &'static str) -> Self {
        let lower = text.to_lowercase();
        Self {
            text,
            joined: lower.replace(' ', ""),
            ascii: ascii(&lower),
            lower,
        }
    }

    /// As `version` shows it: lower case until 1.2.
    pub fn shown(&'static self, version: Version) -> Cow<'static, str> {
        Cow::Borrowed(if version >= Version::V1_3 {
            self.text
        } else {
            &self.lower
        })
    }

    /// As `version` puts it into an e-mail address: ASCII from 1.3 on.
    pub fn in_address(&self, version: Version) -> &str {
        if version >= Version::V1_3 {
            &self.ascii
        } else {
            &self.joined
        }
    }
}

/// The letters of `lower` that an address may have: `a-z`, `'`, `-`. Diacritics fall off, Persian is
/// written by its consonants, spaces disappear.
fn ascii(lower: &str) -> String {
    let mut plain = String::with_capacity(lower.len());
    // A long alef is heard; decomposed, it could not be told from the silent one.
    let spelled = lower.replace('آ', "a");
    for c in spelled.nfkd().filter(|c| !is_combining_mark(*c)) {
        match c {
            'a'..='z' | '\'' | '-' => plain.push(c),
            other => plain.push_str(latin(other)),
        }
    }
    plain
}

/// Letters that do not come apart into a base letter and a mark.
fn latin(letter: char) -> &'static str {
    match letter {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'đ' | 'ð' | 'د' => "d",
        'ł' | 'ل' => "l",
        'ı' => "i",
        'þ' | 'ث' => "th",
        'ع' => "a",
        'ب' => "b",
        'پ' => "p",
        'ت' | 'ط' => "t",
        'ج' => "j",
        'چ' => "ch",
        'ح' | 'ه' => "h",
        'خ' => "kh",
        'ذ' | 'ز' | 'ض' | 'ظ' => "z",
        'ر' => "r",
        'ژ' => "zh",
        'س' | 'ص' => "s",
        'ش' => "sh",
        'غ' => "gh",
        'ف' => "f",
        'ق' => "q",
        'ک' | 'ك' => "k",
        'گ' => "g",
        'م' => "m",
        'ن' => "n",
        'و' => "w",
        'ی' | 'ي' => "y",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nationality_has_enough_names_and_the_awkward_ones() {
        for nat in Nat::ALL {
            let lists = nat.lists();
            assert!(
                lists.women.len() >= 25 && lists.men.len() >= 25,
                "{nat}: first names"
            );
            assert!(lists.last.len() >= 30, "{nat}: last names");
            assert!(
                lists.cities.len() >= 10 && lists.streets.len() >= 10,
                "{nat}: places"
            );
            assert!(lists.states.len() >= 5, "{nat}: states");
            let names = || lists.women.iter().chain(&lists.men).chain(&lists.last);
            assert!(
                names().any(|name| !name.text.is_ascii()),
                "{nat}: a non-ASCII name"
            );
            assert!(
                names().any(|name| name.text.contains(' ')),
                "{nat}: a name with a space"
            );
            assert!(
                names().any(|name| name.text.contains('\'')),
                "{nat}: a name with an apostrophe"
            );
        }
    }

    #[test]
    fn every_name_has_an_ascii_form_for_an_address() {
        for nat in Nat::ALL {
            let lists = nat.lists();
            for name in lists.women.iter().chain(&lists.men).chain(&lists.last) {
                let ascii = &name.ascii;
                assert!(!ascii.is_empty(), "{}", name.text);
                assert!(
                    ascii
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b == b'\'' || b == b'-'),
                    "{} -> {ascii}",
                    name.text
                );
                assert!(!name.joined.contains(' '), "{}", name.text);
            }
        }
    }

    #[test]
    fn transliteration_keeps_apostrophes_and_hyphens_and_drops_the_rest() {
        for (name, address) in [
            ("Éloïse", "eloise"),
            ("van 't Hoff", "van'thoff"),
            ("Yli-Anttila", "yli-anttila"),
            ("Großkopf", "grosskopf"),
            ("Işık", "isik"),
            ("Đorđe", "dorde"),
            ("Kjær", "kjaer"),
            ("Ødegård", "odegard"),
            ("قائم'مقامی", "qym'mqmy"),
            ("آرش", "arsh"),
            ("St. Louis", "stlouis"),
        ] {
            assert_eq!(ascii(&name.to_lowercase()), address, "{name}");
        }
    }

    #[test]
    fn the_versions_grew_from_16_to_21_nationalities() {
        for (version, count) in [
            (Version::V1_1, 16),
            (Version::V1_2, 17),
            (Version::V1_3, 17),
            (Version::V1_4, 21),
        ] {
            assert_eq!(Nat::of(version).len(), count, "{version}");
        }
        assert_eq!(Nat::parse("in", Version::V1_3), None);
        assert_eq!(Nat::parse("iN", Version::V1_4), Some(Nat::In));
        assert_eq!(
            Nat::parse("lego", Version::V1_4),
            None,
            "bricks come by their own flag"
        );
        assert!(
            Nat::ALL
                .windows(2)
                .all(|pair| pair[0].code() < pair[1].code())
        );
    }

    #[test]
    fn iran_writes_persian_and_ukraine_serbia_and_india_write_latin() {
        let persian = |name: &Name| {
            name.text
                .chars()
                .any(|c| ('\u{600}'..='\u{6ff}').contains(&c))
        };
        let iran = Nat::Ir.lists();
        for list in [
            &iran.women,
            &iran.men,
            &iran.last,
            &iran.cities,
            &iran.states,
            &iran.streets,
        ] {
            assert!(list.iter().all(persian));
        }
        for nat in [Nat::Ua, Nat::Rs, Nat::In] {
            assert!(!nat.lists().last.iter().any(persian), "{nat}");
        }
        assert_eq!(iran.country.text, "Iran");
    }
}
