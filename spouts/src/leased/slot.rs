//! One lease after another: leasing, consuming, settling, renewing, giving back.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use galerna_broker::{BrokerError, Consumer, Outcome};
use galerna_lease::{GrantedLease, HeldLease, LeaseError, NextRequest, Release};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::keeper::{Keeper, News};
use super::tally::add;
use super::{Activity, Arrival, Claim, Parts, Settlement};

/// How long a call to the dispatcher may take beyond the wait that was asked for.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the release of a lease is tried when the spout stops.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long stopping waits for the slots; it must cover a release.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);
/// Most messages that travel to the spout at once.
const ARRIVAL: usize = 512;
/// A queue that has messages and gives none is waited for this much longer each time it is asked: a large message takes
/// its time on the wire, and a lease that ends meanwhile would begin its way anew.
const LONGEST_PATIENCE: Duration = Duration::from_secs(1);
/// After so many times [`LeasedOptions::hold`](super::LeasedOptions::hold) without the message, the channel is given up.
const STUCK_AFTER: u32 = 12;

/// The pause after a lease under which nothing came, doubled with each further one.
const BARREN_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_BARREN_PAUSE: Duration = Duration::from_millis(250);

/// Why a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The queue is empty.
    Dry,
    /// It has had its share of messages or of time.
    Share,
    /// The spout was deactivated.
    Inactive,
    /// The dispatcher asked for the queue back.
    Revoked,
    /// Something that the messages need is away.
    Away,
    /// The broker's channel is gone.
    ChannelLost,
    /// The time of the lease is over.
    Expired,
    /// Somebody else has the queue.
    Stale,
}

pub(super) struct Slot {
    parts: Parts,
    activity: watch::Receiver<Activity>,
    arrived: mpsc::Sender<Arrival>,
    /// The lease to give back with the next request.
    release: Option<Release>,
    /// The id of a request that had no answer: it may have been a lease, which is given again to who asks with it.
    unanswered: Option<String>,
    /// How long to let the dispatcher wait: a part of the length of its leases, since the wait is taken off a lease.
    wait: Duration,
    /// Leases in a row under which nothing came. A dispatcher may give queues that it knows nothing of, at once: looking at
    /// empty ones must not become a busy loop.
    barren: u32,
}

impl Slot {
    pub(super) fn new(
        parts: Parts,
        activity: watch::Receiver<Activity>,
        arrived: mpsc::Sender<Arrival>,
    ) -> Self {
        let wait = parts.options.wait;
        Self { parts, activity, arrived, release: None, unanswered: None, wait, barren: 0 }
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
            if let Some(until) = self.parts.hold_off.until() {
                self.release_now().await;
                tokio::select! {
                    () = sleep_until(until) => {}
                    _ = self.activity.changed() => {}
                }
                continue;
            }
            if let Some((leased, asked)) = self.lease().await {
                self.serve(HeldLease::new(leased, asked)).await;
                if self.barren > 0 {
                    self.release_now().await;
                    self.pause((BARREN_PAUSE * (1 << self.barren.min(10))).min(LONGEST_BARREN_PAUSE)).await;
                }
            }
        }
    }

    /// Asks for a lease, giving back the one before in the same request.
    async fn lease(&mut self) -> Option<(GrantedLease, Instant)> {
        let wait = self.wait;
        let retry = self.unanswered.is_some();
        let id = self.unanswered.take().unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
        let request = NextRequest {
            consumer: self.parts.consumer.clone(),
            wait,
            count: 1,
            release: self.release.iter().cloned().collect(),
            request: Some(id.clone()),
            retry,
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
                self.unanswered = retry.then_some(id);
                self.release_now().await;
                self.pause(wait).await;
            }
            _ => {
                tracing::warn!(%error, "no lease");
                self.unanswered = Some(id);
                self.parts.hold_off.begin();
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
        // Other slots count in the same tally: if anything comes anywhere, there is no need to slow down.
        self.barren = if end == End::Dry && tally.received() == received { self.barren + 1 } else { 0 };
        tally.held.fetch_sub(1, Relaxed);
        match end {
            End::Expired | End::Stale => {
                add(&tally.lost, 1);
                tracing::warn!(%queue, epoch, ?end, "a lease was lost; its messages will be delivered again");
            }
            End::Revoked => add(&tally.revoked, 1),
            End::Away | End::ChannelLost => self.parts.hold_off.begin(),
            End::Dry | End::Share => self.parts.hold_off.end(),
            End::Inactive => {}
        }
        tracing::debug!(%queue, epoch, ?end, empty, "a lease ends");
        if end != End::Stale {
            self.release = Some(Release { queue, epoch, empty });
        }
    }

    /// Consumes under a lease until it ends; says why it ended and whether the queue is empty.
    async fn consume(&mut self, held: HeldLease) -> (End, bool) {
        let queue = held.leased().queue.clone();
        let options = &self.parts.options;
        if held.must_stop() {
            return (End::Expired, false);
        }
        let Some(account) = self.parts.account_of(&queue) else {
            tracing::error!(%queue, "the account of a queue is not known; it is not consumed");
            return (End::Away, false);
        };
        let prefetch = options.prefetch.max(1);
        let consumer = match self.parts.broker.consume(&queue, prefetch).await {
            Ok(consumer) => consumer,
            Err(error) => {
                tracing::warn!(%queue, %error, "a leased queue cannot be consumed");
                return match error {
                    BrokerError::UnknownQueue(_) => (End::Dry, true),
                    _ => (End::ChannelLost, false),
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
        let turn = Turn {
            parts: &self.parts,
            arrived: &self.arrived,
            keeper: Keeper::new(held, claim.clone(), self.parts.leases.clone()),
            consumer,
            claim,
            outcomes,
            arrival: None,
            unsettled: 0,
            received: 0,
            probes: 0,
            fenced: false,
            end: None,
            give_up_at: None,
            began: Instant::now(),
        };
        turn.run(&mut self.activity).await
    }
}

/// One lease in use.
struct Turn<'a> {
    parts: &'a Parts,
    arrived: &'a mpsc::Sender<Arrival>,
    keeper: Keeper,
    consumer: Box<dyn Consumer>,
    claim: Arc<Claim>,
    outcomes: mpsc::Receiver<Settlement>,
    /// Received, and not yet handed to the spout.
    arrival: Option<Arrival>,
    unsettled: usize,
    received: usize,
    probes: u32,
    /// The queue had nothing more, and what it had sent is here.
    fenced: bool,
    /// Why nothing more is received.
    end: Option<End>,
    /// When messages in work are given up.
    give_up_at: Option<Instant>,
    began: Instant,
}

/// What happened next.
enum Event {
    Outcomes(Vec<Settlement>),
    Received(Result<Vec<galerna_broker::Delivery>, BrokerError>),
    HandedOver,
    Deactivated,
    Lease(News),
    GiveUp,
}

impl Turn<'_> {
    async fn run(mut self, activity: &mut watch::Receiver<Activity>) -> (End, bool) {
        let end = loop {
            // Checked before anything else: after a stop of the process, the clock has gone on.
            if self.keeper.must_stop() {
                break End::Expired;
            }
            if self.keeper.revoked() && !matches!(self.end, Some(End::Inactive | End::Away | End::Revoked)) {
                self.end = Some(End::Revoked);
                self.give_up_at = Some(Instant::now() + self.parts.options.grace);
                // What has arrived and was not emitted is given back by the spout.
                self.claim.open.store(false, Relaxed);
            }
            if self.end.is_none() && self.has_had_its_share() {
                self.end = Some(End::Share);
                self.claim.shared_out.store(true, Relaxed);
            }
            if let Some(end) = self.end
                && self.unsettled == 0
            {
                break end;
            }
            match self.next_event(activity).await {
                Event::Outcomes(outcomes) => {
                    if let Err(end) = self.settle(outcomes).await {
                        break end;
                    }
                }
                Event::Received(Ok(deliveries)) if deliveries.is_empty() => {
                    if self.unsettled == 0 {
                        match self.nothing_came().await {
                            Ok(end) => self.end = end,
                            Err(end) => break end,
                        }
                    }
                }
                Event::Received(Ok(deliveries)) => {
                    (self.probes, self.fenced) = (0, false);
                    self.unsettled += deliveries.len();
                    self.received += deliveries.len();
                    add(&self.parts.tally.received, deliveries.len());
                    self.arrival = Some(Arrival { claim: self.claim.clone(), deliveries });
                }
                Event::Received(Err(error)) => {
                    tracing::warn!(queue = %self.claim.queue, %error, "a leased queue can no longer be consumed");
                    break End::ChannelLost;
                }
                Event::HandedOver => {}
                Event::Deactivated => {
                    if let Err(end) = self.stop_receiving(End::Inactive).await {
                        break end;
                    }
                }
                Event::Lease(News::Revoked) => {}
                Event::Lease(News::Over(end)) => break end,
                Event::GiveUp => break self.end.unwrap_or(End::Inactive),
            }
        };
        self.claim.open.store(false, Relaxed);
        if matches!(end, End::Expired | End::Stale) {
            // What the spout said while the last call was under way; what it says from now on it counts itself.
            self.outcomes.close();
            while let Ok(late) = self.outcomes.try_recv() {
                add(&self.parts.tally.too_late, late.len());
                self.unsettled = self.unsettled.saturating_sub(late.len());
            }
        }
        add(&self.parts.tally.given_back, self.unsettled);
        // Whatever is unsettled goes back with the channel.
        if let Err(error) = self.consumer.close().await {
            tracing::debug!(queue = %self.claim.queue, %error, "a consumer did not close");
        }
        (end, end == End::Dry)
    }

    fn has_had_its_share(&self) -> bool {
        let options = &self.parts.options;
        // A share of nothing is none: the first message may be on its way still.
        self.received >= options.messages_per_lease
            || (self.received > 0 && self.began.elapsed() >= options.hold)
    }

    async fn next_event(&mut self, activity: &mut watch::Receiver<Activity>) -> Event {
        let options = &self.parts.options;
        let room = usize::from(options.prefetch.max(1)).saturating_sub(self.unsettled);
        let share = options.messages_per_lease.saturating_sub(self.received);
        let receiving = self.end.is_none() && self.arrival.is_none() && room > 0 && share > 0;
        // While messages are in work there is no hurry to find the queue dry.
        let patience = if self.fenced {
            options.dry_after / 4
        } else if self.unsettled > 0 {
            options.dry_after * 10
        } else {
            (options.dry_after * (1 << self.probes.min(10))).min(LONGEST_PATIENCE.max(options.dry_after))
        };
        let give_up_at = self.give_up_at;
        let handing = self.arrival.is_some();
        let mut settled = Vec::new();
        tokio::select! {
            biased;
            news = self.keeper.keep() => Event::Lease(news),
            changed = activity.wait_for(|a| *a != Activity::Active), if self.end.is_none() => {
                drop(changed);
                Event::Deactivated
            }
            () = sleep_until(give_up_at.unwrap_or_else(Instant::now)), if give_up_at.is_some() => Event::GiveUp,
            _ = self.outcomes.recv_many(&mut settled, usize::MAX), if self.unsettled > 0 => Event::Outcomes(settled),
            permit = self.arrived.reserve(), if handing => {
                if let (Ok(permit), Some(arrival)) = (permit, self.arrival.take()) {
                    permit.send(arrival);
                }
                Event::HandedOver
            }
            received = self.consumer.receive(room.min(share).min(ARRIVAL), patience), if receiving => {
                Event::Received(received)
            }
        }
    }

    /// Settles what the spout says of messages, unless the lease is over or ends meanwhile.
    async fn settle(&mut self, outcomes: Vec<Settlement>) -> Result<(), End> {
        let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
        let tally = &self.parts.tally;
        self.unsettled = self.unsettled.saturating_sub(outcomes.len());
        if self.keeper.must_stop() {
            // They may be somebody else's by now.
            add(&tally.too_late, outcomes.len());
            return Err(End::Expired);
        }
        let count = outcomes.len();
        let (mut acked, mut retried, mut dead, mut given_back) = (0, 0, 0, 0);
        for (_, outcome) in &outcomes {
            match outcome {
                Outcome::Ack => acked += 1,
                Outcome::Retry(_) => retried += 1,
                Outcome::DeadLetter(_) => dead += 1,
                Outcome::Release => given_back += 1,
            }
        }
        match self.keeper.during(self.consumer.settle(outcomes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(queue = %self.claim.queue, %error, "messages could not be settled");
                return Err(if self.keeper.must_stop() { End::Expired } else { End::ChannelLost });
            }
            Err(end) => {
                add(&tally.too_late, count);
                return Err(end);
            }
        }
        add(&tally.acked, acked);
        add(&tally.retried, retried);
        add(&tally.dead_lettered, dead);
        add(&tally.given_back, given_back);
        if given_back > 0 && !matches!(self.end, Some(End::Inactive | End::Revoked)) {
            // Received again at once, they would fail again at once.
            self.stop_receiving(End::Away).await?;
        } else if acked > 0 {
            self.parts.hold_off.end();
        }
        Ok(())
    }

    /// Receives nothing more; waits for what is in work, up to a limit.
    async fn stop_receiving(&mut self, end: End) -> Result<(), End> {
        self.end = Some(end);
        self.give_up_at = Some(Instant::now() + self.parts.options.grace);
        self.claim.open.store(false, Relaxed);
        if let Some(arrival) = self.arrival.take() {
            self.unsettled -= arrival.deliveries.len();
            add(&self.parts.tally.given_back, arrival.deliveries.len());
            let back = arrival.deliveries.into_iter().map(|d| (d.tag, Outcome::Release)).collect();
            if let Err(error) = self.keeper.during(self.consumer.settle(back)).await? {
                tracing::debug!(queue = %self.claim.queue, %error, "messages go back with their channel");
            }
        }
        Ok(())
    }

    /// Nothing came and nothing is in work: asks the broker whether nothing is there.
    async fn nothing_came(&mut self) -> Result<Option<End>, End> {
        if self.fenced {
            return Ok(Some(End::Dry));
        }
        self.probes += 1;
        let ready = match self.keeper.during(self.consumer.fence()).await? {
            // What was on its way is here now, and is looked for once more.
            Ok(Some(0)) => {
                self.fenced = true;
                return Ok(None);
            }
            Ok(ready) => ready,
            // The next call on the consumer tells what is the matter.
            Err(_) => return Ok(None),
        };
        let waited = self.began.elapsed();
        if self.received == 0 && waited >= self.parts.options.hold * STUCK_AFTER {
            tracing::warn!(queue = %self.claim.queue, ?ready, ?waited, "a queue has messages and none comes; it is consumed anew");
            return Ok(Some(End::ChannelLost));
        }
        Ok(None)
    }
}
