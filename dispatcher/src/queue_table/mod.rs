//! What a dispatcher knows of all queues: the cached records and the index of those that can be leased.
//!
//! The store is the truth; the table may be behind it. That is harmless, since every write is guarded by the version
//! that it was computed from, and a refused write brings the newer record along.

mod apply;
mod entry;
mod timers;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use galerna_lease::{QueueState, StrategyName, Timing};
use galerna_model::{AccountId, QueueName, Timestamp};
use galerna_storage::ReadyCount;
use tokio::time::Instant;

pub(crate) use self::entry::{EntryId, QueueEntry};
use self::timers::Timer;
use crate::past::PastTransition;
use crate::strategy::{Candidate, Strategy, index_of};

/// All queues.
pub(crate) struct QueueTable {
    entries: Vec<QueueEntry>,
    free: Vec<EntryId>,
    by_name: HashMap<QueueName, EntryId>,
    /// Queues whose lease was granted to a call that carried this request id.
    by_request: HashMap<String, Vec<EntryId>>,
    accounts: HashMap<AccountId, u32>,
    weights: HashMap<AccountId, u32>,
    account_weights: Vec<u32>,
    counts: [usize; QueueState::ALL.len()],
    index: Box<dyn Strategy>,
    in_force: StrategyName,
    timers: BinaryHeap<Reverse<Timer>>,
    pending_reconcile: Vec<EntryId>,
    /// Counts to write: queues found empty whose stored count says otherwise.
    pub(crate) void_counts: Vec<ReadyCount>,
    /// The latest time of a count, by the clock of whoever counts.
    pub(crate) last_count: Option<Timestamp>,
    sequence: u64,
    timing: Timing,
}

impl QueueTable {
    pub(crate) fn new(timing: Timing, weights: HashMap<AccountId, u32>) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::new(),
            by_request: HashMap::new(),
            accounts: HashMap::new(),
            weights,
            account_weights: Vec::new(),
            counts: [0; QueueState::ALL.len()],
            index: index_of(StrategyName::Fifo),
            in_force: StrategyName::Fifo,
            timers: BinaryHeap::new(),
            pending_reconcile: Vec::new(),
            void_counts: Vec::new(),
            last_count: None,
            sequence: 0,
            timing,
        }
    }

    pub(crate) fn in_force(&self) -> StrategyName {
        self.in_force
    }

    pub(crate) fn find(&self, queue: &QueueName) -> Option<EntryId> {
        self.by_name.get(queue).copied()
    }

    pub(crate) fn entry(&self, id: EntryId) -> &QueueEntry {
        &self.entries[id as usize]
    }

    /// Remembers a transition that is stored.
    pub(crate) fn remember(&mut self, id: EntryId, transition: PastTransition) {
        let queues = self.len();
        self.entry_mut(id).past.push(transition, queues);
    }

    fn entry_mut(&mut self, id: EntryId) -> &mut QueueEntry {
        &mut self.entries[id as usize]
    }

    /// All queues that are there.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &QueueEntry> {
        self.entries.iter().filter(|e| !e.removed)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// How many queues are in each state, in the order of [`QueueState::ALL`].
    pub(crate) fn counts(&self) -> [usize; QueueState::ALL.len()] {
        self.counts
    }

    /// How many queues the strategy could give now.
    pub(crate) fn leasable(&self) -> usize {
        self.index.len()
    }

    /// The queues that `consumer` holds, as far as is known, by a call that carried this request id.
    pub(crate) fn granted_to(&self, request: &str, consumer: &str) -> Vec<EntryId> {
        let granted = self.by_request.get(request).map_or(&[][..], Vec::as_slice);
        let holds = |id: &EntryId| {
            self.entry(*id).record.lease.as_ref().is_some_and(|lease| lease.consumer == consumer)
        };
        granted.iter().copied().filter(holds).collect()
    }

    /// The next queue by the strategy, or one of its first `spread`; it leaves the index.
    pub(crate) fn take(&mut self, spread: usize) -> Option<EntryId> {
        self.index.take(spread)
    }

    /// Lets a queue whose release is planned but not yet written be leased within the same write.
    pub(crate) fn offer(&mut self, id: EntryId, now: Instant, has_messages: bool) {
        let delayed = self.entry(id).not_before.is_some_and(|t| t > now);
        if !delayed && (has_messages || !self.in_force.needs_counts()) {
            let candidate = self.candidate(id);
            self.index.insert(candidate);
        }
    }

    /// Takes a queue out of the index for which a write is planned.
    pub(crate) fn withhold(&mut self, id: EntryId) {
        self.index.remove(id);
    }

    /// A write of the queue begins: it is out of the index until [`Self::end_write`].
    pub(crate) fn begin_write(&mut self, id: EntryId) {
        let entry = self.entry_mut(id);
        entry.write_in_flight = true;
        entry.hinted_in_flight = false;
        self.index.remove(id);
    }

    /// The write is over, whatever came of it.
    pub(crate) fn end_write(&mut self, id: EntryId, now: Instant) {
        let entry = self.entry_mut(id);
        entry.write_in_flight = false;
        entry.hinted_in_flight = false;
        self.reindex(id, now);
        self.queue_reconcile(id);
    }

    /// Changes the strategy in force; no lease is touched.
    pub(crate) fn set_strategy(&mut self, name: StrategyName, now: Instant) {
        if self.in_force == name {
            return;
        }
        self.in_force = name;
        self.index = index_of(name);
        for id in 0..self.entries.len() {
            self.reindex(id as EntryId, now);
        }
    }

    /// Presumes that these queues have messages. Returns how many of them are known.
    pub(crate) fn hint(&mut self, queues: &[QueueName], now: Instant) -> usize {
        let mut known = 0;
        for queue in queues {
            let Some(id) = self.find(queue) else { continue };
            known += 1;
            let entry = self.entry_mut(id);
            entry.presumed_since = Some(now);
            entry.hinted_in_flight = entry.write_in_flight;
            self.reindex(id, now);
            self.queue_reconcile(id);
        }
        known
    }

    /// Puts the queue where it belongs: in the index when it can be leased, else out of it.
    fn reindex(&mut self, id: EntryId, now: Instant) {
        self.index.remove(id);
        if self.entry(id).can_be_leased(self.in_force.needs_counts(), now) {
            if self.entry(id).waiting.is_none() {
                let waiting = self.next_in_sequence();
                self.entry_mut(id).waiting = Some(waiting);
            }
            let candidate = self.candidate(id);
            self.index.insert(candidate);
        } else if !self.entry(id).write_in_flight {
            self.entry_mut(id).waiting = None;
        }
    }

    fn candidate(&self, id: EntryId) -> Candidate {
        let e = self.entry(id);
        Candidate {
            queue: id,
            account: e.account,
            weight: self.account_weights[e.account as usize],
            delivered: e.delivered,
            waiting: e.waiting.unwrap_or(self.sequence),
        }
    }

    /// Whether the stored state of any queue is behind its counts.
    pub(crate) fn has_reconcile(&self) -> bool {
        !self.pending_reconcile.is_empty()
    }

    /// Queues the queue to be reconciled when its stored state is behind its counts.
    fn queue_reconcile(&mut self, id: EntryId) {
        let entry = self.entry_mut(id);
        if !entry.queued_to_reconcile && entry.needs_reconcile() {
            entry.queued_to_reconcile = true;
            self.pending_reconcile.push(id);
        }
    }

    /// At most `limit` queues whose stored state is behind their counts, with the messages to count.
    ///
    /// Those of which a write is in flight are left out; they are queued again when it ends.
    pub(crate) fn take_reconcile(&mut self, limit: usize) -> Vec<(EntryId, u64)> {
        let keep = self.pending_reconcile.len().saturating_sub(limit);
        let mut due = Vec::new();
        for id in self.pending_reconcile.split_off(keep) {
            let entry = self.entry_mut(id);
            entry.queued_to_reconcile = false;
            if !entry.write_in_flight && entry.needs_reconcile() {
                let counted = entry.record.ready + entry.record.unacked;
                due.push((id, if entry.has_messages() { counted.max(1) } else { 0 }));
            }
        }
        due
    }

    fn account(&mut self, account: &AccountId) -> u32 {
        if let Some(&number) = self.accounts.get(account) {
            return number;
        }
        let number = self.account_weights.len() as u32;
        self.account_weights.push(self.weights.get(account).copied().unwrap_or(1).max(1));
        self.accounts.insert(account.clone(), number);
        number
    }

    fn next_in_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

#[cfg(test)]
mod tests;
