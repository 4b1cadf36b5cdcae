//! Days and months of a time zone.

use std::fmt;

use galerna_model::Timestamp;
use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{ToSpan, Zoned};

/// Milliseconds of an hour.
pub(crate) const HOUR: i64 = 3_600_000;

/// Days, hours and months of a time zone. The rules are those that the program carries, so that processes of one version agree.
#[derive(Clone)]
pub struct Calendar {
    zone: TimeZone,
    name: String,
}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Calendar").field(&self.name).finish()
    }
}

/// A name of no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time zone; write a name of the IANA database, such as Europe/Berlin or UTC")]
pub struct UnknownZone(String);

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

impl Span {
    /// How many hours it has, the last of which may be shorter.
    pub(crate) fn hours(self) -> usize {
        usize::try_from((self.until.millis_since(self.from) + HOUR - 1) / HOUR).unwrap_or(0)
    }

    pub(crate) fn contains(self, at: Timestamp) -> bool {
        (self.from..self.until).contains(&at)
    }
}

impl Calendar {
    /// That of the time zone with this name.
    ///
    /// # Errors
    /// [`UnknownZone`].
    pub fn of(zone: &str) -> Result<Self, UnknownZone> {
        let unknown = || UnknownZone(zone.chars().take(60).collect());
        let found = TimeZoneDatabase::bundled().get(zone).map_err(|_| unknown())?;
        let name = found.iana_name().ok_or_else(unknown)?.to_owned();
        Ok(Self { zone: found, name })
    }

    /// Its time zone.
    pub fn zone(&self) -> &str {
        &self.name
    }

    /// The local date and hour of an instant, as text: `2017-01-31`, `2017-01-31 23:00`.
    pub fn text(&self, at: Timestamp, with_hour: bool) -> String {
        match self.zoned(at) {
            Some(local) if with_hour => local.strftime("%Y-%m-%d %H:%M").to_string(),
            Some(local) => local.strftime("%Y-%m-%d").to_string(),
            None => at.to_string(),
        }
    }

    /// When the local date begins: `2017-01-31`.
    pub fn parse_date(&self, text: &str) -> Option<Timestamp> {
        self.midnight(text.parse().ok()?)
    }

    fn zoned(&self, at: Timestamp) -> Option<Zoned> {
        Some(jiff::Timestamp::from_millisecond(at.0).ok()?.to_zoned(self.zone.clone()))
    }

    fn midnight(&self, date: Date) -> Option<Timestamp> {
        // Where the clocks jump over midnight the day begins with the first instant after.
        Some(Timestamp(
            date.to_zoned(self.zone.clone()).ok()?.start_of_day().ok()?.timestamp().as_millisecond(),
        ))
    }

    /// The day of an instant; none of one that is beyond any calendar.
    pub(crate) fn day(&self, at: Timestamp) -> Option<Span> {
        let date = self.zoned(at)?.date();
        Some(Span { from: self.midnight(date)?, until: self.midnight(date.tomorrow().ok()?)? })
    }

    /// The month of an instant; none of one that is beyond any calendar.
    pub(crate) fn month(&self, at: Timestamp) -> Option<Span> {
        let first = self.zoned(at)?.date().first_of_month();
        Some(Span { from: self.midnight(first)?, until: self.midnight(first.checked_add(1.month()).ok()?)? })
    }

    /// The hour of an instant, counted from the beginning of its day.
    pub(crate) fn hour(&self, at: Timestamp) -> Option<Span> {
        let day = self.day(at)?;
        let from = Timestamp(at.0 - at.millis_since(day.from).rem_euclid(HOUR));
        Some(Span { from, until: from.plus_millis(HOUR).min(day.until) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn days_have_23_24_or_25_hours_and_begin_where_the_clocks_say() {
        for (zone, inside, from, hours) in [
            ("Europe/Berlin", "2017-01-31T12:00:00Z", "2017-01-30T23:00:00Z", 24),
            ("Europe/Berlin", "2017-03-26T12:00:00Z", "2017-03-25T23:00:00Z", 23),
            ("Europe/Berlin", "2017-10-29T12:00:00Z", "2017-10-28T22:00:00Z", 25),
            // Midnight itself is jumped over.
            ("America/Sao_Paulo", "2017-10-15T12:00:00Z", "2017-10-15T03:00:00Z", 23),
            ("Asia/Kolkata", "2017-10-15T12:00:00Z", "2017-10-14T18:30:00Z", 24),
            // By half an hour, so that the last hour is a half.
            ("Australia/Lord_Howe", "2017-10-01T12:00:00Z", "2017-09-30T13:30:00Z", 24),
            ("UTC", "1969-12-31T23:59:59.999Z", "1969-12-31T00:00:00Z", 24),
        ] {
            let day = Calendar::of(zone).unwrap().day(at(inside)).unwrap();
            assert_eq!((day.from, day.hours()), (at(from), hours), "{zone} {inside}");
            assert!(day.contains(at(inside)));
        }
    }

    #[test]
    fn months_and_hours_are_of_the_zone() {
        let berlin = Calendar::of("Europe/Berlin").unwrap();
        let month = berlin.month(at("2017-03-31T22:30:00Z")).unwrap();
        assert_eq!((month.from, month.until), (at("2017-03-31T22:00:00Z"), at("2017-04-30T22:00:00Z")));
        let kolkata = Calendar::of("Asia/Kolkata").unwrap();
        let hour = kolkata.hour(at("2017-10-15T12:00:00Z")).unwrap();
        assert_eq!((hour.from, hour.until), (at("2017-10-15T11:30:00Z"), at("2017-10-15T12:30:00Z")));
        assert_eq!(kolkata.text(hour.from, true), "2017-10-15 17:00");
        assert_eq!(kolkata.parse_date("2017-10-15"), Some(at("2017-10-14T18:30:00Z")));
        assert_eq!(kolkata.parse_date("15.10.2017"), None);
    }

    #[test]
    fn a_zone_that_is_none_is_refused_and_an_instant_beyond_calendars_has_no_day() {
        let error = Calendar::of("Berlin").unwrap_err();
        assert!(error.to_string().starts_with("`Berlin` is no time zone"));
        assert_eq!(Calendar::of("UTC").unwrap().day(Timestamp(i64::MAX)), None);
    }
}
