//! What a pipeline file declares about people's data, checked and made ready for gate and decoder.

mod compile;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use falaj_record::{ByteSize, FieldType, Schema};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use self::compile::Compiler;
use crate::scan::Paths;
use crate::treat::Step;
use crate::{
    Class, Consent, FieldConfig, Keys, LegalBasis, PolicyError, PolicyWarning, PrivacyConfig,
    PurposeConfig,
};

/// The parts of a pipeline file that make a policy.
#[derive(Debug, Clone, Copy)]
pub struct PolicyParts<'a> {
    /// `[privacy]`.
    pub privacy: &'a PrivacyConfig,
    /// `[purpose.*]`.
    pub purposes: &'a IndexMap<String, PurposeConfig>,
    /// `[fields]`, in file order.
    pub fields: &'a IndexMap<String, FieldConfig>,
    /// `event_time` of `[pipeline]`: a JSON path. Without it the gate's `now` is the event time.
    pub event_time: Option<&'a str>,
    /// `max_record` of `[pipeline]`.
    pub max_record: ByteSize,
}

/// A checked policy.
pub struct Policy {
    schema: Schema,
    pub(crate) paths: Paths,
    pub(crate) outputs: Vec<Output>,
    pub(crate) subject: Option<Place>,
    pub(crate) subject_required: bool,
    pub(crate) event_time: Option<Place>,
    pub(crate) max_record: u64,
    k: u32,
    delta_k: u32,
    inc: Vec<String>,
    declarations: Declarations,
    description: Description,
    warnings: Vec<PolicyWarning>,
}

/// A declared path and the slot that the scan puts its value into.
pub(crate) struct Place {
    pub(crate) path: Arc<str>,
    pub(crate) slot: usize,
}

/// A field of the cleared record.
pub(crate) struct Output {
    /// `{"name":` or `,"name":`.
    pub(crate) prefix: Box<[u8]>,
    pub(crate) from: Origin,
}

/// What the value of a field is made from.
pub(crate) enum Origin {
    Value(Place, Step),
    /// The pid, under the keyed hash of a domain.
    Pid {
        domain: String,
    },
}

/// What a policy declares, one line a field: kept beside the data, so that records cleared under
/// an earlier policy can still be read as far as nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declarations {
    /// SHA-256 of the lines, in hexadecimal.
    pub hash: String,
    /// How the subject becomes a pid.
    pub subject: String,
    /// Where the event time is taken from.
    pub event_time: String,
    /// The line of each field, by name.
    pub fields: BTreeMap<String, String>,
}

impl Declarations {
    /// Header `falaj.policy` of records that are cleared under it: version, hash, MAC.
    pub(crate) fn header(&self, keys: &Keys) -> Bytes {
        let mut header = format!("1:{}:", self.hash);
        for byte in keys.policy_mac(&self.hash) {
            write!(header, "{byte:02x}").expect("a string takes every write");
        }
        header.into()
    }
}

/// What `/api/v1/privacy` says about a policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Description {
    /// Who decides why and how the data is processed.
    pub controller: Option<String>,
    /// Where people can turn to.
    pub contact: Option<String>,
    /// JSON path that the pid is made from.
    pub subject: Option<String>,
    /// Smallest number of people in a published group.
    pub k: u32,
    /// Smallest number of people that changes a published group.
    pub delta_k: u32,
    /// Hash of the policy, in hexadecimal.
    pub policy: String,
    /// Fields that pass the gate.
    pub kept: Vec<KeptField>,
    /// Fields that are declared not to pass. Every undeclared one is dropped, too.
    pub dropped: Vec<DroppedField>,
    /// Paths that can never be declared.
    pub never: Vec<String>,
    /// What the data is processed for.
    pub purposes: Vec<PurposeLine>,
}

/// A field that passes the gate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeptField {
    /// Its name on the topic and in SQL.
    pub name: String,
    /// JSON path of the raw value.
    pub from: String,
    /// Type of what comes out.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// Class of the raw value.
    pub class: Class,
    /// Treatment, as the pipeline file writes it.
    pub treatment: String,
    /// Class of what comes out.
    pub output_class: Class,
    /// What it is processed for.
    pub purpose: String,
}

/// A field that is declared not to pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DroppedField {
    /// Its name in the pipeline file.
    pub name: String,
    /// JSON path of the raw value, which is not read.
    pub from: String,
    /// Class of the raw value.
    pub class: Class,
}

/// A purpose.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PurposeLine {
    /// Its name.
    pub name: String,
    /// The ground it rests on.
    pub legal_basis: LegalBasis,
    /// How long data is kept for it, as the pipeline file writes it.
    pub retention: String,
    /// Whose data it is.
    pub data_subjects: Option<String>,
    /// Where consent is known from.
    pub consent: Option<Consent>,
}

impl Policy {
    /// Checks the parts and makes them one policy.
    ///
    /// # Errors
    /// All that is wrong, each with its place.
    pub fn compile(parts: &PolicyParts<'_>) -> Result<Self, Vec<PolicyError>> {
        let mut compiler = Compiler::new(parts);
        compiler.privacy();
        compiler.purposes();
        for (name, field) in parts.fields {
            compiler.field(name, field);
        }
        compiler.finish()
    }

    /// The relation `records` under this policy.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// SHA-256 of what the policy declares about records, in hexadecimal. `k`, `delta_k`, `never`,
    /// retention and dropped fields are not in it: they change no record.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.declarations.hash
    }

    /// What decides whether a record passes the gate: the policy, whether it needs a subject, and
    /// how long it may be. Where this is the same, a record that was rejected is rejected again.
    #[must_use]
    pub fn gate(&self) -> String {
        let subject = if self.subject_required {
            "required"
        } else {
            "optional"
        };
        format!("{}/{subject}/{}", self.hash(), self.max_record)
    }

    /// The header `falaj.policy` of cleared records, in ASCII: `1:<hash>:<mac>`, the MAC being the
    /// first 16 bytes of HMAC-SHA256 over the hash, in hexadecimal.
    #[must_use]
    pub fn header(&self, keys: &Keys) -> Bytes {
        self.declarations.header(keys)
    }

    /// Top-level keys that an API need send, in file order, each once: of the fields that are read,
    /// of the subject and of the event time.
    #[must_use]
    pub fn inc(&self) -> &[String] {
        &self.inc
    }

    /// Smallest number of people in a published group.
    #[must_use]
    pub fn k(&self) -> u32 {
        self.k
    }

    /// Smallest number of people that changes a published group.
    #[must_use]
    pub fn delta_k(&self) -> u32 {
        self.delta_k
    }

    /// What is declared about records, to be kept for a later policy.
    #[must_use]
    pub fn declarations(&self) -> &Declarations {
        &self.declarations
    }

    /// The policy in words and numbers, for the privacy panel.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What is allowed and worth a second look.
    #[must_use]
    pub fn warnings(&self) -> &[PolicyWarning] {
        &self.warnings
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Policy({})", self.hash())
    }
}
