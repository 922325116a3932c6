//! `[topic.options]`: settings of librdkafka that a pipeline file may pass.
//!
//! Always: what falaj promises rests on settings that it sets itself; those are refused here.
//! Always: a secret stands outside the pipeline file, and is in no error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use falaj_record::Secret;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::TopicError;

/// Settings that hold a secret, and nothing else.
const SECRETS: [&str; 9] = [
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.assertion.jwt.template.file",
];

/// Settings that may stand outside the pipeline file, too.
const PERHAPS_SECRET: [&str; 5] = [
    "sasl.username",
    "sasl.oauthbearer.client.id",
    "ssl.certificate.pem",
    "ssl.ca.pem",
    "ssl_certificate",
];

/// Settings that falaj sets itself, or that it must not be told, each with why.
const OWN: [(&str, &str); 38] = [
    ("bootstrap.servers", "write `topic.brokers`"),
    ("metadata.broker.list", "write `topic.brokers`"),
    ("compression.codec", "write `topic.compression`"),
    ("compression.type", "write `topic.compression`"),
    ("group.id", POSITIONS),
    ("group.instance.id", POSITIONS),
    ("group.protocol", POSITIONS),
    ("partition.assignment.strategy", POSITIONS),
    ("enable.auto.commit", POSITIONS),
    ("auto.commit.enable", POSITIONS),
    ("auto.commit.interval.ms", POSITIONS),
    ("enable.auto.offset.store", POSITIONS),
    ("auto.offset.reset", POSITIONS),
    ("enable.partition.eof", POSITIONS),
    ("isolation.level", POSITIONS),
    ("enable.idempotence", ONCE),
    ("enable.gapless.guarantee", ONCE),
    ("acks", ONCE),
    ("request.required.acks", ONCE),
    ("max.in.flight", ONCE),
    ("max.in.flight.requests.per.connection", ONCE),
    ("retries", ONCE),
    ("message.send.max.retries", ONCE),
    ("message.timeout.ms", ONCE),
    ("delivery.timeout.ms", ONCE),
    ("queuing.strategy", ONCE),
    ("transactional.id", ONCE),
    ("transaction.timeout.ms", ONCE),
    ("delivery.report.only.error", ONCE),
    (
        "batch.size",
        "falaj keeps batches below every broker's limit",
    ),
    (
        "message.max.bytes",
        "falaj keeps batches below every broker's limit",
    ),
    ("partitioner", "the partition follows from the pid"),
    ("allow.auto.create.topics", "falaj makes its topics itself"),
    (
        "debug",
        "falaj listens to librdkafka's log; see it with `--log debug`",
    ),
    ("log_level", "write `--log debug`"),
    ("log.queue", "write `--log debug`"),
    ("statistics.interval.ms", "nobody would read them"),
    ("plugin.library.paths", "falaj loads no foreign code"),
];
const POSITIONS: &str = "falaj keeps its own positions";
const ONCE: &str = "exactly once rests on it";

/// The value of a setting: written out, or a secret that stands elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ClientOption {
    /// As it is.
    Text(String),
    /// A whole number.
    Int(i64),
    /// `true` or `false`.
    Bool(bool),
    /// `{ env = "NAME" }` or `{ file = "path" }`.
    Secret(Secret),
}

impl ClientOption {
    /// Its text where it is no secret.
    fn open_text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Int(number) => Some(number.to_string()),
            Self::Bool(flag) => Some(flag.to_string()),
            Self::Secret(_) => None,
        }
    }
}

// By hand: serde's untagged enums cannot say what was expected.
impl<'de> Deserialize<'de> for ClientOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OptionVisitor)
    }
}

struct OptionVisitor;

impl<'de> Visitor<'de> for OptionVisitor {
    type Value = ClientOption;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a text, a whole number, true, false, or a secret: { env = \"NAME\" } or { file = \"path\" }",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ClientOption, E> {
        Ok(ClientOption::Text(text.to_owned()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<ClientOption, E> {
        Ok(ClientOption::Int(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<ClientOption, E> {
        i64::try_from(number)
            .map(ClientOption::Int)
            .map_err(|_| E::custom("number out of range"))
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<ClientOption, E> {
        Ok(ClientOption::Bool(flag))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ClientOption, A::Error> {
        Secret::deserialize(MapAccessDeserializer::new(map)).map(ClientOption::Secret)
    }
}

/// Checks what can be without secrets and without a cluster.
pub(crate) fn check(options: &BTreeMap<String, ClientOption>) -> Result<(), TopicError> {
    let mut config = ClientConfig::new();
    for (key, option) in options {
        if let Some((_, instead)) = OWN.iter().find(|(own, _)| own == key) {
            return wrong(format!("falaj sets `{key}` itself"), instead);
        }
        let secret = matches!(option, ClientOption::Secret(_));
        if SECRETS.contains(&key.as_str()) && !secret {
            return wrong(
                format!("`{key}` is a secret, and must not stand in the file"),
                "write `{ env = \"NAME\" }` or `{ file = \"path\" }`",
            );
        }
        if secret && !SECRETS.contains(&key.as_str()) && !PERHAPS_SECRET.contains(&key.as_str()) {
            return wrong(
                format!("`{key}` is no secret"),
                "write its value into the file, so that all can see it",
            );
        }
        if let Some(text) = option.open_text() {
            config.set(key, text);
        }
    }
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(error) => Err(unknown(error)),
    }
}

/// All with their values; `base` is the folder of the pipeline file.
pub(crate) fn read(
    options: &BTreeMap<String, ClientOption>,
    base: &Path,
) -> Result<BTreeMap<String, String>, TopicError> {
    check(options)?;
    let mut read = BTreeMap::new();
    for (key, option) in options {
        let text = match option {
            ClientOption::Secret(secret) => match secret.read(base) {
                Ok(text) => text,
                Err(reason) => {
                    wrong(format!("`{key}`: {reason}"), "set it before falaj starts")?;
                    continue;
                }
            },
            open => {
                let text = open.open_text().unwrap_or_default();
                // As all paths of the file: relative to it.
                if key.ends_with(".location") {
                    base.join(text).to_string_lossy().into_owned()
                } else {
                    text
                }
            }
        };
        read.insert(key.clone(), text);
    }
    Ok(read)
}

fn wrong(reason: String, hint: &str) -> Result<(), TopicError> {
    Err(TopicError::Setting {
        key: "options",
        reason,
        hint: hint.to_owned(),
    })
}

/// What librdkafka says of a setting. Secrets are not among those it is asked about.
pub(crate) fn unknown(error: KafkaError) -> TopicError {
    let reason = match error {
        KafkaError::ClientConfig(_, reason, key, _) => format!("`{key}`: {reason}"),
        other => other.to_string(),
    };
    TopicError::Setting {
        key: "options",
        reason,
        hint: "the settings are librdkafka's: see its CONFIGURATION.md".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> BTreeMap<String, ClientOption> {
        toml::from_str(text).expect("TOML")
    }

    #[test]
    fn security_settings_pass_and_secrets_are_read_from_where_they_stand() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("pw"), "secret\n").expect("written");
        let options = options(
            r#"
            "security.protocol" = "sasl_ssl"
            "sasl.mechanism" = "SCRAM-SHA-512"
            "sasl.username" = "falaj"
            "sasl.password" = { file = "pw" }
            "ssl.ca.location" = "certs/ca.pem"
            "linger.ms" = 10
            "socket.keepalive.enable" = true
            "#,
        );
        let read = read(&options, folder.path()).expect("read");
        assert_eq!(read["sasl.password"], "secret");
        assert_eq!(read["linger.ms"], "10");
        assert_eq!(read["socket.keepalive.enable"], "true");
        let ca = folder.path().join("certs/ca.pem");
        assert_eq!(read["ssl.ca.location"], ca.to_str().expect("UTF-8"));
    }

    #[test]
    fn what_cannot_be_is_told_and_never_with_a_secret() {
        let folder = tempfile::tempdir().expect("a folder");
        for (text, part) in [
            (r#""acks" = 1"#, "falaj sets `acks` itself"),
            (r#""group.id" = "x""#, "falaj sets `group.id` itself"),
            (
                r#""sasl.password" = "hunter2""#,
                "must not stand in the file",
            ),
            (r#""client.id" = { env = "X" }"#, "is no secret"),
            (r#""no.such.setting" = 1"#, "no.such.setting"),
            (r#""linger.ms" = "soon""#, "linger.ms"),
            (r#""sasl.password" = { file = "not-there" }"#, "not-there"),
        ] {
            let error = read(&options(text), folder.path()).expect_err(text);
            let message = error.to_string();
            assert!(message.starts_with("`topic.options`: "), "{message}");
            assert!(message.contains(part), "{message}");
            assert!(!message.contains("hunter2"));
        }
        let wrong: Result<ClientOption, _> = toml::from_str("x = 1.5")
            .map(|mut table: BTreeMap<String, ClientOption>| table.remove("x").expect("there"));
        assert!(wrong.unwrap_err().message().contains("a whole number"));
    }
}
