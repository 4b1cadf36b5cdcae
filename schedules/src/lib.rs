//! Schedules that are kept in a store and fired by any number of processes.
//!
//! - [`Definition`] says when a schedule occurs (cron, interval, once; time zones with their changes), how it behaves
//!   ([`Policy`]) and what its firings carry;
//! - [`Schedules`] adds, edits, pauses, resumes, triggers, backfills, removes and shows them, at any time;
//! - [`Scheduler`] is the part of one process; [`Runner`] runs a function for each firing, [`ScheduleSpout`] emits them into a
//!   topology; with the feature `broker`, `QueuePublisher` publishes them to queues;
//! - with the feature `api`, `router` is routes and pages for operators, for a program to embed;
//! - [`ScheduleStore`] keeps them: in an SQLite file (feature `embedded`) or in MongoDB (feature `mongodb`).
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use galerna_model::SystemClock;
//! use galerna_schedules::{Definition, ScheduleId, Schedules, sqlite::SqliteSchedules};
//!
//! let store = Arc::new(SqliteSchedules::in_memory()?);
//! let schedules = Schedules::new(store, Arc::new(SystemClock));
//! let id = ScheduleId::new("reports/daily")?;
//! schedules.add(id.clone(), Definition::cron("0 6 * * MON-FRI", "Europe/Berlin")).await?;
//! for time in schedules.upcoming(&id, 10).await? {
//!     println!("{time}");
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! Invariants:
//! - an occurrence is named by its schedule and its nominal time in UTC, and is decided once: it is fired, or recorded as
//!   skipped or missed with the reason;
//! - a firing has at most one claim that is within its lease, and exactly one end. It is begun again only by the retry policy:
//!   after a fault, or when the process that had it was not heard of for its lease time;
//! - what was decided is never decided again, whatever the clocks do and whoever edits the schedule.
//!
//! The crate knows no engine; of the workspace it uses the clock of `model`, the traits of `topology`, `retry`, `sqlite` with the feature
//! `embedded`, the trait of `broker` with the feature of that name, `http` and `html` with the feature `api`.

#[cfg(feature = "api")]
pub mod api;
mod calendar;
mod control;
mod definition;
mod driver;
mod duration_text;
mod error;
mod firing;
mod id;
pub mod invariants;
#[cfg(feature = "mongodb")]
pub mod mongo;
#[cfg(feature = "api")]
pub mod page;
mod policy;
#[cfg(feature = "broker")]
mod publisher;
mod record;
mod runner;
mod scheduler;
mod spout;
#[cfg(feature = "embedded")]
pub mod sqlite;
mod store;
mod transition;
mod view;

pub use calendar::tzdata_version;
pub use control::Schedules;
pub use definition::{CronTiming, Definition, Interval, Occurrences, Timing};
pub use error::{BadSchedule, ScheduleError, StoreError};
pub use firing::{Cancel, Claim, Ended, Fail, Firing, FiringId, Miss, OpenFiring, Origin, Outcome, Skip};
pub use id::ScheduleId;
#[cfg(feature = "api")]
pub use page::router;
pub use policy::{DstGap, DstOverlap, Missed, ON_TIME, Overlap, Policy, Retry};
#[cfg(feature = "broker")]
pub use publisher::{QueueMessage, QueuePublisher};
pub use record::{Paused, Record, Upcoming};
pub use runner::{Runner, RunnerOptions};
pub use scheduler::{Finished, Scheduler, SchedulerOptions, Tick};
pub use spout::ScheduleSpout;
pub use store::ScheduleStore;
pub use transition::{BUFFER, OPEN};
pub use view::{Occurrence, SHOWN, ScheduleView};
