//! A source as brokers are: it delivers what was not acked again, to whoever comes next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use galerna_topology::prelude::*;
use tokio::sync::Notify;

/// A queue of messages, each with an id. Clones are the same queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    state: Arc<Mutex<State>>,
    more: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    queued: VecDeque<u64>,
    /// Delivered and not acked.
    unacked: BTreeSet<u64>,
    messages: BTreeMap<u64, String>,
    acked: BTreeSet<u64>,
    /// In the order in which they came.
    acks: Vec<u64>,
    deliveries: u64,
    /// Those who were connected before may not ack any more.
    connection: u64,
}

impl Source {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds a message.
    pub(crate) fn send(&self, word: impl Into<String>) {
        let mut state = self.lock();
        let id = state.messages.len() as u64;
        state.messages.insert(id, word.into());
        state.queued.push_back(id);
        drop(state);
        self.more.notify_waiters();
    }

    /// How often each word was sent.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        self.lock().messages.values().for_each(|word| *counts.entry(word.clone()).or_default() += 1);
        counts
    }

    /// How many messages there are, are acked, and were delivered.
    pub(crate) fn numbers(&self) -> (usize, usize, u64) {
        let state = self.lock();
        (state.messages.len(), state.acked.len(), state.deliveries)
    }

    /// Whether all is acked.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.acked.len() == state.messages.len()
    }

    /// What is not acked is delivered once more, by the same connection.
    pub(crate) fn deliver_again(&self) {
        let state = &mut *self.lock();
        state.queued.extend(state.unacked.iter().copied());
        self.more.notify_waiters();
    }

    /// The connection is lost, and with it the last `lost` acks: what is not acked is delivered again, in another order.
    pub(crate) fn disconnect(&self, lost: usize, random: &mut fastrand::Rng) {
        let state = &mut *self.lock();
        state.connection += 1;
        for _ in 0..lost.min(state.acks.len()) {
            if let Some(id) = state.acks.pop()
                && state.acked.remove(&id)
            {
                state.unacked.insert(id);
            }
        }
        let mut again: Vec<u64> = std::mem::take(&mut state.unacked).into_iter().collect();
        random.shuffle(&mut again);
        again.into_iter().for_each(|id| state.queued.push_front(id));
    }

    /// What to give to the builder. `stable`: whether messages have stable ids.
    pub(crate) fn spout(&self, stable: bool) -> impl Fn() -> Connected + Send + Sync + 'static {
        let source = self.clone();
        let connection = self.lock().connection;
        move || Connected { source: source.clone(), connection, stable }
    }
}

pub(crate) struct Connected {
    source: Source,
    connection: u64,
    stable: bool,
}

impl Spout for Connected {
    type MessageId = u64;
    type Outputs = Output<String>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let mut state = self.source.lock();
        if state.connection != self.connection {
            return Ok(Next::Idle);
        }
        let Some(id) = state.queued.pop_front() else { return Ok(Next::Idle) };
        state.unacked.insert(id);
        state.deliveries += 1;
        let word = state.messages[&id].clone();
        drop(state);
        match self.stable {
            true => out.root_with_stable_id(id, format!("message-{id}")).emit(word),
            false => out.root(id).emit(word),
        }
        Ok(Next::Ready)
    }

    async fn ready(&mut self) {
        loop {
            let mut more = std::pin::pin!(self.source.more.notified());
            more.as_mut().enable();
            if !self.source.lock().queued.is_empty() {
                return;
            }
            more.await;
        }
    }

    async fn acked(&mut self, ids: &mut Vec<u64>) {
        let mut state = self.source.lock();
        if state.connection == self.connection {
            for id in ids.drain(..) {
                state.unacked.remove(&id);
                state.acked.insert(id);
                state.acks.push(id);
            }
        }
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        let mut state = self.source.lock();
        if state.connection == self.connection {
            for failed in failed.drain(..) {
                state.unacked.remove(&failed.id);
                state.queued.push_back(failed.id);
            }
            drop(state);
            self.source.more.notify_waiters();
        }
    }
}
