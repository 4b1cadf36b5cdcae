//! The running topologies of a process, seen and changed while they run.
//!
//! [`Topologies`] runs topologies by name. [`serve`] has them answer over HTTP, in one line:
//!
//! ```no_run
//! use galerna_control::{ControlOptions, Topologies, serve};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let topologies = Topologies::new();
//! // topologies.submit("words", topology, EngineOptions::default()).await?;
//! serve("127.0.0.1:8099", topologies, ControlOptions::default()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | path | what it is |
//! |---|---|
//! | `GET /topologies`, `GET /topologies/{name}` | the page |
//! | `GET /api/v1/topologies`, `GET /api/v1/topologies/{name}` | what runs: components, executors, metrics, why it is slow |
//! | `POST /api/v1/topologies/{name}/activate`, `deactivate`, `rebalance`, `kill`, `kill/{seconds}` | as in Storm's UI API |
//! | `POST /api/v1/topologies/{name}/checkpoint`, `upgrade`, `autoscale` | a checkpoint, an end from which another program goes on, executors that follow the load |
//! | `GET /openapi.json` | the description of the API |
//! | `GET /healthz`, `/readyz`, `/metrics` | for whoever watches the process |
//!
//! Other services have the same by [`routes::rest`] and [`page::routes`], as routers to merge with their own.
//!
//! # Invariants and boundaries
//! - A topology that has ended stays listed for ten minutes with what it had done, and can be changed no more.
//! - No other site can have a browser change anything here: calls that change something must come from a page of the same origin.
//! - It knows no broker and no store: of the workspace it uses the engine, and what serves HTTP and draws pages.

/// The examples of the guide compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/control.md")]
mod guide {}

mod autoscale;
mod error;
pub mod metrics;
pub mod page;
mod recent;
pub mod routes;
mod server;
mod topologies;
mod upgrade;
mod view;
mod why_slow;

pub use autoscale::{Autoscale, AutoscaleView};
pub use error::ControlError;
/// The menu of a program whose pages stand beside the topologies'.
pub use galerna_html::frame::Menu;
pub use server::{ControlOptions, Listen, ServeControlError, serve};
pub use topologies::{Status, Topologies};
pub use upgrade::{BegunUpgrade, StateView, Upgrade, UpgradeView};
pub use view::{
    CheckpointView, ComponentView, Details, EndView, ErrorView, LatencyView, Summary, WatermarkView,
};
