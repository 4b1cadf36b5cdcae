//! Checkpoints of a running topology: state, the moment that all of it is of, and acks that wait for it.
//!
//! A checkpoint begins with a **barrier** that every spout task sends behind what it has emitted. A task passes it on when it has
//! come from all tasks that send to it; what comes from those that are ahead waits meanwhile ([`Alignment`]). At that moment its
//! state is of all tuples before the barrier and of none behind it, and a snapshot is taken. When the snapshots of all tasks are
//! durable, the checkpoint is committed.
//!
//! A task's **epoch** is how many barriers it has passed. What it tells a ledger says its epoch `e`: the tuple's effect on the task's
//! state is in checkpoint `e + 1`. So a root is in the checkpoint after the greatest epoch of those that settled it, and its source
//! is told when that one is committed. Its id goes into the manifest, so that the message has no second effect when it is delivered
//! again ([`KnownIds`]).
//!
//! Feedback edges carry no barriers: a cycle would wait for itself.

mod alignment;
mod coordinator;
mod known_ids;
mod options;
mod restore;
mod status;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use galerna_lock::Mutex;
use galerna_state::{CheckpointId, CheckpointStore, Part, StateError, TaskState};
use galerna_topology::Fault;
use tokio::sync::{Notify, mpsc, oneshot};

pub(crate) use self::alignment::Alignment;
use self::coordinator::Request;
pub(crate) use self::coordinator::{Coordinator, Incoming};
pub(crate) use self::known_ids::KnownIds;
pub use self::options::{CheckpointOptions, KeyedStateOptions, SpillPlaces};
pub(crate) use self::restore::{Restored, restore};
pub(crate) use self::status::Status;
pub use self::status::{CheckpointFailure, CheckpointMetrics, CheckpointReport};
use crate::plan::TaskPlan;

/// What a task says when it has passed a barrier.
pub(crate) struct Passed {
    pub(crate) task: TaskPlan,
    /// The snapshot of its state, if it keeps any.
    pub(crate) part: Option<Result<Part, PartError>>,
}

/// Why a task has no snapshot.
#[derive(Debug)]
pub(crate) enum PartError {
    /// Its state could not be read.
    State(StateError),
    /// Its bolt said no, or panicked.
    Bolt(Fault),
}

/// What the coordinator says to a spout's task.
pub(crate) enum SpoutCommand {
    /// Send this barrier behind what was emitted.
    Barrier(u64),
    /// Take in all that the ledger has been told, and answer.
    Settle(oneshot::Sender<()>),
    /// This checkpoint is committed.
    Committed(u64),
}

/// The checkpoint that is being taken.
#[derive(Debug, Clone, Copy)]
struct Current {
    id: CheckpointId,
    /// The last one that was committed.
    base: Option<CheckpointId>,
}

/// What the tasks of a topology with checkpoints share.
pub(crate) struct Checkpoints {
    current: Mutex<Option<Current>>,
    /// Has room for one message of each task.
    passed: mpsc::Sender<Passed>,
    /// Those who want one now.
    requests: mpsc::Sender<Request>,
    /// Somebody waits for a commit.
    wanted: Notify,
    /// By component; of spouts.
    pub(crate) known: Vec<KnownIds>,
    /// Where they are.
    pub(crate) store: Arc<dyn CheckpointStore>,
    /// Acks that may wait in each spout task.
    pub(crate) most_held: usize,
    pub(crate) status: Arc<Status>,
}

impl Checkpoints {
    /// A task has passed the barrier that is on its way.
    pub(crate) fn passed(&self, task: TaskPlan, state: Option<&TaskState>, prepared: Result<(), Fault>) {
        let current = *self.current.lock();
        let part = state.zip(current).map(|(state, current)| match prepared {
            Ok(()) => {
                let taken = catch_unwind(AssertUnwindSafe(|| state.snapshot(current.id, current.base)));
                match taken {
                    Ok(taken) => taken.map_err(PartError::State),
                    Err(panic) => Err(PartError::Bolt(Fault::panicked(&*panic))),
                }
            }
            Err(fault) => Err(PartError::Bolt(fault)),
        });
        // Only when the topology ends is there nobody who listens.
        let _ = self.passed.try_send(Passed { task, part });
    }

    /// Takes a checkpoint of all that is done by now.
    pub(crate) async fn request(&self) -> Result<CheckpointReport, CheckpointFailure> {
        let (request, answer) = oneshot::channel();
        self.requests.send(request).await.map_err(|_| CheckpointFailure::Ended)?;
        answer.await.unwrap_or(Err(CheckpointFailure::Ended))
    }

    /// A spout waits for acks that wait for a commit.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }
}

/// How many barriers a task has passed. Clones are the same count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Epoch(Arc<AtomicU64>);

impl Epoch {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, epoch: u64) {
        self.0.store(epoch, Ordering::Release);
    }
}
