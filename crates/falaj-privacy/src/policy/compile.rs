//! Checks the parts of a pipeline file, one after the other, and makes them a policy.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use falaj_record::{EVENT_TIME, Field, FieldType, PID, Schema};

use super::{
    Declarations, Description, DroppedField, KeptField, Origin, Output, Place, Policy, PolicyParts,
    PurposeLine,
};
use crate::fault::nearest;
use crate::path::{Never, path_fault};
use crate::scan::Paths;
use crate::treat::{Step, Treatment, is_name};
use crate::{Class, Consent, FieldConfig, LegalBasis, PolicyError, PolicyFault, PolicyWarning};

/// Largest k and `delta_k`: the guard keeps so many hashes for each small group.
const K_MAX: u32 = 10_000;

/// A field that was found right.
struct Checked<'a> {
    name: &'a str,
    config: &'a FieldConfig,
    treatment: Treatment,
    step: Option<(Step, FieldType)>,
    purpose: &'a str,
}

pub(super) struct Compiler<'a> {
    parts: &'a PolicyParts<'a>,
    never: Vec<(&'a str, Never)>,
    fields: Vec<Checked<'a>>,
    dropped: Vec<DroppedField>,
    errors: Vec<PolicyError>,
    warnings: Vec<PolicyWarning>,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(parts: &'a PolicyParts<'a>) -> Self {
        Self {
            parts,
            never: Vec::new(),
            fields: Vec::new(),
            dropped: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn error(&mut self, place: &[&str], fault: PolicyFault) {
        self.errors.push(PolicyError::at(place, fault));
    }

    fn warning(&mut self, place: &[&str], message: &str) {
        self.warnings.push(PolicyWarning {
            place: place.iter().map(|&key| key.to_owned()).collect(),
            message: message.to_owned(),
        });
    }

    pub(super) fn privacy(&mut self) {
        let privacy = self.parts.privacy;
        for (name, value) in [("k", privacy.k), ("delta_k", privacy.delta_k)] {
            if !(1..=K_MAX).contains(&value) {
                let max = K_MAX;
                self.error(&["privacy", name], PolicyFault::Range { name, value, max });
            }
        }
        if privacy.k == 1 {
            let message = "with `k = 1` numbers about single people are published";
            self.warning(&["privacy", "k"], message);
        } else if privacy.delta_k == 1 {
            let message = "with `delta_k = 1` a published number shows when a single person joins";
            self.warning(&["privacy", "delta_k"], message);
        }
        for pattern in &privacy.never {
            match Never::parse(pattern) {
                Ok(never) => self.never.push((pattern, never)),
                Err(why) => {
                    let pattern = pattern.clone();
                    self.error(&["privacy", "never"], PolicyFault::Never { pattern, why });
                }
            }
        }
        if let Some(subject) = &privacy.subject {
            self.path(&["privacy", "subject", "from"], &subject.from);
        } else {
            let message = "no `[privacy.subject]`: records have no pid, so people are not counted \
                           and no group can reach k";
            self.warning(&["privacy"], message);
        }
        if let Some(path) = self.parts.event_time {
            self.path(&["pipeline", "event_time"], path);
        }
        for (name, missing) in [
            ("controller", privacy.controller.is_none()),
            ("contact", privacy.contact.is_none()),
        ] {
            if missing && !self.parts.fields.is_empty() {
                let message = format!(
                    "no `{name}`: people whose data this is must be told (GDPR article 13)"
                );
                self.warning(&["privacy"], &message);
            }
        }
    }

    pub(super) fn purposes(&mut self) {
        for (name, purpose) in self.parts.purposes {
            let name = name.as_str();
            let owned = || name.to_owned();
            if !is_name(name) {
                let fault = PolicyFault::Name {
                    what: "purpose",
                    name: owned(),
                };
                self.error(&["purpose", name], fault);
            }
            if purpose.legal_basis.is_none() {
                self.error(
                    &["purpose", name],
                    PolicyFault::NoLegalBasis { purpose: owned() },
                );
            }
            if purpose.retention.is_none_or(|period| period.0.is_zero()) {
                self.error(
                    &["purpose", name],
                    PolicyFault::NoRetention { purpose: owned() },
                );
            }
            match purpose.consent {
                None if purpose.legal_basis == Some(LegalBasis::Consent) => {
                    self.error(
                        &["purpose", name],
                        PolicyFault::NoConsent { purpose: owned() },
                    );
                }
                Some(Consent::Ledger) => {
                    let fault = PolicyFault::LedgerNotYet { purpose: owned() };
                    self.error(&["purpose", name, "consent"], fault);
                }
                _ => {}
            }
        }
    }

    pub(super) fn field(&mut self, name: &'a str, config: &'a FieldConfig) {
        let before = self.errors.len();
        if matches!(name, PID | EVENT_TIME | "records") {
            let fault = PolicyFault::ReservedName { name: name.into() };
            self.error(&["fields", name], fault);
        } else if !is_name(name) {
            let fault = PolicyFault::Name {
                what: "field",
                name: name.into(),
            };
            self.error(&["fields", name], fault);
        }
        self.path(&["fields", name, "from"], &config.from);
        if config.class == Class::Credential {
            let fault = PolicyFault::Credential { field: name.into() };
            return self.error(&["fields", name, "class"], fault);
        }
        let treatment = match config
            .treat
            .as_deref()
            .map_or(Ok(Treatment::Keep), Treatment::parse)
        {
            Ok(treatment) => treatment,
            Err(fault) => return self.error(&["fields", name, "treat"], fault),
        };
        if treatment == Treatment::Drop {
            return self.dropped.push(DroppedField {
                name: name.into(),
                from: config.from.clone(),
                class: config.class,
            });
        }
        self.protection(name, config, &treatment);
        let purpose = self.purpose(name, config);
        let step = treatment.step(name, config).unwrap_or_else(|fault| {
            self.error(&["fields", name, "treat"], fault);
            None
        });
        if let Some(purpose) = purpose
            && self.errors.len() == before
        {
            self.fields.push(Checked {
                name,
                config,
                treatment,
                step,
                purpose,
            });
        }
    }

    /// A value that tells who somebody is must not leave the gate as it is.
    fn protection(&mut self, name: &str, config: &FieldConfig, treatment: &Treatment) {
        let how = match treatment {
            Treatment::Keep => "as it is",
            Treatment::Clamp(..) => "limited, and otherwise as it is",
            Treatment::Hmac(_) if self.parts.privacy.subject.is_none() => {
                let fault = PolicyFault::NoSubjectToHash { field: name.into() };
                return self.error(&["fields", name, "treat"], fault);
            }
            Treatment::Hmac(_) => {
                let subject = self.parts.privacy.subject.as_ref();
                if subject.is_some_and(|subject| subject.from != config.from) {
                    let message = "`hmac` is made from the pid, so the value at `from` is not read";
                    self.warning(&["fields", name, "from"], message);
                }
                return;
            }
            _ => return,
        };
        if config.class.needs_protection() {
            // Without `treat` the class is what can be pointed at.
            let key = if config.treat.is_some() {
                "treat"
            } else {
                "class"
            };
            let fault = PolicyFault::Unprotected {
                field: name.into(),
                class: config.class,
                how,
            };
            self.error(&["fields", name, key], fault);
        }
    }

    fn purpose(&mut self, field: &str, config: &'a FieldConfig) -> Option<&'a str> {
        let Some(purpose) = &config.purpose else {
            let fault = PolicyFault::NoPurpose {
                field: field.into(),
            };
            self.error(&["fields", field], fault);
            return None;
        };
        if !self.parts.purposes.contains_key(purpose) {
            let known = self.parts.purposes.keys().map(String::as_str);
            let fault = PolicyFault::UnknownPurpose {
                field: field.into(),
                purpose: purpose.clone(),
                nearest: nearest(purpose, known),
            };
            self.error(&["fields", field, "purpose"], fault);
            return None;
        }
        Some(purpose)
    }

    fn path(&mut self, place: &[&str], path: &str) {
        if let Some(why) = path_fault(path) {
            let path = path.into();
            return self.error(place, PolicyFault::Path { path, why });
        }
        let forbidden = self.never.iter().find(|(_, never)| never.forbids(path));
        if let Some((pattern, _)) = forbidden {
            let (path, pattern) = (path.into(), (*pattern).into());
            self.error(place, PolicyFault::Forbidden { path, pattern });
        }
    }

    pub(super) fn finish(self) -> Result<Policy, Vec<PolicyError>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let privacy = self.parts.privacy;
        let subject = privacy
            .subject
            .as_ref()
            .map(|subject| subject.from.as_str());
        let event_time = self.parts.event_time;
        let read: Vec<&str> = self
            .fields
            .iter()
            .filter(|field| field.step.is_some())
            .map(|field| field.config.from.as_str())
            .chain(subject)
            .chain(event_time)
            .collect();
        let (paths, slots) = Paths::new(read.iter().copied());
        let mut places = read.iter().zip(slots).map(|(path, slot)| Place {
            path: (*path).into(),
            slot,
        });
        let outputs = self
            .fields
            .iter()
            .enumerate()
            .map(|(at, field)| Output {
                prefix: format!("{}\"{}\":", if at == 0 { '{' } else { ',' }, field.name)
                    .into_bytes()
                    .into(),
                from: match (&field.treatment, field.step) {
                    (_, Some((step, _))) => {
                        Origin::Value(places.next().expect("a place for each path"), step)
                    }
                    (Treatment::Hmac(domain), None) => Origin::Pid {
                        domain: domain.clone(),
                    },
                    _ => unreachable!("a field that reads nothing is hashed or dropped"),
                },
            })
            .collect();
        let mut inc: Vec<String> = Vec::new();
        for path in &read {
            let top = path.split('.').next().unwrap_or(path);
            if !inc.iter().any(|known| known == top) {
                inc.push(top.into());
            }
        }
        let declarations = self.declarations();
        let schema = Schema::new(
            self.fields
                .iter()
                .map(|field| Field {
                    name: field.name.into(),
                    kind: field.kind(),
                })
                .collect(),
        );
        Ok(Policy {
            schema,
            outputs,
            subject: subject.and_then(|_| places.next()),
            subject_required: privacy.subject.as_ref().is_some_and(|s| s.required),
            event_time: event_time.and_then(|_| places.next()),
            max_record: self.parts.max_record.0,
            k: privacy.k,
            delta_k: privacy.delta_k,
            inc,
            description: self.description(&declarations.hash),
            declarations,
            warnings: self.warnings,
            paths,
        })
    }

    fn declarations(&self) -> Declarations {
        let subject = self.parts.privacy.subject.as_ref();
        let subject = subject.map_or_else(
            || "none".to_owned(),
            |subject| format!("{:?} nfkc-lower-trim", subject.from),
        );
        let event_time = self
            .parts
            .event_time
            .map_or_else(|| "clearing".to_owned(), |path| format!("{path:?}"));
        let mut text = format!("falaj policy 1\nsubject {subject}\nevent_time {event_time}\n");
        let mut fields = BTreeMap::new();
        for field in &self.fields {
            let purpose = &self.parts.purposes[field.purpose];
            let line = format!(
                "{} {:?} {} {} {} {} {} {}",
                field.name,
                field.config.from,
                field.config.kind.name(),
                field.config.class.name(),
                field.treatment,
                field.purpose,
                purpose.legal_basis.map_or("none", LegalBasis::name),
                purpose.consent.map_or("none", Consent::name),
            );
            writeln!(text, "field {line}").expect("a string takes every write");
            fields.insert(field.name.to_owned(), line);
        }
        let hash = digest(&SHA256, text.as_bytes()).as_ref().iter().fold(
            String::new(),
            |mut hex, byte| {
                write!(hex, "{byte:02x}").expect("a string takes every write");
                hex
            },
        );
        Declarations {
            hash,
            subject,
            event_time,
            fields,
        }
    }

    fn description(&self, hash: &str) -> Description {
        let privacy = self.parts.privacy;
        Description {
            controller: privacy.controller.clone(),
            contact: privacy.contact.clone(),
            subject: privacy.subject.as_ref().map(|subject| subject.from.clone()),
            k: privacy.k,
            delta_k: privacy.delta_k,
            policy: hash.to_owned(),
            kept: self
                .fields
                .iter()
                .map(|field| KeptField {
                    name: field.name.into(),
                    from: field.config.from.clone(),
                    kind: field.kind(),
                    class: field.config.class,
                    treatment: field.treatment.to_string(),
                    output_class: field.treatment.output_class(field.config.class),
                    purpose: field.purpose.into(),
                })
                .collect(),
            dropped: self.dropped.clone(),
            never: privacy.never.clone(),
            purposes: self
                .parts
                .purposes
                .iter()
                .filter_map(|(name, purpose)| {
                    Some(PurposeLine {
                        name: name.clone(),
                        legal_basis: purpose.legal_basis?,
                        retention: purpose.retention?.to_string(),
                        data_subjects: purpose.data_subjects.clone(),
                        consent: purpose.consent,
                    })
                })
                .collect(),
        }
    }
}

impl Checked<'_> {
    fn kind(&self) -> FieldType {
        self.step.map_or(FieldType::String, |(_, kind)| kind)
    }
}
