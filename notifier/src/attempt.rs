//! What an attempt came to.

use std::time::Duration;

/// What an attempt came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AttemptOutcome {
    /// The receiver has it.
    Delivered { status: Option<u16> },
    /// Not now; perhaps later.
    Transient { status: Option<u16>, error: String, retry_after: Option<Duration> },
    /// The receiver wants no more, ever.
    Gone { status: u16, error: String },
    /// Trying again cannot help.
    Permanent { status: Option<u16>, error: String },
}

impl AttemptOutcome {
    pub(crate) fn transient(status: Option<u16>, error: impl Into<String>) -> Self {
        Self::Transient { status, error: error.into(), retry_after: None }
    }

    pub(crate) fn permanent(error: impl Into<String>) -> Self {
        Self::Permanent { status: None, error: error.into() }
    }

    /// For metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "taken",
            Self::Transient { .. } => "failed",
            Self::Gone { .. } => "gone",
            Self::Permanent { .. } => "hopeless",
        }
    }
}
