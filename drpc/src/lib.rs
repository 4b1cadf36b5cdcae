//! Request and answer: a call that goes through a topology as a tuple and comes back with its result, as Storm's DRPC.
//!
//! A [`DrpcSpout`] emits the argument of each call with a [`ReturnInfo`]; bolts make of it what they like and pass the `ReturnInfo`
//! on; [`ReturnResults`] gives the result to the caller. Callers call [`Drpc::execute`], or over HTTP by [`Drpc::routes`]:
//! `POST /drpc/<function>` with the argument as body, or `GET /drpc/<function>/<argument>`.
//!
//! ```
//! use galerna_drpc::{Drpc, DrpcOptions, DrpcSpout, ReturnInfo, ReturnResults};
//! use galerna_engine::{Engine, EngineOptions};
//! use galerna_topology::prelude::*;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let drpc = Drpc::new(DrpcOptions::default());
//! let mut topology = TopologyBuilder::new("exclaiming");
//! let calls = topology.spout("calls", DrpcSpout::new(&drpc, "exclaim")).outputs();
//! let results = topology
//!     .map("exclaim", |(text, caller): (String, ReturnInfo)| (format!("{text}!!!"), caller))
//!     .shuffle(calls)
//!     .outputs();
//! topology.bolt("return", ReturnResults).shuffle(results);
//! let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
//!
//! assert_eq!(drpc.execute("exclaim", "aaa").await?, "aaa!!!");
//! # running.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants and boundaries
//! - Each call has exactly one answer: a result, or an error that says why there is none. Of several results the first counts.
//! - No more calls are in flight than [`DrpcOptions::in_flight`] of each function; more are refused at once.
//! - A call whose caller has gone is not emitted any more; where it is in the topology already, bolts may ask
//!   [`ReturnInfo::is_cancelled`].
//! - A topology that was deactivated takes no calls; one that has not been activated yet lets them wait.
//! - It knows no engine: the spout and the bolt are components as any others.

mod components;
mod error;
mod functions;
mod routes;

pub use components::{DrpcSpout, ReturnInfo, ReturnResults};
pub use error::DrpcError;
pub use functions::{Drpc, DrpcOptions};
