//! What is done to a declared value before it goes anywhere.

use std::fmt;

use falaj_record::{FieldType, Reason};

use crate::fault::{PolicyFault, nearest};
use crate::number::{parse_i64, push_i64};
use crate::scan::Found;
use crate::text::{email_domain, mask, prefix, push_json, unescape};
use crate::time::{parse_iso, year_of};
use crate::{Class, FieldConfig};

/// A treatment as the pipeline file writes it.
#[derive(Debug, Clone, PartialEq)]
pub enum Treatment {
    /// The value is not read.
    Drop,
    /// A keyed hash of the pid, its own in each domain; the value is not read.
    Hmac(String),
    /// Limits a number to low and high.
    Clamp(f64, f64),
    /// The band of this width that a whole number falls into: `"20-29"`. A number more than
    /// [`BANDS_MAX`] bands from zero is out of range.
    Band(i64),
    /// The year of an ISO 8601 text, or of whole seconds since 1970.
    Year,
    /// The year of whole milliseconds since 1970, or of an ISO 8601 text.
    YearOfMs,
    /// The first so many characters of a text.
    Prefix(usize),
    /// The nearest multiple of a number; halves go up.
    Round(f64),
    /// The domain of an e-mail address, lower case, in ASCII; null where there is none.
    EmailDomain,
    /// The shape of a text. It protects a glance, not a person: the class stays as it was.
    Mask,
    /// As it is.
    Keep,
}

/// Whole numbers up to here are the same as doubles; arguments of treatments stay below.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Bands on each side of zero. Beyond, a band's own text would give the digits of a number away: a
/// telephone number where an age should be.
const BANDS_MAX: i64 = 1000;

const FORMS: [(&str, &str); 12] = [
    ("drop", "`drop`"),
    ("hmac", "`hmac(domain)`, the domain a lower-case word"),
    (
        "clamp",
        "`clamp(low,high)`, as `clamp(0,120)`, low not above high",
    ),
    (
        "band",
        "`band(n)`, as `band(10)`, n a whole number from 2 on",
    ),
    ("year", "`year`, or `year(ms)` for milliseconds since 1970"),
    ("prefix", "`prefix(n)`, as `prefix(2)`, n from 1 to 1000"),
    (
        "round",
        "`round(n)`, as `round(10)` or `round(0.5)`, n above 0",
    ),
    ("email_domain", "`email_domain`"),
    ("mask", "`mask`"),
    ("keep", "`keep`"),
    ("pid", "`pid`"),
    ("encrypt", "`encrypt`"),
];

impl Treatment {
    /// Reads a treatment.
    ///
    /// # Errors
    /// Where it is unknown, not written right, or not in this version.
    pub fn parse(text: &str) -> Result<Self, PolicyFault> {
        let (name, arguments) = match text.trim().split_once('(') {
            Some((name, rest)) => (name.trim_end(), rest.strip_suffix(')')),
            None => (text.trim(), Some("")),
        };
        let Some((_, form)) = FORMS.iter().find(|(known, _)| *known == name) else {
            return Err(PolicyFault::UnknownTreatment {
                treatment: text.into(),
                nearest: nearest(name, FORMS.map(|(known, _)| known)),
            });
        };
        if matches!(name, "pid" | "encrypt") {
            return Err(PolicyFault::KeystoreNotYet {
                treatment: name.into(),
            });
        }
        let arguments: Option<Vec<&str>> = arguments.map(|all| {
            all.split(',')
                .map(str::trim)
                .filter(|a| !a.is_empty())
                .collect()
        });
        arguments
            .and_then(|arguments| Self::of(name, &arguments))
            .ok_or_else(|| PolicyFault::TreatmentForm {
                treatment: text.into(),
                form,
            })
    }

    fn of(name: &str, arguments: &[&str]) -> Option<Self> {
        let number = |text: &str| {
            let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-'));
            text.parse::<f64>()
                .ok()
                .filter(|n| plain && n.abs() <= WHOLE_MAX)
        };
        match (name, arguments) {
            ("drop", []) => Some(Self::Drop),
            ("hmac", [domain]) => is_name(domain).then(|| Self::Hmac((*domain).into())),
            ("clamp", [low, high]) => {
                let (low, high) = (number(low)?, number(high)?);
                (low <= high).then_some(Self::Clamp(low, high))
            }
            ("band", [n]) => n
                .parse()
                .ok()
                .filter(|n| (2..=1 << 53).contains(n))
                .map(Self::Band),
            ("year", []) => Some(Self::Year),
            ("year", ["ms"]) => Some(Self::YearOfMs),
            ("prefix", [n]) => n
                .parse()
                .ok()
                .filter(|n| (1..=1000).contains(n))
                .map(Self::Prefix),
            ("round", [n]) => number(n).filter(|n| *n > 0.0).map(Self::Round),
            ("email_domain", []) => Some(Self::EmailDomain),
            ("mask", []) => Some(Self::Mask),
            ("keep", []) => Some(Self::Keep),
            _ => None,
        }
    }

    /// The class of what comes out, given the class of the raw value.
    ///
    /// Generalising gives quasi (what says nothing about a person still says nothing), a keyed hash
    /// a pseudonym; `keep`, `clamp` and `mask` protect nothing and change nothing.
    #[must_use]
    pub fn output_class(&self, class: Class) -> Class {
        match self {
            Self::Keep | Self::Clamp(..) | Self::Mask | Self::Drop => class,
            Self::Hmac(_) => Class::Pseudonym,
            _ if class == Class::NonPersonal => Class::NonPersonal,
            _ => Class::Quasi,
        }
    }

    /// The step that the gate takes, and the type of what comes out. `Drop` and `Hmac` read no
    /// value and have none.
    pub(crate) fn step(
        &self,
        name: &str,
        field: &FieldConfig,
    ) -> Result<Option<(Step, FieldType)>, PolicyFault> {
        use FieldType::{Bool, Float, Int, String};
        let (step, kind, takes) = match (self, field.kind) {
            (Self::Drop | Self::Hmac(_), _) => return Ok(None),
            (Self::Keep, String) => (Some(Step::Text), String, ""),
            (Self::Keep, Int) => (Some(Step::Int), Int, ""),
            (Self::Keep, Float) => (Some(Step::Float), Float, ""),
            (Self::Keep, Bool) => (Some(Step::Bool), Bool, ""),
            (Self::Clamp(low, high), Int) => match (whole(*low), whole(*high)) {
                (Some(low), Some(high)) => (Some(Step::ClampInt(low, high)), Int, ""),
                _ => (None, Int, "whole limits for a whole number"),
            },
            (Self::Clamp(low, high), Float) => (Some(Step::ClampFloat(*low, *high)), Float, ""),
            (Self::Clamp(..), _) => (None, Int, "an `int` or a `float`"),
            (Self::Band(width), Int) => (Some(Step::Band(*width)), String, ""),
            (Self::Band(_), _) => (None, String, "an `int`"),
            (Self::Year | Self::YearOfMs, String) => (Some(Step::YearOfText), Int, ""),
            (Self::Year, Int) => (Some(Step::YearOfInt { unit_ms: 1000 }), Int, ""),
            (Self::YearOfMs, Int) => (Some(Step::YearOfInt { unit_ms: 1 }), Int, ""),
            (Self::Year | Self::YearOfMs, _) => (None, Int, "a `string` or an `int`"),
            (Self::Prefix(count), String) => (Some(Step::Prefix(*count)), String, ""),
            (Self::Round(to), Int) => match whole(*to).filter(|to| *to >= 2) {
                Some(to) => (Some(Step::RoundInt(to)), Int, ""),
                None => (
                    None,
                    Int,
                    "a whole number from 2 on where it rounds whole numbers",
                ),
            },
            (Self::Round(to), Float) => (Some(Step::RoundFloat(*to)), Float, ""),
            (Self::Round(_), _) => (None, Float, "an `int` or a `float`"),
            (Self::EmailDomain, String) => (Some(Step::EmailDomain), String, ""),
            (Self::Mask, String) => (Some(Step::Mask), String, ""),
            (Self::Prefix(_) | Self::EmailDomain | Self::Mask, _) => (None, String, "a `string`"),
        };
        step.map(|step| Some((step, kind)))
            .ok_or_else(|| PolicyFault::TreatmentType {
                field: name.into(),
                treatment: self.to_string(),
                kind: field.kind.name(),
                takes,
            })
    }
}

impl fmt::Display for Treatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Hmac(domain) => write!(f, "hmac({domain})"),
            Self::Clamp(low, high) => write!(f, "clamp({low},{high})"),
            Self::Band(width) => write!(f, "band({width})"),
            Self::Year => f.write_str("year"),
            Self::YearOfMs => f.write_str("year(ms)"),
            Self::Prefix(count) => write!(f, "prefix({count})"),
            Self::Round(to) => write!(f, "round({to})"),
            Self::EmailDomain => f.write_str("email_domain"),
            Self::Mask => f.write_str("mask"),
            Self::Keep => f.write_str("keep"),
        }
    }
}

/// Whether a text is a name: `[a-z][a-z0-9_]*`.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "arguments are at most 2^53"
)]
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0).then_some(number as i64)
}

/// A treatment of values of a known type: what the gate does for each record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Step {
    Text,
    Int,
    Float,
    Bool,
    ClampInt(i64, i64),
    ClampFloat(f64, f64),
    Band(i64),
    YearOfText,
    YearOfInt { unit_ms: i64 },
    Prefix(usize),
    RoundInt(i64),
    RoundFloat(f64),
    EmailDomain,
    Mask,
}

impl Step {
    /// Appends the treated value as JSON. `scratch` holds a text while its escapes are resolved.
    pub(crate) fn write(
        self,
        found: Found<'_>,
        scratch: &mut String,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        match (self, found) {
            (_, Found::Absent | Found::Null) => out.extend_from_slice(b"null"),
            // What stands between the quotes passed the scan, so it is JSON as it stands.
            (Self::Text, Found::Text { raw, .. }) => {
                out.push(b'"');
                out.extend_from_slice(raw.as_bytes());
                out.push(b'"');
            }
            (Self::Bool, Found::Bool(true)) => out.extend_from_slice(b"true"),
            (Self::Bool, Found::Bool(false)) => out.extend_from_slice(b"false"),
            (Self::Float, Found::Number { raw, .. }) => {
                float(raw)?;
                out.extend_from_slice(raw.as_bytes());
            }
            (Self::ClampFloat(low, high), Found::Number { raw, .. }) => {
                push_float(out, float(raw)?.clamp(low, high));
            }
            (Self::RoundFloat(to), Found::Number { raw, .. }) => {
                push_float(out, round_float(float(raw)?, to)?);
            }
            (
                Self::Int
                | Self::ClampInt(..)
                | Self::Band(_)
                | Self::YearOfInt { .. }
                | Self::RoundInt(_),
                Found::Number { raw, whole: true },
            ) => {
                let value = parse_i64(raw).ok_or(Reason::OutOfRange)?;
                return self.write_int(value, out);
            }
            (
                Self::YearOfText | Self::Prefix(_) | Self::EmailDomain | Self::Mask,
                Found::Text { raw, escaped },
            ) => return self.write_text(resolved(raw, escaped, scratch), out),
            _ => return Err(Reason::WrongType),
        }
        Ok(())
    }

    fn write_int(self, value: i64, out: &mut Vec<u8>) -> Result<(), Reason> {
        match self {
            Self::Int => push_i64(out, value),
            Self::ClampInt(low, high) => push_i64(out, value.clamp(low, high)),
            Self::Band(width) => {
                if value.div_euclid(width).unsigned_abs() > BANDS_MAX.unsigned_abs() {
                    return Err(Reason::OutOfRange);
                }
                let low = value - value.rem_euclid(width);
                let high = low.checked_add(width - 1).ok_or(Reason::OutOfRange)?;
                out.push(b'"');
                push_i64(out, low);
                out.push(b'-');
                push_i64(out, high);
                out.push(b'"');
            }
            Self::YearOfInt { unit_ms } => {
                let ms = value.checked_mul(unit_ms).and_then(year_of);
                push_i64(out, ms.ok_or(Reason::OutOfRange)?);
            }
            Self::RoundInt(to) => {
                let rest = value.rem_euclid(to);
                let rounded = if rest >= to - rest {
                    value.checked_add(to - rest)
                } else {
                    value.checked_sub(rest)
                };
                push_i64(out, rounded.ok_or(Reason::OutOfRange)?);
            }
            _ => return Err(Reason::WrongType),
        }
        Ok(())
    }

    fn write_text(self, text: &str, out: &mut Vec<u8>) -> Result<(), Reason> {
        match self {
            Self::YearOfText => {
                let year = parse_iso(text).and_then(year_of);
                push_i64(out, year.ok_or(Reason::WrongType)?);
            }
            Self::Prefix(count) => push_json(out, prefix(text, count)),
            Self::EmailDomain => match email_domain(text) {
                Some(domain) => push_json(out, &domain),
                None => out.extend_from_slice(b"null"),
            },
            Self::Mask => {
                let mut shape = String::with_capacity(text.len());
                mask(text, &mut shape);
                push_json(out, &shape);
            }
            _ => return Err(Reason::WrongType),
        }
        Ok(())
    }
}

/// The text of a string of the record; with escapes it is made in `scratch`.
pub(crate) fn resolved<'a>(raw: &'a str, escaped: bool, scratch: &'a mut String) -> &'a str {
    if !escaped {
        return raw;
    }
    scratch.clear();
    unescape(raw, scratch);
    scratch
}

/// A JSON number as a double; infinity is out of range.
pub(crate) fn float(raw: &str) -> Result<f64, Reason> {
    raw.parse::<f64>()
        .ok()
        .filter(|value| value.is_finite())
        .ok_or(Reason::OutOfRange)
}

fn round_float(value: f64, to: f64) -> Result<f64, Reason> {
    // 0.1 has no exact double and 10 has: multiples of a unit fraction are better divided.
    let inverse = (1.0 / to).round();
    let rounded = if to < 1.0 && (inverse * to - 1.0).abs() < 1e-12 {
        (value * inverse + 0.5).floor() / inverse
    } else {
        (value / to + 0.5).floor() * to
    };
    if rounded.is_finite() {
        Ok(rounded)
    } else {
        Err(Reason::OutOfRange)
    }
}

fn push_float(out: &mut Vec<u8>, value: f64) {
    use std::io::Write as _;
    write!(out, "{value}").expect("a vector takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn treated(treat: &str, kind: FieldType, json: &str) -> Result<String, Reason> {
        let field = FieldConfig {
            from: "x".into(),
            kind,
            class: Class::Quasi,
            purpose: None,
            treat: None,
        };
        let treatment = Treatment::parse(treat).expect("a treatment");
        assert_eq!(
            Treatment::parse(&treatment.to_string()),
            Ok(treatment.clone())
        );
        let (step, _) = treatment
            .step("x", &field)
            .expect("it fits")
            .expect("it reads the value");
        let record = format!(r#"{{"x":{json}}}"#);
        let (paths, slots) = crate::scan::Paths::new(["x"]);
        let mut found = Vec::new();
        paths.scan(&record, &mut found).expect("a record");
        let mut out = Vec::new();
        step.write(found[slots[0]], &mut String::new(), &mut out)?;
        let text = String::from_utf8(out).expect("UTF-8");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        Ok(text)
    }

    #[test]
    fn treatments_give_what_the_reference_says() {
        use FieldType::{Bool, Float, Int, String};
        for (treat, kind, raw, out) in [
            ("keep", String, r#""a\u00e9\"""#, r#""a\u00e9\"""#),
            ("keep", Int, "-0", "0"),
            ("keep", Int, "9223372036854775807", "9223372036854775807"),
            ("keep", Float, "44", "44"),
            ("keep", Float, "4.4e1", "4.4e1"),
            ("keep", Bool, "false", "false"),
            ("keep", Int, "null", "null"),
            ("clamp(0,120)", Int, "-3", "0"),
            ("clamp(0,120)", Int, "121", "120"),
            ("clamp(0,120)", Int, "44", "44"),
            ("clamp( -1.5 , 2 )", Float, "-7.25", "-1.5"),
            ("clamp(-1.5,2)", Float, "1e300", "2"),
            ("band(10)", Int, "29", r#""20-29""#),
            ("band(10)", Int, "30", r#""30-39""#),
            ("band(10)", Int, "0", r#""0-9""#),
            ("band(10)", Int, "-1", r#""-10--1""#),
            ("band(7)", Int, "100", r#""98-104""#),
            ("band(10)", Int, "10009", r#""10000-10009""#),
            ("band(10)", Int, "-10000", r#""-10000--9991""#),
            ("year", String, r#""1990-12-31T23:59:59.999Z""#, "1990"),
            ("year", String, r#""1990\u002d12-31""#, "1990"),
            ("year", String, r#""0033-04-03""#, "33"),
            ("year", Int, "631152000", "1990"),
            ("year", Int, "-1", "1969"),
            ("year(ms)", Int, "631151999999", "1989"),
            ("prefix(2)", String, r#""\u00e9ab""#, r#""éa""#),
            ("prefix(2)", String, r#""""#, r#""""#),
            ("prefix(1)", String, r#""\"x""#, r#""\"""#),
            ("round(10)", Int, "44", "40"),
            ("round(10)", Int, "45", "50"),
            ("round(10)", Int, "-45", "-40"),
            ("round(10)", Int, "-46", "-50"),
            ("round(0.1)", Float, "0.32", "0.3"),
            ("round(0.5)", Float, "1.26", "1.5"),
            ("round(10)", Float, "44", "40"),
            (
                "email_domain",
                String,
                r#"" A@B\u00fc.De ""#,
                r#""xn--b-eha.de""#,
            ),
            ("email_domain", String, r#""nobody""#, "null"),
            ("email_domain", String, "null", "null"),
            ("mask", String, r#""Ann-42""#, r#""Aaa-99""#),
        ] {
            assert_eq!(
                treated(treat, kind, raw),
                Ok(out.into()),
                "{treat} of {raw}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_a_reject() {
        use FieldType::{Bool, Float, Int, String};
        for (treat, kind, raw, reason) in [
            ("keep", String, "1", Reason::WrongType),
            ("keep", String, "99999999999999999999", Reason::WrongType),
            ("keep", String, "{}", Reason::WrongType),
            ("keep", String, "[\"a\"]", Reason::WrongType),
            ("keep", String, "true", Reason::WrongType),
            ("keep", Int, "\"1\"", Reason::WrongType),
            ("keep", Int, "44.0", Reason::WrongType),
            ("keep", Int, "1e2", Reason::WrongType),
            ("keep", Int, "9223372036854775808", Reason::OutOfRange),
            ("keep", Int, "{\"a\":1}", Reason::WrongType),
            ("keep", Float, "1e999", Reason::OutOfRange),
            ("keep", Float, "\"1\"", Reason::WrongType),
            ("keep", Bool, "0", Reason::WrongType),
            ("clamp(0,120)", Int, "1e30", Reason::WrongType),
            (
                "clamp(0,120)",
                Int,
                "99999999999999999999",
                Reason::OutOfRange,
            ),
            ("clamp(0,120)", Int, "\"5\"", Reason::WrongType),
            ("clamp(0,1)", Float, "true", Reason::WrongType),
            ("band(10)", Int, "1.5", Reason::WrongType),
            ("band(10)", Int, "-9223372036854775808", Reason::OutOfRange),
            ("band(10)", Int, "9223372036854775807", Reason::OutOfRange),
            ("band(10)", Int, "10010", Reason::OutOfRange),
            ("band(10)", Int, "-10001", Reason::OutOfRange),
            ("band(10)", Int, "5550123456", Reason::OutOfRange),
            ("round(10)", Int, "9223372036854775807", Reason::OutOfRange),
            ("round(10)", Float, "\"a\"", Reason::WrongType),
            ("year", String, "\"yesterday\"", Reason::WrongType),
            ("year", String, "1990", Reason::WrongType),
            ("year", Int, "\"1990-01-01\"", Reason::WrongType),
            ("year", Int, "9223372036854775807", Reason::OutOfRange),
            ("year(ms)", Int, "253402300800000", Reason::OutOfRange),
            ("prefix(2)", String, "12345", Reason::WrongType),
            ("email_domain", String, "7", Reason::WrongType),
            ("mask", String, "{}", Reason::WrongType),
        ] {
            assert_eq!(treated(treat, kind, raw), Err(reason), "{treat} of {raw}");
        }
    }

    #[test]
    fn treatments_that_are_not_written_right_say_how() {
        for text in [
            "clamp(1)",
            "clamp(2,1)",
            "clamp(a,b)",
            "clamp(1,inf)",
            "clamp(0,1e3)",
            "clamp",
            "clamp(0,120",
            "band(1)",
            "band(0)",
            "band(-10)",
            "band(1.5)",
            "band()",
            "year(s)",
            "prefix(0)",
            "prefix(x)",
            "round(0)",
            "round(-1)",
            "round(nan)",
            "keep(1)",
            "hmac()",
            "hmac",
            "hmac(A)",
            "hmac(a,b)",
            "drop(x)",
            "email_domain(x)",
            "mask(x)",
        ] {
            let fault = Treatment::parse(text).expect_err(text);
            assert!(
                matches!(fault, PolicyFault::TreatmentForm { .. }),
                "{text}: {fault:?}"
            );
        }
        for (text, nearest) in [
            ("kep", Some("keep")),
            ("bannd(10)", Some("band")),
            ("shuffle", None),
        ] {
            let PolicyFault::UnknownTreatment { nearest: found, .. } =
                Treatment::parse(text).expect_err(text)
            else {
                panic!("{text} is known");
            };
            assert_eq!(found.as_deref(), nearest, "{text}");
        }
        for text in ["pid", "encrypt"] {
            let fault = Treatment::parse(text).expect_err(text);
            assert!(
                matches!(fault, PolicyFault::KeystoreNotYet { .. }),
                "{text}"
            );
        }
    }

    #[test]
    fn treatments_that_take_another_type_say_which() {
        use FieldType::{Bool, Float, Int, String};
        for (treat, kind) in [
            ("clamp(0,1)", String),
            ("clamp(0,1)", Bool),
            ("clamp(0.5,1)", Int),
            ("band(10)", Float),
            ("band(10)", String),
            ("year", Float),
            ("prefix(2)", Int),
            ("round(10)", String),
            ("round(0.5)", Int),
            ("round(1)", Int),
            ("email_domain", Int),
            ("mask", Float),
        ] {
            let field = FieldConfig {
                from: "x".into(),
                kind,
                class: Class::Quasi,
                purpose: None,
                treat: None,
            };
            let fault = Treatment::parse(treat).expect("known").step("x", &field);
            assert!(
                matches!(fault, Err(PolicyFault::TreatmentType { .. })),
                "{treat}"
            );
        }
    }

    #[test]
    fn only_generalising_and_keyed_hashing_change_the_class() {
        for (treat, class, out) in [
            ("keep", Class::Quasi, Class::Quasi),
            ("mask", Class::Direct, Class::Direct),
            ("clamp(0,1)", Class::Direct, Class::Direct),
            ("email_domain", Class::Direct, Class::Quasi),
            ("band(10)", Class::Quasi, Class::Quasi),
            ("prefix(2)", Class::PreciseLocation, Class::Quasi),
            ("year", Class::NonPersonal, Class::NonPersonal),
            ("hmac(x)", Class::Direct, Class::Pseudonym),
        ] {
            assert_eq!(
                Treatment::parse(treat).expect("known").output_class(class),
                out,
                "{treat}"
            );
        }
    }
}
