//! A consumer of one queue on a channel of its own.
//!
//! It lives and dies with its channel: nothing is ever settled on another one, since the consumer has no other. Its
//! delivery tags carry a generation, so that a tag of an earlier consumer is recognised and refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel};
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::acks::Acks;
use super::fault::{Fault, within};
use super::headers::{self, Past};
use super::link::Link;
use super::publisher::Outgoing;
use super::topology::{dead_queue, delay_exchange, key};
use crate::{BrokerError, Consumer, Delivery, DeliveryTag, Failure, Outcome, Result};
use galerna_model::{Clock, QueueName, SystemClock};

/// AMQP counts deliveries of a channel from 1; the bits above tell consumers apart.
const TAG_SHIFT: u32 = 40;

struct Unsettled {
    past: Past,
    body: Bytes,
    properties: BasicProperties,
}

pub(super) struct RabbitConsumer {
    shared: Arc<Shared>,
    queue: QueueName,
    channel: Channel,
    deliveries: lapin::Consumer,
    acks: Acks,
    generation: u64,
    prefetch: usize,
    unsettled: BTreeMap<u64, Unsettled>,
    /// Received, not to be handed out, not yet among the dead letters.
    poison: Vec<(u64, Failure)>,
    lost: bool,
}

/// What happens to a message besides being acked.
enum Copy {
    Delay(Duration, Past),
    Dead(Failure, u32),
    /// Back to the end of its own queue, to reset what the queue has counted.
    Requeue(Past),
}

/// The channel of a consumer that is being started. It is closed unless that is done: a request that was not answered in time, or that its
/// caller gave up, may be answered later, and what the server then delivers would be nobody's for as long as the connection lives.
struct Starting {
    channel: Option<Channel>,
    limit: Duration,
}

impl Drop for Starting {
    fn drop(&mut self) {
        let (Some(channel), limit) = (self.channel.take(), self.limit) else { return };
        // Without a runtime the connection is ending as well.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { drop(within(limit, channel.close(200, "given up".into())).await) });
        }
    }
}

impl RabbitConsumer {
    pub(super) async fn start(
        shared: Arc<Shared>,
        link: Arc<Link>,
        queue: &QueueName,
        prefetch: u16,
    ) -> Result<Self> {
        let attempted = format!("consuming queue `{queue}`");
        let prefetch = prefetch.max(1);
        let channel = link.channel(&attempted).await?;
        let limit = shared.options.timeouts.rpc;
        let mut starting = Starting { channel: Some(channel.clone()), limit };
        let calls = async {
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            channel
                .basic_consume(key(queue), "".into(), BasicConsumeOptions::default(), FieldTable::default())
                .await
        };
        let deliveries =
            within(limit, calls).await.map_err(|fault| fault.into_error(&attempted, Some(queue)))?;
        starting.channel = None;
        Ok(Self {
            generation: shared.next_generation(),
            // It keeps the connection up, and counts as one of its channels.
            acks: Acks::start(channel.clone(), link, limit, prefetch),
            shared,
            queue: queue.clone(),
            channel,
            deliveries,
            prefetch: prefetch.into(),
            unsettled: BTreeMap::new(),
            poison: Vec::new(),
            lost: false,
        })
    }

    fn lost(&mut self) -> BrokerError {
        self.lost = true;
        BrokerError::ConsumerLost(self.queue.clone())
    }

    /// Notes a delivery; none when it may not be handed out.
    fn take(&mut self, delivery: lapin::message::Delivery) -> Option<Delivery> {
        let past = Past::of(&delivery.properties, delivery.redelivered);
        let (tag, properties, body) =
            (delivery.delivery_tag, delivery.properties, Bytes::from(delivery.data));
        let message = headers::message(&properties, body.clone());
        let replays = headers::replays(&properties);
        self.unsettled.insert(tag, Unsettled { past, body, properties });
        if let Some(failure) = self.shared.options.retry.refuse_after(past.returns) {
            self.poison.push((tag, failure));
            return None;
        }
        Some(Delivery {
            tag: DeliveryTag((self.generation << TAG_SHIFT) | tag),
            message,
            deliveries: past.deliveries(),
            replays,
        })
    }

    /// Removes poison from the queue. What is not done when this is dropped is done the next time.
    async fn bury_poison(&mut self) -> Result<()> {
        if self.poison.is_empty() {
            return Ok(());
        }
        let copies = self
            .poison
            .iter()
            .filter_map(|(tag, failure)| {
                let past = self.unsettled.get(tag)?.past;
                Some((*tag, Copy::Dead(failure.clone(), past.deliveries() - 1)))
            })
            .collect();
        self.copy_and_ack(copies).await?;
        self.poison.clear();
        Ok(())
    }

    /// Publishes each message to where it goes, and acks the original once its copy is safe.
    async fn copy_and_ack(&mut self, mut copies: Vec<(u64, Copy)>) -> Result<()> {
        copies.retain(|(tag, _)| self.unsettled.contains_key(tag));
        if copies.is_empty() {
            return Ok(());
        }
        let now = SystemClock.now();
        let mut window = Vec::with_capacity(copies.len());
        for (tag, copy) in &copies {
            let original = &self.unsettled[tag];
            let (exchange, key, properties) = match copy {
                Copy::Delay(delay, past) => {
                    self.shared.ensure_delay(*delay).await?;
                    let properties = headers::of_copy(&original.properties, *past);
                    (delay_exchange(*delay), key(&self.queue), properties)
                }
                Copy::Dead(failure, deliveries) => {
                    self.shared.ensure_dead(&self.queue).await?;
                    let properties = headers::of_dead(&original.properties, failure, now, *deliveries);
                    (ShortString::default(), dead_queue(&self.queue), properties)
                }
                Copy::Requeue(past) => {
                    (ShortString::default(), key(&self.queue), headers::of_copy(&original.properties, *past))
                }
            };
            window.push(Outgoing { exchange, key, body: original.body.clone(), properties });
        }
        let result = self.shared.publisher.publish(window).await;
        let counters = &self.shared.counters;
        let mut safe = BTreeSet::new();
        for ((tag, copy), confirmed) in copies.iter().zip(&result.confirmed) {
            if *confirmed && safe.insert(*tag) {
                match copy {
                    Copy::Delay(..) => counters.retried.add(1),
                    Copy::Dead(..) => counters.dead_lettered.add(1),
                    Copy::Requeue(_) => {}
                }
            }
        }
        if result.cause.is_some() {
            // Perhaps somebody deleted what this process has declared.
            self.shared.forget_declared();
        }
        // The copies are there: should these come again, they would be there twice.
        self.ack(safe, true).await?;
        result.into_result()
    }

    /// Acks on this channel, all of it at once or as [`Acks`] sees fit.
    async fn ack(&mut self, tags: BTreeSet<u64>, at_once: bool) -> Result<()> {
        for tag in &tags {
            self.unsettled.remove(tag);
        }
        let floor = self.unsettled.first_key_value().map_or(u64::MAX, |(tag, _)| *tag);
        match self.acks.ack(tags, floor, at_once).await {
            true => Ok(()),
            false => Err(self.lost()),
        }
    }

    /// Puts messages back into the queue, where they were.
    async fn release(&mut self, tags: Vec<u64>) -> Result<()> {
        let options = BasicNackOptions { multiple: false, requeue: true };
        let nacks =
            futures_util::future::try_join_all(tags.iter().map(|tag| self.channel.basic_nack(*tag, options)));
        let nacked = within(self.shared.options.timeouts.rpc, nacks).await;
        for tag in tags {
            self.unsettled.remove(&tag);
        }
        match nacked {
            Ok(_) => Ok(()),
            Err(_) => Err(self.lost()),
        }
    }

    /// What is to become of a failed message.
    fn after_failure(&self, past: Past, failure: Failure) -> Copy {
        let failures = past.failures + 1;
        match self.shared.options.retry.delay_after(failures) {
            Some(delay) => Copy::Delay(delay, Past { failures, ..past }),
            None => Copy::Dead(failure, past.deliveries()),
        }
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + wait;
        let mut taken = Vec::new();
        loop {
            if self.lost {
                return Err(self.lost());
            }
            self.bury_poison().await?;
            if max == 0 {
                return Ok(taken);
            }
            let room = max.min(self.prefetch);
            // From the first message on there is no await before the return: dropping the future loses nothing.
            let mut next = match timeout_at(deadline, self.deliveries.next()).await {
                Ok(next) => Some(next),
                Err(_) => self.deliveries.next().now_or_never(),
            };
            let waited_out = next.is_none();
            while let Some(delivery) = next {
                match delivery {
                    Some(Ok(delivery)) => taken.extend(self.take(delivery)),
                    // Those taken already can still be handed out; the loss shows at the next call.
                    Some(Err(_)) | None => {
                        self.lost = true;
                        break;
                    }
                }
                next = if taken.len() < room { self.deliveries.next().now_or_never() } else { None };
            }
            if !taken.is_empty() || waited_out {
                self.shared.counters.delivered.add(taken.len());
                return Ok(taken);
            }
        }
    }

    async fn fence(&mut self) -> Result<Option<u64>> {
        if self.lost {
            return Err(self.lost());
        }
        // The answer comes on the channel of the messages, so behind all that were sent before.
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(key(&self.queue), options, FieldTable::default());
        match within(self.shared.options.timeouts.rpc, declared).await {
            Ok(queue) => Ok(Some(queue.message_count().into())),
            Err(Fault::Late(_)) => Ok(None),
            Err(Fault::Amqp(_)) => Err(self.lost()),
        }
    }

    async fn settle(&mut self, outcomes: Vec<(DeliveryTag, Outcome)>) -> Result<()> {
        if self.lost || !outcomes.iter().all(|(tag, _)| tag.0 >> TAG_SHIFT == self.generation) {
            let lost = BrokerError::ConsumerLost(self.queue.clone());
            return Err(lost);
        }
        let (mut acked, mut released, mut copies) = (BTreeSet::new(), Vec::new(), Vec::new());
        for (tag, outcome) in outcomes {
            let tag = tag.0 & ((1 << TAG_SHIFT) - 1);
            // A tag settled before is settled.
            let Some(Unsettled { past, .. }) = self.unsettled.get(&tag) else { continue };
            let past = *past;
            match outcome {
                Outcome::Ack => drop(acked.insert(tag)),
                // The queue counts a release as it counts a crash. Before that adds up to poison, a copy starts anew.
                Outcome::Release if past.returned_copy + 2 > self.shared.options.retry.max_returns / 2 => {
                    let returns = past.returns - past.returned_copy;
                    copies.push((tag, Copy::Requeue(Past { returns, returned_copy: 0, ..past })));
                }
                Outcome::Release => released.push(tag),
                Outcome::DeadLetter(failure) => copies.push((tag, Copy::Dead(failure, past.deliveries()))),
                Outcome::Retry(failure) => copies.push((tag, self.after_failure(past, failure))),
            }
        }
        let count = acked.len();
        if count > 0 {
            self.ack(acked, false).await?;
            self.shared.counters.acked.add(count);
        }
        if !released.is_empty() {
            self.release(released).await?;
        }
        self.copy_and_ack(copies).await
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        let limit = self.shared.options.timeouts.rpc;
        if self.lost || !self.channel.status().connected() {
            return Ok(());
        }
        self.ack(BTreeSet::new(), true).await?;
        // Closing the channel gives back what is unsettled, in its place.
        let closed = within(limit, self.channel.close(200, "done".into())).await;
        self.lost = true;
        closed.map_err(|fault| {
            fault.into_error(&format!("closing the consumer of queue `{}`", self.queue), None)
        })
    }
}
