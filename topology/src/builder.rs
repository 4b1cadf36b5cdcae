//! Declaring a topology.

use std::any::{Any, TypeId, type_name};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::adapt::{ByBatch, ByTuple, ComputingBolt, WaitingBolt};
use crate::bolt::{AsyncBatchBolt, AsyncBolt, BatchBolt, Bolt};
use crate::check::{self, BuildError};
use crate::closure::{Filter, FlatMap, ForEach, IntoTupleResult, Map};
use crate::factory::{
    AsyncBatchBoltSource, AsyncBoltSource, BatchBoltSource, BoltSource, Factory, SpoutSource,
};
use crate::failure::Fault;
use crate::grouping::{
    All, Custom, CustomGrouping, DirectRoute, Fields, Global, Grouping, PartialKey, Shuffle,
};
use crate::lineage::Lineage;
use crate::map_async::{Calls, MapAsync, Turns};
use crate::outputs::{Data, Outputs};
use crate::runtime::{
    AnyBatch, AsyncBoltTask, BoltTask, EdgeBatch, LostTuples, Route, RouteSetup, SpoutTask, Staged, TaskSetup,
};
use crate::spout::Spout;
use crate::stable_hasher::StableHasher;
use crate::stream::{Stream, StreamSource, StreamSpec};
use crate::task::{TypedAsyncBoltTask, TypedBoltTask, TypedSpoutTask};

/// Says that tuples of a stream can be a bolt's input: the same type, or one that converts `Into`
/// it. Implemented by itself wherever `Into` is.
#[diagnostic::on_unimplemented(
    message = "a stream of `{Self}` cannot be wired to a bolt that takes `{I}`",
    label = "this stream carries `{Self}`, the bolt takes `{I}`",
    note = "give the bolt a stream of `{I}`, or implement `From<{Self}> for {I}`; a bolt with several inputs takes an enum with one `From` for each"
)]
pub trait IntoInput<I>: Sized {
    #[doc(hidden)]
    fn into_input(self) -> I;
}

#[diagnostic::do_not_recommend]
impl<T: Into<I>, I> IntoInput<I> for T {
    #[inline]
    fn into_input(self) -> I {
        self.into()
    }
}

/// How the tasks of a component are made.
#[derive(Clone)]
pub enum TaskFactory {
    /// A spout.
    Spout(Arc<dyn Fn(TaskSetup) -> Box<dyn SpoutTask> + Send + Sync>),
    /// A bolt that computes.
    Bolt(Arc<dyn Fn(TaskSetup) -> Box<dyn BoltTask> + Send + Sync>),
    /// A bolt that waits.
    AsyncBolt(Arc<dyn Fn(TaskSetup) -> Box<dyn AsyncBoltTask> + Send + Sync>),
}

impl TaskFactory {
    /// `spout`, `bolt` or `async bolt`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Spout(_) => "spout",
            Self::Bolt(_) => "bolt",
            Self::AsyncBolt(_) => "async bolt",
        }
    }

    /// Whether it is a spout.
    pub const fn is_spout(&self) -> bool {
        matches!(self, Self::Spout(_))
    }
}

/// A subscription of a bolt to a stream.
#[derive(Clone)]
pub struct Input {
    /// The id of the component that emits the stream.
    pub component: Arc<str>,
    /// The name of its output.
    pub stream: Arc<str>,
    /// How tuples are distributed.
    pub grouping: Grouping,
    /// Whether it is marked as the feedback edge of a cycle.
    pub feedback: bool,
    pub(crate) type_id: TypeId,
    pub(crate) type_name: &'static str,
    direct_type: bool,
    convert: Arc<dyn Fn(AnyBatch) -> (AnyBatch, Vec<LostTuples>) + Send + Sync>,
    split: fn(AnyBatch, usize) -> (AnyBatch, Option<AnyBatch>),
    discard: fn(AnyBatch) -> Lineage,
    route: Arc<dyn Fn(RouteSetup) -> Box<dyn Any + Send> + Send + Sync>,
}

impl Input {
    /// Makes a batch of the stream's type one of the bolt's input type. Tuples whose conversion panicked
    /// are left out and returned beside it.
    pub fn convert(&self, tuples: AnyBatch) -> (AnyBatch, Vec<LostTuples>) {
        if self.direct_type { (tuples, Vec::new()) } else { (self.convert)(tuples) }
    }

    /// Cuts a batch of the stream's type after so many tuples, if it has more.
    pub fn split(&self, tuples: AnyBatch, rows: usize) -> (AnyBatch, Option<AnyBatch>) {
        (self.split)(tuples, rows.max(1))
    }

    /// Drops the tuples of a batch of the stream's type, and returns what they hold.
    pub fn discard(&self, tuples: AnyBatch) -> Lineage {
        (self.discard)(tuples)
    }

    /// Whether the stream's type is the bolt's input type, so that emptied batches can go back.
    pub fn is_same_type(&self) -> bool {
        self.direct_type
    }

    /// Makes the route of one emitting task to this subscription.
    pub fn route(&self, setup: RouteSetup) -> Box<dyn Any + Send> {
        (self.route)(setup)
    }
}

fn split<T: Send + 'static>(tuples: AnyBatch, rows: usize) -> (AnyBatch, Option<AnyBatch>) {
    let mut tuples = match tuples.downcast::<EdgeBatch<T>>() {
        Ok(tuples) => tuples,
        Err(other) => return (other, None),
    };
    if tuples.values.len() <= rows {
        return (tuples, None);
    }
    let values = tuples.values.split_off(rows);
    let (mut first, mut tokens) = (Lineage::new(), tuples.lineage.drain());
    tokens.by_ref().take(rows).for_each(|token| first.push(token));
    let lineage = tokens.into_rest();
    tuples.lineage = first;
    (tuples, Some(Box::new(EdgeBatch { values, lineage })))
}

fn discard<T: Send + 'static>(tuples: AnyBatch) -> Lineage {
    let Ok(mut tuples) = tuples.downcast::<EdgeBatch<T>>() else { return Lineage::new() };
    let lineage = std::mem::take(&mut tuples.lineage);
    // A tuple that panics when it is dropped must not keep the others from failing.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(tuples)));
    lineage
}

fn convert<T: Send + 'static, I: Send + 'static>(
    tuples: AnyBatch,
    into_input: impl Fn(T) -> I,
) -> (AnyBatch, Vec<LostTuples>) {
    let mut tuples = match tuples.downcast::<EdgeBatch<T>>() {
        Ok(tuples) => tuples,
        Err(other) => return (other, Vec::new()),
    };
    let mut converted =
        EdgeBatch { values: Vec::with_capacity(tuples.values.len()), lineage: Lineage::new() };
    let mut rows = tuples.values.drain(..);
    let mut convert = || converted.values.extend(rows.by_ref().map(&into_input));
    let Err(mut panic) = catch_unwind(AssertUnwindSafe(&mut convert)) else {
        converted.lineage = std::mem::take(&mut tuples.lineage);
        return (Box::new(converted), Vec::new());
    };
    // The row that panicked is the one after those converted: it is left out, and the others go on.
    let (mut tokens, mut lost) = (tuples.lineage.drain(), Staged::default());
    let mut paired = 0;
    loop {
        let done = converted.values.len();
        tokens.by_ref().take(done - paired).for_each(|token| converted.lineage.push(token));
        paired = done;
        lost.lose(tokens.next().unwrap_or_default(), &*panic);
        let go_on = || converted.values.extend(rows.by_ref().map(&into_input));
        match catch_unwind(AssertUnwindSafe(go_on)) {
            Ok(()) => break,
            Err(next) => panic = next,
        }
    }
    tokens.for_each(|token| converted.lineage.push(token));
    (Box::new(converted), lost.lost)
}

/// What a component is told about itself when it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentSettings {
    /// Executors: how many of its tasks can run at the same time.
    pub parallelism: usize,
    /// Instances. As many as executors unless set.
    pub tasks: Option<usize>,
    /// For a spout: pending roots per task at which it stops emitting. 32,768 unless set.
    pub max_pending: usize,
    /// For a bolt: how often `tick` is called, if at all.
    pub tick: Option<Duration>,
    /// For a spout: how long a root may take. The topology's timeout unless set.
    pub message_timeout: Option<Option<Duration>>,
    /// The largest batch it sends, in tuples. The engine adapts between 1 and this. 512 unless set.
    pub batch: usize,
    /// For a bolt: batches that may wait for one of its executors. 16 unless set.
    pub queue: usize,
    /// For a bolt that computes: whether it may share a task with the bolt before it. Yes unless set.
    pub fuse: bool,
    /// For a bolt: the threads that its executors run on. Those of the runtime unless set.
    pub threads: Threads,
    /// For a bolt: how many tuples each of its tasks may keep unsettled until more come, if it says.
    pub holds: Option<usize>,
    /// For a bolt: how long it may keep a tuple unsettled, if it says.
    pub holds_for: Option<Duration>,
    /// For a bolt: what watermarks are to it.
    pub event_time: EventTimeUse,
    /// Why it cannot be run, if it cannot.
    pub refused: Option<Arc<str>>,
}

/// What watermarks are to a bolt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventTimeUse {
    /// It passes them on, if they come.
    #[default]
    Passes,
    /// It works without them, and is to be told when its inputs have ended.
    Ends,
    /// It works by them.
    Needs,
    /// It reads off its tuples how far those that send them have come, and passes that on.
    Makes,
    /// It does that, and works by it.
    MakesAndNeeds,
}

impl EventTimeUse {
    /// Whether it reads watermarks off its tuples.
    pub const fn makes(self) -> bool {
        matches!(self, Self::Makes | Self::MakesAndNeeds)
    }

    /// Whether it works by watermarks.
    pub const fn needs(self) -> bool {
        matches!(self, Self::Needs | Self::MakesAndNeeds)
    }
}

/// The threads that the executors of a bolt run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Threads {
    /// Those of the runtime, which all tasks share.
    #[default]
    Shared,
    /// Each executor has a thread of its own.
    Own,
    /// Each executor has a thread of its own that stays on one core, as far as the system lets it.
    Pinned,
}

impl Default for ComponentSettings {
    fn default() -> Self {
        Self {
            parallelism: 1,
            tasks: None,
            max_pending: 32_768,
            tick: None,
            message_timeout: None,
            batch: 512,
            queue: 16,
            fuse: true,
            threads: Threads::Shared,
            holds: None,
            holds_for: None,
            event_time: EventTimeUse::default(),
            refused: None,
        }
    }
}

impl ComponentSettings {
    /// How many instances there are.
    pub fn tasks(&self) -> usize {
        self.tasks.unwrap_or(self.parallelism)
    }
}

/// A declared spout or bolt.
#[derive(Clone)]
pub struct Component {
    /// Its id.
    pub id: Arc<str>,
    /// How its tasks are made.
    pub factory: TaskFactory,
    /// The name of its Rust type, for printing.
    pub type_name: &'static str,
    /// Its subscriptions.
    pub inputs: Vec<Input>,
    /// Its outputs.
    pub outputs: Vec<StreamSpec>,
    /// Its settings.
    pub settings: ComponentSettings,
}

/// A checked topology, ready to be run by an engine or printed.
#[derive(Clone)]
pub struct Topology {
    pub(crate) name: Arc<str>,
    pub(crate) components: Vec<Component>,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) tracking: bool,
}

impl Topology {
    /// The topology's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The components, in the order of declaration.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The component with this id.
    pub fn component(&self, id: &str) -> Option<&Component> {
        self.components.iter().find(|component| &*component.id == id)
    }

    /// Whether roots are tracked; if not, they are acked when emitted.
    pub fn tracking(&self) -> bool {
        self.tracking
    }

    /// By component: whether it says how far it is in event time, in the course of its work and not only at its end: it reads that
    /// off its tuples, or one before it does. Feedback edges carry no watermarks.
    pub fn has_watermarks(&self) -> Vec<bool> {
        let mut has: Vec<bool> = self.components.iter().map(|c| c.settings.event_time.makes()).collect();
        while let Some(next) = self.components.iter().enumerate().position(|(at, component)| {
            let mut inputs = component.inputs.iter().filter(|input| !input.feedback);
            !has[at] && inputs.any(|input| self.index(&input.component).is_some_and(|from| has[from]))
        }) {
            has[next] = true;
        }
        has
    }

    /// By component: whether it, or one behind it, works by watermarks or makes them, so that it is to be told when what comes before
    /// it ends.
    pub fn observes_watermarks(&self) -> Vec<bool> {
        let mut hears: Vec<bool> =
            self.components.iter().map(|c| c.settings.event_time != EventTimeUse::Passes).collect();
        while let Some(next) = (0..self.components.len()).find(|&at| {
            let id = &self.components[at].id;
            let mut behind = self.components.iter().enumerate().filter(|(_, component)| {
                component.inputs.iter().any(|input| !input.feedback && input.component == *id)
            });
            !hears[at] && behind.any(|(behind, _)| hears[behind])
        }) {
            hears[next] = true;
        }
        hears
    }

    fn index(&self, id: &str) -> Option<usize> {
        self.components.iter().position(|component| &*component.id == id)
    }

    /// How long a root of this spout may take; `None` means for ever.
    pub fn message_timeout(&self, spout: &Component) -> Option<Duration> {
        spout.settings.message_timeout.unwrap_or(self.message_timeout)
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table())
    }
}

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

macro_rules! shared_settings {
    () => {
        /// Sets how many executors run it, and with that how many tasks unless [`tasks`](Self::tasks) says
        /// otherwise. 1 unless set.
        pub fn parallelism(self, executors: usize) -> Self {
            self.component.settings.parallelism = executors;
            self
        }

        /// Sets how many instances there are, when they are more than the executors.
        pub fn tasks(self, tasks: usize) -> Self {
            self.component.settings.tasks = Some(tasks);
            self
        }

        /// Sets the largest batch it sends, in tuples. 512 unless set.
        pub fn batch(self, tuples: usize) -> Self {
            self.component.settings.batch = tuples;
            self
        }

        /// The handles of its outputs: a [`Stream`] for a single output, a struct of them for several,
        /// `()` for none.
        pub fn outputs(self) -> O::Streams {
            O::streams(&StreamSource { component: self.component.id.clone() })
        }
    };
}

/// A spout being declared.
pub struct SpoutDeclarer<'t, O> {
    component: &'t mut Component,
    marker: PhantomData<fn() -> O>,
}

impl<O: Outputs> SpoutDeclarer<'_, O> {
    shared_settings!();

    /// Sets the number of pending roots per task at which it stops emitting. 32,768 unless set.
    pub fn max_pending(self, roots: usize) -> Self {
        self.component.settings.max_pending = roots;
        self
    }

    /// Sets how long a root may take before it fails, instead of the topology's timeout; `None` switches
    /// it off.
    pub fn message_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        self.component.settings.message_timeout = Some(timeout.into());
        self
    }
}

/// A bolt being declared: its subscriptions and settings.
pub struct BoltDeclarer<'t, I, O> {
    component: &'t mut Component,
    marker: PhantomData<fn(I) -> O>,
}

impl<I: Send + 'static, O: Outputs> BoltDeclarer<'_, I, O> {
    shared_settings!();

    /// Sets how often its `tick` is called. Not at all unless set.
    pub fn tick_every(self, interval: Duration) -> Self {
        self.component.settings.tick = Some(interval);
        self
    }

    /// Sets how many batches may wait for one of its executors before senders wait. 16 unless set.
    pub fn queue(self, batches: usize) -> Self {
        self.component.settings.queue = batches;
        self
    }

    /// Gives it tasks of its own, even where it could share those of the bolt before it.
    pub fn unfused(self) -> Self {
        self.component.settings.fuse = false;
        self
    }

    /// Gives each of its executors a thread of its own: for a bolt whose `execute` blocks, on a file or a client that is not async.
    /// On the runtime's threads it would hold up its neighbours.
    pub fn blocking(self) -> Self {
        self.component.settings.threads = Threads::Own;
        self
    }

    /// Gives each of its executors a thread of its own that stays on one core, the executors of the topology on one core after
    /// the other: for bolts that compute all the time and gain by warm caches.
    pub fn pinned(self) -> Self {
        self.component.settings.threads = Threads::Pinned;
        self
    }

    /// Says that each of its tasks may keep so many tuples unsettled until more come, as a window by count or a join does. A
    /// topology in which the spouts' pending limits would keep that many from ever coming is not built.
    pub fn holds(self, tuples: usize) -> Self {
        self.component.settings.holds = Some(tuples);
        self
    }

    /// Says that it may keep a tuple unsettled for so long, as a window by time or a join does. A topology in which its roots would
    /// time out meanwhile is not built.
    pub fn holds_for(self, time: Duration) -> Self {
        self.component.settings.holds_for = Some(time);
        self
    }

    /// Says what watermarks are to it. A bolt that needs them and has none before it that makes them is not built.
    pub fn event_time(self, event_time: EventTimeUse) -> Self {
        self.component.settings.event_time = event_time;
        self
    }

    /// Says that it cannot be run, and why: what is wrong and what to do. The topology is not built then. For what declares
    /// components of its own from what an author says.
    pub fn refuse(self, reason: impl Into<Arc<str>>) -> Self {
        self.component.settings.refused.get_or_insert(reason.into());
        self
    }

    fn subscribe<T, R>(
        self,
        stream: Stream<T>,
        grouping: Grouping,
        route: impl Fn(RouteSetup) -> R + Send + Sync + 'static,
    ) -> Self
    where
        T: Data + IntoInput<I>,
        R: Route<T> + 'static,
    {
        let direct = TypeId::of::<T>() == TypeId::of::<I>();
        self.subscribe_as(stream, grouping, route, direct, IntoInput::<I>::into_input)
    }

    fn subscribe_as<T, R>(
        self,
        stream: Stream<T>,
        grouping: Grouping,
        route: impl Fn(RouteSetup) -> R + Send + Sync + 'static,
        direct_type: bool,
        into_input: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Self
    where
        T: Data,
        R: Route<T> + 'static,
    {
        let weigh = stream.weigh.map(|weigh| Arc::new(weigh) as Arc<dyn Any + Send + Sync>);
        self.component.inputs.push(Input {
            component: stream.source.component,
            stream: stream.name,
            grouping,
            feedback: stream.feedback,
            type_id: TypeId::of::<T>(),
            type_name: type_name::<T>(),
            direct_type,
            convert: Arc::new(move |tuples| convert(tuples, &into_input)),
            split: split::<T>,
            discard: discard::<T>,
            route: Arc::new(move |mut setup| {
                setup.weigh = weigh.clone();
                let route: Box<dyn Route<T>> = Box::new(route(setup));
                Box::new(route) as Box<dyn Any + Send>
            }),
        });
        self
    }

    /// Subscribes: evenly over the tasks, less to those that lag.
    pub fn shuffle<T: Data + IntoInput<I>>(self, stream: impl Into<Stream<T>>) -> Self {
        self.subscribe(stream.into(), Grouping::Shuffle, Shuffle::new)
    }

    /// Subscribes: to a task in the same executor if there is one, else as [`shuffle`](Self::shuffle).
    pub fn local_or_shuffle<T: Data + IntoInput<I>>(self, stream: impl Into<Stream<T>>) -> Self {
        self.subscribe(stream.into(), Grouping::LocalOrShuffle, Shuffle::new)
    }

    /// Subscribes: equal keys to the same task, always, in every run. The closure borrows the key
    /// from the tuple: `|reading| &reading.device`. A key that is computed, as in `|n| n % 10`, cannot be
    /// borrowed: use [`key_by`](Self::key_by).
    pub fn fields<T: Data + IntoInput<I>, K: Hash + ?Sized>(
        self,
        stream: impl Into<Stream<T>>,
        key: impl Fn(&T) -> &K + Clone + Send + Sync + 'static,
    ) -> Self {
        self.subscribe(stream.into(), Grouping::Fields, move |setup| {
            let key = key.clone();
            Fields::new(setup, move |value: &T| StableHasher::hash(key(value)))
        })
    }

    /// As [`fields`](Self::fields), by a key that is computed: `|order| (order.shop, order.day)`, `|n| n % 10`.
    pub fn key_by<T: Data + IntoInput<I>, K: Hash>(
        self,
        stream: impl Into<Stream<T>>,
        key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
    ) -> Self {
        self.subscribe(stream.into(), Grouping::Fields, move |setup| {
            let key = key.clone();
            Fields::new(setup, move |value: &T| StableHasher::hash(&key(value)))
        })
    }

    /// As [`key_by`](Self::key_by), for a stream of another type than the bolt takes, with what makes the bolt's input of it: for
    /// bolts over any types, where no `From` says that.
    pub fn key_by_as<T: Data, K: Hash>(
        self,
        stream: impl Into<Stream<T>>,
        key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
        into_input: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Self {
        let route = move |setup| {
            let key = key.clone();
            Fields::new(setup, move |value: &T| StableHasher::hash(&key(value)))
        };
        self.subscribe_as(stream.into(), Grouping::Fields, route, false, into_input)
    }

    /// Subscribes: each key to one of two tasks, the one that has had less. Balances skewed keys for
    /// bolts whose results are merged afterwards. The closure borrows the key.
    pub fn partial_key<T: Data + IntoInput<I>, K: Hash + ?Sized>(
        self,
        stream: impl Into<Stream<T>>,
        key: impl Fn(&T) -> &K + Clone + Send + Sync + 'static,
    ) -> Self {
        self.subscribe(stream.into(), Grouping::PartialKey, move |setup| {
            let key = key.clone();
            PartialKey::new(setup, move |value: &T| StableHasher::hash(key(value)))
        })
    }

    /// Subscribes: a copy to every task.
    pub fn all<T: Data + IntoInput<I>>(self, stream: impl Into<Stream<T>>) -> Self {
        self.subscribe(stream.into(), Grouping::All, All::new)
    }

    /// Subscribes: everything to the task with index 0.
    pub fn global<T: Data + IntoInput<I>>(self, stream: impl Into<Stream<T>>) -> Self {
        self.subscribe(stream.into(), Grouping::Global, Global::new)
    }

    /// Subscribes to what is emitted with [`Output::emit_direct`](crate::Output::emit_direct), and only
    /// to that.
    pub fn direct<T: Data + IntoInput<I>>(self, stream: impl Into<Stream<T>>) -> Self {
        self.subscribe(stream.into(), Grouping::Direct, DirectRoute::new)
    }

    /// Subscribes: to the tasks that a grouping of the author's own chooses. Each emitting task has a
    /// clone of it.
    pub fn custom<T: Data + IntoInput<I>, G: CustomGrouping<T> + Clone + Sync>(
        self,
        stream: impl Into<Stream<T>>,
        grouping: G,
    ) -> Self {
        self.subscribe(stream.into(), Grouping::Custom, move |setup| Custom::new(setup, grouping.clone()))
    }
}

impl Topology {
    /// The number of tasks of each component.
    pub fn tasks(&self) -> BTreeMap<Arc<str>, usize> {
        self.components.iter().map(|c| (c.id.clone(), c.settings.tasks())).collect()
    }
}
