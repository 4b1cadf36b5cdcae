//! The modules of the system as processes: opened from the settings, served, watched and stopped.
//!
//! [`together`] is all modules in one process, [`standalone`] each in a process of its own. What both open they open here:
//! [`backends`] the broker and the store, [`modules`] the modules on them.

mod admin;
pub mod backends;
mod metrics;
pub mod modules;
pub mod publish;
pub mod service;
mod side;
pub mod standalone;
pub mod stop;
pub mod together;
pub mod topology;
mod trace;
pub mod workers;

pub use admin::{explained, must_exist, shown as dead_letter};
