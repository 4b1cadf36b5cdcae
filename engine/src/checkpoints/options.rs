//! How checkpoints are taken, and what state may use.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use galerna_state::{CheckpointStore, Clock, Spill, SpillError, WallClock};

/// How the checkpoints of a topology are taken.
#[derive(Clone)]
pub struct CheckpointOptions {
    /// Where they are; of this topology alone.
    pub store: Arc<dyn CheckpointStore>,
    /// How long from the beginning of one to that of the next. 1 s unless set. It is taken earlier when spouts can emit nothing before
    /// acks are sent.
    pub interval: Duration,
    /// How many are kept. 3 unless set.
    pub keep: NonZeroUsize,
    /// For how long after its ack a source may still deliver a message again, as the ack did not arrive: so long its id is known, and
    /// in the checkpoints. 10 s unless set.
    pub redelivery: Duration,
    /// For how long after a start a source may deliver messages again that the process before has worked on: longer than a source takes
    /// to give up on a process that is gone. The ids that the restored checkpoint has in doubt are known for so long, or for
    /// `redelivery` if that is longer. 10 min unless set, which is enough for leased queues whose leases last a minute.
    pub restored_redelivery: Duration,
    /// How many acks each spout task may keep back for a commit: with more of them it emits nothing. 1,000,000 unless set.
    pub held_acks: usize,
    /// How long one may take before the log says who keeps it waiting. 60 s unless set.
    pub slow_after: Duration,
    /// Whether the topology starts although the checkpoint has state of components that it does not have, or that keep none: that
    /// state is lost then. No unless set.
    pub drop_orphaned: bool,
}

impl CheckpointOptions {
    /// Checkpoints in this store, with the defaults.
    pub fn new(store: impl CheckpointStore + 'static) -> Self {
        Self::shared(Arc::new(store))
    }

    /// As [`new`](Self::new), in a store that others have too.
    pub fn shared(store: Arc<dyn CheckpointStore>) -> Self {
        Self {
            store,
            interval: Duration::from_secs(1),
            keep: NonZeroUsize::MIN.saturating_add(2),
            redelivery: Duration::from_secs(10),
            restored_redelivery: Duration::from_secs(600),
            held_acks: 1_000_000,
            slow_after: Duration::from_secs(60),
            drop_orphaned: false,
        }
    }

    /// Sets the interval.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }
}

impl fmt::Debug for CheckpointOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointOptions")
            .field("interval", &self.interval)
            .field("keep", &self.keep)
            .field("redelivery", &self.redelivery)
            .finish_non_exhaustive()
    }
}

/// Makes the place for keys of one task that memory has no room for, by component and task.
pub type SpillPlaces = Arc<dyn Fn(&str, usize) -> Result<Box<dyn Spill>, SpillError> + Send + Sync>;

/// What the state of components may use.
#[derive(Clone)]
pub struct KeyedStateOptions {
    /// Bytes in memory of each component, over all of its tasks. 256 MiB unless set.
    pub budget_bytes: usize,
    /// Where keys go beyond that. Nowhere unless set: more is an error of the tuple then.
    pub spill: Option<SpillPlaces>,
    /// What times to live are counted by. The time of day unless set.
    pub clock: Arc<dyn Clock>,
}

impl Default for KeyedStateOptions {
    fn default() -> Self {
        Self { budget_bytes: 256 << 20, spill: None, clock: Arc::new(WallClock) }
    }
}

impl fmt::Debug for KeyedStateOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedStateOptions")
            .field("budget_bytes", &self.budget_bytes)
            .field("spills", &self.spill.is_some())
            .finish_non_exhaustive()
    }
}
