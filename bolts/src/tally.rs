//! Counts of what the bolts did, for reports and metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use galerna_storage::ReadingOutcome;

/// What the store did with the readings, over all tasks that share it.
#[derive(Debug, Default)]
pub struct StoreTally {
    inserted: AtomicU64,
    replaced: AtomicU64,
    duplicates: AtomicU64,
}

impl StoreTally {
    pub(crate) fn count(&self, outcomes: &[ReadingOutcome]) {
        let of = |kind| outcomes.iter().filter(|outcome| **outcome == kind).count() as u64;
        let (inserted, replaced) = (of(ReadingOutcome::Inserted), of(ReadingOutcome::Replaced));
        self.inserted.fetch_add(inserted, Relaxed);
        self.replaced.fetch_add(replaced, Relaxed);
        self.duplicates.fetch_add(outcomes.len() as u64 - inserted - replaced, Relaxed);
    }

    /// Readings that were new.
    pub fn inserted(&self) -> u64 {
        self.inserted.load(Relaxed)
    }

    /// Readings that replaced one with a lower sequence number.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Relaxed)
    }

    /// Readings that were there already.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Relaxed)
    }
}
