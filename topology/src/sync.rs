//! The atomics of what threads share. `engine/interleavings` compiles the same files with others, whose every step a scheduler
//! decides on.

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}
