//! How a call ended.

use serde::{Deserialize, Serialize};

/// What a call took, as far as that is measured: of native programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The most memory at one time, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Processor time in microseconds.
    pub cpu_us: Option<u64>,
}

/// Where a call stands. The last four are ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Accepted, waiting for a place.
    Queued,
    /// At work.
    Running,
    /// Ended with a result.
    Succeeded,
    /// Ended with an error: the function's own, a crash, or the server's.
    Failed,
    /// Ended by its deadline.
    TimedOut,
    /// Ended by request.
    Cancelled,
}

impl Status {
    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timedOut",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::TimedOut, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(name))
    }

    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// What kind of end a call came to that did not succeed. This is the guest's side only: what went
/// wrong in the server is an error of the server's, never one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// It said so: `execute` returned an error, or the program ended with another code than 0.
    Failed,
    /// It crashed: a trap, or a signal.
    Trapped,
    /// It wanted more memory than it may have.
    MemoryExceeded,
    /// Its result was larger than it may be.
    ResultTooLarge,
    /// Its time was over.
    DeadlineExceeded,
    /// Somebody ended it.
    Cancelled,
}

impl FailureKind {
    /// The status of an invocation that ended so.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Failed | Self::Trapped | Self::MemoryExceeded | Self::ResultTooLarge => Status::Failed,
            Self::DeadlineExceeded => Status::TimedOut,
            Self::Cancelled => Status::Cancelled,
        }
    }
}

/// A guest's failure, in words that its caller may read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// What happened: the function's own error text, the trap, the signal. Bounded by the result limit.
    pub detail: String,
}

impl Failure {
    /// A failure of that kind.
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// What a guest came to: its result (JSON text, or any text), or its failure.
pub type Outcome = Result<String, Failure>;
