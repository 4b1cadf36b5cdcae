//! What should come out, counted from what went in, in another way than the product does it: all events of a line at once.

use std::collections::{BTreeMap, BTreeSet};

use galerna_model::Timestamp;

use super::recording::Recorded;
use crate::event::LineState;
use crate::line::NoticeKind;

/// What should come out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// Distinct events.
    pub(super) events: u64,
    /// Line, start, end.
    pub(super) downtimes: Vec<(String, Timestamp, Option<Timestamp>)>,
    /// Line, what is told, of when, for how long it was down.
    pub(super) notices: Vec<(String, NoticeKind, Timestamp, Option<i64>)>,
    /// Changes that did not last.
    pub(super) held: u64,
}

/// Counts it, if the world ends long after the last event.
pub(super) fn expected(events: Vec<Recorded>, hold_ms: i64) -> Expected {
    let distinct: BTreeSet<Recorded> = events.into_iter().collect();
    let mut by_line: BTreeMap<&str, Vec<&Recorded>> = BTreeMap::new();
    for event in &distinct {
        by_line.entry(&event.line).or_default().push(event);
    }
    let count = u64::try_from(distinct.len()).unwrap_or(0);
    let mut expected = Expected { events: count, downtimes: Vec::new(), notices: Vec::new(), held: 0 };
    for (line, events) in by_line {
        // The line's states: each from its first event to the first event of the next.
        let states: Vec<(LineState, Timestamp, Option<Timestamp>)> = {
            let starts: Vec<_> =
                events.chunk_by(|a, b| a.state == b.state).map(|run| (run[0].state, run[0].at)).collect();
            let ends = starts.iter().skip(1).map(|(_, at)| Some(*at)).chain([None]);
            starts.iter().zip(ends).map(|((state, start), end)| (*state, *start, end)).collect()
        };
        let down = states.iter().filter(|(state, ..)| *state == LineState::Down);
        expected.downtimes.extend(down.map(|(_, start, end)| (line.to_owned(), *start, *end)));
        // Those that last, of several alike only the first, and none before the line was down: that is what is told.
        let lasts = |end: &Option<Timestamp>, start: &Timestamp| {
            end.is_none_or(|end| end.millis_since(*start) >= hold_ms)
        };
        let mut told: Vec<(LineState, Timestamp)> = states
            .iter()
            .filter(|(_, start, end)| lasts(end, start))
            .map(|(state, start, _)| (*state, *start))
            .skip_while(|(state, _)| *state == LineState::Up)
            .collect();
        told.dedup_by_key(|(state, _)| *state);
        expected.notices.extend(told.chunks(2).flat_map(|pair| {
            let down = Some((line.to_owned(), NoticeKind::Down, pair[0].1, None));
            let restored = pair.get(1).map(|(_, at)| {
                (line.to_owned(), NoticeKind::Restored, *at, Some(at.millis_since(pair[0].1)))
            });
            down.into_iter().chain(restored)
        }));
        // A change is held when its state did not last and was not the one that was told.
        let mut known = LineState::Up;
        for (state, start, end) in &states {
            if lasts(end, start) {
                known = *state;
            } else if *state != known {
                expected.held += 1;
            }
        }
    }
    expected
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::recording::recording;

    #[test]
    fn the_downtimes_of_the_recording_are_those_that_its_source_says() {
        let recorded = recording().unwrap();
        let found: BTreeSet<(String, String, String)> = expected(recorded, 0)
            .downtimes
            .into_iter()
            .filter_map(|(line, start, end)| Some((line, start.to_string(), end?.to_string())))
            .collect();
        let mut rows = csv::Reader::from_reader(include_str!("../../data/service_downtimes.csv").as_bytes());
        let said: BTreeSet<_> = rows
            .records()
            .map(|row| row.unwrap())
            .map(|row| (row[1].to_owned(), row[0].to_owned(), row[3].to_owned()))
            .collect();
        assert_eq!(said.len(), 642);
        assert_eq!(found, said);
    }
}
