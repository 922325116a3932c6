/// What a person can try next, beside an error that says what happened.
///
/// Printed as `hint: ..` under the error and its causes.
pub trait Hint: std::error::Error {
    /// One sentence without a full stop, or nothing where there is nothing useful to try.
    fn hint(&self) -> Option<String> {
        None
    }
}
