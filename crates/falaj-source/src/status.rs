use serde::Serialize;

/// How a source is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// Nothing was read yet, or what is read from is not there yet.
    Waiting,
    /// The last read gave records.
    Ok,
    /// The last request gave none; another one follows.
    Retrying,
    /// A finite source was read to its end.
    Ended,
}

/// What a source tells about itself: for the page, metrics and readiness. No values of records, no
/// secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceStatus {
    /// How it is doing.
    pub state: SourceState,
    /// What is wrong, while retrying.
    pub detail: Option<String>,
    /// What to try about it.
    pub hint: Option<String>,
    /// Whether the pipeline file is more likely wrong than the service.
    pub likely_configuration: bool,
    /// When the next attempt is made, in milliseconds since 1970, while retrying.
    pub retry_at_ms: Option<i64>,
    /// HTTP status of the last reply.
    pub last_status: Option<u16>,
    /// Attempts in a row that gave no records.
    pub attempts: u32,
    /// Replies whose records were used.
    pub replies_ok: u64,
    /// Whole replies without a record.
    pub replies_empty: u64,
    /// Requests that failed.
    pub replies_failed: u64,
    /// Bytes read, unpacked, whether they could be used or not.
    pub bytes: u64,
    /// Records handed on.
    pub records: u64,
    /// Records that are there and were not handed on yet, where that is known.
    pub lag: Option<u64>,
}

impl Default for SourceStatus {
    fn default() -> Self {
        Self {
            state: SourceState::Waiting,
            detail: None,
            hint: None,
            likely_configuration: false,
            retry_at_ms: None,
            last_status: None,
            attempts: 0,
            replies_ok: 0,
            replies_empty: 0,
            replies_failed: 0,
            bytes: 0,
            records: 0,
            lag: None,
        }
    }
}

impl SourceStatus {
    /// Takes back what was said about a failure.
    pub(crate) fn well(&mut self, state: SourceState) {
        self.state = state;
        self.detail = None;
        self.hint = None;
        self.likely_configuration = false;
        self.retry_at_ms = None;
        self.attempts = 0;
    }
}
