//! The contract that RabbitMQ and the embedded broker keep.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use galerna_model::Message;
use serde::{Deserialize, Serialize};

use crate::{Counts, Limit, Result};
use galerna_model::{QueueName, Timestamp};

/// Names a delivery to the consumer that received it, and to no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryTag(pub u64);

/// A message received.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// To settle it with, on the same consumer.
    pub tag: DeliveryTag,
    /// The message.
    pub message: Message,
    /// How many times it has been delivered, this one included: 1 at first. RabbitMQ counts a release as well.
    pub deliveries: u32,
    /// How many times it was put back from the dead letters.
    pub replays: u32,
}

/// A message that waits, seen without taking it.
#[derive(Debug, Clone)]
pub struct WaitingMessage {
    /// The message.
    pub message: Message,
    /// How many times it has been delivered: 0 for one that nobody had yet. RabbitMQ counts a look as well.
    pub deliveries: u32,
    /// How many times it was put back from the dead letters.
    pub replays: u32,
}

/// Why a message failed, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong, for people; names the field.
    pub reason: String,
    /// The component of the topology where it happened.
    pub component: String,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done: remove it.
    Ack,
    /// Deliver again after a delay that grows with its deliveries; after the last permitted delivery it becomes a dead letter.
    Retry(Failure),
    /// Move it to the dead letters now.
    DeadLetter(Failure),
    /// Put it back at once, unharmed and uncounted (the consumer stops): releases never make it a dead letter. A broker may
    /// deliver messages that were waiting before it.
    Release,
}

/// How many messages a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Depth {
    /// Waiting to be delivered, those delayed for redelivery included where the broker can tell.
    pub ready: u64,
    /// Delivered and not yet settled.
    pub unacked: u64,
    /// Of those ready, the ones that wait for their redelivery, where the broker can tell. 0 on RabbitMQ, which counts them in
    /// queues of their own.
    pub delayed: u64,
}

impl Depth {
    /// Those that a consumer gets as soon as it asks.
    pub fn deliverable(&self) -> u64 {
        self.ready.saturating_sub(self.delayed)
    }
}

/// Condition of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteWhen {
    /// Only when it holds no message, neither ready nor unacked.
    Empty,
    /// Whatever it holds.
    Always,
}

/// What a deletion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The queue and its dead-letter queue are gone (or were not there).
    Yes,
    /// It still holds messages and was left.
    NotEmpty,
}

/// A message or single reading to put into the dead letters of a queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewDeadLetter {
    /// The message that can be replayed.
    pub message: Message,
    /// Why it is dead.
    pub failure: Failure,
    /// How many times the message it comes from was replayed.
    pub replays: u32,
}

/// A message in the dead letters of a queue.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetter {
    /// Names it among the dead letters of its queue.
    pub id: String,
    /// Why it is dead.
    pub failure: Failure,
    /// When it died.
    pub at: Timestamp,
    /// How often it had been delivered.
    pub deliveries: u32,
    /// How often it was put back into its queue and came here again.
    pub replays: u32,
    /// MIME type of the body.
    pub content_type: String,
    /// The body.
    #[serde(skip)]
    pub body: Bytes,
}

/// Which dead letters a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterSelection {
    /// All of the queue.
    All,
    /// Those with these ids.
    Ids(Vec<String>),
}

/// Whether a broker takes messages now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum BrokerHealth {
    /// As far as is known, what is published will be confirmed.
    Ready,
    /// It can be reached and takes no messages: an alarm of the server, a full disk. What is stored can still be consumed.
    Blocked {
        /// Why, and what to do.
        reason: String,
    },
    /// It cannot be reached.
    Unavailable {
        /// What the transport said.
        reason: String,
    },
}

impl BrokerHealth {
    /// Why it takes no messages; `None` when it does.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::Blocked { reason } | Self::Unavailable { reason } => Some(reason),
        }
    }
}

impl std::fmt::Display for BrokerHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready => f.write_str("the broker takes messages"),
            Self::Blocked { reason } => write!(f, "the broker takes no messages: {reason}"),
            Self::Unavailable { reason } => write!(f, "the broker cannot be reached: {reason}"),
        }
    }
}

/// Durable queues.
///
/// What a method reports as done survives `kill -9` of this process and of the broker. Every call ends within the
/// implementation's timeout. All methods are cancellation-safe in the sense that dropping the future leaves the broker
/// consistent, though whether the call took effect is then unknown.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Short name for logs and pages: `rabbitmq` or `embedded`.
    fn kind(&self) -> &'static str;

    /// Makes sure that the queue exists, durable. Idempotent.
    ///
    /// # Errors
    /// [`crate::BrokerError::Invalid`] for a name that ends in `.dead` or begins with `galerna.` or `amq.`.
    async fn declare(&self, queue: &QueueName) -> Result<()>;

    /// Deletes a queue with its delayed and dead-letter companions. On RabbitMQ, a queue that has a consumer does not count
    /// as empty, since nothing exact tells what it holds.
    async fn delete(&self, queue: &QueueName, when: DeleteWhen) -> Result<Deleted>;

    /// Publishes a window of messages, each to its queue, and waits until all are confirmed.
    ///
    /// # Errors
    /// [`crate::BrokerError::Unconfirmed`] names those that are not safe; a queue that does not exist is an error, never a
    /// silent loss.
    async fn publish(&self, window: Vec<(QueueName, Message)>) -> Result<()>;

    /// Starts to consume a queue with at most `prefetch` unsettled messages.
    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Result<Box<dyn Consumer>>;

    /// Depth of one queue.
    async fn depth(&self, queue: &QueueName) -> Result<Depth>;

    /// Depth of every queue that is not a dead-letter or delay queue.
    async fn depths(&self) -> Result<Vec<(QueueName, Depth)>>;

    /// Adds dead letters to `<queue>.dead`, confirmed.
    async fn dead_letter(&self, queue: &QueueName, letters: Vec<NewDeadLetter>) -> Result<()>;

    /// Up to `limit` dead letters of the queue, oldest first, after skipping `offset`.
    async fn dead_letters(&self, queue: &QueueName, offset: usize, limit: usize) -> Result<Vec<DeadLetter>>;

    /// Up to `limit` of the messages that wait to be delivered, the next one first, without taking them: what a consumer gets
    /// afterwards is what it would have got, in the same order.
    ///
    /// AMQP has no way to look into a queue: on RabbitMQ the messages are taken out and put back, which is refused while the
    /// queue has a consumer, since that one could overtake them. A consumer that begins during the look may get later messages
    /// first; pause the queue where that matters.
    ///
    /// # Errors
    /// [`crate::BrokerError::Consumed`] as said; that the queue does not exist or the broker is unavailable.
    async fn peek(&self, queue: &QueueName, limit: usize) -> Result<Vec<WaitingMessage>>;

    /// How many dead letters each queue that has any holds.
    async fn dead_letter_counts(&self) -> Result<Vec<(QueueName, u64)>>;

    /// Puts dead letters back into their queue, as delivered for the first time; returns how many.
    async fn replay(&self, queue: &QueueName, which: DeadLetterSelection) -> Result<usize>;

    /// Deletes dead letters; returns how many.
    async fn discard(&self, queue: &QueueName, which: DeadLetterSelection) -> Result<usize>;

    /// Answers when the broker can be reached.
    async fn ping(&self) -> Result<()>;

    /// Whether it takes messages now, from what is known already or a question that is answered within a second or two: for
    /// readiness checks, which ask often. A broker that has become ready again says so without anybody publishing.
    async fn health(&self) -> BrokerHealth {
        BrokerHealth::Ready
    }

    /// What the nodes of its server have left of files, memory, disk and processes; empty where nothing tells.
    async fn limits(&self) -> Result<Vec<Limit>> {
        Ok(Vec::new())
    }

    /// Writes what waits, and closes: later calls fail. For a broker on a server that is nothing.
    ///
    /// # Errors
    /// When something could not be written.
    async fn close(&self) -> Result<()> {
        Ok(())
    }

    /// What this handle has done since it was opened.
    fn counts(&self) -> Counts {
        Counts::default()
    }
}

/// One consumer of one queue. Dropping it gives its unsettled messages back to the queue.
#[async_trait]
pub trait Consumer: Send {
    /// Up to `max` messages; waits at most `wait` for the first one and takes what else is there already. Empty when
    /// the queue is dry. Cancellation-safe: no message is lost.
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>>;

    /// Waits until what the broker has sent to this consumer is here, and returns how many messages there were that it had not
    /// sent: only with 0, and when nothing is received afterwards, is the queue dry. A message on its way is neither ready in
    /// the queue nor received, and a large one is so for long. None when the broker did not answer in time.
    ///
    /// # Errors
    /// [`crate::BrokerError::ConsumerLost`] when the channel is gone.
    async fn fence(&mut self) -> Result<Option<u64>>;

    /// Settles deliveries of this consumer, in any order. When it returns, `Retry` and `DeadLetter` outcomes are durable. Acks
    /// are coalesced and take effect within a fraction of a second, also when the consumer is closed or dropped; a crash of
    /// this process or of the broker before then brings the messages again.
    ///
    /// # Errors
    /// [`crate::BrokerError::ConsumerLost`] when the channel is gone: nothing can be settled any more, everything unsettled comes again.
    async fn settle(&mut self, outcomes: Vec<(DeliveryTag, Outcome)>) -> Result<()>;

    /// Stops; unsettled messages go back uncounted.
    async fn close(self: Box<Self>) -> Result<()>;
}
