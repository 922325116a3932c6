//! falaj-privacy
mod cleared;
pub use cleared::Cleared;
