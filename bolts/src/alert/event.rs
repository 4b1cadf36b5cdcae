//! The records that come of a transition: events and states.

use galerna_model::{
    AccountId, AlertEvent, AlertEventKind, AlertState, Comparison, Condition, Phase, Rule, SourceId,
    Timestamp,
};

use super::state::{RuleState, Transition};

/// A device, by its whole name.
#[derive(Clone, Copy)]
pub(super) struct DeviceKey<'a> {
    pub(super) account: &'a AccountId,
    pub(super) source: &'a SourceId,
    pub(super) device: &'a str,
}

impl DeviceKey<'_> {
    /// What to store of a rule's state.
    pub(super) fn state(&self, rule: &Rule, state: &RuleState) -> AlertState {
        AlertState {
            rule: rule.id.clone(),
            source: self.source.clone(),
            device: self.device.to_owned(),
            account: self.account.clone(),
            phase: state.phase,
            since: state.since,
            last_seen: state.last_seen.unwrap_or(state.since),
            last_value: state.last_value,
            not_before: state.not_before,
            received: state.received,
            heard_at: state.heard_at,
        }
    }

    /// What to tell of a transition. `origin` is the message whose reading decided, `now` the wall clock.
    pub(super) fn event(
        &self,
        rule: &Rule,
        transition: &Transition,
        origin: Option<&str>,
        now: Timestamp,
    ) -> AlertEvent {
        let Transition { kind, ts, value } = *transition;
        let kind_name = match kind {
            AlertEventKind::Raised => "raised",
            AlertEventKind::Resolved => "resolved",
        };
        AlertEvent {
            id: format!("{}/{}/{}/{kind_name}/{}", rule.id, self.source, self.device, ts.as_millis()),
            kind,
            rule: rule.id.clone(),
            rule_name: rule.name.clone(),
            severity: rule.severity,
            account: self.account.clone(),
            source: self.source.clone(),
            device: self.device.to_owned(),
            value,
            ts,
            message: message(&rule.condition, kind, self.device, value),
            origin: origin.map(str::to_owned),
            at: Some(now),
        }
    }
}

/// An alert that ends otherwise than by a reading: when it began is part of the event's id, so that the same end, told twice, is one.
pub(super) fn ended(
    state: &AlertState,
    rule: Option<&Rule>,
    how: &str,
    why: &str,
    now: Timestamp,
) -> AlertEvent {
    let AlertState { rule: id, source, device, account, .. } = state;
    AlertEvent {
        id: format!("{id}/{source}/{device}/{how}/{}", state.since.as_millis()),
        kind: AlertEventKind::Resolved,
        rule: id.clone(),
        rule_name: rule.map_or_else(|| id.clone(), |rule| rule.name.clone()),
        severity: rule.map_or(galerna_model::Severity::Info, |rule| rule.severity),
        account: account.clone(),
        source: source.clone(),
        device: device.clone(),
        value: state.last_value,
        // Not before it began, whatever was seen when.
        ts: state.last_seen.max(state.since),
        message: why.to_owned(),
        origin: None,
        at: Some(now),
    }
}

/// A firing state after an operator closed its alert.
pub(super) fn closed(state: &AlertState) -> AlertState {
    AlertState { phase: Phase::Closed, ..state.clone() }
}

fn message(condition: &Condition, kind: AlertEventKind, device: &str, value: Option<f64>) -> String {
    match condition {
        Condition::Threshold { parameter, comparison, limit, clear, .. } => {
            let side = match comparison {
                Comparison::Above => "above",
                Comparison::Below => "below",
            };
            let value = value.unwrap_or(f64::NAN);
            match (kind, clear) {
                (AlertEventKind::Raised, _) => {
                    format!("{parameter} of {device} is {value}, {side} {limit}")
                }
                (AlertEventKind::Resolved, Some(clear)) => {
                    format!("{parameter} of {device} is {value}, no longer {side} {limit} (clear at {clear})")
                }
                (AlertEventKind::Resolved, None) => {
                    format!("{parameter} of {device} is {value}, no longer {side} {limit}")
                }
            }
        }
        Condition::Silent { after_ms } => match kind {
            AlertEventKind::Raised => format!("no reading of {device} for more than {} s", after_ms / 1000),
            AlertEventKind::Resolved => format!("readings of {device} come again"),
        },
    }
}
