//! When expressions occur, by a model that looks at each minute of a zone and knows of expressions only which wall clock times match.

use std::collections::{BTreeMap, BTreeSet};

use galerna_schedules::{DstGap, DstOverlap};
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};

pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

/// 2026-01-01T00:00:00Z.
pub(crate) const START: i64 = 1_767_225_600_000;

/// Both changes of 2026: an hour in the north, an hour in the north of another week, half an hour in the south.
pub(crate) const ZONES: [&str; 3] = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];

pub(crate) fn zone(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).expect("the zone is known")
}

pub(crate) fn wall(zone: &TimeZone, millis: i64) -> DateTime {
    zone.to_datetime(jiff::Timestamp::from_millisecond(millis).expect("a time within range"))
}

/// Minutes and hours of the day, and days of the week from Sunday, as sets.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    pub(crate) minutes: BTreeSet<i8>,
    pub(crate) hours: BTreeSet<i8>,
    pub(crate) weekdays: BTreeSet<i8>,
    pub(crate) wildcard: bool,
}

impl Fields {
    fn matches(&self, time: DateTime) -> bool {
        self.minutes.contains(&time.minute())
            && self.hours.contains(&time.hour())
            && self.weekdays.contains(&time.weekday().to_sunday_zero_offset())
    }
}

/// At which minutes each wall clock time of a zone is shown.
pub(crate) type Shown = BTreeMap<DateTime, Vec<i64>>;

pub(crate) fn shown(zone: &TimeZone, (from, to): (i64, i64)) -> Shown {
    let mut shown = Shown::new();
    for minute in (from - DAY..to + DAY).step_by(MINUTE as usize) {
        shown.entry(wall(zone, minute)).or_default().push(minute);
    }
    shown
}

/// The model: it looks at every minute of a zone, and knows of expressions only which wall clock times match.
pub(crate) fn naive(
    fields: &Fields,
    shown: &Shown,
    (from, to): (i64, i64),
    gap: DstGap,
    overlap: DstOverlap,
) -> Vec<i64> {
    let within = |minute: &i64| (from..to).contains(minute);
    if fields.wildcard {
        let matching = shown.iter().filter(|(time, _)| fields.matches(**time));
        let mut all: Vec<i64> = matching.flat_map(|(_, minutes)| minutes).copied().filter(within).collect();
        all.sort_unstable();
        return all;
    }
    let mut found = BTreeSet::new();
    let mut date = wall(&TimeZone::UTC, from - DAY).date();
    // Zones ahead of UTC show this date already.
    let end = wall(&TimeZone::UTC, to + DAY).date();
    while date <= end {
        for (hour, minute) in
            fields.hours.iter().flat_map(|hour| fields.minutes.iter().map(move |minute| (*hour, *minute)))
        {
            let time = date.at(hour, minute, 0, 0);
            if !fields.matches(time) {
                continue;
            }
            match (shown.get(&time).map(Vec::as_slice), gap, overlap) {
                (None, DstGap::Skip, _) => {}
                (None, DstGap::Shift, _) => {
                    // The first minute that shows a later time is the first after the gap.
                    found.extend(shown.range(time..).next().map(|(_, minutes)| minutes[0]));
                }
                (Some([once]), ..)
                | (Some([once, _]), _, DstOverlap::First)
                | (Some([_, once]), _, DstOverlap::Last) => {
                    found.insert(*once);
                }
                (Some(all), ..) => found.extend(all),
            }
        }
        date = date.tomorrow().expect("a date within range");
    }
    found.into_iter().filter(within).collect()
}
