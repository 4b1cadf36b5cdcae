//! What is known of a line, and what an event makes of it: pure functions, the same for all stores.
//!
//! | known | event, later than all before | what becomes of it |
//! |---|---|---|
//! | up | up | nothing |
//! | up | down | a downtime begins |
//! | down | down | nothing |
//! | down | up | the downtime ends |
//!
//! Whoever is to be told is told of a state that has lasted for the *hold* time and is another than the one that was last told. So of a
//! line that flaps nothing is told until it stays in one state, and nothing at all if that is the state that was told before. Since how
//! long a state lasted is read off the events' own times, the same events give the same notices, whenever and how often they arrive.
//!
//! An event that is earlier than others of its line corrects the downtimes around it ([`derive()`]) and tells nobody anything.

use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::{Cause, LineState, word};

/// What is known of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Whether it produces.
    pub state: LineState,
    /// Since when.
    pub since: Timestamp,
    /// If it is down, how that is known.
    pub cause: Cause,
    /// Whether it was down when it was first heard of, and still is.
    pub began_before: bool,
    /// The latest event that told its state.
    pub seen: Timestamp,
    /// The latest event, heartbeats included.
    pub heard: Timestamp,
    /// Whether it sends heartbeats.
    pub beats: bool,
    /// The state that was last told.
    pub told: LineState,
    /// If that is down: when that downtime began.
    pub told_since: Timestamp,
    /// Changes that did not last, of which nobody was told.
    pub held: i64,
}

/// A time in which a line stood still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Downtime {
    /// The line.
    pub line: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub start: Timestamp,
    /// When it ended; `null` while it lasts.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub end: Option<Timestamp>,
    /// How it is known.
    pub cause: Cause,
    /// The line was down when it was first heard of: it began at `start` or earlier.
    pub began_before: bool,
}

word! {
    /// What somebody is told.
    NoticeKind {
        /// The line went down.
        Down = "down",
        /// The line is restored.
        Restored = "restored",
    }
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNotice {
    /// The line.
    pub line: String,
    /// What.
    pub kind: NoticeKind,
    /// When it went down or was restored.
    pub at: Timestamp,
    /// When it went down.
    pub down_since: Timestamp,
    /// It was down when it was first heard of.
    pub began_before: bool,
}

/// What is to be written beside the line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// A downtime begins.
    pub opened: Option<Downtime>,
    /// The downtime that began then ends then.
    pub closed: Option<(Timestamp, Timestamp)>,
    /// What is to be told.
    pub notices: Vec<NewNotice>,
}

impl Line {
    /// A line of which this is the first that is heard.
    pub fn first(name: &str, at: Timestamp, state: LineState, cause: Cause) -> (Self, Effects) {
        let down = state == LineState::Down;
        let line = Self {
            name: name.to_owned(),
            state,
            since: at,
            cause,
            began_before: down,
            seen: at,
            heard: at,
            beats: false,
            told: LineState::Up,
            told_since: at,
            held: 0,
        };
        let opened = down.then(|| line.downtime());
        (line, Effects { opened, ..Effects::default() })
    }

    fn downtime(&self) -> Downtime {
        let (line, start) = (self.name.clone(), self.since);
        Downtime { line, start, end: None, cause: self.cause, began_before: self.began_before }
    }

    /// An event that is later than all before of this line.
    pub fn apply(&mut self, at: Timestamp, state: LineState, cause: Cause, hold_ms: i64) -> Effects {
        let mut effects = Effects::default();
        self.heard = self.heard.max(at);
        self.seen = at;
        if state == self.state {
            return effects;
        }
        // What lasted is told, though nobody looked in time; what did not is not.
        effects.notices.extend(self.settle(at, hold_ms));
        if self.told != self.state {
            self.held += 1;
        }
        let before = std::mem::replace(&mut self.since, at);
        self.state = state;
        self.cause = cause;
        self.began_before = false;
        match state {
            LineState::Down => effects.opened = Some(self.downtime()),
            LineState::Up => effects.closed = Some((before, at)),
        }
        effects
    }

    /// What is to be told if nothing else was heard by `now`.
    pub fn settle(&mut self, now: Timestamp, hold_ms: i64) -> Option<NewNotice> {
        if self.told == self.state || now.millis_since(self.since) < hold_ms {
            return None;
        }
        self.told = self.state;
        let kind = match self.state {
            LineState::Down => {
                self.told_since = self.since;
                NoticeKind::Down
            }
            LineState::Up => NoticeKind::Restored,
        };
        let began_before = self.began_before && kind == NoticeKind::Down;
        let line = self.name.clone();
        Some(NewNotice { line, kind, at: self.since, down_since: self.told_since, began_before })
    }
}

/// One event of a line that told its state, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// When.
    pub at: Timestamp,
    /// What.
    pub state: LineState,
    /// How it is known.
    pub cause: Cause,
}

/// What the events of a line say from an `up` on, or from its very first (`from_first`): its downtimes, and since when it is what it is
/// at the end.
pub fn derive(line: &str, events: &[Observation], from_first: bool) -> (Vec<Downtime>, Option<Observation>) {
    let (mut downtimes, mut current) = (Vec::<Downtime>::new(), None::<Observation>);
    for (index, event) in events.iter().enumerate() {
        if current.is_some_and(|current| current.state == event.state) {
            continue;
        }
        match event.state {
            LineState::Down => downtimes.push(Downtime {
                line: line.to_owned(),
                start: event.at,
                end: None,
                cause: event.cause,
                began_before: from_first && index == 0,
            }),
            LineState::Up => {
                if let Some(open) = downtimes.last_mut() {
                    open.end = Some(event.at);
                }
            }
        }
        current = Some(*event);
    }
    (downtimes, current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use LineState::{Down, Up};

    const HOLD: i64 = 100;

    /// What is told of a line with these changes, at the end of all time.
    fn told(first: LineState, changes: &[(i64, LineState)]) -> (Vec<(NoticeKind, i64, i64)>, i64) {
        let (mut line, _) = Line::first("press", Timestamp(0), first, Cause::Reported);
        let mut notices = Vec::new();
        for (at, state) in changes {
            notices.extend(line.apply(Timestamp(*at), *state, Cause::Reported, HOLD).notices);
        }
        notices.extend(line.settle(Timestamp(i64::MAX), HOLD));
        let told = |n: NewNotice| (n.kind, n.at.0, n.at.millis_since(n.down_since));
        (notices.into_iter().map(told).collect(), line.held)
    }

    #[test]
    fn each_change_that_lasts_is_told_once_and_what_flaps_is_held() {
        use NoticeKind::{Down as D, Restored as R};
        for (first, changes, expected, held) in [
            (Up, vec![], vec![], 0),
            (Up, vec![(1_000, Up)], vec![], 0),
            // Down, repeated, restored.
            (Up, vec![(1_000, Down), (1_050, Down), (1_500, Up)], vec![(D, 1_000, 0), (R, 1_500, 500)], 0),
            // Down for less than the hold time.
            (Up, vec![(1_000, Down), (1_099, Up)], vec![], 1),
            (Up, vec![(1_000, Down), (1_100, Up)], vec![(D, 1_000, 0), (R, 1_100, 100)], 0),
            // Restored for less than that: the downtime that was told goes on.
            (
                Up,
                vec![(1_000, Down), (2_000, Up), (2_050, Down), (3_000, Up)],
                vec![(D, 1_000, 0), (R, 3_000, 2_000)],
                1,
            ),
            // Flaps, and stays down.
            (Up, vec![(10, Down), (20, Up), (30, Down), (40, Up), (50, Down)], vec![(D, 50, 0)], 2),
            // Flaps, and stays up.
            (Up, vec![(10, Down), (20, Up), (30, Down), (40, Up)], vec![], 2),
            // Down at the start.
            (Down, vec![], vec![(D, 0, 0)], 0),
            (Down, vec![(50, Up)], vec![], 1),
            (Down, vec![(500, Up)], vec![(D, 0, 0), (R, 500, 500)], 0),
        ] {
            assert_eq!(told(first, &changes), (expected, held), "{first:?} {changes:?}");
        }
    }

    #[test]
    fn a_state_is_told_when_it_has_lasted_and_not_again() {
        let (mut line, first) = Line::first("press", Timestamp(0), Down, Cause::Reported);
        assert!(first.opened.is_some_and(|downtime| downtime.began_before));
        assert_eq!(line.settle(Timestamp(99), HOLD), None);
        let notice = line.settle(Timestamp(100), HOLD).expect("it has lasted");
        assert!(notice.began_before);
        assert_eq!(line.settle(Timestamp(1_000), HOLD), None);
        let up = line.apply(Timestamp(2_000), Up, Cause::Reported, HOLD);
        assert_eq!((up.closed, up.notices), (Some((Timestamp(0), Timestamp(2_000))), vec![]));
        assert_eq!(line.settle(Timestamp(2_100), HOLD).map(|n| n.kind), Some(NoticeKind::Restored));
    }

    #[test]
    fn events_give_the_same_downtimes_one_by_one_and_all_at_once() {
        fastrand::seed(7);
        for _ in 0..200 {
            let mut at = 0;
            let events: Vec<Observation> = (0..fastrand::usize(1..30))
                .map(|_| {
                    at += fastrand::i64(1..200);
                    let state = if fastrand::bool() { Up } else { Down };
                    Observation { at: Timestamp(at), state, cause: Cause::Reported }
                })
                .collect();
            let (mut line, effects) = Line::first("press", events[0].at, events[0].state, Cause::Reported);
            let mut one_by_one: Vec<Downtime> = effects.opened.into_iter().collect();
            for event in &events[1..] {
                let effects = line.apply(event.at, event.state, event.cause, HOLD);
                if let Some((start, end)) = effects.closed {
                    let open = one_by_one.last_mut().expect("one is open");
                    assert_eq!(open.start, start);
                    open.end = Some(end);
                }
                one_by_one.extend(effects.opened);
            }
            let (at_once, current) = derive("press", &events, true);
            assert_eq!(one_by_one, at_once);
            assert_eq!(current.map(|current| (current.state, current.at)), Some((line.state, line.since)));
        }
    }
}
