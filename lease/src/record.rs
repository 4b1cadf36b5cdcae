//! What is stored of a queue.

use galerna_model::{AccountId, QueueName, Timestamp};
use serde::{Deserialize, Serialize};

/// State of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueState {
    /// Nobody consumes it.
    Idle,
    /// Leased to a consumer; `worker` in the API and the store.
    #[serde(rename = "worker")]
    Leased,
    /// Nobody consumes it and it has no messages.
    Empty,
    /// Blocked by an operator until unpaused; `pause` in the API and the store.
    #[serde(rename = "pause")]
    Paused,
    /// Its account is gone; it waits for deletion; `delete` in the API and the store.
    #[serde(rename = "delete")]
    Deleting,
}

impl QueueState {
    /// All states, in the order of this declaration.
    pub const ALL: [Self; 5] = [Self::Idle, Self::Leased, Self::Empty, Self::Paused, Self::Deleting];

    /// The name used in the API and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Leased => "worker",
            Self::Empty => "empty",
            Self::Paused => "pause",
            Self::Deleting => "delete",
        }
    }
}

/// A lease that has been given and, as far as the store knows, neither released nor expired.
///
/// It outlives a pause: the queue's state is then [`QueueState::Paused`] while the holder is still to be told.
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
    /// What its holder knew the request by that it was granted to: whoever asks again with it is given this lease.
    pub request: Option<String>,
}

/// Everything stored of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// The queue: the record's key.
    pub queue: QueueName,
    /// Its account.
    pub account: AccountId,
    /// Grows by one at every guarded write; what guards a write of it.
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
    /// Whether a maintainer is deleting it: only while it is in state [`QueueState::Deleting`].
    #[serde(default)]
    pub deletion_claimed: bool,
    /// Since when it is in its state.
    pub since: Timestamp,
    /// Messages ready when last counted. Not guarded by the version.
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
            deletion_claimed: false,
            since: now,
            ready: 0,
            unacked: 0,
            counted_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_one_name_in_the_api_and_in_the_store() {
        for state in QueueState::ALL {
            let written = serde_json::to_value(state).unwrap();
            assert_eq!(written, state.as_str());
            assert_eq!(serde_json::from_value::<QueueState>(written).unwrap(), state);
        }
        assert_eq!(QueueState::ALL.map(QueueState::as_str), ["idle", "worker", "empty", "pause", "delete"]);
    }
}
