//! How long a bolt that waits has something in hand.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use galerna_topology::Clock;

/// What one task of a bolt that waits has taken and not settled, and the time during which that was anything at all.
///
/// Such a bolt works while it awaits, mostly outside of `execute`, on tuples that it kept; so this, and not the
/// time in `execute`, tells how busy it is. The clock is read within the lock, and only when the first tuple comes
/// or the last one goes: the total never goes back, whoever settles and whoever reads it.
#[derive(Debug, Default)]
pub(crate) struct InHand {
    // A lock, since kept tuples are settled in any thread. It is taken once for each batch taken and each settling.
    state: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    tuples: u64,
    /// When the first of them came.
    since: Duration,
    /// The time before that.
    before: Duration,
}

impl InHand {
    fn state(&self) -> MutexGuard<'_, Held> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many more are in hand.
    pub(crate) fn take(&self, tuples: u64, clock: &dyn Clock) {
        let mut held = self.state();
        if held.tuples == 0 && tuples > 0 {
            held.since = clock.now();
        }
        held.tuples += tuples;
    }

    /// So many of them are settled.
    pub(crate) fn release(&self, tuples: u64, clock: &dyn Clock) {
        let mut held = self.state();
        if held.tuples == 0 {
            return;
        }
        // A tuple that was kept and whose `execute` failed all the same may be settled twice. Not going below 0, such
        // a mistake ends with what is in hand at that time.
        held.tuples = held.tuples.saturating_sub(tuples);
        if held.tuples == 0 {
            let since = held.since;
            held.before += clock.now().saturating_sub(since);
        }
    }

    /// The time so far, that of what is in hand now included.
    pub(crate) fn total(&self, clock: &dyn Clock) -> Duration {
        let held = self.state();
        match held.tuples {
            0 => held.before,
            _ => held.before + clock.now().saturating_sub(held.since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_time_from_the_first_tuple_to_the_last_counts_once() {
        let (in_hand, clock) = (InHand::default(), ManualClock::new());
        let second = Duration::from_secs(1);
        // What is taken and what is released, a second apart, and the time that has counted a second later.
        for (take, release, total) in [
            (0, 0, 0),
            (5, 0, 1),
            (3, 0, 2),
            (0, 7, 3),
            (0, 1, 3),
            (0, 0, 3),
            (2, 0, 4),
            (1, 3, 4),
            (1, 9, 4),
            (1, 0, 5),
        ] {
            in_hand.take(take, &clock);
            in_hand.release(release, &clock);
            clock.advance(second);
            assert_eq!(in_hand.total(&clock), second * total, "after {take} more and {release} less");
        }
    }
}
