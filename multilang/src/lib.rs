//! Storm's multilang protocol: components in other languages run in a topology as children of this process.
//!
//! - [`ShellTopology`] declares bolts and spouts that are programs: `topology.shell_bolt("split", ["python3", "split.py"])`.
//!   Whatever speaks the protocol will do, such as unmodified pystorm components.
//! - [`SerializedStream`] gives streams the form that tuples have outside of the process; [`ShellOutputs`] are what children emit on.
//! - [`ShellCommand`] says how a program is run and watched.
//! - [`serve_bolt`] and [`serve_spout`] are the other side: a part of a topology as a child of a Storm worker. [`serve`] does that with
//!   any [`Part`] of a topology whose streams have a form, [`flux()`] writes the file by which Storm runs it, and [`main`] is a
//!   program that does both.
//! - [`ToChild`], [`FromChild`] and [`Frames`] are the protocol itself.
//!
//! Each child has its standard error drained to the log, its output read whatever its input does, and a bound on all that waits. One
//! that dies, hangs or writes nonsense fails the tuples that it has, with the reason, and is started again after a pause.
//!
//! ```
//! use galerna_multilang::{SerializedStream, ShellTopology};
//! use galerna_topology::prelude::*;
//!
//! let mut topology = TopologyBuilder::new("words");
//! let sentences = topology.shell_spout::<Output<String>>("sentences", ["python3", "sentences.py"]).outputs();
//! let words = topology
//!     .shell_bolt::<Output<String>>("split", ["python3", "split.py"])
//!     .shuffle(sentences.serialized())
//!     .parallelism(2)
//!     .outputs();
//! topology.for_each("print", |word: String| println!("{word}")).shuffle(words);
//! topology.build()?;
//! # Ok::<(), BuildError>(())
//! ```
//!
//! Of the workspace it uses `galerna-topology`, `galerna-retry`, and `galerna-engine` and `galerna-state` to run what is served; these must not
//! depend on it.

mod bolt;
mod checkpoints;
mod child;
mod command;
mod declare;
mod edge;
mod flux;
mod form;
mod frame;
mod host;
mod host_ends;
mod host_pipe;
mod message;
mod outputs;
mod part;
mod place;
mod program;
mod row;
mod serve;
mod spout;
mod stream;
mod write_queue;

pub use bolt::ShellBolt;
pub use checkpoints::ServeOptions;
pub use command::ShellCommand;
pub use declare::{ShellBoltDeclarer, ShellTopology};
pub use flux::{FluxError, FluxOptions, flux};
pub use form::{Fields, FormError};
pub use frame::{Decoder, Frames, WireError};
pub use host_ends::Served;
#[cfg(unix)]
pub use host_pipe::stdio;
pub use message::{
    DEFAULT_STREAM, Emit, FromChild, HEARTBEAT_STREAM, Handshake, Id, LogLevel, SYSTEM_COMPONENT,
    SpoutCommand, TICK_STREAM, ToChild, TupleMessage,
};
pub use outputs::{EmitWith, Forms, ParseError, Parsed, ShellOutputs, no_stream, parse_tuple};
pub use part::{Part, PartError, Stretch, serve};
pub use program::{IntoTopologies, main};
pub use row::{Row, to_values};
pub use serve::{ServeError, serve_bolt, serve_spout};
pub use spout::{ShellMessageId, ShellSpout};
pub use stream::{IntoSerialized, Serialized, SerializedStream};

/// What [`shell_outputs!`] expands to needs; not for anything else, and not stable.
#[doc(hidden)]
pub mod sealed {
    pub use galerna_topology::outputs;
    pub use serde_json::Value;
}

/// The examples of the guide compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/multilang.md")]
struct Guide;
