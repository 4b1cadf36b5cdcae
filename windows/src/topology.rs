//! Declaring components that work by time, on the builder of topologies.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use galerna_state::KeyedBolt;
use galerna_topology::{BoltDeclarer, Data, EventTimeUse, Output, Outputs, Stream, TopologyBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aggregate::Aggregate;
use crate::deduplicate::{Deduplicate, DeduplicateBolt, DeduplicateOutputs};
use crate::enrich::{Enrich, EnrichBolt, EnrichInput, Enriched, TableChange};
use crate::enrich_as_of::{EnrichAsOf, EnrichAsOfOutputs, TableVersion};
use crate::event_time_bolt::{EventTime, EventTimeBolt};
use crate::flow::Flow;
use crate::join::{Join, JoinBolt, JoinOutputs};
use crate::join_store::Side;
use crate::state_deduplicate::StateDeduplicateBolt;
use crate::state_enrich_bolt::StateEnrichBolt;
use crate::state_join_bolt::StateJoinBolt;
use crate::state_window_bolt::StateWindowBolt;
use crate::window::Window;
use crate::window_bolt::{WindowBolt, WindowOutputs};

/// What windows emit on, declared.
pub type WindowDeclarer<'t, T, K, A> = BoltDeclarer<'t, T, WindowOutputs<K, <A as Aggregate<T>>::Output, T>>;

/// What takes tuples and the versions of a table, declared.
pub type EnrichDeclarer<'t, T, K, V> =
    BoltDeclarer<'t, Side<T, TableVersion<K, V>>, EnrichAsOfOutputs<K, T, V>>;

/// Components that work by time: ordinary bolts, that [`TopologyBuilder`] declares with these methods.
pub trait WindowTopology {
    /// Declares a bolt that passes tuples on and says how far they are in event time, for windows and joins behind it. It takes them
    /// by `local_or_shuffle`.
    fn event_time<T: Data>(
        &mut self,
        id: impl Into<Arc<str>>,
        event_time: EventTime<T>,
        stream: impl Into<Stream<T>>,
    ) -> BoltDeclarer<'_, T, Output<T>>;

    /// Declares a bolt that runs windows over a stream, which it gets grouped by the window's key. What the window holds of roots is
    /// declared with it, so that a topology in which these would time out meanwhile is not built.
    fn window<T: Data, K: Data + Eq + Hash, A: Aggregate<T>>(
        &mut self,
        id: impl Into<Arc<str>>,
        window: Window<T, K, A>,
        stream: impl Into<Stream<T>>,
    ) -> WindowDeclarer<'_, T, K, A>;

    /// As [`window`](Self::window), with what the windows keep in keyed state: their tuples' roots are done when they come, and in a
    /// topology with checkpoints their sources are told when a checkpoint has them. So a window may last longer than any message
    /// timeout, and goes on after a restart. No root waits for what it emits: a bolt behind it that fails for good loses a result.
    fn window_in_state<T, K, A>(
        &mut self,
        id: impl Into<Arc<str>>,
        window: Window<T, K, A>,
        stream: impl Into<Stream<T>>,
    ) -> WindowDeclarer<'_, T, K, A>
    where
        T: Data,
        K: Data + Eq + Hash + Serialize + DeserializeOwned,
        A: Aggregate<T>,
        A::Accumulator: Serialize + DeserializeOwned;

    /// Declares a bolt that joins two streams, which it gets grouped by the join's key. What it holds of roots is declared with it.
    fn join<L: Data, R: Data, K: Data + Eq + Hash>(
        &mut self,
        id: impl Into<Arc<str>>,
        join: Join<L, R, K>,
        left: impl Into<Stream<L>>,
        right: impl Into<Stream<R>>,
    ) -> BoltDeclarer<'_, Side<L, R>, JoinOutputs<K, L, R>>;

    /// As [`join`](Self::join), with the tuples in keyed state: their roots are done when they come, and in a topology with checkpoints
    /// their sources are told when a checkpoint has them. So tuples may wait for partners longer than any message timeout, also over a
    /// restart. `limit` holds as it does for `join`. No root waits for what it emits: a bolt behind it that fails for good loses a pair.
    fn join_in_state<L, R, K>(
        &mut self,
        id: impl Into<Arc<str>>,
        join: Join<L, R, K>,
        left: impl Into<Stream<L>>,
        right: impl Into<Stream<R>>,
    ) -> BoltDeclarer<'_, Side<L, R>, JoinOutputs<K, L, R>>
    where
        L: Data + Serialize + DeserializeOwned,
        R: Data + Serialize + DeserializeOwned,
        K: Data + Eq + Hash + Serialize + DeserializeOwned;

    /// Declares a bolt that lets each key through once in a while. It gets the stream grouped by that key.
    fn deduplicate<T: Data, K: Data + Eq + Hash>(
        &mut self,
        id: impl Into<Arc<str>>,
        deduplicate: Deduplicate<T, K>,
        stream: impl Into<Stream<T>>,
    ) -> BoltDeclarer<'_, T, DeduplicateOutputs<T>>;

    /// As [`deduplicate`](Self::deduplicate), with the keys in keyed state, and by the clock of state: they are known after a restart,
    /// and memory does not limit them where state has a place to spill to; `limit` means nothing.
    fn deduplicate_in_state<T: Data, K: Data + Serialize>(
        &mut self,
        id: impl Into<Arc<str>>,
        deduplicate: Deduplicate<T, K>,
        stream: impl Into<Stream<T>>,
    ) -> BoltDeclarer<'_, T, DeduplicateOutputs<T>>;

    /// Declares a bolt that gives tuples what a table has for them, which comes as a stream of changes. It gets both grouped by the
    /// key.
    fn enrich<T: Data, K: Data + Eq + Hash, V: Data>(
        &mut self,
        id: impl Into<Arc<str>>,
        enrich: Enrich<T, K>,
        stream: impl Into<Stream<T>>,
        changes: impl Into<Stream<TableChange<K, V>>>,
    ) -> BoltDeclarer<'_, EnrichInput<T, K, V>, Output<Enriched<T, V>>>;

    /// Declares a bolt that gives tuples what a table had for them at their own time, with the table and the tuples that wait in keyed
    /// state: both are there after a restart. It gets both streams grouped by the key. Tuples' roots are done when they come, and in a
    /// topology with checkpoints their sources are told when a checkpoint has them. No root waits for what it emits.
    fn enrich_in_state<T, K, V>(
        &mut self,
        id: impl Into<Arc<str>>,
        enrich: EnrichAsOf<T, K>,
        stream: impl Into<Stream<T>>,
        versions: impl Into<Stream<TableVersion<K, V>>>,
    ) -> EnrichDeclarer<'_, T, K, V>
    where
        T: Data + Serialize + DeserializeOwned,
        K: Data + Eq + Hash + Serialize + DeserializeOwned,
        V: Data + Serialize + DeserializeOwned;

    /// Begins a chain of calls that declare components.
    fn flow<T: Data>(&mut self, stream: impl Into<Stream<T>>) -> Flow<'_, T>;
}

/// The component with its tick, if it has one. What it cannot be is an error of `build`.
fn ticking_or_refused<I: Send + 'static, O: Outputs>(
    declarer: BoltDeclarer<'_, I, O>,
    tick: Option<Duration>,
    checked: Result<(), impl std::error::Error>,
) -> BoltDeclarer<'_, I, O> {
    let declarer = match tick {
        Some(tick) => declarer.tick_every(tick),
        None => declarer,
    };
    match checked {
        Ok(()) => declarer,
        Err(error) => declarer.refuse(error.to_string()),
    }
}

impl WindowTopology for TopologyBuilder {
    fn event_time<T: Data>(
        &mut self,
        id: impl Into<Arc<str>>,
        event_time: EventTime<T>,
        stream: impl Into<Stream<T>>,
    ) -> BoltDeclarer<'_, T, Output<T>> {
        let interval = event_time.interval;
        self.batch_bolt(id, move || EventTimeBolt::new(event_time.clone()))
            .event_time(EventTimeUse::Makes)
            .tick_every(interval)
            .local_or_shuffle(stream)
    }

    fn window<T: Data, K: Data + Eq + Hash, A: Aggregate<T>>(
        &mut self,
        id: impl Into<Arc<str>>,
        window: Window<T, K, A>,
        stream: impl Into<Stream<T>>,
    ) -> WindowDeclarer<'_, T, K, A> {
        let (checked, tick, key_of) = (window.check(), window.tick(), window.key_of.clone());
        let (holds, holds_for) = (window.holds(), window.holds_for());
        let uses = event_time_use(window.works_by_event_time(), window.makes_watermarks.is_some());
        let mut declarer = self
            .batch_bolt(id, move || WindowBolt::new(window.clone()))
            .event_time(uses)
            .key_by(stream, move |tuple: &T| key_of(tuple));
        if let Some(holds) = holds {
            declarer = declarer.holds(holds);
        }
        if let Some(holds_for) = holds_for {
            declarer = declarer.holds_for(holds_for);
        }
        ticking_or_refused(declarer, tick, checked)
    }

    fn window_in_state<T, K, A>(
        &mut self,
        id: impl Into<Arc<str>>,
        window: Window<T, K, A>,
        stream: impl Into<Stream<T>>,
    ) -> WindowDeclarer<'_, T, K, A>
    where
        T: Data,
        K: Data + Eq + Hash + Serialize + DeserializeOwned,
        A: Aggregate<T>,
        A::Accumulator: Serialize + DeserializeOwned,
    {
        let checked = window.check().and_then(|()| window.check_in_state());
        let (tick, key_of) = (window.tick(), window.key_of.clone());
        let uses = event_time_use(window.works_by_event_time(), window.makes_watermarks.is_some());
        let declarer = self
            .batch_bolt(id, move || StateWindowBolt::new(window.clone()))
            .event_time(uses)
            .keyed_by(stream, move |tuple: &T| key_of(tuple));
        ticking_or_refused(declarer, tick, checked)
    }

    fn join<L: Data, R: Data, K: Data + Eq + Hash>(
        &mut self,
        id: impl Into<Arc<str>>,
        join: Join<L, R, K>,
        left: impl Into<Stream<L>>,
        right: impl Into<Stream<R>>,
    ) -> BoltDeclarer<'_, Side<L, R>, JoinOutputs<K, L, R>> {
        let (checked, holds_for, makes) = (join.check(), join.holds_for(), join.makes_watermarks);
        let ((left_key, right_key), tick) = (join.key_of.clone(), join.tick());
        let declarer = self
            .batch_bolt(id, move || JoinBolt::new(join.clone()))
            .event_time(event_time_use(true, makes))
            .holds_for(holds_for)
            .key_by_as(left, move |tuple: &L| left_key(tuple), Side::Left)
            .key_by_as(right, move |tuple: &R| right_key(tuple), Side::Right);
        ticking_or_refused(declarer, tick, checked)
    }

    fn join_in_state<L, R, K>(
        &mut self,
        id: impl Into<Arc<str>>,
        join: Join<L, R, K>,
        left: impl Into<Stream<L>>,
        right: impl Into<Stream<R>>,
    ) -> BoltDeclarer<'_, Side<L, R>, JoinOutputs<K, L, R>>
    where
        L: Data + Serialize + DeserializeOwned,
        R: Data + Serialize + DeserializeOwned,
        K: Data + Eq + Hash + Serialize + DeserializeOwned,
    {
        let (checked, makes) = (join.check(), join.makes_watermarks);
        let ((left_key, right_key), tick) = (join.key_of.clone(), join.tick());
        let declarer = self
            .batch_bolt(id, move || StateJoinBolt::new(join.clone()))
            .event_time(event_time_use(true, makes))
            .keyed_by_as(left, move |tuple: &L| left_key(tuple), Side::Left)
            .keyed_by_as(right, move |tuple: &R| right_key(tuple), Side::Right);
        ticking_or_refused(declarer, tick, checked)
    }

    fn deduplicate<T: Data, K: Data + Eq + Hash>(
        &mut self,
        id: impl Into<Arc<str>>,
        deduplicate: Deduplicate<T, K>,
        stream: impl Into<Stream<T>>,
    ) -> BoltDeclarer<'_, T, DeduplicateOutputs<T>> {
        let (key_of, within, limit) = (deduplicate.key_of.clone(), deduplicate.within, deduplicate.limit);
        let tick = (within / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let declarer = self
            .bolt(id, move || DeduplicateBolt::new(deduplicate.clone()))
            .tick_every(tick)
            .key_by(stream, move |tuple: &T| key_of(tuple));
        match (within.is_zero(), limit) {
            (true, _) => declarer.refuse("it takes duplicates within 0 s, which are none: make that longer"),
            (_, 0) => declarer.refuse("its limit is 0, so that it could remember no key: make it at least 1"),
            _ => declarer,
        }
    }

    fn deduplicate_in_state<T: Data, K: Data + Serialize>(
        &mut self,
        id: impl Into<Arc<str>>,
        deduplicate: Deduplicate<T, K>,
        stream: impl Into<Stream<T>>,
    ) -> BoltDeclarer<'_, T, DeduplicateOutputs<T>> {
        let (key_of, within) = (deduplicate.key_of.clone(), deduplicate.within);
        let declarer = self
            .bolt(id, move || StateDeduplicateBolt::new(deduplicate.clone()))
            .keyed_by(stream, move |tuple: &T| key_of(tuple));
        match within.is_zero() {
            true => declarer.refuse("it takes duplicates within 0 s, which are none: make that longer"),
            false => declarer,
        }
    }

    fn enrich<T: Data, K: Data + Eq + Hash, V: Data>(
        &mut self,
        id: impl Into<Arc<str>>,
        enrich: Enrich<T, K>,
        stream: impl Into<Stream<T>>,
        changes: impl Into<Stream<TableChange<K, V>>>,
    ) -> BoltDeclarer<'_, EnrichInput<T, K, V>, Output<Enriched<T, V>>> {
        let (key_of, limit) = (enrich.key_of.clone(), enrich.limit);
        let declarer = self
            .bolt(id, move || EnrichBolt::new(enrich.clone()))
            .key_by_as(stream, move |tuple: &T| key_of(tuple), EnrichInput::Tuple)
            .key_by_as(changes, |change: &TableChange<K, V>| change.key().clone(), EnrichInput::Change);
        match limit {
            0 => declarer.refuse("its limit is 0, so that it could keep no key: make it at least 1"),
            _ => declarer,
        }
    }

    fn enrich_in_state<T, K, V>(
        &mut self,
        id: impl Into<Arc<str>>,
        enrich: EnrichAsOf<T, K>,
        stream: impl Into<Stream<T>>,
        versions: impl Into<Stream<TableVersion<K, V>>>,
    ) -> EnrichDeclarer<'_, T, K, V>
    where
        T: Data + Serialize + DeserializeOwned,
        K: Data + Eq + Hash + Serialize + DeserializeOwned,
        V: Data + Serialize + DeserializeOwned,
    {
        let (checked, makes) = (enrich.check(), enrich.makes_watermarks);
        let (key_of, tick) = (enrich.key_of.clone(), enrich.tick());
        let declarer = self
            .batch_bolt(id, move || StateEnrichBolt::new(enrich.clone()))
            .event_time(event_time_use(true, makes))
            .keyed_by_as(stream, move |tuple: &T| key_of(tuple), Side::Left)
            .keyed_by_as(versions, |version: &TableVersion<K, V>| version.key.clone(), Side::Right);
        ticking_or_refused(declarer, tick, checked)
    }

    fn flow<T: Data>(&mut self, stream: impl Into<Stream<T>>) -> Flow<'_, T> {
        Flow::new(self, stream.into())
    }
}

fn event_time_use(by_event_time: bool, makes: bool) -> EventTimeUse {
    match (by_event_time, makes) {
        (true, true) => EventTimeUse::MakesAndNeeds,
        (true, false) => EventTimeUse::Needs,
        // It is to be told at least of the end.
        (false, _) => EventTimeUse::Ends,
    }
}
