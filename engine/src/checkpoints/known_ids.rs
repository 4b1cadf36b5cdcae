//! Which messages have had their effect, and which are worked on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, MutexGuard};

use galerna_lock::Mutex;
use galerna_topology::runtime::Delivered;

/// The stable ids of messages of one spout that are done, from then on until some time after their source was told. Whichever task
/// gets such a message again does not work on it. Clones are the same ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownIds {
    // Locked once for each root, and only in topologies with checkpoints whose spouts give ids.
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    ids: HashMap<Arc<str>, Id>,
    /// Those that are worked on.
    pending: HashSet<Arc<str>>,
    /// Those that are in no committed checkpoint yet, by the checkpoint that will have them.
    waiting: BTreeMap<u64, Vec<Arc<str>>>,
    /// The others, by when they are looked at.
    told: VecDeque<(u64, Arc<str>)>,
    /// Those that were restored, by when they are looked at.
    restored: VecDeque<(u64, Arc<str>)>,
    /// For how long after its ack a message may come again, in nanoseconds.
    grace: u64,
    /// For how long after a start a message may come again that the process before it has worked on, in nanoseconds.
    restored_grace: u64,
}

#[derive(Debug)]
struct Id {
    /// The checkpoint that has the message's effect.
    checkpoint: u64,
    /// When it need not be known any more; never as long as its source has not been told.
    forget_at: u64,
}

impl KnownIds {
    /// None, and for how long a message may come again after its ack, and after the start if the process before has worked on it; in
    /// nanoseconds.
    pub(crate) fn new(grace: u64, restored_grace: u64) -> Self {
        Self { known: Arc::new(Mutex::new(Known { grace, restored_grace, ..Known::default() })) }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// A message is done: its effect is in this checkpoint.
    pub(crate) fn done(&self, id: Arc<str>, checkpoint: u64) {
        let mut known = self.lock();
        known.pending.remove(&id);
        known.ids.insert(id.clone(), Id { checkpoint, forget_at: u64::MAX });
        known.waiting.entry(checkpoint).or_default().push(id);
    }

    /// The checkpoint that has the effect of a message, if it has had any. It is acked again, so it may come again again.
    fn find(&self, id: &str, now: u64) -> Option<u64> {
        let known = &mut *self.lock();
        let (key, _) = known.ids.get_key_value(id)?;
        let key = key.clone();
        let found = known.ids.get_mut(id)?;
        if found.forget_at != u64::MAX {
            let forget_at = now.saturating_add(known.grace);
            if forget_at > found.forget_at {
                found.forget_at = forget_at;
                known.told.push_back((forget_at, key));
            }
        }
        Some(found.checkpoint)
    }

    /// A message is delivered: what is known of it. If nothing is, it is worked on from now on.
    pub(crate) fn deliver(&self, id: &Arc<str>, now: u64) -> Delivered {
        if let Some(checkpoint) = self.find(id, now) {
            return Delivered::Done(checkpoint);
        }
        match self.lock().pending.insert(id.clone()) {
            true => Delivered::First,
            false => Delivered::Pending,
        }
    }

    /// A message that was worked on failed.
    pub(crate) fn failed(&self, id: &str) {
        self.lock().pending.remove(id);
    }

    /// These were in a checkpoint that was restored.
    pub(crate) fn restored(&self, ids: impl Iterator<Item = Arc<str>>, now: u64) {
        let known = &mut *self.lock();
        let forget_at = now.saturating_add(known.restored_grace.max(known.grace));
        for id in ids {
            known.restored.push_back((forget_at, id.clone()));
            known.ids.insert(id, Id { checkpoint: 0, forget_at });
        }
    }

    /// A checkpoint is committed: the sources of what it has are told.
    pub(crate) fn committed(&self, checkpoint: u64, now: u64) {
        let known = &mut *self.lock();
        let forget_at = now.saturating_add(known.grace);
        let later = known.waiting.split_off(&checkpoint.saturating_add(1));
        for id in std::mem::replace(&mut known.waiting, later).into_values().flatten() {
            if let Some(found) = known.ids.get_mut(&id) {
                found.forget_at = forget_at;
                known.told.push_back((forget_at, id));
            }
        }
    }

    /// Forgets those whose time is over.
    pub(crate) fn forget(&self, now: u64) {
        let Known { ids, told, restored, .. } = &mut *self.lock();
        for in_order in [told, restored] {
            while in_order.front().is_some_and(|(at, _)| *at <= now) {
                if let Some((_, id)) = in_order.pop_front()
                    && ids.get(&id).is_some_and(|found| found.forget_at <= now)
                {
                    ids.remove(&id);
                }
            }
        }
    }

    /// Those whose effect is in this checkpoint.
    pub(crate) fn in_doubt(&self, checkpoint: u64) -> BTreeSet<Vec<u8>> {
        let known = self.lock();
        let covered = known.ids.iter().filter(|(_, found)| found.checkpoint <= checkpoint);
        covered.map(|(id, _)| id.as_bytes().to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_from_when_it_is_done_until_some_time_after_its_source_was_told() {
        let known = KnownIds::new(10, 0);
        let ids = |checkpoint| {
            let ids = known.in_doubt(checkpoint).into_iter();
            ids.map(|id| String::from_utf8(id).unwrap()).collect::<Vec<_>>().join(" ")
        };
        known.restored(["old".into()].into_iter(), 0);
        known.done("a".into(), 1);
        known.done("b".into(), 2);
        assert_eq!((known.find("old", 1), known.find("a", 1), known.find("c", 1)), (Some(0), Some(1), None));
        assert_eq!((ids(1), ids(2)), ("a old".to_owned(), "a b old".to_owned()));
        known.committed(1, 5);
        known.forget(10);
        assert_eq!(ids(2), "a b old", "`old` was acked again at 1");
        known.forget(11);
        assert_eq!(ids(2), "a b");
        assert_eq!(known.find("a", 14), Some(1), "it came again, and is acked again");
        known.forget(15);
        assert_eq!(ids(2), "a b");
        known.forget(24);
        assert_eq!(ids(2), "b", "its source was not told");
        known.committed(7, 30);
        known.forget(40);
        assert_eq!(ids(9), "");
    }

    #[test]
    fn what_was_restored_is_known_for_longer_and_keeps_nothing_else() {
        let known = KnownIds::new(10, 100);
        known.restored(["old".into(), "older".into()].into_iter(), 0);
        known.done("a".into(), 1);
        known.committed(1, 5);
        known.forget(15);
        assert_eq!(known.find("a", 15), None);
        assert_eq!(known.find("old", 95), Some(0), "it is acked again, and may come once more until 105");
        known.forget(100);
        assert_eq!((known.find("older", 100), known.find("old", 100)), (None, Some(0)));
        known.forget(110);
        assert_eq!(known.find("old", 110), None);
    }
}
