use std::fmt;

/// Proof that what is inside passed the gate (or was decoded under its policy again).
///
/// Only `falaj-privacy` can make one: the field is private and there is no public constructor.
/// Topic and views take nothing else.
///
/// ```compile_fail
/// let forged = falaj_privacy::Cleared(vec![1_u8]);
/// ```
///
/// ```compile_fail
/// let forged: falaj_privacy::Cleared<u8> = falaj_privacy::Cleared::new(1);
/// ```
pub struct Cleared<T>(T);

impl<T> Cleared<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self(inner)
    }

    /// Looks inside.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.0
    }

    /// Takes it out; what is taken out is no proof any more.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl Cleared<falaj_record::Outbound> {
    /// Leaves out messages; what is left is as cleared as before.
    pub fn retain(&mut self, keep: impl FnMut(&falaj_record::Outgoing) -> bool) {
        self.0.messages.retain(keep);
    }
}

/// What is cleared stays so in a copy.
impl<T: Clone> Clone for Cleared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Cleared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cleared(..)")
    }
}
