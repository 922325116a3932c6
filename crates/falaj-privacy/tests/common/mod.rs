//! Policies, keys and records that the tests share.

#![allow(dead_code, reason = "each test takes what it needs")]

pub mod people;

use std::sync::Arc;

use bytes::Bytes;
use falaj_privacy::{
    FieldConfig, Gate, Key, KeyedPseudonyms, Keys, Policy, PolicyError, PolicyParts, PrivacyConfig,
    PurposeConfig,
};
use falaj_record::{ByteSize, Fetched, Message, Outbound, Raw};
use indexmap::IndexMap;
use serde::Deserialize;

/// The tables of a pipeline file that make a policy. The fields come as a list of lines, since a
/// TOML table does not keep its order here.
#[derive(Deserialize)]
pub struct File {
    #[serde(default)]
    pub privacy: PrivacyConfig,
    #[serde(default)]
    pub purpose: IndexMap<String, PurposeConfig>,
}

/// The head that most tests share.
pub const HEAD: &str = r#"
[privacy]
controller = "Example Ltd"
contact = "dpo@example.com"
never = ["login.**", "phone", "cell", "location.coordinates.**", "id.**", "picture.**"]
[privacy.subject]
from = "email"
[purpose.statistics]
legal_basis = "consent"
retention = "30d"
data_subjects = "registered users"
consent = "synthetic"
"#;

/// The fields of design's example.
pub const FIELDS: &[(&str, &str)] = &[
    (
        "nat",
        r#"from = "nat", type = "string", class = "quasi", purpose = "statistics""#,
    ),
    (
        "gender",
        r#"from = "gender", type = "string", class = "quasi", purpose = "statistics""#,
    ),
    (
        "age",
        r#"from = "dob.age", type = "int", class = "quasi", purpose = "statistics", treat = "clamp(0,120)""#,
    ),
    (
        "age_band",
        r#"from = "dob.age", type = "int", class = "quasi", purpose = "statistics", treat = "band(10)""#,
    ),
    (
        "email_domain",
        r#"from = "email", type = "string", class = "direct", purpose = "statistics", treat = "email_domain""#,
    ),
];

pub fn fields(lines: &[(&str, &str)]) -> IndexMap<String, FieldConfig> {
    #[derive(Deserialize)]
    struct Line {
        field: FieldConfig,
    }
    lines
        .iter()
        .map(|(name, line)| {
            let text = format!("field = {{ {line} }}");
            let line: Line = toml::from_str(&text).expect("a field");
            ((*name).to_owned(), line.field)
        })
        .collect()
}

/// Compiles a policy from its head and its fields, with the largest record of 1 MB.
pub fn compile(
    head: &str,
    lines: &[(&str, &str)],
    event_time: Option<&str>,
) -> Result<Policy, Vec<PolicyError>> {
    let file: File = toml::from_str(head).expect("a head");
    Policy::compile(&PolicyParts {
        privacy: &file.privacy,
        purposes: &file.purpose,
        fields: &fields(lines),
        event_time,
        max_record: ByteSize(1_000_000),
    })
}

pub fn policy(head: &str, lines: &[(&str, &str)]) -> Arc<Policy> {
    Arc::new(compile(head, lines, None).expect("a policy"))
}

pub fn keys() -> Keys {
    Keys::new(&Key::new([7; 32]))
}

pub fn gate(policy: &Arc<Policy>) -> Gate {
    let pseudonyms = Arc::new(KeyedPseudonyms::new(&keys()));
    Gate::new(
        Arc::clone(policy),
        pseudonyms,
        &keys(),
        "file-0123".into(),
        4,
    )
}

/// Records as a source gives them, from position 1 on.
pub fn raw<T: AsRef<[u8]>>(records: &[T]) -> Vec<Raw> {
    records
        .iter()
        .zip(1..)
        .map(|(record, position)| Raw::new(Bytes::copy_from_slice(record.as_ref()), position))
        .collect()
}

/// What the topic gives back, as if each partition was read at once.
pub fn fetched(outbound: &Outbound) -> Vec<Fetched> {
    (0..4)
        .map(|partition| {
            let messages: Vec<Message> = outbound
                .messages
                .iter()
                .filter(|message| message.partition == partition)
                .zip(0..)
                .map(|(message, offset)| Message {
                    offset,
                    timestamp_ms: message.timestamp_ms,
                    key: Some(message.key.clone()),
                    value: Some(message.value.clone()),
                    policy: Some(outbound.policy.clone()),
                    src: Some(message.src.clone()),
                })
                .collect();
            let next = i64::try_from(messages.len()).expect("few");
            Fetched {
                partition,
                messages,
                next,
                end: next,
                ..Fetched::default()
            }
        })
        .collect()
}
