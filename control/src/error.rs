//! What can go wrong with running topologies under names.

use std::sync::Arc;

use galerna_engine::{CheckpointFailure, EngineError, RebalanceError};

/// Why something was not done with a topology.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No topology has this name.
    #[error("no topology is called `{0}`: GET /api/v1/topologies lists those that run here")]
    Unknown(Arc<str>),
    /// A topology of this name runs.
    #[error("a topology called `{0}` runs already: kill it first, or choose another name")]
    Taken(Arc<str>),
    /// A name that cannot be one.
    #[error("`{name}` cannot be the name of a topology: {reason}")]
    Name {
        /// As it was given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It has ended, or is ending.
    #[error("topology `{name}` is {status}: nothing can be changed any more")]
    Ending {
        /// The topology.
        name: Arc<str>,
        /// What became of it.
        status: &'static str,
    },
    /// Its executors were not changed.
    #[error("topology `{name}` was not rebalanced: {cause}")]
    Rebalance {
        /// The topology.
        name: Arc<str>,
        /// What the engine says.
        cause: RebalanceError,
    },
    /// There is no checkpoint.
    #[error("topology `{name}`: {cause}")]
    Checkpoint {
        /// The topology.
        name: Arc<str>,
        /// What the engine says.
        cause: CheckpointFailure,
    },
    /// The new program would not start from its checkpoint.
    #[error("topology `{name}` is not upgraded, and runs on: {advice}")]
    Upgrade {
        /// The topology.
        name: Arc<str>,
        /// What to do.
        advice: String,
    },
    /// Bounds between which nothing can be scaled.
    #[error("`{component}` cannot be scaled: {reason}")]
    Autoscale {
        /// The component.
        component: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// It could not be started.
    #[error("topology `{name}` was not started: {cause}")]
    Start {
        /// The topology.
        name: Arc<str>,
        /// What the engine says.
        cause: EngineError,
    },
}
