//! What can go wrong with running a topology.

use std::sync::Arc;
use std::time::Duration;

/// Why a topology could not be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A task's `open` or `prepare` failed.
    #[error("could not start task {task} of `{component}`: {reason}")]
    Start {
        /// The component.
        component: Arc<str>,
        /// The index of the task.
        task: usize,
        /// What the hook said.
        reason: String,
    },
    /// A task's `open` or `prepare` took too long.
    #[error(
        "task {task} of `{component}` was not ready to start after {waited:?}: make `open` or `prepare` give \
         up earlier, or raise `EngineOptions::start_timeout`"
    )]
    StartTimeout {
        /// The component.
        component: Arc<str>,
        /// The index of the task.
        task: usize,
        /// How long it was waited for.
        waited: Duration,
    },
}
