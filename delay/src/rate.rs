//! Limits that all processes hold to.
//!
//! Each limit and key has one number: the time at which it would be idle again if nothing more came (the generic cell rate algorithm,
//! ATM Forum 1996). A call moves it on by one interval, and is let through if it is then no further ahead than the burst allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use galerna_model::Clock;

use crate::DelayError;
use crate::store::{LimitStore, Step};

/// Keys that were not used are forgotten so often, in microseconds.
const FORGET_EVERY: i64 = 600_000_000;

/// A limit, and the key that it is applied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The name: `posts an hour`. Of one name, all ask with the same rate and burst.
    pub name: String,
    /// Each key has the whole rate: an account, a host.
    pub key: String,
    /// Calls in [`Self::per`].
    pub rate: u32,
    /// The time that the rate is for.
    pub per: Duration,
    /// So many may be at once, after a time without any; at least 1.
    pub burst: u32,
}

impl Limit {
    /// So many calls in a time, and as many at once.
    pub fn new(name: impl Into<String>, key: impl Into<String>, rate: u32, per: Duration) -> Self {
        Self { name: name.into(), key: key.into(), rate, per, burst: rate }
    }

    /// The same with another burst.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// Microseconds between two calls, and how far ahead the burst lets them be.
    fn steps(&self) -> Result<(i64, i64), DelayError> {
        let bad = |reason: &str| DelayError::Bad {
            what: format!("limit `{}`", self.name),
            reason: reason.to_owned(),
        };
        if self.rate == 0 || self.burst == 0 {
            return Err(bad("a rate or burst of 0 lets nothing through; take at least 1"));
        }
        // Rounded up: the limit is never exceeded.
        let interval = self.per.as_micros().div_ceil(u128::from(self.rate));
        let interval = i64::try_from(interval).unwrap_or(i64::MAX);
        if self.per.as_micros() < u128::from(self.rate) {
            return Err(bad("more than a million calls a second are not counted"));
        }
        let ahead = interval
            .checked_mul(i64::from(self.burst))
            .ok_or_else(|| bad("its time is longer than is counted"))?;
        Ok((interval, ahead))
    }
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Now; it counts.
    Granted,
    /// Not before so much time; it does not count. Whoever waits does so without keeping others, of other keys, from asking.
    After(Duration),
}

/// Limits that any number of processes share.
pub struct RateLimits {
    store: Arc<dyn LimitStore>,
    clock: Arc<dyn Clock>,
    /// When this process last had the store forget what is idle, in microseconds.
    forgot: AtomicI64,
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimits").finish_non_exhaustive()
    }
}

impl RateLimits {
    /// The limits of a store.
    pub fn new(store: Arc<dyn LimitStore>, clock: Arc<dyn Clock>) -> Self {
        let forgot = AtomicI64::new(micros(&*clock));
        Self { store, clock, forgot }
    }

    /// Opens an SQLite file, which may be that of a [`DelayStore`](crate::DelayStore). The processes of one machine share it.
    ///
    /// # Errors
    /// See [`OpenError`](galerna_sqlite::OpenError).
    #[cfg(feature = "embedded")]
    pub fn open(path: &std::path::Path, clock: Arc<dyn Clock>) -> Result<Self, galerna_sqlite::OpenError> {
        Ok(Self::new(Arc::new(crate::sqlite::SqliteLimits::open(path)?), clock))
    }

    /// Limits that are gone when this is dropped: for one process, and for tests.
    ///
    /// # Errors
    /// When SQLite has no memory.
    #[cfg(feature = "embedded")]
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, DelayError> {
        Ok(Self::new(Arc::new(crate::sqlite::SqliteLimits::in_memory()?), clock))
    }

    /// Asks for one call under several limits: it counts for all of them or, if one lets it not through, for none.
    ///
    /// # Errors
    /// [`DelayError::Bad`] when a limit makes no sense; otherwise when the store fails.
    pub async fn ask(&self, limits: &[Limit]) -> Result<Permit, DelayError> {
        let mut steps = Vec::with_capacity(limits.len());
        for limit in limits {
            let (interval, ahead) = limit.steps()?;
            steps.push(Step { name: limit.name.clone(), key: limit.key.clone(), interval, ahead });
        }
        let now = micros(&*self.clock);
        let forgot = self.forgot.load(Ordering::Relaxed);
        if now.saturating_sub(forgot) >= FORGET_EVERY
            && self.forgot.compare_exchange(forgot, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            // Whoever asks does not fail for it; it is tried again later.
            drop(self.store.forget_idle(now).await);
        }
        Ok(match self.store.ask(&steps, now).await? {
            0 => Permit::Granted,
            wait => Permit::After(Duration::from_micros(wait)),
        })
    }

    /// Forgets keys that have been idle, which are as if they had never been. How many. [`Self::ask`] does it every ten minutes.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_idle(&self) -> Result<u64, DelayError> {
        self.store.forget_idle(micros(&*self.clock)).await
    }
}

fn micros(clock: &dyn Clock) -> i64 {
    clock.now().as_millis().saturating_mul(1000)
}
