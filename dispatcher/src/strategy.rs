//! Which queue is leased next.

mod fair;
mod oldest;

use std::time::Duration;

use galerna_lease::StrategyName;

/// An empty index in the order of a strategy.
pub(crate) fn index_of(name: StrategyName) -> Box<dyn Strategy> {
    match name {
        StrategyName::Fifo | StrategyName::Lru => Box::new(oldest::Oldest::default()),
        StrategyName::Fair => Box::new(fair::Fair::default()),
    }
}

/// A queue that can be leased, as a strategy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Names the queue in the table.
    pub(crate) queue: u32,
    /// Names its account in the table.
    pub(crate) account: u32,
    /// Turns of its account per round; at least 1. Only `fair` looks at it.
    pub(crate) weight: u32,
    /// Place in the order of deliveries as this dispatcher saw them; lower is longer ago.
    pub(crate) delivered: u64,
    /// Place in the order in which queues became leasable; lower waits longer.
    pub(crate) waiting: u64,
}

/// An index of the queues that can be leased, in a strategy's order.
///
/// No call looks at more than a bounded number of entries, so that `take` costs the same whatever the number of queues
/// (a logarithm apart).
pub(crate) trait Strategy: Send {
    /// Adds a queue that is not in the index.
    fn insert(&mut self, candidate: Candidate);

    /// Takes a queue out; nothing happens when it is not in.
    fn remove(&mut self, queue: u32);

    /// Takes the next queue out, or one of the first `spread` at random: dispatchers that share a store would else all
    /// reach for the same head.
    fn take(&mut self, spread: usize) -> Option<u32>;

    /// A lease of this account's ended after `held`.
    fn charge(&mut self, account: u32, held: Duration);

    /// How many queues are in.
    fn len(&self) -> usize;
}

#[cfg(test)]
mod tests;
