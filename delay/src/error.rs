//! What can go wrong.

use galerna_sqlite::SqliteError;

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
    /// The file is busy or its disk is full: the call may be made again.
    #[error("the store is unavailable while {attempted}: {cause}")]
    Unavailable {
        /// What was tried.
        attempted: &'static str,
        /// What SQLite said.
        cause: String,
    },
    /// SQLite refused; trying again does not help.
    #[error("the store failed while {attempted}: {cause}")]
    Failed {
        /// What was tried.
        attempted: &'static str,
        /// What SQLite said.
        cause: String,
    },
}

impl DelayError {
    pub(crate) fn of(attempted: &'static str, error: SqliteError) -> Self {
        if error.is_transient() {
            Self::Unavailable { attempted, cause: error.cause }
        } else {
            Self::Failed { attempted, cause: error.cause }
        }
    }
}
