//! Readings in MongoDB.
//!
//! A reading is one document under the id that [`super::reading_id`] makes of its identity; [`super::reading_store`] writes it.
//!
//! There is no index but that of the ids. One on account and time would make the newest of an account one seek, but costs
//! the server 1.5 us a reading where all of storing it costs 4. So the readings of an account are found by its devices,
//! which [`super::registry`] notes: the newest of an account are one look-up for each device that it ever had (60 us: 0.3 s
//! for 5,000 devices), its count one for each source and a walk along its ids (0.4 us a reading). A device that changed its account
//! is read in both, and each reading says whose it is: for the old one, past all that came since. The newest of all are one
//! look-up for each device there is: a query for administrators of small installations.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use bson::{DateTime, Document, doc};
use galerna_model::{AccountId, Measurement, ParameterCode, SourceId};
use serde::Deserialize;

use super::Mongo;
use super::documents::{time, uint};
use super::indexes::{DEVICES, READINGS};
use super::reading_id::{end, of_reading, of_time};
use super::reading_store::Value;
use crate::{ReadingKey, Readings, ReadingsQuery, Result, SharedReadings, StoreOutcome, StoredReading};

/// Devices whose newest readings are sought by one command: few enough that it ends in time.
const DEVICES_AT_ONCE: usize = 5_000;
/// How much more of a device is read when what was read of it did not suffice.
const SHARE_GROWTH: usize = 4;

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

impl Mongo {
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
    async fn store_shared(&self, messages: &[SharedReadings]) -> Result<StoreOutcome> {
        self.store_readings(messages).await
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
