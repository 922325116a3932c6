//! The one description of what a record and a reply contain, walked by every format.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

use crate::csv::{self, Header, Row};
use crate::domains::Domains;
use crate::forms::Postcode;
use crate::json::Json;
use crate::nation::Nat;
use crate::people::{Draw, Options, Person};
use crate::query::{Field, Fields, Format, Gender, Query, Version};
use crate::time::Civil;
use crate::xml::Xml;
use crate::yaml::Yaml;

/// A format, as the walk over a reply sees it. What is opened is closed with the same key.
pub(crate) trait Tree {
    /// An object under `key`.
    fn open(&mut self, key: &'static str);
    fn close(&mut self, key: &'static str);
    /// A list under `key`, and each of its objects.
    fn open_list(&mut self, key: &'static str);
    fn close_list(&mut self, key: &'static str);
    fn open_item(&mut self, list: &'static str);
    fn close_item(&mut self, list: &'static str);
    fn text(&mut self, key: &'static str, value: &str);
    fn int(&mut self, key: &'static str, value: i64);
    fn null(&mut self, key: &'static str);
}

/// The body of the reply to `query`, with as many people as it asks for.
#[must_use]
pub fn render(query: &Query, options: &Options, now: SystemTime) -> Vec<u8> {
    render_some(query, options, now, query.results)
}

/// The same with `shown` people, whatever the info block says.
pub(crate) fn render_some(
    query: &Query,
    options: &Options,
    now: SystemTime,
    shown: u32,
) -> Vec<u8> {
    let draw = Draw::new(query, options, now);
    let people = (0..u64::from(shown)).map(|index| draw.person(index));
    let mut body = Vec::with_capacity(shown as usize * 1200 + 256);
    match query.format {
        Format::Json | Format::Pretty => {
            let wrap = query.callback.as_deref();
            if let Some(function) = wrap {
                body.extend_from_slice(function.as_bytes());
                body.push(b'(');
            }
            let mut json = Json::new(&mut body, query.format == Format::Pretty);
            json.begin();
            walk(&mut json, query, people);
            json.end();
            if wrap.is_some() {
                body.extend_from_slice(b");");
            }
        }
        Format::Csv => {
            for (at, person) in people.enumerate() {
                if at == 0 {
                    csv::line(&mut body, |out| person.walk(&mut Header::new(out), query));
                }
                csv::line(&mut body, |out| person.walk(&mut Row::new(out), query));
            }
        }
        Format::Yaml => {
            walk(&mut Yaml::new(&mut body), query, people);
            body.push(b'\n');
        }
        Format::Xml => {
            let mut xml = Xml::new(&mut body);
            xml.begin();
            walk(&mut xml, query, people);
            xml.end();
        }
    }
    body
}

fn walk<T: Tree>(tree: &mut T, query: &Query, people: impl Iterator<Item = Person>) {
    tree.open_list("results");
    for person in people {
        tree.open_item("results");
        person.walk(tree, query);
        tree.close_item("results");
    }
    tree.close_list("results");
    if query.info {
        tree.open("info");
        tree.text("seed", &query.stated_seed());
        tree.int("results", query.results.into());
        tree.int("page", query.page.into());
        tree.text("version", query.version.name());
        tree.close("info");
    }
}

impl Person {
    /// The fields of a record that `query` shows, in the order and shape of its version.
    pub(crate) fn walk<T: Tree>(&self, tree: &mut T, query: &Query) {
        let Query {
            version, fields, ..
        } = *query;
        if fields.contains(Field::Gender) {
            tree.text("gender", self.gender.name());
        }
        if fields.contains(Field::Name) {
            tree.open("name");
            tree.text("title", &self.title);
            tree.text("first", &self.first);
            tree.text("last", &self.last);
            tree.close("name");
        }
        if fields.contains(Field::Location) {
            self.walk_location(tree, version);
        }
        if fields.contains(Field::Email) {
            tree.text("email", &self.email);
        }
        if fields.contains(Field::Login) {
            self.walk_login(tree, version);
        }
        self.walk_dates(tree, version, fields);
        if fields.contains(Field::Phone) {
            tree.text("phone", &self.phone);
        }
        if fields.contains(Field::Cell) {
            tree.text("cell", &self.cell);
        }
        if fields.contains(Field::Id) {
            tree.open("id");
            tree.text("name", &self.id_name);
            match &self.id_value {
                Some(value) => tree.text("value", value),
                None => tree.null("value"),
            }
            tree.close("id");
        }
        if fields.contains(Field::Picture) {
            self.walk_picture(tree);
        }
        if fields.contains(Field::Nat) {
            tree.text("nat", self.nat.code());
        }
    }

    fn walk_location<T: Tree>(&self, tree: &mut T, version: Version) {
        tree.open("location");
        if version >= Version::V1_3 {
            tree.open("street");
            tree.int("number", self.street_number);
            tree.text("name", &self.street);
            tree.close("street");
        } else {
            tree.text("street", &format!("{} {}", self.street_number, self.street));
        }
        tree.text("city", &self.city);
        tree.text("state", &self.state);
        if version >= Version::V1_3 {
            tree.text("country", &self.country);
        }
        match &self.postcode {
            Postcode::Number(number) => tree.int("postcode", *number),
            Postcode::Text(text) => tree.text("postcode", text),
        }
        if version >= Version::V1_2 {
            tree.open("coordinates");
            tree.text("latitude", &self.latitude);
            tree.text("longitude", &self.longitude);
            tree.close("coordinates");
            tree.open("timezone");
            tree.text("offset", &self.offset);
            tree.text("description", &self.zone);
            tree.close("timezone");
        }
        tree.close("location");
    }

    /// The hashes are real: of the password followed by the salt.
    fn walk_login<T: Tree>(&self, tree: &mut T, version: Version) {
        tree.open("login");
        if version >= Version::V1_2 {
            tree.text("uuid", &self.uuid);
        }
        tree.text("username", &self.username);
        tree.text("password", &self.password);
        tree.text("salt", &self.salt);
        let hashed = [self.password.as_bytes(), self.salt.as_bytes()].concat();
        tree.text("md5", &hex(&Md5::digest(&hashed)));
        tree.text("sha1", &hex(&Sha1::digest(&hashed)));
        tree.text("sha256", &hex(&Sha256::digest(&hashed)));
        tree.close("login");
    }

    fn walk_dates<T: Tree>(&self, tree: &mut T, version: Version, fields: Fields) {
        for (field, key, ms, age) in [
            (Field::Dob, "dob", self.born_ms, self.age),
            (
                Field::Registered,
                "registered",
                self.registered_ms,
                self.registered_age,
            ),
        ] {
            if !fields.contains(field) {
                continue;
            }
            if version == Version::V1_1 {
                tree.text(key, &date(ms, version));
            } else {
                tree.open(key);
                tree.text("date", &date(ms, version));
                tree.int("age", age);
                tree.close(key);
            }
        }
    }

    fn walk_picture<T: Tree>(&self, tree: &mut T) {
        let folder = match (self.nat, self.gender) {
            (Nat::Lego, _) => "lego",
            (_, Gender::Male) => "men",
            (_, Gender::Female) => "women",
        };
        tree.open("picture");
        for (key, size, number) in [
            ("large", "", self.pictures[0]),
            ("medium", "med/", self.pictures[1]),
            ("thumbnail", "thumb/", self.pictures[2]),
        ] {
            let url = format!("https://randomuser.me/api/portraits/{size}{folder}/{number}.jpg");
            tree.text(key, &url);
        }
        tree.close("picture");
    }
}

/// A moment as `version` writes it: without `T` and `Z` in 1.1, with milliseconds from 1.3 on.
pub(crate) fn date(ms: i64, version: Version) -> String {
    let civil = Civil::of(ms);
    match version {
        Version::V1_1 => civil.text(' '),
        Version::V1_2 => civil.text('T') + "Z",
        Version::V1_3 | Version::V1_4 => {
            format!("{}.{:03}Z", civil.text('T'), civil.time_ms % 1000)
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

/// The moment that [`write_ndjson`] counts ages to, 2026-11-01T00:00:00Z in seconds since 1970, so
/// that a file is the same whenever it is written.
pub const NDJSON_DAY: u64 = 1_793_491_200;

/// Writes `n` records of version 1.4 with all fields, one a line: the people of `seed`.
///
/// # Errors
/// Where `out` refuses.
pub fn write_ndjson(out: &mut impl Write, n: u64, seed: &str, domains: &Domains) -> io::Result<()> {
    let options = Options {
        domains: domains.clone(),
        canary: false,
    };
    let now = UNIX_EPOCH + Duration::from_secs(NDJSON_DAY);
    write_records(out, n, &Query::new(Version::V1_4, seed), &options, now)
}

/// Writes the first `n` records of `query` (its `results` do not matter), one a line of JSON.
///
/// # Errors
/// Where `out` refuses.
pub fn write_records(
    out: &mut impl Write,
    n: u64,
    query: &Query,
    options: &Options,
    now: SystemTime,
) -> io::Result<()> {
    /// Bytes that are gathered before they are handed to `out`.
    const CHUNK: usize = 64 * 1024;
    let draw = Draw::new(query, options, now);
    let mut lines = Vec::with_capacity(CHUNK + 4096);
    for index in 0..n {
        let mut json = Json::new(&mut lines, false);
        json.begin();
        draw.person(index).walk(&mut json, query);
        json.end();
        lines.push(b'\n');
        if lines.len() >= CHUNK {
            out.write_all(&lines)?;
            lines.clear();
        }
    }
    out.write_all(&lines)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn json(query: &Query) -> Value {
        let now = UNIX_EPOCH + Duration::from_secs(NDJSON_DAY);
        serde_json::from_slice(&render(query, &Options::default(), now)).expect("valid JSON")
    }

    fn ask(version: Version, query: &str) -> Value {
        json(&Query::parse(version, query, "0123456789abcdef"))
    }

    #[test]
    fn the_same_seed_gives_the_same_reply() {
        for version in Version::ALL {
            let reply = ask(version, "seed=abc&results=20");
            assert_eq!(reply, ask(version, "seed=abc&results=20"), "{version}");
            assert_ne!(reply, ask(version, "seed=abd&results=20"), "{version}");
        }
    }

    #[test]
    fn fewer_results_are_the_beginning_of_more() {
        let fifty = ask(Version::V1_4, "seed=abc&results=50");
        for n in [1, 10, 20, 49] {
            let fewer = ask(Version::V1_4, &format!("seed=abc&results={n}"));
            assert_eq!(
                fewer["results"].as_array(),
                fifty["results"]
                    .as_array()
                    .map(|all| all[..n].to_vec())
                    .as_ref()
            );
        }
    }

    #[test]
    fn a_page_is_a_run_of_its_own() {
        let long = ask(Version::V1_4, "seed=abc&results=100");
        let page = ask(Version::V1_4, "seed=abc&results=50&page=2");
        let same_as_seed = ask(Version::V1_4, "seed=abc2&results=50");
        assert_ne!(
            page["results"][0], long["results"][50],
            "page 2 is not users 51 to 100"
        );
        assert_eq!(page["results"], same_as_seed["results"]);
        assert_eq!(page["info"]["page"], 2);
        assert_eq!(page["info"]["seed"], "abc");
    }

    #[test]
    fn inc_exc_and_format_never_change_who_is_drawn() {
        let all = ask(Version::V1_4, "seed=abc&results=30");
        let some = ask(Version::V1_4, "seed=abc&results=30&inc=email,dob,nat");
        let pretty = ask(Version::V1_4, "seed=abc&results=30&format=pretty");
        assert_eq!(pretty, all);
        for (all, some) in all["results"]
            .as_array()
            .unwrap()
            .iter()
            .zip(some["results"].as_array().unwrap())
        {
            let some = some.as_object().unwrap();
            assert_eq!(some.len(), 3);
            for (key, value) in some {
                assert_eq!(value, &all[key], "{key}");
            }
        }
        let none = ask(Version::V1_4, "inc=shoes");
        assert_eq!(none["results"][0], serde_json::json!({}));
    }

    #[test]
    fn info_states_seed_results_page_and_version() {
        let reply = ask(Version::V1_3, "results=3&page=4");
        let info = serde_json::json!({"seed": "0123456789abcdef", "results": 3, "page": 4, "version": "1.3"});
        assert_eq!(reply["info"], info);
        assert!(ask(Version::V1_4, "noinfo=false").get("info").is_none());
    }

    #[test]
    fn login_hashes_are_those_of_password_and_salt() {
        // Known answers: printf '%s%s' river aZ3 | md5sum, and so on.
        let hashed = b"riveraZ3";
        assert_eq!(
            hex(&Md5::digest(hashed)),
            "d87775aa0b20b96b61182da660ab2315"
        );
        assert_eq!(
            hex(&Sha1::digest(hashed)),
            "4dc20c0197bc6980fc33051e216909f1a310eb55"
        );
        assert_eq!(
            hex(&Sha256::digest(hashed)),
            "7e5caf24c134ebd2af1ac8b58f600489b51bccdc3d12830ee4cc8149d08f207e"
        );
        let reply = ask(Version::V1_4, "results=20");
        for record in reply["results"].as_array().unwrap() {
            let login = &record["login"];
            let text = |key: &str| login[key].as_str().unwrap().to_owned();
            let hashed = text("password") + &text("salt");
            assert_eq!(text("md5"), hex(&Md5::digest(&hashed)));
            assert_eq!(text("sha1"), hex(&Sha1::digest(&hashed)));
            assert_eq!(text("sha256"), hex(&Sha256::digest(&hashed)));
            assert_eq!(text("salt").len(), 8);
        }
        assert!(
            ask(Version::V1_1, "")["results"][0]["login"]
                .get("uuid")
                .is_none()
        );
    }

    #[test]
    fn picture_links_agree_in_gender_and_number() {
        let reply = ask(Version::V1_4, "results=50");
        for record in reply["results"].as_array().unwrap() {
            let folder = if record["gender"] == "male" {
                "men"
            } else {
                "women"
            };
            let large = record["picture"]["large"].as_str().unwrap();
            let base = "https://randomuser.me/api/portraits/";
            let number = large.strip_prefix(&format!("{base}{folder}/")).unwrap();
            assert_eq!(
                record["picture"]["medium"],
                format!("{base}med/{folder}/{number}")
            );
            assert_eq!(
                record["picture"]["thumbnail"],
                format!("{base}thumb/{folder}/{number}")
            );
        }
    }

    #[test]
    fn dates_are_written_as_the_version_writes_them() {
        for (version, text) in [
            (Version::V1_1, "1993-09-18 02:30:31"),
            (Version::V1_2, "1993-09-18T02:30:31Z"),
            (Version::V1_3, "1993-09-18T02:30:31.007Z"),
            (Version::V1_4, "1993-09-18T02:30:31.007Z"),
        ] {
            assert_eq!(date(748_319_431_007, version), text);
        }
    }

    #[test]
    fn a_callback_wraps_json_and_nothing_else() {
        let body = |query: &str| {
            let query = Query::parse(Version::V1_4, query, "1");
            String::from_utf8(render(&query, &Options::default(), UNIX_EPOCH)).unwrap()
        };
        let wrapped = body("callback=show&inc=nat");
        assert!(wrapped.starts_with("show({\"results\":[{\"nat\":") && wrapped.ends_with("});"));
        assert!(body("callback=show&format=csv&inc=nat").starts_with("nat\n"));
    }

    #[test]
    fn ndjson_lines_are_the_records_of_the_seed() {
        let mut lines = Vec::new();
        write_ndjson(&mut lines, 300, "abc", &Domains::default()).unwrap();
        let records: Vec<Value> = String::from_utf8(lines)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let reply = ask(Version::V1_4, "seed=abc&results=300");
        assert_eq!(Some(&records), reply["results"].as_array());
        let bytes: usize = records.iter().map(|record| record.to_string().len()).sum();
        assert!(
            (1000..1180).contains(&(bytes / 300)),
            "{} bytes a record",
            bytes / 300
        );
    }
}
