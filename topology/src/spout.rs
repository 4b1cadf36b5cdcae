//! Spouts: where tuples come from.

use std::fmt;
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use crate::context::TaskContext;
use crate::failure::{Failed, Fault};
use crate::held_acks::HeldAcks;
use crate::lineage::{AckToken, RootId, ShareRng};
use crate::outputs::{OutputSet, Outputs, TokenSplitter};
use crate::runtime::{Delivered, Destination, Grant, RootAllocator, Staged, destinations_of};

/// What a spout says after [`Spout::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Call again as soon as there is room. A spout that emits nothing again and again is called each millisecond or two; one that
    /// can await its data says [`Next::Idle`].
    Ready,
    /// Nothing now: call again when [`Spout::ready`] resolves.
    Idle,
    /// Nothing now: call again after this long, or earlier when [`Spout::ready`] resolves.
    After(Duration),
    /// The stream has ended: nothing new will come, and what may still be emitted is what fails, once more. Call again when
    /// [`Spout::ready`] resolves. Windows behind it do not wait for this spout any more.
    Ended,
    /// Nothing any more: do not call again. Acks and fails of what is pending still arrive, and a failed
    /// root may be emitted again only by a spout that has not said `Done`.
    Done,
}

/// A source of tuples.
///
/// One instance runs per task. The engine calls one method of it at a time: `next`, `acked` and `failed`
/// never run concurrently. All are awaited to their end except [`ready`](Self::ready).
pub trait Spout: Send + Sized + 'static {
    /// What the spout calls its roots by: it comes back in [`acked`](Self::acked) and
    /// [`failed`](Self::failed).
    type MessageId: Send + 'static;
    /// What it emits on.
    type Outputs: Outputs;

    /// Whether it gives every root a stable id ([`Roots::root_with_stable_id`]). Then state that checkpoints keep counts each message
    /// once, over crashes too; otherwise at least once, which the printed form of a topology that keeps state says.
    const STABLE_IDS: bool = false;

    /// Called once before anything else.
    ///
    /// # Errors
    /// An error keeps the topology from starting.
    fn open(&mut self, context: &TaskContext) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = context;
        async { Ok(()) }
    }

    /// Emits what there is, or says that there is nothing. It is called only while the spout is active
    /// and has room, again and again while it says [`Next::Ready`], until a batch is full; so it may emit
    /// one root a call, or as many as [`Roots::room`] says. It should not wait for data to come: say
    /// [`Next::Idle`] and wait in [`ready`](Self::ready).
    ///
    /// # Errors
    /// An error is reported in the metrics, and `next` is called again after a pause that grows from
    /// 10 ms to 1 s while errors repeat.
    fn next(&mut self, out: &mut Roots<'_, Self>) -> impl Future<Output = Result<Next, Fault>> + Send;

    /// Resolves when it is worth calling [`next`](Self::next) again, after [`Next::Idle`] or
    /// [`Next::After`]. The default never resolves.
    ///
    /// **Must be cancel-safe**: it is dropped when acks arrive or the spout is stopped.
    fn ready(&mut self) -> impl Future<Output = ()> + Send {
        pending()
    }

    /// Whether a limit of its own to what is unsettled keeps the spout from emitting what there may be, until some of its
    /// pending roots have ended. Asked after [`Next::Idle`] or [`Next::After`] while roots are pending,
    /// so that the engine can say truly why it does not emit: it is full, rather than without data. It changes nothing
    /// else. No unless overridden.
    fn is_full(&self) -> bool {
        false
    }

    /// These roots are done. Called with as many as are at hand; what is left in the vector is dropped.
    fn acked(&mut self, ids: &mut Vec<Self::MessageId>) -> impl Future<Output = ()> + Send {
        let _ = ids;
        async {}
    }

    /// These roots failed. Called with as many as are at hand; what is left in the vector is dropped.
    fn failed(&mut self, failed: &mut Vec<Failed<Self::MessageId>>) -> impl Future<Output = ()> + Send {
        let _ = failed;
        async {}
    }

    /// The spout may emit from now on. Called at the start of a topology submitted active, too.
    fn activate(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// The spout may not emit until it is activated again.
    fn deactivate(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Called once at the end, after the last ack and fail.
    fn close(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// What a spout emits through.
///
/// [`root`](Self::root) opens a root and returns the outputs: everything emitted on them is in the root's
/// tree, so a message of a hundred readings can be one root of a hundred tuples. A root that emits
/// nothing, or to nobody, is acked at once.
pub struct Roots<'a, S: Spout> {
    outputs: &'a mut S::Outputs,
    ids: &'a mut Vec<Option<S::MessageId>>,
    source: &'a mut (dyn RootAllocator + Send),
    staged: &'a mut Staged,
    shares: &'a mut ShareRng,
    destinations: &'a [Destination],
    held: &'a mut HeldAcks<S::MessageId>,
    grant: Grant,
    used: u32,
    current: Current,
    emitted: usize,
    room: usize,
    tracking: bool,
}

enum Current {
    Untracked,
    Root(RootId),
    /// A message that has had its effect, or is being worked on: what is emitted for it goes nowhere.
    Ignored,
}

/// How a spout is filled from.
pub(crate) struct Fill<'a, Id> {
    /// What the addresses of its routes stand for.
    pub(crate) destinations: &'a [Destination],
    /// The acks that wait for checkpoints.
    pub(crate) held: &'a mut HeldAcks<Id>,
    /// How many roots there is room for.
    pub(crate) room: usize,
    /// Whether roots are tracked.
    pub(crate) tracking: bool,
}

impl<'a, S: Spout> Roots<'a, S> {
    pub(crate) fn new(
        outputs: &'a mut S::Outputs,
        ids: &'a mut Vec<Option<S::MessageId>>,
        source: &'a mut (dyn RootAllocator + Send),
        staged: &'a mut Staged,
        shares: &'a mut ShareRng,
        fill: Fill<'a, S::MessageId>,
    ) -> Self {
        let Fill { destinations, held, room, tracking } = fill;
        Self {
            outputs,
            ids,
            source,
            staged,
            shares,
            destinations,
            held,
            grant: Grant::NONE,
            used: 0,
            current: Current::Untracked,
            emitted: 0,
            room,
            tracking,
        }
    }

    /// Opens a root with this id: what is emitted on the returned outputs is in its tree, and when all of
    /// that has been acked the id comes back in [`Spout::acked`], or else in [`Spout::failed`].
    #[inline]
    pub fn root(&mut self, id: S::MessageId) -> &mut S::Outputs {
        self.seal();
        if self.used == self.grant.len {
            self.next_grant();
        }
        let root = self.grant.first.plus(self.used);
        self.ids[(self.grant.slot + self.used) as usize] = Some(id);
        self.used += 1;
        self.emitted += 1;
        self.current = Current::Root(root);
        self.outputs
    }

    /// As [`root`](Self::root), for a message that has an id of its own, which is the same whenever and wherever it is delivered.
    /// Bolts read it by [`Emitter::stable_id`](crate::Emitter::stable_id), to notice what they have had before. In a topology with
    /// checkpoints, what is emitted for a message whose effect a checkpoint has already goes nowhere, and the message is acked; one
    /// that is delivered again while it is worked on fails as unavailable, so that its source brings it later.
    pub fn root_with_stable_id(
        &mut self,
        id: S::MessageId,
        stable_id: impl Into<Arc<str>>,
    ) -> &mut S::Outputs {
        self.root(id);
        if self.tracking {
            let root = self.grant.first.plus(self.used - 1);
            match self.source.set_stable_id(root, stable_id.into()) {
                Delivered::First => {}
                Delivered::Done(checkpoint) => {
                    self.used -= 1;
                    let id = self.ids[(self.grant.slot + self.used) as usize].take();
                    self.held.hold(checkpoint, id.into_iter());
                    self.current = Current::Ignored;
                }
                Delivered::Pending => self.current = Current::Ignored,
            }
        }
        self.outputs
    }

    /// The outputs, for emitting tuples that nobody waits for.
    #[inline]
    pub fn untracked(&mut self) -> &mut S::Outputs {
        self.seal();
        self.current = Current::Untracked;
        self.emitted += 1;
        self.outputs
    }

    /// Emits something with the outputs of [`root`](Self::root) or, without an id, of [`untracked`](Self::untracked), sends it on
    /// at once, and says to which tasks it goes; see [`Emitter::emit_traced`](crate::Emitter::emit_traced).
    pub fn emit_traced(
        &mut self,
        id: Option<S::MessageId>,
        emit: impl FnOnce(&mut S::Outputs),
    ) -> Vec<Destination> {
        self.seal();
        self.outputs.route(true, self.staged);
        let before = self.staged.batches.len();
        emit(match id {
            Some(id) => self.root(id),
            None => self.untracked(),
        });
        self.seal();
        self.outputs.route(true, self.staged);
        destinations_of(&self.staged.batches[before..], self.destinations)
    }

    /// How many more roots the engine has room for now. Emitting more is not an error; they are sent in
    /// further batches and may exceed the pending limit.
    pub fn room(&self) -> usize {
        self.room.saturating_sub(self.emitted)
    }

    /// Emission calls so far.
    pub(crate) fn emitted(&self) -> usize {
        self.emitted
    }

    /// Gives what was emitted since the last call its token.
    #[inline]
    fn seal(&mut self) {
        match self.current {
            Current::Root(root) if self.tracking && self.outputs.unsealed() == 1 => {
                self.outputs.seal_whole(root, self.shares);
                self.current = Current::Untracked;
            }
            Current::Untracked if !self.outputs.has_own_tokens() => {
                let rows = self.outputs.unsealed();
                self.outputs.seal(&mut TokenSplitter::new(AckToken::Untracked, rows, self.shares));
            }
            _ => self.seal_other(),
        }
    }

    fn seal_other(&mut self) {
        if let Current::Ignored = self.current {
            self.outputs.discard();
        }
        let rows = self.outputs.unsealed();
        let token = match self.current {
            Current::Untracked | Current::Ignored => AckToken::Untracked,
            Current::Root(root) if rows == 0 || !self.tracking => {
                // Nobody holds it: no rows, or all with a token of their own, or tracking is off.
                self.staged.acked.push_whole(root, 1);
                AckToken::Untracked
            }
            Current::Root(root) => AckToken::Whole(root),
        };
        self.outputs.seal(&mut TokenSplitter::new(token, rows, self.shares));
        self.current = Current::Untracked;
    }

    #[cold]
    fn next_grant(&mut self) {
        self.source.commit(self.used);
        self.used = 0;
        self.grant = self.source.grant();
        if self.grant.capacity as usize > self.ids.len() {
            self.spread_ids();
        }
    }

    /// The slab has grown: every pending id moves to where its root's slot is now.
    fn spread_ids(&mut self) {
        let before = self.ids.len();
        self.ids.resize_with(self.grant.capacity as usize, || None);
        for slot in 0..before {
            if self.ids[slot].is_some() && !self.source.is_pending(slot as u32) {
                let mut moved = slot + before;
                while moved < self.ids.len() && !self.source.is_pending(moved as u32) {
                    moved += before;
                }
                if moved < self.ids.len() {
                    self.ids.swap(slot, moved);
                }
            }
        }
    }

    /// Ends the last root and hands back the slots not used.
    pub(crate) fn finish(&mut self) {
        self.seal();
        self.source.commit(self.used);
        self.used = 0;
        self.grant = Grant::NONE;
    }
}

impl<S: Spout> Drop for Roots<'_, S> {
    fn drop(&mut self) {
        // Also when `next` panicked: what it emitted before is on its way and must be in the ledger.
        self.finish();
    }
}

impl<S: Spout> fmt::Debug for Roots<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("emitted", &self.emitted).field("room", &self.room).finish()
    }
}
