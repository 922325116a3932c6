//! `falaj reset`: forgets everything a pipeline keeps in its data directory.
//!
//! Always: only files that falaj makes are removed, so a wrong `--data-dir` loses nothing else.
//! Always: what lies elsewhere (a cluster's topic, rows in stores, shared state) is named, with what
//! removes it.
//! Absent on purpose: removing it. Another falaj may be running on it, which only that place knows.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use falaj_sinks::Places;
use falaj_topic::rejects_topic;

use crate::data_dir::DataDir;
use crate::failure::{Failure, Fault};
use crate::plan::Plan;
use crate::stdio;

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
pub fn reset(plan: &Plan, dir: &DataDir, yes: bool) -> Result<(), Failure> {
    if dir.exists() {
        remove(dir, yes)?;
    }
    for left in elsewhere(plan, dir) {
        stdio::say(&left);
    }
    Ok(())
}

/// What a pipeline keeps outside its data directory, and what removes it.
fn elsewhere(plan: &Plan, dir: &DataDir) -> Vec<String> {
    let topic = &plan.config.topic;
    let mut left = Vec::new();
    if !topic.embedded() {
        left.push(format!(
            "left: topic `{}` on `{}`; delete it there, with `{}`",
            topic.name,
            topic.brokers,
            rejects_topic(&topic.name)
        ));
    }
    if let Some(place) = &plan.config.pipeline.state {
        left.push(format!(
            "left: checkpoints and clock in `{place}` (`pipeline.state`); remove them there"
        ));
    }
    let places = Places {
        pipeline: &plan.folder,
        data: dir.path(),
    };
    for (name, sink) in &plan.config.sinks {
        let store = sink.store(places);
        let removed = KEPT
            .iter()
            .any(|name| Path::new(&store) == dir.path().join(name));
        if !removed {
            left.push(format!(
                "left: rows in `{store}` (sink `{name}`); `falaj run --rebuild '*'` makes its tables anew"
            ));
        }
    }
    left
}

fn remove(dir: &DataDir, yes: bool) -> Result<(), Failure> {
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
