//! Errors of the storage.

/// Result of a storage call.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// Why a storage call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The store cannot be reached or did not answer in time; the call may be tried again.
    #[error("store is unavailable while {attempted}: {cause}")]
    Unavailable {
        /// What was tried.
        attempted: String,
        /// What the driver said.
        cause: String,
    },
    /// The store refused or failed; trying again will not help.
    #[error("store failed while {attempted}: {cause}")]
    Failed {
        /// What was tried.
        attempted: String,
        /// What the driver said.
        cause: String,
    },
    /// Another process has the embedded store open.
    #[error(
        "the embedded store {path} is open already; stop the process that has it, choose another file, or use MongoDB to share \
         one store between processes"
    )]
    InUse {
        /// The store's file.
        path: String,
    },
    /// A setting or address is wrong.
    #[error("{0}")]
    Invalid(String),
}
