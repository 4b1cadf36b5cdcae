//! Collections and their indexes. Few: each one costs every write.

use bson::{RawDocumentBuf, rawdoc};

use super::Mongo;
use crate::Result;

pub(super) const QUEUES: &str = "queue_states";
pub(super) const READINGS: &str = "readings";
pub(super) const DEVICES: &str = "devices";
pub(super) const REJECTED: &str = "rejected_readings";
pub(super) const RULES: &str = "alert_rules";
pub(super) const ALERT_STATES: &str = "alert_states";
pub(super) const ALERT_EVENTS: &str = "alert_events";
pub(super) const ACCOUNTS: &str = "accounts";
pub(super) const SOURCES: &str = "sources";
pub(super) const SETTINGS: &str = "settings";

impl Mongo {
    /// Creates what is missing. The server takes the same definition any number of times, also at once.
    pub(super) async fn create_indexes(&self) -> Result<()> {
        let wanted: [(&str, &str, RawDocumentBuf); 10] = [
            // Lets the changes of queue states be read from the index alone.
            (QUEUES, "modified_id", rawdoc! { "modified": 1, "_id": 1 }),
            // Readings are found by their id (source, device, time); this serves the newest of an account, and counts.
            (READINGS, "account_ts", rawdoc! { "account": 1, "ts": -1 }),
            (DEVICES, "accounts", rawdoc! { "accounts": 1 }),
            (DEVICES, "device", rawdoc! { "device": 1 }),
            (REJECTED, "at", rawdoc! { "at": -1, "_id": -1 }),
            (REJECTED, "account_at", rawdoc! { "account": 1, "at": -1, "_id": -1 }),
            (REJECTED, "code", rawdoc! { "code": 1 }),
            (ALERT_STATES, "account", rawdoc! { "account": 1 }),
            (ALERT_EVENTS, "ts", rawdoc! { "ts": -1, "_id": -1 }),
            (ALERT_EVENTS, "account_ts", rawdoc! { "account": 1, "ts": -1, "_id": -1 }),
        ];
        for (collection, name, key) in wanted {
            let command = rawdoc! { "createIndexes": collection, "indexes": [{ "key": key, "name": name }] };
            self.command("creating an index", command).await?;
        }
        Ok(())
    }
}
