//! Windows and joins in running topologies, on a clock that only the test moves.

mod building;
mod enrich_in_state;
mod event_time;
mod in_state;
mod joins;
mod rebalancing;
mod restarts;
mod storm;
mod windows;

use galerna_topology::Timestamp;

/// A reading of a device: its name, its time in milliseconds, its value.
pub(crate) type Reading = (&'static str, i64, i64);

/// A time as results have it.
pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}
