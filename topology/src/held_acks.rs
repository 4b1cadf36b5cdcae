//! Acks that wait for a checkpoint.

use std::collections::VecDeque;

/// The ids of messages that are done and not acked yet: each waits until a checkpoint with its number, or a later one, is committed.
#[derive(Debug)]
pub(crate) struct HeldAcks<Id> {
    /// By the number of the checkpoint, ascending.
    waiting: VecDeque<(u64, Vec<Id>)>,
    len: usize,
}

impl<Id> Default for HeldAcks<Id> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), len: 0 }
    }
}

impl<Id> HeldAcks<Id> {
    /// These wait for this checkpoint.
    pub(crate) fn hold(&mut self, until: u64, ids: impl Iterator<Item = Id>) {
        let at = match self.waiting.binary_search_by_key(&until, |(number, _)| *number) {
            Ok(at) => at,
            Err(at) => {
                self.waiting.insert(at, (until, Vec::new()));
                at
            }
        };
        let before = self.waiting[at].1.len();
        self.waiting[at].1.extend(ids);
        self.len += self.waiting[at].1.len() - before;
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Those that wait no more, as this checkpoint is committed, in the order of their checkpoints.
    pub(crate) fn release(&mut self, committed: u64) -> Vec<Id> {
        let mut released = Vec::new();
        while self.waiting.front().is_some_and(|(number, _)| *number <= committed) {
            if let Some((_, mut ids)) = self.waiting.pop_front() {
                self.len -= ids.len();
                if released.is_empty() {
                    released = ids;
                } else {
                    released.append(&mut ids);
                }
            }
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_released_by_its_checkpoint_or_a_later_one() {
        let mut held = HeldAcks::default();
        held.hold(2, [20, 21].into_iter());
        held.hold(1, [10].into_iter());
        held.hold(4, [40].into_iter());
        held.hold(2, [22].into_iter());
        for (committed, released, left) in
            [(0, vec![], 5), (2, vec![10, 20, 21, 22], 1), (2, vec![], 1), (3, vec![], 1), (5, vec![40], 0)]
        {
            assert_eq!(held.release(committed), released, "checkpoint {committed}");
            assert_eq!(held.len(), left, "checkpoint {committed}");
        }
    }
}
