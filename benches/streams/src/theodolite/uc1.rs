//! UC1: readings are written down, as JSON.

use galerna_topology::prelude::*;
use galerna_windows::WindowTopology;

use super::PowerRecord;

/// The readings as JSON, each made by one of so many tasks. It keeps no state.
pub fn uc1(topology: &mut TopologyBuilder, records: Stream<PowerRecord>, tasks: usize) -> Stream<String> {
    let json = |record: PowerRecord| serde_json::to_string(&record);
    topology
        .flow(records)
        .parallelism(tasks)
        // A number that is no number has no JSON; no sensor sends such.
        .flat_map(move |record| json(record).ok())
        .stream()
}
