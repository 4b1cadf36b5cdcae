//! How long a bolt that waits has something in hand.

use std::sync::MutexGuard;
use std::time::Duration;

use galerna_lock::Mutex;
use galerna_topology::Clock;

/// What one task of a bolt that waits has taken and not settled, and the time during which that was anything at all.
///
/// Such a bolt works while it awaits, mostly outside of `execute`, on tuples that it kept; so this, and not the
/// time in `execute`, tells how busy it is. The clock is read within the lock, and only when the first tuple comes
/// or the last one goes: the total never goes back, whoever settles and whoever reads it.
#[derive(Debug, Default)]
pub(crate) struct UnsettledTuples {
    // A lock, since kept tuples are settled in any thread. It is taken once for each batch taken and each settling.
    state: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    tuples: u64,
    /// When the first of them came.
    since: Duration,
    /// The time before that.
    before: Duration,
}

impl UnsettledTuples {
    fn state(&self) -> MutexGuard<'_, Counts> {
        self.state.lock()
    }

    /// So many more are in hand.
    pub(crate) fn add(&self, tuples: u64, clock: &dyn Clock) {
        let mut counts = self.state();
        if counts.tuples == 0 && tuples > 0 {
            counts.since = clock.now();
        }
        counts.tuples += tuples;
    }

    /// So many of them are settled.
    pub(crate) fn remove(&self, tuples: u64, clock: &dyn Clock) {
        let mut counts = self.state();
        if counts.tuples == 0 {
            return;
        }
        // A tuple that was kept and whose `execute` failed all the same may be settled twice. Not going below 0, such
        // a mistake ends with what is in hand at that time.
        counts.tuples = counts.tuples.saturating_sub(tuples);
        if counts.tuples == 0 {
            let since = counts.since;
            counts.before += clock.now().saturating_sub(since);
        }
    }

    /// The time so far, that of what is in hand now included.
    pub(crate) fn busy_time(&self, clock: &dyn Clock) -> Duration {
        let counts = self.state();
        match counts.tuples {
            0 => counts.before,
            _ => counts.before + clock.now().saturating_sub(counts.since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_time_from_the_first_tuple_to_the_last_counts_once() {
        let (unsettled, clock) = (UnsettledTuples::default(), ManualClock::new());
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
            unsettled.add(take, &clock);
            unsettled.remove(release, &clock);
            clock.advance(second);
            assert_eq!(unsettled.busy_time(&clock), second * total, "after {take} more and {release} less");
        }
    }
}
