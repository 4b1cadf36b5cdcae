//! Waiting for the barriers of all that send to a task.

use std::collections::{HashSet, VecDeque};

use crate::lanes::Message;

/// Which senders' barriers have come to a task, and what came behind them.
///
/// What waits counts as queued, so that spouts emit nothing while the topology's `queued_bytes` are spent; what bolts make of tuples
/// that are pending still comes.
#[derive(Default)]
pub(crate) struct Alignment {
    /// How many tasks send here, feedback edges aside.
    senders: usize,
    /// By subscription and task.
    arrived: HashSet<(usize, u32)>,
    held: VecDeque<Message>,
}

impl Alignment {
    /// Of a task to which so many send.
    pub(crate) fn new(senders: usize) -> Self {
        Self { senders, ..Self::default() }
    }

    /// Whether what comes from this sender has to wait.
    #[inline]
    pub(crate) fn is_ahead(&self, input: usize, sender: u32) -> bool {
        !self.arrived.is_empty() && self.arrived.contains(&(input, sender))
    }

    /// Has a message wait.
    pub(crate) fn hold(&mut self, message: Message) {
        self.held.push_back(message);
    }

    /// The barrier of a sender has come. Whether all have.
    pub(crate) fn arrive(&mut self, input: usize, sender: u32) -> bool {
        self.arrived.insert((input, sender));
        self.arrived.len() >= self.senders
    }

    /// The task has passed the barrier: what waited, in its order.
    pub(crate) fn release(&mut self) -> VecDeque<Message> {
        self.arrived.clear();
        std::mem::take(&mut self.held)
    }
}
