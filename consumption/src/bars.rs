//! Hours, days and months of what was used.

use galerna_model::{ParameterCode, SourceId, Timestamp};
use galerna_storage::{ConsumptionDay, ConsumptionDays, ConsumptionQuery, StorageError};
use serde::Serialize;

use crate::calendar::{Calendar, HOUR, Span};
use crate::day::{Used, share, used};

/// The most bars of a counter that are made at once.
pub const MOST_BARS: usize = 1_000;

/// How long bars are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Hours of the day, counted from its beginning.
    Hour,
    /// Days of 23, 24 or 25 hours.
    Day,
    /// Calendar months.
    Month,
}

impl Step {
    /// All of them, shortest first.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Month];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The one with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == name)
    }

    fn span(self, calendar: &Calendar, at: Timestamp) -> Option<Span> {
        match self {
            Self::Hour => calendar.hour(at),
            Self::Day => calendar.day(at),
            Self::Month => calendar.month(at),
        }
    }
}

/// What was used in one hour, day or month.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bar {
    /// When it begins.
    pub from: Timestamp,
    /// When the next one begins.
    pub until: Timestamp,
    /// What was used, in the unit of the counter; `None` where no reading says anything.
    pub used: Option<f64>,
    /// Whether a part of it is known only of two readings that are not both in it.
    pub estimated: bool,
    /// How often the counter began anew.
    pub resets: u32,
    /// How often late readings have corrected its days.
    pub corrections: u32,
}

/// The bars of one counter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CounterBars {
    /// The device.
    pub device: String,
    /// The counter.
    pub parameter: ParameterCode,
    /// All bars of the stretch that was asked for.
    pub bars: Vec<Bar>,
}

/// Why there are no bars.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Too many, or none.
    #[error("from {from} until {until} there are more than {MOST_BARS} bars of a{} {}, or none: ask for less at once", if *.step == Step::Hour { "n" } else { "" }, .step.as_str())]
    Stretch {
        /// From.
        from: Timestamp,
        /// Until.
        until: Timestamp,
        /// How long bars were to be.
        step: Step,
    },
    /// The store does not answer, or refuses.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The bars that begin in a stretch, the first with the one that `from` is in; none if these are too many, or none.
fn spans(calendar: &Calendar, step: Step, from: Timestamp, until: Timestamp) -> Option<Vec<Span>> {
    let mut spans = Vec::new();
    let mut at = from;
    while at < until {
        let span = step.span(calendar, at)?;
        if spans.len() == MOST_BARS {
            return None;
        }
        at = span.until;
        spans.push(span);
    }
    (!spans.is_empty()).then_some(spans)
}

fn fill(bars: &mut [Bar], from: Timestamp, until: Timestamp, amount: f64, reset: bool, split: bool) {
    let first = bars.partition_point(|bar| bar.until <= from);
    for bar in bars[first..].iter_mut().take_while(|bar| bar.from < until) {
        let span = Span { from: bar.from, until: bar.until };
        *bar.used.get_or_insert(0.0) += share(amount, from, until, span);
        bar.estimated |= split || from < bar.from || until > bar.until;
        // It is not known when it began anew: at the end at the latest.
        bar.resets += u32::from(reset && until <= bar.until);
    }
}

/// The bars of one counter, of its days in their order. `days` are to have the nearest ones around the stretch too, as the store finds
/// them.
///
/// # Errors
/// [`QueryError::Stretch`].
pub fn bars(
    calendar: &Calendar,
    step: Step,
    from: Timestamp,
    until: Timestamp,
    days: &[ConsumptionDay],
) -> Result<Vec<Bar>, QueryError> {
    let spans = spans(calendar, step, from, until).ok_or(QueryError::Stretch { from, until, step })?;
    let bar = |span: &Span| Bar {
        from: span.from,
        until: span.until,
        used: None,
        estimated: false,
        resets: 0,
        corrections: 0,
    };
    let mut bars: Vec<Bar> = spans.iter().map(bar).collect();
    let mut before: Option<&ConsumptionDay> = None;
    for day in days {
        let counts = &day.counts;
        if let Some(before) = before {
            let (from, until) = (before.counts.last.at, counts.first.at);
            let Used { amount, reset } = used(before.counts.last.value, counts.first.value);
            fill(&mut bars, from, until, amount, reset, false);
        }
        for (hour, amount) in counts.hours.iter().enumerate() {
            let begin = day.key.day.plus_millis(hour as i64 * HOUR);
            // Hours before the first reading of the day and after the last are not known of it.
            let (known_from, known_until) =
                (counts.first.at.max(begin), counts.last.at.min(begin.plus_millis(HOUR)));
            if known_from < known_until {
                let split = step == Step::Hour && counts.split & 1 << hour != 0;
                fill(&mut bars, known_from, known_until, *amount, false, split);
            }
        }
        let at = bars.partition_point(|bar| bar.until <= day.key.day);
        if let Some(bar) = bars.get_mut(at).filter(|bar| bar.from <= day.key.day) {
            bar.resets += counts.resets;
            bar.corrections += counts.corrections;
        }
        before = Some(day);
    }
    Ok(bars)
}

/// What was used by all counters of a source, or of one device of it, from the bar that `from` is in to the last that begins before
/// `until`.
///
/// # Errors
/// [`QueryError::Stretch`], and those of the store.
pub async fn of_source(
    days: &dyn ConsumptionDays,
    calendar: &Calendar,
    source: &SourceId,
    device: Option<&str>,
    step: Step,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<CounterBars>, QueryError> {
    let all = spans(calendar, step, from, until).ok_or(QueryError::Stretch { from, until, step })?;
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return Ok(Vec::new()) };
    // Hours begin within a day, which is found by where it begins.
    let begin = calendar.day(first.from).map_or(first.from, |day| day.from);
    let query = ConsumptionQuery {
        source: source.clone(),
        zone: calendar.zone().to_owned(),
        device: device.map(str::to_owned),
        from: begin,
        until: last.until,
    };
    let found = days.find(&query).await?;
    let of_counter = found
        .chunk_by(|one, next| (&one.key.device, one.key.parameter) == (&next.key.device, next.key.parameter));
    let counter = |days: &[ConsumptionDay]| {
        Ok(CounterBars {
            device: days[0].key.device.clone(),
            parameter: days[0].key.parameter,
            bars: bars(calendar, step, from, until, days)?,
        })
    };
    of_counter
        .map(counter)
        .filter(|counter| !matches!(counter, Ok(of) if of.bars.iter().all(|bar| bar.used.is_none())))
        .collect()
}

#[cfg(test)]
mod tests {
    use galerna_storage::{ConsumptionKey, CounterValue};

    use super::*;
    use crate::day::count;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    /// The days of some readings.
    fn days(calendar: &Calendar, readings: &[(&str, f64)]) -> Vec<ConsumptionDay> {
        let values: Vec<CounterValue> =
            readings.iter().map(|(ts, value)| CounterValue { at: at(ts), value: *value }).collect();
        let same_day =
            |one: &CounterValue, next: &CounterValue| calendar.day(one.at) == calendar.day(next.at);
        let day = |values: &[CounterValue]| {
            let span = calendar.day(values[0].at).unwrap();
            let key = ConsumptionKey {
                source: SourceId::new("s").unwrap(),
                device: "d".to_owned(),
                parameter: ParameterCode(402),
                zone: calendar.zone().to_owned(),
                day: span.from,
            };
            ConsumptionDay { key, revision: 1, counts: count(span, values.iter().copied()).unwrap() }
        };
        values.chunk_by(same_day).map(day).collect()
    }

    fn used_by(
        step: Step,
        zone: &str,
        from: &str,
        until: &str,
        readings: &[(&str, f64)],
    ) -> Vec<(Option<f64>, bool)> {
        let calendar = Calendar::of(zone).unwrap();
        let bars = bars(&calendar, step, at(from), at(until), &days(&calendar, readings)).unwrap();
        bars.into_iter().map(|bar| (bar.used, bar.estimated)).collect()
    }

    #[test]
    fn what_crosses_midnight_is_shared_by_both_days_and_a_gap_by_all_in_it() {
        let readings = [
            ("2017-01-01T12:00:00Z", 100.0),
            ("2017-01-02T00:00:00Z", 112.0),
            ("2017-01-02T18:00:00Z", 121.0),
            ("2017-01-05T18:00:00Z", 193.0),
        ];
        let days = used_by(Step::Day, "UTC", "2016-12-31T00:00:00Z", "2017-01-07T00:00:00Z", &readings);
        let expected = [
            (None, false),
            (Some(12.0), false),
            (Some(9.0 + 6.0), true),
            (Some(24.0), true),
            (Some(24.0), true),
            (Some(18.0), true),
            (None, false),
        ];
        assert_eq!(days, expected);
        let months = used_by(Step::Month, "UTC", "2017-01-01T00:00:00Z", "2017-02-01T00:00:00Z", &readings);
        assert_eq!(months, [(Some(93.0), false)]);
    }

    #[test]
    fn a_day_has_the_hours_that_it_has() {
        // A kilowatt all the time: as many kWh as hours.
        let readings = [("2017-03-20T00:00:00Z", 0.0), ("2017-04-03T00:00:00Z", 14.0 * 24.0)];
        let days =
            used_by(Step::Day, "Europe/Berlin", "2017-03-25T12:00:00Z", "2017-03-27T12:00:00Z", &readings);
        assert_eq!(days.iter().map(|day| day.0.unwrap().round()).collect::<Vec<_>>(), [24.0, 23.0, 24.0]);
        let hours =
            used_by(Step::Hour, "Europe/Berlin", "2017-03-25T23:00:00Z", "2017-03-26T22:00:00Z", &readings);
        assert_eq!(hours.len(), 23);
    }

    #[test]
    fn a_counter_that_began_anew_is_told_where_it_did() {
        let readings =
            [("2017-01-01T01:00:00Z", 50.0), ("2017-01-01T02:00:00Z", 3.0), ("2017-01-02T01:00:00Z", 1.0)];
        let calendar = Calendar::of("UTC").unwrap();
        let (from, until) = (at("2017-01-01T00:00:00Z"), at("2017-01-03T00:00:00Z"));
        let bars = bars(&calendar, Step::Day, from, until, &days(&calendar, &readings)).unwrap();
        assert_eq!(bars.iter().map(|bar| bar.resets).collect::<Vec<_>>(), [1, 1]);
        assert!((bars[0].used.unwrap() + bars[1].used.unwrap() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_stretch_of_too_many_bars_is_refused() {
        let calendar = Calendar::of("UTC").unwrap();
        let ask = |step, until: &str| bars(&calendar, step, at("2017-01-01T00:00:00Z"), at(until), &[]);
        assert!(ask(Step::Month, "2018-01-01T00:00:00Z").is_ok_and(|bars| bars.len() == 12));
        let error = ask(Step::Hour, "2018-01-01T00:00:00Z").unwrap_err().to_string();
        assert!(error.contains("more than 1000 bars of an hour, or none: ask for less at once"), "{error}");
        assert!(ask(Step::Day, "2017-01-01T00:00:00Z").is_err());
    }
}
