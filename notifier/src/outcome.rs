//! What an attempt came to.

use std::time::Duration;

/// What an attempt came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The receiver has it.
    Taken { status: Option<u16> },
    /// Not now; perhaps later.
    Failed { status: Option<u16>, error: String, retry_after: Option<Duration> },
    /// The receiver wants no more, ever.
    Gone { status: u16, error: String },
    /// Trying again cannot help.
    Hopeless { status: Option<u16>, error: String },
}

impl Outcome {
    pub(crate) fn failed(status: Option<u16>, error: impl Into<String>) -> Self {
        Self::Failed { status, error: error.into(), retry_after: None }
    }

    pub(crate) fn hopeless(error: impl Into<String>) -> Self {
        Self::Hopeless { status: None, error: error.into() }
    }

    /// For metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "taken",
            Self::Failed { .. } => "failed",
            Self::Gone { .. } => "gone",
            Self::Hopeless { .. } => "hopeless",
        }
    }
}
