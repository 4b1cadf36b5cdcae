//! Messages on a queue, and on their way through a topology.

use bytes::Bytes;

use crate::{AccountId, QueueName};

/// A message to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The body.
    pub body: Bytes,
    /// MIME type, for instance `application/json`.
    pub content_type: String,
    /// Id for tracing; carried as the AMQP message id.
    pub id: String,
}

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
    /// How many times it was put back from the dead letters.
    pub replays: u32,
    /// The message.
    pub message: Message,
}
