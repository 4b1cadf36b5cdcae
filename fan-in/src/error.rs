//! What can go wrong.

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FanInError {
    /// A plan makes no sense.
    #[error("fan-in `{id}`: {reason}")]
    Bad {
        /// Its name.
        id: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// There is none of this name, or it was forgotten.
    #[error("there is no fan-in `{0}`; begin it before its parts are sent")]
    NotFound(String),
    /// A part that the plan does not have.
    #[error("fan-in `{id}` has no part `{part}`")]
    UnknownPart {
        /// The fan-in.
        id: String,
        /// The part.
        part: String,
    },
    /// The store cannot be reached or did not answer: whether a write was done is not known. The call may be made again.
    #[error("the store of fan-ins is unavailable while {attempted}: {cause}")]
    Unavailable {
        /// What was tried.
        attempted: String,
        /// What the store said.
        cause: String,
    },
    /// The store refused or failed; trying again does not help.
    #[error("the store of fan-ins failed while {attempted}: {cause}")]
    Failed {
        /// What was tried.
        attempted: String,
        /// What the store said.
        cause: String,
    },
}
