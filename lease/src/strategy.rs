//! The names of the ways to choose which queue is leased next.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A way to choose the next queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
