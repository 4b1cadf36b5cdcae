//! Where keys go that memory has no room for.

#[cfg(feature = "embedded")]
mod sqlite;

#[cfg(feature = "embedded")]
pub use self::sqlite::SqliteSpill;

use crate::KeyGroup;

/// What lies on disk under one key of one state.
#[derive(Debug, Clone, Copy)]
pub struct SpilledCell<'a> {
    /// The state, by its number in the task.
    pub state: u16,
    /// The key's group.
    pub group: KeyGroup,
    /// The key, encoded.
    pub key: &'a [u8],
    /// What is under it, encoded.
    pub body: &'a [u8],
    /// When all of it is gone, by the task's clock; `i64::MAX`: never.
    pub expires: i64,
}

/// A place for keys that were not used for long. One belongs to one task; what is in it need not survive the process, for
/// checkpoints hold it too. Calls block.
///
/// Its place in a test may be taken by one whose disk is full.
pub trait Spill: Send {
    /// Writes cells, over those that are there: all of them or none.
    ///
    /// # Errors
    /// [`SpillError`]; nothing was written.
    fn put(&mut self, cells: &[SpilledCell<'_>]) -> Result<(), SpillError>;

    /// The body under a key.
    ///
    /// # Errors
    /// [`SpillError`].
    fn get(&mut self, state: u16, group: KeyGroup, key: &[u8]) -> Result<Option<Vec<u8>>, SpillError>;

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// [`SpillError`]; it is still there.
    fn remove(&mut self, state: u16, group: KeyGroup, key: &[u8]) -> Result<(), SpillError>;

    /// Visits every key and body of a state in a group.
    ///
    /// # Errors
    /// [`SpillError`]; some may have been visited.
    fn visit(
        &mut self,
        state: u16,
        group: KeyGroup,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), SpillError>;

    /// Removes a group with all its keys.
    ///
    /// # Errors
    /// [`SpillError`]; it is still there.
    fn remove_group(&mut self, group: KeyGroup) -> Result<(), SpillError>;

    /// Removes the keys that are gone by `now`; tells of which states and groups.
    ///
    /// # Errors
    /// [`SpillError`]; they are still there.
    fn remove_expired(&mut self, now: i64) -> Result<Vec<(u16, KeyGroup)>, SpillError>;
}

/// Why a key did not go to disk, or come from it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SpillError {
    /// No room.
    #[error("the disk is full while spilling keys to {place}: {cause}")]
    DiskFull {
        /// The file.
        place: String,
        /// What the system said.
        cause: String,
    },
    /// Anything else.
    #[error("spilling keys to {place}: {cause}")]
    Failed {
        /// The file.
        place: String,
        /// What the system said, and what to do.
        cause: String,
    },
}

impl SpillError {
    /// Whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }
}
