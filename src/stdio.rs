//! stdout carries data, stderr the rest. A closed pipe ends nothing with a panic.

use std::io::Write;

use crate::failure::Fault;

/// A line of data on stdout.
pub fn data(line: &str) {
    if writeln!(std::io::stdout().lock(), "{line}").is_err() {
        // Whoever read is gone (`falaj tap | head`): there is nobody to tell.
        std::process::exit(0);
    }
}

/// A line for a person on stderr.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Something that is allowed, but should be known.
pub fn warn(fault: &Fault) {
    let place = fault
        .place
        .as_ref()
        .map_or(String::new(), |p| format!(" ({p})"));
    say(&format!("warning: {}{place}", fault.message));
    if let Some(hint) = &fault.hint {
        say(&format!("hint: {hint}"));
    }
}
