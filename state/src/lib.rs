//! Keyed state of a topology's components, and the checkpoints that it is restored from.
//!
//! A task asks its [`TaskState`] for handles by name and keeps values ([`ValueState`]), maps ([`MapState`]) and lists
//! ([`ListState`]) under keys:
//!
//! ```
//! use std::sync::Arc;
//! use galerna_state::{KeyGroups, StateOptions, TaskState};
//!
//! # fn main() -> Result<(), galerna_state::StateError> {
//! let options = StateOptions { budget_bytes: 64 << 20, spill: None, clock: Arc::new(|| 0) };
//! let state = TaskState::new("count", 0, KeyGroups::all(), options)?;
//!
//! let mut count = state.value::<u64>("count")?;
//! count.set("moon", &1)?;
//! count.update("moon", |n| n.unwrap_or(0) + 1)?;
//! assert_eq!(count.get("moon")?, Some(2));
//! # Ok(())
//! # }
//! ```
//!
//! - [`KeyGroup`]: the keys of a component fall into 4,096 groups, by which tasks own them and they are written and moved;
//! - [`StateSpec`]: a state's version, its migrations and its time to live;
//! - [`Spill`]: where keys go that the budget has no room for;
//! - [`TaskState::snapshot`] takes the groups that changed; a [`CheckpointStore`] ([`FolderCheckpoints`], or MongoDB with the
//!   feature `mongodb`) commits the snapshots of all tasks together with a [`Manifest`]; [`TaskState::restore`] brings them back;
//! - [`plan_upgrade`] says what another program would make of them. `docs/state.md` tells all of it in order.
//!
//! Invariants:
//! - a key never changes its group, on no machine and in no version;
//! - an operation that fails has changed nothing;
//! - a checkpoint whose commit returned can be restored, whatever failed and whenever the power did;
//! - bytes are used only when their checksum, component, state, key group and version are those that were asked for.
//!
//! In a topology, [`KeyedBolt`] declares a bolt that keeps state and [`StateContext`] hands it to its tasks; the engine makes the state,
//! takes the checkpoints and restores them.
//!
//! The crate must not know the engine; of the workspace it uses `topology`, for declaring bolts, and `sqlite`, with the feature `embedded`.

/// What a file that declares bolts with state needs.
pub mod prelude {
    pub use crate::{
        KeyedBolt, ListState, MapState, SeenIds, StateContext, StateError, StateSpec, TaskState, ValueState,
    };
}

/// The examples of the guide compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/state.md")]
mod guide {}

mod block;
mod bolts;
mod cell;
mod cells;
mod checkpoint;
mod clock;
mod deduplicate;
mod encoding;
mod error;
mod key_group;
mod list;
mod map;
mod pending;
mod slots;
mod snapshot;
mod spec;
mod spill;
mod task_state;
mod value;

pub use bolts::{KeyedBolt, StateContext};
pub use checkpoint::{
    BlockPlace, CheckpointEntry, CheckpointError, CheckpointId, CheckpointStore, Collected,
    ComponentManifest, DeclaredState, DiskFiles, FileSystem, FolderCheckpoints, FolderLock, Manifest,
    PlannedState, StateDeclaration, StateFate, StateManifest, StoredPart, UpgradePlan, plan_declared,
    plan_upgrade,
};
#[cfg(feature = "mongodb")]
pub use checkpoint::{MongoCheckpointOptions, MongoCheckpoints};
#[cfg(feature = "simulation")]
pub use checkpoint::{SimulatedFiles, Unsynced};
pub use clock::{Clock, WallClock};
pub use deduplicate::SeenIds;
pub use error::StateError;
pub use key_group::{KEY_GROUPS, KeyGroup, KeyGroups};
pub use list::ListState;
pub use map::MapState;
pub use snapshot::{MovedGroups, Part, PartBlock, PartState};
pub use spec::{StateKind, StateSpec};
#[cfg(feature = "embedded")]
pub use spill::SqliteSpill;
pub use spill::{Spill, SpillError, SpilledCell};
pub use task_state::{StateOptions, StateSize, TaskState, UndeclaredState};
pub use value::ValueState;
