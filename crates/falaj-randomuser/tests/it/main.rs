//! The server as a client sees it, and its records beside recorded ones of the real service.

mod client;
mod faults;
mod http;
mod samples;
mod shape;
