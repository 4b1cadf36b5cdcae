//! What a bolt emits through.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use crate::anchor::{Anchor, KeptTuple, Weight};
use crate::context::TaskContext;
use crate::failure::{Failure, FailureKind, Fault};
use crate::lineage::{AckToken, Lineage, ShareRng};
use crate::outputs::{Output, Outputs, TokenSplitter};
use crate::runtime::{AckSender, EdgeBatch, LostTuples, Staged};

/// A bolt's outputs, and the tuple at hand.
///
/// It dereferences to the outputs, so with one output it reads `out.emit(value)` and with several
/// `out.valid.emit(value)`. Emitting only stages the value: it neither waits nor fails, and the engine
/// sends it on after the call, waiting there when downstream is full.
pub struct Emitter<O> {
    outputs: O,
    row: AckToken,
    /// Whether a tuple is being executed.
    at_hand: bool,
    shares: ShareRng,
    acks: Arc<dyn AckSender>,
    context: TaskContext,
    staged: Staged,
    acked: u64,
    kept: Option<Arc<KeptTuple>>,
    unreached: UnreachedSlot,
    spare: Option<Box<dyn Any + Send>>,
}

/// Where a batch leaves the tuples it had not reached when its bolt panicked.
pub(crate) type UnreachedSlot = Arc<Mutex<Option<Box<dyn Any + Send>>>>;

impl<O: Outputs> Emitter<O> {
    pub(crate) fn new(outputs: O, seed: u64, acks: Arc<dyn AckSender>, context: TaskContext) -> Self {
        Self {
            outputs,
            row: AckToken::Untracked,
            at_hand: false,
            shares: ShareRng::new(seed),
            acks,
            context,
            staged: Staged::default(),
            acked: 0,
            kept: None,
            unreached: UnreachedSlot::default(),
            spare: None,
        }
    }

    /// Keeps the tuple at hand: returning `Ok` from `execute` no longer acks it, the handle does. A tuple kept several times is
    /// acked when all its handles are, and counts once. With no tuple at hand (in `tick`, `progress`, `close`) the handle is
    /// of nothing.
    pub fn keep(&mut self) -> Anchor {
        let weight = if self.at_hand {
            let kept = self.kept.get_or_insert_with(KeptTuple::new);
            kept.add_handle();
            Weight::Kept(kept.clone())
        } else {
            Weight::Nothing
        };
        Anchor::new(self.row.split(&mut self.shares), self.acks.now(), weight, self.acks.clone())
    }

    /// Where this task stands in its topology.
    pub fn context(&self) -> &TaskContext {
        &self.context
    }

    /// Starts the tuple with this token.
    #[inline]
    pub(crate) fn begin_tuple(&mut self, row: AckToken) {
        self.row = row;
        self.at_hand = true;
    }

    /// The tuple at hand was executed with `Ok`.
    #[inline]
    pub(crate) fn finish_tuple(&mut self) {
        let emitted = self.outputs.unsealed();
        let row = std::mem::take(&mut self.row);
        self.at_hand = false;
        self.acked += match self.kept.take() {
            None => 1,
            Some(kept) => kept.ack(),
        };
        if emitted == 0 {
            self.staged.acked.push_settled(row);
            if self.outputs.has_own_tokens() {
                self.outputs.seal(&mut TokenSplitter::new(AckToken::Untracked, 0, &mut self.shares));
            }
        } else if let (1, &AckToken::Whole(root)) = (emitted, &row) {
            self.outputs.seal_whole(root, &mut self.shares);
        } else {
            self.outputs.seal(&mut TokenSplitter::new(row, emitted, &mut self.shares));
        }
    }

    /// The tuple at hand failed, if there is one. What was emitted meanwhile anchored to it is taken back.
    #[cold]
    pub(crate) fn fail_tuple(&mut self, kind: FailureKind, fault: Fault) {
        self.outputs.discard();
        let kept = self.kept.take();
        if !std::mem::take(&mut self.at_hand) {
            return;
        }
        let tuples = kept.map_or(1, |kept| kept.fail());
        let mut lost = Lineage::new();
        lost.push(std::mem::take(&mut self.row));
        let failure = Failure { kind, fault, component: self.acks.component().clone() };
        self.acks.fail(&mut lost, tuples, &failure);
    }

    /// Seals what was emitted with no tuple at hand (tick, progress, close).
    pub(crate) fn seal_unanchored(&mut self) {
        self.row = AckToken::Untracked;
        self.at_hand = false;
        self.kept = None;
        self.outputs.seal(&mut TokenSplitter::new(AckToken::Untracked, 0, &mut self.shares));
    }

    pub(crate) fn store_unreached(&mut self, rest: Box<dyn Any + Send>) {
        *self.unreached.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
    }

    pub(crate) fn take_unreached(&mut self) -> Option<Box<dyn Any + Send>> {
        self.unreached.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn unreached(&self) -> UnreachedSlot {
        self.unreached.clone()
    }

    pub(crate) fn count_acked(&mut self, tuples: u64) {
        self.acked += tuples;
    }

    /// Takes an emptied batch, for its memory.
    pub(crate) fn recycle<T: Send + 'static>(&mut self, tuples: EdgeBatch<T>) {
        match self.spare.as_mut().and_then(|spare| spare.downcast_mut::<EdgeBatch<T>>()) {
            Some(spare) => *spare = tuples,
            None => self.spare = Some(Box::new(tuples)),
        }
    }

    /// The box in which the next batch came: filled again by [`recycle`](Self::recycle).
    pub(crate) fn set_spare(&mut self, emptied: Box<dyn Any + Send>) {
        self.spare = Some(emptied);
    }

    pub(crate) fn take_spare(&mut self) -> Option<Box<dyn Any + Send>> {
        self.spare.take()
    }

    /// Routes what is staged and tells the ledger what is done.
    pub(crate) fn flush(&mut self, all: bool) {
        self.outputs.route(all, &mut self.staged);
        if !self.staged.lost.is_empty() {
            let lost = std::mem::take(&mut self.staged.lost);
            self.lose(lost);
        }
        if self.acked > 0 || !self.staged.acked.is_empty() {
            self.acks.settle(&mut self.staged.acked, self.acked, None);
            self.staged.acked.clear();
            self.staged.returned += self.acked;
            self.acked = 0;
        }
    }

    /// These tuples reach nobody: their roots fail here.
    #[cold]
    pub(crate) fn lose(&mut self, lost: Vec<LostTuples>) {
        for LostTuples { mut lineage, rows, kind, fault } in lost {
            let component = self.acks.component().clone();
            let failure = Failure { kind, fault, component };
            self.acks.fail(&mut lineage, rows, &failure);
        }
    }

    pub(crate) fn staged(&mut self) -> &mut Staged {
        &mut self.staged
    }

    pub(crate) fn acks(&self) -> &Arc<dyn AckSender> {
        &self.acks
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
                self.acks.component().clone(),
            );
            self.acks.fail(&mut lost, 1, &failure);
        }
    }
}

impl<T> Emitter<Output<T>> {
    pub(crate) fn output_mut(&mut self) -> &mut Output<T> {
        &mut self.outputs
    }
}

/// Implemented by nothing: its message is what emitting on no outputs says.
#[diagnostic::on_unimplemented(
    message = "this bolt has no outputs to emit a `{Self}` on",
    label = "`type Outputs = ()` means that nothing is emitted",
    note = "say `type Outputs = Output<{Self}>` and take `out: &mut Emitter<Output<{Self}>>`; several outputs are declared with `outputs!`"
)]
pub trait NothingToEmitOn {}

impl Emitter<()> {
    #[doc(hidden)]
    pub fn emit<T: NothingToEmitOn>(&mut self, _value: T) {}
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
