//! falaj-randomuser
