//! Which queue is leased next.

mod fair;
mod oldest;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A way to choose the next queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StrategyName {
    /// The queue that is longest not leased, whether or not it has messages. Needs no counts.
    Fifo,
    /// The same among queues known to have messages.
    Lru,
    /// Accounts take turns; within a turn the one that waits longest is first.
    Fair,
}

impl StrategyName {
    /// All strategies.
    pub const ALL: [Self; 3] = [Self::Fifo, Self::Lru, Self::Fair];

    /// The name used in the API and the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Lru => "lru",
            Self::Fair => "fair",
        }
    }

    /// Whether it relies on message counts, and so on the maintainer.
    pub fn needs_counts(self) -> bool {
        !matches!(self, Self::Fifo)
    }

    pub(crate) fn build(self) -> Box<dyn Strategy> {
        match self {
            Self::Fifo | Self::Lru => Box::new(oldest::Oldest::default()),
            Self::Fair => Box::new(fair::Fair::default()),
        }
    }
}

impl fmt::Display for StrategyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A strategy that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("strategy `{0}` is unknown; use {known}", known = known())]
pub struct UnknownStrategy(String);

/// `fifo, lru or fair`.
fn known() -> String {
    let [others @ .., last] = StrategyName::ALL.map(StrategyName::as_str);
    format!("{} or {last}", others.join(", "))
}

impl FromStr for StrategyName {
    type Err = UnknownStrategy;
    fn from_str(name: &str) -> Result<Self, UnknownStrategy> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == name)
            .ok_or_else(|| UnknownStrategy(name.chars().take(60).collect()))
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
