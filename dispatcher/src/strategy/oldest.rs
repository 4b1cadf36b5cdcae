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
        self.remove(c.queue);
        self.keys.insert(c.queue, c.delivered);
        self.order.insert((c.delivered, c.queue));
    }

    fn remove(&mut self, queue: u32) {
        if let Some(delivered) = self.keys.remove(&queue) {
            self.order.remove(&(delivered, queue));
        }
    }

    fn take(&mut self, spread: usize) -> Option<u32> {
        let nth = fastrand::usize(..spread.clamp(1, self.order.len().max(1)));
        let &(delivered, queue) = self.order.iter().nth(nth)?;
        self.order.remove(&(delivered, queue));
        self.keys.remove(&queue);
        Some(queue)
    }

    fn charge(&mut self, _account: u32, _held: Duration) {}

    fn len(&self) -> usize {
        self.order.len()
    }
}
