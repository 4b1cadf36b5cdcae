//! Expiry as an observer may tell it.

use std::time::Duration;

use crate::record::QueueRecord;
use tokio::time::Instant;

/// Since when an observer has seen the same lease of a queue, by its own monotonic clock.
///
/// Wall clocks are skewed and jump, so `expires_at` decides nothing. Each observer (a dispatcher, the maintainer) notes
/// when *it* first saw an (epoch, renewal); when it still sees the same one after the lease time and a margin, the
/// holder, who has counted from before the write, has stopped for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseWatch {
    epoch: u64,
    renewal: u64,
    seen: Instant,
    lease: Duration,
}

impl LeaseWatch {
    /// Looks at a record at `now`: goes on with `earlier` when that watched the same (epoch, renewal), else starts anew.
    /// `None` when the record has no lease.
    pub fn look(earlier: Option<Self>, record: &QueueRecord, now: Instant) -> Option<Self> {
        let lease = record.lease.as_ref()?;
        match earlier {
            Some(w) if w.epoch == record.epoch && w.renewal == lease.renewal => Some(w),
            _ => Some(Self {
                epoch: record.epoch,
                renewal: lease.renewal,
                seen: now,
                lease: Duration::from_millis(lease.lease_ms),
            }),
        }
    }

    /// The (epoch, renewal) watched: what to expire.
    pub fn watched(&self) -> (u64, u64) {
        (self.epoch, self.renewal)
    }

    /// When it may be declared expired.
    pub fn expires_at(&self, margin: Duration) -> Instant {
        self.seen + self.lease + margin
    }

    /// How long the lease lasts yet, as far as this observer knows.
    pub fn left(&self, now: Instant) -> Duration {
        (self.seen + self.lease).saturating_duration_since(now)
    }
}
