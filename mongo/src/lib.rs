//! What stores that keep their records in MongoDB have in common: which failures pass, for all of them ([`is_transient`]); and for those
//! of schedules, fan-ins, delayed work and notification lists also connecting, durable collections and answers in time.
//!
//! Each change of these is a guarded update of one document, so no transactions are needed: a standalone server serves as well as
//! a replica set. Writes are acknowledged by a majority and journaled, and no call waits longer than [`TIMEOUT`].
//!
//! *Boundary:* no other crate of the workspace; what failed of a record is said by whose record it is.

use std::future::IntoFuture;
use std::time::Duration;

use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{Acknowledgment, ClientOptions, CollectionOptions, WriteConcern};
use mongodb::{Client, Collection, Database};

/// Longest time that a call waits for the server.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The server's code for: a document with this id, or another unique key, is there already.
pub const DUPLICATE_KEY: i32 = 11000;

/// The server's code for: no room on its disk.
pub const OUT_OF_DISK_SPACE: i32 = 14031;

/// Codes of failures that pass: elections, shutdowns, locks, time limits, a full disk.
const TRANSIENT: [i32; 24] = [
    6,
    7,
    24,
    46,
    50,
    64,
    89,
    91,
    100,
    112,
    133,
    134,
    189,
    202,
    262,
    317,
    358,
    9001,
    10107,
    11600,
    11602,
    13435,
    13436,
    OUT_OF_DISK_SPACE,
];

/// Whether the server may do the same later, by the code with which it refused.
pub fn is_transient_code(code: i32) -> bool {
    TRANSIENT.contains(&code)
}

/// The code with which the server refused: of several, that of the first.
pub fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(refusal) => Some(refusal.code),
        ErrorKind::Write(WriteFailure::WriteError(refusal)) => Some(refusal.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(refusal)) => Some(refusal.code),
        ErrorKind::InsertMany(failure) => {
            let refused = failure.write_errors.as_deref().and_then(|errors| errors.first());
            let unconfirmed = failure.write_concern_error.as_ref();
            refused.map(|error| error.code).or(unconfirmed.map(|error| error.code))
        }
        _ => None,
    }
}

/// Whether the same call may succeed later: not reached, not confirmed by a majority, or refused by a code that passes.
pub fn is_transient(error: &Error) -> bool {
    let passes = match error.kind.as_ref() {
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Write(WriteFailure::WriteConcernError(_)) => true,
        ErrorKind::InsertMany(failure) if failure.write_errors.as_deref().is_none_or(<[_]>::is_empty) => {
            failure.write_concern_error.is_some()
        }
        _ => code(error).is_some_and(is_transient_code),
    };
    passes || error.contains_label("RetryableWriteError") || error.contains_label("TransientTransactionError")
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There was no answer within [`TIMEOUT`].
    #[error("MongoDB did not answer in {TIMEOUT:?}")]
    NoAnswer,
    /// The address names no database.
    #[error("the address names no database; write for instance mongodb://localhost/database")]
    NoDatabase,
    /// The driver or the server failed.
    #[error("{}", .0.kind)]
    Failed(#[from] Error),
}

impl CallError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer => true,
            Self::NoDatabase => false,
            Self::Failed(error) => is_transient(error),
        }
    }

    /// Whether a single write or command was refused because a document with its id is there already.
    pub fn is_duplicate(&self) -> bool {
        self.duplicates() == Some(1)
    }

    /// How many documents of a write were there already, if nothing else went wrong.
    pub fn duplicates(&self) -> Option<usize> {
        let Self::Failed(error) = self else { return None };
        match error.kind.as_ref() {
            ErrorKind::InsertMany(failure) if failure.write_concern_error.is_none() => {
                let errors = failure.write_errors.as_deref()?;
                errors.iter().all(|error| error.code == DUPLICATE_KEY).then_some(errors.len())
            }
            ErrorKind::Write(WriteFailure::WriteError(error)) => (error.code == DUPLICATE_KEY).then_some(1),
            ErrorKind::Command(error) => (error.code == DUPLICATE_KEY).then_some(1),
            _ => None,
        }
    }
}

/// Connects to the server of an address, and gives the database that it names, else `galerna`.
///
/// # Errors
/// When the address is wrong. Whether the server answers is seen at the first call.
pub async fn connect(uri: &str) -> Result<Database, CallError> {
    database(uri, Some("galerna")).await
}

/// The same for an address that has to name its database.
///
/// # Errors
/// As [`connect`], and when the address names none.
pub async fn connect_named(uri: &str) -> Result<Database, CallError> {
    database(uri, None).await
}

async fn database(uri: &str, usual: Option<&str>) -> Result<Database, CallError> {
    let mut options = ClientOptions::parse(uri).await?;
    options.app_name.get_or_insert_with(|| "galerna".to_owned());
    options.connect_timeout.get_or_insert(Duration::from_secs(5));
    options.server_selection_timeout.get_or_insert(Duration::from_secs(5));
    let named = options.default_database.clone();
    let database = named.or_else(|| usual.map(str::to_owned)).ok_or(CallError::NoDatabase)?;
    Ok(Client::with_options(options)?.database(&database))
}

/// A collection whose writes are acknowledged by a majority and journaled.
pub fn durable<T: Send + Sync>(database: &Database, name: &str) -> Collection<T> {
    let durable = WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .w_timeout(Duration::from_secs(5))
        .build();
    database.collection_with_options(name, CollectionOptions::builder().write_concern(durable).build())
}

/// The answer to a call.
///
/// # Errors
/// [`CallError`]; without an answer it is not known whether a write was done.
pub async fn in_time<T>(call: impl IntoFuture<Output = Result<T, Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(TIMEOUT, call.into_future()).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::NoAnswer),
    }
}
