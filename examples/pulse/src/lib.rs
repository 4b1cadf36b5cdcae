//! A periodic fan-out: every round (10 s) the last posts of many accounts are fetched at the same time, and compared in one chart.
//!
//! ```text
//!  rounds ──▶ begin ──▶ accounts ──▶ fetch            ends ──▶ table ──▶ chart ──▶ upload
//!  (schedule)   │                  (many at once)    (fan-in)
//!               └──▶ charted (waits for the end of the chain)
//! ```
//!
//! - *rounds* are the firings of a schedule. A round is open until its chart is uploaded, so a round that takes longer than the interval
//!   meets the schedule's overlap policy.
//! - *begin* stores what the round waits for (a fan-in, best effort, with a deadline) before the first account is asked.
//! - *fetch* asks for each account, many at once, and stores its posts. What cannot be fetched fails its account, not the round.
//! - *ends* are the rounds that have heard of all accounts, or whose deadline has passed. Table, chart and upload follow one another; the
//!   accounts that are missing are named in the chart, with the reason.
//!
//! A process may be killed at any moment. The firing is tried again under the same name, the fan-in goes on with the accounts that it is
//! still waiting for, and its parts do not change after its end: so the chart is drawn of the same posts. Objects are named after the
//! round's nominal time and written only if they are not there: there is one chart a round.
//!
//! `README.md` tells how it is used.

mod app;
pub mod chart;
pub mod demo;
mod network;
mod objects;
mod page;
mod recorded;
mod round;
mod table;
mod topology;

pub use app::{Options, Pulse};
pub use network::{FetchError, Mastodon, Post};
pub use objects::{ObjectError, Objects};
pub use recorded::Recorded;
pub use round::Round;
pub use table::{Row, Table};
