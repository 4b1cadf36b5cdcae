//! A broker in memory: queues of message ids, and what a maintainer asks of it. Confirmed messages survive; channels do not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_broker::{
    Broker, BrokerError, Consumer, DeadLetter, DeadLetterSelection, DeleteWhen, Deleted, Depth,
    NewDeadLetter, Result, WaitingMessage,
};
use galerna_lock::Mutex;
use galerna_model::{Message, QueueName};
use tokio::time::{Instant, sleep};

use crate::world::World;

#[derive(Default)]
struct Queue {
    ready: VecDeque<u64>,
    /// What each channel has taken and not settled.
    unacked: BTreeMap<u64, Vec<u64>>,
}

impl Queue {
    fn depth(&self) -> Depth {
        let unacked = self.unacked.values().map(Vec::len).sum::<usize>() as u64;
        Depth { ready: self.ready.len() as u64, unacked, delayed: 0 }
    }
}

#[derive(Default)]
struct Held {
    queues: BTreeMap<QueueName, Queue>,
    channels: u64,
    away_until: Option<Instant>,
}

struct Shared {
    world: Arc<World>,
    held: Mutex<Held>,
}

/// One broker for all processes.
#[derive(Clone)]
pub(crate) struct SimulatedBroker(Arc<Shared>);

impl SimulatedBroker {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self(Arc::new(Shared { world, held: Mutex::default() }))
    }

    /// It restarts: all channels are lost, and for a while it cannot be reached.
    pub(crate) fn disturb(&self) {
        let world = &self.0.world;
        let pause = world.between(Duration::ZERO, Duration::from_secs(10));
        world.step(format_args!("broker: restarts, away for {pause:?}"));
        let mut held = self.0.held.lock();
        held.away_until = Some(Instant::now() + pause);
        for queue in held.queues.values_mut() {
            for taken in std::mem::take(&mut queue.unacked).into_values() {
                taken.into_iter().rev().for_each(|id| queue.ready.push_front(id));
            }
        }
    }

    pub(crate) fn mend(&self) {
        self.0.held.lock().away_until = None;
    }

    /// How many messages there are in all queues, those that were taken and not acked among them.
    pub(crate) fn messages(&self) -> u64 {
        let held = self.0.held.lock();
        held.queues.values().map(|queue| queue.depth().ready + queue.depth().unacked).sum()
    }

    async fn call<T>(&self, attempted: &str, apply: impl FnOnce(&mut Held) -> Result<T>) -> Result<T> {
        let world = &self.0.world;
        let unavailable = |cause: &str| BrokerError::Unavailable {
            attempted: attempted.to_owned(),
            cause: cause.to_owned(),
        };
        world.count();
        sleep(world.latency()).await;
        let result = {
            let mut held = self.0.held.lock();
            if held.away_until.is_some_and(|until| Instant::now() < until) || world.fails(0.01) {
                return Err(unavailable("connection refused"));
            }
            apply(&mut held)
        };
        sleep(world.latency()).await;
        if world.fails(0.01) { Err(unavailable("connection lost")) } else { result }
    }

    /// Publishes one message; `Ok` when it is confirmed.
    pub(crate) async fn publish_one(&self, queue: &QueueName, id: u64) -> Result<()> {
        self.call("publishing", |held| match held.queues.get_mut(queue) {
            Some(there) => {
                there.ready.push_back(id);
                self.0.world.step(format_args!("{queue}: message {id} is queued"));
                Ok(())
            }
            None => Err(BrokerError::UnknownQueue(queue.clone())),
        })
        .await
    }

    /// Opens a channel that takes from a queue.
    pub(crate) async fn open(&self, queue: &QueueName) -> Result<Channel> {
        let id = self
            .call("consuming", |held| {
                if !held.queues.contains_key(queue) {
                    return Err(BrokerError::UnknownQueue(queue.clone()));
                }
                held.channels += 1;
                let id = held.channels;
                held.queues.entry(queue.clone()).or_default().unacked.insert(id, Vec::new());
                Ok(id)
            })
            .await?;
        Ok(Channel { broker: self.clone(), queue: queue.clone(), id })
    }
}

/// A channel. Dropped, what it took and did not settle goes back.
pub(crate) struct Channel {
    broker: SimulatedBroker,
    queue: QueueName,
    id: u64,
}

impl Channel {
    /// Up to so many messages; none when the queue is dry.
    pub(crate) async fn take(&mut self, most: usize) -> Result<Vec<u64>> {
        let (queue, id) = (&self.queue, self.id);
        self.broker
            .call("receiving", |held| {
                let there =
                    held.queues.get_mut(queue).ok_or_else(|| BrokerError::ConsumerLost(queue.clone()))?;
                let taken =
                    there.unacked.get_mut(&id).ok_or_else(|| BrokerError::ConsumerLost(queue.clone()))?;
                let messages: Vec<u64> = there.ready.drain(..most.min(there.ready.len())).collect();
                taken.extend(&messages);
                Ok(messages)
            })
            .await
    }

    pub(crate) async fn ack(&mut self, messages: &[u64]) -> Result<()> {
        let (queue, id) = (&self.queue, self.id);
        self.broker
            .call("acking", |held| {
                let there =
                    held.queues.get_mut(queue).ok_or_else(|| BrokerError::ConsumerLost(queue.clone()))?;
                let taken =
                    there.unacked.get_mut(&id).ok_or_else(|| BrokerError::ConsumerLost(queue.clone()))?;
                taken.retain(|message| !messages.contains(message));
                Ok(())
            })
            .await
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let mut held = self.broker.0.held.lock();
        if let Some(there) = held.queues.get_mut(&self.queue)
            && let Some(taken) = there.unacked.remove(&self.id)
        {
            taken.into_iter().rev().for_each(|id| there.ready.push_front(id));
        }
    }
}

#[async_trait]
impl Broker for SimulatedBroker {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    async fn declare(&self, queue: &QueueName) -> Result<()> {
        self.call("declaring", |held| {
            held.queues.entry(queue.clone()).or_default();
            Ok(())
        })
        .await
    }

    async fn delete(&self, queue: &QueueName, when: DeleteWhen) -> Result<Deleted> {
        self.call("deleting", |held| {
            let Some(there) = held.queues.get(queue) else { return Ok(Deleted::Yes) };
            let depth = there.depth();
            if depth.ready + depth.unacked > 0 || !there.unacked.is_empty() {
                if when == DeleteWhen::Empty {
                    return Ok(Deleted::NotEmpty);
                }
                self.0.world.violated(format!("{queue}: deleted with {depth:?} before its grace was over"));
            }
            held.queues.remove(queue);
            self.0.world.step(format_args!("{queue}: deleted on the broker"));
            Ok(Deleted::Yes)
        })
        .await
    }

    async fn publish(&self, window: Vec<(QueueName, Message)>) -> Result<()> {
        for (queue, message) in window {
            let id = message.id.parse().map_err(|_| BrokerError::UnknownQueue(queue.clone()))?;
            self.publish_one(&queue, id).await?;
        }
        Ok(())
    }

    async fn consume(&self, queue: &QueueName, _: u16) -> Result<Box<dyn Consumer>> {
        Err(BrokerError::Unavailable {
            attempted: format!("consuming {queue}"),
            cause: "workers of a simulation take by `open`".to_owned(),
        })
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        self.call("counting", |held| {
            held.queues.get(queue).map(Queue::depth).ok_or_else(|| BrokerError::UnknownQueue(queue.clone()))
        })
        .await
    }

    async fn depths(&self) -> Result<Vec<(QueueName, Depth)>> {
        self.call("counting", |held| {
            Ok(held.queues.iter().map(|(name, queue)| (name.clone(), queue.depth())).collect())
        })
        .await
    }

    async fn dead_letter(&self, queue: &QueueName, letters: Vec<NewDeadLetter>) -> Result<()> {
        self.0
            .world
            .violated(format!("{queue}: {} dead letters, of messages that are all good", letters.len()));
        Ok(())
    }

    async fn dead_letters(&self, _: &QueueName, _: usize, _: usize) -> Result<Vec<DeadLetter>> {
        Ok(Vec::new())
    }

    async fn peek(&self, _: &QueueName, _: usize) -> Result<Vec<WaitingMessage>> {
        Ok(Vec::new())
    }

    async fn dead_letter_counts(&self) -> Result<Vec<(QueueName, u64)>> {
        Ok(Vec::new())
    }

    async fn replay(&self, _: &QueueName, _: DeadLetterSelection) -> Result<usize> {
        Ok(0)
    }

    async fn discard(&self, _: &QueueName, _: DeadLetterSelection) -> Result<usize> {
        Ok(0)
    }

    async fn ping(&self) -> Result<()> {
        self.call("pinging", |_| Ok(())).await
    }
}
