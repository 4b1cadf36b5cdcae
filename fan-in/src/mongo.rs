//! Fan-ins in MongoDB, for processes anywhere.
//!
//! A fan-in is one document, changed by guarded updates, so no transactions are needed: a standalone server serves as well as a replica
//! set. Writes are acknowledged by a majority and journaled.

use std::future::IntoFuture;

use async_trait::async_trait;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use galerna_model::Timestamp;
use galerna_mongo::{CallError, durable};
use mongodb::error::Error;
use mongodb::options::{IndexOptions, ReturnDocument};
use mongodb::{Collection, Database, IndexModel};

use crate::{FanInError, FanInStore, Record};

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
        let database = galerna_mongo::connect(uri).await;
        Self::open(&database.map_err(|error| fault("connecting to MongoDB", &error))?).await
    }

    /// Uses a database, and creates the indexes that are missing.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn open(database: &Database) -> Result<Self, FanInError> {
        let store = Self { fan_ins: durable(database, "fan_ins") };
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

fn fault(attempted: &str, error: &CallError) -> FanInError {
    let (attempted, cause) = (attempted.to_owned(), error.to_string());
    if error.is_transient() {
        FanInError::Unavailable { attempted, cause }
    } else {
        FanInError::Failed { attempted, cause }
    }
}

async fn in_time<T>(
    attempted: &str,
    call: impl IntoFuture<Output = Result<T, Error>>,
) -> Result<T, FanInError> {
    galerna_mongo::in_time(call).await.map_err(|error| fault(attempted, &error))
}

#[async_trait]
impl FanInStore for MongoFanIns {
    async fn insert(&self, record: &Record) -> Result<bool, FanInError> {
        let attempted = "beginning a fan-in";
        let mut document = doc! { "_id": &record.id };
        document.extend(fields_of(attempted, record)?);
        match galerna_mongo::in_time(self.fan_ins.insert_one(&document)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_duplicate() => Ok(false),
            Err(error) => Err(fault(attempted, &error)),
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
