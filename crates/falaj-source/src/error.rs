use std::path::PathBuf;

use falaj_record::{ByteSize, Hint};

use crate::reply::Unusable;

/// Why a source cannot be opened or read on. An API's bad day is none of these: see
/// [`crate::Fault`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// No address that can be asked.
    #[error("`url` of the http source is not an http address: {cause}")]
    Url {
        /// What is wrong with it.
        cause: String,
    },
    /// User name or password inside the address.
    #[error("`url` of the http source holds a user name or password")]
    UrlSecret,
    /// A poll period of nothing.
    #[error("`every` of the http source is zero")]
    EveryZero,
    /// A path that cannot be followed.
    #[error("`records` of the {kind} source is not a path: `{path}`")]
    RecordsPath {
        /// Kind of the source.
        kind: &'static str,
        /// As written in the pipeline file.
        path: String,
    },
    /// A header that HTTP does not allow.
    #[error("header `{name}` of the http source is not valid in HTTP")]
    Header {
        /// Its name in the pipeline file.
        name: String,
    },
    /// A secret that cannot be read.
    #[error("secret for `{place}` of the http source: {cause}")]
    Secret {
        /// Key in the pipeline file.
        place: String,
        /// What is wrong, without the content.
        cause: String,
    },
    /// No TLS: usually the system's certificates are missing.
    #[error("https cannot be used on this machine")]
    Tls,
    /// No such file.
    #[error("source file `{}` does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A folder where a file was expected.
    #[error("source file `{}` is a directory", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
    },
    /// No right to read the file.
    #[error("source file `{}` may not be read", path.display())]
    Denied {
        /// The file.
        path: PathBuf,
    },
    /// Another failure of reading.
    #[error("cannot read source file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        cause: std::io::Error,
    },
    /// Bytes that are not JSON text at all.
    #[error("source file `{}` is {what}", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// A saved reply without usable records.
    #[error("source file `{}` {cause}", path.display())]
    Reply {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: Unusable,
    },
    /// A saved reply that does not fit into memory.
    #[error("source file `{}` is a saved reply of more than {max}", path.display())]
    ReplyTooLarge {
        /// The file.
        path: PathBuf,
        /// Longest saved reply.
        max: ByteSize,
    },
    /// A secret of `[source.ingest]` that cannot be read.
    #[error("secret for `{place}` of the ingest source: {cause}")]
    IngestSecret {
        /// Key in the pipeline file.
        place: String,
        /// What is wrong, without the content.
        cause: String,
    },
    /// A token that no request can show.
    #[error("the token of `[source.ingest]` is empty or no visible ASCII text")]
    Token,
    /// What the source remembers of keys cannot be used.
    #[error("cannot use the journal `{}` of keys", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: rusqlite::Error,
    },
    /// The source cannot be opened here: what it needs was not given.
    #[error("`[source.{kind}]` cannot be opened here")]
    Unsupported {
        /// Kind of the source.
        kind: &'static str,
    },
    /// Retention of the raw topic took records that were not read yet.
    #[error(
        "retention took records of topic `{topic}` before they were read: partition {partition} was read up to offset {wanted} and starts at {start} now"
    )]
    Overtaken {
        /// The raw topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next offset to read.
        wanted: i64,
        /// The first one held.
        start: i64,
    },
    /// The raw topic lost records that were read from it.
    #[error(
        "topic `{topic}` lost records: partition {partition} was read up to offset {wanted} and ends at {end} now"
    )]
    LostEnd {
        /// The raw topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next offset to read.
        wanted: i64,
        /// The first one that does not exist yet.
        end: i64,
    },
    /// The raw topic is gone.
    #[error("topic `{topic}`, which raw records are read from, was deleted")]
    Deleted {
        /// The raw topic.
        topic: String,
    },
    /// No such raw topic.
    #[error("topic `{topic}`, which raw records are read from, is not there")]
    NoTopic {
        /// The raw topic.
        topic: String,
    },
    /// The raw topic cannot be read.
    #[error("cannot read raw records from topic `{topic}`: {cause}")]
    Topic {
        /// The raw topic.
        topic: String,
        /// What its broker says.
        cause: String,
        /// What to try.
        hint: Option<String>,
    },
    /// The stop token fired before the source was open.
    #[error("stopped before the source was open")]
    Stopped,
}

impl Hint for SourceError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Url { .. } => "write it like `https://randomuser.me/api/`".into(),
            Self::UrlSecret => {
                "use `auth = { basic = { user = \"..\", password = { env = \"NAME\" } } }`".into()
            }
            Self::EveryZero => "write a length of time, like `every = \"5s\"`".into(),
            Self::RecordsPath { .. } => {
                "write the keys that lead to the array, joined by dots, like `data.users`; leave \
                 `records` out where the reply is the array itself"
                    .into()
            }
            Self::Header { .. } => {
                "names are letters, digits and `-`; values are one line of text".into()
            }
            Self::Secret { .. } | Self::IngestSecret { .. } => {
                "set the variable, or mend the file's path (relative to the pipeline file)".into()
            }
            Self::Tls => {
                "install the system's certificates (Debian: `apt-get install ca-certificates`)"
                    .into()
            }
            Self::Missing { .. } => {
                "`path` is relative to the pipeline file; `-` is standard input".into()
            }
            Self::Directory { .. } => "name one file in it".into(),
            Self::Denied { path } => format!("try `chmod u+r {}`", path.display()),
            Self::Packed { what, .. } if what.starts_with("gzip") => {
                "unpack it first, or pipe it in: `zcat FILE | falaj run ..` with `path = \"-\"`"
                    .into()
            }
            Self::Packed { .. } => "convert it to UTF-8 with `iconv`".into(),
            Self::Reply { cause, .. } => return cause.hint(),
            Self::ReplyTooLarge { .. } => {
                "write one record a line: `jq -c '.results[]' FILE > records.ndjson`".into()
            }
            Self::Token => {
                "write a long random text there, for example that of `openssl rand -hex 32`".into()
            }
            Self::Journal { path, .. } => format!(
                "make room, or mend the rights of its folder; without `{}` keys of the last 24 hours are forgotten",
                path.display()
            ),
            Self::Overtaken { .. } => {
                "what is gone stays gone: raise the retention of that topic, and start anew with `falaj reset`, which reads it from what is left".into()
            }
            Self::LostEnd { .. } => {
                "restore the topic, or start anew with `falaj reset`, which reads it from its start".into()
            }
            Self::Deleted { .. } => {
                "start falaj again: a topic that is made anew is read from its start".into()
            }
            Self::NoTopic { .. } => {
                "`falaj check --connect` says what the broker has".into()
            }
            Self::Topic { hint, .. } => return hint.clone(),
            Self::Read { .. } | Self::Stopped | Self::Unsupported { .. } => return None,
        })
    }
}
