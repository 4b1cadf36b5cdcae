//! From a record to its values.

use galerna_model::{AccountId, Timestamp};
use jiff::civil::Date;

use super::{Layout, Placed, Source, Times};
use crate::error::{RowError, RowFault, shown};
use crate::mapping::{Direction, Edge};
use crate::number::{DecimalMark, Number};
use crate::row::{self, Amount, MeterValue, Row};
use crate::times::{self, Occurrence, Stamp, parse_length};
use crate::units::{Measure, Series, Target, measure};

impl Layout {
    /// Reads a record: its values, or what is wrong with it and with each of them.
    pub(crate) fn read(
        &mut self,
        line: u64,
        record: &csv::StringRecord,
        into: &mut Vec<Result<Row, RowError>>,
    ) {
        if record.iter().all(|field| field.trim().is_empty()) {
            return;
        }
        // Files that were put one behind the other repeat the header.
        if record.len() == self.header.len()
            && record.iter().zip(&self.header).all(|(field, name)| field.trim() == name)
        {
            return;
        }
        if let Err(error) = self.read_fields(line, record, into) {
            into.push(Err(error));
        }
    }

    fn read_fields(
        &mut self,
        line: u64,
        record: &csv::StringRecord,
        into: &mut Vec<Result<Row, RowError>>,
    ) -> Result<(), RowError> {
        let width = self.header.len();
        let too_many = record.iter().skip(width).any(|field| !field.trim().is_empty());
        if too_many || record.len() < self.needed {
            let found = format!("{} fields, the header has {width}", record.len());
            let hint = if too_many { "; a field that holds the separator needs quotes" } else { "" };
            return Err(RowError::new(line, RowFault::Fields, found + hint));
        }
        if self.skip.iter().any(|(at, kinds)| kinds.has(self.field(record, *at))) {
            self.skipped += 1;
            return Ok(());
        }
        let account = self.account(line, record)?;
        let meter = self.meter.of(record).unwrap_or_default();
        let checked = if self.values.iter().all(|value| value.meter.is_some()) && self.grids.is_empty() {
            // The columns name the meters, and were checked with the header.
            Ok(())
        } else {
            row::meter(meter)
        };
        checked.map_err(|problem| {
            let column = match &self.meter {
                Source::Column(at, _) => self.name(*at),
                _ => "the meter".to_owned(),
            };
            RowError::new(line, RowFault::Meter, format!("{column} {problem}"))
        })?;
        let meter = meter.to_owned();
        let row = |value| Row { account: account.clone(), meter: meter.clone(), value };
        if let Times::Grid { date, date_format } = &self.times {
            let date = times::parse_date(self.field(record, *date), date_format)
                .map_err(|problem| RowError::new(line, RowFault::Time, problem))?;
            for at in 0..self.grids.len() {
                self.read_grid(line, record, at, date, &row, into);
            }
            return Ok(());
        }
        let mut of_kind = false;
        for at in 0..self.values.len() {
            if let Some((column, kinds)) = &self.values[at].when
                && !kinds.has(self.field(record, *column))
            {
                continue;
            }
            of_kind = true;
            let of_column = self.values[at].meter.clone();
            match self.read_value(line, record, at, of_column.as_deref().unwrap_or(&meter)) {
                Ok(Some(value)) => into.push(Ok(match of_column {
                    Some(meter) => Row { account: account.clone(), meter, value },
                    None => row(value),
                })),
                Ok(None) => {}
                Err(error) => into.push(Err(error)),
            }
        }
        if of_kind { Ok(()) } else { Err(self.unknown_kind(line, record)) }
    }

    fn unknown_kind(&self, line: u64, record: &csv::StringRecord) -> RowError {
        let whens: Vec<_> = self.values.iter().filter_map(|value| value.when.as_ref()).collect();
        let column = whens.first().map_or(0, |when| when.0);
        let known: Vec<String> =
            whens.iter().flat_map(|(_, kinds)| kinds.iter().map(|kind| format!("`{kind}`"))).collect();
        let found = format!(
            "{} is `{}`, and the mapping reads {}; name it in a `[[value]]` or a `[[skip]]`",
            self.name(column),
            shown(self.field(record, column)),
            known.join(", ")
        );
        RowError::new(line, RowFault::Kind, found)
    }

    fn account(&mut self, line: u64, record: &csv::StringRecord) -> Result<AccountId, RowError> {
        let name = self.account.of(record).unwrap_or_default();
        match &self.account_before {
            Some(before) if before.as_str() == name => Ok(before.clone()),
            _ => {
                let wrong = |problem: String| {
                    RowError::new(line, RowFault::Account, format!("account is wrong: {problem}"))
                };
                row::not_rounded(name).map_err(|problem| wrong(format!("it {problem}")))?;
                let account = AccountId::for_customer(name).map_err(|problem| wrong(problem.to_string()))?;
                self.account_before = Some(account.clone());
                Ok(account)
            }
        }
    }

    fn read_value(
        &mut self,
        line: u64,
        record: &csv::StringRecord,
        at: usize,
        meter: &str,
    ) -> Result<Option<MeterValue>, RowError> {
        let text = self.field(record, self.values[at].at);
        let optional = self.values.len() > 1 && self.values[at].when.is_none();
        let measure = self.measure(line, record, at)?;
        let (ts, length_ms) = self.time(line, record, at, meter)?;
        let column = self.values[at].at;
        let meaning = &self.values[at].meaning;
        let amount = if text.is_empty() {
            // A column beside others that says nothing in this row.
            if optional && meaning.direction == Direction::Export {
                return Ok(None);
            }
            missing(measure.target)
        } else {
            amount(text, self.mark, measure, meaning.direction).map_err(|problem| {
                RowError::new(line, RowFault::Value, format!("{} {problem}", self.name(column)))
            })?
        };
        Ok(Some(MeterValue { line, ts, amount, length_ms, usual_ms: self.usual_ms }))
    }

    fn measure(&mut self, line: u64, record: &csv::StringRecord, at: usize) -> Result<Measure, RowError> {
        let meaning = &self.values[at].meaning;
        if let Some(measure) = meaning.measure {
            return Ok(measure);
        }
        let utility = meaning.utility.of(record).unwrap_or_default();
        let unit = meaning.unit.of(record).unwrap_or_default();
        let kind = meaning.kind;
        // A file has few units, and a row is read in less time than it takes to find one.
        let known = self.measures.entry((at, utility.to_owned(), unit.to_owned()));
        let measure = known.or_insert_with(|| measure(utility, unit, kind));
        measure.clone().map_err(|problem| RowError::new(line, RowFault::Unit, format!("utility {problem}")))
    }

    pub(super) fn placed(&self, record: &csv::StringRecord) -> Result<Placed, String> {
        let edge = self.edge;
        let end_of = |start: Stamp, end: Stamp| -> Result<i64, String> {
            let (start, end) = match (start, end) {
                (Stamp::Instant(a), Stamp::Instant(b)) => (a, b),
                (Stamp::Local(_), Stamp::Local(_)) => {
                    // The end may be a local time that occurs twice; its distance from the start tells which.
                    let Stamp::Local(a) = start else { return Err(String::new()) };
                    let Stamp::Local(b) = end else { return Err(String::new()) };
                    let ms = a.duration_until(b).as_millis();
                    (0, i64::try_from(ms).unwrap_or(0))
                }
                _ => {
                    return Err(
                        "the start has an offset and the end has none, or the other way round".to_owned()
                    );
                }
            };
            let length = end - start + self.end_inclusive_ms;
            if length > 0 { Ok(length) } else { Err("the end is not after the start".to_owned()) }
        };
        match &self.times {
            Times::One { at, format, end } => {
                let stamp = times::parse(self.field(record, *at), format)
                    .map_err(|problem| format!("{} is wrong: {problem}", self.name(*at)))?;
                let Some(end) = end else { return Ok(Placed { stamp, edge, length: None }) };
                let ended = times::parse(self.field(record, *end), format)
                    .map_err(|problem| format!("{} is wrong: {problem}", self.name(*end)))?;
                Ok(Placed { stamp, edge: Edge::Start, length: Some(end_of(stamp, ended)?) })
            }
            Times::Clock { date, date_format, clock, clock_format, end } => {
                let date = times::parse_date(self.field(record, *date), date_format)?;
                let at = |column: usize| {
                    let (time, next_day) = times::parse_clock(self.field(record, column), clock_format)?;
                    let date = if next_day { date.tomorrow().map_err(|e| e.to_string())? } else { date };
                    Ok::<_, String>(Stamp::Local(date.to_datetime(time)))
                };
                let stamp = at(*clock)?;
                let Some(end) = end else { return Ok(Placed { stamp, edge, length: None }) };
                Ok(Placed { stamp, edge: Edge::Start, length: Some(end_of(stamp, at(*end)?)?) })
            }
            Times::Hour { date, date_format, hour } => {
                const HOUR_MS: i64 = 3_600_000;
                let date = times::parse_date(self.field(record, *date), date_format)?;
                let text = self.field(record, *hour);
                let (start, length) = self.zone.day(date)?;
                let hours = length / HOUR_MS;
                let hour =
                    text.parse::<i64>().ok().filter(|hour| (1..=hours).contains(hour)).ok_or_else(|| {
                        format!("hour `{}` is not one of the {hours} hours of {date}, from 1", shown(text))
                    })?;
                Ok(Placed {
                    stamp: Stamp::Instant(start + hour * HOUR_MS),
                    edge: Edge::End,
                    length: Some(HOUR_MS),
                })
            }
            Times::Grid { .. } => Err("a grid has no single time".to_owned()),
        }
    }

    /// The end of a row's interval, and the interval's length where the row, an option or the mapping says it.
    fn time(
        &mut self,
        line: u64,
        record: &csv::StringRecord,
        value: usize,
        meter: &str,
    ) -> Result<(Timestamp, Option<i64>), RowError> {
        let wrong = |problem: String| RowError::new(line, RowFault::Time, problem);
        let Placed { stamp, edge, length } = self.placed(record).map_err(wrong)?;
        let told = match self.interval.of(record) {
            Some(text) => Some(parse_length(text).map_err(|problem| wrong(format!("interval {problem}")))?),
            None => None,
        };
        let length = length.or(told);
        let (from, after) = match (stamp, edge, length) {
            (stamp, Edge::Start, Some(length)) => (stamp, length),
            // The interval before the clock goes forward ends at a time that the clock leaves out.
            (Stamp::Local(end), Edge::End, Some(length)) if self.zone.is_left_out(end) => {
                let start = end
                    .checked_sub(jiff::SignedDuration::from_millis(length))
                    .map_err(|e| wrong(e.to_string()))?;
                if self.zone.is_left_out(start) { (stamp, 0) } else { (Stamp::Local(start), length) }
            }
            (stamp, ..) => (stamp, 0),
        };
        let occurrence = self.occurrence(from, value, meter);
        let ms = self
            .zone
            .instant(from, occurrence)
            .map_err(|problem| wrong(format!("ts is wrong: {problem}")))?;
        Ok((Timestamp(ms.saturating_add(after)), length))
    }

    fn occurrence(&mut self, stamp: Stamp, value: usize, meter: &str) -> Option<Occurrence> {
        let Stamp::Local(local) = stamp else { return None };
        if !self.takes_order() || !self.zone.occurs_twice(local) {
            return None;
        }
        let times = self.occurrences.entry((meter.to_owned(), value, local)).or_default();
        *times = times.saturating_add(1);
        match (*times, self.newest_first) {
            (1, false) | (2, true) => Some(Occurrence::First),
            (2, false) | (1, true) => Some(Occurrence::Second),
            _ => None,
        }
    }

    fn read_grid(
        &self,
        line: u64,
        record: &csv::StringRecord,
        at: usize,
        date: Date,
        row: &impl Fn(MeterValue) -> Row,
        into: &mut Vec<Result<Row, RowError>>,
    ) {
        let grid = &self.grids[at];
        let meaning = &grid.meaning;
        if grid.is_empty(record) {
            return;
        }
        let measure = match meaning.measure {
            Some(measure) => Ok(measure),
            None => {
                let utility = meaning.utility.of(record).unwrap_or_default();
                let unit = meaning.unit.of(record).unwrap_or_default();
                measure(utility, unit, meaning.kind)
                    .map_err(|problem| RowError::new(line, RowFault::Unit, format!("utility {problem}")))
            }
        };
        let measure = match measure {
            Ok(measure) => measure,
            Err(error) => return into.push(Err(error)),
        };
        let day = match grid.day(date, &self.zone) {
            Ok(day) => day,
            Err(problem) => return into.push(Err(RowError::new(line, RowFault::Time, problem))),
        };
        for cell in grid.cells() {
            let text = self.field(record, cell.at);
            let ts = match grid.time(&day, cell, &self.zone) {
                Ok(ts) => ts,
                // A cell that the day does not have.
                Err(_) if text.is_empty() => continue,
                Err(problem) => {
                    let found = format!("{}: {problem}", shown(&self.header[cell.at]));
                    into.push(Err(RowError::new(line, RowFault::Time, found)));
                    continue;
                }
            };
            let amount = if text.is_empty() {
                Ok(missing(measure.target))
            } else {
                amount(text, self.mark, measure, meaning.direction)
            };
            into.push(match amount {
                Ok(amount) => {
                    let length_ms = Some(grid.every_ms);
                    Ok(row(MeterValue { line, ts, amount, length_ms, usual_ms: None }))
                }
                Err(problem) => {
                    let found = format!("{} {problem}", shown(&self.header[cell.at]));
                    Err(RowError::new(line, RowFault::Value, found))
                }
            });
        }
    }
}

fn missing(target: Target) -> Amount {
    match target {
        Target::Interval(series) => Amount::Missing(series),
        Target::Value(parameter) => Amount::MissingValue(parameter),
    }
}

/// What a text measures.
pub(crate) fn amount(
    text: &str,
    mark: DecimalMark,
    measure: Measure,
    direction: Direction,
) -> Result<Amount, String> {
    let number = Number::parse(text, mark)?;
    let series = match measure.target {
        Target::Value(parameter) => {
            let value = number.times(measure.factor);
            return match (direction, Series::of_counter(parameter)) {
                // What was exported has a counter of its own; a rate is negative then.
                (Direction::Export, Some(series)) => match series.export() {
                    Some(counter) => Ok(Amount::Value(counter, value)),
                    None => Err(format!("`{}` is given back, and of {parameter} nothing is", shown(text))),
                },
                (Direction::Export, None) => Ok(Amount::Value(parameter, -value)),
                (Direction::Net | Direction::Import, _) => Ok(Amount::Value(parameter, value)),
            };
        }
        Target::Interval(series) => series,
    };
    let amount = number
        .amount(measure.factor)
        .ok_or_else(|| format!("`{}` is out of range for an interval", shown(text)))?;
    match direction {
        Direction::Net if amount.is_sign_negative() && series.export().is_none() => {
            Err(format!("`{}` is negative, and of {} nothing is given back", shown(text), series.counter()))
        }
        Direction::Net => Ok(Amount::Net(series, amount)),
        Direction::Import | Direction::Export if amount.is_sign_negative() && !amount.is_zero() => {
            Err(format!("`{}` is negative in a column of its own direction", shown(text)))
        }
        Direction::Import => Ok(Amount::Import(series, amount)),
        Direction::Export if series.export().is_none() => {
            Err(format!("`{}` is given back, and of {} nothing is", shown(text), series.counter()))
        }
        Direction::Export => Ok(Amount::Export(series, amount)),
    }
}
