//! Submitting a topology, and the handle of one that runs.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use galerna_state::{CheckpointId, DeclaredState, Manifest, TaskState};
use galerna_topology::runtime::{BatchPool, BoxFuture, Destination, Loads};
use galerna_topology::{Clock, Topology};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::ack_sender::AckMessage;
use crate::async_worker::AsyncWorker;
use crate::checkpoints::{
    CheckpointFailure, CheckpointOptions, CheckpointReport, Checkpoints, Coordinator, Epoch, Incoming,
    KeyedStateOptions, Restored, Status, restore,
};
use crate::clock::TokioClock;
use crate::error::EngineError;
use crate::handle::TopologyHandle;
use crate::lanes::{Budget, Lanes};
use crate::metrics::{Metrics, TaskStats};
use crate::plan::Plan;
use crate::shared::{Mode, Shared};
use crate::spout_worker::{SpoutProgress, SpoutWorker};
use crate::stable_ids::StableIds;
use crate::start::{Started, TaskBuilder, WorkerBolts};
use crate::threads;
use crate::worker::{Inputs, Worker};

/// How long an aborted task may take to let go of what it holds.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);
/// What the coordinator of checkpoints may have said to a spout's task that this has not heard.
const COMMANDS: usize = 8;

/// A channel whose bound is elsewhere: the spouts' pending limits and the bounded edges bound what can be in
/// it (see [`Ledgers`](crate::ack_sender::Ledgers)), and its senders must never wait.
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
    /// How many bytes may be queued between the topology's tasks, by what tuples weigh (see
    /// [`Stream::weigh`](galerna_topology::Stream::weigh)). Beyond it spouts emit nothing, and a bolt has room for one batch in an
    /// empty queue. 512 MiB unless set.
    pub queued_bytes: usize,
    /// How many bytes may wait on feedback edges. Who sends there never waits, or a cycle would wait for itself; so where what
    /// goes round multiplies, tuples beyond this limit fail. 512 MiB unless set.
    pub feedback_bytes: usize,
    /// What the state of bolts that keep any may use.
    pub state: KeyedStateOptions,
    /// Where checkpoints of that state are, and how they are taken. None are taken unless set: state is lost when the process ends,
    /// and acks wait for nothing but their roots.
    pub checkpoints: Option<CheckpointOptions>,
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
            queued_bytes: 512 << 20,
            feedback_bytes: 512 << 20,
            state: KeyedStateOptions::default(),
            checkpoints: None,
        }
    }
}

impl std::fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineOptions")
            .field("active", &self.active)
            .field("fuse", &self.fuse)
            .field("checkpoints", &self.checkpoints)
            .finish_non_exhaustive()
    }
}

/// Runs topologies.
#[derive(Debug, Clone, Copy)]
pub struct Engine;

impl Engine {
    /// Starts a topology on the current tokio runtime: prepares all bolts, opens all spouts, and lets it run. Tasks are prepared
    /// at the same time, those of computing bolts on threads where they may block; spouts are opened when all bolts are ready.
    ///
    /// With checkpoints, the state is that of the last one that was committed.
    ///
    /// Dropping the future before it resolves starts nothing.
    ///
    /// # Errors
    /// If the last checkpoint cannot be restored, or has state that the topology does not keep. If a task cannot be made, prepared or opened in time, or panics meanwhile. Those that were ready have been closed then.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    pub async fn submit(topology: Topology, options: EngineOptions) -> Result<Running, EngineError> {
        let Prepared { shared, builder, acks, passed, manifest } = prepare(&topology, &options).await?;
        let Started { bolts, spouts: opened } = builder.start().await?;

        let mut workers = Vec::new();
        for (index, bolts) in bolts.into_iter().enumerate() {
            let (close, closing) = watch::channel(false);
            let inputs = Inputs::new(shared.clone(), index, closing);
            let run: BoxFuture<'static, ()> = match bolts {
                WorkerBolts::Computing(tasks) => Box::pin(Worker::new(shared.clone(), tasks, inputs).run()),
                WorkerBolts::Waiting(bolt) => {
                    let plan = shared.plan.workers[index].members[0];
                    Box::pin(AsyncWorker::new(shared.clone(), bolt, plan, inputs).run())
                }
            };
            workers.push((close, shared.plan.workers[index].head, run));
        }
        let (mut spouts, mut states) = (Vec::new(), Vec::new());
        let mut commands = Vec::new();
        for ((spout, acks), number) in opened.into_iter().zip(acks).zip(0..) {
            let (close, closing) = watch::channel(false);
            let component = spout.plan.component;
            let command = passed.as_ref().map(|_| {
                let (sender, receiver) = mpsc::channel(COMMANDS);
                commands.push(sender);
                receiver
            });
            let worker = SpoutWorker::new(shared.clone(), number, spout, acks, command, closing);
            states.push(worker.state.clone());
            spouts.push((close, component, Box::pin(worker.run()) as BoxFuture<'static, ()>));
        }

        let started = shared.clock.now();
        let mut cores = threads::Cores::new();
        let mut start =
            |(close, component, run): (watch::Sender<bool>, usize, BoxFuture<'static, ()>)| Task {
                close,
                component,
                handle: threads::spawn(&topology.components()[component], &mut cores, run),
            };
        let workers = workers.into_iter().map(&mut start).collect();
        let spouts = spouts.into_iter().map(&mut start).collect();
        let coordinator = options.checkpoints.zip(passed).map(|(options, incoming)| {
            let coordinator = Coordinator::new(shared.clone(), options, incoming, commands, manifest);
            tokio::spawn(coordinator.run())
        });
        Ok(Running {
            coordinator,
            started,
            close_timeout: options.close_timeout,
            workers,
            spouts,
            states: states.into(),
            shared,
        })
    }

    /// The states that the components of a topology declare, by component and name: what `plan_declared` compares with a checkpoint that
    /// another process has. For that, one task of each component that keeps state is made, prepared without anything restored, and closed
    /// again; spouts are not opened and nothing runs.
    ///
    /// # Errors
    /// If a task cannot be made or prepared in time, or panics meanwhile.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    pub async fn declared_states(
        topology: &Topology,
        options: &EngineOptions,
    ) -> Result<Vec<DeclaredState>, EngineError> {
        let options = EngineOptions { checkpoints: None, ..options.clone() };
        let Prepared { shared, builder, .. } = prepare(topology, &options).await?;
        builder
            .prepare_and_close(|plan| {
                plan.task == 0 && topology.components()[plan.component].settings.keeps_state
            })
            .await?;
        Ok(declared(&shared))
    }
}

/// The states that tasks have declared, each once.
pub(crate) fn declared(shared: &Shared) -> Vec<DeclaredState> {
    let mut declared: Vec<DeclaredState> = shared.states.values().flat_map(TaskState::declared).collect();
    declared.sort_by(|one, other| (&one.component, &one.state).cmp(&(&other.component, &other.state)));
    declared.dedup();
    declared
}

/// A topology whose tasks can be made.
struct Prepared {
    shared: Arc<Shared>,
    builder: TaskBuilder,
    /// By number of the spout's task.
    acks: Vec<mpsc::UnboundedReceiver<(u64, AckMessage)>>,
    passed: Option<Incoming>,
    manifest: Option<Manifest>,
}

async fn prepare(topology: &Topology, options: &EngineOptions) -> Result<Prepared, EngineError> {
    let clock = options.clock.clone().unwrap_or_else(|| Arc::new(TokioClock::new()));
    let plan = Plan::new(topology, options.fuse, options.checkpoints.is_some());
    let Restored { states, manifest, known } =
        restore(topology, &*clock, &options.state, options.checkpoints.as_ref()).await?;
    let components = topology.components();
    let per_task = |component: &galerna_topology::Component| {
        (0..component.settings.tasks()).map(|_| Arc::<TaskStats>::default()).collect()
    };
    let lanes = plan.workers.iter().map(|worker| (components[worker.head].settings.queue, worker.group));
    let lanes = Lanes::new(lanes, Budget::new(options.queued_bytes), options.feedback_bytes);
    let (ledgers, acks): (Vec<_>, Vec<_>) = plan.spouts.iter().map(|_| unbounded()).unzip();
    let tasks = components.iter().map(|component| component.settings.tasks()).sum();
    let (checkpoints, passed) = options
        .checkpoints
        .as_ref()
        .map(|options| {
            let last = manifest.as_ref().map(|manifest| manifest.id);
            Checkpoints::new(tasks, known, options, Arc::new(Status::new(last, clock.now())))
        })
        .unzip();
    let per_epoch = |component: &galerna_topology::Component| {
        (0..component.settings.tasks()).map(|_| Epoch::default()).collect()
    };
    let executors = plan.executors(components, clock.now());
    let shared = Arc::new(Shared {
        states,
        state_clock: options.state.clock.clone(),
        epochs: components.iter().map(per_epoch).collect(),
        checkpoints,
        clock,
        in_flight: Arc::default(),
        ended: AtomicBool::new(false),
        mode: watch::Sender::new(if options.active { Mode::Active } else { Mode::Inactive }),
        stats: components.iter().map(per_task).collect(),
        task_metrics: components
            .iter()
            .map(|component| (0..component.settings.tasks()).map(|_| Arc::default()).collect())
            .collect(),
        loads: components.iter().map(|component| Loads::new(component.settings.tasks())).collect(),
        pools: components.iter().map(|c| c.inputs.iter().map(|_| BatchPool::default()).collect()).collect(),
        lanes,
        executors,
        ledgers: ledgers.into(),
        stable_ids: plan.spouts.iter().map(|_| StableIds::default()).collect(),
        plan,
        topology: topology.clone(),
    });
    let destinations = shared.plan.targets.iter().map(|target| {
        let component = topology.components()[target.component].id.clone();
        Destination { component, task: target.task }
    });
    let destinations = destinations.collect();
    let builder = TaskBuilder {
        shared: shared.clone(),
        peers: Arc::new(topology.tasks()),
        destinations,
        seed: options.seed.unwrap_or_else(|| RandomState::new().hash_one(0u64)),
        start_timeout: options.start_timeout,
        close_timeout: options.close_timeout,
        failed: Arc::default(),
        checkpoints: options
            .checkpoints
            .as_ref()
            .map(|checkpoints| (checkpoints.store.clone(), manifest.as_ref().map(|manifest| manifest.id))),
    };
    Ok(Prepared { shared, builder, acks, passed, manifest })
}

struct Task {
    close: watch::Sender<bool>,
    component: usize,
    handle: JoinHandle<()>,
}

impl Task {
    /// Has it end. Returns whether it did in time.
    async fn close(&mut self, timeout: Duration) -> bool {
        self.close.send_replace(true);
        match tokio::time::timeout(timeout, &mut self.handle).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "a task ended before it was closed");
                true
            }
            Err(_) => {
                self.handle.abort();
                // What it held fails when it is dropped, which a task that computes may put off for ever.
                let _ = tokio::time::timeout(ABORT_TIMEOUT, &mut self.handle).await;
                false
            }
        }
    }
}

/// How a topology ended.
#[derive(Debug, Clone, PartialEq)]
pub struct DrainReport {
    /// Whether every root had ended and nothing was on its way before the deadline.
    pub drained: bool,
    /// Roots still pending at the deadline that failed then, most of them with
    /// [`FailureKind::Stopped`](galerna_topology::FailureKind). Those that were acked all the same while the topology closed
    /// are not counted.
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
    /// Who takes checkpoints.
    coordinator: Option<JoinHandle<()>>,
}

impl Running {
    /// Lets the spouts emit.
    pub fn activate(&self) {
        self.handle().activate();
    }

    /// Has the spouts stop emitting. What is on its way goes on, and its acks and fails arrive.
    pub fn deactivate(&self) {
        self.handle().deactivate();
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
        self.handle().metrics()
    }

    /// What others may hold of it, to see and to switch it.
    pub fn handle(&self) -> TopologyHandle {
        TopologyHandle { shared: self.shared.clone(), started: self.started, states: self.states.clone() }
    }

    /// Takes a checkpoint now; see [`TopologyHandle::checkpoint`].
    ///
    /// # Errors
    /// [`CheckpointFailure::Off`] in a topology without checkpoints, or why it came to nothing. The topology runs on.
    pub async fn checkpoint(&self) -> Result<CheckpointReport, CheckpointFailure> {
        self.handle().checkpoint().await
    }

    /// The last checkpoint that was committed or, before there is one, restored.
    pub fn last_checkpoint(&self) -> Option<CheckpointId> {
        self.handle().last_checkpoint()
    }

    /// Takes a last checkpoint, so that what is done is acked, and no more after it.
    async fn end_checkpoints(&mut self) {
        if let Some(coordinator) = &self.coordinator {
            match tokio::time::timeout(self.close_timeout, self.checkpoint()).await {
                Ok(Ok(_)) => {}
                Ok(Err(failure)) => tracing::warn!(%failure, "there is no last checkpoint"),
                Err(_) => tracing::warn!("there is no last checkpoint: it took too long"),
            }
            coordinator.abort();
        }
        self.coordinator = None;
    }

    fn pending(&self) -> usize {
        self.handle().pending()
    }

    /// Resolves when every spout has said that it is done, every root has ended and nothing is on its way.
    /// Cancel-safe.
    pub async fn finished(&self) {
        self.handle().finished().await;
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
        self.end_checkpoints().await;
        let failed_before = self.failed_roots();
        self.shared.mode.send_replace(Mode::Stopping);
        let mut aborted = Vec::new();
        // Bolts first when all is drained: what they still emit while closing is unanchored. Spouts are kept
        // to the end to hear of everything. Tasks of one component close at the same time.
        for tasks in [&mut self.workers, &mut self.spouts] {
            for tasks in tasks.chunk_by_mut(|one, other| one.component == other.component) {
                let id = self.shared.topology.components()[tasks[0].component].id.clone();
                let close_timeout = self.close_timeout;
                let closed = tasks.iter_mut().map(|task| task.close(close_timeout));
                if futures_util::future::join_all(closed).await.contains(&false) {
                    aborted.push(id);
                }
            }
        }
        // What an aborted spout had pending has failed with it.
        let lost = if aborted.is_empty() { 0 } else { self.pending() };
        let failed = self.failed_roots() - failed_before;
        let unfinished = if drained { 0 } else { failed as usize + lost };
        DrainReport { drained, unfinished, aborted, metrics: self.metrics() }
    }

    /// How many roots have failed.
    fn failed_roots(&self) -> u64 {
        let shared = &self.shared;
        let components = shared.topology.components().iter().zip(&shared.stats);
        let tasks =
            components.filter(|(component, _)| component.factory.is_spout()).flat_map(|(_, tasks)| tasks);
        tasks.map(|task| task.failures()).sum()
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
        if let Some(coordinator) = &self.coordinator {
            coordinator.abort();
        }
        for task in self.workers.iter().chain(&self.spouts) {
            task.handle.abort();
        }
        self.shared.ended.store(true, Ordering::Release);
        self.shared.in_flight.touch();
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("topology", self.shared.topology.name()).finish_non_exhaustive()
    }
}
