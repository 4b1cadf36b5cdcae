//! Times as tables write them, and the instants that they are.

use galerna_model::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::Deserialize;

use crate::error::{ImportError, shown};

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
}

impl TimeFormat {
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
            let (text, next_day) = without_hour_24(text)?;
            rfc3339(&text).map(|stamp| moved(stamp, next_day))
        }
        TimeFormat::Pattern(pattern) => {
            let (plain, next_day) = without_hour_24(text)?;
            let read = BrokenDownTime::parse(pattern, &plain)
                .map_err(|_| format!("time `{}` is not of the form `{pattern}`", shown(text)))?;
            let stamp = match read.offset() {
                Some(_) => read.to_timestamp().map(|t| Stamp::Instant(t.as_millisecond())),
                None => read
                    .to_datetime()
                    .or_else(|_| read.to_date().map(|date| date.to_datetime(Time::midnight())))
                    .map(Stamp::Local),
            };
            let stamp = stamp.map_err(|e| format!("time `{}` is no time: {e}", shown(text)))?;
            Ok(moved(stamp, next_day))
        }
    }
}

/// Reads a date.
pub(crate) fn parse_date(text: &str, format: &TimeFormat) -> Result<Date, String> {
    let not = |form: &str| format!("date `{}` is not of the form `{form}`", shown(text));
    match format {
        TimeFormat::Rfc3339 => text.parse().map_err(|_| not("%Y-%m-%d")),
        TimeFormat::Pattern(pattern) => {
            BrokenDownTime::parse(pattern, text).and_then(|read| read.to_date()).map_err(|_| not(pattern))
        }
        TimeFormat::EpochSeconds | TimeFormat::EpochMillis => match parse(text, format)? {
            Stamp::Instant(_) | Stamp::Local(_) => Err(format!("`{}` is no date", shown(text))),
        },
    }
}

/// Reads a time of day, and tells whether it is the end of the day, 24:00, which is read as 00:00.
pub(crate) fn parse_clock(text: &str, format: &str) -> Result<(Time, bool), String> {
    let (plain, next_day) = without_hour_24(text)?;
    let time = BrokenDownTime::parse(format, &plain).and_then(|read| read.to_time());
    time.map(|time| (time, next_day))
        .map_err(|_| format!("time `{}` is not of the form `{format}`", shown(text)))
}

fn moved(stamp: Stamp, next_day: bool) -> Stamp {
    match (stamp, next_day) {
        (stamp, false) => stamp,
        (Stamp::Instant(ms), true) => Stamp::Instant(ms + DAY_MS),
        (Stamp::Local(local), true) => {
            Stamp::Local(local.date().tomorrow().map_or(local, |date| date.to_datetime(local.time())))
        }
    }
}

fn rfc3339(text: &str) -> Result<Stamp, String> {
    match Timestamp::parse(text) {
        Ok(t) => Ok(Stamp::Instant(t.as_millis())),
        Err(problem) => match text.parse::<DateTime>() {
            Ok(local) => Ok(Stamp::Local(local)),
            Err(_) => Err(match text.parse::<i64>() {
                Ok(number) => match epoch_text(number) {
                    Some(meant) => format!(
                        "time `{number}` is a number: {meant}; say which with `format` in the mapping, or write RFC 3339"
                    ),
                    None => problem.to_string(),
                },
                Err(_) if looks_like_a_date(text) => format!(
                    "{problem}; for another form name it in a mapping, such as `format = \"%d/%m/%Y %H:%M\"`"
                ),
                Err(_) => problem.to_string(),
            }),
        },
    }
}

fn looks_like_a_date(text: &str) -> bool {
    text.bytes().filter(u8::is_ascii_digit).count() >= 4 && text.bytes().any(|b| !b.is_ascii_digit())
}

/// What a number may mean as a time.
fn epoch_text(number: i64) -> Option<String> {
    let (unit, ms) = match number {
        1_000_000_000..10_000_000_000 => ("seconds", number * 1000),
        1_000_000_000_000..10_000_000_000_000 => ("milliseconds", number),
        1_000_000_000_000_000..10_000_000_000_000_000 => ("microseconds", number / 1000),
        1_000_000_000_000_000_000..=i64::MAX => ("nanoseconds", number / 1_000_000),
        _ => return None,
    };
    Some(format!("{} as {unit} since 1970", Timestamp(ms)))
}

fn epoch(text: &str, factor: i64) -> Result<Stamp, String> {
    let unit = if factor == 1 { "milliseconds" } else { "seconds" };
    let number: i64 = text
        .parse()
        .map_err(|_| format!("time `{}` is not a whole number of {unit} since 1970", shown(text)))?;
    let ms = number.checked_mul(factor).filter(|ms| jiff::Timestamp::from_millisecond(*ms).is_ok());
    ms.map(Stamp::Instant).ok_or_else(|| format!("time `{number}` is too far away for {unit} since 1970"))
}

/// Replaces `24:00` by `00:00`, and tells whether it did.
fn without_hour_24(text: &str) -> Result<(String, bool), String> {
    let bytes = text.as_bytes();
    let starts = |at: usize| at == 0 || matches!(bytes[at - 1], b' ' | b'T' | b't' | b'_');
    let Some(at) =
        (0..bytes.len().saturating_sub(2)).find(|at| starts(*at) && bytes[*at..].starts_with(b"24:"))
    else {
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
            ("KABOOM", "%b %d %Y %I:%M%p", &["KABOOM"]),
            ("1e9", "epoch_seconds", &["seconds"]),
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
