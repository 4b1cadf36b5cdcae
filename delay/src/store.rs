//! Where items and limits are kept.

use async_trait::async_trait;
use galerna_model::Timestamp;

use crate::{DelayError, Item, Parked, Taken};

/// A claim as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredClaim {
    /// The item.
    pub id: String,
    /// Which claim of the item it is.
    pub epoch: u64,
    /// How often it was renewed.
    pub renewal: u64,
    /// So long after its last renewal others may take it over, by the clock of one that watches.
    pub lease_ms: u64,
    /// The process that has it.
    pub holder: String,
}

/// What one process asks of the store about once a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// The process.
    pub holder: String,
    /// Of the claims that it makes.
    pub lease_ms: u64,
    /// The time by which items are due.
    pub now: Timestamp,
    /// Claims of its own, by item and epoch, that are to be renewed.
    pub renew: Vec<(String, u64)>,
    /// Claims of its own that it does not know of, because the answer was lost: they are given back, uncounted.
    pub give_back: Vec<(String, u64)>,
    /// Claims of processes that were lost, if they were not renewed since.
    pub take_over: Vec<StoredClaim>,
    /// An item that is taken over after so many attempts is parked.
    pub attempts: u32,
    /// So many items are claimed at most.
    pub room: usize,
}

/// How an attempt ended, as it is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The item is done.
    Done,
    /// It is due again.
    Again {
        /// When.
        due: Timestamp,
        /// Why the attempt failed.
        fault: String,
        /// Whether it counts as an attempt.
        counts: bool,
    },
    /// It is parked.
    Parked {
        /// Why.
        reason: String,
    },
}

/// An attempt that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The item.
    pub id: String,
    /// The claim of it.
    pub epoch: u64,
    /// How it ended.
    pub end: AttemptEnd,
}

/// Keeps items, for any number of processes. A write is durable when it returns `Ok`; after [`DelayError::Unavailable`] whether it was
/// done is not known, and it may be made again.
#[async_trait]
pub trait ItemStore: Send + Sync + 'static {
    /// Keeps those whose names are new, in their order. How many.
    async fn put(&self, items: &[Item]) -> Result<usize, DelayError>;

    /// All claims that there are.
    async fn claimed(&self) -> Result<Vec<StoredClaim>, DelayError>;

    /// Renews, gives back and takes over as asked; then claims what is due, the longest due first, of each key the first item only.
    async fn claim(&self, round: &Round) -> Result<Vec<Taken>, DelayError>;

    /// Ends attempts of a process. False of one whose claim it does not have any more: then nothing changes. After an error all may be
    /// ended again; some may have been.
    async fn settle(&self, holder: &str, attempts: &[Attempt]) -> Result<Vec<bool>, DelayError>;

    /// Parked items in the order in which they were put, `limit` at most.
    async fn parked(&self, limit: usize) -> Result<Vec<Parked>, DelayError>;

    /// Makes a parked item due again, with no attempts. False when it is not parked.
    async fn resume(&self, id: &str, due: Timestamp) -> Result<bool, DelayError>;

    /// Drops a parked item. False when it is not parked.
    async fn discard(&self, id: &str) -> Result<bool, DelayError>;

    /// How many items there are.
    async fn count(&self) -> Result<u64, DelayError>;
}

/// One limit of a call: how it moves and how far ahead it may be, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The limit.
    pub name: String,
    /// Whose.
    pub key: String,
    /// Between two calls.
    pub interval: i64,
    /// At least the interval.
    pub ahead: i64,
}

/// Keeps limits, for any number of processes: for each name and key when it would be idle again.
#[async_trait]
pub trait LimitStore: Send + Sync + 'static {
    /// Moves all on by one interval, or none. How long to wait, in microseconds; 0 when they were moved.
    async fn ask(&self, steps: &[Step], now: i64) -> Result<u64, DelayError>;

    /// Drops those that are idle, which are as if they had never been. How many.
    async fn forget_idle(&self, now: i64) -> Result<u64, DelayError>;
}
