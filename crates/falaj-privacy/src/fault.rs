//! What can be wrong with a policy. Every error names its place in the pipeline file.

use std::fmt;

use falaj_record::Hint;

use crate::Class;

/// Code of a privacy error, as `falaj check` prints it and `--explain` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Code {
    /// A field without a purpose.
    P001,
    /// A purpose without a legal basis.
    P002,
    /// A purpose without retention.
    P003,
    /// A purpose that rests on consent which is not known from anywhere.
    P005,
    /// A name or a path that cannot be one.
    P006,
    /// A treatment that is unknown, or that does not fit its field.
    P007,
    /// A number of `[privacy]` out of its range.
    P008,
    /// Something that this version cannot do yet.
    P009,
    /// A credential is declared.
    P101,
    /// An identifying value would leave the gate as it is.
    P102,
    /// A value of a special category or a national number would leave the gate as it is.
    P105,
    /// A path of `never` is declared.
    P106,
}

impl Code {
    /// Every code, in order.
    pub const ALL: &[Self] = &[
        Self::P001,
        Self::P002,
        Self::P003,
        Self::P005,
        Self::P006,
        Self::P007,
        Self::P008,
        Self::P009,
        Self::P101,
        Self::P102,
        Self::P105,
        Self::P106,
    ];

    /// What the code means and why it is an error, for `falaj check --explain`.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::P001 => {
                "Every field is processed for a declared purpose (GDPR article 5(1)(b)). \
                 Name one: `purpose = \"statistics\"`, and declare it as `[purpose.statistics]`."
            }
            Self::P002 => {
                "Processing needs one of the six grounds of GDPR article 6(1): consent, contract, \
                 legal_obligation, vital_interests, public_task, legitimate_interests."
            }
            Self::P003 => {
                "Data is kept no longer than its purpose needs (GDPR article 5(1)(e)), \
                 so every purpose says how long: `retention = \"30d\"`."
            }
            Self::P005 => {
                "A purpose that rests on consent says where the consent is known from: \
                 `consent = \"synthetic\"` where the source holds fictitious people."
            }
            Self::P006 => {
                "Names of fields and purposes are lower-case words, `[a-z][a-z0-9_]*`, so that they \
                 are the same in SQL, on the topic and in every store. Paths are object keys with \
                 dots between them."
            }
            Self::P007 => {
                "A treatment takes values of certain types and arguments in a certain range; \
                 with others it would protect nothing or reject every record."
            }
            Self::P008 => {
                "`k` is the smallest number of people a published group may have, `delta_k` the \
                 smallest number that may join before it changes. Both are between 1 and 10000."
            }
            Self::P009 => "This part of the design is not in this version of falaj yet.",
            Self::P101 => {
                "Passwords, tokens and login data are never processed, not even to count them; \
                 no treatment makes that right."
            }
            Self::P102 => {
                "A value that tells who somebody is must not leave the gate as it is. \
                 `clamp` limits a value and does not hide it."
            }
            Self::P105 => {
                "Special categories (GDPR article 9) and national identification numbers \
                 (article 87) must not leave the gate as they are."
            }
            Self::P106 => {
                "`never` in `[privacy]` names what can never be declared, so that a later edit of \
                 the file cannot let it in by mistake. It counts for the subject and the event \
                 time too."
            }
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::str::FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .find(|code| code.to_string().eq_ignore_ascii_case(text))
            .copied()
            .ok_or_else(|| format!("there is no code `{text}`"))
    }
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what it is")]
pub enum PolicyFault {
    #[error("field `{field}` names no purpose")]
    NoPurpose { field: String },
    #[error("field `{field}` names purpose `{purpose}`, which is not declared")]
    UnknownPurpose {
        field: String,
        purpose: String,
        nearest: Option<String>,
    },
    #[error("purpose `{purpose}` has no legal basis")]
    NoLegalBasis { purpose: String },
    #[error("purpose `{purpose}` has no retention")]
    NoRetention { purpose: String },
    #[error("purpose `{purpose}` rests on consent and does not say where it is known from")]
    NoConsent { purpose: String },
    #[error("the consent ledger, which purpose `{purpose}` asks for, is not in this version")]
    LedgerNotYet { purpose: String },
    #[error("`{name}` cannot be the name of a {what}")]
    Name { what: &'static str, name: String },
    #[error("`{name}` is a column that every record has")]
    ReservedName { name: String },
    #[error("`{path}` is not a JSON path: {why}")]
    Path { path: String, why: &'static str },
    #[error("`{pattern}` is not a pattern of paths: {why}")]
    Never { pattern: String, why: &'static str },
    #[error("`{path}` can never be declared: `never` holds `{pattern}`")]
    Forbidden { path: String, pattern: String },
    #[error("field `{field}` is a credential, and credentials are never processed")]
    Credential { field: String },
    #[error("field `{field}` of class `{class}` would leave the gate {how}", class = class.name())]
    Unprotected {
        field: String,
        class: Class,
        how: &'static str,
    },
    #[error("treatment `{treatment}` is not known")]
    UnknownTreatment {
        treatment: String,
        nearest: Option<String>,
    },
    #[error("treatment `{treatment}` is not written right")]
    TreatmentForm {
        treatment: String,
        form: &'static str,
    },
    #[error("treatment `{treatment}` takes {takes}, and field `{field}` is of type `{kind}`")]
    TreatmentType {
        field: String,
        treatment: String,
        kind: &'static str,
        takes: &'static str,
    },
    #[error("treatment `{treatment}` comes with the keystore, which is not in this version")]
    KeystoreNotYet { treatment: String },
    #[error("`hmac` of field `{field}` is made from the pid, and there is no subject to have one")]
    NoSubjectToHash { field: String },
    #[error("`{name}` is {value}, and must be between 1 and {max}")]
    Range {
        name: &'static str,
        value: u32,
        max: u32,
    },
}

impl PolicyFault {
    /// The code of this kind of error.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NoPurpose { .. } | Self::UnknownPurpose { .. } => Code::P001,
            Self::NoLegalBasis { .. } => Code::P002,
            Self::NoRetention { .. } => Code::P003,
            Self::NoConsent { .. } => Code::P005,
            Self::Name { .. }
            | Self::ReservedName { .. }
            | Self::Path { .. }
            | Self::Never { .. } => Code::P006,
            Self::UnknownTreatment { .. }
            | Self::TreatmentForm { .. }
            | Self::TreatmentType { .. }
            | Self::NoSubjectToHash { .. } => Code::P007,
            Self::Range { .. } => Code::P008,
            Self::LedgerNotYet { .. } | Self::KeystoreNotYet { .. } => Code::P009,
            Self::Credential { .. } => Code::P101,
            Self::Unprotected {
                class: Class::Special | Class::NationalId,
                ..
            } => Code::P105,
            Self::Unprotected { .. } => Code::P102,
            Self::Forbidden { .. } => Code::P106,
        }
    }

    fn next_step(&self) -> String {
        let nearest = |nearest: &Option<String>, otherwise: &str| {
            nearest.as_ref().map_or_else(
                || otherwise.to_owned(),
                |name| format!("did you mean `{name}`?"),
            )
        };
        match self {
            Self::NoPurpose { .. } => {
                "name one of the declared purposes: `purpose = \"..\"`".into()
            }
            Self::UnknownPurpose {
                purpose,
                nearest: n,
                ..
            } => nearest(n, &format!("declare it as `[purpose.{purpose}]`")),
            Self::NoLegalBasis { .. } => {
                "set `legal_basis` to consent, contract, legal_obligation, vital_interests, \
                 public_task or legitimate_interests"
                    .into()
            }
            Self::NoRetention { .. } => "set `retention`, for example `retention = \"30d\"`".into(),
            Self::NoConsent { .. } => {
                "set `consent = \"synthetic\"` if the source holds fictitious people".into()
            }
            Self::LedgerNotYet { .. } => {
                "use another legal basis, or `consent = \"synthetic\"` for fictitious people".into()
            }
            Self::Name { .. } => {
                "write a lower-case letter, then lower-case letters, digits and `_`".into()
            }
            Self::ReservedName { .. } => "choose another name".into(),
            Self::Path { .. } => "write object keys with dots between them: `dob.age`".into(),
            Self::Never { .. } => "write `phone`, `login.**` or `*.secret`".into(),
            Self::Forbidden { .. } => {
                "do without it; `never` is there to keep such a declaration out".into()
            }
            Self::Credential { .. } => {
                "take the field out; what is not declared is not read".into()
            }
            Self::Unprotected { .. } => {
                "add `treat`: hmac, email_domain, band, year, prefix, round, mask or drop".into()
            }
            Self::UnknownTreatment { nearest: n, .. } => nearest(
                n,
                "use keep, drop, hmac(domain), clamp(low,high), band(n), year, prefix(n), \
                 round(n), email_domain or mask",
            ),
            Self::TreatmentForm { form, .. } => format!("write it as {form}"),
            Self::TreatmentType { .. } => {
                "`type` is the type of the raw value; choose another treatment, or mend the type"
                    .into()
            }
            Self::KeystoreNotYet { .. } => {
                "every record has its `pid` already; `hmac(domain)` gives another surrogate".into()
            }
            Self::NoSubjectToHash { .. } => {
                "say who a record is about: `[privacy.subject] from = \"..\"`".into()
            }
            Self::Range { name, .. } => format!("set `{name} = 5`"),
        }
    }
}

/// An error in a policy, and where in the pipeline file it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct PolicyError {
    /// Keys that lead to the place: `["fields", "age", "treat"]`. Where the key itself is missing,
    /// they lead to the table that should hold it.
    pub place: Vec<String>,
    /// What is wrong.
    pub fault: PolicyFault,
}

impl PolicyError {
    pub(crate) fn at(place: &[&str], fault: PolicyFault) -> Self {
        Self {
            place: place.iter().map(|&key| key.to_owned()).collect(),
            fault,
        }
    }

    /// The code of this kind of error.
    #[must_use]
    pub fn code(&self) -> Code {
        self.fault.code()
    }
}

impl Hint for PolicyError {
    fn hint(&self) -> Option<String> {
        Some(self.fault.next_step())
    }
}

/// Something in a policy that is allowed and worth a second look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyWarning {
    /// Keys that lead to the place, as in [`PolicyError::place`].
    pub place: Vec<String>,
    /// What to know about it, without a full stop.
    pub message: String,
}

/// The known name nearest to a mistyped one, if one is near.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_and_explains_itself() {
        for code in Code::ALL {
            assert_eq!(code.to_string().to_lowercase().parse(), Ok(*code));
            assert!(code.explain().ends_with('.'), "{code}");
        }
        assert!("P999".parse::<Code>().is_err());
    }

    #[test]
    fn a_typing_error_finds_its_name() {
        let known = ["statistics", "marketing"];
        assert_eq!(nearest("statisitcs", known).as_deref(), Some("statistics"));
        assert_eq!(nearest("x", known), None);
        assert_eq!(nearest("x", []), None);
    }
}
