//! What all tasks of a running topology share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use galerna_state::TaskState;
use galerna_topology::runtime::{AckSender, BatchPool, Content, Loads, OutgoingBatch};
use galerna_topology::{Clock, Failure, FailureKind, Fault, TaskMetrics, Topology};
use tokio::sync::watch;

use crate::ack_sender::{Ledgers, TaskAckSender};
use crate::checkpoints::{Checkpoints, Epoch};
use crate::executors::Executors;
use crate::faults::FaultReporter;
use crate::in_flight::InFlight;
use crate::lanes::{Lanes, Message, NotSent, SentBy};
use crate::metrics::{State, TaskStats, add};
use crate::plan::{Plan, Target, TaskPlan};
use crate::stable_ids::StableIds;

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

/// What all tasks share.
pub(crate) struct Shared {
    pub(crate) topology: Topology,
    pub(crate) plan: Plan,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) mode: watch::Sender<Mode>,
    /// Whether it runs no more.
    pub(crate) ended: AtomicBool,
    /// By component and task.
    pub(crate) stats: Vec<Vec<Arc<TaskStats>>>,
    /// What the tasks measure themselves, by component and task.
    pub(crate) task_metrics: Vec<Vec<Arc<TaskMetrics>>>,
    /// By component.
    pub(crate) loads: Vec<Loads>,
    /// By component and subscription.
    pub(crate) pools: Vec<Vec<BatchPool>>,
    pub(crate) lanes: Lanes,
    /// By component; those that are fused have the same.
    pub(crate) executors: Vec<Arc<Executors>>,
    pub(crate) ledgers: Ledgers,
    /// By spout task.
    pub(crate) stable_ids: Arc<[StableIds]>,
    /// By component and task: the state of those that keep any.
    pub(crate) states: BTreeMap<(usize, usize), TaskState>,
    /// What times to live are counted by.
    pub(crate) state_clock: Arc<dyn galerna_state::Clock>,
    /// By component and task: how many barriers it has passed.
    pub(crate) epochs: Vec<Vec<Epoch>>,
    /// What tasks share if checkpoints are taken.
    pub(crate) checkpoints: Option<Checkpoints>,
}

impl Shared {
    /// A task has passed a barrier: it is in that epoch from now on, and its state is as it is to be in the checkpoint.
    pub(crate) fn passed(&self, task: TaskPlan, epoch: u64, prepared: Result<(), Fault>) {
        self.epochs[task.component][task.task].set(epoch);
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.passed(task, self.states.get(&(task.component, task.task)), prepared);
        }
    }

    /// Sends batches of a bolt to other workers in their order, waiting where there is no room.
    pub(crate) async fn send_all(&self, batches: &mut Vec<OutgoingBatch>, from: &TaskStats) {
        for batch in batches.drain(..) {
            if let Err(message) = self.try_send(batch, SentBy::Bolt) {
                let target = self.plan.targets[message.target as usize];
                from.set_state(State::DownstreamFull, target.component);
                self.send(message, SentBy::Bolt).await;
                from.set_state(State::Emitting, 0);
            }
        }
    }

    /// Sends a batch that [`try_send`](Self::try_send) gave back, when there is room.
    pub(crate) async fn send(&self, message: Message, by: SentBy) {
        let target = self.plan.targets[message.target as usize];
        if self.lanes.send(target.worker, message, by).await.is_err() {
            self.lost(target);
        }
    }

    /// What tells of a task's errors.
    pub(crate) fn fault_reporter(&self, task: TaskPlan) -> FaultReporter {
        let component = self.topology.components()[task.component].id.clone();
        let stats = self.stats[task.component][task.task].clone();
        FaultReporter::new(component, task.task, stats, self.clock.clone())
    }

    /// Sends a batch if there is room, or gives it back.
    pub(crate) fn try_send(&self, batch: OutgoingBatch, by: SentBy) -> Result<(), Message> {
        let message = Message::new(batch);
        let to = self.plan.targets[message.target as usize];
        self.in_flight.begin(1);
        self.loads[to.component].add(to.task);
        let sent = if self.topology.components()[to.component].inputs[to.input].feedback {
            self.lanes.send_back(to.worker, message)
        } else {
            self.lanes.try_send(to.worker, message, by)
        };
        match sent {
            Ok(()) => Ok(()),
            Err(NotSent::Full(message)) => Err(message),
            Err(NotSent::Closed) => {
                self.lost(to);
                Ok(())
            }
            Err(NotSent::Refused { message, first, limit }) => {
                self.refuse(to, message, first, limit);
                Ok(())
            }
        }
    }

    /// Fails what a feedback edge has no room for. It counts as failed by the bolt that it was on its way to.
    #[cold]
    fn refuse(&self, to: Target, message: Message, first: bool, limit: usize) {
        let component = &self.topology.components()[to.component];
        // Nothing else goes by feedback edges.
        let Content::Rows(tuples) = message.content else { return self.lost(to) };
        let mut lineage = component.inputs[to.input].discard(tuples);
        let fault = Fault::transient(format!(
            "the feedback edges hold {limit} bytes, as many as they may: if what goes round multiplies, let less of it go \
             round, or raise `feedback_bytes`"
        ));
        if first {
            tracing::warn!(
                component = &*component.id,
                reason = fault.reason(),
                "tuples on a feedback edge fail"
            );
        }
        let acks = TaskAckSender {
            component: component.id.clone(),
            stats: self.stats[to.component][to.task].clone(),
            ledgers: self.ledgers.clone(),
            stable_ids: self.stable_ids.clone(),
            clock: self.clock.clone(),
            in_flight: self.in_flight.clone(),
            epoch: self.epochs[to.component][to.task].clone(),
            // The bolt has not taken them.
            waits: false,
        };
        let failure = Failure { kind: FailureKind::Error, fault, component: component.id.clone() };
        acks.fail(&mut lineage, u64::from(message.rows), &failure);
        self.lost(to);
    }

    /// What a worker is to do next: what was sent to it, or else to another one of its component that waits or is slow.
    pub(crate) fn next_message(&self, worker: usize) -> Option<Message> {
        if let Some(message) = self.lanes.try_take(worker) {
            let target = self.plan.targets[message.target as usize];
            self.loads[target.component].take(target.task);
            return Some(message);
        }
        let mut message = self.lanes.try_take_from_others(worker)?;
        let target = self.plan.targets[message.target as usize];
        self.loads[target.component].take(target.task);
        message.target = self.plan.address(target, worker);
        Some(message)
    }

    /// Puts back what is left of a batch that was begun.
    pub(crate) fn put_back(&self, worker: usize, message: Message) {
        let target = self.plan.targets[message.target as usize];
        self.in_flight.begin(1);
        self.loads[target.component].add(target.task);
        self.lanes.put_back(worker, message);
    }

    /// A worker has ended: what it has not taken is gone.
    pub(crate) fn close_lane(&self, worker: usize) {
        for message in self.lanes.close(worker) {
            self.lost(self.plan.targets[message.target as usize]);
        }
    }

    /// The receiver has ended (it was aborted): the batch is gone, and its roots fail when the spouts stop.
    pub(crate) fn lost(&self, to: Target) {
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
