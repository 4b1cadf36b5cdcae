//! Checkpoints: the snapshots of all tasks of a topology, committed together.

mod error;
mod files;
mod folder;
mod manifest;
#[cfg(feature = "mongodb")]
mod mongo;
mod restore;
#[cfg(feature = "simulation")]
mod simulated;
mod upgrade;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::error::CheckpointError;
pub use self::files::{DiskFiles, FileSystem, FolderLock};
pub use self::folder::FolderCheckpoints;
pub use self::manifest::{BlockPlace, ComponentManifest, Manifest, StateManifest};
#[cfg(feature = "mongodb")]
pub use self::mongo::{MongoCheckpointOptions, MongoCheckpoints};
#[cfg(feature = "simulation")]
pub use self::simulated::{SimulatedFiles, Unsynced};
pub use self::upgrade::{
    DeclaredState, PlannedState, StateDeclaration, StateFate, UpgradePlan, plan_declared, plan_upgrade,
};
use crate::{KeyGroups, Part, PartState};

/// The number of a checkpoint; later ones of a topology have higher ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckpointId(pub u64);

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A [`Part`] that is stored, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Of which checkpoint.
    pub checkpoint: CheckpointId,
    /// The component.
    pub component: String,
    /// The task.
    pub task: u32,
    /// The task's key groups.
    pub groups: KeyGroups,
    /// The checkpoint of which the key groups that did not change are to be taken.
    pub base: Option<CheckpointId>,
    /// Its states, with where their blocks are in the file.
    pub states: Vec<PartState>,
    /// The file; `None` when nothing changed.
    pub file: Option<Arc<str>>,
}

impl StoredPart {
    pub(crate) fn new(checkpoint: CheckpointId, part: Part, file: Option<Arc<str>>) -> Self {
        let Part { component, task, groups, base, states, .. } = part;
        Self { checkpoint, component, task, groups, base, states, file }
    }
}

/// A committed checkpoint in a list.
#[derive(Debug)]
pub struct CheckpointEntry {
    /// Its number.
    pub id: CheckpointId,
    /// Its manifest, or why that cannot be read.
    pub manifest: Result<Manifest, CheckpointError>,
}

/// What [`CheckpointStore::collect`] removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Checkpoints, for being older than those that are kept.
    pub checkpoints: Vec<CheckpointId>,
    /// Files that no checkpoint refers to.
    pub files: usize,
}

/// Where the checkpoints of one topology are. One process writes them, one checkpoint at a time: [`begin`], [`put`] a part of
/// each task, then [`commit`], which makes the checkpoint whole at once or not at all.
///
/// Whatever fails, and whenever the power does: the last checkpoint whose commit returned can be restored. One whose commit
/// failed, or did not return, is there or not.
///
/// [`begin`]: CheckpointStore::begin
/// [`put`]: CheckpointStore::put
/// [`commit`]: CheckpointStore::commit
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// From now on this process alone commits, after the checkpoint that it was restored from, if there is one: commits of
    /// others fail, also those that were begun before. A store that only one process can open has nothing to do.
    ///
    /// # Errors
    /// [`CheckpointError::Conflict`] when another process has committed one since.
    async fn claim(&self, restored: Option<CheckpointId>) -> Result<(), CheckpointError> {
        let _ = restored;
        Ok(())
    }

    /// Begins a checkpoint, in place of one that was begun and not committed.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    async fn begin(&self) -> Result<CheckpointId, CheckpointError>;

    /// Stores the part of a task; durable when it returns. Parts may be stored at the same time.
    ///
    /// # Errors
    /// [`CheckpointError::NotBegun`], [`CheckpointError::DiskFull`] and others: the part is not stored.
    async fn put(&self, checkpoint: CheckpointId, part: Part) -> Result<StoredPart, CheckpointError>;

    /// Commits the checkpoint that was begun; durable when it returns.
    ///
    /// # Errors
    /// [`CheckpointError::NotBegun`], [`CheckpointError::Conflict`] and others: it may be committed or not.
    async fn commit(&self, manifest: &Manifest) -> Result<(), CheckpointError>;

    /// The last committed checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Corrupt`] when it is damaged: falling back to an older one, from which messages that were acked
    /// are missing, is for the operator to decide ([`CheckpointStore::load`], [`CheckpointStore::delete`]).
    async fn latest(&self) -> Result<Option<Manifest>, CheckpointError>;

    /// The committed checkpoint of this number.
    ///
    /// # Errors
    /// [`CheckpointError::Unknown`], [`CheckpointError::Corrupt`] and others.
    async fn load(&self, id: CheckpointId) -> Result<Manifest, CheckpointError>;

    /// All committed checkpoints, oldest first; damaged ones with what is wrong.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    async fn list(&self) -> Result<Vec<CheckpointEntry>, CheckpointError>;

    /// Bytes of a file that a manifest refers to.
    ///
    /// # Errors
    /// [`CheckpointError::Corrupt`] when it is missing or cut short, and others.
    async fn read(&self, file: &str, offset: u64, length: u64) -> Result<Vec<u8>, CheckpointError>;

    /// Deletes a committed checkpoint, damaged or not; its files go when they are collected.
    ///
    /// # Errors
    /// [`CheckpointError::Unknown`] and others.
    async fn delete(&self, id: CheckpointId) -> Result<(), CheckpointError>;

    /// Deletes all but the `keep` newest checkpoints, and the files that none of them refers to. Those of checkpoints that were
    /// begun after the newest stay: they go when a later one is committed.
    ///
    /// # Errors
    /// [`CheckpointError::Corrupt`] when one that is kept is damaged, so that it is not known what it refers to: nothing is
    /// removed; others, after which some may be.
    async fn collect(&self, keep: NonZeroUsize) -> Result<Collected, CheckpointError>;
}
