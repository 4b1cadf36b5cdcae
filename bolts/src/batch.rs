//! Readings on their way from validation to the store and the alerts.

use galerna_model::{AccountId, QueueName};
use galerna_storage::SharedReadings;
use serde::{Deserialize, Serialize};

/// The good readings of one message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadingBatch {
    /// The queue that the message came from.
    pub queue: QueueName,
    /// The epoch of the lease under which it was consumed; 0 when there was none.
    pub epoch: u64,
    /// The account of all the readings.
    pub account: AccountId,
    /// The id of the message.
    pub message: String,
    /// At least one reading, in the message's order.
    pub readings: SharedReadings,
}
