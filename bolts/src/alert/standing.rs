//! Where a rule stands for one device: the state machine.
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
//!
//! **Silence** of `after_ms`:
//!
//! | phase | what happens | next | event |
//! |---|---|---|---|
//! | ok | the source's time passes the latest reading + `after_ms` (and the cooldown) | firing | raised, at that time |
//! | ok | a reading after that time, silence unnoticed until now | ok, cooldown begins | raised at that time, and resolved |
//! | ok | any other newer reading | ok | |
//! | firing | a newer reading | ok, cooldown begins | resolved |
//!
//! All times are the readings' own. A reading not newer than the latest one judged changes nothing: duplicates and late
//! readings are not judged. So the events of a sequence with duplicates, in whatever places, are those of the sequence
//! without, and the events of a shuffled sequence are those of its rising part (each reading newer than all before it).
//!
//! Between two transitions a reading changes nothing but `last_seen` and `last_value`. Threshold states therefore need to be stored at
//! transitions only: judging the same readings again from the last transition on gives the same again.

use galerna_model::Timestamp;
use galerna_model::{AlertEventKind, Comparison, Phase};

/// What a rule knows of one device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Where it stands.
    pub phase: Phase,
    /// Since when; the first breach while pending.
    pub since: Timestamp,
    /// The latest reading judged; `None` before the first.
    pub last_seen: Option<Timestamp>,
    /// Its value.
    pub last_value: Option<f64>,
    /// Not to fire before.
    pub not_before: Option<Timestamp>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { phase: Phase::Ok, since: Timestamp(0), last_seen: None, last_value: None, not_before: None }
    }
}

/// An event and its time.
pub type Turn = (AlertEventKind, Timestamp);

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

impl Standing {
    /// Takes a reading's value for a threshold rule. Says whether the phase changed, and the event that came of it.
    pub fn judge(
        &mut self,
        rule: &Limit,
        cooldown_ms: u64,
        ts: Timestamp,
        value: f64,
    ) -> (bool, Option<Turn>) {
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
                    (true, Some((AlertEventKind::Raised, ts)))
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
                (true, Some((AlertEventKind::Resolved, ts)))
            }
            Phase::Ok | Phase::Firing => (false, None),
        }
    }

    /// Takes a reading for a silence rule. Says whether the phase changed or the device is new, and the events that came of
    /// it. A silence that ended before it was noticed is reported only when `gaps_count`.
    pub fn heard(
        &mut self,
        after_ms: u64,
        cooldown_ms: u64,
        ts: Timestamp,
        gaps_count: bool,
    ) -> (bool, [Option<Turn>; 2]) {
        let overdue = self.overdue_at(after_ms);
        if self.last_seen.is_some_and(|seen| ts <= seen) {
            return (false, [None, None]);
        }
        let is_new = self.last_seen.is_none();
        self.last_seen = Some(ts);
        match (self.phase, overdue) {
            (Phase::Firing, _) => {
                // A sender that kept its readings while it was away sends some from before the alarm.
                let at = ts.max(self.since);
                self.resolve(at, cooldown_ms);
                (true, [Some((AlertEventKind::Resolved, at)), None])
            }
            (_, Some(due)) if gaps_count && due < ts => {
                self.resolve(ts, cooldown_ms);
                (true, [Some((AlertEventKind::Raised, due)), Some((AlertEventKind::Resolved, ts))])
            }
            _ => (is_new, [None, None]),
        }
    }

    /// Looks at a silence rule when the source's time is `now`; returns the standing to take and the event, when the device
    /// has been silent for too long. This standing itself stays as it is until the event is durable.
    pub fn silent(&self, after_ms: u64, now: Timestamp) -> Option<(Self, Turn)> {
        let due = self.overdue_at(after_ms)?;
        (self.phase == Phase::Ok && due < now).then(|| {
            let mut next = *self;
            next.enter(Phase::Firing, due);
            (next, (AlertEventKind::Raised, due))
        })
    }

    fn overdue_at(&self, after_ms: u64) -> Option<Timestamp> {
        let due = self.last_seen?.plus_millis(millis(after_ms));
        Some(self.not_before.map_or(due, |until| due.max(until)))
    }

    fn enter(&mut self, phase: Phase, ts: Timestamp) {
        self.phase = phase;
        self.since = ts;
    }

    fn resolve(&mut self, ts: Timestamp, cooldown_ms: u64) {
        self.enter(Phase::Ok, ts);
        self.not_before = (cooldown_ms > 0).then(|| ts.plus_millis(millis(cooldown_ms)));
    }
}

fn millis(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use AlertEventKind::{Raised, Resolved};
    use Phase::{Firing, Ok, Pending};

    use super::*;

    fn run(rule: &Limit, cooldown: u64, readings: &[(i64, f64)]) -> Vec<(Phase, Option<AlertEventKind>)> {
        let mut standing = Standing::default();
        let judge = |&(ts, v): &(i64, f64)| {
            let (_, turn) = standing.judge(rule, cooldown, Timestamp(ts), v);
            (standing.phase, turn.map(|t| t.0))
        };
        readings.iter().map(judge).collect()
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
                "late and repeated readings are not judged",
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

    fn times(turns: [Option<Turn>; 2]) -> Vec<(AlertEventKind, i64)> {
        turns.into_iter().flatten().map(|(kind, ts)| (kind, ts.0)).collect()
    }

    #[test]
    fn a_silence_is_raised_at_the_same_time_whether_noticed_during_or_after_it() {
        let mut noticed = Standing::default();
        assert!(noticed.heard(100, 0, Timestamp(1), true).0, "the first reading of a device is remembered");
        assert!(noticed.silent(100, Timestamp(101)).is_none());
        let (next, turn) = noticed.silent(100, Timestamp(500)).unwrap();
        assert_eq!(turn, (Raised, Timestamp(101)));
        assert_eq!(noticed.phase, Ok, "nothing changes until the event is durable");
        noticed = next;
        assert!(noticed.silent(100, Timestamp(900)).is_none(), "it is raised once");
        assert_eq!(times(noticed.heard(100, 0, Timestamp(600), true).1), [(Resolved, 600)]);

        let mut unnoticed = Standing::default();
        unnoticed.heard(100, 0, Timestamp(1), true);
        assert_eq!(times(unnoticed.heard(100, 0, Timestamp(600), true).1), [(Raised, 101), (Resolved, 600)]);
        assert_eq!(unnoticed, noticed);
    }

    #[test]
    fn readings_kept_by_the_sender_resolve_a_silence_no_earlier_than_it_was_raised() {
        let mut standing = Standing::default();
        standing.heard(100, 50, Timestamp(0), true);
        standing = standing.silent(100, Timestamp(1_000)).unwrap().0;
        assert_eq!(times(standing.heard(100, 50, Timestamp(10), true).1), [(Resolved, 100)]);
        assert_eq!(standing.not_before, Some(Timestamp(150)));
        assert!(standing.silent(100, Timestamp(150)).is_none(), "cooldown");
        assert_eq!(standing.silent(100, Timestamp(151)).unwrap().1, (Raised, Timestamp(150)));
    }

    #[test]
    fn a_gap_does_not_count_when_what_was_seen_may_be_stale() {
        let mut standing = Standing::default();
        standing.heard(100, 0, Timestamp(0), true);
        assert_eq!(times(standing.heard(100, 0, Timestamp(1_000), false).1), []);
        assert_eq!(standing.last_seen, Some(Timestamp(1_000)));
    }
}
