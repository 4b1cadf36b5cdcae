//! Durable queues on RabbitMQ 3.10 or later.
//!
//! Publishing, consuming and everything else have connections of their own, so that a server that blocks publishers does
//! not keep consumers from acking. This is made on the server:
//!
//! | name | kind | what |
//! |---|---|---|
//! | `<queue>` | queue | bound to `galerna.due` under its name |
//! | `<queue>.dead` | queue | its dead letters; made with the first one |
//! | `galerna.delay.<ms>` | fanout exchange and queue | holds failed messages for so long, then passes them to `galerna.due` |
//! | `galerna.due` | direct exchange | takes them to the queue named by their routing key |
//! | `galerna.undeliverable` | fanout exchange and queue | those whose queue has been deleted meanwhile; the newest 100,000 |
//!
//! What differs from the embedded broker: a quorum queue counts a release like any other redelivery, so that
//! `Delivery::deliveries` may be higher by the releases (they never bring a message to the dead letters); the number of
//! unacked messages comes from the management API, some seconds old; delayed messages are not in the depth of their
//! queue; a queue that has a consumer counts as not empty; an ack may reach the server up to 200 ms after it was
//! settled, so that what was acked in that time comes again after a crash of this process (`close` and a drop of the
//! consumer write what waits; even so, some of 39 acks, each in a frame of its own, came again when their channel was closed
//! right behind them).
//!
//! Quorum queues and their dead letters are made with an `x-delivery-limit` that no message reaches. A queue that exists
//! without it is used as it is; before such a system moves to RabbitMQ 4, whose own limit is 20 (after which it drops the
//! message), give them a policy: `rabbitmqctl set_policy galerna '.*' '{"delivery-limit": 1000000000}' --apply-to queues`.
//! The tests run against RabbitMQ 3.10; nothing was tried on 4.x.

mod acks;
mod consumer;
mod dead;
mod fault;
mod headers;
mod link;
mod management;
mod peek;
mod publisher;
mod topology;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use galerna_lock::Mutex;
use lapin::options::QueueDeleteOptions;
use lapin::tcp::OwnedTLSConfig;
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::consumer::RabbitConsumer;
use self::fault::within;
use self::link::{Address, Link};
use self::management::Management;
use self::publisher::{Outgoing, Publisher};
use self::topology::{Topology, dead_queue, key, queue_of_dead};
use self::watch::Watch;
use crate::counts::Counters;
use crate::{
    Broker, BrokerError, BrokerHealth, Consumer, Counts, DeadLetter, DeadLetterSelection, DeleteWhen,
    Deleted, Depth, Limit, NewDeadLetter, Result, RetryPolicy, WaitingMessage,
};
use galerna_model::{Clock, Message, QueueName, SystemClock};

/// How queues are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueType {
    /// Replicated and always durable.
    #[default]
    Quorum,
    /// On one node. It does not count redeliveries, so that poison that kills its consumers is not bounded.
    Classic,
}

impl QueueType {
    fn argument(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

/// The longest that things may take. A call may take one of `reconnect` and `connect`, and a few of `rpc` or one of `confirm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// One attempt to connect; 10 s by default.
    pub connect: Duration,
    /// A call waits so long for a connection that is lost; 5 s by default.
    pub reconnect: Duration,
    /// An answer of the server to one request; 10 s by default.
    pub rpc: Duration,
    /// The confirms of a window; 30 s by default.
    pub confirm: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), reconnect: seconds(5), rpc: seconds(10), confirm: publisher::CONFIRM }
    }
}

/// How to use RabbitMQ.
#[derive(Debug, Clone)]
pub struct RabbitMqOptions {
    /// `amqp://user:password@host:5672/vhost` or `amqps://…`.
    pub amqp_uri: String,
    /// `http://host:15672`, with or without a login; without one the AMQP login is used. Without the API, depths know only
    /// of queues that this process has used, and of ready messages.
    pub management_uri: Option<String>,
    /// PEM of the authority that signed the server's certificate, beside those that the system trusts.
    pub ca_certificates: Option<String>,
    /// Kind of the queues that are made.
    pub queue_type: QueueType,
    /// Redelivery and dead letters.
    pub retry: RetryPolicy,
    /// Bounds of all waits.
    pub timeouts: Timeouts,
    /// Consumers that share a connection; 64 by default.
    pub consumers_per_connection: usize,
    /// Shown by the server's tools; `galerna` by default.
    pub connection_name: String,
}

impl RabbitMqOptions {
    /// Defaults for a server.
    pub fn new(amqp_uri: impl Into<String>) -> Self {
        Self {
            amqp_uri: amqp_uri.into(),
            management_uri: None,
            ca_certificates: None,
            queue_type: QueueType::default(),
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            consumers_per_connection: 64,
            connection_name: "galerna".to_owned(),
        }
    }
}

struct Shared {
    options: RabbitMqOptions,
    address: Address,
    publisher: Publisher,
    topology: Topology,
    consuming: Mutex<Vec<Arc<Link>>>,
    management: Option<Management>,
    watch: Option<Watch>,
    /// Queues that this process has used.
    known: Mutex<HashSet<QueueName>>,
    /// What it has made sure of.
    declared: Mutex<Declared>,
    counters: Counters,
    generations: AtomicU64,
    scanning: Semaphore,
    /// Queues whose messages were looked at too often, and since when.
    not_looked_at: Mutex<HashMap<QueueName, Instant>>,
}

#[derive(Debug, Default)]
struct Declared {
    delays: HashSet<Duration>,
    dead: HashSet<QueueName>,
}

impl Shared {
    /// Says which limit of the server explains that it did not answer.
    fn explained<T>(&self, result: Result<T>) -> Result<T> {
        match &self.watch {
            Some(watch) => result.map_err(|error| watch.explain(error)),
            None => result,
        }
    }

    fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    async fn ensure_delay(&self, delay: Duration) -> Result<()> {
        if !self.declared.lock().delays.contains(&delay) {
            self.topology.declare_delay(delay).await?;
            self.declared.lock().delays.insert(delay);
        }
        Ok(())
    }

    async fn ensure_dead(&self, queue: &QueueName) -> Result<()> {
        if !self.declared.lock().dead.contains(queue) {
            self.topology.declare_dead(queue).await?;
            self.declared.lock().dead.insert(queue.clone());
        }
        Ok(())
    }

    fn forget_declared(&self) {
        *self.declared.lock() = Declared::default();
    }

    /// A connection with room for another consumer.
    fn consuming_link(&self) -> Arc<Link> {
        let mut links = self.consuming.lock();
        // One of the references is the list's own.
        let room =
            links.iter().find(|link| Arc::strong_count(link) <= self.options.consumers_per_connection.max(1));
        if let Some(link) = room {
            return Arc::clone(link);
        }
        let name = format!("{} consuming {}", self.options.connection_name, links.len() + 1);
        let address = Address { name, ..self.address.clone() };
        let link = Arc::new(Link::start(address, self.options.timeouts.clone()));
        links.push(Arc::clone(&link));
        link
    }

    async fn delete_queue(&self, name: ShortString, attempted: &str) -> Result<u32> {
        let channel = self.topology.link.channel(attempted).await?;
        match within(self.options.timeouts.rpc, channel.queue_delete(name, QueueDeleteOptions::default()))
            .await
        {
            Ok(messages) => Ok(messages),
            Err(fault) if fault.not_found() => Ok(0),
            Err(fault) => Err(fault.into_error(attempted, None)),
        }
    }
}

/// Queues on a RabbitMQ server. Clones share its connections.
#[derive(Clone)]
pub struct RabbitMqBroker(Arc<Shared>);

impl std::fmt::Debug for RabbitMqBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let AMQPUri { authority, vhost, .. } = &self.0.address.uri;
        f.debug_struct("RabbitMqBroker")
            .field("host", &authority.host)
            .field("port", &authority.port)
            .field("vhost", vhost)
            .finish()
    }
}

impl RabbitMqBroker {
    /// Connects; must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] for a wrong address, [`BrokerError::Unavailable`] when there is no connection within
    /// [`Timeouts::reconnect`].
    pub async fn connect(options: RabbitMqOptions) -> Result<Self> {
        galerna_tls::install_default_provider();
        let mut uri: AMQPUri = options.amqp_uri.parse().map_err(|e| {
            BrokerError::Invalid(format!(
                "AMQP address is wrong: {e}; write amqp://user:password@host:5672/vhost"
            ))
        })?;
        // The server's default of a minute would let a dead peer go unnoticed for two.
        uri.query.heartbeat.get_or_insert(15);
        let login = (uri.authority.userinfo.username.as_str(), uri.authority.userinfo.password.as_str());
        let management = match &options.management_uri {
            Some(at) => Some(Management::new(at, &uri.vhost, login, options.timeouts.rpc)?),
            None => None,
        };
        let tls = OwnedTLSConfig { identity: None, cert_chain: options.ca_certificates.clone() };
        let address = Address { uri, tls, name: String::new() };
        let start = |what: &str| {
            let name = format!("{} {what}", options.connection_name);
            Link::start(Address { name, ..address.clone() }, options.timeouts.clone())
        };
        let publisher = Publisher::new(start("publishing"), options.timeouts.clone());
        let topology = Topology::new(start("control"), options.queue_type, options.timeouts.clone());
        topology.link.channel("connecting to RabbitMQ").await?;
        Ok(Self(Arc::new(Shared {
            options,
            address,
            publisher,
            topology,
            consuming: Mutex::default(),
            watch: management.clone().map(Watch::start),
            management,
            known: Mutex::default(),
            declared: Mutex::default(),
            counters: Counters::default(),
            generations: AtomicU64::new(1),
            scanning: Semaphore::new(1),
            not_looked_at: Mutex::default(),
        })))
    }

    /// Depths by asking for each queue known to this process; of them only ready messages are told. One that was not there a moment
    /// ago is not asked for.
    async fn depths_of_known(&self, of: impl Fn(&QueueName) -> ShortString) -> Result<Vec<(QueueName, u64)>> {
        let known: Vec<QueueName> = self.0.known.lock().iter().cloned().collect();
        let mut found = Vec::new();
        for name in known {
            let asked = of(&name);
            if self.0.topology.seems_absent(&asked) {
                continue;
            }
            match self.0.topology.inspect(asked).await {
                Ok((ready, _)) => found.push((name, ready.into())),
                Err(fault) if fault.not_found() => {}
                Err(fault) => return Err(fault.into_error("asking for queue depths", None)),
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Broker for RabbitMqBroker {
    fn kind(&self) -> &'static str {
        "rabbitmq"
    }

    async fn declare(&self, queue: &QueueName) -> Result<()> {
        self.0.explained(self.0.topology.declare(queue).await)?;
        self.0.known.lock().insert(queue.clone());
        Ok(())
    }

    async fn delete(&self, queue: &QueueName, when: DeleteWhen) -> Result<Deleted> {
        let attempted = format!("deleting queue `{queue}`");
        if when == DeleteWhen::Empty {
            // RabbitMQ 3.10 closes the connection when a quorum queue is to be deleted only if it is empty.
            match self.0.topology.inspect(key(queue)).await {
                Ok((0, 0)) => {}
                // A consumer may hold unacked messages, and nothing exact tells whether it does.
                Ok(_) => return Ok(Deleted::NotEmpty),
                Err(fault) if fault.not_found() => {}
                Err(fault) => return Err(fault.into_error(&attempted, None)),
            }
        }
        let messages = self.0.delete_queue(key(queue), &attempted).await?;
        if when == DeleteWhen::Empty && messages > 0 {
            tracing::error!(%queue, messages, "messages that arrived while the queue was being deleted went with it");
        }
        self.0.delete_queue(dead_queue(queue), &attempted).await?;
        self.0.known.lock().remove(queue);
        self.0.declared.lock().dead.remove(queue);
        Ok(Deleted::Yes)
    }

    async fn publish(&self, window: Vec<(QueueName, Message)>) -> Result<()> {
        self.0.counters.published.add(window.len());
        let window: Vec<Outgoing> = window
            .into_iter()
            .map(|(queue, message)| Outgoing {
                exchange: ShortString::default(),
                key: key(&queue),
                properties: headers::of_new(&message),
                body: message.body,
            })
            .collect();
        let outcome = self.0.publisher.publish(window).await;
        self.0.counters.confirmed.add(outcome.confirmed.iter().filter(|c| **c).count());
        self.0.explained(outcome.into_result())
    }

    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Result<Box<dyn Consumer>> {
        if !self.0.known.lock().contains(queue) {
            // Somebody else made it; failed messages must find their way back to it.
            self.0.topology.bind(queue, &format!("consuming queue `{queue}`")).await?;
            self.0.known.lock().insert(queue.clone());
        }
        let link = self.0.consuming_link();
        let consumer = RabbitConsumer::start(Arc::clone(&self.0), link, queue, prefetch).await;
        Ok(Box::new(self.0.explained(consumer)?))
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        let attempted = format!("asking for the depth of queue `{queue}`");
        let (ready, consumers) = self
            .0
            .topology
            .inspect(key(queue))
            .await
            .map_err(|fault| fault.into_error(&attempted, Some(queue)))?;
        let unacked = match &self.0.management {
            // Without a consumer there is nobody to hold a message.
            Some(management) if consumers > 0 => {
                management.one(queue.as_str()).await?.map_or(0, |totals| totals.depth().unacked)
            }
            _ => 0,
        };
        Ok(Depth { ready: ready.into(), unacked, delayed: 0 })
    }

    async fn depths(&self) -> Result<Vec<(QueueName, Depth)>> {
        match &self.0.management {
            Some(management) => {
                let all = management.all().await?;
                // Queues of other programs may have names that none of ours can have.
                let named = all.iter().filter_map(|t| Some((QueueName::new(&t.name).ok()?, t.depth())));
                Ok(named.filter(|(name, _)| !name.is_reserved()).collect())
            }
            None => {
                let ready = self.depths_of_known(key).await?;
                Ok(ready
                    .into_iter()
                    .map(|(name, ready)| (name, Depth { ready, ..Depth::default() }))
                    .collect())
            }
        }
    }

    async fn dead_letter(&self, queue: &QueueName, letters: Vec<NewDeadLetter>) -> Result<()> {
        let now = SystemClock.now();
        let window: Vec<Outgoing> = letters
            .iter()
            .map(|letter| Outgoing {
                exchange: ShortString::default(),
                key: dead_queue(queue),
                properties: headers::of_dead(
                    &headers::with_replays(headers::of_new(&letter.message), letter.replays),
                    &letter.failure,
                    now,
                    1,
                ),
                body: letter.message.body.clone(),
            })
            .collect();
        self.0.ensure_dead(queue).await?;
        let outcome = self.0.publisher.publish(window).await;
        if outcome.cause.is_some() {
            self.0.forget_declared();
        }
        self.0.counters.dead_lettered.add(outcome.confirmed.iter().filter(|c| **c).count());
        outcome.into_result()
    }

    async fn dead_letters(&self, queue: &QueueName, offset: usize, limit: usize) -> Result<Vec<DeadLetter>> {
        self.0.list_dead(queue, offset, limit).await
    }

    async fn peek(&self, queue: &QueueName, limit: usize) -> Result<Vec<WaitingMessage>> {
        self.0.peek(queue, limit).await
    }

    async fn dead_letter_counts(&self) -> Result<Vec<(QueueName, u64)>> {
        let mut counts = match &self.0.management {
            Some(management) => {
                let all = management.all().await?;
                all.iter().filter_map(|t| Some((queue_of_dead(&t.name)?, t.depth().ready))).collect()
            }
            None => self.depths_of_known(dead_queue).await?,
        };
        counts.retain(|(_, count)| *count > 0);
        Ok(counts)
    }

    async fn replay(&self, queue: &QueueName, which: DeadLetterSelection) -> Result<usize> {
        self.0.end_dead(queue, &which, true).await
    }

    async fn discard(&self, queue: &QueueName, which: DeadLetterSelection) -> Result<usize> {
        self.0.end_dead(queue, &which, false).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.explained(self.0.topology.link.channel("pinging RabbitMQ").await.map(drop))
    }

    async fn health(&self) -> BrokerHealth {
        let health = self.0.publisher.health();
        // A connection hears of an alarm only when it publishes; the nodes know before.
        match (health, &self.0.watch) {
            (BrokerHealth::Ready, Some(watch)) => match watch.alarm().await {
                Some(reason) => BrokerHealth::Blocked { reason },
                None => BrokerHealth::Ready,
            },
            (BrokerHealth::Unavailable { reason }, Some(watch)) => {
                let attempted = String::new();
                match watch.explain(BrokerError::Unavailable { attempted, cause: reason }) {
                    BrokerError::Unavailable { cause, .. } => BrokerHealth::Unavailable { reason: cause },
                    error => BrokerHealth::Unavailable { reason: error.to_string() },
                }
            }
            (health, _) => health,
        }
    }

    async fn limits(&self) -> Result<Vec<Limit>> {
        match &self.0.watch {
            Some(watch) => watch.limits().await,
            None => Ok(Vec::new()),
        }
    }

    fn counts(&self) -> Counts {
        self.0.counters.snapshot()
    }
}
