//! A lease as its holder counts it.

use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::{GrantedLease, Renewed};
use crate::timing::{holder_margin, renew_after};

/// A lease in the hands of a consumer.
///
/// It counts from before the request that got or renewed it, on the monotonic clock, less a margin: so the holder has
/// stopped before any dispatcher takes the lease for expired, however late the answer came.
///
/// ```
/// use galerna_lease::{HeldLease, GrantedLease};
/// # let leased = GrantedLease { queue: "D1".parse().unwrap(), epoch: 1, expires_in_ms: 60_000, strategy: "lru".into() };
/// let asked = tokio::time::Instant::now(); // before `next` is called
/// let held = HeldLease::new(leased, asked);
/// assert!(!held.must_stop() && !held.renew_due());
/// ```
#[derive(Debug, Clone)]
pub struct HeldLease {
    leased: GrantedLease,
    asked: Instant,
    lease: Duration,
    revoked: bool,
}

impl HeldLease {
    /// Takes a lease that was asked for at `asked`, which must be from before the call to `next`.
    pub fn new(leased: GrantedLease, asked: Instant) -> Self {
        let lease = Duration::from_millis(leased.expires_in_ms);
        Self { leased, asked, lease, revoked: false }
    }

    /// The lease.
    pub fn leased(&self) -> &GrantedLease {
        &self.leased
    }

    /// Takes a renewal that was asked for at `asked`, which must be from before the call to `renew`.
    pub fn renewed(&mut self, renewed: Renewed, asked: Instant) {
        self.revoked |= renewed.revoked;
        self.asked = asked;
        self.lease = Duration::from_millis(renewed.expires_in_ms);
    }

    /// When the holder must have stopped.
    pub fn stop_at(&self) -> Instant {
        self.asked + self.lease.saturating_sub(holder_margin(self.lease))
    }

    /// Whether the holder must not consume any more: nothing may be taken from the queue, nothing acked. Releasing it
    /// is still worth trying.
    pub fn must_stop(&self) -> bool {
        Instant::now() >= self.stop_at()
    }

    /// When it is time to renew.
    pub fn renew_at(&self) -> Instant {
        self.asked + renew_after(self.lease)
    }

    /// Whether it is time to renew.
    pub fn renew_due(&self) -> bool {
        Instant::now() >= self.renew_at()
    }

    /// Whether the dispatcher asked for the queue back: stop soon and release.
    pub fn revoked(&self) -> bool {
        self.revoked
    }

    /// How long the holder may go on.
    pub fn left(&self) -> Duration {
        self.stop_at().saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leased() -> GrantedLease {
        GrantedLease {
            queue: "D1".parse().unwrap(),
            epoch: 1,
            expires_in_ms: 60_000,
            strategy: "fifo".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_renews_after_a_third_and_stops_a_margin_before_the_end() {
        let mut held = HeldLease::new(leased(), Instant::now());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(held.renew_due() && !held.must_stop());
        held.renewed(Renewed { expires_in_ms: 60_000, revoked: false }, Instant::now());
        assert!(!held.renew_due());
        tokio::time::advance(Duration::from_secs(55)).await;
        assert!(held.must_stop());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_came_too_late_is_no_lease() {
        let asked = Instant::now();
        tokio::time::advance(Duration::from_secs(56)).await;
        let held = HeldLease::new(leased(), asked);
        assert!(held.must_stop());
        assert_eq!(held.left(), Duration::ZERO);
    }
}
