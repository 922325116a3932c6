//! People that never were, in the shape of the Random User API 1.4: about 1.09 kB each, for tests
//! and for the speed example. The same seed gives the same people.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::fmt::Write as _;

/// A small generator of pseudo-random numbers (`SplitMix64`).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    pub fn at(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).expect("less than a length")
    }

    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.at(from.len())]
    }
}

const NATS: [(&str, &str); 21] = [
    ("AU", "Australia"),
    ("BR", "Brazil"),
    ("CA", "Canada"),
    ("CH", "Switzerland"),
    ("DE", "Germany"),
    ("DK", "Denmark"),
    ("ES", "Spain"),
    ("FI", "Finland"),
    ("FR", "France"),
    ("GB", "United Kingdom"),
    ("IE", "Ireland"),
    ("IN", "India"),
    ("IR", "Iran"),
    ("MX", "Mexico"),
    ("NL", "Netherlands"),
    ("NO", "Norway"),
    ("NZ", "New Zealand"),
    ("RS", "Serbia"),
    ("TR", "Turkey"),
    ("UA", "Ukraine"),
    ("US", "United States"),
];
const FIRST: [&str; 12] = [
    "Jonna",
    "Rafael",
    "Zoë",
    "Özgür",
    "Ольга",
    "پریسا",
    "Bjørn",
    "Maëlys",
    "Íñigo",
    "Tara",
    "Wim",
    "Agnieszka",
];
const LAST: [&str; 12] = [
    "Harju",
    "Peixoto",
    "Grünwald",
    "Yıldız",
    "Ковальчук",
    "رضایی",
    "Sørensen",
    "Lemaître",
    "Ibáñez",
    "MacLeod",
    "van der Meer",
    "Nowak-Lis",
];
const PLAIN: [&str; 12] = [
    "harju",
    "peixoto",
    "gruenwald",
    "yildiz",
    "kovalchuk",
    "rezaei",
    "sorensen",
    "lemaitre",
    "ibanez",
    "macleod",
    "vandermeer",
    "nowak-lis",
];
const PLACES: [&str; 8] = [
    "Oulu",
    "Gävle",
    "Sankt Gallen",
    "Bragança",
    "Kütahya",
    "Черкаси",
    "Palmerston North",
    "Saint-Brieuc",
];
const DOMAINS: [&str; 8] = [
    "example.com",
    "example.com",
    "example.org",
    "post.example",
    "mail.example.net",
    "uni.example.edu",
    "correo.example",
    "firma.example",
];

/// One person as one line of JSON, without the line's end.
pub fn person(dice: &mut Dice) -> String {
    let mut s = String::with_capacity(1200);
    let (nat, country) = NATS[dice.at(NATS.len())];
    let female = dice.below(2) == 1;
    let last = dice.at(LAST.len());
    let age = 18 + dice.below(62);
    let email = format!(
        "{}.{}{}@{}",
        ["jo", "ra", "zo", "oz", "ol", "pa"][dice.at(6)],
        PLAIN[last],
        dice.below(100_000),
        dice.pick(&DOMAINS)
    );
    let hex = |dice: &mut Dice, n: usize| -> String {
        (0..n)
            .map(|_| char::from(b"0123456789abcdef"[dice.at(16)]))
            .collect()
    };
    let phone = |dice: &mut Dice| {
        format!(
            "({:03}) {:03}-{:04}",
            dice.below(1000),
            dice.below(1000),
            dice.below(10_000)
        )
    };
    let date = |dice: &mut Dice, year: u64| {
        format!(
            "{year}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            1 + dice.below(12),
            1 + dice.below(28),
            dice.below(24),
            dice.below(60),
            dice.below(60),
            dice.below(1000)
        )
    };
    let postcode = if matches!(nat, "GB" | "CA" | "NL") {
        format!("\"{}A {}BC\"", dice.below(99), dice.below(9))
    } else {
        (10_000 + dice.below(89_999)).to_string()
    };
    write!(
        s,
        r#"{{"gender":"{}","name":{{"title":"{}","first":"{}","last":"{}"}},"location":{{"street":{{"number":{},"name":"{}"}},"city":"{}","state":"{}","country":"{country}","postcode":{postcode},"coordinates":{{"latitude":"{}.{:04}","longitude":"{}.{:04}"}},"timezone":{{"offset":"+5:30","description":"Bombay, Calcutta, Madras, New Delhi"}}}},"email":"{email}","#,
        if female { "female" } else { "male" },
        if female { "Ms" } else { "Mr" },
        dice.pick(&FIRST),
        LAST[last],
        1 + dice.below(9999),
        dice.pick(&["Kirkkokatu", "Rue du Moulin", "Вулиця Садова", "Lange Straße", "Queen Road"]),
        dice.pick(&PLACES),
        dice.pick(&PLACES),
        i64::try_from(dice.below(180)).expect("small") - 90,
        dice.below(10_000),
        i64::try_from(dice.below(360)).expect("small") - 180,
        dice.below(10_000),
    )
    .expect("a string takes every write");
    let uuid = [8, 4, 4, 4, 12].map(|n| hex(dice, n)).join("-");
    write!(
        s,
        r#""login":{{"uuid":"{uuid}","username":"{}{}{}","password":"pw{}","salt":"{}","md5":"{}","sha1":"{}","sha256":"{}"}},"dob":{{"date":"{}","age":{age}}},"registered":{{"date":"{}","age":{}}},"phone":"{}","cell":"{}","#,
        dice.pick(&["yellow", "silver", "lazy", "happy"]),
        dice.pick(&["peacock", "tiger", "frog"]),
        dice.below(1000),
        dice.below(100_000),
        hex(dice, 8),
        hex(dice, 32),
        hex(dice, 40),
        hex(dice, 64),
        date(dice, 2026 - age),
        date(dice, 2002 + dice.0 % 20),
        1 + dice.below(22),
        phone(dice),
        phone(dice),
    )
    .expect("a string takes every write");
    let id = if matches!(nat, "DE" | "UA" | "NO") {
        r#"{"name":"","value":null}"#.to_owned()
    } else {
        format!(
            r#"{{"name":"SSN","value":"{:03}-{:02}-{:04}"}}"#,
            dice.below(1000),
            dice.below(100),
            dice.below(10_000)
        )
    };
    let (folk, face) = (if female { "women" } else { "men" }, dice.below(97));
    write!(
        s,
        r#""id":{id},"picture":{{"large":"https://randomuser.me/api/portraits/{folk}/{face}.jpg","medium":"https://randomuser.me/api/portraits/med/{folk}/{face}.jpg","thumbnail":"https://randomuser.me/api/portraits/thumb/{folk}/{face}.jpg"}},"nat":"{nat}"}}"#,
    )
    .expect("a string takes every write");
    s
}
