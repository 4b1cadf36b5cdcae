//! `fifo` and `lru`: longest since last delivered. They differ only in which queues are let into the index.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::{Candidate, Strategy};

#[derive(Default)]
pub(super) struct Oldest {
    order: BTreeSet<(u64, u32)>,
    keys: HashMap<u32, u64>,
}

impl Strategy for Oldest {
    fn insert(&mut self, c: Candidate) {
        self.remove(c.slot);
        self.keys.insert(c.slot, c.delivered);
        self.order.insert((c.delivered, c.slot));
    }

    fn remove(&mut self, slot: u32) {
        if let Some(delivered) = self.keys.remove(&slot) {
            self.order.remove(&(delivered, slot));
        }
    }

    fn take(&mut self, spread: usize) -> Option<u32> {
        let nth = fastrand::usize(..spread.clamp(1, self.order.len().max(1)));
        let &(delivered, slot) = self.order.iter().nth(nth)?;
        self.order.remove(&(delivered, slot));
        self.keys.remove(&slot);
        Some(slot)
    }

    fn charge(&mut self, _account: u32, _held: Duration) {}

    fn len(&self) -> usize {
        self.order.len()
    }
}
