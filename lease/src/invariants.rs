//! What must hold of queue records, written once.
//!
//! `debug_assert!` in [`crate::transition`], the property tests over real stores and the model checker all call these
//! functions.

use crate::record::{QueueRecord, QueueState};

use crate::transition::{QueueEvent, UNTIL_UNPAUSED};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant broken: {0}")]
pub struct Violation(pub &'static str);

/// What holds of every stored record.
///
/// # Errors
/// The first invariant that does not hold.
pub fn record(r: &QueueRecord) -> Result<(), Violation> {
    let holds = [
        (r.state != QueueState::Leased || r.lease.is_some(), "a queue in state worker has a lease"),
        (
            r.lease.is_none()
                || matches!(r.state, QueueState::Leased | QueueState::Paused | QueueState::Deleting),
            "a lease lives in state worker, pause or delete only",
        ),
        (r.lease.is_none() || r.epoch > 0, "a lease has an epoch"),
        (
            r.not_before != Some(UNTIL_UNPAUSED) || r.state == QueueState::Deleting,
            "a pause is remembered only under a deletion",
        ),
        (
            !r.deletion_claimed || r.state == QueueState::Deleting,
            "a deletion is claimed only in state delete",
        ),
    ];
    first_broken(&holds)
}

/// What holds of every guarded write.
///
/// # Errors
/// The first invariant that does not hold.
pub fn step(before: &QueueRecord, event: &QueueEvent, after: &QueueRecord) -> Result<(), Violation> {
    record(before)?;
    record(after)?;
    let paused = |r: &QueueRecord| r.state == QueueState::Paused || r.not_before == Some(UNTIL_UNPAUSED);
    let leased = matches!(event, QueueEvent::Lease { .. });
    let holds = [
        (after.version == before.version + 1, "the version grows by one at every write"),
        (after.epoch == before.epoch + u64::from(leased), "the epoch grows by one at a lease and never else"),
        (!leased || before.lease.is_none(), "no lease is given while another lives"),
        (!leased || !paused(before), "no lease is given under a pause"),
        (
            !paused(before) || paused(after) || matches!(event, QueueEvent::Unpause),
            "a pause ends by unpausing only",
        ),
        (
            before.lease.is_none()
                || after.lease.is_some()
                || matches!(
                    event,
                    QueueEvent::Release { .. } | QueueEvent::TakeBack { .. } | QueueEvent::Expire { .. }
                ),
            "a lease ends by its release, its expiry or its taking back only",
        ),
        (
            match (&before.lease, &after.lease) {
                (Some(b), Some(a)) => {
                    a.renewal == b.renewal + u64::from(matches!(event, QueueEvent::Renew { .. }))
                        && a.lease_ms >= b.lease_ms
                        && a.consumer == b.consumer
                        && a.request == b.request
                }
                _ => true,
            },
            "a live lease is only ever renewed, never shortened nor handed on",
        ),
    ];
    first_broken(&holds)
}

/// A time in which a consumer took itself for the holder of a queue, in any unit of true time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    /// Epoch of its lease.
    pub epoch: u64,
    /// Who.
    pub consumer: String,
    /// From when it consumed.
    pub from: u64,
    /// It no longer consumed from here on.
    pub until: u64,
}

/// What holds of one queue's history: no two tenures overlap, and a later grant has a higher epoch.
///
/// # Errors
/// The invariant that does not hold.
pub fn history(tenures: &[Tenure]) -> Result<(), Violation> {
    let mut by_start: Vec<&Tenure> = tenures.iter().filter(|t| t.from < t.until).collect();
    by_start.sort_by_key(|t| (t.from, t.until));
    for pair in by_start.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if a.until > b.from {
            return Err(Violation("at most one live lease per queue"));
        }
        if a.epoch >= b.epoch {
            return Err(Violation("the epoch strictly grows"));
        }
    }
    Ok(())
}

fn first_broken(holds: &[(bool, &'static str)]) -> Result<(), Violation> {
    holds.iter().find(|(ok, _)| !ok).map_or(Ok(()), |(_, what)| Err(Violation(what)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenure(epoch: u64, from: u64, until: u64) -> Tenure {
        Tenure { epoch, consumer: format!("c{epoch}"), from, until }
    }

    #[test]
    fn a_history_with_an_overlap_or_an_old_epoch_is_caught() {
        assert_eq!(history(&[tenure(1, 0, 5), tenure(2, 5, 9), tenure(3, 7, 7)]), Ok(()));
        assert!(history(&[tenure(1, 0, 5), tenure(2, 4, 9)]).is_err());
        assert!(history(&[tenure(2, 0, 5), tenure(1, 6, 9)]).is_err());
    }
}
