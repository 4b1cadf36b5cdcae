//! The task loop of bolts that compute, one or several fused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use galerna_topology::Fault;
use galerna_topology::runtime::{AnyBatch, BoltTask, OutgoingBatch};
use tokio::sync::{mpsc, watch};

use crate::clock::nanos;
use crate::faults::{Backoff, FaultReporter};
use crate::metrics::{TaskStats, add};
use crate::shared::{Message, Mode, Shared, collect};
use crate::turn::Turn;

/// Batches taken before others get a turn.
const YIELD_EVERY: usize = 32;

/// One bolt's task within a worker.
pub(crate) struct WorkerTask {
    pub(crate) bolt: Box<dyn BoltTask>,
    pub(crate) stats: Arc<TaskStats>,
    pub(crate) tick: Option<Duration>,
    pub(crate) next_tick: Duration,
    pub(crate) faults: FaultReporter,
}

/// What a worker listens to.
pub(crate) struct Inputs {
    pub(crate) queue: mpsc::Receiver<Message>,
    pub(crate) feedback: mpsc::UnboundedReceiver<Message>,
    pub(crate) mode: watch::Receiver<Mode>,
    pub(crate) closing: watch::Receiver<bool>,
}

impl Inputs {
    pub(crate) fn try_take(&mut self) -> Option<Message> {
        self.queue.try_recv().or_else(|_| self.feedback.try_recv()).ok()
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
}

enum Event {
    Message(Message),
    Tick,
    Mode,
    Close,
}

impl Worker {
    /// The worker with this index in the plan. Its bolts are those of its members.
    pub(crate) fn new(
        shared: Arc<Shared>,
        index: usize,
        bolts: Vec<Box<dyn BoltTask>>,
        inputs: Inputs,
    ) -> Self {
        let tasks =
            bolts.into_iter().zip(&shared.plan.workers[index].members).map(|(bolt, &plan)| WorkerTask {
                bolt,
                stats: shared.stats[plan.component][plan.task].clone(),
                tick: shared.topology.components()[plan.component].settings.tick,
                next_tick: Duration::MAX,
                faults: shared.fault_reporter(plan),
            });
        let tasks = tasks.collect();
        Self { shared, index, tasks, inputs, outgoing: Vec::new(), taken: 0 }
    }

    pub(crate) async fn run(mut self) {
        for task in &mut self.tasks {
            let next = |tick| self.shared.clock.now().saturating_add(tick);
            task.next_tick = task.tick.map_or(Duration::MAX, next);
        }
        let mut outgoing = Vec::new();
        // The author's code is caught where it is called. Whatever else panics must not end the task unseen, either.
        let mut backoff = Backoff::new();
        while let Err(panic) = AssertUnwindSafe(self.run_until_closed()).catch_unwind().await {
            self.tasks[0].faults.report(&Fault::panicked(&*panic));
            let pause = backoff.pause();
            self.shared.clock.sleep_until(self.shared.clock.now().saturating_add(pause)).await;
        }
        // All that send here have ended before; what they sent last may still wait.
        while let Some(message) = self.inputs.try_take() {
            self.taken += 1;
            self.take(message, &mut outgoing);
            self.send(&mut outgoing).await;
        }
        self.drain(&mut outgoing).await;
        self.shared.in_flight.end(self.taken);
        for at in 0..self.tasks.len() {
            let closed = self.tasks[at].bolt.close();
            self.tasks[at].report(closed);
            self.flush(&mut outgoing).await;
        }
    }

    async fn run_until_closed(&mut self) {
        let mut turn = Turn::new(&*self.shared.clock);
        let mut batches = 0;
        // What a panic left is sent first.
        let mut outgoing = std::mem::take(&mut self.outgoing);
        loop {
            while let Some(message) = self.inputs.try_take() {
                self.taken += 1;
                self.take(message, &mut outgoing);
                self.send(&mut outgoing).await;
                batches += 1;
                if batches == YIELD_EVERY || turn.is_over(self.shared.clock.now()) {
                    batches = 0;
                    self.tick_if_due(&mut outgoing).await;
                    turn.pass(&*self.shared.clock).await;
                }
            }
            self.flush(&mut outgoing).await;
            if *self.inputs.mode.borrow() == Mode::Draining {
                self.drain(&mut outgoing).await;
            }
            self.shared.in_flight.end(std::mem::take(&mut self.taken));
            match self.wait().await {
                Event::Message(message) => {
                    self.taken += 1;
                    self.take(message, &mut outgoing);
                    self.send(&mut outgoing).await;
                }
                Event::Tick => self.tick_if_due(&mut outgoing).await,
                Event::Mode => {}
                Event::Close => return,
            }
        }
    }

    async fn wait(&mut self) -> Event {
        let next_tick = self.tasks.iter().map(|task| task.next_tick).min().unwrap_or(Duration::MAX);
        let clock = &self.shared.clock;
        let Inputs { queue, feedback, mode, closing } = &mut self.inputs;
        tokio::select! {
            Some(message) = queue.recv() => Event::Message(message),
            Some(message) = feedback.recv() => Event::Message(message),
            () = sleep_until(clock, next_tick) => Event::Tick,
            Ok(()) = mode.changed() => Event::Mode,
            Ok(_) = closing.wait_for(|closing| *closing) => Event::Close,
        }
    }

    /// Executes a batch, and what it leads to in this worker.
    fn take(&mut self, message: Message, outgoing: &mut Vec<OutgoingBatch>) {
        let target = self.shared.plan.targets[message.target as usize];
        self.shared.loads[target.component].take(target.task);
        let mut local = vec![message.into_batch()];
        self.run_local(&mut local, outgoing);
    }

    fn run_local(&mut self, local: &mut Vec<OutgoingBatch>, outgoing: &mut Vec<OutgoingBatch>) {
        while let Some(batch) = local.pop() {
            let target = self.shared.plan.targets[batch.target as usize];
            let input = &self.shared.topology.components()[target.component].inputs[target.input];
            let task = &mut self.tasks[target.slot];
            let start = self.shared.clock.now();
            let (tuples, lost) = input.convert(batch.tuples);
            let rows = u64::from(batch.rows) - lost.iter().map(|lost| lost.rows).sum::<u64>();
            if !lost.is_empty() {
                task.bolt.lose(lost);
            }
            // The task catches what the bolt and the groupings panic with, tuple by tuple. This is for the
            // rest, such as a tuple that panics when it is dropped: no panic ends an executor.
            let processed = catch_unwind(AssertUnwindSafe(|| task.bolt.process(tuples)));
            let (emptied, faults) = processed.unwrap_or_else(|panic| (None, vec![Fault::panicked(&*panic)]));
            let took = nanos(self.shared.clock.now().saturating_sub(start));
            task.stats.count_executed(rows, took);
            add(&task.stats.busy, took);
            task.stats.count_returned(std::mem::take(&mut task.bolt.staged().returned), took);
            for fault in faults {
                task.report(Err(fault));
            }
            if input.is_same_type()
                && let Some(emptied) = emptied
            {
                self.recycle(target.component, target.input, emptied);
            }
            self.keep_local(target.slot, local, outgoing);
        }
    }

    fn recycle(&self, component: usize, input: usize, emptied: AnyBatch) {
        self.shared.pools[component][input].give(emptied);
    }

    /// Divides what a task has ready between this worker and others.
    fn keep_local(&mut self, task: usize, local: &mut Vec<OutgoingBatch>, outgoing: &mut Vec<OutgoingBatch>) {
        let task = &mut self.tasks[task];
        let first = outgoing.len();
        collect(&task.stats, task.bolt.staged(), outgoing);
        let plan = &self.shared.plan;
        let (inside, index) = (local.len(), self.index);
        local.extend(outgoing.extract_if(first.., |batch| {
            let target = plan.targets[batch.target as usize];
            // A cycle within the worker goes through the queue, or it would starve everything else.
            target.worker == index && plan.fused_with[target.component].is_some()
        }));
        // The last is taken first: turned round, so that batches keep their order.
        local[inside..].reverse();
    }

    async fn send(&mut self, outgoing: &mut Vec<OutgoingBatch>) {
        if !outgoing.is_empty() {
            self.shared.send_all(outgoing, &self.tasks[0].stats).await;
        }
    }

    /// Sends all that is held back to fill batches.
    async fn flush(&mut self, outgoing: &mut Vec<OutgoingBatch>) {
        let mut local = Vec::new();
        // In the order of the flow, so that what one sends is flushed by the next.
        for at in 0..self.tasks.len() {
            self.flush_task(at, &mut local, outgoing);
        }
        self.send(outgoing).await;
    }

    fn flush_task(&mut self, at: usize, local: &mut Vec<OutgoingBatch>, outgoing: &mut Vec<OutgoingBatch>) {
        let task = &mut self.tasks[at].bolt;
        let flushed = catch_unwind(AssertUnwindSafe(|| task.flush(true)));
        self.tasks[at].report(flushed.map_err(|panic| Fault::panicked(&*panic)));
        self.keep_local(at, local, outgoing);
        self.run_local(local, outgoing);
    }

    async fn drain(&mut self, outgoing: &mut Vec<OutgoingBatch>) {
        let mut local = Vec::new();
        // In the order of the flow: what one emits reaches the next before that is drained in turn.
        for at in 0..self.tasks.len() {
            let drained = self.tasks[at].bolt.drain();
            self.tasks[at].report(drained);
            self.flush_task(at, &mut local, outgoing);
        }
        self.send(outgoing).await;
    }

    async fn tick_if_due(&mut self, outgoing: &mut Vec<OutgoingBatch>) {
        let now = self.shared.clock.now();
        if self.tasks.iter().all(|task| task.next_tick > now) {
            return;
        }
        self.shared.in_flight.begin(1);
        for task in &mut self.tasks {
            let Some(tick) = task.tick else { continue };
            if task.next_tick <= now {
                // Ticks missed while busy are not made up for.
                task.next_tick = now.saturating_add(tick);
                let ticked = task.bolt.tick();
                task.report(ticked);
            }
        }
        self.flush(outgoing).await;
        self.shared.in_flight.end(1);
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
