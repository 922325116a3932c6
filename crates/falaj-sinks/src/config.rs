use std::path::Path;

use schemars::JsonSchema;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    CassandraConfig, CassandraSink, KINDS, MongodbConfig, MongodbSink, Sink, SinkError,
    SqliteConfig, SqliteSink, Terms,
};

/// A `[sinks.NAME]` table; `type` names the kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum SinkConfig {
    /// A SQLite file.
    Sqlite(SqliteConfig),
    /// Apache Cassandra.
    Cassandra(Box<CassandraConfig>),
    /// A MongoDB database.
    Mongodb(MongodbConfig),
}

/// A kind of sink, as the registry [`KINDS`] lists it.
#[derive(Debug)]
pub struct Kind {
    /// The word of `type = ".."`.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// A `[sinks.NAME]` table that works.
    pub example: &'static str,
    /// Reads the table without its `type`.
    pub(crate) read: fn(Value) -> Result<SinkConfig, serde_json::Error>,
}

/// What relative and absent paths of a sink are resolved against.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Folder of the pipeline file.
    pub pipeline: &'a Path,
    /// The pipeline's data directory.
    pub data: &'a Path,
}

impl SinkConfig {
    /// The word of `type = ".."`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Cassandra(_) => "cassandra",
            Self::Mongodb(_) => "mongodb",
        }
    }

    /// Which views it takes.
    #[must_use]
    pub fn views(&self) -> &Selection {
        match self {
            Self::Sqlite(config) => &config.views,
            Self::Cassandra(config) => &config.views,
            Self::Mongodb(config) => &config.views,
        }
    }

    /// The store it means, as errors name it. Two sinks of one pipeline must not share a store.
    #[must_use]
    pub fn store(&self, places: Places<'_>) -> String {
        match self {
            Self::Sqlite(config) => config.file(places).display().to_string(),
            Self::Cassandra(config) => config.store(),
            Self::Mongodb(config) => config.store(),
        }
    }

    /// The sink, not connected yet: [`Sink::prepare`] connects. Rows are kept on these
    /// terms.
    ///
    /// # Errors
    /// Where a setting cannot be used, or a secret or a certificate cannot be read.
    pub fn sink(&self, places: Places<'_>, terms: &Terms) -> Result<Box<dyn Sink>, SinkError> {
        Ok(match self {
            Self::Sqlite(config) => Box::new(SqliteSink::new(config.file(places), terms.clone())),
            Self::Cassandra(config) => Box::new(CassandraSink::new(config, places, terms.clone())?),
            Self::Mongodb(config) => {
                Box::new(MongodbSink::new(config, places.pipeline, terms.clone())?)
            }
        })
    }
}

impl<'de> Deserialize<'de> for SinkConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut keys = Map::deserialize(deserializer)?;
        let kind = match keys.remove("type") {
            Some(Value::String(kind)) => kind,
            Some(_) => return Err(D::Error::custom("`type` of a sink is a text")),
            None => {
                return Err(D::Error::custom(format!(
                    "a sink needs a `type`: {}",
                    kinds()
                )));
            }
        };
        match KINDS.iter().find(|known| known.name == kind) {
            Some(known) => (known.read)(Value::Object(keys)).map_err(D::Error::custom),
            None => Err(D::Error::custom(unknown(&kind))),
        }
    }
}

fn unknown(kind: &str) -> String {
    let like = |known: &&str| strsim::damerau_levenshtein(known, kind) <= 2;
    match KINDS.iter().map(|known| known.name).find(like) {
        Some(name) => format!("unknown sink type `{kind}`, did you mean `{name}`?"),
        None => format!("unknown sink type `{kind}`; there is {}", kinds()),
    }
}

fn kinds() -> String {
    let names: Vec<_> = KINDS
        .iter()
        .map(|kind| format!("`{}`", kind.name))
        .collect();
    names.join(", ")
}

/// Views by name; `"*"` is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Selection(Vec<String>);

impl Default for Selection {
    fn default() -> Self {
        Self(vec!["*".into()])
    }
}

impl Selection {
    /// Whether `view` belongs to it.
    #[must_use]
    pub fn takes(&self, view: &str) -> bool {
        self.0.iter().any(|name| name == "*" || name == view)
    }

    /// The first name that is none of the pipeline's views.
    #[must_use]
    pub fn unknown(&self, is_view: impl Fn(&str) -> bool) -> Option<&str> {
        let mut names = self.0.iter().map(String::as_str);
        names.find(|name| *name != "*" && !is_view(name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        sinks: BTreeMap<String, SinkConfig>,
    }

    fn read(text: &str) -> Result<SinkConfig, String> {
        toml::from_str::<File>(text)
            .map(|mut file| {
                let (_, sink) = file.sinks.pop_first().expect("the text has a sink");
                sink
            })
            .map_err(|e| e.to_string())
    }

    #[test]
    fn every_kind_reads_its_own_example() {
        for kind in KINDS {
            assert_eq!(read(kind.example).map(|c| c.kind()), Ok(kind.name));
        }
    }

    #[test]
    fn a_path_is_relative_to_the_pipeline_file_and_defaults_to_the_data_directory() {
        let places = Places {
            pipeline: Path::new("/etc/line"),
            data: Path::new("/data"),
        };
        for (path, file) in [
            ("", "/data/views.sqlite"),
            ("path = 'out/v.db'", "/etc/line/out/v.db"),
            ("path = '/v.db'", "/v.db"),
        ] {
            let config = read(&format!("[sinks.local]\ntype = 'sqlite'\n{path}"));
            assert_eq!(
                config.map(|c| PathBuf::from(c.store(places))),
                Ok(file.into()),
                "{path}"
            );
        }
    }

    #[test]
    fn a_table_that_is_no_sink_is_refused_with_the_reason_and_the_line() {
        for (keys, reason) in [
            ("type = 'cassandra'", "missing field `nodes`"),
            (
                "type = 'cassandra'\nnodes = ['n']\nkeyspace = 'k'\nreplication = 'many'",
                "a number of replicas, or a table with one for each datacenter",
            ),
            (
                "type = 'cassandra'\nnodes = ['n']\nkeyspace = 'k'\nconsistency = 'two'",
                "unknown variant `two`, expected one of `local_one`",
            ),
            ("type = 'sqllite'", "did you mean `sqlite`?"),
            (
                "type = 'oracle'",
                "unknown sink type `oracle`; there is `cassandra`, `sqlite`, `mongodb`",
            ),
            ("type = 3", "`type` of a sink is a text"),
            (
                "path = 'v.db'",
                "a sink needs a `type`: `cassandra`, `sqlite`, `mongodb`",
            ),
            (
                "type = 'sqlite'\npth = 'v.db'",
                "unknown field `pth`, expected `path` or `views`",
            ),
            ("type = 'sqlite'\nviews = 'users'", "expected a sequence"),
        ] {
            let error = read(&format!("[sinks.local]\n{keys}")).expect_err(keys);
            assert!(error.contains(reason), "{keys}: {error}");
            assert!(error.contains("line 1"), "{keys}: {error}");
        }
    }

    #[test]
    fn a_selection_takes_all_or_what_it_names() {
        let views = |names: &[&str]| Selection(names.iter().map(|&n| n.to_owned()).collect());
        assert!(Selection::default().takes("users"));
        assert!(views(&["users"]).takes("users"));
        assert!(!views(&["users"]).takes("ages"));
        assert_eq!(
            views(&["*", "users", "agse"]).unknown(|v| v == "users"),
            Some("agse")
        );
        assert_eq!(Selection::default().unknown(|_| false), None);
    }

    #[test]
    fn the_json_schema_asks_for_the_type_and_refuses_other_keys() {
        let schema = schemars::schema_for!(SinkConfig).to_value();
        let kinds = schema["oneOf"].as_array().expect("a list of kinds");
        for (kind, key) in [("mongodb", "uri"), ("sqlite", "path")] {
            let mut kinds = kinds.iter();
            let of = kinds.find(|of| of["properties"]["type"]["const"] == kind);
            let of = of.expect(kind);
            assert_eq!(of["additionalProperties"], false, "{kind}");
            assert!(of["properties"][key]["description"].is_string(), "{kind}");
        }
    }
}
