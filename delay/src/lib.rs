//! Work that is due later, and how fast it may be done.
//!
//! Both are kept in an SQLite file, which the processes of one machine share (feature `embedded`, the default), or in MongoDB, for processes
//! anywhere (feature `mongodb`).
//!
//! - [`DelayStore`] keeps items with their due times, on disk rather than in memory: claimed in batches when they are due, by one process
//!   at a time, tried again by the kind of their fault, in order by key;
//! - [`DelaySpout`] emits items into a topology when they are due;
//! - [`RateLimits`] are held to by all processes that share them, with a rate and a burst, by key, several at once;
//! - with the feature `api`, `api::ParkedApi` is routes and a page for what is parked, for a program to embed.
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use galerna_delay::{DelayOptions, DelayStore, Item};
//! use galerna_model::{Clock, SystemClock};
//!
//! let mut delayed = DelayStore::in_memory(Arc::new(SystemClock), DelayOptions::default())?;
//! let due = SystemClock.now();
//! delayed.put(vec![Item::new("mail/17", due, "welcome".into())]).await?;
//! for taken in delayed.claim(100).await? {
//!     println!("{} for the {}th time", taken.item.id, taken.attempt);
//!     delayed.settle(&taken, &Ok(())).await?;
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! Invariants:
//! - an item is there once, by its id, until it is done: neither a second `put` nor a lost process multiplies it;
//! - at most one process has a claim on it within its lease;
//! - of the items of one key, only the first may be claimed: while it waits to be tried again, or is parked, those behind it wait, and
//!   other keys flow;
//! - no limit is exceeded, whoever asks; and a key that has to wait holds up no other.
//!
//! The crate knows no engine and no broker.

#[cfg(feature = "api")]
pub mod api;
mod delay;
mod error;
mod item;
#[cfg(feature = "mongodb")]
pub mod mongo;
mod rate;
mod spout;
#[cfg(feature = "embedded")]
pub mod sqlite;
pub mod store;

pub use delay::DelayStore;
pub use error::DelayError;
pub use item::{DelayOptions, Item, Parked, Retry, Settled, Taken};
pub use rate::{Limit, Permit, RateLimits};
pub use spout::DelaySpout;
