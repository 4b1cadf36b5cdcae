//! The lease tasks of a spout: as many as there are queues with messages, and some that look for more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use galerna_lock::Mutex;
use galerna_model::QueueName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::task::LeaseTask;
use super::{Activity, Arrival, Parts};

/// How many tasks look for a queue with messages at a time, at most. Each asks the dispatcher, and opens a queue that may be empty.
const MOST_SEARCHING: usize = 16;
/// The least prefetch of a lease that is one of many.
const LEAST_PREFETCH: u16 = 16;
/// Queues that are remembered for their backlog.
const MOST_BUSY: usize = 64;

/// Starts and counts the lease tasks of one spout.
///
/// A task searches until a lease has given a message, and is productive until that lease ends. While a task is productive
/// another one searches in its place, up to [`LeasedOptions::leases`](super::LeasedOptions::leases) in all.
pub(super) struct LeasePool {
    parts: Parts,
    activity: watch::Receiver<Activity>,
    arrived: mpsc::Sender<Arrival>,
    most: usize,
    searching: usize,
    running: AtomicUsize,
    productive: AtomicUsize,
    /// None once the spout is closed.
    tasks: Mutex<Option<JoinSet<()>>>,
    /// The queues whose last lease ended before they were empty, the latest last.
    busy: Mutex<VecDeque<QueueName>>,
}

impl LeasePool {
    /// Starts the tasks that search.
    pub(super) fn start(
        parts: Parts,
        activity: watch::Receiver<Activity>,
        arrived: mpsc::Sender<Arrival>,
    ) -> Arc<Self> {
        let most = parts.options.leases.max(1);
        let pool = Arc::new(Self {
            parts,
            activity,
            arrived,
            most,
            searching: most.min(MOST_SEARCHING),
            running: AtomicUsize::new(0),
            productive: AtomicUsize::new(0),
            tasks: Mutex::new(Some(JoinSet::new())),
            busy: Mutex::default(),
        });
        pool.fill();
        pool
    }

    /// Starts tasks until enough of them search.
    fn fill(self: &Arc<Self>) {
        let mut tasks = self.tasks.lock();
        let Some(tasks) = tasks.as_mut() else { return };
        while let Some(ended) = tasks.try_join_next() {
            log_end(ended);
        }
        while self.searching() < self.searching && self.running.load(Relaxed) < self.most {
            let place = Place::new(self);
            let task = LeaseTask::new(self.parts.clone(), self.activity.clone(), self.arrived.clone(), place);
            tasks.spawn(task.run());
        }
    }

    fn searching(&self) -> usize {
        self.running.load(Relaxed).saturating_sub(self.productive.load(Relaxed))
    }

    /// Whether more leases can be had beside those held. Only then may one be kept whose queue is empty: others may wait.
    pub(super) fn has_room(&self) -> bool {
        self.running.load(Relaxed) < self.most
    }

    /// How many messages of this queue may be unsettled: less when there are many leases, so that all together do not fill
    /// the memory, unless its last lease had more to give than its share.
    pub(super) fn prefetch(&self, queue: &QueueName) -> u16 {
        let full = self.parts.options.prefetch.max(1);
        let productive = self.productive.load(Relaxed);
        if productive < MOST_SEARCHING || self.lock_busy().contains(queue) {
            return full;
        }
        let share = usize::from(full) * MOST_SEARCHING / productive;
        u16::try_from(share).unwrap_or(full).max(LEAST_PREFETCH).min(full)
    }

    /// Remembers whether a lease of this queue ended before the queue was empty.
    pub(super) fn note_backlog(&self, queue: &QueueName, backlog: bool) {
        let mut busy = self.lock_busy();
        busy.retain(|known| known != queue);
        if backlog {
            if busy.len() >= MOST_BUSY {
                busy.pop_front();
            }
            busy.push_back(queue.clone());
        }
    }

    fn lock_busy(&self) -> std::sync::MutexGuard<'_, VecDeque<QueueName>> {
        self.busy.lock()
    }

    /// The tasks, to wait for their end; none is started any more.
    pub(super) fn close(&self) -> JoinSet<()> {
        self.tasks.lock().take().unwrap_or_default()
    }
}

/// Logs a task that panicked.
pub(super) fn log_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a lease task of the leased-queue spout ended badly");
    }
}

/// The place of one task in the pool; given up when it is dropped.
pub(super) struct Place {
    pool: Arc<LeasePool>,
    productive: bool,
    /// It counts no longer.
    left: bool,
}

impl Place {
    fn new(pool: &Arc<LeasePool>) -> Self {
        pool.running.fetch_add(1, Relaxed);
        Self { pool: Arc::clone(pool), productive: false, left: false }
    }

    pub(super) fn pool(&self) -> &LeasePool {
        &self.pool
    }

    /// The lease has given a message: another task searches from now on.
    pub(super) fn begin_productive(&mut self) {
        if !std::mem::replace(&mut self.productive, true) {
            self.pool.productive.fetch_add(1, Relaxed);
            self.pool.fill();
        }
    }

    /// The lease is over: the task searches again.
    pub(super) fn end_productive(&mut self) {
        if std::mem::replace(&mut self.productive, false) {
            self.pool.productive.fetch_sub(1, Relaxed);
        }
    }

    /// Gives the place up if enough other tasks search; then the task is to end. Of many that ask at once, enough stay.
    pub(super) fn leave(&mut self) -> bool {
        let _one_at_a_time = self.pool.tasks.lock();
        if !self.left && self.pool.searching() > self.pool.searching {
            self.pool.running.fetch_sub(1, Relaxed);
            self.left = true;
        }
        self.left
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end_productive();
        if !self.left {
            self.pool.running.fetch_sub(1, Relaxed);
        }
    }
}
