//! The devices met: one document per (source, device), with the accounts whose readings it has had.
//!
//! It is small beside the readings and makes their queries seeks: which sources an account has, which devices a source
//! has. A device is noted before its first reading is stored, so no reading is ever without.

use std::collections::HashMap;

use bson::{Document, doc};
use galerna_lock::Mutex;
use galerna_model::{AccountId, SourceId};
use galerna_mongo::DUPLICATE_KEY;
use serde::Deserialize;

use super::Mongo;
use super::commands::{STATEMENTS, Update};
use super::indexes::DEVICES;
use super::reading_id::{end, of_device};
use crate::{Result, StorageError, StoredReading};

/// Devices remembered; when there are more, all are forgotten and looked up again.
const DEVICES_KEPT: usize = 500_000;

/// The devices that this process knows to be noted, each with the account last seen.
#[derive(Default)]
pub(super) struct Devices(Mutex<NotedDevices>);

#[derive(Default)]
struct NotedDevices {
    sources: HashMap<SourceId, HashMap<String, AccountId>>,
    devices: usize,
}

/// A device as it is stored.
#[derive(Deserialize)]
pub(super) struct Device {
    pub(super) source: SourceId,
}

impl Devices {
    /// Those readings of a batch whose device or account is not known to be noted; one for each.
    fn unknown<'a>(&self, batch: impl Iterator<Item = &'a StoredReading>) -> Vec<&'a StoredReading> {
        let known = self.0.lock();
        let mut unknown: HashMap<(&SourceId, &str, &AccountId), &StoredReading> = HashMap::new();
        for reading in batch {
            let noted = known.sources.get(&reading.source).and_then(|devices| devices.get(&reading.device));
            if noted != Some(&reading.account) {
                unknown.insert((&reading.source, &reading.device, &reading.account), reading);
            }
        }
        unknown.into_values().collect()
    }

    fn remember(&self, readings: &[&StoredReading]) {
        let mut known = self.0.lock();
        if known.devices + readings.len() > DEVICES_KEPT {
            *known = NotedDevices::default();
        }
        for reading in readings {
            let devices = known.sources.entry(reading.source.clone()).or_default();
            if devices.insert(reading.device.clone(), reading.account.clone()).is_none() {
                known.devices += 1;
            }
        }
    }
}

impl Mongo {
    /// Notes the devices of a batch, durable.
    pub(super) async fn note_devices(
        &self,
        batch: impl Iterator<Item = &StoredReading> + Send,
    ) -> Result<()> {
        #[derive(Deserialize)]
        struct Noted {
            #[serde(rename = "_id")]
            id: String,
            accounts: Vec<String>,
        }
        let attempted = "noting devices";
        for readings in self.devices.unknown(batch).chunks(STATEMENTS) {
            let ids: Vec<String> = readings.iter().map(|r| of_device(&r.source, &r.device)).collect();
            // After a restart nearly all are noted: looking costs less than updates that change nothing.
            let noted = self.collection::<Noted>(DEVICES);
            let find = noted
                .find(doc! { "_id": { "$in": &ids } })
                .projection(doc! { "accounts": 1 })
                .read_concern(self.settled())
                .batch_size(10_000);
            let noted: HashMap<String, Vec<String>> =
                self.collect(attempted, find).await?.into_iter().map(|n: Noted| (n.id, n.accounts)).collect();
            let mut updates: Vec<Update<Document, Document>> = readings
                .iter()
                .zip(&ids)
                .filter(|(reading, id)| {
                    !noted
                        .get(*id)
                        .is_some_and(|accounts| accounts.iter().any(|a| a == reading.account.as_str()))
                })
                .map(|(reading, id)| Update {
                    q: doc! { "_id": id },
                    u: doc! {
                        "$set": { "source": reading.source.as_str(), "device": &reading.device },
                        "$addToSet": { "accounts": reading.account.as_str() },
                    },
                    upsert: true,
                })
                .collect();
            // Two processes may insert the same device at the same moment; the one refused updates the other's.
            let mut tries = 3;
            while !updates.is_empty() {
                if tries == 0 {
                    return Err(StorageError::Unavailable {
                        attempted: attempted.to_owned(),
                        cause: "other processes note the same devices".to_owned(),
                    });
                }
                tries -= 1;
                let written = self.update(attempted, DEVICES, &updates).await?;
                let mut index = 0..;
                updates.retain(|_| {
                    index.next().is_some_and(|i| written.refused.get(&i) == Some(&DUPLICATE_KEY))
                });
            }
            self.devices.remember(readings);
        }
        Ok(())
    }

    /// The sources that have had readings of an account, in order.
    pub(super) async fn sources_of(&self, account: &AccountId) -> Result<Vec<SourceId>> {
        let devices = self.collection::<Device>(DEVICES);
        let find = devices
            .find(doc! { "accounts": account.as_str() })
            .projection(doc! { "source": 1 })
            .read_concern(self.settled())
            .batch_size(10_000);
        let mut sources: Vec<SourceId> = self
            .collect("listing the sources of an account", find)
            .await?
            .into_iter()
            .map(|d| d.source)
            .collect();
        sources.sort_unstable();
        sources.dedup();
        Ok(sources)
    }

    /// Whether a source has had readings of this account alone.
    pub(super) async fn is_source_of_only(&self, source: &SourceId, account: &AccountId) -> Result<bool> {
        let devices = self.collection::<Document>(DEVICES);
        let find = devices
            .find_one(doc! {
                "_id": { "$gt": format!("{source} "), "$lt": end(source.as_str()) },
                "accounts": { "$ne": [account.as_str()] },
            })
            .read_concern(self.settled());
        let other = self.in_time("reading the devices of a source", find).await?;
        Ok(other.is_none())
    }

    /// Ids of devices that the filter finds, in order, after the given one.
    pub(super) async fn device_ids(
        &self,
        attempted: &str,
        devices: &Document,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Id {
            #[serde(rename = "_id")]
            id: String,
        }
        let mut filter = vec![devices.clone()];
        filter.extend(after.map(|after| doc! { "_id": { "$gt": after } }));
        let devices = self.collection::<Id>(DEVICES);
        let find = devices
            .find(doc! { "$and": filter })
            .sort(doc! { "_id": 1 })
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .projection(doc! { "_id": 1 })
            .read_concern(self.settled())
            .batch_size(10_000);
        Ok(self.collect(attempted, find).await?.into_iter().map(|device| device.id).collect())
    }
}
