//! Items, and what becomes of them.

use std::time::Duration;

use galerna_model::Timestamp;
use galerna_retry::Pauses;
use serde_json::Value;

/// Something to do at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name: of two with one name, the second is not kept.
    pub id: String,
    /// Items of one key are done in the order in which they were put.
    pub key: Option<String>,
    /// Not before.
    pub due: Timestamp,
    /// What it is about.
    pub payload: Value,
}

impl Item {
    /// One that waits for no other.
    pub fn new(id: impl Into<String>, due: Timestamp, payload: Value) -> Self {
        Self { id: id.into(), key: None, due, payload }
    }

    /// The same, after those of its key that were put before.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// How often, and after which pauses, an item that failed is tried again. A permanent fault is not; an unavailable one is, and does not
/// count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all.
    pub attempts: u32,
    /// The pauses between them; up to a half of each is random.
    pub pauses: Pauses,
}

/// How a process takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayOptions {
    /// Its name, unlike that of any other process now or before; a random one by default.
    pub holder: String,
    /// So long after a process was last heard of, others take its items over.
    pub lease: Duration,
    /// When an item fails.
    pub retry: Retry,
}

impl Default for DelayOptions {
    /// A lease of 30 s; 5 attempts with pauses of 1 s to 10 min.
    fn default() -> Self {
        let pauses = Pauses::new(Duration::from_secs(1), Duration::from_secs(600));
        Self {
            holder: format!("{}-{:016x}", std::process::id(), fastrand::u64(..)),
            lease: Duration::from_secs(30),
            retry: Retry { attempts: 5, pauses },
        }
    }
}

/// An item that this process has claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The item.
    pub item: Item,
    /// Attempts, this one included.
    pub attempt: u32,
    /// Grows with each claim of the item.
    pub epoch: u64,
}

/// An item that is tried no more until somebody says so; those of its key wait behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Its name.
    pub id: String,
    /// Its key.
    pub key: Option<String>,
    /// Attempts that were begun.
    pub attempts: u32,
    /// Why.
    pub reason: String,
    /// How many of its key wait behind it.
    pub waiting: u64,
}

/// What [`DelayStore::settle`](crate::DelayStore::settle) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is done and gone.
    Done,
    /// It is tried again at this time.
    Again(Timestamp),
    /// It is parked.
    Parked,
    /// The claim was lost: another process has it, or had it.
    Gone,
}
