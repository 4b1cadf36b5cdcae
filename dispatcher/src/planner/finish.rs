//! What the outcome of a bulk write means for the table and for those who wait.

use galerna_lease::{GrantedLease, LeaseError, QueueEvent};
use galerna_storage::Swapped;
use tokio::time::Instant;

use super::batch::{Batch, WriteIndex};
use super::{MAX_ATTEMPTS, MAX_SPREAD, Moment, PendingCall, Planner, QueueCall, WaitFor};

impl Planner {
    /// Takes the outcome of a bulk write and answers those who waited for it.
    pub(crate) fn finish(&mut self, batch: Batch, outcome: Result<Vec<Swapped>, String>, at: Moment) {
        self.writes_in_flight -= 1;
        for (call, _) in &batch.next_calls {
            if let Some(request) = &call.request {
                self.requests_in_flight.remove(request);
            }
        }
        let writes = batch.len();
        match outcome {
            Ok(outcomes) if outcomes.len() == writes => {
                self.write_worked();
                let stored = self.apply_outcomes(&batch, outcomes, at);
                self.answer_calls(batch, &stored);
            }
            Ok(outcomes) => {
                let cause = format!("the store answered {} of {writes} writes", outcomes.len());
                self.write_failed(batch, &cause, at);
            }
            Err(cause) => self.write_failed(batch, &cause, at),
        }
        self.calls.write_ended();
        self.wake_waiters();
    }

    /// The store was read. After a write that failed that alone does not mean that it answers; but without another attempt
    /// it is taken to after a while.
    pub(crate) fn store_was_read(&mut self, now: Instant) {
        let failed_lately = self.paused_until.is_some_and(|until| now < until + self.timing.request_timeout);
        if !failed_lately {
            self.store_answers = true;
        }
    }

    fn write_worked(&mut self) {
        self.store_answers = true;
        self.paused_until = None;
        self.write_outage.succeeded();
    }

    /// Whether anything was written is not known: the next look at the store will tell, and until then every write by the
    /// old versions is refused.
    fn write_failed(&mut self, batch: Batch, cause: &str, at: Moment) {
        self.store_answers = false;
        self.paused_until = Some(at.now + self.write_outage.failed(cause));
        self.metrics.store_errors.inc();
        for &entry in &batch.entries {
            self.table.end_write(entry, at.now);
        }
        // Expiries would pile up while writes fail; their timers bring them again.
        self.calls.drop_own();
        let unavailable = || LeaseError::Unavailable(cause.to_owned());
        for (call, _) in batch.queue_calls {
            call.answer(Err(unavailable()));
        }
        for (call, _) in batch.next_calls {
            call.answer(Err(unavailable()));
        }
    }

    /// Brings the table up to date; says of each write whether it was done.
    fn apply_outcomes(&mut self, batch: &Batch, outcomes: Vec<Swapped>, at: Moment) -> Vec<bool> {
        let (mut leases, mut lost) = (0_usize, 0_usize);
        let mut stored = Vec::with_capacity(outcomes.len());
        for (write, outcome) in outcomes.into_iter().enumerate() {
            let done = outcome == Swapped::Done;
            let (entry, steps) = (batch.entries[write], &batch.steps[write]);
            let queue = &batch.record(write).queue;
            if steps.iter().any(|s| matches!(s.event, QueueEvent::Lease { .. })) {
                leases += 1;
                lost += usize::from(!done);
            }
            match outcome {
                Swapped::Done => {
                    for step in steps {
                        step.log(queue.as_str());
                        self.metrics.transition(&step.event);
                        if !matches!(step.event, QueueEvent::Renew { .. }) {
                            self.table.remember(entry, step.past(at.wall));
                        }
                    }
                    self.table.apply(batch.record(write).clone(), at.now, at.wall);
                    self.table.end_write(entry, at.now);
                }
                Swapped::Conflict(Some(newer)) => {
                    self.metrics.conflict();
                    self.table.apply(newer, at.now, at.wall);
                    self.table.end_write(entry, at.now);
                }
                Swapped::Conflict(None) => {
                    self.metrics.conflict();
                    self.table.end_write(entry, at.now);
                    self.table.remove(queue);
                }
            }
            stored.push(done);
        }
        if leases > 0 {
            // Others reach for the same queues: choose among more. Nobody does: back to the strategy's exact order.
            self.spread =
                if lost > 0 { (self.spread * 2).min(MAX_SPREAD) } else { (self.spread * 3 / 4).max(1) };
        }
        stored
    }

    fn answer_calls(&mut self, mut batch: Batch, stored: &[bool]) {
        for (mut call, write) in std::mem::take(&mut batch.queue_calls) {
            call.attempts += 1;
            if stored[write] {
                call.answer(Ok(batch.record(write).clone()));
            } else if call.attempts < MAX_ATTEMPTS {
                self.calls.wait(PendingCall::OnQueue(call), WaitFor::NextPlan);
            } else {
                let cause = format!("queue `{}` keeps changing; try again", call.queue);
                call.answer(Err(LeaseError::Unavailable(cause)));
            }
        }
        for (mut call, writes) in std::mem::take(&mut batch.next_calls) {
            let wanted = !writes.is_empty();
            let leases: Vec<GrantedLease> = writes
                .into_iter()
                .filter(|&write| stored[write])
                .map(|write| self.granted(&batch, write))
                .collect();
            call.attempts += 1;
            if !leases.is_empty() {
                self.metrics.granted(leases.len());
                let unseen = call.answer(Ok(leases));
                self.take_back(unseen);
            } else if wanted && call.attempts < MAX_ATTEMPTS {
                self.calls.plan_first(call);
            } else {
                call.answer(Ok(leases));
            }
        }
    }

    fn granted(&self, batch: &Batch, write: WriteIndex) -> GrantedLease {
        let record = batch.record(write);
        let lease_ms = record.lease.as_ref().map_or_else(|| self.timing.lease_ms(), |lease| lease.lease_ms);
        GrantedLease {
            queue: record.queue.clone(),
            epoch: record.epoch,
            expires_in_ms: lease_ms,
            strategy: batch.strategy.as_str().to_owned(),
        }
    }

    /// Ends leases whose consumer went away before it got them. One that it was given before, or has asked for again since, has
    /// been renewed and is not taken from it.
    pub(crate) fn take_back(&mut self, leases: Vec<GrantedLease>) {
        for GrantedLease { queue, epoch, .. } in leases {
            let event = QueueEvent::TakeBack { epoch };
            let call = QueueCall::own(queue, event, "dispatcher: the caller went away");
            self.calls.wait(PendingCall::OnQueue(call), WaitFor::NextPlan);
        }
    }
}
