//! What holds of every record, at any time.

use std::collections::HashSet;

use crate::Record;
use crate::transition::OPEN;

/// An invariant of a record that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Checks a record.
///
/// # Errors
/// The first invariant that does not hold.
pub fn check(record: &Record) -> Result<(), Violation> {
    let broken = |what: String| Err(Violation(what));
    let mut names = HashSet::new();
    let mut epochs = HashSet::new();
    for firing in &record.open {
        if !names.insert((firing.nominal, firing.origin)) {
            return broken(format!("{}: two open firings of {}", record.id, firing.nominal));
        }
        if let Some(claim) = &firing.claim
            && (claim.epoch == 0 || claim.epoch > record.epoch || !epochs.insert(claim.epoch))
        {
            return broken(format!("{}: claim {} is not its own", record.id, claim.epoch));
        }
        if firing.cancelled && firing.claim.is_none() {
            return broken(format!("{}: {} is told to stop and does not run", record.id, firing.nominal));
        }
    }
    if record.open.len() > OPEN {
        return broken(format!("{}: {} firings are open", record.id, record.open.len()));
    }
    match record.next {
        Some(next) if next.nominal <= record.decided => {
            broken(format!("{}: {} was decided already", record.id, next.nominal))
        }
        Some(next) if next.due < next.nominal => broken(format!("{}: due before its time", record.id)),
        _ => Ok(()),
    }
}
