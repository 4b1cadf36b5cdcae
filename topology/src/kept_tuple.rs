//! A tuple that a bolt keeps, by one handle or several.

use std::sync::Arc;

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The handles of one kept tuple, together: it counts once, as acked when the last of them is acked, or as failed when the
/// first of them fails. `execute` itself has a part in it until it returns.
#[derive(Debug)]
pub(crate) struct KeptTuple {
    open: AtomicUsize,
    failed: AtomicBool,
}

impl KeptTuple {
    /// A tuple that is being executed.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(1), failed: AtomicBool::new(false) })
    }

    pub(crate) fn add_handle(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// A handle was acked. Returns how many tuples were acked by that.
    pub(crate) fn ack(&self) -> u64 {
        u64::from(self.open.fetch_sub(1, Ordering::AcqRel) == 1 && !self.failed.load(Ordering::Acquire))
    }

    /// A handle failed. Returns how many tuples failed by that.
    pub(crate) fn fail(&self) -> u64 {
        let first = !self.failed.swap(true, Ordering::AcqRel);
        self.open.fetch_sub(1, Ordering::AcqRel);
        u64::from(first)
    }
}
