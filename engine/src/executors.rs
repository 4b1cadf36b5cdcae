//! How many tasks of a component may execute at the same time.
//!
//! Each task of a bolt that computes has a worker of its own, and executes while it holds one of as many slots as the component
//! has executors. So its executors are changed without moving anything: keys stay with their tasks, and with them order and
//! state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use galerna_lock::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::clock::nanos;

/// The executors of a component, and of what is fused to it.
#[derive(Debug)]
pub(crate) struct Executors {
    slots: Semaphore,
    /// Whether there are fewer of them than workers; else nobody needs to take one.
    limited: AtomicBool,
    workers: usize,
    state: Mutex<State>,
    settled: Notify,
}

#[derive(Debug)]
struct State {
    executors: usize,
    /// Slots that are to go when they are given back.
    excess: usize,
    /// When `executors` was set.
    since: Duration,
    /// Nanoseconds that there were before that, of all executors together.
    available: u64,
}

impl Executors {
    /// So many for so many workers, from this time on.
    pub(crate) fn new(executors: usize, workers: usize, now: Duration) -> Arc<Self> {
        Arc::new(Self {
            slots: Semaphore::new(executors),
            limited: AtomicBool::new(executors < workers),
            workers,
            state: Mutex::new(State { executors, excess: 0, since: now, available: 0 }),
            settled: Notify::new(),
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().executors
    }

    /// The time that there was to execute in, of all of them together, in nanoseconds.
    pub(crate) fn available(&self, now: Duration) -> u64 {
        let state = self.state.lock();
        state.available.saturating_add(state.lately(now))
    }

    /// Whether a worker has to [`enter`](Self::enter) before it executes.
    pub(crate) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Acquire)
    }

    /// Waits for a slot, in the order of asking. Cancel-safe.
    pub(crate) async fn enter(self: &Arc<Self>) -> Slot {
        if let Ok(permit) = self.slots.acquire().await {
            permit.forget();
        }
        Slot(self.clone())
    }

    /// Changes how many there are; slots that are too many go at the end of the turns of those that hold them.
    pub(crate) fn resize(&self, executors: usize, now: Duration) {
        let mut state = self.state.lock();
        state.available = state.available.saturating_add(state.lately(now));
        state.since = now;
        let before = std::mem::replace(&mut state.executors, executors);
        if executors > before {
            let kept = state.excess.min(executors - before);
            state.excess -= kept;
            self.slots.add_permits(executors - before - kept);
        } else {
            let free = self.slots.forget_permits(before - executors);
            state.excess += before - executors - free;
        }
        self.limited.store(executors < self.workers, Ordering::Release);
        self.settled.notify_waiters();
    }

    /// Resolves when no more slots are held than there are executors.
    pub(crate) async fn settled(&self) {
        loop {
            let changed = self.settled.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.state.lock().excess == 0 {
                return;
            }
            changed.await;
        }
    }
}

impl State {
    fn lately(&self, now: Duration) -> u64 {
        nanos(now.saturating_sub(self.since)).saturating_mul(self.executors as u64)
    }
}

/// The right to execute, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Executors>);

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if state.excess == 0 {
            self.0.slots.add_permits(1);
            return;
        }
        state.excess -= 1;
        if state.excess == 0 {
            self.0.settled.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn now(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn slots_that_are_too_many_go_when_they_are_given_back() {
        let executors = Executors::new(3, 4, now(0));
        let mut held = vec![executors.enter().await, executors.enter().await, executors.enter().await];
        assert!(executors.enter().now_or_never().is_none());
        executors.resize(1, now(10));
        assert!(executors.settled().now_or_never().is_none());
        held.pop();
        assert!(executors.enter().now_or_never().is_none(), "it is one of those that go");
        held.pop();
        assert!(executors.settled().now_or_never().is_some());
        held.pop();
        let last = executors.enter().now_or_never();
        assert!(last.is_some() && executors.enter().now_or_never().is_none());
        // Those that were to go stay if they are wanted again.
        executors.resize(0, now(10));
        executors.resize(2, now(10));
        assert!(executors.enter().now_or_never().is_some());
        assert_eq!(executors.count(), 2);
    }

    #[test]
    fn time_is_counted_by_the_executors_that_there_were() {
        let executors = Executors::new(1, 4, now(0));
        executors.resize(4, now(10));
        assert!(!executors.is_limited());
        assert_eq!(executors.available(now(12)), nanos(now(10 + 4 * 2)));
        executors.resize(2, now(12));
        assert!(executors.is_limited());
        assert_eq!(executors.available(now(13)), nanos(now(18 + 2)));
    }
}
