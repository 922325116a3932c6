//! The gate every record passes before it reaches the topic.
//!
//! Always: a record that does not pass leaves where, why, at which declared path and how long;
//! never the value.
//! Always: what the gate writes is made from the places that [`crate::scan`] found for declared
//! paths; it has no other way to the record's bytes.
//! Absent on purpose: clocks, network, logging. The caller passes `now`.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use falaj_record::{At, Outbound, Outgoing, Raw, Reason, Reject};
use zeroize::Zeroizing;

use crate::number::{parse_i64, push_u64};
use crate::policy::{Origin, Place};
use crate::scan::Found;
use crate::time::{TIME_MS_MAX, event_ms, parse_iso};
use crate::treat::resolved;
use crate::{Cleared, Domain, Keys, Pid, Policy, Pseudonyms, Subject};

/// Bytes that a cleared record takes, as a first guess.
const RECORD_GUESS: usize = 256;

/// What became of the records of one call: every one is in exactly one of the three.
#[derive(Debug)]
pub struct Passage {
    /// What passed, in source order.
    pub cleared: Cleared<Outbound>,
    /// What could not be used.
    pub rejects: Vec<Reject>,
    /// How many were kept out on purpose. Consent and objections come with a later version; until
    /// then it is 0.
    pub withheld: u64,
}

/// Makes raw records cleared ones, under one policy, for one source.
///
/// A cleared record is a JSON object of the declared fields in file order, null where there is no
/// value, and then `pid`, null where there is no subject. Its key is `<pid>/<position>`, or
/// `/<position>` without a pid. Its partition is [`partition_of`] the pid, or the source position
/// modulo the partitions. Its timestamp is the event time where the policy says where to find it
/// (ISO 8601 text without zone is UTC; a whole number is seconds below 10^11, milliseconds from
/// there on; it must lie between 1970 and 9999), else `now_ms`.
pub struct Gate {
    policy: Arc<Policy>,
    pseudonyms: Arc<dyn Pseudonyms>,
    header: Bytes,
    source: Arc<str>,
    partitions: u32,
    /// The keyed hash of each output that is made from the pid.
    domains: Vec<Option<Domain>>,
    subject: Subject,
    scratch: Zeroizing<String>,
}

/// Why a record does not pass, and about which declared path.
type Refusal = (Reason, Option<Arc<str>>);

/// Where a message's parts stand in the buffer of its batch.
struct Message {
    value: Range<usize>,
    key: Range<usize>,
    src: Range<usize>,
    partition: i32,
    timestamp_ms: i64,
}

impl Gate {
    /// A gate. `source` is the identity of the records' source, ASCII without `@`; `partitions`
    /// those of the topic.
    ///
    /// # Panics
    /// Where `partitions` is 0 or more than a topic can have (2^31 - 1).
    #[must_use]
    pub fn new(
        policy: Arc<Policy>,
        pseudonyms: Arc<dyn Pseudonyms>,
        keys: &Keys,
        source: Arc<str>,
        partitions: u32,
    ) -> Self {
        assert!(
            partitions > 0 && i32::try_from(partitions).is_ok(),
            "a topic has at least one partition"
        );
        let domains = policy
            .outputs
            .iter()
            .map(|output| match &output.from {
                Origin::Pid { domain } => Some(pseudonyms.domain(domain)),
                Origin::Value(..) => None,
            })
            .collect();
        Self {
            header: policy.header(keys),
            policy,
            pseudonyms,
            source,
            partitions,
            domains,
            subject: Subject::default(),
            scratch: Zeroizing::default(),
        }
    }

    /// Clears records. `now_ms` is the event time where the policy names none, and the time of
    /// rejects; milliseconds since 1970.
    pub fn clear(&mut self, raw: &[Raw], now_ms: i64) -> Passage {
        self.clear_of(&Arc::clone(&self.source), raw, now_ms)
    }

    /// As [`Gate::clear`], for records of another source than the gate's own, or of a part of it
    /// whose positions count by themselves. `source` is ASCII without `@`.
    pub fn clear_of(&mut self, source: &Arc<str>, raw: &[Raw], now_ms: i64) -> Passage {
        let mut out = Vec::with_capacity(raw.len() * RECORD_GUESS);
        let mut messages = Vec::with_capacity(raw.len());
        let mut rejects = Vec::new();
        let policy = Arc::clone(&self.policy);
        let mut found = Vec::with_capacity(policy.paths.slots());
        for record in raw {
            let start = out.len();
            match self.pass(&policy, source, record, now_ms, &mut found, &mut out) {
                Ok(message) => messages.push(message),
                Err((reason, path)) => {
                    out.truncate(start);
                    rejects.push(Reject {
                        at: At::Source {
                            source: Arc::clone(source),
                            position: record.position,
                        },
                        reason,
                        path,
                        length: match record.unreadable {
                            Some(batch) => batch.length,
                            None => record.bytes.len() as u64,
                        },
                        time_ms: now_ms,
                    });
                }
            }
        }
        self.subject.wipe();
        zeroize::Zeroize::zeroize(&mut *self.scratch);
        let out = Bytes::from(out);
        let messages = messages
            .into_iter()
            .map(|message| Outgoing {
                partition: message.partition,
                timestamp_ms: message.timestamp_ms,
                key: out.slice(message.key),
                value: out.slice(message.value),
                src: out.slice(message.src),
            })
            .collect();
        Passage {
            cleared: Cleared::new(Outbound {
                policy: self.header.clone(),
                messages,
            }),
            rejects,
            withheld: 0,
        }
    }

    fn pass<'a>(
        &mut self,
        policy: &Policy,
        source: &str,
        record: &'a Raw,
        now_ms: i64,
        found: &mut Vec<Found<'a>>,
        out: &mut Vec<u8>,
    ) -> Result<Message, Refusal> {
        if let Some(batch) = record.unreadable {
            return Err((batch.reason, None));
        }
        if record.bytes.len() as u64 > policy.max_record {
            return Err((Reason::TooLong, None));
        }
        let text = std::str::from_utf8(&record.bytes).map_err(|_| (Reason::NotUtf8, None))?;
        policy
            .paths
            .scan(text, found)
            .map_err(|reason| (reason, None))?;

        let pid = self.pid(policy, found)?;
        let value_start = out.len();
        for (output, domain) in policy.outputs.iter().zip(&self.domains) {
            out.extend_from_slice(&output.prefix);
            match (&output.from, domain) {
                (Origin::Value(place, step), _) => step
                    .write(found[place.slot], &mut self.scratch, out)
                    .map_err(|reason| (reason, Some(Arc::clone(&place.path))))?,
                (Origin::Pid { .. }, Some(domain)) => {
                    push_pid(out, pid.map(|pid| domain.surrogate(&pid)));
                }
                (Origin::Pid { .. }, None) => unreachable!("each hashed field has its domain"),
            }
        }
        let first = policy.outputs.is_empty();
        out.extend_from_slice(if first { b"{\"pid\":" } else { b",\"pid\":" });
        push_pid(out, pid);
        out.push(b'}');
        let value = value_start..out.len();

        if let Some(pid) = pid {
            out.extend_from_slice(pid.as_bytes());
        }
        out.push(b'/');
        push_u64(out, record.position);
        let key = value.end..out.len();

        out.extend_from_slice(source.as_bytes());
        out.push(b'@');
        push_u64(out, record.position);
        let src = key.end..out.len();

        let timestamp_ms = match &policy.event_time {
            None => now_ms,
            Some(place) => event_time(found[place.slot], &mut self.scratch)
                .map_err(|reason| (reason, Some(Arc::clone(&place.path))))?,
        };
        let partition = match pid {
            Some(pid) => partition_of(&pid, self.partitions),
            None => i32::try_from(record.position % u64::from(self.partitions))
                .expect("less than the number of partitions"),
        };
        Ok(Message {
            value,
            key,
            src,
            partition,
            timestamp_ms,
        })
    }

    /// The pid of a record's subject: of a text, or of a whole number in plain digits.
    fn pid(&mut self, policy: &Policy, found: &[Found<'_>]) -> Result<Option<Pid>, Refusal> {
        let Some(Place { path, slot }) = &policy.subject else {
            return Ok(None);
        };
        let usable = match found[*slot] {
            Found::Text { raw, escaped } => {
                self.subject
                    .assign(resolved(raw, escaped, &mut self.scratch))
            }
            Found::Number { raw, whole: true } => self.subject.assign(raw),
            _ => false,
        };
        if usable {
            Ok(Some(self.pseudonyms.pid(&self.subject)))
        } else if policy.subject_required {
            Err((Reason::NoSubject, Some(Arc::clone(path))))
        } else {
            Ok(None)
        }
    }
}

/// The partition of a person's records: Kafka's own hash (murmur2) of the pid's letters, made
/// positive, modulo the number of partitions.
#[must_use]
pub fn partition_of(pid: &Pid, partitions: u32) -> i32 {
    let hash = murmur2(pid.as_bytes()) & 0x7fff_ffff;
    (hash % partitions.max(1)).cast_signed()
}

fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    #[expect(clippy::cast_possible_truncation, reason = "a pid has 26 bytes")]
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word = (word ^ word >> 24).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

fn push_pid(out: &mut Vec<u8>, pid: Option<Pid>) {
    match pid {
        Some(pid) => {
            out.push(b'"');
            out.extend_from_slice(pid.as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

fn event_time(found: Found<'_>, scratch: &mut String) -> Result<i64, Reason> {
    let ms = match found {
        Found::Text { raw, escaped } => parse_iso(resolved(raw, escaped, scratch)),
        Found::Number { raw, whole: true } => Some(
            parse_i64(raw)
                .and_then(event_ms)
                .ok_or(Reason::OutOfRange)?,
        ),
        _ => None,
    };
    let ms = ms.ok_or(Reason::NoEventTime)?;
    // Kafka has no timestamps before 1970.
    if (0..=TIME_MS_MAX).contains(&ms) {
        Ok(ms)
    } else {
        Err(Reason::OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_are_hashed_as_kafka_hashes_keys() {
        // The vectors of Kafka's own UtilsTest.
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    /// A gate for the fields `nat` and `shape` of the subject `email`.
    fn small_gate() -> Gate {
        let field = |treat: &str| crate::FieldConfig {
            from: "nat".into(),
            kind: falaj_record::FieldType::String,
            class: crate::Class::Quasi,
            purpose: Some("p".into()),
            treat: Some(treat.into()),
        };
        let policy = Policy::compile(&crate::PolicyParts {
            privacy: &crate::PrivacyConfig {
                subject: Some(crate::SubjectConfig {
                    from: "email".into(),
                    required: true,
                }),
                ..crate::PrivacyConfig::default()
            },
            purposes: &[(
                "p".to_owned(),
                crate::PurposeConfig {
                    legal_basis: Some(crate::LegalBasis::Contract),
                    retention: "1d".parse().ok(),
                    data_subjects: None,
                    consent: None,
                },
            )]
            .into(),
            fields: &[
                ("nat".to_owned(), field("keep")),
                ("shape".to_owned(), field("prefix(9)")),
            ]
            .into(),
            event_time: None,
            max_record: falaj_record::ByteSize(10_000),
        });
        let keys = Keys::new(&crate::Key::new([1; 32]));
        let pseudonyms = Arc::new(crate::KeyedPseudonyms::new(&keys));
        let policy = Arc::new(policy.expect("a policy"));
        Gate::new(policy, pseudonyms, &keys, "s".into(), 1)
    }

    #[test]
    fn nothing_undeclared_is_in_any_buffer_and_nothing_declared_stays_in_one() {
        let mut gate = small_gate();
        let policy = Arc::clone(&gate.policy);
        let secret = r"canary\u0020\n\ud83d\ude00";
        for record in [
            format!(
                r#"{{"{secret}":"{secret}","nat":"C\u0048","x":[{{"nat":"{secret}"}}],"email":"a@b.ch"}}"#
            ),
            format!(r#"{{"nat":"{secret}","nat":"C\u0048","email":"{secret}","email":"a@b.ch"}}"#),
            format!(r#"{{"email":"a@b.ch","nat":"C\u0048","x":"{secret}"#),
        ] {
            let raw = Raw::new(record.into(), 0);
            let (mut found, mut out) = (Vec::new(), Vec::new());
            let whole = gate
                .pass(&policy, "s", &raw, 0, &mut found, &mut out)
                .is_ok();
            let written = String::from_utf8_lossy(&out).into_owned();
            assert_eq!(written.contains(r#""shape":"CH""#), whole);
            for buffer in [&written, &gate.scratch, gate.subject.text()] {
                assert!(!buffer.contains("canary"));
            }
            assert_eq!(
                *gate.scratch == "CH",
                whole,
                "a declared escape was resolved there"
            );
            gate.clear(&[raw], 0);
            assert!(gate.scratch.is_empty() && gate.subject.text().is_empty());
        }
    }

    #[test]
    fn the_event_time_is_a_text_or_a_count_since_1970() {
        let text = |raw| Found::Text {
            raw,
            escaped: false,
        };
        let number = |raw, whole| Found::Number { raw, whole };
        for (found, ms) in [
            (text("2026-01-01T00:00:00Z"), Ok(1_767_225_600_000)),
            (number("1767225600", true), Ok(1_767_225_600_000)),
            (number("1767225600123", true), Ok(1_767_225_600_123)),
            (number("0", true), Ok(0)),
            (number("-1", true), Err(Reason::OutOfRange)),
            (
                number("99999999999999999999", true),
                Err(Reason::OutOfRange),
            ),
            (number("9223372036854775807", true), Err(Reason::OutOfRange)),
            (text("1969-12-31"), Err(Reason::OutOfRange)),
            (text("soon"), Err(Reason::NoEventTime)),
            (number("1.5", false), Err(Reason::NoEventTime)),
            (Found::Null, Err(Reason::NoEventTime)),
            (Found::Absent, Err(Reason::NoEventTime)),
            (Found::Nested, Err(Reason::NoEventTime)),
        ] {
            assert_eq!(event_time(found, &mut String::new()), ms, "{found:?}");
        }
    }
}
