//! Waiting for the parts of something that was sent out: fan-in.
//!
//! A [`Plan`] is stored before the first part is sent, with a deadline; each part is told to the store when it is done or has failed
//! ([`FanIn::report`]); and the fan-in ends exactly once, by its [`Policy`] or at the deadline, whoever crashes meanwhile. Whoever acts
//! on the end claims it ([`FanIn::ended`]), and is replaced if it is lost; [`FanInSpout`] emits ends into a topology.
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use galerna_fan_in::{End, FanIn, FanInOptions, Plan, Policy, Reported, sqlite::SqliteFanIns};
//! use galerna_model::{Clock, SystemClock};
//!
//! let store = Arc::new(SqliteFanIns::in_memory()?);
//! let mut fan_in = FanIn::new(store, Arc::new(SystemClock), FanInOptions::default());
//! let plan = Plan {
//!     id: "chart/1".to_owned(),
//!     parts: vec!["a".to_owned(), "b".to_owned()],
//!     policy: Policy::BestEffort,
//!     deadline: SystemClock.now().plus_millis(60_000),
//!     payload: serde_json::json!({ "file": "chart.svg" }),
//! };
//! fan_in.begin(plan).await?;
//! // Now the parts are sent; each comes back from somewhere, sometime, and perhaps twice.
//! assert_eq!(fan_in.report("chart/1", "a", Ok(17.into())).await?, Reported::Counted(None));
//! assert_eq!(fan_in.report("chart/1", "a", Ok(17.into())).await?, Reported::Duplicate);
//! fan_in.report("chart/1", "b", Err("no such account".to_owned())).await?;
//! for ended in fan_in.ended(10).await? {
//!     assert_eq!(ended.end, End::Partial);
//!     fan_in.settle(&ended).await?;
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! Invariants:
//! - a fan-in ends once, and its parts never change after that; late and duplicate parts are counted;
//! - it ends at the deadline at the latest, by the clock of whoever looks first;
//! - its end has at most one claim within its lease, and is given to another until somebody has acted on it.
//!
//! It is kept in an SQLite file (feature `embedded`) or in MongoDB (feature `mongodb`); one whose end was acted on is forgotten after
//! [`FanInOptions::keep`].
//!
//! The crate knows no engine and no broker; of the workspace it uses the clock of `model`, the traits of `topology`, and `sqlite` with the
//! feature `embedded`.

mod error;
mod fan_in;
#[cfg(feature = "mongodb")]
pub mod mongo;
mod record;
mod spout;
#[cfg(feature = "embedded")]
pub mod sqlite;
mod store;

pub use error::FanInError;
pub use fan_in::{Ended, FanIn, FanInOptions};
pub use record::{Claim, End, PARTS, Part, Plan, Policy, Record, Reported, Violation};
pub use spout::FanInSpout;
pub use store::FanInStore;
