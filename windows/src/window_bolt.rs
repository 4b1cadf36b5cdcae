//! The bolt that runs windows.

use std::hash::Hash;
use std::time::Duration;

use galerna_topology::{
    AllAnchors, Anchors, Batch, BatchBolt, Data, Emitter, Fault, Gauge, Outputs, TaskContext, Timestamp,
    outputs,
};

use crate::aggregate::Aggregate;
use crate::late::LateCounts;
use crate::result::{Firing, Late, WindowResult};
use crate::sources::{Sources, with_times};
use crate::store::{Hold, TooLate, WindowSink, WindowStore, caught};
use crate::window::Window;

outputs! {
    /// What windows emit.
    pub struct WindowOutputs<K, R, T> {
        /// Results of windows.
        results: WindowResult<K, R>,
        /// Tuples too late for all of their windows. They are done, as far as the window is concerned, when who takes them has acked
        /// them.
        late: Late<K, T>,
    }
}

impl Hold for Anchors {
    fn merge(&mut self, other: Self) {
        Anchors::merge(self, other);
    }

    fn is_empty(&self) -> bool {
        Anchors::is_empty(self)
    }
}

/// Where a bolt's windows emit.
pub(crate) trait WindowEmit<K, T, R>: Outputs {
    fn result(&mut self, result: WindowResult<K, R>, held: AllAnchors<'_>);
    fn late(&mut self, late: Late<K, T>, held: &Anchors);
}

impl<K: Data, R: Data, T: Data> WindowEmit<K, T, R> for WindowOutputs<K, R, T> {
    fn result(&mut self, result: WindowResult<K, R>, held: AllAnchors<'_>) {
        self.results.emit_anchored(result, held);
    }

    fn late(&mut self, late: Late<K, T>, held: &Anchors) {
        self.late.emit_anchored(late, held);
    }
}

/// Emits results anchored to the tuples that they are made of.
struct Sink<'a, O, T> {
    out: &'a mut Emitter<O>,
    of: std::marker::PhantomData<fn(T)>,
}

impl<'a, O, T> Sink<'a, O, T> {
    fn new(out: &'a mut Emitter<O>) -> Self {
        Self { out, of: std::marker::PhantomData }
    }
}

impl<K, T, R, O: WindowEmit<K, T, R>> WindowSink<K, R, Anchors> for Sink<'_, O, T> {
    fn fire(&mut self, result: WindowResult<K, R>, held: &[&Anchors]) {
        self.out.result(result, AllAnchors(held));
    }

    fn release(&mut self, held: Anchors) {
        held.ack();
    }

    fn fail(&mut self, held: Anchors, fault: Fault) {
        held.fail(fault);
    }
}

/// The windows of one task.
pub(crate) struct WindowBolt<T, K, A: Aggregate<T>, O> {
    window: Window<T, K, A>,
    // What it keeps is in here and nowhere else.
    store: Box<dyn WindowStore<K, T, A::Output, Anchors>>,
    sources: Option<Sources>,
    late: Option<LateCounts<K>>,
    /// How many accumulators are kept.
    kept: Gauge,
    early_at: Duration,
    emits: std::marker::PhantomData<fn(O)>,
}

/// A time of the topology's clock.
fn processing_time(now: Duration) -> Timestamp {
    Timestamp::from_millis(0).saturating_add(now)
}

impl<T, K, A, O> WindowBolt<T, K, A, O>
where
    T: Data,
    K: Data + Eq + Hash,
    A: Aggregate<T>,
    O: WindowEmit<K, T, A::Output>,
{
    pub(crate) fn new(window: Window<T, K, A>) -> Self {
        let (store, emits) = (window.open(), std::marker::PhantomData);
        Self {
            window,
            store,
            sources: None,
            late: None,
            kept: Gauge::default(),
            early_at: Duration::ZERO,
            emits,
        }
    }

    fn add(&mut self, tuple: T, at: Timestamp, held: Anchors, out: &mut Emitter<O>) {
        let key = match caught(|| (self.window.key_of)(&tuple)) {
            Ok(key) => key,
            Err(fault) => {
                held.fail(Fault::permanent(format!("the key closure {}", fault.reason())));
                return;
            }
        };
        let held = if self.window.ack_on_arrival {
            held.ack();
            Anchors::default()
        } else {
            held
        };
        let Err(TooLate { tuple, held }) = self.store.add(&key, tuple, at, held, &mut Sink::new(out)) else {
            return;
        };
        let now = out.watermark().unwrap_or(at);
        let late_by = now.saturating_since(at);
        if let Some(late) = &mut self.late {
            late.count(&key, late_by);
        }
        out.late(Late { key, tuple, at, late_by }, &held);
        held.ack();
    }
}

impl<T, K, A, O> BatchBolt for WindowBolt<T, K, A, O>
where
    T: Data,
    K: Data + Eq + Hash,
    A: Aggregate<T>,
    O: WindowEmit<K, T, A::Output>,
{
    type Input = T;
    type Outputs = O;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        let makes = self.window.makes_watermarks;
        self.sources = makes.map(|_| Sources::new(self.window.sources, context.now()));
        self.kept = context.gauge("window_state");
        self.late = Some(LateCounts::new(context, self.window.late_names.clone()));
        self.early_at = context.now().saturating_add(self.window.early_every.unwrap_or(Duration::MAX));
        Ok(())
    }

    fn execute(&mut self, batch: Batch<T>, out: &mut Emitter<O>) {
        let (sender, now) = (out.sender(), out.context().now());
        let time_of = self.window.time_of.as_ref();
        let timed = with_times(batch, time_of, processing_time(now), self.sources.as_mut(), sender, now);
        for (tuple, at, anchor) in timed {
            self.add(tuple, at, Anchors::from_iter([anchor]), out);
        }
        self.store.fire_late(&mut Sink::new(out));
        self.kept.set(self.store.len() as f64);
        if let (Some(sources), Some(sender)) = (&mut self.sources, sender) {
            sources.tell(sender, now, out);
        }
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Emitter<O>) -> Result<(), Fault> {
        // By the clock nothing but the end of the stream means anything.
        if self.window.time_of.is_some() || watermark == Timestamp::MAX {
            self.store.advance(watermark, &mut Sink::new(out));
            self.kept.set(self.store.len() as f64);
        }
        Ok(())
    }

    fn tick(&mut self, out: &mut Emitter<O>) -> Result<(), Fault> {
        let now = out.context().now();
        if self.window.time_of.is_none() {
            self.store.advance(processing_time(now), &mut Sink::new(out));
            self.kept.set(self.store.len() as f64);
        }
        if let Some(sources) = &mut self.sources {
            sources.tell_all(now, out);
        }
        if let Some(every) = self.window.early_every
            && now >= self.early_at
        {
            self.early_at = now.saturating_add(every);
            self.store.fire_early(&mut Sink::new(out));
        }
        Ok(())
    }

    fn drain(&mut self, out: &mut Emitter<O>) {
        if self.window.fire_at_drain || self.window.ack_on_arrival {
            self.store.fire_all(Firing::AtEnd, &mut Sink::new(out));
            return;
        }
        for held in self.store.take_all() {
            held.fail(Fault::transient("the topology ends before the window of the tuple is complete"));
        }
    }
}
