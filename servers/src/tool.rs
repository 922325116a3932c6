//! Programs that a test needs and a machine may lack.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether all `programs` are on the path; where one is not, says `SKIPPED: ..` on stderr.
///
/// # Panics
///
/// Where one is absent and `CI=true`: CI must not skip.
#[must_use]
pub fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let absent: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| !std::env::split_paths(&path).any(|f| f.join(program).is_file()))
        .collect();
    if !absent.is_empty() {
        skipped(&format!("not installed: {}", absent.join(", ")));
    }
    absent.is_empty()
}

/// Says that a test is left out.
pub(crate) fn skipped(reason: &str) {
    eprintln!("SKIPPED: {reason}");
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "CI must not skip: {reason}"
    );
}

/// `kcat`, where it is installed.
#[must_use]
pub fn kcat() -> Option<Command> {
    have(&["kcat"]).then(|| Command::new("kcat"))
}

/// A script of the folder `servers`.
pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new(folder().join(name));
    command.stdin(Stdio::null());
    command
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("FALAJ_CHECKOUT")).join("servers")
}

/// Runs a script to its end and gives the last line of its output.
pub(crate) fn line_of(command: &mut Command) -> PathBuf {
    let output = command.output().expect("bash is there");
    assert!(
        output.status.success(),
        "{}: {}",
        command.get_program().display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("a script prints UTF-8");
    text.lines().last().expect("a script prints a line").into()
}
