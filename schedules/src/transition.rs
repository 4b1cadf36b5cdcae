//! The life of a schedule and of its firings, as functions of the record and the time. They do no I/O.
//!
//! ```text
//!                       ┌ missed (window, late, later one)
//! occurrence ── arrives ┼ skipped (paused, overlap, buffer full)
//!                       └ admitted: waiting ── claim ── running ── done
//! trigger, backfill ────────────┘      ^                  ├ fault, again ──┐
//!                                      │                  ├ claim lost ────┤
//!                                      └──────────────────┴────────────────┘
//!                                 cancelled (replaced, removed)   failed (permanent, attempts, lost)
//! ```

use std::hash::{Hash, Hasher};

use galerna_model::Timestamp;
use galerna_topology::{Fault, FaultKind, StableHasher};

use crate::definition::millis;
use crate::firing::{Cancel, Claim, Ended, Fail, Firing, FiringId, Miss, OpenFiring, Origin, Outcome, Skip};
use crate::record::{Paused, Record, Upcoming};
use crate::{BadSchedule, Definition, Missed, ON_TIME, Occurrences, Overlap, Policy, ScheduleId};

/// As many firings of one schedule wait at most under [`Overlap::BufferAll`].
pub const BUFFER: usize = 100;

/// As many firings of one schedule are open at most, whatever asks for them.
pub const OPEN: usize = 1_000;

/// A number that is the same for everybody who looks at the same.
fn chance(id: &ScheduleId, nominal: Timestamp, attempt: u32) -> u64 {
    let mut hasher = StableHasher::default();
    (id.as_str(), nominal.as_millis(), attempt).hash(&mut hasher);
    hasher.finish()
}

/// The first occurrence after a time, with its jitter.
fn upcoming(
    id: &ScheduleId,
    policy: &Policy,
    occurrences: &Occurrences,
    after: Timestamp,
) -> Option<Upcoming> {
    let nominal = occurrences.next_after(after)?;
    let mut jitter = millis(policy.jitter);
    if jitter > 0
        && let Some(following) = occurrences.next_after(nominal)
    {
        jitter = jitter.min(following.millis_since(nominal) - 1);
    }
    let chance = i64::try_from(chance(id, nominal, 0) >> 1).unwrap_or(0);
    Some(Upcoming { nominal, due: nominal.plus_millis(chance % jitter.saturating_add(1).max(1)) })
}

/// A new schedule, whose first occurrence is after `now`.
pub(crate) fn create(
    id: ScheduleId,
    definition: Definition,
    occurrences: &Occurrences,
    now: Timestamp,
) -> Record {
    let next = upcoming(&id, &definition.policy, occurrences, now);
    Record {
        id,
        version: fastrand::i64(..),
        created: now,
        remaining: definition.remaining,
        definition,
        revision: 1,
        paused: None,
        decided: now,
        next,
        epoch: 0,
        number: 0,
        open: Vec::new(),
        counts: Default::default(),
    }
}

/// A record that is being changed, with what ends by it.
pub(crate) struct Change<'a> {
    pub(crate) record: &'a mut Record,
    pub(crate) ended: Vec<Ended>,
    now: Timestamp,
}

impl<'a> Change<'a> {
    pub(crate) fn new(record: &'a mut Record, now: Timestamp) -> Self {
        Self { record, ended: Vec::new(), now }
    }

    fn end(
        &mut self,
        nominal: Timestamp,
        origin: Origin,
        outcome: Outcome,
        attempts: u32,
        fault: Option<String>,
    ) {
        *self.record.counts.entry(outcome.to_string()).or_default() += 1;
        let id = FiringId { schedule: self.record.id.clone(), nominal, origin };
        self.ended.push(Ended { id, outcome, at: self.now, attempts, fault });
    }

    fn end_open(&mut self, index: usize, outcome: Outcome) {
        let firing = self.record.open.remove(index);
        self.end(firing.nominal, firing.origin, outcome, firing.attempts, firing.fault);
        if matches!(outcome, Outcome::Failed(_))
            && self.record.definition.policy.pause_on_failure
            && self.record.paused.is_none()
        {
            let id =
                FiringId { schedule: self.record.id.clone(), nominal: firing.nominal, origin: firing.origin };
            self.record.paused = Some(Paused { since: self.now, note: format!("{id} failed") });
        }
    }

    /// Decides what becomes of the occurrences that have become due, `most` of them at once. True when others are left.
    pub(crate) fn advance(&mut self, occurrences: &Occurrences, most: usize) -> bool {
        for _ in 0..most {
            let Some(next) = self.record.next.filter(|next| next.due <= self.now) else { return false };
            let policy = &self.record.definition.policy;
            let following = upcoming(&self.record.id, policy, occurrences, next.nominal);
            self.record.decided = self.record.decided.max(next.nominal);
            self.record.next = following;
            let another_is_due = following.is_some_and(|following| following.due <= self.now);
            match self.classify(next, another_is_due) {
                Some(outcome) => self.end(next.nominal, Origin::Planned, outcome, 0, None),
                None => {
                    let overlap = self.record.definition.policy.overlap;
                    let admitted = self.admit(next.nominal, Origin::Planned, next.due, overlap);
                    if admitted && let Some(remaining) = &mut self.record.remaining {
                        *remaining = remaining.saturating_sub(1);
                        if *remaining == 0 {
                            self.record.next = None;
                        }
                    }
                }
            }
        }
        self.record.next.is_some_and(|next| next.due <= self.now)
    }

    /// Why an occurrence is not fired; `None` when it is, as far as its time goes.
    fn classify(&self, occurrence: Upcoming, another_is_due: bool) -> Option<Outcome> {
        let late = self.now.millis_since(occurrence.due);
        if self.record.paused.is_some() {
            return Some(Outcome::Skipped(Skip::Paused));
        }
        if late > self.record.definition.window_ms() {
            return Some(Outcome::Missed(Miss::CatchupWindow));
        }
        if late <= millis(ON_TIME) {
            return None;
        }
        match self.record.definition.policy.missed {
            Missed::Skip => Some(Outcome::Missed(Miss::Late)),
            Missed::RunLatest if another_is_due => Some(Outcome::Missed(Miss::LaterOne)),
            Missed::RunLatest | Missed::RunAll => None,
        }
    }

    /// Lets a firing wait for its start, or ends it by the overlap policy. Whether it was let.
    fn admit(&mut self, nominal: Timestamp, origin: Origin, due: Timestamp, overlap: Overlap) -> bool {
        let open = self.record.open.len();
        let refused = match overlap {
            Overlap::Skip if open > 0 => Some(Skip::Overlap),
            Overlap::BufferOne if open > 1 => Some(Skip::BufferFull),
            // Backfilled occurrences are bounded where they are asked for.
            Overlap::BufferAll if open > BUFFER && !matches!(origin, Origin::Backfilled(_)) => {
                Some(Skip::BufferFull)
            }
            Overlap::CancelOther => {
                self.cancel_others();
                None
            }
            _ => None,
        };
        let refused = refused.or((self.record.open.len() >= OPEN).then_some(Skip::BufferFull));
        if let Some(skip) = refused {
            self.end(nominal, origin, Outcome::Skipped(skip), 0, None);
            return false;
        }
        self.record.open.push(OpenFiring {
            nominal,
            origin,
            due,
            overlap,
            attempts: 0,
            claim: None,
            cancelled: false,
            fault: None,
        });
        true
    }

    fn cancel_others(&mut self) {
        for index in (0..self.record.open.len()).rev() {
            let firing = &mut self.record.open[index];
            if firing.claim.is_some() {
                firing.cancelled = true;
            } else {
                self.end_open(index, Outcome::Cancelled(Cancel::Replaced));
            }
        }
    }

    /// Claims what can start now, `most` at once.
    pub(crate) fn claim(&mut self, holder: &str, lease_ms: u64, most: usize) -> Vec<Firing> {
        let mut claimed = Vec::new();
        for index in 0..self.record.open.len() {
            if claimed.len() == most {
                break;
            }
            if !self.record.may_start(index) || self.record.open[index].due > self.now {
                continue;
            }
            self.record.epoch += 1;
            let (epoch, now) = (self.record.epoch, self.now);
            let firing = &mut self.record.open[index];
            firing.attempts += 1;
            firing.claim = Some(Claim { holder: holder.to_owned(), epoch, renewal: 0, lease_ms, since: now });
            claimed.push(Firing {
                id: FiringId {
                    schedule: self.record.id.clone(),
                    nominal: firing.nominal,
                    origin: firing.origin,
                },
                due: firing.due,
                attempt: firing.attempts,
                epoch,
                payload: self.record.definition.payload.clone(),
            });
        }
        claimed
    }

    fn position(&self, epoch: u64) -> Option<usize> {
        self.record.open.iter().position(|firing| firing.claimed_with(epoch))
    }

    /// Keeps a claim for another lease time. `None` when it is lost; else whether the firing is to stop.
    pub(crate) fn renew(&mut self, epoch: u64) -> Option<bool> {
        let index = self.position(epoch)?;
        let firing = &mut self.record.open[index];
        if let Some(claim) = &mut firing.claim {
            claim.renewal += 1;
        }
        Some(firing.cancelled)
    }

    /// Ends an attempt. False when the claim is lost: then nothing changes.
    pub(crate) fn finish(&mut self, epoch: u64, result: &Result<(), Fault>) -> bool {
        let Some(index) = self.position(epoch) else { return false };
        let Err(fault) = result else {
            self.record.open[index].fault = None;
            self.end_open(index, Outcome::Done);
            return true;
        };
        self.record.open[index].fault = Some(fault.reason().to_owned());
        match fault.kind() {
            FaultKind::Permanent => self.fail_or_cancel(index, Fail::Permanent),
            FaultKind::Unavailable => {
                let firing = &mut self.record.open[index];
                firing.attempts = firing.attempts.saturating_sub(1);
                self.again(index, Fail::Attempts, true);
            }
            FaultKind::Transient => self.again(index, Fail::Attempts, true),
        }
        true
    }

    /// Gives back a claim whose firing was not begun.
    pub(crate) fn release(&mut self, epoch: u64) -> bool {
        let Some(index) = self.position(epoch) else { return false };
        let firing = &mut self.record.open[index];
        firing.attempts = firing.attempts.saturating_sub(1);
        firing.claim = None;
        if firing.cancelled {
            self.end_open(index, Outcome::Cancelled(Cancel::Replaced));
        }
        true
    }

    /// Takes a firing from a holder who was not heard of for its lease time.
    pub(crate) fn expire(&mut self, epoch: u64, renewal: u64) -> bool {
        let Some(index) = self.position(epoch) else { return false };
        let firing = &mut self.record.open[index];
        let Some(claim) = firing.claim.as_ref().filter(|claim| claim.renewal == renewal) else {
            return false;
        };
        firing.fault = Some(format!("the process {} was lost", claim.holder));
        self.again(index, Fail::Lost, false);
        true
    }

    fn fail_or_cancel(&mut self, index: usize, fail: Fail) {
        let cancelled = self.record.open[index].cancelled;
        let outcome = if cancelled { Outcome::Cancelled(Cancel::Replaced) } else { Outcome::Failed(fail) };
        self.end_open(index, outcome);
    }

    /// Lets a firing wait for its next attempt, if there is one.
    fn again(&mut self, index: usize, fail: Fail, pause: bool) {
        let retry = self.record.definition.policy.retry.clone();
        let firing = &mut self.record.open[index];
        if firing.cancelled || firing.attempts >= retry.attempts {
            return self.fail_or_cancel(index, fail);
        }
        firing.claim = None;
        firing.due = self.now;
        if pause {
            let failed = firing.attempts.max(1);
            let pause = retry.pause(failed, chance(&self.record.id, firing.nominal, failed));
            firing.due = self.now.plus_millis(millis(pause));
        }
    }

    /// Adds a firing now. What became of it at once, if the overlap policy lets it not wait.
    pub(crate) fn trigger(&mut self, overlap: Overlap) -> (FiringId, Option<Outcome>) {
        self.record.number += 1;
        let origin = Origin::Triggered(self.record.number);
        let admitted = self.admit(self.now, origin, self.now, overlap);
        let outcome = self.ended.last().filter(|_| !admitted).map(|ended| ended.outcome);
        (FiringId { schedule: self.record.id.clone(), nominal: self.now, origin }, outcome)
    }

    /// Adds firings for the occurrences from `from` on and before `to`, as far as that is past. How many were let wait.
    pub(crate) fn backfill(
        &mut self,
        occurrences: &Occurrences,
        from: Timestamp,
        to: Timestamp,
        overlap: Overlap,
    ) -> Result<usize, BadSchedule> {
        let end = to.min(self.now.plus_millis(1));
        let room = OPEN.saturating_sub(self.record.open.len());
        let mut nominal = Vec::new();
        for time in occurrences.after(from.plus_millis(-1)).take_while(|time| *time < end) {
            if nominal.len() == room {
                return Err(BadSchedule::new(
                    "backfill",
                    format!(
                        "more than {room} occurrences are in that time, and {OPEN} firings may be open at once; take a shorter one"
                    ),
                ));
            }
            nominal.push(time);
        }
        let mut admitted = 0;
        for time in nominal {
            self.record.number += 1;
            admitted +=
                usize::from(self.admit(time, Origin::Backfilled(self.record.number), self.now, overlap));
        }
        Ok(admitted)
    }

    /// Goes by another definition from now on; what is open and what was decided stays.
    pub(crate) fn edit(&mut self, definition: Definition, occurrences: &Occurrences) {
        if let Some(arrived) = self.arrived_but_not_due() {
            let overlap = self.record.definition.policy.overlap;
            self.admit(arrived.nominal, Origin::Planned, arrived.due, overlap);
        }
        let record = &mut *self.record;
        if definition.remaining != record.definition.remaining {
            record.remaining = definition.remaining;
        }
        record.definition = definition;
        record.revision += 1;
        record.decided = record.decided.max(self.now);
        record.next = upcoming(&record.id, &record.definition.policy, occurrences, record.decided);
        if record.remaining == Some(0) {
            record.next = None;
        }
    }

    pub(crate) fn pause(&mut self, note: String) {
        self.record.paused = Some(Paused { since: self.now, note });
    }

    pub(crate) fn resume(&mut self) {
        self.record.paused = None;
    }

    /// An occurrence whose time has come, but not its jitter.
    fn arrived_but_not_due(&self) -> Option<Upcoming> {
        self.record.next.filter(|next| next.nominal <= self.now)
    }

    /// Ends everything that is open.
    pub(crate) fn remove(&mut self) {
        if let Some(arrived) = self.arrived_but_not_due() {
            self.end(arrived.nominal, Origin::Planned, Outcome::Cancelled(Cancel::Removed), 0, None);
        }
        while !self.record.open.is_empty() {
            self.end_open(0, Outcome::Cancelled(Cancel::Removed));
        }
    }
}
