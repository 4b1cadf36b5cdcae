//! When an endpoint is told of an alert: at once, when a cooldown or a silence is over, or not at all.

use galerna_model::{AlertEvent, AlertEventKind, Timestamp};
use galerna_storage::{DeliveryStatus, StorageError, alert_key};

use crate::intake::LOOKED_AT;
use crate::notifier::Shared;
use crate::routing::Routing;

/// When an endpoint is to be told.
pub(crate) enum When {
    /// At once.
    Now,
    /// When the cooldown or the silence is over, for this reason, unless it is resolved before.
    HeldUntil(Timestamp, String),
    /// Not at all, for this reason.
    Never(String),
}

impl From<Option<String>> for When {
    fn from(refusal: Option<String>) -> Self {
        refusal.map_or(Self::Now, Self::Never)
    }
}

impl When {
    /// The later of two holds.
    fn later(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::HeldUntil(until, _), Self::HeldUntil(later, _)) if until >= later => self,
            (_, Self::HeldUntil(..)) => other,
            _ => self,
        }
    }
}

impl Shared {
    /// When an endpoint is to be told of an alert.
    pub(crate) async fn hold(
        &self,
        event: &AlertEvent,
        endpoint: &str,
        routing: &Routing,
    ) -> Result<When, StorageError> {
        match not_usable(endpoint, routing) {
            None => Ok(self.cooldown(event, endpoint, routing).await?.later(self.silence(event, routing))),
            Some(refusal) => Ok(When::Never(refusal)),
        }
    }

    /// The silence that an alert falls under, and until when it lasts.
    pub(crate) fn silence(&self, event: &AlertEvent, routing: &Routing) -> When {
        let Some(silence) = routing.silence(event, self.clock.now()) else { return When::Now };
        let by = if silence.by.is_empty() { "somebody" } else { &silence.by };
        let why = if silence.reason.is_empty() { "no reason given" } else { &silence.reason };
        let reason = format!("silenced until {} by {by}: {why} ({})", silence.until, silence.id);
        When::HeldUntil(silence.until, reason)
    }

    /// Whether the endpoint was told of the same alert too short a time ago, and until when that is so.
    async fn cooldown(
        &self,
        event: &AlertEvent,
        endpoint: &str,
        routing: &Routing,
    ) -> Result<When, StorageError> {
        let cooldown = routing.endpoint(endpoint).map_or(0, |endpoint| endpoint.cooldown_ms);
        if cooldown == 0 {
            return Ok(When::Now);
        }
        let cooldown = i64::try_from(cooldown).unwrap_or(i64::MAX);
        let since = self.clock.now().plus_millis(-cooldown);
        let key = alert_key(event);
        let before = self.store.notifications.deliveries_of_alert(endpoint, &key, LOOKED_AT).await?;
        let told = before.iter().filter(|delivery| {
            // One that was given up told nobody anything, nor did one that is held back itself.
            matches!(delivery.status, DeliveryStatus::Pending | DeliveryStatus::Delivered)
                && !delivery.test
                && delivery.held_until.is_none()
                && delivery.since > since
                && delivery
                    .events
                    .iter()
                    .any(|e| e.kind == AlertEventKind::Raised && e.id != event.id && alert_key(e) == key)
        });
        Ok(told.max_by_key(|delivery| delivery.since).map_or(When::Now, |delivery| {
            let reason = format!("cooldown: the same alert was sent at {} ({})", delivery.since, delivery.id);
            When::HeldUntil(delivery.since.plus_millis(cooldown), reason)
        }))
    }
}

/// Why an endpoint cannot be told of anything.
pub(crate) fn not_usable(id: &str, routing: &Routing) -> Option<String> {
    match routing.endpoint(id) {
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
