//! Queues and exchanges on the server, as the parent module lists them.
//!
//! A delay queue of quorum type hands over *at least once*: a message leaves it only when its own queue has it. Such a message would wait
//! for ever if its queue were gone, and 32 of them would stop all others; so they do not go through the default
//! exchange, but through one that has a place for what it cannot route.

use std::collections::HashMap;
use std::time::Duration;

use galerna_lock::Mutex;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use tokio::time::Instant;

use super::fault::{Fault, within};
use super::link::Link;
use super::{QueueType, Timeouts};
use crate::Result;
use galerna_model::QueueName;

const DUE: &str = "galerna.due";
const UNDELIVERABLE: &str = "galerna.undeliverable";
const LIMIT: &str = "x-delivery-limit";

/// How often a quorum queue may take a message back before the server drops it: never, in effect. Galerna counts by itself
/// and keeps what it gives up; from RabbitMQ 4.0 on a queue that says nothing drops a message after 20 returns, and a look at
/// dead letters returns all of them. (`-1`, no limit, is refused before 4.0.)
const RETURNS: i32 = 1_000_000_000;

/// Channels that are kept for looking at queues.
const KEPT_CHANNELS: usize = 16;
/// After so long a queue that was not there is asked for again. Each such question costs a channel, and the server a line of its log.
const ABSENT_FOR: Duration = Duration::from_secs(30);

/// Makes queues and exchanges, and looks at them.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) link: Link,
    kind: QueueType,
    timeouts: Timeouts,
    /// Channels for looking at queues that nobody looks at now. The server closes the one on which it is asked for a queue that
    /// is not there.
    looking: Mutex<Vec<Channel>>,
    /// Queues that were asked for and not there, with when.
    absent: Mutex<HashMap<ShortString, Instant>>,
}

pub(super) fn dead_queue(queue: &QueueName) -> ShortString {
    // Names are shorter than AMQP allows by more than the suffix.
    ShortString::try_new(format!("{queue}{}", QueueName::DEAD)).unwrap_or_default()
}

pub(super) fn key(queue: &QueueName) -> ShortString {
    ShortString::try_new(queue.as_str()).unwrap_or_default()
}

pub(super) fn delay_exchange(delay: Duration) -> ShortString {
    ShortString::try_new(format!("galerna.delay.{}", delay.as_millis())).unwrap_or_default()
}

/// The queue whose dead letters this one holds.
pub(super) fn queue_of_dead(name: &str) -> Option<QueueName> {
    name.strip_suffix(QueueName::DEAD).and_then(|name| QueueName::new(name).ok())
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn durable() -> ExchangeDeclareOptions {
    ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() }
}

impl Topology {
    pub(super) fn new(link: Link, kind: QueueType, timeouts: Timeouts) -> Self {
        Self { link, kind, timeouts, looking: Mutex::default(), absent: Mutex::default() }
    }

    /// A queue and its way back from the delays.
    pub(super) async fn declare(&self, queue: &QueueName) -> Result<()> {
        crate::error::check_not_reserved(queue)?;
        let attempted = format!("declaring queue `{queue}`");
        self.declare_queue(key(queue), self.returns(), &attempted).await?;
        self.bind(queue, &attempted).await
    }

    /// Binds an existing queue to `galerna.due`.
    pub(super) async fn bind(&self, queue: &QueueName, attempted: &str) -> Result<()> {
        let channel = self.link.channel(attempted).await?;
        let bind = async |channel: &Channel| {
            let call = channel.queue_bind(
                key(queue),
                DUE.into(),
                key(queue),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            within(self.timeouts.rpc, call).await
        };
        match bind(&channel).await {
            Ok(()) => Ok(()),
            Err(fault) if fault.not_found() => {
                // Either of the two is not there, and the channel is closed for it.
                self.declare_due(attempted).await?;
                let channel = self.link.channel(attempted).await?;
                bind(&channel).await.map_err(|fault| fault.into_error(attempted, Some(queue)))
            }
            Err(fault) => Err(fault.into_error(attempted, None)),
        }
    }

    pub(super) async fn declare_dead(&self, queue: &QueueName) -> Result<()> {
        let attempted = format!("declaring the dead letters of queue `{queue}`");
        self.declare_queue(dead_queue(queue), self.returns(), &attempted).await
    }

    /// Arguments of a queue that gives messages out.
    fn returns(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        if self.kind == QueueType::Quorum {
            arguments.insert(LIMIT.into(), AMQPValue::LongInt(RETURNS));
        }
        arguments
    }

    /// The exchange and the queue of one delay.
    pub(super) async fn declare_delay(&self, delay: Duration) -> Result<()> {
        let name = delay_exchange(delay);
        let attempted = format!("declaring `{name}`");
        self.declare_due(&attempted).await?;
        let mut arguments = FieldTable::default();
        let millis = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(millis));
        arguments.insert("x-dead-letter-exchange".into(), text(DUE));
        if self.kind == QueueType::Quorum {
            arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
            arguments.insert("x-overflow".into(), text("reject-publish"));
        }
        self.declare_queue(name.clone(), arguments, &attempted).await?;
        self.fan_out(&name, &attempted).await
    }

    async fn declare_due(&self, attempted: &str) -> Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(100_000));
        self.declare_queue(UNDELIVERABLE.into(), arguments, attempted).await?;
        self.fan_out(&UNDELIVERABLE.into(), attempted).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("alternate-exchange".into(), text(UNDELIVERABLE));
        let channel = self.link.channel(attempted).await?;
        let call = channel.exchange_declare(DUE.into(), ExchangeKind::Direct, durable(), arguments);
        within(self.timeouts.rpc, call).await.map_err(|fault| fault.into_error(attempted, None))
    }

    /// A fanout exchange in front of the queue of the same name.
    async fn fan_out(&self, name: &ShortString, attempted: &str) -> Result<()> {
        let channel = self.link.channel(attempted).await?;
        let calls = async {
            channel
                .exchange_declare(name.clone(), ExchangeKind::Fanout, durable(), FieldTable::default())
                .await?;
            let options = QueueBindOptions::default();
            channel.queue_bind(name.clone(), name.clone(), "".into(), options, FieldTable::default()).await
        };
        within(self.timeouts.rpc, calls).await.map_err(|fault| fault.into_error(attempted, None))
    }

    /// Makes sure that there is a durable queue. One that somebody made with other arguments is taken as it is.
    async fn declare_queue(
        &self,
        name: ShortString,
        mut arguments: FieldTable,
        attempted: &str,
    ) -> Result<()> {
        arguments.insert("x-queue-type".into(), text(self.kind.argument()));
        let fault = match self.declare_with(&name, arguments.clone(), attempted).await? {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        if !fault.made_otherwise() {
            return Err(fault.into_error(attempted, None));
        }
        // Queues made before the limit was set are as good, but for RabbitMQ 4.
        let mut earlier = FieldTable::default();
        for (argument, value) in arguments.inner().iter().filter(|(argument, _)| argument.as_str() != LIMIT) {
            earlier.insert(argument.clone(), value.clone());
        }
        if arguments.contains_key(LIMIT) && self.declare_with(&name, earlier, attempted).await?.is_ok() {
            tracing::debug!(queue = %name, "the queue exists without a delivery limit; it is used as it is");
            return Ok(());
        }
        tracing::warn!(queue = %name, "the queue exists with other arguments; it is used as it is");
        self.inspect(name).await.map(drop).map_err(|fault| fault.into_error(attempted, None))
    }

    async fn declare_with(
        &self,
        name: &ShortString,
        arguments: FieldTable,
        attempted: &str,
    ) -> Result<std::result::Result<(), Fault>> {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let channel = self.link.channel(attempted).await?;
        let declared = within(self.timeouts.rpc, channel.queue_declare(name.clone(), options, arguments));
        let declared = declared.await.map(drop);
        if declared.is_ok() {
            self.absent.lock().remove(name);
        }
        Ok(declared)
    }

    /// Ready messages and consumers of a queue.
    pub(super) async fn inspect(&self, name: ShortString) -> Result<(u32, u32), InspectError> {
        let kept = {
            let mut looking = self.looking.lock();
            looking.retain(|channel| channel.status().connected());
            looking.pop()
        };
        if let Some(channel) = kept {
            match self.inspect_on(channel, name.clone()).await {
                // The connection was lost with it.
                Err(fault) if fault.is_lost() => {}
                answer => return answer.map_err(InspectError::Fault),
            }
        }
        let attempted = format!("looking at queue `{name}`");
        let channel = self.link.channel(&attempted).await.map_err(InspectError::Unavailable)?;
        self.inspect_on(channel, name).await.map_err(InspectError::Fault)
    }

    async fn inspect_on(&self, channel: Channel, name: ShortString) -> Result<(u32, u32), Fault> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(name.clone(), options, FieldTable::default());
        match within(self.timeouts.rpc, declared).await {
            Ok(queue) => {
                let mut looking = self.looking.lock();
                if looking.len() < KEPT_CHANNELS {
                    looking.push(channel);
                }
                Ok((queue.message_count(), queue.consumer_count()))
            }
            Err(fault) => {
                if fault.not_found() {
                    self.absent.lock().insert(name, Instant::now());
                }
                Err(fault)
            }
        }
    }

    /// Whether a queue was not there a moment ago, and nobody has made it here since.
    pub(super) fn seems_absent(&self, name: &ShortString) -> bool {
        self.absent.lock().get(name).is_some_and(|since| since.elapsed() < ABSENT_FOR)
    }
}

/// Why a queue could not be looked at.
#[derive(Debug)]
pub(super) enum InspectError {
    /// There was no channel to ask on.
    Unavailable(crate::BrokerError),
    /// The server's answer.
    Fault(Fault),
}

impl InspectError {
    pub(super) fn not_found(&self) -> bool {
        matches!(self, Self::Fault(fault) if fault.not_found())
    }

    pub(super) fn into_error(self, attempted: &str, queue: Option<&QueueName>) -> crate::BrokerError {
        match self {
            Self::Unavailable(error) => error,
            Self::Fault(fault) => fault.into_error(attempted, queue),
        }
    }
}
