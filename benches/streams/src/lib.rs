//! Queries that others have defined, on Galerna: [Theodolite](theodolite)'s UC1 to UC4 and [Nexmark](nexmark)'s q0 to q8.
//!
//! Each query is a function from the stream that it reads to the stream that it makes, written as a user would write it; a generator makes
//! the n-th event from `n` alone, by the same arithmetic in Rust and in Java, so that `benches/peers/flink` has the same input. The tests
//! compare what comes out with an independent computation; the program `streams` measures one query, and `benches/peers/streams` runs it
//! beside Flink.
//!
//! It must depend on no crate but those that a topology's author uses.

pub mod measure;
pub mod nexmark;
pub mod random;
pub mod replayable;
pub mod theodolite;
