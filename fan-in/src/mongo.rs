//! Fan-ins in MongoDB, for processes anywhere.
//!
//! A fan-in is one document, changed by guarded updates, so no transactions are needed: a standalone server serves as well as a replica
//! set. Writes are acknowledged by a majority and journaled.

use std::future::IntoFuture;
use std::time::Duration;

use async_trait::async_trait;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use galerna_model::Timestamp;
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, IndexOptions, ReturnDocument, WriteConcern,
};
use mongodb::{Client, Collection, Database, IndexModel};

use crate::{FanInError, FanInStore, Record};

/// Longest time that a call waits for the server.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A document with this id is there already.
const DUPLICATE_KEY: i32 = 11000;

/// An open store: the collection `fan_ins` of a database.
#[derive(Debug, Clone)]
pub struct MongoFanIns {
    fan_ins: Collection<Document>,
}

impl MongoFanIns {
    /// Connects to the server of an address, and uses the database that it names, else `galerna`.
    ///
    /// # Errors
    /// When the address is wrong; otherwise as [`open`](Self::open).
    pub async fn connect(uri: &str) -> Result<Self, FanInError> {
        let attempted = "connecting to MongoDB";
        let mut options = ClientOptions::parse(uri).await.map_err(|error| fault(attempted, &error))?;
        options.app_name.get_or_insert_with(|| "galerna".to_owned());
        options.connect_timeout.get_or_insert(Duration::from_secs(5));
        options.server_selection_timeout.get_or_insert(Duration::from_secs(5));
        let database = options.default_database.clone().unwrap_or_else(|| "galerna".to_owned());
        let client = Client::with_options(options).map_err(|error| fault(attempted, &error))?;
        Self::open(&client.database(&database)).await
    }

    /// Uses a database, and creates the indexes that are missing.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn open(database: &Database) -> Result<Self, FanInError> {
        let durable = WriteConcern::builder()
            .w(Acknowledgment::Majority)
            .journal(true)
            .w_timeout(Duration::from_secs(5))
            .build();
        let options = CollectionOptions::builder().write_concern(durable).build();
        let store = Self { fan_ins: database.collection_with_options("fan_ins", options) };
        let partial = |field: &str| {
            let filter = doc! { field: { "$exists": true } };
            let options = IndexOptions::builder().partial_filter_expression(filter).build();
            IndexModel::builder().keys(doc! { field: 1 }).options(options).build()
        };
        in_time(
            "preparing the store of fan-ins",
            store.fan_ins.create_indexes([partial("due"), partial("settled")]),
        )
        .await?;
        Ok(store)
    }
}

/// What a document has beside its id. `due`: the deadline until it has ended, then the end until it was acted on; `settled`: the end,
/// from then on.
fn fields_of(attempted: &str, record: &Record) -> Result<Document, FanInError> {
    let text = serde_json::to_string(record).map_err(|error| unreadable(attempted, error))?;
    let ended = record.end.map(|(_, at)| at.as_millis());
    let mut fields = doc! { "v": record.version, "record": text };
    match ended {
        Some(at) if record.settled => fields.insert("settled", at),
        Some(at) => fields.insert("due", at),
        None => fields.insert("due", record.deadline.as_millis()),
    };
    Ok(fields)
}

fn read(attempted: &str, found: &Document) -> Result<Record, FanInError> {
    let text = found.get_str("record").map_err(|error| unreadable(attempted, error))?;
    let mut record: Record = serde_json::from_str(text).map_err(|error| unreadable(attempted, error))?;
    record.version = found.get_i64("v").map_err(|error| unreadable(attempted, error))?;
    Ok(record)
}

fn unreadable(attempted: &str, error: impl std::fmt::Display) -> FanInError {
    FanInError::Failed { attempted: attempted.to_owned(), cause: error.to_string() }
}

/// What an error of the driver means: not reached, elections, shutdowns, time limits may pass.
fn fault(attempted: &str, error: &Error) -> FanInError {
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
    let (attempted, cause) = (attempted.to_owned(), error.kind.to_string());
    if passes || labelled {
        FanInError::Unavailable { attempted, cause }
    } else {
        FanInError::Failed { attempted, cause }
    }
}

fn is_duplicate(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Write(WriteFailure::WriteError(error)) if error.code == DUPLICATE_KEY)
}

/// The answer; `Err(None)` when there was none in time.
async fn in_time_raw<T>(call: impl IntoFuture<Output = Result<T, Error>>) -> Result<T, Option<Error>> {
    match tokio::time::timeout(TIMEOUT, call.into_future()).await {
        Ok(answer) => answer.map_err(Some),
        Err(_) => Err(None),
    }
}

fn late(attempted: &str) -> FanInError {
    FanInError::Unavailable {
        attempted: attempted.to_owned(),
        cause: format!("MongoDB did not answer in {TIMEOUT:?}"),
    }
}

async fn in_time<T>(
    attempted: &str,
    call: impl IntoFuture<Output = Result<T, Error>>,
) -> Result<T, FanInError> {
    in_time_raw(call)
        .await
        .map_err(|error| error.map_or_else(|| late(attempted), |error| fault(attempted, &error)))
}

#[async_trait]
impl FanInStore for MongoFanIns {
    async fn insert(&self, record: &Record) -> Result<bool, FanInError> {
        let attempted = "beginning a fan-in";
        let mut document = doc! { "_id": &record.id };
        document.extend(fields_of(attempted, record)?);
        match in_time_raw(self.fan_ins.insert_one(&document)).await {
            Ok(_) => Ok(true),
            Err(Some(error)) if is_duplicate(&error) => Ok(false),
            Err(Some(error)) => Err(fault(attempted, &error)),
            Err(None) => Err(late(attempted)),
        }
    }

    async fn get(&self, id: &str) -> Result<Option<Record>, FanInError> {
        let attempted = "reading a fan-in";
        let found = in_time(attempted, self.fan_ins.find_one(doc! { "_id": id })).await?;
        found.map(|found| read(attempted, &found)).transpose()
    }

    async fn swap(&self, record: &Record, expected: i64) -> Result<bool, FanInError> {
        let attempted = "changing a fan-in";
        let mut document = doc! { "_id": &record.id };
        document.extend(fields_of(attempted, record)?);
        let guard = doc! { "_id": &record.id, "v": expected };
        let swapped = self
            .fan_ins
            .find_one_and_replace(guard, document)
            .return_document(ReturnDocument::After)
            .projection(doc! { "v": 1 });
        Ok(in_time(attempted, swapped).await?.is_some())
    }

    async fn pending(&self, now: Timestamp, limit: usize) -> Result<Vec<Record>, FanInError> {
        let attempted = "looking for fan-ins to end";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let due = doc! { "due": { "$lte": now.as_millis() } };
        let query =
            async { self.fan_ins.find(due).sort(doc! { "due": 1 }).limit(limit).await?.try_collect().await };
        let found: Vec<Document> = in_time(attempted, query).await?;
        let mut records = Vec::with_capacity(found.len());
        for found in &found {
            match read(attempted, found) {
                Ok(record) => records.push(record),
                // Of a newer version, perhaps: it keeps nobody from the others.
                Err(error) => tracing::error!(%error, "a fan-in cannot be read and does not end"),
            }
        }
        Ok(records)
    }

    async fn forget(&self, before: Timestamp) -> Result<u64, FanInError> {
        let old = doc! { "settled": { "$lt": before.as_millis() } };
        Ok(in_time("forgetting fan-ins", self.fan_ins.delete_many(old)).await?.deleted_count)
    }
}
