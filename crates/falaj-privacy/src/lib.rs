//! The gate, and everything that decides what may pass it.
//!
//! A pipeline file's `[privacy]`, `[purpose.*]` and `[fields]` become a [`Policy`]. The [`Gate`]
//! reads raw records under it and gives [`Cleared`] ones; the [`Decoder`] asks again when they
//! come back from the topic, since others can write there too; the [`Publisher`] decides which
//! numbers about groups of people may be shown.
//!
//! Always: what is not declared is skipped byte by byte, never decoded, never copied.
//! Always: only this crate makes a [`Cleared`]; the stages after it take nothing else.
//! Always: a reject says where, why, at which declared path and how long; never the value.
//! Always: the same input, policy and key give the same output; replays rely on it.
//! Absent on purpose: files, sockets, clocks, tokio, logging. The caller passes `now`.

mod cleared;
mod config;
mod decode;
mod fault;
mod gate;
mod number;
mod path;
mod policy;
mod pseudonym;
mod publish;
mod scan;
mod text;
mod time;
mod treat;

pub use cleared::Cleared;
pub use config::{
    Class, Consent, FieldConfig, LegalBasis, PrivacyConfig, PurposeConfig, SubjectConfig,
};
pub use decode::{Decoded, Decoder, Seen};
pub use fault::{Code, PolicyError, PolicyFault, PolicyWarning};
pub use gate::{Gate, Passage, partition_of};
pub use policy::{
    Declarations, Description, DroppedField, KeptField, Policy, PolicyParts, PurposeLine,
};
pub use pseudonym::{
    Domain, Key, KeyLength, KeyedPseudonyms, Keys, Pid, Pseudonyms, Subject, source_identity,
};
pub use publish::{Fold, PublishedView, Publisher, PublisherState};
pub use scan::DEPTH_MAX;
pub use treat::Treatment;
