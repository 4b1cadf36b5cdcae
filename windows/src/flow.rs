//! Declaring components one after the other, as a chain of calls.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use galerna_topology::{
    AsyncBolt, AsyncBoltSource, Bolt, BoltDeclarer, BoltSource, Data, IntoTupleResult, Output, Outputs,
    Stream, TopologyBuilder,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aggregate::{Aggregate, Collect};
use crate::deduplicate::Deduplicate;
use crate::enrich::{Enrich, Enriched, TableChange};
use crate::enrich_as_of::{EnrichAsOf, TableVersion};
use crate::event_time_bolt::EventTime;
use crate::join::Join;
use crate::join_store::{Joined, Side};
use crate::result::{Late, WindowResult};
use crate::sources::KeyOf;
use crate::topology::WindowTopology;
use crate::window::Window;

/// A stream of a topology, on which steps are called one after the other: each declares an ordinary component. What comes out of the
/// last one is a [`Stream`] like any other, and any stream can begin a flow, so both forms go together.
///
/// A component gets its id from where the flow began, the number of the step and its kind, as `readings-2-map`, unless
/// [`named`](Self::named) was called before it. A step takes its tuples by `local_or_shuffle`, a window by its key.
///
/// ```
/// use std::time::Duration;
/// use galerna_topology::prelude::*;
/// use galerna_windows::{Count, EventTime, Window, WindowTopology};
///
/// # struct Numbers;
/// # impl Spout for Numbers {
/// #     type MessageId = u64;
/// #     type Outputs = Output<(u64, i64)>;
/// #     async fn next(&mut self, _: &mut Roots<'_, Self>) -> Result<Next, Fault> { Ok(Next::Done) }
/// # }
/// let mut topology = TopologyBuilder::new("flow");
/// let numbers = topology.spout("numbers", || Numbers).outputs();
/// topology
///     .flow(numbers)
///     .event_time(EventTime::of(|(_, at): &(u64, i64)| *at))
///     .filter(|(number, _)| *number > 0)
///     .key_by(|(number, _)| number % 10)
///     .named("by-second")
///     .window(Window::tumbling(Duration::from_secs(1)).event_time(|(_, at): &(u64, i64)| *at))
///     .aggregate(Count)
///     .to(|count| println!("{count:?}"));
/// let ids: Vec<String> = topology.build()?.components().iter().map(|component| component.id.to_string()).collect();
/// assert_eq!(ids, ["numbers", "numbers-1-event-time", "numbers-2-filter", "by-second", "numbers-4-to"]);
/// # Ok::<(), BuildError>(())
/// ```
#[must_use = "a flow that ends nowhere is only declared"]
pub struct Flow<'t, T> {
    topology: &'t mut TopologyBuilder,
    stream: Stream<T>,
    steps: Steps,
}

/// The steps of a flow so far, and what the next one is to be.
#[derive(Debug, Clone)]
struct Steps {
    origin: Arc<str>,
    count: usize,
    named: Option<Arc<str>>,
    parallelism: Option<usize>,
}

impl Steps {
    fn next(&mut self, kind: &str) -> (Arc<str>, usize) {
        self.count += 1;
        let id = self.named.take().unwrap_or_else(|| format!("{}-{}-{kind}", self.origin, self.count).into());
        (id, self.parallelism.take().unwrap_or(1))
    }
}

impl<T> fmt::Debug for Flow<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("stream", &self.stream)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

fn finish<I: Send + 'static, O: Outputs>(declarer: BoltDeclarer<'_, I, O>, tasks: usize) -> O::Streams {
    declarer.parallelism(tasks).outputs()
}

impl<'t, T: Data> Flow<'t, T> {
    pub(crate) fn new(topology: &'t mut TopologyBuilder, stream: Stream<T>) -> Self {
        let origin = match stream.name() {
            "default" => stream.component().into(),
            name => format!("{}.{name}", stream.component()).into(),
        };
        let steps = Steps { origin, count: 0, named: None, parallelism: None };
        Self { topology, stream, steps }
    }

    fn on<U>(self, stream: Stream<U>, steps: Steps) -> Flow<'t, U> {
        Flow { topology: self.topology, stream, steps }
    }

    /// The id of the component that the next step declares.
    pub fn named(mut self, id: impl Into<Arc<str>>) -> Self {
        self.steps.named = Some(id.into());
        self
    }

    /// How many executors the component has that the next step declares. 1 unless set.
    pub fn parallelism(mut self, executors: usize) -> Self {
        self.steps.parallelism = Some(executors);
        self
    }

    /// What has come out so far, to subscribe to in the other form.
    pub fn stream(self) -> Stream<T> {
        self.stream
    }

    /// Passes on what the closure says yes to.
    pub fn filter(mut self, filter: impl FnMut(&T) -> bool + Clone + Send + Sync + 'static) -> Self {
        let (id, tasks) = self.steps.next("filter");
        let stream = finish(self.topology.filter(id, filter).local_or_shuffle(&self.stream), tasks);
        let steps = self.steps.clone();
        self.on(stream, steps)
    }

    /// Makes one value of each.
    pub fn map<U: Data>(mut self, map: impl FnMut(T) -> U + Clone + Send + Sync + 'static) -> Flow<'t, U> {
        let (id, tasks) = self.steps.next("map");
        let stream = finish(self.topology.map(id, map).local_or_shuffle(&self.stream), tasks);
        let steps = self.steps.clone();
        self.on(stream, steps)
    }

    /// Makes any number of values of each.
    pub fn flat_map<U: IntoIterator<Item: Data> + 'static>(
        mut self,
        map: impl FnMut(T) -> U + Clone + Send + Sync + 'static,
    ) -> Flow<'t, U::Item> {
        let (id, tasks) = self.steps.next("flat-map");
        let stream = finish(self.topology.flat_map(id, map).local_or_shuffle(&self.stream), tasks);
        let steps = self.steps.clone();
        self.on(stream, steps)
    }

    /// Goes through a bolt that computes and has one output.
    pub fn through<B, Kind, U: Data>(mut self, bolt: B) -> Flow<'t, U>
    where
        B: BoltSource<Kind>,
        B::Instance: Bolt<Input = T, Outputs = Output<U>>,
    {
        let (id, tasks) = self.steps.next("bolt");
        let stream = finish(self.topology.bolt(id, bolt).local_or_shuffle(&self.stream), tasks);
        let steps = self.steps.clone();
        self.on(stream, steps)
    }

    /// Goes through a bolt that waits and has one output.
    pub fn through_async<B, Kind, U: Data>(mut self, bolt: B) -> Flow<'t, U>
    where
        B: AsyncBoltSource<Kind>,
        B::Instance: AsyncBolt<Input = T, Outputs = Output<U>>,
    {
        let (id, tasks) = self.steps.next("async-bolt");
        let stream = finish(self.topology.async_bolt(id, bolt).local_or_shuffle(&self.stream), tasks);
        let steps = self.steps.clone();
        self.on(stream, steps)
    }

    /// Says how far the tuples are in event time, for windows behind it.
    pub fn event_time(mut self, event_time: EventTime<T>) -> Self {
        let (id, tasks) = self.steps.next("event-time");
        let stream = finish(self.topology.event_time(id, event_time, &self.stream), tasks);
        let steps = self.steps.clone();
        self.on(stream, steps)
    }

    /// Lets each key through once in a while, and drops the others.
    pub fn deduplicate<K: Data + Eq + Hash>(mut self, deduplicate: Deduplicate<T, K>) -> Self {
        let (id, tasks) = self.steps.next("deduplicate");
        let streams = finish(self.topology.deduplicate(id, deduplicate, &self.stream), tasks);
        let steps = self.steps.clone();
        self.on(streams.unique, steps)
    }

    /// As [`deduplicate`](Self::deduplicate), with the keys in keyed state; see [`WindowTopology::deduplicate_in_state`].
    pub fn deduplicate_in_state<K: Data + Serialize>(mut self, deduplicate: Deduplicate<T, K>) -> Self {
        let (id, tasks) = self.steps.next("deduplicate");
        let streams = finish(self.topology.deduplicate_in_state(id, deduplicate, &self.stream), tasks);
        let steps = self.steps.clone();
        self.on(streams.unique, steps)
    }

    /// Pairs its tuples, the first of the join, with those of another stream. What comes too late is counted and goes nowhere.
    pub fn join<R: Data, K: Data + Eq + Hash>(
        self,
        join: Join<T, R, K>,
        right: impl Into<Stream<R>>,
    ) -> Flow<'t, Joined<K, T, R>> {
        self.join_with_late(join, right).0
    }

    /// As [`join`](Self::join), beside it what comes too late.
    pub fn join_with_late<R: Data, K: Data + Eq + Hash>(
        mut self,
        join: Join<T, R, K>,
        right: impl Into<Stream<R>>,
    ) -> JoinedWithLate<'t, K, T, R> {
        let (id, tasks) = self.steps.next("join");
        let streams = finish(self.topology.join(id, join, &self.stream, right), tasks);
        let steps = self.steps.clone();
        (self.on(streams.joined, steps), streams.late)
    }

    /// As [`join`](Self::join), with the tuples in keyed state; see [`WindowTopology::join_in_state`].
    pub fn join_in_state<R, K>(
        self,
        join: Join<T, R, K>,
        right: impl Into<Stream<R>>,
    ) -> Flow<'t, Joined<K, T, R>>
    where
        T: Serialize + DeserializeOwned,
        R: Data + Serialize + DeserializeOwned,
        K: Data + Eq + Hash + Serialize + DeserializeOwned,
    {
        self.join_in_state_with_late(join, right).0
    }

    /// As [`join_in_state`](Self::join_in_state), beside it what comes too late.
    pub fn join_in_state_with_late<R, K>(
        mut self,
        join: Join<T, R, K>,
        right: impl Into<Stream<R>>,
    ) -> JoinedWithLate<'t, K, T, R>
    where
        T: Serialize + DeserializeOwned,
        R: Data + Serialize + DeserializeOwned,
        K: Data + Eq + Hash + Serialize + DeserializeOwned,
    {
        let (id, tasks) = self.steps.next("join");
        let streams = finish(self.topology.join_in_state(id, join, &self.stream, right), tasks);
        let steps = self.steps.clone();
        (self.on(streams.joined, steps), streams.late)
    }

    /// Gives each tuple what a table has for it when it comes; see [`WindowTopology::enrich`].
    pub fn enrich<K: Data + Eq + Hash, V: Data>(
        mut self,
        enrich: Enrich<T, K>,
        changes: impl Into<Stream<TableChange<K, V>>>,
    ) -> Flow<'t, Enriched<T, V>> {
        let (id, tasks) = self.steps.next("enrich");
        let stream = finish(self.topology.enrich(id, enrich, &self.stream, changes), tasks);
        let steps = self.steps.clone();
        self.on(stream, steps)
    }

    /// Gives each tuple what a table had for it at its own time, with the table in keyed state; see
    /// [`WindowTopology::enrich_in_state`]. What comes too late is counted and goes nowhere.
    pub fn enrich_in_state<K, V>(
        self,
        enrich: EnrichAsOf<T, K>,
        versions: impl Into<Stream<TableVersion<K, V>>>,
    ) -> Flow<'t, Enriched<T, V>>
    where
        T: Serialize + DeserializeOwned,
        K: Data + Eq + Hash + Serialize + DeserializeOwned,
        V: Data + Serialize + DeserializeOwned,
    {
        self.enrich_in_state_with_late(enrich, versions).0
    }

    /// As [`enrich_in_state`](Self::enrich_in_state), beside it what comes too late.
    pub fn enrich_in_state_with_late<K, V>(
        mut self,
        enrich: EnrichAsOf<T, K>,
        versions: impl Into<Stream<TableVersion<K, V>>>,
    ) -> EnrichedWithLate<'t, K, T, V>
    where
        T: Serialize + DeserializeOwned,
        K: Data + Eq + Hash + Serialize + DeserializeOwned,
        V: Data + Serialize + DeserializeOwned,
    {
        let (id, tasks) = self.steps.next("enrich");
        let streams = finish(self.topology.enrich_in_state(id, enrich, &self.stream, versions), tasks);
        let steps = self.steps.clone();
        (self.on(streams.enriched, steps), streams.late)
    }

    /// What the next window computes by.
    pub fn key_by<K: Data + Eq + Hash>(
        self,
        key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
    ) -> KeyedFlow<'t, T, K> {
        KeyedFlow { flow: self, key: Arc::new(key) }
    }

    /// Puts all tuples into windows; see [`key_by`](Self::key_by) for windows of each key.
    pub fn window(self, window: Window<T>) -> WindowedFlow<'t, T, ()> {
        WindowedFlow { flow: self, window }
    }

    /// Ends in a closure. One that returns a `Result` fails the tuple with `Err`.
    pub fn to<R: IntoTupleResult + 'static>(
        mut self,
        each: impl FnMut(T) -> R + Clone + Send + Sync + 'static,
    ) {
        let (id, tasks) = self.steps.next("to");
        self.topology.for_each(id, each).parallelism(tasks).local_or_shuffle(self.stream);
    }

    /// Ends in a bolt that waits: a sink.
    pub fn to_async<B, Kind>(mut self, bolt: B)
    where
        B: AsyncBoltSource<Kind>,
        B::Instance: AsyncBolt<Input = T>,
    {
        let (id, tasks) = self.steps.next("to");
        self.topology.async_bolt(id, bolt).parallelism(tasks).local_or_shuffle(self.stream);
    }
}

/// What comes out of windows, and beside it what came too late.
pub type WithLate<'t, K, T, R> = (Flow<'t, WindowResult<K, R>>, Stream<Late<K, T>>);

/// What comes out of a join, and beside it what came too late.
pub type JoinedWithLate<'t, K, L, R> = (Flow<'t, Joined<K, L, R>>, Stream<Late<K, Side<L, R>>>);

/// What comes of tuples and the versions of a table, and beside it what came too late.
pub type EnrichedWithLate<'t, K, T, V> = (Flow<'t, Enriched<T, V>>, Stream<Late<K, T>>);

/// A flow with a key.
#[must_use = "a key alone declares nothing"]
pub struct KeyedFlow<'t, T, K> {
    flow: Flow<'t, T>,
    key: KeyOf<T, K>,
}

impl<T, K> fmt::Debug for KeyedFlow<'_, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyedFlow").field(&self.flow).finish()
    }
}

impl<'t, T: Data, K: Data + Eq + Hash> KeyedFlow<'t, T, K> {
    /// The id of the component that the window is.
    pub fn named(mut self, id: impl Into<Arc<str>>) -> Self {
        self.flow = self.flow.named(id);
        self
    }

    /// How many executors the window has. 1 unless set.
    pub fn parallelism(mut self, executors: usize) -> Self {
        self.flow = self.flow.parallelism(executors);
        self
    }

    /// Puts the tuples of each key into windows.
    pub fn window(self, window: Window<T>) -> WindowedFlow<'t, T, K> {
        let key = self.key;
        WindowedFlow { flow: self.flow, window: window.by(move |tuple: &T| key(tuple)) }
    }
}

/// A flow of tuples in windows.
#[must_use = "a window that makes nothing of its tuples is not declared"]
pub struct WindowedFlow<'t, T, K> {
    flow: Flow<'t, T>,
    window: Window<T, K, Collect>,
}

impl<T, K> fmt::Debug for WindowedFlow<'_, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowedFlow").field("flow", &self.flow).field("window", &self.window).finish()
    }
}

impl<'t, T: Data, K: Data + Eq + Hash> WindowedFlow<'t, T, K> {
    /// Makes something of the tuples of each window. What comes too late is counted and goes nowhere.
    pub fn aggregate<A: Aggregate<T>>(self, aggregate: A) -> Flow<'t, WindowResult<K, A::Output>> {
        self.aggregate_with_late(aggregate).0
    }

    /// As [`aggregate`](Self::aggregate), beside it what comes too late.
    pub fn aggregate_with_late<A: Aggregate<T>>(mut self, aggregate: A) -> WithLate<'t, K, T, A::Output> {
        let (id, tasks) = self.flow.steps.next("window");
        let window = self.window.aggregate(aggregate);
        let streams = finish(self.flow.topology.window(id, window, &self.flow.stream), tasks);
        let steps = self.flow.steps.clone();
        (self.flow.on(streams.results, steps), streams.late)
    }

    /// As [`aggregate`](Self::aggregate), with what the windows keep in keyed state; see
    /// [`WindowTopology::window_in_state`].
    pub fn aggregate_in_state<A: Aggregate<T>>(self, aggregate: A) -> Flow<'t, WindowResult<K, A::Output>>
    where
        K: Serialize + DeserializeOwned,
        A::Accumulator: Serialize + DeserializeOwned,
    {
        self.aggregate_in_state_with_late(aggregate).0
    }

    /// As [`aggregate_in_state`](Self::aggregate_in_state), beside it what comes too late.
    pub fn aggregate_in_state_with_late<A: Aggregate<T>>(
        mut self,
        aggregate: A,
    ) -> WithLate<'t, K, T, A::Output>
    where
        K: Serialize + DeserializeOwned,
        A::Accumulator: Serialize + DeserializeOwned,
    {
        let (id, tasks) = self.flow.steps.next("window");
        let window = self.window.aggregate(aggregate);
        let streams = finish(self.flow.topology.window_in_state(id, window, &self.flow.stream), tasks);
        let steps = self.flow.steps.clone();
        (self.flow.on(streams.results, steps), streams.late)
    }

    /// All tuples of each window, as a `Vec`.
    pub fn collect(self) -> Flow<'t, WindowResult<K, Vec<T>>> {
        self.aggregate(Collect)
    }
}
