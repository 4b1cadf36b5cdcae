//! One queue, as this dispatcher knows it.

use galerna_lease::{LeaseWatch, QueueRecord, QueueState};
use tokio::time::Instant;

use crate::past::Past;

/// A queue's place in the table; used again when the queue is removed.
pub(crate) type EntryId = u32;

/// One queue of the table.
#[derive(Debug)]
pub(crate) struct QueueEntry {
    pub(crate) record: QueueRecord,
    pub(crate) watch: Option<LeaseWatch>,
    /// A guarded write of it is in flight: nobody else touches it.
    pub(crate) write_in_flight: bool,
    /// A hint came while that write was in flight: the write knows nothing of it.
    pub(super) hinted_in_flight: bool,
    /// Since when messages are presumed, by a hint or by how its last lease ended, beside what was counted.
    pub(super) presumed_since: Option<Instant>,
    /// When the delay after crashes is over.
    pub(super) not_before: Option<Instant>,
    pub(super) leased_at: Option<Instant>,
    /// Place in the order of deliveries.
    pub(super) delivered: u64,
    /// Place in the order in which queues became leasable, while it is leasable.
    pub(super) waiting: Option<u64>,
    pub(super) account: u32,
    /// The store has it no more; the place is free.
    pub(super) removed: bool,
    /// The timer that looks after the lease; there is at most one, however often the lease is renewed.
    pub(super) expiry_timer: Option<Instant>,
    /// Queued in [`QueueTable::pending_reconcile`](super::QueueTable::pending_reconcile).
    pub(super) queued_to_reconcile: bool,
    /// Its last transitions.
    pub(crate) past: Past,
}

impl QueueEntry {
    /// Whether it is known to have messages.
    pub(crate) fn has_messages(&self) -> bool {
        let r = &self.record;
        match r.state {
            QueueState::Empty => r.ready > 0 || self.presumed_since.is_some(),
            _ => r.ready > 0 || r.unacked > 0 || self.presumed_since.is_some(),
        }
    }

    pub(super) fn can_be_leased(&self, needs_messages: bool, now: Instant) -> bool {
        !self.removed
            && !self.write_in_flight
            && self.record.lease.is_none()
            && matches!(self.record.state, QueueState::Idle | QueueState::Empty)
            && self.not_before.is_none_or(|t| t <= now)
            && (!needs_messages || self.has_messages())
    }

    /// Whether its state in the store is behind its counts.
    pub(super) fn needs_reconcile(&self) -> bool {
        !self.removed
            && match self.record.state {
                QueueState::Empty => self.has_messages(),
                QueueState::Idle => self.record.counted_at.is_some() && !self.has_messages(),
                _ => false,
            }
    }
}
