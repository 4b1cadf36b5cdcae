//! Subscriptions and settings of a component that is being declared.

use std::any::{Any, TypeId, type_name};
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::component::{Component, EventTimeUse, Threads};
use crate::grouping::{
    All, Custom, CustomGrouping, Direct, Distribute, Fields, Global, Grouped, Grouping, PartialKey, Shuffle,
};
use crate::hot_keys::{shortened, spelled};
use crate::input::{Input, IntoInput, convert, discard, split};
use crate::outputs::{Data, Outputs};
use crate::runtime::{Route, RouteSetup};
use crate::stable_hasher::StableHasher;
use crate::stream::{Stream, StreamSource};

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
    pub(crate) component: &'t mut Component,
    pub(crate) marker: PhantomData<fn() -> O>,
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
    pub(crate) component: &'t mut Component,
    pub(crate) marker: PhantomData<fn(I) -> O>,
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

    /// Says that each of its tasks has keyed state, which it gets in its context. Its inputs are then grouped by key group
    /// ([`by_key_group`](Self::by_key_group)) or come to every task ([`all`](Self::all)); otherwise it is not built.
    /// `galerna_state::KeyedBolt::keyed_by` says both at once.
    pub fn keeps_state(self) -> Self {
        self.component.settings.keeps_state = true;
        self
    }

    /// Says that it cannot be run, and why: what is wrong and what to do. The topology is not built then. For what declares
    /// components of its own from what an author says.
    pub fn refuse(self, reason: impl Into<Arc<str>>) -> Self {
        self.component.settings.refused.get_or_insert(reason.into());
        self
    }

    fn subscribe<T, G>(
        self,
        stream: Stream<T>,
        grouping: Grouping,
        distribute: impl Fn(&RouteSetup) -> G + Send + Sync + 'static,
    ) -> Self
    where
        T: Data + IntoInput<I>,
        G: Distribute<T> + 'static,
    {
        let direct = TypeId::of::<T>() == TypeId::of::<I>();
        self.subscribe_as(stream, grouping, distribute, direct, IntoInput::<I>::into_input)
    }

    fn subscribe_as<T, G>(
        self,
        stream: Stream<T>,
        grouping: Grouping,
        distribute: impl Fn(&RouteSetup) -> G + Send + Sync + 'static,
        direct_type: bool,
        into_input: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Self
    where
        T: Data,
        G: Distribute<T> + 'static,
    {
        let weigh = stream.weigh.map(|weigh| Arc::new(weigh) as Arc<dyn Any + Send + Sync>);
        self.component.inputs.push(Input {
            component: stream.source.component,
            stream: stream.name,
            grouping,
            feedback: stream.feedback,
            form: stream.form,
            type_id: TypeId::of::<T>(),
            type_name: type_name::<T>(),
            direct_type,
            convert: Arc::new(move |tuples| convert(tuples, &into_input)),
            split: split::<T>,
            discard: discard::<T>,
            route: Arc::new(move |mut setup| {
                setup.weigh = weigh.clone();
                let grouping = distribute(&setup);
                let route: Box<dyn Route<T>> = Box::new(Grouped::new(setup, grouping));
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
            let (key, name) = (key.clone(), key.clone());
            let hash = move |value: &T| StableHasher::hash(key(value));
            Fields::new(setup, hash, move |value: &T| spelled(name(value)))
        })
    }

    /// As [`fields`](Self::fields), by a key that is computed: `|order| (order.shop, order.day)`, `|n| n % 10`.
    pub fn key_by<T: Data + IntoInput<I>, K: Hash>(
        self,
        stream: impl Into<Stream<T>>,
        key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
    ) -> Self {
        self.subscribe(stream.into(), Grouping::Fields, move |setup| {
            let (key, name) = (key.clone(), key.clone());
            let hash = move |value: &T| StableHasher::hash(&key(value));
            Fields::new(setup, hash, move |value: &T| spelled(&name(value)))
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
        let distribute = move |setup: &RouteSetup| {
            let (key, name) = (key.clone(), key.clone());
            let hash = move |value: &T| StableHasher::hash(&key(value));
            Fields::new(setup, hash, move |value: &T| spelled(&name(value)))
        };
        self.subscribe_as(stream.into(), Grouping::Fields, distribute, false, into_input)
    }

    /// Subscribes: each tuple to the task that has the state of its key group, which the upper 12 bits of the key's hash tell, of
    /// [`KEY_GROUPS`](crate::KEY_GROUPS). `name` is the key as text, for who looks at which keys are frequent.
    pub fn by_key_group<T: Data + IntoInput<I>>(
        self,
        stream: impl Into<Stream<T>>,
        hash: impl Fn(&T) -> u64 + Clone + Send + Sync + 'static,
        name: impl Fn(&T) -> String + Clone + Send + Sync + 'static,
    ) -> Self {
        let direct = TypeId::of::<T>() == TypeId::of::<I>();
        let route = move |setup: &RouteSetup| {
            let (hash, name) = (hash.clone(), name.clone());
            Fields::new(setup, hash, move |value: &T| shortened(name(value))).by_key_group()
        };
        self.subscribe_as(stream.into(), Grouping::KeyGroup, route, direct, IntoInput::<I>::into_input)
    }

    /// As [`by_key_group`](Self::by_key_group), for a stream of another type than the bolt takes, with what makes the bolt's input of
    /// it.
    pub fn by_key_group_as<T: Data>(
        self,
        stream: impl Into<Stream<T>>,
        hash: impl Fn(&T) -> u64 + Clone + Send + Sync + 'static,
        name: impl Fn(&T) -> String + Clone + Send + Sync + 'static,
        into_input: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Self {
        let route = move |setup: &RouteSetup| {
            let (hash, name) = (hash.clone(), name.clone());
            Fields::new(setup, hash, move |value: &T| shortened(name(value))).by_key_group()
        };
        self.subscribe_as(stream.into(), Grouping::KeyGroup, route, false, into_input)
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
        self.subscribe(stream.into(), Grouping::All, |_| All)
    }

    /// Subscribes: everything to the task with index 0.
    pub fn global<T: Data + IntoInput<I>>(self, stream: impl Into<Stream<T>>) -> Self {
        self.subscribe(stream.into(), Grouping::Global, |_| Global)
    }

    /// Subscribes to what is emitted with [`Output::emit_direct`](crate::Output::emit_direct), and only
    /// to that.
    pub fn direct<T: Data + IntoInput<I>>(self, stream: impl Into<Stream<T>>) -> Self {
        self.subscribe(stream.into(), Grouping::Direct, |_| Direct)
    }

    /// Subscribes: to the tasks that a grouping of the author's own chooses. Each emitting task has a
    /// clone of it.
    pub fn custom<T: Data + IntoInput<I>, G: CustomGrouping<T> + Clone + Sync>(
        self,
        stream: impl Into<Stream<T>>,
        grouping: G,
    ) -> Self {
        self.subscribe(stream.into(), Grouping::Custom, move |_| Custom::new(grouping.clone()))
    }
}
