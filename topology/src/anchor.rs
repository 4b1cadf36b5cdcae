//! Tuples on their way: batches, and the handles of tuples that a bolt keeps.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::emitter::Emitter;
use crate::failure::{Failure, FailureKind, Fault};
use crate::lineage::{AckToken, Lineage};
use crate::outputs::{Output, Outputs};
use crate::runtime::{AckSender, EdgeBatch};

/// The handle of one kept tuple: whoever holds it decides about the tuple's root.
///
/// [`ack`](Self::ack) or [`fail`](Self::fail) consume it. **Dropping it fails the root at once**
/// ([`FailureKind::Dropped`]), so a forgotten ack never reads as success. It may travel to other tasks
/// and threads.
#[must_use = "dropping an anchor fails its root"]
pub struct Anchor {
    // A lock only because emitting anchored to a kept tuple splits its share, and legally so through
    // a shared reference (the same anchor may be given twice).
    token: Mutex<AckToken>,
    received: u64,
    acks: Option<Arc<dyn AckSender>>,
}

impl Anchor {
    pub(crate) fn new(token: AckToken, received: u64, acks: Arc<dyn AckSender>) -> Self {
        Self { token: Mutex::new(token), received, acks: Some(acks) }
    }

    pub(crate) fn split(&self, shares: &mut crate::lineage::ShareRng) -> AckToken {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).split(shares)
    }

    fn take(&mut self) -> Lineage {
        let token = std::mem::take(&mut *self.token.get_mut().unwrap_or_else(PoisonError::into_inner));
        let mut lineage = Lineage::new();
        lineage.push(token);
        lineage
    }

    /// Whether a spout waits for this tuple.
    pub fn is_tracked(&self) -> bool {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).is_tracked()
    }

    /// The tuple is done.
    pub fn ack(mut self) {
        if let Some(acks) = self.acks.take() {
            acks.settle(&mut self.take(), 1, Some(self.received));
        }
    }

    /// The tuple failed: its root fails at once with this reason and the bolt's component id.
    pub fn fail(mut self, fault: impl Into<Fault>) {
        if let Some(acks) = self.acks.take() {
            let failure = Failure::error(fault, acks.component().clone());
            acks.fail(&mut self.take(), 1, &failure);
        }
    }

    /// Starts the message timeout of the tuple's roots anew, for work known to take long.
    pub fn reset_timeout(&self) {
        if let Some(acks) = &self.acks {
            let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut lineage = Lineage::new();
            lineage.push(token);
            acks.reset_timeout(&mut lineage);
        }
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        if let Some(acks) = self.acks.take() {
            drop_unsettled(&*acks, &mut self.take(), 1);
        }
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchor({:?})", self.token)
    }
}

fn drop_unsettled(acks: &dyn AckSender, lineage: &mut Lineage, tuples: u64) {
    let failure = if std::thread::panicking() {
        Failure::new(FailureKind::Panic, "the bolt panicked while it had the tuple", acks.component().clone())
    } else {
        Failure::new(FailureKind::Dropped, "dropped without ack or fail", acks.component().clone())
    };
    acks.fail(lineage, tuples, &failure);
}

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

/// The handle of the tuples of a batch, apart from their values: acks or fails all or some of them.
///
/// Acking a whole batch costs one message however many tuples it has. Like an [`Anchor`], what is
/// dropped without being acked or failed fails.
#[must_use = "dropping anchors fails their roots"]
pub struct Anchors {
    lineage: Lineage,
    rows: usize,
    received: u64,
    acks: Option<Arc<dyn AckSender>>,
}

impl Anchors {
    /// How many tuples it holds.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// All tuples are done.
    pub fn ack(mut self) {
        if let Some(acks) = self.acks.take() {
            acks.settle(&mut self.lineage, self.rows as u64, Some(self.received));
        }
    }

    /// All tuples failed, for the same reason.
    pub fn fail(mut self, fault: impl Into<Fault>) {
        if let Some(acks) = self.acks.take() {
            let failure = Failure::error(fault, acks.component().clone());
            acks.fail(&mut self.lineage, self.rows as u64, &failure);
        }
    }

    /// Settles each tuple by its own outcome, in the order of the batch: `Ok` acks, `Err` fails. For
    /// stores that answer row by row. Tuples beyond the end of `outcomes` are failed as dropped.
    pub fn settle(mut self, outcomes: impl IntoIterator<Item = Result<(), Fault>>) {
        let Some(acks) = self.acks.take() else { return };
        let total = self.rows;
        let (mut acked, mut done) = (Lineage::new(), 0);
        let mut acked_rows = 0;
        let mut rows = self.lineage.drain();
        let mut outcomes = outcomes.into_iter();
        while done < total
            && let Some(outcome) = outcomes.next()
            && let Some(token) = rows.next()
        {
            done += 1;
            match outcome {
                Ok(()) => {
                    acked_rows += 1;
                    acked.push_settled(token);
                }
                Err(fault) => {
                    let mut lost = Lineage::new();
                    lost.push(token);
                    let failure = Failure::error(fault, acks.component().clone());
                    acks.fail(&mut lost, 1, &failure);
                }
            }
        }
        let mut rest = rows.into_rest();
        if acked_rows > 0 {
            acks.settle(&mut acked, acked_rows, Some(self.received));
        }
        if done < total {
            drop_unsettled(&*acks, &mut rest, (total - done) as u64);
        }
    }

    /// Starts the message timeout of all the tuples' roots anew.
    pub fn reset_timeout(&self) {
        if let Some(acks) = &self.acks {
            acks.reset_timeout(&mut self.lineage.clone());
        }
    }

    /// One [`Anchor`] a tuple, in order.
    pub fn into_each(mut self) -> Vec<Anchor> {
        let Some(acks) = self.acks.take() else { return Vec::new() };
        let received = self.received;
        self.lineage.drain().map(|token| Anchor::new(token, received, acks.clone())).collect()
    }
}

impl Drop for Anchors {
    fn drop(&mut self) {
        if let Some(acks) = self.acks.take()
            && self.rows > 0
        {
            drop_unsettled(&*acks, &mut self.lineage, self.rows as u64);
        }
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchors({})", self.rows)
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
        let acks = self.acks.take();
        let values = std::mem::take(&mut self.tuples.values);
        let lineage = std::mem::take(&mut self.tuples.lineage);
        let rows = values.len();
        (values, Anchors { lineage, rows, received: self.received, acks })
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
        mut self,
        out: &mut Emitter<O>,
        mut execute: impl FnMut(T, &mut Emitter<O>) -> Result<(), Fault>,
    ) {
        self.acks = None;
        let EdgeBatch { values, lineage } = &mut self.tuples;
        let mut tokens = lineage.drain();
        let mut rows = values.drain(..);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for value in rows.by_ref() {
                out.begin_tuple(tokens.next().unwrap_or_default());
                match execute(value, out) {
                    Ok(()) => out.finish_tuple(),
                    Err(fault) => out.fail_tuple(FailureKind::Error, fault),
                }
            }
        }));
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
    pub fn map<U: Clone + Send + 'static>(
        mut self,
        out: &mut Emitter<Output<U>>,
        mut map: impl FnMut(T) -> U,
    ) {
        self.acks = None;
        let EdgeBatch { values, lineage } = &mut self.tuples;
        let before = out.output_mut().len();
        let mut rows = values.drain(..);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            out.output_mut().extend(rows.by_ref().map(&mut map));
        }));
        if let Err(panic) = outcome {
            let mapped = out.output_mut().len() - before;
            let mut tokens = lineage.drain();
            for token in tokens.by_ref().take(mapped) {
                out.output_mut().adopt(token);
            }
            out.count_acked(mapped as u64);
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
