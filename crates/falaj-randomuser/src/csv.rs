//! Comma-separated values: a header of dotted paths, then a line per record.

use crate::json::int;
use crate::reply::Tree;

/// Writes one line: what `cells` adds, without its last comma.
pub(crate) fn line(out: &mut Vec<u8>, cells: impl FnOnce(&mut Vec<u8>)) {
    cells(out);
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(b'\n');
}

/// The path of every value.
pub(crate) struct Header<'a> {
    out: &'a mut Vec<u8>,
    path: Vec<&'static str>,
}

impl<'a> Header<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            path: Vec::new(),
        }
    }

    fn cell(&mut self, key: &str) {
        for part in &self.path {
            self.out.extend_from_slice(part.as_bytes());
            self.out.push(b'.');
        }
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b',');
    }
}

impl Tree for Header<'_> {
    fn open(&mut self, key: &'static str) {
        self.path.push(key);
    }

    fn close(&mut self, _: &'static str) {
        self.path.pop();
    }

    fn text(&mut self, key: &'static str, _: &str) {
        self.cell(key);
    }

    fn int(&mut self, key: &'static str, _: i64) {
        self.cell(key);
    }

    fn null(&mut self, key: &'static str) {
        self.cell(key);
    }

    // A line holds one record, so there are no lists.
    fn open_list(&mut self, _: &'static str) {}
    fn close_list(&mut self, _: &'static str) {}
    fn open_item(&mut self, _: &'static str) {}
    fn close_item(&mut self, _: &'static str) {}
}

/// The values, quoted where they hold a comma, a quote or a line break. Null is empty.
pub(crate) struct Row<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Row<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }
}

impl Tree for Row<'_> {
    fn text(&mut self, _: &'static str, value: &str) {
        if value.contains([',', '"', '\n', '\r']) {
            self.out.push(b'"');
            self.out
                .extend_from_slice(value.replace('"', "\"\"").as_bytes());
            self.out.push(b'"');
        } else {
            self.out.extend_from_slice(value.as_bytes());
        }
        self.out.push(b',');
    }

    fn int(&mut self, _: &'static str, value: i64) {
        int(self.out, value);
        self.out.push(b',');
    }

    fn null(&mut self, _: &'static str) {
        self.out.push(b',');
    }

    fn open(&mut self, _: &'static str) {}
    fn close(&mut self, _: &'static str) {}
    fn open_list(&mut self, _: &'static str) {}
    fn close_list(&mut self, _: &'static str) {}
    fn open_item(&mut self, _: &'static str) {}
    fn close_item(&mut self, _: &'static str) {}
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::people::Options;
    use crate::query::{Query, Version};
    use crate::reply::render;

    #[test]
    fn cells_with_commas_and_quotes_are_quoted() {
        let mut out = Vec::new();
        line(&mut out, |out| {
            let mut row = Row::new(out);
            row.text("a", "plain");
            row.text("b", "Lima, \"Perú\"");
            row.int("c", -7);
            row.null("d");
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "plain,\"Lima, \"\"Perú\"\"\",-7,\n"
        );
    }

    #[test]
    fn the_header_is_dotted_and_there_is_no_info() {
        let text = |query: &str| {
            let query = Query::parse(Version::V1_4, query, "1");
            String::from_utf8(render(&query, &Options::default(), UNIX_EPOCH)).unwrap()
        };
        let all = text("format=csv&results=3");
        assert_eq!(
            all.lines().next().unwrap(),
            "gender,name.title,name.first,name.last,location.street.number,location.street.name,\
             location.city,location.state,location.country,location.postcode,\
             location.coordinates.latitude,location.coordinates.longitude,location.timezone.offset,\
             location.timezone.description,email,login.uuid,login.username,login.password,login.salt,\
             login.md5,login.sha1,login.sha256,dob.date,dob.age,registered.date,registered.age,phone,\
             cell,id.name,id.value,picture.large,picture.medium,picture.thumbnail,nat"
        );
        assert_eq!(all.lines().count(), 4);
        assert!(text("format=csv&inc=nat,id&nat=tr").ends_with("id.name,id.value,nat\n,,TR\n"));
    }
}
