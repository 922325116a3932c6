//! The listener, driven over its socket: by a client made of kafka-protocol's own codecs, and by
//! librdkafka.
//!
//! Everything runs on loopback on free ports, in temporary folders, and ends with its test.

mod support;

mod garbage;
mod groups;
mod offers;
mod rdkafka;
mod security;
mod topics;
