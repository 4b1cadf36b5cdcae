//! Declaring topologies: typed streams, spouts and bolts, groupings, and the checks that a topology makes
//! sense before it runs.
//!
//! It also holds the typed half of running a topology (anchors, emitting, routing, keeping a panic to its tuple), behind
//! [`runtime`] and [`lineage`], which are for engines. It does no I/O, starts no task and depends on no async runtime; the engine
//! crate runs what is declared here. It must not depend on the engine, on a broker or on a store.
//!
//! - A [`Spout`] emits roots with a message id and hears what became of them.
//! - A [`Bolt`] computes, an [`AsyncBolt`] waits; both take tuples of one type and emit on typed
//!   [`Output`]s. Returning `Ok` acks, `Err` fails, a kept [`Anchor`] decides later.
//! - A [`TopologyBuilder`] wires them by [`Stream`] handles, which carry the tuple type: wiring a bolt to
//!   a stream of another type does not compile.
//!
//! ```
//! use galerna_topology::prelude::*;
//!
//! struct Sentences(Vec<&'static str>);
//!
//! impl Spout for Sentences {
//!     type MessageId = usize;
//!     type Outputs = Output<&'static str>;
//!
//!     async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
//!         let Some(sentence) = self.0.pop() else { return Ok(Next::Done) };
//!         out.root(self.0.len()).emit(sentence);
//!         Ok(Next::Ready)
//!     }
//! }
//!
//! let mut topology = TopologyBuilder::new("words");
//! let sentences = topology.spout("sentences", || Sentences(vec!["the cow jumped", "over the moon"])).outputs();
//! let words = topology.flat_map("split", |s: &'static str| s.split(' ')).shuffle(sentences).outputs();
//! topology.for_each("count", |word: &'static str| println!("{word}")).fields(words, |word| word).parallelism(2);
//! println!("{}", topology.build()?.table());
//! # Ok::<(), BuildError>(())
//! ```

mod adapt;
mod anchor;
mod anchors;
mod batch;
mod bolt;
mod builder;
mod check;
mod closure;
mod component;
mod context;
mod declarer;
mod emitter;
mod factory;
mod failure;
mod grouping;
mod held_acks;
mod hot_keys;
mod input;
mod kept_tuple;
#[doc(hidden)]
pub mod lineage;
mod map_async;
mod named_outputs;
mod outputs;
mod print;
mod router;
#[doc(hidden)]
pub mod runtime;
mod spout;
mod spout_task;
mod stable_hasher;
mod stream;
mod sync;
mod task;
mod task_metrics;
mod topology;
mod watermark;

pub use anchor::{Anchor, AnchorSet};
pub use anchors::{AllAnchors, Anchors};
pub use batch::{Batch, Tuple};
pub use bolt::{AsyncBatchBolt, AsyncBolt, BatchBolt, Bolt};
pub use builder::TopologyBuilder;
pub use check::BuildError;
pub use closure::IntoTupleResult;
pub use component::{Component, ComponentSettings, EventTimeUse, TaskFactory, Threads};
pub use context::{Clock, TaskContext};
pub use declarer::{BoltDeclarer, SpoutDeclarer};
pub use emitter::{Emitter, Origin};
pub use factory::{
    AsyncBatchBoltSource, AsyncBoltSource, BatchBoltSource, BoltSource, Constructor, Prototype, SpoutSource,
};
pub use failure::{Failed, Failure, FailureKind, Fault, FaultKind, OrFault};
pub use grouping::{CustomGrouping, Grouping, KEY_GROUPS};
pub use hot_keys::{HotKey, HotKeys};
pub use input::{Input, IntoInput};
pub use map_async::Calls;
pub use named_outputs::{AsOutputs, AsStreams, FieldKind};
pub use outputs::{Data, Output, Outputs};
pub use runtime::Destination;
pub use spout::{Next, Roots, Spout};
pub use stable_hasher::StableHasher;
pub use stream::{EdgeForm, Stream};
pub use task_metrics::{Counter, Gauge, TaskMetrics, TaskName, WatermarkState};
pub use topology::Topology;
pub use watermark::{Sender, Timestamp, Watermark, Watermarks};

/// What [`outputs!`] expands to needs; not for anything else, and not stable.
#[doc(hidden)]
pub mod sealed {
    pub use crate::outputs::{OutputSet, TokenSplitter};
    pub use crate::runtime::{Signal, Staged};
    pub use crate::stream::StreamSource;
    pub use crate::stream::StreamSpec;
}

/// Everything that a file declaring topologies needs.
pub mod prelude {
    pub use crate::{
        Anchor, Anchors, AsyncBatchBolt, AsyncBolt, Batch, BatchBolt, Bolt, BuildError, Calls, Emitter,
        Failed, Failure, FailureKind, Fault, FaultKind, Next, OrFault, Output, Roots, Spout, Stream,
        TaskContext, Topology, TopologyBuilder, Tuple, outputs,
    };
}
