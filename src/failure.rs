//! What a person reads when something is wrong: `error:`, causes, `hint:`, and the exit code.
//!
//! Always: 2 where the command line or the pipeline file is wrong, 1 where the run failed.
//! Absent on purpose: colour, and any value of a record.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use falaj_record::Hint;

/// One thing that is wrong, with its place in the pipeline file if it has one.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What happened.
    pub message: String,
    /// `file:line:column`.
    pub place: Option<String>,
    /// Why, from the nearest cause to the farthest.
    pub causes: Vec<String>,
    /// What to try next.
    pub hint: Option<String>,
}

impl Fault {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            place: None,
            causes: Vec::new(),
            hint: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Message and causes in one line, for a status.
    pub fn chain(&self) -> String {
        let parts: Vec<&str> = std::iter::once(&self.message)
            .chain(&self.causes)
            .map(String::as_str)
            .collect();
        parts.join(": ")
    }

    /// An error of a stage, with its chain of causes and its hint.
    pub fn from_error(error: &dyn Hint) -> Self {
        let mut fault = Self::new(error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            fault.causes.push(cause.to_string());
            source = cause.source();
        }
        fault.hint = error.hint();
        fault
    }
}

/// Why the program ends with another code than 0.
#[derive(Debug, Clone)]
pub struct Failure {
    code: u8,
    faults: Vec<Fault>,
}

impl Failure {
    /// The command line or the pipeline file is wrong.
    pub fn usage(fault: Fault) -> Self {
        Self {
            code: 2,
            faults: vec![fault],
        }
    }

    /// The pipeline file is wrong in several places.
    pub fn file(faults: Vec<Fault>) -> Self {
        Self { code: 2, faults }
    }

    /// Something failed while running.
    pub fn run(fault: Fault) -> Self {
        Self {
            code: 1,
            faults: vec![fault],
        }
    }

    /// Several things that failed while running; nothing, where there are none.
    ///
    /// # Errors
    /// Where there are any.
    pub fn all(faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() {
            return Ok(());
        }
        Err(Self { code: 1, faults })
    }

    /// Something failed while running, as a stage says it.
    pub fn stage(error: &dyn Hint) -> Self {
        Self::run(Fault::from_error(error))
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// Writes it to stderr. A closed stderr is nothing to fail for.
    pub fn print(&self) {
        let mut err = std::io::stderr().lock();
        for fault in &self.faults {
            let place = fault
                .place
                .as_ref()
                .map_or(String::new(), |p| format!(" ({p})"));
            let _ = writeln!(err, "error: {}{place}", fault.message);
            for cause in &fault.causes {
                let _ = writeln!(err, "  cause: {cause}");
            }
            if let Some(hint) = &fault.hint {
                let _ = writeln!(err, "hint: {hint}");
            }
        }
    }
}

/// One line, for a log.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<_> = self.faults.iter().map(Fault::chain).collect();
        f.write_str(&faults.join("; "))
    }
}
