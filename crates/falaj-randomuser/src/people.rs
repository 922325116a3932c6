//! Drawing people: each from a stream of its own, in one fixed order of draws.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use crate::canary;
use crate::domains::Domains;
use crate::forms::{Holder, Postcode, cell, identity, phone, postcode};
use crate::nation::Nat;
use crate::query::{Gender, Query, Version};
use crate::stream::{Key, Stream};
use crate::time::{Civil, millis};
use crate::words::{ADJECTIVES, ANIMALS, PASSWORDS, TIME_ZONES};

/// What the caller, not the request, decides about the people.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where e-mail addresses end.
    pub domains: Domains,
    /// Whether every field but `nat`, `gender` and `dob.age` carries a token of its own; see
    /// [`canaries`](crate::canaries).
    pub canary: bool,
}

/// An invented person. What it holds is read by writing it out: [`render`](crate::render).
pub struct Person {
    pub(crate) gender: Gender,
    pub(crate) nat: Nat,
    pub(crate) title: Cow<'static, str>,
    pub(crate) first: Cow<'static, str>,
    pub(crate) last: Cow<'static, str>,
    pub(crate) street_number: i64,
    pub(crate) street: Cow<'static, str>,
    pub(crate) city: Cow<'static, str>,
    pub(crate) state: Cow<'static, str>,
    pub(crate) country: Cow<'static, str>,
    pub(crate) postcode: Postcode,
    pub(crate) latitude: String,
    pub(crate) longitude: String,
    pub(crate) offset: Cow<'static, str>,
    pub(crate) zone: Cow<'static, str>,
    pub(crate) email: String,
    pub(crate) uuid: String,
    pub(crate) username: String,
    pub(crate) password: Cow<'static, str>,
    pub(crate) salt: String,
    /// Milliseconds since 1970.
    pub(crate) born_ms: i64,
    pub(crate) age: i64,
    pub(crate) registered_ms: i64,
    pub(crate) registered_age: i64,
    pub(crate) phone: String,
    pub(crate) cell: String,
    pub(crate) id_name: Cow<'static, str>,
    pub(crate) id_value: Option<String>,
    /// The numbers of the large, the medium and the thumbnail picture.
    pub(crate) pictures: [i64; 3],
}

impl Person {
    /// The nationality.
    #[must_use]
    pub fn nat(&self) -> Nat {
        self.nat
    }

    /// The gender.
    #[must_use]
    pub fn gender(&self) -> Gender {
        self.gender
    }

    /// The age that `dob.age` states, in years.
    #[must_use]
    pub fn age(&self) -> i64 {
        self.age
    }

    /// What follows the `@` of the e-mail address.
    #[must_use]
    pub fn email_domain(&self) -> &str {
        self.email.rsplit('@').next().unwrap_or_default()
    }
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Person(redacted)")
    }
}

/// The people that `query` asks for; their ages are counted to `now`.
#[must_use]
pub fn people(query: &Query, options: &Options, now: SystemTime) -> Vec<Person> {
    let draw = Draw::new(query, options, now);
    (0..u64::from(query.results))
        .map(|index| draw.person(index))
        .collect()
}

/// Everything that is the same for all people of a query.
pub(crate) struct Draw<'a> {
    query: &'a Query,
    options: &'a Options,
    key: Key,
    now: Civil,
}

/// Nobody was born or registered before these moments (milliseconds since 1970).
const BORN_MIN_MS: i64 = -800_000_000_000;
const REGISTERED_MIN_MS: i64 = 1_016_688_461_000;
/// The youngest are 21 years of 365 days younger than the version's constant moment.
const YOUNGEST_MS: i64 = 21 * 365 * 86_400_000;

/// The moment that a version's dates end at: nobody registered later.
fn end_ms(version: Version) -> i64 {
    match version {
        Version::V1_1 => 1_471_219_200_000, // 2016-08-15
        Version::V1_2 => 1_529_193_600_000, // 2018-06-17
        Version::V1_3 => 1_569_369_600_000, // 2019-09-25
        Version::V1_4 => 1_653_344_189_000, // 2022-05-23T22:16:29Z
    }
}

const ALPHANUMERIC: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl<'a> Draw<'a> {
    pub fn new(query: &'a Query, options: &'a Options, now: SystemTime) -> Self {
        Self {
            query,
            options,
            key: Key::of(&query.seed, query.page),
            now: Civil::of(millis(now)),
        }
    }

    pub fn person(&self, index: u64) -> Person {
        let version = self.query.version;
        let stream = &mut Stream::of(self.key, index);
        let nat = *stream.pick(&self.query.nats);
        let drawn = *stream.pick(&[Gender::Male, Gender::Female]);
        let gender = self.query.gender.unwrap_or(drawn);
        let lists = nat.lists();
        let first = stream.pick(match gender {
            Gender::Male => &lists.men,
            Gender::Female => &lists.women,
        });
        let last = stream.pick(&lists.last);
        let (born_ms, registered_ms) = (
            stream.between(BORN_MIN_MS, end_ms(version) - YOUNGEST_MS),
            stream.between(REGISTERED_MIN_MS, end_ms(version)),
        );
        let born = Civil::of(born_ms);
        let holder = Holder {
            nat,
            gender,
            born,
            last: last.in_address(Version::V1_4),
        };
        let (id_name, id_value) = identity(&holder, version, stream);
        let (offset, zone) = *stream.pick(&TIME_ZONES);
        let domain = self.options.domains.pick(stream);
        let mut person = Person {
            gender,
            nat,
            title: Cow::Borrowed(title(nat, gender, version, stream)),
            first: first.shown(version),
            last: last.shown(version),
            street_number: stream.between(1, 9999),
            street: stream.pick(&lists.streets).shown(version),
            city: stream.pick(&lists.cities).shown(version),
            state: stream.pick(&lists.states).shown(version),
            country: lists.country.shown(version),
            postcode: postcode(nat, version, stream),
            latitude: degrees(stream.between(-900_000, 900_000)),
            longitude: degrees(stream.between(-1_800_000, 1_800_000)),
            offset: Cow::Borrowed(offset),
            zone: Cow::Borrowed(zone),
            email: format!(
                "{}.{}@{domain}",
                first.in_address(version),
                last.in_address(version)
            ),
            uuid: uuid(stream),
            username: username(stream),
            password: self.password(stream),
            salt: (0..8).map(|_| stream.one_of(ALPHANUMERIC)).collect(),
            born_ms,
            age: self.age(born),
            registered_ms,
            registered_age: self.age(Civil::of(registered_ms)),
            phone: phone(nat, version, stream),
            cell: cell(nat, version, stream),
            id_name: Cow::Borrowed(id_name),
            id_value,
            pictures: [portrait(nat, gender, stream); 3],
        };
        if self.options.canary {
            canary::mark(&mut person, self.key, index, domain);
        }
        person
    }

    pub fn key(&self) -> Key {
        self.key
    }

    /// Version 1.3 takes the difference of the years, the others count full ones.
    fn age(&self, since: Civil) -> i64 {
        if self.query.version == Version::V1_3 {
            since.year_difference(self.now)
        } else {
            since.full_years(self.now)
        }
    }

    fn password(&self, stream: &mut Stream) -> Cow<'static, str> {
        let Some(rule) = &self.query.password else {
            return Cow::Borrowed(*stream.pick(&PASSWORDS));
        };
        let (low, high) = rule.length;
        let length = stream.between(low.into(), high.into());
        Cow::Owned(
            (0..length)
                .map(|_| stream.one_of(rule.charset.as_bytes()))
                .collect(),
        )
    }
}

fn title(nat: Nat, gender: Gender, version: Version, stream: &mut Stream) -> &'static str {
    let titles: &[(&str, &str)] = match (nat, gender) {
        (Nat::Ch, Gender::Male) => &[("Monsieur", "monsieur")],
        (Nat::Ch, Gender::Female) => &[("Madame", "madame"), ("Mademoiselle", "mademoiselle")],
        (_, Gender::Male) => &[("Mr", "mr")],
        (_, Gender::Female) => &[("Miss", "miss"), ("Mrs", "mrs"), ("Ms", "ms")],
    };
    let (proper, lower) = *stream.pick(titles);
    if version >= Version::V1_3 {
        proper
    } else {
        lower
    }
}

/// Ten-thousandths of a degree as text with four decimals.
fn degrees(ten_thousandths: i64) -> String {
    let sign = if ten_thousandths < 0 { "-" } else { "" };
    let size = ten_thousandths.abs();
    format!("{sign}{}.{:04}", size / 10_000, size % 10_000)
}

/// A UUID of version 4.
pub(crate) fn uuid(stream: &mut Stream) -> String {
    let (high, low) = (stream.next(), stream.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

fn username(stream: &mut Stream) -> String {
    let (adjective, animal) = (*stream.pick(&ADJECTIVES), *stream.pick(&ANIMALS));
    format!("{adjective}{animal}{}", stream.between(100, 999))
}

/// There are 100 portraits of men, 97 of women and 10 of bricks.
fn portrait(nat: Nat, gender: Gender, stream: &mut Stream) -> i64 {
    let count = match (nat, gender) {
        (Nat::Lego, _) => 10,
        (_, Gender::Male) => 100,
        (_, Gender::Female) => 97,
    };
    stream.between(0, count - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// 2026-11-15, the month that the reference states the ages for.
    fn november_2026() -> SystemTime {
        UNIX_EPOCH + Duration::from_hours(24 * 20_772)
    }

    fn ask(query: &str) -> Vec<Person> {
        let query = Query::parse(Version::V1_4, query, "0123456789abcdef");
        people(&query, &Options::default(), november_2026())
    }

    #[test]
    fn nationalities_and_genders_are_drawn_uniformly() {
        let people = ask("results=5000");
        let mut counts = HashMap::new();
        for person in &people {
            *counts.entry(person.nat.code()).or_insert(0_u32) += 1;
        }
        // 5000 / 21 = 238, standard deviation 15.
        assert_eq!(counts.len(), 21);
        assert!(
            counts.values().all(|count| (170..310).contains(count)),
            "{counts:?}"
        );
        let women = people.iter().filter(|p| p.gender == Gender::Female).count();
        assert!((2350..2650).contains(&women), "{women}");
    }

    #[test]
    fn a_gender_or_a_nationality_that_is_asked_for_is_given() {
        assert!(
            ask("results=300&gender=female")
                .iter()
                .all(|p| p.gender == Gender::Female)
        );
        let codes: HashSet<_> = ask("results=300&nat=de,fr")
            .iter()
            .map(|p| p.nat.code())
            .collect();
        assert_eq!(codes, HashSet::from(["DE", "FR"]));
        let genders = ask("results=300&gender=female&seed=abc");
        assert!(
            genders.iter().any(|p| p.gender == Gender::Male),
            "ignored beside a seed"
        );
    }

    #[test]
    fn ages_in_november_2026_are_25_to_82_with_the_mean_of_the_reference() {
        let people = ask("results=5000");
        let ages = people.iter().map(|p| i32::try_from(p.age).unwrap());
        let mean = ages.clone().map(f64::from).sum::<f64>() / 5000.0;
        let variance = ages
            .clone()
            .map(|age| (f64::from(age) - mean).powi(2))
            .sum::<f64>()
            / 5000.0;
        let deviation = variance.sqrt();
        assert!((52.4..54.4).contains(&mean), "{mean}");
        assert!((15.7..17.1).contains(&deviation), "{deviation}");
        assert_eq!((ages.clone().min(), ages.max()), (Some(25), Some(82)));
    }

    #[test]
    fn version_1_3_counts_years_by_difference_and_others_in_full() {
        for (version, month, age) in [
            (Version::V1_2, 12, 35),
            (Version::V1_3, 12, 36),
            (Version::V1_4, 12, 35),
            (Version::V1_2, 10, 36),
            (Version::V1_3, 10, 36),
            (Version::V1_4, 10, 36),
        ] {
            let (query, options) = (Query::new(version, "x"), Options::default());
            let born = Civil {
                year: 1990,
                month,
                day: 1,
                time_ms: 0,
            };
            let counted = Draw::new(&query, &options, november_2026()).age(born);
            assert_eq!(counted, age, "{version}, born in month {month}");
        }
    }

    #[test]
    fn addresses_are_ascii_from_1_3_on_and_raw_before() {
        for version in Version::ALL {
            let query = Query {
                results: 3000,
                ..Query::new(version, "addresses")
            };
            let people = people(&query, &Options::default(), november_2026());
            let raw = people.iter().filter(|p| !p.email.is_ascii()).count();
            assert_eq!(
                raw > 100,
                version < Version::V1_3,
                "{version}: {raw} not ASCII"
            );
            for person in people {
                let local = person
                    .email
                    .strip_suffix("@example.com")
                    .expect("the only domain");
                let allowed = |c: char| c.is_ascii_lowercase() || "'.-".contains(c);
                assert!(
                    version < Version::V1_3 || local.chars().all(allowed),
                    "{version}"
                );
                assert!(!local.contains(' ') && local.contains('.'), "{version}");
            }
        }
    }

    #[test]
    fn names_and_places_are_lower_case_until_1_2() {
        for version in Version::ALL {
            let query = Query {
                results: 500,
                ..Query::new(version, "case")
            };
            for person in people(&query, &Options::default(), november_2026()) {
                for text in [
                    &person.title,
                    &person.first,
                    &person.last,
                    &person.city,
                    &person.state,
                ] {
                    let lower = **text == text.to_lowercase();
                    assert!(lower || version >= Version::V1_3, "{version}");
                }
                let title_is_proper = person.title.starts_with(char::is_uppercase);
                assert_eq!(title_is_proper, version >= Version::V1_3, "{version}");
            }
        }
    }

    #[test]
    fn women_have_three_titles_and_the_swiss_have_french_ones() {
        let titles = |query: &str| {
            let mut titles: Vec<_> = ask(query).into_iter().map(|p| p.title).collect();
            titles.sort_unstable();
            titles.dedup();
            titles
        };
        assert_eq!(titles("results=200&nat=fr"), ["Miss", "Mr", "Mrs", "Ms"]);
        assert_eq!(
            titles("results=200&nat=ch"),
            ["Madame", "Mademoiselle", "Monsieur"]
        );
    }

    #[test]
    fn dates_stay_inside_the_versions_limits() {
        for version in Version::ALL {
            let query = Query {
                results: 5000,
                ..Query::new(version, "dates")
            };
            for person in people(&query, &Options::default(), november_2026()) {
                assert!((BORN_MIN_MS..=end_ms(version) - YOUNGEST_MS).contains(&person.born_ms));
                assert!((REGISTERED_MIN_MS..=end_ms(version)).contains(&person.registered_ms));
            }
        }
        assert_eq!(
            Civil::of(end_ms(Version::V1_1)).text(' '),
            "2016-08-15 00:00:00"
        );
        assert_eq!(
            Civil::of(end_ms(Version::V1_2)).text(' '),
            "2018-06-17 00:00:00"
        );
        assert_eq!(
            Civil::of(end_ms(Version::V1_3)).text(' '),
            "2019-09-25 00:00:00"
        );
    }

    #[test]
    fn coordinates_have_four_decimals_and_a_sign_below_zero() {
        for (number, text) in [
            (0, "0.0000"),
            (-1, "-0.0001"),
            (900_000, "90.0000"),
            (-1_713_018, "-171.3018"),
        ] {
            assert_eq!(degrees(number), text);
        }
    }

    #[test]
    fn passwords_follow_the_rule_or_are_a_word() {
        for person in ask("results=200&password=number,special,5-9") {
            assert!((5..=9).contains(&person.password.len()));
            assert!(!person.password.contains(char::is_alphabetic));
        }
        for person in ask("results=50") {
            assert!(PASSWORDS.contains(&&*person.password));
        }
    }

    #[test]
    fn login_names_and_uuids_have_their_forms() {
        for person in ask("results=500") {
            let digits = person
                .username
                .trim_start_matches(|c: char| c.is_ascii_lowercase());
            assert!(digits.len() == 3 && !digits.starts_with('0') && digits.parse::<u16>().is_ok());
            let parts: Vec<_> = person.uuid.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12]);
            assert_eq!(person.uuid.as_bytes()[14], b'4');
            assert!(b"89ab".contains(&person.uuid.as_bytes()[19]));
        }
    }

    #[test]
    fn time_zones_are_thirty_and_never_plus_twelve() {
        let offsets: HashSet<_> = ask("results=3000").into_iter().map(|p| p.offset).collect();
        assert_eq!(offsets.len(), 30);
        assert!(!offsets.contains("+12:00") && offsets.contains("0:00"));
    }

    #[test]
    fn a_weighted_domain_changes_nothing_else() {
        let query = Query {
            results: 50,
            ..Query::new(Version::V1_4, "same")
        };
        let options = Options {
            domains: "a.org=1,b.org=1".parse().unwrap(),
            canary: false,
        };
        let plain = people(&query, &Options::default(), november_2026());
        let other = people(&query, &options, november_2026());
        let domains: HashSet<_> = other.iter().map(Person::email_domain).collect();
        assert_eq!(domains, HashSet::from(["a.org", "b.org"]));
        for (plain, other) in plain.iter().zip(&other) {
            assert_eq!((&plain.uuid, &plain.phone), (&other.uuid, &other.phone));
        }
    }

    #[test]
    fn bricks_are_bricks() {
        assert!(
            ask("lego&results=20")
                .iter()
                .all(|p| p.nat == Nat::Lego && p.pictures[0] < 10)
        );
    }

    #[test]
    fn debug_shows_nothing_of_a_person() {
        assert_eq!(format!("{:?}", ask("")), "[Person(redacted)]");
    }
}
