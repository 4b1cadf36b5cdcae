//! What can be seen and switched of a topology that runs, by whoever does not own it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use galerna_state::{CheckpointId, DeclaredState, UpgradePlan, plan_declared};
use galerna_topology::{Clock, Topology};

use crate::checkpoints::{CheckpointFailure, CheckpointReport};
use crate::metrics::{Described, Metrics, read};
use crate::shared::{Mode, Shared};
use crate::spout_worker::SpoutProgress;

/// A topology that runs, to be seen and switched: whoever owns its [`Running`](crate::Running) ends it. Clones are of the same
/// topology. It may be kept when the topology has ended: then nothing it switches has an effect.
#[derive(Clone)]
pub struct TopologyHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) started: Duration,
    pub(crate) states: Arc<[Arc<SpoutProgress>]>,
}

impl TopologyHandle {
    /// Lets the spouts emit.
    pub fn activate(&self) {
        self.switch(Mode::Active);
    }

    /// Has the spouts stop emitting. What is on its way goes on, and its acks and fails arrive.
    pub fn deactivate(&self) {
        self.switch(Mode::Inactive);
    }

    /// Whether the spouts may emit.
    pub fn is_active(&self) -> bool {
        *self.shared.mode.borrow() == Mode::Active
    }

    fn switch(&self, to: Mode) {
        self.shared.mode.send_if_modified(|mode| {
            let changed = *mode != to && matches!(*mode, Mode::Active | Mode::Inactive);
            if changed {
                *mode = to;
            }
            changed
        });
    }

    /// The topology.
    pub fn topology(&self) -> &Topology {
        &self.shared.topology
    }

    /// The topology's clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// All counts and latencies now.
    pub fn metrics(&self) -> Metrics {
        let shared = &self.shared;
        let ids: Vec<Arc<str>> = shared.topology.components().iter().map(|c| c.id.clone()).collect();
        let uptime = shared.clock.now().saturating_sub(self.started);
        let read_one = |(at, component): (usize, &galerna_topology::Component)| {
            let described = Described {
                component,
                fused_with: shared.plan.fused_with[at].map(|before| ids[before].to_string()),
                queued: (0..component.settings.tasks()).map(|task| shared.loads[at].of(task)).sum(),
                hot_key: shared.loads[at].hot_keys().hottest(),
                clock: &*shared.clock,
                ids: &ids,
                executors: &shared.executors[at],
                task_metrics: &shared.task_metrics[at],
            };
            read(&described, &shared.stats[at])
        };
        Metrics {
            topology: shared.topology.name().to_string(),
            uptime_ms: uptime.as_millis() as u64,
            queued_bytes: shared.lanes.queued_bytes() as u64,
            checkpoints: shared.checkpoints.as_ref().map(|checkpoints| {
                let held: usize = self.states.iter().map(|state| state.held.load(Ordering::Relaxed)).sum();
                checkpoints.status.read(&*shared.clock, held as u64)
            }),
            components: shared.topology.components().iter().enumerate().map(read_one).collect(),
        }
    }

    /// Takes a checkpoint now: of all that the topology has done by the time of its barriers. Resolves when it is committed. What it
    /// covers is acked to its sources soon after. Cancel-safe: dropped, the checkpoint is taken all the same.
    ///
    /// # Errors
    /// [`CheckpointFailure::Off`] in a topology without checkpoints, or why it came to nothing. The topology runs on.
    pub async fn checkpoint(&self) -> Result<CheckpointReport, CheckpointFailure> {
        match &self.shared.checkpoints {
            Some(checkpoints) => checkpoints.request().await,
            None => Err(CheckpointFailure::Off),
        }
    }

    /// The states that its components declare, by component and name.
    pub fn declared_states(&self) -> Vec<DeclaredState> {
        crate::running::declared(&self.shared)
    }

    /// What a topology that declares these states ([`Engine::declared_states`](crate::Engine::declared_states)) would make of the last
    /// checkpoint that is stored, and which that is.
    ///
    /// # Errors
    /// [`CheckpointFailure::Off`] in a topology without checkpoints, [`CheckpointFailure::None`] when there is none yet, or that the store
    /// failed.
    pub async fn plan_upgrade(
        &self,
        declared: &[DeclaredState],
    ) -> Result<(CheckpointId, UpgradePlan), CheckpointFailure> {
        let Some(checkpoints) = &self.shared.checkpoints else { return Err(CheckpointFailure::Off) };
        let latest = checkpoints.store.latest().await?.ok_or(CheckpointFailure::None)?;
        Ok((latest.id, plan_declared(&latest, declared)))
    }

    /// The last checkpoint that was committed or, before there is one, restored.
    pub fn last_checkpoint(&self) -> Option<CheckpointId> {
        self.shared.checkpoints.as_ref()?.status.last()
    }

    pub(crate) fn pending(&self) -> usize {
        self.states.iter().map(|state| state.pending.load(Ordering::Acquire)).sum()
    }

    /// Resolves when every spout has said that it is done, every root has ended and nothing is on its way; or when the topology has been
    /// drained, stopped or dropped. Cancel-safe.
    pub async fn finished(&self) {
        let ended = || self.shared.ended.load(Ordering::Acquire);
        let done = || self.states.iter().all(|state| state.done.load(Ordering::Acquire));
        self.shared
            .in_flight
            .wait_until(|| ended() || done() && self.pending() == 0 && self.shared.in_flight.is_idle())
            .await;
    }
}

impl std::fmt::Debug for TopologyHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopologyHandle")
            .field("topology", self.shared.topology.name())
            .finish_non_exhaustive()
    }
}
