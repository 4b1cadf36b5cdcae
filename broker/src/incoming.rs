//! A message on its way through a topology.

use crate::{AccountId, Message, QueueName};

/// How a component says that a failure is not the message's fault: the reason begins with this, and then says what is
/// away. The leased-queue spout gives such a message back unharmed and uncounted, and waits a little, so that an outage of
/// the store fills no dead letters.
pub const AWAY: &str = "away: ";

/// How a component says that trying again cannot help: the reason begins with this, and the message goes to the dead letters
/// at once.
pub const PERMANENT: &str = "permanent: ";

/// A message that was consumed from an account's queue, with what is known of how it came: the tuple that the leased-queue
/// spout emits and validation takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// The queue it came from.
    pub queue: QueueName,
    /// The account that owns the queue.
    pub account: AccountId,
    /// Epoch of the lease under which it was consumed; 0 when no lease was needed. A gap between two epochs of one queue
    /// tells that somebody else consumed it in between.
    pub epoch: u64,
    /// How many times it has been delivered, this one included.
    pub deliveries: u32,
    /// The message.
    pub message: Message,
}
