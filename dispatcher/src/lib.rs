//! Leases queues to consumers.
//!
//! Each queue is consumed by at most one consumer at a time, which holds a *lease* on it: a right with an end. The
//! dispatcher grants leases by a strategy, and keeps every queue's state in a store that several dispatchers share.
//!
//! - [`transition`](transition()) is the life of a queue, one pure function; [`invariants`] says what must hold of it.
//! - [`Dispatcher`] works in this process, [`serve`] puts its REST API on a listener, [`DispatcherClient`] calls one
//!   elsewhere; both are [`Leases`].
//! - [`HeldLease`] is how a consumer counts its lease, [`LeaseWatch`] how an observer does; [`Timing`] has every timeout.
//!
//! The crate knows queues by their names and states only: it must not depend on a broker's implementation, nor on the
//! maintainer, spouts or the engine.

mod background;
mod board;
mod client;
mod core;
mod dispatcher;
mod held;
pub mod invariants;
mod lease;
pub mod load;
mod maintainer_link;
mod metrics;
mod service;
mod status;
mod strategy;
mod timing;
mod transition;
mod watch;

pub use client::{AUDITED, ClientError, ClientOptions, DispatcherClient};
pub use dispatcher::{AdminError, Dispatcher, DispatcherOptions, OpenError};
pub use held::HeldLease;
pub use lease::{LeaseError, Leased, Leases, NextRequest, Release, Renewed};
pub use maintainer_link::{MaintainerLink, Ping};
pub use service::{ServeError, ServiceOptions, router, serve};
pub use status::{Backlog, DispatcherView, QueryError, QueueView, StatusPage, StatusQuery};
pub use strategy::{StrategyName, UnknownStrategy};
pub use timing::{Timing, TimingError, holder_margin, renew_after};
pub use transition::{Event, Refusal, Transition, UNTIL_UNPAUSED, transition};
pub use watch::LeaseWatch;
