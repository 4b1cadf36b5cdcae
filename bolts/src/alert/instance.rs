//! One rule for one device, with the readings that a late one is put among.

use std::collections::VecDeque;
use std::sync::Arc;

use galerna_model::{AlertEventKind, Condition, Phase, Timestamp};

use super::rules::CompiledRule;
use super::state::{Limit, Observed, RuleState, Transition};

/// Most readings of one device that a late one is put among, whatever their time.
const MAX_HISTORY: usize = 256;

/// One rule for one device.
#[derive(Debug)]
pub(super) struct RuleInstance {
    pub(super) rule: Arc<CompiledRule>,
    pub(super) state: RuleState,
    /// Loaded from the store and no reading since: `last_seen` may lag behind what really was seen.
    pub(super) stale: bool,
    /// `last_seen` moved since it was stored (silence rules only).
    pub(super) unsaved: bool,
    /// The own time of the reading that `last_seen` stands for: it is later when that reading is from the future.
    last_own: Option<Timestamp>,
    history: Option<Box<History>>,
}

/// The latest readings, and the state before the first of them.
#[derive(Debug)]
struct History {
    before: RuleState,
    readings: VecDeque<(Timestamp, f64)>,
    /// The events that were told since.
    told: Vec<(AlertEventKind, Timestamp)>,
}

/// What came of a reading.
#[derive(Debug, Default)]
pub(super) struct Evaluated {
    /// Whether the state is to be stored.
    pub(super) changed: bool,
    pub(super) events: Vec<Transition>,
}

impl Evaluated {
    fn new(changed: bool, events: impl IntoIterator<Item = Transition>) -> Self {
        Self { changed, events: events.into_iter().collect() }
    }
}

impl RuleInstance {
    pub(super) fn new(rule: Arc<CompiledRule>) -> Self {
        Self {
            rule,
            state: RuleState::default(),
            stale: false,
            unsaved: false,
            last_own: None,
            history: None,
        }
    }

    /// Takes what the store has in place of what is known here.
    pub(super) fn restore(&mut self, state: RuleState) {
        *self = Self { state, stale: true, ..Self::new(self.rule.clone()) };
    }

    /// That an operator has closed the alert.
    pub(super) fn close(&mut self) {
        self.state.phase = Phase::Closed;
        self.history = None;
    }

    /// Where in time a reading is evaluated: at `at`, but of readings from the future that came at once, the later ones are so many
    /// milliseconds later.
    fn place(&mut self, at: Timestamp, own: Timestamp) -> Timestamp {
        let place = match (self.state.last_seen, self.last_own) {
            (Some(seen), Some(last_own)) if own > at && seen >= at && own > last_own => seen.plus_millis(1),
            _ => at,
        };
        if self.state.last_seen.is_none_or(|seen| place > seen) {
            self.last_own = Some(own);
        }
        place
    }

    /// Takes the value of a reading for a threshold rule. A late reading is put in its place when it is at most `lateness_ms`
    /// older than the latest; else it changes nothing.
    pub(super) fn evaluate(
        &mut self,
        limit: &Limit,
        at: Timestamp,
        own: Timestamp,
        value: f64,
        lateness_ms: i64,
    ) -> Evaluated {
        let cooldown_ms = self.rule.rule().cooldown_ms;
        let at = self.place(at, own);
        if self.state.last_seen.is_some_and(|seen| at <= seen) {
            return self.evaluate_late(limit, cooldown_ms, at, value, lateness_ms);
        }
        let before = self.state;
        let (changed, event) = self.state.evaluate(limit, cooldown_ms, at, value);
        if lateness_ms > 0 {
            let history = self.history.get_or_insert_with(|| Box::new(History::new(before)));
            history.readings.push_back((at, value));
            history.told.extend(event.map(|event| (event.kind, event.ts)));
            history.trim(limit, cooldown_ms, at.plus_millis(-lateness_ms));
        }
        Evaluated::new(changed, event)
    }

    /// Evaluates the latest readings anew with the late one among them. What was told stands: an event that the late reading
    /// shows to be missing is told now; an alert that it shows to be wrong is resolved.
    fn evaluate_late(
        &mut self,
        limit: &Limit,
        cooldown_ms: u64,
        at: Timestamp,
        value: f64,
        lateness_ms: i64,
    ) -> Evaluated {
        let Some(history) = &mut self.history else { return Evaluated::default() };
        let latest = self.state.last_seen.unwrap_or(at);
        let is_too_late =
            latest.millis_since(at) > lateness_ms || history.before.last_seen.is_some_and(|seen| at <= seen);
        let Err(place) = history.readings.binary_search_by_key(&at, |(ts, _)| *ts) else {
            return Evaluated::default();
        };
        if is_too_late {
            return Evaluated::default();
        }
        history.readings.insert(place, (at, value));
        let (mut state, events) = history.replay(limit, cooldown_ms);
        let was = self.state;
        let is_right = |told: &(AlertEventKind, Timestamp)| events.iter().any(|e| *told == (e.kind, e.ts));
        let missing: Vec<Transition> = if history.told.iter().all(is_right) {
            events.iter().filter(|e| !history.told.contains(&(e.kind, e.ts))).copied().collect()
        } else {
            let kind = match (was.phase == Phase::Firing, state.phase == Phase::Firing) {
                (true, false) => Some(AlertEventKind::Resolved),
                (false, true) => Some(AlertEventKind::Raised),
                (true, true) => {
                    state.since = was.since;
                    None
                }
                (false, false) => None,
            };
            // After all that was told, so that it is an event of its own.
            let told = history.told.iter().map(|(_, ts)| ts.plus_millis(1)).max();
            let ts = told.map_or(latest, |told| told.max(latest));
            if kind == Some(AlertEventKind::Raised) {
                state.since = ts;
            }
            kind.map(|kind| Transition::new(kind, ts, state.last_value)).into_iter().collect()
        };
        history.told.extend(missing.iter().map(|event| (event.kind, event.ts)));
        self.state = state;
        let essence = |state: &RuleState| (state.phase, state.since, state.not_before);
        Evaluated::new(!missing.is_empty() || essence(&was) != essence(&state), missing)
    }

    /// Takes a reading for a silence rule.
    pub(super) fn observe(&mut self, after_ms: u64, observed: Observed, own: Timestamp) -> Evaluated {
        let before = self.state.last_seen;
        let ts = self.place(observed.ts, own);
        let observed = Observed { ts, ..observed };
        let (changed, events) =
            self.state.observe(after_ms, self.rule.rule().cooldown_ms, observed, !self.stale);
        if self.state.last_seen != before {
            self.stale = false;
            self.unsaved = !changed;
        }
        Evaluated::new(changed, events.into_iter().flatten())
    }

    /// Takes note of a reading that another task or process has stored, for a silence rule.
    pub(super) fn note(&mut self, observed: Observed) {
        if self.state.phase == Phase::Ok && self.state.last_seen.is_none_or(|seen| observed.ts > seen) {
            self.state.last_seen = Some(observed.ts);
            self.state.heard_at = Some(observed.at);
            self.state.received = Some(observed.received);
            self.unsaved = true;
        }
    }

    /// The silence that it watches for.
    pub(super) fn after_ms(&self) -> Option<u64> {
        match self.rule.rule().condition {
            Condition::Silent { after_ms } => Some(after_ms),
            Condition::Threshold { .. } => None,
        }
    }
}

impl History {
    fn new(before: RuleState) -> Self {
        Self { before, readings: VecDeque::new(), told: Vec::new() }
    }

    /// The state after all readings, and the events on the way.
    fn replay(&self, limit: &Limit, cooldown_ms: u64) -> (RuleState, Vec<Transition>) {
        let mut state = self.before;
        let events =
            self.readings.iter().filter_map(|&(ts, value)| state.evaluate(limit, cooldown_ms, ts, value).1);
        let events = events.collect();
        (state, events)
    }

    /// Forgets readings older than this, and those beyond the limit in number.
    fn trim(&mut self, limit: &Limit, cooldown_ms: u64, oldest: Timestamp) {
        let Self { before, readings, told } = self;
        while let Some(&(ts, value)) = readings.front()
            && (ts < oldest || readings.len() > MAX_HISTORY)
        {
            before.evaluate(limit, cooldown_ms, ts, value);
            readings.pop_front();
        }
        if !told.is_empty() {
            told.retain(|(_, ts)| before.last_seen.is_none_or(|seen| *ts > seen));
        }
    }
}
