//! Collections and their indexes. Few: each one costs every write. Readings have only that of their ids.

use bson::{RawDocumentBuf, rawdoc};
use mongodb::error::ErrorKind;

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
pub(super) const ENDPOINTS: &str = "endpoints";
pub(super) const SILENCES: &str = "silences";
pub(super) const DELIVERIES: &str = "deliveries";
pub(super) const TAKEN_EVENTS: &str = "taken_events";

pub(super) const AUDIT: &str = "audit";
pub(super) const HISTORY: &str = "history";
pub(super) const IMPORT_CHUNKS: &str = "import_chunks";
pub(super) const IMPORT_SEQUENCES: &str = "import_sequences";
pub(super) const CONSUMPTION: &str = "consumption";
pub(super) const STATISTICS: &str = "statistics";
pub(super) const STATISTICS_MESSAGES: &str = "statistics_messages";
pub(super) const STATISTICS_WRITERS: &str = "statistics_writers";

/// There is no such collection, or no such index.
const ABSENT: [i32; 2] = [26, 27];

impl Mongo {
    /// Creates what is missing. The server takes the same definition any number of times, also at once.
    pub(super) async fn create_indexes(&self) -> Result<()> {
        let wanted: [(&str, &str, RawDocumentBuf); 22] = [
            // Lets the changes of queue states be read from the index alone.
            (QUEUES, "modified_id", rawdoc! { "modified": 1, "_id": 1 }),
            (DEVICES, "accounts", rawdoc! { "accounts": 1 }),
            (DEVICES, "device", rawdoc! { "device": 1 }),
            (REJECTED, "at", rawdoc! { "at": -1, "_id": -1 }),
            (REJECTED, "account_at", rawdoc! { "account": 1, "at": -1, "_id": -1 }),
            (REJECTED, "code", rawdoc! { "code": 1 }),
            (ALERT_STATES, "account", rawdoc! { "account": 1 }),
            (ALERT_EVENTS, "ts", rawdoc! { "ts": -1, "_id": -1 }),
            (ALERT_EVENTS, "account_ts", rawdoc! { "account": 1, "ts": -1, "_id": -1 }),
            (ALERT_EVENTS, "alert", rawdoc! { "rule": 1, "source": 1, "device": 1, "kind": 1, "ts": -1 }),
            (DELIVERIES, "due", rawdoc! { "status": 1, "next_try": 1, "_id": 1 }),
            (DELIVERIES, "created", rawdoc! { "created": -1, "_id": -1 }),
            (DELIVERIES, "status_created", rawdoc! { "status": 1, "created": -1, "_id": -1 }),
            (DELIVERIES, "endpoint", rawdoc! { "endpoint": 1, "status": 1, "created": -1, "_id": -1 }),
            (DELIVERIES, "account", rawdoc! { "accounts": 1, "created": -1, "_id": -1 }),
            (DELIVERIES, "alert", rawdoc! { "alerts": 1, "created": -1, "_id": -1 }),
            (DELIVERIES, "event", rawdoc! { "events.id": 1 }),
            (DELIVERIES, "after", rawdoc! { "after": 1 }),
            (AUDIT, "at", rawdoc! { "at": -1, "_id": -1 }),
            (CONSUMPTION, "source_zone_day", rawdoc! { "_id.s": 1, "_id.z": 1, "_id.t": 1 }),
            (STATISTICS, "scope", rawdoc! { "_id.k": 1, "_id.i": 1, "_id.b": 1 }),
            // For forgetting.
            (STATISTICS, "age", rawdoc! { "_id.g": 1, "_id.b": 1 }),
        ];
        for (collection, name, key) in wanted {
            let command = rawdoc! { "createIndexes": collection, "indexes": [{ "key": key, "name": name }] };
            self.command("creating an index", command).await?;
        }
        // An endpoint gets each event once.
        let entries = rawdoc! { "key": { "entries": 1 }, "name": "entries", "unique": true };
        let command = rawdoc! { "createIndexes": DELIVERIES, "indexes": [entries] };
        self.command("creating an index", command).await?;
        // Few of many states fire.
        let firing = rawdoc! {
            "key": { "since": -1 }, "name": "firing", "partialFilterExpression": { "phase": "firing" },
        };
        let command = rawdoc! { "createIndexes": ALERT_STATES, "indexes": [firing] };
        self.command("creating an index", command).await?;
        self.drop_index(READINGS, "account_ts").await
    }

    /// Drops an index that an earlier version created.
    async fn drop_index(&self, collection: &str, name: &str) -> Result<()> {
        let dropped = self.db.run_raw_command(rawdoc! { "dropIndexes": collection, "index": name });
        self.in_time("dropping an index", async {
            match dropped.await {
                Err(error) if matches!(error.kind.as_ref(), ErrorKind::Command(refusal) if ABSENT.contains(&refusal.code)) => {
                    Ok(())
                }
                answer => answer.map(|_| ()),
            }
        })
        .await
    }
}
