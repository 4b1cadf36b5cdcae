//! A consumer of the embedded broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::calls::OpenStore;
use super::jobs::{Failed, Refill, ReleaseUncounted, Remove, SettleFailed};
use super::queue::Queue;
use crate::{BrokerError, Consumer, Delivery, DeliveryTag, Outcome, Result};

/// Sequence numbers have 40 bits; the bits above tell consumers apart, so that a tag of one means nothing to another.
const TAG_SHIFT: u32 = 40;

#[derive(Clone, Copy)]
struct Unsettled {
    failures: u32,
    returns: u32,
}

pub(super) struct EmbeddedConsumer {
    store: Arc<OpenStore>,
    queue: Arc<Queue>,
    prefetch: usize,
    generation: u64,
    unsettled: HashMap<u64, Unsettled>,
}

impl EmbeddedConsumer {
    pub(super) fn new(store: Arc<OpenStore>, queue: Arc<Queue>, prefetch: u16, generation: u64) -> Self {
        queue.state.lock().consumers += 1;
        Self { store, queue, prefetch: usize::from(prefetch.max(1)), generation, unsettled: HashMap::new() }
    }

    fn lost(&self) -> BrokerError {
        BrokerError::ConsumerLost(self.queue.name.clone())
    }

    /// What can be had at once.
    fn take(&mut self, max: usize) -> Result<Vec<Delivery>> {
        let room = self.prefetch.saturating_sub(self.unsettled.len()).min(max);
        let mut taken = Vec::new();
        let refill = {
            let mut state = self.queue.state.lock();
            if state.gone {
                drop(state);
                return Err(self.lost());
            }
            if let Some(cause) = state.failed.take() {
                return Err(BrokerError::Embedded {
                    attempted: format!("reading queue `{}`", self.queue.name),
                    cause,
                });
            }
            while taken.len() < room
                && let Some(stored) = state.take()
            {
                taken.push(stored);
            }
            if let Some(last) = taken.last()
                && last.seq > state.mark
            {
                state.mark = last.seq;
                // Before anybody sees the message, and in the order of the marks.
                self.store.shared.marks.write(self.queue.qid, last.seq);
            }
            room > 0 && state.wants_refill()
        };
        if refill {
            self.store
                .send_now(Box::new(Refill::new(Arc::clone(&self.store.shared), Arc::clone(&self.queue))));
        }
        self.store.shared.counters.delivered.add(taken.len());
        Ok(taken
            .into_iter()
            .map(|stored| {
                let (failures, returns) = (stored.failures, stored.returns);
                self.unsettled.insert(stored.seq, Unsettled { failures, returns });
                Delivery {
                    tag: DeliveryTag((self.generation << TAG_SHIFT) | stored.seq),
                    deliveries: stored.deliveries(),
                    replays: stored.replays,
                    message: stored.message,
                }
            })
            .collect())
    }

    /// Gives messages back uncounted.
    fn release(&self, mut messages: Vec<(u64, u32)>) -> Option<ReleaseUncounted> {
        messages.sort_unstable();
        let mut state = self.queue.state.lock();
        if state.gone || messages.is_empty() {
            return None;
        }
        for (seq, returns) in &messages {
            state.give_back(*seq, *returns);
        }
        drop(state);
        self.queue.arrived.notify_waiters();
        Some(ReleaseUncounted { queue: Arc::clone(&self.queue), messages })
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + wait;
        let queue = Arc::clone(&self.queue);
        loop {
            let mut arrived = std::pin::pin!(queue.arrived.notified());
            // From here on no arrival is missed.
            arrived.as_mut().enable();
            let taken = self.take(max)?;
            if !taken.is_empty() || max == 0 || timeout_at(deadline, arrived).await.is_err() {
                return Ok(taken);
            }
        }
    }

    async fn fence(&mut self) -> Result<Option<u64>> {
        Ok(Some(self.queue.state.lock().depth().deliverable()))
    }

    async fn settle(&mut self, outcomes: Vec<(DeliveryTag, Outcome)>) -> Result<()> {
        if self.queue.state.lock().gone {
            return Err(self.lost());
        }
        let own = |tag: &DeliveryTag| tag.0 >> TAG_SHIFT == self.generation;
        if !outcomes.iter().all(|(tag, _)| own(tag)) {
            return Err(self.lost());
        }
        let (mut acked, mut failed, mut released) = (Vec::new(), Vec::new(), Vec::new());
        for (tag, outcome) in outcomes {
            let seq = tag.0 & ((1 << TAG_SHIFT) - 1);
            // A tag settled before is settled.
            let Some(Unsettled { failures, returns }) = self.unsettled.remove(&seq) else { continue };
            let deliveries = failures + returns + 1;
            match outcome {
                Outcome::Ack => acked.push(seq),
                Outcome::Release => released.push((seq, returns)),
                Outcome::DeadLetter(failure) => {
                    failed.push((seq, Failed::DeadLetter { deliveries, returns, failure }))
                }
                Outcome::Retry(failure) => {
                    let failures = failures + 1;
                    let what = match self.store.shared.policy.delay_after(failures) {
                        Some(after) => Failed::Delay { after, failures, returns },
                        None => Failed::DeadLetter { deliveries, returns, failure },
                    };
                    failed.push((seq, what));
                }
            }
        }
        // Whatever happens to this call, everything taken out of `unsettled` is handed to the writer before the first await
        // that may not come back.
        if !acked.is_empty() {
            acked.sort_unstable();
            self.queue.state.lock().unacked -= acked.len() as u64;
            self.store.shared.counters.acked.add(acked.len());
            self.store.send_now(Box::new(Remove { queue: Arc::clone(&self.queue), seqs: acked }));
        }
        if let Some(uncount) = self.release(released) {
            self.store.send_now(Box::new(uncount));
        }
        if !failed.is_empty() {
            let (shared, queue) = (Arc::clone(&self.store.shared), Arc::clone(&self.queue));
            let attempted = format!("settling failed messages of queue `{}`", self.queue.name);
            let answer = self
                .store
                .submit_now(|reply| Box::new(SettleFailed { shared, queue, messages: failed, reply }));
            self.store.answer(attempted, answer).await?;
        }
        // Settling faster than the disk takes it must not fill the memory.
        self.store.room().await
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        let all: Vec<_> = self.unsettled.drain().map(|(seq, u)| (seq, u.returns)).collect();
        if let Some(uncount) = self.release(all) {
            self.store.send_now(Box::new(uncount));
        }
        self.store.flush().await
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        if state.gone {
            return;
        }
        state.consumers -= 1;
        // It may be these messages that ended the consumer, so that they count.
        for (seq, unsettled) in self.unsettled.drain() {
            state.give_back(seq, unsettled.returns + 1);
        }
        drop(state);
        self.queue.arrived.notify_waiters();
    }
}
