//! The life of a queue: one enum of events, one function.
//!
//! | event | idle | empty | leased | paused | deleting |
//! |---|---|---|---|---|---|
//! | lease | leased, epoch + 1 | leased, epoch + 1 | *not leasable* | *not leasable* | *not leasable* |
//! | renew | *stale* | *stale* | renewal + 1 | renewal + 1, revoked ¹ | renewal + 1, revoked ¹ |
//! | release | *stale* | *stale* | idle, or empty | lease ends ¹ | lease ends ¹ |
//! | take back | *superseded* | *superseded* | idle ³ | lease ends ³ | lease ends ³ |
//! | expire | *superseded* | *superseded* | idle, crashes + 1 ² | lease ends ², crashes + 1 | lease ends ², crashes + 1 |
//! | pause | paused | paused | paused, lease stays | new reason | pause remembered |
//! | unpause | – | – | – | idle, or leased while a lease lives | remembered pause forgotten |
//! | flag deleted | deleting | deleting | deleting, lease stays | deleting, pause remembered | new reason |
//! | claim deletion | – | – | – | – | deletion claimed |
//! | give up deletion | – | – | – | – | deletion no longer claimed |
//! | undelete | – | – | – | – | idle, or leased while a lease lives, or the remembered pause |
//! | counted > 0 | – | idle | – | – | – |
//! | counted 0 | empty | – | – | – | – |
//!
//! `–`: accepted, nothing to write. *Italics*: refused, nothing changes. ¹ only with a live lease of that epoch,
//! otherwise *stale*. ² only with a live lease of that epoch and that renewal, otherwise *superseded*.
//! ³ only with a live lease of that epoch that was never renewed, otherwise *superseded*.
//!
//! A lease outlives a pause and a deletion flag: it stays in the record until its holder released it or it expired. So
//! unpausing can never give a second lease beside one that is still held.

use galerna_model::Timestamp;

use crate::record::{Lease, QueueRecord, QueueState};

use crate::invariants;
use crate::timing::Timing;

/// `not_before` of a queue that was paused when it was flagged for deletion: not before it is unpaused.
///
/// The record has one state; this keeps a pause sticky through a deletion that is taken back.
pub const UNTIL_UNPAUSED: Timestamp = Timestamp(253_370_764_800_000); // 9999-01-01

/// Something that happens to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueEvent {
    /// A consumer gets it.
    Lease {
        /// Who.
        consumer: String,
        /// What it knows its request by, when it may ask again with it.
        request: Option<String>,
    },
    /// Its holder wants to go on.
    Renew {
        /// Epoch of the lease.
        epoch: u64,
    },
    /// Its holder gives it back.
    Release {
        /// Epoch of the lease.
        epoch: u64,
        /// Whether the holder found it without messages.
        empty: bool,
    },
    /// The answer that granted it reached nobody, so nobody holds it.
    TakeBack {
        /// Epoch of the lease.
        epoch: u64,
    },
    /// An observer saw this (epoch, renewal) unchanged for longer than the lease, by its own monotonic clock.
    Expire {
        /// Epoch of the lease.
        epoch: u64,
        /// Renewal of the lease.
        renewal: u64,
    },
    /// An operator blocks it.
    Pause {
        /// Why.
        reason: Option<String>,
    },
    /// An operator unblocks it.
    Unpause,
    /// Its account is gone.
    FlagDeleted {
        /// Why.
        reason: Option<String>,
    },
    /// A maintainer is about to delete a flagged queue.
    ClaimDeletion,
    /// The queue was not deleted, or whoever was deleting it is gone.
    GiveUpDeletion,
    /// Its account is back.
    Undelete,
    /// Its messages were counted, or announced.
    Counted {
        /// Messages, ready and unacked.
        messages: u64,
    },
}

impl QueueEvent {
    /// The names of all events.
    pub const NAMES: [&str; 12] = [
        "lease",
        "renew",
        "release",
        "take_back",
        "expire",
        "pause",
        "unpause",
        "flag_deleted",
        "claim_deletion",
        "give_up_deletion",
        "undelete",
        "counted",
    ];

    /// The event's name in logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lease { .. } => "lease",
            Self::Renew { .. } => "renew",
            Self::Release { .. } => "release",
            Self::TakeBack { .. } => "take_back",
            Self::Expire { .. } => "expire",
            Self::Pause { .. } => "pause",
            Self::Unpause => "unpause",
            Self::FlagDeleted { .. } => "flag_deleted",
            Self::ClaimDeletion => "claim_deletion",
            Self::GiveUpDeletion => "give_up_deletion",
            Self::Undelete => "undelete",
            Self::Counted { .. } => "counted",
        }
    }
}

/// What an accepted event does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The record to store, guarded by the version that it was computed from.
    To(Box<QueueRecord>),
    /// The record is already as wanted.
    Unchanged,
}

/// Why an event was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The presented epoch is not that of a live lease.
    #[error("epoch {presented} is stale, the queue is at {current}")]
    StaleEpoch {
        /// As presented.
        presented: u64,
        /// As stored.
        current: u64,
    },
    /// The queue cannot be leased in its state.
    #[error("a queue in state {} cannot be leased", .0.as_str())]
    NotLeasable(QueueState),
    /// The lease to expire was renewed or ended meanwhile.
    #[error("the lease was renewed or ended meanwhile")]
    Superseded,
}

/// Applies `event` to `record` at the wall time `now`, by the table above.
///
/// Pure: nothing is stored. `now` only stamps the record; no decision depends on it, so skewed clocks do no harm.
///
/// # Errors
/// [`TransitionError`]; the record is to be left as it is.
pub fn transition(
    record: &QueueRecord,
    event: &QueueEvent,
    now: Timestamp,
    timing: &Timing,
) -> Result<Transition, TransitionError> {
    use QueueState::{Deleting, Empty, Idle, Leased, Paused};

    let mut next = record.clone();
    match event {
        QueueEvent::Lease { consumer, request } => {
            if !matches!(record.state, Idle | Empty) {
                return Err(TransitionError::NotLeasable(record.state));
            }
            let lease_ms = timing.lease_ms();
            next.state = Leased;
            next.epoch += 1;
            next.lease = Some(Lease {
                consumer: consumer.clone(),
                granted_at: now,
                expires_at: expiry(now, lease_ms),
                lease_ms,
                renewal: 0,
                request: request.clone(),
            });
            next.last_delivered = Some(now);
            next.not_before = None;
        }
        QueueEvent::Renew { epoch } => {
            let lease = live(&mut next, *epoch)?;
            lease.renewal += 1;
            // A renewal never shortens a lease: its answer may be lost, and the holder then counts by the older one.
            lease.expires_at = expiry(now, lease.lease_ms);
        }
        QueueEvent::Release { epoch, empty } => {
            live(&mut next, *epoch)?;
            next.lease = None;
            next.crashes = 0;
            if next.state == Leased {
                next.state = if *empty { Empty } else { Idle };
            }
        }
        QueueEvent::TakeBack { epoch } => {
            // Once renewed, it was given to somebody who asked again.
            unchanged(&mut next, *epoch, 0)?;
            next.lease = None;
            if next.state == Leased {
                next.state = Idle;
            }
        }
        QueueEvent::Expire { epoch, renewal } => {
            unchanged(&mut next, *epoch, *renewal)?;
            next.lease = None;
            next.crashes = next.crashes.saturating_add(1);
            if next.not_before != Some(UNTIL_UNPAUSED) {
                let delay = timing.delay_after(next.crashes);
                next.not_before = (!delay.is_zero())
                    .then(|| now.plus_millis(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)));
            }
            if next.state == Leased {
                next.state = Idle;
            }
        }
        QueueEvent::Pause { reason } => match record.state {
            Paused if reason.is_none() || *reason == record.reason => return Ok(Transition::Unchanged),
            Deleting if record.not_before == Some(UNTIL_UNPAUSED) => return Ok(Transition::Unchanged),
            Deleting => next.not_before = Some(UNTIL_UNPAUSED),
            Idle | Empty | Leased | Paused => {
                next.state = Paused;
                next.reason.clone_from(reason);
            }
        },
        QueueEvent::Unpause => match record.state {
            Paused => {
                next.state = unblocked(record);
                next.reason = None;
            }
            Deleting if record.not_before == Some(UNTIL_UNPAUSED) => next.not_before = None,
            Idle | Empty | Leased | Deleting => return Ok(Transition::Unchanged),
        },
        QueueEvent::FlagDeleted { reason } => match record.state {
            Deleting if reason.is_none() || *reason == record.reason => return Ok(Transition::Unchanged),
            from => {
                if from == Paused {
                    next.not_before = Some(UNTIL_UNPAUSED);
                }
                next.state = Deleting;
                next.reason.clone_from(reason);
            }
        },
        QueueEvent::ClaimDeletion => {
            if record.state != Deleting || record.deletion_claimed {
                return Ok(Transition::Unchanged);
            }
            next.deletion_claimed = true;
        }
        QueueEvent::GiveUpDeletion => {
            if !record.deletion_claimed {
                return Ok(Transition::Unchanged);
            }
            next.deletion_claimed = false;
        }
        QueueEvent::Undelete => {
            if record.state != Deleting {
                return Ok(Transition::Unchanged);
            }
            next.deletion_claimed = false;
            if record.not_before == Some(UNTIL_UNPAUSED) {
                next.state = Paused;
                next.reason = Some("paused before its deletion was taken back".to_owned());
                next.not_before = None;
            } else {
                next.state = unblocked(record);
                next.reason = None;
            }
        }
        QueueEvent::Counted { messages } => match (record.state, *messages) {
            (Empty, 1..) => next.state = Idle,
            (Idle, 0) => next.state = Empty,
            _ => return Ok(Transition::Unchanged),
        },
    }
    if next.state != record.state {
        next.since = now;
    }
    next.version = record.version + 1;
    debug_assert_eq!(invariants::step(record, event, &next), Ok(()));
    Ok(Transition::To(Box::new(next)))
}

/// The live lease, if `epoch` is its epoch.
fn live(record: &mut QueueRecord, epoch: u64) -> Result<&mut Lease, TransitionError> {
    let current = record.epoch;
    match &mut record.lease {
        Some(lease) if current == epoch => Ok(lease),
        _ => Err(TransitionError::StaleEpoch { presented: epoch, current }),
    }
}

/// Whether the live lease is still the one of this epoch and renewal.
fn unchanged(record: &mut QueueRecord, epoch: u64, renewal: u64) -> Result<(), TransitionError> {
    match live(record, epoch) {
        Ok(lease) if lease.renewal == renewal => Ok(()),
        _ => Err(TransitionError::Superseded),
    }
}

fn unblocked(record: &QueueRecord) -> QueueState {
    if record.lease.is_some() { QueueState::Leased } else { QueueState::Idle }
}

fn expiry(now: Timestamp, lease_ms: u64) -> Timestamp {
    now.plus_millis(i64::try_from(lease_ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
