//! Records for tests, decoded under a policy as the pipeline does it.

use std::sync::Arc;

use bytes::Bytes;
use falaj_privacy::{
    Cleared, Decoder, FieldConfig, Key, Keys, Policy, PolicyParts, PrivacyConfig, PurposeConfig,
};
use falaj_record::{Batch, ByteSize, Fetched, Message, Schema};
use indexmap::IndexMap;
use serde_json::json;

/// A record on the topic.
#[derive(Clone)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Event time in milliseconds since 1970.
    pub time_ms: i64,
    /// The cleared fields as JSON.
    pub value: String,
}

/// Decodes records of declared fields.
pub struct Decoding {
    policy: Arc<Policy>,
    header: Bytes,
    decoder: Decoder,
}

impl Decoding {
    /// For fields of these names and types (`string`, `int`, `float`, `bool`).
    pub fn new<N: AsRef<str>, T: AsRef<str>>(fields: &[(N, T)]) -> Self {
        let privacy: PrivacyConfig = serde_json::from_value(json!({
            "controller": "Example Ltd",
            "contact": "dpo@example.com",
            "subject": { "from": "subject", "required": false },
        }))
        .expect("a [privacy] table");
        let purpose: PurposeConfig = serde_json::from_value(json!({
            "legal_basis": "legitimate_interests",
            "retention": "30d",
            "data_subjects": "nobody",
        }))
        .expect("a [purpose] table");
        let field = |kind: &str, name: &str| -> FieldConfig {
            serde_json::from_value(json!({
                "from": name, "type": kind, "class": "non_personal", "purpose": "tests",
            }))
            .expect("a field")
        };
        let fields = fields
            .iter()
            .map(|(n, t)| (n.as_ref().to_owned(), field(t.as_ref(), n.as_ref())))
            .collect();
        let policy = Policy::compile(&PolicyParts {
            privacy: &privacy,
            purposes: &IndexMap::from([("tests".to_owned(), purpose)]),
            fields: &fields,
            event_time: None,
            max_record: ByteSize(1_000_000),
        })
        .expect("a policy");
        let keys = Keys::new(&Key::new([7; 32]));
        let policy = Arc::new(policy);
        Self {
            header: policy.header(&keys),
            decoder: Decoder::new(Arc::clone(&policy), &keys, &[]),
            policy,
        }
    }

    pub fn schema(&self) -> &Schema {
        self.policy.schema()
    }

    /// The batch of these records, in this order.
    pub fn batch(&mut self, records: &[Record]) -> Cleared<Batch> {
        let fetched: Vec<Fetched> = records
            .chunk_by(|a, b| a.partition == b.partition)
            .map(|part| {
                let message = |r: &Record| Message {
                    offset: r.offset,
                    timestamp_ms: r.time_ms,
                    key: None,
                    value: Some(Bytes::copy_from_slice(r.value.as_bytes())),
                    policy: Some(self.header.clone()),
                    src: None,
                };
                let next = part.last().map_or(0, |r| r.offset + 1);
                Fetched {
                    partition: part[0].partition,
                    messages: part.iter().map(message).collect(),
                    next,
                    end: next,
                    ..Fetched::default()
                }
            })
            .collect();
        let decoded = self.decoder.decode(&fetched, 0);
        assert_eq!(decoded.rejects, [], "test records can be decoded");
        decoded.batch
    }
}
