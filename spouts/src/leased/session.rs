//! One lease in use: receiving, settling, renewing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use galerna_broker::{BrokerError, Consumer, Outcome};
use galerna_lease::HeldLease;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::pool::Place;
use super::renewer::{LeaseEvent, LeaseRenewer};
use super::tally::add;
use super::task::LeaseEnd;
use super::{Activity, Arrival, Claim, Parts, Settlement};

/// Most messages that travel to the spout at once.
const ARRIVAL: usize = 512;
/// A queue that has messages and gives none is waited for this much longer each time it is asked: a large message takes
/// its time on the wire, and a lease that ends meanwhile would begin its way anew.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How often a lease that lingers looks whether its place is wanted, and whether it has had its share.
const LINGER_LOOK: Duration = Duration::from_secs(1);
/// After so many times [`LeasedOptions::hold`](super::LeasedOptions::hold) without the message, the channel is given up.
const STUCK_AFTER: u32 = 12;

/// A lease whose queue is empty again and again is given back after so many times [`LeasedOptions::hold`](super::LeasedOptions::hold),
/// so that queues are shared evenly with workers that come later.
const KEEP: u32 = 6;

/// One lease in use.
pub(super) struct LeaseSession<'a> {
    parts: &'a Parts,
    arrived: &'a mpsc::Sender<Arrival>,
    place: &'a mut Place,
    renewer: LeaseRenewer,
    consumer: Box<dyn Consumer>,
    claim: Arc<Claim>,
    outcomes: mpsc::Receiver<Settlement>,
    /// Received, and not yet handed to the spout.
    arrival: Option<Arrival>,
    unsettled: usize,
    received: usize,
    last_received: Instant,
    /// Since when it has been consumed without being found empty.
    busy_since: Instant,
    /// The queue had nothing a moment ago, and the lease is kept for what comes.
    lingering: bool,
    probes: u32,
    /// The queue had nothing more, and what it had sent is here.
    fenced: bool,
    /// Why nothing more is received.
    end: Option<LeaseEnd>,
    /// When messages in work are given up.
    give_up_at: Option<Instant>,
    began: Instant,
}

/// What happened next.
enum SessionEvent {
    Outcomes(Vec<Settlement>),
    Received(Result<Vec<galerna_broker::Delivery>, BrokerError>),
    HandedOver,
    Deactivated,
    Lease(LeaseEvent),
    GiveUp,
}

impl<'a> LeaseSession<'a> {
    pub(super) fn new(
        parts: &'a Parts,
        arrived: &'a mpsc::Sender<Arrival>,
        place: &'a mut Place,
        held: HeldLease,
        consumer: Box<dyn Consumer>,
        claim: Arc<Claim>,
        outcomes: mpsc::Receiver<Settlement>,
    ) -> Self {
        let now = Instant::now();
        Self {
            parts,
            arrived,
            place,
            renewer: LeaseRenewer::new(held, claim.clone(), parts.leases.clone(), parts.options.hold),
            consumer,
            claim,
            outcomes,
            arrival: None,
            unsettled: 0,
            received: 0,
            last_received: now,
            busy_since: now,
            lingering: false,
            probes: 0,
            fenced: false,
            end: None,
            give_up_at: None,
            began: now,
        }
    }

    /// Consumes until the lease ends; says why it ended and whether the queue is empty.
    pub(super) async fn run(mut self, activity: &mut watch::Receiver<Activity>) -> (LeaseEnd, bool) {
        let end = loop {
            // Checked before anything else: after a stop of the process, the clock has gone on.
            if self.renewer.must_stop() {
                break LeaseEnd::Expired;
            }
            if self.renewer.revoked()
                && !matches!(self.end, Some(LeaseEnd::Inactive | LeaseEnd::Unavailable | LeaseEnd::Revoked))
            {
                self.end = Some(LeaseEnd::Revoked);
                self.give_up_at = Some(Instant::now() + self.parts.options.grace);
                // What has arrived and was not emitted is given back by the spout.
                self.claim.open.store(false, Relaxed);
            }
            if self.end.is_none() && self.has_had_its_share() {
                self.end = Some(LeaseEnd::Share);
                self.claim.shared_out.store(true, Relaxed);
            }
            if let Some(end) = self.end
                && self.unsettled == 0
            {
                break end;
            }
            match self.next_event(activity).await {
                SessionEvent::Outcomes(outcomes) => {
                    if let Err(end) = self.settle(outcomes).await {
                        break end;
                    }
                }
                SessionEvent::Received(Ok(deliveries)) if deliveries.is_empty() => {
                    self.lingering = false;
                    if self.unsettled == 0 {
                        self.busy_since = Instant::now();
                        if self.may_linger() {
                            self.lingering = true;
                            continue;
                        }
                        match self.nothing_came().await {
                            Ok(end) => self.end = end,
                            Err(end) => break end,
                        }
                    }
                }
                SessionEvent::Received(Ok(deliveries)) => {
                    (self.probes, self.fenced, self.lingering) = (0, false, false);
                    self.last_received = Instant::now();
                    self.place.begin_productive();
                    self.unsettled += deliveries.len();
                    self.received += deliveries.len();
                    add(&self.parts.tally.received, deliveries.len());
                    self.arrival = Some(Arrival { claim: self.claim.clone(), deliveries });
                }
                SessionEvent::Received(Err(error)) => {
                    tracing::warn!(queue = %self.claim.queue, %error, "a leased queue can no longer be consumed");
                    break LeaseEnd::ChannelLost;
                }
                SessionEvent::HandedOver => {}
                SessionEvent::Deactivated => {
                    if let Err(end) = self.stop_receiving(LeaseEnd::Inactive).await {
                        break end;
                    }
                }
                SessionEvent::Lease(LeaseEvent::Revoked) => {}
                SessionEvent::Lease(LeaseEvent::Ended(end)) => break end,
                SessionEvent::GiveUp => break self.end.unwrap_or(LeaseEnd::Inactive),
            }
        };
        self.claim.open.store(false, Relaxed);
        if matches!(end, LeaseEnd::Expired | LeaseEnd::Stale) {
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
        (end, end == LeaseEnd::Dry)
    }

    fn has_had_its_share(&self) -> bool {
        let options = &self.parts.options;
        // A share of nothing is none: the first message may be on its way still.
        self.received >= options.messages_per_lease
            || (self.received > 0
                && (self.busy_since.elapsed() >= options.hold || self.began.elapsed() >= options.hold * KEEP))
    }

    /// When the lease of an empty queue is given back.
    fn linger_until(&self) -> Instant {
        self.last_received + self.parts.options.linger
    }

    /// Whether the lease of an empty queue is kept: it gave something a short while ago, and no other queue waits for its place.
    fn may_linger(&self) -> bool {
        self.received > 0 && self.place.pool().has_room() && Instant::now() < self.linger_until()
    }

    async fn next_event(&mut self, activity: &mut watch::Receiver<Activity>) -> SessionEvent {
        let options = &self.parts.options;
        let room = usize::from(options.prefetch.max(1)).saturating_sub(self.unsettled);
        let share = options.messages_per_lease.saturating_sub(self.received);
        let receiving = self.end.is_none() && self.arrival.is_none() && room > 0 && share > 0;
        // While messages are in work there is no hurry to find the queue dry.
        let wait = if self.lingering {
            self.linger_until().saturating_duration_since(Instant::now()).min(LINGER_LOOK)
        } else if self.fenced {
            options.dry_after / 4
        } else if self.unsettled > 0 {
            options.dry_after * 10
        } else {
            (options.dry_after * (1 << self.probes.min(10))).min(LONGEST_WAIT.max(options.dry_after))
        };
        let give_up_at = self.give_up_at;
        let handing = self.arrival.is_some();
        let mut settled = Vec::new();
        tokio::select! {
            biased;
            event = self.renewer.renew_until_event() => SessionEvent::Lease(event),
            changed = activity.wait_for(|a| *a != Activity::Active), if self.end.is_none() => {
                drop(changed);
                SessionEvent::Deactivated
            }
            () = sleep_until(give_up_at.unwrap_or_else(Instant::now)), if give_up_at.is_some() => SessionEvent::GiveUp,
            _ = self.outcomes.recv_many(&mut settled, usize::MAX), if self.unsettled > 0 => SessionEvent::Outcomes(settled),
            permit = self.arrived.reserve(), if handing => {
                if let (Ok(permit), Some(arrival)) = (permit, self.arrival.take()) {
                    permit.send(arrival);
                }
                SessionEvent::HandedOver
            }
            received = self.consumer.receive(room.min(share).min(ARRIVAL), wait), if receiving => {
                SessionEvent::Received(received)
            }
        }
    }

    /// Settles what the spout says of messages, unless the lease is over or ends meanwhile.
    async fn settle(&mut self, outcomes: Vec<Settlement>) -> Result<(), LeaseEnd> {
        let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
        let tally = &self.parts.tally;
        self.unsettled = self.unsettled.saturating_sub(outcomes.len());
        if self.renewer.must_stop() {
            // They may be somebody else's by now.
            add(&tally.too_late, outcomes.len());
            return Err(LeaseEnd::Expired);
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
        match self.renewer.during(self.consumer.settle(outcomes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(queue = %self.claim.queue, %error, "messages could not be settled");
                return Err(if self.renewer.must_stop() { LeaseEnd::Expired } else { LeaseEnd::ChannelLost });
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
        if given_back > 0 && !matches!(self.end, Some(LeaseEnd::Inactive | LeaseEnd::Revoked)) {
            // Received again at once, they would fail again at once.
            self.stop_receiving(LeaseEnd::Unavailable).await?;
        } else if acked > 0 {
            self.parts.breaker.close();
        }
        Ok(())
    }

    /// Receives nothing more; waits for what is in work, up to a limit.
    async fn stop_receiving(&mut self, end: LeaseEnd) -> Result<(), LeaseEnd> {
        self.end = Some(end);
        self.give_up_at = Some(Instant::now() + self.parts.options.grace);
        self.claim.open.store(false, Relaxed);
        if let Some(arrival) = self.arrival.take() {
            self.unsettled -= arrival.deliveries.len();
            add(&self.parts.tally.given_back, arrival.deliveries.len());
            let back = arrival.deliveries.into_iter().map(|d| (d.tag, Outcome::Release)).collect();
            if let Err(error) = self.renewer.during(self.consumer.settle(back)).await? {
                tracing::debug!(queue = %self.claim.queue, %error, "messages go back with their channel");
            }
        }
        Ok(())
    }

    /// Nothing came and nothing is in work: asks the broker whether nothing is there.
    async fn nothing_came(&mut self) -> Result<Option<LeaseEnd>, LeaseEnd> {
        if self.fenced {
            return Ok(Some(LeaseEnd::Dry));
        }
        self.probes += 1;
        let ready = match self.renewer.during(self.consumer.fence()).await? {
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
            return Ok(Some(LeaseEnd::ChannelLost));
        }
        Ok(None)
    }
}
