//! Mean rates of intervals, and the amounts that follow from them.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use crate::error::{RowError, RowFault};
use crate::lengths::lengths;
use crate::row::MeterValue;

const HOUR_MS: i64 = 3_600_000;

/// Makes amounts of the mean rates of a meter, whose values are in the order of their times. Where nothing tells how long an
/// interval is, its row is refused.
pub(crate) fn amounts_of_means(values: &mut [MeterValue], errors: &mut Vec<RowError>) {
    let mut times: BTreeMap<_, BTreeMap<i64, Option<i64>>> = BTreeMap::new();
    for value in values.iter() {
        let since = value.refused_since.map(|ts| ts.0);
        times.entry(value.amount.slot()).or_default().entry(value.ts.0).or_insert(since);
    }
    let known: BTreeMap<_, BTreeMap<i64, Option<i64>>> = times
        .into_iter()
        .map(|(slot, times)| {
            let times: Vec<(i64, Option<i64>)> = times.into_iter().collect();
            let lengths = lengths(&times);
            (slot, times.into_iter().map(|(ts, _)| ts).zip(lengths).collect())
        })
        .collect();
    for value in values.iter_mut().filter(|value| value.is_mean) {
        value.is_mean = false;
        let by_times = || *known.get(&value.amount.slot())?.get(&value.ts.0)?;
        let length = value.length_ms.or_else(by_times);
        let amount = length.and_then(|length| {
            value.amount.of_hours(Decimal::from(length).checked_div(Decimal::from(HOUR_MS))?)
        });
        match amount {
            Some(amount) => (value.amount, value.length_ms) = (amount, length),
            None if value.amount.is_missing() => {}
            None => {
                errors.push(RowError::new(
                    value.line,
                    RowFault::Time,
                    "nothing tells how long the interval of its mean is; say --interval, such as --interval 30m",
                ));
                value.amount = value.amount.missing().unwrap_or(value.amount);
            }
        }
    }
}
