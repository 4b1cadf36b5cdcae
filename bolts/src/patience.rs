//! Waiting out a store or a broker that is away for a moment.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use galerna_broker::BrokerError;
use galerna_storage::StorageError;
use galerna_topology::{Clock, Fault};

/// How long a bolt tries again by itself before it fails its tuples. Waiting here costs nothing but time; a failed tuple
/// costs a redelivery.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(20);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// An error that may pass by itself.
pub(crate) trait Passing: std::error::Error {
    /// Whether trying again can help.
    fn may_pass(&self) -> bool;
}

impl Passing for StorageError {
    fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

impl Passing for BrokerError {
    fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Timeout { .. } | Self::Blocked(_) | Self::Unconfirmed { .. }
        )
    }
}

/// Why an attempt was given up.
#[derive(Debug)]
pub(crate) enum GivenUp<E> {
    /// Still away after all the patience.
    Away(E),
    /// Trying again cannot help.
    Failed(E),
}

impl<E: Passing> GivenUp<E> {
    /// The fault to fail tuples with: unavailable when it is not the tuples' fault.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Away(error) => Fault::unavailable(error.to_string()),
            Self::Failed(error) => Fault::transient(error.to_string()),
        }
    }
}

/// Calls `attempt` until it succeeds, fails for good, or `patience` is over, with growing pauses; `waiting` is called before
/// each pause.
pub(crate) async fn patiently<T, E: Passing, F: Future<Output = Result<T, E>>>(
    clock: &Arc<dyn Clock>,
    patience: Duration,
    mut waiting: impl FnMut(&E),
    mut attempt: impl FnMut() -> F,
) -> Result<T, GivenUp<E>> {
    let deadline = clock.now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if !error.may_pass() => return Err(GivenUp::Failed(error)),
            Err(error) if clock.now() + pause > deadline => return Err(GivenUp::Away(error)),
            Err(error) => {
                waiting(&error);
                let until = clock.now() + pause;
                clock.sleep_until(until).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
