//! The bolt that runs windows whose tuples are in state.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use galerna_lock::Mutex;
use galerna_state::{StateContext, StateError};
use galerna_topology::{Anchors, Batch, BatchBolt, Data, Emitter, Fault, Gauge, TaskContext, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aggregate::Aggregate;
use crate::kept::{KeptStore, KeptWindows};
use crate::late::LateCounts;
use crate::result::{Late, WindowResult};
use crate::sources::{Sources, read_time};
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
/// Windows that can take back a batch outlive the bolt's instance, and what has changed of them is written for checkpoints. Of others,
/// what a batch changes is written before its tuples are acked. So whatever happens to the instance, the windows have all tuples that were
/// acked, and no other.
pub(crate) struct StateWindowBolt<T: Data, K: Data + Eq + Hash, A: Aggregate<T>> {
    window: Window<T, K, A>,
    prepared: Option<Prepared<K, T, A>>,
    sources: Option<Sources>,
    late: Option<LateCounts<K>>,
    /// How many accumulators are kept.
    count: Gauge,
    early_at: Duration,
}

struct Prepared<K, T, A: Aggregate<T>> {
    store: Arc<Mutex<Box<Kept<K, T, A>>>>,
    kept: KeptWindows<A::Accumulator>,
}

/// What becomes of the tuples of a batch.
struct Rows<K, T> {
    /// The keys of those that are in windows now.
    keys: Vec<Option<K>>,
    /// Those that fail, in order.
    failed: Vec<(usize, Fault)>,
    /// Those that came too late, in order.
    late: Vec<(usize, Late<K, T>)>,
    /// Keys of which all tuples fail, and why.
    failed_keys: HashMap<K, Fault>,
}

impl<K: Data + Eq + Hash, T: Data> Rows<K, T> {
    /// Acks and fails them.
    fn settle<R: Data>(self, anchors: Anchors, out: &mut Emitter<WindowOutputs<K, R, T>>) {
        if self.failed.is_empty() && self.late.is_empty() && self.failed_keys.is_empty() {
            anchors.ack();
            return;
        }
        let (mut failed, mut late) = (self.failed.into_iter().peekable(), self.late.into_iter().peekable());
        for ((row, anchor), key) in anchors.into_each().into_iter().enumerate().zip(self.keys) {
            if let Some((_, fault)) = failed.next_if(|(of, _)| *of == row) {
                anchor.fail(fault);
            } else if let Some((_, tuple)) = late.next_if(|(of, _)| *of == row) {
                out.late.emit_anchored(tuple, [&anchor]);
                anchor.ack();
            } else {
                match key.and_then(|key| self.failed_keys.get(&key)) {
                    Some(fault) => anchor.fail(fault.clone()),
                    None => anchor.ack(),
                }
            }
        }
    }
}

impl<T, K, A> StateWindowBolt<T, K, A>
where
    T: Data,
    K: Data + Eq + Hash + Serialize + DeserializeOwned,
    A: Aggregate<T>,
    A::Accumulator: Serialize + DeserializeOwned,
{
    pub(crate) fn new(window: Window<T, K, A>) -> Self {
        Self {
            window,
            prepared: None,
            sources: None,
            late: None,
            count: Gauge::default(),
            early_at: Duration::ZERO,
        }
    }

    /// Adds tuples.
    fn add(&mut self, tuples: Vec<T>, store: &mut Kept<K, T, A>, out: &mut Out<K, T, A>) -> Rows<K, T> {
        let (sender, now) = (out.sender(), out.context().now());
        let mut observe =
            self.sources.as_mut().zip(sender).map(|(sources, sender)| sources.batch(sender, now));
        let mut rows = Rows {
            keys: Vec::with_capacity(tuples.len()),
            failed: Vec::new(),
            late: Vec::new(),
            failed_keys: HashMap::new(),
        };
        for (row, tuple) in tuples.into_iter().enumerate() {
            let time_of = self.window.time_of.as_ref();
            let read =
                time_of.map_or(Ok(Timestamp::MIN), |time_of| read_time(time_of, &tuple)).and_then(|at| {
                    if let Some(observe) = &mut observe {
                        observe(at)?;
                    }
                    let key = caught(|| (self.window.key_of)(&tuple));
                    let key =
                        key.map_err(|fault| Fault::permanent(format!("the key closure {}", fault.reason())))?;
                    Ok((at, key))
                });
            let (at, key) = match read {
                Ok(read) => read,
                Err(fault) => {
                    rows.keys.push(None);
                    rows.failed.push((row, fault));
                    continue;
                }
            };
            let mut sink = Sink::new(out);
            let added = store.add(&key, tuple, at, (), &mut sink);
            if let Some(fault) = sink.failed {
                rows.failed_keys.insert(key.clone(), fault);
            }
            match added {
                Ok(()) => rows.keys.push(Some(key)),
                Err(TooLate { tuple, held: () }) => {
                    let now = out.watermark().unwrap_or(at).millis().max(store.closed().unwrap_or(i64::MIN));
                    let late_by = Timestamp::from_millis(now).saturating_since(at);
                    if let Some(late) = &mut self.late {
                        late.count(&key, late_by);
                    }
                    rows.keys.push(None);
                    rows.late.push((row, Late { key, tuple, at, late_by }));
                }
            }
        }
        // Before a late tuple makes its window fire with what an aggregate had not finished.
        rows.failed_keys.keys().for_each(|key| store.take_back(Some(key)));
        let mut sink = Sink::new(out);
        store.fire_late(&mut sink);
        if let Some(fault) = sink.failed {
            // Of which key is not known, only that it is one of these.
            let keys = rows.keys.iter().flatten();
            rows.failed_keys.extend(keys.map(|key| (key.clone(), fault.clone())));
        }
        rows
    }

    /// Fires, and tells what went wrong.
    fn fire(
        &mut self,
        out: &mut Out<K, T, A>,
        fire: impl FnOnce(&mut Kept<K, T, A>, &mut Sink<'_, K, A::Output, T>),
    ) -> Result<(), Fault> {
        let Some(Prepared { store, kept }) = &mut self.prepared else { return Ok(()) };
        let store = &mut **store.lock();
        let mut sink = Sink::new(out);
        fire(store, &mut sink);
        let panicked = sink.failed;
        self.count.set(store.len() as f64);
        let mut unwritten = None;
        if !store.takes_back() {
            for (key, _, error) in kept.write(store) {
                kept.revert(store, &key)?;
                unwritten = Some(error);
            }
            kept.write_closed(store.closed())?;
        }
        match (panicked, unwritten) {
            (Some(fault), _) => Err(fault),
            (None, Some(error)) => Err(error.into()),
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
        let state = context.state()?;
        let kept = KeptWindows::new(state)?;
        let mut fresh = self.window.open_kept();
        let takes_back = fresh.takes_back();
        let restored = || {
            kept.restore(&mut *fresh)?;
            Ok::<_, StateError>(fresh)
        };
        let store = match takes_back {
            true => state.working_copy("windows", restored)?,
            false => Arc::new(Mutex::new(restored()?)),
        };
        {
            let store = &mut **store.lock();
            // What an instance before this one did not finish.
            store.take_back(None);
            self.count = context.gauge("window_state");
            self.count.set(store.len() as f64);
        }
        self.prepared = Some(Prepared { store, kept });
        let makes = self.window.makes_watermarks;
        self.sources = makes.map(|_| Sources::new(self.window.sources, context.now()));
        self.late = Some(LateCounts::new(context, self.window.late_names.clone()));
        self.early_at = context.now().saturating_add(self.window.early_every.unwrap_or(Duration::MAX));
        Ok(())
    }

    fn execute(&mut self, batch: Batch<T>, out: &mut Out<K, T, A>) {
        let Some(mut prepared) = self.prepared.take() else {
            return batch.fail(Fault::permanent("the window was not prepared"));
        };
        let (tuples, anchors) = batch.into_parts();
        let rows = {
            let store = &mut **prepared.store.lock();
            store.begin_batch();
            let mut rows = self.add(tuples, store, out);
            if store.takes_back() {
                rows.failed_keys.keys().for_each(|key| store.take_back(Some(key)));
            } else if let Err(error) = write_batch(&mut prepared.kept, store, &mut rows.failed_keys) {
                // It is not known what is written of which key.
                let fault = Fault::from(error);
                let keys = rows.keys.iter().flatten();
                rows.failed_keys.extend(keys.map(|key| (key.clone(), fault.clone())));
            }
            store.end_batch();
            self.count.set(store.len() as f64);
            rows
        };
        self.prepared = Some(prepared);
        rows.settle(anchors, out);
        if let (Some(sources), Some(sender)) = (&mut self.sources, out.sender()) {
            sources.tell(sender, out.context().now(), out);
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

    fn checkpoint(&mut self, _: &mut Out<K, T, A>) -> Result<(), Fault> {
        let Some(Prepared { store, kept }) = &mut self.prepared else { return Ok(()) };
        let store = &mut **store.lock();
        let mut unwritten = None;
        for (key, number, error) in kept.write(store) {
            store.note_unwritten(&key, number);
            unwritten = Some(error);
        }
        kept.write_closed(store.closed())?;
        unwritten.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Writes what a batch has changed, but for keys that failed, which are as they were before. Those that could not be written fail too.
fn write_batch<K, T, R, A>(
    kept: &mut KeptWindows<A>,
    store: &mut dyn KeptStore<K, T, R, A>,
    failed: &mut HashMap<K, Fault>,
) -> Result<(), StateError>
where
    K: Clone + Eq + Hash + Serialize,
    A: Serialize + DeserializeOwned,
{
    for key in failed.keys() {
        kept.revert(store, key)?;
    }
    for (key, _, error) in kept.write(store) {
        kept.revert(store, &key)?;
        failed.insert(key, error.into());
    }
    Ok(())
}
