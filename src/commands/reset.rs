//! `falaj reset`: forgets everything a pipeline keeps in its data directory.
//!
//! Always: only files that falaj makes are removed, so a wrong `--data-dir` loses nothing else.

use std::io::{self, IsTerminal, Write};

use crate::data_dir::DataDir;
use crate::failure::{Failure, Fault};

/// What a data directory holds; see `data_dir.rs`. The lock goes last.
const KEPT: [&str; 11] = [
    "topic",
    "ingest",
    "policies.json",
    "checkpoints",
    "keys",
    "clock",
    "address",
    "views.sqlite",
    "views.sqlite-wal",
    "views.sqlite-shm",
    "lock",
];

/// Removes what the pipeline keeps in `dir`, after asking on the terminal (unless `yes`).
///
/// # Errors
/// Where a falaj is running there, nobody agrees, or something cannot be removed.
pub fn reset(dir: &DataDir, yes: bool) -> Result<(), Failure> {
    if !dir.exists() {
        return Ok(());
    }
    let _lock = dir.lock()?;
    if !yes && !agreed(dir) {
        return Err(Failure::usage(
            Fault::new(format!("`{}` is left as it is", dir.path().display()))
                .hint("`--yes` removes it without asking"),
        ));
    }
    for name in KEPT {
        let path = dir.path().join(name);
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::run(
                    Fault::new(format!("cannot remove `{}`", path.display())).cause(e),
                ));
            }
            _ => {}
        }
    }
    let _ = std::fs::remove_dir(dir.path());
    Ok(())
}

fn agreed(dir: &DataDir) -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    let mut err = io::stderr().lock();
    let _ = write!(
        err,
        "remove topic, checkpoints, views and keys in `{}`? what is removed cannot be made again [y/N] ",
        dir.path().display()
    );
    let _ = err.flush();
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
