//! The commands, one module each.

pub(crate) mod config;
pub(crate) mod publish;
