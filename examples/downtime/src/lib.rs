//! `downtime`: a factory's production lines, when they stood still, and who is told.
//!
//! Events of lines (up, down, heartbeat) arrive by HTTP and by polling a status API. A topology on Galerna's engine keeps them with the
//! downtimes that come of them, in SQLite or PostgreSQL, and tells notification lists of what lasts, by mail and webhook. The folder's
//! README says how it is used.
//!
//! ```text
//! intake (HTTP) ─────────────────┐
//! schedules ── look (status API, ┼─> record ─> store <── notices ── address ── send ── settle
//!                    silence) ───┘    (by line)          (spout)    (lists)   (mail, webhook)
//! ```
//!
//! - [`event`], [`line`](mod@line): what is heard, and what it makes of a line: pure rules.
//! - [`store`]: lines, events, downtimes, notices and their deliveries, in one transaction each. [`lists`]: whom to tell.
//! - [`topology`]: the topology and its components. [`app`]: everything in one process. [`api`]: routes and page.
//! - [`demo`]: nine recorded days in some seconds, with everything counted.
//!
//! Invariants:
//! - an event that was answered with 2xx is stored, with what follows from it, whatever dies when;
//! - an event is named by line and time: however often it comes, it counts once;
//! - a change of a line makes one notice, a notice one delivery for each list and one for the webhook, and a delivery has one id, from
//!   which its receiver knows it when a crash has it sent twice.

pub mod api;
pub mod app;
pub mod demo;
pub mod event;
pub mod line;
pub mod lists;
pub mod store;
pub mod topology;
