//! The page, the JSON API, the event stream and the metrics.
//!
//! ```text
//! Views ─ Publication ─► Hub::show ─┐                 ┌─ /  the page
//! pipeline ─ Status ───► set_status ┼─► Hub ─► Server ┼─ /api/v1/..  JSON, CSV, SSE
//! policy ─ PrivacyPanel ► set_privacy┘                ├─ /healthz /readyz /metrics
//! source ◄─ Ingest ◄───────────────────────────────────┴─ /ingest
//! ```
//!
//! Always: what is shown came in a [`falaj_record::Publication`], so it is already under the k rule;
//! a row view is refused even if somebody publishes one.
//! Always: feeding the hub never waits for a reader; a reader that falls behind gets a fresh snapshot.
//! Always: the page asks no other host for anything, and is readable before and without its script.
//! Absent on purpose: rows of row views, raw records, logins and TLS (so only loopback is served),
//! anything that changes the pipeline; `/ingest` takes records, and what becomes of them is the
//! source's matter.

mod chart;
mod error;
mod status;

mod hub;
mod render;

mod assets;
mod events;
mod ingest;
mod metrics;
mod page;
mod routes;
mod server;

pub use chart::{ChartConfig, ChartError, ChartType};
pub use error::ServeError;
pub use hub::Hub;
pub use ingest::{Ingest, Posted, Refused};
pub use server::{DEFAULT_ADDRESS, Listen, Server};
pub use status::{
    CheckpointStatus, FieldPanel, LagStatus, PartitionStatus, PrivacyPanel, ProcessStatus,
    PurposePanel, RunState, SinkStatus, SourceStatus, StageStatus, Status, SubjectPanel, Time,
    Working,
};
