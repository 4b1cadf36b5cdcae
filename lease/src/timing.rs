//! Every timeout of the lease protocol, and the inequalities that hold between them.
//!
//! ```text
//! holder       asks ──────────────── renews ────────────────────── stops │ holder_margin │
//! dispatcher          writes ─────────────────────────────────────────────── lease ───── │ expiry_margin │ expires
//! ```
//!
//! - A holder counts from *before* its request, a dispatcher from *after* it saw the write, so the holder's count is
//!   ahead by construction; `holder_margin` pays for clocks that run at different rates and for a slow last step.
//! - A holder renews after a third of its lease, so that a renewal may be lost and tried again before it must stop:
//!   `lease / 3 + 2 × request_timeout ≤ lease − holder_margin`. It is demanded of leases of 10 s or more; with a shorter
//!   one a slow answer may cost the holder its lease, which is a nuisance but no danger.
//! - A dead holder's queue is leasable after the lease time and one sweep: `refresh + expiry_margin ≤ sweep`; while
//!   thousands of queues change within seconds a dispatcher may see a change of another half a second later. Expiry goes
//!   by the clock of a dispatcher that has watched the lease all that time, and no clock outlives its process: **when the
//!   only dispatcher is restarted, the watch begins anew**, and the queue of a holder that died before waits once more the
//!   lease time and one sweep, from the restart. With a second dispatcher on the store the bound holds across restarts
//!   of either. A dispatcher that starts logs how many leases it found and how long it will watch them.
//! - A store call gives up before the caller of the API does: `store_timeout < request_timeout`.

use std::time::Duration;

/// From this length on a lease must outlast a renewal that is lost.
const LONG: Duration = Duration::from_secs(10);

/// The timeouts of a dispatcher. [`Timing::check`] says whether they fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Length of a lease.
    pub lease: Duration,
    /// How much longer than a lease a dispatcher waits before it declares it expired.
    pub expiry_margin: Duration,
    /// How often a dispatcher asks the store for what other processes changed.
    pub refresh: Duration,
    /// At most so long after its lease time a dead holder's queue can be leased again.
    pub sweep: Duration,
    /// How long a call to the store may take.
    pub store_timeout: Duration,
    /// How long a caller of the API waits for an answer, beyond the `wait_ms` it asked for.
    pub request_timeout: Duration,
    /// The longest `wait_ms`; longer ones are cut to it.
    pub max_wait: Duration,
    /// The delay after the second crash in a row; it doubles with each further one.
    pub crash_delay: Duration,
    /// The longest delay after crashes.
    pub max_crash_delay: Duration,
    /// How often the maintainer is pinged.
    pub ping_every: Duration,
    /// How long it has to answer.
    pub ping_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(60),
            expiry_margin: Duration::from_millis(200),
            refresh: Duration::from_millis(100),
            sweep: Duration::from_secs(1),
            store_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            max_wait: Duration::from_secs(60),
            crash_delay: Duration::from_secs(1),
            max_crash_delay: Duration::from_secs(300),
            ping_every: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(1),
        }
    }
}

/// Timeouts that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dispatcher timing does not hold: {rule}, but {found}; change one of them")]
pub struct TimingError {
    rule: &'static str,
    found: String,
}

impl Timing {
    /// The default timing with another length of lease; the margins that depend on it follow, so that short leases work.
    #[must_use]
    pub fn with_lease(lease: Duration) -> Self {
        let defaults = Self::default();
        let renewing = (lease - lease / 3).saturating_sub(holder_margin(lease)) / 2;
        let request_timeout = defaults.request_timeout.min(renewing.max(Duration::from_secs(2)));
        Self {
            lease,
            request_timeout,
            store_timeout: defaults.store_timeout.min(request_timeout / 2),
            ..defaults
        }
    }

    /// Checks the inequalities of this module's documentation.
    ///
    /// # Errors
    /// Names the inequality that does not hold.
    pub fn check(&self) -> Result<(), TimingError> {
        let fail = |rule, found| Err(TimingError { rule, found });
        if self.lease < Duration::from_millis(100) {
            return fail("lease ≥ 100 ms", format!("lease is {:?}", self.lease));
        }
        if self.refresh.is_zero() || self.refresh + self.expiry_margin > self.sweep {
            return fail(
                "0 < refresh, and refresh + expiry_margin ≤ sweep",
                format!("{:?} + {:?} against {:?}", self.refresh, self.expiry_margin, self.sweep),
            );
        }
        let renewed = self.lease / 3 + 2 * self.request_timeout;
        let stops = self.lease.saturating_sub(holder_margin(self.lease));
        if self.lease >= LONG && renewed > stops {
            return fail(
                "lease / 3 + 2 × request_timeout ≤ lease − holder_margin",
                format!("{renewed:?} against {stops:?}"),
            );
        }
        if self.store_timeout.is_zero() || self.store_timeout >= self.request_timeout {
            return fail(
                "0 < store_timeout < request_timeout",
                format!("{:?} against {:?}", self.store_timeout, self.request_timeout),
            );
        }
        if self.crash_delay > self.max_crash_delay {
            return fail(
                "crash_delay ≤ max_crash_delay",
                format!("{:?} against {:?}", self.crash_delay, self.max_crash_delay),
            );
        }
        if self.ping_every.is_zero() || self.ping_timeout.is_zero() {
            return fail("ping_every and ping_timeout > 0", "one of them is 0".to_owned());
        }
        Ok(())
    }

    /// Delay before a queue is leased again after `crashes` leases in a row ended by expiry: none after the first, then
    /// doubling.
    pub fn delay_after(&self, crashes: u32) -> Duration {
        match crashes {
            0 | 1 => Duration::ZERO,
            n => self.crash_delay.saturating_mul(1 << (n - 2).min(20)).min(self.max_crash_delay),
        }
    }

    /// Length of a lease in milliseconds.
    pub fn lease_ms(&self) -> u64 {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX)
    }
}

/// How long before the end of its lease a holder stops consuming: a tenth, at most 5 s.
///
/// Two monotonic clocks that differ in rate by less than a tenth cannot disagree about who holds a queue.
pub fn holder_margin(lease: Duration) -> Duration {
    (lease / 10).min(Duration::from_secs(5))
}

/// When a holder renews, counted from before its last successful request: after a third of the lease.
pub fn renew_after(lease: Duration) -> Duration {
    lease / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_so_do_those_of_shorter_leases() {
        Timing::default().check().expect("defaults");
        for ms in [100, 500, 1_000, 5_000, 30_000, 3_600_000] {
            Timing::with_lease(Duration::from_millis(ms)).check().unwrap_or_else(|e| panic!("{ms} ms: {e}"));
        }
    }

    #[test]
    fn a_broken_inequality_is_named() {
        let base = Timing::default();
        let cases = [
            (Timing { lease: Duration::from_millis(50), ..base.clone() }, "lease ≥ 100 ms"),
            (Timing { refresh: Duration::from_secs(2), ..base.clone() }, "refresh + expiry_margin ≤ sweep"),
            (Timing { refresh: Duration::ZERO, ..base.clone() }, "0 < refresh"),
            (Timing { request_timeout: Duration::from_secs(30), ..base.clone() }, "2 × request_timeout"),
            (
                Timing { store_timeout: Duration::from_secs(10), ..base.clone() },
                "store_timeout < request_timeout",
            ),
            (
                Timing { crash_delay: Duration::from_secs(301), ..base.clone() },
                "crash_delay ≤ max_crash_delay",
            ),
            (Timing { ping_every: Duration::ZERO, ..base }, "ping_every"),
        ];
        for (timing, rule) in cases {
            let said = timing.check().expect_err(rule).to_string();
            assert!(said.contains(rule), "{said}");
        }
    }

    #[test]
    fn the_delay_after_crashes_starts_with_the_second_and_doubles_up_to_its_cap() {
        let t = Timing::default();
        let seconds: Vec<u64> = (0..12).map(|n| t.delay_after(n).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(t.delay_after(u32::MAX).as_secs(), 300);
    }
}
