//! The log from outside: what it keeps, what it gives back, and what it does when the disk fails.

mod append;
mod faults;
mod recovery;
mod retention;
mod support;
