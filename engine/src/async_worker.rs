//! The task loop of a bolt that waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use galerna_topology::Fault;
use galerna_topology::runtime::{AnyBatch, AsyncBoltTask, OutgoingBatch};

use crate::clock::nanos;
use crate::metrics::{TaskStats, add};
use crate::shared::{Message, Mode, Shared, collect};
use crate::worker::{Inputs, sleep_until};

/// One task of a bolt that waits.
pub(crate) struct AsyncWorker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) task: Box<dyn AsyncBoltTask>,
    pub(crate) stats: Arc<TaskStats>,
    pub(crate) component: usize,
    pub(crate) inputs: Inputs,
}

enum Event {
    Message(Message),
    Tick,
    Progress(Result<(), Fault>),
    Mode,
    Close,
}

impl AsyncWorker {
    fn id(&self) -> &Arc<str> {
        &self.shared.topology.components()[self.component].id
    }

    fn report(&self, fault: &Fault) {
        add(&self.stats.errors, 1);
        self.stats.report(fault.reason(), self.shared.clock.now());
        tracing::warn!(component = &**self.id(), reason = fault.reason(), "a bolt failed");
    }

    pub(crate) async fn run(mut self) {
        let mut outgoing = Vec::new();
        let interval = self.shared.topology.components()[self.component].settings.tick;
        let mut next_tick = interval.map_or(Duration::MAX, |tick| self.shared.clock.now() + tick);
        let mut taken = 0;
        // Whether anything came in since the last drain.
        let mut drained = false;
        loop {
            let next = match self.inputs.try_take() {
                Some(message) => Event::Message(message),
                None => {
                    self.flush(&mut outgoing).await;
                    if *self.inputs.mode.borrow() == Mode::Draining && !drained {
                        drained = true;
                        self.drain(&mut outgoing).await;
                    }
                    self.shared.in_flight.end(std::mem::take(&mut taken));
                    self.wait(next_tick).await
                }
            };
            match next {
                Event::Message(message) => {
                    taken += 1;
                    drained = false;
                    self.take(message, &mut outgoing).await;
                }
                Event::Tick => {}
                Event::Progress(outcome) => {
                    if let Err(fault) = outcome {
                        self.report(&fault);
                        // A hook that fails at once whenever it is called must not keep a core busy.
                        tokio::task::yield_now().await;
                    }
                }
                Event::Mode => drained = false,
                Event::Close => break,
            }
            if let Some(tick) = interval
                && next_tick <= self.shared.clock.now()
            {
                next_tick = self.shared.clock.now() + tick;
                self.shared.in_flight.begin(1);
                self.tick(&mut outgoing).await;
                self.shared.in_flight.end(1);
            }
        }
        // All that send here have ended before; what they sent last may still wait.
        while let Some(message) = self.inputs.try_take() {
            taken += 1;
            self.take(message, &mut outgoing).await;
        }
        self.drain(&mut outgoing).await;
        self.shared.in_flight.end(taken);
        if AssertUnwindSafe(self.task.close()).catch_unwind().await.is_err() {
            self.report(&Fault::transient("panicked while closing"));
        }
        self.flush(&mut outgoing).await;
    }

    async fn wait(&mut self, next_tick: Duration) -> Event {
        let clock = &self.shared.clock;
        let Inputs { queue, feedback, mode, closing } = &mut self.inputs;
        let event = tokio::select! {
            Some(message) = queue.recv() => Ok(Event::Message(message)),
            Some(message) = feedback.recv() => Ok(Event::Message(message)),
            () = sleep_until(clock, next_tick) => Ok(Event::Tick),
            Ok(()) = mode.changed() => Ok(Event::Mode),
            Ok(_) = closing.wait_for(|closing| *closing) => Ok(Event::Close),
            outcome = AssertUnwindSafe(self.task.progress()).catch_unwind() => outcome.map(Event::Progress),
        };
        match event {
            Ok(event) => event,
            Err(_) => {
                self.rebuild().await;
                Event::Progress(Err(Fault::transient("panicked while it made progress")))
            }
        }
    }

    async fn take(&mut self, message: Message, outgoing: &mut Vec<OutgoingBatch>) {
        let target = self.shared.plan.targets[message.target as usize];
        self.shared.loads[target.component].take(target.task);
        // Beside its tuples the batch itself: a bolt that has settled all of it early is busy until it has executed it.
        self.stats.unsettled.add(u64::from(message.rows) + 1, &*self.shared.clock);
        let (tuples, lost) = {
            let input = &self.shared.topology.components()[target.component].inputs[target.input];
            input.convert(message.tuples)
        };
        let rows = u64::from(message.rows) - lost.iter().map(|lost| lost.rows).sum::<u64>();
        if !lost.is_empty() {
            self.task.lose(lost);
        }
        let start = self.shared.clock.now();
        let mut rest = Some(tuples);
        while let Some(tuples) = rest.take() {
            if AssertUnwindSafe(self.task.process(tuples)).catch_unwind().await.is_err() {
                self.report(&Fault::transient("panicked while executing a tuple"));
                rest = self.rebuild().await;
            }
        }
        let took = nanos(self.shared.clock.now().saturating_sub(start));
        self.stats.count_executed(rows, took);
        self.stats.count_returned(std::mem::take(&mut self.task.staged().returned), took);
        self.stats.unsettled.remove(1, &*self.shared.clock);
        self.send(outgoing).await;
    }

    /// After a panic: a new instance takes over. Returns the tuples that were not reached.
    async fn rebuild(&mut self) -> Option<AnyBatch> {
        let rest = self.task.recover();
        add(&self.stats.restarts, 1);
        let made = AssertUnwindSafe(self.task.prepare()).catch_unwind().await;
        let fault = match made {
            Ok(Ok(())) => return rest,
            Ok(Err(fault)) => fault,
            Err(_) => Fault::transient("panicked while it was prepared again"),
        };
        self.report(&fault);
        if let Some(rest) = rest {
            self.task.refuse(rest, &fault);
        }
        None
    }

    async fn tick(&mut self, outgoing: &mut Vec<OutgoingBatch>) {
        match AssertUnwindSafe(self.task.tick()).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => self.report(&fault),
            Err(_) => {
                self.report(&Fault::transient("panicked in its tick"));
                self.rebuild().await;
            }
        }
        self.flush(outgoing).await;
    }

    async fn drain(&mut self, outgoing: &mut Vec<OutgoingBatch>) {
        if AssertUnwindSafe(self.task.drain()).catch_unwind().await.is_err() {
            self.report(&Fault::transient("panicked while draining"));
            self.rebuild().await;
        }
        self.flush(outgoing).await;
    }

    async fn flush(&mut self, outgoing: &mut Vec<OutgoingBatch>) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.task.flush(true))) {
            self.report(&Fault::panicked(&*panic));
        }
        self.send(outgoing).await;
    }

    async fn send(&mut self, outgoing: &mut Vec<OutgoingBatch>) {
        collect(&self.stats, self.task.staged(), outgoing);
        self.shared.send_all(outgoing, &self.stats).await;
    }
}
