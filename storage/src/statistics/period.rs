//! Hours, days, weeks and months of UTC.

use galerna_model::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;

/// A length of time that is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    /// From the full hour.
    Hour,
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
}

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Day 0 of the epoch was a Thursday.
const MONDAY_OFFSET_MS: i64 = 3 * DAY_MS;

impl Period {
    /// All of them, shortest first.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    /// Its name, as stores write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// When the period began that holds this instant.
    pub fn start(self, at: Timestamp) -> Timestamp {
        let ms = at.as_millis();
        Timestamp(match self {
            Self::Hour => ms - ms.rem_euclid(HOUR_MS),
            Self::Day => ms - ms.rem_euclid(DAY_MS),
            Self::Week => ms - (ms + MONDAY_OFFSET_MS).rem_euclid(7 * DAY_MS),
            Self::Month => midnight(day(at).first_of_month()),
        })
    }

    /// When the period before began, of one that began at `start`.
    pub fn before(self, start: Timestamp) -> Timestamp {
        self.start(start.plus_millis(-1))
    }

    /// Periods older than this can be forgotten: generously more than the last but one.
    pub(crate) fn kept_ms(self) -> i64 {
        match self {
            Self::Hour => 3 * DAY_MS,
            Self::Day => 15 * DAY_MS,
            Self::Week => 70 * DAY_MS,
            Self::Month => 400 * DAY_MS,
        }
    }
}

fn day(at: Timestamp) -> Date {
    // Instants beyond any calendar do not come from clocks.
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or(date(1970, 1, 1), |t| TimeZone::UTC.to_datetime(t).date())
}

fn midnight(day: Date) -> i64 {
    TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).map_or(0, jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_and_follow_each_other_as_in_the_calendar() {
        let at = |text: &str| Timestamp::parse(text).unwrap();
        for (now, period, start, before) in [
            ("2015-04-21T23:15:00.5Z", Period::Hour, "2015-04-21T23:00:00Z", "2015-04-21T22:00:00Z"),
            ("2015-04-21T23:15:00Z", Period::Day, "2015-04-21T00:00:00Z", "2015-04-20T00:00:00Z"),
            ("2015-04-21T23:15:00Z", Period::Week, "2015-04-20T00:00:00Z", "2015-04-13T00:00:00Z"),
            ("2015-04-20T00:00:00Z", Period::Week, "2015-04-20T00:00:00Z", "2015-04-13T00:00:00Z"),
            ("2015-04-19T23:59:59.999Z", Period::Week, "2015-04-13T00:00:00Z", "2015-04-06T00:00:00Z"),
            ("2016-03-01T00:00:00Z", Period::Month, "2016-03-01T00:00:00Z", "2016-02-01T00:00:00Z"),
            ("2016-01-31T12:00:00Z", Period::Month, "2016-01-01T00:00:00Z", "2015-12-01T00:00:00Z"),
            ("1969-12-31T23:59:59Z", Period::Hour, "1969-12-31T23:00:00Z", "1969-12-31T22:00:00Z"),
        ] {
            assert_eq!(period.start(at(now)), at(start), "{period:?} of {now}");
            assert_eq!(period.before(at(start)), at(before), "before {start}");
        }
    }

    #[test]
    fn every_longer_period_begins_with_an_hour() {
        for hours in (-1_000..500_000_i64).step_by(37) {
            let hour = Timestamp(hours * HOUR_MS);
            let later = hour.plus_millis(HOUR_MS - 1);
            for period in Period::ALL {
                assert_eq!(period.start(hour), period.start(later), "{period:?} {hour}");
            }
        }
    }
}
