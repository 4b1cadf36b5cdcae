//! Where schedules are kept.

use async_trait::async_trait;
use galerna_model::Timestamp;

use crate::{Ended, Record, ScheduleId, StoreError};

/// Where schedules and the ends of their firings are kept. Any number of processes may use one.
///
/// A write is durable when it returns `Ok`. When it returns [`StoreError::Unavailable`], whether it was done is not known.
#[async_trait]
pub trait ScheduleStore: Send + Sync + 'static {
    /// Keeps a new record. False when the name is taken.
    async fn insert(&self, record: &Record) -> Result<bool, StoreError>;

    /// The record of this name.
    async fn get(&self, id: &ScheduleId) -> Result<Option<Record>, StoreError>;

    /// Records in the order of their names, after one, `limit` at most.
    async fn list(&self, after: Option<&ScheduleId>, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// Records with a claim, and up to `limit` that have something to do at `now` ([`Record::wake`]), those that wait longest
    /// first.
    async fn pending(&self, now: Timestamp, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// The earliest time at which a record has something to do.
    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Replaces the record of this name if it still has the version `expected`, and with it keeps what ended: both or neither.
    /// Whether it did.
    async fn swap(&self, record: &Record, expected: i64, ended: &[Ended]) -> Result<bool, StoreError>;

    /// Removes a record if it still has the version `expected`, and with it keeps what ended. Whether it did. What ended stays.
    async fn remove(&self, id: &ScheduleId, expected: i64, ended: &[Ended]) -> Result<bool, StoreError>;

    /// What ended of a schedule, the latest nominal time first, `limit` at most; with `before`, earlier nominal times only.
    async fn history(
        &self,
        id: &ScheduleId,
        before: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<Ended>, StoreError>;

    /// Forgets what ended before. How many.
    async fn forget(&self, before: Timestamp) -> Result<u64, StoreError>;
}
