//! falaj-serve
