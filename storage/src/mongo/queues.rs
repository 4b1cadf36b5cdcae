//! Queue states in MongoDB.
//!
//! A record is one document, `_id` the queue: the counts, and under `record` what swaps write. `version` guards it. A
//! removed queue leaves a small tombstone with its epoch and its version made negative (`-1 - version`), which no swap
//! matches; a namesake created later goes on from both. Every write stamps `modified` with the server's cluster time,
//! which is what [`super::changes`] goes by.

use std::collections::HashMap;

use async_trait::async_trait;
use bson::{Bson, DateTime, Document, doc, rawdoc};
use galerna_model::{AccountId, QueueName, Timestamp};
use serde::{Deserialize, Serialize};

use super::Mongo;
use super::commands::{BAD_VALUE, STATEMENTS, Update, WRITE_TIME, Written};
use super::documents::{date, int, time, uint};
use super::indexes::QUEUES;
use crate::queues::{COUNT_REFRESH_MS, check_swaps};
use crate::{
    Changes, Lease, QueueRecord, QueueState, QueueStates, ReadyCount, Result, StorageError, Swap, Swapped,
};

mod guard;

use guard::{SwapOperators, VersionGuard};

/// A record as it is stored.
#[derive(Serialize, Deserialize)]
pub(super) struct QueueDocument {
    #[serde(rename = "_id")]
    queue: QueueName,
    version: i64,
    /// See [`VersionGuard`].
    even: i64,
    odd: i64,
    record: RecordFields,
    ready: i64,
    unacked: i64,
    counted_at: Option<DateTime>,
    pub(super) modified: bson::Timestamp,
}

/// What a swap writes, as a whole.
#[derive(Serialize, Deserialize)]
struct RecordFields {
    account: AccountId,
    state: QueueState,
    epoch: i64,
    lease: Option<LeaseFields>,
    last_delivered: Option<DateTime>,
    crashes: i64,
    not_before: Option<DateTime>,
    reason: Option<String>,
    /// Not in records that earlier versions wrote: those have it in their reason.
    #[serde(default)]
    deletion_claimed: Option<bool>,
    since: DateTime,
}

#[derive(Serialize, Deserialize)]
struct LeaseFields {
    consumer: String,
    granted_at: DateTime,
    expires_at: DateTime,
    lease_ms: i64,
    renewal: i64,
    /// Left out of records that earlier versions wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<String>,
}

impl From<&QueueRecord> for RecordFields {
    fn from(record: &QueueRecord) -> Self {
        Self {
            account: record.account.clone(),
            state: record.state,
            epoch: int(record.epoch),
            lease: record.lease.as_ref().map(|l| LeaseFields {
                consumer: l.consumer.clone(),
                granted_at: date(l.granted_at),
                expires_at: date(l.expires_at),
                lease_ms: int(l.lease_ms),
                renewal: int(l.renewal),
                request: l.request.clone(),
            }),
            last_delivered: record.last_delivered.map(date),
            crashes: record.crashes.into(),
            not_before: record.not_before.map(date),
            reason: record.reason.clone(),
            deletion_claimed: Some(record.deletion_claimed),
            since: date(record.since),
        }
    }
}

impl From<&QueueRecord> for QueueDocument {
    fn from(record: &QueueRecord) -> Self {
        let guard = VersionGuard::of(int(record.version));
        Self {
            queue: record.queue.clone(),
            version: int(record.version),
            even: guard.even,
            odd: guard.odd,
            record: record.into(),
            ready: int(record.ready),
            unacked: int(record.unacked),
            counted_at: record.counted_at.map(date),
            // The server puts its cluster time in place of an empty one.
            modified: bson::Timestamp { time: 0, increment: 0 },
        }
    }
}

impl From<QueueDocument> for QueueRecord {
    fn from(document: QueueDocument) -> Self {
        let record = document.record;
        let (deletion_claimed, reason) = match record.deletion_claimed {
            Some(claimed) => (claimed, record.reason),
            None => claim_of_earlier_versions(record.state, record.reason),
        };
        Self {
            queue: document.queue,
            account: record.account,
            version: uint(document.version),
            state: record.state,
            epoch: uint(record.epoch),
            lease: record.lease.map(|l| Lease {
                consumer: l.consumer,
                granted_at: time(l.granted_at),
                expires_at: time(l.expires_at),
                lease_ms: uint(l.lease_ms),
                renewal: uint(l.renewal),
                request: l.request,
            }),
            last_delivered: record.last_delivered.map(time),
            crashes: u32::try_from(record.crashes).unwrap_or(0),
            not_before: record.not_before.map(time),
            reason,
            deletion_claimed,
            since: time(record.since),
            ready: uint(document.ready),
            unacked: uint(document.unacked),
            counted_at: document.counted_at.map(time),
        }
    }
}

/// Whether a deletion is claimed, and why, in a record of a version that wrote a claim as the beginning of the reason.
fn claim_of_earlier_versions(state: QueueState, reason: Option<String>) -> (bool, Option<String>) {
    match reason.as_deref().and_then(|reason| reason.strip_prefix("deleting: ")) {
        Some(rest) if state == QueueState::Deleting => (true, Some(rest.to_owned())),
        _ => (false, reason),
    }
}

/// As much of a document as a tombstone has too.
#[derive(Deserialize)]
struct Versioned {
    #[serde(rename = "_id")]
    queue: String,
    version: i64,
    /// Documents without the guard are not taken for any.
    #[serde(rename = "even")]
    _even: i64,
}

#[derive(Serialize)]
struct ById<'a> {
    #[serde(rename = "_id")]
    queue: &'a str,
}

fn stamp() -> Document {
    doc! { "modified": { "$type": "timestamp" } }
}

/// Matches the records that are not tombstones.
pub(super) fn live() -> Document {
    doc! { "removed": null }
}

impl Mongo {
    /// Records by queue, as a majority has them; tombstones and unknown ones are not among them.
    ///
    /// A lease is decided by what is read here. From a record that may yet be rolled back, a later version could be
    /// computed whose epoch somebody else was given as well.
    pub(super) async fn records(&self, attempted: &str, queues: &[&str]) -> Result<Vec<QueueDocument>> {
        let mut found = Vec::with_capacity(queues.len());
        for queues in queues.chunks(5 * STATEMENTS) {
            let mut filter = live();
            filter.insert("_id", doc! { "$in": queues });
            let states = self.collection::<QueueDocument>(QUEUES);
            let find = states.find(filter).read_concern(self.settled()).batch_size(10_000);
            found.extend(self.collect(attempted, find).await?);
        }
        Ok(found)
    }

    /// The versions of what matches, tombstones included.
    async fn versions(&self, attempted: &str, filter: Document) -> Result<HashMap<String, i64>> {
        let states = self.collection::<Versioned>(QUEUES);
        let find = states.find(filter).projection(doc! { "_id": 1, "version": 1, "even": 1 });
        Ok(self
            .collect(attempted, find)
            .await?
            .into_iter()
            .map(|found| (found.queue, found.version))
            .collect())
    }

    /// The swaps, by index, of queues that were never created.
    async fn absent(&self, attempted: &str, swaps: &[Swap]) -> Result<Vec<usize>> {
        let queues: Vec<&str> = swaps.iter().map(|s| s.record.queue.as_str()).collect();
        let there = self.versions(attempted, doc! { "_id": { "$in": queues } }).await?;
        let absent =
            |(i, swap): (usize, &Swap)| (!there.contains_key(swap.record.queue.as_str())).then_some(i);
        Ok(swaps.iter().enumerate().filter_map(absent).collect())
    }

    /// Makes a record of the tombstone of this version, if it is still there.
    async fn revive(&self, record: &QueueRecord, tombstone: i64) -> Result<bool> {
        // From `-1 - version` to one above the version that was removed.
        let document = QueueDocument::from(&QueueRecord { version: uint(-tombstone), ..record.clone() });
        let mut fields = bson::serialize_to_document(&document).map_err(|e| StorageError::Failed {
            attempted: "creating queue states".to_owned(),
            cause: e.to_string(),
        })?;
        for own in ["_id", "modified"] {
            fields.remove(own);
        }
        // One by one, since the epoch is what the tombstone has, if that is higher.
        if let Some(Bson::Document(written)) = fields.remove("record") {
            let written = written.into_iter().filter(|(field, _)| field != "epoch");
            fields.extend(written.map(|(field, value)| (format!("record.{field}"), value)));
        }
        let update = Update {
            q: doc! { "_id": record.queue.as_str(), "removed": true, "version": tombstone },
            u: doc! {
                "$set": fields,
                "$unset": { "removed": "" },
                "$max": { "record.epoch": int(record.epoch) },
                "$currentDate": stamp(),
            },
            upsert: false,
        };
        let Written { n, .. } = self.update("creating queue states", QUEUES, &[update]).await?;
        Ok(n == 1)
    }

    /// The counts that differ from those stored, or are to be refreshed.
    async fn changed<'a>(&self, counts: &'a [ReadyCount], at: Timestamp) -> Result<Vec<&'a ReadyCount>> {
        #[derive(Deserialize)]
        struct Stored {
            #[serde(rename = "_id")]
            queue: String,
            ready: i64,
            unacked: i64,
            counted_at: Option<DateTime>,
        }
        let queues: Vec<&str> = counts.iter().map(|c| c.queue.as_str()).collect();
        let mut filter = live();
        filter.insert("_id", doc! { "$in": queues });
        let states = self.collection::<Stored>(QUEUES);
        let find = states
            .find(filter)
            .projection(doc! { "ready": 1, "unacked": 1, "counted_at": 1 })
            .batch_size(10_000);
        let stored: HashMap<String, Stored> = self
            .collect("storing message counts", find)
            .await?
            .into_iter()
            .map(|s| (s.queue.clone(), s))
            .collect();
        let differs = |count: &&ReadyCount| {
            stored.get(count.queue.as_str()).is_some_and(|stored| match stored.counted_at.map(time) {
                None => true,
                Some(counted) => {
                    counted <= at
                        && ((stored.ready, stored.unacked) != (int(count.ready), int(count.unacked))
                            || at.millis_since(counted) > COUNT_REFRESH_MS)
                }
            })
        };
        Ok(counts.iter().filter(differs).collect())
    }
}

#[async_trait]
impl QueueStates for Mongo {
    async fn all(&self) -> Result<Vec<QueueRecord>> {
        let states = self.collection::<QueueDocument>(QUEUES);
        let find = states.find(live()).read_concern(self.settled()).batch_size(10_000);
        let all = self.collect("reading all queue states", find).await?;
        Ok(all.into_iter().map(QueueRecord::from).collect())
    }

    async fn get(&self, queue: &QueueName) -> Result<Option<QueueRecord>> {
        let mut filter = live();
        filter.insert("_id", queue.as_str());
        let states = self.collection::<QueueDocument>(QUEUES);
        let find = states.find_one(filter).read_concern(self.linearizable()).max_time(WRITE_TIME);
        Ok(self.in_time("reading a queue state", find).await?.map(QueueRecord::from))
    }

    async fn changes(&self, cursor: u64) -> Result<Changes> {
        self.changed_since(cursor).await
    }

    async fn create(&self, records: &[QueueRecord]) -> Result<Vec<QueueName>> {
        let mut created = Vec::new();
        for records in records.chunks(STATEMENTS) {
            let documents: Vec<QueueDocument> = records.iter().map(QueueDocument::from).collect();
            let written = self.insert("creating queue states", QUEUES, &documents).await?;
            let known: Vec<&str> = written.refused.keys().map(|i| records[*i].queue.as_str()).collect();
            let tombstones: HashMap<String, i64> = if known.is_empty() {
                HashMap::new()
            } else {
                let removed = doc! { "_id": { "$in": known }, "removed": true };
                self.versions("creating queue states", removed).await?
            };
            for (i, record) in records.iter().enumerate() {
                let new = if written.refused.contains_key(&i) {
                    match tombstones.get(record.queue.as_str()) {
                        Some(&tombstone) => self.revive(record, tombstone).await?,
                        None => false,
                    }
                } else {
                    true
                };
                if new {
                    created.push(record.queue.clone());
                }
            }
        }
        Ok(created)
    }

    async fn swap(&self, swaps: &[Swap]) -> Result<Vec<Swapped>> {
        check_swaps(swaps)?;
        let mut answers = Vec::with_capacity(swaps.len());
        for swaps in swaps.chunks(STATEMENTS) {
            let updates: Vec<_> = swaps
                .iter()
                .map(|swap| Update {
                    q: ById { queue: swap.record.queue.as_str() },
                    u: SwapOperators::from(swap),
                    upsert: false,
                })
                .collect();
            let attempted = "swapping queue states";
            let Written { n, mut refused } =
                self.update_unless(attempted, QUEUES, &updates, &[BAD_VALUE]).await?;
            if n + refused.len() < swaps.len() {
                // Documents are never deleted: what is not there now was not there then.
                let absent = self.absent(attempted, swaps).await?;
                if n + refused.len() + absent.len() != swaps.len() {
                    return Err(StorageError::Unavailable {
                        attempted: attempted.to_owned(),
                        cause: "queues that were not there were created meanwhile".to_owned(),
                    });
                }
                refused.extend(absent.into_iter().map(|i| (i, BAD_VALUE)));
            }
            // What the losers go on from. The winners are settled by now: an update that changed nothing waits, as its
            // write concern says, until a majority has all that its primary had written before.
            let lost: Vec<&str> = refused.keys().map(|i| swaps[*i].record.queue.as_str()).collect();
            let mut stored: HashMap<QueueName, QueueRecord> = if lost.is_empty() {
                HashMap::new()
            } else {
                let records = self.records("reading the winners of lost swaps", &lost).await?;
                records.into_iter().map(|d| (d.queue.clone(), d.into())).collect()
            };
            answers.extend(swaps.iter().enumerate().map(|(i, swap)| {
                if refused.contains_key(&i) {
                    Swapped::Conflict(stored.remove(&swap.record.queue))
                } else {
                    Swapped::Done
                }
            }));
        }
        Ok(answers)
    }

    async fn remove(&self, queue: &QueueName, version: u64) -> Result<bool> {
        let version = int(version);
        let update = Update {
            q: rawdoc! { "_id": queue.as_str(), "version": version },
            u: doc! {
                "$set": {
                    "removed": true, "version": -1 - version,
                    "even": VersionGuard::CLOSED.even, "odd": VersionGuard::CLOSED.odd,
                },
                "$unset": {
                    "record.account": "", "record.state": "", "record.lease": "", "record.last_delivered": "",
                    "record.crashes": "", "record.not_before": "", "record.reason": "",
                    "record.deletion_claimed": "", "record.since": "",
                    "ready": "", "unacked": "", "counted_at": "",
                },
                "$currentDate": stamp(),
            },
            upsert: false,
        };
        let Written { n, .. } = self.update("removing a queue state", QUEUES, &[update]).await?;
        Ok(n == 1)
    }

    async fn set_ready(&self, counts: &[ReadyCount], at: Timestamp) -> Result<()> {
        for counts in counts.chunks(STATEMENTS) {
            // Looking first costs a fraction of an update that changes nothing, and most counts change nothing.
            let changed = self.changed(counts, at).await?;
            if changed.is_empty() {
                continue;
            }
            let updates: Vec<_> = changed
                .into_iter()
                .map(|count| Update {
                    q: doc! {
                        "_id": count.queue.as_str(),
                        "removed": null,
                        "counted_at": { "$not": { "$gt": date(at) } },
                    },
                    u: doc! {
                        "$set": {
                            "ready": int(count.ready), "unacked": int(count.unacked), "counted_at": date(at),
                        },
                        "$currentDate": stamp(),
                    },
                    upsert: false,
                })
                .collect();
            self.update("storing message counts", QUEUES, &updates).await?;
        }
        Ok(())
    }
}
