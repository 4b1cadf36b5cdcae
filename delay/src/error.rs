//! What can go wrong.

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DelayError {
    /// What was asked for makes no sense.
    #[error("{what}: {reason}")]
    Bad {
        /// What is wrong.
        what: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The store cannot be reached, is busy or full: the call may be made again.
    #[error("the store is unavailable while {attempted}: {cause}")]
    Unavailable {
        /// What was tried.
        attempted: &'static str,
        /// What the store said.
        cause: String,
    },
    /// The store refused; trying again does not help.
    #[error("the store failed while {attempted}: {cause}")]
    Failed {
        /// What was tried.
        attempted: &'static str,
        /// What the store said.
        cause: String,
    },
}

#[cfg(feature = "embedded")]
impl DelayError {
    pub(crate) fn of(attempted: &'static str, error: galerna_sqlite::SqliteError) -> Self {
        if error.is_transient() {
            Self::Unavailable { attempted, cause: error.cause }
        } else {
            Self::Failed { attempted, cause: error.cause }
        }
    }
}
