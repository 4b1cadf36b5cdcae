//! Pauses between attempts while something that everything needs is unavailable.

use galerna_lock::Mutex;

use std::time::Duration;

use galerna_retry::{Backoff, Pauses};
use tokio::time::Instant;

const PAUSES: Pauses = Pauses::new(Duration::from_millis(312), Duration::from_secs(18));

/// A pause that all lease tasks of a spout share: what one of them found unavailable is so for the others too.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    until: Option<Instant>,
    backoff: Backoff,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { state: Mutex::new(State { until: None, backoff: PAUSES.begin() }) }
    }
}

impl CircuitBreaker {
    /// Begins a pause, longer than the one before it; does nothing while there is one.
    pub(super) fn open(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.until.is_none_or(|until| until <= now) {
            state.until = Some(now + state.backoff.pause());
        }
    }

    /// What was unavailable is back.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.until = None;
        state.backoff.reset();
    }

    /// The end of the pause, while there is one.
    pub(super) fn open_until(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.until.filter(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_something_works() {
        let breaker = CircuitBreaker::default();
        assert_eq!(breaker.open_until(), None);
        let mut lengths = Vec::new();
        for _ in 0..10 {
            breaker.open();
            breaker.open();
            let until = breaker.open_until().unwrap();
            lengths.push(until - Instant::now());
            tokio::time::sleep_until(until).await;
            assert_eq!(breaker.open_until(), None);
        }
        assert!(
            lengths[0] < Duration::from_millis(400) && lengths[9] > Duration::from_secs(8),
            "{lengths:?}"
        );
        breaker.close();
        breaker.open();
        assert!(breaker.open_until().unwrap() - Instant::now() < Duration::from_millis(400));
    }
}
