//! What can go wrong with checkpoints.

use crate::StateError;
use crate::checkpoint::CheckpointId;

/// Why a checkpoint was not written, found or restored. What was committed before is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// No room. Once there is some, the next checkpoint succeeds.
    #[error("the disk is full while {attempted} {place}: {cause}; free some space")]
    DiskFull {
        /// What was tried.
        attempted: &'static str,
        /// On which file or collection.
        place: String,
        /// What the system said.
        cause: String,
    },
    /// The file system failed.
    #[error("{attempted} {place}: {cause}")]
    Io {
        /// What was tried.
        attempted: &'static str,
        /// On which file.
        place: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The server cannot be reached or has no primary: the same may succeed later.
    #[error("{attempted} {place}: {cause}; check that the server runs")]
    Unavailable {
        /// What was tried.
        attempted: &'static str,
        /// On which collection.
        place: String,
        /// What the driver said.
        cause: String,
    },
    /// The server refuses: credentials, rights, its own limits.
    #[error("{attempted} {place}: {cause}")]
    Failed {
        /// What was tried.
        attempted: &'static str,
        /// On which collection.
        place: String,
        /// What the driver said.
        cause: String,
    },
    /// The address of a server, or an option, is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Bytes that are not what was written.
    #[error(
        "{place}: {problem}; put it back from a copy, or restore an older checkpoint, from which messages that were acked since are \
         missing"
    )]
    Corrupt {
        /// The file.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// A later version of the program wrote it.
    #[error("{place} is of format {found}, this program knows {known}; run the newer program")]
    Newer {
        /// The file.
        place: String,
        /// Its format.
        found: u32,
        /// The latest that is known.
        known: u32,
    },
    /// It is another topology's.
    #[error(
        "{place} holds checkpoints of topology `{found}`, not of `{wanted}`; give each topology a place of its own"
    )]
    Foreign {
        /// The folder.
        place: String,
        /// Whose they are.
        found: String,
        /// Whose they were to be.
        wanted: String,
    },
    /// Another process has the folder open.
    #[error("another process has {place} open; end it first, or give another folder")]
    InUse {
        /// The folder.
        place: String,
    },
    /// There is none of this number.
    #[error("{place} has no checkpoint {id}")]
    Unknown {
        /// The number.
        id: CheckpointId,
        /// Where it was looked for.
        place: String,
    },
    /// It was not begun, or another was begun since.
    #[error("checkpoint {id} is not the one that was begun last; begin another")]
    NotBegun {
        /// The number.
        id: CheckpointId,
    },
    /// Another process has committed a checkpoint since, or goes on from the last one: two run the same topology.
    #[error(
        "another process has written checkpoint {id} of topology `{topology}`, or goes on from it; let only one process run it"
    )]
    Conflict {
        /// The number of the other's.
        id: CheckpointId,
        /// The topology.
        topology: String,
    },
    /// The parts do not make up a whole checkpoint.
    #[error("checkpoint {id} is not whole: {problem}")]
    Incomplete {
        /// The number.
        id: CheckpointId,
        /// What is missing or does not fit.
        problem: String,
    },
    /// State was not restored.
    #[error(transparent)]
    State(#[from] StateError),
}

impl CheckpointError {
    /// Whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::DiskFull { .. } | Self::Unavailable { .. } => true,
            Self::State(error) => error.is_transient(),
            _ => false,
        }
    }

    pub(crate) fn io(attempted: &'static str, place: impl Into<String>, cause: std::io::Error) -> Self {
        let place = place.into();
        match cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { attempted, place, cause: cause.to_string() }
            }
            _ => Self::Io { attempted, place, cause },
        }
    }
}
