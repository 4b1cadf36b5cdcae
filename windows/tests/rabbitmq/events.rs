//! The messages, and what is to become of them.

use std::collections::BTreeMap;

use galerna_model::Message;
use serde::{Deserialize, Serialize};

use crate::found::Found;

/// Milliseconds of a window.
pub(crate) const SIZE: i64 = 50;
/// Milliseconds that end a session.
pub(crate) const GAP: i64 = 40;
/// Milliseconds that the partners of a join are apart at most.
pub(crate) const REACH: i64 = 12;
/// Events that are published beyond the first one that no checkpoint has, at most: so far can any be behind another.
pub(crate) const AHEAD: u64 = 1_500;
/// Milliseconds that any may be behind another; a millisecond passes with each.
pub(crate) const LAG: u64 = AHEAD + 500;

/// What one message says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// The message's own.
    pub(crate) id: String,
    /// The event's; those that were published twice are two messages.
    pub(crate) number: u64,
    pub(crate) key: String,
    pub(crate) at: i64,
    pub(crate) value: u64,
}

impl Event {
    /// Event `number`, out of order by less than ten milliseconds.
    fn new(id: String, number: u64) -> Self {
        Self {
            id,
            number,
            key: format!("key-{}", number * number % 11),
            at: (number + number * 7919 % 9) as i64,
            value: number % 13 + 1,
        }
    }

    pub(crate) fn message(&self) -> Message {
        Message {
            body: serde_json::to_vec(self).expect("written").into(),
            content_type: "application/json".to_owned(),
            id: self.id.clone(),
        }
    }
}

/// Whether an event is of the join's first stream.
pub(crate) fn is_left(number: u64) -> bool {
    number.is_multiple_of(3)
}

/// Whether an event is of the join's second stream; some are of both.
pub(crate) fn is_right(number: u64) -> bool {
    number.is_multiple_of(5)
}

/// The messages of an event: some are published twice.
pub(crate) fn of(number: u64) -> Vec<Event> {
    let mut messages = vec![Event::new(number.to_string(), number)];
    if number % 10 == 3 {
        messages.push(Event::new(format!("{number}-again"), number));
    }
    messages
}

/// Completes all windows of events before this one.
pub(crate) fn end(number: u64) -> Event {
    Event { key: "end".to_owned(), at: far(number), ..Event::new("end".to_owned(), number) }
}

/// When the end is.
pub(crate) fn far(number: u64) -> i64 {
    number as i64 + 1_000_000
}

/// What is made of so many events, and the end.
pub(crate) fn expected(events: u64) -> Found {
    let mut found = Found::default();
    let mut sessions: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    let mut by_key: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    for number in 0..events {
        for event in of(number) {
            found.ids.insert(event.id, 1);
        }
        let Event { key, at, value, .. } = Event::new(String::new(), number);
        *found.counts.entry(key.clone()).or_default() += 1;
        let window = (key.clone(), at.div_euclid(SIZE) * SIZE);
        found.sums.entry(window).or_insert_with(|| vec![0])[0] += value;
        by_key.entry(key.clone()).or_default().push((at, number));
        sessions.entry(key).or_default().push((at, value));
    }
    for (key, mut times) in by_key {
        times.sort_unstable();
        let partners = |at: i64| {
            let from = times.partition_point(|(other, _)| *other < at - REACH);
            let until = times.partition_point(|(other, _)| *other <= at + REACH);
            times[from..until].iter().map(|(_, number)| *number)
        };
        for (at, number) in &times {
            let rights: Vec<u64> = partners(*at).filter(|other| is_right(*other)).collect();
            if is_left(*number) && rights.is_empty() {
                found.pairs.insert((key.clone(), Some(*number), None), 1);
            }
            if is_left(*number) {
                found
                    .pairs
                    .extend(rights.into_iter().map(|right| ((key.clone(), Some(*number), Some(right)), 1)));
            }
            if is_right(*number) && !partners(*at).any(is_left) {
                found.pairs.insert((key.clone(), None, Some(*number)), 1);
            }
        }
    }
    for (key, mut times) in sessions {
        times.sort_unstable();
        for apart in times.chunk_by(|one, next| next.0 - one.0 < GAP) {
            let sum = apart.iter().map(|(_, value)| value).sum();
            found.sessions.insert((key.clone(), apart[0].0), vec![sum]);
        }
    }
    found.ids.insert("end".to_owned(), 1);
    found.counts.insert("end".to_owned(), 1);
    found
}
