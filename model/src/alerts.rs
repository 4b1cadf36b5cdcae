//! Alert rules, what each rule knows of each device, and the events that came of it.

use serde::{Deserialize, Serialize};

use crate::{AccountId, ParameterCode, SourceId, Timestamp};

/// How grave an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Look at it today.
    Warning,
    /// Act now.
    Critical,
}

/// How a value is compared with the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// Breached when the value is above the limit.
    Above,
    /// Breached when the value is below the limit.
    Below,
}

/// What a rule watches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Condition {
    /// A value against a limit.
    Threshold {
        /// Parameter watched.
        #[cfg_attr(feature = "openapi", schema(value_type = u32))]
        parameter: ParameterCode,
        /// Which side of the limit is bad.
        comparison: Comparison,
        /// The limit, in the parameter's unit.
        limit: f64,
        /// The value must get to this side of `clear` to resolve (hysteresis); the limit itself when `None`.
        clear: Option<f64>,
        /// How long it must stay breached, in the readings' own time, before it fires, in milliseconds. A hole in the data
        /// counts as time breached when the readings on both of its sides are: nothing says that it was not.
        for_ms: u64,
    },
    /// No reading of a device for so long, in milliseconds.
    Silent {
        /// The silence that fires.
        after_ms: u64,
    },
}

/// An alert rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rule {
    /// Key.
    pub id: String,
    /// For people.
    pub name: String,
    /// Only this account; all when `None`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub account: Option<AccountId>,
    /// Glob over device ids, for instance `Panther_*`.
    pub devices: String,
    /// What it watches.
    pub condition: Condition,
    /// How grave.
    pub severity: Severity,
    /// Ids of the endpoints to tell.
    pub endpoints: Vec<String>,
    /// After resolving, it does not fire again for the same device for so long, in milliseconds of the readings' time.
    pub cooldown_ms: u64,
    /// Whether it is in force.
    pub enabled: bool,
}

/// The phase of a rule for one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing wrong.
    Ok,
    /// Breached, not yet for long enough.
    Pending,
    /// Alert raised.
    Firing,
    /// Alert closed by hand: not to fire before its condition has cleared once.
    Closed,
}

/// What a rule knows of one device; survives restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertState {
    /// The rule.
    pub rule: String,
    /// The source of the device.
    pub source: SourceId,
    /// The device.
    pub device: String,
    /// Its account.
    pub account: AccountId,
    /// Its phase.
    pub phase: Phase,
    /// Since when, in the readings' time.
    pub since: Timestamp,
    /// Latest reading seen, in the readings' time, and never past the wall clock; older ones are not evaluated again.
    pub last_seen: Timestamp,
    /// Latest value evaluated.
    pub last_value: Option<f64>,
    /// Not to fire before (cooldown).
    pub not_before: Option<Timestamp>,
    /// When the latest reading was received, in wall time: silences are counted on from there over restarts. `None` for
    /// rules that do not watch for silence, and in records of before there was one.
    #[serde(default)]
    pub received: Option<Timestamp>,
    /// The time of its source when the latest reading came, which for a device whose clock is slow is later than that
    /// reading: silence counts from then. `None` as for `received`.
    #[serde(default)]
    pub heard_at: Option<Timestamp>,
}

/// Raised or resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertEventKind {
    /// The alert began.
    Raised,
    /// The alert ended.
    Resolved,
}

/// An alert began or ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertEvent {
    /// Made from rule, source, device, kind and time, so that the same event always has the same id.
    pub id: String,
    /// Raised or resolved.
    pub kind: AlertEventKind,
    /// The rule.
    pub rule: String,
    /// Its name, as it was.
    pub rule_name: String,
    /// Its severity, as it was.
    pub severity: Severity,
    /// The account.
    pub account: AccountId,
    /// The source.
    pub source: SourceId,
    /// The device.
    pub device: String,
    /// The value that decided, if any.
    pub value: Option<f64>,
    /// When, in the readings' time.
    pub ts: Timestamp,
    /// What happened, for people.
    pub message: String,
    /// The id of the message whose reading decided, by which its way can be followed; none when it was the lack of readings
    /// that did, and in records of before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// When it was found, by the wall clock of whoever evaluated; none in records of before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}
