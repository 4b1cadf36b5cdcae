//! Whether anything is still on its way.

use tokio::sync::Notify;

use crate::sync::atomic::{AtomicUsize, Ordering};

/// Counts batches and messages to ledgers from when they are sent until all they caused has been sent in
/// turn. At 0, nothing happens any more unless a spout emits, a timer fires or a kept tuple is settled.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: AtomicUsize,
    changed: Notify,
}

impl InFlight {
    pub(crate) fn begin(&self, n: usize) {
        self.count.fetch_add(n, Ordering::AcqRel);
    }

    pub(crate) fn end(&self, n: usize) {
        if n > 0 && self.count.fetch_sub(n, Ordering::AcqRel) == n {
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Something beside the count changed that waiters look at.
    pub(crate) fn touch(&self) {
        self.changed.notify_waiters();
    }

    /// Resolves when the condition holds. It is looked at after each change of the count.
    pub(crate) async fn wait_until(&self, mut condition: impl FnMut() -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if condition() {
                return;
            }
            changed.await;
        }
    }
}
