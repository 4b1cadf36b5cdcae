//! The handle of several tuples that a bolt keeps.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use galerna_lock::Mutex;

use crate::anchor::{Anchor, AnchorSet, Weight, drop_unsettled, error};
use crate::failure::{Failure, FailureKind, Fault};
use crate::lineage::{AckToken, Lineage, ShareRng};
use crate::runtime::AckSender;

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
/// dropped without being acked or failed fails. Anchors are made of the tuples of a [`Batch`](crate::Batch), or collected from single
/// ones; they can be [merged](Self::merge) and [split](Self::split_off), and tuples can be emitted anchored to all of them
/// ([`Output::emit_anchored`](crate::Output::emit_anchored)).
#[must_use = "dropping anchors fails their roots"]
#[derive(Default)]
pub struct Anchors {
    // A lock for the same reason as an anchor's.
    parts: Mutex<Vec<Part>>,
}

impl Anchors {
    pub(crate) fn of(lineage: Lineage, rows: usize, received: u64, acks: Arc<dyn AckSender>) -> Self {
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
