use crate::json;
use crate::reply::Tree;

/// YAML in block style, two spaces deep.
///
/// Text that could be read as something else (`NO`, `0154`, `+5:30`, `12e3`) is quoted the JSON way,
/// which is YAML too.
pub(crate) struct Yaml<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
    /// Whether the next entry begins a list's object, and so with a dash.
    dash: bool,
    /// Whether the list or object at hand is still empty.
    empty: bool,
}

impl<'a> Yaml<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            depth: 0,
            dash: false,
            empty: true,
        }
    }

    fn key(&mut self, key: &str) {
        if !self.out.is_empty() {
            self.out.push(b'\n');
        }
        let indent = 2 * self.depth;
        if self.dash {
            self.out.resize(self.out.len() + indent - 2, b' ');
            self.out.extend_from_slice(b"- ");
            self.dash = false;
        } else {
            self.out.resize(self.out.len() + indent, b' ');
        }
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b':');
        self.empty = false;
    }
}

impl Tree for Yaml<'_> {
    fn open(&mut self, key: &'static str) {
        self.key(key);
        self.depth += 1;
    }

    fn close(&mut self, _: &'static str) {
        self.depth -= 1;
    }

    fn open_list(&mut self, key: &'static str) {
        self.key(key);
        self.depth += 1;
        self.empty = true;
    }

    fn close_list(&mut self, _: &'static str) {
        self.depth -= 1;
        if self.empty {
            self.out.extend_from_slice(b" []");
        }
        self.empty = false;
    }

    fn open_item(&mut self, _: &'static str) {
        self.depth += 1;
        self.dash = true;
        self.empty = true;
    }

    fn close_item(&mut self, _: &'static str) {
        self.depth -= 1;
        if self.dash {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + 2 * self.depth, b' ');
            self.out.extend_from_slice(b"- {}");
            self.dash = false;
        }
        self.empty = false;
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        self.out.push(b' ');
        if is_plain(value) {
            self.out.extend_from_slice(value.as_bytes());
        } else {
            json::string(self.out, value);
        }
    }

    fn int(&mut self, key: &'static str, value: i64) {
        self.key(key);
        self.out.push(b' ');
        json::int(self.out, value);
    }

    fn null(&mut self, key: &'static str) {
        self.key(key);
        self.out.extend_from_slice(b" null");
    }
}

/// Whether `text` means itself without quotes: letters, with spaces, dots and `@` inside, and no word
/// that some reader takes for a truth value or nothing.
fn is_plain(text: &str) -> bool {
    const RESERVED: [&str; 10] = [
        "null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan",
    ];
    let inside = |c: char| c.is_alphabetic() || " .@_".contains(c);
    text.starts_with(char::is_alphabetic)
        && text.ends_with(char::is_alphabetic)
        && text.chars().all(inside)
        && !RESERVED.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_could_mean_something_else_is_quoted() {
        for (text, plain) in [
            ("Oslo", true),
            ("São Paulo", true),
            ("anna.berg@example.com", true),
            ("NO", false),
            ("true", false),
            ("0154", false),
            ("+5:30", false),
            ("1993-09-18T02:30:31Z", false),
            ("", false),
            ("a: b", false),
            ("#a", false),
            ("O'Neil", false),
            ("end ", false),
        ] {
            assert_eq!(is_plain(text), plain, "{text:?}");
        }
    }

    #[test]
    fn lists_objects_and_nothing_have_their_block_forms() {
        let mut out = Vec::new();
        let mut yaml = Yaml::new(&mut out);
        yaml.open_list("results");
        yaml.open_item("results");
        yaml.open("name");
        yaml.text("first", "Ada");
        yaml.close("name");
        yaml.text("nat", "NO");
        yaml.close_item("results");
        yaml.open_item("results");
        yaml.close_item("results");
        yaml.close_list("results");
        yaml.open_list("none");
        yaml.close_list("none");
        yaml.open("info");
        yaml.int("page", 1);
        yaml.null("id");
        yaml.close("info");
        let expected = "results:\n  - name:\n      first: Ada\n    nat: \"NO\"\n  - {}\nnone: []\ninfo:\n  page: 1\n  id: null";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
