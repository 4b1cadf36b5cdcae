//! The size of the slab: it grows when it is half full, and shrinks when few of its slots were needed for a while.

use super::{FREE, Ledger};

/// A slab that has grown is looked at this often, in nanoseconds, whether a smaller one does.
const SHRINK_EVERY: u64 = 10_000_000_000;

impl Ledger {
    pub(super) fn grow(&mut self) {
        self.resize(self.sequence.len() * 2);
        self.shrink_at = self.now.saturating_add(SHRINK_EVERY);
    }

    /// When to call [`shrink`](Self::shrink) next, if at all.
    pub fn shrink_at(&self) -> Option<u64> {
        (self.sequence.len() > self.smallest).then_some(self.shrink_at)
    }

    /// Gives memory back if it is time to look and few slots were needed since the last time. Then it returns true, and pending
    /// roots are in other slots: in those of before modulo `RootAllocator::capacity`. While slots in
    /// [`acked`](Self::acked) or [`failed`](Self::failed) have not been taken, it does nothing.
    pub fn shrink(&mut self, now: u64) -> bool {
        let taken = self.acked.is_empty() && self.failed.is_empty();
        if self.shrink_at().is_none_or(|at| now < at) || !taken {
            return false;
        }
        self.shrink_at = now.saturating_add(SHRINK_EVERY);
        let peak = std::mem::replace(&mut self.peak, self.pending);
        // It grows when half full: so there is room for twice the peak before it does.
        let mut capacity = peak.saturating_mul(4).next_power_of_two().max(self.smallest);
        while capacity < self.sequence.len() && !self.fits(capacity) {
            capacity *= 2;
        }
        if capacity >= self.sequence.len() {
            return false;
        }
        self.resize(capacity);
        self.restarted.shrink_to_fit();
        self.extended.shrink_to_fit();
        self.acked.shrink_to_fit();
        self.failed.shrink_to_fit();
        self.stable_ids.shrink();
        true
    }

    /// Whether each pending root would have a slot of its own: an old one may want that of a younger one.
    fn fits(&self, capacity: usize) -> bool {
        let mut taken = vec![false; capacity];
        self.sequence
            .iter()
            .filter(|sequence| **sequence != FREE)
            .all(|sequence| !std::mem::replace(&mut taken[(sequence & (capacity as u64 - 1)) as usize], true))
    }

    /// Moves all to a slab of another size, in which each pending root has a slot of its own.
    fn resize(&mut self, capacity: usize) {
        let mut sequence = vec![FREE; capacity];
        let mut collected = vec![0; capacity];
        let mut born = vec![0; capacity];
        for slot in 0..self.sequence.len() {
            if self.sequence[slot] != FREE {
                let to = (self.sequence[slot] & (capacity as u64 - 1)) as usize;
                sequence[to] = self.sequence[slot];
                collected[to] = self.collected[slot];
                born[to] = self.born[slot];
            }
        }
        if let Some(of) = &mut self.checkpointed {
            let mut epochs = vec![0; capacity];
            for slot in (0..self.sequence.len()).filter(|slot| self.sequence[*slot] != FREE) {
                epochs[(self.sequence[slot] & (capacity as u64 - 1)) as usize] = of.epochs[slot];
            }
            of.epochs = epochs;
        }
        (self.sequence, self.collected, self.born) = (sequence, collected, born);
    }
}
