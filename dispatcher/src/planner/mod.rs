//! What a dispatcher decides: which of the calls that wait are answered by which guarded writes.
//!
//! Group commit: calls wait while writes are in flight; then [`Planner::plan`] turns all of them into one bulk write, and
//! [`Planner::finish`] answers them when it is durable. Several steps may fall on one queue in one batch (a release, then a
//! lease of the queue released): they are folded into one guarded write. Nothing here waits or does I/O; the one lock around
//! it is held for the planning only.
//!
//! Several writes may be in flight at once, but a command costs the store as much as several of the updates in it, so a few
//! calls wait for the write in flight rather than start one of their own ([`Planner::delay_plan_until`]), and who has just
//! been answered may ask again before the next is planned.

mod batch;
mod calls;
mod finish;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use galerna_lease::{LeaseError, QueueEvent, QueueState, Timing, Transition, TransitionError, transition};
use galerna_model::{QueueName, Timestamp};
use galerna_retry::{Outage, Pauses};
use tokio::time::Instant;

pub(crate) use self::batch::Batch;
use self::batch::{Step, WriteIndex};
pub(crate) use self::calls::{CallId, Calls, NextCall, PendingCall, QueueCall, WaitFor};
use crate::metrics::Metrics;
use crate::queue_table::{EntryId, QueueTable};
use galerna_lease::StrategyName;

/// Calls served in one batch.
const MAX_CALLS: usize = 512;
/// Writes in one batch.
const MAX_WRITES: usize = 2_000;
/// Queues reconciled with their counts in one batch, beside what callers want.
const MAX_RECONCILED: usize = 256;
/// How often one call meets a queue that another dispatcher changed before it gives up.
const MAX_ATTEMPTS: u32 = 32;
/// Widest choice when dispatchers reach for the same queues.
const MAX_SPREAD: usize = 64;
/// As many calls are worth a write beside one in flight.
const GROUP_COMMIT_CALLS: usize = 16;
/// Fewer calls wait no longer than this for the write in flight.
const GROUP_COMMIT_DELAY: Duration = Duration::from_millis(10);
/// The pause after a bulk write that failed; it doubles with each further one, up to a sweep.
const FIRST_WRITE_PAUSE: Duration = Duration::from_millis(50);

/// Now, by the monotonic clock that decides and by the wall clock that stamps records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) wall: Timestamp,
}

/// All that changes of a dispatcher.
pub(crate) struct Planner {
    pub(crate) table: QueueTable,
    pub(crate) calls: Calls,
    /// Whether leases are given.
    pub(crate) running: bool,
    /// The strategy asked for.
    pub(crate) configured: StrategyName,
    /// Grows with every setting that is changed here: what was read from the store before is older.
    pub(crate) settings_version: u64,
    /// Whether the maintainer answers its pings.
    pub(crate) maintained: bool,
    /// Whether the store answered last.
    pub(crate) store_answers: bool,
    /// No more calls are taken.
    pub(crate) closing: bool,
    /// Requests of `next` that a batch in flight answers.
    requests_in_flight: HashSet<String>,
    /// Bulk writes in flight.
    writes_in_flight: usize,
    /// Committers with a bulk write in flight, or about to plan another after one.
    busy_committers: usize,
    last_planned: Instant,
    /// Among how many of the strategy's first queues one is chosen.
    spread: usize,
    write_outage: Outage,
    /// Until when nothing is written, after a write that failed.
    paused_until: Option<Instant>,
    /// Its name, as an actor.
    name: String,
    timing: Timing,
    metrics: Arc<Metrics>,
}

/// What planning an event came to.
enum Planned {
    /// It is part of this write.
    In(WriteIndex),
    /// The record is as wanted already, in the store or in this write.
    Unchanged(Option<WriteIndex>),
}

impl Planner {
    pub(crate) fn new(
        table: QueueTable,
        configured: StrategyName,
        timing: Timing,
        name: String,
        metrics: Arc<Metrics>,
    ) -> Self {
        let write_pauses = Pauses::new(FIRST_WRITE_PAUSE, timing.sweep.max(FIRST_WRITE_PAUSE));
        Self {
            table,
            calls: Calls::default(),
            running: true,
            configured,
            settings_version: 0,
            maintained: false,
            store_answers: true,
            closing: false,
            requests_in_flight: HashSet::new(),
            writes_in_flight: 0,
            busy_committers: 0,
            last_planned: Instant::now(),
            spread: 1,
            write_outage: Outage::new("writing queue states", write_pauses),
            paused_until: None,
            name,
            timing,
            metrics,
        }
    }

    /// Puts the strategy in force that the configuration and the maintainer's state call for.
    pub(crate) fn choose_strategy(&mut self, now: Instant) {
        let usable = self.maintained || !self.configured.needs_counts();
        let wanted = if usable { self.configured } else { StrategyName::Fifo };
        if wanted != self.table.in_force() {
            tracing::warn!(from = %self.table.in_force(), to = %wanted, maintainer = self.maintained, "strategy in force changes");
            self.table.set_strategy(wanted, now);
            self.wake_waiters();
        }
    }

    /// Starts or stops the giving of leases.
    pub(crate) fn set_running(&mut self, running: bool) {
        self.running = running;
        if !running {
            self.calls.cancel_waiters(|| Err(LeaseError::Stopped));
        }
    }

    /// Takes no more calls, and answers those that wait for a queue.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.calls.cancel_waiters(|| Ok(Vec::new()));
    }

    /// Whether calls wait for a write.
    pub(crate) fn is_busy(&self) -> bool {
        self.writes_in_flight > 0 || self.calls.pending() > 0
    }

    /// Lets those who wait for a queue try again, as many as there are queues.
    pub(crate) fn wake_waiters(&mut self) {
        self.calls.wake(self.table.leasable());
    }

    /// Whether there is something to plan.
    pub(crate) fn has_work(&self) -> bool {
        self.calls.to_plan() > 0 || self.table.has_reconcile()
    }

    /// Until when nothing is planned: the calls that wait are too few for a write beside one in flight, which may end before,
    /// or writes have failed.
    pub(crate) fn delay_plan_until(&self, now: Instant) -> Option<Instant> {
        let grouped = (self.busy_committers > 0 && self.calls.to_plan() < GROUP_COMMIT_CALLS)
            .then(|| self.last_planned + GROUP_COMMIT_DELAY);
        grouped.max(self.paused_until).filter(|until| now < *until)
    }

    /// Whoever committed a batch is about to plan the next.
    pub(crate) fn committer_returned(&mut self) {
        self.busy_committers -= 1;
    }

    /// Plans the next bulk write; calls that need none are answered. `None` when there is nothing to write. Whoever gets
    /// one calls [`finish`](Self::finish) with its outcome and then [`committer_returned`](Self::committer_returned).
    pub(crate) fn plan(&mut self, at: Moment) -> Option<Batch> {
        let mut batch = Batch::new(self.table.in_force());
        let mut next_calls = Vec::new();
        for _ in 0..MAX_CALLS {
            if batch.len() >= MAX_WRITES {
                break;
            }
            match self.calls.pop() {
                None => break,
                Some(PendingCall::OnQueue(call)) => self.plan_queue_call(&mut batch, call, at),
                Some(PendingCall::Next(mut call)) => {
                    call.releases_planned = !call.release.is_empty();
                    for release in std::mem::take(&mut call.release) {
                        self.plan_queue_call(&mut batch, QueueCall::release(release), at);
                    }
                    next_calls.push(call);
                }
            }
        }
        // After all releases: what they free can be leased within the same write.
        for call in next_calls {
            self.plan_next_call(&mut batch, call, at);
        }
        self.plan_reconcile(&mut batch, at);
        // A queue freed in this batch that nobody took is not for another batch to take before it is written.
        for &entry in &batch.entries {
            self.table.begin_write(entry);
        }
        if batch.is_empty() {
            return None;
        }
        self.writes_in_flight += 1;
        self.busy_committers += 1;
        self.last_planned = at.now;
        Some(batch)
    }

    /// Adds an event to the write of its queue.
    fn plan_event(
        &self,
        batch: &mut Batch,
        entry: EntryId,
        event: QueueEvent,
        actor: Option<Cow<'static, str>>,
        at: Moment,
    ) -> Result<Planned, TransitionError> {
        let stored = &self.table.entry(entry).record;
        let write = batch.write_of(entry);
        let current = write.map_or(stored, |write| batch.record(write));
        match transition(current, &event, at.wall, &self.timing)? {
            Transition::Unchanged => Ok(Planned::Unchanged(write)),
            Transition::To(next) => {
                let holder = || current.lease.as_ref().map(|l| l.consumer.clone()).unwrap_or_default();
                let actor = actor.unwrap_or_else(|| Cow::Owned(holder()));
                let step = Step::new(current, &next, event, actor);
                Ok(Planned::In(batch.add(entry, stored.version, *next, step)))
            }
        }
    }

    fn plan_queue_call(&mut self, batch: &mut Batch, call: QueueCall, at: Moment) {
        let Some(entry) = self.table.find(&call.queue) else {
            let unknown = LeaseError::UnknownQueue(call.queue.clone());
            return call.answer(Err(unknown));
        };
        if batch.write_of(entry).is_none() && self.table.entry(entry).write_in_flight {
            return self.calls.wait(PendingCall::OnQueue(call), WaitFor::WriteEnd);
        }
        match self.plan_event(batch, entry, call.event.clone(), call.actor.clone(), at) {
            Err(error) => {
                self.metrics.refused(&call.event, error);
                let error = refused(error, call.queue.clone());
                call.answer(Err(error));
            }
            // As wanted, once the write that is being planned is durable.
            Ok(Planned::Unchanged(Some(write))) => batch.queue_calls.push((call, write)),
            Ok(Planned::Unchanged(None)) => {
                let record = self.table.entry(entry).record.clone();
                call.answer(Ok(record));
            }
            Ok(Planned::In(write)) => {
                let record = batch.record(write);
                let freed = match call.event {
                    _ if !matches!(record.state, QueueState::Idle | QueueState::Empty) => None,
                    QueueEvent::Release { empty, .. } => Some(!empty),
                    QueueEvent::TakeBack { .. } => Some(true),
                    _ => None,
                };
                match freed {
                    Some(has_messages) => self.table.offer(entry, at.now, has_messages),
                    None => self.table.withhold(entry),
                }
                batch.queue_calls.push((call, write));
            }
        }
    }

    fn plan_next_call(&mut self, batch: &mut Batch, call: NextCall, at: Moment) {
        if !self.running {
            call.answer(Err(LeaseError::Stopped));
            return;
        }
        if call.answer.is_closed() {
            return; // The caller hung up.
        }
        if call.request.as_ref().is_some_and(|request| self.requests_in_flight.contains(request)) {
            // An earlier try of the same request is being answered: what it gets is this one's too.
            return self.calls.wait(PendingCall::Next(call), WaitFor::WriteEnd);
        }
        let mut granted = match self.plan_granted_before(batch, &call, at) {
            Ok(granted) => granted,
            Err(WriteInFlight) => return self.calls.wait(PendingCall::Next(call), WaitFor::WriteEnd),
        };
        if granted.is_empty() {
            granted = self.plan_leases(batch, &call, at);
        }
        if !granted.is_empty() {
            self.requests_in_flight.extend(call.request.clone());
            batch.next_calls.push((call, granted));
        } else {
            self.plan_without_queue(batch, call, at);
        }
    }

    /// Leases that were granted to an earlier try of this request, whose answer the caller never got: they are renewed,
    /// since the caller counts from before this try. One that is not to be consumed any more is given back.
    fn plan_granted_before(
        &mut self,
        batch: &mut Batch,
        call: &NextCall,
        at: Moment,
    ) -> Result<Vec<WriteIndex>, WriteInFlight> {
        let Some(request) = &call.request else { return Ok(Vec::new()) };
        let before = self.table.granted_to(request, &call.consumer);
        let in_flight = |id: &EntryId| batch.write_of(*id).is_none() && self.table.entry(*id).write_in_flight;
        if before.iter().any(in_flight) {
            return Err(WriteInFlight);
        }
        let mut granted = Vec::new();
        for entry in before {
            let record = &self.table.entry(entry).record;
            let epoch = record.epoch;
            let event = match record.state {
                QueueState::Leased => QueueEvent::Renew { epoch },
                _ => QueueEvent::Release { epoch, empty: false },
            };
            let renewed = matches!(event, QueueEvent::Renew { .. });
            // Refused: another call of this batch gave it back.
            if let Ok(Planned::In(write)) = self.plan_event(batch, entry, event, None, at)
                && renewed
            {
                granted.push(write);
            }
        }
        Ok(granted)
    }

    /// Leases the next queues by the strategy, as many as are asked for and can be had.
    fn plan_leases(&mut self, batch: &mut Batch, call: &NextCall, at: Moment) -> Vec<WriteIndex> {
        let mut granted = Vec::new();
        while granted.len() < call.count && batch.len() < MAX_WRITES + MAX_CALLS {
            let Some(entry) = self.table.take(self.spread) else { break };
            let (consumer, request) = (call.consumer.clone(), call.request.clone());
            let actor = Cow::Owned(consumer.clone());
            match self.plan_event(batch, entry, QueueEvent::Lease { consumer, request }, Some(actor), at) {
                Ok(Planned::In(write)) => granted.push(write),
                // The index holds only what can be leased; were it wrong, the queue would simply leave it.
                Ok(Planned::Unchanged(_)) | Err(_) => {
                    debug_assert!(false, "the index offered a queue that cannot be leased");
                }
            }
        }
        granted
    }

    /// Says what a call waits for that gets no queue now, or answers it.
    fn plan_without_queue(&mut self, batch: &mut Batch, mut call: NextCall, at: Moment) {
        if call.wait_until.is_some_and(|until| until > at.now) && call.attempts < MAX_ATTEMPTS {
            call.attempts = 0;
            self.calls.wait(PendingCall::Next(call), WaitFor::LeasableQueue);
        } else if call.releases_planned && !batch.is_empty() {
            batch.next_calls.push((call, Vec::new()));
        } else if self.writes_in_flight > call.rechecks {
            call.rechecks += 1;
            self.calls.wait(PendingCall::Next(call), WaitFor::WriteEnd);
        } else if self.store_answers {
            call.answer(Ok(Vec::new()));
        } else {
            call.answer(Err(LeaseError::Unavailable("the store does not answer".into())));
        }
    }

    /// Brings the stored states of some queues up to their counts, beside what callers want.
    fn plan_reconcile(&mut self, batch: &mut Batch, at: Moment) {
        for (entry, messages) in self.table.take_reconcile(MAX_RECONCILED) {
            // What callers want of a queue goes first: it is looked at again when the write of it ends.
            if batch.write_of(entry).is_none() {
                let actor = Some(Cow::Owned(self.name.clone()));
                // Refused or as wanted: the queue is no longer behind its counts.
                drop(self.plan_event(batch, entry, QueueEvent::Counted { messages }, actor, at));
            }
        }
    }
}

/// A write of a queue is in flight, so that nothing can be planned for it.
struct WriteInFlight;

fn refused(error: TransitionError, queue: QueueName) -> LeaseError {
    match error {
        TransitionError::StaleEpoch { presented, .. } => LeaseError::StaleEpoch { queue, epoch: presented },
        other => LeaseError::Refused(format!("queue `{queue}`: {other}")),
    }
}
