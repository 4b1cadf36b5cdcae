//! The recorded days.

use anyhow::Context as _;
use galerna_model::Timestamp;

use crate::event::LineState;

/// One recorded event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Recorded {
    /// When.
    pub(super) at: Timestamp,
    /// Of which line.
    pub(super) line: String,
    /// What.
    pub(super) state: LineState,
}

/// All of them, in the order in which they happened.
pub(super) fn recording() -> anyhow::Result<Vec<Recorded>> {
    let text = include_str!("../../data/service_status_events.csv");
    let mut recorded = Vec::new();
    for row in csv::Reader::from_reader(text.as_bytes()).records() {
        let row = row?;
        let (at, line, state) = (row.get(0), row.get(1), row.get(2).and_then(LineState::parse));
        let (Some(at), Some(line), Some(state)) = (at, line, state) else {
            anyhow::bail!("a row of the recording lacks time, line or state: {row:?}")
        };
        let at = Timestamp::parse(at).context("the recording")?;
        recorded.push(Recorded { at, line: line.to_owned(), state });
    }
    recorded.sort();
    Ok(recorded)
}
