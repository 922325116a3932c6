//! Texts of JSON strings: resolving escapes, writing them, and what treatments do to them.

use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;

use crate::scan::hex4;

/// The character of the escape at `i` (a backslash), and where it ends. The string has passed
/// [`crate::scan`]; what has not becomes a replacement character.
pub(crate) fn unescape_one(raw: &[u8], i: usize) -> (char, usize) {
    let simple = match raw.get(i + 1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let unit = hex4(raw, i + 2).unwrap_or(0xfffd);
            let Some(high) = unit.checked_sub(0xd800).filter(|high| *high < 0x400) else {
                return (char::from_u32(unit).unwrap_or('\u{fffd}'), i + 6);
            };
            let low = hex4(raw, i + 8).unwrap_or(0xdc00).wrapping_sub(0xdc00) & 0x3ff;
            let point = 0x10000 + (high << 10) + low;
            return (char::from_u32(point).unwrap_or('\u{fffd}'), i + 12);
        }
        Some(other) => char::from(*other),
        None => '\u{fffd}',
    };
    (simple, i + 2)
}

/// Appends the text of a string that stands in a record with escapes.
pub(crate) fn unescape(raw: &str, out: &mut String) {
    let mut rest = 0;
    while let Some(run) = raw[rest..].find('\\') {
        out.push_str(&raw[rest..rest + run]);
        let (letter, end) = unescape_one(raw.as_bytes(), rest + run);
        out.push(letter);
        rest = end;
    }
    out.push_str(&raw[rest..]);
}

/// Appends a text as a JSON string, quotes included.
pub(crate) fn push_json(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| matches!(c, '"' | '\\' | '\0'..='\u{1f}')) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        match rest.as_bytes()[at] {
            quoted @ (b'"' | b'\\') => out.extend([b'\\', quoted]),
            control => {
                let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
                out.extend_from_slice(b"\\u00");
                out.extend([hex(control >> 4), hex(control & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

/// The first `count` characters (Unicode scalar values) of a text.
pub(crate) fn prefix(text: &str, count: usize) -> &str {
    text.char_indices()
        .nth(count)
        .map_or(text, |(end, _)| &text[..end])
}

/// Bytes of a domain, before it is turned into the at most 253 that DNS holds.
const DOMAIN_MAX: usize = 2048;

/// The domain of an e-mail address in ASCII; nothing where there is none that DNS could hold.
pub(crate) fn email_domain(address: &str) -> Option<Cow<'_, str>> {
    let (_, domain) = address.trim().rsplit_once('@')?;
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if domain.len() > DOMAIN_MAX {
        return None;
    }
    if is_plain_domain(domain.as_bytes()) {
        return Some(Cow::Borrowed(domain));
    }
    Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            AsciiDenyList::URL,
            Hyphens::Allow,
            DnsLength::Verify,
        )
        .ok()
}

/// Whether IDNA would give the domain back as it stands: lower-case letters, digits and inner
/// hyphens in labels of a usual length.
fn is_plain_domain(domain: &[u8]) -> bool {
    domain.len() <= 253
        && domain.split(|b| *b == b'.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .iter()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                && !label.starts_with(b"xn--")
        })
}

/// Appends the shape of a text: letters become `a` or `A`, digits `9`; ASCII signs and spaces stay,
/// all else is `?`.
pub(crate) fn mask(text: &str, out: &mut String) {
    out.extend(text.chars().map(|c| match c {
        _ if c.is_uppercase() => 'A',
        _ if c.is_alphabetic() => 'a',
        _ if c.is_numeric() => '9',
        _ if c.is_ascii() => c,
        _ => '?',
    }));
}

/// Appends a text in the form in which subjects are compared: NFKC, lower case, without white
/// space around it.
pub(crate) fn normalise(text: &str, out: &mut String) {
    if text.is_ascii() {
        let start = out.len();
        out.push_str(text.trim());
        out[start..].make_ascii_lowercase();
        return;
    }
    // Lower case may need composing again, and NFKC may turn a sign into a space at the edge.
    let lower: String = text
        .trim()
        .nfkc()
        .flat_map(char::to_lowercase)
        .nfkc()
        .collect();
    out.push_str(lower.trim());
    let mut lower = lower;
    zeroize::Zeroize::zeroize(&mut lower);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn escapes_are_resolved_as_serde_json_does() {
        for raw in [
            "",
            "plain",
            r#"\"\\\/\b\f\n\r\t"#,
            r"\u0041\u00e9\u20ac",
            r"\ud83d\ude00 and \uDBFF\uDFFF",
            r"é\u0000",
        ] {
            let want: String = serde_json::from_str(&format!("\"{raw}\"")).expect("JSON");
            assert_eq!(with(|out| unescape(raw, out)), want, "{raw}");
        }
    }

    #[test]
    fn every_text_is_written_as_json_that_reads_back() {
        let all: String = (0..0x3000).filter_map(char::from_u32).collect();
        for text in [
            "",
            "a",
            "\"",
            "\\\"\n",
            "\u{0}\u{1f}\u{7f}",
            "é\u{10ffff}",
            &all,
        ] {
            let mut out = Vec::new();
            push_json(&mut out, text);
            let back: String = serde_json::from_slice(&out).expect("JSON");
            assert_eq!(back, text);
        }
    }

    #[test]
    fn a_domain_is_what_follows_the_last_at_in_ascii() {
        for (address, domain) in [
            ("a@example.com", Some("example.com")),
            ("  A@EXAMPLE.Com \t", Some("example.com")),
            ("\"a@b\"@c.org", Some("c.org")),
            ("a@b@c", Some("c")),
            ("@x.org", Some("x.org")),
            ("a@müller.example", Some("xn--mller-kva.example")),
            ("a@MÜLLER.example", Some("xn--mller-kva.example")),
            ("a@xn--mller-kva.example", Some("xn--mller-kva.example")),
            ("ä.ö@例え.テスト", Some("xn--r8jz45g.xn--zckzah")),
            ("a@example.com.", Some("example.com")),
            ("a@x--y.de", Some("x--y.de")),
            ("nobody", None),
            ("", None),
            ("a@", None),
            ("a@.", None),
            ("a@b..c", None),
            ("a@b c", None),
            ("a@[127.0.0.1]", None),
            ("a@b/c", None),
            ("a@xn--\u{e9}", None),
            ("a@xn--a", None),
        ] {
            assert_eq!(email_domain(address).as_deref(), domain, "{address}");
        }
        let label = "x".repeat(64);
        assert_eq!(email_domain(&format!("a@{label}.de")), None);
        assert_eq!(
            email_domain(&format!("a@{}.de", "é.".repeat(1_000_000))),
            None
        );
    }

    #[test]
    fn a_prefix_counts_characters_and_a_mask_keeps_the_shape() {
        assert_eq!(prefix("éàü", 2), "éà");
        assert_eq!(prefix("ab", 2), "ab");
        assert_eq!(prefix("ab", 9), "ab");
        assert_eq!(prefix("", 1), "");
        assert_eq!(
            with(|out| mask("Jané O'Brien-42 €ß漢", out)),
            "Aaaa A'Aaaaa-99 ?aa"
        );
    }

    #[test]
    fn subjects_are_compared_in_one_form() {
        for (text, form) in [
            (" Ann.Lee@Example.COM\n", "ann.lee@example.com"),
            ("ＡＢ＠x", "ab@x"),
            ("STRASSE", "strasse"),
            ("e\u{301}A", "éa"),
            ("\u{3000}É ", "é"),
            ("İ", "i̇"),
            ("\u{a0}", ""),
            ("", ""),
        ] {
            assert_eq!(with(|out| normalise(text, out)), form, "{text}");
        }
    }
}
