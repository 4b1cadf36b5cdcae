//! Galerna: a Storm-style stream engine with the ingestion system around it.
//!
//! Meters' concentrators post readings; one durable queue per customer account holds them; a dispatcher leases queues to
//! topologies, whose bolts validate, store and raise alerts. This crate is the face of it all: it re-exports the crates by
//! their short names. [`prelude`] has what a topology's author needs, and `ingest::prelude` what topologies over the
//! accounts' queues need beside that.
//!
//! ```
//! use galerna::prelude::*;
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut topology = TopologyBuilder::new("words");
//! let lines = topology.spout("lines", || IteratorSpout::new(["the cow jumped", "over the moon"])).outputs();
//! let words = topology.flat_map("split", |line: &'static str| line.split(' ')).shuffle(lines).outputs();
//! topology.for_each("print", |word: &'static str| println!("{word}")).fields(words, |word| word);
//!
//! let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
//! running.finished().await;
//! running.drain(std::time::Duration::from_secs(5)).await;
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! Without features the crate is topologies, their engine, windows and joins, and the spouts that need nothing else: what one depends on with
//! `default-features = false` to write a topology over streams of one's own.
//!
//! | feature | adds |
//! |---|---|
//! | `ingest` | the module `ingest`: leased queues, the bolts that validate, store and raise alerts, and the one topology of the command |
//! | `embedded` (default) | broker and store in this process, on SQLite |
//! | `rabbitmq`, `mongodb` | broker and store for any number of processes |
//! | `multilang` | bolts and spouts in other languages, over Storm's multilang protocol |
//! | `cli` (default) | the `galerna` command, with all of the above |
//!
//! The crate holds no logic that a module crate could hold.

#[cfg(feature = "ingest")]
pub use galerna_bolts as bolts;
#[cfg(feature = "ingest")]
pub use galerna_broker as broker;
#[cfg(feature = "ingest")]
pub use galerna_dispatcher as dispatcher;
pub use galerna_engine as engine;
#[cfg(feature = "ingest")]
pub use galerna_ingest as ingest;
#[cfg(feature = "ingest")]
pub use galerna_lease as lease;
#[cfg(feature = "ingest")]
pub use galerna_model as model;
#[cfg(feature = "multilang")]
pub use galerna_multilang as multilang;
pub use galerna_spouts as spouts;
#[cfg(feature = "ingest")]
pub use galerna_storage as storage;
pub use galerna_topology as topology;
pub use galerna_windows as windows;

/// Everything that a file of a topology over streams of one's own needs; `ingest::prelude` has what ingestion adds.
pub mod prelude {
    pub use galerna_engine::{Engine, EngineOptions};
    pub use galerna_spouts::{FileSpout, IntervalSpout, IteratorSpout};
    pub use galerna_topology::prelude::*;
    pub use galerna_windows::prelude::*;
}

#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../README.md")]
struct Readme;
