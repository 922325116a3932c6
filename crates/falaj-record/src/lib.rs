//! The words that pass between the stages: schema, raw and topic messages, batches, positions,
//! rejects, view updates, the conservation ledger.
//!
//! Always: a value of a person is held only in [`Raw`], [`Message`], [`Outgoing`], [`Batch`],
//! [`ViewUpdate`] and [`Value`]; none of them prints it (`Debug` is redacted, `Display` absent).
//! Always: a [`Reject`] carries position, reason, declared path and length, never a value.
//! Absent on purpose: tokio, files, sockets, clocks. The caller passes the time.

mod batch;
mod hint;
mod ledger;
mod message;
mod position;
mod reject;
mod schema;
mod settings;
mod value;
mod view;

pub use batch::Batch;
pub use hint::Hint;
pub use ledger::{Ledger, SourceLedger, TopicLedger, ViewLedger};
pub use message::{Fetched, Message, Outbound, Outgoing, Raw, Src, Unreadable};
pub use position::Positions;
pub use reject::{At, Reason, Reject};
pub use schema::{EVENT_TIME, Field, FieldType, OFFSET, PARTITION, PID, Schema};
pub use settings::{ByteSize, Period, Secret};
pub use value::{Value, rfc3339};
pub use view::{Column, People, Publication, PublishedRow, ViewInfo, ViewKind, ViewUpdate, Window};
