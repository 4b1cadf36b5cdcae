//! Event time as it travels: timestamps, watermarks, and the least watermark of a task's inputs.

use std::fmt;
use std::time::{Duration, SystemTime};

/// A point in event time: milliseconds since 1970-01-01 00:00 UTC, before it negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The milliseconds of a duration, as far as they can be counted.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Timestamp {
    /// Before everything.
    pub const MIN: Self = Self(i64::MIN);
    /// After everything: the watermark of a stream that has ended.
    pub const MAX: Self = Self(i64::MAX);

    /// So many milliseconds since 1970-01-01 00:00 UTC.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// This much later, or [`MAX`](Self::MAX).
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This much earlier, or [`MIN`](Self::MIN).
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long this is after `earlier`; nothing if it is before it.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(i128::from(self.0) - i128::from(earlier.0)).unwrap_or(0))
    }
}

impl From<i64> for Timestamp {
    fn from(millis: i64) -> Self {
        Self(millis)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Self(millis(since)),
            Err(before) => Self(-millis(before.duration())),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MIN => f.write_str("the beginning"),
            Self::MAX => f.write_str("the end"),
            Self(millis) => write!(f, "{millis} ms"),
        }
    }
}

/// What one task tells those behind it about event time. It comes after all rows that the task has sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watermark {
    /// Nothing earlier than this is to be expected any more.
    At(Timestamp),
    /// Nothing is to be expected for now: nobody is to wait for this task.
    Idle,
}

impl Watermark {
    /// Nothing at all is to be expected any more.
    pub const END: Self = Self::At(Timestamp::MAX);
}

/// One task that sends to a task: the subscription by index, and the index of the sending task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sender {
    /// The subscription of the receiving bolt.
    pub input: usize,
    /// The task of the component subscribed to.
    pub task: usize,
}

#[derive(Debug, Clone)]
struct SenderState {
    sender: Sender,
    at: Option<Timestamp>,
    idle: bool,
}

/// The watermarks of all tasks that send to one task.
///
/// Its own watermark is the least of those that are not idle. When all of them are idle it is the greatest that any of them has
/// said, so that it does not depend on the order in which they became idle. It never goes back.
#[derive(Debug, Clone, Default)]
pub struct Watermarks {
    // Sorted by sender.
    senders: Vec<SenderState>,
    least: Option<Timestamp>,
}

impl Watermarks {
    /// Of a task to which nobody sends.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more task sends: it is waited for until it says something, or it counts as idle from the start.
    pub fn add(&mut self, sender: Sender, idle: bool) {
        if let Err(at) = self.senders.binary_search_by_key(&sender, |state| state.sender) {
            self.senders.insert(at, SenderState { sender, at: None, idle });
        }
    }

    /// A sender says something. A watermark that is not later than its last one says only that it is not idle. Who is not known
    /// yet is added. Returns whether the least watermark has changed.
    pub fn set(&mut self, sender: Sender, watermark: Watermark) -> bool {
        let at = match self.senders.binary_search_by_key(&sender, |state| state.sender) {
            Ok(at) => at,
            Err(at) => {
                self.senders.insert(at, SenderState { sender, at: None, idle: false });
                at
            }
        };
        let state = &mut self.senders[at];
        // What has ended stays so.
        if state.at == Some(Timestamp::MAX) {
            return false;
        }
        let before = (state.at, state.idle);
        match watermark {
            Watermark::At(time) => {
                state.at = state.at.max(Some(time));
                state.idle = false;
            }
            Watermark::Idle => state.idle = true,
        }
        // Whoever was not the one that holds the others back cannot let them on.
        let held = self.least.is_none() || before.1 || before.0 <= self.least;
        if (state.at, state.idle) == before || !held {
            return false;
        }
        let least = self.computed();
        let changed = least > self.least;
        self.least = self.least.max(least);
        changed
    }

    fn computed(&self) -> Option<Timestamp> {
        let mut waited_for = self.senders.iter().filter(|state| !state.idle).peekable();
        if waited_for.peek().is_some() {
            waited_for.map(|state| state.at).min().flatten()
        } else {
            self.senders.iter().filter_map(|state| state.at).max()
        }
    }

    /// The task's own watermark; nothing as long as somebody who is waited for has said nothing.
    pub fn least(&self) -> Option<Timestamp> {
        self.least
    }

    /// Whether all that send are idle: nobody is waited for. Not so when nobody sends at all.
    pub fn is_idle(&self) -> bool {
        !self.senders.is_empty() && self.senders.iter().all(|state| state.idle)
    }

    /// Who holds the watermark back: of those that are waited for the one with the least. Nobody if all of them are idle or have
    /// ended.
    pub fn held_by(&self) -> Option<Sender> {
        let waited_for = self.senders.iter().filter(|state| !state.idle && state.at != Some(Timestamp::MAX));
        waited_for.min_by_key(|state| state.at).map(|state| state.sender)
    }

    /// What a sender has said last; nothing if it has said nothing or is not known.
    pub fn of(&self, sender: Sender) -> Option<Timestamp> {
        let at = self.senders.binary_search_by_key(&sender, |state| state.sender).ok()?;
        self.senders[at].at
    }

    /// The senders that are known, in order.
    pub fn senders(&self) -> impl Iterator<Item = Sender> + '_ {
        self.senders.iter().map(|state| state.sender)
    }

    /// The senders that are idle.
    pub fn idle(&self) -> impl Iterator<Item = Sender> + '_ {
        self.senders.iter().filter(|state| state.idle).map(|state| state.sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Sender = Sender { input: 0, task: 0 };
    const B: Sender = Sender { input: 0, task: 1 };
    const C: Sender = Sender { input: 1, task: 0 };

    fn at(millis: i64) -> Watermark {
        Watermark::At(Timestamp::from_millis(millis))
    }

    /// Steps of what senders say, each with the least watermark after it and who holds it.
    #[test]
    fn the_least_of_those_not_idle_holds_the_watermark() {
        type Step = (Sender, Watermark, Option<i64>, Option<Sender>);
        let cases: [(&str, &[Step]); 7] = [
            (
                "nobody has said anything until all have",
                &[(A, at(10), None, Some(B)), (B, at(5), None, Some(C)), (C, at(7), Some(5), Some(B))],
            ),
            (
                "who goes on lets the next one hold",
                &[
                    (A, at(10), None, Some(B)),
                    (B, at(5), None, Some(C)),
                    (C, at(7), Some(5), Some(B)),
                    (B, at(8), Some(7), Some(C)),
                    (C, at(20), Some(8), Some(B)),
                ],
            ),
            (
                "an idle one is not waited for",
                &[
                    (A, at(10), None, Some(B)),
                    (B, Watermark::Idle, None, Some(C)),
                    (C, at(7), Some(7), Some(C)),
                    (C, Watermark::Idle, Some(10), Some(A)),
                ],
            ),
            (
                "one that comes back does not take time back",
                &[
                    (A, at(10), None, Some(B)),
                    (B, Watermark::Idle, None, Some(C)),
                    (C, Watermark::Idle, Some(10), Some(A)),
                    (B, at(3), Some(10), Some(B)),
                    (B, at(12), Some(10), Some(A)),
                ],
            ),
            (
                "what goes back counts as its last",
                &[
                    (A, at(10), None, Some(B)),
                    (B, at(10), None, Some(C)),
                    (C, at(10), Some(10), Some(A)),
                    (A, at(9), Some(10), Some(A)),
                ],
            ),
            (
                "all idle: the greatest that was said, in whatever order they became so",
                &[
                    (A, at(10), None, Some(B)),
                    (B, at(5), None, Some(C)),
                    (C, at(7), Some(5), Some(B)),
                    (A, Watermark::Idle, Some(5), Some(B)),
                    (B, Watermark::Idle, Some(7), Some(C)),
                    (C, Watermark::Idle, Some(10), None),
                ],
            ),
            (
                "what has ended is waited for no more and never starts again",
                &[
                    (A, Watermark::END, None, Some(B)),
                    (B, at(5), None, Some(C)),
                    (C, Watermark::END, Some(5), Some(B)),
                    (A, Watermark::Idle, Some(5), Some(B)),
                    (A, at(1), Some(5), Some(B)),
                    (B, Watermark::END, Some(i64::MAX), None),
                ],
            ),
        ];
        for (case, steps) in cases {
            let mut watermarks = Watermarks::new();
            [A, B, C].into_iter().for_each(|sender| watermarks.add(sender, false));
            for (number, &(sender, watermark, least, held_by)) in steps.iter().enumerate() {
                let before = watermarks.least();
                let changed = watermarks.set(sender, watermark);
                assert_eq!(watermarks.least().map(Timestamp::millis), least, "{case}: step {number}");
                assert_eq!(watermarks.held_by(), held_by, "{case}: step {number}");
                assert_eq!(changed, watermarks.least() != before, "{case}: step {number}");
            }
        }
    }

    #[test]
    fn who_is_idle_from_the_start_is_waited_for_once_it_speaks() {
        let mut watermarks = Watermarks::new();
        watermarks.add(A, false);
        watermarks.add(B, true);
        assert!(watermarks.set(A, at(4)));
        assert!(!watermarks.set(B, at(2)), "nothing goes back");
        assert!(!watermarks.set(A, at(9)), "now it is waited for");
        assert_eq!(watermarks.held_by(), Some(B));
        assert_eq!(watermarks.idle().count(), 0);
        assert!(watermarks.set(B, Watermark::Idle));
        assert_eq!(watermarks.least(), Some(Timestamp::from_millis(9)));
    }

    #[test]
    fn times_end_where_numbers_do() {
        let long = Duration::MAX;
        assert_eq!(Timestamp::from_millis(5).saturating_add(long), Timestamp::MAX);
        assert_eq!(Timestamp::from_millis(-5).saturating_sub(long), Timestamp::MIN);
        assert_eq!(Timestamp::MAX.saturating_since(Timestamp::MIN), Duration::from_millis(u64::MAX));
        assert_eq!(Timestamp::MIN.saturating_since(Timestamp::MAX), Duration::ZERO);
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1_500);
        assert_eq!(Timestamp::from(before), Timestamp::from_millis(-1_500));
    }
}
