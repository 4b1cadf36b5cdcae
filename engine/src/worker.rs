//! The task loop of bolts that compute, one or several fused.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use galerna_topology::Fault;
use galerna_topology::runtime::{BoltTask, Content, Delivery, OutgoingBatch, Processed, Signal};
use tokio::sync::watch;

use crate::checkpoints::Alignment;
use crate::clock::nanos;
use crate::executors::{Executors, Slot};
use crate::faults::{Backoff, FaultReporter};
use crate::lanes::Message;
use crate::metrics::{TaskStats, add};
use crate::plan::{Target, TaskPlan};
use crate::shared::{Mode, Shared, collect};
use crate::turn::{TURN, Turn};

/// Batches taken before others get a turn, however little time they took.
const YIELD_EVERY: usize = 32;
/// Rows are held back to fill batches for no longer than this.
const HOLD_BACK: Duration = Duration::from_millis(2);
/// Turns in a row that ended in the middle of a batch, after which a task is slow: one or two may be a hiccup of the machine.
const SLOW_TURNS: u32 = 4;
/// A task that has executed more tuples than this in its turn is not slow.
const SLOW_ROWS: u64 = 64;
/// The most tuples executed before the clock is looked at.
const CHECK_AFTER: u64 = 512;

/// One bolt's task within a worker.
pub(crate) struct WorkerTask {
    pub(crate) bolt: Box<dyn BoltTask>,
    pub(crate) stats: Arc<TaskStats>,
    pub(crate) tick: Option<Duration>,
    pub(crate) next_tick: Duration,
    pub(crate) faults: FaultReporter,
    /// What is to be executed, in order: what a bolt before it in the worker sent, and what is left of a batch that was begun.
    local: VecDeque<Message>,
    /// Nanoseconds that a tuple took last.
    per_row: u64,
    /// Whose barriers have come.
    alignment: Alignment,
}

/// What a worker listens to.
pub(crate) struct Inputs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: usize,
    pub(crate) mode: watch::Receiver<Mode>,
    pub(crate) closing: watch::Receiver<bool>,
}

impl Inputs {
    pub(crate) fn new(shared: Arc<Shared>, worker: usize, closing: watch::Receiver<bool>) -> Self {
        Self { worker, mode: shared.mode.subscribe(), closing, shared }
    }

    pub(crate) fn try_take(&self) -> Option<Message> {
        self.shared.next_message(self.worker)
    }

    /// As [`try_take`](Self::try_take), before waiting for input: if there is none, the worker counts as idle.
    pub(crate) fn take_or_idle(&self) -> Option<Message> {
        self.shared.lanes.set_idle(self.worker, true);
        let message = self.try_take();
        if message.is_some() {
            self.shared.lanes.set_idle(self.worker, false);
        }
        message
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        self.shared.close_lane(self.worker);
    }
}

/// Bolts that compute, running as one task.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    index: usize,
    tasks: Vec<WorkerTask>,
    inputs: Inputs,
    outgoing: Vec<OutgoingBatch>,
    /// Batches taken whose consequences have not all been sent.
    taken: usize,
    /// Whether nothing came in since the last drain.
    drained: bool,
    /// Since when rows may be held back.
    flushed: Duration,
    /// Turns in a row that ended in the middle of a batch.
    slow_turns: u32,
    /// How many workers of the component may execute at the same time.
    executors: Arc<Executors>,
    /// The right to, where not all of them may.
    slot: Option<Slot>,
}

enum Event {
    Input,
    Tick,
    Mode,
    Close,
}

impl Worker {
    /// A worker of the plan. Its bolts are those of its members.
    pub(crate) fn new(shared: Arc<Shared>, bolts: Vec<Box<dyn BoltTask>>, inputs: Inputs) -> Self {
        let index = inputs.worker;
        let tasks =
            bolts.into_iter().zip(&shared.plan.workers[index].members).map(|(bolt, &plan)| WorkerTask {
                bolt,
                stats: shared.stats[plan.component][plan.task].clone(),
                tick: shared.topology.components()[plan.component].settings.tick,
                next_tick: Duration::MAX,
                faults: shared.fault_reporter(plan),
                local: VecDeque::new(),
                per_row: u64::MAX,
                alignment: Alignment::new(shared.plan.barrier_senders(&shared.topology, plan)),
            });
        let tasks = tasks.collect();
        Self {
            index,
            tasks,
            inputs,
            outgoing: Vec::new(),
            taken: 0,
            drained: false,
            flushed: shared.clock.now(),
            slow_turns: 0,
            executors: shared.executors[shared.plan.workers[index].head].clone(),
            slot: None,
            shared,
        }
    }

    pub(crate) async fn run(mut self) {
        for task in &mut self.tasks {
            let next = |tick| self.shared.clock.now().saturating_add(tick);
            task.next_tick = task.tick.map_or(Duration::MAX, next);
        }
        let mut turn = Turn::new(&*self.shared.clock);
        // The author's code is caught where it is called. Whatever else panics must not end the task unseen, either.
        let mut backoff = Backoff::new();
        while let Err(panic) = AssertUnwindSafe(self.run_until_closed(&mut turn)).catch_unwind().await {
            self.slot = None;
            self.tasks[0].faults.report(&Fault::panicked(&*panic));
            let pause = backoff.pause();
            self.shared.clock.sleep_until(self.shared.clock.now().saturating_add(pause)).await;
        }
        // All that send here have ended before; what they sent last may still wait.
        (0..self.tasks.len()).for_each(|slot| self.release(slot));
        while self.has_local() || self.take_next() {
            self.work_off(&mut turn).await;
        }
        for at in 0..self.tasks.len() {
            let drained = self.tasks[at].bolt.drain();
            self.tasks[at].report(drained);
            self.flush_task(at);
            self.work_off(&mut turn).await;
        }
        self.shared.in_flight.end(std::mem::take(&mut self.taken));
        for at in 0..self.tasks.len() {
            let closed = self.tasks[at].bolt.close();
            self.tasks[at].report(closed);
            for behind in at..self.tasks.len() {
                self.flush_task(behind);
                self.work_off(&mut turn).await;
            }
        }
    }

    async fn run_until_closed(&mut self, turn: &mut Turn) {
        let mut batches = 0;
        loop {
            self.enter(turn).await;
            if self.has_local() || self.take_next() {
                self.run_local(turn);
                self.send().await;
                batches += 1;
                let now = self.shared.clock.now();
                if batches == YIELD_EVERY || turn.is_over(now) {
                    batches = 0;
                    self.end_turn(now).await;
                    self.slot = None;
                    turn.pass(&*self.shared.clock).await;
                }
                continue;
            }
            self.flush();
            self.send().await;
            if self.has_local() {
                continue;
            }
            if *self.inputs.mode.borrow() == Mode::Draining && !std::mem::replace(&mut self.drained, true) {
                for at in 0..self.tasks.len() {
                    let drained = self.tasks[at].bolt.drain();
                    self.tasks[at].report(drained);
                    // In the order of the flow: what one emits reaches the next before that is drained in turn.
                    self.flush_task(at);
                    self.work_off(turn).await;
                }
                continue;
            }
            self.shared.in_flight.end(std::mem::take(&mut self.taken));
            if self.take_or_idle() {
                continue;
            }
            self.slot = None;
            let event = self.wait().await;
            self.shared.lanes.set_idle(self.index, false);
            turn.begin(self.shared.clock.now());
            match event {
                Event::Input => {}
                Event::Tick => {
                    self.enter(turn).await;
                    self.tick_if_due(self.shared.clock.now());
                }
                Event::Mode => self.drained = false,
                Event::Close => return,
            }
        }
    }

    /// Waits until it may execute, if it holds no slot and needs one.
    async fn enter(&mut self, turn: &mut Turn) {
        if self.slot.is_none() && self.executors.is_limited() {
            self.slot = Some(self.executors.enter().await);
            turn.begin(self.shared.clock.now());
        }
    }

    async fn wait(&mut self) -> Event {
        let next_tick = self.tasks.iter().map(|task| task.next_tick).min().unwrap_or(Duration::MAX);
        let clock = &self.shared.clock;
        let lanes = &self.shared.lanes;
        let Inputs { mode, closing, .. } = &mut self.inputs;
        tokio::select! {
            () = lanes.arrived(self.index) => Event::Input,
            () = sleep_until(clock, next_tick) => Event::Tick,
            Ok(()) = mode.changed() => Event::Mode,
            Ok(_) = closing.wait_for(|closing| *closing) => Event::Close,
        }
    }

    fn has_local(&self) -> bool {
        self.tasks.iter().any(|task| !task.local.is_empty())
    }

    /// Takes a batch, if there is one.
    fn take_next(&mut self) -> bool {
        let message = self.inputs.try_take();
        self.begin(message)
    }

    fn take_or_idle(&mut self) -> bool {
        let message = self.inputs.take_or_idle();
        self.begin(message)
    }

    fn begin(&mut self, message: Option<Message>) -> bool {
        let Some(message) = message else { return false };
        self.taken += 1;
        self.drained = false;
        let target = self.shared.plan.targets[message.target as usize];
        self.tasks[target.slot].local.push_back(message);
        true
    }

    /// Executes what is at hand in this worker, what comes last in the flow first, until nothing is or the turn is over.
    fn run_local(&mut self, turn: &Turn) {
        while let Some(slot) = (0..self.tasks.len()).rev().find(|slot| !self.tasks[*slot].local.is_empty()) {
            if self.execute_next(slot, turn) {
                return;
            }
        }
    }

    /// Executes the next batch of a task, or as much of it as the turn lasts. Returns whether the turn is over.
    fn execute_next(&mut self, slot: usize, turn: &Turn) -> bool {
        let Some(message) = self.tasks[slot].local.pop_front() else { return false };
        let to = self.shared.plan.targets[message.target as usize];
        if self.tasks[slot].alignment.is_ahead(to.input, message.sender) {
            self.hold(slot, message);
            return false;
        }
        let Message { target, sender, rows, bytes, converted, content } = message;
        let input = &self.shared.topology.components()[to.component].inputs[to.input];
        let task = &mut self.tasks[slot];
        let start = self.shared.clock.now();
        let tuples = match content {
            Content::Rows(tuples) => tuples,
            Content::Signal(Signal::Barrier(number)) => {
                self.arrive(slot, to, sender, number);
                return turn.is_over(self.shared.clock.now());
            }
            Content::Signal(Signal::Watermark(watermark)) => {
                let delivery =
                    Delivery { input: to.input, sender, until: Duration::MAX, check_after: usize::MAX };
                let told = catch_unwind(AssertUnwindSafe(|| task.bolt.watermark(watermark, &delivery)));
                task.report(told.unwrap_or_else(|panic| Err(Fault::panicked(&*panic))));
                let now = self.shared.clock.now();
                add(&task.stats.busy, nanos(now.saturating_sub(start)));
                self.keep_local(slot);
                return turn.is_over(now);
            }
        };
        let (tuples, lost) = if converted { (tuples, Vec::new()) } else { input.convert(tuples) };
        let mut executed = u64::from(rows) - lost.iter().map(|lost| lost.rows).sum::<u64>();
        if !lost.is_empty() {
            task.bolt.lose(lost);
        }
        let check_after = (nanos(TURN) / 4)
            .checked_div(task.per_row)
            .map_or(CHECK_AFTER, |rows| rows.clamp(1, CHECK_AFTER));
        let delivery = Delivery {
            input: to.input,
            sender,
            until: turn.began().saturating_add(TURN),
            check_after: check_after as usize,
        };
        // The task catches what the bolt and the groupings panic with, tuple by tuple. This is for the
        // rest, such as a tuple that panics when it is dropped: no panic ends an executor.
        let processed = catch_unwind(AssertUnwindSafe(|| task.bolt.process(tuples, &delivery)));
        let Processed { spare, faults, rest } = processed.unwrap_or_else(|panic| Processed {
            faults: vec![Fault::panicked(&*panic)],
            ..Processed::default()
        });
        if let Some((_, rows)) = &rest {
            executed -= u64::from(*rows);
        }
        let now = self.shared.clock.now();
        let took = nanos(now.saturating_sub(start));
        task.per_row = took.checked_div(executed).unwrap_or(task.per_row);
        task.stats.count_executed(executed, took);
        add(&task.stats.busy, took);
        task.stats.count_returned(std::mem::take(&mut task.bolt.staged().returned), took);
        for fault in faults {
            task.report(Err(fault));
        }
        if input.is_same_type()
            && let Some(spare) = spare
        {
            self.shared.pools[to.component][to.input].give(spare);
        }
        self.keep_local(slot);
        let is_head = to.component == self.shared.plan.workers[self.index].head;
        let Some((tuples, left)) = rest else {
            if is_head && self.slow_turns > 0 {
                self.slow_turns = 0;
                self.shared.lanes.set_slow(self.index, false);
            }
            return turn.is_over(now);
        };
        let bytes = bytes / rows.max(1) as usize * left as usize;
        let content = Content::Rows(tuples);
        let rest = Message { target, sender, rows: left, bytes, converted: true, content };
        if is_head && self.shared.plan.workers[self.index].group.1 > 1 {
            // Where others may help, it is put back to where they take it from.
            self.shared.put_back(self.index, rest);
            self.slow_turns = if executed <= SLOW_ROWS { self.slow_turns + 1 } else { 0 };
            self.shared.lanes.set_slow(self.index, self.slow_turns >= SLOW_TURNS);
        } else {
            self.tasks[slot].local.push_front(rest);
        }
        true
    }

    /// What comes from a sender that is ahead waits.
    fn hold(&mut self, slot: usize, message: Message) {
        self.shared.lanes.hold(&message);
        self.tasks[slot].alignment.hold(message);
        // It is on its way until it is executed.
        self.taken -= 1;
    }

    /// What waited is next.
    fn release(&mut self, slot: usize) {
        let held = self.tasks[slot].alignment.release();
        for message in held.into_iter().rev() {
            self.shared.lanes.release(&message);
            self.taken += 1;
            self.tasks[slot].local.push_front(message);
        }
    }

    /// A barrier has come. If it was the last, the task passes it on.
    fn arrive(&mut self, slot: usize, to: Target, sender: u32, number: u64) {
        let task = &mut self.tasks[slot];
        if !task.alignment.arrive(to.input, sender) {
            return;
        }
        let start = self.shared.clock.now();
        let prepared = task.bolt.checkpoint();
        task.report(prepared.clone());
        task.bolt.barrier(number);
        let plan = TaskPlan { component: to.component, task: to.task };
        self.shared.passed(plan, number, prepared);
        add(&task.stats.busy, nanos(self.shared.clock.now().saturating_sub(start)));
        self.keep_local(slot);
        self.release(slot);
    }

    /// Divides what a task has ready between this worker and others.
    fn keep_local(&mut self, slot: usize) {
        let first = self.outgoing.len();
        let task = &mut self.tasks[slot];
        collect(&task.stats, task.bolt.staged(), &mut self.outgoing);
        let (plan, index) = (&self.shared.plan, self.index);
        for batch in self.outgoing.extract_if(first.., |batch| {
            let target = plan.targets[batch.target as usize];
            // A cycle within the worker goes through the queue, or it would starve everything else.
            target.worker == index && plan.fused_with[target.component].is_some()
        }) {
            self.tasks[plan.targets[batch.target as usize].slot].local.push_back(Message::new(batch));
        }
    }

    async fn send(&mut self) {
        if !self.outgoing.is_empty() {
            self.shared.send_all(&mut self.outgoing, &self.tasks[0].stats).await;
        }
    }

    /// Distributes all that is held back to fill batches.
    fn flush(&mut self) {
        self.flushed = self.shared.clock.now();
        for at in 0..self.tasks.len() {
            self.flush_task(at);
        }
    }

    fn flush_task(&mut self, at: usize) {
        let task = &mut self.tasks[at].bolt;
        let flushed = catch_unwind(AssertUnwindSafe(|| task.flush(true)));
        self.tasks[at].report(flushed.map_err(|panic| Fault::panicked(&*panic)));
        self.keep_local(at);
    }

    /// Executes what is at hand to its end, with turns for others, and sends what that leads to.
    async fn work_off(&mut self, turn: &mut Turn) {
        loop {
            self.run_local(turn);
            self.send().await;
            if !self.has_local() {
                return;
            }
            turn.pass(&*self.shared.clock).await;
        }
    }

    /// What is due at the end of a turn.
    async fn end_turn(&mut self, now: Duration) {
        self.tick_if_due(now);
        if now.saturating_sub(self.flushed) >= HOLD_BACK {
            self.flush();
        }
        self.send().await;
    }

    fn tick_if_due(&mut self, now: Duration) {
        for at in 0..self.tasks.len() {
            let task = &mut self.tasks[at];
            let Some(tick) = task.tick else { continue };
            if task.next_tick <= now {
                // Ticks missed while busy are not made up for.
                task.next_tick = now.saturating_add(tick);
                // Busy until what it emits has been sent.
                self.shared.in_flight.begin(1);
                self.taken += 1;
                let ticked = task.bolt.tick();
                task.report(ticked);
            }
        }
    }
}

impl WorkerTask {
    fn report(&self, outcome: Result<(), Fault>) {
        if let Err(fault) = outcome {
            self.faults.report(&fault);
        }
    }
}

/// Sleeps until a time; [`Duration::MAX`] is never.
pub(crate) async fn sleep_until(clock: &Arc<dyn galerna_topology::Clock>, deadline: Duration) {
    if deadline == Duration::MAX {
        std::future::pending::<()>().await;
    }
    clock.sleep_until(deadline).await;
}
