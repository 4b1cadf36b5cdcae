//! Renews a lease while it is used.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use galerna_lease::{HeldLease, LeaseError, Leases, Renewed};
use tokio::time::{Instant, sleep_until, timeout};

use super::Claim;
use super::task::{CALL_TIMEOUT, LeaseEnd};

type Renewal = Pin<Box<dyn Future<Output = (Instant, Result<Renewed, LeaseError>)> + Send>>;

/// Renews a lease in time and knows when it is over.
pub(super) struct LeaseRenewer {
    held: HeldLease,
    claim: Arc<Claim>,
    leases: Arc<dyn Leases>,
    renewal: Option<Renewal>,
    /// When to renew, when that is later than the lease says: after a renewal that failed.
    renew_at: Option<Instant>,
    /// A renewal tells whether the queue was paused, so there is one at least so often.
    renew_every: Duration,
    renewed: Instant,
}

/// What a holder must know of its lease.
pub(super) enum LeaseEvent {
    /// The dispatcher asks for the queue back.
    Revoked,
    /// Nothing may be consumed or settled any more.
    Ended(LeaseEnd),
}

impl LeaseRenewer {
    pub(super) fn new(
        held: HeldLease,
        claim: Arc<Claim>,
        leases: Arc<dyn Leases>,
        renew_every: Duration,
    ) -> Self {
        let renewed = Instant::now();
        Self { held, claim, leases, renewal: None, renew_at: None, renew_every, renewed }
    }

    pub(super) fn must_stop(&self) -> bool {
        self.held.must_stop()
    }

    /// Whether the dispatcher has asked for the queue back.
    pub(super) fn revoked(&self) -> bool {
        self.held.revoked()
    }

    /// Renews until something happens to the lease. Cancellation-safe: a renewal that is under way goes on with the next call.
    pub(super) async fn renew_until_event(&mut self) -> LeaseEvent {
        loop {
            if self.held.must_stop() {
                return LeaseEvent::Ended(LeaseEnd::Expired);
            }
            let renew_at =
                self.renew_at.unwrap_or_else(|| self.held.renew_at().min(self.renewed + self.renew_every));
            let renewing = self.renewal.is_some();
            tokio::select! {
                biased;
                () = sleep_until(self.held.stop_at()) => return LeaseEvent::Ended(LeaseEnd::Expired),
                answer = poll(&mut self.renewal), if renewing => {
                    self.renewal = None;
                    if let Some(event) = self.apply(answer.0, answer.1) {
                        return event;
                    }
                }
                () = sleep_until(renew_at), if !renewing => self.renew(),
            }
        }
    }

    /// Awaits `call` for as long as the lease is kept; gives up, with the reason, when the lease is over first.
    ///
    /// That it was revoked meanwhile is left to [`Self::revoked`].
    pub(super) async fn during<T>(&mut self, call: impl Future<Output = T>) -> Result<T, LeaseEnd> {
        let mut call = pin!(call);
        loop {
            tokio::select! {
                biased;
                event = self.renew_until_event() => if let LeaseEvent::Ended(end) = event { return Err(end) },
                answer = &mut call => return Ok(answer),
            }
        }
    }

    fn renew(&mut self) {
        let leases = self.leases.clone();
        let (queue, epoch) = (self.claim.queue.clone(), self.claim.epoch);
        self.renewal = Some(Box::pin(async move {
            let asked = Instant::now();
            let answer = timeout(CALL_TIMEOUT, leases.renew(&queue, epoch)).await;
            let unavailable = |_| Err(LeaseError::Unavailable("it did not answer in time".to_owned()));
            (asked, answer.unwrap_or_else(unavailable))
        }));
    }

    fn apply(&mut self, asked: Instant, answer: Result<Renewed, LeaseError>) -> Option<LeaseEvent> {
        match answer {
            Ok(renewed) => {
                let before = self.held.revoked();
                self.held.renewed(renewed, asked);
                self.claim.renewed(self.held.stop_at());
                self.renew_at = None;
                self.renewed = Instant::now();
                (self.held.revoked() && !before).then_some(LeaseEvent::Revoked)
            }
            Err(error @ (LeaseError::StaleEpoch { .. } | LeaseError::UnknownQueue(_))) => {
                tracing::warn!(queue = %self.claim.queue, %error, "a lease cannot be renewed");
                Some(LeaseEvent::Ended(LeaseEnd::Stale))
            }
            Err(error) => {
                tracing::warn!(queue = %self.claim.queue, %error, left = ?self.held.left(), "a renewal failed");
                // Several tries fit into what is left, whatever the length of a lease.
                let pause = (self.held.left() / 8).clamp(Duration::from_millis(5), Duration::from_secs(1));
                self.renew_at = Some(Instant::now() + pause);
                None
            }
        }
    }
}

async fn poll(renewal: &mut Option<Renewal>) -> (Instant, Result<Renewed, LeaseError>) {
    match renewal {
        Some(renewal) => renewal.await,
        None => std::future::pending().await,
    }
}
