//! What a request asks for, with the service's fallbacks: nothing that a caller writes is an error.

use std::borrow::Cow;
use std::fmt;

use crate::nation::Nat;

/// A version of the API that this server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[expect(missing_docs, reason = "a variant is the number that it prints")]
pub enum Version {
    V1_1,
    V1_2,
    V1_3,
    #[default]
    V1_4,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 4] = [Self::V1_1, Self::V1_2, Self::V1_3, Self::V1_4];

    /// As it stands in a path: `1.4`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
            Self::V1_4 => "1.4",
        }
    }

    /// The version of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The gender of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "a variant is the word that it prints")]
pub enum Gender {
    Male,
    Female,
}

impl Gender {
    /// As a record writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Male => "male",
            Self::Female => "female",
        }
    }
}

/// How a reply is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One line of JSON.
    #[default]
    Json,
    /// JSON with line breaks, two spaces deep.
    Pretty,
    /// A line per record under a dotted header, without the info block.
    Csv,
    /// The tree of the JSON reply as YAML.
    Yaml,
    /// `<user>` with a `<results>` per record.
    Xml,
}

impl Format {
    fn parse(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "pretty" | "prettyjson" => Self::Pretty,
            "csv" => Self::Csv,
            "yaml" => Self::Yaml,
            "xml" => Self::Xml,
            _ => Self::Json,
        }
    }

    /// What `Content-Type` says.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::Pretty => "application/json",
            Self::Csv => "text/csv",
            Self::Yaml => "text/x-yaml",
            Self::Xml => "text/xml",
        }
    }

    /// What a downloaded file's name ends in.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Json | Self::Pretty => "json",
            Self::Csv => "csv",
            Self::Yaml => "yaml",
            Self::Xml => "xml",
        }
    }
}

/// One of the 12 fields of a record that `inc` and `exc` choose from, in the order of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "a variant is the key that it stands for")]
pub enum Field {
    Gender,
    Name,
    Location,
    Email,
    Login,
    Dob,
    Registered,
    Phone,
    Cell,
    Id,
    Picture,
    Nat,
}

impl Field {
    const NAMES: [(Self, &'static str); 12] = [
        (Self::Gender, "gender"),
        (Self::Name, "name"),
        (Self::Location, "location"),
        (Self::Email, "email"),
        (Self::Login, "login"),
        (Self::Dob, "dob"),
        (Self::Registered, "registered"),
        (Self::Phone, "phone"),
        (Self::Cell, "cell"),
        (Self::Id, "id"),
        (Self::Picture, "picture"),
        (Self::Nat, "nat"),
    ];
}

/// A set of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields(u16);

impl Fields {
    /// All 12.
    pub const ALL: Self = Self((1 << 12) - 1);

    /// Whether `field` is shown.
    #[must_use]
    pub fn contains(self, field: Field) -> bool {
        self.0 & (1 << field as u16) != 0
    }

    /// The known names of a comma-separated list, in any case, white space trimmed.
    #[must_use]
    pub fn parse(list: &str) -> Self {
        let named = |name: &str| {
            let found = Field::NAMES
                .iter()
                .find(|(_, known)| name.eq_ignore_ascii_case(known));
            found.map_or(0, |(field, _)| 1 << *field as u16)
        };
        Self(
            list.split(',')
                .map(|name| named(name.trim()))
                .fold(0, |set, bit| set | bit),
        )
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What a password is made of, as in `password=upper,lower,8-16`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordRule {
    /// The characters to draw from; ASCII, not empty.
    pub(crate) charset: String,
    /// Shortest and longest length.
    pub(crate) length: (u8, u8),
}

impl PasswordRule {
    /// Nothing where no charset is known: the password is then a word.
    fn parse(text: &str) -> Option<Self> {
        let mut charset = String::new();
        let mut length = (8, 64);
        for part in text.split(',') {
            match part {
                "upper" => charset.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
                "lower" => charset.push_str("abcdefghijklmnopqrstuvwxyz"),
                "number" => charset.push_str("0123456789"),
                "special" => charset.push_str(" !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
                other => length = Self::length(other).unwrap_or(length),
            }
        }
        (!charset.is_empty()).then_some(Self { charset, length })
    }

    /// `12` is exactly 12, `8-16` a range; what lies outside 1..=64 falls back to 8 and 64.
    fn length(text: &str) -> Option<(u8, u8)> {
        let bound = |digits: &str, fallback: u8| {
            let number: u64 = digits.parse().ok()?;
            Some(
                u8::try_from(number)
                    .ok()
                    .filter(|n| (1..=64).contains(n))
                    .unwrap_or(fallback),
            )
        };
        let (low, high) = match text.split_once('-') {
            Some((low, high)) => (bound(low, 8)?, bound(high, 64)?),
            None => (bound(text, 8)?, bound(text, 64)?),
        };
        Some(if low <= high { (low, high) } else { (8, 64) })
    }
}

/// A request, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The version whose shapes and nationalities are used.
    pub version: Version,
    /// How many people, 1 to 5000.
    pub results: u32,
    /// Only this gender; never set where the request brings a seed.
    pub gender: Option<Gender>,
    /// The nationalities to draw from, uniformly; not empty.
    pub nats: Vec<Nat>,
    /// The request's seed, or the one that was drawn for it.
    pub seed: String,
    /// 1 to 10000; any page works at once.
    pub page: u32,
    /// The fields that a record shows.
    pub fields: Fields,
    /// How passwords are made; a common word where there is no rule.
    pub password: Option<PasswordRule>,
    /// How the reply is written.
    pub format: Format,
    /// Whether the info block follows.
    pub info: bool,
    /// The function that the JSON is wrapped into.
    pub callback: Option<String>,
    /// Whether the reply is meant to be saved as a file.
    pub download: bool,
    /// Whether the people are bricks.
    pub lego: bool,
}

impl Query {
    /// The most people in one reply.
    pub const RESULTS_MAX: u32 = 5000;
    const PAGE_MAX: u32 = 10_000;

    /// One person of `seed` with all fields, as a request without further parameters asks for.
    #[must_use]
    pub fn new(version: Version, seed: impl Into<String>) -> Self {
        Self {
            version,
            results: 1,
            gender: None,
            nats: Nat::of(version),
            seed: seed.into(),
            page: 1,
            fields: Fields::ALL,
            password: None,
            format: Format::Json,
            info: true,
            callback: None,
            download: false,
            lego: false,
        }
    }

    /// Reads a query string such as `results=50&nat=de,fr`; `drawn_seed` is used where it brings none.
    /// Of a parameter given twice the last counts, under either of its names.
    #[must_use]
    pub fn parse(version: Version, query: &str, drawn_seed: &str) -> Self {
        let mut asked = Self::new(version, drawn_seed);
        let mut seeded = false;
        let mut included = Fields::ALL;
        let mut excluded = Fields(0);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match key.as_ref() {
                "results" => asked.results = count(&value, Self::RESULTS_MAX),
                "page" => asked.page = count(&value, Self::PAGE_MAX),
                "gender" => asked.gender = gender(&value),
                "nat" | "nationality" => asked.nats = nats(&value, version),
                "seed" => {
                    seeded = !value.is_empty();
                    asked.seed = if seeded {
                        value.into_owned()
                    } else {
                        drawn_seed.to_owned()
                    };
                }
                "inc" if value.is_empty() => included = Fields::ALL,
                "inc" => included = Fields::parse(&value),
                "exc" => excluded = Fields::parse(&value),
                "password" => asked.password = PasswordRule::parse(&value),
                "format" | "fmt" => asked.format = Format::parse(&value),
                "noinfo" => asked.info = false,
                "callback" => asked.callback = Some(value.into_owned()).filter(|f| !f.is_empty()),
                "dl" | "download" => asked.download = true,
                "lego" => asked.lego = true,
                _ => {}
            }
        }
        asked.fields = included.without(excluded);
        if seeded {
            asked.gender = None;
        }
        if asked.lego {
            // A seed that an earlier brick reply stated draws the same bricks again.
            if asked.seed.chars().count() == 18 && asked.seed.ends_with(LEGO_DIGITS) {
                asked.seed.truncate(asked.seed.len() - LEGO_DIGITS.len());
            }
            asked.nats = vec![Nat::Lego];
        }
        asked
    }

    /// The seed as the info block states it: with two digits more in brick mode.
    #[must_use]
    pub fn stated_seed(&self) -> Cow<'_, str> {
        if self.lego {
            Cow::Owned(format!("{}{LEGO_DIGITS}", self.seed))
        } else {
            Cow::Borrowed(&self.seed)
        }
    }
}

/// What brick mode appends to a seed: the place after the 21 nationalities, which count from 0.
const LEGO_DIGITS: &str = "21";

/// A whole number from 1 to `max`; 1 for anything else.
fn count(text: &str, max: u32) -> u32 {
    text.parse()
        .ok()
        .filter(|n| (1..=max).contains(n))
        .unwrap_or(1)
}

fn gender(text: &str) -> Option<Gender> {
    [Gender::Male, Gender::Female]
        .into_iter()
        .find(|gender| gender.name() == text)
}

/// All nationalities where one code is unknown. Spaces are not trimmed, so `us, de` has one.
fn nats(list: &str, version: Version) -> Vec<Nat> {
    let codes = list.split(',').map(|code| Nat::parse(code, version));
    codes
        .collect::<Option<Vec<_>>>()
        .unwrap_or_else(|| Nat::of(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Query {
        Query::parse(Version::V1_4, query, "0123456789abcdef")
    }

    #[test]
    fn results_and_page_fall_back_to_one_without_a_word() {
        for (text, results, page) in [
            ("1", 1, 1),
            ("5000", 5000, 5000),
            ("5001", 1, 5001),
            ("10000", 1, 10_000),
            ("10001", 1, 1),
            ("0", 1, 1),
            ("-3", 1, 1),
            ("2.5", 1, 1),
            ("ten", 1, 1),
            ("", 1, 1),
            ("99999999999999999999", 1, 1),
        ] {
            assert_eq!(
                parse(&format!("results={text}")).results,
                results,
                "results={text}"
            );
            assert_eq!(parse(&format!("page={text}")).page, page, "page={text}");
        }
    }

    #[test]
    fn gender_counts_only_without_a_seed() {
        for (query, gender) in [
            ("gender=male", Some(Gender::Male)),
            ("gender=female", Some(Gender::Female)),
            ("gender=Male", None),
            ("gender=other", None),
            ("gender=female&seed=abc", None),
            ("seed=abc&gender=female", None),
            ("seed=&gender=female", Some(Gender::Female)),
        ] {
            assert_eq!(parse(query).gender, gender, "{query}");
        }
    }

    #[test]
    fn one_unknown_nationality_makes_the_list_void() {
        for (query, nats) in [
            ("nat=us,GB,De", vec![Nat::Us, Nat::Gb, Nat::De]),
            ("nationality=fr", vec![Nat::Fr]),
            ("nat=us,xx", Nat::ALL.to_vec()),
            ("nat=us,%20de", Nat::ALL.to_vec()),
            ("nat=us,", Nat::ALL.to_vec()),
            ("nat=", Nat::ALL.to_vec()),
            ("nat=lego", Nat::ALL.to_vec()),
            ("nat=fr&nationality=us", vec![Nat::Us]),
        ] {
            assert_eq!(parse(query).nats, nats, "{query}");
        }
        let old = Query::parse(Version::V1_3, "nat=in", "0");
        assert_eq!(old.nats, Nat::of(Version::V1_3), "India came with 1.4");
    }

    #[test]
    fn the_last_of_a_repeated_parameter_wins() {
        let asked = parse("results=2&results=9&fmt=xml&format=csv&seed=a&seed=b%20c");
        assert_eq!(
            (asked.results, asked.format, asked.seed.as_str()),
            (9, Format::Csv, "b c")
        );
    }

    #[test]
    fn inc_and_exc_choose_among_the_known_fields() {
        for (query, shown) in [
            ("inc=gender,NAME, nat", "gender,name,nat"),
            ("inc=gender,shoes", "gender"),
            ("inc=gender,nat,email&exc=nat", "gender,email"),
            (
                "exc=login,%20Picture%20",
                "gender,name,location,email,dob,registered,phone,cell,id,nat",
            ),
            ("inc=shoes", ""),
            (
                "inc=",
                "gender,name,location,email,login,dob,registered,phone,cell,id,picture,nat",
            ),
            ("inc=dob.age", ""),
        ] {
            let fields = parse(query).fields;
            let names: Vec<_> = Field::NAMES
                .iter()
                .filter(|(field, _)| fields.contains(*field))
                .map(|(_, name)| *name)
                .collect();
            assert_eq!(names.join(","), shown, "{query}");
        }
    }

    #[test]
    fn a_password_rule_has_charsets_and_a_length() {
        for (text, charset, length) in [
            ("upper", 26, (8, 64)),
            ("upper,lower,number,12", 62, (12, 12)),
            ("number,8-16", 10, (8, 16)),
            ("special,0", 33, (8, 64)),
            ("lower,65", 26, (8, 64)),
            ("lower,0-70", 26, (8, 64)),
            ("lower,20-10", 26, (8, 64)),
            ("lower,20-99", 26, (20, 64)),
            ("lower,x", 26, (8, 64)),
            ("lower,1", 26, (1, 1)),
        ] {
            let rule = PasswordRule::parse(text).unwrap();
            assert_eq!(
                (rule.charset.len(), rule.length),
                (charset, length),
                "{text}"
            );
        }
        for text in ["", "12", "words,12", "UPPER"] {
            assert_eq!(PasswordRule::parse(text), None, "{text}: a dictionary word");
        }
    }

    #[test]
    fn flags_count_by_being_there() {
        let asked = parse("noinfo=false&dl&lego&callback=show&format=nonsense");
        assert!(!asked.info && asked.download && asked.lego);
        assert_eq!(asked.callback.as_deref(), Some("show"));
        assert_eq!(asked.format, Format::Json);
        assert_eq!(asked.nats, [Nat::Lego]);
        let plain = parse("");
        assert!(plain.info && !plain.download && !plain.lego && plain.callback.is_none());
        for (name, format) in [
            ("pretty", Format::Pretty),
            ("prettyjson", Format::Pretty),
            ("yaml", Format::Yaml),
        ] {
            assert_eq!(parse(&format!("fmt={name}")).format, format);
        }
    }

    #[test]
    fn a_brick_seed_is_stated_with_two_digits_more_and_can_be_used_again() {
        let first = parse("lego");
        assert_eq!(first.stated_seed(), "0123456789abcdef21");
        let again = parse(&format!("lego&seed={}", first.stated_seed()));
        assert_eq!(again.seed, first.seed);
        assert_eq!(
            parse("seed=012345678901234521").stated_seed(),
            "012345678901234521"
        );
        assert_eq!(parse("").stated_seed(), "0123456789abcdef");
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        assert_eq!(parse("seed=%ff%fe").seed, "\u{fffd}\u{fffd}");
        assert_eq!(parse("&&=&%&results=3&%zz=1").results, 3);
    }
}
