//! The task loop of a spout, which owns its ledger.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use galerna_topology::runtime::{OutgoingBatch, SpoutTask};
use galerna_topology::{Failure, FailureKind, Fault, Next};
use tokio::sync::{mpsc, watch};

use crate::ack_sender::AckMessage;
use crate::clock::nanos;
use crate::ledger::Ledger;
use crate::metrics::{State, TaskStats, add};
use crate::shared::{Mode, Shared, collect};
use crate::worker::sleep_until;

/// Batches emitted before others get a turn.
const YIELD_EVERY: usize = 16;
/// The batch size starts here, and does not fall below it.
const SMALL_BATCH: usize = 64;
/// What is added to the batch size after each batch that was full and found room at once.
const BATCH_STEP: usize = 16;
/// Waiting longer than this for room downstream halves the batch size.
const LONG_WAIT: Duration = Duration::from_millis(1);
/// The pause after `next` failed, and what it grows to while it fails again.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What others look at of a spout's task.
#[derive(Debug, Default)]
pub(crate) struct SpoutProgress {
    pub(crate) pending: AtomicUsize,
    pub(crate) done: AtomicBool,
    pub(crate) quiet: AtomicBool,
}

/// One task of a spout.
pub(crate) struct SpoutWorker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) spout: Box<dyn SpoutTask>,
    pub(crate) ledger: Ledger,
    pub(crate) acks: mpsc::UnboundedReceiver<AckMessage>,
    pub(crate) stats: Arc<TaskStats>,
    pub(crate) state: Arc<SpoutProgress>,
    pub(crate) component: usize,
    pub(crate) mode: watch::Receiver<Mode>,
    pub(crate) closing: watch::Receiver<bool>,
    pub(crate) batch: Arc<AtomicUsize>,
    pub(crate) max_batch: usize,
    pub(crate) max_pending: usize,
}

/// What a spout said about when to call it next.
#[derive(Clone, Copy, PartialEq)]
enum PollState {
    Ready,
    /// When it says that it is ready, or at this time.
    At(Duration),
    Done,
}

enum Event {
    Ack(AckMessage),
    Ready,
    Time,
    Mode,
    Close,
}

impl SpoutWorker {
    fn id(&self) -> &Arc<str> {
        &self.shared.topology.components()[self.component].id
    }

    pub(crate) async fn run(mut self) {
        let mut outgoing: Vec<OutgoingBatch> = Vec::new();
        let mut poll = PollState::Ready;
        let mut pause = FIRST_PAUSE;
        let mut active = false;
        let mut turn = 0;
        loop {
            self.drain_acks().await;
            let mode = *self.mode.borrow_and_update();
            if active != (mode == Mode::Active) {
                active = !active;
                if !active {
                    // No fill follows that would send what was held back for it.
                    self.flush(true);
                    self.take_staged(&mut outgoing);
                    self.send(&mut outgoing).await;
                    self.deliver().await;
                }
                self.switch(active).await;
                if active && poll != PollState::Done {
                    poll = PollState::Ready;
                }
            }
            if self.state.quiet.swap(!active, Ordering::AcqRel) == active {
                self.shared.in_flight.touch();
            }
            let room = self.max_pending.saturating_sub(self.ledger.pending());
            if active && poll == PollState::Ready && room > 0 {
                self.stats.set_state(State::Emitting, 0);
                poll = match self.fill(room, &mut outgoing).await {
                    Ok(next) => {
                        pause = FIRST_PAUSE;
                        self.poll_state(next)
                    }
                    Err(fault) => {
                        self.report(&fault);
                        let at = self.shared.clock.now() + pause;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        PollState::At(at)
                    }
                };
                turn += 1;
                if turn == YIELD_EVERY {
                    turn = 0;
                    tokio::task::yield_now().await;
                }
                continue;
            }
            self.publish_state(mode, poll, room);
            match self.wait(active && room > 0, poll).await {
                Event::Ack(message) => self.apply(message),
                Event::Ready => poll = PollState::Ready,
                Event::Time => {
                    let now = self.shared.clock.now();
                    if matches!(poll, PollState::At(at) if at <= now) {
                        poll = PollState::Ready;
                    }
                    self.expire(now);
                }
                Event::Mode => {}
                Event::Close => break,
            }
        }
        self.drain_acks().await;
        let failure = self.failure(FailureKind::Stopped, "the topology was stopped");
        self.ledger.fail_all(&failure);
        self.deliver().await;
        if AssertUnwindSafe(self.spout.close()).catch_unwind().await.is_err() {
            self.report(&Fault::transient("panicked while closing"));
        }
    }

    fn failure(&self, kind: FailureKind, reason: &str) -> Failure {
        Failure::new(kind, reason, self.id().clone())
    }

    fn report(&self, fault: &Fault) {
        add(&self.stats.errors, 1);
        self.stats.report(fault.reason(), self.shared.clock.now());
        tracing::warn!(component = &**self.id(), reason = fault.reason(), "a spout failed");
    }

    fn poll_state(&self, next: Next) -> PollState {
        match next {
            Next::Ready => PollState::Ready,
            Next::Idle => PollState::At(Duration::MAX),
            Next::After(wait) => PollState::At(self.shared.clock.now().saturating_add(wait)),
            Next::Done => {
                self.state.done.store(true, Ordering::Release);
                self.shared.in_flight.touch();
                PollState::Done
            }
        }
    }

    fn publish_state(&self, mode: Mode, poll: PollState, room: usize) {
        let state = match (mode, poll) {
            (Mode::Inactive, _) => State::Paused,
            (Mode::Draining | Mode::Stopping, _) => State::Draining,
            (Mode::Active, PollState::Done) => State::Done,
            (Mode::Active, _) if room == 0 || self.is_full() => State::PendingFull,
            (Mode::Active, _) => State::NoData,
        };
        self.stats.set_state(state, 0);
    }

    /// Whether the spout itself waits for pending roots to end.
    fn is_full(&self) -> bool {
        // One that panics here is called again, and shows there what is wrong.
        self.ledger.pending() > 0 && catch_unwind(AssertUnwindSafe(|| self.spout.is_full())).unwrap_or(false)
    }

    async fn wait(&mut self, may_emit: bool, poll: PollState) -> Event {
        let clock = &self.shared.clock;
        let wake = match poll {
            PollState::At(at) if may_emit => at,
            _ => Duration::MAX,
        };
        let expiry = self.ledger.check_at().map_or(Duration::MAX, Duration::from_nanos);
        let ready = async {
            match poll {
                PollState::At(_) if may_emit => {
                    // A spout that panics while it waits is called again, and shows there what is wrong.
                    let _ = AssertUnwindSafe(self.spout.ready()).catch_unwind().await;
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(message) = self.acks.recv() => Event::Ack(message),
            Ok(()) = self.mode.changed() => Event::Mode,
            Ok(_) = self.closing.wait_for(|closing| *closing) => Event::Close,
            () = sleep_until(clock, wake.min(expiry)) => Event::Time,
            () = ready => Event::Ready,
        }
    }

    /// Has the spout emit, and sends what it emitted.
    async fn fill(&mut self, room: usize, outgoing: &mut Vec<OutgoingBatch>) -> Result<Next, Fault> {
        let batch = self.batch.load(Ordering::Relaxed);
        let room = room.min(batch);
        let start = self.shared.clock.now();
        self.ledger.set_now(nanos(start));
        self.shared.in_flight.begin(1);
        let outcome = AssertUnwindSafe(self.spout.fill(&mut self.ledger, room)).catch_unwind().await;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(panic) => {
                let fault = Fault::panicked(&*panic);
                self.restart().await;
                Err(fault)
            }
        };
        // Rows held back to fill batches wait for the next fill only if that is at hand and worth it.
        let ready = matches!(outcome, Ok(Next::Ready));
        // At the pending limit the next fill comes only when roots end, and the rows held back are such roots.
        let at_limit = self.ledger.pending() >= self.max_pending;
        self.flush(!ready || at_limit || room < SMALL_BATCH);
        if ready && self.spout.staged().emitted == 0 {
            self.flush(true);
        }
        let full = ready && self.spout.staged().emitted >= room as u64;
        self.take_staged(outgoing);
        let waited = self.send(outgoing).await;
        self.shared.in_flight.end(1);
        if waited > LONG_WAIT {
            self.resize_batch((batch / 2).max(SMALL_BATCH.min(self.max_batch)));
        } else if full && waited.is_zero() {
            self.resize_batch((batch + BATCH_STEP).min(self.max_batch));
        }
        outcome
    }

    /// Distributes what the spout emitted: all, or what fills batches.
    fn flush(&mut self, all: bool) {
        // What groupings and copied tuples panic with is caught row by row; this is for the rest.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.spout.flush(all))) {
            self.report(&Fault::panicked(&*panic));
        }
    }

    /// Takes the batches to send, and tells the ledger of roots that end here: nobody received them, or they
    /// were lost by a panic on the way.
    fn take_staged(&mut self, outgoing: &mut Vec<OutgoingBatch>) {
        let lost = std::mem::take(&mut self.spout.staged().lost);
        for lost in lost {
            let fault = lost.fault;
            self.stats.report(fault.reason(), self.shared.clock.now());
            tracing::warn!(component = &**self.id(), reason = fault.reason(), "tuples were lost on the way");
            let failure = self.failure(FailureKind::Panic, fault.reason());
            self.ledger.fail(lost.lineage.into_spans(), &failure);
        }
        let staged = self.spout.staged();
        self.ledger.settle(staged.acked.drain_spans(), &self.stats.complete);
        collect(&self.stats, staged, outgoing);
        self.publish_pending();
    }

    fn resize_batch(&self, batch: usize) {
        self.batch.store(batch, Ordering::Relaxed);
        self.stats.batch.store(batch as u64, Ordering::Relaxed);
    }

    /// Sends batches. While a queue downstream is full, the ledger is kept up to date and the spout hears of
    /// acks and fails. Returns how long it waited.
    async fn send(&mut self, outgoing: &mut Vec<OutgoingBatch>) -> Duration {
        let mut waited = Duration::ZERO;
        for batch in outgoing.drain(..) {
            let Err(message) = self.shared.try_send(batch) else { continue };
            let target = self.shared.plan.targets[message.target as usize];
            self.stats.set_state(State::DownstreamFull, target.component);
            let since = self.shared.clock.now();
            let shared = self.shared.clone();
            let sent = shared.inboxes[target.worker].queue.send(message);
            tokio::pin!(sent);
            loop {
                let expiry = self.ledger.check_at().map_or(Duration::MAX, Duration::from_nanos);
                tokio::select! {
                    biased;
                    sent = &mut sent => {
                        if sent.is_err() {
                            shared.lost(target);
                        }
                        break;
                    }
                    Some(message) = self.acks.recv() => self.apply(message),
                    () = sleep_until(&shared.clock, expiry) => self.expire(shared.clock.now()),
                }
                self.deliver().await;
            }
            waited += self.shared.clock.now().saturating_sub(since);
            self.stats.set_state(State::Emitting, 0);
        }
        waited
    }

    /// Takes all that bolts have sent, and tells the spout.
    async fn drain_acks(&mut self) {
        let mut any = false;
        while let Ok(message) = self.acks.try_recv() {
            if !any {
                self.ledger.set_now(nanos(self.shared.clock.now()));
                any = true;
            }
            self.apply_now(message);
        }
        if self.ledger.check_at().is_some_and(|at| at <= nanos(self.shared.clock.now())) {
            self.expire(self.shared.clock.now());
        }
        self.deliver().await;
    }

    fn apply(&mut self, message: AckMessage) {
        self.ledger.set_now(nanos(self.shared.clock.now()));
        self.apply_now(message);
    }

    fn apply_now(&mut self, message: AckMessage) {
        match message {
            AckMessage::AckedRange(first, rows) => {
                self.ledger.settle_whole(first, rows, &self.stats.complete)
            }
            AckMessage::Acked(spans) => self.ledger.settle(spans, &self.stats.complete),
            AckMessage::Failed(spans, failure) => self.ledger.fail(spans, &failure),
            AckMessage::ResetTimeout(spans) => self.ledger.restart(spans),
        }
        self.shared.in_flight.end(1);
    }

    fn expire(&mut self, now: Duration) {
        let failure = self.failure(FailureKind::Timeout, "timeout");
        self.ledger.expire(nanos(now), &failure);
    }

    /// Hands what is done and failed to the spout.
    async fn deliver(&mut self) {
        let acked: u64 = self.ledger.acked().iter().map(|run| u64::from(run.len)).sum();
        if acked > 0 {
            add(&self.stats.acked, acked);
            let delivered = AssertUnwindSafe(self.spout.acked(self.ledger.acked())).catch_unwind().await;
            if let Err(panic) = delivered {
                self.panicked(Fault::panicked(&*panic)).await;
            }
        }
        if !self.ledger.failed().is_empty() {
            for (_, failure) in self.ledger.failed().iter() {
                self.stats.add_failed(failure, 1);
            }
            let delivered = AssertUnwindSafe(self.spout.failed(self.ledger.failed())).catch_unwind().await;
            if let Err(panic) = delivered {
                self.panicked(Fault::panicked(&*panic)).await;
            }
        }
        self.publish_pending();
    }

    fn publish_pending(&self) {
        let pending = self.ledger.pending();
        self.stats.pending.store(pending as u64, Ordering::Relaxed);
        if self.state.pending.swap(pending, Ordering::AcqRel) != pending && pending == 0 {
            self.shared.in_flight.touch();
        }
    }

    async fn panicked(&mut self, fault: Fault) {
        self.report(&fault);
        self.restart().await;
    }

    /// After a panic: a new instance takes over.
    async fn restart(&mut self) {
        add(&self.stats.restarts, 1);
        self.spout.recover();
        match AssertUnwindSafe(self.spout.open()).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => self.report(&fault),
            Err(_) => self.report(&Fault::transient("panicked while it was opened again")),
        }
    }

    async fn switch(&mut self, active: bool) {
        let hook = if active { self.spout.activate() } else { self.spout.deactivate() };
        if let Err(panic) = AssertUnwindSafe(hook).catch_unwind().await {
            self.panicked(Fault::panicked(&*panic)).await;
        }
    }
}
