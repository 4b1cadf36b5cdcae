//! What can go wrong.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// What kind of failure an [`SqliteError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqliteErrorKind {
    /// The disk, or the largest size that the file may have, is full.
    DiskFull,
    /// Another connection is in the way, or the system lacks something for now: the same may succeed later.
    Transient,
    /// The store was closed.
    Closed,
    /// Anything else: trying again does not help.
    Failed,
}

/// Why a read or a transaction failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct SqliteError {
    /// To tell what to do about it.
    pub kind: SqliteErrorKind,
    /// What SQLite said.
    pub cause: String,
}

impl SqliteError {
    /// The store was closed before, or is being closed.
    pub fn closed() -> Self {
        Self { kind: SqliteErrorKind::Closed, cause: "the store is closed".to_owned() }
    }

    /// Whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, SqliteErrorKind::DiskFull | SqliteErrorKind::Transient | SqliteErrorKind::Closed)
    }
}

impl From<&rusqlite::Error> for SqliteError {
    fn from(error: &rusqlite::Error) -> Self {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => SqliteErrorKind::DiskFull,
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationAborted,
            ) => SqliteErrorKind::Transient,
            _ => SqliteErrorKind::Failed,
        };
        let mut cause = error.to_string();
        if kind == SqliteErrorKind::DiskFull {
            cause.push_str("; free some space");
        }
        Self { kind, cause }
    }
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::from(&error)
    }
}

/// Why a file was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path names a folder.
    #[error("{} is a folder; name the file", .0.display())]
    Folder(PathBuf),
    /// Another process has it open.
    #[error("another process has {} open", .0.display())]
    InUse(PathBuf),
    /// It is not what it was when it was last written.
    #[error("{}: {problem}; {remedy}", file.display())]
    Damaged {
        /// The file that is missing, cut or not readable.
        file: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// It was written by another program, or is another kind of Galerna's files.
    #[error("{}: it is not a {wanted} of Galerna ({found}); give another path", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What kind of file was to be opened.
        wanted: &'static str,
        /// What it is instead.
        found: String,
    },
    /// A later version of the program wrote it.
    #[error("{} is of version {found}, this program knows {known}; use a newer galerna", file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: i64,
        /// The latest that is known.
        known: i64,
    },
    /// What the file system said.
    #[error("{}: {cause}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// What SQLite said.
    #[error("{}: {cause}", file.display())]
    Sqlite {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: SqliteError,
    },
}
