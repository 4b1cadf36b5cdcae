//! One lease after another: leasing, consuming under it, giving it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use galerna_broker::BrokerError;
use galerna_lease::{GrantedLease, HeldLease, LeaseError, NextRequest, Release};
use galerna_lock::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::pool::Place;
use super::session::LeaseSession;
use super::tally::add;
use super::{Activity, Arrival, Claim, Parts};

/// How long a call to the dispatcher may take beyond the wait that was asked for.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the release of a lease is tried when the spout stops.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long stopping waits for the lease tasks; it must cover a release.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);

/// The pause after a lease under which nothing came, doubled with each further one.
const EMPTY_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_EMPTY_PAUSE: Duration = Duration::from_millis(250);

/// Why a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseEnd {
    /// The queue is empty.
    Dry,
    /// It has had its share of messages or of time.
    Share,
    /// The spout was deactivated.
    Inactive,
    /// The dispatcher asked for the queue back.
    Revoked,
    /// Something that the messages need is unavailable.
    Unavailable,
    /// The broker's channel is gone.
    ChannelLost,
    /// The time of the lease is over.
    Expired,
    /// Somebody else has the queue.
    Stale,
}

/// Takes one lease after another, until the spout is closed or enough other tasks search.
pub(super) struct LeaseTask {
    parts: Parts,
    activity: watch::Receiver<Activity>,
    arrived: mpsc::Sender<Arrival>,
    place: Place,
    /// The lease to give back with the next request.
    release: Option<Release>,
    /// How long to let the dispatcher wait: a part of the length of its leases, since the wait is taken off a lease.
    wait: Duration,
    /// Leases in a row under which nothing came. A dispatcher may give queues that it knows nothing of, at once: looking at
    /// empty ones must not become a busy loop.
    empty_leases: u32,
}

impl LeaseTask {
    pub(super) fn new(
        parts: Parts,
        activity: watch::Receiver<Activity>,
        arrived: mpsc::Sender<Arrival>,
        place: Place,
    ) -> Self {
        let wait = parts.options.wait;
        Self { parts, activity, arrived, place, release: None, wait, empty_leases: 0 }
    }

    pub(super) async fn run(mut self) {
        loop {
            let activity = *self.activity.borrow_and_update();
            if activity != Activity::Active {
                self.release_now().await;
                // The spout is gone when the sender is.
                if activity == Activity::Closing || self.activity.changed().await.is_err() {
                    return;
                }
                continue;
            }
            if let Some(until) = self.parts.breaker.open_until() {
                self.release_now().await;
                tokio::select! {
                    () = sleep_until(until) => {}
                    _ = self.activity.changed() => {}
                }
                continue;
            }
            if self.place.leave() {
                self.release_now().await;
                return;
            }
            if let Some((leased, asked)) = self.lease().await {
                self.serve(HeldLease::new(leased, asked)).await;
                if self.empty_leases > 0 {
                    self.release_now().await;
                    self.pause((EMPTY_PAUSE * (1 << self.empty_leases.min(10))).min(LONGEST_EMPTY_PAUSE))
                        .await;
                }
            }
        }
    }

    /// Asks for a lease, giving back the one before in the same request.
    async fn lease(&mut self) -> Option<(GrantedLease, Instant)> {
        let wait = self.wait;
        // A request that had no answer is made again, as the same one, by `GroupedLeases`.
        let request = NextRequest {
            consumer: self.parts.consumer.clone(),
            wait,
            count: 1,
            release: self.release.iter().cloned().collect(),
            ..NextRequest::default()
        };
        let asked = Instant::now();
        let answer = timeout(wait + CALL_TIMEOUT, self.parts.leases.next(request)).await;
        let error = match answer {
            Ok(Ok(leases)) => {
                self.release = None;
                if leases.is_empty() {
                    // Nothing to lease, within the wait that was asked for: a dispatcher that answers at once is not
                    // asked again at once.
                    if asked.elapsed() < wait / 2 {
                        self.pause(wait / 2).await;
                    }
                    return None;
                }
                let leased = leases.into_iter().next()?;
                self.wait = self.parts.options.wait.min(Duration::from_millis(leased.expires_in_ms) / 4);
                return Some((leased, asked));
            }
            Ok(Err(error)) => error,
            Err(_) => LeaseError::Unavailable("it did not answer in time".to_owned()),
        };
        match &error {
            LeaseError::Stopped => {
                tracing::debug!(%error, "no lease");
                self.release_now().await;
                self.pause(wait).await;
            }
            _ => {
                tracing::warn!(%error, "no lease");
                self.parts.breaker.open();
            }
        }
        None
    }

    async fn pause(&mut self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = self.activity.changed() => self.activity.mark_changed(),
        }
    }

    /// Gives the last lease back in a request of its own. When that fails the lease ends by itself.
    async fn release_now(&mut self) {
        let Some(release) = self.release.take() else { return };
        match timeout(RELEASE_TIMEOUT, self.parts.leases.release(&release)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(queue = %release.queue, %error, "a lease was not released"),
            Err(_) => tracing::debug!(queue = %release.queue, "the dispatcher did not answer the release"),
        }
    }

    async fn serve(&mut self, held: HeldLease) {
        let tally = self.parts.tally.clone();
        let queue = held.leased().queue.clone();
        let epoch = held.leased().epoch;
        add(&tally.leases, 1);
        add(&tally.held, 1);
        let received = tally.received();
        let (end, empty) = self.consume(held).await;
        self.place.end_productive();
        self.place.pool().note_backlog(&queue, end == LeaseEnd::Share);
        // Other lease tasks count in the same tally: if anything comes anywhere, there is no need to slow down.
        self.empty_leases =
            if end == LeaseEnd::Dry && tally.received() == received { self.empty_leases + 1 } else { 0 };
        tally.held.fetch_sub(1, Relaxed);
        match end {
            LeaseEnd::Expired | LeaseEnd::Stale => {
                add(&tally.lost, 1);
                tracing::warn!(%queue, epoch, ?end, "a lease was lost; its messages will be delivered again");
            }
            LeaseEnd::Revoked => add(&tally.revoked, 1),
            LeaseEnd::Unavailable | LeaseEnd::ChannelLost => self.parts.breaker.open(),
            LeaseEnd::Dry | LeaseEnd::Share => self.parts.breaker.close(),
            LeaseEnd::Inactive => {}
        }
        tracing::debug!(%queue, epoch, ?end, empty, "a lease ends");
        if end != LeaseEnd::Stale {
            self.release = Some(Release { queue, epoch, empty });
        }
    }

    /// Consumes under a lease until it ends; says why it ended and whether the queue is empty.
    async fn consume(&mut self, held: HeldLease) -> (LeaseEnd, bool) {
        let queue = held.leased().queue.clone();
        if held.must_stop() {
            return (LeaseEnd::Expired, false);
        }
        let Some(account) = self.parts.account_of(&queue) else {
            tracing::error!(%queue, "the account of a queue is not known; it is not consumed");
            return (LeaseEnd::Unavailable, false);
        };
        let prefetch = self.place.pool().prefetch(&queue);
        let consumer = match self.parts.broker.consume(&queue, prefetch).await {
            Ok(consumer) => consumer,
            Err(error) => {
                tracing::warn!(%queue, %error, "a leased queue cannot be consumed");
                return match error {
                    BrokerError::UnknownQueue(_) => (LeaseEnd::Dry, true),
                    _ => (LeaseEnd::ChannelLost, false),
                };
            }
        };
        // Each unsettled message has one outcome at most, so there is always room.
        let (settle, outcomes) = mpsc::channel(usize::from(prefetch) + 1);
        let claim = Arc::new(Claim {
            account,
            epoch: held.leased().epoch,
            prefetch: usize::from(prefetch),
            open: AtomicBool::new(true),
            shared_out: AtomicBool::new(false),
            stop_at: Mutex::new(held.stop_at()),
            settle,
            queue,
        });
        let arrived = self.arrived.clone();
        let session =
            LeaseSession::new(&self.parts, &arrived, &mut self.place, held, consumer, claim, outcomes);
        session.run(&mut self.activity).await
    }
}
