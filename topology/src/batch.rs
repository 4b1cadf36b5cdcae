//! Batches of input tuples, and single tuples with their handles.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::anchor::{Anchor, drop_unsettled};
use crate::anchors::Anchors;
use crate::emitter::{Emitter, only_stable_id};
use crate::failure::{FailureKind, Fault};
use crate::outputs::{Output, Outputs};
use crate::runtime::{AckSender, EdgeBatch};

/// One kept tuple: its value and its [`Anchor`].
#[derive(Debug)]
#[must_use = "dropping a tuple fails its root"]
pub struct Tuple<T> {
    /// What the tuple carries.
    pub value: T,
    /// The handle that acks or fails it.
    pub anchor: Anchor,
}

impl<T> Tuple<T> {
    /// The tuple is done.
    pub fn ack(self) {
        self.anchor.ack();
    }

    /// The tuple failed.
    pub fn fail(self, fault: impl Into<Fault>) {
        self.anchor.fail(fault);
    }
}

/// A batch of input tuples: their values side by side, and what acks or fails them.
///
/// Consume it one way or another: [`each`](Self::each) runs the per-tuple protocol, [`ack`](Self::ack)
/// and [`fail`](Self::fail) settle all at once, [`into_parts`](Self::into_parts) and
/// [`into_tuples`](Self::into_tuples) keep the tuples for later. What is dropped fails.
#[must_use = "dropping a batch fails its roots"]
pub struct Batch<T> {
    pub(crate) tuples: EdgeBatch<T>,
    received: u64,
    pub(crate) acks: Option<Arc<dyn AckSender>>,
}

impl<T: Send + 'static> Batch<T> {
    pub(crate) fn new(tuples: EdgeBatch<T>, acks: Arc<dyn AckSender>) -> Self {
        Self { tuples, received: acks.now(), acks: Some(acks) }
    }

    /// How many tuples it has.
    pub fn len(&self) -> usize {
        self.tuples.values.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.tuples.values.is_empty()
    }

    /// The values.
    pub fn values(&self) -> &[T] {
        &self.tuples.values
    }

    /// The values, to change in place.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.tuples.values
    }

    /// The stable id of each tuple's message, in order; see [`Emitter::stable_id`].
    pub fn stable_ids(&self) -> Vec<Option<Arc<str>>> {
        let Some(acks) = &self.acks else { return vec![None; self.len()] };
        self.tuples.lineage.clone().drain().map(|token| only_stable_id(&token, &**acks)).collect()
    }

    /// All tuples are done.
    pub fn ack(self) {
        self.into_parts().1.ack();
    }

    /// All tuples failed, for the same reason.
    pub fn fail(self, fault: impl Into<Fault>) {
        self.into_parts().1.fail(fault);
    }

    /// The values, and apart from them the handle that settles them.
    pub fn into_parts(mut self) -> (Vec<T>, Anchors) {
        let values = std::mem::take(&mut self.tuples.values);
        let lineage = std::mem::take(&mut self.tuples.lineage);
        let rows = values.len();
        let anchors = match self.acks.take() {
            Some(acks) => Anchors::of(lineage, rows, self.received, acks),
            None => Anchors::default(),
        };
        (values, anchors)
    }

    /// Each tuple with its own handle.
    pub fn into_tuples(self) -> Vec<Tuple<T>> {
        let (values, anchors) = self.into_parts();
        values.into_iter().zip(anchors.into_each()).map(|(value, anchor)| Tuple { value, anchor }).collect()
    }

    /// Runs `execute` on each tuple: what it emits is anchored to the tuple, `Ok` acks it and `Err`
    /// fails it (and what the call emitted anchored to it is taken back). This is what a bolt that does
    /// not take batches does.
    ///
    /// # Panics
    /// A panic of `execute` passes through, after the tuples not reached were stored for the engine,
    /// which fails the one at hand, rebuilds the bolt and carries on.
    pub fn each<O: Outputs>(
        self,
        out: &mut Emitter<O>,
        execute: impl FnMut(T, &mut Emitter<O>) -> Result<(), Fault>,
    ) {
        out.seal_emitted();
        self.each_until(out, usize::MAX, execute);
    }

    /// As [`each`](Self::each), but when the turn is over the tuples not reached are put aside for the engine, which goes on with
    /// them later.
    pub(crate) fn each_in_turn<O: Outputs>(
        self,
        out: &mut Emitter<O>,
        execute: impl FnMut(T, &mut Emitter<O>) -> Result<(), Fault>,
    ) {
        out.set_by_row();
        let check_after = out.check_after();
        self.each_until(out, check_after, execute);
    }

    fn each_until<O: Outputs>(
        mut self,
        out: &mut Emitter<O>,
        check_after: usize,
        mut execute: impl FnMut(T, &mut Emitter<O>) -> Result<(), Fault>,
    ) {
        self.acks = None;
        let EdgeBatch { values, lineage } = &mut self.tuples;
        let mut tokens = lineage.drain();
        let mut rows = values.drain(..);
        let mut check = check_after;
        out.set_at_hand(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut take = |value, out: &mut Emitter<O>| {
                out.begin_tuple(tokens.next().unwrap_or_default());
                match execute(value, out) {
                    Ok(()) => out.finish_tuple(),
                    Err(fault) => out.fail_tuple(FailureKind::Error, fault),
                }
            };
            // The clock is looked at after each doubling, so seldom where tuples cost little.
            let all = rows.len();
            while check < rows.len() {
                for value in rows.by_ref().take(check) {
                    take(value, out);
                }
                check = all - rows.len();
                if out.is_turn_over() {
                    return;
                }
            }
            for value in rows.by_ref() {
                take(value, out);
            }
        }));
        if outcome.is_ok() {
            out.set_at_hand(false);
        }
        if outcome.is_ok() && rows.len() > 0 {
            let rest = EdgeBatch { values: rows.collect(), lineage: tokens.into_rest() };
            out.store_unreached(Box::new(rest) as Box<dyn Any + Send>);
            return;
        }
        if let Err(panic) = outcome {
            let rest = EdgeBatch { values: rows.collect(), lineage: tokens.into_rest() };
            out.store_unreached(Box::new(rest) as Box<dyn Any + Send>);
            resume_unwind(panic);
        }
        drop((rows, tokens));
        out.recycle(self.take_tuples());
    }

    /// Emits exactly one value for each tuple, in order, on a bolt's only output. As
    /// [`each`](Self::each), without any work for the lineage: it passes on as it is.
    ///
    /// # Panics
    /// As [`each`](Self::each).
    pub fn map<U: Clone + Send + 'static>(self, out: &mut Emitter<Output<U>>, map: impl FnMut(T) -> U) {
        out.seal_emitted();
        self.map_until(out, usize::MAX, map);
    }

    /// As [`map`](Self::map), and as [`each_in_turn`](Self::each_in_turn).
    pub(crate) fn map_in_turn<U: Clone + Send + 'static>(
        self,
        out: &mut Emitter<Output<U>>,
        map: impl FnMut(T) -> U,
    ) {
        out.set_by_row();
        let check_after = out.check_after();
        self.map_until(out, check_after, map);
    }

    fn map_until<U: Clone + Send + 'static>(
        mut self,
        out: &mut Emitter<Output<U>>,
        check_after: usize,
        mut map: impl FnMut(T) -> U,
    ) {
        self.acks = None;
        let EdgeBatch { values, lineage } = &mut self.tuples;
        let before = out.output_mut().len();
        let mut rows = values.drain(..);
        let mut check = check_after;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let all = rows.len();
            while check < rows.len() {
                out.output_mut().extend(rows.by_ref().take(check).map(&mut map));
                check = all - rows.len();
                if out.is_turn_over() {
                    return;
                }
            }
            out.output_mut().extend(rows.by_ref().map(&mut map));
        }));
        if outcome.is_ok() && rows.len() > 0 {
            let mapped = out.output_mut().len() - before;
            let mut tokens = lineage.drain();
            for token in tokens.by_ref().take(mapped) {
                out.output_mut().adopt(token);
            }
            out.count_acked(mapped as u64);
            let rest = EdgeBatch { values: rows.collect(), lineage: tokens.into_rest() };
            out.store_unreached(Box::new(rest) as Box<dyn Any + Send>);
            return;
        }
        if let Err(panic) = outcome {
            let mapped = out.output_mut().len() - before;
            let mut tokens = lineage.drain();
            for token in tokens.by_ref().take(mapped) {
                out.output_mut().adopt(token);
            }
            out.count_acked(mapped as u64);
            out.set_at_hand(true);
            out.begin_tuple(tokens.next().unwrap_or_default());
            let rest = EdgeBatch { values: rows.collect(), lineage: tokens.into_rest() };
            out.store_unreached(Box::new(rest) as Box<dyn Any + Send>);
            resume_unwind(panic);
        }
        drop(rows);
        let mapped = out.output_mut().len() - before;
        out.output_mut().adopt_all(lineage, mapped);
        out.count_acked(mapped as u64);
        out.recycle(self.take_tuples());
    }

    fn take_tuples(&mut self) -> EdgeBatch<T> {
        EdgeBatch {
            values: std::mem::take(&mut self.tuples.values),
            lineage: std::mem::take(&mut self.tuples.lineage),
        }
    }
}

impl<T> Drop for Batch<T> {
    fn drop(&mut self) {
        if let Some(acks) = self.acks.take()
            && !self.tuples.values.is_empty()
        {
            drop_unsettled(&*acks, &mut self.tuples.lineage, self.tuples.values.len() as u64);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Batch").field(&self.tuples.values).finish()
    }
}
