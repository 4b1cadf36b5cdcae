//! Queue states: what the dispatcher leases and the maintainer keeps fresh.

use async_trait::async_trait;
use galerna_model::{AccountId, QueueName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Result, StorageError};

/// State of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueState {
    /// Nobody consumes it.
    Idle,
    /// Leased to a consumer.
    Worker,
    /// Nobody consumes it and it has no messages.
    Empty,
    /// Blocked by an operator until unpaused.
    Pause,
    /// Its account is gone; it waits for deletion.
    Delete,
}

impl QueueState {
    /// All states, in the order of this declaration.
    pub const ALL: [Self; 5] = [Self::Idle, Self::Worker, Self::Empty, Self::Pause, Self::Delete];

    /// The name used in the API and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Worker => "worker",
            Self::Empty => "empty",
            Self::Pause => "pause",
            Self::Delete => "delete",
        }
    }
}

/// A lease that has been given and, as far as the store knows, neither released nor expired.
///
/// It outlives a pause: the queue's state is then [`QueueState::Pause`] while the holder is still to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it.
    pub consumer: String,
    /// When it was granted, by the granting dispatcher's clock (for people; expiry does not rely on it).
    pub granted_at: Timestamp,
    /// When it expires unless renewed, by the clock of the dispatcher that granted or renewed it last.
    pub expires_at: Timestamp,
    /// Length of the lease in milliseconds.
    pub lease_ms: u64,
    /// Grows by one at every renewal. A lease whose (epoch, renewal) stayed the same for `lease_ms` on an observer's own
    /// monotonic clock has expired, however skewed the wall clocks are.
    pub renewal: u64,
}

/// Everything stored of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// The queue: the record's key.
    pub queue: QueueName,
    /// Its account.
    pub account: AccountId,
    /// Grows by one at every guarded write; the guard of [`QueueStates::swap`].
    pub version: u64,
    /// State.
    pub state: QueueState,
    /// Grows by one at every lease, for ever; never goes back, across restarts too.
    pub epoch: u64,
    /// The live lease, if any.
    pub lease: Option<Lease>,
    /// When it was last leased; `None` when never.
    pub last_delivered: Option<Timestamp>,
    /// How many leases in a row ended by expiry rather than release: grows the delay before the next one.
    pub crashes: u32,
    /// Not to be leased before this time (delay after crashes).
    pub not_before: Option<Timestamp>,
    /// Why it is in its state, when somebody said so (pause, deletion).
    pub reason: Option<String>,
    /// Since when it is in its state.
    pub since: Timestamp,
    /// Messages ready when last counted. Not guarded: see [`QueueStates::set_ready`].
    pub ready: u64,
    /// Messages delivered and not settled when last counted.
    pub unacked: u64,
    /// When they were last counted; `None` when never.
    pub counted_at: Option<Timestamp>,
}

impl QueueRecord {
    /// A new idle queue.
    pub fn new(queue: QueueName, account: AccountId, now: Timestamp) -> Self {
        Self {
            queue,
            account,
            version: 0,
            state: QueueState::Idle,
            epoch: 0,
            lease: None,
            last_delivered: None,
            crashes: 0,
            not_before: None,
            reason: None,
            since: now,
            ready: 0,
            unacked: 0,
            counted_at: None,
        }
    }
}

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
