//! Trying endpoints and rules out.

use galerna_model::{AccountId, Clock, SourceId};
use galerna_model::{AlertEvent, AlertEventKind, Condition, Rule, Severity};
use galerna_storage::{Delivery, Endpoint, Enqueued, Store};

use crate::error::FieldError;
use crate::intake::new_delivery;
use crate::{NotifierError, validate};

/// Checks an endpoint, then stores it.
///
/// # Errors
/// [`NotifierError::Field`] names the field that is wrong; [`NotifierError::Store`].
pub async fn put_endpoint(store: &Store, endpoint: &Endpoint) -> Result<(), NotifierError> {
    validate(endpoint)?;
    Ok(store.notifications.put_endpoint(endpoint).await?)
}

/// Puts a delivery that is marked as a test into the outbox, for any notifier of this store to send. It is sent even when
/// the endpoint is disabled or silenced, at once, on its own, and only once: a failure makes it dead, with the reason.
/// Returns its id.
///
/// # Errors
/// [`NotifierError::Unknown`] when there is no such endpoint; [`NotifierError::Store`].
pub async fn test_fire(store: &Store, clock: &dyn Clock, endpoint: &str) -> Result<String, NotifierError> {
    let endpoint = find(store, endpoint).await?;
    let event = test_event(None, endpoint.account.as_ref(), clock)?;
    enqueue(store, clock, &endpoint, &event).await
}

/// [`test_fire`] for each endpoint that a rule names, with the rule's name and severity. Returns the ids of the deliveries.
///
/// # Errors
/// [`NotifierError::Unknown`] when there is no such rule, or none of an endpoint that it names; [`NotifierError::Field`] when
/// it names none; [`NotifierError::Store`].
pub async fn test_fire_rule(
    store: &Store,
    clock: &dyn Clock,
    rule: &str,
) -> Result<Vec<String>, NotifierError> {
    let rules = store.rules.list().await?;
    let unknown = || NotifierError::Unknown { what: "rule", id: rule.to_owned() };
    let rule = rules.iter().find(|known| known.id == rule).ok_or_else(unknown)?;
    if rule.endpoints.is_empty() {
        return Err(FieldError::new("endpoints", "is empty: the rule tells nobody").into());
    }
    let mut endpoints = Vec::with_capacity(rule.endpoints.len());
    for id in &rule.endpoints {
        endpoints.push(find(store, id).await?);
    }
    let mut fired = Vec::with_capacity(endpoints.len());
    for endpoint in &endpoints {
        let event = test_event(Some(rule), endpoint.account.as_ref(), clock)?;
        fired.push(enqueue(store, clock, endpoint, &event).await?);
    }
    Ok(fired)
}

async fn find(store: &Store, id: &str) -> Result<Endpoint, NotifierError> {
    let unknown = || NotifierError::Unknown { what: "endpoint", id: id.to_owned() };
    store.notifications.endpoint(id).await?.ok_or_else(unknown)
}

fn test_event(
    rule: Option<&Rule>,
    account: Option<&AccountId>,
    clock: &dyn Clock,
) -> Result<AlertEvent, NotifierError> {
    let name = |e: galerna_model::NameError| NotifierError::Option(e.to_string());
    let account = match rule.and_then(|rule| rule.account.as_ref()).or(account) {
        Some(account) => account.clone(),
        None => AccountId::new("test").map_err(name)?,
    };
    let value = match rule.map(|rule| &rule.condition) {
        Some(Condition::Threshold { limit, .. }) => Some(*limit),
        _ => None,
    };
    Ok(AlertEvent {
        id: format!("test/{:016x}", fastrand::u64(..)),
        kind: AlertEventKind::Raised,
        rule: rule.map_or("test", |rule| &rule.id).to_owned(),
        rule_name: rule.map_or("Test", |rule| &rule.name).to_owned(),
        severity: rule.map_or(Severity::Info, |rule| rule.severity),
        account,
        source: SourceId::new("test").map_err(name)?,
        device: "test".to_owned(),
        value,
        ts: clock.now(),
        message: "This is a test: nothing happened".to_owned(),
        origin: None,
        at: None,
    })
}

async fn enqueue(
    store: &Store,
    clock: &dyn Clock,
    endpoint: &Endpoint,
    event: &AlertEvent,
) -> Result<String, NotifierError> {
    let delivery = Delivery { test: true, ..new_delivery(event, &endpoint.id, clock.now()) };
    match store.notifications.enqueue(&delivery).await? {
        Enqueued::New => Ok(delivery.id),
        Enqueued::Joined(id) | Enqueued::Known(id) => Ok(id),
    }
}
