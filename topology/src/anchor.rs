//! Tuples on their way: batches, and the handles of tuples that a bolt keeps.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use galerna_lock::Mutex;

use crate::emitter::{Emitter, only_stable_id};
use crate::failure::{Failure, FailureKind, Fault};
use crate::kept_tuple::KeptTuple;
use crate::lineage::{AckToken, Lineage, ShareRng};
use crate::outputs::{Output, Outputs};
use crate::runtime::{AckSender, EdgeBatch};

/// What the end of a handle counts for.
#[derive(Debug, Clone)]
pub(crate) enum Weight {
    /// No tuple was at hand when it was made.
    Nothing,
    /// The only handle of a tuple.
    Tuple,
    /// One of perhaps several handles of a tuple.
    Kept(Arc<KeptTuple>),
}

impl Weight {
    fn ack(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Tuple => 1,
            Self::Kept(tuple) => tuple.ack(),
        }
    }

    fn fail(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Tuple => 1,
            Self::Kept(tuple) => tuple.fail(),
        }
    }
}

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
    weight: Weight,
    acks: Option<Arc<dyn AckSender>>,
}

impl Anchor {
    pub(crate) fn new(token: AckToken, received: u64, weight: Weight, acks: Arc<dyn AckSender>) -> Self {
        Self { token: Mutex::new(token), received, weight, acks: Some(acks) }
    }

    fn take(&mut self) -> Lineage {
        let token = std::mem::take(&mut *self.token.get_mut());
        let mut lineage = Lineage::new();
        lineage.push(token);
        lineage
    }

    /// The stable id of the tuple's message; see [`Emitter::stable_id`].
    pub fn stable_id(&self) -> Option<Arc<str>> {
        let token = self.token.lock();
        only_stable_id(&token, &**self.acks.as_ref()?)
    }

    /// Whether a spout waits for this tuple.
    pub fn is_tracked(&self) -> bool {
        self.token.lock().is_tracked()
    }

    /// The tuple is done.
    pub fn ack(mut self) {
        if let Some(acks) = self.acks.take() {
            acks.settle(&mut self.take(), self.weight.ack(), Some(self.received));
        }
    }

    /// The tuple failed: its root fails at once with this reason and the bolt's component id.
    pub fn fail(mut self, fault: impl Into<Fault>) {
        if let Some(acks) = self.acks.take() {
            let failure = error(fault.into(), &*acks);
            acks.fail(&mut self.take(), self.weight.fail(), &failure);
        }
    }

    /// As [`fail`](Self::fail), by another event than a returned error.
    pub(crate) fn fail_as(mut self, kind: FailureKind, fault: Fault) {
        if let Some(acks) = self.acks.take() {
            let failure = Failure { kind, fault, component: acks.component().clone() };
            acks.fail(&mut self.take(), self.weight.fail(), &failure);
        }
    }

    /// Starts the message timeout of the tuple's roots anew, for work known to take long.
    pub fn reset_timeout(&self) {
        if let Some(acks) = &self.acks {
            let token = self.token.lock().clone();
            let mut lineage = Lineage::new();
            lineage.push(token);
            acks.reset_timeout(&mut lineage);
        }
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        if let Some(acks) = self.acks.take() {
            drop_unsettled(&*acks, &mut self.take(), self.weight.fail());
        }
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchor({:?})", self.token)
    }
}

fn error(fault: Fault, acks: &dyn AckSender) -> Failure {
    Failure::error(fault, acks.component().clone())
}

fn drop_unsettled(acks: &dyn AckSender, lineage: &mut Lineage, tuples: u64) {
    let failure = if std::thread::panicking() {
        Failure::new(FailureKind::Panic, "the bolt panicked while it had the tuple", acks.component().clone())
    } else {
        Failure::new(FailureKind::Dropped, "dropped without ack or fail", acks.component().clone())
    };
    acks.fail(lineage, tuples, &failure);
}

/// What a tuple can be emitted anchored to: [`&Anchors`](Anchors), several of them as [`AllAnchors`], or whatever iterates over [`&Anchor`](Anchor).
pub trait AnchorSet {
    #[doc(hidden)]
    fn split_tokens(self, shares: &mut ShareRng) -> AckToken;
}

impl<'a, I: IntoIterator<Item = &'a Anchor>> AnchorSet for I {
    fn split_tokens(self, shares: &mut ShareRng) -> AckToken {
        let split = |anchor: &Anchor| anchor.token.lock().split(shares);
        AckToken::merge_all(self.into_iter().map(split))
    }
}

/// Several [`Anchors`], to emit a tuple anchored to all that they hold.
#[derive(Debug, Clone, Copy)]
pub struct AllAnchors<'a>(pub &'a [&'a Anchors]);

impl AnchorSet for AllAnchors<'_> {
    fn split_tokens(self, shares: &mut ShareRng) -> AckToken {
        AckToken::merge_all(self.0.iter().map(|anchors| anchors.split_tokens(shares)))
    }
}

impl AnchorSet for &Anchors {
    fn split_tokens(self, shares: &mut ShareRng) -> AckToken {
        let mut parts = self.parts.lock();
        let mut tokens: Vec<AckToken> = Vec::new();
        for part in parts.iter_mut() {
            let mut copy = part.lineage.split(shares);
            tokens.extend(copy.drain());
        }
        AckToken::merge_all(tokens)
    }
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

/// Handles that settle through one task, in order.
struct Part {
    lineage: Lineage,
    rows: usize,
    /// What each counts for; empty if each is the only handle of its tuple.
    weights: Vec<Weight>,
    /// When they came, for how many rows each.
    received: Vec<(u64, usize)>,
    acks: Arc<dyn AckSender>,
}

impl Part {
    fn count_failed(&self) -> u64 {
        if self.weights.is_empty() { self.rows as u64 } else { self.weights.iter().map(Weight::fail).sum() }
    }

    fn ack(mut self) {
        if self.weights.is_empty() {
            for (at, (received, rows)) in self.received.iter().enumerate() {
                // All tokens go back with the first of the runs; the others only count.
                let mut none = Lineage::new();
                let lineage = if at == 0 { &mut self.lineage } else { &mut none };
                self.acks.settle(lineage, *rows as u64, Some(*received));
            }
            return;
        }
        let mut weights = self.weights.iter();
        for (at, (received, rows)) in self.received.iter().enumerate() {
            let tuples = weights.by_ref().take(*rows).map(Weight::ack).sum();
            let mut none = Lineage::new();
            let lineage = if at == 0 { &mut self.lineage } else { &mut none };
            self.acks.settle(lineage, tuples, Some(*received));
        }
    }

    fn fail(mut self, failure: &Failure) {
        let tuples = self.count_failed();
        self.acks.fail(&mut self.lineage, tuples, failure);
    }

    /// Leaves the first `at` rows here and returns the others.
    fn split_off(&mut self, at: usize) -> Self {
        let mut rows = self.lineage.drain();
        let mut first = Lineage::new();
        rows.by_ref().take(at).for_each(|token| first.push(token));
        let rest = rows.into_rest();
        let weights = if self.weights.is_empty() { Vec::new() } else { self.weights.split_off(at) };
        let (mut early, mut late) = (Vec::new(), Vec::new());
        let mut left = at;
        for (received, rows) in self.received.drain(..) {
            let before = rows.min(left);
            left -= before;
            if before > 0 {
                early.push((received, before));
            }
            if before < rows {
                late.push((received, rows - before));
            }
        }
        let other =
            Self { lineage: rest, rows: self.rows - at, weights, received: late, acks: self.acks.clone() };
        (self.lineage, self.rows, self.received) = (first, at, early);
        other
    }

    /// Whether `other` can go behind this.
    fn takes(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.acks, &other.acks) && self.weights.is_empty() == other.weights.is_empty()
    }

    fn append(&mut self, mut other: Self) {
        self.lineage.append(&mut other.lineage);
        self.rows += other.rows;
        self.weights.append(&mut other.weights);
        for (received, rows) in other.received {
            match self.received.last_mut() {
                Some((last, count)) if *last == received => *count += rows,
                _ => self.received.push((received, rows)),
            }
        }
    }
}

/// The handle of several kept tuples, apart from their values: acks or fails all or some of them.
///
/// Acking a whole batch costs one message however many tuples it has. Like an [`Anchor`], what is
/// dropped without being acked or failed fails. Anchors are made of the tuples of a [`Batch`], or collected from single
/// ones; they can be [merged](Self::merge) and [split](Self::split_off), and tuples can be emitted anchored to all of them
/// ([`Output::emit_anchored`]).
#[must_use = "dropping anchors fails their roots"]
#[derive(Default)]
pub struct Anchors {
    // A lock for the same reason as an anchor's.
    parts: Mutex<Vec<Part>>,
}

impl Anchors {
    fn of(lineage: Lineage, rows: usize, received: u64, acks: Arc<dyn AckSender>) -> Self {
        let part = Part { lineage, rows, weights: Vec::new(), received: vec![(received, rows)], acks };
        Self { parts: Mutex::new(if rows > 0 { vec![part] } else { Vec::new() }) }
    }

    fn parts(&mut self) -> &mut Vec<Part> {
        self.parts.get_mut()
    }

    /// How many tuples it holds.
    pub fn len(&self) -> usize {
        self.parts.lock().iter().map(|part| part.rows).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.parts.lock().is_empty()
    }

    /// All tuples are done.
    pub fn ack(mut self) {
        self.parts().drain(..).for_each(Part::ack);
    }

    /// All tuples failed, for the same reason.
    pub fn fail(mut self, fault: impl Into<Fault>) {
        let fault = fault.into();
        for part in self.parts().drain(..) {
            let failure = error(fault.clone(), &*part.acks);
            part.fail(&failure);
        }
    }

    /// Settles each tuple by its own outcome, in the order of the batch: `Ok` acks, `Err` fails. For
    /// stores that answer row by row. Tuples beyond the end of `outcomes` are failed as dropped.
    ///
    /// # Panics
    /// A panic of `outcomes` passes through, after the tuples that it had no outcome for have failed.
    pub fn settle(mut self, outcomes: impl IntoIterator<Item = Result<(), Fault>>) {
        let mut outcomes = outcomes.into_iter();
        // Why there are no more outcomes: what `outcomes` panicked with, or nothing.
        let mut ended: Option<Option<Box<dyn Any + Send>>> = None;
        let mut unsettled = Vec::new();
        for part in std::mem::take(self.parts()) {
            if ended.is_some() {
                unsettled.push(part);
                continue;
            }
            let Part { mut lineage, rows, weights, received, acks } = part;
            let (mut tokens, mut weights) = (lineage.drain(), weights.into_iter());
            let (mut acked, mut counts, mut done) = (Lineage::new(), Vec::new(), 0);
            'rows: for (received, run) in received {
                let mut tuples = 0;
                for _ in 0..run {
                    let outcome = match catch_unwind(AssertUnwindSafe(|| outcomes.next())) {
                        Ok(Some(outcome)) => outcome,
                        Ok(None) => {
                            ended = Some(None);
                            counts.push((received, tuples));
                            break 'rows;
                        }
                        Err(panic) => {
                            ended = Some(Some(panic));
                            counts.push((received, tuples));
                            break 'rows;
                        }
                    };
                    let token = tokens.next().unwrap_or_default();
                    let weight = weights.next().unwrap_or(Weight::Tuple);
                    done += 1;
                    match outcome {
                        Ok(()) => {
                            tuples += weight.ack();
                            acked.push_settled(token);
                        }
                        Err(fault) => {
                            let mut lost = Lineage::new();
                            lost.push(token);
                            acks.fail(&mut lost, weight.fail(), &error(fault, &*acks));
                        }
                    }
                }
                counts.push((received, tuples));
            }
            let rest = tokens.into_rest();
            for (received, tuples) in counts {
                acks.settle(&mut acked, tuples, Some(received));
            }
            if done < rows {
                let (weights, received) = (weights.collect(), Vec::new());
                unsettled.push(Part { lineage: rest, rows: rows - done, weights, received, acks });
            }
        }
        let panicked = ended.flatten();
        for part in unsettled {
            let component = part.acks.component().clone();
            let failure = match &panicked {
                Some(panic) => {
                    Failure { kind: FailureKind::Panic, fault: Fault::panicked(&**panic), component }
                }
                None => Failure::new(FailureKind::Dropped, "dropped without ack or fail", component),
            };
            part.fail(&failure);
        }
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
    }

    /// Starts the message timeout of all the tuples' roots anew.
    pub fn reset_timeout(&self) {
        for part in self.parts.lock().iter() {
            part.acks.reset_timeout(&mut part.lineage.clone());
        }
    }

    /// Takes those of `other` over, behind its own.
    pub fn merge(&mut self, mut other: Self) {
        for part in other.parts().drain(..) {
            self.push_part(part);
        }
    }

    fn push_part(&mut self, part: Part) {
        let parts = self.parts();
        match parts.last_mut() {
            Some(last) if last.takes(&part) => last.append(part),
            _ => parts.push(part),
        }
    }

    /// Keeps the first `at` tuples and returns the others; none if it has no more than `at`.
    pub fn split_off(&mut self, at: usize) -> Self {
        let (mut kept, mut other, mut left) = (Vec::new(), Self::default(), at);
        for mut part in self.parts().drain(..) {
            if left >= part.rows {
                left -= part.rows;
                kept.push(part);
            } else if left == 0 {
                other.parts().push(part);
            } else {
                let rest = part.split_off(left);
                left = 0;
                kept.push(part);
                other.parts().push(rest);
            }
        }
        *self.parts() = kept;
        other
    }

    /// One [`Anchor`] a tuple, in order.
    pub fn into_each(mut self) -> Vec<Anchor> {
        let mut each = Vec::new();
        for mut part in self.parts().drain(..) {
            let mut tokens = part.lineage.drain();
            let mut weights = part.weights.into_iter();
            for (received, rows) in part.received {
                each.extend(tokens.by_ref().take(rows).map(|token| {
                    let weight = weights.next().unwrap_or(Weight::Tuple);
                    Anchor::new(token, received, weight, part.acks.clone())
                }));
            }
        }
        each
    }
}

impl Extend<Anchor> for Anchors {
    fn extend<I: IntoIterator<Item = Anchor>>(&mut self, anchors: I) {
        for mut anchor in anchors {
            let Some(acks) = anchor.acks.take() else { continue };
            let weights = match &anchor.weight {
                Weight::Tuple => Vec::new(),
                other => vec![other.clone()],
            };
            let received = vec![(anchor.received, 1)];
            self.push_part(Part { lineage: anchor.take(), rows: 1, weights, received, acks });
        }
    }
}

impl FromIterator<Anchor> for Anchors {
    fn from_iter<I: IntoIterator<Item = Anchor>>(anchors: I) -> Self {
        let mut all = Self::default();
        all.extend(anchors);
        all
    }
}

impl Drop for Anchors {
    fn drop(&mut self) {
        for mut part in self.parts().drain(..) {
            let tuples = part.count_failed();
            drop_unsettled(&*part.acks, &mut part.lineage, tuples);
        }
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchors({})", self.len())
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
