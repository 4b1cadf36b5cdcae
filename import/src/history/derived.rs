//! The readings that follow from a history, and which of its intervals do not fit to what others stored.

use std::collections::{BTreeMap, BTreeSet};

use galerna_model::{Measurement, Timestamp};
use rust_decimal::Decimal;

use super::{History, MILLIS_OF_HOUR, ReadingKey, Touched};
use crate::lengths::lengths;
use crate::number::{float, float_15};

impl History {
    /// Intervals that were added before a counter that others stored, and do not fit below it.
    pub(super) fn above_stored(&self, touched: &BTreeMap<i64, Vec<Touched>>) -> Vec<(i64, String, bool)> {
        let mut wrong = Vec::new();
        for (series, points) in &self.series {
            let Some(stored) = self.stored.get(&series.counter()) else { continue };
            let mut sum = None;
            let mut waiting: Vec<i64> = Vec::new();
            let mut times: Vec<i64> = points.keys().chain(stored.keys()).copied().collect();
            times.sort_unstable();
            for ts in times {
                if let Some(value) = stored.get(&ts) {
                    let fits = sum.is_some_and(|sum: f64| sum <= value + value.abs() * 1e-9);
                    if !fits {
                        let problem = format!(
                            "the store has {} = {value} at {} of another sender, and the counter before it is not known to go on to that",
                            series.counter(),
                            Timestamp(ts)
                        );
                        wrong.extend(waiting.iter().map(|ts| (*ts, problem.clone(), true)));
                    }
                    waiting.clear();
                    sum = Some(*value);
                    continue;
                }
                let Some(import) = points.get(&ts).and_then(|point| point.import) else { continue };
                let new = touched
                    .get(&ts)
                    .is_some_and(|changes| changes.iter().any(|change| change.series == *series));
                sum = match sum {
                    Some(sum) => Some(sum + float(import)),
                    // What was published before the others came began at nothing.
                    None if !new => Some(float(import)),
                    None => None,
                };
                if new {
                    waiting.push(ts);
                }
            }
        }
        wrong
    }

    pub(super) fn readings(&self) -> BTreeMap<ReadingKey, Vec<Measurement>> {
        self.readings_and_lengths().0
    }

    /// All readings that follow, and the times of intervals whose mean rate is not known.
    pub(super) fn readings_and_lengths(&self) -> (BTreeMap<ReadingKey, Vec<Measurement>>, BTreeSet<i64>) {
        let mut readings: BTreeMap<ReadingKey, Vec<Measurement>> = BTreeMap::new();
        let mut without = BTreeSet::new();
        let none = BTreeMap::new();
        for (series, points) in &self.series {
            let (counter, export, rate) = (series.counter(), series.export(), series.rate());
            let stored = self.stored.get(&counter).unwrap_or(&none);
            let stored_export = export.and_then(|code| self.stored.get(&code)).unwrap_or(&none);
            let times: BTreeSet<i64> = points.keys().chain(stored.keys()).copied().collect();
            let times: Vec<i64> = times.into_iter().collect();
            let since = |ts: &i64| points.get(ts).and_then(|point| point.refused_since);
            let lengths = lengths(&times.iter().map(|ts| (*ts, since(ts))).collect::<Vec<_>>());
            let (mut imported, mut exported) = (Decimal::ZERO, Decimal::ZERO);
            let mut stored_exports = stored_export.iter().peekable();
            for (ts, length) in times.iter().zip(lengths) {
                while let Some((_, value)) = stored_exports.next_if(|(at, _)| *at <= ts) {
                    exported = decimal(*value).unwrap_or(exported);
                }
                if let Some(value) = stored.get(ts) {
                    imported = decimal(*value).unwrap_or(imported);
                }
                let Some(interval) = points.get(ts) else { continue };
                let Some(net) = interval.net() else { continue };
                let values = readings.entry((*ts, interval.source)).or_default();
                if let Some(import) = interval.import {
                    imported += import;
                    values.push(Measurement { p: counter, v: float_15(imported) });
                }
                let usual = interval.usual.filter(|_| times.len() == 1);
                match (rate, interval.length.or(length).or(usual)) {
                    (Some((code, factor)), Some(length)) => {
                        let hours = Decimal::from(length) / Decimal::from(MILLIS_OF_HOUR);
                        let rate = net.checked_mul(factor).and_then(|amount| amount.checked_div(hours));
                        values.extend(rate.map(|rate| Measurement { p: code, v: float_15(rate) }));
                    }
                    (Some(_), None) => drop(without.insert(*ts)),
                    (None, _) => {}
                }
                if let Some((code, amount)) = export.zip(interval.export) {
                    exported += amount;
                    values.push(Measurement { p: code, v: float_15(exported) });
                }
            }
        }
        for (parameter, points) in &self.values {
            for (ts, (value, source)) in points {
                let values = readings.entry((*ts, *source)).or_default();
                // What was measured goes before what follows from other values.
                match values.iter_mut().find(|m| m.p == *parameter) {
                    Some(known) => known.v = *value,
                    None => values.push(Measurement { p: *parameter, v: *value }),
                }
            }
        }
        (readings, without)
    }
}

/// The decimal that a float's shortest text is.
fn decimal(value: f64) -> Option<Decimal> {
    let text = format!("{value}");
    text.parse().ok()
}
