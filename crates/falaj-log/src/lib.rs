//! falaj-log
