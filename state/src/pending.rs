//! What was restored of a state that is not declared yet, or no more.

use std::collections::BTreeMap;

use crate::KeyGroup;
use crate::spec::StateKind;

/// A whole block, checked.
pub(crate) struct PendingBlock {
    pub(crate) bytes: Vec<u8>,
    /// Where it is from.
    pub(crate) file: String,
    /// In which generation it was last changed.
    pub(crate) changed: u64,
}

/// A state as it was stored.
pub(crate) struct Pending {
    pub(crate) kind: StateKind,
    pub(crate) version: u32,
    pub(crate) blocks: BTreeMap<KeyGroup, PendingBlock>,
}

impl Pending {
    pub(crate) fn remove(&mut self, group: KeyGroup) {
        self.blocks.remove(&group);
    }
}
