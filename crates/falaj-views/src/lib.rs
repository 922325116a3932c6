//! falaj-views
