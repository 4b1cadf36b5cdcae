//! The seam between a declared topology and the engine that runs it.
//!
//! Everything here is for engines, not for authors of topologies. The typed code (executing tuples,
//! splitting tokens, partitioning by key) is compiled here, where the types are known; an engine sees
//! tasks as trait objects that take and give whole batches as `Box<dyn Any>`, so that it costs one dynamic
//! call per batch and none per tuple. Nothing here waits, sends or knows a channel.

use std::any::Any;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use galerna_lock::Mutex;

use crate::context::{Clock, TaskContext};
use crate::failure::{Failure, FailureKind, Fault};
use crate::hot_keys::HotKeys;
use crate::lineage::{AckToken, Lineage, RootId, ShareRng};
use crate::spout::Next;
use crate::watermark::Watermark;

/// A batch of tuples of an unknown type: a `Box<EdgeBatch<T>>`.
pub type AnyBatch = Box<dyn Any + Send>;

/// A future on the heap: one per batch.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A batch on an edge: values and, beside them, their lineage.
#[derive(Debug, Clone)]
pub struct EdgeBatch<T> {
    /// The values.
    pub values: Vec<T>,
    /// What each of them holds.
    pub lineage: Lineage,
}

impl<T> Default for EdgeBatch<T> {
    fn default() -> Self {
        Self { values: Vec::new(), lineage: Lineage::new() }
    }
}

/// How tasks reach the ledgers of the spouts, also from kept tuples in other threads.
pub trait AckSender: Send + Sync {
    /// The id of the component the tuples were with.
    fn component(&self) -> &Arc<str>;
    /// The clock, in nanoseconds.
    fn now(&self) -> u64;
    /// These many tuples are done; their tokens go back. Leaves `lineage` empty. `received` is when a
    /// kept tuple reached the bolt; without it, the engine knows by itself how long they took.
    fn settle(&self, lineage: &mut Lineage, tuples: u64, received: Option<u64>);
    /// These many tuples failed, and so do all their roots. Leaves `lineage` empty.
    fn fail(&self, lineage: &mut Lineage, tuples: u64, failure: &Failure);
    /// The message timeout of these roots starts anew. Leaves `lineage` empty.
    fn reset_timeout(&self, lineage: &mut Lineage);
    /// The stable id of a root that is pending, if its spout gave one.
    fn stable_id(&self, root: RootId) -> Option<Arc<str>>;
}

/// A run of free slots for new roots.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// The root that the first slot gets.
    pub first: RootId,
    /// The first slot.
    pub slot: u32,
    /// How many slots and consecutive roots.
    pub len: u32,
    /// How many slots the slab has in all.
    pub capacity: u32,
}

impl Grant {
    /// No slots.
    pub const NONE: Self = Self { first: RootId::new(0, 0), slot: 0, len: 0, capacity: 0 };
}

/// The ledger, as an emitting spout sees it.
pub trait RootAllocator {
    /// A run of at least one free slot. The slab grows when it has none.
    fn grant(&mut self) -> Grant;
    /// The first `used` slots of the last grant are pending from now on.
    fn commit(&mut self, used: u32);
    /// What a root of the last grant is known by outside of this process, for bolts to read while it is pending. If the message
    /// has had its effect already, or is being worked on, nothing is to be emitted for it.
    fn set_stable_id(&mut self, root: RootId, id: Arc<str>) -> Delivered;
    /// How many slots the slab has in all.
    fn capacity(&self) -> usize;
    /// Whether a slot holds a pending root.
    fn is_pending(&self, slot: u32) -> bool;
}

/// What is known of a message by its stable id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Nothing: it is to be worked on.
    First,
    /// It has had its effect: the root is not to be, and its id waits for the checkpoint with this number.
    Done(u64),
    /// It is being worked on: the root fails when it is committed.
    Pending,
}

/// What an edge carries.
pub enum Content {
    /// Tuples: a `Box<EdgeBatch<T>>`.
    Rows(AnyBatch),
    /// What the sender says of itself, behind all rows that it has sent before.
    Signal(Signal),
}

/// What a task says to those behind it, beside tuples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// How far it has come in event time.
    Watermark(Watermark),
    /// What it has sent before belongs to the checkpoint with this number, what it sends later does not.
    Barrier(u64),
}

/// A batch, or what else an edge carries, ready to be sent.
pub struct OutgoingBatch {
    /// The address, as the engine gave it in [`RouteSetup`].
    pub target: u32,
    /// Which task of the emitting component it comes from.
    pub sender: u32,
    /// What there is to send.
    pub content: Content,
    /// How many tuples; none but with rows.
    pub rows: u32,
    /// What they weigh, in bytes.
    pub bytes: usize,
}

/// What a call of a task left to be sent and told.
#[derive(Default)]
pub struct Staged {
    /// Batches to send.
    pub batches: Vec<OutgoingBatch>,
    /// Ack tokens of tuples that nobody received, and of executed ones not told to the ledger yet.
    pub acked: Lineage,
    /// Tuples emitted since last taken.
    pub emitted: u64,
    /// Copies of tuples sent to tasks since last taken.
    pub transferred: u64,
    /// Tuples acked by returning from `execute` since last taken.
    pub returned: u64,
    /// Instances given up after a panic since last taken.
    pub restarts: u64,
    /// Panics outside of the component's own code since last taken: in groupings, and in the tuples'
    /// `Clone`, `Drop` and conversions.
    pub panics: u64,
    /// Tuples lost by such panics. The task of a bolt fails them itself.
    pub lost: Vec<LostTuples>,
}

/// Tuples that reach nobody, since the author's code that distributes, copies or converts them panicked, or named a task that
/// does not exist.
#[derive(Debug, Clone)]
pub struct LostTuples {
    /// What they hold. Their roots are to fail.
    pub lineage: Lineage,
    /// How many they are.
    pub rows: u64,
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What the panic said, or what was wrong.
    pub fault: Fault,
}

impl LostTuples {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { lineage: Lineage::new(), rows: 0, kind: FailureKind::Panic, fault }
    }
}

impl Staged {
    /// Such a panic cost one tuple.
    #[cold]
    pub(crate) fn lose(&mut self, token: AckToken, panic: &(dyn Any + Send)) {
        self.panics += 1;
        let mut lost = LostTuples::new(Fault::panicked(panic));
        lost.rows = 1;
        lost.lineage.push(token);
        self.lost.push(lost);
    }

    /// A tuple cannot go where it was sent.
    #[cold]
    pub(crate) fn reject(&mut self, token: AckToken, fault: Fault) {
        let mut lost = LostTuples { rows: 1, kind: FailureKind::Error, ..LostTuples::new(fault) };
        lost.lineage.push(token);
        self.lost.push(lost);
    }

    /// Such a panic cost no tuple: it happened when one that was done with was dropped.
    #[cold]
    pub(crate) fn note(&mut self, panic: &(dyn Any + Send)) {
        self.panics += 1;
        self.lost.push(LostTuples::new(Fault::panicked(panic)));
    }
}

/// What a task that waits has ready to be sent. It is looked at also while the task is in the middle of a batch.
#[derive(Default)]
pub struct Outbox {
    // Never contended: who runs the task looks at it between polling it.
    staged: Mutex<Staged>,
    remaining: Mutex<Option<Arc<dyn RemainingTuples>>>,
}

/// The tuples of a batch at hand that its bolt has not reached.
pub(crate) trait RemainingTuples: Send + Sync {
    /// Takes them, if there are any: the bolt goes without them then. With how many they are.
    fn take(&self) -> Option<(AnyBatch, u32)>;
}

impl Outbox {
    /// What there is.
    pub fn lock(&self) -> MutexGuard<'_, Staged> {
        self.staged.lock()
    }

    /// Takes from a bolt, which has been given a batch and waits in the middle of it, the tuples that it has not reached, if it takes
    /// tuple by tuple: as a batch of its input type, and how many they are.
    pub fn take_remaining(&self) -> Option<(AnyBatch, u32)> {
        self.remaining.lock().as_ref()?.take()
    }

    pub(crate) fn set_remaining(&self, tuples: Option<Arc<dyn RemainingTuples>>) {
        *self.remaining.lock() = tuples;
    }
}

/// A subscription, as the bolt that has it may ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The component subscribed to.
    pub component: Arc<str>,
    /// Its output.
    pub stream: Arc<str>,
    /// The tasks of the component that send to this one.
    pub senders: Range<usize>,
    /// Whether these say how far they have come in event time, so that they are waited for.
    pub has_watermarks: bool,
}

/// Where a batch comes from, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// The subscription of the bolt, by index.
    pub input: usize,
    /// The index of the task that emitted it.
    pub sender: u32,
    /// When others are to have a turn, by the topology's clock: a bolt that executes tuple by tuple stops soon after.
    pub until: Duration,
    /// After how many tuples to look at the clock first.
    pub check_after: usize,
}

/// What came of a batch.
#[derive(Default)]
pub struct Processed {
    /// The emptied batch, for its memory.
    pub spare: Option<AnyBatch>,
    /// What to report: each panic of the bolt, and that it could not be rebuilt.
    pub faults: Vec<Fault>,
    /// The tuples not reached when the turn was over, and how many they are.
    pub rest: Option<(AnyBatch, u32)>,
}

/// A row emitted by direct grouping.
#[derive(Debug, Clone, Copy)]
pub struct DirectRow {
    pub(crate) row: usize,
    pub(crate) task: usize,
}

/// How full the tasks of a component are: tuples waiting, by task.
#[derive(Debug, Clone, Default)]
pub struct Loads {
    waiting: Arc<[AtomicUsize]>,
    hot_keys: HotKeys,
}

impl Loads {
    /// Gauges for this many tasks, all at 0.
    pub fn new(tasks: usize) -> Self {
        let waiting = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        Self { waiting, hot_keys: HotKeys::default() }
    }

    /// The keys by which tuples are sent to them.
    pub fn hot_keys(&self) -> &HotKeys {
        &self.hot_keys
    }

    /// Batches waiting for a task.
    pub fn of(&self, task: usize) -> usize {
        self.waiting[task].load(Ordering::Relaxed)
    }

    /// One more batch waits.
    pub fn add(&self, task: usize) {
        self.waiting[task].fetch_add(1, Ordering::Relaxed);
    }

    /// A batch was taken.
    pub fn take(&self, task: usize) {
        self.waiting[task].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Emptied batches of one edge, on their way back to the sender.
#[derive(Clone, Default)]
pub struct BatchPool {
    // A lock per batch, not per tuple; held for one push or pop.
    spare: Arc<Mutex<Vec<AnyBatch>>>,
}

impl BatchPool {
    /// So many batches are kept at most; more are freed.
    const LIMIT: usize = 64;

    /// An empty batch, used or new.
    pub fn take<T: Send + 'static>(&self) -> Box<EdgeBatch<T>> {
        let spare = self.spare.lock().pop();
        spare.and_then(|any| any.downcast().ok()).unwrap_or_default()
    }

    /// Gives a batch back. It must be empty.
    pub fn give(&self, tuples: AnyBatch) {
        let mut spare = self.spare.lock();
        if spare.len() < Self::LIMIT {
            spare.push(tuples);
        }
    }
}

/// What an engine says to make one route: from one task's stream to one subscription.
#[derive(Clone)]
pub struct RouteSetup {
    /// The address of each task of the subscriber.
    pub targets: Vec<u32>,
    /// How full the subscriber's tasks are.
    pub loads: Loads,
    /// Emptied batches of this edge.
    pub pool: BatchPool,
    /// The largest batch to send.
    pub batch: Arc<AtomicUsize>,
    /// Batches waiting for a task, from which on it counts as full for load-aware shuffling.
    pub full_at: usize,
    /// The topology's clock.
    pub clock: Arc<dyn Clock>,
    /// Where to start when choosing in turn, so that senders do not move in step.
    pub offset: usize,
    /// The index of the emitting task.
    pub sender: u32,
    /// The id of the subscriber.
    pub subscriber: Arc<str>,
    /// Whether the subscriber takes its time for each tuple, so that rows are better dealt out one by one.
    pub by_row: bool,
    /// Whether the subscriber is to be told watermarks.
    pub watermarks: bool,
    /// Whether it is to be sent the barriers of checkpoints.
    pub barriers: bool,
    /// What a tuple weighs, if the subscription says: an `Arc<dyn Fn(&T) -> usize>` of the stream's type.
    pub weigh: Option<Arc<dyn Any + Send + Sync>>,
}

/// Distributes the tuples of one stream to one subscription.
pub trait Route<T>: Send {
    /// Whether it takes the rows emitted to a task directly, and only those.
    fn is_direct(&self) -> bool {
        false
    }
    /// Takes all rows. `tasks` has a task index for each row if this is a direct route.
    fn route(
        &mut self,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        tasks: &[usize],
        shares: &mut ShareRng,
        into: &mut Staged,
    );
    /// Sends what it holds back to fill batches.
    fn flush(&mut self, into: &mut Staged);
    /// Sends a signal to every task of the subscriber, behind what it holds back, if the subscriber is to have it.
    fn signal(&mut self, signal: Signal, into: &mut Staged);
}

/// A task that tuples go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The id of its component.
    pub component: Arc<str>,
    /// Its index within the component.
    pub task: usize,
}

/// The tasks of a topology, by the address that routes send to.
pub type Destinations = Arc<[Destination]>;

/// Where these batches go.
pub(crate) fn destinations_of(batches: &[OutgoingBatch], all: &[Destination]) -> Vec<Destination> {
    batches.iter().filter_map(|batch| all.get(batch.target as usize).cloned()).collect()
}

/// What an engine says to make a task.
pub struct TaskSetup {
    /// Where it stands.
    pub context: TaskContext,
    /// Its way to the ledgers.
    pub acks: Arc<dyn AckSender>,
    /// Where its random words start.
    pub seed: u64,
    /// Whether roots are tracked at all; if not, they are acked when emitted.
    pub tracking: bool,
    /// What it subscribes to, by input.
    pub subscriptions: Arc<[Subscription]>,
    /// Its routes: the index of the output, and what [`crate::Input`] made.
    pub routes: Vec<(usize, Box<dyn Any + Send>)>,
    /// What the addresses of its routes stand for.
    pub destinations: Destinations,
}

/// A bolt's task whose bolt computes.
pub trait BoltTask: Send {
    /// Makes and prepares the bolt.
    ///
    /// # Errors
    /// What `prepare` says.
    fn prepare(&mut self) -> Result<(), Fault>;
    /// Executes a batch of the bolt's input type, or as much of it as its turn lasts.
    fn process(&mut self, tuples: AnyBatch, delivery: &Delivery) -> Processed;
    /// Takes a watermark of a sender. Stages, behind all rows, what those behind this task are to be told.
    ///
    /// # Errors
    /// What the bolt's hook says, or that it panicked.
    fn watermark(&mut self, watermark: Watermark, delivery: &Delivery) -> Result<(), Fault>;
    /// Runs the checkpoint hook, as all senders' barriers have come.
    ///
    /// # Errors
    /// What `checkpoint` says, or that it panicked.
    fn checkpoint(&mut self) -> Result<(), Fault>;
    /// Stages a barrier for those behind this task, behind all rows.
    fn barrier(&mut self, checkpoint: u64);
    /// Fails tuples that could not be made ones of the bolt's input type.
    fn lose(&mut self, lost: Vec<LostTuples>);
    /// Runs the tick hook.
    ///
    /// # Errors
    /// What `tick` says, or that it panicked.
    fn tick(&mut self) -> Result<(), Fault>;
    /// Runs the drain hook.
    ///
    /// # Errors
    /// That it panicked.
    fn drain(&mut self) -> Result<(), Fault>;
    /// Runs the close hook.
    ///
    /// # Errors
    /// That it panicked.
    fn close(&mut self) -> Result<(), Fault>;
    /// Stages batches to send: full ones, or all.
    fn flush(&mut self, all: bool);
    /// What there is to send.
    fn staged(&mut self) -> &mut Staged;
}

/// A bolt's task whose bolt waits.
pub trait AsyncBoltTask: Send {
    /// Makes and prepares the bolt.
    fn prepare(&mut self) -> BoxFuture<'_, Result<(), Fault>>;
    /// Executes a batch of the bolt's input type. Whenever polling it is pending, what is done is in the
    /// [`outbox`](Self::outbox). If polling it panics, call [`recover`](Self::recover).
    fn process(&mut self, tuples: AnyBatch, delivery: Delivery) -> BoxFuture<'_, ()>;
    /// Takes a watermark of a sender, when what the bolt keeps is finished. Stages, behind all rows, what those behind this
    /// task are to be told. If polling it panics, call [`recover`](Self::recover).
    fn watermark(&mut self, watermark: Watermark, delivery: Delivery) -> BoxFuture<'_, ()>;
    /// Finishes with what the bolt keeps, as all senders' barriers have come. If polling it panics, call
    /// [`recover`](Self::recover).
    fn checkpoint(&mut self) -> BoxFuture<'_, Result<(), Fault>>;
    /// Stages a barrier for those behind this task, behind all rows.
    fn barrier(&mut self, checkpoint: u64);
    /// Whether it takes tuple by tuple, as far as is known: it loses nothing by smaller batches.
    fn is_by_row(&self) -> bool;
    /// What there is to send.
    fn outbox(&self) -> &Arc<Outbox>;
    /// After a panic: fails the tuple at hand with this fault, forgets the bolt, and returns the tuples not reached.
    /// [`prepare`](Self::prepare) makes a new one.
    fn recover(&mut self, fault: &Fault) -> Option<AnyBatch>;
    /// Fails tuples that could not be made ones of the bolt's input type.
    fn lose(&mut self, lost: Vec<LostTuples>);
    /// Fails a batch that cannot be executed.
    fn refuse(&mut self, tuples: AnyBatch, fault: &Fault);
    /// Runs the progress hook. Cancel-safe.
    fn progress(&mut self) -> BoxFuture<'_, Result<(), Fault>>;
    /// Runs the tick hook.
    fn tick(&mut self) -> BoxFuture<'_, Result<(), Fault>>;
    /// Runs the drain hook.
    fn drain(&mut self) -> BoxFuture<'_, ()>;
    /// Runs the close hook.
    fn close(&mut self) -> BoxFuture<'_, ()>;
    /// Stages batches to send: full ones, or all.
    fn flush(&mut self, all: bool);
}

/// A run of slots whose roots are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRange {
    /// The first slot.
    pub first: u32,
    /// How many.
    pub len: u32,
}

/// A spout's task.
pub trait SpoutTask: Send {
    /// Makes the spout if there is none, and opens it.
    fn open(&mut self) -> BoxFuture<'_, Result<(), Fault>>;
    /// Calls `next` until `room` is used or the spout has nothing.
    fn fill<'a>(
        &'a mut self,
        roots: &'a mut (dyn RootAllocator + Send),
        room: usize,
    ) -> BoxFuture<'a, Result<Next, Fault>>;
    /// After a panic in any hook: forgets the spout. [`open`](Self::open) makes a new one.
    fn recover(&mut self);
    /// Resolves when `next` is worth calling. Cancel-safe.
    fn ready(&mut self) -> BoxFuture<'_, ()>;
    /// The slab has become smaller: what was in a slot is in that slot modulo the new capacity.
    fn shrink(&mut self, capacity: usize);
    /// Asks the spout whether its own limit keeps it from emitting.
    fn is_full(&self) -> bool;
    /// Hands the ids in these slots to `acked`. Leaves `slots` empty.
    fn acked<'a>(&'a mut self, slots: &'a mut Vec<SlotRange>) -> BoxFuture<'a, ()>;
    /// Hands the ids in these slots to `failed`. Leaves `slots` empty.
    fn failed<'a>(&'a mut self, slots: &'a mut Vec<(u32, Failure)>) -> BoxFuture<'a, ()>;
    /// Keeps the ids in these slots back until the checkpoint with this number is committed.
    fn hold(&mut self, slots: SlotRange, until: u64);
    /// How many ids are kept back.
    fn held(&self) -> usize;
    /// The checkpoint with this number is committed: hands what was kept back for it, or for one before it, to `acked`. How many
    /// ids that are.
    fn release(&mut self, committed: u64) -> BoxFuture<'_, u64>;
    /// Stages a barrier for those behind this task, behind all rows.
    fn barrier(&mut self, checkpoint: u64);
    /// Runs the hook.
    fn activate(&mut self) -> BoxFuture<'_, ()>;
    /// Runs the hook.
    fn deactivate(&mut self) -> BoxFuture<'_, ()>;
    /// Runs the hook.
    fn close(&mut self) -> BoxFuture<'_, ()>;
    /// There will never be anything again: stages, behind all rows, that those behind this task are not to wait for it.
    fn end(&mut self);
    /// Stages batches to send: full ones, or all.
    fn flush(&mut self, all: bool);
    /// What there is to send.
    fn staged(&mut self) -> &mut Staged;
}
