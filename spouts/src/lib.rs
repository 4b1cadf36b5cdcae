//! Where tuples come from.
//!
//! | spout | emits |
//! |---|---|
//! | `LeasedQueues` (feature `leased`) | the messages of the accounts' queues, leased from the dispatcher |
//! | [`FileSpout`] | the rows of an NDJSON or CSV file |
//! | [`IteratorSpout`] | what an iterator gives |
//! | [`IntervalSpout`] | a [`Firing`] at regular times |
//! | [`IntakeSpout`] | what other parts of the process hand in, who are told what became of it |
//!
//! ```
//! use galerna_spouts::IteratorSpout;
//! use galerna_topology::TopologyBuilder;
//!
//! let mut topology = TopologyBuilder::new("hello");
//! let words = topology.spout("words", || IteratorSpout::new(["nathan", "bob"])).outputs();
//! topology.for_each("print", |word: &'static str| println!("{word}")).shuffle(&words);
//! topology.build().unwrap();
//! ```
//!
//! All but the intake are at-least-once: a root that fails is emitted again, by the spout or by the broker; whoever handed something in
//! is told instead. The crate knows broker and
//! dispatcher by their traits only, and no bolt.

mod file;
mod intake;
mod interval;
mod iterator;
#[cfg(feature = "leased")]
mod leased;
mod rows;

pub use file::{Attempt as FileAttempt, FileError, FileSpout, FileTally, open_file};
pub use intake::{Intake, IntakeError, IntakeSpout, intake};
pub use interval::{Firing, IntervalSpout};
pub use iterator::{Attempt, DEFAULT_ATTEMPTS, IteratorSpout};
#[cfg(feature = "leased")]
pub use leased::{AccountOf, LeaseTally, LeasedOptions, LeasedQueues, Receipt};
pub use rows::{BadRow, FileForm, Row, RowReader};
