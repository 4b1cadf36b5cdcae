//! What all tasks of a running topology share.

use std::sync::Arc;

use galerna_topology::runtime::{AnyBatch, BatchPool, Loads, OutgoingBatch};
use galerna_topology::{Clock, Topology};
use tokio::sync::{mpsc, watch};

use crate::faults::FaultReporter;
use crate::in_flight::InFlight;
use crate::metrics::{State, TaskStats, add};
use crate::plan::{Plan, TaskPlan};

/// What a running topology is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Inactive,
    Active,
    /// Nothing more is emitted; what is pending ends.
    Draining,
    /// Time is up: what is pending fails.
    Stopping,
}

/// A batch on its way to a worker.
pub(crate) struct Message {
    pub(crate) target: u32,
    /// Which task of the emitting component sent it.
    pub(crate) sender: u32,
    pub(crate) rows: u32,
    /// What the tuples weigh.
    pub(crate) bytes: usize,
    pub(crate) tuples: AnyBatch,
}

impl Message {
    pub(crate) fn into_batch(self) -> OutgoingBatch {
        let Self { target, sender, rows, bytes, tuples } = self;
        OutgoingBatch { target, sender, rows, bytes, tuples }
    }
}

/// The ways into a worker.
pub(crate) struct Inbox {
    pub(crate) queue: mpsc::Sender<Message>,
    /// For feedback edges: without a bound of its own, since what circulates is bounded by what is pending.
    pub(crate) feedback: mpsc::UnboundedSender<Message>,
}

/// What all tasks share.
pub(crate) struct Shared {
    pub(crate) topology: Topology,
    pub(crate) plan: Plan,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) mode: watch::Sender<Mode>,
    /// By component and task.
    pub(crate) stats: Vec<Vec<Arc<TaskStats>>>,
    /// By component.
    pub(crate) loads: Vec<Loads>,
    /// By component and subscription.
    pub(crate) pools: Vec<Vec<BatchPool>>,
    pub(crate) inboxes: Vec<Inbox>,
}

impl Shared {
    /// Sends batches to other workers in their order, waiting where a queue is full.
    pub(crate) async fn send_all(&self, batches: &mut Vec<OutgoingBatch>, from: &TaskStats) {
        for batch in batches.drain(..) {
            if let Err(message) = self.try_send(batch) {
                let target = self.plan.targets[message.target as usize];
                from.set_state(State::DownstreamFull, target.component);
                if self.inboxes[target.worker].queue.send(message).await.is_err() {
                    self.lost(target);
                }
                from.set_state(State::Emitting, 0);
            }
        }
    }

    /// What tells of a task's errors.
    pub(crate) fn fault_reporter(&self, task: TaskPlan) -> FaultReporter {
        let component = self.topology.components()[task.component].id.clone();
        let stats = self.stats[task.component][task.task].clone();
        FaultReporter::new(component, task.task, stats, self.clock.clone())
    }

    /// Sends a batch if there is room, or gives it back.
    pub(crate) fn try_send(&self, batch: OutgoingBatch) -> Result<(), Message> {
        let OutgoingBatch { target, sender, tuples, rows, bytes } = batch;
        let to = self.plan.targets[target as usize];
        let message = Message { target, sender, rows, bytes, tuples };
        self.in_flight.begin(1);
        self.loads[to.component].add(to.task);
        let inbox = &self.inboxes[to.worker];
        if self.topology.components()[to.component].inputs[to.input].feedback {
            if inbox.feedback.send(message).is_err() {
                self.lost(to);
            }
            return Ok(());
        }
        match inbox.queue.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(message)) => Err(message),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.lost(to);
                Ok(())
            }
        }
    }

    /// The receiver has ended (it was aborted): the batch is gone, and its roots fail when the spouts stop.
    pub(crate) fn lost(&self, to: crate::plan::Target) {
        self.loads[to.component].take(to.task);
        self.in_flight.end(1);
    }
}

/// Counts what a task's call emitted and takes the batches it left to send.
pub(crate) fn collect(
    stats: &TaskStats,
    staged: &mut galerna_topology::runtime::Staged,
    into: &mut Vec<OutgoingBatch>,
) {
    add(&stats.emitted, std::mem::take(&mut staged.emitted));
    add(&stats.transferred, std::mem::take(&mut staged.transferred));
    add(&stats.restarts, std::mem::take(&mut staged.restarts));
    add(&stats.errors, std::mem::take(&mut staged.panics));
    into.append(&mut staged.batches);
}
