//! falaj-source
