//! Counts of what a leased-queue spout did.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What the leased-queue spouts that share this did.
        #[derive(Debug, Default)]
        pub struct LeaseTally {
            $( pub(super) $name: AtomicU64, )+
        }

        impl LeaseTally {
            $( $(#[$doc])* pub fn $name(&self) -> u64 { self.$name.load(Relaxed) } )+
        }
    };
}

tally! {
    /// Leases taken.
    leases,
    /// Leases held now.
    held,
    /// Leases that ended because they could not be renewed, had expired, or were no longer the holder's.
    lost,
    /// Leases given back because an operator paused the queue or its account is gone.
    revoked,
    /// Messages received.
    received,
    /// Messages acked to the broker.
    acked,
    /// Messages to be delivered again later, or dead after their last delivery.
    retried,
    /// Messages moved to the dead letters.
    dead_lettered,
    /// Messages given back unharmed.
    given_back,
    /// Outcomes that came after their lease and were not applied.
    too_late,
}

pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}
