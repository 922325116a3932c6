use crate::json::int;
use crate::reply::Tree;

/// XML, two spaces deep. A list has no element of its own: its objects repeat its key.
pub(crate) struct Xml<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
}

impl<'a> Xml<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, depth: 0 }
    }

    pub fn begin(&mut self) {
        self.out
            .extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
        self.open("user");
    }

    pub fn end(&mut self) {
        self.close("user");
        self.out.push(b'\n');
    }

    fn line(&mut self) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + 2 * self.depth, b' ');
    }

    fn tag(&mut self, before: &[u8], key: &str, after: &[u8]) {
        self.out.extend_from_slice(before);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(after);
    }
}

impl Tree for Xml<'_> {
    fn open(&mut self, key: &'static str) {
        self.line();
        self.tag(b"<", key, b">");
        self.depth += 1;
    }

    fn close(&mut self, key: &'static str) {
        self.depth -= 1;
        self.line();
        self.tag(b"</", key, b">");
    }

    fn open_list(&mut self, _: &'static str) {}
    fn close_list(&mut self, _: &'static str) {}

    fn open_item(&mut self, list: &'static str) {
        self.open(list);
    }

    fn close_item(&mut self, list: &'static str) {
        self.close(list);
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.line();
        self.tag(b"<", key, b">");
        escape(self.out, value);
        self.tag(b"</", key, b">");
    }

    fn int(&mut self, key: &'static str, value: i64) {
        self.line();
        self.tag(b"<", key, b">");
        int(self.out, value);
        self.tag(b"</", key, b">");
    }

    fn null(&mut self, key: &'static str) {
        self.line();
        self.tag(b"<", key, b"/>");
    }
}

/// Text as XML can hold it: a character that XML 1.0 has no place for becomes U+FFFD.
fn escape(out: &mut Vec<u8>, text: &str) {
    let mut buffer = [0; 4];
    for c in text.chars() {
        let escaped = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '\r' => "&#13;",
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                "\u{fffd}"
            }
            other => other.encode_utf8(&mut buffer),
        };
        out.extend_from_slice(escaped.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use crate::people::Options;
    use crate::query::{Query, Version};
    use crate::reply::render;

    #[test]
    fn a_reply_has_one_results_element_a_record_and_then_info() {
        let query = Query::parse(
            Version::V1_4,
            "format=xml&results=2&inc=nat,id&nat=tr&seed=a%3C%26%00b",
            "1",
        );
        let body = render(&query, &Options::default(), UNIX_EPOCH);
        let record = "  <results>\n    <id>\n      <name></name>\n      <value/>\n    </id>\n    <nat>TR</nat>\n  </results>\n";
        let expected = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<user>\n{record}{record}  <info>\n    \
             <seed>a&lt;&amp;\u{fffd}b</seed>\n    <results>2</results>\n    <page>1</page>\n    \
             <version>1.4</version>\n  </info>\n</user>\n"
        );
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }
}
