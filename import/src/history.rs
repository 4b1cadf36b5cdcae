//! What is known of a meter's intervals, and the readings that follow from it.

use std::collections::{BTreeMap, BTreeSet};

use galerna_model::{BadReading, Measurement, ParameterCode, SourceId, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::error::{RowError, RowFault};
use crate::number::float;
use crate::row::{Amount, MeterValue};
use crate::units::Series;

mod chunks;
mod derived;

/// Times are kept in chunks of so many milliseconds, so that a week more costs the writing of a week.
const CHUNK_MS: i64 = 7 * 86_400_000;
/// Version 1 did not know of refused rows between times.
const VERSION: u8 = 2;
const OLDEST: u8 = 1;
const MILLIS_OF_HOUR: i64 = 3_600_000;

/// Validates what is to be stored, as the store's side will.
pub trait Check {
    /// Whether a reading may have this time.
    ///
    /// # Errors
    /// Why not.
    fn time(&self, ts: Timestamp) -> Result<(), BadReading>;

    /// Whether a reading may have these values.
    ///
    /// # Errors
    /// Why not.
    fn values(&self, values: &[Measurement]) -> Result<(), BadReading>;
}

/// What is known of the intervals of one meter, and the readings that follow from it.
///
/// The readings are a function of what is known, not of the order in which it came: whichever of two overlapping files is
/// added first, the counters are those of one file that has all rows. What a file adds before or among what is known moves the
/// counters after it; those readings are made anew.
///
/// ```
/// use galerna_import::{History, Import, Options};
/// use galerna_model::SourceId;
///
/// let source = SourceId::new("A").unwrap();
/// let file = |rows: &str| {
///     let text = format!("account,meter_id,utility,ts,value,unit\n{rows}");
///     Import::open(text.into(), &Options::default()).unwrap().meters().values.into_values().next().unwrap()
/// };
/// let october = file("A,m,electricity,2026-10-31T22:00:00Z,1,kWh\nA,m,electricity,2026-10-31T23:00:00Z,2,kWh\n");
/// let november = file("A,m,electricity,2026-11-01T00:00:00Z,4,kWh\n");
///
/// let mut history = History::default();
/// history.add(&source, &october, &());
/// let added = history.add(&source, &november, &());
/// assert_eq!(added.readings[0].values[0].v, 7.0, "the counter goes on");
/// let again = history.add(&source, &november, &());
/// assert_eq!((again.known, again.readings), (1, added.readings), "it is known and adds nothing");
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    series: BTreeMap<Series, BTreeMap<i64, Interval>>,
    values: BTreeMap<ParameterCode, BTreeMap<i64, (f64, u16)>>,
    /// Counters that others stored.
    stored: BTreeMap<ParameterCode, BTreeMap<i64, f64>>,
    sources: Vec<SourceId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Interval {
    #[serde(with = "rust_decimal::serde::str_option")]
    import: Option<Decimal>,
    #[serde(with = "rust_decimal::serde::str_option")]
    export: Option<Decimal>,
    length: Option<i64>,
    usual: Option<i64>,
    source: u16,
    /// The time before, where rows between the two were refused whose times are not known.
    #[serde(default)]
    refused_since: Option<i64>,
}

impl Interval {
    fn net(&self) -> Option<Decimal> {
        match (self.import, self.export) {
            (None, None) => None,
            (import, export) => Some(import.unwrap_or_default() - export.unwrap_or_default()),
        }
    }
}

/// A reading of the meter.
#[derive(Debug, Clone, PartialEq)]
pub struct MeterReading {
    /// When.
    pub ts: Timestamp,
    /// The source that it is published as.
    pub source: SourceId,
    /// What.
    pub values: Vec<Measurement>,
}

/// A counter that others stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoredValue {
    /// When.
    pub ts: Timestamp,
    /// Which.
    pub parameter: ParameterCode,
    /// How it stood.
    pub value: f64,
}

/// A value that differs from what was known of its time. The new one is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Correction {
    /// The line that corrects.
    pub line: u64,
    /// The time.
    pub ts: Timestamp,
    /// The counter, or the value's parameter.
    pub parameter: ParameterCode,
    /// What the interval's amount, or the value, was.
    pub before: f64,
    /// What it is.
    pub after: f64,
}

/// What adding values did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Added {
    /// Readings of the values, known ones too (what became of them is not known here), and those that changed with them. In
    /// the order of their times.
    pub readings: Vec<MeterReading>,
    /// Those of them that were made before, of intervals that are not among the values: their counters moved.
    pub revised: u64,
    /// Values that cannot be stored.
    pub errors: Vec<RowError>,
    /// Values that were known.
    pub known: u64,
    /// Values at whose time others stored the counter.
    pub stored: u64,
    /// Values that differ from what was known.
    pub corrections: Vec<Correction>,
    /// New values of which no mean power can be told, because nothing tells how long their interval is.
    pub without_length: u64,
    /// The times of those of the readings that are new or differ from what they were.
    pub changed: BTreeSet<Timestamp>,
}

/// Kept history that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// Written by a later build.
    #[error("the history has version {0}, this build reads version {VERSION}; upgrade")]
    Version(u8),
    /// Broken.
    #[error("the history is broken: {0}")]
    Broken(String),
}

/// A point that adding changed, and what it was.
struct Touched {
    line: u64,
    series: Series,
    before: Option<Interval>,
}

type ReadingKey = (i64, u16);

impl History {
    fn source(&mut self, source: &SourceId) -> u16 {
        let at = self.sources.iter().position(|known| known == source).unwrap_or_else(|| {
            self.sources.push(source.clone());
            self.sources.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    /// The first and the last time of those values whose time is not known yet: where to look for what others stored.
    pub fn new_times(&self, values: &[MeterValue]) -> Option<(Timestamp, Timestamp)> {
        let new = values.iter().filter(|value| {
            !value.amount.is_missing()
                && match value.amount {
                    Amount::Value(parameter, _) | Amount::MissingValue(parameter) => {
                        !self.values.get(&parameter).is_some_and(|points| points.contains_key(&value.ts.0))
                    }
                    Amount::Net(series, _)
                    | Amount::Import(series, _)
                    | Amount::Export(series, _)
                    | Amount::Missing(series) => {
                        !self.series.get(&series).is_some_and(|points| points.contains_key(&value.ts.0))
                    }
                }
        });
        let times: BTreeSet<Timestamp> = new.map(|value| value.ts).collect();
        Some((*times.first()?, *times.last()?))
    }

    /// The counters of a series of this history.
    pub fn counters(values: &[MeterValue]) -> BTreeSet<ParameterCode> {
        let series = values.iter().filter_map(|value| match value.amount {
            Amount::Net(series, _) | Amount::Import(series, _) | Amount::Export(series, _) => Some(series),
            _ => None,
        });
        series.flat_map(|series| [Some(series.counter()), series.export()]).flatten().collect()
    }

    /// Takes what the store has of the meter's counters. What this history made itself is left out; the counters of the
    /// others go before: what is added later goes on from them.
    pub fn know_stored(&mut self, stored: impl IntoIterator<Item = StoredValue>) {
        for StoredValue { ts, parameter, value } in stored {
            let own = self.series.iter().any(|(series, points)| {
                let point = points.get(&ts.0);
                (series.counter() == parameter && point.is_some_and(|p| p.import.is_some()))
                    || (series.export() == Some(parameter) && point.is_some_and(|p| p.export.is_some()))
            });
            if !own {
                self.stored.entry(parameter).or_default().insert(ts.0, value);
            }
        }
    }

    /// Adds values, which [`crate::Import::meters`] put in order.
    pub fn add(&mut self, source: &SourceId, values: &[MeterValue], check: &impl Check) -> Added {
        let mut added = Added::default();
        let before = self.readings();
        let place = self.source(source);
        let mut touched: BTreeMap<i64, Vec<Touched>> = BTreeMap::new();
        let mut touched_values: BTreeSet<i64> = BTreeSet::new();
        for value in values {
            if let Err(problem) = check.time(value.ts) {
                if !value.amount.is_missing() {
                    added.errors.push(RowError::new(value.line, RowFault::Unstorable, problem));
                }
                continue;
            }
            match value.amount {
                Amount::Value(parameter, amount) => {
                    let measured = [Measurement { p: parameter, v: amount }];
                    if let Err(problem) = check.values(&measured) {
                        added.errors.push(RowError::new(value.line, RowFault::Unstorable, problem));
                        continue;
                    }
                    let points = self.values.entry(parameter).or_default();
                    match points.insert(value.ts.0, (amount, place)) {
                        Some((known, owner)) if known.to_bits() == amount.to_bits() => {
                            points.insert(value.ts.0, (known, owner));
                            added.known += 1;
                        }
                        Some((known, owner)) => {
                            points.insert(value.ts.0, (amount, owner));
                            let (line, ts) = (value.line, value.ts);
                            added.corrections.push(Correction {
                                line,
                                ts,
                                parameter,
                                before: known,
                                after: amount,
                            });
                            touched_values.insert(value.ts.0);
                        }
                        None => drop(touched_values.insert(value.ts.0)),
                    }
                }
                Amount::MissingValue(_) => {}
                Amount::Net(series, _)
                | Amount::Import(series, _)
                | Amount::Export(series, _)
                | Amount::Missing(series) => {
                    if let Some(change) = self.take(series, value, place, check, &mut added) {
                        touched.entry(value.ts.0).or_default().push(change);
                    }
                }
            }
        }
        let after = self.checked(&mut touched, check, &mut added);
        let given = values.iter().filter(|value| !value.amount.is_missing()).map(|value| value.ts.0);
        let given: BTreeSet<i64> = given.collect();
        for (key, reading) in after {
            let (ts, source) = key;
            let same = before.get(&key) == Some(&reading);
            if same && !given.contains(&ts) {
                continue;
            }
            let new = touched.contains_key(&ts) || touched_values.contains(&ts);
            if !same {
                added.changed.insert(Timestamp(ts));
            }
            added.revised += u64::from(!same && !new && before.contains_key(&key));
            if let Some(source) = self.sources.get(usize::from(source)) {
                let (ts, source) = (Timestamp(ts), source.clone());
                added.readings.push(MeterReading { ts, source, values: reading });
            }
        }
        added.errors.sort_by_key(|error| error.line);
        added
    }

    /// The readings of these times, as they follow from what is known.
    pub fn readings_at(&self, times: &BTreeSet<Timestamp>) -> Vec<MeterReading> {
        if times.is_empty() {
            return Vec::new();
        }
        let made = self.readings().into_iter().filter_map(|((ts, source), values)| {
            let source = self.sources.get(usize::from(source))?.clone();
            Some(MeterReading { ts: Timestamp(ts), source, values })
        });
        made.filter(|reading| times.contains(&reading.ts)).collect()
    }

    /// Takes the amount of an interval; tells what it changed.
    fn take(
        &mut self,
        series: Series,
        value: &MeterValue,
        source: u16,
        check: &impl Check,
        added: &mut Added,
    ) -> Option<Touched> {
        let ts = value.ts.0;
        let by_others = |history: &Self, code: ParameterCode| {
            history.stored.get(&code).is_some_and(|points| points.contains_key(&ts))
        };
        let counter = match value.amount {
            Amount::Export(..) => series.export().unwrap_or(series.counter()),
            _ => series.counter(),
        };
        if by_others(self, counter) {
            added.stored += u64::from(!value.amount.is_missing());
            return None;
        }
        let before = self.series.get(&series).and_then(|points| points.get(&ts)).copied();
        let mut interval = before.unwrap_or(Interval {
            import: None,
            export: None,
            length: None,
            usual: value.usual_ms,
            source,
            refused_since: None,
        });
        match value.amount {
            Amount::Net(_, net) if net.is_sign_negative() && !net.is_zero() => {
                (interval.import, interval.export) = (Some(Decimal::ZERO), Some(-net));
            }
            Amount::Net(_, net) => {
                interval.import = Some(net);
                // An export counter that was told of once stays told of.
                interval.export = interval.export.map(|_| Decimal::ZERO);
            }
            Amount::Import(_, amount) => interval.import = Some(amount),
            Amount::Export(_, amount) => interval.export = Some(amount),
            _ => {}
        }
        interval.length = value.length_ms.or(interval.length);
        let since = value.refused_since.map(|ts| ts.0);
        interval.refused_since = match value.amount {
            // Beside the row of what was used.
            Amount::Export(..) => since.or(interval.refused_since),
            _ => since,
        };
        let alone = |code: ParameterCode, amount: Option<Decimal>| {
            amount.map(|amount| Measurement { p: code, v: float(amount) })
        };
        let alone: Vec<Measurement> = [
            alone(series.counter(), interval.import),
            series.export().and_then(|code| alone(code, interval.export)),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !alone.is_empty()
            && let Err(problem) = check.values(&alone)
        {
            added.errors.push(RowError::new(value.line, RowFault::Unstorable, problem));
            // That something was measured then tells how long the intervals around it are.
            let missing = Interval { import: None, export: None, ..interval };
            self.series.entry(series).or_default().entry(ts).or_insert(missing);
            return None;
        }
        let changed = before != Some(interval);
        if changed {
            self.series.entry(series).or_default().insert(ts, interval);
        }
        if value.amount.is_missing() {
            return None;
        }
        let told = |interval: &Interval| match value.amount {
            Amount::Import(..) => interval.import,
            Amount::Export(..) => interval.export,
            _ => interval.net(),
        };
        match before.and_then(|before| told(&before)).zip(told(&interval)) {
            Some((known, new)) if known == new => {
                added.known += 1;
                return None;
            }
            Some((known, new)) => added.corrections.push(Correction {
                line: value.line,
                ts: value.ts,
                parameter: counter,
                before: float(known),
                after: float(new),
            }),
            None => {}
        }
        Some(Touched { line: value.line, series, before })
    }

    /// The readings, after what cannot be stored was taken back.
    fn checked(
        &mut self,
        touched: &mut BTreeMap<i64, Vec<Touched>>,
        check: &impl Check,
        added: &mut Added,
    ) -> BTreeMap<ReadingKey, Vec<Measurement>> {
        loop {
            let (readings, without_length) = self.readings_and_lengths();
            let mut wrong: Vec<(i64, String, bool)> = Vec::new();
            for ts in touched.keys() {
                for ((_, _), values) in readings.range((*ts, 0)..=(*ts, u16::MAX)) {
                    let Err(problem) = check.values(values) else { continue };
                    // A rate is of its interval alone; a counter may be too high because of an interval before.
                    let of_its_own = values.iter().any(|m| {
                        let rate =
                            self.series.keys().any(|series| series.rate().is_some_and(|(p, _)| p == m.p));
                        rate && check.values(&[*m]).is_err()
                    });
                    wrong.push((*ts, problem.reason, of_its_own));
                }
            }
            wrong.extend(self.above_stored(touched));
            if wrong.is_empty() {
                added.without_length =
                    without_length.iter().filter(|ts| touched.contains_key(ts)).count() as u64;
                return readings;
            }
            let some_of_their_own = wrong.iter().any(|(.., own)| *own);
            wrong.sort_by_key(|(ts, ..)| *ts);
            let first = wrong[0].0;
            for (ts, problem, own) in wrong {
                if some_of_their_own && !own || !some_of_their_own && ts != first {
                    continue;
                }
                for change in touched.remove(&ts).unwrap_or_default() {
                    let points = self.series.entry(change.series).or_default();
                    if let Some(point) = points.get_mut(&ts) {
                        *point = change.before.unwrap_or(Interval { import: None, export: None, ..*point });
                    }
                    added.corrections.retain(|correction| correction.line != change.line);
                    added.errors.push(RowError::new(change.line, RowFault::Unstorable, problem.clone()));
                }
            }
        }
    }
}

/// Takes everything.
impl Check for () {
    fn time(&self, _: Timestamp) -> Result<(), BadReading> {
        Ok(())
    }

    fn values(&self, _: &[Measurement]) -> Result<(), BadReading> {
        Ok(())
    }
}
