//! From alert events on the broker to deliveries in the outbox.
//!
//! An event is acked when its deliveries are in the outbox. It may come twice, and to two notifiers at once: an endpoint gets
//! each event once all the same, since the outbox sees to that.
//!
//! Events may also come in any order. So before a recovery is put into the outbox, the alert that it ends is: the alert bolt
//! records events before it publishes them, so the store knows it, and whether it was taken. The recovery then goes to those
//! endpoints that its alert went to, and waits there for the deliveries of the same alert that are still pending.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use galerna_broker::{BrokerError, Delivery as Received, DeliveryTag, Failure, Outcome as Settled};
use galerna_storage::{
    AlertEvent, AlertEventKind, Delivery, DeliveryStatus, Enqueued, StorageError, alert_key,
};
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::directory::Directory;
use crate::notifier::Inner;

/// Alerts taken at once.
const AT_ONCE: usize = 16;
/// Waits between attempts to reach broker or store: the first, which doubles, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How many of an alert's newest deliveries are looked at for those that are pending, and for the cooldown.
const LOOKED_AT: usize = 50;

impl Inner {
    /// Takes events until it is told to stop.
    pub(crate) async fn take_events(&self, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.consume(stop, &mut pause).await {
                Ok(()) => return,
                Err(error) => {
                    self.metrics.errors.with_label_values(&["broker"]).inc();
                    tracing::warn!(%error, "alert events cannot be taken now");
                }
            }
            if !wait(&mut pause, stop).await {
                return;
            }
        }
    }

    /// Takes events until the consumer is lost or the end is near.
    async fn consume(&self, stop: &CancellationToken, pause: &mut Duration) -> Result<(), BrokerError> {
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
            *pause = FIRST_PAUSE;
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
    ) -> Vec<(DeliveryTag, Settled)> {
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
                    settled.push((tag, Settled::DeadLetter(failure(format!("is no alert event: {error}")))));
                }
            }
        }
        let Some(directory) = self.directory(stop).await else {
            let rest = by_alert.into_iter().flat_map(|(_, events)| events);
            settled.extend(rest.map(|(tag, _)| (tag, Settled::Release)));
            return settled;
        };
        let directory = &directory;
        // Events of one alert one after the other, different alerts at once: the store groups their commits.
        let taken = stream::iter(by_alert)
            .map(|(_, events)| async move {
                let mut settled = Vec::with_capacity(events.len());
                for (tag, event) in events {
                    settled.push((tag, self.take_patiently(&event, directory, stop).await));
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
    async fn directory(&self, stop: &CancellationToken) -> Option<Directory> {
        let mut pause = FIRST_PAUSE;
        loop {
            match Directory::load(&self.store).await {
                Ok(directory) => return Some(directory),
                Err(error) => {
                    self.store_failed(&error, "rules and endpoints cannot be read now");
                    if !wait(&mut pause, stop).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Takes an event however long the store is away: an outage is not the event's fault.
    async fn take_patiently(
        &self,
        event: &AlertEvent,
        directory: &Directory,
        stop: &CancellationToken,
    ) -> Settled {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.take(event, directory).await {
                Ok(outcome) => {
                    self.metrics.events.with_label_values(&[outcome]).inc();
                    return Settled::Ack;
                }
                Err(error @ StorageError::Unavailable { .. }) => {
                    self.store_failed(&error, "an alert event cannot be taken now");
                    if !wait(&mut pause, stop).await {
                        return Settled::Release;
                    }
                }
                Err(error) => {
                    self.store_failed(&error, "an alert event cannot be taken");
                    return Settled::Retry(failure(error.to_string()));
                }
            }
        }
    }

    /// Puts the deliveries of an event into the outbox. Says what it was, for the metrics.
    pub(crate) async fn take(
        &self,
        event: &AlertEvent,
        directory: &Directory,
    ) -> Result<&'static str, StorageError> {
        let outbox = &self.store.notifications;
        if outbox.is_taken(&event.id).await? {
            return Ok("known");
        }
        let deliveries = match event.kind {
            AlertEventKind::Raised => self.tell_alert(event, directory).await?,
            AlertEventKind::Resolved => self.tell_recovery(event, directory).await?,
        };
        outbox.mark_taken(&event.id, self.clock.now()).await?;
        Ok(if deliveries == 0 { "unwanted" } else { "taken" })
    }

    async fn tell_alert(&self, event: &AlertEvent, directory: &Directory) -> Result<usize, StorageError> {
        let mut told = 0;
        for id in directory.endpoints_of(&event.rule) {
            if !belongs(event, id, directory) {
                continue;
            }
            let refusal = match self.refusal(event, id, directory) {
                None => self.cooldown(event, id, directory).await?,
                refusal => refusal,
            };
            self.enqueue(event, id, refusal, directory).await?;
            told += 1;
        }
        Ok(told)
    }

    async fn tell_recovery(&self, event: &AlertEvent, directory: &Directory) -> Result<usize, StorageError> {
        let outbox = &self.store.notifications;
        let Some(alert) = outbox.alert_ended_by(event).await? else {
            // An alert that nobody recorded.
            return self.tell_unpaired(event, directory).await;
        };
        if !outbox.is_taken(&alert.id).await? {
            self.tell_alert(&alert, directory).await?;
            outbox.mark_taken(&alert.id, self.clock.now()).await?;
        }
        let alerts = outbox.deliveries_of_event(&alert.id).await?;
        let age = u64::try_from(self.clock.now().millis_since(alert.ts)).unwrap_or(0);
        if alerts.is_empty() && Duration::from_millis(age) > self.options.keep {
            // An alert so old that its deliveries may be forgotten.
            return self.tell_unpaired(event, directory).await;
        }
        for delivery in &alerts {
            let id = &delivery.endpoint;
            let refusal = if delivery.status == DeliveryStatus::Suppressed {
                let why = delivery.reason.as_deref().unwrap_or("suppressed");
                Some(format!("its alert was not sent: {why}"))
            } else {
                // No silence: who was told of an alert is told of its end.
                not_usable(id, directory)
            };
            self.enqueue(event, id, refusal, directory).await?;
        }
        Ok(alerts.len())
    }

    /// Tells of a recovery of which it is not known who was told of its alert.
    async fn tell_unpaired(&self, event: &AlertEvent, directory: &Directory) -> Result<usize, StorageError> {
        let mut told = 0;
        for id in directory.endpoints_of(&event.rule) {
            if belongs(event, id, directory) {
                let refusal = self.refusal(event, id, directory);
                self.enqueue(event, id, refusal, directory).await?;
                told += 1;
            }
        }
        Ok(told)
    }

    /// Why an endpoint is not to be told of an event now.
    fn refusal(&self, event: &AlertEvent, endpoint: &str, directory: &Directory) -> Option<String> {
        not_usable(endpoint, directory).or_else(|| {
            let silence = directory.silence(event, self.clock.now())?;
            let by = if silence.by.is_empty() { "somebody" } else { &silence.by };
            let why = if silence.reason.is_empty() { "no reason given" } else { &silence.reason };
            Some(format!("silenced until {} by {by}: {why} ({})", silence.until, silence.id))
        })
    }

    /// Whether the endpoint was told of the same alert too short a time ago.
    async fn cooldown(
        &self,
        event: &AlertEvent,
        endpoint: &str,
        directory: &Directory,
    ) -> Result<Option<String>, StorageError> {
        let cooldown = directory.endpoint(endpoint).map_or(0, |endpoint| endpoint.cooldown_ms);
        if cooldown == 0 {
            return Ok(None);
        }
        let since = self.clock.now().plus_millis(-i64::try_from(cooldown).unwrap_or(i64::MAX));
        let key = alert_key(event);
        let before = self.store.notifications.deliveries_of_alert(endpoint, &key, LOOKED_AT).await?;
        let told = before.iter().find(|delivery| {
            // One that was given up told nobody anything.
            matches!(delivery.status, DeliveryStatus::Pending | DeliveryStatus::Delivered)
                && !delivery.test
                && delivery.created > since
                && delivery
                    .events
                    .iter()
                    .any(|e| e.kind == AlertEventKind::Raised && e.id != event.id && alert_key(e) == key)
        });
        Ok(told.map(|delivery| {
            format!("cooldown: the same alert was sent at {} ({})", delivery.created, delivery.id)
        }))
    }

    async fn enqueue(
        &self,
        event: &AlertEvent,
        endpoint: &str,
        refusal: Option<String>,
        directory: &Directory,
    ) -> Result<(), StorageError> {
        let outbox = &self.store.notifications;
        let mut delivery = new_delivery(event, endpoint, self.clock.now());
        if let Some(reason) = refusal {
            delivery.status = DeliveryStatus::Suppressed;
            delivery.reason = Some(reason);
            delivery.ended = Some(delivery.created);
        } else {
            let same = outbox.deliveries_of_alert(endpoint, &alert_key(event), LOOKED_AT).await?;
            delivery.after = same
                .into_iter()
                .filter(|earlier| earlier.status == DeliveryStatus::Pending && !earlier.test)
                .map(|earlier| earlier.id)
                .collect();
            let group = directory.endpoint(endpoint).map_or(0, |endpoint| endpoint.group_ms);
            if group > 0 {
                let until = delivery.created.plus_millis(i64::try_from(group).unwrap_or(i64::MAX));
                delivery.open_until = Some(until);
                delivery.next_try = until;
            }
        }
        let outcome = match (outbox.enqueue(&delivery).await?, delivery.status) {
            (Enqueued::Known(_), _) => return Ok(()),
            (Enqueued::Joined(_), _) => "grouped",
            (Enqueued::New, DeliveryStatus::Suppressed) => "suppressed",
            (Enqueued::New, _) => "pending",
        };
        self.metrics.enqueued.with_label_values(&[outcome]).inc();
        if let Some(origin) = &event.origin {
            let what = match delivery.status {
                DeliveryStatus::Suppressed => delivery.reason.as_deref().unwrap_or("suppressed"),
                _ => outcome,
            };
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

    pub(crate) fn store_failed(&self, error: &StorageError, what: &'static str) {
        self.metrics.errors.with_label_values(&["store"]).inc();
        tracing::warn!(%error, "{what}");
    }
}

/// An account's endpoint gets that account's alerts only, whatever rules name it.
fn belongs(event: &AlertEvent, endpoint: &str, directory: &Directory) -> bool {
    let account = directory.endpoint(endpoint).and_then(|endpoint| endpoint.account.as_ref());
    let belongs = account.is_none_or(|account| *account == event.account);
    if !belongs {
        tracing::warn!(endpoint, rule = %event.rule, "a rule names an endpoint of another account: it is not told");
    }
    belongs
}

fn not_usable(id: &str, directory: &Directory) -> Option<String> {
    match directory.endpoint(id) {
        None => Some(format!("there is no endpoint `{id}`")),
        Some(endpoint) if !endpoint.enabled => Some(disabled(endpoint.disabled_reason.as_deref())),
        Some(_) => None,
    }
}

/// Why a disabled endpoint is not told.
pub(crate) fn disabled(reason: Option<&str>) -> String {
    reason.map_or_else(
        || "the endpoint is disabled".to_owned(),
        |why| format!("the endpoint is disabled: {why}"),
    )
}

/// A delivery of one event, to be sent at once and on its own.
pub(crate) fn new_delivery(event: &AlertEvent, endpoint: &str, now: galerna_broker::Timestamp) -> Delivery {
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

/// Waits, longer each time; false when the end comes first.
async fn wait(pause: &mut Duration, stop: &CancellationToken) -> bool {
    let now = *pause;
    *pause = (now * 2).min(LONGEST_PAUSE);
    tokio::select! {
        () = stop.cancelled() => false,
        () = sleep(now) => true,
    }
}
