/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One record a line.
    Lines,
    /// One JSON document with many records: an array, or a reply of an API.
    Saved,
}

/// What the first bytes of a file show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// Enough to tell.
    Is(Format),
    /// Not JSON text, but this.
    Packed(&'static str),
    /// More bytes are needed.
    Open,
}

/// UTF-8's byte order mark, which some editors put before JSON.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";
/// White space beyond this is not looked through: such a file is lines, most of them blank.
const BLANK_BYTES_MAX: usize = 64 << 10;

/// Looks at the first bytes of a file; `whole` says that there are no more.
pub(crate) fn detect(head: &[u8], whole: bool) -> Head {
    if !whole && (head.len() < 2 || (head.len() < BOM.len() && BOM.starts_with(head))) {
        return Head::Open;
    }
    if head.starts_with(b"\x1f\x8b") {
        return Head::Packed("gzip-compressed");
    }
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Head::Packed("UTF-16 text, not UTF-8");
    }
    match opening(head.strip_prefix(BOM).unwrap_or(head)) {
        Some(format) => Head::Is(format),
        None if whole || head.len() > BLANK_BYTES_MAX => Head::Is(Format::Lines),
        None => Head::Open,
    }
}

/// `[`, `{"results":[` and an object that goes on in the next line begin a saved document; `None`
/// where the bytes end too early to tell.
fn opening(head: &[u8]) -> Option<Format> {
    let (first, rest) = token(head)?;
    match first {
        b'[' => return Some(Format::Saved),
        b'{' => {}
        _ => return Some(Format::Lines),
    }
    let key = rest.trim_ascii_start();
    if key.is_empty() {
        return None;
    }
    if rest[..rest.len() - key.len()].contains(&b'\n') {
        return Some(Format::Saved);
    }
    let name = b"\"results\"";
    if key.len() < name.len() && name.starts_with(key) {
        return None;
    }
    let Some(rest) = key.strip_prefix(name) else {
        return Some(Format::Lines);
    };
    let (colon, rest) = token(rest)?;
    let (bracket, _) = token(rest)?;
    Some(if (colon, bracket) == (b':', b'[') {
        Format::Saved
    } else {
        Format::Lines
    })
}

fn token(bytes: &[u8]) -> Option<(u8, &[u8])> {
    bytes
        .trim_ascii_start()
        .split_first()
        .map(|(first, rest)| (*first, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_a_file_is() {
        for (head, format) in [
            (&b"{\"nat\":\"DE\"}\n{\"nat\":"[..], Format::Lines),
            (b"\n\n  {\"nat\":1}\n", Format::Lines),
            (b"{}\n", Format::Lines),
            (b"{\"resultss\":[", Format::Lines),
            (b"{\"results\":{}", Format::Lines),
            (b"{\"results\" : 5", Format::Lines),
            (b"\xff\x00garbage", Format::Lines),
            (b"nonsense", Format::Lines),
            (b"[{\"nat\":1}]", Format::Saved),
            (b" \n[", Format::Saved),
            (b"\xef\xbb\xbf[", Format::Saved),
            (b"{\"results\":[", Format::Saved),
            (b"{ \"results\" :\n [ {", Format::Saved),
            (b"{\n  \"nat\": \"DE\"\n}", Format::Saved),
        ] {
            assert_eq!(
                detect(head, false),
                Head::Is(format),
                "{}",
                head.escape_ascii()
            );
            // Byte by byte it is the same, later.
            let told: Vec<_> = (0..=head.len())
                .map(|end| detect(&head[..end], false))
                .filter(|head| *head != Head::Open)
                .collect();
            assert!(
                told.iter().all(|head| *head == Head::Is(format)),
                "{}",
                head.escape_ascii()
            );
        }
        for head in [&b""[..], b" ", b"{", b"\xef\xbb", b"{\"resul"] {
            assert_eq!(detect(head, false), Head::Open, "{}", head.escape_ascii());
            assert_eq!(
                detect(head, true),
                Head::Is(Format::Lines),
                "{}",
                head.escape_ascii()
            );
        }
        assert!(matches!(detect(b"\x1f\x8b\x08", false), Head::Packed(_)));
        assert!(matches!(detect(b"\xff\xfe{\0", false), Head::Packed(_)));
        assert_eq!(detect(&vec![b' '; 100_000], false), Head::Is(Format::Lines));
    }
}
