//! Which of the numbers of a date is its day: `01/02/2026` is in January or in February.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::error::{ImportError, shown};
use crate::times::{self, Stamp, TimeFormat};

/// In which order a date has its day, month and year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateOrder {
    /// Day, month, year.
    Dmy,
    /// Month, day, year.
    Mdy,
    /// Year, month, day.
    Ymd,
}

/// A text that is no [`DateOrder`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write dmy, mdy or ymd")]
pub struct DateOrderError;

impl std::str::FromStr for DateOrder {
    type Err = DateOrderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "dmy" => Ok(Self::Dmy),
            "mdy" => Ok(Self::Mdy),
            "ymd" => Ok(Self::Ymd),
            _ => Err(DateOrderError),
        }
    }
}

impl DateOrder {
    /// The order that a format has; `None` where it names no month by its number.
    fn of(format: &TimeFormat) -> Option<Self> {
        let TimeFormat::Pattern(pattern) = format else { return None };
        let place = |letters: &[&str]| letters.iter().filter_map(|letter| pattern.find(letter)).min();
        let (day, month) = (place(&["%d", "%e", "%-d"])?, place(&["%m", "%-m"])?);
        let year = place(&["%Y", "%y"])?;
        Some(match (year < day && year < month, day < month) {
            (true, _) => Self::Ymd,
            (false, true) => Self::Dmy,
            (false, false) => Self::Mdy,
        })
    }

    /// Formats of dates in this order, with or without a time of day.
    fn formats(self, with_time: bool) -> Vec<TimeFormat> {
        let date = |separator: char| match self {
            Self::Dmy => format!("%d{separator}%m{separator}%Y"),
            Self::Mdy => format!("%m{separator}%d{separator}%Y"),
            Self::Ymd => format!("%Y{separator}%m{separator}%d"),
        };
        let clocks: &[&str] =
            if with_time { &[" %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", ""] } else { &[""] };
        let dates = ['/', '.', '-'].into_iter().map(date);
        dates
            .flat_map(|date| clocks.iter().map(move |clock| TimeFormat::Pattern(format!("{date}{clock}"))))
            .collect()
    }
}

/// What is said of dates by an option, applied to the format of a column.
pub(crate) fn told(
    format: TimeFormat,
    order: Option<DateOrder>,
    with_time: bool,
) -> Result<TimeFormat, ImportError> {
    let Some(order) = order else { return Ok(format) };
    let fits = |format: &TimeFormat| match DateOrder::of(format) {
        // A year of four digits in front is no day.
        None | Some(DateOrder::Ymd) => true,
        Some(other) => other == order,
    };
    let contradicted = |format: &TimeFormat| ImportError::Option {
        what: "--date-order",
        value: format!("{order:?}").to_lowercase(),
        problem: format!(
            "the mapping reads times as `{format}`; leave the option out, or correct the mapping"
        ),
    };
    match format {
        TimeFormat::Rfc3339 => {
            let mut formats = vec![TimeFormat::Rfc3339];
            formats.extend(order.formats(with_time));
            Ok(TimeFormat::OneOf(formats))
        }
        TimeFormat::OneOf(formats) => {
            let kept: Vec<TimeFormat> = formats.iter().filter(|format| fits(format)).cloned().collect();
            if kept.is_empty() {
                Err(contradicted(&TimeFormat::OneOf(formats)))
            } else {
                Ok(TimeFormat::OneOf(kept))
            }
        }
        other if fits(&other) => Ok(other),
        other => Err(contradicted(&other)),
    }
}

/// What a file's dates tell of the formats that they may be of.
pub(crate) struct Evidence<'f> {
    formats: &'f [TimeFormat],
    with_time: bool,
    /// Texts that only one format reads: the first of each format.
    alone: BTreeMap<usize, (u64, String)>,
    /// The first text that several read, each as another date; and all of those formats.
    doubtful: Option<(u64, String)>,
    contested: BTreeSet<usize>,
    /// Dates as each format reads them, with the texts of their times of day.
    seen: BTreeSet<(String, String)>,
}

impl<'f> Evidence<'f> {
    pub(crate) fn new(formats: &'f [TimeFormat], with_time: bool) -> Self {
        Self {
            formats,
            with_time,
            alone: BTreeMap::new(),
            doubtful: None,
            contested: BTreeSet::new(),
            seen: BTreeSet::new(),
        }
    }

    fn read(&self, text: &str, at: usize) -> Option<Date> {
        let format = self.formats.get(at)?;
        if !self.with_time {
            return times::parse_date(text, format).ok();
        }
        match times::parse(text, format).ok()? {
            Stamp::Local(local) => Some(local.date()),
            Stamp::Instant(_) => None,
        }
    }

    /// Looks at a date, and at the time of day beside it.
    pub(crate) fn look(&mut self, line: u64, text: &str, clock: &str) {
        if text.is_empty() || !self.seen.insert((text.to_owned(), clock.to_owned())) {
            return;
        }
        let read: Vec<(usize, Date)> =
            (0..self.formats.len()).filter_map(|at| Some((at, self.read(text, at)?))).collect();
        match read[..] {
            [(at, _)] => drop(self.alone.entry(at).or_insert_with(|| (line, text.to_owned()))),
            [(_, first), ..] if read.iter().any(|(_, date)| *date != first) => {
                self.contested.extend(read.iter().map(|(at, _)| *at));
                self.doubtful.get_or_insert_with(|| (line, text.to_owned()));
            }
            _ => {}
        }
    }

    /// Whether, read in this way, the file has several times of each of its days, and no day between is missing.
    fn is_day_by_day(&self, at: usize) -> bool {
        let mut days: BTreeSet<Date> = BTreeSet::new();
        let mut times = 0;
        for (text, _) in &self.seen {
            // What is no date at all, such as a line of totals, tells nothing.
            let Some(date) = self.read(text, at) else { continue };
            days.insert(date);
            times += 1;
        }
        let mut pairs = days.iter().zip(days.iter().skip(1));
        days.len() > 1 && times >= 2 * days.len() && pairs.all(|(a, b)| a.tomorrow().ok() == Some(*b))
    }

    /// The formats that are meant.
    pub(crate) fn formats(&self) -> Result<Vec<TimeFormat>, ImportError> {
        let Some((line, text)) = &self.doubtful else { return Ok(self.formats.to_vec()) };
        let alone: Vec<usize> =
            self.contested.iter().filter(|at| self.alone.contains_key(at)).copied().collect();
        let meant = match alone[..] {
            [one] => one,
            [a, b, ..] => {
                let (first, second) = (&self.alone[&a], &self.alone[&b]);
                return Err(ImportError::Ambiguous {
                    found: format!(
                        "`{}` on line {} can only be of the form `{}`, and `{}` on line {} only of `{}`",
                        shown(&first.1),
                        first.0,
                        self.formats[a],
                        shown(&second.1),
                        second.0,
                        self.formats[b]
                    ),
                    remedy: "say --date-order dmy or mdy, by which the others are refused".to_owned(),
                });
            }
            [] => {
                let days: Vec<usize> =
                    self.contested.iter().filter(|at| self.is_day_by_day(**at)).copied().collect();
                let [one] = days[..] else {
                    let dates: Vec<String> = self
                        .contested
                        .iter()
                        .filter_map(|at| Some(format!("{} (`{}`)", self.read(text, *at)?, self.formats[*at])))
                        .collect();
                    return Err(ImportError::Ambiguous {
                        found: format!(
                            "`{}` on line {line} may be {}, and no other date of the file tells",
                            shown(text),
                            dates.join(" or ")
                        ),
                        remedy: "say --date-order dmy or --date-order mdy".to_owned(),
                    });
                };
                one
            }
        };
        let kept = self.formats.iter().enumerate();
        let kept = kept.filter(|(at, _)| *at == meant || !self.contested.contains(at));
        Ok(kept.map(|(_, format)| format.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(texts: &[(&str, &str)]) -> Result<String, String> {
        let formats: Vec<_> = ["%Y-%m-%d", "%m/%d/%Y", "%d/%m/%Y"].map(TimeFormat::of).to_vec();
        let mut evidence = Evidence::new(&formats, false);
        texts.iter().zip(2..).for_each(|((date, clock), line)| evidence.look(line, date, clock));
        let kept = evidence.formats().map_err(|e| e.to_string())?;
        Ok(kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_day_of_a_date_is_told_by_the_file_or_the_doubt_is() {
        for (texts, expected) in [
            (&[("2026-01-02", "")][..], "%Y-%m-%d %m/%d/%Y %d/%m/%Y"),
            (&[("1/15/2026", ""), ("1/2/2026", "")], "%Y-%m-%d %m/%d/%Y"),
            (&[("15/1/2026", ""), ("1/2/2026", "")], "%Y-%m-%d %d/%m/%Y"),
            // It is the same day in either way.
            (&[("1/1/2026", "")], "%Y-%m-%d %m/%d/%Y %d/%m/%Y"),
            // The second of January follows the first, hour by hour.
            (
                &[("1/1/2026", "00:00"), ("1/1/2026", "01:00"), ("1/2/2026", "00:00"), ("1/2/2026", "01:00")],
                "%Y-%m-%d %m/%d/%Y",
            ),
            (
                &[("1/1/2026", "00:00"), ("1/1/2026", "01:00"), ("2/1/2026", "00:00"), ("2/1/2026", "01:00")],
                "%Y-%m-%d %d/%m/%Y",
            ),
        ] {
            assert_eq!(meant(texts).as_deref(), Ok(expected), "{texts:?}");
        }
        for (texts, parts) in [
            (&[("1/2/2026", "")][..], &["2026-01-02", "2026-02-01", "line 2", "--date-order dmy"][..]),
            // A value a month, or three days.
            (&[("1/1/2026", ""), ("2/1/2026", ""), ("3/1/2026", "")], &["--date-order mdy"]),
            (&[("1/13/2026", ""), ("13/1/2026", ""), ("1/2/2026", "")], &["line 2", "line 3", "only"]),
        ] {
            let doubt = meant(texts).unwrap_err();
            assert!(parts.iter().all(|part| doubt.contains(part)), "{texts:?}: {doubt}");
        }
    }
}
