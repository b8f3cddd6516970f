//! What can go wrong at the waist, sorted by what the caller may conclude.

use super::{LeaseId, Revision};

/// What a caller may conclude from an error, and nothing else (law 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The request is wrong and will stay wrong.
    Invalid,
    /// Certainly not done: send it again at once.
    NotApplied,
    /// May have been done, may be done still: read back.
    Unknown,
    /// Going on from a revision does not help any more: list, and watch from there.
    Relist,
    /// The lease is over: stop writing under it.
    LeaseLost,
}

impl Class {
    /// The word for metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotApplied => "not_applied",
            Self::Unknown => "unknown",
            Self::Relist => "relist",
            Self::LeaseLost => "lease_lost",
        }
    }
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error of a [`Backend`](super::Backend).
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The backend will not take this request, now or later.
    #[error("the registry refused the request: {0}")]
    Invalid(String),
    /// The request was certainly not carried out.
    #[error("the registry did not carry out the request: {0}")]
    NotApplied(String),
    /// Nothing is known about the request.
    #[error("no answer from the registry: {reason}")]
    Unknown {
        /// What happened instead of an answer.
        reason: String,
        /// What the client library said.
        #[source]
        source: Option<Source>,
    },
    /// History before this revision is gone.
    #[error("revisions before {0} are compacted")]
    Compacted(Revision),
    /// A watch contradicts what it told before: a change may have been skipped.
    #[error("a watch told revisions out of order")]
    OutOfOrder,
    /// The lease has ended.
    #[error("lease {:x} has ended", .0.0)]
    LeaseLost(LeaseId),
}

impl BackendError {
    /// What may be concluded.
    pub fn class(&self) -> Class {
        match self {
            Self::Invalid(_) => Class::Invalid,
            Self::NotApplied(_) => Class::NotApplied,
            Self::Unknown { .. } => Class::Unknown,
            Self::Compacted(_) | Self::OutOfOrder => Class::Relist,
            Self::LeaseLost(_) => Class::LeaseLost,
        }
    }

    /// An unknown outcome without a source.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into(), source: None }
    }
}
