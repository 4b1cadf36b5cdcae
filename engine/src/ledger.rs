//! The ledger of pending roots: a slab owned by the spout's task.
//!
//! A root's slot is its sequence number modulo the size of the slab, so finding it is one mask and one
//! comparison, and a run of consecutive roots is a run of consecutive slots. The full sequence number kept
//! in the slot is its generation: what arrives late for a slot used anew does not match and is ignored.
//! Sequence numbers whose slot still holds an older root are skipped, so one root that takes long holds up
//! nobody; the slab doubles when it is half full, and becomes smaller when for a while few of its slots were needed.
//!
//! When roots run out of time is in `deadlines`, the size of the slab in `slab`.
//!
//! A slot collects the shares handed back; when they XOR to the root's secret, the tree is done (see
//! [`galerna_topology::lineage`]). A free slot has collected 0, so taking it writes nothing there.

mod deadlines;
mod slab;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use galerna_topology::lineage::{RootId, Span};
use galerna_topology::runtime::{Delivered, Grant, RootAllocator, SlotRange};
use galerna_topology::{Failure, FailureKind, Fault};

use crate::checkpoints::KnownIds;
use crate::histogram::Histogram;
use crate::stable_ids::StableIds;

use self::deadlines::Stretch;

const FREE: u64 = u64::MAX;
/// The longest run of slots granted at once. A spout takes a batch at a time, so looking further ahead for free
/// slots is work for nothing.
const LONGEST_GRANT: u32 = 512;
/// So many slots a ledger has at least. Most spouts of a topology of thousands of tasks have few roots pending.
const SMALLEST_SLAB: usize = 64;

/// Pending roots of one spout task. Times are nanoseconds of the topology's clock.
#[derive(Debug)]
pub struct Ledger {
    task: u16,
    /// By slot: the sequence number of the root, or [`FREE`].
    sequence: Vec<u64>,
    /// By slot: the XOR of the shares handed back.
    collected: Vec<u64>,
    /// By slot: when the root was emitted.
    born: Vec<u64>,
    /// When the timeout of a root started, if later than it was emitted.
    restarted: HashMap<u64, u64>,
    /// All pending roots are in one of these, but for those in `extended`.
    stretches: VecDeque<Stretch>,
    /// Deadlines of roots that would have run out of time, had their timeout not started anew.
    extended: BinaryHeap<Reverse<(u64, u64)>>,
    next: u64,
    granted: Grant,
    pending: usize,
    /// The slab is not made smaller than this.
    smallest: usize,
    /// The most pending since it was last looked whether a smaller slab does.
    peak: usize,
    /// When to look next.
    shrink_at: u64,
    timeout: Option<u64>,
    /// No pending root runs out of time before this.
    check_at: Option<u64>,
    now: u64,
    stable_ids: StableIds,
    /// Whether any root was ever given a stable id: then they are looked for when roots end.
    has_stable_ids: bool,
    acked: Vec<SlotRange>,
    failed: Vec<(u32, Failure)>,
    /// What is kept in topologies with checkpoints.
    checkpointed: Option<Checkpointed>,
}

/// What a ledger keeps for checkpoints.
#[derive(Debug)]
struct Checkpointed {
    /// By slot: the greatest epoch of those that settled parts of the root.
    epochs: Vec<u64>,
    /// The stable ids of the roots in [`Ledger::acked`], as far as they have any, by slot.
    done: Vec<(u32, Arc<str>)>,
    /// The messages that are done, and those that are worked on.
    known: KnownIds,
    /// Roots of messages that are worked on already: they fail as soon as they are pending.
    doubled: Vec<RootId>,
    /// The spout.
    component: Arc<str>,
}

/// Roots that are done, in consecutive slots, whose effects are all in one checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DoneRoots {
    pub(crate) slots: SlotRange,
    /// The number of the checkpoint.
    pub(crate) checkpoint: u64,
}

impl Ledger {
    /// A ledger of spout task `task` (numbered over the whole topology) whose roots may take `timeout`
    /// nanoseconds each, or any time. It starts with room for `pending` roots and grows when there are more.
    pub fn new(task: u16, pending: usize, timeout: Option<u64>) -> Self {
        let capacity = pending.saturating_mul(2).max(SMALLEST_SLAB).next_power_of_two();
        Self {
            task,
            sequence: vec![FREE; capacity],
            collected: vec![0; capacity],
            born: vec![0; capacity],
            restarted: HashMap::new(),
            stretches: VecDeque::new(),
            extended: BinaryHeap::new(),
            next: 0,
            granted: Grant::NONE,
            pending: 0,
            smallest: capacity,
            peak: 0,
            shrink_at: 0,
            timeout,
            check_at: None,
            now: 0,
            stable_ids: StableIds::default(),
            has_stable_ids: false,
            acked: Vec::new(),
            failed: Vec::new(),
            checkpointed: None,
        }
    }

    /// Keeps the stable ids of roots here, where others may read them.
    #[must_use]
    pub fn with_stable_ids(mut self, stable_ids: StableIds) -> Self {
        self.stable_ids = stable_ids;
        self
    }

    /// Remembers of each root which checkpoint has its effect, and takes none for a message that is done.
    #[must_use]
    pub(crate) fn with_checkpoints(mut self, known: KnownIds, component: Arc<str>) -> Self {
        let epochs = vec![0; self.sequence.len()];
        let (done, doubled) = (Vec::new(), Vec::new());
        self.checkpointed = Some(Checkpointed { epochs, done, known, doubled, component });
        self
    }

    /// As [`settle`](Self::settle), of a task in this epoch.
    pub(crate) fn settle_in(&mut self, epoch: u64, spans: Vec<Span>, complete: &Histogram) {
        for span in &spans {
            match span {
                Span::Untracked(_) => {}
                Span::Whole(first, rows) => self.note_epoch(*first, *rows, epoch),
                Span::Share(root, _, _) => self.note_epoch(*root, 1, epoch),
                Span::Multi(list) => {
                    let task = self.task;
                    for &(root, _) in list.iter().filter(|(root, _)| root.task() == task) {
                        self.note_epoch(root, 1, epoch);
                    }
                }
            }
        }
        self.settle(spans, complete);
    }

    /// As [`settle_whole`](Self::settle_whole), of a task in this epoch.
    pub(crate) fn settle_whole_in(&mut self, epoch: u64, first: RootId, rows: u32, complete: &Histogram) {
        self.note_epoch(first, rows, epoch);
        self.settle_whole(first, rows, complete);
    }

    /// A task in this epoch settles a part of these consecutive roots.
    fn note_epoch(&mut self, first: RootId, rows: u32, epoch: u64) {
        let mask = self.mask();
        let Some(of) = &mut self.checkpointed else { return };
        for sequence in first.sequence()..first.sequence() + u64::from(rows) {
            let slot = (sequence & mask) as usize;
            if self.sequence[slot] == sequence {
                of.epochs[slot] = of.epochs[slot].max(epoch);
            }
        }
    }

    /// The roots that are done since they were last taken, by the checkpoint that has their effects, and how many of them have a
    /// stable id. Those are known from now on.
    pub(crate) fn take_done(&mut self) -> (Vec<DoneRoots>, usize) {
        let Some(of) = &mut self.checkpointed else { return (Vec::new(), 0) };
        let mut taken = Vec::new();
        let with_ids = of.done.len();
        for (slot, id) in of.done.drain(..) {
            of.known.done(id, of.epochs[slot as usize] + 1);
        }
        for run in self.acked.drain(..) {
            let epochs = &mut of.epochs[run.first as usize..(run.first + run.len) as usize];
            let mut first = run.first;
            for epochs in epochs.chunk_by(|one, other| one == other) {
                let slots = SlotRange { first, len: epochs.len() as u32 };
                taken.push(DoneRoots { slots, checkpoint: epochs[0] + 1 });
                first += slots.len;
            }
            epochs.fill(0);
        }
        (taken, with_ids)
    }

    /// How many roots are pending.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Roots committed from now on are born at this time.
    pub fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// When to call [`expire`](Self::expire) next, if at all.
    pub fn check_at(&self) -> Option<u64> {
        self.check_at
    }

    /// The slots whose roots are done since this was last emptied.
    pub fn acked(&mut self) -> &mut Vec<SlotRange> {
        &mut self.acked
    }

    /// The slots whose roots failed since this was last emptied, and why.
    pub fn failed(&mut self) -> &mut Vec<(u32, Failure)> {
        &mut self.failed
    }

    fn mask(&self) -> u64 {
        self.sequence.len() as u64 - 1
    }

    fn slot(&self, root: RootId) -> Option<usize> {
        debug_assert_eq!(root.task(), self.task, "a root of another spout task");
        let slot = (root.sequence() & self.mask()) as usize;
        (self.sequence[slot] == root.sequence()).then_some(slot)
    }

    /// These tokens came back. Roots already done or failed are ignored.
    pub fn settle(&mut self, spans: impl IntoIterator<Item = Span>, complete: &Histogram) {
        let task = self.task;
        for span in spans {
            match span {
                Span::Untracked(_) => {}
                Span::Whole(first, rows) => self.settle_whole(first, rows, complete),
                Span::Share(root, share, _) => self.settle_share(root, share, complete),
                Span::Multi(list) => {
                    for &(root, share) in list.iter().filter(|(root, _)| root.task() == task) {
                        self.settle_share(root, share, complete);
                    }
                }
            }
        }
    }

    /// These consecutive roots are done: all that was outstanding of each came back at once.
    pub fn settle_whole(&mut self, first: RootId, rows: u32, complete: &Histogram) {
        let mask = self.mask();
        let (mut left, mut sequence) = (u64::from(rows), first.sequence());
        while left > 0 {
            // Up to where the slab wraps, slots and sequence numbers run side by side.
            let slot = (sequence & mask) as usize;
            let len = left.min(mask + 1 - slot as u64) as usize;
            let live = &mut self.sequence[slot..slot + len];
            let born = &self.born[slot..slot + len];
            let whole = live.iter().zip(sequence..).all(|(&live, wanted)| live == wanted);
            if whole && born[0] == born[len - 1] {
                // All there and emitted together, as is usual: times in between cannot differ, since
                // they grow with the sequence.
                if !self.restarted.is_empty() {
                    live.iter().for_each(|root| {
                        self.restarted.remove(root);
                    });
                }
                if self.has_stable_ids {
                    match &mut self.checkpointed {
                        None => self.stable_ids.remove(live.iter().copied()),
                        Some(of) => {
                            let ids = live.iter().zip(slot as u32..).filter_map(|(&sequence, slot)| {
                                self.stable_ids.take(sequence).map(|id| (slot, id))
                            });
                            of.done.extend(ids);
                        }
                    }
                }
                live.fill(FREE);
                self.pending -= len;
                complete.record(self.now.saturating_sub(born[0]), len as u64);
                push_run(&mut self.acked, slot as u32, len as u32);
            } else {
                for (at, wanted) in (slot..slot + len).zip(sequence..) {
                    if self.sequence[at] == wanted {
                        complete.record(self.now.saturating_sub(self.born[at]), 1);
                        self.free_done(at);
                        push_run(&mut self.acked, at as u32, 1);
                    }
                }
            }
            left -= len as u64;
            sequence += len as u64;
        }
    }

    fn settle_share(&mut self, root: RootId, share: u64, complete: &Histogram) {
        let Some(slot) = self.slot(root) else { return };
        self.collected[slot] ^= share;
        if self.collected[slot] == root.secret() {
            complete.record(self.now.saturating_sub(self.born[slot]), 1);
            self.free_done(slot);
            push_run(&mut self.acked, slot as u32, 1);
        }
    }

    /// All roots in these tokens failed. Roots already done or failed are ignored.
    pub fn fail(&mut self, spans: impl IntoIterator<Item = Span>, failure: &Failure) {
        let task = self.task;
        for span in spans {
            match span {
                Span::Untracked(_) => {}
                Span::Whole(first, rows) => {
                    for at in 0..rows {
                        self.fail_root(first.plus(at), failure);
                    }
                }
                Span::Share(root, _, _) => self.fail_root(root, failure),
                Span::Multi(list) => {
                    for &(root, _) in list.iter().filter(|(root, _)| root.task() == task) {
                        self.fail_root(root, failure);
                    }
                }
            }
        }
    }

    fn fail_root(&mut self, root: RootId, failure: &Failure) {
        if let Some(slot) = self.slot(root) {
            self.free_failed(slot);
            self.failed.push((slot as u32, failure.clone()));
        }
    }

    /// The messages of these roots are being worked on: they come again later, when it is known what became of that.
    #[cold]
    fn fail_doubled(&mut self) {
        let Some(of) = &mut self.checkpointed else { return };
        let (doubled, component) = (std::mem::take(&mut of.doubled), of.component.clone());
        let fault = Fault::unavailable("the message was delivered before, and is being worked on");
        let failure = Failure { kind: FailureKind::Error, fault, component };
        doubled.into_iter().for_each(|root| self.fail_root(root, &failure));
    }

    /// Frees the slot of a root that is done.
    fn free_done(&mut self, slot: usize) {
        if self.has_stable_ids
            && let Some(of) = &mut self.checkpointed
            && let Some(id) = self.stable_ids.take(self.sequence[slot])
        {
            of.done.push((slot as u32, id));
        }
        self.free(slot);
    }

    /// Frees the slot of a root that failed.
    fn free_failed(&mut self, slot: usize) {
        if let Some(of) = &mut self.checkpointed {
            of.epochs[slot] = 0;
            if self.has_stable_ids
                && let Some(id) = self.stable_ids.take(self.sequence[slot])
            {
                of.known.failed(&id);
            }
        }
        self.free(slot);
    }

    fn free(&mut self, slot: usize) {
        if !self.restarted.is_empty() {
            self.restarted.remove(&self.sequence[slot]);
        }
        if self.has_stable_ids {
            self.stable_ids.remove([self.sequence[slot]]);
        }
        self.sequence[slot] = FREE;
        self.collected[slot] = 0;
        self.pending -= 1;
    }

    /// The slot of a root that is pending.
    fn slot_of(&self, sequence: u64) -> Option<usize> {
        let slot = (sequence & self.mask()) as usize;
        (self.sequence[slot] == sequence).then_some(slot)
    }

    /// Fails all that is pending.
    pub fn fail_all(&mut self, failure: &Failure) {
        for slot in 0..self.sequence.len() {
            if self.sequence[slot] != FREE {
                self.free_failed(slot);
                self.failed.push((slot as u32, failure.clone()));
            }
        }
        self.stretches.clear();
        self.extended.clear();
        self.check_at = None;
    }
}

/// Appends slots, to the last run if they follow on it.
fn push_run(runs: &mut Vec<SlotRange>, first: u32, len: u32) {
    match runs.last_mut() {
        Some(last) if last.first + last.len == first => last.len += len,
        _ => runs.push(SlotRange { first, len }),
    }
}

impl RootAllocator for Ledger {
    fn grant(&mut self) -> Grant {
        if self.pending * 2 >= self.sequence.len() {
            self.grow();
        }
        let mask = self.mask();
        // Half the slots are free, so this ends.
        while self.sequence[(self.next & mask) as usize] != FREE {
            self.next += 1;
        }
        if self.next >> RootId::SEQUENCE_BITS != 0 {
            self.next &= (1 << RootId::SEQUENCE_BITS) - 1;
        }
        let slot = (self.next & mask) as usize;
        let ahead = &self.sequence[slot..];
        let most = ahead.len().min(LONGEST_GRANT as usize);
        let len = ahead[..most].iter().position(|&sequence| sequence != FREE).unwrap_or(most);
        self.granted = Grant {
            first: RootId::new(self.task, self.next),
            slot: slot as u32,
            len: len as u32,
            capacity: self.sequence.len() as u32,
        };
        self.granted
    }

    fn commit(&mut self, used: u32) {
        let (slot, used) = (self.granted.slot as usize, used.min(self.granted.len) as usize);
        let first = self.granted.first.sequence();
        self.granted = Grant::NONE;
        if used == 0 {
            return;
        }
        for (live, sequence) in self.sequence[slot..slot + used].iter_mut().zip(first..) {
            *live = sequence;
        }
        self.born[slot..slot + used].fill(self.now);
        if self.timeout.is_some() {
            self.note_deadlines(first, used as u64);
        }
        self.pending += used;
        self.peak = self.peak.max(self.pending);
        self.next = first + used as u64;
        if let (None, Some(timeout)) = (self.check_at, self.timeout) {
            self.check_at = Some(self.now.saturating_add(timeout));
        }
        if self.checkpointed.as_ref().is_some_and(|of| !of.doubled.is_empty()) {
            self.fail_doubled();
        }
    }

    fn set_stable_id(&mut self, root: RootId, id: Arc<str>) -> Delivered {
        if let Some(of) = &mut self.checkpointed {
            match of.known.deliver(&id, self.now) {
                Delivered::First => {}
                Delivered::Pending => {
                    of.doubled.push(root);
                    return Delivered::Pending;
                }
                done @ Delivered::Done(_) => return done,
            }
        }
        self.has_stable_ids = true;
        self.stable_ids.insert(root, id);
        Delivered::First
    }

    fn capacity(&self) -> usize {
        self.sequence.len()
    }

    fn is_pending(&self, slot: u32) -> bool {
        self.sequence.get(slot as usize).is_some_and(|&sequence| sequence != FREE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_started_anew_is_forgotten_with_its_root_however_that_ends() {
        let failure = Failure::new(galerna_topology::FailureKind::Error, "no", "bolt");
        let complete = Histogram::new();
        type End = fn(&mut Ledger, RootId, &Failure, &Histogram);
        let ends: [(&str, End); 5] = [
            ("acked with others", |ledger, first, _, complete| ledger.settle_whole(first, 3, complete)),
            ("acked one by one", |ledger, first, _, complete| {
                (0..3).for_each(|at| ledger.settle_whole(first.plus(at), 1, complete));
            }),
            ("failed", |ledger, first, failure, _| ledger.fail([Span::Whole(first, 3)], failure)),
            ("out of time", |ledger, _, failure, _| ledger.expire(1_000, failure)),
            ("stopped", |ledger, _, failure, _| ledger.fail_all(failure)),
        ];
        for (what, end) in ends {
            let mut ledger = Ledger::new(0, 32, Some(100));
            let first = ledger.grant().first;
            ledger.commit(3);
            ledger.set_now(50);
            ledger.restart([Span::Whole(first, 2)]);
            assert_eq!(ledger.restarted.len(), 2, "{what}");
            end(&mut ledger, first, &failure, &complete);
            assert_eq!((ledger.pending(), ledger.restarted.len()), (0, 0), "{what}");
        }
    }
}
