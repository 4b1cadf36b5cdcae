//! Why a call has no result.

use std::sync::Arc;
use std::time::Duration;

use galerna_topology::FaultKind;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrpcError {
    /// No topology has a spout of this function.
    #[error("there is no function `{0}`: submit a topology with a `DrpcSpout` of it")]
    Unknown(Arc<str>),
    /// Its topology is not active, or ends.
    #[error("the topology of `{0}` is not active; activate it, or try again later")]
    Inactive(Arc<str>),
    /// As many calls are in flight as may be.
    #[error("`{function}` has {limit} calls in flight, as many as it may; try again in a moment")]
    Busy {
        /// The function.
        function: Arc<str>,
        /// How many may be.
        limit: usize,
    },
    /// There was no result in time.
    #[error("`{function}` gave no result in {waited:?}; it may still be at work")]
    Deadline {
        /// The function.
        function: Arc<str>,
        /// How long was waited.
        waited: Duration,
    },
    /// A tuple of the call failed.
    #[error("`{component}` failed: {reason}")]
    Failed {
        /// Where.
        component: Arc<str>,
        /// Why.
        reason: String,
        /// Whether trying again can help.
        kind: FaultKind,
    },
    /// All tuples of the call were acked, and none came to `ReturnResults`.
    #[error("`{0}` ended without a result: no tuple of the call came to `ReturnResults`")]
    NoResult(Arc<str>),
}
