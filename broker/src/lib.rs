//! What travels between Galerna's services, and the queues that carry it.
//!
//! The crate has three parts:
//!
//! - the **wire model**: [`Reading`], [`Envelope`], the names ([`QueueName`], [`AccountId`], [`SourceId`]) and the one
//!   wall clock ([`Clock`]);
//! - the [`Broker`] trait: durable queues with confirmed publishing, leased consumption, delayed redelivery and
//!   dead letters;
//! - two implementations held to one conformance suite: RabbitMQ and an embedded one on SQLite.
//!
//! It must not depend on any other Galerna crate.

mod broker;
mod clock;
mod counts;
pub mod embedded;
pub mod envelope;
mod error;
mod incoming;
mod names;
pub mod rabbitmq;
mod reading;
mod retry;
pub mod tls;

pub use broker::{
    Broker, Consumer, DeadLetter, DeadLetterSelection, DeleteWhen, Deleted, Delivery, DeliveryTag, Depth,
    Failure, Message, NewDeadLetter, Outcome,
};
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use counts::Counts;
pub use envelope::{BadReading, DecodeError, DecodeLimits, Decoded, decode};
pub use error::{BrokerError, Result};
pub use incoming::{AWAY, Incoming, PERMANENT};
pub use names::{AccountId, NameError, ParameterCode, QueueName, SourceId};
pub use reading::{Envelope, Measurement, Reading};
pub use retry::RetryPolicy;
