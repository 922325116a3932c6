use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use falaj_record::{ByteSize, Period, Secret};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Where raw records come from: `[source.http]`, `[source.file]`, `[source.ingest]` or
/// `[source.kafka]`, exactly one of them.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SourceConfig {
    /// An HTTP API that is polled.
    Http(HttpConfig),
    /// A file, or standard input.
    File(FileConfig),
    /// HTTP requests to `/ingest`.
    Ingest(IngestConfig),
    /// A Kafka topic that others write raw records to.
    Kafka(KafkaConfig),
}

impl SourceConfig {
    /// The word of the pipeline file.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => crate::http::KIND,
            Self::File(_) => crate::file::KIND,
            Self::Ingest(_) => crate::ingest::KIND,
            Self::Kafka(_) => crate::kafka::KIND,
        }
    }

    /// Whether the source comes to an end by itself.
    #[must_use]
    pub fn finite(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Whether a record can be read again by its position, also by another process.
    #[must_use]
    pub fn gives_again(&self) -> bool {
        match self {
            Self::File(file) => !file.is_stdin(),
            Self::Kafka(_) => true,
            Self::Http(_) | Self::Ingest(_) => false,
        }
    }
}

// By hand: the texts of serde's enums are about elements and variants.
impl<'de> Deserialize<'de> for SourceConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let kinds = Kinds::deserialize(deserializer)?;
        let mut given = [
            kinds.http.map(Self::Http),
            kinds.file.map(Self::File),
            kinds.ingest.map(Self::Ingest),
            kinds.kafka.map(Self::Kafka),
        ]
        .into_iter()
        .flatten();
        match (given.next(), given.next()) {
            (Some(source), None) => Ok(source),
            (Some(_), Some(_)) => Err(de::Error::custom(
                "a pipeline has one source: `[source.http]`, `[source.file]`, `[source.ingest]` or `[source.kafka]`",
            )),
            (None, _) => Err(de::Error::custom(
                "no source: write `[source.http]`, `[source.file]`, `[source.ingest]` or `[source.kafka]`",
            )),
        }
    }
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a source: `[source.http]`, `[source.file]`, `[source.ingest]` or `[source.kafka]`"
)]
struct Kinds {
    http: Option<HttpConfig>,
    file: Option<FileConfig>,
    ingest: Option<IngestConfig>,
    kafka: Option<KafkaConfig>,
}

/// `[source.http]`: an HTTP API that gives records as JSON and is asked again and again.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Address of the API, `http://` or `https://`.
    pub url: String,
    /// Query parameters, added to the address: texts, numbers, `true`/`false`, or a secret.
    #[serde(default)]
    pub query: BTreeMap<String, Setting>,
    /// Where the array of records is in a reply, as keys joined by dots. Absent: the reply is the
    /// array itself, or one record.
    #[serde(default)]
    pub records: Option<String>,
    /// From the start of one request to the start of the next. A request that takes longer puts off
    /// the next one to the next multiple; requests never pile up.
    #[serde(default = "every")]
    pub every: Period,
    /// Request headers: texts or secrets.
    #[serde(default)]
    pub headers: BTreeMap<String, Setting>,
    /// Authentication: `{ bearer = SECRET }` or `{ basic = { user = "..", password = SECRET } }`.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// Longest wait for a complete reply.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// Longest reply, unpacked; a longer one is not used.
    #[serde(default = "max_body")]
    pub max_body: ByteSize,
    /// Whether falaj adds `inc=` with the top-level names of the declared fields, so that the API
    /// sends nothing else. A query parameter `inc` of your own wins.
    #[serde(default = "yes")]
    pub inc: bool,
}

/// How falaj shows an API who it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Auth {
    /// `Authorization: Bearer ..`.
    Bearer(Secret),
    /// `Authorization: Basic ..`.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: Secret,
    },
}

/// `[source.file]`: records in a file, one JSON object a line, or a saved reply of an API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The file, relative to the pipeline file; `-` is standard input.
    pub path: PathBuf,
    /// For a saved reply: where the array of records is in it, as keys joined by dots. Absent: what
    /// the file is shows in its first bytes (`[`: an array of records; `{"results":[`: a saved
    /// reply of the Random User API; else one record a line).
    #[serde(default)]
    pub records: Option<String>,
}

impl FileConfig {
    /// Whether it is standard input.
    #[must_use]
    pub fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }
}

/// `[source.ingest]`: records that others POST to `/ingest` of the page's server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Longest body of a request.
    pub max_body: ByteSize,
    /// How many bytes of requests may wait to be published; what comes beyond is told to come again
    /// later. At least one request of `max_body` may always wait.
    pub queue: ByteSize,
    /// What a request must show as `Authorization: Bearer ..`. Required where other machines reach
    /// the address.
    pub token: Option<Secret>,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            max_body: ByteSize(16_000_000),
            queue: ByteSize(64_000_000),
            token: None,
        }
    }
}

/// `[source.kafka]`: raw records that others write to a Kafka topic.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// The topic. Another one than the pipeline's own.
    pub topic: String,
    /// Where it is, as in `[topic]`; without it, where the pipeline's own topic is.
    #[serde(default)]
    pub brokers: Option<String>,
    /// Consumer group under which positions are shown to tools that tell lag. Without it, the
    /// pipeline's name and `.source`. falaj itself goes on from its checkpoint.
    #[serde(default)]
    pub group: Option<String>,
}

/// A query parameter or header: written out, or a secret that stands elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Setting {
    /// As it is.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `{ env = "NAME" }` or `{ file = "path" }`.
    Secret(Secret),
}

impl Setting {
    /// Its text; `base` is the folder of the pipeline file.
    ///
    /// # Errors
    /// Where it is a secret that cannot be read; the message never has its content.
    pub fn read(&self, base: &Path) -> Result<String, String> {
        match self {
            Self::Secret(secret) => secret.read(base),
            open => Ok(open.open_text().unwrap_or_default()),
        }
    }

    /// Its text where it is no secret.
    pub(crate) fn open_text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Int(number) => Some(number.to_string()),
            Self::Float(number) => Some(number.to_string()),
            Self::Bool(flag) => Some(flag.to_string()),
            Self::Secret(_) => None,
        }
    }
}

// By hand: serde's untagged enums cannot say what was expected.
impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SettingVisitor)
    }
}

struct SettingVisitor;

impl<'de> Visitor<'de> for SettingVisitor {
    type Value = Setting;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a text, a number, true, false, or a secret: { env = \"NAME\" } or { file = \"path\" }",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Setting, E> {
        Ok(Setting::Text(text.to_owned()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Setting, E> {
        Ok(Setting::Int(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Setting, E> {
        i64::try_from(number)
            .map(Setting::Int)
            .map_err(|_| E::custom("number out of range"))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Setting, E> {
        Ok(Setting::Float(number))
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Setting, E> {
        Ok(Setting::Bool(flag))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Setting, A::Error> {
        Secret::deserialize(MapAccessDeserializer::new(map)).map(Setting::Secret)
    }
}

fn every() -> Period {
    Period(Duration::from_secs(5))
}

fn timeout() -> Period {
    Period(Duration::from_secs(10))
}

fn max_body() -> ByteSize {
    ByteSize(64_000_000)
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_design_is_read() {
        let config: SourceConfig = toml::from_str(
            r#"
            [http]
            url = "https://randomuser.me/api/"
            query = { results = 250, noinfo = true, seed = "abc", key = { env = "API_KEY" } }
            records = "results"
            every = "5s"
            headers = { x-team = "water" }
            auth = { basic = { user = "me", password = { file = "pw" } } }
            "#,
        )
        .expect("valid");
        let SourceConfig::Http(http) = &config else {
            panic!("an http source")
        };
        assert_eq!((config.kind(), config.finite()), ("http", false));
        assert_eq!(http.query["results"], Setting::Int(250));
        assert_eq!(http.query["noinfo"], Setting::Bool(true));
        assert_eq!(
            http.query["key"],
            Setting::Secret(Secret::Env("API_KEY".into()))
        );
        assert_eq!(http.timeout, "10s".parse().expect("a period"));
        assert_eq!(http.max_body, ByteSize(64_000_000));
        assert!(http.inc);

        let config: SourceConfig = toml::from_str("[file]\npath = \"-\"").expect("valid");
        assert_eq!((config.kind(), config.finite()), ("file", true));

        let config: SourceConfig = toml::from_str("[kafka]\ntopic = \"messages\"").expect("valid");
        assert_eq!((config.kind(), config.finite()), ("kafka", false));

        let config: SourceConfig = toml::from_str("[ingest]").expect("valid");
        assert_eq!((config.kind(), config.finite()), ("ingest", false));
        assert_eq!(config, SourceConfig::Ingest(IngestConfig::default()));
    }

    #[test]
    fn what_is_not_known_is_refused_with_a_reason() {
        for (text, reason) in [
            (
                "[http]\nurl = \"http://x\"\nevry = \"5s\"",
                "unknown field `evry`",
            ),
            ("[http]\nevery = \"5s\"", "missing field `url`"),
            ("[http]\nurl = \"http://x\"\nevery = 5", "expected a string"),
            (
                "[http]\nurl = \"http://x\"\nquery = { a = [1] }",
                "a text, a number, true, false, or a secret",
            ),
            (
                "[http]\nurl = \"http://x\"\nquery = { a = { evn = \"X\" } }",
                "unknown variant `evn`",
            ),
            (
                "[http]\nurl = \"http://x\"\nauth = { bearer = \"plain\" }",
                "unknown variant `plain`",
            ),
            (
                "[smtp]\nurl = \"http://x\"",
                "unknown field `smtp`, expected one of `http`, `file`, `ingest`, `kafka`",
            ),
            (
                "[file]\npath = \"x\"\n[http]\nurl = \"http://x\"",
                "a pipeline has one source",
            ),
            (
                "[ingest]\n[kafka]\ntopic = \"x\"",
                "a pipeline has one source",
            ),
            ("[ingest]\nmaxbody = \"1kB\"", "unknown field `maxbody`"),
            ("[ingest]\ntoken = \"plain\"", "unknown variant `plain`"),
            ("[kafka]\ngroup = \"x\"", "missing field `topic`"),
            ("[file]\n", "missing field `path`"),
            ("", "no source: write"),
        ] {
            let error = toml::from_str::<SourceConfig>(text)
                .expect_err(text)
                .to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema = serde_json::to_string(&schemars::schema_for!(SourceConfig)).expect("JSON");
        for key in [
            "http", "file", "url", "max_body", "inc", "bearer", "password", "ingest", "queue",
            "token", "kafka", "topic", "brokers", "group",
        ] {
            assert!(schema.contains(&format!("\"{key}\"")), "{key}");
        }
    }
}
