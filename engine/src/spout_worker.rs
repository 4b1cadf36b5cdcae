//! The task loop of a spout, which owns its ledger.

mod acks;
mod committing;
mod instance;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use galerna_topology::runtime::{OutgoingBatch, RootAllocator, SpoutTask};
use galerna_topology::{Failure, FailureKind, Fault, Next};
use tokio::sync::{mpsc, watch};

use crate::ack_sender::AckMessage;
use crate::checkpoints::SpoutCommand;
use crate::clock::nanos;
use crate::faults::{Backoff, FaultReporter};
use crate::lanes::SentBy;
use crate::ledger::Ledger;
use crate::metrics::{State, TaskStats};
use crate::plan::TaskPlan;
use crate::shared::{Mode, Shared, collect};
use crate::start::OpenSpout;
use crate::turn::Turn;
use crate::worker::sleep_until;

/// Batches emitted before others get a turn.
const YIELD_EVERY: usize = 16;
/// The batch size starts here, and does not fall below it.
const SMALL_BATCH: usize = 64;
/// What is added to the batch size after each batch that was full and found room at once.
const BATCH_STEP: usize = 16;
/// Waiting longer than this for room downstream halves the batch size.
const LONG_WAIT: Duration = Duration::from_millis(1);
/// Rows are held back to fill batches for no longer than this.
const HOLD_BACK: Duration = Duration::from_millis(2);

/// Calls of `next` in a row that may emit nothing, before it is called less often.
const FUTILE_CALLS: u32 = 16;
/// How often it is called then.
const FUTILE_PAUSE: Duration = Duration::from_millis(1);

/// What others look at of a spout's task.
#[derive(Debug, Default)]
pub(crate) struct SpoutProgress {
    pub(crate) pending: AtomicUsize,
    /// Acks that wait for a commit.
    pub(crate) held: AtomicUsize,
    pub(crate) done: AtomicBool,
    pub(crate) quiet: AtomicBool,
}

/// One task of a spout.
pub(crate) struct SpoutWorker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) spout: Box<dyn SpoutTask>,
    pub(crate) ledger: Ledger,
    pub(crate) acks: mpsc::UnboundedReceiver<(u64, AckMessage)>,
    /// What the coordinator of checkpoints says, if there is one.
    pub(crate) commands: Option<mpsc::Receiver<SpoutCommand>>,
    pub(crate) stats: Arc<TaskStats>,
    pub(crate) state: Arc<SpoutProgress>,
    pub(crate) plan: TaskPlan,
    pub(crate) mode: watch::Receiver<Mode>,
    pub(crate) closing: watch::Receiver<bool>,
    pub(crate) batch: Arc<AtomicUsize>,
    pub(crate) max_batch: usize,
    pub(crate) max_pending: usize,
    pub(crate) faults: FaultReporter,
    run: RunState,
}

/// Where the loop of a spout's task is.
struct RunState {
    outgoing: Vec<OutgoingBatch>,
    poll: PollState,
    active: bool,
    /// Whether those behind have been told that nothing new will come.
    ended: bool,
    /// The pause after errors of `next`.
    errors: Backoff,
    /// Calls of `next` in a row that emitted nothing.
    futile: u32,
    /// Whether there is an instance that is open.
    open: bool,
    /// When to open the next one, if there is none, and the pause after that fails.
    open_at: Duration,
    opening: Backoff,
    /// Since when rows may be held back.
    flushed: Duration,
    /// The barrier to be sent next, if it has not been.
    barrier: Option<u64>,
    /// The last barrier that was sent.
    sent_barrier: u64,
    /// The last checkpoint that is committed; 0 is the one that was restored.
    committed: u64,
}

impl RunState {
    /// Of a spout that is open.
    fn new() -> Self {
        Self {
            outgoing: Vec::new(),
            poll: PollState::Ready,
            active: false,
            ended: false,
            errors: Backoff::new(),
            futile: 0,
            open: true,
            open_at: Duration::ZERO,
            opening: Backoff::new(),
            flushed: Duration::ZERO,
            barrier: None,
            sent_barrier: 0,
            committed: 0,
        }
    }
}

/// What a spout said about when to call it next.
#[derive(Clone, Copy, PartialEq)]
enum PollState {
    Ready,
    /// At this time, whatever it says: it failed.
    Pause(Duration),
    /// When it says that it is ready, or at this time.
    At(Duration),
    Done,
}

enum Event {
    Ack(u64, AckMessage),
    Command(SpoutCommand),
    Ready,
    /// It panicked while it waited to be ready.
    Panicked(Fault),
    Time,
    Mode,
    Close,
}

impl SpoutWorker {
    /// The worker of a spout that is open, numbered over the topology.
    pub(crate) fn new(
        shared: Arc<Shared>,
        number: u16,
        spout: OpenSpout,
        acks: mpsc::UnboundedReceiver<(u64, AckMessage)>,
        commands: Option<mpsc::Receiver<SpoutCommand>>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let OpenSpout { plan, spout, batch } = spout;
        let component = &shared.topology.components()[plan.component];
        let (max_batch, max_pending) = (component.settings.batch, component.settings.max_pending);
        let timeout = shared.topology.message_timeout(component).map(nanos);
        let stats = shared.stats[plan.component][plan.task].clone();
        if *shared.mode.borrow() == Mode::Active {
            stats.set_state(State::Emitting, 0);
        }
        // Small, since most of a thousand spout tasks have few roots pending; it grows with them.
        let ledger =
            Ledger::new(number, 0, timeout).with_stable_ids(shared.stable_ids[usize::from(number)].clone());
        Self {
            spout,
            ledger: match &shared.checkpoints {
                Some(checkpoints) => {
                    let known = checkpoints.known[plan.component].clone();
                    ledger.with_checkpoints(known, component.id.clone())
                }
                None => ledger,
            },
            acks,
            commands,
            faults: shared.fault_reporter(plan),
            stats,
            state: Arc::new(SpoutProgress::default()),
            plan,
            mode: shared.mode.subscribe(),
            closing,
            batch,
            max_batch,
            max_pending,
            run: RunState::new(),
            shared,
        }
    }

    fn id(&self) -> &Arc<str> {
        &self.shared.topology.components()[self.plan.component].id
    }

    pub(crate) async fn run(mut self) {
        // The author's code is caught where it is called. Whatever else panics must not end the task unseen, either.
        while let Err(panic) = AssertUnwindSafe(self.run_until_closed()).catch_unwind().await {
            self.panicked(Fault::panicked(&*panic)).await;
        }
        while let Some(Ok(command)) = self.commands.as_mut().map(mpsc::Receiver::try_recv) {
            self.obey(command).await;
        }
        self.drain_acks().await;
        let failure = self.failure(FailureKind::Stopped, "the topology was stopped");
        self.ledger.fail_all(&failure);
        self.run.open = true;
        self.deliver().await;
        if let Err(panic) = AssertUnwindSafe(self.spout.close()).catch_unwind().await {
            self.faults.report(&Fault::panicked(&*panic));
        }
    }

    async fn run_until_closed(&mut self) {
        let mut turn = Turn::new(&*self.shared.clock);
        let mut fills = 0;
        loop {
            if !self.run.open && self.run.open_at <= self.shared.clock.now() {
                self.open_again().await;
            }
            self.drain_acks().await;
            if self.run.open && self.ledger.shrink(nanos(self.shared.clock.now())) {
                self.spout.shrink(self.ledger.capacity());
            }
            let mode = *self.mode.borrow_and_update();
            if self.run.active != (mode == Mode::Active) {
                self.run.active = !self.run.active;
                if !self.run.active {
                    // No fill follows that would send what was held back for it.
                    self.flush(true);
                    self.take_staged();
                    self.send().await;
                    self.deliver().await;
                }
                self.switch().await;
                if self.run.active && self.run.poll != PollState::Done {
                    self.run.poll = PollState::Ready;
                }
            }
            if self.commands.is_some() {
                self.obey_all().await;
            }
            let active = self.run.active;
            if self.state.quiet.swap(!active, Ordering::AcqRel) == active {
                self.shared.in_flight.touch();
            }
            let may_emit = active && self.run.open;
            let room = self.room();
            if may_emit && self.run.poll == PollState::Ready && room > 0 {
                self.stats.set_state(State::Emitting, 0);
                self.run.poll = match self.fill(room).await {
                    Ok(next) => self.poll_state(next),
                    Err(fault) => {
                        self.faults.report(&fault);
                        self.pause()
                    }
                };
                fills += 1;
                if self.run.futile >= FUTILE_CALLS {
                    self.publish_state(mode, room);
                    self.rest().await;
                    turn.begin(self.shared.clock.now());
                } else if fills == YIELD_EVERY || turn.is_over(self.shared.clock.now()) {
                    fills = 0;
                    turn.pass(&*self.shared.clock).await;
                }
                continue;
            }
            self.publish_state(mode, room);
            match self.wait(may_emit && room > 0).await {
                Event::Ack(epoch, message) => self.apply(epoch, message),
                Event::Command(command) => self.obey(command).await,
                Event::Ready => {
                    self.run.errors.reset();
                    self.run.poll = PollState::Ready;
                }
                Event::Panicked(fault) => self.panicked(fault).await,
                Event::Time => {
                    let now = self.shared.clock.now();
                    if matches!(self.run.poll, PollState::At(at) | PollState::Pause(at) if at <= now) {
                        self.run.poll = PollState::Ready;
                    }
                    self.expire(now);
                }
                Event::Mode => {}
                Event::Close => return,
            }
        }
    }

    /// A spout that is called again and again and emits nothing must not keep a core busy. Acks are not held up, and time is the
    /// machine's, whatever the topology's clock says.
    async fn rest(&mut self) {
        tokio::select! {
            Some((epoch, message)) = self.acks.recv() => self.apply(epoch, message),
            Ok(()) = self.mode.changed() => {}
            () = tokio::time::sleep(FUTILE_PAUSE) => {}
        }
    }

    /// Not to be called again for a while, since it failed.
    fn pause(&mut self) -> PollState {
        let pause = self.run.errors.pause();
        PollState::Pause(self.shared.clock.now().saturating_add(pause))
    }

    fn failure(&self, kind: FailureKind, reason: &str) -> Failure {
        Failure::new(kind, reason, self.id().clone())
    }

    fn poll_state(&self, next: Next) -> PollState {
        match next {
            Next::Ready => PollState::Ready,
            Next::Idle | Next::Ended => PollState::At(Duration::MAX),
            Next::After(wait) => PollState::At(self.shared.clock.now().saturating_add(wait)),
            Next::Done => {
                self.state.done.store(true, Ordering::Release);
                self.shared.in_flight.touch();
                PollState::Done
            }
        }
    }

    fn publish_state(&self, mode: Mode, room: usize) {
        let state = match (mode, self.run.poll) {
            (Mode::Inactive, _) => State::Paused,
            (Mode::Draining | Mode::Stopping, _) => State::Draining,
            (Mode::Active, PollState::Done) => State::Done,
            (Mode::Active, _) if room == 0 || self.is_full() => State::PendingFull,
            (Mode::Active, _) => State::NoData,
        };
        self.stats.set_state(state, 0);
        if let (State::PendingFull, Some(checkpoints)) = (state, &self.shared.checkpoints)
            && self.spout.held() > 0
        {
            checkpoints.want();
        }
    }

    /// How many more roots there may be.
    fn room(&self) -> usize {
        match &self.shared.checkpoints {
            Some(checkpoints) if self.spout.held() >= checkpoints.most_held => 0,
            _ => self.max_pending.saturating_sub(self.ledger.pending()),
        }
    }

    /// Whether the spout itself waits for pending roots to end.
    fn is_full(&self) -> bool {
        if self.ledger.pending() == 0 && self.spout.held() == 0 {
            return false;
        }
        let says = catch_unwind(AssertUnwindSafe(|| self.spout.is_full()));
        says.unwrap_or_else(|panic| {
            self.faults.report(&Fault::panicked(&*panic));
            false
        })
    }

    async fn wait(&mut self, may_emit: bool) -> Event {
        let clock = &self.shared.clock;
        let poll = self.run.poll;
        let wake = match poll {
            PollState::At(at) | PollState::Pause(at) if may_emit => at,
            _ => Duration::MAX,
        };
        let open_at = if self.run.open { Duration::MAX } else { self.run.open_at };
        let expiry = self.ledger.check_at().map_or(Duration::MAX, Duration::from_nanos);
        let shrink_at = self.ledger.shrink_at().map_or(Duration::MAX, Duration::from_nanos);
        let ready = async {
            match poll {
                PollState::At(_) if may_emit => {
                    match AssertUnwindSafe(self.spout.ready()).catch_unwind().await {
                        Ok(()) => Event::Ready,
                        Err(panic) => Event::Panicked(Fault::panicked(&*panic)),
                    }
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((epoch, message)) = self.acks.recv() => Event::Ack(epoch, message),
            Some(command) = next_command(&mut self.commands) => Event::Command(command),
            Ok(()) = self.mode.changed() => Event::Mode,
            Ok(_) = self.closing.wait_for(|closing| *closing) => Event::Close,
            () = sleep_until(clock, wake.min(expiry).min(open_at).min(shrink_at)) => Event::Time,
            event = ready => event,
        }
    }

    /// Has the spout emit, and sends what it emitted.
    async fn fill(&mut self, room: usize) -> Result<Next, Fault> {
        let batch = self.batch.load(Ordering::Relaxed);
        let room = room.min(batch);
        let start = self.shared.clock.now();
        self.ledger.set_now(nanos(start));
        let before = self.ledger.pending() + self.spout.held();
        self.shared.in_flight.begin(1);
        let outcome = AssertUnwindSafe(self.spout.fill(&mut self.ledger, room)).catch_unwind().await;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(panic) => {
                self.restart().await;
                Err(Fault::panicked(&*panic))
            }
        };
        // Rows held back to fill batches wait for the next fill only if that is at hand and worth it.
        let ready = matches!(outcome, Ok(Next::Ready));
        // At the pending limit the next fill comes only when roots end, and the rows held back are such roots.
        let at_limit = self.ledger.pending() >= self.max_pending;
        let held_back = start.saturating_sub(self.run.flushed) >= HOLD_BACK;
        let all = !ready || at_limit || held_back || room < SMALL_BATCH || self.spout.staged().emitted == 0;
        self.flush(all);
        if all {
            self.run.flushed = start;
        }
        if matches!(outcome, Ok(Next::Ended | Next::Done)) && !std::mem::replace(&mut self.run.ended, true) {
            self.spout.end();
        }
        if outcome.is_ok() && self.spout.staged().emitted > 0 {
            self.run.errors.reset();
        }
        let full = ready && self.spout.staged().emitted >= room as u64;
        let futile = self.spout.staged().emitted == 0 && self.ledger.pending() + self.spout.held() == before;
        self.run.futile = if futile { self.run.futile.saturating_add(1) } else { 0 };
        self.take_staged();
        let waited = self.send().await;
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
            self.faults.report(&Fault::panicked(&*panic));
        }
    }

    /// Takes the batches to send, and tells the ledger of roots that end here: nobody received them, or they
    /// were lost by a panic on the way.
    fn take_staged(&mut self) {
        let lost = std::mem::take(&mut self.spout.staged().lost);
        for lost in lost {
            self.faults.note(&lost.fault);
            let failure = Failure { kind: lost.kind, fault: lost.fault, component: self.id().clone() };
            self.ledger.fail(lost.lineage.into_spans(), &failure);
        }
        let staged = self.spout.staged();
        if self.commands.is_some() {
            let spans = staged.acked.drain_spans().collect();
            self.ledger.settle_in(self.run.sent_barrier, spans, &self.stats.complete);
        } else {
            self.ledger.settle(staged.acked.drain_spans(), &self.stats.complete);
        }
        collect(&self.stats, staged, &mut self.run.outgoing);
        self.publish_pending();
    }

    fn resize_batch(&self, batch: usize) {
        self.batch.store(batch, Ordering::Relaxed);
        self.stats.batch.store(batch as u64, Ordering::Relaxed);
    }

    /// Sends batches. While a queue downstream is full, the ledger is kept up to date and the spout hears of
    /// acks and fails. Returns how long it waited.
    async fn send(&mut self) -> Duration {
        let mut waited = Duration::ZERO;
        let mut outgoing = std::mem::take(&mut self.run.outgoing);
        for batch in outgoing.drain(..) {
            let by = SentBy::Spout { sent: self.run.sent_barrier };
            let Err(message) = self.shared.try_send(batch, by) else { continue };
            let target = self.shared.plan.targets[message.target as usize];
            self.stats.set_state(State::DownstreamFull, target.component);
            let since = self.shared.clock.now();
            let shared = self.shared.clone();
            let sent = shared.send(message, by);
            tokio::pin!(sent);
            loop {
                let expiry = self.ledger.check_at().map_or(Duration::MAX, Duration::from_nanos);
                tokio::select! {
                    biased;
                    () = &mut sent => break,
                    Some((epoch, message)) = self.acks.recv() => self.apply(epoch, message),
                    Some(command) = next_command(&mut self.commands) => Box::pin(self.obey(command)).await,
                    () = sleep_until(&shared.clock, expiry) => self.expire(shared.clock.now()),
                }
                self.deliver().await;
            }
            waited += self.shared.clock.now().saturating_sub(since);
            self.stats.set_state(State::Emitting, 0);
        }
        self.run.outgoing = outgoing;
        waited
    }

    async fn switch(&mut self) {
        if !self.run.open {
            // Who is opened later hears then of being active.
            return;
        }
        let hook = if self.run.active { self.spout.activate() } else { self.spout.deactivate() };
        if let Err(panic) = AssertUnwindSafe(hook).catch_unwind().await {
            self.panicked(Fault::panicked(&*panic)).await;
        }
    }
}

/// What the coordinator of checkpoints says next. Cancel-safe.
async fn next_command(commands: &mut Option<mpsc::Receiver<SpoutCommand>>) -> Option<SpoutCommand> {
    match commands {
        Some(commands) => match commands.recv().await {
            Some(command) => Some(command),
            // It is gone, and says nothing any more.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
