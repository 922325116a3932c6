//! The forms of telephone numbers, postcodes and identity numbers, by nationality and version.
//!
//! Oddities of the real service are kept where clients will meet them: Finland's identity number is
//! always `NaNNA###undefined` from 1.2 on, France's contains `NaN` in 1.2 and 1.3 and counts months
//! from 0 in 1.4, and Germany, France and Denmark write the year as years since 1900.

use crate::nation::Nat;
use crate::query::{Gender, Version};
use crate::stream::Stream;
use crate::time::Civil;

/// A postcode keeps its JSON type: most are numbers, some are text with letters or leading zeros.
pub(crate) enum Postcode {
    Number(i64),
    Text(String),
}

pub(crate) fn postcode(nat: Nat, version: Version, stream: &mut Stream) -> Postcode {
    const BRITISH: [&str; 6] = [
        "A# #AA", "A## #AA", "AA# #AA", "AA## #AA", "A#A #AA", "AA#A #AA",
    ];
    match nat {
        Nat::Gb => {
            let form = stream.pick(&BRITISH);
            Postcode::Text(stream.fill(form))
        }
        Nat::Ca if version >= Version::V1_2 => Postcode::Text(stream.fill("A#A #A#")),
        Nat::No => Postcode::Text(stream.fill("####")),
        Nat::Nl if version >= Version::V1_4 => Postcode::Text(stream.fill("#### AA")),
        Nat::Ch => Postcode::Number(stream.between(1000, 9999)),
        Nat::Au => Postcode::Number(stream.between(200, 9999)),
        _ => Postcode::Number(stream.between(10_000, 99_999)),
    }
}

const GENERIC: &str = "(###)-###-####";

pub(crate) fn phone(nat: Nat, version: Version, stream: &mut Stream) -> String {
    const BRITISH: [&str; 6] = [
        "01### #####",
        "01#### #####",
        "01### ######",
        "01#### ####",
        "02# #### ####",
        "011#### ### ####",
    ];
    const DUTCH: [&str; 2] = ["(0##) #######", "(0###) ######"];
    let form = match nat {
        Nat::Au => "0#-####-####",
        Nat::De => "0###-#######",
        Nat::Es => "9##-###-###",
        Nat::Fi => "0#-###-###",
        Nat::Fr => "0#-##-##-##-##",
        Nat::Gb => stream.pick(&BRITISH),
        Nat::Ie => "0#1-###-####",
        Nat::Ir => "0##-########",
        Nat::Nl if version >= Version::V1_4 => stream.pick(&DUTCH),
        Nat::Rs => "0##-####-###",
        _ => either(nat, version),
    };
    stream.fill(form)
}

pub(crate) fn cell(nat: Nat, version: Version, stream: &mut Stream) -> String {
    let form = match nat {
        Nat::Au => "04##-###-###",
        Nat::De => "017#-#######",
        Nat::Es => "6##-###-###",
        Nat::Fi => "04#-###-##-##",
        Nat::Fr => "06-##-##-##-##",
        Nat::Gb if version >= Version::V1_4 => "07### ######",
        Nat::Gb => "07##-###-###",
        Nat::Ie => "081-###-####",
        Nat::Ir => "09##-###-####",
        Nat::Nl if version >= Version::V1_4 => "(06) ########",
        Nat::Rs => "06#-####-###",
        _ => either(nat, version),
    };
    stream.fill(form)
}

/// Where a landline and a mobile number look the same.
fn either(nat: Nat, version: Version) -> &'static str {
    match nat {
        Nat::Br => "(##) ####-####",
        Nat::Ca if version >= Version::V1_4 => "A## A##-####",
        Nat::Ca => "###-###-####",
        Nat::Ch if version >= Version::V1_3 => "07# ### ## ##",
        Nat::Dk | Nat::No => "########",
        Nat::In => "##########",
        Nat::Mx => "(6##) ### ####",
        Nat::Ua => "(0##) A##-####",
        Nat::Us | Nat::Lego if version >= Version::V1_4 => "(###) ###-####",
        _ => GENERIC,
    }
}

/// Whose identity number it is: some are made of the date of birth, the gender and the last name.
pub(crate) struct Holder<'a> {
    pub nat: Nat,
    pub gender: Gender,
    pub born: Civil,
    /// In ASCII, not empty.
    pub last: &'a str,
}

/// The name of the identity number and its value; nothing where the country has none.
pub(crate) fn identity(
    holder: &Holder<'_>,
    version: Version,
    stream: &mut Stream,
) -> (&'static str, Option<String>) {
    let Civil {
        year, month, day, ..
    } = holder.born;
    let since_1900 = year - 1900;
    let sex = match holder.gender {
        Gender::Male => 1,
        Gender::Female => 2,
    };
    let newest = version >= Version::V1_4;
    match holder.nat {
        Nat::Au => ("TFN", Some(stream.fill("#########"))),
        Nat::Br if newest => ("CPF", Some(stream.fill("###.###.###-##"))),
        Nat::Ca if newest => ("SIN", Some(stream.fill("#########"))),
        Nat::Ch if version >= Version::V1_2 => ("AVS", Some(stream.fill("756.####.####.##"))),
        Nat::Ch => ("AVS", Some(stream.fill("756.AAAA.AAAA.##"))),
        Nat::De if newest => {
            let initial = holder
                .last
                .chars()
                .find(char::is_ascii_alphabetic)
                .unwrap_or('x');
            let dates = format!("{day:02}{month:02}{since_1900:02}");
            let (area, serial) = (stream.fill("##"), stream.fill("###"));
            let initial = initial.to_ascii_uppercase();
            ("SVNR", Some(format!("{area} {dates} {initial} {serial}")))
        }
        Nat::Dk => {
            let serial = stream.fill("####");
            (
                "CPR",
                Some(format!("{day:02}{month:02}{since_1900:02}-{serial}")),
            )
        }
        Nat::Es => ("DNI", Some(stream.fill("########-A"))),
        Nat::Fi if version >= Version::V1_2 => {
            let serial = stream.fill("###");
            ("HETU", Some(format!("NaNNA{serial}undefined")))
        }
        Nat::Fi => {
            let form = *stream.pick(&["###-###A", "####-###A", "###-####", "####-####"]);
            ("HETU", Some(stream.fill(form)))
        }
        Nat::Fr if version == Version::V1_2 || version == Version::V1_3 => {
            let (serial, check) = (stream.fill("########"), stream.fill("##"));
            ("INSEE", Some(format!("{sex}NNaN{serial} {check}")))
        }
        Nat::Fr => {
            let month = month - 1;
            let (serial, check) = (stream.fill("########"), stream.fill("##"));
            let value = if newest {
                format!("{sex}{since_1900:02}{month:02}{serial} {check}")
            } else {
                format!("{sex}{since_1900:02}{month}{serial} {check}")
            };
            ("INSEE", Some(value))
        }
        Nat::Gb => ("NINO", Some(stream.fill("AA ## ## ## A"))),
        Nat::Ie => ("PPS", Some(stream.fill("#######T"))),
        Nat::In => ("UIDAI", Some(stream.fill("############"))),
        Nat::Mx => ("NSS", Some(stream.fill("## ## ## #### #"))),
        Nat::Nl => ("BSN", Some(stream.fill("########"))),
        Nat::No => {
            let serial = stream.fill("#####");
            (
                "FN",
                Some(format!("{day:02}{month:02}{:02}{serial}", year % 100)),
            )
        }
        Nat::Rs => ("SID", Some(stream.fill("#########"))),
        Nat::Us | Nat::Lego => ("SSN", Some(stream.fill("###-##-####"))),
        Nat::Br | Nat::Ca | Nat::De | Nat::Ir | Nat::Nz | Nat::Tr | Nat::Ua => ("", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Key;

    /// Digits become `#`, letters `A`.
    fn shape(text: &str) -> String {
        text.chars()
            .map(|c| match c {
                c if c.is_ascii_digit() => '#',
                c if c.is_ascii_alphabetic() => 'A',
                c => c,
            })
            .collect()
    }

    fn stream() -> Stream {
        Stream::of(Key::of("forms", 1), 0)
    }

    #[test]
    fn postcodes_are_text_exactly_where_the_version_has_text() {
        for (nat, versions) in [
            (Nat::Gb, &Version::ALL[..]),
            (Nat::Ca, &Version::ALL[1..]),
            (Nat::No, &Version::ALL[1..]),
            (Nat::Nl, &Version::ALL[3..]),
        ] {
            for version in Version::ALL {
                if !Nat::of(version).contains(&nat) {
                    continue;
                }
                let text = matches!(postcode(nat, version, &mut stream()), Postcode::Text(_));
                assert_eq!(text, versions.contains(&version), "{nat} {version}");
            }
        }
        for (nat, range) in [
            (Nat::Ch, 1000..=9999),
            (Nat::Au, 200..=9999),
            (Nat::Us, 10_000..=99_999),
            (Nat::Ir, 10_000..=99_999),
        ] {
            let mut stream = stream();
            for _ in 0..200 {
                match postcode(nat, Version::V1_4, &mut stream) {
                    Postcode::Number(number) => assert!(range.contains(&number), "{nat} {number}"),
                    Postcode::Text(text) => panic!("{nat} {text}"),
                }
            }
        }
    }

    #[test]
    fn norwegian_postcodes_keep_their_leading_zero() {
        let mut stream = stream();
        let zeros = (0..500)
            .filter(|_| matches!(postcode(Nat::No, Version::V1_4, &mut stream), Postcode::Text(t) if t.starts_with('0') && t.len() == 4))
            .count();
        assert!((20..90).contains(&zeros), "{zeros}");
    }

    #[test]
    fn telephone_numbers_have_the_form_of_nationality_and_version() {
        for (nat, version, phone_form, cell_form) in [
            (Nat::Ca, Version::V1_4, "A## A##-####", "A## A##-####"),
            (Nat::Ca, Version::V1_3, "###-###-####", "###-###-####"),
            (Nat::Ch, Version::V1_4, "### ### ## ##", "### ### ## ##"),
            (Nat::Ch, Version::V1_2, "(###)-###-####", "(###)-###-####"),
            (Nat::Us, Version::V1_4, "(###) ###-####", "(###) ###-####"),
            (Nat::Us, Version::V1_3, "(###)-###-####", "(###)-###-####"),
            (Nat::Ua, Version::V1_4, "(###) A##-####", "(###) A##-####"),
            (Nat::Fr, Version::V1_4, "##-##-##-##-##", "##-##-##-##-##"),
            (Nat::Nl, Version::V1_2, "(###)-###-####", "(###)-###-####"),
            (Nat::Dk, Version::V1_1, "########", "########"),
            (Nat::Ir, Version::V1_4, "###-########", "####-###-####"),
        ] {
            assert_eq!(
                shape(&phone(nat, version, &mut stream())),
                phone_form,
                "{nat} {version}"
            );
            assert_eq!(
                shape(&cell(nat, version, &mut stream())),
                cell_form,
                "{nat} {version}"
            );
        }
        assert!(cell(Nat::Gb, Version::V1_4, &mut stream()).starts_with("07"));
        assert_eq!(
            shape(&cell(Nat::Gb, Version::V1_3, &mut stream())),
            "####-###-###"
        );
    }

    #[test]
    fn identity_numbers_are_absent_exactly_where_the_version_has_none() {
        let born = Civil {
            year: 1977,
            month: 3,
            day: 23,
            time_ms: 0,
        };
        for version in Version::ALL {
            let none: Vec<_> = Nat::of(version)
                .into_iter()
                .filter(|nat| {
                    let holder = Holder {
                        nat: *nat,
                        gender: Gender::Male,
                        born,
                        last: "hart",
                    };
                    let (name, value) = identity(&holder, version, &mut stream());
                    assert_eq!(name.is_empty(), value.is_none(), "{nat}");
                    value.is_none()
                })
                .map(Nat::code)
                .collect();
            let expected: &[_] = if version >= Version::V1_4 {
                &["IR", "NZ", "TR", "UA"]
            } else {
                &["BR", "CA", "DE", "IR", "NZ", "TR"]
            };
            assert_eq!(none, expected, "{version}");
        }
    }

    #[test]
    fn identity_numbers_carry_the_birthday_the_way_the_service_does() {
        let of = |nat, version, year| {
            let born = Civil {
                year,
                month: 3,
                day: 4,
                time_ms: 0,
            };
            let holder = Holder {
                nat,
                gender: Gender::Female,
                born,
                last: "'t hart",
            };
            identity(&holder, version, &mut stream()).1.unwrap()
        };
        for (nat, version, year, part) in [
            (Nat::De, Version::V1_4, 1977, " 040377 T "),
            (Nat::De, Version::V1_4, 2000, " 0403100 T "),
            (Nat::Dk, Version::V1_4, 1966, "040366-"),
            (Nat::Dk, Version::V1_4, 2001, "0403101-"),
            (Nat::Fr, Version::V1_4, 1986, "28602"),
            (Nat::Fr, Version::V1_3, 1986, "2NNaN"),
            (Nat::Fr, Version::V1_1, 1986, "2862"),
            (Nat::No, Version::V1_4, 2001, "040301"),
            (Nat::Fi, Version::V1_4, 1970, "undefined"),
        ] {
            let value = of(nat, version, year);
            assert!(value.contains(part), "{nat} {version} {year}: {value}");
        }
        assert_eq!(shape(&of(Nat::Fr, Version::V1_4, 1986)), "############# ##");
        assert_eq!(shape(&of(Nat::Ch, Version::V1_1, 1986)), "###.AAAA.AAAA.##");
    }
}
