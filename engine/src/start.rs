//! Making the tasks of a topology, and having all of them ready before any runs.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use galerna_state::{CheckpointId, CheckpointStore};
use galerna_topology::runtime::{
    AsyncBoltTask, BoltTask, BoxFuture, Destinations, RouteSetup, SpoutTask, Subscription, TaskSetup,
};
use galerna_topology::{Fault, TaskContext, TaskFactory};
use tokio::sync::Semaphore;

use crate::ack_sender::TaskAckSender;
use crate::error::EngineError;
use crate::plan::TaskPlan;
use crate::shared::Shared;

/// So many computing bolts are prepared at once, each on a thread.
const MOST_THREADS: usize = 64;
/// The batch size of a spout starts here: it grows with what the spout has to emit.
const FIRST_BATCH: usize = 64;

/// Makes the tasks of a topology.
pub(crate) struct TaskBuilder {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peers: Arc<BTreeMap<Arc<str>, usize>>,
    /// What each address stands for.
    pub(crate) destinations: Destinations,
    pub(crate) seed: u64,
    pub(crate) start_timeout: Duration,
    pub(crate) close_timeout: Duration,
    /// Whether a task could not be made ready: those that are made ready later are closed at once.
    pub(crate) failed: Arc<AtomicBool>,
    /// Where checkpoints are, and the one that was restored.
    pub(crate) checkpoints: Option<(Arc<dyn CheckpointStore>, Option<CheckpointId>)>,
}

/// The bolts of a worker, prepared.
pub(crate) enum WorkerBolts {
    /// In the order of the worker's members.
    Computing(Vec<Box<dyn BoltTask>>),
    Waiting(Box<dyn AsyncBoltTask>),
}

/// A spout that is open.
pub(crate) struct OpenSpout {
    pub(crate) plan: TaskPlan,
    pub(crate) spout: Box<dyn SpoutTask>,
    pub(crate) batch: Arc<AtomicUsize>,
}

/// All tasks of a topology, ready to run.
pub(crate) struct Started {
    /// By worker.
    pub(crate) bolts: Vec<WorkerBolts>,
    /// By number.
    pub(crate) spouts: Vec<OpenSpout>,
}

/// A task that is ready.
enum Ready {
    Computing(PreparedBolt),
    Waiting(Box<dyn AsyncBoltTask>),
    Spout(OpenSpout),
}

/// A computing bolt that is closed when nobody takes it.
struct PreparedBolt(Option<Box<dyn BoltTask>>);

impl Drop for PreparedBolt {
    fn drop(&mut self) {
        if let Some(bolt) = &mut self.0 {
            close_bolt(&mut **bolt);
        }
    }
}

fn close_bolt(bolt: &mut dyn BoltTask) {
    if let Err(fault) = bolt.close() {
        tracing::warn!(reason = fault.reason(), "a bolt that was prepared in vain could not be closed");
    }
}

impl Ready {
    async fn close(self, timeout: Duration) {
        let closing = async {
            match self {
                // By being dropped.
                Self::Computing(_) => {}
                Self::Waiting(mut bolt) => bolt.close().await,
                Self::Spout(mut open) => open.spout.close().await,
            }
        };
        let closed = tokio::time::timeout(timeout, AssertUnwindSafe(closing).catch_unwind()).await;
        if !matches!(closed, Ok(Ok(()))) {
            tracing::warn!("a task that was made ready in vain could not be closed");
        }
    }
}

type Making<'a> = BoxFuture<'a, Result<(usize, usize, Ready), EngineError>>;

impl TaskBuilder {
    /// Makes all tasks ready: the bolts first, so that spouts open into something that works.
    pub(crate) async fn start(&self) -> Result<Started, EngineError> {
        let threads = Semaphore::new(MOST_THREADS);
        let mut ready = Vec::new();
        let started = async {
            let mut bolts: FuturesUnordered<Making<'_>> = FuturesUnordered::new();
            for (worker, plan) in self.shared.plan.workers.iter().enumerate() {
                for (slot, &member) in plan.members.iter().enumerate() {
                    bolts.push(Box::pin(self.prepare(worker, slot, member, &threads)));
                }
            }
            while let Some(bolt) = bolts.next().await {
                ready.push(bolt?);
            }
            // Whoever ran it before commits nothing more. Only now, when it is known that there is somebody to take over.
            self.claim().await?;
            let mut spouts: FuturesUnordered<Making<'_>> = FuturesUnordered::new();
            for (number, &plan) in self.shared.plan.spouts.iter().enumerate() {
                spouts.push(Box::pin(self.open(number, plan)));
            }
            while let Some(spout) = spouts.next().await {
                ready.push(spout?);
            }
            Ok(())
        };
        if let Err(error) = started.await {
            self.failed.store(true, Ordering::SeqCst);
            let closing = ready.into_iter().map(|(_, _, ready)| ready.close(self.close_timeout));
            futures_util::future::join_all(closing).await;
            return Err(error);
        }
        ready.sort_by_key(|(worker, slot, ready)| (matches!(ready, Ready::Spout(_)), *worker, *slot));
        let mut started = Started { bolts: Vec::new(), spouts: Vec::new() };
        for (worker, _, ready) in ready {
            match ready {
                Ready::Computing(mut bolt) => {
                    if started.bolts.len() == worker {
                        started.bolts.push(WorkerBolts::Computing(Vec::new()));
                    }
                    if let (Some(WorkerBolts::Computing(tasks)), Some(bolt)) =
                        (started.bolts.last_mut(), bolt.0.take())
                    {
                        tasks.push(bolt);
                    }
                }
                Ready::Waiting(bolt) => started.bolts.push(WorkerBolts::Waiting(bolt)),
                Ready::Spout(spout) => started.spouts.push(spout),
            }
        }
        Ok(started)
    }

    /// Makes some of the bolts ready, and closes them again.
    pub(crate) async fn prepare_and_close(
        &self,
        which: impl Fn(TaskPlan) -> bool,
    ) -> Result<(), EngineError> {
        let threads = Semaphore::new(MOST_THREADS);
        for (worker, plan) in self.shared.plan.workers.iter().enumerate() {
            for (slot, &member) in plan.members.iter().enumerate().filter(|(_, member)| which(**member)) {
                let (_, _, ready) = self.prepare(worker, slot, member, &threads).await?;
                ready.close(self.close_timeout).await;
            }
        }
        Ok(())
    }

    async fn claim(&self) -> Result<(), EngineError> {
        let Some((store, restored)) = &self.checkpoints else { return Ok(()) };
        store.claim(*restored).await.map_err(|error| EngineError::Restore {
            topology: self.shared.topology.name().clone(),
            reason: error.to_string(),
        })
    }

    async fn prepare(
        &self,
        worker: usize,
        slot: usize,
        plan: TaskPlan,
        threads: &Semaphore,
    ) -> Result<(usize, usize, Ready), EngineError> {
        let settings = &self.shared.topology.components()[plan.component].settings;
        let batch = Arc::new(AtomicUsize::new(settings.batch));
        let ready = match &self.shared.topology.components()[plan.component].factory {
            TaskFactory::Bolt(make) => {
                let (make, setup, failed) = (make.clone(), self.setup(plan, &batch)?, self.failed.clone());
                // Beyond the start timeout it goes on until it ends by itself: a thread cannot be stopped.
                let _thread = threads.acquire().await;
                let prepared = tokio::task::spawn_blocking(move || {
                    let mut bolt = make(setup);
                    bolt.prepare()?;
                    let prepared = PreparedBolt(Some(bolt));
                    // Otherwise it is closed here, by being dropped.
                    if failed.load(Ordering::SeqCst) {
                        Err(Fault::permanent("not needed any more"))
                    } else {
                        Ok(prepared)
                    }
                });
                let prepared = async {
                    prepared.await.unwrap_or_else(|error| {
                        let panic =
                            error.try_into_panic().unwrap_or_else(|error| Box::new(error.to_string()));
                        Err(Fault::panicked(&*panic))
                    })
                };
                Ready::Computing(self.in_time(plan, prepared).await?)
            }
            TaskFactory::AsyncBolt(make) => {
                let setup = self.setup(plan, &batch)?;
                let mut bolt = self.caught(plan, || make(setup))?;
                self.in_time(plan, bolt.prepare()).await?;
                Ready::Waiting(bolt)
            }
            TaskFactory::Spout(_) => {
                return Err(self.failed(plan, &Fault::permanent("a spout among the bolts")));
            }
        };
        Ok((worker, slot, ready))
    }

    async fn open(&self, number: usize, plan: TaskPlan) -> Result<(usize, usize, Ready), EngineError> {
        let component = &self.shared.topology.components()[plan.component];
        let TaskFactory::Spout(make) = &component.factory else {
            return Err(self.failed(plan, &Fault::permanent("a bolt among the spouts")));
        };
        let batch = Arc::new(AtomicUsize::new(component.settings.batch.min(FIRST_BATCH)));
        let setup = self.setup(plan, &batch)?;
        let mut spout = self.caught(plan, || make(setup))?;
        self.in_time(plan, spout.open()).await?;
        Ok((number, 0, Ready::Spout(OpenSpout { plan, spout, batch })))
    }

    /// What the author's code panics with is an error.
    fn caught<T>(&self, plan: TaskPlan, make: impl FnOnce() -> T) -> Result<T, EngineError> {
        catch_unwind(AssertUnwindSafe(make)).map_err(|panic| self.failed(plan, &Fault::panicked(&*panic)))
    }

    fn failed(&self, plan: TaskPlan, fault: &Fault) -> EngineError {
        EngineError::Start {
            component: self.shared.topology.components()[plan.component].id.clone(),
            task: plan.task,
            reason: fault.reason().to_owned(),
        }
    }

    async fn in_time<T>(
        &self,
        plan: TaskPlan,
        hook: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, EngineError> {
        let caught = AssertUnwindSafe(hook).catch_unwind();
        match tokio::time::timeout(self.start_timeout, caught).await {
            Ok(Ok(outcome)) => outcome.map_err(|fault| self.failed(plan, &fault)),
            Ok(Err(panic)) => Err(self.failed(plan, &Fault::panicked(&*panic as &(dyn Any + Send)))),
            Err(_) => Err(EngineError::StartTimeout {
                component: self.shared.topology.components()[plan.component].id.clone(),
                task: plan.task,
                waited: self.start_timeout,
            }),
        }
    }

    fn setup(&self, plan: TaskPlan, batch: &Arc<AtomicUsize>) -> Result<TaskSetup, EngineError> {
        let shared = &self.shared;
        let components = shared.topology.components();
        let id = components[plan.component].id.clone();
        let route = |edge: &crate::plan::Edge| {
            let subscriber = &components[edge.component];
            let setup = RouteSetup {
                targets: shared.plan.addresses(plan, *edge, subscriber.settings.tasks()),
                loads: shared.loads[edge.component].clone(),
                pool: shared.pools[edge.component][edge.input].clone(),
                batch: batch.clone(),
                full_at: subscriber.settings.queue,
                clock: shared.clock.clone(),
                offset: plan.task,
                sender: plan.task as u32,
                subscriber: subscriber.id.clone(),
                watermarks: shared.plan.observes_watermarks[edge.component]
                    && !subscriber.inputs[edge.input].feedback,
                by_row: matches!(subscriber.factory, TaskFactory::AsyncBolt(_)),
                barriers: shared.plan.barriers && !subscriber.inputs[edge.input].feedback,
                weigh: None,
            };
            (edge.output, subscriber.inputs[edge.input].route(setup))
        };
        // Making a route clones the author's grouping.
        let routes = self.caught(plan, || shared.plan.edges[plan.component].iter().map(route).collect())?;
        // Any distinct number does: the source of random words mixes it.
        let number = ((plan.component as u64) << 32) | plan.task as u64;
        let context = TaskContext::new(
            shared.topology.name().clone(),
            id.clone(),
            plan.task,
            self.peers.clone(),
            shared.clock.clone(),
        )
        .with_metrics(shared.task_metrics[plan.component][plan.task].clone());
        let state = shared.states.get(&(plan.component, plan.task));
        Ok(TaskSetup {
            context: match state {
                Some(state) => context.with_state(Arc::new(state.clone())),
                None => context,
            },
            acks: Arc::new(TaskAckSender {
                component: id,
                stats: shared.stats[plan.component][plan.task].clone(),
                ledgers: shared.ledgers.clone(),
                stable_ids: shared.stable_ids.clone(),
                clock: shared.clock.clone(),
                in_flight: shared.in_flight.clone(),
                epoch: shared.epochs[plan.component][plan.task].clone(),
                waits: matches!(components[plan.component].factory, TaskFactory::AsyncBolt(_)),
            }),
            seed: self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            tracking: shared.topology.tracking(),
            subscriptions: components[plan.component]
                .inputs
                .iter()
                .map(|input| {
                    let from = components.iter().position(|other| other.id == input.component).unwrap_or(0);
                    let hears = shared.plan.observes_watermarks[plan.component] && !input.feedback;
                    let says = shared.plan.has_watermarks[from]
                        || components[plan.component].settings.event_time.makes();
                    let tasks = components[from].settings.tasks();
                    Subscription {
                        component: input.component.clone(),
                        stream: input.stream.clone(),
                        senders: if hears { shared.plan.senders(from, tasks, plan) } else { 0..0 },
                        has_watermarks: says,
                    }
                })
                .collect(),
            routes,
            destinations: self.destinations.clone(),
        })
    }
}
