//! Who may send how much: rates of each source, and readings under way of all.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::SourceId;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::call_error::CallError;
use crate::options::{Limits, Rate};

/// The rates are kept for sources that have proved who they are, so there are never more of them than sources.
pub(crate) struct Admission {
    clock: DefaultClock,
    calls: DefaultKeyedRateLimiter<SourceId>,
    readings: DefaultKeyedRateLimiter<SourceId>,
    in_flight: Arc<Semaphore>,
    all: usize,
}

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let all = limits.readings_in_flight.min(Semaphore::MAX_PERMITS);
        Self {
            clock: DefaultClock::default(),
            calls: RateLimiter::dashmap(quota(limits.calls)),
            readings: RateLimiter::dashmap(quota(limits.source_readings)),
            in_flight: Arc::new(Semaphore::new(all)),
            all,
        }
    }

    /// Lets a call of a source in, before anything of it is read.
    pub(crate) fn call(&self, source: &SourceId) -> Result<(), CallError> {
        self.calls.check_key(source).map_err(|until| self.too_many("calls", &until))
    }

    /// Lets readings in; the permit is to be held until they are confirmed or given up.
    pub(crate) fn readings(
        &self,
        source: &SourceId,
        count: usize,
    ) -> Result<Option<OwnedSemaphorePermit>, CallError> {
        let Some(n) = u32::try_from(count).ok().and_then(NonZeroU32::new) else { return Ok(None) };
        let permit = Arc::clone(&self.in_flight).try_acquire_many_owned(n.get());
        let permit = permit.map_err(|_| CallError::Overloaded)?;
        match self.readings.check_key_n(source, n) {
            Ok(Ok(())) => Ok(Some(permit)),
            Ok(Err(until)) => Err(self.too_many("readings", &until)),
            Err(_) => Err(CallError::TooLarge(format!(
                "{n} readings at once are more than this source may ever send"
            ))),
        }
    }

    /// Forgets sources that have not sent for as long as their burst takes to come back.
    pub(crate) fn forget_idle(&self) {
        self.calls.retain_recent();
        self.readings.retain_recent();
    }

    /// Readings under way.
    pub(crate) fn under_way(&self) -> usize {
        self.all - self.in_flight.available_permits()
    }

    fn too_many(
        &self,
        what: &'static str,
        until: &NotUntil<<DefaultClock as governor::clock::Clock>::Instant>,
    ) -> CallError {
        let wait = until.wait_time_from(self.clock.now());
        CallError::TooMany {
            what,
            wait: Duration::from_millis(wait.as_millis().try_into().unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_sends_too_much_is_told_when_to_come_back_and_others_are_not() {
        let limits = Limits {
            calls: Rate::new(1, 2),
            source_readings: Rate::new(1, 10),
            readings_in_flight: 100,
            readings: 10,
            ..Limits::default()
        };
        let admission = Admission::new(&limits);
        let (a, b) = (SourceId::new("a").unwrap(), SourceId::new("b").unwrap());
        assert_eq!(admission.call(&a), Ok(()));
        assert_eq!(admission.call(&a), Ok(()));
        assert!(matches!(admission.call(&a), Err(CallError::TooMany { what: "calls", .. })));
        assert_eq!(admission.call(&b), Ok(()));
        drop(admission.readings(&a, 10).unwrap());
        match admission.readings(&a, 5) {
            Err(CallError::TooMany { what: "readings", wait }) => {
                assert!((Duration::from_secs(3)..=Duration::from_secs(5)).contains(&wait), "{wait:?}");
            }
            other => panic!("{other:?}"),
        }
        assert!(admission.readings(&b, 10).is_ok());
    }

    #[test]
    fn readings_under_way_are_bounded_and_given_back() {
        let limits = Limits { readings_in_flight: 10, readings: 10, ..Limits::default() };
        let admission = Admission::new(&limits);
        let a = SourceId::new("a").unwrap();
        let permit = admission.readings(&a, 8).unwrap();
        assert_eq!(admission.under_way(), 8);
        assert_eq!(admission.readings(&a, 3).unwrap_err(), CallError::Overloaded);
        drop(permit);
        assert_eq!(admission.under_way(), 0);
        assert!(admission.readings(&a, 0).unwrap().is_none());
    }
}
