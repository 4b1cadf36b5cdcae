//! Limits.

use async_trait::async_trait;
use bson::{Document, doc};
use galerna_mongo::durable;
use mongodb::options::IndexOptions;
use mongodb::{Collection, Database, IndexModel};

use super::{connected, fault, in_time};
use crate::DelayError;
use crate::store::{LimitStore, Step};

/// Limits in the collection `rate_limits` of a database: one document for each name and key, with the time (`tat`) at which it would be
/// idle again, in microseconds.
///
/// Of a call under several limits each is moved on by an update of its own; when one refuses, those before it are moved back. In between
/// another call may be told to wait that need not have, and if the process is lost then, a call is counted that was not made. More than
/// the limits allow is never let through. The processes' clocks should be in step.
#[derive(Debug, Clone)]
pub struct MongoLimits {
    limits: Collection<Document>,
}

impl MongoLimits {
    /// Connects to the server of an address, and uses the database that it names, else `galerna`.
    ///
    /// # Errors
    /// When the address is wrong; otherwise as [`open`](Self::open).
    pub async fn connect(uri: &str) -> Result<Self, DelayError> {
        Self::open(&connected(uri).await?).await
    }

    /// Uses a database, and creates the index that is missing.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn open(database: &Database) -> Result<Self, DelayError> {
        let store = Self { limits: durable(database, "rate_limits") };
        let index = IndexModel::builder().keys(doc! { "tat": 1 }).options(IndexOptions::default()).build();
        in_time("preparing the store of rate limits", store.limits.create_index(index)).await?;
        Ok(store)
    }

    /// Moves one limit on, if it lets a call through now.
    async fn advance(&self, step: &Step, now: i64) -> Result<bool, DelayError> {
        let attempted = "asking for a permit";
        let latest = now.saturating_add(step.ahead).saturating_sub(step.interval);
        let mut guard = doc! { "_id": id_of(step) };
        guard.insert("tat", doc! { "$lte": latest });
        let moved = doc! { "$add": [{ "$max": [{ "$ifNull": ["$tat", now] }, now] }, step.interval] };
        let update = self.limits.update_one(guard, vec![doc! { "$set": { "tat": moved } }]).upsert(true);
        match galerna_mongo::in_time(update).await {
            Ok(_) => Ok(true),
            // It is there, and further ahead than it may be.
            Err(error) if error.is_duplicate() => Ok(false),
            Err(error) => Err(fault(attempted, &error)),
        }
    }

    /// How long until a limit lets a call through.
    async fn wait(&self, step: &Step, now: i64) -> Result<u64, DelayError> {
        let found = in_time("asking for a permit", self.limits.find_one(doc! { "_id": id_of(step) })).await?;
        let tat = found.and_then(|found| found.get_i64("tat").ok()).unwrap_or(now).max(now);
        let wait = tat.saturating_add(step.interval).saturating_sub(step.ahead).saturating_sub(now);
        Ok(u64::try_from(wait).unwrap_or(0))
    }
}

fn id_of(step: &Step) -> Document {
    doc! { "n": &step.name, "k": &step.key }
}

#[async_trait]
impl LimitStore for MongoLimits {
    async fn ask(&self, steps: &[Step], now: i64) -> Result<u64, DelayError> {
        let mut moved = Vec::with_capacity(steps.len());
        for step in steps {
            if self.advance(step, now).await? {
                moved.push(step);
                continue;
            }
            for step in moved {
                let back = doc! { "$inc": { "tat": -step.interval } };
                in_time("giving a permit back", self.limits.update_one(doc! { "_id": id_of(step) }, back))
                    .await?;
            }
            let mut wait = 0;
            for step in steps {
                wait = wait.max(self.wait(step, now).await?);
            }
            // Another call may just have given its own back.
            return Ok(wait.max(1));
        }
        Ok(0)
    }

    async fn forget_idle(&self, now: i64) -> Result<u64, DelayError> {
        let idle = doc! { "tat": { "$lte": now } };
        Ok(in_time("forgetting idle limits", self.limits.delete_many(idle)).await?.deleted_count)
    }
}
