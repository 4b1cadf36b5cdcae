//! What a dispatcher knows of all queues: the cached records and the index of those that can be leased.
//!
//! The store is the truth; the board may be behind it. That is harmless, since every write is guarded by the version
//! that it was computed from, and a refused write brings the newer record along.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use galerna_model::{AccountId, QueueName, Timestamp};
use galerna_storage::{QueueRecord, QueueState, ReadyCount};
use tokio::time::Instant;

use crate::strategy::{Candidate, Strategy, StrategyName};
use galerna_lease::LeaseWatch;
use galerna_lease::Timing;
use galerna_lease::UNTIL_UNPAUSED;
use galerna_lease::invariants;

/// A count that says zero does not end the presumption that there are messages when that is younger than this: the
/// count may have been taken before the messages came.
const COUNT_LAG: Duration = Duration::from_secs(5);

/// A queue's place on the board.
pub(crate) type Slot = u32;

/// What a timer on the board is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// The lease seen may have expired.
    Expire,
    /// The delay after crashes is over.
    Retry,
}

/// One queue on the board.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: QueueRecord,
    pub(crate) watch: Option<LeaseWatch>,
    /// A guarded write of it is under way: nobody else touches it.
    pub(crate) flying: bool,
    /// Messages were announced while that write was under way: it knows nothing of them.
    announced: bool,
    /// Since when messages are presumed, by a hint or by how its last lease ended, beside what was counted.
    expected: Option<Instant>,
    not_before: Option<Instant>,
    leased_at: Option<Instant>,
    delivered: u64,
    waiting: Option<u64>,
    account: u32,
    gone: bool,
    /// The timer that looks after the lease; there is at most one, however often the lease is renewed.
    timer: Option<Instant>,
    /// On the list of chores.
    filed: bool,
}

impl Entry {
    /// Whether it is known to have messages.
    pub(crate) fn has_messages(&self) -> bool {
        let r = &self.record;
        match r.state {
            QueueState::Empty => r.ready > 0 || self.expected.is_some(),
            _ => r.ready > 0 || r.unacked > 0 || self.expected.is_some(),
        }
    }

    fn leasable(&self, needs_messages: bool, now: Instant) -> bool {
        !self.gone
            && !self.flying
            && self.record.lease.is_none()
            && matches!(self.record.state, QueueState::Idle | QueueState::Empty)
            && self.not_before.is_none_or(|t| t <= now)
            && (!needs_messages || self.has_messages())
    }

    /// Whether its state in the store is behind its counts.
    fn misfiled(&self) -> bool {
        match self.record.state {
            QueueState::Empty => self.has_messages(),
            QueueState::Idle => self.record.counted_at.is_some() && !self.has_messages(),
            _ => false,
        }
    }
}

/// All queues.
pub(crate) struct Board {
    entries: Vec<Entry>,
    free: Vec<Slot>,
    by_name: HashMap<QueueName, Slot>,
    accounts: HashMap<AccountId, u32>,
    weights: HashMap<AccountId, u32>,
    account_weights: Vec<u32>,
    counts: [usize; QueueState::ALL.len()],
    index: Box<dyn Strategy>,
    in_force: StrategyName,
    timers: BinaryHeap<Reverse<(Instant, Slot, Due)>>,
    /// Queues whose stored state is behind their counts.
    pub(crate) chores: Vec<Slot>,
    /// Counts to write: queues found empty whose stored count says otherwise.
    pub(crate) zeroed: Vec<ReadyCount>,
    /// The latest time of a count, by the clock of whoever counts.
    pub(crate) last_count: Option<Timestamp>,
    sequence: u64,
    timing: Timing,
}

impl Board {
    pub(crate) fn new(timing: Timing, weights: HashMap<AccountId, u32>) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::new(),
            accounts: HashMap::new(),
            weights,
            account_weights: Vec::new(),
            counts: [0; QueueState::ALL.len()],
            index: StrategyName::Fifo.build(),
            in_force: StrategyName::Fifo,
            timers: BinaryHeap::new(),
            chores: Vec::new(),
            zeroed: Vec::new(),
            last_count: None,
            sequence: 0,
            timing,
        }
    }

    pub(crate) fn in_force(&self) -> StrategyName {
        self.in_force
    }

    pub(crate) fn slot(&self, queue: &QueueName) -> Option<Slot> {
        self.by_name.get(queue).copied()
    }

    pub(crate) fn entry(&self, slot: Slot) -> &Entry {
        &self.entries[slot as usize]
    }

    /// All queues that are there.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| !e.gone)
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

    /// The next queue by the strategy; it leaves the index.
    pub(crate) fn take(&mut self, spread: usize) -> Option<Slot> {
        self.index.take(spread)
    }

    /// Lets a release that is planned but not yet written be leased within the same write.
    pub(crate) fn offer(&mut self, slot: Slot, now: Instant, has_messages: bool) {
        let entry = &self.entries[slot as usize];
        let waits = entry.not_before.is_some_and(|t| t > now);
        if !waits && (has_messages || !self.in_force.needs_counts()) {
            let candidate = self.candidate(slot);
            self.index.insert(candidate);
        }
    }

    /// Takes a queue out of the index for which a write is planned.
    pub(crate) fn withhold(&mut self, slot: Slot) {
        self.index.remove(slot);
    }

    /// A write of the queue starts: it is out of the index until [`Self::landed`].
    pub(crate) fn launched(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot as usize];
        entry.flying = true;
        entry.announced = false;
        self.index.remove(slot);
    }

    /// The write is over.
    pub(crate) fn landed(&mut self, slot: Slot, now: Instant) {
        let entry = &mut self.entries[slot as usize];
        entry.flying = false;
        entry.announced = false;
        self.reindex(slot, now);
        self.file(slot);
    }

    /// Changes the strategy in force; no lease is touched.
    pub(crate) fn set_strategy(&mut self, name: StrategyName, now: Instant) {
        if self.in_force == name {
            return;
        }
        self.in_force = name;
        self.index = name.build();
        for slot in 0..self.entries.len() {
            self.reindex(slot as Slot, now);
        }
    }

    /// Presumes that these queues have messages. Returns how many of them are known.
    pub(crate) fn hint(&mut self, queues: &[QueueName], now: Instant) -> usize {
        let mut known = 0;
        for queue in queues {
            let Some(slot) = self.slot(queue) else { continue };
            known += 1;
            let entry = &mut self.entries[slot as usize];
            entry.expected = Some(now);
            entry.announced = entry.flying;
            self.reindex(slot, now);
            self.file(slot);
        }
        known
    }

    /// Takes a record that the store is known to hold, unless it is older than what is known. A new queue gets a place.
    pub(crate) fn apply(&mut self, record: QueueRecord, now: Instant, wall: Timestamp) -> Slot {
        debug_assert_eq!(invariants::record(&record), Ok(()));
        if record.counted_at > self.last_count {
            self.last_count = record.counted_at;
        }
        let slot = match self.slot(&record.queue) {
            None => self.add(record, now),
            Some(slot) => {
                let fresh = self.take_counts(slot, &record, now);
                let entry = &self.entries[slot as usize];
                if record.version > entry.record.version {
                    self.replace(slot, record, now, fresh);
                }
                slot
            }
        };
        self.delay(slot, now, wall);
        self.reindex(slot, now);
        self.file(slot);
        slot
    }

    fn add(&mut self, record: QueueRecord, now: Instant) -> Slot {
        let slot = self.free.pop().unwrap_or(self.entries.len() as Slot);
        let account = self.account(&record.account);
        let delivered = if record.last_delivered.is_some() { self.tick() } else { 0 };
        self.counts[record.state as usize] += 1;
        self.by_name.insert(record.queue.clone(), slot);
        let entry = Entry {
            watch: LeaseWatch::look(None, &record, now),
            flying: false,
            announced: false,
            // It has been leased and was not found empty at the end: presume messages rather than starve it.
            expected: (record.state == QueueState::Idle && record.epoch > 0).then_some(now),
            not_before: None,
            leased_at: record.lease.is_some().then_some(now),
            delivered,
            waiting: None,
            account,
            gone: false,
            timer: None,
            filed: false,
            record,
        };
        if slot as usize == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[slot as usize] = entry;
        }
        self.set_timer(slot);
        slot
    }

    /// Whether the record brought a newer count.
    fn take_counts(&mut self, slot: Slot, record: &QueueRecord, now: Instant) -> bool {
        let entry = &mut self.entries[slot as usize];
        let fresh = record.counted_at > entry.record.counted_at;
        if fresh {
            entry.record.counted_at = record.counted_at;
            entry.record.ready = record.ready;
            entry.record.unacked = record.unacked;
            if record.ready + record.unacked == 0 && entry.expected.is_some_and(|t| now - t >= COUNT_LAG) {
                entry.expected = None;
            }
        }
        fresh
    }

    fn replace(&mut self, slot: Slot, mut record: QueueRecord, now: Instant, fresh_count: bool) {
        let granted = record.epoch != self.entries[slot as usize].record.epoch;
        let delivered = granted.then(|| self.tick());
        let entry = &mut self.entries[slot as usize];
        let before = &entry.record;
        // Counts are merged apart: theirs may be older than ours.
        (record.ready, record.unacked, record.counted_at) = (before.ready, before.unacked, before.counted_at);
        let ended = before.lease.is_some() && (record.lease.is_none() || granted);
        let filed = before.state != record.state;
        self.counts[before.state as usize] -= 1;
        self.counts[record.state as usize] += 1;
        let charge = ended.then(|| entry.leased_at.take().map_or(Duration::ZERO, |t| now - t));
        entry.watch = LeaseWatch::look(entry.watch, &record, now);
        if let Some(delivered) = delivered {
            entry.delivered = delivered;
            entry.leased_at = record.lease.is_some().then_some(now);
        }
        if filed {
            match record.state {
                QueueState::Idle => entry.expected = Some(now),
                QueueState::Empty => {
                    if !entry.announced {
                        entry.expected = None;
                    }
                    if let Some(counted) = record.counted_at
                        && record.ready + record.unacked > 0
                        && !fresh_count
                    {
                        // Found dry: the count is void, and a later one must count as news even if it is the same.
                        (record.ready, record.unacked) = (0, 0);
                        record.counted_at = Some(counted.plus_millis(1));
                        let queue = record.queue.clone();
                        self.zeroed.push(ReadyCount { queue, ready: 0, unacked: 0 });
                    }
                }
                _ => {}
            }
        }
        entry.record = record;
        let account = entry.account;
        if let Some(held) = charge {
            self.index.charge(account, held);
        }
        self.set_timer(slot);
    }

    fn set_timer(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot as usize];
        if let Some(watch) = entry.watch {
            let at = watch.expires_at(self.timing.expiry_margin);
            if entry.timer.is_none_or(|set| at < set) {
                entry.timer = Some(at);
                self.timers.push(Reverse((at, slot, Due::Expire)));
            }
        }
    }

    /// Translates the stored time of the delay after crashes into this process's own clock; a skewed one cannot make the
    /// delay longer than it is.
    fn delay(&mut self, slot: Slot, now: Instant, wall: Timestamp) {
        let entry = &mut self.entries[slot as usize];
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
        entry.not_before = Some(now + left);
        self.timers.push(Reverse((now + left, slot, Due::Retry)));
    }

    /// A queue that the store no longer has.
    pub(crate) fn remove(&mut self, queue: &QueueName) {
        let Some(&slot) = self.by_name.get(queue) else { return };
        let entry = &mut self.entries[slot as usize];
        if entry.flying {
            return; // The write under way will find out.
        }
        entry.gone = true;
        entry.watch = None;
        self.counts[entry.record.state as usize] -= 1;
        self.by_name.remove(queue);
        self.index.remove(slot);
        self.free.push(slot);
    }

    /// How many leases are watched, and when the last of them will have expired unless it is renewed or released.
    pub(crate) fn watched(&self) -> Option<(usize, Instant)> {
        let expiries =
            || self.entries().filter_map(|e| e.watch).map(|w| w.expires_at(self.timing.expiry_margin));
        expiries().max().map(|last| (expiries().count(), last))
    }

    /// The next timer.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Timers that are due: leases to expire, for which a guarded write is to be made.
    pub(crate) fn expired(&mut self, now: Instant, limit: usize) -> Vec<(QueueName, u64, u64)> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(&Reverse((at, slot, what))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let entry = &mut self.entries[slot as usize];
            match what {
                Due::Retry => self.reindex(slot, now),
                Due::Expire if entry.timer == Some(at) => {
                    entry.timer = None;
                    if let Some(watch) = entry.watch {
                        let mut again = watch.expires_at(self.timing.expiry_margin);
                        if again <= now {
                            let (epoch, renewal) = watch.watched();
                            due.push((entry.record.queue.clone(), epoch, renewal));
                            // Should the write fail, it is tried again.
                            again = now + self.timing.sweep;
                        }
                        entry.timer = Some(again);
                        self.timers.push(Reverse((again, slot, Due::Expire)));
                    }
                }
                Due::Expire => {}
            }
        }
        due
    }

    fn reindex(&mut self, slot: Slot, now: Instant) {
        self.index.remove(slot);
        if self.entries[slot as usize].leasable(self.in_force.needs_counts(), now) {
            if self.entries[slot as usize].waiting.is_none() {
                let waiting = self.tick();
                self.entries[slot as usize].waiting = Some(waiting);
            }
            let candidate = self.candidate(slot);
            self.index.insert(candidate);
        } else if !self.entries[slot as usize].flying {
            self.entries[slot as usize].waiting = None;
        }
    }

    fn candidate(&self, slot: Slot) -> Candidate {
        let e = &self.entries[slot as usize];
        Candidate {
            slot,
            account: e.account,
            weight: self.account_weights[e.account as usize],
            delivered: e.delivered,
            waiting: e.waiting.unwrap_or(self.sequence),
        }
    }

    /// Notes the queue as a chore when its stored state is behind its counts.
    fn file(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot as usize];
        if !entry.gone && !entry.filed && entry.misfiled() {
            entry.filed = true;
            self.chores.push(slot);
        }
    }

    /// The count to file the queue by, if that is still needed.
    pub(crate) fn chore(&mut self, slot: Slot) -> Option<u64> {
        let entry = &mut self.entries[slot as usize];
        entry.filed = false;
        (!entry.gone && !entry.flying && entry.misfiled()).then(|| {
            let counted = entry.record.ready + entry.record.unacked;
            if entry.has_messages() { counted.max(1) } else { 0 }
        })
    }

    fn account(&mut self, account: &AccountId) -> u32 {
        if let Some(&id) = self.accounts.get(account) {
            return id;
        }
        let id = self.account_weights.len() as u32;
        self.account_weights.push(self.weights.get(account).copied().unwrap_or(1).max(1));
        self.accounts.insert(account.clone(), id);
        id
    }

    fn tick(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
