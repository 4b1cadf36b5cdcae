//! The ids that messages have of their own, for bolts to read.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard};

use galerna_lock::Mutex;
use galerna_topology::lineage::RootId;

/// The stable ids of the pending roots of one spout task, by sequence number. Clones are the same ids.
#[derive(Debug, Clone, Default)]
pub struct StableIds {
    // Locked for one insertion or look-up, and only where a spout gives ids.
    ids: Arc<Mutex<HashMap<u64, Arc<str>>>>,
}

impl StableIds {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<str>>> {
        self.ids.lock()
    }

    /// The id of a root that is pending, if its spout gave one.
    pub fn get(&self, root: RootId) -> Option<Arc<str>> {
        self.lock().get(&root.sequence()).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn insert(&self, root: RootId, id: Arc<str>) {
        self.lock().insert(root.sequence(), id);
    }

    /// This root has ended: its id.
    pub(crate) fn take(&self, sequence: u64) -> Option<Arc<str>> {
        self.lock().remove(&sequence)
    }

    /// These roots have ended.
    pub(crate) fn remove(&self, sequences: impl IntoIterator<Item = u64>) {
        let mut ids = self.lock();
        for sequence in sequences {
            ids.remove(&sequence);
        }
    }

    pub(crate) fn shrink(&self) {
        self.lock().shrink_to_fit();
    }
}
