//! What refused rows tell of the others: that they are not the only ones, so that the distance of two times may not be the length
//! of an interval.

use std::collections::HashMap;

use galerna_model::AccountId;

use crate::error::{Place, RowError};
use crate::row::{Amount, MeterValue};
use crate::units::Target;

type Whose = (AccountId, String);

/// The interval of a refused value, as one of which nothing is known but its time.
pub(crate) fn missing(error: &RowError) -> Option<(Whose, MeterValue)> {
    let Place { meter: Some(whose), time: Some(time) } = &**error.place.as_ref()? else { return None };
    let amount = match time.target {
        Target::Interval(series) => Amount::Missing(series),
        Target::Value(parameter) => Amount::MissingValue(parameter),
    };
    let value = MeterValue {
        line: error.line,
        ts: time.ts,
        amount,
        length_ms: time.length_ms,
        usual_ms: time.usual_ms,
        refused_since: None,
        is_mean: false,
        utility: time.utility,
    };
    Some((whose.clone(), value))
}

/// The lines of refused rows whose times are not known.
pub(crate) struct Refused<'e> {
    of_any: Vec<u64>,
    of: HashMap<&'e Whose, Vec<u64>>,
}

impl<'e> Refused<'e> {
    pub(crate) fn of(errors: &'e [RowError]) -> Self {
        let mut refused = Self { of_any: Vec::new(), of: HashMap::new() };
        for error in errors {
            match error.place.as_deref() {
                Some(Place { time: Some(_), .. }) => {}
                Some(Place { meter: Some(whose), time: None }) => {
                    refused.of.entry(whose).or_default().push(error.line);
                }
                _ => refused.of_any.push(error.line),
            }
        }
        refused.of_any.sort_unstable();
        refused.of.values_mut().for_each(|lines| lines.sort_unstable());
        refused
    }

    /// Marks the values of a meter, which are in the order of the file, before which such a row stands.
    pub(crate) fn mark(&self, whose: &Whose, values: &mut [MeterValue]) {
        let of_meter = self.of.get(whose).map_or(&[][..], Vec::as_slice);
        if self.of_any.is_empty() && of_meter.is_empty() {
            return;
        }
        let between = |from: u64, to: u64| {
            [&self.of_any, of_meter].iter().any(|lines| {
                let next = lines.partition_point(|line| *line <= from);
                lines.get(next).is_some_and(|line| *line < to)
            })
        };
        let mut before: HashMap<_, usize> = HashMap::new();
        for at in 0..values.len() {
            let (line, slot) = (values[at].line, values[at].amount.slot());
            let from = before.insert(slot, at);
            match from {
                Some(from) if between(values[from].line, line) => {
                    // Files may have the newest row first.
                    let (earlier, later) =
                        if values[from].ts <= values[at].ts { (from, at) } else { (at, from) };
                    values[later].refused_since = Some(values[earlier].ts);
                }
                _ => {}
            }
        }
        // What is alone in its file is of the usual length only where nothing else was there.
        if values.iter().all(|value| value.ts == values[0].ts) {
            values.iter_mut().for_each(|value| value.usual_ms = None);
        }
    }
}
