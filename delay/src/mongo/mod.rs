//! Items and limits in MongoDB, for processes anywhere.
//!
//! Each change is a guarded update of one document, so no transactions are needed: a standalone server serves as well as a replica set.
//! What takes several changes leaves a mark by which whoever claims next brings it to its end. Writes are acknowledged by a majority and
//! journaled.

mod items;
mod limits;

use std::future::IntoFuture;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{Acknowledgment, ClientOptions, CollectionOptions, WriteConcern};
use mongodb::{Client, Collection, Database};

pub use self::items::MongoItems;
pub use self::limits::MongoLimits;
use crate::DelayError;

/// Longest time that a call waits for the server.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A document with this id is there already.
const DUPLICATE_KEY: i32 = 11000;

/// The database of an address, else `galerna`.
async fn connected(uri: &str) -> Result<Database, DelayError> {
    let attempted = "connecting to MongoDB";
    let mut options = ClientOptions::parse(uri).await.map_err(|error| fault(attempted, &error))?;
    options.app_name.get_or_insert_with(|| "galerna".to_owned());
    options.connect_timeout.get_or_insert(Duration::from_secs(5));
    options.server_selection_timeout.get_or_insert(Duration::from_secs(5));
    let database = options.default_database.clone().unwrap_or_else(|| "galerna".to_owned());
    let client = Client::with_options(options).map_err(|error| fault(attempted, &error))?;
    Ok(client.database(&database))
}

fn collection(database: &Database, name: &str) -> Collection<Document> {
    let durable = WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .w_timeout(Duration::from_secs(5))
        .build();
    database.collection_with_options(name, CollectionOptions::builder().write_concern(durable).build())
}

fn unreadable(attempted: &'static str, error: impl std::fmt::Display) -> DelayError {
    DelayError::Failed { attempted, cause: error.to_string() }
}

/// What an error of the driver means: not reached, elections, shutdowns, time limits may pass.
fn fault(attempted: &'static str, error: &Error) -> DelayError {
    let passes = match error.kind.as_ref() {
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Write(WriteFailure::WriteConcernError(_)) => true,
        ErrorKind::Command(refusal) => matches!(refusal.code, 50 | 262),
        _ => false,
    };
    let labelled =
        error.contains_label("RetryableWriteError") || error.contains_label("TransientTransactionError");
    let cause = error.kind.to_string();
    if passes || labelled {
        DelayError::Unavailable { attempted, cause }
    } else {
        DelayError::Failed { attempted, cause }
    }
}

/// The code with which a single write or command was refused.
fn is_duplicate(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(error)) => error.code == DUPLICATE_KEY,
        ErrorKind::Command(error) => error.code == DUPLICATE_KEY,
        _ => false,
    }
}

fn late(attempted: &'static str) -> DelayError {
    DelayError::Unavailable { attempted, cause: format!("MongoDB did not answer in {TIMEOUT:?}") }
}

/// The answer; `Err(None)` when there was none in time.
async fn in_time_raw<T>(call: impl IntoFuture<Output = Result<T, Error>>) -> Result<T, Option<Error>> {
    match tokio::time::timeout(TIMEOUT, call.into_future()).await {
        Ok(answer) => answer.map_err(Some),
        Err(_) => Err(None),
    }
}

async fn in_time<T>(
    attempted: &'static str,
    call: impl IntoFuture<Output = Result<T, Error>>,
) -> Result<T, DelayError> {
    in_time_raw(call)
        .await
        .map_err(|error| error.map_or_else(|| late(attempted), |error| fault(attempted, &error)))
}

/// A number as MongoDB has them.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Documents with this field.
fn with(field: &str) -> Document {
    doc! { field: { "$exists": true } }
}
