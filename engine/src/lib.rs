//! Running topologies: delivery, acking, flow control, lifecycle and metrics.
//!
//! This crate runs what `galerna-topology` declares, on tokio. It knows no broker and no store, and must not.
//!
//! - **Work goes to idle tasks.** Tuples are dealt evenly over the tasks of a shuffled bolt, one by one if it waits; what waits for
//!   a task that is slow or in the middle of waiting is taken by one with nothing to do. What is done is acked and goes on while
//!   the bolt waits for the next tuple. Batches taken as a whole are left whole.
//! - **Time is shared by the clock.** A computing worker gives others a turn after a millisecond, in the middle of a batch if it
//!   must; then ticks that are due come, and what was held back to fill batches for two milliseconds goes on. Bolts that block
//!   have threads of their own (`blocking`), and those that want a core to themselves one each (`pinned`).
//! - **Everything between tasks is bounded**, in batches and in bytes ([`EngineOptions::queued_bytes`]).
//! - **No task ends unseen.** A panic costs a tuple and is told in the metrics and, at a limited rate, in the log; an instance that
//!   cannot be made again is tried again, with pauses that grow to a second.
//!
//! ```
//! use galerna_engine::{Engine, EngineOptions};
//! use galerna_topology::prelude::*;
//! use std::time::Duration;
//!
//! struct Numbers(u64);
//!
//! impl Spout for Numbers {
//!     type MessageId = u64;
//!     type Outputs = Output<u64>;
//!
//!     async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
//!         if self.0 == 1000 {
//!             return Ok(Next::Done);
//!         }
//!         self.0 += 1;
//!         out.root(self.0).emit(self.0);
//!         Ok(Next::Ready)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut topology = TopologyBuilder::new("sum");
//! let numbers = topology.spout("numbers", || Numbers(0)).outputs();
//! let even = topology.filter("even", |n: &u64| n % 2 == 0).shuffle(numbers).outputs();
//! topology.for_each("sink", |_: u64| ()).shuffle(even);
//!
//! let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
//! running.finished().await;
//! let report = running.drain(Duration::from_secs(5)).await;
//! let numbers = report.metrics.component("numbers").ok_or("no such component")?;
//! assert_eq!((numbers.acked, numbers.failures()), (1000, 0));
//! # Ok(())
//! # }
//! ```

mod ack_sender;
mod async_worker;
mod checkpoints;
mod clock;
mod error;
mod executors;
mod faults;
mod handle;
mod histogram;
mod in_flight;
mod lanes;
pub mod ledger;
mod metrics;
mod plan;
mod rebalance;
mod running;
mod shared;
mod spout_worker;
mod stable_ids;
mod start;
mod sync;
pub mod testing;
mod threads;
mod turn;
mod unsettled;
mod worker;

pub use checkpoints::{
    CheckpointFailure, CheckpointMetrics, CheckpointOptions, CheckpointReport, KeyedStateOptions, SpillPlaces,
};
pub use clock::{ManualClock, TokioClock};
pub use error::EngineError;
pub use handle::TopologyHandle;
pub use histogram::{Histogram, LATENCY_BOUNDS, Latency};
pub use metrics::{ComponentMetrics, HotKeyMetrics, LastError, Metrics, SpoutState, WatermarkMetrics};
pub use rebalance::{RebalanceError, Rebalanced};
pub use running::{DrainReport, Engine, EngineOptions, Running};
pub use stable_ids::StableIds;
