//! What is looked at when a delivery is due, before it is sent.
//!
//! Much may have changed since it was put into the outbox. A recovery is told only to who was told of its alert, which may
//! have been given up meanwhile; and an alert that a cooldown or a silence held back is told only if it is still the latest thing
//! to tell.

use galerna_model::Timestamp;
use galerna_model::{AlertEvent, AlertEventKind};
use galerna_storage::{Delivery, DeliveryStatus, StorageError, alert_key};

use crate::hold::{When, not_usable};
use crate::intake::LOOKED_AT;
use crate::notifier::Shared;
use crate::routing::Routing;

/// Shortest wait, in milliseconds, for a delivery that has to go first.
const NEXT_LOOK: i64 = 1000;

/// Whether to send a delivery, or one of its events.
pub(crate) enum Decision {
    /// Yes.
    Send,
    /// Only these of its events, which are fewer than it has.
    Part(Vec<AlertEvent>),
    /// Not before this time: another has to go first.
    Later(Timestamp),
    /// Never, for this reason.
    Never(String),
    /// Somebody changed it meanwhile: it is theirs.
    Changed,
}

/// Why the recovery of an alert is not told, if its delivery ended without being delivered.
pub(crate) fn not_told(alert: &Delivery) -> Option<String> {
    let why = alert.reason.as_deref();
    match alert.status {
        DeliveryStatus::Suppressed => {
            Some(format!("its alert was not sent: {}", why.unwrap_or("suppressed")))
        }
        DeliveryStatus::Dead => {
            Some(format!("its alert was not delivered: {} ({})", why.unwrap_or("given up"), alert.id))
        }
        DeliveryStatus::Pending | DeliveryStatus::Delivered => None,
    }
}

impl Shared {
    /// Decides on a delivery that this notifier has claimed. What it changes in it is stored already, or goes with the record
    /// of the attempt.
    pub(crate) async fn recheck(&self, delivery: &mut Delivery) -> Result<Decision, StorageError> {
        if delivery.test {
            // Stands for no alert.
            return Ok(Decision::Send);
        }
        match self.release(delivery).await? {
            Decision::Send => self.pair(delivery).await,
            decision => Ok(decision),
        }
    }

    /// Ends the hold of a cooldown or a silence, if there is one.
    async fn release(&self, delivery: &mut Delivery) -> Result<Decision, StorageError> {
        let (Some(_), Some(event)) = (delivery.held_until, delivery.events.first()) else {
            return Ok(Decision::Send);
        };
        // Somebody may have silenced it, or changed the silence or the rule, meanwhile.
        let routing = Routing::load(&self.store).await?;
        if !routing.tells(&event.rule, &delivery.endpoint) {
            return Ok(Decision::Never(
                "when it was not held back any more, its rule did not tell the endpoint".to_owned(),
            ));
        }
        if let Some(refusal) = not_usable(&delivery.endpoint, &routing) {
            return Ok(Decision::Never(refusal));
        }
        if let When::HeldUntil(until, reason) = self.silence(event, &routing) {
            delivery.held_until = Some(until);
            delivery.reason = Some(reason);
            return Ok(Decision::Later(until));
        }
        let (key, now) = (alert_key(event), self.clock.now());
        let outbox = &self.store.notifications;
        let others = outbox.deliveries_of_alert(&delivery.endpoint, &key, LOOKED_AT).await?;
        let others = others.iter().filter(|other| !other.test && other.id != delivery.id);
        let mut first: Option<Timestamp> = None;
        for other in others {
            let same = || other.events.iter().filter(|e| alert_key(e) == key);
            if same().any(|e| e.ts > event.ts || (e.ts == event.ts && e.kind == AlertEventKind::Resolved)) {
                let why = delivery.reason.as_deref().unwrap_or("cooldown");
                return Ok(Decision::Never(format!(
                    "{why}; when that was over, there was something newer to tell"
                )));
            }
            if other.status == DeliveryStatus::Pending && other.held_until.is_none() {
                // Its end came to the outbox after this one, and must not be told after it.
                let due = other.next_try.max(now.plus_millis(NEXT_LOOK));
                first = Some(first.map_or(due, |known| known.max(due)));
            }
        }
        if let Some(due) = first {
            return Ok(Decision::Later(due));
        }
        // Stored before it is sent: from now on it is like any other, and a recovery waits for it. Whoever takes a recovery at
        // this moment changes the same version, so one of the two comes second and sees what the other did.
        let released = Delivery { held_until: None, reason: None, since: now, ..delivery.clone() };
        if !outbox.update(&released).await? {
            return Ok(Decision::Changed);
        }
        *delivery = Delivery { version: released.version + 1, ..released };
        Ok(Decision::Send)
    }

    /// Leaves out recoveries whose alert was not delivered.
    async fn pair(&self, delivery: &mut Delivery) -> Result<Decision, StorageError> {
        let mut told = Vec::with_capacity(delivery.events.len());
        let mut reasons = Vec::new();
        for event in &delivery.events {
            match self.look_at_alert_of(event, delivery).await? {
                Decision::Never(reason) => reasons.push(reason),
                Decision::Later(due) => return Ok(Decision::Later(due)),
                _ => told.push(event.clone()),
            }
        }
        let Some(reason) = reasons.first() else {
            return Ok(Decision::Send);
        };
        if told.is_empty() {
            return Ok(Decision::Never(reason.clone()));
        }
        let (left_out, all) = (reasons.len(), delivery.events.len());
        delivery.reason = Some(format!("{left_out} of {all} events left out, the first since {reason}"));
        Ok(Decision::Part(told))
    }

    async fn look_at_alert_of(
        &self,
        event: &AlertEvent,
        delivery: &Delivery,
    ) -> Result<Decision, StorageError> {
        if event.kind == AlertEventKind::Raised {
            return Ok(Decision::Send);
        }
        let outbox = &self.store.notifications;
        let Some(alert) = outbox.alert_ended_by(event).await? else {
            return Ok(Decision::Send);
        };
        if delivery.events.iter().any(|e| e.id == alert.id) {
            return Ok(Decision::Send);
        }
        let alerts = outbox.deliveries_of_event(&alert.id).await?;
        let Some(alert) = alerts.iter().find(|d| d.endpoint == delivery.endpoint) else {
            return Ok(Decision::Send);
        };
        Ok(match not_told(alert) {
            Some(reason) => Decision::Never(reason),
            // Sent again by an operator, usually. One that waits for this delivery is not waited for.
            None if alert.status == DeliveryStatus::Pending && !alert.after.contains(&delivery.id) => {
                Decision::Later(alert.next_try.max(self.clock.now().plus_millis(NEXT_LOOK)))
            }
            None => Decision::Send,
        })
    }
}
