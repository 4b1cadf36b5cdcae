//! Where fan-ins are kept.

use async_trait::async_trait;
use galerna_model::Timestamp;

use crate::{FanInError, Record};

/// Where fan-ins are kept, for any number of processes. A write is durable when it returns `Ok`; after an error whether it was done is
/// not known.
#[async_trait]
pub trait FanInStore: Send + Sync + 'static {
    /// Keeps a new record. False when there is one of this name.
    async fn insert(&self, record: &Record) -> Result<bool, FanInError>;

    /// The record of this name.
    async fn get(&self, id: &str) -> Result<Option<Record>, FanInError>;

    /// Replaces the record of this name if it still has the version `expected`. Whether it did.
    async fn swap(&self, record: &Record, expected: i64) -> Result<bool, FanInError>;

    /// Up to `limit` records that have not ended and whose deadline has passed, and as many whose end nobody has acted on; those that
    /// wait longest first.
    async fn pending(&self, now: Timestamp, limit: usize) -> Result<Vec<Record>, FanInError>;

    /// Forgets those whose end was acted on and was before. How many.
    async fn forget(&self, before: Timestamp) -> Result<u64, FanInError>;
}
