//! What a broker has done since it was opened.

use serde::Serialize;

/// Exact counts of one broker handle since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Messages handed to `publish`.
    pub published: u64,
    /// Of these, confirmed.
    pub confirmed: u64,
    /// Messages handed to consumers, redeliveries included.
    pub delivered: u64,
    /// Settled as done.
    pub acked: u64,
    /// Settled to be delivered again later.
    pub retried: u64,
    /// Moved to the dead letters, for whatever reason.
    pub dead_lettered: u64,
}

#[cfg(any(feature = "rabbitmq", feature = "embedded"))]
pub(crate) use live::Counters;

#[cfg(any(feature = "rabbitmq", feature = "embedded"))]
mod live {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Counts;

    /// The live form of [`Counts`].
    #[derive(Debug, Default)]
    pub(crate) struct Counters {
        pub(crate) published: Counter,
        pub(crate) confirmed: Counter,
        pub(crate) delivered: Counter,
        pub(crate) acked: Counter,
        pub(crate) retried: Counter,
        pub(crate) dead_lettered: Counter,
    }

    impl Counters {
        pub(crate) fn snapshot(&self) -> Counts {
            Counts {
                published: self.published.get(),
                confirmed: self.confirmed.get(),
                delivered: self.delivered.get(),
                acked: self.acked.get(),
                retried: self.retried.get(),
                dead_lettered: self.dead_lettered.get(),
            }
        }
    }

    /// A number that only grows.
    #[derive(Debug, Default)]
    pub(crate) struct Counter(AtomicU64);

    impl Counter {
        pub(crate) fn add(&self, n: usize) {
            self.0.fetch_add(n as u64, Ordering::Relaxed);
        }

        fn get(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }
}
