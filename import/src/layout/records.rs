//! From a record to its values.

use galerna_model::{AccountId, Timestamp};
use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};

use super::meaning::measure_of;
use super::{Layout, Placed, Source, Times, Value};
use crate::error::{Place, PlaceTime, RowError, RowFault, shown};
use crate::mapping::{Direction, Edge, ValueKind};
use crate::number::{DecimalMark, Number};
use crate::row::{self, Amount, MeterValue, Row};
use crate::times::{self, Occurrence, Stamp, TimeFormat, parse_length};
use crate::units::{Measure, Series, Target};

/// Intervals are of so many milliseconds, or some times as many.
const ROUND_MS: i64 = 5 * 60_000;

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
            if !self.is_of_kind(&self.values[at], record) {
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
                Err(mut error) => {
                    let meter = of_column.unwrap_or_else(|| meter.clone());
                    let time = error.place.and_then(|place| place.time);
                    error.place = Some(Box::new(Place { meter: Some((account.clone(), meter)), time }));
                    into.push(Err(error));
                }
            }
        }
        if of_kind { Ok(()) } else { Err(self.unknown_kind(line, record)) }
    }

    /// Whether a record is of the kind that a value is read of.
    pub(super) fn is_of_kind(&self, value: &Value, record: &csv::StringRecord) -> bool {
        value.when.iter().all(|(column, kinds)| kinds.has(self.field(record, *column)))
    }

    fn unknown_kind(&self, line: u64, record: &csv::StringRecord) -> RowError {
        let is =
            |(column, kinds): &(usize, crate::mapping::OneOrMore)| kinds.has(self.field(record, *column));
        // Of each value the first that is not as it was asked for.
        let asked = self.values.iter().filter_map(|value| {
            let met = value.when.iter().take_while(|when| is(when)).count();
            value.when.get(met).map(|when| (met, when))
        });
        let asked: Vec<_> = asked.collect();
        let most = asked.iter().map(|(met, _)| *met).max();
        let column = asked.iter().find(|(met, _)| Some(*met) == most).map_or(0, |(_, when)| when.0);
        let mut known: Vec<String> = Vec::new();
        for (_, (_, kinds)) in asked.iter().filter(|(met, when)| Some(*met) == most && when.0 == column) {
            let names = kinds.iter().map(|kind| format!("`{kind}`"));
            known.extend(names.filter(|name| !known.contains(name)).collect::<Vec<_>>());
        }
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
        let optional = self.values.len() > 1 && self.values[at].when.is_empty();
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
                let time = PlaceTime {
                    ts,
                    target: measure.target,
                    length_ms,
                    usual_ms: self.usual_ms,
                    utility: measure.utility,
                };
                let place = Some(Box::new(Place { meter: None, time: Some(time) }));
                let found = format!("{} {problem}", self.name(column));
                RowError { place, ..RowError::new(line, RowFault::Value, found) }
            })?
        };
        let is_mean = meaning.kind == ValueKind::Mean && matches!(measure.target, Target::Interval(_));
        let usual_ms = self.usual_ms;
        Ok(Some(MeterValue {
            line,
            ts,
            amount,
            length_ms,
            usual_ms,
            refused_since: None,
            is_mean,
            utility: measure.utility,
        }))
    }

    fn measure(&mut self, line: u64, record: &csv::StringRecord, at: usize) -> Result<Measure, RowError> {
        let meaning = &self.values[at].meaning;
        if let Some(measure) = meaning.measure {
            return Ok(measure);
        }
        let utility = meaning.utility.of(record).unwrap_or_default();
        let unit = meaning.unit.of(record).unwrap_or_default();
        let kind = meaning.kind;
        if utility.is_empty() || unit.is_empty() {
            let (what, option) =
                if utility.is_empty() { ("utility", "--utility") } else { ("unit", "--unit") };
            let found = format!("the {what} is empty; write it, or say {option} for all lines without one");
            return Err(RowError::new(line, RowFault::Unit, found));
        }
        // A file has few units, and a row is read in less time than it takes to find one.
        let known = self.measures.entry((at, utility.to_owned(), unit.to_owned()));
        let measure = known.or_insert_with(|| measure_of(utility, unit, kind));
        measure.clone().map_err(|problem| RowError::new(line, RowFault::Unit, format!("utility {problem}")))
    }

    pub(super) fn placed(&self, record: &csv::StringRecord) -> Result<Placed, String> {
        let edge = self.edge;
        let between = |start: Stamp, end: Stamp| -> Result<Placed, String> {
            let (length, end) = match (start, end) {
                (Stamp::Instant(start), Stamp::Instant(end)) => (end - start, None),
                (Stamp::Local(start), Stamp::Local(end)) => {
                    let ms = i64::try_from(start.duration_until(end).as_millis()).unwrap_or(0);
                    // The clock was put back in between: 02:45 to 02:00.
                    let back = if ms < 0 { self.zone.put_back(start).unwrap_or(0) } else { 0 };
                    (ms + back, Some(end))
                }
                _ => {
                    return Err(
                        "the start has an offset and the end has none, or the other way round".to_owned()
                    );
                }
            };
            // Where the last minute is named, the length is no round one.
            let whole = length > 0 && length % ROUND_MS == 0;
            let inclusive = if whole { 0 } else { self.end_inclusive_ms };
            let end = end.and_then(|end| end.checked_add(SignedDuration::from_millis(inclusive)).ok());
            match length + inclusive {
                length @ 1.. => Ok(Placed { stamp: start, edge: Edge::Start, length: Some(length), end }),
                _ => Err("the end is not after the start".to_owned()),
            }
        };
        match &self.times {
            Times::One { at, format, end } => {
                let stamp = times::parse(self.field(record, *at), format)
                    .map_err(|problem| format!("{} is wrong: {problem}", self.name(*at)))?;
                let Some(end) = end else { return Ok(Placed { stamp, edge, length: None, end: None }) };
                let ended = times::parse(self.field(record, *end), format)
                    .map_err(|problem| format!("{} is wrong: {problem}", self.name(*end)))?;
                between(stamp, ended)
            }
            Times::Clock { date, clock, numbered: true, date_format, .. }
                if self.field(record, *clock).bytes().all(|b| b.is_ascii_digit()) =>
            {
                self.numbered_hour(record, *date, date_format, *clock)
            }
            Times::Clock { date, date_format, clock, clock_formats, end, .. } => {
                let starts_on = times::parse_date(self.field(record, *date), date_format)?;
                let at = |date: Date, column: usize| {
                    let (time, next_day) = times::parse_clock(self.field(record, column), clock_formats)?;
                    let date = if next_day { date.tomorrow().map_err(|e| e.to_string())? } else { date };
                    Ok::<_, String>(Stamp::Local(date.to_datetime(time)))
                };
                let stamp = at(starts_on, *clock)?;
                let Some((end_date, end_clock)) = end else {
                    return Ok(Placed { stamp, edge, length: None, end: None });
                };
                let ends_on = match end_date {
                    Some(column) => times::parse_date(self.field(record, *column), date_format)?,
                    None => starts_on,
                };
                let mut ended = at(ends_on, *end_clock)?;
                // The last interval of a day ends at the next midnight, which its date does not say.
                if let (None, Stamp::Local(end), Stamp::Local(start)) = (end_date, ended, stamp)
                    && end.time() == jiff::civil::Time::midnight()
                    && end < start
                {
                    ended =
                        Stamp::Local(end.checked_add(jiff::Span::new().days(1)).map_err(|e| e.to_string())?);
                }
                between(stamp, ended)
            }
            Times::Hour { date, date_format, hour } => self.numbered_hour(record, *date, date_format, *hour),
            Times::Grid { .. } => Err("a grid has no single time".to_owned()),
        }
    }

    /// The end of an hour that is told by its number in its day.
    fn numbered_hour(
        &self,
        record: &csv::StringRecord,
        date: usize,
        date_format: &TimeFormat,
        hour: usize,
    ) -> Result<Placed, String> {
        const HOUR_MS: i64 = 3_600_000;
        let date = times::parse_date(self.field(record, date), date_format)?;
        let text = self.field(record, hour);
        let (start, length) = self.zone.day(date)?;
        let hours = length / HOUR_MS;
        let hour = text.parse::<i64>().ok().filter(|hour| (1..=hours).contains(hour)).ok_or_else(|| {
            format!("hour `{}` is not one of the {hours} hours of {date}, from 1", shown(text))
        })?;
        let stamp = Stamp::Instant(start + hour * HOUR_MS);
        Ok(Placed { stamp, edge: Edge::End, length: Some(HOUR_MS), end: None })
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
        let Placed { stamp, edge, mut length, end } = self.placed(record).map_err(wrong)?;
        if let (Stamp::Local(start), Some(end)) = (stamp, end) {
            // A day may have 23 or 25 hours. Beside the clock change itself the clock's distance is the length.
            length = self.elapsed(start, end).or(length);
        }
        let told = match self.interval.of(record) {
            Some(text) => {
                Some(self.told_length(text).map_err(|problem| wrong(format!("interval {problem}")))?)
            }
            None => None,
        };
        let length = length.or(told);
        let (from, after) = match (stamp, edge, length) {
            (stamp, Edge::Start, Some(length)) => (stamp, length),
            (Stamp::Local(end), Edge::End, Some(length)) if self.ends_by_start => {
                let start = end.checked_sub(SignedDuration::from_millis(length));
                (Stamp::Local(start.map_err(|e| wrong(e.to_string()))?), length)
            }
            // The interval before the clock goes forward ends at a time that the clock leaves out.
            (Stamp::Local(end), Edge::End, Some(length)) if self.zone.is_left_out(end) => {
                let start =
                    end.checked_sub(SignedDuration::from_millis(length)).map_err(|e| wrong(e.to_string()))?;
                if self.zone.is_left_out(start) { (stamp, 0) } else { (Stamp::Local(start), length) }
            }
            (stamp, ..) => (stamp, 0),
        };
        let occurrence = self.occurrence(from, value, meter);
        let ms = self
            .zone
            .instant(from, occurrence)
            .map_err(|problem| wrong(format!("ts is wrong: {problem}")))?;
        let end = ms.saturating_add(after);
        if !times::is_instant(end) {
            return Err(wrong(format!("ts is wrong: {}", times::too_late(&format!("{end} ms")))));
        }
        Ok((Timestamp(end), length))
    }

    /// What passes from one local time to another, where each is one instant.
    fn elapsed(&self, start: DateTime, end: DateTime) -> Option<i64> {
        let instant = |local: DateTime| {
            let once = !self.zone.occurs_twice(local) && !self.zone.is_left_out(local);
            once.then(|| self.zone.instant(Stamp::Local(local), None).ok()).flatten()
        };
        Some(instant(end)? - instant(start)?).filter(|length| *length > 0)
    }

    /// A length as the file or an option has it.
    pub(super) fn told_length(&self, text: &str) -> Result<i64, times::LengthError> {
        // An option's, and one of the mapping, is whole.
        match &self.interval {
            Source::Column(..) if text.ends_with(|c: char| c.is_ascii_digit()) => {
                parse_length(&format!("{text}{}", self.interval_suffix))
            }
            _ => parse_length(text),
        }
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
                measure_of(utility, unit, meaning.kind)
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
                    let (usual_ms, refused_since, is_mean) = (None, None, false);
                    Ok(row(MeterValue {
                        line,
                        ts,
                        amount,
                        length_ms,
                        usual_ms,
                        refused_since,
                        is_mean,
                        utility: measure.utility,
                    }))
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
