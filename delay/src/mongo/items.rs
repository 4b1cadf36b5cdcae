//! Items.
//!
//! Which item of a key may be claimed is said by the key's own document (`delayed_keys`): its `head`. It moves on only when the head is
//! done or gone, by a guarded update, so a key never has two. An item of a key is put with the mark `fresh`, and is marked `done` before it
//! is deleted; both marks stay until the head was looked at, and whoever finds one left behind looks again.

use async_trait::async_trait;
use bson::{Document, doc};
use futures_util::{StreamExt, TryStreamExt, stream};
use galerna_model::Timestamp;
use galerna_mongo::durable;
use mongodb::options::{IndexOptions, ReturnDocument};
use mongodb::{Collection, Database, IndexModel};

use super::{connected, fault, in_time, integer, unreadable, with};
use crate::store::{Attempt, AttemptEnd, ItemStore, Round, StoredClaim};
use crate::{DelayError, Item, Parked, Taken};

/// Items in one write.
const CHUNK: usize = 5_000;
/// Calls at once.
const AT_ONCE: usize = 16;
/// What was left behind, looked at in one round.
const LEFT: i64 = 1_000;
/// How often the head of a key is looked at while others change it.
const TRIES: usize = 50;

/// Items in the collections `delayed_items`, `delayed_keys` and `delayed_counters` of a database.
#[derive(Debug, Clone)]
pub struct MongoItems {
    items: Collection<Document>,
    keys: Collection<Document>,
    counters: Collection<Document>,
}

impl MongoItems {
    /// Connects to the server of an address, and uses the database that it names, else `galerna`.
    ///
    /// # Errors
    /// When the address is wrong; otherwise as [`open`](Self::open).
    pub async fn connect(uri: &str) -> Result<Self, DelayError> {
        Self::open(&connected(uri).await?).await
    }

    /// Uses a database, and creates the indexes that are missing.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn open(database: &Database) -> Result<Self, DelayError> {
        let store = Self {
            items: durable(database, "delayed_items"),
            keys: durable(database, "delayed_keys"),
            counters: durable(database, "delayed_counters"),
        };
        let partial = |keys: Document, filter: Document| {
            let options = IndexOptions::builder().partial_filter_expression(filter).build();
            IndexModel::builder().keys(keys).options(options).build()
        };
        let indexes = [
            partial(doc! { "first": 1, "due": 1, "seq": 1 }, with("due")),
            partial(doc! { "key": 1, "seq": 1 }, with("key")),
            partial(doc! { "holder": 1 }, with("holder")),
            partial(doc! { "parked": 1 }, with("parked")),
            partial(doc! { "fresh": 1 }, with("fresh")),
            partial(doc! { "done": 1 }, with("done")),
        ];
        in_time("preparing the store of delayed work", store.items.create_indexes(indexes)).await?;
        Ok(store)
    }

    /// So many numbers in a row that nobody else has; the first.
    async fn numbers(&self, attempted: &'static str, many: usize) -> Result<i64, DelayError> {
        let many = i64::try_from(many).unwrap_or(i64::MAX);
        let counted = self
            .counters
            .find_one_and_update(doc! { "_id": "seq" }, doc! { "$inc": { "n": many } })
            .upsert(true)
            .return_document(ReturnDocument::After);
        let counted = in_time(attempted, counted).await?.unwrap_or_default();
        let last = counted.get_i64("n").map_err(|error| unreadable(attempted, error))?;
        Ok(last - many + 1)
    }

    /// Lets the first item of a key that is not done be its head, if it has none.
    async fn look_at_head(&self, attempted: &'static str, key: &str) -> Result<(), DelayError> {
        for _ in 0..TRIES {
            let known = in_time(attempted, self.keys.find_one(doc! { "_id": key })).await?;
            let head = known.as_ref().and_then(|known| known.get_i64("head").ok());
            let open = |filter: Document| {
                let mut filter = filter;
                filter.insert("key", key);
                filter.insert("done", doc! { "$exists": false });
                filter
            };
            if let Some(head) = head {
                let shown = doc! { "$set": { "first": true } };
                let stands = self.items.update_one(open(doc! { "seq": head }), shown);
                if in_time(attempted, stands).await?.matched_count == 1 {
                    return Ok(());
                }
            }
            let next =
                self.items.find_one(open(doc! {})).sort(doc! { "seq": 1 }).projection(doc! { "seq": 1 });
            let next = in_time(attempted, next).await?.and_then(|next| next.get_i64("seq").ok());
            match (head, next) {
                (None, None) => return Ok(()),
                (Some(head), None) => {
                    in_time(attempted, self.keys.delete_one(doc! { "_id": key, "head": head })).await?;
                    return Ok(());
                }
                (Some(head), Some(next)) => {
                    let moved = doc! { "$set": { "head": next } };
                    in_time(attempted, self.keys.update_one(doc! { "_id": key, "head": head }, moved))
                        .await?;
                }
                (None, Some(next)) => {
                    match galerna_mongo::in_time(self.keys.insert_one(doc! { "_id": key, "head": next }))
                        .await
                    {
                        Err(error) if !error.is_duplicate() => {
                            return Err(fault(attempted, &error));
                        }
                        _ => {}
                    }
                }
            }
        }
        Err(DelayError::Unavailable { attempted, cause: "others change the key again and again".to_owned() })
    }

    /// Deletes an item that is marked as done, once its key has another head.
    async fn drop_done(
        &self,
        attempted: &'static str,
        id: &str,
        key: Option<&str>,
    ) -> Result<(), DelayError> {
        if let Some(key) = key {
            self.look_at_head(attempted, key).await?;
        }
        in_time(attempted, self.items.delete_one(doc! { "_id": id, "done": true })).await?;
        Ok(())
    }

    /// Marks as done and drops what a filter finds. Whether it found one.
    async fn remove(&self, attempted: &'static str, filter: Document) -> Result<bool, DelayError> {
        let marked = doc! { "$set": { "done": true }, "$unset": { "holder": "", "due": "", "parked": "" } };
        let marked = self.items.find_one_and_update(filter, marked).projection(doc! { "key": 1 });
        let Some(found) = in_time(attempted, marked).await? else { return Ok(false) };
        let id = found.get_str("_id").map_err(|error| unreadable(attempted, error))?;
        if let Err(error) = self.drop_done(attempted, id, found.get_str("key").ok()).await {
            // It is done; whoever claims next drops it.
            tracing::debug!(%error, id, "an item that is done is dropped later");
        }
        Ok(true)
    }

    /// Brings to its end what processes that were lost have left.
    async fn finish_left(&self, attempted: &'static str) -> Result<(), DelayError> {
        let found = |mark: &'static str| async move {
            let query = async {
                let marked = self.items.find(doc! { mark: true }).limit(LEFT).projection(doc! { "key": 1 });
                marked.await?.try_collect::<Vec<Document>>().await
            };
            in_time(attempted, query).await
        };
        for done in found("done").await? {
            let id = done.get_str("_id").map_err(|error| unreadable(attempted, error))?;
            self.drop_done(attempted, id, done.get_str("key").ok()).await?;
        }
        let fresh = found("fresh").await?;
        let mut keys: Vec<&str> = fresh.iter().filter_map(|item| item.get_str("key").ok()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            self.look_at_head(attempted, key).await?;
        }
        let ids: Vec<&str> = fresh.iter().filter_map(|item| item.get_str("_id").ok()).collect();
        if !ids.is_empty() {
            let seen = doc! { "$unset": { "fresh": "" } };
            in_time(attempted, self.items.update_many(doc! { "_id": { "$in": ids } }, seen)).await?;
        }
        Ok(())
    }
}

/// The claim of a process on an item.
fn claim_of(id: &str, epoch: u64, holder: &str) -> Document {
    doc! { "_id": id, "epoch": integer(epoch), "holder": holder }
}

fn number(found: &Document, field: &str) -> u64 {
    found.get_i64(field).map_or(0, i64::unsigned_abs)
}

fn count(found: &Document, field: &str) -> u32 {
    u32::try_from(number(found, field)).unwrap_or(u32::MAX)
}

#[async_trait]
impl ItemStore for MongoItems {
    async fn put(&self, items: &[Item]) -> Result<usize, DelayError> {
        let attempted = "keeping delayed work";
        let mut new = 0;
        for chunk in items.chunks(CHUNK) {
            let first = self.numbers(attempted, chunk.len()).await?;
            let documents = chunk.iter().zip(first..).map(|(item, seq)| {
                let mut document = doc! {
                    "_id": &item.id, "seq": seq, "first": item.key.is_none(), "due": item.due.as_millis(), "attempts": 0_i64,
                    "epoch": 0_i64, "renewal": 0_i64, "lease": 0_i64, "payload": item.payload.to_string(),
                };
                if let Some(key) = &item.key {
                    document.insert("key", key);
                    document.insert("fresh", true);
                }
                document
            });
            let documents: Vec<Document> = documents.collect();
            new += match galerna_mongo::in_time(self.items.insert_many(documents).ordered(false)).await {
                Ok(_) => chunk.len(),
                Err(error) => match error.duplicates() {
                    Some(known) => chunk.len() - known,
                    None => return Err(fault(attempted, &error)),
                },
            };
            let mut keys: Vec<&str> = chunk.iter().filter_map(|item| item.key.as_deref()).collect();
            keys.sort_unstable();
            keys.dedup();
            let looked: Vec<_> = keys.iter().map(|key| self.look_at_head(attempted, key)).collect();
            stream::iter(looked).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            if !keys.is_empty() {
                let last = first + i64::try_from(chunk.len()).unwrap_or(i64::MAX) - 1;
                let ours =
                    doc! { "key": { "$in": keys }, "seq": { "$gte": first, "$lte": last }, "fresh": true };
                in_time(attempted, self.items.update_many(ours, doc! { "$unset": { "fresh": "" } })).await?;
            }
        }
        Ok(new)
    }

    async fn claimed(&self) -> Result<Vec<StoredClaim>, DelayError> {
        let attempted = "looking at claims";
        let shown = doc! { "epoch": 1, "renewal": 1, "lease": 1, "holder": 1 };
        let query = async { self.items.find(with("holder")).projection(shown).await?.try_collect().await };
        let found: Vec<Document> = in_time(attempted, query).await?;
        let claim = |found: &Document| {
            Ok(StoredClaim {
                id: found.get_str("_id").map_err(|error| unreadable(attempted, error))?.to_owned(),
                epoch: number(found, "epoch"),
                renewal: number(found, "renewal"),
                lease_ms: number(found, "lease"),
                holder: found.get_str("holder").map_err(|error| unreadable(attempted, error))?.to_owned(),
            })
        };
        found.iter().map(claim).collect()
    }

    async fn claim(&self, round: &Round) -> Result<Vec<Taken>, DelayError> {
        let attempted = "claiming delayed work";
        self.finish_left(attempted).await?;
        let now = round.now.as_millis();
        let mut changes: Vec<(Document, Document)> = Vec::new();
        for (id, epoch) in &round.renew {
            changes.push((claim_of(id, *epoch, &round.holder), doc! { "$inc": { "renewal": 1_i64 } }));
        }
        for (id, epoch) in &round.give_back {
            let back =
                doc! { "$set": { "due": now }, "$inc": { "attempts": -1_i64 }, "$unset": { "holder": "" } };
            changes.push((claim_of(id, *epoch, &round.holder), back));
        }
        for claim in &round.take_over {
            let lost = |more: Document| {
                let mut guard = claim_of(&claim.id, claim.epoch, &claim.holder);
                guard.insert("renewal", integer(claim.renewal));
                guard.extend(more);
                guard
            };
            let most = i64::from(round.attempts);
            let again = doc! { "$set": { "due": now }, "$unset": { "holder": "" } };
            changes.push((lost(doc! { "attempts": { "$lt": most } }), again));
            let parked = doc! {
                "$set": { "parked": "the process of the last attempt was lost" }, "$unset": { "holder": "", "due": "" },
            };
            changes.push((lost(doc! { "attempts": { "$gte": most } }), parked));
        }
        let changed = stream::iter(changes).map(|(guard, change)| async move {
            in_time(attempted, self.items.update_one(guard, change)).await.map(drop)
        });
        changed.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        if round.room == 0 {
            return Ok(Vec::new());
        }
        let due = doc! { "first": true, "due": { "$lte": now } };
        let limit = i64::try_from(round.room).unwrap_or(i64::MAX);
        let query = async {
            let found = self.items.find(due).sort(doc! { "due": 1, "seq": 1 }).limit(limit);
            found.projection(doc! { "epoch": 1, "due": 1 }).await?.try_collect().await
        };
        let found: Vec<Document> = in_time(attempted, query).await?;
        let claims = stream::iter(found).map(|found| self.claim_one(attempted, round, found));
        let answers: Vec<Result<Option<Taken>, DelayError>> = claims.buffered(AT_ONCE).collect().await;
        let mut taken = Vec::with_capacity(answers.len());
        let mut failed = None;
        for answer in answers {
            match answer {
                Ok(claimed) => taken.extend(claimed),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            // What was claimed is run; the rest is in the next round.
            Some(error) if taken.is_empty() => Err(error),
            _ => Ok(taken),
        }
    }

    async fn settle(&self, holder: &str, attempts: &[Attempt]) -> Result<Vec<bool>, DelayError> {
        let ends: Vec<_> = attempts.iter().map(|attempt| self.end_one(holder, attempt)).collect();
        stream::iter(ends).buffered(AT_ONCE).try_collect().await
    }

    async fn parked(&self, limit: usize) -> Result<Vec<Parked>, DelayError> {
        let attempted = "listing what is parked";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = async {
            self.items.find(with("parked")).sort(doc! { "seq": 1 }).limit(limit).await?.try_collect().await
        };
        let found: Vec<Document> = in_time(attempted, query).await?;
        let mut parked = Vec::with_capacity(found.len());
        for found in found {
            let text = |field: &str| found.get_str(field).map(str::to_owned);
            let key = text("key").ok();
            let waiting = match &key {
                None => 0,
                Some(key) => {
                    let behind = doc! { "key": key, "seq": { "$gt": integer(number(&found, "seq")) } };
                    in_time(attempted, self.items.count_documents(behind)).await?
                }
            };
            parked.push(Parked {
                id: text("_id").map_err(|error| unreadable(attempted, error))?,
                key,
                attempts: count(&found, "attempts"),
                reason: text("parked").map_err(|error| unreadable(attempted, error))?,
                waiting,
            });
        }
        Ok(parked)
    }

    async fn resume(&self, id: &str, due: Timestamp) -> Result<bool, DelayError> {
        let mut guard = with("parked");
        guard.insert("_id", id);
        let change =
            doc! { "$set": { "due": due.as_millis(), "attempts": 0_i64 }, "$unset": { "parked": "" } };
        let resumed = in_time("resuming what is parked", self.items.update_one(guard, change)).await?;
        Ok(resumed.matched_count == 1)
    }

    async fn discard(&self, id: &str) -> Result<bool, DelayError> {
        let mut guard = with("parked");
        guard.insert("_id", id);
        self.remove("discarding what is parked", guard).await
    }

    async fn count(&self) -> Result<u64, DelayError> {
        let open = doc! { "done": { "$exists": false } };
        in_time("counting delayed work", self.items.count_documents(open)).await
    }
}

impl MongoItems {
    /// Ends an attempt. False when its claim is not there any more.
    async fn end_one(&self, holder: &str, attempt: &Attempt) -> Result<bool, DelayError> {
        let attempted = "settling delayed work";
        let guard = claim_of(&attempt.id, attempt.epoch, holder);
        let change = match &attempt.end {
            AttemptEnd::Done => return self.remove(attempted, guard).await,
            AttemptEnd::Again { due, fault, counts } => doc! {
                "$set": { "due": due.as_millis(), "fault": fault }, "$inc": { "attempts": if *counts { 0_i64 } else { -1 } },
                "$unset": { "holder": "" },
            },
            AttemptEnd::Parked { reason } => doc! {
                "$set": { "parked": reason, "fault": reason }, "$unset": { "holder": "", "due": "" },
            },
        };
        Ok(in_time(attempted, self.items.update_one(guard, change)).await?.matched_count == 1)
    }

    /// Claims one of those that were found, unless somebody else was quicker.
    async fn claim_one(
        &self,
        attempted: &'static str,
        round: &Round,
        found: Document,
    ) -> Result<Option<Taken>, DelayError> {
        let id = found.get_str("_id").map_err(|error| unreadable(attempted, error))?;
        let due = found.get_i64("due").map_err(|error| unreadable(attempted, error))?;
        let guard = doc! { "_id": id, "epoch": integer(number(&found, "epoch")), "first": true, "due": due };
        let claim = doc! {
            "$set": { "holder": &round.holder, "renewal": 0_i64, "lease": integer(round.lease_ms) },
            "$inc": { "epoch": 1_i64, "attempts": 1_i64 }, "$unset": { "due": "" },
        };
        let claimed = self.items.find_one_and_update(guard, claim).return_document(ReturnDocument::After);
        let Some(claimed) = in_time(attempted, claimed).await? else { return Ok(None) };
        let payload = claimed.get_str("payload").map_err(|error| unreadable(attempted, error))?;
        let payload = serde_json::from_str(payload).map_err(|error| unreadable(attempted, error))?;
        let key = claimed.get_str("key").ok().map(str::to_owned);
        let item = Item { id: id.to_owned(), key, due: Timestamp(due), payload };
        Ok(Some(Taken { item, attempt: count(&claimed, "attempts"), epoch: number(&claimed, "epoch") }))
    }
}
