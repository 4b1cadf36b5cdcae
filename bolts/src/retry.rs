//! Trying again while a store or a broker is unavailable for a moment.
//!
//! The loop is our own: the budget counts what attempts take, too, by the topology's clock, and tuples are kept from timing out
//! at each pause.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use galerna_broker::BrokerError;
use galerna_retry::Pauses;
use galerna_storage::StorageError;
use galerna_topology::{Clock, Fault};

/// How long a bolt tries again by itself before it fails its tuples. Waiting here costs nothing but time; a failed tuple
/// costs a redelivery.
pub const DEFAULT_RETRY_BUDGET: Duration = Duration::from_secs(20);

const PAUSES: Pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(2));

/// An error that may be transient.
pub(crate) trait Transient: std::error::Error {
    /// Whether trying again can help.
    fn is_transient(&self) -> bool;
}

impl Transient for StorageError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

impl Transient for BrokerError {
    fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Timeout { .. } | Self::Blocked(_) | Self::Unconfirmed { .. }
        )
    }
}

/// Why no further attempt was made.
#[derive(Debug)]
pub(crate) enum RetryError<E> {
    /// Unavailable for as long as the budget lasted.
    Unavailable(E),
    /// Trying again cannot help.
    Permanent(E),
}

impl<E: Transient> RetryError<E> {
    /// The fault to fail tuples with: unavailable when it is not the tuples' fault.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Unavailable(error) => Fault::unavailable(error.to_string()),
            Self::Permanent(error) => Fault::transient(error.to_string()),
        }
    }
}

impl<E: Transient> From<RetryError<E>> for Fault {
    fn from(error: RetryError<E>) -> Self {
        error.fault()
    }
}

/// Calls `attempt` until it succeeds, fails for good, or the budget is spent, with growing pauses; `waiting` is called before
/// each pause.
pub(crate) async fn retry_within<T, E: Transient, F: Future<Output = Result<T, E>>>(
    clock: &Arc<dyn Clock>,
    budget: Duration,
    mut waiting: impl FnMut(&E),
    mut attempt: impl FnMut() -> F,
) -> Result<T, RetryError<E>> {
    let deadline = clock.now() + budget;
    let mut backoff = PAUSES.begin();
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if !error.is_transient() => return Err(RetryError::Permanent(error)),
            Err(error) => error,
        };
        let until = clock.now() + backoff.pause();
        if until > deadline {
            return Err(RetryError::Unavailable(error));
        }
        waiting(&error);
        clock.sleep_until(until).await;
    }
}
