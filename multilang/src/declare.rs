//! Declaring components in other languages.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{BoltDeclarer, CustomGrouping, Data, Grouping, SpoutDeclarer, TopologyBuilder};
use serde::Serialize;

use crate::bolt::ShellBolt;
use crate::command::ShellCommand;
use crate::outputs::ShellOutputs;
use crate::place::{WiredInput, Wiring};
use crate::row::Row;
use crate::spout::ShellSpout;
use crate::stream::{IntoSerialized, Serialized};

/// Adds components in other languages to a topology.
pub trait ShellTopology {
    /// Declares a spout that is a program: one child for each task.
    fn shell_spout<O: ShellOutputs>(
        &mut self,
        id: impl Into<Arc<str>>,
        command: impl Into<ShellCommand>,
    ) -> SpoutDeclarer<'_, O>;

    /// Declares a bolt that is a program: one child for each task. `O` is what it emits on.
    ///
    /// ```
    /// use galerna_multilang::{SerializedStream, ShellTopology};
    /// use galerna_topology::prelude::*;
    ///
    /// # fn declare(topology: &mut TopologyBuilder, sentences: Stream<String>) {
    /// let words = topology
    ///     .shell_bolt::<Output<String>>("split", ["python3", "split.py"])
    ///     .shuffle(sentences.serialized())
    ///     .parallelism(4)
    ///     .outputs();
    /// topology.for_each("print", |word: String| println!("{word}")).shuffle(words);
    /// # }
    /// ```
    ///
    /// Only streams whose tuples have a form outside of the process can be subscribed to; others do not compile:
    ///
    /// ```compile_fail
    /// # use galerna_multilang::{SerializedStream, ShellTopology};
    /// # use galerna_topology::prelude::*;
    /// #[derive(Clone)]
    /// struct NoForm;
    ///
    /// # fn declare(topology: &mut TopologyBuilder, opaque: Stream<NoForm>) {
    /// topology.shell_bolt::<()>("print", ["python3", "print.py"]).shuffle(opaque.serialized());
    /// # }
    /// ```
    fn shell_bolt<O: ShellOutputs>(
        &mut self,
        id: impl Into<Arc<str>>,
        command: impl Into<ShellCommand>,
    ) -> ShellBoltDeclarer<'_, O>;
}

impl ShellTopology for TopologyBuilder {
    fn shell_spout<O: ShellOutputs>(
        &mut self,
        id: impl Into<Arc<str>>,
        command: impl Into<ShellCommand>,
    ) -> SpoutDeclarer<'_, O> {
        let command = Arc::new(command.into());
        self.spout(id, move || ShellSpout::<O>::new(command.clone()))
    }

    fn shell_bolt<O: ShellOutputs>(
        &mut self,
        id: impl Into<Arc<str>>,
        command: impl Into<ShellCommand>,
    ) -> ShellBoltDeclarer<'_, O> {
        let command = Arc::new(command.into());
        let wiring = Wiring::default();
        let of_tasks = wiring.clone();
        let bolt = self.async_bolt(id, move || ShellBolt::<O>::new(command.clone(), of_tasks.clone()));
        ShellBoltDeclarer { bolt, wiring }
    }
}

/// A bolt in another language being declared: its subscriptions, to streams with a form, and its settings.
pub struct ShellBoltDeclarer<'t, O> {
    bolt: BoltDeclarer<'t, Row, O>,
    wiring: Wiring,
}

impl<'t, O: ShellOutputs> ShellBoltDeclarer<'t, O> {
    fn subscribe<T>(
        self,
        stream: Serialized<T>,
        grouping: Grouping,
        subscribe: impl FnOnce(BoltDeclarer<'t, Row, O>, galerna_topology::Stream<T>) -> BoltDeclarer<'t, Row, O>,
    ) -> Self {
        self.wiring.add(WiredInput {
            component: stream.stream.component().into(),
            stream: stream.stream.name().into(),
            grouping,
            fields: stream.fields,
        });
        Self { bolt: subscribe(self.bolt, stream.stream), wiring: self.wiring }
    }

    /// Subscribes: evenly over the tasks, less to those that lag.
    pub fn shuffle<T: Data + Serialize>(self, stream: impl IntoSerialized<T>) -> Self {
        self.subscribe(stream.into_serialized(), Grouping::Shuffle, |bolt, stream| bolt.shuffle(stream))
    }

    /// Subscribes: to a task in the same executor if there is one, else as [`shuffle`](Self::shuffle).
    pub fn local_or_shuffle<T: Data + Serialize>(self, stream: impl IntoSerialized<T>) -> Self {
        let stream = stream.into_serialized();
        self.subscribe(stream, Grouping::LocalOrShuffle, |bolt, stream| bolt.local_or_shuffle(stream))
    }

    /// Subscribes: equal keys to the same task, always, in every run. The closure borrows the key from the tuple.
    pub fn fields<T: Data + Serialize, K: Hash + ?Sized>(
        self,
        stream: impl IntoSerialized<T>,
        key: impl Fn(&T) -> &K + Clone + Send + Sync + 'static,
    ) -> Self {
        self.subscribe(stream.into_serialized(), Grouping::Fields, |bolt, stream| bolt.fields(stream, key))
    }

    /// As [`fields`](Self::fields), by a key that is computed.
    pub fn key_by<T: Data + Serialize, K: Hash>(
        self,
        stream: impl IntoSerialized<T>,
        key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
    ) -> Self {
        self.subscribe(stream.into_serialized(), Grouping::Fields, |bolt, stream| bolt.key_by(stream, key))
    }

    /// Subscribes: each key to one of two tasks, the one that has had less.
    pub fn partial_key<T: Data + Serialize, K: Hash + ?Sized>(
        self,
        stream: impl IntoSerialized<T>,
        key: impl Fn(&T) -> &K + Clone + Send + Sync + 'static,
    ) -> Self {
        let stream = stream.into_serialized();
        self.subscribe(stream, Grouping::PartialKey, |bolt, stream| bolt.partial_key(stream, key))
    }

    /// Subscribes: a copy to every task.
    pub fn all<T: Data + Serialize>(self, stream: impl IntoSerialized<T>) -> Self {
        self.subscribe(stream.into_serialized(), Grouping::All, |bolt, stream| bolt.all(stream))
    }

    /// Subscribes: everything to the task with index 0.
    pub fn global<T: Data + Serialize>(self, stream: impl IntoSerialized<T>) -> Self {
        self.subscribe(stream.into_serialized(), Grouping::Global, |bolt, stream| bolt.global(stream))
    }

    /// Subscribes to what is emitted to a task by its number, and only to that.
    pub fn direct<T: Data + Serialize>(self, stream: impl IntoSerialized<T>) -> Self {
        self.subscribe(stream.into_serialized(), Grouping::Direct, |bolt, stream| bolt.direct(stream))
    }

    /// Subscribes: to the tasks that a grouping of the author's own chooses.
    pub fn custom<T: Data + Serialize, G: CustomGrouping<T> + Clone + Sync>(
        self,
        stream: impl IntoSerialized<T>,
        grouping: G,
    ) -> Self {
        let stream = stream.into_serialized();
        self.subscribe(stream, Grouping::Custom, |bolt, stream| bolt.custom(stream, grouping))
    }

    /// Sets how many tasks, and with that children, there are. 1 unless set.
    pub fn parallelism(self, children: usize) -> Self {
        Self { bolt: self.bolt.parallelism(children), ..self }
    }

    /// Sets how often the child gets a tick, as `BatchingBolt` and its like need. Not at all unless set.
    pub fn tick_every(self, interval: Duration) -> Self {
        Self { bolt: self.bolt.tick_every(interval), ..self }
    }

    /// Sets the largest batch that is sent on, in tuples. 512 unless set.
    pub fn batch(self, tuples: usize) -> Self {
        Self { bolt: self.bolt.batch(tuples), ..self }
    }

    /// Sets how many batches may wait for one of its tasks before senders wait. 16 unless set.
    pub fn queue(self, batches: usize) -> Self {
        Self { bolt: self.bolt.queue(batches), ..self }
    }

    /// Says that each child may keep so many tuples unsettled until more come.
    pub fn holds(self, tuples: usize) -> Self {
        Self { bolt: self.bolt.holds(tuples), ..self }
    }

    /// Says that a child may keep a tuple unsettled for so long.
    pub fn holds_for(self, time: Duration) -> Self {
        Self { bolt: self.bolt.holds_for(time), ..self }
    }

    /// The handles of what it emits: a [`Stream`](galerna_topology::Stream) for a single output, a struct of them for several,
    /// `()` for none.
    pub fn outputs(self) -> O::Streams {
        self.bolt.outputs()
    }
}
