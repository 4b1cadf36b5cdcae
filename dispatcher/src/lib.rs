//! Leases queues to consumers.
//!
//! Each queue is consumed by at most one consumer at a time, which holds a *lease* on it: a right with an end. The
//! dispatcher grants leases by a strategy, and keeps every queue's state in a store that several dispatchers share.

mod lease;

pub use lease::{LeaseError, Leased, Leases, NextRequest, Release, Renewed};
