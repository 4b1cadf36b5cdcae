//! Dispatchers, maintainers and workers in one simulated world: one seed gives one run, to the last step.
//!
//! What runs is the product's own code (`galerna_dispatcher::Dispatcher`, `galerna_maintainer::Maintainer`, `galerna_lease::HeldLease`) on tokio's paused clock in one
//! thread, over a store, a broker and a network that are simulated here and fail as the seed says: processes crash and start
//! again, calls and answers are lost, late or made twice, the store and the broker are away, slow, or fail after they have done
//! what was asked, wall clocks are wrong and jump, workers freeze for longer than their lease. A run of two minutes with all this takes
//! a fraction of a second. [`run`] checks at each step what `galerna_lease::invariants` demands, and at the end:
//!
//! - no two workers held one queue at one time, and a later lease has a higher epoch;
//! - every message whose publication was confirmed is stored, though publishers, brokers, workers and the store failed;
//! - once nothing fails any more, all queues are drained and given back.
//!
//! `cargo test -p galerna-simulation` runs some hundred seeds; `cargo run --release -p galerna-simulation -- 0 100000` runs so many. Of a seed that
//! fails the number is printed, and `cargo run -p galerna-simulation -- SEED` runs it again, step by step the same.
//!
//! Why not `turmoil` or `madsim`: nothing here opens a socket, so there is no network to replace; what a call may suffer is decided in
//! `network.rs`, where it can be read. The HTTP layer has drills of its own.

mod broker;
mod network;
mod run;
mod store;
mod worker;
mod world;

pub use run::{Options, Outcome, run};
