//! Event time, windows and joins, as ordinary bolts of a topology.
//!
//! - [`EventTime`] reads off the tuples of a source how far it is, and tells all behind it: watermarks.
//! - [`Window`] puts the tuples of a key together, tumbling, sliding, by session or by count, and makes something of them:
//!   an [`Aggregate`]. What comes late goes into its window or to the late output.
//! - [`Join`] pairs the tuples of two streams; [`Deduplicate`], [`Enrich`] and [`TopN`] do what their names say. [`EnrichAsOf`] gives a
//!   tuple what a table had for it at its own time.
//! - [`Flow`] declares all of it as a chain of calls.
//! - [`WindowTopology`] declares them on a `TopologyBuilder`.
//!
//! ```
//! use std::time::Duration;
//! use galerna_topology::prelude::*;
//! use galerna_windows::{Count, EventTime, Late, Window, WindowResult, WindowTopology};
//!
//! # #[derive(Clone, Debug)] struct Reading { device: String, at: i64 }
//! # struct Readings;
//! # impl Spout for Readings {
//! #     type MessageId = u64;
//! #     type Outputs = Output<Reading>;
//! #     async fn next(&mut self, _: &mut Roots<'_, Self>) -> Result<Next, Fault> { Ok(Next::Done) }
//! # }
//! const MINUTE: Duration = Duration::from_secs(60);
//!
//! let mut topology = TopologyBuilder::new("hourly");
//! topology.message_timeout(120 * MINUTE);
//! let readings = topology.spout("readings", || Readings).outputs();
//! let clocked = EventTime::of(|reading: &Reading| reading.at).lag(MINUTE);
//! let readings = topology.event_time("clock", clocked, readings).outputs();
//! let hourly = Window::tumbling(60 * MINUTE)
//!     .event_time(|reading: &Reading| reading.at)
//!     .by(|reading| reading.device.clone())
//!     .aggregate(Count);
//! let counts = topology.window("count", hourly, readings).parallelism(4).outputs();
//! topology.for_each("store", |count: WindowResult<String, u64>| println!("{count:?}")).shuffle(counts.results);
//! topology.for_each("late", |late: Late<String, Reading>| println!("{late:?}")).shuffle(counts.late);
//! topology.build()?;
//! # Ok::<(), BuildError>(())
//! ```
//!
//! Windows and joins hold the roots of their tuples until they have fired. Those declared with `window_in_state`, `join_in_state` and
//! `enrich_in_state` keep their tuples in keyed state instead, which checkpoints make durable.
//!
//! The crate must not depend on the engine, but for tests, and reads no clock but that of the topology.

/// What a file that declares windows and joins needs.
pub mod prelude {
    pub use crate::{
        Aggregate, Collect, Count, Deduplicate, Enrich, EnrichAsOf, EventTime, Firing, Fold, Join, Joined,
        Late, Side, Summarise, Summary, TableChange, TableVersion, TopN, Window, WindowBounds, WindowResult,
        WindowTopology,
    };
}

mod aggregate;
mod count_windows;
mod deduplicate;
mod enrich;
mod enrich_as_of;
mod event_time_bolt;
mod flow;
mod join;
mod join_store;
mod kept;
mod kept_enrich;
mod kept_join;
mod late;
mod result;
mod sessions;
mod source_clock;
mod sources;
mod state_deduplicate;
mod state_enrich_bolt;
mod state_join_bolt;
mod state_window_bolt;
mod store;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod take_back_tests;
mod time_windows;
mod topology;
mod window;
mod window_bolt;

pub use aggregate::{Aggregate, Collect, Count, Fold, Summarise, Summary, TopN};
pub use deduplicate::{Deduplicate, DeduplicateOutputs};
pub use enrich::{Enrich, EnrichInput, Enriched, TableChange};
pub use enrich_as_of::{EnrichAsOf, EnrichAsOfError, EnrichAsOfOutputs, TableVersion};
pub use event_time_bolt::EventTime;
pub use flow::{EnrichedWithLate, Flow, JoinedWithLate, KeyedFlow, WindowedFlow, WithLate};
pub use join::{Join, JoinError, JoinOutputs};
pub use join_store::{Joined, Side};
pub use result::{Firing, Late, WindowBounds, WindowResult};
pub use source_clock::{EventTimeSettings, Implausible, SourceClock};
pub use topology::{EnrichDeclarer, WindowDeclarer, WindowTopology};
pub use window::{Window, WindowError};
pub use window_bolt::WindowOutputs;
