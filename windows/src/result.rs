//! What windows emit.

use std::time::Duration;

use galerna_topology::Timestamp;

/// Why a window emitted a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Firing {
    /// It is not complete yet: an early trigger fired.
    Early,
    /// It is complete, as far as the watermark (or the count, or the clock) can say.
    OnTime,
    /// It was complete before, and a tuple came for it late, in its allowed lateness: this result replaces the one before.
    Late,
    /// It is not complete and will not be: the stream or the topology ends.
    AtEnd,
}

/// Which tuples a window has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WindowBounds {
    /// Those of this time, the end not included. By processing time these are milliseconds of the topology's clock.
    Time {
        /// Where it begins.
        start: Timestamp,
        /// Where it ends.
        end: Timestamp,
    },
    /// Those with these numbers, both included, of the tuples of its key, which are counted from 1.
    Count {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
}

impl WindowBounds {
    pub(crate) const fn time(start: i64, end: i64) -> Self {
        Self::Time { start: Timestamp::from_millis(start), end: Timestamp::from_millis(end) }
    }
}

/// The result of a window for one key.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowResult<K, R> {
    /// The key.
    pub key: K,
    /// Which tuples the window has.
    pub bounds: WindowBounds,
    /// Why it emits.
    pub firing: Firing,
    /// What the aggregate made of its tuples.
    pub value: R,
    /// What the aggregate makes of those tuples that the window before had and this one has not, if there are any and it was asked
    /// for with `with_expired`.
    pub expired: Option<R>,
}

/// A tuple for which all windows have closed, and whose allowed lateness is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Late<K, T> {
    /// Its key.
    pub key: K,
    /// The tuple.
    pub tuple: T,
    /// Its timestamp.
    pub at: Timestamp,
    /// How far it is behind the watermark.
    pub late_by: Duration,
}
