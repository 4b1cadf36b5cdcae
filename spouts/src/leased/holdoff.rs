//! Pauses between attempts while something that everything needs is away.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);

/// A pause that all slots of a spout share: what one of them found away is away for the others too.
#[derive(Debug)]
pub(super) struct HoldOff {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    until: Option<Instant>,
    next: Duration,
}

impl Default for HoldOff {
    fn default() -> Self {
        Self { state: Mutex::new(State { until: None, next: FIRST }) }
    }
}

impl HoldOff {
    /// Begins a pause, longer than the one before it; does nothing while there is one.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.until.is_none_or(|until| until <= now) {
            // Jitter, so that many spouts do not come back in step.
            let pause = state.next.mul_f64(0.75 + fastrand::f64() / 2.0);
            state.until = Some(now + pause);
            state.next = (state.next * 2).min(LONGEST);
        }
    }

    /// What was away is back.
    pub(super) fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.until = None;
        state.next = FIRST;
    }

    /// The end of the pause, while there is one.
    pub(super) fn until(&self) -> Option<Instant> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.until.filter(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_something_works() {
        let hold_off = HoldOff::default();
        assert_eq!(hold_off.until(), None);
        let mut lengths = Vec::new();
        for _ in 0..10 {
            hold_off.begin();
            hold_off.begin();
            let until = hold_off.until().unwrap();
            lengths.push(until - Instant::now());
            tokio::time::sleep_until(until).await;
            assert_eq!(hold_off.until(), None);
        }
        assert!(
            lengths[0] < Duration::from_millis(400) && lengths[9] > Duration::from_secs(11),
            "{lengths:?}"
        );
        hold_off.end();
        hold_off.begin();
        assert!(hold_off.until().unwrap() - Instant::now() < Duration::from_millis(400));
    }
}
