//! Submitting a topology, and the handle of one that runs.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use galerna_topology::runtime::{
    AsyncBoltTask, BatchPool, BoltTask, BoxFuture, Loads, RouteSetup, SpoutTask, TaskSetup,
};
use galerna_topology::{Clock, Fault, TaskContext, TaskFactory, Topology};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::ack_sender::{Ledgers, TaskAckSender};
use crate::async_worker::AsyncWorker;
use crate::clock::{TokioClock, nanos};
use crate::error::EngineError;
use crate::ledger::Ledger;
use crate::metrics::{Described, Metrics, State, TaskStats, read};
use crate::plan::{Plan, TaskPlan};
use crate::shared::{Inbox, Mode, Shared};
use crate::spout_worker::{SpoutProgress, SpoutWorker};
use crate::worker::{Inputs, Worker, WorkerTask};

/// How long an aborted task may take to let go of what it holds.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// A channel whose bound is elsewhere: the spouts' pending limits and the bounded edges bound what can be in
/// it (see [`Ledgers`] and [`Inbox::feedback`]), and its senders must never wait.
#[expect(
    clippy::disallowed_methods,
    reason = "pending roots bound it, and a bound of its own could deadlock"
)]
fn unbounded<T>() -> (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}

/// How to run a topology.
#[derive(Clone)]
pub struct EngineOptions {
    /// Whether spouts may emit from the start. Yes unless set; see [`Running::activate`].
    pub active: bool,
    /// The topology's clock; tokio's unless set.
    pub clock: Option<Arc<dyn Clock>>,
    /// Where random words start; random unless set.
    pub seed: Option<u64>,
    /// Whether one-to-one hops between computing bolts are fused into one task. Yes unless set.
    pub fuse: bool,
    /// How long `open` or `prepare` of a task may take. 60 s unless set.
    pub start_timeout: Duration,
    /// How long a task may take to end after everything is drained, before it is aborted. 10 s unless set.
    pub close_timeout: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            active: true,
            clock: None,
            seed: None,
            fuse: true,
            start_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(10),
        }
    }
}

impl std::fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineOptions")
            .field("active", &self.active)
            .field("fuse", &self.fuse)
            .finish_non_exhaustive()
    }
}

/// Runs topologies.
#[derive(Debug, Clone, Copy)]
pub struct Engine;

impl Engine {
    /// Starts a topology on the current tokio runtime: prepares all bolts, opens all spouts, and lets it run.
    ///
    /// Dropping the future before it resolves starts nothing.
    ///
    /// # Errors
    /// If a task cannot be prepared or opened in time.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    pub async fn submit(topology: Topology, options: EngineOptions) -> Result<Running, EngineError> {
        let clock = options.clock.clone().unwrap_or_else(|| Arc::new(TokioClock::new()));
        let plan = Plan::new(&topology, options.fuse);
        let components = topology.components();
        let per_task = |component: &galerna_topology::Component| {
            (0..component.settings.tasks()).map(|_| Arc::<TaskStats>::default()).collect()
        };
        let (mut inboxes, mut receivers) = (Vec::new(), Vec::new());
        for worker in &plan.workers {
            let (queue, queue_rx) = mpsc::channel(components[worker.head].settings.queue);
            let (feedback, feedback_rx) = unbounded();
            inboxes.push(Inbox { queue, feedback });
            receivers.push((queue_rx, feedback_rx));
        }
        let (ledgers, acks): (Vec<_>, Vec<_>) = plan.spouts.iter().map(|_| unbounded()).unzip();
        let shared = Arc::new(Shared {
            clock,
            in_flight: Arc::default(),
            mode: watch::Sender::new(if options.active { Mode::Active } else { Mode::Inactive }),
            stats: components.iter().map(per_task).collect(),
            loads: components.iter().map(|component| Loads::new(component.settings.tasks())).collect(),
            pools: components
                .iter()
                .map(|c| c.inputs.iter().map(|_| BatchPool::default()).collect())
                .collect(),
            inboxes,
            plan,
            topology: topology.clone(),
        });
        let builder = TaskBuilder {
            shared: shared.clone(),
            ledgers: ledgers.into(),
            peers: Arc::new(topology.tasks()),
            seed: options.seed.unwrap_or_else(|| RandomState::new().hash_one(0u64)),
            start_timeout: options.start_timeout,
        };

        // All tasks are ready before any runs. Bolts first, so that spouts open into something that works.
        let mut workers = Vec::new();
        for (index, (queue, feedback)) in receivers.into_iter().enumerate() {
            let (close, closing) = watch::channel(false);
            let inputs = Inputs { queue, feedback, mode: shared.mode.subscribe(), closing };
            let run: BoxFuture<'static, ()> = match shared.plan.workers[index].computing {
                true => {
                    let tasks = builder.bolt_tasks(&shared.plan.workers[index].members)?;
                    Box::pin(Worker { shared: shared.clone(), index, tasks, inputs }.run())
                }
                false => {
                    Box::pin(builder.async_worker(shared.plan.workers[index].members[0], inputs).await?.run())
                }
            };
            workers.push((close, shared.plan.workers[index].head, run));
        }
        let (mut spouts, mut states) = (Vec::new(), Vec::new());
        for (number, (plan, acks)) in shared.plan.spouts.iter().zip(acks).enumerate() {
            let (close, closing) = watch::channel(false);
            let worker = builder.spout_worker(number, *plan, acks, closing).await?;
            states.push(worker.state.clone());
            spouts.push((close, plan.component, Box::pin(worker.run()) as BoxFuture<'static, ()>));
        }

        let started = shared.clock.now();
        let start = |(close, component, run): (watch::Sender<bool>, usize, BoxFuture<'static, ()>)| Task {
            close,
            component,
            handle: tokio::spawn(run),
        };
        Ok(Running {
            started,
            close_timeout: options.close_timeout,
            workers: workers.into_iter().map(start).collect(),
            spouts: spouts.into_iter().map(start).collect(),
            states: states.into(),
            shared,
        })
    }
}

/// Makes the tasks of a topology.
struct TaskBuilder {
    shared: Arc<Shared>,
    ledgers: Ledgers,
    peers: Arc<std::collections::BTreeMap<Arc<str>, usize>>,
    seed: u64,
    start_timeout: Duration,
}

impl TaskBuilder {
    fn setup(&self, plan: TaskPlan, batch: &Arc<AtomicUsize>) -> TaskSetup {
        let shared = &self.shared;
        let components = shared.topology.components();
        let id = components[plan.component].id.clone();
        let routes = shared.plan.edges[plan.component].iter().map(|edge| {
            let subscriber = &components[edge.component];
            let setup = RouteSetup {
                targets: shared.plan.addresses(plan, *edge, subscriber.settings.tasks()),
                loads: shared.loads[edge.component].clone(),
                pool: shared.pools[edge.component][edge.input].clone(),
                batch: batch.clone(),
                full_at: subscriber.settings.queue,
                clock: shared.clock.clone(),
                offset: plan.task,
            };
            (edge.output, subscriber.inputs[edge.input].route(setup))
        });
        // Any distinct number does: the source of random words mixes it.
        let number = ((plan.component as u64) << 32) | plan.task as u64;
        TaskSetup {
            context: TaskContext::new(
                shared.topology.name().clone(),
                id.clone(),
                plan.task,
                self.peers.clone(),
                shared.clock.clone(),
            ),
            acks: Arc::new(TaskAckSender {
                component: id,
                stats: shared.stats[plan.component][plan.task].clone(),
                ledgers: self.ledgers.clone(),
                clock: shared.clock.clone(),
                in_flight: shared.in_flight.clone(),
                waits: matches!(components[plan.component].factory, TaskFactory::AsyncBolt(_)),
            }),
            seed: self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            tracking: shared.topology.tracking(),
            routes: routes.collect(),
        }
    }

    fn failed(&self, plan: TaskPlan, fault: &Fault) -> EngineError {
        EngineError::Start {
            component: self.shared.topology.components()[plan.component].id.clone(),
            task: plan.task,
            reason: fault.reason().to_owned(),
        }
    }

    async fn within_start_timeout(
        &self,
        plan: TaskPlan,
        hook: impl Future<Output = Result<(), Fault>>,
    ) -> Result<(), EngineError> {
        match tokio::time::timeout(self.start_timeout, hook).await {
            Ok(outcome) => outcome.map_err(|fault| self.failed(plan, &fault)),
            Err(_) => Err(EngineError::StartTimeout {
                component: self.shared.topology.components()[plan.component].id.clone(),
                task: plan.task,
                waited: self.start_timeout,
            }),
        }
    }

    fn batch(&self, component: usize) -> Arc<AtomicUsize> {
        Arc::new(AtomicUsize::new(self.shared.topology.components()[component].settings.batch))
    }

    fn bolt_tasks(&self, plans: &[TaskPlan]) -> Result<Vec<WorkerTask>, EngineError> {
        let mut tasks = Vec::with_capacity(plans.len());
        for &plan in plans {
            let component = &self.shared.topology.components()[plan.component];
            let TaskFactory::Bolt(make) = &component.factory else { continue };
            let mut bolt: Box<dyn BoltTask> = make(self.setup(plan, &self.batch(plan.component)));
            bolt.prepare().map_err(|fault| self.failed(plan, &fault))?;
            tasks.push(WorkerTask {
                bolt,
                stats: self.shared.stats[plan.component][plan.task].clone(),
                component: plan.component,
                index: plan.task,
                tick: component.settings.tick,
                next_tick: Duration::MAX,
            });
        }
        Ok(tasks)
    }

    async fn async_worker(&self, plan: TaskPlan, inputs: Inputs) -> Result<AsyncWorker, EngineError> {
        let component = &self.shared.topology.components()[plan.component];
        let TaskFactory::AsyncBolt(make) = &component.factory else {
            return Err(self.failed(plan, &Fault::transient("not a bolt that waits")));
        };
        let mut task: Box<dyn AsyncBoltTask> = make(self.setup(plan, &self.batch(plan.component)));
        self.within_start_timeout(plan, task.prepare()).await?;
        Ok(AsyncWorker {
            shared: self.shared.clone(),
            task,
            stats: self.shared.stats[plan.component][plan.task].clone(),
            component: plan.component,
            inputs,
        })
    }

    async fn spout_worker(
        &self,
        number: usize,
        plan: TaskPlan,
        acks: mpsc::UnboundedReceiver<crate::ack_sender::AckMessage>,
        closing: watch::Receiver<bool>,
    ) -> Result<SpoutWorker, EngineError> {
        let component = &self.shared.topology.components()[plan.component];
        let TaskFactory::Spout(make) = &component.factory else {
            return Err(self.failed(plan, &Fault::transient("not a spout")));
        };
        let settings = &component.settings;
        let batch = Arc::new(AtomicUsize::new(settings.batch.min(64)));
        let mut spout: Box<dyn SpoutTask> = make(self.setup(plan, &batch));
        self.within_start_timeout(plan, spout.open()).await?;
        let timeout = self.shared.topology.message_timeout(component).map(nanos);
        if *self.shared.mode.borrow() == Mode::Active {
            self.shared.stats[plan.component][plan.task].set_state(State::Emitting, 0);
        }
        Ok(SpoutWorker {
            shared: self.shared.clone(),
            spout,
            // Room for what a usual pending limit allows; more is grown into.
            ledger: Ledger::new(number as u16, settings.max_pending.min(1 << 16), timeout),
            acks,
            stats: self.shared.stats[plan.component][plan.task].clone(),
            state: Arc::new(SpoutProgress::default()),
            component: plan.component,
            mode: self.shared.mode.subscribe(),
            closing,
            batch,
            max_batch: settings.batch,
            max_pending: settings.max_pending,
        })
    }
}

struct Task {
    close: watch::Sender<bool>,
    component: usize,
    handle: JoinHandle<()>,
}

/// How a topology ended.
#[derive(Debug, Clone, PartialEq)]
pub struct DrainReport {
    /// Whether every root had ended and nothing was on its way before the deadline.
    pub drained: bool,
    /// Roots still pending at the deadline: they failed with [`FailureKind::Stopped`](galerna_topology::FailureKind).
    pub unfinished: usize,
    /// Components of which a task did not end in [`EngineOptions::close_timeout`] and was aborted.
    pub aborted: Vec<Arc<str>>,
    /// The metrics at the end.
    pub metrics: Metrics,
}

/// A topology that runs. Dropping it aborts all its tasks; call [`drain`](Self::drain) or
/// [`stop`](Self::stop) to end it in order.
pub struct Running {
    shared: Arc<Shared>,
    started: Duration,
    close_timeout: Duration,
    workers: Vec<Task>,
    spouts: Vec<Task>,
    states: Arc<[Arc<SpoutProgress>]>,
}

impl Running {
    /// Lets the spouts emit.
    pub fn activate(&self) {
        self.switch(Mode::Active);
    }

    /// Has the spouts stop emitting. What is on its way goes on, and its acks and fails arrive.
    pub fn deactivate(&self) {
        self.switch(Mode::Inactive);
    }

    fn switch(&self, to: Mode) {
        self.shared.mode.send_if_modified(|mode| {
            let changed = *mode != to && matches!(*mode, Mode::Active | Mode::Inactive);
            if changed {
                *mode = to;
            }
            changed
        });
    }

    /// The topology that runs.
    pub fn topology(&self) -> &Topology {
        &self.shared.topology
    }

    /// The topology's clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// All counts and latencies now.
    pub fn metrics(&self) -> Metrics {
        let shared = &self.shared;
        let ids: Vec<Arc<str>> = shared.topology.components().iter().map(|c| c.id.clone()).collect();
        let uptime = shared.clock.now().saturating_sub(self.started);
        let read_one = |(at, component): (usize, &galerna_topology::Component)| {
            let described = Described {
                component,
                fused_with: shared.plan.fused_with[at].map(|before| ids[before].to_string()),
                queued: (0..component.settings.tasks()).map(|task| shared.loads[at].of(task)).sum(),
                uptime,
                clock: &*shared.clock,
                ids: &ids,
            };
            read(&described, &shared.stats[at])
        };
        Metrics {
            topology: shared.topology.name().to_string(),
            uptime_ms: uptime.as_millis() as u64,
            components: shared.topology.components().iter().enumerate().map(read_one).collect(),
        }
    }

    fn pending(&self) -> usize {
        self.states.iter().map(|state| state.pending.load(Ordering::Acquire)).sum()
    }

    /// Resolves when every spout has said that it is done, every root has ended and nothing is on its way.
    /// Cancel-safe.
    pub async fn finished(&self) {
        let done = || self.states.iter().all(|state| state.done.load(Ordering::Acquire));
        self.shared
            .in_flight
            .wait_until(|| done() && self.pending() == 0 && self.shared.in_flight.is_idle())
            .await;
    }

    /// Whether nothing is on its way between tasks at this moment. Kept tuples do not count.
    pub fn is_idle(&self) -> bool {
        self.shared.in_flight.is_idle()
    }

    /// Ends the topology in order: from now on nothing is emitted by spouts; once all pending roots have
    /// ended, or when `deadline` has passed on the topology's clock, everything is closed from the spouts'
    /// side downwards. Roots still pending then fail with
    /// [`FailureKind::Stopped`](galerna_topology::FailureKind::Stopped).
    pub async fn drain(mut self, deadline: Duration) -> DrainReport {
        self.shared.mode.send_replace(Mode::Draining);
        let until = self.shared.clock.now().saturating_add(deadline);
        let quiet = || self.states.iter().all(|state| state.quiet.load(Ordering::Acquire));
        let drained = tokio::select! {
            biased;
            () = self.shared.in_flight.wait_until(
                || quiet() && self.pending() == 0 && self.shared.in_flight.is_idle(),
            ) => true,
            () = self.shared.clock.sleep_until(until) => false,
        };
        let unfinished = if drained { 0 } else { self.pending() };
        self.shared.mode.send_replace(Mode::Stopping);
        let mut aborted = Vec::new();
        // Bolts first when all is drained: what they still emit while closing is unanchored. Spouts are kept
        // to the end to hear of everything.
        for task in self.workers.iter_mut().chain(&mut self.spouts) {
            task.close.send_replace(true);
            let ended = tokio::time::timeout(self.close_timeout, &mut task.handle).await;
            if ended.is_err() {
                task.handle.abort();
                // What it held fails when it is dropped, which a task that computes may put off for ever.
                let _ = tokio::time::timeout(ABORT_TIMEOUT, &mut task.handle).await;
                aborted.push(self.shared.topology.components()[task.component].id.clone());
            }
        }
        DrainReport { drained, unfinished, aborted, metrics: self.metrics() }
    }

    /// [`drain`](Self::drain)s for at most the longest message timeout of its spouts; 30 s where that is off.
    pub async fn kill(self) -> DrainReport {
        let topology = &self.shared.topology;
        let spouts = topology.components().iter().filter(|c| c.factory.is_spout());
        let longest = spouts.filter_map(|spout| topology.message_timeout(spout)).max();
        self.drain(longest.unwrap_or(Duration::from_secs(30))).await
    }

    /// [`drain`](Self::drain)s without waiting for what is pending.
    pub async fn stop(self) -> DrainReport {
        self.drain(Duration::ZERO).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in self.workers.iter().chain(&self.spouts) {
            task.handle.abort();
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("topology", self.shared.topology.name()).finish_non_exhaustive()
    }
}
