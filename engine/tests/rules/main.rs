//! The engine's rules, a test for each: those of Storm's own tests in their words, and Galerna's beyond.

mod acking;
mod anchors;
mod batches;
mod bolts;
mod bounds;
mod flow;
mod groupings;
mod lifecycle;
mod map_async;
mod mending;
mod metrics;
mod panics;
mod panics_between;
mod properties;
mod rebalancing;
mod sharing;
mod stable_ids;
mod starting;
mod threads;
mod waiting;
