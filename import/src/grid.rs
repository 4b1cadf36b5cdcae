//! Grids: a row a day, a column an interval.

use galerna_model::Timestamp;
use jiff::civil::{Date, Time};

use crate::error::ImportError;
use crate::layout::{Header, Meaning, normalized};
use crate::mapping::{ClockChange, Edge, GridMapping};
use crate::times::{Stamp, Zone, parse_length};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// The columns of a grid.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    pub(crate) meaning: Meaning,
    pub(crate) every_ms: i64,
    pub(crate) optional: bool,
    cells: Vec<Cell>,
    clock_change: ClockChange,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    /// Its column.
    pub(crate) at: usize,
    /// From the beginning of the day to that of its interval, as a clock without changes shows it.
    start_ms: i64,
}

/// A day of a grid.
pub(crate) struct Day {
    date: Date,
    start: i64,
    length: i64,
    change: ClockChange,
}

impl Grid {
    /// Finds the columns; `None` when there is not one.
    pub(crate) fn bind(
        mapping: &GridMapping,
        header: &Header<'_>,
        meaning: Meaning,
    ) -> Result<Option<Self>, ImportError> {
        let wrong = |value: &str, problem: String| ImportError::Option {
            what: "a grid of the mapping",
            value: value.to_owned(),
            problem,
        };
        let every_ms =
            parse_length(&mapping.every).map_err(|problem| wrong(&mapping.every, problem.to_string()))?;
        let numbered = mapping.columns.contains("{n}");
        let pattern = mapping.columns.replace("{n}", "\u{1}").replace("{time}", "\u{1}");
        let (before, after) = pattern.split_once('\u{1}').unwrap_or((&pattern, ""));
        // The place of the number is a word of its own to what compares names.
        let (before, after) = (normalized_edge(before), normalized_edge(after));
        let mut cells: Vec<Cell> = Vec::new();
        for (at, name) in header.normalized().iter().enumerate() {
            let Some(label) = name.strip_prefix(&before).and_then(|rest| rest.strip_suffix(&after)) else {
                continue;
            };
            let start_ms = if numbered {
                let Ok(number) = label.trim_start_matches('_').parse::<i64>() else { continue };
                if !(1..=1_500).contains(&number) {
                    continue;
                }
                (number - 1) * every_ms
            } else {
                let Some(time) = clock_ms(label) else { continue };
                match mapping.labels {
                    Edge::Start => time,
                    Edge::End if time == 0 => DAY_MS - every_ms,
                    Edge::End => time - every_ms,
                }
            };
            if !(0..DAY_MS + DAY_MS / 8).contains(&start_ms) {
                return Err(wrong(
                    name,
                    format!("its interval of {} does not begin within the day", mapping.every),
                ));
            }
            if let Some(twin) = cells.iter().find(|cell| cell.start_ms == start_ms) {
                return Err(ImportError::Ambiguous {
                    found: format!(
                        "columns {} and {} of the header are the same interval of the day",
                        twin.at + 1,
                        at + 1
                    ),
                    remedy: "rename one of them".to_owned(),
                });
            }
            cells.push(Cell { at, start_ms });
        }
        let longer = cells.iter().any(|cell| cell.start_ms >= DAY_MS);
        let clock_change = match mapping.clock_change {
            // Times of a clock are what they are, and cells beyond 24 hours are for the days that have more.
            ClockChange::Refuse if !numbered => ClockChange::Clock,
            ClockChange::Refuse if longer => ClockChange::Elapsed,
            other => other,
        };
        let found = !cells.is_empty();
        Ok(found.then_some(Self { meaning, every_ms, optional: mapping.optional, cells, clock_change }))
    }

    pub(crate) fn cells(&self) -> impl Iterator<Item = Cell> {
        self.cells.iter().copied()
    }

    pub(crate) fn columns(&self) -> impl Iterator<Item = usize> {
        self.cells.iter().map(|cell| cell.at)
    }

    pub(crate) fn last_column(&self) -> usize {
        self.columns().max().unwrap_or(0)
    }

    /// Whether a record has nothing in the grid.
    pub(crate) fn is_empty(&self, record: &csv::StringRecord) -> bool {
        self.columns().all(|at| record.get(at).unwrap_or_default().trim().is_empty())
    }

    /// A day, unless its clock changes and nothing says what that means.
    pub(crate) fn day(&self, date: Date, zone: &Zone) -> Result<Day, String> {
        let (start, length) = zone.day(date)?;
        if length != DAY_MS && self.clock_change == ClockChange::Refuse {
            let name = zone.zone.as_ref().map_or("its zone", |(name, _)| name);
            return Err(format!(
                "{date} has {} hours in {name}, and {} numbered columns do not say which of them they are; \
                 say `clock_change` in the mapping, or --time-zone UTC where the meter's clock does not change",
                length / (60 * MINUTE_MS),
                self.cells.len()
            ));
        }
        Ok(Day { date, start, length, change: self.clock_change })
    }

    /// The end of a cell's interval.
    pub(crate) fn time(&self, day: &Day, cell: Cell, zone: &Zone) -> Result<Timestamp, String> {
        let end = cell.start_ms + self.every_ms;
        if day.change == ClockChange::Clock && day.length != DAY_MS {
            if end > DAY_MS {
                return Err(format!("{} has no such interval", day.date));
            }
            let local = day
                .date
                .to_datetime(Time::midnight())
                .checked_add(jiff::SignedDuration::from_millis(cell.start_ms))
                .map_err(|e| e.to_string())?;
            return Ok(Timestamp(zone.instant(Stamp::Local(local), None)? + self.every_ms));
        }
        if end > day.length {
            return Err(format!("{} has no such interval", day.date));
        }
        Ok(Timestamp(day.start + end))
    }
}

/// As [`normalized`], but what joins the words at an end stays.
fn normalized_edge(text: &str) -> String {
    let joins = |c: Option<char>| c.is_some_and(|c| c.is_whitespace() || matches!(c, '_' | '-'));
    let (first, last) = (joins(text.chars().next()), joins(text.chars().next_back()));
    let middle = normalized(text);
    match (middle.is_empty(), first, last) {
        (true, ..) => {
            if first {
                "_".to_owned()
            } else {
                middle
            }
        }
        (false, true, true) => format!("_{middle}_"),
        (false, true, false) => format!("_{middle}"),
        (false, false, true) => format!("{middle}_"),
        (false, false, false) => middle,
    }
}

/// A time such as `00:30` or `24:00`, in milliseconds of the day.
fn clock_ms(text: &str) -> Option<i64> {
    let mut parts = text.split(':').map(|part| part.parse::<i64>().ok().filter(|_| part.len() <= 2));
    let (hours, minutes) = (parts.next()??, parts.next()??);
    let seconds = match parts.next() {
        Some(seconds) => seconds?,
        None => 0,
    };
    let ms = ((hours * 60 + minutes) * 60 + seconds) * 1000;
    ((0..60).contains(&minutes) && (0..60).contains(&seconds) && (0..=DAY_MS).contains(&ms) && hours >= 0)
        .then_some(ms)
}
