//! Leases queues to consumers.
//!
//! Each queue is consumed by at most one consumer at a time, which holds a *lease* on it: a right with an end. The
//! dispatcher grants leases by a strategy, and keeps every queue's state in a store that several dispatchers share.
//!
//! - [`Dispatcher`] works in this process, [`serve`] puts its REST API on a listener, [`DispatcherClient`] calls one
//!   elsewhere; both are [`Leases`].
//! - The protocol itself (records, transitions, timing, how a holder counts) is `galerna-lease`, re-exported here as far as
//!   callers of a dispatcher need it.
//!
//! The crate knows queues by their names and states only: it must not depend on a broker's implementation, nor on the
//! maintainer, spouts or the engine.

mod background;
mod board;
mod client;
mod core;
mod dispatcher;
pub mod load;
mod maintainer_link;
mod metrics;
mod service;
mod status;
mod strategy;

pub use client::{AUDITED, ClientError, ClientOptions, DispatcherClient};
pub use dispatcher::{AdminError, Dispatcher, DispatcherOptions, OpenError};
pub use galerna_http::ServeError;
pub use galerna_lease::{
    GrantedLease, HeldLease, LeaseError, Leases, NextRequest, Release, Renewed, Timing, TimingError,
};
pub use maintainer_link::{MaintainerLink, Ping};
pub use service::{OPEN_PATHS, ServiceOptions, describe, router, routes, serve, serve_options};
pub use status::{Backlog, DispatcherView, QueryError, QueueView, StatusPage, StatusQuery};
pub use strategy::{StrategyName, UnknownStrategy};
