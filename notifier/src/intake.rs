//! From alert events on the broker to deliveries in the outbox.
//!
//! An event is acked when its deliveries are in the outbox. It may come twice, and to two notifiers at once: an endpoint gets
//! each event once all the same, since the outbox sees to that.
//!
//! Events may also come in any order. So before a recovery is put into the outbox, the alert that it ends is: the alert bolt
//! records events before it publishes them, so the store knows it, and whether it was taken. The recovery then goes to those
//! endpoints that its alert went to, and waits there for the deliveries of the same alert that are still pending. Whether they
//! were delivered is looked at again when it is due.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use galerna_broker::{BrokerError, Delivery as Received, DeliveryTag, Failure, Outcome};
use galerna_model::{AlertEvent, AlertEventKind, Timestamp};
use galerna_retry::{Outage, Pauses};
use galerna_storage::{Delivery, DeliveryStatus, Enqueued, StorageError, alert_key};
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::due::not_told;
use crate::hold::{When, not_usable};
use crate::notifier::Shared;
use crate::routing::Routing;

/// Alerts taken at once.
const AT_ONCE: usize = 16;
/// Pauses between attempts to reach broker or store.
const PAUSES: Pauses = Pauses::new(Duration::from_millis(200), Duration::from_secs(15));
/// How many of an alert's newest deliveries are looked at for those that are pending, and for the cooldown.
pub(crate) const LOOKED_AT: usize = 50;

/// How often a delivery is ended that others keep changing.
const TRIES: usize = 10;

impl Shared {
    /// Takes events until it is told to stop.
    pub(crate) async fn take_events(&self, stop: &CancellationToken) {
        let mut outage = Outage::new("taking alert events", PAUSES);
        loop {
            let Err(error) = self.consume(stop, &mut outage).await else { return };
            self.metrics.errors.with_label_values(&["broker"]).inc();
            if !waited(outage.failed(&error), stop).await {
                return;
            }
        }
    }

    /// Takes events until the consumer is lost or the end is near.
    async fn consume(&self, stop: &CancellationToken, outage: &mut Outage) -> Result<(), BrokerError> {
        self.broker.declare(&self.queue).await?;
        let prefetch = self.options.prefetch;
        // A task of its own, which ends even when this future is dropped: a consumer that nobody holds is dropped and gives its
        // messages back, while one that is half begun on a connection that lives on could keep them.
        let (broker, queue) = (std::sync::Arc::clone(&self.broker), self.queue.clone());
        let consumer = tokio::spawn(async move { broker.consume(&queue, prefetch).await });
        let mut consumer = consumer
            .await
            .map_err(|e| BrokerError::Invalid(format!("consuming `{}` was given up: {e}", self.queue)))??;
        loop {
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                received = consumer.receive(usize::from(prefetch), Duration::from_secs(1)) => received?,
            };
            outage.succeeded();
            if !received.is_empty() {
                let settled = self.take_all(received, stop).await;
                consumer.settle(settled).await?;
            }
        }
        consumer.close().await
    }

    async fn take_all(
        &self,
        received: Vec<Received>,
        stop: &CancellationToken,
    ) -> Vec<(DeliveryTag, Outcome)> {
        let mut settled = Vec::with_capacity(received.len());
        let mut by_alert: Vec<(String, Vec<(DeliveryTag, AlertEvent)>)> = Vec::new();
        for Received { tag, message, .. } in received {
            match serde_json::from_slice::<AlertEvent>(&message.body) {
                Ok(event) => {
                    let key = alert_key(&event);
                    match by_alert.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, events)) => events.push((tag, event)),
                        None => by_alert.push((key, vec![(tag, event)])),
                    }
                }
                Err(error) => {
                    self.metrics.events.with_label_values(&["malformed"]).inc();
                    settled.push((tag, Outcome::DeadLetter(failure(format!("is no alert event: {error}")))));
                }
            }
        }
        let Some(routing) = self.routing(stop).await else {
            let rest = by_alert.into_iter().flat_map(|(_, events)| events);
            settled.extend(rest.map(|(tag, _)| (tag, Outcome::Release)));
            return settled;
        };
        let routing = &routing;
        // Events of one alert one after the other, different alerts at once: the store groups their commits.
        let taken = stream::iter(by_alert)
            .map(|(_, events)| async move {
                let mut settled = Vec::with_capacity(events.len());
                for (tag, event) in events {
                    settled.push((tag, self.take_when_available(&event, routing, stop).await));
                }
                settled
            })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        settled.extend(taken.into_iter().flatten());
        self.wake.notify_one();
        settled
    }

    /// Reads who is to be told, however long that takes; `None` when the end comes first.
    async fn routing(&self, stop: &CancellationToken) -> Option<Routing> {
        let mut backoff = PAUSES.begin();
        loop {
            match Routing::load(&self.store).await {
                Ok(routing) => return Some(routing),
                Err(error) => {
                    self.store_failed(&error, "rules and endpoints cannot be read now");
                    if !waited(backoff.pause(), stop).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Takes an event however long the store is unavailable: an outage is not the event's fault.
    async fn take_when_available(
        &self,
        event: &AlertEvent,
        routing: &Routing,
        stop: &CancellationToken,
    ) -> Outcome {
        let mut backoff = PAUSES.begin();
        loop {
            match self.take(event, routing).await {
                Ok(outcome) => {
                    self.metrics.events.with_label_values(&[outcome]).inc();
                    return Outcome::Ack;
                }
                Err(error @ StorageError::Unavailable { .. }) => {
                    self.store_failed(&error, "an alert event cannot be taken now");
                    if !waited(backoff.pause(), stop).await {
                        return Outcome::Release;
                    }
                }
                Err(error) => {
                    self.store_failed(&error, "an alert event cannot be taken");
                    return Outcome::Retry(failure(error.to_string()));
                }
            }
        }
    }

    /// Puts the deliveries of an event into the outbox. Says what it was, for the metrics.
    pub(crate) async fn take(
        &self,
        event: &AlertEvent,
        routing: &Routing,
    ) -> Result<&'static str, StorageError> {
        let outbox = &self.store.notifications;
        if outbox.is_taken(&event.id).await? {
            return Ok("known");
        }
        let deliveries = match event.kind {
            AlertEventKind::Raised => self.tell_alert(event, routing).await?,
            AlertEventKind::Resolved => self.tell_recovery(event, routing).await?,
        };
        outbox.mark_taken(&event.id, self.clock.now()).await?;
        Ok(if deliveries == 0 { "unwanted" } else { "taken" })
    }

    async fn tell_alert(&self, event: &AlertEvent, routing: &Routing) -> Result<usize, StorageError> {
        let mut told = 0;
        for id in routing.endpoints_of(&event.rule) {
            if !belongs(event, id, routing) {
                continue;
            }
            let when = self.hold(event, id, routing).await?;
            self.enqueue(event, id, when, routing).await?;
            told += 1;
        }
        Ok(told)
    }

    async fn tell_recovery(&self, event: &AlertEvent, routing: &Routing) -> Result<usize, StorageError> {
        let outbox = &self.store.notifications;
        let Some(alert) = outbox.alert_ended_by(event).await? else {
            // An alert that nobody recorded.
            return self.tell_unpaired(event, routing).await;
        };
        if !outbox.is_taken(&alert.id).await? {
            self.tell_alert(&alert, routing).await?;
            outbox.mark_taken(&alert.id, self.clock.now()).await?;
        }
        let alerts = outbox.deliveries_of_event(&alert.id).await?;
        let age = u64::try_from(self.clock.now().millis_since(alert.ts)).unwrap_or(0);
        if alerts.is_empty() && Duration::from_millis(age) > self.options.keep {
            // An alert so old that its deliveries may be forgotten.
            return self.tell_unpaired(event, routing).await;
        }
        let told = alerts.len();
        for delivery in alerts {
            let delivery = self.end_hold(delivery, routing).await?;
            let id = &delivery.endpoint;
            // No silence: who was told of an alert is told of its end.
            let refusal = not_told(&delivery).or_else(|| not_usable(id, routing));
            self.enqueue(event, id, refusal.into(), routing).await?;
        }
        Ok(told)
    }

    /// Suppresses the delivery of an alert that has resolved, if it is held back still. Returns it as it is then.
    async fn end_hold(&self, mut delivery: Delivery, routing: &Routing) -> Result<Delivery, StorageError> {
        let outbox = &self.store.notifications;
        for _ in 0..TRIES {
            if delivery.status != DeliveryStatus::Pending || delivery.held_until.is_none() {
                break;
            }
            let why = delivery.reason.as_deref().unwrap_or("cooldown");
            let mut ended = delivery.clone();
            suppress(&mut ended, format!("{why}; it resolved before that was over"), self.clock.now());
            ended.claimed_by = None;
            ended.claimed_until = None;
            if outbox.update(&ended).await? {
                let kind = routing.endpoint(&ended.endpoint).map_or("none", |known| known.kind.name());
                self.metrics.ended.with_label_values(&[kind, ended.status.as_str()]).inc();
                return Ok(ended);
            }
            // A notifier claimed it, or is sending it by now.
            match outbox.delivery(&delivery.id).await? {
                Some(changed) => delivery = changed,
                None => break,
            }
        }
        Ok(delivery)
    }

    /// Tells of a recovery of which it is not known who was told of its alert.
    async fn tell_unpaired(&self, event: &AlertEvent, routing: &Routing) -> Result<usize, StorageError> {
        let mut told = 0;
        for id in routing.endpoints_of(&event.rule) {
            if belongs(event, id, routing) {
                let when = match (not_usable(id, routing), self.silence(event, routing)) {
                    (Some(refusal), _) | (None, When::HeldUntil(_, refusal)) => When::Never(refusal),
                    (None, when) => when,
                };
                self.enqueue(event, id, when, routing).await?;
                told += 1;
            }
        }
        Ok(told)
    }

    async fn enqueue(
        &self,
        event: &AlertEvent,
        endpoint: &str,
        when: When,
        routing: &Routing,
    ) -> Result<(), StorageError> {
        let outbox = &self.store.notifications;
        let mut delivery = new_delivery(event, endpoint, self.clock.now());
        let alone = match when {
            When::Never(reason) => {
                let at = delivery.created;
                suppress(&mut delivery, reason, at);
                "suppressed"
            }
            When::HeldUntil(until, reason) => {
                delivery.after = self.pending_of(event, endpoint).await?;
                delivery.reason = Some(reason);
                delivery.held_until = Some(until);
                delivery.next_try = until;
                "held"
            }
            When::Now => {
                delivery.after = self.pending_of(event, endpoint).await?;
                let group = routing.endpoint(endpoint).map_or(0, |endpoint| endpoint.group_ms);
                if group > 0 {
                    let until = delivery.created.plus_millis(i64::try_from(group).unwrap_or(i64::MAX));
                    delivery.open_until = Some(until);
                    delivery.next_try = until;
                }
                "pending"
            }
        };
        let outcome = match outbox.enqueue(&delivery).await? {
            Enqueued::Known(_) => return Ok(()),
            Enqueued::Joined(_) => "grouped",
            Enqueued::New => alone,
        };
        self.metrics.enqueued.with_label_values(&[outcome]).inc();
        if let Some(origin) = &event.origin {
            let what = delivery.reason.as_deref().unwrap_or(outcome);
            tracing::trace!(
                target: "galerna::trace::notifier",
                id = origin.as_str(),
                "delivery {} of event {} to endpoint {endpoint} queued: {what}",
                delivery.id,
                event.id,
            );
        }
        Ok(())
    }

    /// The deliveries that one of this event has to wait for. Those that are held back are not waited for: they wait.
    async fn pending_of(&self, event: &AlertEvent, endpoint: &str) -> Result<Vec<String>, StorageError> {
        let same =
            self.store.notifications.deliveries_of_alert(endpoint, &alert_key(event), LOOKED_AT).await?;
        let pending = same.into_iter().filter(|earlier| {
            earlier.status == DeliveryStatus::Pending && !earlier.test && earlier.held_until.is_none()
        });
        Ok(pending.map(|earlier| earlier.id).collect())
    }

    pub(crate) fn store_failed(&self, error: &StorageError, what: &'static str) {
        self.metrics.errors.with_label_values(&["store"]).inc();
        tracing::warn!(%error, "{what}");
    }
}

/// An account's endpoint gets that account's alerts only, whatever rules name it.
fn belongs(event: &AlertEvent, endpoint: &str, routing: &Routing) -> bool {
    let account = routing.endpoint(endpoint).and_then(|endpoint| endpoint.account.as_ref());
    let belongs = account.is_none_or(|account| *account == event.account);
    if !belongs {
        tracing::warn!(endpoint, rule = %event.rule, "a rule names an endpoint of another account: it is not told");
    }
    belongs
}

/// Makes a delivery one that is not sent.
pub(crate) fn suppress(delivery: &mut Delivery, reason: String, at: Timestamp) {
    delivery.status = DeliveryStatus::Suppressed;
    delivery.reason = Some(reason);
    delivery.held_until = None;
    delivery.ended = Some(at);
}

/// A delivery of one event, to be sent at once and on its own.
pub(crate) fn new_delivery(event: &AlertEvent, endpoint: &str, now: Timestamp) -> Delivery {
    // From endpoint and event, so that a repetition after a crash has the same.
    let hash = Sha256::new().chain_update(endpoint).chain_update([0]).chain_update(&event.id).finalize();
    let id = hash[..12].iter().fold("dlv_".to_owned(), |id, byte| format!("{id}{byte:02x}"));
    Delivery {
        id,
        endpoint: endpoint.to_owned(),
        events: vec![event.clone()],
        status: DeliveryStatus::Pending,
        reason: None,
        test: false,
        attempts: Vec::new(),
        tries: 0,
        next_try: now,
        open_until: None,
        held_until: None,
        after: Vec::new(),
        created: now,
        since: now,
        ended: None,
        version: 0,
        claimed_by: None,
        claimed_until: None,
    }
}

fn failure(reason: String) -> Failure {
    Failure { reason, component: "notifier".to_owned() }
}

/// Waits for so long; false when the end comes first.
async fn waited(pause: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = sleep(pause) => true,
    }
}
