//! Alerts that end otherwise than by a reading: closed by hand, or without a rule in force.

use std::collections::BTreeSet;

use galerna_broker::{Broker, BrokerError};
use galerna_model::envelope::JSON_CONTENT_TYPE;
use galerna_model::{AlertEvent, AlertState, Clock, Message, Phase, QueueName, Rule, SourceId, SystemClock};
use galerna_storage::{StorageError, Store};

use super::bolt::ALERTS_QUEUE;
use super::event::{closed, ended};
use super::rules::RuleSet;

/// Most firing alerts that are looked through for those without a rule.
const MAX_FIRING: usize = 100_000;

/// Why an alert was not closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// It does not fire (any more).
    #[error(
        "rule `{rule}` does not fire for device `{device}` of source `{source_id}`; `galerna alerts list --firing` shows what does"
    )]
    NotFiring {
        /// The rule.
        rule: String,
        /// The source.
        source_id: SourceId,
        /// The device.
        device: String,
    },
    /// The store could not be reached, or refused.
    #[error(transparent)]
    Store(#[from] StorageError),
    /// The broker could not be reached, or refused.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The event cannot be written, which does not happen.
    #[error("the event cannot be written: {0}")]
    Encoding(#[from] serde_json::Error),
}

/// Which alert to close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertKey {
    /// The rule's id.
    pub rule: String,
    /// The device's source.
    pub source: SourceId,
    /// The device.
    pub device: String,
}

/// Closes a firing alert by hand: it is resolved with the reason, whoever was told of it is told of that, and it does not fire again
/// before its condition has cleared once. Doing it twice does it once.
///
/// # Errors
/// [`CloseError::NotFiring`] when there is no such alert.
pub async fn close_alert(
    store: &Store,
    broker: &dyn Broker,
    alert: &AlertKey,
    by: &str,
    reason: &str,
) -> Result<AlertEvent, CloseError> {
    let not_firing = || CloseError::NotFiring {
        rule: alert.rule.clone(),
        source_id: alert.source.clone(),
        device: alert.device.clone(),
    };
    let firing = store.alert_states.firing(MAX_FIRING).await?;
    let is_it =
        |s: &&AlertState| s.rule == alert.rule && s.source == alert.source && s.device == alert.device;
    let state = firing.iter().find(is_it).ok_or_else(not_firing)?;
    let rules = store.rules.list().await?;
    let rule = rules.iter().find(|rule| rule.id == alert.rule);
    let why = if reason.is_empty() { "no reason given" } else { reason };
    let event = ended(state, rule, "closed", &format!("closed by {by}: {why}"), SystemClock.now());
    tell(store, broker, std::slice::from_ref(&event)).await?;
    store.alert_states.save(&[closed(state)]).await?;
    Ok(event)
}

/// Resolves the alerts that fire and that no rule in force watches any more, each with the reason, and forgets what rules that are not
/// in force know. Returns how many were resolved.
///
/// Any number of processes may do this at the same time: the events have the same ids.
pub(super) async fn resolve_orphans(
    store: &Store,
    broker: &dyn Broker,
    rules: &[Rule],
    in_force: &RuleSet,
) -> Result<usize, CloseError> {
    let firing = store.alert_states.firing(MAX_FIRING).await?;
    let mut events = Vec::new();
    let mut changed = Vec::new();
    let mut clear: BTreeSet<&str> =
        rules.iter().filter(|rule| !rule.enabled).map(|rule| rule.id.as_str()).collect();
    for state in &firing {
        let rule = rules.iter().find(|rule| rule.id == state.rule);
        let why = match rule {
            None => {
                clear.insert(&state.rule);
                format!("rule `{}` was deleted", state.rule)
            }
            Some(rule) if !rule.enabled => format!("rule `{}` was disabled", rule.id),
            Some(rule) => {
                if in_force.of_device(&state.account, &state.device).any(|known| known.rule().id == rule.id) {
                    continue;
                }
                changed.push(AlertState {
                    phase: Phase::Ok,
                    since: state.last_seen.max(state.since),
                    ..state.clone()
                });
                format!("rule `{}` was changed and does not watch {} any more", rule.id, state.device)
            }
        };
        events.push(ended(state, rule, "resolved", &why, SystemClock.now()));
    }
    if !events.is_empty() {
        tell(store, broker, &events).await?;
    }
    store.alert_states.save(&changed).await?;
    for rule in clear {
        store.alert_states.clear(rule).await?;
    }
    Ok(events.len())
}

async fn tell(store: &Store, broker: &dyn Broker, events: &[AlertEvent]) -> Result<(), CloseError> {
    store.alert_states.record(events).await?;
    let queue = QueueName::new(ALERTS_QUEUE).map_err(|e| BrokerError::Invalid(e.to_string()))?;
    broker.declare(&queue).await?;
    Ok(broker.publish(messages(&queue, events)?).await?)
}

/// Alert events as messages for the notifier.
pub(super) fn messages(
    queue: &QueueName,
    events: &[AlertEvent],
) -> Result<Vec<(QueueName, Message)>, serde_json::Error> {
    events
        .iter()
        .map(|event| {
            let body = serde_json::to_vec(event)?.into();
            Ok((
                queue.clone(),
                Message { body, content_type: JSON_CONTENT_TYPE.to_owned(), id: event.id.clone() },
            ))
        })
        .collect()
}
