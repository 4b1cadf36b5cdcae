//! What Galerna remembers: queue states, readings, rejected readings, alert rules and states, sources, accounts,
//! settings.
//!
//! Each kind of record has a trait; [`Store`] bundles one implementation of each. MongoDB and embedded SQLite are held
//! to one conformance suite. The crate depends on `galerna-broker` for the wire model only, never for queues.

mod accounts;
mod address;
mod alerts;
mod error;
pub mod mongo;
mod queues;
mod readings;
mod settings;
pub mod sqlite;

use std::sync::Arc;

pub use accounts::{Account, Accounts, Source, Sources};
pub use address::open;
pub use alerts::{
    AlertEvent, AlertEventKind, AlertState, AlertStates, Comparison, Condition, Phase, Rule, Rules, Severity,
};
pub use error::{Result, StorageError};
pub use queues::{Changes, Lease, QueueRecord, QueueState, QueueStates, ReadyCount, Swap, Swapped};
pub use readings::{
    ReadingKey, ReadingOutcome, Readings, ReadingsQuery, RejectedReading, RejectedReadings, StoredReading,
};
pub use settings::Settings;

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
}
