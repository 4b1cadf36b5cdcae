//! What Galerna remembers: queue states, readings, rejected readings, alert rules and states, sources, accounts,
//! settings.
//!
//! Each kind of record has a trait; [`Store`] bundles one implementation of each: MongoDB (feature `mongodb`), for any number of
//! processes, or embedded SQLite (feature `embedded`), for one. Both are held to one conformance suite (`tests/conformance`).
//! Without features there are the traits and records alone.
//!
//! ```
//! use galerna_model::{AccountId, QueueName, Timestamp};
//! use galerna_storage::{QueueRecord, QueueState, Swap, Swapped};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Elsewhere: galerna_storage::open("embedded:store.db") or open("mongodb://localhost/galerna").
//! let store = galerna_storage::sqlite::in_memory()?;
//! let idle = QueueRecord::new(QueueName::new("D0000591")?, AccountId::new("acme")?, Timestamp(0));
//! store.queues.create(&[idle.clone()]).await?;
//!
//! // Every change of a queue's state is one guarded write: of two who try, one is told that it lost, and to what.
//! let paused = QueueRecord { version: 1, state: QueueState::Paused, ..idle };
//! let swap = Swap { expected: 0, record: paused.clone() };
//! assert_eq!(store.queues.swap(&[swap.clone()]).await?, [Swapped::Done]);
//! assert_eq!(store.queues.swap(&[swap]).await?, [Swapped::Conflict(Some(paused))]);
//! # Ok(())
//! # }
//! ```
//!
//! Invariants:
//! - what a call acknowledged survives the death of any process, and on a replica set of any one server;
//! - one document per identity of a reading, with each parameter's value of the highest `sqn`, however often and in whatever
//!   order it is stored;
//! - a queue's `version` and `epoch` never go back, not even when the queue is removed and created again;
//! - integers above 2^63 - 1 are stored as that number: neither store counts further.
//!
//! No call is undone by cancellation: a write that is under way may or may not be done afterwards, and doing it again is
//! harmless. The crate depends on `galerna-broker` for the wire model only, never for queues.

#![cfg_attr(
    not(all(feature = "mongodb", feature = "embedded")),
    allow(dead_code, reason = "what the stores share is not used by each")
)]

mod accounts;
mod address;
mod alerts;
mod audit;
mod consumption;
mod error;
mod history;
mod imports;
#[cfg(feature = "mongodb")]
pub mod mongo;
mod notifications;
mod queues;
mod readings;
mod settings;
#[cfg(feature = "embedded")]
pub mod sqlite;
mod statistics;
mod union;

use std::sync::Arc;

pub use accounts::{Accounts, Sources};
pub use address::open;
pub use alerts::{AlertStates, Rules};
pub use audit::{AuditEntry, AuditLog};
pub use consumption::{
    ConsumptionDay, ConsumptionDays, ConsumptionKey, ConsumptionQuery, CounterValue, DayCounts,
};
pub use error::{Result, StorageError};
pub use galerna_lease::{Lease, QueueRecord, QueueState};
pub use history::{History, Sample};
pub use imports::{ImportChunk, Imports};
pub use notifications::{
    Attempt, Claim, Delivery, DeliveryFilter, DeliveryPage, DeliveryStatus, Endpoint, EndpointKind, Enqueued,
    MAX_GROUP, Notifications, REDACTED, Resent, Silence, alert_key,
};
pub use queues::{Changes, QueueStates, ReadyCount, Swap, Swapped};
pub use readings::{
    Difference, ReadingKey, ReadingOutcome, Readings, ReadingsQuery, RejectedReading, RejectedReadings,
    SharedReadings, StoreOutcome, StoredReading,
};
pub use settings::Settings;
pub use statistics::{Batch, LAST_MESSAGES, LastMessage, Period, Scope, StatisticsStore, Tally};

/// One implementation of every kind of record.
#[derive(Clone)]
pub struct Store {
    /// Queue states.
    pub queues: Arc<dyn QueueStates>,
    /// Accepted readings.
    pub readings: Arc<dyn Readings>,
    /// Readings that were refused, with reason.
    pub rejected: Arc<dyn RejectedReadings>,
    /// Alert rules.
    pub rules: Arc<dyn Rules>,
    /// What each rule last knew of each device, and the alert events.
    pub alert_states: Arc<dyn AlertStates>,
    /// Accounts.
    pub accounts: Arc<dyn Accounts>,
    /// Sources.
    pub sources: Arc<dyn Sources>,
    /// Settings that several processes share.
    pub settings: Arc<dyn Settings>,
    /// Who is told of alerts, and what they were told.
    pub notifications: Arc<dyn Notifications>,
    /// What operators did.
    pub audit: Arc<dyn AuditLog>,
    /// Samples for charts.
    pub history: Arc<dyn History>,
    /// What was imported of meters' intervals.
    pub imports: Arc<dyn Imports>,
    /// What sources have sent.
    pub statistics: Arc<dyn StatisticsStore>,
    /// What counters have counted, by day.
    pub consumption: Arc<dyn ConsumptionDays>,
    closing: Arc<dyn Closing>,
}

impl Store {
    /// Writes what waits, and closes: later calls fail. Of an embedded store, the log is then folded back into the file, and
    /// another process can open it.
    ///
    /// # Errors
    /// When something could not be written.
    pub async fn close(&self) -> Result<()> {
        self.closing.close().await
    }
}

/// What ends a store.
#[async_trait::async_trait]
trait Closing: Send + Sync {
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
