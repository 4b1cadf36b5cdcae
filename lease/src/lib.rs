//! The lease protocol: who may consume a queue, and until when.
//!
//! Each queue is consumed by at most one consumer at a time, which holds a *lease* on it: a right with an end. This crate
//! says what a lease is and how a queue's state may change; it stores nothing and calls nobody.
//!
//! - [`QueueRecord`] is what is stored of a queue; [`transition`](transition()) is the life of a queue, one pure function;
//!   [`invariants`] says what must hold of it.
//! - [`Leases`] is how consumers lease: from a dispatcher in their process or elsewhere; [`GroupedLeases`] has the tasks of one
//!   consumer ask together.
//! - [`HeldLease`] is how a consumer counts its lease, [`LeaseWatch`] how an observer does; [`Timing`] has every timeout.
//!
//! ```
//! use galerna_model::{AccountId, QueueName, Timestamp};
//! use galerna_lease::{QueueEvent, QueueRecord, QueueState, Timing, Transition, transition};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Timestamp(0);
//! let idle = QueueRecord::new(QueueName::new("D0000591")?, AccountId::new("591")?, now);
//! let event = QueueEvent::Lease { consumer: "worker-1".into(), request: None };
//! let Transition::To(leased) = transition(&idle, &event, now, &Timing::default())? else {
//!     panic!("an idle queue can be leased")
//! };
//! assert_eq!((leased.state, leased.epoch), (QueueState::Leased, 1));
//! assert!(transition(&leased, &event, now, &Timing::default()).is_err(), "one lease at a time");
//! # Ok(())
//! # }
//! ```
//!
//! The crate must not depend on a store, a broker's implementation, or anything of HTTP: consumers and stores use it.

mod grouped;
mod held;
pub mod invariants;
mod protocol;
mod record;
mod strategy;
mod timing;
mod transition;
mod watch;

pub use grouped::GroupedLeases;
pub use held::HeldLease;
pub use protocol::{GrantedLease, LeaseError, Leases, NextRequest, Release, Renewed};
pub use record::{Lease, QueueRecord, QueueState};
pub use strategy::{StrategyName, UnknownStrategy};
pub use timing::{Timing, TimingError, holder_margin, renew_after};
pub use transition::{QueueEvent, Transition, TransitionError, UNTIL_UNPAUSED, transition};
pub use watch::LeaseWatch;
