//! What the readings of one day say.

use galerna_model::Timestamp;
use galerna_storage::{CounterValue, DayCounts};

use crate::calendar::{HOUR, Span};

/// A counter that falls by less than this share of itself has not begun anew.
const ROUNDING: f64 = 0.01;

/// What was used between two values of a counter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Used {
    pub(crate) amount: f64,
    pub(crate) reset: bool,
}

pub(crate) fn used(before: f64, after: f64) -> Used {
    match after - before {
        more if more >= 0.0 => Used { amount: more, reset: false },
        less if -less < before * ROUNDING => Used { amount: 0.0, reset: false },
        _ => Used { amount: after, reset: true },
    }
}

/// The part of an amount that falls into a span, of one that is spread evenly from `from` to `until`.
pub(crate) fn share(amount: f64, from: Timestamp, until: Timestamp, span: Span) -> f64 {
    let within = until.min(span.until).millis_since(from.max(span.from)).max(0);
    match until.millis_since(from) {
        all if within >= all => amount,
        all => amount * within as f64 / all as f64,
    }
}

/// A day of which one reading is known.
pub(crate) fn begin(day: Span, value: CounterValue) -> DayCounts {
    DayCounts {
        first: value,
        last: value,
        hours: vec![0.0; day.hours()],
        split: 0,
        resets: 0,
        readings: 1,
        corrections: 0,
    }
}

/// Adds a reading of the day that is later than all others of it.
pub(crate) fn advance(counts: &mut DayCounts, day: Span, value: CounterValue) {
    let (from, until) = (counts.last.at, value.at);
    let Used { amount, reset } = used(counts.last.value, value.value);
    let hour_of = |at: Timestamp| usize::try_from(at.millis_since(day.from) / HOUR).unwrap_or(0);
    let (first, last) = (hour_of(from), hour_of(until.plus_millis(-1)));
    for (hour, used) in counts.hours.iter_mut().enumerate().take(last + 1).skip(first) {
        let begin = day.from.plus_millis(hour as i64 * HOUR);
        *used += share(amount, from, until, Span { from: begin, until: begin.plus_millis(HOUR) });
        if first != last {
            counts.split |= 1 << hour;
        }
    }
    counts.last = value;
    counts.resets += u32::from(reset);
    counts.readings = counts.readings.saturating_add(1);
}

/// What readings of a day say, in the order of their times; none of no readings.
pub(crate) fn count(day: Span, values: impl IntoIterator<Item = CounterValue>) -> Option<DayCounts> {
    let mut values = values.into_iter();
    let mut counts = begin(day, values.next()?);
    values.for_each(|value| advance(&mut counts, day, value));
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_the_difference_and_after_a_reset_what_the_counter_shows() {
        let cases = [
            (100.0, 103.5, 3.5, false),
            (100.0, 100.0, 0.0, false),
            (100.0, 2.0, 2.0, true),
            (100.0, 0.0, 0.0, true),
            // Rounding, or a value that was corrected by a little.
            (100.0, 99.999, 0.0, false),
            (0.0, 0.0, 0.0, false),
        ];
        for (before, after, amount, reset) in cases {
            assert_eq!(used(before, after), Used { amount, reset }, "{before} -> {after}");
        }
    }

    #[test]
    fn a_difference_is_spread_over_the_hours_between_two_readings() {
        let day = Span { from: Timestamp(0), until: Timestamp(24 * HOUR) };
        let value = |minutes: i64, value: f64| CounterValue { at: Timestamp(minutes * 60_000), value };
        let counts =
            count(day, [value(0, 10.0), value(60, 11.0), value(150, 14.0), value(160, 14.5)]).unwrap();
        assert_eq!(&counts.hours[..4], [1.0, 2.0, 1.5, 0.0]);
        // The first hour is known from its own borders, the next two only together.
        assert_eq!(counts.split, 0b110);
        assert_eq!((counts.first, counts.last, counts.readings), (value(0, 10.0), value(160, 14.5), 4));
        assert_eq!(count(day, []), None);
    }
}
