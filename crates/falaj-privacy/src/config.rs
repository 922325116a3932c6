//! What a person writes in `[privacy]`, `[purpose.*]` and `[fields]`. The doc comments become the
//! reference pages and the JSON Schema of the pipeline file.

use falaj_record::{FieldType, Period, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who answers for the data, when numbers may be published, and what can never be read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PrivacyConfig {
    /// Who decides why and how the data is processed (GDPR article 4(7)).
    pub controller: Option<String>,
    /// Where people can turn to with questions and requests.
    pub contact: Option<String>,
    /// A published group has at least this many people. 1 shows everything, with a warning.
    pub k: u32,
    /// A published group changes only when at least this many people joined since it last changed.
    pub delta_k: u32,
    /// JSON paths that can never be declared: `phone`, `login.**` (with `login` itself), `*.secret`.
    /// What lies below such a path cannot be declared either.
    pub never: Vec<String>,
    /// The key that pids are made with: 64 hexadecimal digits, best from `openssl rand -hex 32`. Without
    /// it, a key file in the data directory, made at the first start. A standby needs the same key.
    pub key: Option<Secret>,
    /// Who a record is about. Without it no record has a pid.
    pub subject: Option<SubjectConfig>,
}

impl Default for PrivacyConfig {
    fn default() -> Self {
        Self {
            controller: None,
            contact: None,
            k: 5,
            delta_k: 5,
            never: Vec::new(),
            key: None,
            subject: None,
        }
    }
}

/// What tells people apart. It becomes a pid and is never stored itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubjectConfig {
    /// JSON path of the value, a text or a whole number; best what a person can name in a request,
    /// as an e-mail address. It is compared after NFKC, in lower case, without white space around it.
    pub from: String,
    /// Whether a record without a usable value is rejected. If not, its pid is null.
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

/// What data is processed for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PurposeConfig {
    /// On which of the six grounds of GDPR article 6(1).
    #[schemars(required)]
    pub legal_basis: Option<LegalBasis>,
    /// How long data is kept for it.
    #[schemars(required)]
    pub retention: Option<Period>,
    /// Whose data it is, in words for the record of processing.
    pub data_subjects: Option<String>,
    /// Where consent is known from; needed where `legal_basis = "consent"`.
    pub consent: Option<Consent>,
}

/// The six grounds of GDPR article 6(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LegalBasis {
    /// The person agreed.
    Consent,
    /// A contract with the person needs it.
    Contract,
    /// The law demands it.
    LegalObligation,
    /// A life depends on it.
    VitalInterests,
    /// A task in the public interest.
    PublicTask,
    /// Interests that outweigh the person's.
    LegitimateInterests,
}

impl LegalBasis {
    /// The word of the pipeline file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Consent => "consent",
            Self::Contract => "contract",
            Self::LegalObligation => "legal_obligation",
            Self::VitalInterests => "vital_interests",
            Self::PublicTask => "public_task",
            Self::LegitimateInterests => "legitimate_interests",
        }
    }
}

/// Where consent is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// The source holds fictitious people.
    Synthetic,
    /// falaj's consent ledger is asked for each person.
    Ledger,
}

impl Consent {
    /// The word of the pipeline file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Synthetic => "synthetic",
            Self::Ledger => "ledger",
        }
    }
}

/// A declared attribute of a record. What is not declared is never read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldConfig {
    /// JSON path of object keys: `nat`, `dob.age`.
    pub from: String,
    /// Type of the raw value. Another one makes the record a reject; absent and null are null.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// How sensitive the raw value is. Left out, it is `direct`.
    #[serde(default)]
    pub class: Class,
    /// Name of the `[purpose.*]` it is processed for.
    #[schemars(required)]
    pub purpose: Option<String>,
    /// What is done to the value before it goes anywhere: `keep` (as it is; an error for direct,
    /// special, `national_id`, credential and `precise_location`), `drop`, `hmac(domain)`,
    /// `clamp(low,high)`, `band(n)`, `year`, `prefix(n)`, `round(n)`, `email_domain`, `mask`.
    pub treat: Option<String>,
}

/// How sensitive a raw value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Tells who somebody is on its own: name, e-mail, phone. Also where nothing is said.
    #[default]
    Direct,
    /// Tells it together with others: age, gender, nationality.
    Quasi,
    /// Special categories of GDPR article 9: health, belief, origin.
    Special,
    /// A national identification number (article 87).
    NationalId,
    /// Opens something: password, token, login data. Can never be declared.
    Credential,
    /// Where somebody is, closer than a town.
    PreciseLocation,
    /// A surrogate that only a key or a table leads back from.
    Pseudonym,
    /// Says nothing about a person.
    NonPersonal,
}

impl Class {
    /// The word of the pipeline file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Quasi => "quasi",
            Self::Special => "special",
            Self::NationalId => "national_id",
            Self::Credential => "credential",
            Self::PreciseLocation => "precise_location",
            Self::Pseudonym => "pseudonym",
            Self::NonPersonal => "non_personal",
        }
    }

    /// Whether such a value must be treated before it leaves the gate.
    #[must_use]
    pub fn needs_protection(self) -> bool {
        match self {
            Self::Direct
            | Self::Special
            | Self::NationalId
            | Self::Credential
            | Self::PreciseLocation => true,
            Self::Quasi | Self::Pseudonym | Self::NonPersonal => false,
        }
    }
}
