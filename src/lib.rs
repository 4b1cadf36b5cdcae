//! Galerna: a stream engine in the manner of Apache Storm, with the ingestion of meters' readings around it.
//!
//! A *topology* is a graph of spouts, where tuples come from, and bolts, which take them. The engine runs it, tracks the tree of
//! tuples that comes of each root, and tells the spout when the whole tree has been acked or part of it has failed.
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
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | write a topology | [`prelude`], and [`topology`] for spouts, bolts, groupings and anchoring |
//! | run one, drain it, read its metrics | [`engine`] |
//! | test one, with time in your hands | [`engine::testing`] |
//! | read files, or iterate | [`spouts`] |
//! | aggregate by windows of time, join streams | [`windows`] |
//! | run several, see them on a page, change them while they run | `control` (feature `control`) |
//! | consume accounts' queues, with leases | `ingest::prelude` (feature `ingest`) |
//!
//! The repository's `examples/` have one idea each, and `ARCHITECTURE.md` is the map of the crates that are behind these modules.
//!
//! # Features
//!
//! Without features the crate is topologies, their engine, windows and joins, and the spouts that need nothing else. Who writes a topology over
//! streams of one's own depends on it so:
//!
//! ```toml
//! galerna = { version = "0.1", default-features = false }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! | feature | adds |
//! |---|---|
//! | `ingest` | the module `ingest`: leased queues, the bolts that validate, store and raise alerts, and the topology that the command runs |
//! | `embedded` (default) | broker and store in this process, on SQLite |
//! | `rabbitmq`, `mongodb` | broker and store for any number of processes |
//! | `control` | the module `control`: running topologies seen and changed by REST and on a page |
//! | `drpc` | the module `drpc`: request and answer through a topology |
//! | `multilang` | bolts and spouts in other languages, over Storm's multilang protocol |
//! | `cli` (default) | the `galerna` command, with `control`, `drpc`, `ingest`, `embedded`, `rabbitmq` and `mongodb` |
//!
//! The crate holds no logic that a module crate could hold.
#![cfg_attr(feature = "embedded", doc = "", doc = include_str!("ingestion.md"))]

#[cfg(feature = "ingest")]
pub use galerna_bolts as bolts;
#[cfg(feature = "ingest")]
pub use galerna_broker as broker;
#[cfg(feature = "control")]
pub use galerna_control as control;
#[cfg(feature = "ingest")]
pub use galerna_dispatcher as dispatcher;
#[cfg(feature = "drpc")]
pub use galerna_drpc as drpc;
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
pub use galerna_state as state;
#[cfg(feature = "ingest")]
pub use galerna_storage as storage;
pub use galerna_topology as topology;
pub use galerna_windows as windows;

/// What a topology over streams of one's own needs: builder, engine, spouts, bolts, groupings. `ingest::prelude` has what ingestion
/// adds; a file of a topology over accounts' queues uses both.
pub mod prelude {
    pub use galerna_engine::{CheckpointOptions, Engine, EngineOptions};
    pub use galerna_spouts::{FileSpout, Intake, IntakeError, IntervalSpout, IteratorSpout, intake};
    pub use galerna_state::prelude::*;
    pub use galerna_topology::prelude::*;
    pub use galerna_windows::prelude::*;
}

#[cfg(doctest)]
#[doc = include_str!("../docs/windows.md")]
struct WindowsGuide;

#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../README.md")]
struct Readme;
