//! Items and limits in MongoDB, for processes anywhere.
//!
//! Each change is a guarded update of one document, so no transactions are needed: a standalone server serves as well as a replica set.
//! What takes several changes leaves a mark by which whoever claims next brings it to its end. Writes are acknowledged by a majority and
//! journaled.

mod items;
mod limits;

use std::future::IntoFuture;

use bson::{Document, doc};
use galerna_mongo::CallError;
use mongodb::Database;
use mongodb::error::Error;

pub use self::items::MongoItems;
pub use self::limits::MongoLimits;
use crate::DelayError;

/// The database of an address, else `galerna`.
async fn connected(uri: &str) -> Result<Database, DelayError> {
    galerna_mongo::connect(uri).await.map_err(|error| fault("connecting to MongoDB", &error))
}

fn unreadable(attempted: &'static str, error: impl std::fmt::Display) -> DelayError {
    DelayError::Failed { attempted, cause: error.to_string() }
}

fn fault(attempted: &'static str, error: &CallError) -> DelayError {
    let cause = error.to_string();
    if error.is_transient() {
        DelayError::Unavailable { attempted, cause }
    } else {
        DelayError::Failed { attempted, cause }
    }
}

async fn in_time<T>(
    attempted: &'static str,
    call: impl IntoFuture<Output = Result<T, Error>>,
) -> Result<T, DelayError> {
    galerna_mongo::in_time(call).await.map_err(|error| fault(attempted, &error))
}

/// A number as MongoDB has them.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Documents with this field.
fn with(field: &str) -> Document {
    doc! { field: { "$exists": true } }
}
