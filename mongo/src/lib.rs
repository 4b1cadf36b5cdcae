//! What the stores of schedules, fan-ins and delayed work have in common when they keep their records in MongoDB.
//!
//! Each of their changes is a guarded update of one document, so no transactions are needed: a standalone server serves as well as a
//! replica set. Writes are acknowledged by a majority and journaled, and no call waits longer than [`TIMEOUT`].
//!
//! *Boundary:* no other crate of the workspace; what failed of a record is said by whose record it is.

use std::future::IntoFuture;
use std::time::Duration;

use bson::Document;
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{Acknowledgment, ClientOptions, CollectionOptions, WriteConcern};
use mongodb::{Client, Collection, Database};

/// Longest time that a call waits for the server.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The server's code for: a document with this id is there already.
const DUPLICATE_KEY: i32 = 11000;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There was no answer within [`TIMEOUT`].
    #[error("MongoDB did not answer in {TIMEOUT:?}")]
    NoAnswer,
    /// The driver or the server failed.
    #[error("{}", .0.kind)]
    Failed(#[from] Error),
}

impl CallError {
    /// Whether the same call may succeed later: not reached, elections, shutdowns, time limits.
    pub fn is_transient(&self) -> bool {
        let Self::Failed(error) = self else { return true };
        let passes = match error.kind.as_ref() {
            ErrorKind::Io(_)
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::DnsResolve { .. }
            | ErrorKind::Write(WriteFailure::WriteConcernError(_)) => true,
            ErrorKind::Command(refusal) => matches!(refusal.code, 50 | 262),
            _ => false,
        };
        passes
            || error.contains_label("RetryableWriteError")
            || error.contains_label("TransientTransactionError")
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
    let mut options = ClientOptions::parse(uri).await?;
    options.app_name.get_or_insert_with(|| "galerna".to_owned());
    options.connect_timeout.get_or_insert(Duration::from_secs(5));
    options.server_selection_timeout.get_or_insert(Duration::from_secs(5));
    let database = options.default_database.clone().unwrap_or_else(|| "galerna".to_owned());
    Ok(Client::with_options(options)?.database(&database))
}

/// A collection whose writes are acknowledged by a majority and journaled.
pub fn durable(database: &Database, name: &str) -> Collection<Document> {
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
