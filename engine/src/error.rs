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
    /// Its state could not be made, or brought back from the last checkpoint.
    #[error("the state of topology `{topology}` could not be made ready: {reason}")]
    Restore {
        /// The topology.
        topology: Arc<str>,
        /// What went wrong, and what to do.
        reason: String,
    },
    /// The checkpoint has state that nobody would go on with.
    #[error(
        "checkpoint {checkpoint} of topology `{topology}` has state of `{components}`, which the topology does not have or which \
         keep none: give them their old ids back, or set `CheckpointOptions::drop_orphaned` to lose that state"
    )]
    OrphanedState {
        /// The topology.
        topology: Arc<str>,
        /// The number of the checkpoint.
        checkpoint: u64,
        /// The components.
        components: String,
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
