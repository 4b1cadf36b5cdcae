//! The dispatcher's mutable heart: the board, who waits, and the planning of guarded writes.
//!
//! Group commit: calls queue up while a write is under way; then [`Core::plan`] turns all of them into one bulk write,
//! and [`Core::finish`] answers them when it is durable. Several steps may fall on one queue in one batch (a release,
//! then a lease of the queue released): they are folded into one guarded write. Nothing here waits or does I/O; the one
//! lock around it is held for the planning only.
//!
//! Several writes may be under way at once, but a command costs the store as much as several of the updates in it, so a few
//! calls wait for the write under way rather than start one of their own ([`Core::held_until`]), and who has just been
//! answered may ask again before the next is planned.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use galerna_model::{QueueName, Timestamp};
use galerna_storage::{QueueRecord, Swap, Swapped};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::board::{Board, Slot};
use crate::metrics::Metrics;
use crate::strategy::StrategyName;
use galerna_lease::Timing;
use galerna_lease::{GrantedLease, LeaseError, Release};
use galerna_lease::{QueueEvent, Transition, TransitionError, transition};

/// Callers served in one batch.
const MAX_CALLERS: usize = 512;
/// Writes in one batch.
const MAX_WRITES: usize = 2_000;
/// Queues filed by their counts in one batch, beside what callers want.
const MAX_CHORES: usize = 256;
/// How often one call meets a queue that another dispatcher changed before it gives up.
const MAX_ATTEMPTS: u32 = 32;
/// Widest choice when dispatchers reach for the same queues.
const MAX_SPREAD: usize = 64;
/// As many calls are worth a write beside one under way.
const WORTH_A_WRITE: usize = 16;
/// Fewer calls wait no longer than this for the write under way.
const PATIENCE: Duration = Duration::from_millis(10);

/// A caller of `next`.
pub(crate) struct NextOp {
    pub(crate) id: u64,
    pub(crate) consumer: String,
    pub(crate) count: usize,
    pub(crate) release: Vec<Release>,
    pub(crate) wait_until: Option<Instant>,
    pub(crate) attempts: u32,
    /// Its releases are in the batch that is being planned: it is answered when they are durable.
    pub(crate) released: bool,
    /// How often it waited for a write under way, that may leave it a queue, before it was told that there is none.
    pub(crate) looks: usize,
    pub(crate) reply: oneshot::Sender<Result<Vec<GrantedLease>, LeaseError>>,
}

/// Anything else that happens to one queue.
pub(crate) struct ActOp {
    pub(crate) queue: QueueName,
    pub(crate) event: QueueEvent,
    /// Who did it; the holder when `None`.
    pub(crate) actor: Option<Cow<'static, str>>,
    pub(crate) attempts: u32,
    pub(crate) reply: Option<oneshot::Sender<Result<QueueRecord, LeaseError>>>,
}

pub(crate) enum Op {
    Next(NextOp),
    Act(ActOp),
}

/// One step of a planned write, for the log.
struct Step {
    event: QueueEvent,
    actor: Cow<'static, str>,
    from: &'static str,
    to: &'static str,
    epoch: u64,
    reason: Option<String>,
}

/// A bulk write and those who wait for it.
pub(crate) struct Batch {
    pub(crate) swaps: Vec<Swap>,
    slots: Vec<Slot>,
    steps: Vec<Vec<Step>>,
    by_slot: HashMap<Slot, usize>,
    acts: Vec<(ActOp, usize)>,
    nexts: Vec<(NextOp, Vec<usize>)>,
    strategy: StrategyName,
}

impl Batch {
    fn new(strategy: StrategyName) -> Self {
        Self {
            swaps: Vec::new(),
            slots: Vec::new(),
            steps: Vec::new(),
            by_slot: HashMap::new(),
            acts: Vec::new(),
            nexts: Vec::new(),
            strategy,
        }
    }
}

pub(crate) struct Core {
    pub(crate) board: Board,
    pub(crate) running: bool,
    pub(crate) configured: StrategyName,
    /// Grows with every setting that is changed here: what was read from the store before is older.
    pub(crate) settings: u64,
    /// Whether the maintainer answers its pings.
    pub(crate) maintained: bool,
    /// Whether the store answered last.
    pub(crate) store_answers: bool,
    /// No more calls are taken.
    pub(crate) closing: bool,
    pending: VecDeque<Op>,
    waiting: VecDeque<NextOp>,
    deferred: Vec<ActOp>,
    /// Callers that found nothing while writes were under way.
    looking: Vec<NextOp>,
    last_id: u64,
    /// Bulk writes under way.
    in_flight: usize,
    /// Bulk writes under way, or just answered and about to be followed by another.
    at_work: usize,
    /// When the last one was planned.
    launched: Instant,
    spread: usize,
    timing: Timing,
}

impl Core {
    pub(crate) fn new(board: Board, configured: StrategyName, timing: Timing) -> Self {
        Self {
            board,
            running: true,
            configured,
            settings: 0,
            maintained: false,
            store_answers: true,
            closing: false,
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            deferred: Vec::new(),
            looking: Vec::new(),
            last_id: 0,
            in_flight: 0,
            at_work: 0,
            launched: Instant::now(),
            spread: 1,
            timing,
        }
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// How many calls are queued, and how many wait for a queue.
    pub(crate) fn backlog(&self) -> (usize, usize) {
        (self.pending.len() + self.deferred.len(), self.waiting.len())
    }

    pub(crate) fn push(&mut self, op: Op) {
        self.pending.push_back(op);
    }

    /// Takes a caller out that no longer waits; `false` when its call is being worked on.
    pub(crate) fn withdraw(&mut self, id: u64) -> bool {
        match self.waiting.iter().position(|op| op.id == id) {
            Some(at) => {
                self.waiting.remove(at);
                true
            }
            None => false,
        }
    }

    /// Puts the strategy in force that the configuration and the maintainer's state call for.
    pub(crate) fn settle_strategy(&mut self, now: Instant) {
        let usable = self.maintained || !self.configured.needs_counts();
        let wanted = if usable { self.configured } else { StrategyName::Fifo };
        if wanted != self.board.in_force() {
            tracing::warn!(from = %self.board.in_force(), to = %wanted, maintainer = self.maintained, "strategy in force changes");
            self.board.set_strategy(wanted, now);
            self.promote();
        }
    }

    /// Starts or stops the giving of leases.
    pub(crate) fn set_running(&mut self, running: bool) {
        self.running = running;
        if !running {
            for op in self.waiting.drain(..) {
                drop(op.reply.send(Err(LeaseError::Stopped)));
            }
        }
    }

    /// Sends those home who wait for a queue.
    pub(crate) fn dismiss(&mut self) {
        for op in self.waiting.drain(..) {
            drop(op.reply.send(Ok(Vec::new())));
        }
    }

    /// Whether calls are queued or being written.
    pub(crate) fn busy(&self) -> bool {
        self.in_flight > 0
            || !self.pending.is_empty()
            || !self.deferred.is_empty()
            || !self.looking.is_empty()
    }

    /// Lets those who wait for a queue try again, as many as there are queues. True when somebody does.
    pub(crate) fn promote(&mut self) -> bool {
        let ready = self.board.leasable().min(self.waiting.len());
        for op in self.waiting.drain(..ready) {
            self.pending.push_back(Op::Next(op));
        }
        ready > 0
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.pending.is_empty() || !self.board.chores.is_empty()
    }

    /// Until when what is queued waits for a write under way, unless more comes or that is answered before.
    pub(crate) fn held_until(&self, now: Instant) -> Option<Instant> {
        let until = self.launched + PATIENCE;
        (self.at_work > 0 && self.pending.len() < WORTH_A_WRITE && now < until).then_some(until)
    }

    /// Whoever had a write under way, and answered it, is about to plan the next.
    pub(crate) fn back(&mut self) {
        self.at_work -= 1;
    }

    /// Plans the next bulk write; callers that need none are answered. `None` when there is nothing to write. Whoever gets
    /// one calls [`finish`](Self::finish) with its outcome and then [`back`](Self::back).
    pub(crate) fn plan(
        &mut self,
        now: Instant,
        wall: Timestamp,
        name: &str,
        metrics: &Metrics,
    ) -> Option<Batch> {
        let mut batch = Batch::new(self.board.in_force());
        let mut nexts = Vec::new();
        for _ in 0..MAX_CALLERS {
            if batch.swaps.len() >= MAX_WRITES {
                break;
            }
            match self.pending.pop_front() {
                None => break,
                Some(Op::Act(op)) => self.plan_act(&mut batch, op, now, wall, metrics),
                Some(Op::Next(mut op)) => {
                    op.released = !op.release.is_empty();
                    for Release { queue, epoch, empty } in std::mem::take(&mut op.release) {
                        let event = QueueEvent::Release { epoch, empty };
                        let act = ActOp { queue, event, actor: None, attempts: 0, reply: None };
                        self.plan_act(&mut batch, act, now, wall, metrics);
                    }
                    nexts.push(op);
                }
            }
        }
        for op in nexts {
            self.plan_next(&mut batch, op, now, wall);
        }
        let chores = self.board.chores.len().min(MAX_CHORES);
        for slot in self.board.chores.split_off(self.board.chores.len() - chores) {
            let messages = self.board.chore(slot);
            if batch.by_slot.contains_key(&slot) {
                continue; // Looked at again when the write of it has landed.
            }
            if let Some(messages) = messages {
                let event = QueueEvent::Counted { messages };
                let record = &self.board.entry(slot).record;
                if let Ok(Transition::To(next)) = transition(record, &event, wall, &self.timing) {
                    let from = record.state.as_str();
                    let expected = record.version;
                    self.add(&mut batch, slot, expected, *next, from, event, Cow::Owned(name.to_owned()));
                }
            }
        }
        // Releases offered to this batch that nobody took are not for another batch to take before they are written.
        for &slot in &batch.slots {
            self.board.launched(slot);
        }
        if batch.swaps.is_empty() {
            return None;
        }
        self.in_flight += 1;
        self.at_work += 1;
        self.launched = now;
        Some(batch)
    }

    fn plan_act(&mut self, batch: &mut Batch, op: ActOp, now: Instant, wall: Timestamp, metrics: &Metrics) {
        let Some(slot) = self.board.slot(&op.queue) else {
            return answer(op.reply, Err(LeaseError::UnknownQueue(op.queue)));
        };
        let planned = batch.by_slot.get(&slot).copied();
        let entry = self.board.entry(slot);
        if planned.is_none() && entry.flying {
            self.deferred.push(op);
            return;
        }
        let current = planned.map_or(&entry.record, |at| &batch.swaps[at].record);
        match transition(current, &op.event, wall, &self.timing) {
            Err(refusal) => {
                metrics.refused(&op.event, refusal);
                answer(op.reply, Err(refused(refusal, op.queue)));
            }
            Ok(Transition::Unchanged) => match planned {
                // As wanted once the write that is being planned is durable.
                Some(at) => batch.acts.push((op, at)),
                None => answer(op.reply, Ok(current.clone())),
            },
            Ok(Transition::To(next)) => {
                let from = current.state.as_str();
                let actor = op.actor.clone().unwrap_or_else(|| {
                    Cow::Owned(current.lease.as_ref().map(|l| l.consumer.clone()).unwrap_or_default())
                });
                let expected = entry.record.version;
                if let QueueEvent::Release { empty, .. } = op.event
                    && next.lease.is_none()
                    && matches!(
                        next.state,
                        galerna_storage::QueueState::Idle | galerna_storage::QueueState::Empty
                    )
                {
                    self.board.offer(slot, now, !empty);
                } else {
                    self.board.withhold(slot);
                }
                let at = self.add(batch, slot, expected, *next, from, op.event.clone(), actor);
                batch.acts.push((op, at));
            }
        }
    }

    fn plan_next(&mut self, batch: &mut Batch, mut op: NextOp, now: Instant, wall: Timestamp) {
        if !self.running {
            drop(op.reply.send(Err(LeaseError::Stopped)));
            return;
        }
        if op.reply.is_closed() {
            return;
        }
        let mut got = Vec::new();
        while got.len() < op.count && batch.swaps.len() < MAX_WRITES + MAX_CALLERS {
            let Some(slot) = self.board.take(self.spread) else { break };
            let planned = batch.by_slot.get(&slot).copied();
            let record = &self.board.entry(slot).record;
            let current = planned.map_or(record, |at| &batch.swaps[at].record);
            let event = QueueEvent::Lease { consumer: op.consumer.clone() };
            match transition(current, &event, wall, &self.timing) {
                Ok(Transition::To(next)) => {
                    let from = current.state.as_str();
                    let expected = record.version;
                    let actor = Cow::Owned(op.consumer.clone());
                    got.push(self.add(batch, slot, expected, *next, from, event, actor));
                }
                // The index holds only what can be leased; were it wrong, the queue would simply leave it.
                Ok(Transition::Unchanged) | Err(_) => {
                    debug_assert!(false, "index offered a queue that cannot be leased");
                }
            }
        }
        if !got.is_empty() {
            batch.nexts.push((op, got));
        } else if op.wait_until.is_some_and(|t| t > now) && op.attempts < MAX_ATTEMPTS {
            op.attempts = 0;
            match self.waiting.front() {
                Some(first) if op.id < first.id => self.waiting.push_front(op),
                _ => self.waiting.push_back(op),
            }
        } else if op.released && !batch.swaps.is_empty() {
            batch.nexts.push((op, got));
        } else if self.in_flight > op.looks {
            op.looks += 1;
            self.looking.push(op);
        } else if self.store_answers {
            drop(op.reply.send(Ok(Vec::new())));
        } else {
            drop(op.reply.send(Err(LeaseError::Unavailable("the store does not answer".into()))));
        }
    }

    /// Adds a step to the write of its queue. The write's version is one above what is stored, however many steps.
    #[allow(clippy::too_many_arguments)] // a step is what it is
    fn add(
        &mut self,
        batch: &mut Batch,
        slot: Slot,
        expected: u64,
        mut next: QueueRecord,
        from: &'static str,
        event: QueueEvent,
        actor: Cow<'static, str>,
    ) -> usize {
        let step = Step {
            actor,
            from,
            to: next.state.as_str(),
            epoch: next.epoch,
            reason: next.reason.clone(),
            event,
        };
        next.version = expected + 1;
        match batch.by_slot.get(&slot) {
            Some(&at) => {
                batch.swaps[at].record = next;
                batch.steps[at].push(step);
                at
            }
            None => {
                let at = batch.swaps.len();
                batch.swaps.push(Swap { expected, record: next });
                batch.slots.push(slot);
                batch.steps.push(vec![step]);
                batch.by_slot.insert(slot, at);
                at
            }
        }
    }

    /// Takes the outcome of a bulk write and answers those who waited for it.
    pub(crate) fn finish(
        &mut self,
        mut batch: Batch,
        outcome: Result<Vec<Swapped>, String>,
        now: Instant,
        wall: Timestamp,
        metrics: &Metrics,
    ) {
        self.in_flight -= 1;
        let writes = batch.swaps.len();
        let outcome = match outcome {
            Ok(o) if o.len() != writes => Err(format!("the store answered {} of {writes} writes", o.len())),
            other => other,
        };
        match outcome {
            Ok(outcomes) => {
                self.store_answers = true;
                let stored = self.settle(&mut batch, outcomes, now, wall, metrics);
                self.answer_all(batch, &stored, metrics);
            }
            Err(cause) => {
                // Whether anything was written is not known: the next look at the store will tell, and until then every
                // write by the old versions is refused.
                self.store_answers = false;
                for &slot in &batch.slots {
                    self.board.landed(slot, now);
                }
                for (op, _) in batch.acts {
                    answer(op.reply, Err(LeaseError::Unavailable(cause.clone())));
                }
                for (op, _) in batch.nexts {
                    drop(op.reply.send(Err(LeaseError::Unavailable(cause.clone()))));
                }
            }
        }
        self.pending.extend(self.deferred.drain(..).map(Op::Act));
        self.pending.extend(self.looking.drain(..).map(Op::Next));
        self.promote();
    }

    /// Brings the board up to date; says of each write whether it was done.
    fn settle(
        &mut self,
        batch: &mut Batch,
        outcomes: Vec<Swapped>,
        now: Instant,
        wall: Timestamp,
        metrics: &Metrics,
    ) -> Vec<bool> {
        let (mut leases, mut lost) = (0_usize, 0_usize);
        let mut stored = Vec::with_capacity(outcomes.len());
        for (at, outcome) in outcomes.into_iter().enumerate() {
            let done = outcome == Swapped::Done;
            let slot = batch.slots[at];
            if batch.steps[at].iter().any(|s| matches!(s.event, QueueEvent::Lease { .. })) {
                leases += 1;
                lost += usize::from(!done);
            }
            match outcome {
                Swapped::Done => {
                    for step in &batch.steps[at] {
                        step.log(&batch.swaps[at].record.queue);
                        metrics.stepped(&step.event);
                    }
                    self.board.apply(batch.swaps[at].record.clone(), now, wall);
                    self.board.landed(slot, now);
                }
                Swapped::Conflict(newer) => {
                    metrics.conflict();
                    match newer {
                        Some(newer) => {
                            self.board.apply(newer, now, wall);
                            self.board.landed(slot, now);
                        }
                        None => {
                            self.board.landed(slot, now);
                            self.board.remove(&batch.swaps[at].record.queue);
                        }
                    }
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

    fn answer_all(&mut self, batch: Batch, stored: &[bool], metrics: &Metrics) {
        for (mut op, at) in batch.acts {
            op.attempts += 1;
            if stored[at] {
                answer(op.reply, Ok(batch.swaps[at].record.clone()));
            } else if op.attempts < MAX_ATTEMPTS {
                self.pending.push_back(Op::Act(op));
            } else {
                let cause = format!("queue `{}` keeps changing; try again", op.queue);
                answer(op.reply, Err(LeaseError::Unavailable(cause)));
            }
        }
        for (mut op, got) in batch.nexts {
            let wanted = got.len();
            let leases: Vec<GrantedLease> = got
                .into_iter()
                .filter(|&at| stored[at])
                .map(|at| {
                    let record = &batch.swaps[at].record;
                    GrantedLease {
                        queue: record.queue.clone(),
                        epoch: record.epoch,
                        expires_in_ms: self.timing.lease_ms(),
                        strategy: batch.strategy.as_str().to_owned(),
                    }
                })
                .collect();
            op.attempts += 1;
            if !leases.is_empty() {
                metrics.granted(leases.len());
                if let Err(Ok(leases)) = op.reply.send(Ok(leases)) {
                    self.give_back(leases);
                }
            } else if wanted > 0 && op.attempts < MAX_ATTEMPTS {
                self.pending.push_front(Op::Next(op));
            } else {
                drop(op.reply.send(Ok(leases)));
            }
        }
    }

    /// Releases leases whose consumer went away before it got them.
    pub(crate) fn give_back(&mut self, leases: Vec<GrantedLease>) {
        for GrantedLease { queue, epoch, .. } in leases {
            self.pending.push_back(Op::Act(ActOp {
                queue,
                event: QueueEvent::Release { epoch, empty: false },
                actor: Some(Cow::Borrowed("dispatcher: the caller went away")),
                attempts: 0,
                reply: None,
            }));
        }
    }
}

impl Step {
    /// P12.
    fn log(&self, queue: &QueueName) {
        tracing::info!(
            target: "galerna::lease",
            queue = queue.as_str(),
            event = self.event.name(),
            from = self.from,
            to = self.to,
            epoch = self.epoch,
            actor = &*self.actor,
            reason = self.reason.as_deref().unwrap_or_default(),
            "transition"
        );
    }
}

fn answer<T>(reply: Option<oneshot::Sender<Result<T, LeaseError>>>, with: Result<T, LeaseError>) {
    if let Some(reply) = reply {
        drop(reply.send(with)); // Nobody waits any more: nothing to do.
    }
}

fn refused(refusal: TransitionError, queue: QueueName) -> LeaseError {
    match refusal {
        TransitionError::StaleEpoch { presented, .. } => LeaseError::StaleEpoch { queue, epoch: presented },
        other => LeaseError::Refused(format!("queue `{queue}`: {other}")),
    }
}
