//! UC3: what each sensor draws at each hour of the day, over the last 30 days.

use std::time::Duration;

use galerna_topology::prelude::*;
use galerna_windows::{EventTime, Firing, Summarise, Summary, Window, WindowTopology};
use jiff::tz::TimeZone;

use super::PowerRecord;
use crate::nexmark::window_end;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What a sensor drew at an hour of the day.
#[derive(Debug, Clone, PartialEq)]
pub struct HourOfDay {
    /// The sensor.
    pub identifier: String,
    /// The hour, 0 to 23.
    pub hour: i8,
    /// Where the window ends, in milliseconds since 1970.
    pub end: i64,
    /// What it drew.
    pub drawn: Summary,
    /// Whether the window is complete.
    pub complete: bool,
}

/// The hour of the day in a time zone at so many milliseconds since 1970.
fn hour_of_day(zone: &TimeZone, at: i64) -> i8 {
    jiff::Timestamp::from_millisecond(at).map_or(0, |at| zone.to_datetime(at).hour())
}

/// Count, sum, least, greatest, mean and variance of the readings of each sensor at each hour of the day in `zone` (of the benchmark:
/// Europe/Paris), in windows of 30 days of which one begins each day; every 15 seconds what there is so far.
pub fn uc3(
    topology: &mut TopologyBuilder,
    records: Stream<PowerRecord>,
    tasks: usize,
    zone: TimeZone,
) -> Stream<HourOfDay> {
    let window = Window::sliding(30 * DAY, DAY)
        .event_time(|record: &PowerRecord| record.timestamp)
        .early_every(Duration::from_secs(15));
    topology
        .flow(records)
        .parallelism(tasks)
        .event_time(EventTime::of(|record: &PowerRecord| record.timestamp))
        .key_by(move |record| (record.identifier.clone(), hour_of_day(&zone, record.timestamp)))
        .parallelism(tasks)
        .window(window)
        .aggregate_in_state(Summarise::new(|record: &PowerRecord| record.value_in_w))
        .parallelism(tasks)
        .map(|result| {
            let (end, complete) = (window_end(&result), result.firing == Firing::OnTime);
            let (identifier, hour) = result.key;
            HourOfDay { identifier, hour, end, drawn: result.value, complete }
        })
        .stream()
}
