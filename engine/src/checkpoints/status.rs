//! What became of checkpoints.

use std::sync::Arc;
use std::time::Duration;

use galerna_lock::Mutex;
use galerna_state::{CheckpointError, CheckpointId};
use galerna_topology::Clock;
use serde::Serialize;

/// A checkpoint that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Its number.
    pub id: CheckpointId,
    /// How long it took, from its barriers to its commit.
    pub took: Duration,
    /// Bytes that were written for it, its manifest aside.
    pub written_bytes: u64,
    /// Bytes of all state in it.
    pub state_bytes: u64,
    /// Messages in it whose acks may not have reached their sources.
    pub in_doubt: usize,
}

/// Why there is no such checkpoint. The topology runs on: acks wait, and the next one is tried at its time.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointFailure {
    /// None are taken.
    #[error("the topology takes no checkpoints: say where they are to be in `EngineOptions::checkpoints`")]
    Off,
    /// None is stored yet.
    #[error("there is no checkpoint yet: take one first")]
    None,
    /// The topology ends.
    #[error("the topology ended before the checkpoint was committed")]
    Ended,
    /// The store failed.
    #[error("checkpoint: {0}")]
    Store(Arc<CheckpointError>),
    /// A task has no snapshot.
    #[error("checkpoint: task {task} of `{component}` has no snapshot: {reason}")]
    Task {
        /// The component.
        component: Arc<str>,
        /// The index of the task.
        task: usize,
        /// What went wrong, and what to do.
        reason: String,
    },
}

impl From<CheckpointError> for CheckpointFailure {
    fn from(error: CheckpointError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// What became of a topology's checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckpointMetrics {
    /// Those that were committed since the topology was submitted.
    pub committed: u64,
    /// Those that came to nothing.
    pub failed: u64,
    /// The number of the last one that was committed, or restored.
    pub last: Option<u64>,
    /// How many milliseconds ago the last one was committed, or the topology submitted.
    pub age_ms: u64,
    /// How many milliseconds it took.
    pub took_ms: u64,
    /// Bytes of state in it.
    pub state_bytes: u64,
    /// Messages in it whose acks may not have reached their sources.
    pub in_doubt: u64,
    /// Acks that wait for a commit.
    pub held_acks: u64,
    /// Why the last one came to nothing, if it did.
    pub last_error: Option<String>,
    /// Spouts that gave roots without a stable id: what they deliver again after the process ended counts again.
    pub at_least_once: Vec<String>,
}

/// Collects that.
pub(crate) struct Status {
    state: Mutex<StatusState>,
}

struct StatusState {
    committed: u64,
    failed: u64,
    last: Option<CheckpointId>,
    at: Duration,
    report: Option<CheckpointReport>,
    last_error: Option<String>,
    without_ids: Vec<Arc<str>>,
}

impl Status {
    pub(crate) fn new(restored: Option<CheckpointId>, now: Duration) -> Self {
        let state = StatusState {
            committed: 0,
            failed: 0,
            last: restored,
            at: now,
            report: None,
            last_error: None,
            without_ids: Vec::new(),
        };
        Self { state: Mutex::new(state) }
    }

    /// A checkpoint is committed. What failed before is over.
    pub(crate) fn committed(&self, report: CheckpointReport, now: Duration) {
        let mut state = self.state.lock();
        state.committed += 1;
        state.last = Some(report.id);
        state.at = now;
        if let Some(error) = state.last_error.take() {
            tracing::info!(checkpoint = %report.id, after = error, "checkpoints are committed again");
        }
        state.report = Some(report);
    }

    /// A checkpoint came to nothing. It is logged when it is another failure than the last one.
    pub(crate) fn failed(&self, failure: &CheckpointFailure) {
        let mut state = self.state.lock();
        state.failed += 1;
        let reason = failure.to_string();
        if state.last_error.as_ref() != Some(&reason) {
            tracing::warn!(reason, "no checkpoint: acks wait until one is committed");
            state.last_error = Some(reason);
        }
    }

    /// A spout gives roots without a stable id.
    pub(crate) fn without_ids(&self, spout: &Arc<str>) {
        let mut state = self.state.lock();
        if !state.without_ids.contains(spout) {
            tracing::warn!(
                spout = &**spout,
                "its messages have no stable ids: what it delivers again after the process ended counts again in state"
            );
            state.without_ids.push(spout.clone());
        }
    }

    pub(crate) fn last(&self) -> Option<CheckpointId> {
        self.state.lock().last
    }

    pub(crate) fn read(&self, clock: &dyn Clock, held_acks: u64) -> CheckpointMetrics {
        let state = self.state.lock();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let report = state.report.as_ref();
        CheckpointMetrics {
            committed: state.committed,
            failed: state.failed,
            last: state.last.map(|id| id.0),
            age_ms: millis(clock.now().saturating_sub(state.at)),
            took_ms: report.map_or(0, |report| millis(report.took)),
            state_bytes: report.map_or(0, |report| report.state_bytes),
            in_doubt: report.map_or(0, |report| report.in_doubt as u64),
            held_acks,
            last_error: state.last_error.clone(),
            at_least_once: state.without_ids.iter().map(ToString::to_string).collect(),
        }
    }
}
