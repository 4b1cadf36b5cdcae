//! The ways into workers: a lane for each, bounded in batches, all of a topology together bounded in bytes.
//!
//! The tasks of a bolt whose tuples may go to any of them help each other: what waits in the lane of one that waits or is slow is
//! taken by one that has nothing to do. While all of them are quick nobody takes from others, so that shuffling stays even.

use std::collections::VecDeque;

use galerna_topology::runtime::{Content, OutgoingBatch};
use tokio::sync::{Notify, Semaphore};

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// A batch, or what else an edge carries, on its way to a worker.
pub(crate) struct Message {
    pub(crate) target: u32,
    /// Which task of the emitting component sent it.
    pub(crate) sender: u32,
    pub(crate) rows: u32,
    /// What the tuples weigh.
    pub(crate) bytes: usize,
    /// Whether the tuples are of the bolt's input type already: what is left of a batch that was begun.
    pub(crate) converted: bool,
    pub(crate) content: Content,
}

/// What a batch weighs at most, whatever its tuples say: so that what all of them weigh together can be counted.
const MOST_BYTES: usize = usize::MAX >> 24;

impl Message {
    pub(crate) fn new(batch: OutgoingBatch) -> Self {
        let OutgoingBatch { target, sender, content, rows, bytes } = batch;
        let bytes = bytes.min(MOST_BYTES);
        Self { target, sender, rows, bytes, converted: false, content }
    }
}

/// The bytes that may be queued in a topology.
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
    freed: Notify,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit: limit.max(1), freed: Notify::new() }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn is_spent(&self) -> bool {
        self.used.load(Ordering::Acquire) >= self.limit
    }

    fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    fn free(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.limit && before - bytes < self.limit {
            self.freed.notify_waiters();
        }
    }
}

/// The bytes that wait on feedback edges. Who sends there cannot wait, or a cycle would wait for itself; so beyond the limit it is
/// refused.
struct FeedbackBudget {
    used: AtomicUsize,
    limit: usize,
    /// Whether anything was refused since half of it was free.
    exceeded: AtomicBool,
}

impl FeedbackBudget {
    fn free(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        if before - bytes <= self.limit / 2 {
            self.exceeded.store(false, Ordering::Release);
        }
    }
}

/// What waits for one worker.
struct Lane {
    queued: Mutex<Queued>,
    /// Batches that there is room for.
    room: Semaphore,
    arrived: Notify,
    /// Its last batch was taken.
    emptied: Notify,
    /// Whether the worker has nothing to do.
    idle: AtomicBool,
    /// Whether the worker waits in the middle of a batch, or is slow.
    slow: AtomicBool,
    /// The lane of the first task of the same component, and how many there are, if they may help each other.
    group: (usize, usize),
    /// In the first lane of a group: how many of the group are slow, so that nobody looks for them in vain.
    slow_lanes: AtomicUsize,
}

#[derive(Default)]
struct Queued {
    /// With whether it holds room of the lane.
    batches: VecDeque<(Message, bool)>,
    /// For feedback edges: not bounded by the lane's room, but by the bytes that spouts may add to and, where what circulates
    /// multiplies, by those that feedback edges may hold.
    feedback: VecDeque<Message>,
    closed: bool,
}

/// Who sends, and so what the budget means for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SentBy {
    /// Emits nothing while the budget is spent; unless a barrier is waited for that it has not sent, which is behind what it sends.
    Spout {
        /// The last barrier that it has sent.
        sent: u64,
    },
    /// Always has room for one batch in an empty lane, whatever the budget: so what is queued goes on to its end.
    Bolt,
}

/// The lanes of all workers.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    budget: Budget,
    feedback: FeedbackBudget,
    /// The last barrier that spouts were told to send.
    barrier: AtomicUsize,
}

impl Lanes {
    /// For each worker the batches that its lane has room for, and the workers that may help each other: the first of them and
    /// how many. `feedback_bytes` are what feedback edges may hold.
    pub(crate) fn new(
        workers: impl Iterator<Item = (usize, (usize, usize))>,
        budget: Budget,
        feedback_bytes: usize,
    ) -> Self {
        let lane = |(room, group): (usize, (usize, usize))| Lane {
            queued: Mutex::default(),
            room: Semaphore::new(room.min(Semaphore::MAX_PERMITS)),
            arrived: Notify::new(),
            emptied: Notify::new(),
            idle: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            slow_lanes: AtomicUsize::new(0),
            group,
        };
        let feedback = FeedbackBudget {
            used: AtomicUsize::new(0),
            limit: feedback_bytes.max(1),
            exceeded: AtomicBool::new(false),
        };
        Self { lanes: workers.map(lane).collect(), budget, feedback, barrier: AtomicUsize::new(0) }
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.budget.used()
    }

    fn queued(&self, worker: usize) -> MutexGuard<'_, Queued> {
        self.lanes[worker].queued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends by a feedback edge, which never waits.
    pub(crate) fn send_back(&self, worker: usize, message: Message) -> Result<(), NotSent> {
        if self.feedback.used.load(Ordering::Acquire) >= self.feedback.limit {
            let first = !self.feedback.exceeded.swap(true, Ordering::AcqRel);
            return Err(NotSent::Refused { message, first, limit: self.feedback.limit });
        }
        let mut queued = self.queued(worker);
        if queued.closed {
            return Err(NotSent::Closed);
        }
        self.budget.add(message.bytes);
        self.feedback.used.fetch_add(message.bytes, Ordering::AcqRel);
        queued.feedback.push_back(message);
        drop(queued);
        self.lanes[worker].arrived.notify_one();
        Ok(())
    }

    /// Sends if there is room, or gives the message back.
    pub(crate) fn try_send(&self, worker: usize, message: Message, by: SentBy) -> Result<(), NotSent> {
        let lane = &self.lanes[worker];
        let Ok(permit) = lane.room.try_acquire() else { return Err(NotSent::full(lane, message)) };
        if self.budget.is_spent() && (self.is_bounded(by) || !self.is_empty(worker)) {
            return Err(NotSent::Full(message));
        }
        permit.forget();
        self.put(worker, message).map_err(|_| NotSent::Closed)
    }

    /// Sends when there is room. Gives the message back if the worker has ended.
    pub(crate) async fn send(&self, worker: usize, message: Message, by: SentBy) -> Result<(), Message> {
        let lane = &self.lanes[worker];
        loop {
            let freed = self.budget.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let emptied = lane.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            let Ok(permit) = lane.room.acquire().await else { return Err(message) };
            let bounded = self.is_bounded(by);
            if !self.budget.is_spent() || (!bounded && self.is_empty(worker)) {
                permit.forget();
                return self.put(worker, message);
            }
            drop(permit);
            if bounded {
                freed.await;
            } else {
                // Also when this lane runs empty.
                tokio::select! {
                    () = freed => {}
                    () = emptied => {}
                }
            }
        }
    }

    /// Whether the budget alone decides when this sends.
    fn is_bounded(&self, by: SentBy) -> bool {
        match by {
            SentBy::Spout { sent } => sent >= self.barrier.load(Ordering::SeqCst) as u64,
            SentBy::Bolt => false,
        }
    }

    /// Spouts are to send this barrier.
    pub(crate) fn expect_barrier(&self, number: u64) {
        self.barrier.store(number as usize, Ordering::SeqCst);
        self.budget.freed.notify_waiters();
    }

    /// A message that was taken waits for a barrier: it counts as queued.
    pub(crate) fn hold(&self, message: &Message) {
        self.budget.add(message.bytes);
    }

    /// It waits no more.
    pub(crate) fn release(&self, message: &Message) {
        self.budget.free(message.bytes);
    }

    fn is_empty(&self, worker: usize) -> bool {
        self.queued(worker).batches.is_empty()
    }

    fn put(&self, worker: usize, message: Message) -> Result<(), Message> {
        let mut queued = self.queued(worker);
        if queued.closed {
            return Err(message);
        }
        self.budget.add(message.bytes);
        queued.batches.push_back((message, true));
        drop(queued);
        let lane = &self.lanes[worker];
        lane.arrived.notify_one();
        if lane.slow.load(Ordering::SeqCst) {
            self.wake_idle(worker);
        }
        Ok(())
    }

    /// Puts back what is left of a batch that was taken, to be the next.
    pub(crate) fn put_back(&self, worker: usize, message: Message) {
        self.budget.add(message.bytes);
        self.queued(worker).batches.push_front((message, false));
    }

    /// What the worker is to do next.
    pub(crate) fn try_take(&self, worker: usize) -> Option<Message> {
        let mut queued = self.queued(worker);
        let (message, has_room) = match queued.batches.pop_front() {
            Some(batch) => batch,
            None => {
                let message = queued.feedback.pop_front()?;
                self.feedback.free(message.bytes);
                (message, false)
            }
        };
        let empty = queued.batches.is_empty();
        drop(queued);
        if empty {
            self.lanes[worker].emptied.notify_waiters();
        }
        self.taken(worker, &message, has_room);
        Some(message)
    }

    /// A batch that waits for another worker of the same component, which waits itself or is slow.
    pub(crate) fn try_take_from_others(&self, worker: usize) -> Option<Message> {
        let (first, count) = self.lanes[worker].group;
        if self.lanes[first].slow_lanes.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let others = (1..count).map(|step| first + (worker - first + step) % count);
        for other in others.filter(|other| self.lanes[*other].slow.load(Ordering::SeqCst)) {
            let mut queued = self.queued(other);
            let Some((message, has_room)) = queued.batches.pop_front() else { continue };
            let more = !queued.batches.is_empty();
            drop(queued);
            self.taken(other, &message, has_room);
            if more {
                self.wake_idle(other);
            } else {
                self.lanes[other].emptied.notify_waiters();
            }
            return Some(message);
        }
        None
    }

    fn taken(&self, worker: usize, message: &Message, has_room: bool) {
        self.budget.free(message.bytes);
        if has_room {
            self.lanes[worker].room.add_permits(1);
        }
    }

    /// Says whether the worker waits in the middle of a batch, or is slow: then others may take what waits for it.
    pub(crate) fn set_slow(&self, worker: usize, slow: bool) {
        let lane = &self.lanes[worker];
        if lane.group.1 <= 1 {
            return;
        }
        let slow_lanes = &self.lanes[lane.group.0].slow_lanes;
        match (lane.slow.swap(slow, Ordering::SeqCst), slow) {
            (false, true) => drop(slow_lanes.fetch_add(1, Ordering::SeqCst)),
            (true, false) => drop(slow_lanes.fetch_sub(1, Ordering::SeqCst)),
            _ => {}
        }
        if slow && !self.is_empty(worker) {
            self.wake_idle(worker);
        }
    }

    /// Wakes one of those that have nothing to do.
    fn wake_idle(&self, worker: usize) {
        let (first, count) = self.lanes[worker].group;
        for step in 1..count {
            let other = &self.lanes[first + (worker - first + step) % count];
            if other.idle.swap(false, Ordering::SeqCst) {
                other.arrived.notify_one();
                return;
            }
        }
    }

    /// Says whether the worker has nothing to do. Whoever says that it has nothing looks once more for work after that.
    pub(crate) fn set_idle(&self, worker: usize, idle: bool) {
        if self.lanes[worker].group.1 > 1 {
            self.lanes[worker].idle.store(idle, Ordering::SeqCst);
        }
    }

    /// Resolves when there may be something to do.
    pub(crate) async fn arrived(&self, worker: usize) {
        self.lanes[worker].arrived.notified().await;
    }

    /// The worker has ended: nothing can be sent to it any more. Returns what it has not taken.
    pub(crate) fn close(&self, worker: usize) -> Vec<Message> {
        let lane = &self.lanes[worker];
        lane.room.close();
        let mut queued = self.queued(worker);
        queued.closed = true;
        let batches = std::mem::take(&mut queued.batches).into_iter().map(|(message, _)| message);
        let feedback = std::mem::take(&mut queued.feedback);
        drop(queued);
        feedback.iter().for_each(|message| self.feedback.free(message.bytes));
        let left: Vec<Message> = batches.chain(feedback).collect();
        left.iter().for_each(|message| self.budget.free(message.bytes));
        left
    }
}

/// Why a message was given back.
pub(crate) enum NotSent {
    /// There is no room.
    Full(Message),
    /// The worker has ended.
    Closed,
    /// Feedback edges hold as many bytes as they may.
    Refused {
        message: Message,
        /// Whether it is the first that is refused since they held much less.
        first: bool,
        limit: usize,
    },
}

impl NotSent {
    fn full(lane: &Lane, message: Message) -> Self {
        if lane.room.is_closed() { Self::Closed } else { Self::Full(message) }
    }
}
