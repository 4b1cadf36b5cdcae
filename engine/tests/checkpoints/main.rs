//! Checkpoints of running topologies: what is in them, when acks are sent, and what a restart makes of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod alignment;
mod bad_input;
mod crashes;
mod mongodb;
mod place;
mod power;
mod restarts;
mod rules;
mod source;
mod words;
