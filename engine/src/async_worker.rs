//! The task loop of a bolt that waits.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use galerna_topology::Fault;
use galerna_topology::runtime::{
    AnyBatch, AsyncBoltTask, BoxFuture, Content, Delivery, Outbox, OutgoingBatch, Signal,
};

use crate::checkpoints::Alignment;
use crate::clock::nanos;
use crate::faults::{Backoff, FaultReporter};
use crate::lanes::Message;
use crate::metrics::{TaskStats, add};
use crate::plan::TaskPlan;
use crate::shared::{Mode, Shared, collect};
use crate::turn::{TURN, Turn};
use crate::worker::{Inputs, sleep_until};

/// Calls of `progress` in a row that may return at once and leave nothing behind, before it is called less often.
const FUTILE_CALLS: u32 = 16;
/// How often it is called then.
const FUTILE_PAUSE: Duration = Duration::from_millis(1);
/// Rows are held back to fill batches for no longer than this.
const HOLD_BACK: Duration = Duration::from_millis(2);
/// Tuples that wait so long behind one that has not ended are put back to where others take them from.
const PUT_BACK: Duration = Duration::from_millis(2);
/// What it may take at once of the time for input, while there is any.
const PROGRESS_CALLS: u32 = 64;

/// One task of a bolt that waits.
pub(crate) struct AsyncWorker {
    shared: Arc<Shared>,
    bolt: Box<dyn AsyncBoltTask>,
    stats: Arc<TaskStats>,
    faults: FaultReporter,
    inputs: Inputs,
    outbox: Arc<Outbox>,
    outgoing: Vec<OutgoingBatch>,
    /// How many tuples to take at once, so that it does not take long until others can help with the rest.
    limit: usize,
    /// Since when rows may be held back.
    flushed: Duration,
    tick: Option<Duration>,
    next_tick: Duration,
    /// Batches taken whose consequences have not all been sent.
    taken: usize,
    /// Whether nothing came in since the last drain.
    drained: bool,
    /// Why there is no instance, if there is none, and when to make one.
    missing: Option<(Fault, Duration)>,
    rebuilding: Backoff,
    /// Calls of `progress` in a row that returned at once and left nothing behind.
    futile: u32,
    /// When `progress` may be called again.
    progress_at: Duration,
    progress_errors: Backoff,
    plan: TaskPlan,
    /// Whose barriers have come.
    alignment: Alignment,
    /// What comes before all that waits in the lane.
    ready: VecDeque<Message>,
}

/// Where a batch that is being executed came from, and what it weighs.
struct Taken {
    target: u32,
    sender: u32,
    rows: u32,
    bytes: usize,
}

impl Taken {
    /// So many of its tuples, as a batch again.
    fn rest(&self, tuples: AnyBatch, rows: u32) -> Message {
        Message {
            target: self.target,
            sender: self.sender,
            rows,
            bytes: self.bytes / self.rows.max(1) as usize * rows as usize,
            converted: true,
            content: Content::Rows(tuples),
        }
    }
}

enum Event {
    Message(Message),
    /// There may be a message.
    Input,
    /// It is time for a tick, or for something else that was put off.
    Time,
    Progress(Result<(), Fault>),
    Mode,
    Close,
}

impl AsyncWorker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        bolt: Box<dyn AsyncBoltTask>,
        plan: TaskPlan,
        inputs: Inputs,
    ) -> Self {
        let tick = shared.topology.components()[plan.component].settings.tick;
        Self {
            outbox: bolt.outbox().clone(),
            limit: 1,
            flushed: shared.clock.now(),
            bolt,
            stats: shared.stats[plan.component][plan.task].clone(),
            faults: shared.fault_reporter(plan),
            inputs,
            outgoing: Vec::new(),
            tick,
            next_tick: tick.map_or(Duration::MAX, |tick| shared.clock.now().saturating_add(tick)),
            taken: 0,
            drained: false,
            missing: None,
            rebuilding: Backoff::new(),
            futile: 0,
            progress_at: Duration::ZERO,
            progress_errors: Backoff::new(),
            plan,
            alignment: Alignment::new(shared.plan.barrier_senders(&shared.topology, plan)),
            ready: VecDeque::new(),
            shared,
        }
    }

    pub(crate) async fn run(mut self) {
        // The author's code is caught where it is called. Whatever else panics must not end the task unseen, either.
        let mut backoff = Backoff::new();
        while let Err(panic) = AssertUnwindSafe(self.run_until_closed()).catch_unwind().await {
            self.recover(Fault::panicked(&*panic)).await;
            let pause = backoff.pause();
            self.shared.clock.sleep_until(self.shared.clock.now().saturating_add(pause)).await;
        }
        // All that send here have ended before; what they sent last may still wait.
        self.release();
        while let Some(message) = self.next_message() {
            self.taken += 1;
            self.take(message).await;
        }
        self.drain().await;
        self.shared.in_flight.end(self.taken);
        if let Err(panic) = AssertUnwindSafe(self.bolt.close()).catch_unwind().await {
            self.faults.report(&Fault::panicked(&*panic));
        }
        self.flush().await;
    }

    async fn run_until_closed(&mut self) {
        let mut turn = Turn::new(&*self.shared.clock);
        loop {
            let next = match self.next_message() {
                Some(message) => Event::Message(message),
                None => {
                    self.flush().await;
                    if *self.inputs.mode.borrow() == Mode::Draining && !self.drained {
                        self.drained = true;
                        self.drain().await;
                    }
                    self.shared.in_flight.end(std::mem::take(&mut self.taken));
                    match self.inputs.take_or_idle() {
                        Some(message) => Event::Message(message),
                        None => {
                            let event = self.wait().await;
                            self.shared.lanes.set_idle(self.inputs.worker, false);
                            turn.begin(self.shared.clock.now());
                            event
                        }
                    }
                }
            };
            match next {
                Event::Message(message) => {
                    self.taken += 1;
                    self.drained = false;
                    self.take(message).await;
                    self.progress_between().await;
                }
                Event::Input | Event::Time => {}
                Event::Progress(outcome) => self.progressed(outcome).await,
                Event::Mode => self.drained = false,
                Event::Close => return,
            }
            let now = self.shared.clock.now();
            if self.missing.as_ref().is_some_and(|(_, at)| *at <= now) {
                self.prepare().await;
            }
            if self.next_tick <= now {
                self.next_tick = self.tick.map_or(Duration::MAX, |tick| now.saturating_add(tick));
                self.shared.in_flight.begin(1);
                self.tick().await;
                self.shared.in_flight.end(1);
            }
            if turn.is_over(now) {
                turn.pass(&*self.shared.clock).await;
            }
        }
    }

    async fn wait(&mut self) -> Event {
        let clock = &self.shared.clock;
        let may_progress = self.progress_at <= clock.now();
        let retry_at = self.missing.as_ref().map_or(Duration::MAX, |(_, at)| *at);
        let progress_at = if may_progress { Duration::MAX } else { self.progress_at };
        let wake = self.next_tick.min(retry_at).min(progress_at);
        let Inputs { worker, mode, closing, .. } = &mut self.inputs;
        let event = tokio::select! {
            () = self.shared.lanes.arrived(*worker) => Ok(Event::Input),
            () = sleep_until(clock, wake) => Ok(Event::Time),
            Ok(()) = mode.changed() => Ok(Event::Mode),
            Ok(_) = closing.wait_for(|closing| *closing) => Ok(Event::Close),
            outcome = AssertUnwindSafe(self.bolt.progress()).catch_unwind(), if may_progress => {
                outcome.map(Event::Progress)
            }
        };
        match event {
            Ok(event) => event,
            Err(panic) => {
                self.recover(Fault::panicked(&*panic)).await;
                self.put_progress_off();
                Event::Time
            }
        }
    }

    /// What the bolt has settled and emitted so far.
    fn traces(&mut self) -> (u64, u64, u64) {
        let acked = self.stats.acked.load(Ordering::Relaxed);
        let emitted = self.stats.emitted.load(Ordering::Relaxed) + self.outbox.lock().emitted;
        (acked, self.stats.failures(), emitted)
    }

    /// A call of `progress` has ended.
    async fn progressed(&mut self, outcome: Result<(), Fault>) {
        match outcome {
            Ok(()) => {
                self.progress_errors.reset();
                let before = self.traces();
                self.flush().await;
                // One that returns again and again with nothing to show for it must not keep a core busy.
                self.futile = if self.traces() == before { self.futile + 1 } else { 0 };
                if self.futile >= FUTILE_CALLS {
                    self.progress_at = self.shared.clock.now().saturating_add(FUTILE_PAUSE);
                }
                tokio::task::yield_now().await;
            }
            Err(fault) => {
                self.faults.report(&fault);
                self.put_progress_off();
            }
        }
    }

    fn put_progress_off(&mut self) {
        let pause = self.progress_errors.pause();
        self.progress_at = self.shared.clock.now().saturating_add(pause);
    }

    /// Lets the bolt make progress while there is more input: as far as it comes without waiting.
    async fn progress_between(&mut self) {
        for _ in 0..PROGRESS_CALLS {
            if self.progress_at > self.shared.clock.now() {
                return;
            }
            let before = self.traces();
            let outcome = {
                let mut progress = AssertUnwindSafe(self.bolt.progress()).catch_unwind();
                // Once: it is cancel-safe, and what it waits for is looked at again after the next batch.
                std::future::poll_fn(|context| Poll::Ready(progress.poll_unpin(context))).await
            };
            match outcome {
                Poll::Pending => return,
                Poll::Ready(Ok(Ok(()))) => {
                    self.progress_errors.reset();
                    self.flush().await;
                    if self.traces() == before {
                        return;
                    }
                    self.futile = 0;
                }
                Poll::Ready(Ok(Err(fault))) => {
                    self.faults.report(&fault);
                    self.put_progress_off();
                }
                Poll::Ready(Err(panic)) => {
                    self.recover(Fault::panicked(&*panic)).await;
                    self.put_progress_off();
                }
            }
        }
    }

    fn next_message(&mut self) -> Option<Message> {
        match self.ready.pop_front() {
            Some(message) => Some(message),
            None => self.inputs.try_take(),
        }
    }

    /// What waited for a barrier is next.
    fn release(&mut self) {
        for message in self.alignment.release().into_iter().rev() {
            self.shared.lanes.release(&message);
            self.ready.push_front(message);
        }
    }

    /// A barrier has come. If it was the last, the task finishes with what it keeps and passes the barrier on.
    async fn arrive(&mut self, input: usize, sender: u32, number: u64) {
        if !self.alignment.arrive(input, sender) {
            return;
        }
        let prepared = match AssertUnwindSafe(self.bolt.checkpoint()).catch_unwind().await {
            Ok(prepared) => prepared,
            Err(panic) => {
                let fault = Fault::panicked(&*panic);
                self.recover(fault.clone()).await;
                Err(fault)
            }
        };
        self.flush().await;
        self.bolt.barrier(number);
        self.shared.passed(self.plan, number, prepared);
        self.send().await;
        self.release();
    }

    async fn take(&mut self, mut message: Message) {
        let target = self.shared.plan.targets[message.target as usize];
        if self.alignment.is_ahead(target.input, message.sender) {
            self.shared.lanes.hold(&message);
            self.alignment.hold(message);
            // It is on its way until it is executed.
            self.taken -= 1;
            return;
        }
        let input = &self.shared.topology.components()[target.component].inputs[target.input];
        let delivery = Delivery {
            input: target.input,
            sender: message.sender,
            until: Duration::MAX,
            check_after: usize::MAX,
        };
        let mut tuples = match message.content {
            Content::Rows(tuples) => tuples,
            Content::Signal(Signal::Barrier(number)) => {
                self.arrive(target.input, message.sender, number).await;
                return;
            }
            Content::Signal(Signal::Watermark(watermark)) => {
                let told = AssertUnwindSafe(self.bolt.watermark(watermark, delivery)).catch_unwind().await;
                if let Err(panic) = told {
                    self.recover(Fault::panicked(&*panic)).await;
                }
                self.flush().await;
                return;
            }
        };
        if message.rows as usize > self.limit && !message.converted {
            // The rest stays where others can take it.
            let (first, rest) = input.split(tuples, self.limit);
            tuples = first;
            if let Some(rest) = rest {
                let rows = message.rows - self.limit as u32;
                let bytes = message.bytes / message.rows as usize * rows as usize;
                let content = Content::Rows(rest);
                let rest = Message { rows, bytes, content, ..message };
                if self.shared.plan.barriers {
                    // Nobody helps, and it comes before what waited for a barrier.
                    self.shared.in_flight.begin(1);
                    self.ready.push_front(rest);
                } else {
                    self.shared.put_back(self.inputs.worker, rest);
                }
                message.rows = self.limit as u32;
            }
        }
        let Message { target, sender, rows, bytes, converted, .. } = message;
        let taken = Taken { target, sender, rows, bytes };
        // Beside its tuples the batch itself: a bolt that has settled all of it early is busy until it has executed it.
        self.stats.unsettled.add(u64::from(rows) + 1, &*self.shared.clock);
        let (tuples, lost) = if converted { (tuples, Vec::new()) } else { input.convert(tuples) };
        let mut rows = u64::from(rows) - lost.iter().map(|lost| lost.rows).sum::<u64>();
        if !lost.is_empty() {
            self.bolt.lose(lost);
        }
        let start = self.shared.clock.now();
        let mut rest = Some(tuples);
        while let Some(tuples) = rest.take() {
            if self.missing.is_some() && !self.prepare().await {
                if let Some((fault, _)) = &self.missing {
                    self.bolt.refuse(tuples, fault);
                }
                break;
            }
            let (outcome, left) = self.process(tuples, delivery, &taken, rows).await;
            rows -= left;
            if let Err(panic) = outcome {
                rest = self.recover(Fault::panicked(&*panic)).await;
            }
        }
        let now = self.shared.clock.now();
        let took = now.saturating_sub(start);
        self.resize(rows, took);
        self.stats.count_executed(rows, nanos(took));
        let returned = std::mem::take(&mut self.outbox.lock().returned);
        self.stats.count_returned(returned, nanos(took));
        self.stats.unsettled.remove(1, &*self.shared.clock);
        if now.saturating_sub(self.flushed) >= HOLD_BACK {
            self.flush().await;
        } else {
            self.send().await;
        }
    }

    /// Executes a batch, and meanwhile sends what is done. Tuples that wait long behind one that does not end are put back for
    /// others; returns how many, too.
    async fn process(
        &mut self,
        tuples: AnyBatch,
        delivery: Delivery,
        taken: &Taken,
        rows: u64,
    ) -> (Result<(), Box<dyn std::any::Any + Send>>, u64) {
        let (shared, worker) = (self.shared.clone(), self.inputs.worker);
        let helped = rows > 1 && shared.plan.workers[worker].group.1 > 1 && !shared.plan.barriers;
        let mut put_back: Option<BoxFuture<'static, ()>> = None;
        let mut left = 0;
        let mut processing = AssertUnwindSafe(self.bolt.process(tuples, delivery)).catch_unwind();
        let mut waits = false;
        let outcome = loop {
            let step = poll_fn(|context| match processing.poll_unpin(context) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending => {
                    if !std::mem::replace(&mut waits, true) {
                        shared.lanes.set_slow(worker, true);
                        let at = shared.clock.now().saturating_add(PUT_BACK);
                        put_back = helped.then(|| shared.clock.sleep_until(at));
                    }
                    if put_back.as_mut().is_some_and(|due| due.poll_unpin(context).is_ready()) {
                        put_back = None;
                        left += self.outbox.take_remaining().map_or(0, |(tuples, rows)| {
                            shared.put_back(worker, taken.rest(tuples, rows));
                            // Wakes one of those that have nothing to do.
                            shared.lanes.set_slow(worker, true);
                            u64::from(rows)
                        });
                    }
                    if self.outbox.lock().batches.is_empty() { Poll::Pending } else { Poll::Ready(None) }
                }
            })
            .await;
            if let Some(outcome) = step {
                break outcome;
            }
            // Where downstream has no room the bolt is not polled: that is what holds it back.
            collect(&self.stats, &mut self.outbox.lock(), &mut self.outgoing);
            self.shared.send_all(&mut self.outgoing, &self.stats).await;
        };
        if waits {
            shared.lanes.set_slow(worker, false);
        }
        if left > 0 {
            self.stats.unsettled.remove(left, &*shared.clock);
        }
        (outcome, left)
    }

    /// Takes more tuples at once if they took little time, and fewer if they took long.
    fn resize(&mut self, rows: u64, took: Duration) {
        if !self.bolt.is_by_row() {
            // It takes batches, and they are all the better the larger they are.
            self.limit = usize::MAX;
        } else if took < TURN {
            self.limit = self.limit.saturating_mul(4);
        } else if took > 2 * TURN {
            let per_row =
                (took / u32::try_from(rows.max(1)).unwrap_or(u32::MAX)).max(Duration::from_nanos(1));
            self.limit = ((TURN.as_nanos() / per_row.as_nanos()) as usize).max(1);
        }
    }

    /// After a panic: the instance is given up and a new one made. Returns the tuples that were not reached.
    async fn recover(&mut self, fault: Fault) -> Option<AnyBatch> {
        self.faults.report(&fault);
        let rest = self.bolt.recover(&fault);
        add(&self.stats.restarts, 1);
        self.missing = Some((fault, Duration::ZERO));
        self.prepare().await;
        rest
    }

    /// Makes an instance if there is none and it is time to. Returns whether there is one.
    async fn prepare(&mut self) -> bool {
        let now = self.shared.clock.now();
        if self.missing.as_ref().is_some_and(|(_, at)| *at > now) {
            return false;
        }
        let made = AssertUnwindSafe(self.bolt.prepare()).catch_unwind().await;
        let Err(fault) = made.unwrap_or_else(|panic| Err(Fault::panicked(&*panic))) else {
            self.missing = None;
            self.rebuilding.reset();
            return true;
        };
        self.faults.report(&fault);
        let now = self.shared.clock.now();
        // The first time it may have been a hiccup: whoever needs it next tries at once.
        let first = self.rebuilding.is_fresh();
        let pause = self.rebuilding.pause();
        self.missing = Some((fault, if first { now } else { now.saturating_add(pause) }));
        false
    }

    async fn tick(&mut self) {
        match AssertUnwindSafe(self.bolt.tick()).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => self.faults.report(&fault),
            Err(panic) => {
                self.recover(Fault::panicked(&*panic)).await;
            }
        }
        self.flush().await;
    }

    async fn drain(&mut self) {
        if let Err(panic) = AssertUnwindSafe(self.bolt.drain()).catch_unwind().await {
            self.recover(Fault::panicked(&*panic)).await;
        }
        self.flush().await;
    }

    async fn flush(&mut self) {
        self.flushed = self.shared.clock.now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.bolt.flush(true))) {
            self.faults.report(&Fault::panicked(&*panic));
        }
        self.send().await;
    }

    async fn send(&mut self) {
        collect(&self.stats, &mut self.outbox.lock(), &mut self.outgoing);
        self.shared.send_all(&mut self.outgoing, &self.stats).await;
    }
}
