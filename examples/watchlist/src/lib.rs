//! Alerts from groups' posts: sites and APIs are crawled on schedules, keywords are counted by group and day, and who watches is told
//! once when a threshold is reached.
//!
//! ```text
//!  schedules ──▶ crawls ──▶ enqueue            jobs ──▶ fetch ──▶ store
//!      │                                     (a page each, 1 to 16 at once)
//!      └───────▶ etls ───▶ etl ───▶ deliver
//! ```
//!
//! - A *crawl* walks the pages of a source. Each page is a job on disk, done by one worker at a time and tried again when it fails; what
//!   cannot be done is parked with its reason. There are as many workers as the backlog asks for, 1 to 16.
//! - Requests are polite: a host's `robots.txt` and rate are kept, and a page that has not changed is not sent again.
//! - A post is stored once, by its source and its id there; each edit is a version of it.
//! - The *ETL*, hourly and daily, finds keywords in the versions that are new and makes *targets* of them: counts by keyword, group and
//!   day. What it has done and what it has counted are committed together, so a version counts once whatever dies.
//! - An alert has an id of its rule, group and day, and is raised once. It is delivered until its receiver has taken it, with that id.
//!
//! `README.md` tells how it is used.

mod app;
mod config;
pub mod demo;
mod etl;
mod jobs;
pub mod keywords;
mod page;
mod parked;
mod polite;
mod postgres;
mod reading;
mod scale;
mod site;
mod sqlite;
mod store;
mod topology;

pub use app::{Options, Watchlist};
pub use config::{Config, ConfigError, Rule, Select, Source, SourceKind};
pub use etl::week_change;
pub use parked::{ParkedOptions, parked};
pub use postgres::PostgresStore;
pub use reading::{Listing, ReadError, read};
pub use scale::Scale;
pub use site::Site;
pub use sqlite::SqliteStore;
pub use store::{Alert, Counts, Mapped, Page, Post, Saved, Store, StoreError, Target, Validators, Version};
