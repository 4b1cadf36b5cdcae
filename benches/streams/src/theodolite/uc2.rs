//! UC2: what each sensor drew in each minute.

use std::time::Duration;

use galerna_topology::prelude::*;
use galerna_windows::{EventTime, Summarise, Summary, Window, WindowResult, WindowTopology};

use super::PowerRecord;

/// Count, sum, least, greatest, mean and variance of the readings of each sensor in each minute, in event time, with no lateness allowed.
pub fn uc2(
    topology: &mut TopologyBuilder,
    records: Stream<PowerRecord>,
    tasks: usize,
) -> Stream<WindowResult<String, Summary>> {
    topology
        .flow(records)
        .parallelism(tasks)
        .event_time(EventTime::of(|record: &PowerRecord| record.timestamp))
        .key_by(|record| record.identifier.clone())
        .parallelism(tasks)
        .window(Window::tumbling(Duration::from_secs(60)).event_time(|record: &PowerRecord| record.timestamp))
        .aggregate_in_state(Summarise::new(|record: &PowerRecord| record.value_in_w))
        .stream()
}
