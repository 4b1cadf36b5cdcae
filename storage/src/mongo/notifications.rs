//! Endpoints, silences and the outbox in MongoDB.
//!
//! A delivery is one document, its `version` guards every change. Beside its fields it has `entries`, one text per event,
//! under a unique index: so an endpoint gets each event once, in whatever document, however many notifiers enqueue it.
//! What an ended delivery frees (`after` of others) is a second write, which [`Notifications::unblock`] makes up for.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use bson::{Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use futures_util::TryStreamExt;
use galerna_model::Timestamp;
use serde::Deserialize;

use super::Mongo;
use super::commands::{Guarded, STATEMENTS, Update, fault};
use super::documents::{date, from_document, int, to_document, uint};
use super::indexes::{ALERT_EVENTS, DELIVERIES, ENDPOINTS, SILENCES, TAKEN_EVENTS};
use crate::notifications::FORGOTTEN;
use crate::{
    Claim, Delivery, DeliveryFilter, DeliveryPage, DeliveryStatus, Endpoint, Enqueued, Notifications, Resent,
    Result, Silence, StorageError,
};
use galerna_model::AlertEvent;

/// How often a guarded change is tried when others keep changing the same.
const TRIES: usize = 50;

#[derive(Deserialize)]
struct Id {
    #[serde(rename = "_id")]
    id: String,
}

fn entry(endpoint: &str, event: &str) -> String {
    // As JSON, so that no pair can be made to look like another.
    serde_json::json!([endpoint, event]).to_string()
}

fn document(delivery: &Delivery) -> Result<Document> {
    let dates = ["next_try", "open_until", "held_until", "created", "since", "ended", "claimed_until"];
    let mut document = to_document(delivery.id.as_str(), delivery, &dates)?;
    let mut accounts: Vec<&str> = delivery.events.iter().map(|e| e.account.as_str()).collect();
    accounts.sort_unstable();
    accounts.dedup();
    let entries: Vec<String> = delivery.events.iter().map(|e| entry(&delivery.endpoint, &e.id)).collect();
    document.insert("entries", entries);
    document.insert("alerts", delivery.alert_keys());
    document.insert("accounts", accounts);
    document.insert("searched", delivery.searched());
    Ok(document)
}

fn contended(attempted: &str) -> StorageError {
    StorageError::Unavailable {
        attempted: attempted.to_owned(),
        cause: "others keep changing the same deliveries".to_owned(),
    }
}

/// What a claim may take at the time `now`.
fn due(now: Timestamp) -> Document {
    doc! {
        "status": "pending",
        "after": { "$size": 0 },
        "next_try": { "$lte": date(now) },
        "$or": [{ "claimed_until": null }, { "claimed_until": { "$lte": date(now) } }],
    }
}

fn matching(filter: &DeliveryFilter) -> Document {
    let mut found = Document::new();
    if let Some(endpoint) = &filter.endpoint {
        found.insert("endpoint", endpoint);
    }
    if let Some(account) = &filter.account {
        found.insert("accounts", account.as_str());
    }
    if let Some(text) = &filter.text {
        let at = doc! { "$indexOfBytes": ["$searched", { "$literal": text.to_lowercase() }] };
        found.insert("$expr", doc! { "$gte": [at, 0] });
    }
    found
}

impl Mongo {
    async fn find_deliveries(
        &self,
        attempted: &str,
        filter: Document,
        sort: Document,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let deliveries = self.collection::<Document>(DELIVERIES);
        let find = deliveries
            .find(filter)
            .sort(sort)
            .skip(offset as u64)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX));
        self.collect(attempted, find).await?.into_iter().map(from_document).collect()
    }

    async fn one<T: serde::de::DeserializeOwned>(
        &self,
        attempted: &str,
        collection: &str,
        filter: Document,
    ) -> Result<Option<T>> {
        let documents = self.collection::<Document>(collection);
        let found = self.in_time(attempted, documents.find_one(filter)).await?;
        found.map(from_document).transpose()
    }

    /// Writes a delivery over the one that has the version before. Says whether it did; a duplicate entry is a no.
    async fn replace(&self, attempted: &str, delivery: &Delivery) -> Result<bool> {
        let update = Update {
            q: doc! { "_id": delivery.id.as_str(), "version": int(delivery.version) - 1 },
            u: document(delivery)?,
            upsert: false,
        };
        let written = self.update(attempted, DELIVERIES, &[update]).await?;
        Ok(written.n == 1 && written.refused.is_empty())
    }

    /// Frees those that wait for any of these.
    async fn free(&self, attempted: &str, ended: &[String]) -> Result<usize> {
        let mut freed = 0;
        for ended in ended.chunks(STATEMENTS) {
            let pull = doc! {
                "q": { "after": { "$in": ended } },
                "u": { "$pullAll": { "after": ended }, "$inc": { "version": 1_i64 } },
                "multi": true,
            };
            freed += self.update(attempted, DELIVERIES, &[pull]).await?.n;
        }
        Ok(freed)
    }

    /// Those of these deliveries that are pending.
    async fn still_pending(&self, attempted: &str, ids: &[String]) -> Result<HashSet<String>> {
        let mut pending = HashSet::new();
        for ids in ids.chunks(STATEMENTS) {
            let deliveries = self.collection::<Id>(DELIVERIES);
            let find = deliveries
                .find(doc! { "_id": { "$in": ids }, "status": "pending" })
                .projection(doc! { "_id": 1 });
            pending.extend(self.collect(attempted, find).await?.into_iter().map(|found: Id| found.id));
        }
        Ok(pending)
    }

    async fn remove(&self, attempted: &str, collection: &str, id: &str) -> Result<bool> {
        let delete: RawDocumentBuf = rawdoc! {
            "delete": collection,
            "deletes": [{ "q": { "_id": id }, "limit": 1 }],
            "writeConcern": { "w": "majority", "j": true, "wtimeout": 5000 },
        };
        Ok(self.command(attempted, delete).await?.get_i32("n").unwrap_or(0) > 0)
    }

    /// Adds the events of `new` to an open delivery; `None` when there is none, `Some(None)` when somebody was faster.
    async fn join(&self, attempted: &str, new: &Delivery) -> Result<Option<Option<String>>> {
        let open = doc! {
            "endpoint": &new.endpoint,
            "status": "pending",
            "claimed_by": null,
            "open_until": { "$gt": date(new.created) },
        };
        let newest = doc! { "created": -1, "_id": -1 };
        let open = self.find_deliveries(attempted, open, newest, 0, 20).await?;
        let Some(mut open) = open.into_iter().find(|open| open.takes(new)) else { return Ok(None) };
        if new.events.iter().any(|event| open.events.iter().any(|known| known.id == event.id)) {
            // The unique index does not compare the entries of one document.
            return Ok(Some(None));
        }
        open.events.extend_from_slice(&new.events);
        open.version += 1;
        Ok(Some(self.replace(attempted, &open).await?.then_some(open.id)))
    }
}

#[async_trait]
impl Notifications for Mongo {
    async fn endpoints(&self) -> Result<Vec<Endpoint>> {
        self.list_all("listing endpoints", ENDPOINTS).await
    }

    async fn endpoint(&self, id: &str) -> Result<Option<Endpoint>> {
        self.one("reading an endpoint", ENDPOINTS, doc! { "_id": id }).await
    }

    async fn put_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        let one = [(endpoint.id.as_str(), endpoint)];
        self.put_all("storing an endpoint", ENDPOINTS, one.into_iter()).await
    }

    async fn delete_endpoint(&self, id: &str) -> Result<bool> {
        self.remove("deleting an endpoint", ENDPOINTS, id).await
    }

    async fn disable_endpoint(&self, seen: &Endpoint, reason: &str) -> Result<bool> {
        let Some(stored) = self.endpoint(&seen.id).await? else { return Ok(false) };
        if !stored.enabled || stored.kind != seen.kind {
            return Ok(false);
        }
        let update = Update {
            // All fields: what somebody edits meanwhile is left alone.
            q: to_document(stored.id.as_str(), &stored, &[])?,
            u: doc! { "$set": { "enabled": false, "disabled_reason": reason } },
            upsert: false,
        };
        Ok(self.update("disabling an endpoint", ENDPOINTS, &[update]).await?.n == 1)
    }

    async fn silences(&self) -> Result<Vec<Silence>> {
        self.list_all("listing silences", SILENCES).await
    }

    async fn put_silence(&self, silence: &Silence) -> Result<()> {
        let update = Update {
            q: rawdoc! { "_id": silence.id.as_str() },
            u: to_document(silence.id.as_str(), silence, &["until", "created"])?,
            upsert: true,
        };
        self.update("storing a silence", SILENCES, &[update]).await.map(|_| ())
    }

    async fn delete_silence(&self, id: &str) -> Result<bool> {
        self.remove("deleting a silence", SILENCES, id).await
    }

    async fn enqueue(&self, delivery: &Delivery) -> Result<Enqueued> {
        let attempted = "enqueuing a delivery";
        for _ in 0..TRIES {
            if let Some(first) = delivery.events.first() {
                let known = doc! { "entries": entry(&delivery.endpoint, &first.id) };
                let find = self.collection::<Id>(DELIVERIES);
                let find = find.find_one(known).projection(doc! { "_id": 1 });
                if let Some(known) = self.in_time(attempted, find).await? {
                    return Ok(Enqueued::Known(known.id));
                }
            }
            let mut new = delivery.clone();
            let pending = self.still_pending(attempted, &new.after).await?;
            new.after.retain(|id| pending.contains(id));
            if new.status == DeliveryStatus::Pending && new.open_until.is_some() {
                match self.join(attempted, &new).await? {
                    Some(Some(joined)) => return Ok(Enqueued::Joined(joined)),
                    Some(None) => continue,
                    None => {}
                }
            }
            if !self.insert(attempted, DELIVERIES, &[document(&new)?]).await?.refused.is_empty() {
                continue;
            }
            // One that ended after it was found pending and before the insert has freed nobody.
            let pending = self.still_pending(attempted, &new.after).await?;
            new.after.retain(|id| !pending.contains(id));
            self.free(attempted, &new.after).await?;
            return Ok(Enqueued::New);
        }
        Err(contended(attempted))
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Delivery>> {
        let attempted = "claiming deliveries";
        let mut filter = due(claim.now);
        if !claim.except.is_empty() {
            filter.insert("endpoint", doc! { "$nin": &claim.except });
        }
        // More than are wanted, since some may be of one endpoint.
        let sort = doc! { "next_try": 1, "_id": 1 };
        let due = self.find_deliveries(attempted, filter, sort, 0, claim.limit.saturating_mul(8)).await?;
        let mut of_endpoint: HashMap<String, usize> = HashMap::new();
        let mut wanted = Vec::new();
        for delivery in due {
            let taken = of_endpoint.entry(delivery.endpoint.clone()).or_default();
            if *taken < claim.per_endpoint && wanted.len() < claim.limit {
                *taken += 1;
                wanted.push(delivery);
            }
        }
        let until = claim.now.plus_millis(int(claim.lease_ms));
        let mut claimed = Vec::with_capacity(wanted.len());
        for chunk in wanted.chunks(STATEMENTS) {
            let updates: Vec<_> = chunk
                .iter()
                .map(|d| {
                    Guarded::new(
                        doc! { "_id": d.id.as_str(), "version": int(d.version) },
                        doc! { "$set": {
                            "claimed_by": &claim.notifier,
                            "claimed_until": date(until),
                            "version": int(d.version) + 1,
                        } },
                    )
                })
                .collect();
            let written = self.update(attempted, DELIVERIES, &updates).await?;
            for (_, delivery) in chunk.iter().enumerate().filter(|(i, _)| !written.refused.contains_key(i)) {
                claimed.push(Delivery {
                    claimed_by: Some(claim.notifier.clone()),
                    claimed_until: Some(until),
                    version: delivery.version + 1,
                    ..delivery.clone()
                });
            }
        }
        Ok(claimed)
    }

    async fn update(&self, delivery: &Delivery) -> Result<bool> {
        let attempted = "updating a delivery";
        let next = Delivery { version: delivery.version + 1, ..delivery.clone() };
        if !self.replace(attempted, &next).await? {
            return Ok(false);
        }
        if next.status != DeliveryStatus::Pending {
            self.free(attempted, &[next.id]).await?;
        }
        Ok(true)
    }

    async fn unblock(&self) -> Result<usize> {
        let attempted = "freeing deliveries that wait for others";
        let deliveries = self.collection::<Document>(DELIVERIES);
        let waited_for = deliveries.distinct("after", doc! { "after.0": { "$exists": true } });
        let waited_for = self.in_time(attempted, waited_for).await?;
        let waited_for: Vec<String> =
            waited_for.into_iter().filter_map(|id| id.as_str().map(str::to_owned)).collect();
        let pending = self.still_pending(attempted, &waited_for).await?;
        let ended: Vec<String> = waited_for.into_iter().filter(|id| !pending.contains(id)).collect();
        self.free(attempted, &ended).await
    }

    async fn deliveries(&self, filter: &DeliveryFilter, offset: usize, limit: usize) -> Result<DeliveryPage> {
        let attempted = "listing deliveries";
        let mut found = matching(filter);
        let pipeline = [
            doc! { "$match": found.clone() },
            doc! { "$group": { "_id": "$status", "n": { "$sum": 1_i64 } } },
        ];
        let counted = self.collection::<Document>(DELIVERIES);
        let counted: Vec<Document> =
            self.in_time(attempted, async { counted.aggregate(pipeline).await?.try_collect().await }).await?;
        let mut counts = DeliveryStatus::ALL.map(|status| (status, 0));
        for group in &counted {
            let unreadable = |e: bson::error::Error| fault(attempted, &e.into());
            let n = uint(group.get_i64("n").map_err(unreadable)?);
            let status = group.get_str("_id").map_err(unreadable)?;
            counts.iter_mut().filter(|(s, _)| s.as_str() == status).for_each(|(_, count)| *count = n);
        }
        if let Some(status) = filter.status {
            found.insert("status", status.as_str());
        }
        let newest = doc! { "created": -1, "_id": -1 };
        let deliveries = self.find_deliveries(attempted, found, newest, offset, limit).await?;
        Ok(DeliveryPage { counts, deliveries })
    }

    async fn delivery(&self, id: &str) -> Result<Option<Delivery>> {
        self.one("reading a delivery", DELIVERIES, doc! { "_id": id }).await
    }

    async fn resend(&self, id: &str, now: Timestamp) -> Result<Resent> {
        for _ in 0..TRIES {
            let Some(stored) = self.delivery(id).await? else { return Ok(Resent::Unknown) };
            if stored.is_claimed(now) {
                return Ok(Resent::InProgress);
            }
            let renewed = stored.renewed(now);
            if self.replace("sending a delivery again", &renewed).await? {
                return Ok(Resent::Yes(Box::new(renewed)));
            }
        }
        Err(contended("sending a delivery again"))
    }

    async fn forget(&self, before: Timestamp) -> Result<usize> {
        let attempted = "forgetting deliveries";
        let ended = ["delivered", "dead", "suppressed"];
        let deliveries = self.collection::<Id>(DELIVERIES);
        let find = deliveries
            .find(doc! { "status": { "$in": ended.to_vec() }, "created": { "$lt": date(before) } })
            .projection(doc! { "_id": 1 })
            .sort(doc! { "created": 1 })
            .limit(FORGOTTEN as i64);
        let old: Vec<String> =
            self.collect(attempted, find).await?.into_iter().map(|old: Id| old.id).collect();
        if old.is_empty() {
            return Ok(0);
        }
        let delete = rawdoc! {
            "delete": DELIVERIES,
            "deletes": [{
                // Not one that somebody sends again meanwhile.
                "q": { "_id": { "$in": RawArrayBuf::from_iter(old) }, "status": { "$ne": "pending" } },
                "limit": 0,
            }],
            "writeConcern": { "w": "majority", "j": true, "wtimeout": 5000 },
        };
        let deleted = self.command(attempted, delete).await?.get_i32("n").unwrap_or(0);
        Ok(usize::try_from(deleted).unwrap_or(0))
    }

    async fn deliveries_of_event(&self, event: &str) -> Result<Vec<Delivery>> {
        let newest = doc! { "created": -1, "_id": -1 };
        let attempted = "reading the deliveries of an event";
        self.find_deliveries(attempted, doc! { "events.id": event }, newest, 0, usize::MAX).await
    }

    async fn deliveries_of_alert(&self, endpoint: &str, key: &str, limit: usize) -> Result<Vec<Delivery>> {
        let newest = doc! { "created": -1, "_id": -1 };
        let attempted = "reading the deliveries of an alert";
        self.find_deliveries(attempted, doc! { "alerts": key, "endpoint": endpoint }, newest, 0, limit).await
    }

    async fn alert_ended_by(&self, recovery: &AlertEvent) -> Result<Option<AlertEvent>> {
        let attempted = "reading the alert of a recovery";
        let events = self.collection::<Document>(ALERT_EVENTS);
        let find = events
            .find_one(doc! {
                "rule": &recovery.rule,
                "source": recovery.source.as_str(),
                "device": &recovery.device,
                "kind": "raised",
                "ts": { "$lte": date(recovery.ts) },
            })
            .sort(doc! { "ts": -1 });
        self.in_time(attempted, find).await?.map(from_document).transpose()
    }

    async fn is_taken(&self, event: &str) -> Result<bool> {
        let taken = self.collection::<Document>(TAKEN_EVENTS);
        let find = taken.find_one(doc! { "_id": event });
        Ok(self.in_time("looking for an event", find).await?.is_some())
    }

    async fn mark_taken(&self, event: &str, at: Timestamp) -> Result<()> {
        let taken = doc! { "_id": event, "at": date(at) };
        self.insert("marking an event as taken", TAKEN_EVENTS, &[taken]).await.map(|_| ())
    }
}
