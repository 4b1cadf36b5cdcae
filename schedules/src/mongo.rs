//! Schedules in MongoDB, for processes anywhere.
//!
//! A schedule is one document, changed by guarded updates. What ends is put into the document by the same update that ends it, and
//! moved from there to a collection of its own; whoever finds some that was left there moves it. So no transactions are needed, and
//! a standalone server serves as well as a replica set. Writes are acknowledged by a majority and journaled.

use std::future::IntoFuture;

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use galerna_model::Timestamp;
use galerna_mongo::{CallError, durable};
use mongodb::error::Error;
use mongodb::options::{IndexOptions, ReturnDocument};
use mongodb::{Collection, Database, IndexModel};

use crate::{Ended, Origin, Record, ScheduleId, ScheduleStore, StoreError};

/// How often what ended is moved while others add to it, before it is left to the next change.
const MOVES: usize = 3;

/// An open store: the collections `schedules` and `schedule_firings` of a database.
#[derive(Debug, Clone)]
pub struct MongoSchedules {
    schedules: Collection<Document>,
    firings: Collection<Document>,
}

impl MongoSchedules {
    /// Connects to the server of an address, and uses the database that it names, else `galerna`.
    ///
    /// # Errors
    /// When the address is wrong; otherwise as [`open`](Self::open).
    pub async fn connect(uri: &str) -> Result<Self, StoreError> {
        let database = galerna_mongo::connect(uri).await;
        Self::open(&database.map_err(|error| fault("connecting to MongoDB", &error))?).await
    }

    /// Uses a database, and creates the indexes that are missing.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        let store = Self {
            schedules: durable(database, "schedules"),
            firings: durable(database, "schedule_firings"),
        };
        let attempted = "preparing the store of schedules";
        let partial = |keys: Document, filter: Document| {
            let options = IndexOptions::builder().partial_filter_expression(filter).build();
            IndexModel::builder().keys(keys).options(options).build()
        };
        let of_schedules = [
            partial(doc! { "wake": 1 }, doc! { "wake": { "$exists": true } }),
            partial(doc! { "running": 1 }, doc! { "running": { "$gt": 0 } }),
            partial(doc! { "unfiled": 1 }, doc! { "unfiled": true }),
        ];
        in_time(attempted, store.schedules.create_indexes(of_schedules)).await?;
        let of_firings = [
            IndexModel::builder().keys(doc! { "s": 1, "n": -1, "_id": -1 }).build(),
            IndexModel::builder().keys(doc! { "at": 1 }).build(),
        ];
        in_time(attempted, store.firings.create_indexes(of_firings)).await?;
        Ok(store)
    }

    /// Moves what ended out of a document as it was read after a change.
    async fn file(&self, mut found: Document) -> Result<(), StoreError> {
        let attempted = "keeping what ended";
        for _ in 0..MOVES {
            let id = found.get_str("_id").map_err(|error| unreadable(attempted, error))?.to_owned();
            let version = found.get_i64("v").map_err(|error| unreadable(attempted, error))?;
            let rows: Vec<Document> = found
                .get_array("ended")
                .into_iter()
                .flatten()
                .filter_map(|row| row.as_document().cloned())
                .collect();
            if !rows.is_empty() {
                match galerna_mongo::in_time(self.firings.insert_many(rows).ordered(false)).await {
                    Err(error) if error.duplicates().is_none() => return Err(fault(attempted, &error)),
                    _ => {}
                }
            }
            let unchanged = doc! { "_id": &id, "v": version };
            let removed = found.get_bool("removed").unwrap_or(false);
            let done = if removed {
                in_time(attempted, self.schedules.delete_one(unchanged)).await?.deleted_count
            } else {
                let cleared = doc! { "$set": { "ended": [] }, "$unset": { "unfiled": "" } };
                in_time(attempted, self.schedules.update_one(unchanged, cleared)).await?.matched_count
            };
            if done == 1 {
                return Ok(());
            }
            match in_time(attempted, self.schedules.find_one(doc! { "_id": &id, "unfiled": true })).await? {
                Some(current) => found = current,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Moves what a process that was lost has left.
    async fn file_left(&self, filter: Document) -> Result<(), StoreError> {
        let attempted = "looking for what ended";
        let found: Vec<Document> =
            in_time(attempted, async { self.schedules.find(filter).limit(100).await?.try_collect().await })
                .await?;
        for found in found {
            self.file(found).await?;
        }
        Ok(())
    }

    /// Changes a document if it has the version `expected`, and files what ended.
    async fn change(
        &self,
        attempted: &str,
        id: &ScheduleId,
        expected: i64,
        mut operators: Document,
        ended: &[Ended],
    ) -> Result<bool, StoreError> {
        let rows: Vec<Document> =
            ended.iter().map(|ended| row_of(attempted, ended)).collect::<Result<_, _>>()?;
        let files = !rows.is_empty();
        if files {
            operators.insert("$push", doc! { "ended": { "$each": rows } });
        }
        let guard = doc! { "_id": id.as_str(), "v": expected, "removed": { "$ne": true } };
        let projection = doc! { "v": 1, "ended": 1, "removed": 1 };
        let update = self
            .schedules
            .find_one_and_update(guard, operators)
            .return_document(ReturnDocument::After)
            .projection(projection);
        let Some(changed) = in_time(attempted, update).await? else { return Ok(false) };
        if files && let Err(error) = self.file(changed).await {
            // It is done; who looks next moves what ended.
            tracing::debug!(%error, schedule = %id, "what ended is moved later");
        }
        Ok(true)
    }

    async fn read(&self, attempted: &str, found: Document) -> Result<Record, StoreError> {
        let text = found.get_str("record").map_err(|error| unreadable(attempted, error))?;
        let mut record: Record = serde_json::from_str(text).map_err(|error| unreadable(attempted, error))?;
        record.version = found.get_i64("v").map_err(|error| unreadable(attempted, error))?;
        Ok(record)
    }

    async fn find(
        &self,
        attempted: &str,
        filter: Document,
        sort: Document,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = async { self.schedules.find(filter).sort(sort).limit(limit).await?.try_collect().await };
        let found: Vec<Document> = in_time(attempted, query).await?;
        let mut records = Vec::with_capacity(found.len());
        for found in found {
            match self.read(attempted, found).await {
                Ok(record) => records.push(record),
                // Of a newer version, perhaps: it keeps nobody from the others.
                Err(error) => tracing::error!(%error, "a schedule cannot be read and does not run"),
            }
        }
        Ok(records)
    }
}

/// The fields that a record has beside its text.
fn fields_of(attempted: &str, record: &Record) -> Result<Document, StoreError> {
    let text = serde_json::to_string(record).map_err(|error| unreadable(attempted, error))?;
    let running = i64::try_from(record.running()).unwrap_or(i64::MAX);
    Ok(doc! { "v": record.version, "running": running, "record": text })
}

fn row_of(attempted: &str, ended: &Ended) -> Result<Document, StoreError> {
    let text = serde_json::to_string(ended).map_err(|error| unreadable(attempted, error))?;
    let (origin, number) = match ended.id.origin {
        Origin::Planned => (0, 0),
        Origin::Triggered(number) => (1, number),
        Origin::Backfilled(number) => (2, number),
    };
    let (schedule, nominal) = (ended.id.schedule.as_str(), ended.id.nominal.as_millis());
    Ok(doc! {
        "_id": { "s": schedule, "n": nominal, "o": origin, "k": number.cast_signed() },
        "s": schedule, "n": nominal, "at": ended.at.as_millis(), "record": text,
    })
}

/// `operators` for the time at which there is something to do.
fn with_wake(mut operators: Document, record: &Record) -> Document {
    match record.wake() {
        Some(wake) => {
            if let Ok(set) = operators.get_document_mut("$set") {
                set.insert("wake", wake.as_millis());
            }
        }
        None => {
            operators.insert("$unset", doc! { "wake": "" });
        }
    }
    operators
}

fn unreadable(attempted: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed { attempted: attempted.to_owned(), cause: error.to_string() }
}

fn fault(attempted: &str, error: &CallError) -> StoreError {
    let (attempted, cause) = (attempted.to_owned(), error.to_string());
    if error.is_transient() {
        StoreError::Unavailable { attempted, cause }
    } else {
        StoreError::Failed { attempted, cause }
    }
}

async fn in_time<T>(
    attempted: &str,
    call: impl IntoFuture<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    galerna_mongo::in_time(call).await.map_err(|error| fault(attempted, &error))
}

#[async_trait]
impl ScheduleStore for MongoSchedules {
    async fn insert(&self, record: &Record) -> Result<bool, StoreError> {
        let attempted = "adding a schedule";
        let mut document = doc! { "_id": record.id.as_str() };
        document.extend(fields_of(attempted, record)?);
        if let Some(wake) = record.wake() {
            document.insert("wake", wake.as_millis());
        }
        document.insert("ended", Bson::Array(Vec::new()));
        for _ in 0..MOVES {
            match galerna_mongo::in_time(self.schedules.insert_one(&document)).await {
                Ok(_) => return Ok(true),
                Err(error) if error.duplicates().is_none() => return Err(fault(attempted, &error)),
                Err(_) => {}
            }
            // What is there may be a removed one of the same name, whose remover was lost.
            let removed = doc! { "_id": record.id.as_str(), "removed": true };
            match in_time(attempted, self.schedules.find_one(removed)).await? {
                Some(removed) => self.file(removed).await?,
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    async fn get(&self, id: &ScheduleId) -> Result<Option<Record>, StoreError> {
        let attempted = "reading a schedule";
        let filter = doc! { "_id": id.as_str(), "removed": { "$ne": true } };
        match in_time(attempted, self.schedules.find_one(filter)).await? {
            Some(found) => self.read(attempted, found).await.map(Some),
            None => Ok(None),
        }
    }

    async fn list(&self, after: Option<&ScheduleId>, limit: usize) -> Result<Vec<Record>, StoreError> {
        let after = after.map_or("", ScheduleId::as_str);
        let filter = doc! { "_id": { "$gt": after }, "removed": { "$ne": true } };
        self.find("listing schedules", filter, doc! { "_id": 1 }, limit).await
    }

    async fn pending(&self, now: Timestamp, limit: usize) -> Result<Vec<Record>, StoreError> {
        let attempted = "looking for schedules that are due";
        self.file_left(doc! { "unfiled": true, "removed": true }).await?;
        let running = doc! { "running": { "$gt": 0 }, "removed": { "$ne": true } };
        let mut found = self.find(attempted, running, doc! { "_id": 1 }, 1_000_000).await?;
        let due = doc! { "wake": { "$lte": now.as_millis() }, "running": 0, "removed": { "$ne": true } };
        found.extend(self.find(attempted, due, doc! { "wake": 1 }, limit).await?);
        Ok(found)
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        let attempted = "looking for the next due time";
        let query = self
            .schedules
            .find_one(doc! { "wake": { "$exists": true }, "removed": { "$ne": true } })
            .sort(doc! { "wake": 1 })
            .projection(doc! { "wake": 1 });
        let first = in_time(attempted, query).await?;
        Ok(first.and_then(|first| first.get_i64("wake").ok()).map(Timestamp))
    }

    async fn swap(&self, record: &Record, expected: i64, ended: &[Ended]) -> Result<bool, StoreError> {
        let attempted = "changing a schedule";
        let mut set = fields_of(attempted, record)?;
        if !ended.is_empty() {
            set.insert("unfiled", true);
        }
        let operators = with_wake(doc! { "$set": set }, record);
        self.change(attempted, &record.id, expected, operators, ended).await
    }

    async fn remove(&self, id: &ScheduleId, expected: i64, ended: &[Ended]) -> Result<bool, StoreError> {
        let attempted = "removing a schedule";
        let operators = doc! {
            "$set": { "removed": true, "unfiled": true, "running": 0_i64 },
            "$unset": { "wake": "" },
        };
        if !self.change(attempted, id, expected, operators, ended).await? {
            return Ok(false);
        }
        if ended.is_empty()
            && let Err(error) = self.file_left(doc! { "_id": id.as_str(), "removed": true }).await
        {
            tracing::debug!(%error, schedule = %id, "a schedule is removed later");
        }
        Ok(true)
    }

    async fn history(
        &self,
        id: &ScheduleId,
        before: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<Ended>, StoreError> {
        let attempted = "reading what ended";
        self.file_left(doc! { "_id": id.as_str(), "unfiled": true }).await?;
        let before = before.map_or(i64::MAX, Timestamp::as_millis);
        let filter = doc! { "s": id.as_str(), "n": { "$lt": before } };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = async {
            self.firings
                .find(filter)
                .sort(doc! { "n": -1, "_id": -1 })
                .limit(limit)
                .await?
                .try_collect()
                .await
        };
        let found: Vec<Document> = in_time(attempted, query).await?;
        let ended = |found: &Document| {
            let text = found.get_str("record").map_err(|error| unreadable(attempted, error))?;
            serde_json::from_str(text).map_err(|error| unreadable(attempted, error))
        };
        found.iter().map(ended).collect()
    }

    async fn forget(&self, before: Timestamp) -> Result<u64, StoreError> {
        let old = doc! { "at": { "$lt": before.as_millis() } };
        let gone = in_time("forgetting what ended long ago", self.firings.delete_many(old)).await?;
        Ok(gone.deleted_count)
    }
}
