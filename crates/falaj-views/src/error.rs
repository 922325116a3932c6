use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};
use falaj_record::Hint;

/// A view that cannot be planned: what `falaj check` shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("view `{view}`: {message}")]
pub struct ViewError {
    /// The view.
    pub view: String,
    /// Line within the SQL text, from 1.
    pub line: u64,
    /// Column within that line in characters, from 1.
    pub column: u64,
    /// What is wrong, in terms of the SQL text.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Hint for ViewError {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// Why views cannot go on. After an error their state is undefined: restore it from a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewsError {
    /// A computation failed on the records' values.
    #[error("view `{view}`: {cause}")]
    Compute {
        /// The view.
        view: String,
        /// What failed; never a value.
        cause: Cause,
    },
    /// A batch of other columns than the views were planned for.
    #[error("a batch does not have the columns that the views were planned for")]
    Columns,
    /// No aggregate view has this name.
    #[error("there is no aggregate view `{view}`")]
    Unknown {
        /// The name asked for.
        view: String,
    },
    /// The checkpoint was made by another SQL text, field type or setting.
    #[error("view `{view}` is not the one that the checkpoint was made with")]
    Changed {
        /// The view that changed or is new.
        view: String,
    },
    /// The checkpoint's bytes cannot be read.
    #[error("the views' part of the checkpoint cannot be read: {detail}")]
    Checkpoint {
        /// Which part.
        detail: &'static str,
    },
}

impl Hint for ViewsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Compute { cause: Cause::OutOfRange, .. } => Some(
                "Spark fails here too: compute with DOUBLE, for example `sum(CAST(x AS DOUBLE))`, or leave such records out in WHERE"
                    .into(),
            ),
            Self::Changed { view } => Some(format!(
                "run with `--rebuild {view}` to compute it again from the topic, or `falaj reset`"
            )),
            _ => None,
        }
    }
}

/// Why a computation failed, without the value it failed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// A result does not fit its type.
    #[error("a number left the range of BIGINT")]
    OutOfRange,
    /// A division by zero.
    #[error("a division by zero")]
    DivisionByZero,
    /// The engine refused the batch.
    #[error("the engine refused a batch ({0})")]
    Engine(&'static str),
}

impl From<&DataFusionError> for Cause {
    fn from(error: &DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ArrowError(inner, _) => Self::from(&**inner),
            DataFusionError::Execution(_) => Self::Engine("execution"),
            DataFusionError::Internal(_) => Self::Engine("internal"),
            DataFusionError::NotImplemented(_) => Self::Engine("not implemented"),
            DataFusionError::ResourcesExhausted(_) => Self::Engine("resources"),
            _ => Self::Engine("other"),
        }
    }
}

impl From<&ArrowError> for Cause {
    fn from(error: &ArrowError) -> Self {
        match error {
            ArrowError::ArithmeticOverflow(_)
            | ArrowError::CastError(_)
            | ArrowError::ComputeError(_) => Self::OutOfRange,
            ArrowError::DivideByZero => Self::DivisionByZero,
            ArrowError::InvalidArgumentError(_) => Self::Engine("argument"),
            ArrowError::OffsetOverflowError(_) => Self::Engine("too much text in one group set"),
            _ => Self::Engine("arrow"),
        }
    }
}

/// Part of a SQL text that views do not take, before the view's name is known.
#[derive(Debug, Clone)]
pub(crate) struct Refusal(Box<Reason>);

#[derive(Debug, Clone)]
struct Reason {
    at: Location,
    message: String,
    hint: Option<String>,
}

impl Refusal {
    pub fn new(at: Span, message: impl Into<String>) -> Self {
        Self::at(at.start, message)
    }

    pub fn at(at: Location, message: impl Into<String>) -> Self {
        Self(Box::new(Reason {
            at,
            message: message.into(),
            hint: None,
        }))
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Places a refusal that has no place at `at`.
    pub fn or_at(mut self, at: Location) -> Self {
        if self.0.at == Location::empty() {
            self.0.at = at;
        }
        self
    }

    pub fn into_error(self, view: &str) -> ViewError {
        let Reason { at, message, hint } = *self.0;
        ViewError {
            view: view.to_owned(),
            line: at.line.max(1),
            column: at.column.max(1),
            message,
            hint,
        }
    }
}

/// The result of looking at a part of a SQL text.
pub(crate) type Checked<T> = Result<T, Refusal>;

/// The name in `known` that was probably meant.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = |k: &&str| strsim::damerau_levenshtein(name, k) <= 1 + name.chars().count() / 4;
    known
        .filter(close)
        .min_by_key(|k| strsim::damerau_levenshtein(name, k))
}
