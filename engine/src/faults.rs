//! Telling of what went wrong in a task, and how long to wait before it is tried again.

use std::sync::Arc;
use std::time::Duration;

use galerna_lock::Mutex;
use galerna_topology::{Clock, Fault};

use crate::metrics::{TaskStats, add};

/// So many warnings a task logs in [`WINDOW`]; the others are only counted.
const MOST_WARNINGS: u32 = 5;
const WINDOW: Duration = Duration::from_secs(10);

/// Counts the errors of a task, remembers the last one for the metrics, and logs them at a limited rate.
pub(crate) struct FaultReporter {
    component: Arc<str>,
    task: usize,
    stats: Arc<TaskStats>,
    clock: Arc<dyn Clock>,
    logged: Mutex<Logged>,
}

#[derive(Default)]
struct Logged {
    since: Option<Duration>,
    warnings: u32,
    suppressed: u64,
}

impl FaultReporter {
    pub(crate) fn new(
        component: Arc<str>,
        task: usize,
        stats: Arc<TaskStats>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { component, task, stats, clock, logged: Mutex::default() }
    }

    /// A hook failed or panicked.
    pub(crate) fn report(&self, fault: &Fault) {
        add(&self.stats.errors, 1);
        self.note(fault);
    }

    /// As [`report`](Self::report), for what is counted elsewhere.
    pub(crate) fn note(&self, fault: &Fault) {
        let now = self.clock.now();
        self.stats.report(fault.reason(), now);
        let Some(suppressed) = self.may_log(now) else { return };
        let component = &*self.component;
        match suppressed {
            0 => tracing::warn!(component, task = self.task, reason = fault.reason(), "a task failed"),
            _ => tracing::warn!(
                component,
                task = self.task,
                reason = fault.reason(),
                suppressed,
                "a task failed; so many other warnings of it were left out"
            ),
        }
    }

    /// How many warnings were left out, if this one need not be.
    fn may_log(&self, now: Duration) -> Option<u64> {
        let mut logged = self.logged.lock();
        if logged.since.is_none_or(|since| now.saturating_sub(since) >= WINDOW) {
            logged.since = Some(now);
            logged.warnings = 0;
        }
        if logged.warnings == MOST_WARNINGS {
            logged.suppressed += 1;
            return None;
        }
        logged.warnings += 1;
        Some(std::mem::take(&mut logged.suppressed))
    }
}

/// A pause that doubles while something fails again: 10 ms to 1 s.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    pub(crate) const fn new() -> Self {
        Self { next: Self::FIRST }
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Whether nothing has failed since it was reset.
    pub(crate) fn is_fresh(&self) -> bool {
        self.next == Self::FIRST
    }

    /// How long to wait this time.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(Self::LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn warnings_are_few_however_many_errors_there_are() {
        let clock = ManualClock::new();
        let stats = Arc::<TaskStats>::default();
        let reporter = FaultReporter::new("it".into(), 0, stats, Arc::new(clock.clone()));
        let mut logged = Vec::new();
        for second in 0..30 {
            (0..100).for_each(|_| {
                logged.extend(reporter.may_log(clock.now()).map(|left_out| (second, left_out)))
            });
            clock.advance(Duration::from_secs(1));
        }
        let seconds: Vec<u64> = logged.iter().map(|(second, _)| *second).collect();
        assert_eq!(seconds, [[0; 5], [10; 5], [20; 5]].concat());
        assert_eq!(logged[5].1, 995, "the next warning says how many were left out");
    }

    #[test]
    fn the_pause_doubles_up_to_a_second_and_starts_anew() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
        backoff.reset();
        assert_eq!(backoff.pause(), Duration::from_millis(10));
    }
}
