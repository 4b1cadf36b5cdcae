//! Queue states: what the dispatcher leases and the maintainer keeps fresh.

use async_trait::async_trait;
use galerna_lease::QueueRecord;
use galerna_model::{QueueName, Timestamp};

use crate::{Result, StorageError};

/// One guarded write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swap {
    /// The version that the stored record must have: one that was read from this store or written to it.
    pub expected: u64,
    /// What to store, all but the counts (`ready`, `unacked`, `counted_at`); its `version` must be `expected + 1`.
    pub record: QueueRecord,
}

/// What became of a guarded write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "answers live briefly, and most callers take the record out")]
pub enum Swapped {
    /// Stored, durable.
    Done,
    /// The stored record has a later version; nothing was written. It is given, or `None` when it does not exist.
    Conflict(Option<QueueRecord>),
}

/// A fresh count of a queue's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyCount {
    /// The queue.
    pub queue: QueueName,
    /// Messages ready.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub unacked: u64,
}

/// Records that changed, and where to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Records written (guarded or counted) since the cursor; may repeat some that were given before.
    pub records: Vec<QueueRecord>,
    /// Queues removed since the cursor, where the store can tell cheaply; a full [`QueueStates::all`] is the authority.
    pub removed: Vec<QueueName>,
    /// Opaque; pass it to the next call.
    pub cursor: u64,
}

/// An unchanged count is written all the same when the stored one is older than this, in milliseconds: its time then
/// tells a quiet queue from one that nobody counts, at little cost.
pub(crate) const COUNT_REFRESH_MS: i64 = 300_000;

/// Refuses swaps that would break the versions.
pub(crate) fn check_swaps(swaps: &[Swap]) -> Result<()> {
    match swaps.iter().find(|s| s.expected.checked_add(1) != Some(s.record.version)) {
        None => Ok(()),
        Some(wrong) => Err(StorageError::Invalid(format!(
            "swap of queue {}: the new version is {}, must be one above the expected {}",
            wrong.record.queue, wrong.record.version, wrong.expected
        ))),
    }
}

/// Store of queue states. A transition is one guarded write to one record; there are no transactions.
#[async_trait]
pub trait QueueStates: Send + Sync + 'static {
    /// All records.
    async fn all(&self) -> Result<Vec<QueueRecord>>;

    /// One record, by a linearisable read.
    async fn get(&self, queue: &QueueName) -> Result<Option<QueueRecord>>;

    /// What changed since the cursor of an earlier answer (0 at first: everything), whichever process changed it. A change
    /// that was durable before the call is among it; while thousands of queues change within seconds it may be in an answer
    /// half a second later. None is missed.
    async fn changes(&self, cursor: u64) -> Result<Changes>;

    /// Creates records that do not exist yet; leaves existing ones alone. Returns the queues created.
    ///
    /// A queue that was removed before and is created again goes on from the epoch it had and above the version it had, so
    /// that nobody who knew the former can take the latter for it: the stored record may then differ from the given one.
    async fn create(&self, records: &[QueueRecord]) -> Result<Vec<QueueName>>;

    /// Compare-and-swap of many records in one round trip; each stands alone. Durable (`majority`, journaled) when it
    /// returns. Answers are in the order of the swaps. Two swaps of one call must not name the same queue.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] leaves open which swaps were done, as does cancellation: read the records again.
    /// [`StorageError::Invalid`] when a record's version is not one above the expected one; then none was done.
    async fn swap(&self, swaps: &[Swap]) -> Result<Vec<Swapped>>;

    /// Removes a record if it still has this version.
    async fn remove(&self, queue: &QueueName, version: u64) -> Result<bool>;

    /// Writes counts, without touching state, lease or version; unknown queues are ignored; an older `at` than stored
    /// changes nothing. Unchanged counts cost little: they are not written again unless the stored ones are older than five
    /// minutes.
    async fn set_ready(&self, counts: &[ReadyCount], at: Timestamp) -> Result<()>;
}
