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
//! Inside, `next.rs` follows one call from its caller to the committed write; `planner/` decides, on what `queue_table/`
//! knows of the queues, and `committer.rs` writes; `refresh.rs` and `timers.rs` follow the store and the clock.
//!
//! The crate knows queues by their names and states only: it must not depend on a broker's implementation, nor on the
//! maintainer, spouts or the engine.

mod client;
mod committer;
mod dispatcher;
pub mod load;
mod maintainer_link;
mod metrics;
mod next;
mod options;
mod past;
mod planner;
mod queue_table;
mod refresh;
mod service;
mod status;
mod strategy;
mod summary;
mod timers;

pub use client::{AUDITED, ClientError, ClientOptions, DispatcherClient};
pub use dispatcher::Dispatcher;
pub use galerna_http::ServeError;
pub use galerna_lease::{
    GrantedLease, HeldLease, LeaseError, Leases, NextRequest, Release, Renewed, StrategyName, Timing,
    TimingError, UnknownStrategy,
};
pub use maintainer_link::{MaintainerLink, Ping, PingError};
pub use options::{AdminError, DispatcherOptions, OpenError};
pub use past::{TransitionView, Transitions};
pub use service::{OPEN_PATHS, ServiceOptions, describe, router, routes, serve, serve_options};
pub use status::{Backlog, DispatcherView, QueryError, QueueView, StatusPage, StatusQuery};
