use crate::reply::Tree;

/// JSON, compact or with line breaks. The caller begins and ends the outermost object.
pub(crate) struct Json<'a> {
    out: &'a mut Vec<u8>,
    pretty: bool,
    depth: usize,
    /// Whether the object or list at hand is still empty.
    empty: bool,
}

impl<'a> Json<'a> {
    pub fn new(out: &'a mut Vec<u8>, pretty: bool) -> Self {
        Self {
            out,
            pretty,
            depth: 0,
            empty: true,
        }
    }

    pub fn begin(&mut self) {
        self.enter(b'{');
    }

    pub fn end(&mut self) {
        self.leave(b'}');
    }

    fn enter(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.depth += 1;
        self.empty = true;
    }

    fn leave(&mut self, bracket: u8) {
        self.depth -= 1;
        if !self.empty {
            self.line();
        }
        self.out.push(bracket);
        self.empty = false;
    }

    /// What stands before an entry.
    fn entry(&mut self) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.line();
    }

    fn line(&mut self) {
        if self.pretty {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + 2 * self.depth, b' ');
        }
    }

    fn key(&mut self, key: &str) {
        self.entry();
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out
            .extend_from_slice(if self.pretty { b"\": " } else { b"\":" });
    }
}

impl Tree for Json<'_> {
    fn open(&mut self, key: &'static str) {
        self.key(key);
        self.enter(b'{');
    }

    fn close(&mut self, _: &'static str) {
        self.leave(b'}');
    }

    fn open_list(&mut self, key: &'static str) {
        self.key(key);
        self.enter(b'[');
    }

    fn close_list(&mut self, _: &'static str) {
        self.leave(b']');
    }

    fn open_item(&mut self, _: &'static str) {
        self.entry();
        self.enter(b'{');
    }

    fn close_item(&mut self, _: &'static str) {
        self.leave(b'}');
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        string(self.out, value);
    }

    fn int(&mut self, key: &'static str, value: i64) {
        self.key(key);
        int(self.out, value);
    }

    fn null(&mut self, key: &'static str) {
        self.key(key);
        self.out.extend_from_slice(b"null");
    }
}

/// A JSON string; anything but `"`, `\` and control characters stands as it is.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))
    {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\n' => out.extend_from_slice(b"\\n"),
            quoted @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', quoted]),
            control => {
                let digits = [
                    HEX[usize::from(control >> 4)],
                    HEX[usize::from(control & 15)],
                ];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

pub(crate) fn int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(value.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_as_they_went_in() {
        for text in [
            "",
            "plain",
            "a\"b\\c\n\r\t\u{0}\u{1f}",
            "گل \u{2028} é 🌊",
            "</script>",
        ] {
            let mut out = Vec::new();
            string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn pretty_json_breaks_lines_and_leaves_empty_brackets_together() {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out, true);
        json.begin();
        json.open_list("results");
        json.close_list("results");
        json.open("info");
        json.int("page", 1);
        json.null("id");
        json.close("info");
        json.end();
        let expected =
            "{\n  \"results\": [],\n  \"info\": {\n    \"page\": 1,\n    \"id\": null\n  }\n}";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
