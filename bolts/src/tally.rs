//! Counts of what the bolts did, for reports and metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use galerna_storage::{ReadingOutcome, StoreOutcome};

/// What the store did with the readings, over all tasks that share it.
#[derive(Debug, Default)]
pub struct StoreTally {
    inserted: AtomicU64,
    replaced: AtomicU64,
    added: AtomicU64,
    duplicates: AtomicU64,
    values_not_taken: AtomicU64,
}

impl StoreTally {
    pub(crate) fn count(&self, outcome: &StoreOutcome) {
        let of = |kind| outcome.readings.iter().filter(|outcome| **outcome == kind).count() as u64;
        self.inserted.fetch_add(of(ReadingOutcome::Inserted), Relaxed);
        self.replaced.fetch_add(of(ReadingOutcome::Replaced), Relaxed);
        self.added.fetch_add(of(ReadingOutcome::Added), Relaxed);
        self.duplicates.fetch_add(of(ReadingOutcome::Duplicate), Relaxed);
        self.values_not_taken.fetch_add(outcome.not_taken.len() as u64, Relaxed);
    }

    /// Readings that were new.
    pub fn inserted(&self) -> u64 {
        self.inserted.load(Relaxed)
    }

    /// Readings that replaced one with a lower sequence number.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Relaxed)
    }

    /// Readings that added values to one that was there.
    pub fn added(&self) -> u64 {
        self.added.load(Relaxed)
    }

    /// Values that were not taken, since others with the same or a higher sequence number were there.
    pub fn values_not_taken(&self) -> u64 {
        self.values_not_taken.load(Relaxed)
    }

    /// Readings that were there already.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Relaxed)
    }
}
