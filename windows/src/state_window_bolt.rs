//! The bolt that runs windows whose tuples are in state.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use galerna_state::{StateContext, StateError};
use galerna_topology::{Anchor, Batch, BatchBolt, Data, Emitter, Fault, Gauge, TaskContext, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aggregate::Aggregate;
use crate::kept::{KeptStore, KeptWindows};
use crate::late::LateCounts;
use crate::result::{Late, WindowResult};
use crate::sources::{Sources, with_times};
use crate::store::{TooLate, WindowSink, caught};
use crate::window::Window;
use crate::window_bolt::WindowOutputs;

type Kept<K, T, A> = dyn KeptStore<K, T, <A as Aggregate<T>>::Output, <A as Aggregate<T>>::Accumulator>;
type Out<K, T, A> = Emitter<WindowOutputs<K, <A as Aggregate<T>>::Output, T>>;

/// Emits results that no root waits for: their tuples are in state.
struct Sink<'a, K: Data, R: Data, T: Data> {
    out: &'a mut Emitter<WindowOutputs<K, R, T>>,
    /// What an aggregate panicked with.
    failed: Option<Fault>,
}

impl<'a, K: Data, R: Data, T: Data> Sink<'a, K, R, T> {
    fn new(out: &'a mut Emitter<WindowOutputs<K, R, T>>) -> Self {
        Self { out, failed: None }
    }
}

impl<K: Data, R: Data, T: Data> WindowSink<K, R, ()> for Sink<'_, K, R, T> {
    fn fire(&mut self, result: WindowResult<K, R>, _held: &[&()]) {
        self.out.results.emit_unanchored(result);
    }

    fn release(&mut self, (): ()) {}

    fn fail(&mut self, (): (), fault: Fault) {
        self.failed.get_or_insert(fault);
    }
}

/// The windows of one task, in memory and in its state.
///
/// What a batch changes is written before its tuples are acked. So whatever happens to the instance, the state has all tuples that were
/// acked, and no other.
pub(crate) struct StateWindowBolt<T: Data, K: Data + Eq + Hash, A: Aggregate<T>> {
    window: Window<T, K, A>,
    store: Box<Kept<K, T, A>>,
    kept: Option<KeptWindows<A::Accumulator>>,
    sources: Option<Sources>,
    late: Option<LateCounts<K>>,
    /// How many accumulators are kept.
    count: Gauge,
    early_at: Duration,
}

impl<T, K, A> StateWindowBolt<T, K, A>
where
    T: Data,
    K: Data + Eq + Hash + Serialize + DeserializeOwned,
    A: Aggregate<T>,
    A::Accumulator: Serialize + DeserializeOwned,
{
    pub(crate) fn new(window: Window<T, K, A>) -> Self {
        let store = window.open_kept();
        Self {
            window,
            store,
            kept: None,
            sources: None,
            late: None,
            count: Gauge::default(),
            early_at: Duration::ZERO,
        }
    }

    /// Writes what has changed. The keys that could not be written are as they were before, and why.
    fn write(&mut self) -> Result<Vec<(K, StateError)>, StateError> {
        self.count.set(self.store.len() as f64);
        match &mut self.kept {
            Some(kept) => kept.write(&mut *self.store),
            None => Ok(Vec::new()),
        }
    }

    /// Has keys as they were before the batch.
    fn revert<'a>(&mut self, keys: impl Iterator<Item = &'a K>) -> Result<(), StateError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        for key in keys {
            kept.revert(&mut *self.store, key)?;
        }
        Ok(())
    }

    /// Adds tuples. Those that are in windows now, by key, and the keys whose aggregate panicked.
    fn add(
        &mut self,
        timed: Vec<(T, Timestamp, Anchor)>,
        out: &mut Out<K, T, A>,
    ) -> (HashMap<K, Vec<Anchor>>, HashMap<K, Fault>) {
        let (mut taken, mut failed) = (HashMap::<K, Vec<Anchor>>::new(), HashMap::new());
        for (tuple, at, anchor) in timed {
            let key = match caught(|| (self.window.key_of)(&tuple)) {
                Ok(key) => key,
                Err(fault) => {
                    anchor.fail(Fault::permanent(format!("the key closure {}", fault.reason())));
                    continue;
                }
            };
            let mut sink = Sink::new(out);
            let added = self.store.add(&key, tuple, at, (), &mut sink);
            if let Some(fault) = sink.failed {
                failed.insert(key.clone(), fault);
            }
            match added {
                Ok(()) => taken.entry(key).or_default().push(anchor),
                Err(TooLate { tuple, held: () }) => {
                    let now =
                        out.watermark().unwrap_or(at).millis().max(self.store.closed().unwrap_or(i64::MIN));
                    let late_by = Timestamp::from_millis(now).saturating_since(at);
                    if let Some(late) = &mut self.late {
                        late.count(&key, late_by);
                    }
                    out.late.emit_anchored(Late { key, tuple, at, late_by }, [&anchor]);
                    anchor.ack();
                }
            }
        }
        let mut sink = Sink::new(out);
        self.store.fire_late(&mut sink);
        if let Some(fault) = sink.failed {
            // Of which key is not known, only that it is one of these.
            failed.extend(taken.keys().map(|key| (key.clone(), fault.clone())));
        }
        (taken, failed)
    }

    /// Fires, writes, and tells what went wrong.
    fn fire(
        &mut self,
        out: &mut Out<K, T, A>,
        fire: impl FnOnce(&mut Kept<K, T, A>, &mut Sink<'_, K, A::Output, T>),
    ) -> Result<(), Fault> {
        let mut sink = Sink::new(out);
        fire(&mut *self.store, &mut sink);
        let panicked = sink.failed;
        let failed = self.write()?;
        if let Some(kept) = &mut self.kept {
            kept.write_closed(self.store.closed())?;
        }
        match (panicked, failed.into_iter().next()) {
            (Some(fault), _) => Err(fault),
            (None, Some((_, error))) => Err(error.into()),
            (None, None) => Ok(()),
        }
    }
}

impl<T, K, A> BatchBolt for StateWindowBolt<T, K, A>
where
    T: Data,
    K: Data + Eq + Hash + Serialize + DeserializeOwned,
    A: Aggregate<T>,
    A::Accumulator: Serialize + DeserializeOwned,
{
    type Input = T;
    type Outputs = WindowOutputs<K, A::Output, T>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        let kept = KeptWindows::new(context.state()?)?;
        kept.restore(&mut *self.store)?;
        self.kept = Some(kept);
        let makes = self.window.makes_watermarks;
        self.sources = makes.map(|_| Sources::new(self.window.sources, context.now()));
        self.count = context.gauge("window_state");
        self.count.set(self.store.len() as f64);
        self.late = Some(LateCounts::new(context, self.window.late_names.clone()));
        self.early_at = context.now().saturating_add(self.window.early_every.unwrap_or(Duration::MAX));
        Ok(())
    }

    fn execute(&mut self, batch: Batch<T>, out: &mut Out<K, T, A>) {
        let (sender, now) = (out.sender(), out.context().now());
        let time_of = self.window.time_of.as_ref();
        let timed = with_times(batch, time_of, Timestamp::MIN, self.sources.as_mut(), sender, now);
        let (mut taken, mut failed) = self.add(timed, out);
        let reverted = self.revert(failed.keys());
        match reverted.and_then(|()| self.write()) {
            Ok(unwritten) => failed.extend(unwritten.into_iter().map(|(key, error)| (key, error.into()))),
            Err(error) => {
                // It is not known what is written of which key.
                let fault = Fault::from(error);
                failed.extend(taken.keys().map(|key| (key.clone(), fault.clone())));
            }
        }
        for (key, fault) in failed {
            for anchor in taken.remove(&key).into_iter().flatten() {
                anchor.fail(fault.clone());
            }
        }
        taken.into_values().flatten().for_each(Anchor::ack);
        if let (Some(sources), Some(sender)) = (&mut self.sources, sender) {
            sources.tell(sender, now, out);
        }
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Out<K, T, A>) -> Result<(), Fault> {
        self.fire(out, |store, sink| store.advance(watermark, sink))
    }

    fn tick(&mut self, out: &mut Out<K, T, A>) -> Result<(), Fault> {
        let now = out.context().now();
        if let Some(sources) = &mut self.sources {
            sources.tell_all(now, out);
        }
        if let Some(every) = self.window.early_every
            && now >= self.early_at
        {
            self.early_at = now.saturating_add(every);
            self.fire(out, |store, sink| store.fire_early(sink))?;
        }
        Ok(())
    }
}
