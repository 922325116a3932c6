//! falaj-sinks
