//! The queues that carry messages between Galerna's services.
//!
//! The crate has two parts:
//!
//! - the [`Broker`] trait: durable queues with confirmed publishing, leased consumption, delayed redelivery and
//!   dead letters;
//! - two implementations held to one conformance suite: RabbitMQ (feature `rabbitmq`) and an embedded one on SQLite (feature
//!   `embedded`). Without features there is the trait alone.
//!
//! ```
//! use std::time::Duration;
//!
//! use galerna_broker::{Outcome, open};
//! use galerna_model::{AccountId, Envelope, QueueName, Reading, SourceId, Timestamp, decode};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = open("embedded::memory:").await?; // or amqp://user:password@host:5672/vhost
//! let queue = QueueName::new("D0000591")?;
//! broker.declare(&queue).await?;
//!
//! let envelope = Envelope {
//!     id: "batch-1".into(),
//!     account: AccountId::new("D0000591")?,
//!     source: SourceId::new("BC:6A:29:D0:F5:C8")?,
//!     received: Timestamp::parse("2015-04-21T23:15:02Z")?,
//!     readings: vec![Reading { did: "12a".into(), values: vec![], sqn: 2152, ts: Timestamp::parse("2015-04-21T23:15:00Z")? }],
//! };
//! // When this returns, the envelope survives whatever happens next.
//! broker.publish(vec![(queue.clone(), envelope.encode())]).await?;
//!
//! let mut consumer = broker.consume(&queue, 100).await?;
//! for delivery in consumer.receive(100, Duration::from_secs(5)).await? {
//!     let decoded = decode(&delivery.message)?;
//!     assert_eq!(decoded.readings.len(), 1);
//!     consumer.settle(vec![(delivery.tag, Outcome::Ack)]).await?;
//! }
//! consumer.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! It must not depend on any other Galerna crate.

mod address;
mod broker;
mod counts;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod limits;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
mod retry;

pub use address::open;
pub use broker::{
    Broker, BrokerHealth, Consumer, DeadLetter, DeadLetterSelection, DeleteWhen, Deleted, Delivery,
    DeliveryTag, Depth, Failure, NewDeadLetter, Outcome, WaitingMessage,
};
pub use counts::Counts;
pub use error::{BrokerError, Result};
pub use limits::{Limit, Nearness, Resource};
pub use retry::RetryPolicy;
