//! Taking records that the store is known to hold.

use crate::past::Past;
use std::time::Duration;

use galerna_lease::{Lease, LeaseWatch, QueueRecord, QueueState, invariants};
use galerna_model::{QueueName, Timestamp};
use galerna_storage::ReadyCount;
use tokio::time::Instant;

use super::{EntryId, QueueEntry, QueueTable};

/// A count that says zero does not end the presumption that there are messages when that is younger than this: the
/// count may have been taken before the messages came.
const COUNT_LAG: Duration = Duration::from_secs(5);

impl QueueTable {
    /// Takes a record that the store is known to hold, unless it is older than what is known. A new queue gets a place.
    pub(crate) fn apply(&mut self, record: QueueRecord, now: Instant, wall: Timestamp) -> EntryId {
        debug_assert_eq!(invariants::record(&record), Ok(()));
        if record.counted_at > self.last_count {
            self.last_count = record.counted_at;
        }
        let id = match self.find(&record.queue) {
            None => self.add(record, now),
            Some(id) => {
                let fresh_count = self.take_count(id, &record, now);
                if record.version > self.entry(id).record.version {
                    self.replace(id, record, now, fresh_count);
                }
                id
            }
        };
        self.delay_after_crashes(id, now, wall);
        self.reindex(id, now);
        self.queue_reconcile(id);
        id
    }

    fn add(&mut self, record: QueueRecord, now: Instant) -> EntryId {
        let id = self.free.pop().unwrap_or(self.entries.len() as EntryId);
        let account = self.account(&record.account);
        let delivered = if record.last_delivered.is_some() { self.next_in_sequence() } else { 0 };
        self.counts[record.state as usize] += 1;
        self.by_name.insert(record.queue.clone(), id);
        self.index_request(id, None, record.lease.as_ref());
        let entry = QueueEntry {
            watch: LeaseWatch::look(None, &record, now),
            write_in_flight: false,
            hinted_in_flight: false,
            // It has been leased and was not found empty at the end: presume messages rather than starve it.
            presumed_since: (record.state == QueueState::Idle && record.epoch > 0).then_some(now),
            not_before: None,
            leased_at: record.lease.is_some().then_some(now),
            delivered,
            waiting: None,
            account,
            removed: false,
            expiry_timer: None,
            queued_to_reconcile: false,
            past: Past::default(),
            record,
        };
        if id as usize == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[id as usize] = entry;
        }
        self.set_expiry_timer(id);
        id
    }

    /// Takes the record's count when it is newer than the one known, which it tells.
    fn take_count(&mut self, id: EntryId, record: &QueueRecord, now: Instant) -> bool {
        let entry = self.entry_mut(id);
        let fresh = record.counted_at > entry.record.counted_at;
        if fresh {
            entry.record.counted_at = record.counted_at;
            entry.record.ready = record.ready;
            entry.record.unacked = record.unacked;
            if record.ready + record.unacked == 0
                && entry.presumed_since.is_some_and(|t| now - t >= COUNT_LAG)
            {
                entry.presumed_since = None;
            }
        }
        fresh
    }

    fn replace(&mut self, id: EntryId, mut record: QueueRecord, now: Instant, fresh_count: bool) {
        let granted = record.epoch != self.entry(id).record.epoch;
        let delivered = granted.then(|| self.next_in_sequence());
        let entry = &mut self.entries[id as usize];
        let before = &entry.record;
        // Counts are merged apart: theirs may be older than ours.
        (record.ready, record.unacked, record.counted_at) = (before.ready, before.unacked, before.counted_at);
        let lease_ended = before.lease.is_some() && (record.lease.is_none() || granted);
        let state_changed = before.state != record.state;
        self.counts[before.state as usize] -= 1;
        self.counts[record.state as usize] += 1;
        // A worker keeps the lease of an empty queue only while it has room for others: that time holds nobody up.
        let emptied = record.state == QueueState::Empty;
        let held = lease_ended
            .then(|| entry.leased_at.take().filter(|_| !emptied).map_or(Duration::ZERO, |t| now - t));
        entry.watch = LeaseWatch::look(entry.watch, &record, now);
        if let Some(delivered) = delivered {
            entry.delivered = delivered;
            entry.leased_at = record.lease.is_some().then_some(now);
        }
        if state_changed {
            match record.state {
                QueueState::Idle => entry.presumed_since = Some(now),
                QueueState::Empty => {
                    if !entry.hinted_in_flight {
                        entry.presumed_since = None;
                    }
                    if let Some(counted) = record.counted_at
                        && record.ready + record.unacked > 0
                        && !fresh_count
                    {
                        // Found empty: the count is void, and a later one must count as news even if it is the same.
                        (record.ready, record.unacked) = (0, 0);
                        record.counted_at = Some(counted.plus_millis(1));
                        let queue = record.queue.clone();
                        self.void_counts.push(ReadyCount { queue, ready: 0, unacked: 0 });
                    }
                }
                _ => {}
            }
        }
        let replaced = std::mem::replace(&mut entry.record, record);
        let (account, lease) = (entry.account, entry.record.lease.clone());
        self.index_request(id, replaced.lease.as_ref(), lease.as_ref());
        if let Some(held) = held {
            self.index.charge(account, held);
        }
        self.set_expiry_timer(id);
    }

    /// Keeps [`Self::granted_to`] true when a lease takes another's place.
    fn index_request(&mut self, id: EntryId, before: Option<&Lease>, after: Option<&Lease>) {
        let request = |lease: Option<&Lease>| lease.and_then(|l| l.request.clone());
        let (before, after) = (request(before), request(after));
        if before == after {
            return;
        }
        if let Some(request) = before
            && let Some(granted) = self.by_request.get_mut(&request)
        {
            granted.retain(|other| *other != id);
            if granted.is_empty() {
                self.by_request.remove(&request);
            }
        }
        if let Some(request) = after {
            self.by_request.entry(request).or_default().push(id);
        }
    }

    /// Forgets a queue that the store no longer has.
    pub(crate) fn remove(&mut self, queue: &QueueName) {
        let Some(id) = self.find(queue) else { return };
        if self.entry(id).write_in_flight {
            return; // That write will find out.
        }
        let lease = self.entry(id).record.lease.clone();
        self.index_request(id, lease.as_ref(), None);
        let entry = self.entry_mut(id);
        entry.removed = true;
        entry.watch = None;
        let state = entry.record.state;
        self.counts[state as usize] -= 1;
        self.by_name.remove(queue);
        self.index.remove(id);
        self.free.push(id);
    }
}
