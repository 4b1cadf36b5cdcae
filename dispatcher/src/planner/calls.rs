//! The calls that are not answered yet, and where each of them waits.

use std::borrow::Cow;
use std::collections::VecDeque;

use galerna_lease::{GrantedLease, LeaseError, QueueEvent, QueueRecord, Release};
use galerna_model::QueueName;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Tells the calls of `next` apart, in the order in which they came.
pub(crate) type CallId = u64;

/// A call that is to be answered.
pub(crate) enum PendingCall {
    /// For leases, of whatever queues.
    Next(NextCall),
    /// For something to happen to one queue.
    OnQueue(QueueCall),
}

/// A call of `next`.
pub(crate) struct NextCall {
    pub(crate) id: CallId,
    pub(crate) consumer: String,
    /// What the caller knows this request by, however often it makes it.
    pub(crate) request: Option<String>,
    pub(crate) count: usize,
    /// Leases to give back first.
    pub(crate) release: Vec<Release>,
    /// Until when it waits for a queue.
    pub(crate) wait_until: Option<Instant>,
    /// How often it met a queue that another dispatcher had changed.
    pub(crate) attempts: u32,
    /// Its releases are in the batch that is being planned: it is answered when they are durable.
    pub(crate) releases_planned: bool,
    /// How often it waited for a write in flight that might leave it a queue.
    pub(crate) rechecks: usize,
    pub(crate) answer: oneshot::Sender<Result<Vec<GrantedLease>, LeaseError>>,
}

/// A call for something to happen to one queue.
pub(crate) struct QueueCall {
    pub(crate) queue: QueueName,
    pub(crate) event: QueueEvent,
    /// Who did it; the holder when `None`.
    pub(crate) actor: Option<Cow<'static, str>>,
    /// How often it met a queue that another dispatcher had changed.
    pub(crate) attempts: u32,
    /// Nobody waits for what the dispatcher does by itself.
    pub(crate) answer: Option<oneshot::Sender<Result<QueueRecord, LeaseError>>>,
}

impl NextCall {
    /// Answers. The leases come back when the caller is gone.
    pub(crate) fn answer(self, with: Result<Vec<GrantedLease>, LeaseError>) -> Vec<GrantedLease> {
        match self.answer.send(with) {
            Err(Ok(leases)) => leases,
            Ok(()) | Err(Err(_)) => Vec::new(),
        }
    }
}

impl QueueCall {
    /// What the dispatcher does by itself.
    pub(crate) fn own(queue: QueueName, event: QueueEvent, actor: impl Into<Cow<'static, str>>) -> Self {
        Self { queue, event, actor: Some(actor.into()), attempts: 0, answer: None }
    }

    /// A release that came with a call of `next`; only that call is answered.
    pub(crate) fn release(release: Release) -> Self {
        let event = QueueEvent::Release { epoch: release.epoch, empty: release.empty };
        Self { queue: release.queue, event, actor: None, attempts: 0, answer: None }
    }

    pub(crate) fn answer(self, with: Result<QueueRecord, LeaseError>) {
        if let Some(answer) = self.answer {
            drop(answer.send(with)); // Nobody waits any more: nothing to do.
        }
    }
}

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// The next bulk write to be planned.
    NextPlan,
    /// The end of a write in flight: of the queue that the call acts on, or of any, which may leave it a queue.
    WriteEnd,
    /// A queue that can be leased: a call of `next` within its wait.
    LeasableQueue,
}

/// All calls that wait. Each waits for exactly one thing.
#[derive(Default)]
pub(crate) struct Calls {
    for_next_plan: VecDeque<PendingCall>,
    for_write_end: Vec<PendingCall>,
    for_leasable_queue: VecDeque<NextCall>,
    last_id: CallId,
}

impl Calls {
    pub(crate) fn new_id(&mut self) -> CallId {
        self.last_id += 1;
        self.last_id
    }

    /// Lets a call wait.
    pub(crate) fn wait(&mut self, call: PendingCall, wait_for: WaitFor) {
        match (wait_for, call) {
            (WaitFor::LeasableQueue, PendingCall::Next(call)) => match self.for_leasable_queue.front() {
                // It was woken for a queue that it did not get: its place is the first still.
                Some(first) if call.id < first.id => self.for_leasable_queue.push_front(call),
                _ => self.for_leasable_queue.push_back(call),
            },
            (WaitFor::WriteEnd, call) => self.for_write_end.push(call),
            (WaitFor::NextPlan | WaitFor::LeasableQueue, call) => self.for_next_plan.push_back(call),
        }
    }

    /// Lets a call that lost its queues to another dispatcher be the first of the next plan.
    pub(crate) fn plan_first(&mut self, call: NextCall) {
        self.for_next_plan.push_front(PendingCall::Next(call));
    }

    /// The next call to be planned.
    pub(crate) fn pop(&mut self) -> Option<PendingCall> {
        self.for_next_plan.pop_front()
    }

    /// How many calls wait to be planned.
    pub(crate) fn to_plan(&self) -> usize {
        self.for_next_plan.len()
    }

    /// How many calls wait for a write, planned or in flight.
    pub(crate) fn pending(&self) -> usize {
        self.for_next_plan.len() + self.for_write_end.len()
    }

    /// How many calls wait for a queue.
    pub(crate) fn waiting_for_queue(&self) -> usize {
        self.for_leasable_queue.len()
    }

    /// A write ended: whoever waited for one is planned again.
    pub(crate) fn write_ended(&mut self) {
        self.for_next_plan.extend(self.for_write_end.drain(..));
    }

    /// Forgets what nobody waits for: the dispatcher does it again if it is still called for.
    pub(crate) fn drop_own(&mut self) {
        let waited_for =
            |call: &PendingCall| !matches!(call, PendingCall::OnQueue(QueueCall { answer: None, .. }));
        self.for_next_plan.retain(waited_for);
        self.for_write_end.retain(waited_for);
    }

    /// So many queues can be leased: as many of those who wait for one are planned. Returns how many.
    pub(crate) fn wake(&mut self, queues: usize) -> usize {
        let ready = queues.min(self.for_leasable_queue.len());
        self.for_next_plan.extend(self.for_leasable_queue.drain(..ready).map(PendingCall::Next));
        ready
    }

    /// Takes a caller out that no longer waits for a queue; `false` when its call is being worked on.
    pub(crate) fn cancel(&mut self, id: CallId) -> bool {
        let at = self.for_leasable_queue.iter().position(|call| call.id == id);
        at.and_then(|at| self.for_leasable_queue.remove(at)).is_some()
    }

    /// Answers those who wait for a queue without one.
    pub(crate) fn cancel_waiters(&mut self, with: impl Fn() -> Result<Vec<GrantedLease>, LeaseError>) {
        for call in self.for_leasable_queue.drain(..) {
            call.answer(with());
        }
    }

    /// Answers an earlier try of a request without a lease: its caller has given it up and tries again.
    pub(crate) fn supersede(&mut self, request: &str, consumer: &str) {
        let earlier = |call: &NextCall| call.request.as_deref() == Some(request) && call.consumer == consumer;
        while let Some(at) = self.for_leasable_queue.iter().position(earlier) {
            if let Some(call) = self.for_leasable_queue.remove(at) {
                call.answer(Ok(Vec::new()));
            }
        }
    }
}
