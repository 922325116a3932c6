//! Python clients, each set of pinned versions in a virtual environment of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::tool::{have, line_of, script, skipped};

/// A virtual environment, kept from run to run.
#[derive(Debug, Clone)]
pub struct Venv {
    folder: PathBuf,
}

impl Venv {
    /// The environment with the packages of a requirements file; made at the first call for that
    /// content. None where Python 3 or its module `venv` is absent, which is said on stderr.
    ///
    /// # Panics
    ///
    /// Where a tool is absent and `CI=true`, and where the packages cannot be installed.
    #[must_use]
    pub fn of(requirements: &Path) -> Option<Self> {
        if !have(&["python3", "flock"]) {
            return None;
        }
        let complete = Command::new("python3")
            .args(["-c", "import venv, ensurepip"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("python3 is there");
        if !complete.success() {
            skipped("not installed: Python's module venv (package python3-venv)");
            return None;
        }
        Some(Self {
            folder: line_of(script("venv.sh").arg(requirements)),
        })
    }

    /// The environment that lies in `folder` already.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Its interpreter, on empty input, with output as it comes and no files written beside sources.
    #[must_use]
    pub fn python(&self) -> Command {
        let mut command = Command::new(self.folder.join("bin/python"));
        command.args(["-B", "-u"]).stdin(Stdio::null());
        command
    }

    /// A program that a package brought, on empty input.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join("bin").join(name));
        command.stdin(Stdio::null());
        command
    }
}
