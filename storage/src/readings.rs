//! Readings that were accepted, and those that were refused.

use std::sync::Arc;

use async_trait::async_trait;
use galerna_model::{AccountId, Measurement, ParameterCode, SourceId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Result;

/// An accepted reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredReading {
    /// The account that owns it.
    pub account: AccountId,
    /// The source that sent it. Identity, with `device` and `ts`.
    pub source: SourceId,
    /// The device.
    pub device: String,
    /// When it was measured.
    pub ts: Timestamp,
    /// Sequence number: a higher one replaces a value, a lower or equal one only adds parameters that are not there yet. As it
    /// is found, the highest of those that were stored.
    pub sqn: u64,
    /// The values.
    pub values: Vec<Measurement>,
    /// Doubts that validation had (for instance `402:counter_backwards`); empty when none.
    pub flags: Vec<String>,
    /// When the publisher took it.
    pub received: Timestamp,
}

/// Identity and sequence number of a stored reading.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadingKey {
    /// Source.
    pub source: SourceId,
    /// Device.
    pub device: String,
    /// Time measured.
    pub ts: Timestamp,
    /// Sequence number stored.
    pub sqn: u64,
}

/// What storing one reading did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadingOutcome {
    /// It is new.
    Inserted,
    /// Its sequence number was higher than that of what was there: it replaced values, and added those that were missing.
    Replaced,
    /// It added values of parameters that were missing, and replaced none.
    Added,
    /// All its parameters were there with the same or a higher sequence number; nothing was written.
    Duplicate,
}

/// A value that was not taken, since the stored one has the same or a higher sequence number, and that is another one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Of which parameter.
    pub parameter: ParameterCode,
    /// What is stored.
    pub stored: f64,
    /// What was offered.
    pub offered: f64,
}

/// What storing a batch did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoreOutcome {
    /// Of each reading, in the batch's order.
    pub readings: Vec<ReadingOutcome>,
    /// Values that were not taken and differ from what is stored, with the index of their reading.
    pub not_taken: Vec<(usize, Difference)>,
}

impl std::ops::Deref for StoreOutcome {
    type Target = [ReadingOutcome];

    fn deref(&self) -> &[ReadingOutcome] {
        &self.readings
    }
}

impl IntoIterator for StoreOutcome {
    type Item = ReadingOutcome;
    type IntoIter = std::vec::IntoIter<ReadingOutcome>;

    fn into_iter(self) -> Self::IntoIter {
        self.readings.into_iter()
    }
}

impl<const N: usize> PartialEq<[ReadingOutcome; N]> for StoreOutcome {
    fn eq(&self, other: &[ReadingOutcome; N]) -> bool {
        self.readings == other
    }
}

/// Readings of one message, shared by all who work on them.
pub type SharedReadings = Arc<Vec<StoredReading>>;

/// Which readings to find.
#[derive(Debug, Clone, Default)]
pub struct ReadingsQuery {
    /// Only of this account.
    pub account: Option<AccountId>,
    /// Only of this source.
    pub source: Option<SourceId>,
    /// Only of this device.
    pub device: Option<String>,
    /// Measured at or after.
    pub from: Option<Timestamp>,
    /// Measured before.
    pub until: Option<Timestamp>,
    /// At most so many; newest first.
    pub limit: usize,
}

/// Store of accepted readings.
#[async_trait]
pub trait Readings: Send + Sync + 'static {
    /// Stores the readings of some messages, durable when it returns; outcomes are in their order. The same identity may occur
    /// twice: values are united by parameter, each reading atomically. On an error part of the readings may be stored;
    /// storing all of them again is right and harmless.
    async fn store_shared(&self, messages: &[SharedReadings]) -> Result<StoreOutcome>;

    /// The same of readings that are not shared, which costs a copy of them.
    async fn store(&self, batch: &[StoredReading]) -> Result<StoreOutcome> {
        self.store_shared(&[Arc::new(batch.to_vec())]).await
    }

    /// Readings that match, newest first.
    async fn find(&self, query: &ReadingsQuery) -> Result<Vec<StoredReading>>;

    /// How many readings are stored, of one account or in all.
    async fn count(&self, account: Option<&AccountId>) -> Result<u64>;

    /// Identities in key order (source, device, ts), up to `limit`, after the given one: to compare one by one.
    async fn keys(
        &self,
        account: &AccountId,
        after: Option<&ReadingKey>,
        limit: usize,
    ) -> Result<Vec<ReadingKey>>;

    /// The latest reading of each device of a source (for counters that run backwards and silent devices).
    async fn latest(&self, source: &SourceId) -> Result<Vec<StoredReading>>;
}

/// A reading (or a whole message) that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RejectedReading {
    /// Made from the message's id and the reading's index, so that a redelivery stores it once.
    pub id: String,
    /// The account of the queue it came from.
    pub account: AccountId,
    /// The source, when it could be told.
    pub source: Option<SourceId>,
    /// The device, when it could be told (shortened).
    pub device: Option<String>,
    /// When it was measured, when it could be told.
    pub ts: Option<Timestamp>,
    /// Short machine-readable class, for instance `unknown_parameter`.
    pub code: String,
    /// The field, for instance `values[1].v`; `message` or `reading` for the whole. None in what earlier versions stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong, for people; names the field.
    pub reason: String,
    /// The offending text, shortened.
    pub raw: String,
    /// When it was refused.
    pub at: Timestamp,
}

/// Store of refused readings.
#[async_trait]
pub trait RejectedReadings: Send + Sync + 'static {
    /// Stores a batch; those whose id is known are left.
    async fn store(&self, batch: &[RejectedReading]) -> Result<()>;

    /// Newest first.
    async fn list(
        &self,
        account: Option<&AccountId>,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<RejectedReading>>;

    /// How many of each code.
    async fn counts(&self) -> Result<Vec<(String, u64)>>;
}
