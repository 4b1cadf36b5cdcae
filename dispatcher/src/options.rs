//! How a dispatcher is set up, and how setting it up or asking it can fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use galerna_lease::{LeaseError, Timing, TimingError};
use galerna_model::{AccountId, Clock, QueueName, SystemClock};
use galerna_storage::StorageError;

use crate::maintainer_link::MaintainerLink;
use crate::status::QueryError;
use galerna_lease::StrategyName;

/// How a dispatcher is to work. `Default` suits an embedded one.
#[derive(Clone)]
pub struct DispatcherOptions {
    /// Its name in logs and on the status page.
    pub name: String,
    /// All timeouts.
    pub timing: Timing,
    /// The strategy until somebody sets another, which is then kept in the store.
    pub strategy: StrategyName,
    /// The maintainer to ping. Without one nobody counts messages, and `lru` and `fair` fall back to `fifo`.
    pub maintainer: MaintainerLink,
    /// Accounts that get more than one turn per round of `fair`.
    pub weights: HashMap<AccountId, u32>,
    /// Bulk writes in flight at once, at most: a second is begun when many calls wait, or some for 10 ms.
    pub committers: usize,
    /// The wall clock that stamps records.
    pub clock: Arc<dyn Clock>,
    /// Where its metrics are registered: that of the process. There may be one dispatcher in it.
    pub registry: prometheus::Registry,
}

impl Default for DispatcherOptions {
    fn default() -> Self {
        Self {
            name: format!("dispatcher-{}", std::process::id()),
            timing: Timing::default(),
            strategy: StrategyName::Lru,
            maintainer: MaintainerLink::None,
            weights: HashMap::new(),
            committers: 3,
            clock: Arc::new(SystemClock),
            registry: prometheus::Registry::new(),
        }
    }
}

/// A dispatcher that cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The timeouts do not fit together.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// The store does not answer.
    #[error("dispatcher cannot read the queue states: {0}")]
    Storage(#[from] StorageError),
    /// The store took too long.
    #[error("dispatcher got no queue states from the store within {0:?}; is it up?")]
    Timeout(Duration),
    /// The metrics cannot be set up.
    #[error("dispatcher cannot set up its metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The client that pings the maintainer cannot be set up.
    #[error("dispatcher cannot set up the ping of the maintainer: {0}")]
    Ping(String),
}

/// An operator's call that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// There is no such queue.
    #[error("queue `{0}` is unknown to the dispatcher")]
    UnknownQueue(QueueName),
    /// The query asks for something that does not exist.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The dispatcher or its store cannot be reached; try again.
    #[error("dispatcher is unavailable: {0}")]
    Unavailable(String),
    /// The request was refused as wrong.
    #[error("dispatcher refused the request: {0}")]
    Refused(String),
}

impl From<LeaseError> for AdminError {
    fn from(e: LeaseError) -> Self {
        match e {
            LeaseError::UnknownQueue(queue) => Self::UnknownQueue(queue),
            LeaseError::Unavailable(cause) => Self::Unavailable(cause),
            other => Self::Refused(other.to_string()),
        }
    }
}
