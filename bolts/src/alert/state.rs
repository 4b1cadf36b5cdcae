//! What a rule knows of one device: the state machine.
//!
//! **Threshold** (`b`: breached, the value is beyond the limit; `c`: cleared, it is on the good side of the clear limit; in
//! between is the band of the hysteresis; `w`: breached for `for_ms` since the first breach, and the cooldown is over):
//!
//! | phase | reading | next | event |
//! |---|---|---|---|
//! | ok | `b`, `w` | firing | raised |
//! | ok | `b`, not `w` | pending since this reading | |
//! | ok | not `b` | ok | |
//! | pending | `b`, `w` | firing | raised |
//! | pending | `b`, not `w` | pending | |
//! | pending | not `b` | ok | |
//! | firing | `c` | ok, cooldown begins | resolved |
//! | firing | not `c` | firing | |
//! | closed | `c` | ok | |
//! | closed | not `c` | closed | |
//!
//! A hole in the data counts as time breached when the readings on both sides of it are: with `for_ms` of an hour, a breach, two
//! hours without readings, and a breach fire.
//!
//! **Silence** of `after_ms`:
//!
//! | phase | what happens | next | event |
//! |---|---|---|---|
//! | ok | the source's time passes the one at which the latest reading came + `after_ms` (and the cooldown) | firing | raised, at the latest reading + `after_ms` |
//! | ok | a reading later than the latest + `after_ms`, silence unnoticed until now | ok, cooldown begins | raised at that time, and resolved |
//! | ok | any other newer reading | ok | |
//! | firing | a newer reading | ok, cooldown begins | resolved |
//! | closed | a newer reading | ok | |
//!
//! An alert gets into the phase closed when an operator closes it, which resolves it: so it does not fire again until its condition
//! has cleared once.
//!
//! All times are the readings' own. A reading not newer than the latest one evaluated changes nothing here: duplicates change
//! nothing, and late readings are put in their place by [`RuleInstance`](super::instance::RuleInstance), or left out. So the events of
//! a sequence with duplicates, in whatever places, are those of the sequence without.
//!
//! Between two transitions a reading changes nothing but `last_seen` and `last_value`. Threshold states therefore need to be stored at
//! transitions only: evaluating the same readings again from the last transition on gives the same again.

use super::engine::CLOCK_SKEW_MS;
use galerna_model::{AlertEventKind, AlertState, Comparison, Phase, Timestamp};

/// What a rule knows of one device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RuleState {
    /// Its phase.
    pub phase: Phase,
    /// Since when; the first breach while pending.
    pub since: Timestamp,
    /// The latest reading evaluated; `None` before the first.
    pub last_seen: Option<Timestamp>,
    /// Its value.
    pub last_value: Option<f64>,
    /// Not to fire before.
    pub not_before: Option<Timestamp>,
    /// When it was received, in wall time (silence rules only).
    pub received: Option<Timestamp>,
    /// The time of its source when it came (silence rules only).
    pub heard_at: Option<Timestamp>,
}

impl Default for RuleState {
    fn default() -> Self {
        Self {
            phase: Phase::Ok,
            since: Timestamp(0),
            last_seen: None,
            last_value: None,
            not_before: None,
            received: None,
            heard_at: None,
        }
    }
}

/// An event in the making.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// Raised or resolved.
    pub kind: AlertEventKind,
    /// When, in the readings' time.
    pub ts: Timestamp,
    /// The value that decided, if one did.
    pub value: Option<f64>,
}

impl Transition {
    pub(super) fn new(kind: AlertEventKind, ts: Timestamp, value: Option<f64>) -> Self {
        Self { kind, ts, value }
    }
}

/// A value against a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// The bad side.
    pub comparison: Comparison,
    /// The limit.
    pub limit: f64,
    /// The clear limit.
    pub clear: f64,
    /// How long it must stay breached, in milliseconds.
    pub for_ms: u64,
}

impl Limit {
    fn breached(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Above => value > self.limit,
            Comparison::Below => value < self.limit,
        }
    }

    fn cleared(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Above => value <= self.clear,
            Comparison::Below => value >= self.clear,
        }
    }
}

/// When a device gave its reading, by three clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The reading's own time.
    pub ts: Timestamp,
    /// The time of its source when it came.
    pub at: Timestamp,
    /// Wall time when it was received.
    pub received: Timestamp,
}

impl RuleState {
    /// The state that is stored, but that no reading of it is later than `wall` and what clocks may be ahead: what a wrong clock put
    /// into the future counts as of now.
    pub(super) fn stored(state: &AlertState, wall: Timestamp) -> Self {
        Self {
            phase: state.phase,
            since: state.since,
            last_seen: Some(state.last_seen.min(wall.plus_millis(CLOCK_SKEW_MS))),
            last_value: state.last_value,
            not_before: state.not_before,
            received: state.received.map(|at| at.min(wall)),
            heard_at: state.heard_at.map(|at| at.min(wall)),
        }
    }

    /// Takes a reading's value for a threshold rule. Says whether the phase changed, and the event that came of it.
    pub fn evaluate(
        &mut self,
        rule: &Limit,
        cooldown_ms: u64,
        ts: Timestamp,
        value: f64,
    ) -> (bool, Option<Transition>) {
        if self.last_seen.is_some_and(|seen| ts <= seen) {
            return (false, None);
        }
        self.last_seen = Some(ts);
        self.last_value = Some(value);
        let breached = rule.breached(value);
        match self.phase {
            Phase::Ok | Phase::Pending if breached => {
                let since = if self.phase == Phase::Pending { self.since } else { ts };
                let long_enough = ts.millis_since(since) >= millis(rule.for_ms);
                if long_enough && self.not_before.is_none_or(|until| ts >= until) {
                    self.enter(Phase::Firing, ts);
                    (true, Some(Transition::new(AlertEventKind::Raised, ts, Some(value))))
                } else if self.phase == Phase::Ok {
                    self.enter(Phase::Pending, ts);
                    (true, None)
                } else {
                    (false, None)
                }
            }
            Phase::Pending => {
                self.enter(Phase::Ok, ts);
                (true, None)
            }
            Phase::Firing if rule.cleared(value) => {
                self.resolve(ts, cooldown_ms);
                (true, Some(Transition::new(AlertEventKind::Resolved, ts, Some(value))))
            }
            Phase::Closed if rule.cleared(value) => {
                self.enter(Phase::Ok, ts);
                (true, None)
            }
            Phase::Ok | Phase::Firing | Phase::Closed => (false, None),
        }
    }

    /// Takes a reading for a silence rule. Says whether the phase changed or the device is new, and the events that came of
    /// it. A silence that ended before it was noticed is reported only when `gaps_count`.
    pub fn observe(
        &mut self,
        after_ms: u64,
        cooldown_ms: u64,
        observed: Observed,
        gaps_count: bool,
    ) -> (bool, [Option<Transition>; 2]) {
        let ts = observed.ts;
        if self.last_seen.is_some_and(|seen| ts <= seen) {
            return (false, [None, None]);
        }
        let due = self.silent_from(after_ms);
        let is_new = self.last_seen.is_none();
        self.last_seen = Some(ts);
        self.heard_at = Some(observed.at);
        self.received = Some(observed.received);
        match (self.phase, due) {
            (Phase::Firing, _) => {
                // A sender that kept its readings while it was away sends some from before the alarm.
                let at = ts.max(self.since);
                self.resolve(at, cooldown_ms);
                (true, [Some(Transition::new(AlertEventKind::Resolved, at, None)), None])
            }
            (Phase::Closed, _) => {
                self.enter(Phase::Ok, ts);
                (true, [None, None])
            }
            (_, Some(due)) if gaps_count && due < ts => {
                self.resolve(ts, cooldown_ms);
                let raised = Transition::new(AlertEventKind::Raised, due, None);
                (true, [Some(raised), Some(Transition::new(AlertEventKind::Resolved, ts, None))])
            }
            _ => (is_new, [None, None]),
        }
    }

    /// Looks at a silence rule when the source's time is `now`; returns the state to take and the event, when the device
    /// has been silent for too long. This state itself stays as it is until the event is durable.
    pub fn silent(&self, after_ms: u64, now: Timestamp) -> Option<(Self, Transition)> {
        let heard_at = self.heard_at.or(self.last_seen)?;
        let from = self.silent_from(after_ms)?;
        let due = heard_at.plus_millis(millis(after_ms));
        let is_overdue = self.not_before.map_or(due, |until| due.max(until)) < now;
        (self.phase == Phase::Ok && is_overdue).then(|| {
            let mut next = *self;
            next.enter(Phase::Firing, from);
            (next, Transition::new(AlertEventKind::Raised, from, None))
        })
    }

    /// When a silence begins to count, in the device's own time.
    fn silent_from(&self, after_ms: u64) -> Option<Timestamp> {
        let due = self.last_seen?.plus_millis(millis(after_ms));
        Some(self.not_before.map_or(due, |until| due.max(until)))
    }

    pub(super) fn enter(&mut self, phase: Phase, ts: Timestamp) {
        self.phase = phase;
        self.since = ts;
    }

    pub(super) fn resolve(&mut self, ts: Timestamp, cooldown_ms: u64) {
        self.enter(Phase::Ok, ts);
        self.not_before = (cooldown_ms > 0).then(|| ts.plus_millis(millis(cooldown_ms)));
    }
}

pub(super) fn millis(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use AlertEventKind::{Raised, Resolved};
    use Phase::{Closed, Firing, Ok, Pending};

    use super::*;

    fn run(rule: &Limit, cooldown: u64, readings: &[(i64, f64)]) -> Vec<(Phase, Option<AlertEventKind>)> {
        let mut state = RuleState::default();
        let evaluate = |&(ts, v): &(i64, f64)| {
            let (_, transition) = state.evaluate(rule, cooldown, Timestamp(ts), v);
            (state.phase, transition.map(|t| t.kind))
        };
        readings.iter().map(evaluate).collect()
    }

    #[test]
    fn a_threshold_fires_and_resolves_as_its_table_says() {
        let above = Limit { comparison: Comparison::Above, limit: 10.0, clear: 8.0, for_ms: 0 };
        let below = Limit { comparison: Comparison::Below, limit: 10.0, clear: 12.0, for_ms: 0 };
        let held = Limit { for_ms: 20, ..above };
        let r = Some(Raised);
        let s = Some(Resolved);
        type Case = (&'static str, Limit, u64, Vec<(i64, f64)>, Vec<(Phase, Option<AlertEventKind>)>);
        let cases: [Case; 8] = [
            ("the limit itself is no breach", above, 0, vec![(1, 10.0)], vec![(Ok, None)]),
            ("beyond the limit fires", above, 0, vec![(1, 10.1)], vec![(Firing, r)]),
            (
                "the band keeps firing, the clear limit resolves",
                above,
                0,
                vec![(1, 11.0), (2, 9.0), (3, 11.0), (4, 8.0), (5, 9.0)],
                vec![(Firing, r), (Firing, None), (Firing, None), (Ok, s), (Ok, None)],
            ),
            (
                "below is the mirror image",
                below,
                0,
                vec![(1, 10.0), (2, 9.0), (3, 11.0), (4, 12.0)],
                vec![(Ok, None), (Firing, r), (Firing, None), (Ok, s)],
            ),
            (
                "for: it must stay breached",
                held,
                0,
                vec![(1, 11.0), (11, 11.0), (20, 9.0), (30, 11.0), (49, 11.0), (50, 11.0)],
                vec![
                    (Pending, None),
                    (Pending, None),
                    (Ok, None),
                    (Pending, None),
                    (Pending, None),
                    (Firing, r),
                ],
            ),
            (
                "cooldown: not again before it is over, then at the next breach",
                above,
                100,
                vec![(1, 11.0), (2, 8.0), (3, 11.0), (101, 11.0), (102, 11.0)],
                vec![(Firing, r), (Ok, s), (Pending, None), (Pending, None), (Firing, r)],
            ),
            (
                "late and repeated readings change nothing",
                above,
                0,
                vec![(5, 9.0), (4, 11.0), (5, 11.0), (6, 11.0), (6, 0.0), (5, 0.0)],
                vec![(Ok, None), (Ok, None), (Ok, None), (Firing, r), (Firing, None), (Firing, None)],
            ),
            (
                "a gap counts as time breached",
                held,
                0,
                vec![(1, 11.0), (1_000, 11.0)],
                vec![(Pending, None), (Firing, r)],
            ),
        ];
        for (what, rule, cooldown, readings, expected) in cases {
            assert_eq!(run(&rule, cooldown, &readings), expected, "{what}");
        }
    }

    #[test]
    fn a_closed_alert_does_not_fire_again_before_it_has_cleared() {
        let rule = Limit { comparison: Comparison::Above, limit: 10.0, clear: 8.0, for_ms: 0 };
        let mut state =
            RuleState { phase: Phase::Closed, last_seen: Some(Timestamp(0)), ..RuleState::default() };
        let steps = [
            (1, 11.0, Closed, None),
            (2, 9.0, Closed, None),
            (3, 8.0, Ok, None),
            (4, 11.0, Firing, Some(Raised)),
        ];
        for (ts, value, phase, event) in steps {
            let (_, transition) = state.evaluate(&rule, 0, Timestamp(ts), value);
            assert_eq!((state.phase, transition.map(|t| t.kind)), (phase, event), "at {ts}");
        }
        let mut silent = RuleState::default();
        observe(&mut silent, 0, 1, true);
        silent = silent.silent(100, Timestamp(500)).unwrap().0;
        silent.phase = Phase::Closed;
        assert!(silent.silent(100, Timestamp(900)).is_none());
        assert_eq!(times(observe(&mut silent, 0, 950, true).1), []);
        assert_eq!(silent.silent(100, Timestamp(1_051)).unwrap().1.ts, Timestamp(1_050));
    }

    fn times(transitions: [Option<Transition>; 2]) -> Vec<(AlertEventKind, i64)> {
        transitions.into_iter().flatten().map(|t| (t.kind, t.ts.0)).collect()
    }

    fn observe(
        state: &mut RuleState,
        cooldown: u64,
        ts: i64,
        gaps_count: bool,
    ) -> (bool, [Option<Transition>; 2]) {
        let observed = Observed { ts: Timestamp(ts), at: Timestamp(ts), received: Timestamp(ts) };
        state.observe(100, cooldown, observed, gaps_count)
    }

    fn raised(ts: i64) -> Transition {
        Transition::new(Raised, Timestamp(ts), None)
    }

    #[test]
    fn a_silence_is_raised_at_the_same_time_whether_noticed_during_or_after_it() {
        let mut noticed = RuleState::default();
        assert!(observe(&mut noticed, 0, 1, true).0, "the first reading of a device is remembered");
        assert!(noticed.silent(100, Timestamp(101)).is_none());
        let (next, transition) = noticed.silent(100, Timestamp(500)).unwrap();
        assert_eq!(transition, raised(101));
        assert_eq!(noticed.phase, Ok, "nothing changes until the event is durable");
        noticed = next;
        assert!(noticed.silent(100, Timestamp(900)).is_none(), "it is raised once");
        assert_eq!(times(observe(&mut noticed, 0, 600, true).1), [(Resolved, 600)]);

        let mut unnoticed = RuleState::default();
        observe(&mut unnoticed, 0, 1, true);
        assert_eq!(times(observe(&mut unnoticed, 0, 600, true).1), [(Raised, 101), (Resolved, 600)]);
        assert_eq!(unnoticed, noticed);
    }

    #[test]
    fn readings_kept_by_the_sender_resolve_a_silence_no_earlier_than_it_was_raised() {
        let mut state = RuleState::default();
        observe(&mut state, 50, 0, true);
        state = state.silent(100, Timestamp(1_000)).unwrap().0;
        assert_eq!(times(observe(&mut state, 50, 10, true).1), [(Resolved, 100)]);
        assert_eq!(state.not_before, Some(Timestamp(150)));
        assert!(state.silent(100, Timestamp(150)).is_none(), "cooldown");
        assert_eq!(state.silent(100, Timestamp(151)).unwrap().1, raised(150));
    }

    #[test]
    fn a_gap_does_not_count_when_what_was_seen_may_be_stale() {
        let mut state = RuleState::default();
        observe(&mut state, 0, 0, true);
        assert_eq!(times(observe(&mut state, 0, 1_000, false).1), []);
        assert_eq!(state.last_seen, Some(Timestamp(1_000)));
    }

    #[test]
    fn a_device_whose_clock_is_slow_is_silent_when_it_sends_nothing() {
        let mut state = RuleState::default();
        let late = Observed { ts: Timestamp(0), at: Timestamp(3_600), received: Timestamp(3_600) };
        state.observe(100, 0, late, true);
        assert!(state.silent(100, Timestamp(3_700)).is_none());
        assert_eq!(state.silent(100, Timestamp(3_701)).unwrap().1, raised(100), "in its own time");
    }
}
