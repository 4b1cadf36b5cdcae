//! Times as tables write them, and the instants that they are.

use galerna_model::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::Deserialize;

use crate::error::{ImportError, shown};

mod epoch;

use epoch::{epoch, meant_by, number};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What a local time means that a clock change makes occur twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Overlap {
    /// Nothing: the line is refused.
    #[default]
    Refuse,
    /// The first time that it occurs, in summer time.
    First,
    /// The second time, in winter time.
    Second,
    /// As the rows of a meter stand in the file: one that occurs twice is each of them once.
    Order,
}

/// What a local time means that a clock change leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gap {
    /// Nothing: the line is refused.
    #[default]
    Refuse,
    /// The clock was not put forward: as much later as the clock should have been.
    Later,
}

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    /// RFC 3339, or without an offset where a time zone is given.
    Rfc3339,
    /// Seconds since 1970.
    EpochSeconds,
    /// Milliseconds since 1970.
    EpochMillis,
    /// As `strptime` has it.
    Pattern(String),
    /// Any of these; the first that reads a text does.
    OneOf(Vec<TimeFormat>),
}

impl TimeFormat {
    /// One form, or several.
    pub(crate) fn of_all<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let mut formats: Vec<Self> = texts.map(Self::of).collect();
        if formats.len() == 1 { formats.swap_remove(0) } else { Self::OneOf(formats) }
    }

    /// Whether all times of this form lack an offset.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Pattern(pattern) => !["%z", "%:z", "%s", "%Q"].iter().any(|zone| pattern.contains(zone)),
            Self::Rfc3339 | Self::EpochSeconds | Self::EpochMillis => false,
            Self::OneOf(formats) => formats.iter().all(Self::is_local),
        }
    }

    pub(crate) fn of(text: &str) -> Self {
        match text {
            "rfc3339" => Self::Rfc3339,
            "epoch_seconds" => Self::EpochSeconds,
            "epoch_ms" => Self::EpochMillis,
            pattern => Self::Pattern(pattern.to_owned()),
        }
    }
}

/// A time read, not yet placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Its offset is known.
    Instant(i64),
    /// A clock on a wall.
    Local(DateTime),
}

/// Which of the two a time is that occurs twice, where rows are taken in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occurrence {
    First,
    Second,
}

/// From local time to instants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Zone {
    pub(crate) zone: Option<(String, TimeZone)>,
    pub(crate) overlap: Overlap,
    pub(crate) gap: Gap,
}

/// Finds a time zone by its IANA name.
pub(crate) fn time_zone(name: &str) -> Result<TimeZone, ImportError> {
    TimeZone::get(name).map_err(|_| ImportError::Option {
        what: "the time zone",
        value: name.to_owned(),
        problem: "no zone of that name; write an IANA name such as Europe/Madrid or UTC".to_owned(),
    })
}

impl Zone {
    /// The instant of a stamp, in milliseconds since 1970.
    pub(crate) fn instant(&self, stamp: Stamp, occurrence: Option<Occurrence>) -> Result<i64, String> {
        let local = match stamp {
            Stamp::Instant(ms) => return Ok(ms),
            Stamp::Local(local) => local,
        };
        let Some((name, zone)) = &self.zone else {
            return Err(format!(
                "time `{local}` has no zone; write RFC 3339 with an offset, such as 2015-04-21T23:15:00+00:00, or say --time-zone"
            ));
        };
        let ambiguous = zone.to_ambiguous_timestamp(local);
        let placed = match (ambiguous.offset(), self.overlap, occurrence) {
            (AmbiguousOffset::Unambiguous { .. }, ..) => ambiguous.compatible(),
            (AmbiguousOffset::Gap { .. }, ..) => match self.gap {
                Gap::Later => ambiguous.later(),
                Gap::Refuse => {
                    return Err(format!(
                        "time `{local}` does not exist in {name}, whose clocks go forward there; give its offset, another --time-zone, or `gap = \"later\"` in the mapping"
                    ));
                }
            },
            (AmbiguousOffset::Fold { .. }, Overlap::First, _)
            | (AmbiguousOffset::Fold { .. }, Overlap::Order, Some(Occurrence::First)) => ambiguous.earlier(),
            (AmbiguousOffset::Fold { .. }, Overlap::Second, _)
            | (AmbiguousOffset::Fold { .. }, Overlap::Order, Some(Occurrence::Second)) => ambiguous.later(),
            (AmbiguousOffset::Fold { .. }, Overlap::Order, None) => {
                return Err(format!(
                    "time `{local}` occurs in {name} more often in the file than the clock shows it"
                ));
            }
            (AmbiguousOffset::Fold { .. }, Overlap::Refuse, _) => {
                return Err(format!(
                    "time `{local}` occurs twice in {name}, whose clocks go back there; give its offset, another --time-zone, or `overlap` in the mapping"
                ));
            }
        };
        placed.map(|t| t.as_millisecond()).map_err(|_| format!("time `{local}` is too far away"))
    }

    /// Whether the clock leaves a local time out.
    pub(crate) fn is_left_out(&self, local: DateTime) -> bool {
        self.zone.as_ref().is_some_and(|(_, zone)| {
            matches!(zone.to_ambiguous_timestamp(local).offset(), AmbiguousOffset::Gap { .. })
        })
    }

    /// Whether a local time occurs twice.
    pub(crate) fn occurs_twice(&self, local: DateTime) -> bool {
        self.zone.as_ref().is_some_and(|(_, zone)| {
            matches!(zone.to_ambiguous_timestamp(local).offset(), AmbiguousOffset::Fold { .. })
        })
    }

    /// How far the clock is put back where it shows a local time twice, in milliseconds.
    pub(crate) fn put_back(&self, local: DateTime) -> Option<i64> {
        let (_, zone) = self.zone.as_ref()?;
        match zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Fold { before, after } => {
                Some(i64::from(before.seconds() - after.seconds()) * 1000)
            }
            _ => None,
        }
    }

    /// The first instant of a local day and how long it lasts, in milliseconds.
    pub(crate) fn day(&self, date: Date) -> Result<(i64, i64), String> {
        let Some((_, zone)) = &self.zone else {
            return Err(format!("day {date} has no zone; say --time-zone"));
        };
        let start = |date: Date| {
            let placed = zone.to_ambiguous_timestamp(date.to_datetime(Time::midnight())).compatible();
            placed.map(|t| t.as_millisecond()).map_err(|_| format!("day {date} is too far away"))
        };
        let first = start(date)?;
        let next = date.tomorrow().map_err(|_| format!("day {date} is too far away"))?;
        Ok((first, start(next)? - first))
    }
}

/// Reads a time. Hour 24 is the beginning of the next day; any other time of hour 24 is refused.
pub(crate) fn parse(text: &str, format: &TimeFormat) -> Result<Stamp, String> {
    match format {
        TimeFormat::EpochSeconds => epoch(text, 1000),
        TimeFormat::EpochMillis => epoch(text, 1),
        TimeFormat::Rfc3339 => {
            let (plain, next_day) = without_hour_24(text)?;
            rfc3339(&plain).and_then(|stamp| moved(text, stamp, next_day))
        }
        TimeFormat::Pattern(pattern) => {
            let (plain, next_day) = without_hour_24(text)?;
            let read = BrokenDownTime::parse(pattern, &plain)
                .ok()
                .filter(has_whole_year)
                .ok_or_else(|| format!("time `{}` is not of the form `{pattern}`", shown(text)))?;
            let stamp = match read.offset() {
                Some(_) => read.to_timestamp().map(|t| Stamp::Instant(t.as_millisecond())),
                None => read
                    .to_datetime()
                    .or_else(|_| read.to_date().map(|date| date.to_datetime(Time::midnight())))
                    .map(Stamp::Local),
            };
            let stamp = stamp.map_err(|e| format!("time `{}` is no time: {e}", shown(text)))?;
            moved(text, stamp, next_day)
        }
        TimeFormat::OneOf(formats) => {
            without_hour_24(text)?;
            let read = formats.iter().find_map(|format| parse(text, format).ok());
            read.ok_or_else(|| format!("time `{}` is of none of the forms {}", shown(text), names(formats)))
        }
    }
}

/// Reads a date.
pub(crate) fn parse_date(text: &str, format: &TimeFormat) -> Result<Date, String> {
    let not = |form: &str| format!("date `{}` is not of the form `{form}`", shown(text));
    match format {
        TimeFormat::Rfc3339 => text.parse().map_err(|_| not("%Y-%m-%d")),
        TimeFormat::Pattern(pattern) => {
            let read = BrokenDownTime::parse(pattern, text).ok().filter(has_whole_year);
            read.and_then(|read| read.to_date().ok()).ok_or_else(|| not(pattern))
        }
        TimeFormat::EpochSeconds | TimeFormat::EpochMillis => match parse(text, format)? {
            Stamp::Instant(_) | Stamp::Local(_) => Err(format!("`{}` is no date", shown(text))),
        },
        TimeFormat::OneOf(formats) => {
            let read = formats.iter().find_map(|format| parse_date(text, format).ok());
            read.ok_or_else(|| format!("date `{}` is of none of the forms {}", shown(text), names(formats)))
        }
    }
}

/// `%Y` reads 26 too, as the year 26.
fn has_whole_year(read: &BrokenDownTime) -> bool {
    read.year().is_none_or(|year| year >= 1000)
}

fn names(formats: &[TimeFormat]) -> String {
    let names: Vec<String> = formats.iter().map(|format| format!("`{format}`")).collect();
    names.join(", ")
}

impl std::fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rfc3339 => f.write_str("rfc3339"),
            Self::EpochSeconds => f.write_str("epoch_seconds"),
            Self::EpochMillis => f.write_str("epoch_ms"),
            Self::Pattern(pattern) => f.write_str(pattern),
            Self::OneOf(formats) => f.write_str(&names(formats)),
        }
    }
}

/// Reads a time of day, and tells whether it is the end of the day, 24:00, which is read as 00:00.
pub(crate) fn parse_clock(text: &str, formats: &[String]) -> Result<(Time, bool), String> {
    let (plain, next_day) = without_hour_24(text)?;
    let mut read = formats
        .iter()
        .filter_map(|format| BrokenDownTime::parse(format, &plain).and_then(|read| read.to_time()).ok());
    let forms = || formats.iter().map(|format| format!("`{format}`")).collect::<Vec<_>>().join(" or ");
    read.next()
        .map(|time| (time, next_day))
        .ok_or_else(|| format!("time `{}` is not of the form {}", shown(text), forms()))
}

fn moved(text: &str, stamp: Stamp, next_day: bool) -> Result<Stamp, String> {
    if !next_day {
        return Ok(stamp);
    }
    let beyond = || too_late(text);
    match stamp {
        Stamp::Instant(ms) => {
            let ms = ms.checked_add(DAY_MS).filter(|ms| is_instant(*ms));
            ms.map(Stamp::Instant).ok_or_else(beyond)
        }
        Stamp::Local(local) => {
            let next = local.date().tomorrow().map_err(|_| beyond())?;
            Ok(Stamp::Local(next.to_datetime(local.time())))
        }
    }
}

/// What is said of a time that cannot be written.
pub(crate) fn too_late(text: &str) -> String {
    format!(
        "time `{}` is after 9999-12-30, the last day that is read; write no date that stands for none",
        shown(text)
    )
}

/// Whether a text in the form of RFC 3339 is of the last day of the year 9999, or of a year after it.
fn is_too_late(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let year = digits.bytes().take_while(u8::is_ascii_digit).count();
    let date =
        digits.get(year + 1..).is_some_and(|rest| rest.bytes().next().is_some_and(|b| b.is_ascii_digit()));
    (year > 4 && date && digits.as_bytes()[year] == b'-') || text.starts_with("9999-12-31")
}

/// Whether a time can be written.
pub(crate) fn is_instant(ms: i64) -> bool {
    jiff::Timestamp::from_millisecond(ms).is_ok()
}

fn rfc3339(text: &str) -> Result<Stamp, String> {
    let problem = match Timestamp::parse(text) {
        Ok(t) => return Ok(Stamp::Instant(t.as_millis())),
        Err(problem) => problem,
    };
    if let Ok(local) = text.parse::<DateTime>() {
        return Ok(Stamp::Local(local));
    }
    if is_too_late(text) {
        return Err(too_late(text));
    }
    Err(match number(text) {
        Some(number) => match meant_by(number) {
            Some(meant) => format!("time `{}` is a number: {meant}", shown(text)),
            None => problem.to_string(),
        },
        None if looks_like_a_date(text) => format!(
            "{problem}; for another form name it in a mapping, such as `format = \"%d/%m/%Y %H:%M\"`, \
             or say which of its numbers is the day: --date-order dmy, mdy or ymd"
        ),
        None => problem.to_string(),
    })
}

fn looks_like_a_date(text: &str) -> bool {
    text.bytes().filter(u8::is_ascii_digit).count() >= 4 && text.bytes().any(|b| !b.is_ascii_digit())
}

/// Replaces `24:00` by `00:00`, and tells whether it did.
fn without_hour_24(text: &str) -> Result<(String, bool), String> {
    let bytes = text.as_bytes();
    let starts = |at: usize| at == 0 || matches!(bytes[at - 1], b' ' | b'T' | b't' | b'_');
    let Some(at) =
        (0..bytes.len().saturating_sub(2)).find(|at| starts(*at) && bytes[*at..].starts_with(b"24:"))
    else {
        let alone = |at: &usize| {
            matches!(bytes[*at], b'T' | b't')
                && bytes[at + 1..].starts_with(b"24")
                && matches!(bytes.get(at + 3), None | Some(b'Z' | b'z' | b'+' | b'-' | b'0'..=b'9'))
        };
        if (0..bytes.len()).any(|at| alone(&at)) {
            return Err(format!("time `{}` has hour 24; write it as 24:00, the end of a day", shown(text)));
        }
        return Ok((text.to_owned(), false));
    };
    let clock =
        text[at + 3..].split(|c: char| !matches!(c, '0'..='9' | ':' | '.')).next().unwrap_or_default();
    if clock.len() < 2 || clock.bytes().any(|b| !matches!(b, b'0' | b':' | b'.')) {
        return Err(format!(
            "time `{}` has hour 24, which is only read as 24:00, the end of a day",
            shown(text)
        ));
    }
    Ok((format!("{}00:{}", &text[..at], &text[at + 3..]), true))
}

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("length `{0}` is none; write for instance 15m, 30m, 1h or 1d")]
pub struct LengthError(String);

/// Reads a length of time: `30m`, `1h`, `PT15M`, `900s`; in milliseconds.
///
/// # Errors
/// [`LengthError`].
pub fn parse_length(text: &str) -> Result<i64, LengthError> {
    let problem = || LengthError(shown(text).to_string());
    let trimmed = text.trim();
    let days = trimmed.strip_suffix(['d', 'D']).and_then(|days| days.trim().parse::<i64>().ok());
    let ms = match days {
        Some(days) if !trimmed.starts_with(['P', 'p']) => days.checked_mul(DAY_MS).ok_or_else(problem)?,
        _ => {
            let length: jiff::SignedDuration = trimmed.parse().map_err(|_| problem())?;
            i64::try_from(length.as_millis()).map_err(|_| problem())?
        }
    };
    if ms > 0 { Ok(ms) } else { Err(problem()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, overlap: Overlap, gap: Gap) -> Zone {
        Zone { zone: Some((name.to_owned(), time_zone(name).unwrap())), overlap, gap }
    }

    fn read(text: &str, format: &str, zone: &Zone, occurrence: Option<Occurrence>) -> Result<String, String> {
        let stamp = parse(text, &TimeFormat::of(format))?;
        zone.instant(stamp, occurrence).map(|ms| Timestamp(ms).to_string())
    }

    #[test]
    fn times_are_read_in_the_forms_that_are_named() {
        let madrid = zone("Europe/Madrid", Overlap::Refuse, Gap::Refuse);
        for (text, format, expected) in [
            ("2026-11-01T00:00:00+01:00", "rfc3339", "2026-10-31T23:00:00Z"),
            ("2026-11-01T24:00:00+01:00", "rfc3339", "2026-11-01T23:00:00Z"),
            ("2026-11-01T24:00:00Z", "rfc3339", "2026-11-02T00:00:00Z"),
            ("2026-11-01 00:00", "rfc3339", "2026-10-31T23:00:00Z"),
            ("2026/07/01 24:00", "%Y/%m/%d %H:%M", "2026-07-01T22:00:00Z"),
            ("30-11-2026 00:00", "%d-%m-%Y %H:%M", "2026-11-29T23:00:00Z"),
            ("04 Nov 2019 00:30:00", "%d %b %Y %H:%M:%S", "2019-11-03T23:30:00Z"),
            ("Nov 13 2019 12:00AM", "%b %d %Y %I:%M%p", "2019-11-12T23:00:00Z"),
            ("1793491200", "epoch_seconds", "2026-11-01T00:00:00Z"),
            ("1793491200000", "epoch_ms", "2026-11-01T00:00:00Z"),
            ("1793491200.5", "epoch_seconds", "2026-11-01T00:00:00.5Z"),
            ("1793491200.0", "epoch_seconds", "2026-11-01T00:00:00Z"),
            ("01/12/2026 10:00 +0000", "%d/%m/%Y %H:%M %z", "2026-12-01T10:00:00Z"),
        ] {
            assert_eq!(read(text, format, &madrid, None).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn clock_changes_are_refused_or_read_as_said() {
        let refuse = zone("Europe/Madrid", Overlap::Refuse, Gap::Refuse);
        let error = read("2026-10-25 02:30", "rfc3339", &refuse, None).unwrap_err();
        assert!(error.contains("occurs twice in Europe/Madrid"), "{error}");
        let error = read("2026-03-29 02:30", "rfc3339", &refuse, None).unwrap_err();
        assert!(error.contains("does not exist in Europe/Madrid"), "{error}");
        let at = |overlap, occurrence| {
            read("2026-10-25 02:30", "rfc3339", &zone("Europe/Madrid", overlap, Gap::Later), occurrence)
        };
        assert_eq!(at(Overlap::First, None).as_deref(), Ok("2026-10-25T00:30:00Z"));
        assert_eq!(at(Overlap::Second, None).as_deref(), Ok("2026-10-25T01:30:00Z"));
        assert_eq!(at(Overlap::Order, Some(Occurrence::First)).as_deref(), Ok("2026-10-25T00:30:00Z"));
        assert_eq!(at(Overlap::Order, Some(Occurrence::Second)).as_deref(), Ok("2026-10-25T01:30:00Z"));
        let later = zone("Europe/Madrid", Overlap::Refuse, Gap::Later);
        assert_eq!(read("2026-03-29 02:30", "rfc3339", &later, None).as_deref(), Ok("2026-03-29T01:30:00Z"));
        let date = |text: &str| text.parse::<Date>().unwrap();
        assert_eq!(refuse.day(date("2026-10-25")).unwrap().1, 25 * HOUR_MS);
        assert_eq!(refuse.day(date("2026-03-29")).unwrap().1, 23 * HOUR_MS);
    }

    #[test]
    fn a_time_that_cannot_be_read_says_what_it_is() {
        for (text, format, parts) in [
            ("2026-11-01T00:00:00", "rfc3339", &["no zone", "--time-zone"][..]),
            ("2026-11-01T24:30:00Z", "rfc3339", &["hour 24"]),
            ("2026-11-01T25:00:00Z", "rfc3339", &["not RFC 3339"]),
            ("1793491200", "rfc3339", &["2026-11-01T00:00:00Z as seconds"]),
            ("1793491200000000", "rfc3339", &["microseconds"]),
            ("01/11/2026 00:00", "rfc3339", &["not RFC 3339", "%d/%m/%Y"]),
            ("2026-11-01 00:00", "%d/%m/%Y %H:%M", &["`%d/%m/%Y %H:%M`"]),
            ("31/02/2026 00:00", "%d/%m/%Y %H:%M", &["31/02/2026"]),
            ("01/11/26 00:00", "%d/%m/%Y %H:%M", &["01/11/26", "%d/%m/%Y"]),
            ("KABOOM", "%b %d %Y %I:%M%p", &["KABOOM"]),
            ("1793491200.0", "rfc3339", &["2026-11-01T00:00:00Z as seconds", "epoch_seconds"]),
            ("1.7934912E9", "rfc3339", &["2026-11-01T00:00:00Z as seconds"]),
            ("1793491200000.5", "rfc3339", &["as milliseconds", "epoch_ms"]),
            ("46327.041666667", "rfc3339", &["spreadsheets count days", "yyyy-mm-dd"]),
            ("20261101T24Z", "rfc3339", &["hour 24"]),
            ("9999-12-31T23:59:59Z", "rfc3339", &["9999-12-31T23:59:59Z", "last day"]),
            ("+10000-01-01T00:00:00Z", "rfc3339", &["last day"]),
            ("9999-12-31 24:00", "%Y-%m-%d %H:%M", &["9999-12-31 24:00", "last day"]),
            ("1793491200", "epoch_ms", &["as seconds since 1970", "epoch_seconds"]),
            ("1793491200000", "epoch_seconds", &["as milliseconds", "epoch_ms"]),
            ("1793491200000000", "epoch_ms", &["as microseconds", "write milliseconds"]),
            ("soon", "epoch_seconds", &["seconds"]),
            ("9223372036854775807", "epoch_seconds", &["too far"]),
        ] {
            let error = read(text, format, &Zone::default(), None).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }

    #[test]
    fn lengths_are_read() {
        for (text, minutes) in
            [("30m", 30), ("1h", 60), ("PT15M", 15), ("900s", 15), ("1d", 1440), ("1h 30m", 90)]
        {
            assert_eq!(parse_length(text), Ok(minutes * 60_000), "{text}");
        }
        for text in ["", "30", "-1h", "0s", "half"] {
            assert!(parse_length(text).is_err(), "{text}");
        }
    }
}
