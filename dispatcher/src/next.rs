//! One call of `next`, from its caller to the committed write and back.
//!
//! 1. Over HTTP, `service::routes::next` reads the body and calls [`Leases::next`], as a consumer in this process does.
//! 2. Here the call becomes a [`NextCall`] that waits for the next plan ([`WaitFor::NextPlan`]), and a committer is woken.
//! 3. The [committer](crate::committer) lets the [planner](Planner::plan) turn all calls that wait into one batch: the
//!    releases first, then for each `next` the queues that the strategy chooses, by
//!    [`transition`](galerna_lease::transition()). A call that gets no queue now waits for one
//!    ([`WaitFor::LeasableQueue`]), or for a write in flight that may leave it one ([`WaitFor::WriteEnd`]), or is answered.
//! 4. The committer writes the batch: one guarded write a queue, durable when the store answers.
//! 5. [`Planner::finish`] brings the table up to date and answers the calls whose writes were done; those that lost to
//!    another dispatcher are planned again.
//! 6. The answer arrives here. When the caller is gone by then, its leases are taken back.

use std::sync::Arc;

use async_trait::async_trait;
use galerna_lease::{
    GrantedLease, LeaseError, Leases, NextRequest, QueueEvent, QueueState, Release, Renewed,
};
use galerna_model::QueueName;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::dispatcher::{Dispatcher, Shared};
use crate::planner::{CallId, NextCall, PendingCall};
#[cfg(doc)]
use crate::planner::{Planner, WaitFor};
use crate::refresh;

/// Most leases in one call.
pub(crate) const MAX_COUNT: usize = 1_000;

#[async_trait]
impl Leases for Dispatcher {
    async fn next(&self, request: NextRequest) -> Result<Vec<GrantedLease>, LeaseError> {
        let timing = &self.shared.timing;
        let asked = Instant::now();
        if request.retry && request.request.is_some() {
            self.catch_up().await;
        }
        for release in &request.release {
            // Stale or unknown releases are ignored here; a store that is unavailable shows in the lease itself.
            drop(self.ensure_known(&release.queue, Some(release.epoch)).await);
        }
        let wait = request.wait.min(timing.max_wait);
        let wait_until = (!wait.is_zero()).then(|| asked + wait);
        let mut caller = self.submit_next(request, wait_until)?;
        if let Some(until) = wait_until {
            if let Ok(answer) = timeout_at(until, &mut caller.answer).await {
                return self.granted(answer, asked);
            }
            if self.shared.planner.lock().calls.cancel(caller.id) {
                return Ok(Vec::new());
            }
        }
        match timeout(timing.request_timeout, &mut caller.answer).await {
            Ok(answer) => self.granted(answer, asked),
            Err(_) => Err(LeaseError::Unavailable("the store did not answer in time".to_owned())),
        }
    }

    async fn renew(&self, queue: &QueueName, epoch: u64) -> Result<Renewed, LeaseError> {
        let record = self.apply_event(queue, QueueEvent::Renew { epoch }, None).await?;
        let lease_ms = record.lease.map_or_else(|| self.shared.timing.lease_ms(), |l| l.lease_ms);
        let revoked = record.state != QueueState::Leased;
        Ok(Renewed { expires_in_ms: lease_ms, revoked })
    }

    async fn release(&self, release: &Release) -> Result<(), LeaseError> {
        let event = QueueEvent::Release { epoch: release.epoch, empty: release.empty };
        self.apply_event(&release.queue, event, None).await.map(drop)
    }
}

impl Dispatcher {
    /// Sees what other dispatchers have granted: the first try of a request may have gone to one of them.
    async fn catch_up(&self) {
        let caught_up = timeout(self.shared.timing.store_timeout, refresh::apply_changes(&self.shared));
        // A store that is unavailable shows in the lease itself.
        drop(caught_up.await);
    }

    fn submit_next(
        &self,
        request: NextRequest,
        wait_until: Option<Instant>,
    ) -> Result<CallerOfNext, LeaseError> {
        let (sender, answer) = oneshot::channel();
        let mut id = 0;
        self.submit(|calls| {
            if let (true, Some(known)) = (request.retry, &request.request) {
                calls.supersede(known, &request.consumer);
            }
            id = calls.new_id();
            PendingCall::Next(NextCall {
                id,
                consumer: request.consumer,
                request: request.request,
                count: request.count.clamp(1, MAX_COUNT),
                release: request.release,
                wait_until,
                attempts: 0,
                releases_planned: false,
                rechecks: 0,
                answer: sender,
            })
        })?;
        Ok(CallerOfNext { shared: Arc::clone(&self.shared), id, answer })
    }

    fn granted(&self, answer: Answer, asked: Instant) -> Result<Vec<GrantedLease>, LeaseError> {
        let leases = answer.unwrap_or_else(|_| Err(LeaseError::Unavailable("it shuts down".to_owned())))?;
        if !leases.is_empty() {
            self.shared.metrics.next_seconds.observe(asked.elapsed().as_secs_f64());
        }
        Ok(leases)
    }
}

type Answer = Result<Result<Vec<GrantedLease>, LeaseError>, oneshot::error::RecvError>;

/// Whoever waits for the answer to a call of `next`. When it is dropped (the caller hung up), leases that were meant for it
/// are taken back.
struct CallerOfNext {
    shared: Arc<Shared>,
    id: CallId,
    answer: oneshot::Receiver<Result<Vec<GrantedLease>, LeaseError>>,
}

impl Drop for CallerOfNext {
    fn drop(&mut self) {
        self.answer.close();
        let unseen = self.answer.try_recv();
        let mut planner = self.shared.planner.lock();
        planner.calls.cancel(self.id);
        if let Ok(Ok(leases)) = unseen {
            planner.take_back(leases);
            drop(planner);
            self.shared.work.notify_one();
        }
    }
}
