//! Readings in MongoDB.
//!
//! A reading is one document under the id that [`super::reading_id`] makes of its identity. A batch is inserted whole; what
//! is refused as a duplicate is looked up, and replaced if its `sqn` is lower. Since a refused insert costs the server
//! fifteen times a look-up (45,000 against 750,000/s on the machine of `benches/README.md`, 2026-11-21), batches are looked
//! up first for as long as many of their readings are found stored already; a batch of duplicates then writes nothing.
//!
//! There is no index but that of the ids. One on account and time would make the newest of an account one seek, but costs
//! the server 1.5 us a reading where all of storing it costs 4. So the readings of an account are found by its devices,
//! which [`super::registry`] notes: the newest of an account are one look-up for each device that it ever had (60 us: 0.3 s
//! for 5,000 devices), its count one for each source and a walk along its ids (0.4 us a reading). A device that changed its account
//! is read in both, and each reading says whose it is: for the old one, past all that came since. The newest of all are one
//! look-up for each device there is: a query for administrators of small installations.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bson::{DateTime, Document, RawDocumentBuf, doc};
use galerna_model::{AccountId, Measurement, ParameterCode, SourceId};
use serde::{Deserialize, Serialize};

use super::Mongo;
use super::commands::{Guarded, STATEMENTS};
use super::documents::{date, int, time, uint};
use super::indexes::{DEVICES, READINGS};
use super::reading_id::{end, of_reading, of_time};
use crate::{ReadingKey, ReadingOutcome, Readings, ReadingsQuery, Result, StorageError, StoredReading};

/// The largest document that MongoDB takes.
const DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// Documents of one command, together: a command is itself limited as a document is.
const COMMAND_BYTES: usize = 8 * 1024 * 1024;
/// Look first when more than one in so many readings of a batch was stored already.
const MANY_DUPLICATES: usize = 16;
/// Rounds of insert and look-up before other writers of the same readings are blamed.
const ROUNDS: usize = 5;
/// Devices whose newest readings are sought by one command: few enough that it ends in time.
const DEVICES_AT_ONCE: usize = 5_000;
/// How much more of a device is read when what was read of it did not suffice.
const SHARE_GROWTH: usize = 4;

#[derive(Serialize)]
struct ReadingDocument<'a> {
    #[serde(rename = "_id")]
    id: &'a str,
    account: &'a str,
    source: &'a str,
    device: &'a str,
    ts: DateTime,
    #[serde(flatten)]
    rest: Replaceable<'a>,
}

/// What a higher sequence number replaces.
#[derive(Serialize)]
struct Replaceable<'a> {
    sqn: i64,
    values: Vec<Value>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    flags: &'a [String],
    received: DateTime,
}

#[derive(Serialize, Deserialize)]
struct Value {
    p: i64,
    v: f64,
}

#[derive(Serialize)]
struct Lower<'a> {
    #[serde(rename = "_id")]
    id: &'a str,
    sqn: LessThan,
}

#[derive(Serialize)]
struct LessThan {
    #[serde(rename = "$lt")]
    bound: i64,
}

#[derive(Serialize)]
struct Replace<'a> {
    #[serde(rename = "$set")]
    set: Replacement<'a>,
}

#[derive(Serialize)]
struct Replacement<'a> {
    account: &'a str,
    #[serde(flatten)]
    rest: Replaceable<'a>,
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "_id")]
    id: String,
    account: AccountId,
    source: SourceId,
    device: String,
    ts: DateTime,
    sqn: i64,
    values: Vec<Value>,
    #[serde(default)]
    flags: Vec<String>,
    received: DateTime,
}

impl<'a> From<&'a StoredReading> for Replaceable<'a> {
    fn from(reading: &'a StoredReading) -> Self {
        Self {
            sqn: int(reading.sqn),
            values: reading.values.iter().map(|m| Value { p: m.p.0.into(), v: m.v }).collect(),
            flags: &reading.flags,
            received: date(reading.received),
        }
    }
}

impl Found {
    /// The id of its device in [`DEVICES`]: all before the last blank.
    fn device_id(&self) -> &str {
        self.id.rsplit_once(' ').map_or("", |(device, _)| device)
    }
}

impl From<Found> for StoredReading {
    fn from(found: Found) -> Self {
        let measurement =
            |value: Value| Measurement { p: ParameterCode(u32::try_from(value.p).unwrap_or(0)), v: value.v };
        Self {
            account: found.account,
            source: found.source,
            device: found.device,
            ts: time(found.ts),
            sqn: uint(found.sqn),
            values: found.values.into_iter().map(measurement).collect(),
            flags: found.flags,
            received: time(found.received),
        }
    }
}

/// One identity of a batch.
struct Slot<'a> {
    id: String,
    /// Its reading with the highest sequence number: the only one to store.
    best: &'a StoredReading,
    /// The sequence number stored before this batch, once that is known.
    before: Option<i64>,
}

/// The identities of a batch, and for each reading the slot of its own.
fn slots(batch: &[StoredReading]) -> (Vec<Slot<'_>>, Vec<usize>) {
    let mut slots: Vec<Slot<'_>> = Vec::with_capacity(batch.len());
    let mut by_identity = HashMap::with_capacity(batch.len());
    let mut slot_of = Vec::with_capacity(batch.len());
    for reading in batch {
        match by_identity.entry((&reading.source, reading.device.as_str(), reading.ts)) {
            Entry::Vacant(vacant) => {
                slot_of.push(slots.len());
                vacant.insert(slots.len());
                let id = of_reading(&reading.source, &reading.device, reading.ts);
                slots.push(Slot { id, best: reading, before: None });
            }
            Entry::Occupied(occupied) => {
                let slot = &mut slots[*occupied.get()];
                slot_of.push(*occupied.get());
                if int(reading.sqn) > int(slot.best.sqn) {
                    slot.best = reading;
                }
            }
        }
    }
    (slots, slot_of)
}

/// What storing the readings one after the other would have done.
fn outcomes(batch: &[StoredReading], slots: &[Slot<'_>], slot_of: &[usize]) -> Vec<ReadingOutcome> {
    let mut stored: Vec<Option<i64>> = slots.iter().map(|slot| slot.before).collect();
    let outcome = |(reading, slot): (&StoredReading, &usize)| {
        let (stored, new) = (&mut stored[*slot], int(reading.sqn));
        match *stored {
            None => {
                *stored = Some(new);
                ReadingOutcome::Inserted
            }
            Some(old) if old < new => {
                *stored = Some(new);
                ReadingOutcome::Replaced
            }
            Some(_) => ReadingOutcome::Duplicate,
        }
    };
    batch.iter().zip(slot_of).map(outcome).collect()
}

impl Mongo {
    /// Which of these slots are stored already, with their sequence numbers.
    async fn look_up(&self, slots: &[Slot<'_>], wanted: &[usize]) -> Result<HashMap<usize, i64>> {
        #[derive(Deserialize)]
        struct Key {
            #[serde(rename = "_id")]
            id: String,
            sqn: i64,
        }
        let mut found = HashMap::with_capacity(wanted.len());
        for wanted in wanted.chunks(5 * STATEMENTS) {
            let by_id: HashMap<&str, usize> = wanted.iter().map(|i| (slots[*i].id.as_str(), *i)).collect();
            let ids: Vec<&str> = wanted.iter().map(|i| slots[*i].id.as_str()).collect();
            let readings = self.collection::<Key>(READINGS);
            // Only what cannot be rolled back counts as stored.
            let find = readings
                .find(doc! { "_id": { "$in": ids } })
                .projection(doc! { "sqn": 1 })
                .read_concern(self.settled())
                .batch_size(10_000);
            for key in self.collect("looking up readings", find).await? {
                if let Some(slot) = by_id.get(key.id.as_str()) {
                    found.insert(*slot, key.sqn);
                }
            }
        }
        Ok(found)
    }

    /// Inserts slots; returns those whose id is stored already.
    async fn insert_slots(&self, slots: &[Slot<'_>], new: &[usize]) -> Result<Vec<usize>> {
        let attempted = "storing readings";
        let mut known = Vec::new();
        let mut documents: Vec<RawDocumentBuf> = Vec::with_capacity(new.len());
        let mut bytes = 0;
        let mut first = 0;
        for (place, slot) in new.iter().enumerate() {
            let slot = &slots[*slot];
            let document = ReadingDocument {
                id: &slot.id,
                account: slot.best.account.as_str(),
                source: slot.best.source.as_str(),
                device: &slot.best.device,
                ts: date(slot.best.ts),
                rest: slot.best.into(),
            };
            let failed = |cause: String| StorageError::Failed {
                attempted: format!(
                    "storing the reading of device `{}` of source {} at {}",
                    slot.best.device.chars().take(60).collect::<String>(),
                    slot.best.source,
                    slot.best.ts
                ),
                cause,
            };
            let document = bson::serialize_to_raw_document_buf(&document)
                .map_err(|e| failed(format!("it cannot be stored: {e}")))?;
            let size = document.as_bytes().len();
            if size > DOCUMENT_BYTES {
                return Err(failed(format!(
                    "it takes {size} bytes, MongoDB takes {DOCUMENT_BYTES}; split its values"
                )));
            }
            if bytes + size > COMMAND_BYTES && !documents.is_empty() {
                let written = self.insert(attempted, READINGS, &documents).await?;
                known.extend(written.refused.keys().map(|i| new[first + i]));
                documents.clear();
                (bytes, first) = (0, place);
            }
            bytes += size;
            documents.push(document);
        }
        if !documents.is_empty() {
            let written = self.insert(attempted, READINGS, &documents).await?;
            known.extend(written.refused.keys().map(|i| new[first + i]));
        }
        known.sort_unstable();
        Ok(known)
    }

    /// Replaces slots whose stored sequence number is lower; returns those where it is not, or that are not stored.
    async fn replace_slots(&self, slots: &[Slot<'_>], older: &[usize]) -> Result<Vec<usize>> {
        let mut lost = Vec::new();
        for older in older.chunks(STATEMENTS) {
            let updates: Vec<_> = older
                .iter()
                .map(|i| {
                    let Slot { id, best, .. } = &slots[*i];
                    Guarded::new(
                        Lower { id, sqn: LessThan { bound: int(best.sqn) } },
                        Replace { set: Replacement { account: best.account.as_str(), rest: (*best).into() } },
                    )
                })
                .collect();
            let written = self.update("replacing readings", READINGS, &updates).await?;
            lost.extend(written.refused.keys().map(|i| older[*i]));
        }
        Ok(lost)
    }

    /// Counts readings by their ids.
    async fn count_where(&self, filter: Document) -> Result<u64> {
        let readings = self.collection::<Document>(READINGS);
        let count = readings.count_documents(filter).hint(mongodb::options::Hint::Name("_id_".to_owned()));
        self.in_time("counting readings", count).await
    }

    /// The newest readings of these devices: `per_device` of each, or the newest `most` of them when that is given.
    async fn newest_of(
        &self,
        attempted: &str,
        devices: Document,
        query: &ReadingsQuery,
        per_device: usize,
        most: Option<usize>,
    ) -> Result<Vec<Found>> {
        let from = query.from.map_or_else(String::new, of_time);
        // Behind every reading's id without an end, before the first at or after it with one.
        let until = query.until.map_or_else(|| "g".to_owned(), of_time);
        let mut readings = vec![doc! { "$match": { "$expr": { "$and": [
            { "$gte": ["$_id", "$$from"] }, { "$lt": ["$_id", "$$until"] },
        ] } } }];
        if let Some(account) = &query.account {
            readings.push(doc! { "$match": { "account": account.as_str() } });
        }
        readings.push(doc! { "$sort": { "_id": -1 } });
        readings.push(doc! { "$limit": i64::try_from(per_device).unwrap_or(i64::MAX) });
        let mut pipeline = vec![
            doc! { "$match": devices },
            doc! { "$sort": { "_id": 1 } },
            doc! { "$lookup": {
                "from": READINGS,
                "let": {
                    "from": { "$concat": ["$_id", " ", from] },
                    "until": { "$concat": ["$_id", " ", until] },
                },
                "pipeline": readings,
                "as": "reading",
            } },
            doc! { "$unwind": "$reading" },
            doc! { "$replaceRoot": { "newRoot": "$reading" } },
        ];
        if let Some(most) = most {
            pipeline.push(doc! { "$sort": { "ts": -1, "_id": 1 } });
            pipeline.push(doc! { "$limit": i64::try_from(most).unwrap_or(i64::MAX) });
        }
        let devices = self.collection::<Document>(DEVICES);
        let aggregate =
            devices.aggregate(pipeline).read_concern(self.settled()).batch_size(10_000).with_type::<Found>();
        self.collect(attempted, aggregate).await
    }

    /// The newest `query.limit` readings of these devices.
    ///
    /// To read that many of each device would be read in vain for nearly all of them. So a few of each are read first;
    /// only of a device whose share is among the newest entirely may more belong to them, and there are the fewer of those
    /// the greater the share. Each round reads one look-up for each of its devices and at most [`SHARE_GROWTH`] times the
    /// limit of documents, and answers with the limit.
    async fn newest_among(
        &self,
        attempted: &str,
        devices: &[String],
        query: &ReadingsQuery,
    ) -> Result<Vec<Found>> {
        let mut newest: Vec<Found> = Vec::new();
        let mut open: HashSet<&str> = devices.iter().map(String::as_str).collect();
        let mut query = query.clone();
        let mut share = query.limit.div_ceil(open.len().max(1));
        while !open.is_empty() {
            let ids: Vec<&str> = open.iter().copied().collect();
            let found = self
                .newest_of(attempted, doc! { "_id": { "$in": ids } }, &query, share, Some(query.limit))
                .await?;
            newest.retain(|reading| !open.contains(reading.device_id()));
            newest.extend(found);
            newest_first(&mut newest, query.limit);
            if newest.len() == query.limit {
                query.from = newest.last().map(|oldest| time(oldest.ts)).max(query.from);
            }
            let mut shares: HashMap<&str, usize> = HashMap::new();
            for reading in &newest {
                *shares.entry(reading.device_id()).or_default() += 1;
            }
            open.retain(|device| share < query.limit && shares.get(device).is_some_and(|n| *n >= share));
            share = share.saturating_mul(SHARE_GROWTH);
        }
        Ok(newest)
    }

    /// The newest readings of all devices that the filter finds, a page of devices after the other: once as many as wanted
    /// are found, a device that has been silent for longer costs one look-up that reads nothing.
    async fn newest_readings(
        &self,
        attempted: &str,
        devices: Document,
        query: &ReadingsQuery,
    ) -> Result<Vec<Found>> {
        let mut query = query.clone();
        let mut newest: Vec<Found> = Vec::new();
        let mut last: Option<String> = None;
        loop {
            let ids = self.device_ids(attempted, &devices, last.as_deref(), DEVICES_AT_ONCE).await?;
            newest.extend(self.newest_among(attempted, &ids, &query).await?);
            newest_first(&mut newest, query.limit);
            if ids.len() < DEVICES_AT_ONCE {
                return Ok(newest);
            }
            if newest.len() == query.limit {
                query.from = newest.last().map(|oldest| time(oldest.ts)).max(query.from);
            }
            last = ids.into_iter().last();
        }
    }
}

/// Leaves the newest; those of the same time in the order of their devices.
fn newest_first(readings: &mut Vec<Found>, limit: usize) {
    readings.sort_by(|a, b| b.ts.cmp(&a.ts).then_with(|| a.id.cmp(&b.id)));
    readings.truncate(limit);
}

#[async_trait]
impl Readings for Mongo {
    async fn store(&self, batch: &[StoredReading]) -> Result<Vec<ReadingOutcome>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.note_devices(batch).await?;
        let (mut slots, slot_of) = slots(batch);
        let mut open: Vec<usize> = (0..slots.len()).collect();
        let mut look = self.look_first.load(Ordering::Relaxed);
        let mut written = false;
        for _ in 0..ROUNDS {
            let stored = if look { self.look_up(&slots, &open).await? } else { HashMap::new() };
            let (mut new, mut older) = (Vec::new(), Vec::new());
            for slot in open {
                let sqn = stored.get(&slot).copied();
                slots[slot].before = sqn;
                match sqn {
                    None => new.push(slot),
                    Some(sqn) if sqn < int(slots[slot].best.sqn) => older.push(slot),
                    Some(_) => {}
                }
            }
            written |= !new.is_empty() || !older.is_empty();
            open = self.insert_slots(&slots, &new).await?;
            open.extend(self.replace_slots(&slots, &older).await?);
            if open.is_empty() {
                break;
            }
            look = true;
        }
        if !open.is_empty() {
            return Err(StorageError::Unavailable {
                attempted: "storing readings".to_owned(),
                cause: format!("other processes store the same {} readings at the same time", open.len()),
            });
        }
        let duplicates = slots.iter().filter(|slot| slot.before.is_some()).count();
        self.look_first.store(duplicates * MANY_DUPLICATES > slots.len(), Ordering::Relaxed);
        if !written {
            self.journal("storing readings", READINGS).await?;
        }
        Ok(outcomes(batch, &slots, &slot_of))
    }

    async fn find(&self, query: &ReadingsQuery) -> Result<Vec<StoredReading>> {
        let attempted = "finding readings";
        if query.limit == 0 || query.from.is_some_and(|from| query.until.is_some_and(|until| until <= from)) {
            return Ok(Vec::new());
        }
        let mut devices = Document::new();
        if let Some(account) = &query.account {
            devices.insert("accounts", account.as_str());
        }
        if let Some(device) = &query.device {
            devices.insert("device", device);
        }
        if let Some(source) = &query.source {
            devices.insert("_id", doc! { "$gte": format!("{source} "), "$lt": end(source.as_str()) });
        }
        let newest = self.newest_readings(attempted, devices, query).await?;
        Ok(newest.into_iter().map(StoredReading::from).collect())
    }

    async fn count(&self, account: Option<&AccountId>) -> Result<u64> {
        let Some(account) = account else {
            return self.count_where(doc! {}).await;
        };
        let mut count = 0;
        for source in self.sources_of(account).await? {
            let mut of_source = doc! { "_id": { "$gt": format!("{source} "), "$lt": end(source.as_str()) } };
            let whole = self.count_where(of_source.clone()).await?;
            // Asked afterwards: a device is noted before its first reading, so what was counted was the account's alone.
            count += if self.is_source_of_only(&source, account).await? {
                whole
            } else {
                of_source.insert("account", account.as_str());
                self.count_where(of_source).await?
            };
        }
        Ok(count)
    }

    async fn keys(
        &self,
        account: &AccountId,
        after: Option<&ReadingKey>,
        limit: usize,
    ) -> Result<Vec<ReadingKey>> {
        #[derive(Deserialize)]
        struct Key {
            source: SourceId,
            device: String,
            ts: DateTime,
            sqn: i64,
        }
        let mut keys = Vec::new();
        for source in self.sources_of(account).await? {
            if keys.len() >= limit {
                break;
            }
            let start = match after {
                Some(after) if source < after.source => continue,
                Some(after) if source == after.source => of_reading(&after.source, &after.device, after.ts),
                _ => format!("{source} "),
            };
            let readings = self.collection::<Key>(READINGS);
            let find = readings
                .find(doc! {
                    "_id": { "$gt": start, "$lt": end(source.as_str()) },
                    "account": account.as_str(),
                })
                .sort(doc! { "_id": 1 })
                .hint(mongodb::options::Hint::Name("_id_".to_owned()))
                .limit(i64::try_from(limit - keys.len()).unwrap_or(i64::MAX))
                .projection(doc! { "_id": 0, "source": 1, "device": 1, "ts": 1, "sqn": 1 })
                .batch_size(10_000)
                .read_concern(self.settled());
            keys.extend(self.collect("reading identities of readings", find).await?.into_iter().map(|key| {
                ReadingKey { source: key.source, device: key.device, ts: time(key.ts), sqn: uint(key.sqn) }
            }));
        }
        Ok(keys)
    }

    async fn latest(&self, source: &SourceId) -> Result<Vec<StoredReading>> {
        let devices = doc! { "_id": { "$gte": format!("{source} "), "$lt": end(source.as_str()) } };
        let latest = self
            .newest_of("reading the latest readings", devices, &ReadingsQuery::default(), 1, None)
            .await?;
        Ok(latest.into_iter().map(StoredReading::from).collect())
    }
}
