//! Declaring a topology.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::adapt::{ByBatch, ByTuple, ComputingBolt, WaitingBolt};
use crate::bolt::{AsyncBatchBolt, AsyncBolt, BatchBolt, Bolt};
use crate::check::{self, BuildError};
use crate::closure::{Filter, FlatMap, ForEach, IntoTupleResult, Map};
use crate::component::{Component, ComponentSettings, TaskFactory};
use crate::declarer::{BoltDeclarer, SpoutDeclarer};
use crate::factory::{
    AsyncBatchBoltSource, AsyncBoltSource, BatchBoltSource, BoltSource, Factory, SpoutSource,
};
use crate::failure::Fault;
use crate::map_async::{Calls, MapAsync, Turns};
use crate::outputs::{Data, Outputs};
use crate::runtime::{AsyncBoltTask, BoltTask, SpoutTask, TaskSetup};
use crate::spout::Spout;
use crate::spout_task::TypedSpoutTask;
use crate::task::{TypedAsyncBoltTask, TypedBoltTask};
use crate::topology::Topology;

/// Declares a topology: spouts, bolts, and how tuples flow between them.
///
/// ```
/// use galerna_topology::prelude::*;
///
/// # struct Numbers;
/// # impl Spout for Numbers {
/// #     type MessageId = u64;
/// #     type Outputs = Output<u64>;
/// #     async fn next(&mut self, _out: &mut Roots<'_, Self>) -> Result<Next, Fault> { Ok(Next::Done) }
/// # }
/// let mut topology = TopologyBuilder::new("squares");
/// let numbers = topology.spout("numbers", || Numbers).max_pending(10_000).outputs();
/// let squares = topology.map("square", |n: u64| n * n).shuffle(numbers).parallelism(2).outputs();
/// topology.for_each("print", |n: u64| println!("{n}")).global(squares);
/// let topology = topology.build()?;
///
/// println!("{}", topology.mermaid());
/// # Ok::<(), BuildError>(())
/// ```
pub struct TopologyBuilder {
    topology: Topology,
}

impl TopologyBuilder {
    /// An empty topology with this name and a message timeout of 30 s.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let topology = Topology {
            name: name.into(),
            components: Vec::new(),
            message_timeout: Some(Duration::from_secs(30)),
            tracking: true,
        };
        Self { topology }
    }

    /// Sets how long a root may take before it fails, for all spouts that do not say otherwise; `None`
    /// switches timeouts off.
    pub fn message_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Self {
        self.topology.message_timeout = timeout.into();
        self
    }

    /// Switches tracking off: every root is acked when it is emitted, whatever becomes of its tuples, as in
    /// Storm with no ackers.
    pub fn tracking(&mut self, on: bool) -> &mut Self {
        self.topology.tracking = on;
        self
    }

    /// Adds a component as it was declared in another topology, with its subscriptions and settings: for what runs a part of one.
    pub fn component(&mut self, component: Component) -> &mut Self {
        self.topology.components.push(component);
        self
    }

    fn declare<B, O: Outputs>(&mut self, id: impl Into<Arc<str>>, factory: TaskFactory) -> &mut Component {
        let mut outputs = Vec::new();
        O::describe(&mut outputs);
        self.topology.components.push(Component {
            id: id.into(),
            factory,
            type_name: type_name::<B>(),
            inputs: Vec::new(),
            outputs,
            settings: ComponentSettings::default(),
        });
        let last = self.topology.components.len() - 1;
        &mut self.topology.components[last]
    }

    /// Declares a spout: a value that is cloned for each task, or a function that makes one for each. After a
    /// panic a new one is made in the same way.
    pub fn spout<S: SpoutSource<Kind>, Kind>(
        &mut self,
        id: impl Into<Arc<str>>,
        spout: S,
    ) -> SpoutDeclarer<'_, <S::Instance as Spout>::Outputs> {
        let factory = spout.into_factory();
        let make = move |setup: TaskSetup| -> Box<dyn SpoutTask> {
            Box::new(TypedSpoutTask::new(factory.clone(), setup))
        };
        let component = self
            .declare::<S::Instance, <S::Instance as Spout>::Outputs>(id, TaskFactory::Spout(Arc::new(make)));
        component.settings.stable_ids = <S::Instance as Spout>::STABLE_IDS;
        SpoutDeclarer { component, marker: PhantomData }
    }

    fn computing<B, R: ComputingBolt>(
        &mut self,
        id: impl Into<Arc<str>>,
        make: impl Fn() -> R + Send + Sync + 'static,
    ) -> BoltDeclarer<'_, R::Input, R::Outputs> {
        let factory: Factory<R> = Arc::new(make);
        let task = move |setup: TaskSetup| -> Box<dyn BoltTask> {
            Box::new(TypedBoltTask::new(factory.clone(), setup))
        };
        let component = self.declare::<B, R::Outputs>(id, TaskFactory::Bolt(Arc::new(task)));
        BoltDeclarer { component, marker: PhantomData }
    }

    fn mapping<R: ComputingBolt>(
        &mut self,
        id: impl Into<Arc<str>>,
        make: impl Fn() -> R + Send + Sync + 'static,
    ) -> BoltDeclarer<'_, R::Input, R::Outputs> {
        self.computing::<R, R>(id, make)
    }

    fn waiting<B, R: WaitingBolt>(
        &mut self,
        id: impl Into<Arc<str>>,
        make: impl Fn() -> R + Send + Sync + 'static,
    ) -> BoltDeclarer<'_, R::Input, R::Outputs> {
        let factory: Factory<R> = Arc::new(make);
        let task = move |setup: TaskSetup| -> Box<dyn AsyncBoltTask> {
            Box::new(TypedAsyncBoltTask::new(factory.clone(), setup))
        };
        let component = self.declare::<B, R::Outputs>(id, TaskFactory::AsyncBolt(Arc::new(task)));
        BoltDeclarer { component, marker: PhantomData }
    }

    /// Declares a bolt that computes: a value that is cloned for each task, or a function that makes one for
    /// each. After a panic a new one is made in the same way.
    pub fn bolt<B: BoltSource<Kind>, Kind>(
        &mut self,
        id: impl Into<Arc<str>>,
        bolt: B,
    ) -> BoltDeclarer<'_, <B::Instance as Bolt>::Input, <B::Instance as Bolt>::Outputs> {
        let make = bolt.into_factory();
        self.computing::<B::Instance, _>(id, move || ByTuple(make()))
    }

    /// Declares a bolt that computes on whole batches; otherwise as [`bolt`](Self::bolt).
    pub fn batch_bolt<B: BatchBoltSource<Kind>, Kind>(
        &mut self,
        id: impl Into<Arc<str>>,
        bolt: B,
    ) -> BoltDeclarer<'_, <B::Instance as BatchBolt>::Input, <B::Instance as BatchBolt>::Outputs> {
        let make = bolt.into_factory();
        self.computing::<B::Instance, _>(id, move || ByBatch(make()))
    }

    /// Declares a bolt that waits: a value that is cloned for each task, or a function that makes one for each.
    /// After a panic a new one is made in the same way.
    pub fn async_bolt<B: AsyncBoltSource<Kind>, Kind>(
        &mut self,
        id: impl Into<Arc<str>>,
        bolt: B,
    ) -> BoltDeclarer<'_, <B::Instance as AsyncBolt>::Input, <B::Instance as AsyncBolt>::Outputs> {
        let make = bolt.into_factory();
        self.waiting::<B::Instance, _>(id, move || ByTuple(make()))
    }

    /// Declares a bolt that waits and takes whole batches; otherwise as [`async_bolt`](Self::async_bolt).
    pub fn async_batch_bolt<B: AsyncBatchBoltSource<Kind>, Kind>(
        &mut self,
        id: impl Into<Arc<str>>,
        bolt: B,
    ) -> BoltDeclarer<'_, <B::Instance as AsyncBatchBolt>::Input, <B::Instance as AsyncBatchBolt>::Outputs>
    {
        let make = bolt.into_factory();
        self.waiting::<B::Instance, _>(id, move || ByBatch(make()))
    }

    /// Declares a bolt that emits one value for each it takes. Each task has a clone of the closure.
    pub fn map<I: Send + 'static, U: Data>(
        &mut self,
        id: impl Into<Arc<str>>,
        map: impl FnMut(I) -> U + Clone + Send + Sync + 'static,
    ) -> BoltDeclarer<'_, I, crate::Output<U>> {
        self.mapping(id, move || Map(map.clone(), PhantomData))
    }

    /// Declares a bolt that waits for a call about each tuple, such as a question to a service, and emits what it gives.
    /// Several calls are under way at once in each task: a number, or [`Calls`] with a timeout, retries, a rate and order.
    /// Each call has a clone of the tuple.
    ///
    /// A call that fails for good fails its tuple, one that panics too, and none beside it. The kind of its fault
    /// decides whether it is made again.
    ///
    /// ```
    /// use std::time::Duration;
    /// use galerna_topology::prelude::*;
    ///
    /// async fn price_of(article: String) -> Result<f64, Fault> {
    /// #   let _ = article;
    ///     Ok(4.2)
    /// }
    ///
    /// fn wire(topology: &mut TopologyBuilder, articles: Stream<String>) -> Stream<f64> {
    ///     let calls = Calls::at_once(16).timeout(Duration::from_secs(2)).retries(
    ///         4,
    ///         Duration::from_millis(100),
    ///         Duration::from_secs(5),
    ///     );
    ///     topology.map_async("price", calls, price_of).shuffle(articles).outputs()
    /// }
    /// ```
    pub fn map_async<I, U, C, E>(
        &mut self,
        id: impl Into<Arc<str>>,
        calls: impl Into<Calls>,
        call: impl Fn(I) -> C + Clone + Send + Sync + 'static,
    ) -> BoltDeclarer<'_, I, crate::Output<U>>
    where
        I: Data,
        U: Data,
        C: Future<Output = Result<U, E>> + Send + 'static,
        E: Into<Fault> + Send + 'static,
    {
        let (calls, turns) = (calls.into(), Arc::new(Turns::default()));
        self.async_bolt(id, move || MapAsync::new(call.clone(), calls.clone(), turns.clone()))
    }

    /// Declares a bolt that passes on what the closure says yes to.
    pub fn filter<I: Data>(
        &mut self,
        id: impl Into<Arc<str>>,
        filter: impl FnMut(&I) -> bool + Clone + Send + Sync + 'static,
    ) -> BoltDeclarer<'_, I, crate::Output<I>> {
        self.bolt(id, move || Filter(filter.clone(), PhantomData))
    }

    /// Declares a bolt that emits any number of values for each it takes.
    pub fn flat_map<I: Send + 'static, U: IntoIterator<Item: Data> + 'static>(
        &mut self,
        id: impl Into<Arc<str>>,
        map: impl FnMut(I) -> U + Clone + Send + Sync + 'static,
    ) -> BoltDeclarer<'_, I, crate::Output<U::Item>> {
        self.bolt(id, move || FlatMap(map.clone(), PhantomData))
    }

    /// Declares a bolt that emits nothing. A closure that returns a `Result` fails the tuple with `Err`.
    pub fn for_each<I: Send + 'static, R: IntoTupleResult + 'static>(
        &mut self,
        id: impl Into<Arc<str>>,
        each: impl FnMut(I) -> R + Clone + Send + Sync + 'static,
    ) -> BoltDeclarer<'_, I, ()> {
        self.bolt(id, move || ForEach(each.clone(), PhantomData))
    }

    /// Checks the whole and gives a topology that can be run or printed.
    ///
    /// # Errors
    /// What is wrong with which component and what to do about it; see [`BuildError`].
    pub fn build(self) -> Result<Topology, BuildError> {
        check::check(&self.topology)?;
        Ok(self.topology)
    }
}

impl fmt::Debug for TopologyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.topology.fmt(f)
    }
}
