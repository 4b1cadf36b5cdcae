//! Deadlines are kept by stretches of consecutive roots, in the order in which they were emitted, which is that of their
//! deadlines too: looking for what has run out of time looks at the oldest stretch, and at each root once. Roots whose timeout
//! was started anew are in a heap of their own from their first deadline on.

use std::cmp::Reverse;
use std::collections::VecDeque;

use galerna_topology::Failure;
use galerna_topology::lineage::{RootId, Span};

use super::{FREE, Ledger};

/// So many stretches are kept at most; then neighbours are joined.
const MOST_STRETCHES: usize = 256;

/// Roots with these sequence numbers, those that have ended among them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    first: u64,
    /// The number after the last.
    end: u64,
    /// When the first was emitted: none of them was earlier.
    born: u64,
}

impl Ledger {
    /// The timeouts of these roots start anew.
    pub fn restart(&mut self, spans: impl IntoIterator<Item = Span>) {
        let mut restart = |root: RootId| {
            if root.task() == self.task && self.slot(root).is_some() {
                self.restarted.insert(root.sequence(), self.now);
            }
        };
        for span in spans {
            match span {
                Span::Untracked(_) => {}
                Span::Whole(first, rows) => (0..rows).for_each(|at| restart(first.plus(at))),
                Span::Share(root, _, _) => restart(root),
                Span::Multi(list) => list.iter().for_each(|&(root, _)| restart(root)),
            }
        }
    }

    /// Fails the roots that have run out of time, and finds out when to look again.
    pub fn expire(&mut self, now: u64, failure: &Failure) {
        self.now = now;
        let Some(timeout) = self.timeout else { return };
        while let Some(stretch) = self.stretches.front().copied() {
            if stretch.born.saturating_add(timeout) > now {
                break;
            }
            self.stretches.pop_front();
            if let Some(rest) = self.expire_stretch(stretch, timeout, failure) {
                self.stretches.push_front(rest);
                break;
            }
        }
        while let Some(&Reverse((deadline, sequence))) = self.extended.peek() {
            if deadline > now {
                break;
            }
            self.extended.pop();
            if let Some(slot) = self.slot_of(sequence) {
                self.expire_root(slot, timeout, failure);
            }
        }
        let oldest = self.stretches.front().map(|stretch| stretch.born.saturating_add(timeout));
        let extended = self.extended.peek().map(|Reverse((deadline, _))| *deadline);
        self.check_at = match (oldest, extended) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// Fails those of these roots that have run out of time. Returns those that have time left, from the first on that is pending.
    fn expire_stretch(&mut self, stretch: Stretch, timeout: u64, failure: &Failure) -> Option<Stretch> {
        let capacity = self.sequence.len() as u64;
        if stretch.end - stretch.first <= capacity {
            for sequence in stretch.first..stretch.end {
                let Some(slot) = self.slot_of(sequence) else { continue };
                if !self.expire_root(slot, timeout, failure) {
                    return Some(Stretch { first: sequence, born: self.born[slot], ..stretch });
                }
            }
            return None;
        }
        // Longer than the slab: each slot has at most one of them.
        let mut rest: Option<u64> = None;
        for slot in 0..self.sequence.len() {
            let sequence = self.sequence[slot];
            if sequence != FREE
                && (stretch.first..stretch.end).contains(&sequence)
                && !self.expire_root(slot, timeout, failure)
            {
                rest = Some(rest.map_or(sequence, |first| first.min(sequence)));
            }
        }
        rest.map(|first| Stretch { first, born: self.born[(first & self.mask()) as usize], ..stretch })
    }

    /// Whether this pending root is done with for now: it has run out of time, or its timeout started anew.
    fn expire_root(&mut self, slot: usize, timeout: u64, failure: &Failure) -> bool {
        let sequence = self.sequence[slot];
        if self.born[slot].saturating_add(timeout) > self.now {
            return false;
        }
        let start = self.restarted.get(&sequence).copied().unwrap_or(self.born[slot]);
        let deadline = start.saturating_add(timeout);
        if deadline <= self.now {
            self.free_failed(slot);
            self.failed.push((slot as u32, failure.clone()));
        } else {
            self.extended.push(Reverse((deadline, sequence)));
        }
        true
    }

    /// These consecutive roots are pending from now on.
    #[inline]
    pub(super) fn note_deadlines(&mut self, first: u64, count: u64) {
        let (now, end) = (self.now, first + count);
        match self.stretches.back_mut() {
            Some(last) if last.born == now && last.end == first => last.end = end,
            _ => {
                if self.pending == 0 {
                    self.stretches.clear();
                }
                if self.stretches.len() == MOST_STRETCHES {
                    self.join_stretches();
                }
                self.stretches.push_back(Stretch { first, end, born: now });
            }
        }
    }

    /// Joins each two neighbours. What has no deadline of its own any more is found when the first has passed.
    #[cold]
    fn join_stretches(&mut self) {
        let mut joined = VecDeque::with_capacity(MOST_STRETCHES);
        while let Some(mut stretch) = self.stretches.pop_front() {
            if let Some(next) = self.stretches.pop_front() {
                stretch.end = next.end;
            }
            joined.push_back(stretch);
        }
        self.stretches = joined;
    }
}
