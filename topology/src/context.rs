//! What a task knows of its surroundings, and the clock.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::task_metrics::{Counter, Gauge, TaskMetrics};

/// The one source of time of a running topology.
///
/// Times are durations since some start of the clock's own choosing and never go backwards. The engine
/// brings a clock on tokio's time (real or paused) and one that only moves when a test says so.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Duration;

    /// Resolves when the clock has reached `deadline`. Cancel-safe.
    fn sleep_until(&self, deadline: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Where a task stands in its topology: handed to `open` and `prepare`, cheap to clone and keep.
#[derive(Clone)]
pub struct TaskContext {
    inner: Arc<ContextData>,
}

#[derive(Clone)]
struct ContextData {
    topology: Arc<str>,
    component: Arc<str>,
    task: usize,
    tasks: usize,
    peers: Arc<BTreeMap<Arc<str>, usize>>,
    clock: Arc<dyn Clock>,
    metrics: Arc<TaskMetrics>,
    /// The state of the task, if it keeps any; of a type that this crate does not know.
    state: Option<Arc<dyn Any + Send + Sync>>,
}

impl TaskContext {
    /// A context, as an engine makes it. `peers` has the number of tasks of every component.
    pub fn new(
        topology: Arc<str>,
        component: Arc<str>,
        task: usize,
        peers: Arc<BTreeMap<Arc<str>, usize>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let tasks = peers.get(&component).copied().unwrap_or(1);
        Self {
            inner: Arc::new(ContextData {
                topology,
                component,
                task,
                tasks,
                peers,
                clock,
                metrics: Arc::default(),
                state: None,
            }),
        }
    }

    /// As [`new`](Self::new), with what the task measures itself kept elsewhere.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<TaskMetrics>) -> Self {
        self.with(|data| data.metrics = metrics)
    }

    /// As [`new`](Self::new), with the state of the task, of the type that those who declare stateful bolts agree on with the engine.
    #[must_use]
    pub fn with_state(self, state: Arc<dyn Any + Send + Sync>) -> Self {
        self.with(|data| data.state = Some(state))
    }

    fn with(self, change: impl FnOnce(&mut ContextData)) -> Self {
        let mut data = Arc::unwrap_or_clone(self.inner);
        change(&mut data);
        Self { inner: Arc::new(data) }
    }

    /// The state of the task, if its component [keeps state](crate::BoltDeclarer::keeps_state) and it is of this type. Who declares
    /// bolts by `galerna_state::KeyedBolt` asks by `galerna_state::StateContext`.
    pub fn state_as<S: Any>(&self) -> Option<&S> {
        self.inner.state.as_ref()?.downcast_ref()
    }

    /// A counter of this task's own: the metrics show the sum over the tasks of its component. One name is one counter, also after
    /// a panic.
    pub fn counter(&self, name: &str) -> Counter {
        self.inner.metrics.counter(name)
    }

    /// A gauge of this task's own: the metrics show it for each task.
    pub fn gauge(&self, name: &str) -> Gauge {
        self.inner.metrics.gauge(name)
    }

    pub(crate) fn metrics(&self) -> &TaskMetrics {
        &self.inner.metrics
    }

    /// The topology's name.
    pub fn topology(&self) -> &str {
        &self.inner.topology
    }

    /// The id of this task's component.
    pub fn component(&self) -> &str {
        &self.inner.component
    }

    /// The index of this task within its component, from 0.
    pub fn task(&self) -> usize {
        self.inner.task
    }

    /// How many tasks this component has.
    pub fn tasks(&self) -> usize {
        self.inner.tasks
    }

    /// How many tasks another component has, if there is one with this id. Direct grouping needs it.
    pub fn tasks_of(&self, component: &str) -> Option<usize> {
        self.inner.peers.get(component).copied()
    }

    /// The ids of all components of the topology, each with the number of its tasks, sorted by id.
    pub fn components(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.inner.peers.iter().map(|(id, tasks)| (id, *tasks))
    }

    /// The topology's time now.
    pub fn now(&self) -> Duration {
        self.inner.clock.now()
    }

    /// Resolves when the topology's clock has moved on by `duration`. Cancel-safe.
    pub fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.inner.clock.sleep_until(self.inner.clock.now().saturating_add(duration))
    }

    /// The topology's clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskContext({}/{} {}/{})", self.topology(), self.component(), self.task(), self.tasks())
    }
}
