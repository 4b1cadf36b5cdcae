//! When leases expire and delays after crashes end, by this process's own monotonic clock.

use std::cmp::Reverse;
use std::time::Duration;

use galerna_lease::UNTIL_UNPAUSED;
use galerna_model::{QueueName, Timestamp};
use tokio::time::Instant;

use super::{EntryId, QueueTable};

/// A timer of one queue; the earliest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timer {
    at: Instant,
    id: EntryId,
    purpose: TimerPurpose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TimerPurpose {
    /// The lease watched may have expired.
    Expire,
    /// The delay after crashes is over.
    Retry,
}

/// A lease that was watched unchanged for longer than it lasts: what the guarded write is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpiredLease {
    pub(crate) queue: QueueName,
    pub(crate) epoch: u64,
    pub(crate) renewal: u64,
}

impl QueueTable {
    pub(super) fn set_expiry_timer(&mut self, id: EntryId) {
        let entry = &mut self.entries[id as usize];
        if let Some(watch) = entry.watch {
            let at = watch.expires_at(self.timing.expiry_margin);
            if entry.expiry_timer.is_none_or(|set| at < set) {
                entry.expiry_timer = Some(at);
                self.timers.push(Reverse(Timer { at, id, purpose: TimerPurpose::Expire }));
            }
        }
    }

    /// Translates the stored time of the delay after crashes into this process's own clock; a skewed one cannot make the
    /// delay longer than it is.
    pub(super) fn delay_after_crashes(&mut self, id: EntryId, now: Instant, wall: Timestamp) {
        let entry = &mut self.entries[id as usize];
        let stored = entry.record.not_before.filter(|t| *t != UNTIL_UNPAUSED && entry.record.lease.is_none());
        let Some(until) = stored else {
            entry.not_before = None;
            return;
        };
        if entry.not_before.is_some() {
            return;
        }
        let left = Duration::from_millis(u64::try_from(until.millis_since(wall)).unwrap_or(0))
            .min(self.timing.delay_after(entry.record.crashes));
        let at = now + left;
        entry.not_before = Some(at);
        self.timers.push(Reverse(Timer { at, id, purpose: TimerPurpose::Retry }));
    }

    /// How many leases are watched, and when the last of them will have expired unless it is renewed or released.
    pub(crate) fn watched(&self) -> Option<(usize, Instant)> {
        let expiries =
            || self.entries().filter_map(|e| e.watch).map(|w| w.expires_at(self.timing.expiry_margin));
        expiries().max().map(|last| (expiries().count(), last))
    }

    /// The next timer.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse(timer)| timer.at)
    }

    /// Runs the timers that are due. Returns at most `limit` leases to expire.
    pub(crate) fn expired(&mut self, now: Instant, limit: usize) -> Vec<ExpiredLease> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(&Reverse(Timer { at, id, purpose })) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let entry = &mut self.entries[id as usize];
            match purpose {
                TimerPurpose::Retry => self.reindex(id, now),
                TimerPurpose::Expire if entry.expiry_timer == Some(at) => {
                    entry.expiry_timer = None;
                    if let Some(watch) = entry.watch {
                        let mut again = watch.expires_at(self.timing.expiry_margin);
                        if again <= now {
                            let (epoch, renewal) = watch.watched();
                            due.push(ExpiredLease { queue: entry.record.queue.clone(), epoch, renewal });
                            // Should the write fail, it is tried again.
                            again = now + self.timing.sweep;
                        }
                        entry.expiry_timer = Some(again);
                        self.timers.push(Reverse(Timer { at: again, id, purpose }));
                    }
                }
                TimerPurpose::Expire => {} // Another timer has taken its place.
            }
        }
        due
    }
}
