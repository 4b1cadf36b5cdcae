//! A wall clock that does not jump ahead.

use std::sync::Arc;
use std::time::Duration;

use galerna_model::{Clock, Timestamp};
use tokio::time::Instant;

/// The wall clock, but never ahead of the pace of the monotonic clock since this was made.
///
/// Grace times are counted from a stamp in the store, hence by wall clocks. When the clock of the machine is set ahead
/// while the maintainer runs, they must not all end at once; when it is set back they only last longer. A jump before
/// the start cannot be noticed.
#[derive(Clone)]
pub(crate) struct SteadyClock {
    clock: Arc<dyn Clock>,
    wall: Timestamp,
    started: Instant,
}

impl SteadyClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let wall = clock.now();
        Self { clock, wall, started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.bounded(self.started.elapsed())
    }

    fn bounded(&self, elapsed: Duration) -> Timestamp {
        let pace = self.wall.plus_millis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX));
        self.clock.now().min(pace)
    }
}

#[cfg(test)]
mod tests {
    use galerna_model::ManualClock;

    use super::*;

    #[test]
    fn a_jump_ahead_does_not_count_and_one_back_does() {
        let wall = ManualClock::at(Timestamp(1_000_000));
        let steady = SteadyClock::new(Arc::new(wall.clone()));
        wall.advance(60_000);
        assert_eq!(steady.bounded(Duration::from_secs(60)), Timestamp(1_060_000));
        wall.advance(86_400_000);
        assert_eq!(steady.bounded(Duration::from_secs(61)), Timestamp(1_061_000));
        wall.advance(-2 * 86_400_000);
        assert!(steady.bounded(Duration::from_secs(62)) < Timestamp(0).plus_millis(1_000_000));
    }
}
