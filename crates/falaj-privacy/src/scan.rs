//! Finds the declared values of a JSON record and checks every other byte without decoding it.
//!
//! Always: a record that [`Paths::scan`] takes is one JSON object (RFC 8259) as `serde_json` would
//! take it, skipped parts included: escapes, surrogate pairs, control characters, number forms.
//! (One difference: a number beyond the range of a double is JSON, so it may stand in a skipped
//! part.)
//! Always: the stack is bounded by the declared paths, not by the record; skipping does not recurse.
//! Absent on purpose: any buffer. What comes out is where the declared values stand, nothing else.

use falaj_record::Reason;

/// Deepest nesting of objects and arrays that is read; the record itself is level 1.
pub const DEPTH_MAX: u32 = 127;

// `skip` keeps one bit for each open object or array.
const _: () = assert!(DEPTH_MAX < u128::BITS);

/// What stands at a declared path. Texts are the bytes between the quotes, escapes and all.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Found<'a> {
    Absent,
    Null,
    Bool(bool),
    Text {
        raw: &'a str,
        escaped: bool,
    },
    /// A number; `whole` where it has neither fraction nor exponent.
    Number {
        raw: &'a str,
        whole: bool,
    },
    /// An object or an array.
    Nested,
}

/// The declared paths as a tree of keys. Slots are numbered so that those below a node are
/// neighbours.
pub(crate) struct Paths {
    nodes: Vec<Node>,
    slots: usize,
}

#[derive(Default)]
struct Node {
    /// Where the value itself goes, if it is declared.
    slot: Option<usize>,
    /// Slots of this node and of all below it.
    first: usize,
    end: usize,
    children: Vec<(Box<[u8]>, usize)>,
}

impl Paths {
    /// The tree of these paths, and for each of them its slot. Equal paths share one.
    pub(crate) fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> (Self, Vec<usize>) {
        let mut tree = Self {
            nodes: vec![Node::default()],
            slots: 0,
        };
        let ends: Vec<usize> = paths
            .into_iter()
            .map(|path| {
                let end = path.split('.').fold(0, |node, key| tree.child(node, key));
                tree.nodes[end].slot = Some(0);
                end
            })
            .collect();
        tree.number(0);
        let slots = ends.iter().map(|end| tree.nodes[*end].first).collect();
        (tree, slots)
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    fn child(&mut self, node: usize, key: &str) -> usize {
        let known = self.nodes[node]
            .children
            .iter()
            .find(|(k, _)| **k == *key.as_bytes());
        if let Some((_, child)) = known {
            return *child;
        }
        let child = self.nodes.len();
        self.nodes.push(Node::default());
        self.nodes[node]
            .children
            .push((key.as_bytes().into(), child));
        child
    }

    /// Numbers the slots depth first; a node's own is the first of its range.
    fn number(&mut self, node: usize) {
        self.nodes[node].first = self.slots;
        if let Some(slot) = &mut self.nodes[node].slot {
            *slot = self.slots;
            self.slots += 1;
        }
        for at in 0..self.nodes[node].children.len() {
            self.number(self.nodes[node].children[at].1);
        }
        self.nodes[node].end = self.slots;
    }

    /// Fills `found` (one place a slot) from a record. The last of equal keys wins, with all that
    /// it holds: `{"a":{"b":1},"a":{}}` has no `a.b`.
    ///
    /// # Errors
    /// `NotJson`, `NotObject` and `TooDeep`; `found` is of no use then.
    pub(crate) fn scan<'a>(
        &self,
        record: &'a str,
        found: &mut Vec<Found<'a>>,
    ) -> Result<(), Reason> {
        found.clear();
        found.resize(self.slots, Found::Absent);
        let mut reader = Reader {
            paths: self,
            record,
            bytes: record.as_bytes(),
            found,
        };
        let bytes = reader.bytes;
        let start = space(bytes, 0);
        let object = at(bytes, start) == b'{';
        let end = if object {
            reader.object(&self.nodes[0], start + 1, 1)?
        } else {
            skip(bytes, start, 0)?
        };
        if space(bytes, end) != bytes.len() {
            return Err(Reason::NotJson);
        }
        if object {
            Ok(())
        } else {
            Err(Reason::NotObject)
        }
    }
}

struct Reader<'a, 'r> {
    paths: &'r Paths,
    record: &'a str,
    bytes: &'a [u8],
    found: &'r mut [Found<'a>],
}

impl Reader<'_, '_> {
    /// Reads an object from behind its brace to behind its end.
    fn object(&mut self, node: &Node, start: usize, depth: u32) -> Result<usize, Reason> {
        let bytes = self.bytes;
        let mut i = space(bytes, start);
        if at(bytes, i) == b'}' {
            return Ok(i + 1);
        }
        loop {
            if at(bytes, i) != b'"' {
                return Err(Reason::NotJson);
            }
            let (end, escaped) = string(bytes, i + 1)?;
            let key = &bytes[i + 1..end];
            i = colon(bytes, end + 1)?;
            let child = node.children.iter().find(|(name, _)| {
                if escaped {
                    escaped_equals(key, name)
                } else {
                    **name == *key
                }
            });
            i = match child {
                None => skip(bytes, i, depth)?,
                Some((_, child)) => self.value(&self.paths.nodes[*child], i, depth)?,
            };
            i = space(bytes, i);
            match at(bytes, i) {
                b',' => i = space(bytes, i + 1),
                b'}' => return Ok(i + 1),
                _ => return Err(Reason::NotJson),
            }
        }
    }

    /// Reads a value that is declared, or that holds declared ones.
    fn value(&mut self, node: &Node, start: usize, depth: u32) -> Result<usize, Reason> {
        let bytes = self.bytes;
        self.found[node.first..node.end].fill(Found::Absent);
        let (found, end) = match at(bytes, start) {
            b'"' => {
                let (end, escaped) = string(bytes, start + 1)?;
                let raw = &self.record[start + 1..end];
                (Found::Text { raw, escaped }, end + 1)
            }
            b'{' if !node.children.is_empty() => {
                if depth >= DEPTH_MAX {
                    return Err(Reason::TooDeep);
                }
                (Found::Nested, self.object(node, start + 1, depth + 1)?)
            }
            b'{' | b'[' => (Found::Nested, skip(bytes, start, depth)?),
            b't' => (Found::Bool(true), literal(bytes, start, b"true")?),
            b'f' => (Found::Bool(false), literal(bytes, start, b"false")?),
            b'n' => (Found::Null, literal(bytes, start, b"null")?),
            _ => {
                let (end, whole) = number(bytes, start)?;
                let raw = &self.record[start..end];
                (Found::Number { raw, whole }, end)
            }
        };
        if let Some(slot) = node.slot {
            self.found[slot] = found;
        }
        Ok(end)
    }
}

/// The byte at `i`; 0 behind the end, which is no part of any JSON outside a skipped string, and
/// an error inside one.
#[inline]
fn at(bytes: &[u8], i: usize) -> u8 {
    bytes.get(i).copied().unwrap_or(0)
}

/// Where the next byte stands that is not white space.
#[inline]
fn space(bytes: &[u8], mut i: usize) -> usize {
    while matches!(at(bytes, i), b' ' | b'\n' | b'\t' | b'\r') {
        i += 1;
    }
    i
}

/// From behind a key to its value.
#[inline]
fn colon(bytes: &[u8], i: usize) -> Result<usize, Reason> {
    let i = space(bytes, i);
    if at(bytes, i) == b':' {
        Ok(space(bytes, i + 1))
    } else {
        Err(Reason::NotJson)
    }
}

/// Checks one value, whatever it is, and gives where it ends.
fn skip(bytes: &[u8], start: usize, depth: u32) -> Result<usize, Reason> {
    const ARRAY: u128 = 0;
    const OBJECT: u128 = 1;
    let mut i = start;
    // The open objects and arrays, innermost in the lowest bit.
    let (mut kinds, mut open) = (0_u128, 0_u32);
    loop {
        i = match at(bytes, i) {
            b'"' => string(bytes, i + 1)?.0 + 1,
            brace @ (b'{' | b'[') => {
                if depth + open >= DEPTH_MAX {
                    return Err(Reason::TooDeep);
                }
                i = space(bytes, i + 1);
                // In ASCII a closing brace or bracket stands two places behind the opening one.
                if at(bytes, i) == brace + 2 {
                    i + 1
                } else {
                    open += 1;
                    if brace == b'{' {
                        kinds = kinds << 1 | OBJECT;
                        i = key(bytes, i)?;
                    } else {
                        kinds = kinds << 1 | ARRAY;
                    }
                    continue;
                }
            }
            b't' => literal(bytes, i, b"true")?,
            b'f' => literal(bytes, i, b"false")?,
            b'n' => literal(bytes, i, b"null")?,
            _ => number(bytes, i)?.0,
        };
        loop {
            if open == 0 {
                return Ok(i);
            }
            i = space(bytes, i);
            match (at(bytes, i), kinds & 1) {
                (b',', OBJECT) => {
                    i = key(bytes, space(bytes, i + 1))?;
                    break;
                }
                (b',', ARRAY) => {
                    i = space(bytes, i + 1);
                    break;
                }
                (b'}', OBJECT) | (b']', ARRAY) => {
                    i += 1;
                    open -= 1;
                    kinds >>= 1;
                }
                _ => return Err(Reason::NotJson),
            }
        }
    }
}

/// From the quote of a key that is not wanted to its value.
#[inline]
fn key(bytes: &[u8], i: usize) -> Result<usize, Reason> {
    if at(bytes, i) != b'"' {
        return Err(Reason::NotJson);
    }
    colon(bytes, string(bytes, i + 1)?.0 + 1)
}

#[inline]
fn literal(bytes: &[u8], i: usize, word: &[u8]) -> Result<usize, Reason> {
    if bytes[i..].starts_with(word) {
        Ok(i + word.len())
    } else {
        Err(Reason::NotJson)
    }
}

/// Checks a number: where it ends, and whether it has neither fraction nor exponent.
#[inline]
fn number(bytes: &[u8], start: usize) -> Result<(usize, bool), Reason> {
    let mut i = start + usize::from(at(bytes, start) == b'-');
    match at(bytes, i) {
        b'0' => i += 1,
        b'1'..=b'9' => i = digits(bytes, i),
        _ => return Err(Reason::NotJson),
    }
    let whole_end = i;
    if at(bytes, i) == b'.' {
        i = some_digits(bytes, i + 1)?;
    }
    if matches!(at(bytes, i), b'e' | b'E') {
        i += 1;
        i += usize::from(matches!(at(bytes, i), b'+' | b'-'));
        i = some_digits(bytes, i)?;
    }
    Ok((i, i == whole_end))
}

#[inline]
fn digits(bytes: &[u8], mut i: usize) -> usize {
    while at(bytes, i).is_ascii_digit() {
        i += 1;
    }
    i
}

fn some_digits(bytes: &[u8], i: usize) -> Result<usize, Reason> {
    let end = digits(bytes, i);
    if end > i {
        Ok(end)
    } else {
        Err(Reason::NotJson)
    }
}

/// Checks a string from behind its quote: where the closing quote stands, and whether there are
/// escapes.
#[inline]
fn string(bytes: &[u8], start: usize) -> Result<(usize, bool), Reason> {
    let mut i = plain(bytes, start);
    if at(bytes, i) == b'"' {
        return Ok((i, false));
    }
    loop {
        match at(bytes, i) {
            b'"' => return Ok((i, true)),
            b'\\' => i = plain(bytes, escape(bytes, i + 1)?),
            // A control character, or the record's end.
            _ => return Err(Reason::NotJson),
        }
    }
}

/// Checks an escape from behind its backslash; a surrogate comes with its other half.
#[cold]
fn escape(bytes: &[u8], i: usize) -> Result<usize, Reason> {
    match at(bytes, i) {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(i + 1),
        b'u' => match hex4(bytes, i + 1).ok_or(Reason::NotJson)? {
            0xd800..=0xdbff => {
                let low = bytes
                    .get(i + 5..i + 7)
                    .filter(|next| *next == b"\\u")
                    .and_then(|_| hex4(bytes, i + 7))
                    .is_some_and(|low| (0xdc00..=0xdfff).contains(&low));
                if low {
                    Ok(i + 11)
                } else {
                    Err(Reason::NotJson)
                }
            }
            0xdc00..=0xdfff => Err(Reason::NotJson),
            _ => Ok(i + 5),
        },
        _ => Err(Reason::NotJson),
    }
}

/// Four hexadecimal digits.
pub(crate) fn hex4(bytes: &[u8], i: usize) -> Option<u32> {
    bytes.get(i..i + 4)?.iter().try_fold(0, |sum, digit| {
        Some(sum << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// Whether the key's text, escapes resolved, is `name`. Decodes in registers, so that an
/// undeclared key is not copied either.
#[cold]
fn escaped_equals(key: &[u8], name: &[u8]) -> bool {
    let (mut i, mut rest) = (0, name);
    while i < key.len() {
        let mut buffer = [0; 4];
        let piece: &[u8] = if key[i] == b'\\' {
            let (letter, end) = crate::text::unescape_one(key, i);
            i = end;
            letter.encode_utf8(&mut buffer).as_bytes()
        } else {
            i += 1;
            &key[i - 1..i]
        };
        match rest.strip_prefix(piece) {
            Some(tail) => rest = tail,
            None => return false,
        }
    }
    rest.is_empty()
}

/// Where the next byte stands that ends the plain run of a string: a quote, a backslash, a control
/// character, or the record's end.
#[inline]
fn plain(bytes: &[u8], start: usize) -> usize {
    let mut i = start;
    while let Some(word) = bytes.get(i..).and_then(|rest| rest.first_chunk()) {
        let stops = stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return i + stops.trailing_zeros() as usize / 8;
        }
        i += 8;
    }
    while i < bytes.len() && !matches!(bytes[i], 0..=0x1f | b'"' | b'\\') {
        i += 1;
    }
    i
}

/// The top bit of the first byte of eight that ends a plain run; what is set above it is noise.
///
/// A byte less than n borrows when n is taken from it, which sets its top bit; bytes whose top bit
/// was set before do not count. A borrow can only spoil the bytes above the first that counts.
#[inline]
fn stops(word: u64) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    let quote = word ^ (EACH * u64::from(b'"'));
    let backslash = word ^ (EACH * u64::from(b'\\'));
    let below = |word: u64, n: u64| word.wrapping_sub(EACH * n) & !word;
    (below(quote, 1) | below(backslash, 1) | below(word, 0x20)) & (EACH << 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned<'a>(paths: &[&str], record: &'a str) -> Result<Vec<Found<'a>>, Reason> {
        let (tree, slots) = Paths::new(paths.iter().copied());
        let mut found = Vec::new();
        tree.scan(record, &mut found)?;
        Ok(slots.iter().map(|slot| found[*slot]).collect())
    }

    const fn text(raw: &str) -> Found<'_> {
        Found::Text {
            raw,
            escaped: false,
        }
    }

    const fn whole(raw: &str) -> Found<'_> {
        Found::Number { raw, whole: true }
    }

    #[test]
    fn declared_paths_are_found_wherever_they_stand() {
        for (record, found) in [
            (r#"{"nat":"CH","dob":{"age":4}}"#, [text("CH"), whole("4")]),
            (
                r#" { "dob" : { "x" : [ ] , "age" : -4 } , "nat" : "" } "#,
                [text(""), whole("-4")],
            ),
            ("{}", [Found::Absent, Found::Absent]),
            (r#"{"nat":null,"dob":null}"#, [Found::Null, Found::Absent]),
            (
                r#"{"nat":true,"dob":"x"}"#,
                [Found::Bool(true), Found::Absent],
            ),
            (
                r#"{"nat":[1],"dob":[{"age":1}]}"#,
                [Found::Nested, Found::Absent],
            ),
            (
                r#"{"nat":{"nat":1},"x":{"dob":{"age":1}}}"#,
                [Found::Nested, Found::Absent],
            ),
            (
                r#"{"n\u0061t":"a","d\u006fb":{"\u0061ge":1}}"#,
                [text("a"), whole("1")],
            ),
            (
                r#"{"n\u0061tx":"a","\\nat":1,"na":2,"natt":3}"#,
                [Found::Absent, Found::Absent],
            ),
            (
                r#"{"nat":1,"nat":"b","dob":{"age":1},"dob":{"age":2}}"#,
                [text("b"), whole("2")],
            ),
            (
                r#"{"nat":1,"nat":null,"dob":{"age":1},"dob":{"x":2}}"#,
                [Found::Null, Found::Absent],
            ),
            (
                r#"{"dob":{"age":1},"dob":3}"#,
                [Found::Absent, Found::Absent],
            ),
            (
                r#"{"dob":{"age":1,"age":[2]}}"#,
                [Found::Absent, Found::Nested],
            ),
        ] {
            assert_eq!(
                scanned(&["nat", "dob.age"], record),
                Ok(found.into()),
                "{record}"
            );
        }
    }

    #[test]
    fn a_path_may_lead_through_another_and_stand_twice() {
        let paths = ["a", "a.b", "c", "a", "a.b.c"];
        assert_eq!(
            scanned(&paths, r#"{"a":{"b":{"c":1}},"c":"x"}"#),
            Ok(vec![
                Found::Nested,
                Found::Nested,
                text("x"),
                Found::Nested,
                whole("1")
            ])
        );
        assert_eq!(
            scanned(&paths, r#"{"a":{"b":{"c":1}},"c":"x","a":7}"#),
            Ok(vec![
                whole("7"),
                Found::Absent,
                text("x"),
                whole("7"),
                Found::Absent
            ])
        );
    }

    #[test]
    fn strings_of_every_length_end_where_they_end() {
        for length in 0..100 {
            let body: String = "aé".chars().cycle().take(length).collect();
            for (tail, escaped) in [("", false), (r"\n", true), (r"\ud83d\ude00", true)] {
                let record = format!(r#"{{"x":"{body}{tail}","nat":"{body}{tail}"}}"#);
                let raw = format!("{body}{tail}");
                let found = Found::Text { raw: &raw, escaped };
                assert_eq!(scanned(&["nat"], &record), Ok(vec![found]));
            }
            for bad in [
                "\n",
                "\0",
                "\u{1f}",
                r"\x",
                r"\u12g4",
                r"\ud83d",
                r"\ud83d\u0041",
                r"\ude00",
            ] {
                let record = format!(r#"{{"x":"{body}{bad}{body}"}}"#);
                assert_eq!(
                    scanned(&["nat"], &record),
                    Err(Reason::NotJson),
                    "{length} {bad:?}"
                );
            }
            assert_eq!(
                scanned(&["nat"], &format!(r#"{{"x":"{body}"#)),
                Err(Reason::NotJson)
            );
        }
    }

    #[test]
    fn what_is_no_object_says_so_and_what_is_no_json_too() {
        for (record, reason) in [
            ("", Reason::NotJson),
            (" ", Reason::NotJson),
            ("{", Reason::NotJson),
            ("{}x", Reason::NotJson),
            ("{}{}", Reason::NotJson),
            ("\u{feff}{}", Reason::NotJson),
            ("{\"x\":NaN}", Reason::NotJson),
            ("{\"x\":01}", Reason::NotJson),
            ("{\"x\":1.}", Reason::NotJson),
            ("{\"x\":.1}", Reason::NotJson),
            ("{\"x\":+1}", Reason::NotJson),
            ("{\"x\":1e}", Reason::NotJson),
            ("{\"x\":-}", Reason::NotJson),
            ("{\"x\":[1,]}", Reason::NotJson),
            ("{\"x\":1,}", Reason::NotJson),
            ("{\"x\":{\"a\":1]}", Reason::NotJson),
            ("{\"x\":[1}}", Reason::NotJson),
            ("{x:1}", Reason::NotJson),
            ("{\"x\" 1}", Reason::NotJson),
            ("{\"x\":tru}", Reason::NotJson),
            ("ERROR upstream", Reason::NotJson),
            ("[]", Reason::NotObject),
            ("null", Reason::NotObject),
            (" 12 ", Reason::NotObject),
            ("\"text\"", Reason::NotObject),
            ("[1,2", Reason::NotJson),
        ] {
            assert_eq!(scanned(&["nat"], record), Err(reason), "{record:?}");
        }
        let far = r#"{"x":1e999,"y":-1E-999,"z":123456789012345678901234567890}"#;
        assert_eq!(scanned(&["nat"], far), Ok(vec![Found::Absent]));
    }

    #[test]
    fn depth_is_bounded_and_the_stack_with_it() {
        let nested = |levels: usize, open: &str, close: &str| {
            format!(
                r#"{{"x":{}1{}}}"#,
                open.repeat(levels),
                close.repeat(levels)
            )
        };
        let most = DEPTH_MAX as usize - 1;
        for (open, close) in [("[", "]"), (r#"{"x":"#, "}")] {
            for paths in [vec!["nat"], vec!["x"]] {
                assert!(scanned(&paths, &nested(most, open, close)).is_ok());
                for levels in [most + 1, 10_000, 1_000_000] {
                    assert_eq!(
                        scanned(&paths, &nested(levels, open, close)),
                        Err(Reason::TooDeep)
                    );
                }
            }
        }
        let path = vec!["x"; most].join(".");
        assert_eq!(
            scanned(&[&path], &nested(most - 1, r#"{"x":"#, "}")),
            Ok(vec![whole("1")])
        );
        assert_eq!(scanned(&["nat"], &"[".repeat(10_000)), Err(Reason::TooDeep));
    }
}
