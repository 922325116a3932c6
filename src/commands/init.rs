//! `falaj init`: a pipeline file to start from, strict by default.

use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::failure::{Failure, Fault};

/// The example, as it is tested: a new pipeline is a copy of it.
pub const EXAMPLE: &str = include_str!("../../examples/random-users/falaj.toml");

/// Writes `falaj.toml` into `folder`, never over another one, and gives its path.
///
/// # Errors
/// Where there is one already, or it cannot be written.
pub fn init(folder: &Path) -> Result<std::path::PathBuf, Failure> {
    let path = folder.join("falaj.toml");
    let write = || {
        std::fs::create_dir_all(folder)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        file.write_all(strict().as_bytes())
    };
    match write() {
        Ok(()) => Ok(path),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(Failure::run(
            Fault::new(format!("`{}` is there already", path.display()))
                .hint("name another folder: `falaj init DIR`"),
        )),
        Err(e) => Err(Failure::run(
            Fault::new(format!("cannot write `{}`", path.display())).cause(e),
        )),
    }
}

/// The example with larger groups: a new pipeline starts strict.
fn strict() -> String {
    EXAMPLE
        .replace("k = 5 ", "k = 10")
        .replace("at least 5 people", "at least 10 people")
        .replace("changes by at least 5", "changes by at least 10")
}
