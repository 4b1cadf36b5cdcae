//! What a bolt emits through.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use galerna_lock::Mutex;

use crate::anchor::{Anchor, Weight};
use crate::context::TaskContext;
use crate::failure::{Failure, FailureKind, Fault};
use crate::kept_tuple::KeptTuple;
use crate::lineage::{AckToken, Lineage, ShareRng};
use crate::outputs::{Output, Outputs, TokenSplitter};
use crate::router::{SharedRouter, fail_lost, settle};
use crate::runtime::{
    AckSender, Delivery, Destination, Destinations, EdgeBatch, LostTuples, RemainingTuples, Signal, Staged,
    Subscription, destinations_of,
};
use crate::task_metrics::WatermarkState;
use crate::watermark::{Sender, Timestamp, Watermark, Watermarks};

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
    /// A part of what each tuple of the batch holds that the bolt has as a whole: what it emits then is anchored to all of them.
    batch: Lineage,
    has_outputs: bool,
    shares: ShareRng,
    acks: Arc<dyn AckSender>,
    context: TaskContext,
    staged: Staged,
    acked: u64,
    kept: Option<Arc<KeptTuple>>,
    unreached: UnreachedSlot,
    spare: Option<Box<dyn Any + Send>>,
    subscriptions: Arc<[Subscription]>,
    destinations: Destinations,
    /// The batch being executed.
    delivery: Option<Delivery>,
    /// Whether the bolt takes tuple by tuple.
    by_row: bool,
    /// What distributes the rows, where that may happen in the middle of a batch.
    router: Option<SharedRouter<O>>,
    /// How far those that send here have come.
    watermarks: Watermarks,
    /// What those behind were told last.
    announced: Announced,
    /// Whether somebody has said something since.
    watermark_came: bool,
}

/// What a task has told those behind it.
#[derive(Debug, Clone, Copy, Default)]
struct Announced {
    at: Option<Timestamp>,
    idle: bool,
}

/// The stable id of the one message that a tuple came from.
pub(crate) fn only_stable_id(token: &AckToken, acks: &dyn AckSender) -> Option<Arc<str>> {
    let mut roots = token.roots();
    let root = roots.next()?;
    roots.next().is_none().then(|| acks.stable_id(root)).flatten()
}

/// Where a tuple came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    input: usize,
    task: usize,
    subscription: &'a Subscription,
}

impl<'a> Origin<'a> {
    /// The index of the subscription it came by, in the order in which the bolt declared them.
    pub fn input(&self) -> usize {
        self.input
    }

    /// The id of the component that emitted it.
    pub fn component(&self) -> &'a str {
        &self.subscription.component
    }

    /// The name of that component's output.
    pub fn stream(&self) -> &'a str {
        &self.subscription.stream
    }

    /// The index of the task that emitted it.
    pub fn task(&self) -> usize {
        self.task
    }
}

/// Those that send to a task, as they are before any has said anything.
fn senders(subscriptions: &[Subscription]) -> Watermarks {
    let mut watermarks = Watermarks::new();
    for (input, subscription) in subscriptions.iter().enumerate() {
        for task in subscription.senders.clone() {
            watermarks.add(Sender { input, task }, !subscription.has_watermarks);
        }
    }
    watermarks
}

/// Where a batch leaves the tuples it had not reached when its bolt panicked.
pub(crate) type UnreachedSlot = Arc<Mutex<Option<Box<dyn Any + Send>>>>;

impl<O: Outputs> Emitter<O> {
    pub(crate) fn new(
        outputs: O,
        seed: u64,
        acks: Arc<dyn AckSender>,
        context: TaskContext,
        subscriptions: Arc<[Subscription]>,
        destinations: Destinations,
    ) -> Self {
        Self {
            outputs,
            destinations,
            row: AckToken::Untracked,
            at_hand: false,
            batch: Lineage::new(),
            has_outputs: {
                let mut outputs = Vec::new();
                O::describe(&mut outputs);
                !outputs.is_empty()
            },
            shares: ShareRng::new(seed),
            acks,
            context,
            staged: Staged::default(),
            acked: 0,
            kept: None,
            unreached: UnreachedSlot::default(),
            spare: None,
            watermarks: senders(&subscriptions),
            announced: Announced::default(),
            watermark_came: false,
            subscriptions,
            delivery: None,
            by_row: false,
            router: None,
        }
    }

    /// As [`new`](Self::new), with another half that distributes what is emitted. `outputs` have no routes.
    pub(crate) fn with_router(mut self, router: SharedRouter<O>) -> Self {
        self.router = Some(router);
        self
    }

    /// Where the tuple or batch being executed came from; nothing in `tick`, `progress`, `drain` and `close`.
    pub fn origin(&self) -> Option<Origin<'_>> {
        let delivery = self.delivery.as_ref()?;
        let subscription = self.subscriptions.get(delivery.input)?;
        Some(Origin { input: delivery.input, task: delivery.sender as usize, subscription })
    }

    /// What the message that the tuple at hand came from is known by outside of this process, if its spout says
    /// ([`Roots::root_with_stable_id`](crate::Roots::root_with_stable_id)). Nothing if it came from several, if its root has
    /// ended (failed, or out of time) or nobody waits for it. For a batch taken as a whole see
    /// [`Batch::stable_ids`](crate::Batch::stable_ids).
    ///
    /// It takes a look into a table that all tasks share: for bolts that must notice a message delivered again.
    pub fn stable_id(&self) -> Option<Arc<str>> {
        only_stable_id(&self.row, &*self.acks)
    }

    /// As [`stable_id`](Self::stable_id), for a tuple that came from several messages: of each that has one.
    pub fn stable_ids(&self) -> Vec<Arc<str>> {
        self.row.roots().filter_map(|root| self.acks.stable_id(root)).collect()
    }

    /// The task that sent the tuple or batch being executed; nothing in `tick`, `progress`, `drain` and `close`.
    pub fn sender(&self) -> Option<Sender> {
        self.delivery
            .as_ref()
            .map(|delivery| Sender { input: delivery.input, task: delivery.sender as usize })
    }

    /// How far this task is in event time: the least watermark of its inputs that are not idle. What is emitted in `execute` comes
    /// before it, for those behind. Nothing where no watermarks come, or not from all yet.
    pub fn watermark(&self) -> Option<Timestamp> {
        self.watermarks.least()
    }

    /// The watermarks of all tasks that send here.
    pub fn watermarks(&self) -> &Watermarks {
        &self.watermarks
    }

    /// Says how far a task that sends here has come, for a bolt that reads that off the tuples: as if it had said so itself. This
    /// task's own watermark moves when the call at hand has returned.
    pub fn set_watermark(&mut self, sender: Sender, watermark: Watermark) {
        self.watermarks.set(sender, watermark);
        self.watermark_came = true;
    }

    /// Whether somebody has said something since the last time.
    pub(crate) fn take_watermark_came(&mut self) -> bool {
        std::mem::take(&mut self.watermark_came)
    }

    /// The task's own watermark, if it has risen since those behind were told.
    pub(crate) fn risen(&self) -> Option<Timestamp> {
        self.watermarks.least().filter(|least| Some(*least) > self.announced.at)
    }

    /// Tells those behind this task how far it is, if they do not know: behind all rows.
    pub(crate) fn tell_watermark(&mut self) {
        let (at, idle) = (self.watermarks.least(), self.watermarks.is_idle());
        let now = match (at > self.announced.at, idle) {
            (true, _) => Watermark::At(at.unwrap_or(Timestamp::MIN)),
            (false, true) if !self.announced.idle => Watermark::Idle,
            (false, false) if self.announced.idle => Watermark::At(at.unwrap_or(Timestamp::MIN)),
            _ => return,
        };
        self.flush(true);
        self.send(Signal::Watermark(now));
        // It has risen as those that sent became idle.
        if idle && now != Watermark::Idle && at != Some(Timestamp::MAX) {
            self.send(Signal::Watermark(Watermark::Idle));
        }
        self.announced = Announced { at, idle };
    }

    /// Sends a barrier to those behind this task, behind all rows.
    pub(crate) fn send_barrier(&mut self, checkpoint: u64) {
        self.flush(true);
        self.send(Signal::Barrier(checkpoint));
    }

    fn send(&mut self, signal: Signal) {
        if let Some(router) = &self.router {
            router.lock().signal(signal);
        } else {
            self.outputs.signal(signal, &mut self.staged);
        }
    }

    /// Has the metrics show how far this task is, and who holds it back.
    pub(crate) fn show_watermark(&self) {
        let all = &self.watermarks;
        let name = |sender: Sender| {
            let subscription = self.subscriptions.get(sender.input)?;
            Some((subscription.component.clone(), sender.task))
        };
        self.context.metrics().set_watermark(WatermarkState {
            at: all.least(),
            latest: all.senders().filter_map(|sender| all.of(sender)).max(),
            held_by: all.held_by().and_then(name),
            idle: all.idle().filter_map(name).collect(),
        });
    }

    /// Starts a batch, or ends it.
    pub(crate) fn set_delivery(&mut self, delivery: Option<Delivery>) {
        self.delivery = delivery;
    }

    /// After how many tuples to look at the clock first.
    pub(crate) fn check_after(&self) -> usize {
        self.delivery.as_ref().map_or(usize::MAX, |delivery| delivery.check_after)
    }

    /// Whether others are to have a turn.
    pub(crate) fn is_turn_over(&self) -> bool {
        self.delivery.as_ref().is_some_and(|delivery| self.context.now() >= delivery.until)
    }

    /// Starts a batch that the bolt may take as a whole. Keeps a part of its tuples' roots, if anything may be anchored to it.
    pub(crate) fn begin_batch(&mut self, lineage: &mut Lineage) {
        if self.has_outputs && !self.by_row {
            self.batch = lineage.split(&mut self.shares);
        }
    }

    /// Gives what was emitted so far its part of the batch's tokens: what follows goes tuple by tuple.
    pub(crate) fn seal_emitted(&mut self) {
        let rows = self.outputs.unsealed();
        if rows > 0 {
            let token = AckToken::merge_all(self.batch.split(&mut self.shares).drain());
            self.outputs.seal(&mut TokenSplitter::new(token, rows, &mut self.shares));
        }
    }

    /// The batch was executed: what was emitted without a tuple at hand has its part of all tuples' roots.
    pub(crate) fn finish_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        match self.outputs.unsealed() {
            0 => self.staged.acked.settle_all(&mut batch),
            rows => {
                let token = AckToken::merge_all(batch.drain());
                self.outputs.seal(&mut TokenSplitter::new(token, rows, &mut self.shares));
            }
        }
    }

    /// The bolt panicked: the part that is kept here fails with those that the bolt had.
    #[cold]
    fn fail_batch(&mut self, kind: FailureKind, fault: Fault) {
        let mut batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            let failure = Failure { kind, fault, component: self.acks.component().clone() };
            self.acks.fail(&mut batch, 0, &failure);
        }
    }

    pub(crate) fn set_by_row(&mut self) {
        self.by_row = true;
    }

    pub(crate) fn is_by_row(&self) -> bool {
        self.by_row
    }

    /// Hands what is done over to the half that distributes it, if there is one.
    pub(crate) fn hand_over(&mut self) {
        let Some(router) = &self.router else { return };
        router.lock().take_over(&mut self.outputs, &mut self.staged.acked, &mut self.acked);
    }

    /// Keeps the tuple at hand: returning `Ok` from `execute` no longer acks it, the handle does. A tuple kept several times is
    /// acked when all its handles are, and counts once. In a batch taken as a whole the handle is of all its tuples, beside the
    /// batch's own; with nothing at hand (in `tick`, `progress`, `close`) it is of nothing.
    pub fn keep(&mut self) -> Anchor {
        if !self.at_hand && !self.batch.is_empty() {
            // Of the batch: its tuples count where the bolt settles them.
            let token = AckToken::merge_all(self.batch.split(&mut self.shares).drain());
            return Anchor::new(token, self.acks.now(), Weight::Nothing, self.acks.clone());
        }
        let weight = if self.at_hand {
            let kept = self.kept.get_or_insert_with(KeptTuple::new);
            kept.add_handle();
            Weight::Kept(kept.clone())
        } else {
            Weight::Nothing
        };
        Anchor::new(self.row.split(&mut self.shares), self.acks.now(), weight, self.acks.clone())
    }

    /// Emits something, sends it on at once, and says to which tasks it goes. A component that distributes evenly may still have
    /// another of its tasks take it. What was emitted before goes first, and can no longer be taken back if the tuple at hand fails.
    ///
    /// Each call costs a batch for each of the tasks, so it is for those who need to know.
    pub fn emit_traced(&mut self, emit: impl FnOnce(&mut O)) -> Vec<Destination> {
        self.send_emitted(&[]);
        emit(&mut self.outputs);
        let destinations = self.destinations.clone();
        self.send_emitted(&destinations)
    }

    /// Sends on all that is emitted, and says where that goes.
    fn send_emitted(&mut self, destinations: &[Destination]) -> Vec<Destination> {
        let rows = self.outputs.unsealed();
        let token = if rows == 0 {
            AckToken::Untracked
        } else if self.at_hand {
            self.row.split(&mut self.shares)
        } else {
            AckToken::merge_all(self.batch.split(&mut self.shares).drain())
        };
        self.outputs.seal(&mut TokenSplitter::new(token, rows, &mut self.shares));
        if let Some(router) = self.router.clone() {
            let mut router = router.lock();
            router.take_rows(&mut self.outputs);
            let outbox = router.outbox().clone();
            let before = outbox.lock().batches.len();
            router.flush(true);
            destinations_of(&outbox.lock().batches[before..], destinations)
        } else {
            let before = self.staged.batches.len();
            self.outputs.route(true, &mut self.staged);
            destinations_of(&self.staged.batches[before..], destinations)
        }
    }

    /// Where this task stands in its topology.
    pub fn context(&self) -> &TaskContext {
        &self.context
    }

    /// Starts the tuple with this token.
    #[inline]
    pub(crate) fn begin_tuple(&mut self, row: AckToken) {
        self.row = row;
    }

    /// Tuples are executed one by one from now on, or no longer.
    pub(crate) fn set_at_hand(&mut self, at_hand: bool) {
        self.at_hand = at_hand;
    }

    /// The tuple at hand was executed with `Ok`.
    #[inline]
    pub(crate) fn finish_tuple(&mut self) {
        let emitted = self.outputs.unsealed();
        let row = std::mem::take(&mut self.row);
        self.acked += if self.kept.is_none() { 1 } else { self.ack_kept() };
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

    /// What is acked by `execute` having returned for a tuple that was kept.
    #[inline(never)]
    fn ack_kept(&mut self) -> u64 {
        self.kept.take().map_or(0, |kept| kept.ack())
    }

    /// The tuple at hand failed, if there is one. What was emitted meanwhile anchored to it is taken back.
    #[cold]
    pub(crate) fn fail_tuple(&mut self, kind: FailureKind, fault: Fault) {
        self.outputs.discard();
        let kept = self.kept.take();
        if kind == FailureKind::Panic && !self.at_hand {
            self.fail_batch(kind, fault.clone());
        }
        if !self.at_hand {
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
        *self.unreached.lock() = Some(rest);
    }

    pub(crate) fn take_unreached(&mut self) -> Option<Box<dyn Any + Send>> {
        self.unreached.lock().take()
    }

    /// Says which tuples of the batch at hand can be taken away from the bolt, where others could execute them.
    pub(crate) fn set_remaining(&self, tuples: Option<Arc<dyn RemainingTuples>>) {
        if let Some(router) = &self.router {
            router.lock().outbox().set_remaining(tuples);
        }
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
        self.hand_over();
        if let Some(router) = &self.router {
            router.lock().flush(all);
        } else {
            self.outputs.route(all, &mut self.staged);
            settle(&mut self.staged, &mut self.acked, &*self.acks);
        }
    }

    /// These tuples reach nobody: their roots fail here.
    pub(crate) fn lose(&mut self, lost: Vec<LostTuples>) {
        fail_lost(lost, &*self.acks);
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
        if self.row.is_tracked() || !self.batch.is_empty() {
            let mut lost = std::mem::take(&mut self.batch);
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
