//! falaj-topic
