//! The modules of the system as processes: opened from the settings, started, watched, drained and stopped.
//!
//! A [`Module`](module::Module) is what runs; a [`Supervisor`](module::Supervisor) starts a list of them and ends it in order.
//! [`standalone`] is all modules in one process, [`separate`] each in a process of its own. What both need they open here: the
//! broker and the store in [`backends`], the modules on them in [`modules`].
//!
//! # Invariants
//! - Every module that was started is drained before any is stopped, and what feeds others is drained before them.
//! - A module that ends by itself ends the process, with an error: whoever watches the process starts it anew.

mod api;
pub mod backends;
pub mod intervals;
mod metrics;
pub mod module;
pub mod modules;
pub mod publish;
pub mod separate;
pub mod signals;
pub mod standalone;
pub mod topology;

pub use api::routes::{check_exists, describe_broker_error, shown as dead_letter};
pub use api::serve as serve_api;
