//! What a bolt emits through.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use crate::anchor::Anchor;
use crate::context::TaskContext;
use crate::failure::{Failure, FailureKind};
use crate::lineage::{Holding, Lineage, Shares};
use crate::outputs::{Division, Output, Outputs};
use crate::runtime::{Link, Lost, Parcel, Shipments};

/// A bolt's outputs, and the tuple at hand.
///
/// It dereferences to the outputs, so with one output it reads `out.emit(value)` and with several
/// `out.valid.emit(value)`. Emitting only stages the value: it neither waits nor fails, and the engine
/// sends it on after the call, waiting there when downstream is full.
pub struct Emitter<O> {
    outputs: O,
    row: Holding,
    shares: Shares,
    link: Arc<dyn Link>,
    context: TaskContext,
    shipments: Shipments,
    acked: u64,
    kept: bool,
    aside: Aside,
    spare: Option<Box<dyn Any + Send>>,
}

/// Where a batch leaves the tuples it had not reached when its bolt panicked.
pub(crate) type Aside = Arc<Mutex<Option<Box<dyn Any + Send>>>>;

impl<O: Outputs> Emitter<O> {
    pub(crate) fn new(outputs: O, seed: u64, link: Arc<dyn Link>, context: TaskContext) -> Self {
        Self {
            outputs,
            row: Holding::Untracked,
            shares: Shares::new(seed),
            link,
            context,
            shipments: Shipments::default(),
            acked: 0,
            kept: false,
            aside: Aside::default(),
            spare: None,
        }
    }

    /// Keeps the tuple at hand: returning `Ok` from `execute` no longer acks it, the handle does.
    pub fn keep(&mut self) -> Anchor {
        self.kept = true;
        Anchor::new(self.row.divide(&mut self.shares), self.link.now(), self.link.clone())
    }

    /// Where this task stands in its topology.
    pub fn context(&self) -> &TaskContext {
        &self.context
    }

    /// Starts the tuple with this holding.
    #[inline]
    pub(crate) fn begin(&mut self, row: Holding) {
        self.row = row;
    }

    /// The tuple at hand was executed with `Ok`.
    #[inline]
    pub(crate) fn done(&mut self) {
        let emitted = self.outputs.unsealed();
        let row = std::mem::take(&mut self.row);
        if self.kept {
            self.kept = false;
        } else {
            self.acked += 1;
        }
        if emitted == 0 {
            self.shipments.acked.push_settled(row);
            if self.outputs.has_special() {
                self.outputs.seal(&mut Division::new(Holding::Untracked, 0, &mut self.shares));
            }
        } else if let (1, &Holding::Whole(root)) = (emitted, &row) {
            self.outputs.seal_whole(root, &mut self.shares);
        } else {
            self.outputs.seal(&mut Division::new(row, emitted, &mut self.shares));
        }
    }

    /// The tuple at hand failed.
    #[cold]
    pub(crate) fn failed(&mut self, kind: FailureKind, reason: Arc<str>) {
        self.outputs.discard();
        self.kept = false;
        let mut lost = Lineage::new();
        lost.push(std::mem::take(&mut self.row));
        let failure = Failure::new(kind, reason, self.link.component().clone());
        self.link.fail(&mut lost, 1, &failure);
    }

    /// Seals what was emitted with no tuple at hand (tick, progress, close).
    pub(crate) fn done_unanchored(&mut self) {
        self.row = Holding::Untracked;
        self.kept = false;
        self.outputs.seal(&mut Division::new(Holding::Untracked, 0, &mut self.shares));
    }

    pub(crate) fn put_aside(&mut self, rest: Box<dyn Any + Send>) {
        *self.aside.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
    }

    pub(crate) fn take_aside(&mut self) -> Option<Box<dyn Any + Send>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn aside(&self) -> Aside {
        self.aside.clone()
    }

    pub(crate) fn count_acked(&mut self, tuples: u64) {
        self.acked += tuples;
    }

    /// Takes an emptied parcel, for its memory.
    pub(crate) fn give_back<T: Send + 'static>(&mut self, parcel: Parcel<T>) {
        match self.spare.as_mut().and_then(|spare| spare.downcast_mut::<Parcel<T>>()) {
            Some(spare) => *spare = parcel,
            None => self.spare = Some(Box::new(parcel)),
        }
    }

    /// The box in which the next parcel came: filled again by [`give_back`](Self::give_back).
    pub(crate) fn hold_box(&mut self, emptied: Box<dyn Any + Send>) {
        self.spare = Some(emptied);
    }

    pub(crate) fn take_spare(&mut self) -> Option<Box<dyn Any + Send>> {
        self.spare.take()
    }

    /// Routes what is staged and tells the ledger what is done.
    pub(crate) fn flush(&mut self, all: bool) {
        self.outputs.route(all, &mut self.shipments);
        if !self.shipments.lost.is_empty() {
            let lost = std::mem::take(&mut self.shipments.lost);
            self.lose(lost);
        }
        if self.acked > 0 || !self.shipments.acked.is_empty() {
            self.link.settle(&mut self.shipments.acked, self.acked, None);
            self.shipments.acked.clear();
            self.shipments.returned += self.acked;
            self.acked = 0;
        }
    }

    /// These tuples reach nobody: their roots fail here.
    #[cold]
    pub(crate) fn lose(&mut self, lost: Vec<Lost>) {
        for Lost { mut lineage, rows, fault } in lost {
            let component = self.link.component().clone();
            let failure = Failure::new(FailureKind::Panic, fault.into_reason(), component);
            self.link.fail(&mut lineage, rows, &failure);
        }
    }

    pub(crate) fn shipments(&mut self) -> &mut Shipments {
        &mut self.shipments
    }

    pub(crate) fn link(&self) -> &Arc<dyn Link> {
        &self.link
    }
}

impl<O> Drop for Emitter<O> {
    fn drop(&mut self) {
        // A call was cut off in the middle of a tuple (its task was aborted): the tuple must not just vanish.
        if self.row.is_tracked() {
            let mut lost = Lineage::new();
            lost.push(std::mem::take(&mut self.row));
            let failure = Failure::new(
                FailureKind::Dropped,
                "the bolt was aborted while it had the tuple",
                self.link.component().clone(),
            );
            self.link.fail(&mut lost, 1, &failure);
        }
    }
}

impl<T> Emitter<Output<T>> {
    pub(crate) fn output_mut(&mut self) -> &mut Output<T> {
        &mut self.outputs
    }
}

impl<O> Deref for Emitter<O> {
    type Target = O;

    fn deref(&self) -> &O {
        &self.outputs
    }
}

impl<O> DerefMut for Emitter<O> {
    #[inline]
    fn deref_mut(&mut self) -> &mut O {
        &mut self.outputs
    }
}

impl<O> fmt::Debug for Emitter<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter").field("context", &self.context).finish_non_exhaustive()
    }
}
