//! What holds of every record, at any time.

use std::collections::HashSet;

use crate::Record;
use crate::transition::OPEN;

/// Checks a record.
///
/// # Errors
/// The sentence that does not hold.
pub fn check(record: &Record) -> Result<(), String> {
    let mut names = HashSet::new();
    let mut epochs = HashSet::new();
    for firing in &record.open {
        if !names.insert((firing.nominal, firing.origin)) {
            return Err(format!("{}: two open firings of {}", record.id, firing.nominal));
        }
        if let Some(claim) = &firing.claim
            && (claim.epoch == 0 || claim.epoch > record.epoch || !epochs.insert(claim.epoch))
        {
            return Err(format!("{}: claim {} is not its own", record.id, claim.epoch));
        }
        if firing.cancelled && firing.claim.is_none() {
            return Err(format!("{}: {} is told to stop and does not run", record.id, firing.nominal));
        }
    }
    if record.open.len() > OPEN {
        return Err(format!("{}: {} firings are open", record.id, record.open.len()));
    }
    match record.next {
        Some(next) if next.nominal <= record.decided => {
            Err(format!("{}: {} was decided already", record.id, next.nominal))
        }
        Some(next) if next.due < next.nominal => Err(format!("{}: due before its time", record.id)),
        _ => Ok(()),
    }
}
