//! The commands, one module each.

pub(crate) mod alert_tables;
pub(crate) mod alerts;
pub(crate) mod bench;
pub(crate) mod config;
pub(crate) mod consumption;
mod dead_letters;
pub(crate) mod maintainer;
pub(crate) mod multilang;
pub(crate) mod publish;
mod publish_target;
pub(crate) mod queues;
pub(crate) mod schedules;
pub(crate) mod shell;
pub(crate) mod sources;
pub(crate) mod topologies;
pub(crate) mod topology;
pub(crate) mod trace;
