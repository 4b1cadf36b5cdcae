//! What only all rows of a file together tell.

use std::collections::HashMap;

use jiff::SignedDuration;
use jiff::civil::DateTime;

use super::{Layout, Placed, Times};
use crate::dates::Evidence;
use crate::error::ImportError;
use crate::mapping::Edge;
use crate::times::{Stamp, TimeFormat};

impl Layout {
    /// Finds out which of the numbers of a date is its day, which end of the file is the newer, and which of two times repeats
    /// where clocks go back.
    pub(crate) fn settle<I>(&mut self, records: impl Fn() -> I) -> Result<(), ImportError>
    where
        I: Iterator<Item = (u64, csv::StringRecord)>,
    {
        if let Some(formats) = self.settled_formats(records())?
            && let Some(format) = self.date_format()
        {
            *format = TimeFormat::OneOf(formats);
        }
        if self.takes_order() {
            let mut times = records().filter_map(|(_, record)| self.local_time(&record));
            let first = times.next();
            let newest_first = first.zip(times.last()).is_some_and(|(first, last)| first > last);
            self.newest_first = newest_first;
            self.ends_by_start = self.repeats_by_start(records());
        }
        Ok(())
    }

    fn date_format(&mut self) -> Option<&mut TimeFormat> {
        match &mut self.times {
            Times::One { format, .. } => Some(format),
            Times::Clock { date_format, .. }
            | Times::Hour { date_format, .. }
            | Times::Grid { date_format, .. } => Some(date_format),
        }
    }

    fn settled_formats(
        &self,
        records: impl Iterator<Item = (u64, csv::StringRecord)>,
    ) -> Result<Option<Vec<TimeFormat>>, ImportError> {
        let (date, format, clock) = match &self.times {
            Times::One { at, format, .. } => (*at, format, None),
            Times::Clock { date, date_format, clock, .. } => (*date, date_format, Some(*clock)),
            Times::Hour { date, date_format, hour } => (*date, date_format, Some(*hour)),
            // A row is a day.
            Times::Grid { date, date_format } => (*date, date_format, None),
        };
        let TimeFormat::OneOf(formats) = format else { return Ok(None) };
        let mut evidence = Evidence::new(formats, matches!(self.times, Times::One { .. }));
        for (line, record) in records {
            if matches!(self.times, Times::Grid { .. }) {
                // Its many cells are times of the day.
                for cell in ["1", "2"] {
                    evidence.look(line, self.field(&record, date), cell);
                }
                continue;
            }
            let clock = clock.map_or("", |clock| self.field(&record, clock));
            evidence.look(line, self.field(&record, date), clock);
        }
        evidence.formats().map(Some)
    }

    /// Whether, where clocks go back, the ends are written as the beginnings' clock time and an interval: the hours to 02:00,
    /// 03:00 and again 03:00. A clock on a wall shows 02:00 twice and 03:00 once.
    fn repeats_by_start(&self, records: impl Iterator<Item = (u64, csv::StringRecord)>) -> bool {
        let mut times: HashMap<(String, Option<usize>, DateTime), (bool, u32)> = HashMap::new();
        for (_, record) in records {
            let Ok(Placed { stamp: Stamp::Local(end), edge: Edge::End, length, .. }) = self.placed(&record)
            else {
                continue;
            };
            let Some(length) = length.or_else(|| self.told_length(self.interval.of(&record)?).ok()) else {
                continue;
            };
            let Ok(start) = end.checked_sub(SignedDuration::from_millis(length)) else { continue };
            let (of_start, of_end) = (self.zone.occurs_twice(start), self.zone.occurs_twice(end));
            if of_start == of_end {
                continue;
            }
            let meter = self.meter.of(&record).unwrap_or_default().to_owned();
            let kind = self.values.iter().position(|value| self.is_of_kind(value, &record));
            times.entry((meter, kind, end)).or_insert((of_start, 0)).1 += 1;
        }
        let twice =
            |by_start: bool| times.values().any(|(of_start, count)| *of_start == by_start && *count == 2);
        twice(true) && !twice(false)
    }
}
