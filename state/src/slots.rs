//! The cells in memory: found by key within their group, and ordered by when they were last used.

use hashbrown::HashTable;

use crate::KeyGroup;
use crate::cell::{CELL_OVERHEAD, Cell, NEVER};
use crate::key_group::KEY_GROUPS;

const NONE: u32 = u32::MAX;

pub(crate) struct Slot {
    pub(crate) state: u16,
    pub(crate) group: KeyGroup,
    pub(crate) hash: u64,
    pub(crate) key: Box<[u8]>,
    pub(crate) cell: Cell,
    /// What it counts for.
    pub(crate) bytes: usize,
    /// When it is looked at for what is gone.
    pub(crate) due: i64,
    /// A row of it may be on disk.
    pub(crate) stored: bool,
    /// It was changed since that row was written.
    pub(crate) changed: bool,
    newer: u32,
    older: u32,
}

/// Where in a table a key of a state is: the first bits of a key's hash are the same in a whole group.
fn spread(state: u16, hash: u64) -> u64 {
    hash.rotate_left(12).wrapping_add(u64::from(state).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

pub(crate) struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// By key group.
    tables: Vec<HashTable<u32>>,
    newest: u32,
    oldest: u32,
    bytes: usize,
}

impl Slots {
    pub(crate) fn new() -> Self {
        let tables = (0..KEY_GROUPS).map(|_| HashTable::new()).collect();
        Self { slots: Vec::new(), free: Vec::new(), tables, newest: NONE, oldest: NONE, bytes: 0 }
    }

    /// What all of them count for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    pub(crate) fn find(&self, state: u16, hash: u64, key: &[u8]) -> Option<u32> {
        let table = self.tables.get(KeyGroup::of_hash(hash).index())?;
        let is_it = |index: &u32| {
            self.get(*index).is_some_and(|slot| slot.state == state && slot.hash == hash && *slot.key == *key)
        };
        table.find(spread(state, hash), is_it).copied()
    }

    /// Adds a cell that is not there yet, as the one used last.
    pub(crate) fn insert(&mut self, state: u16, hash: u64, key: &[u8], cell: Cell) -> u32 {
        let group = KeyGroup::of_hash(hash);
        let bytes = CELL_OVERHEAD + key.len() + cell.bytes();
        let slot = Slot {
            state,
            group,
            hash,
            key: key.into(),
            cell,
            bytes,
            due: NEVER,
            stored: false,
            changed: true,
            newer: NONE,
            older: NONE,
        };
        self.bytes += bytes;
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = Some(slot);
                index
            }
            None => {
                self.slots.push(Some(slot));
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        let rehash =
            |index: &u32| slots[*index as usize].as_ref().map_or(0, |slot| spread(slot.state, slot.hash));
        self.tables[group.index()].insert_unique(spread(state, hash), index, rehash);
        self.link_newest(index);
        index
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<Slot> {
        self.get(index)?;
        self.unlink(index);
        let slot = self.slots[index as usize].take()?;
        let table = &mut self.tables[slot.group.index()];
        if let Ok(entry) = table.find_entry(spread(slot.state, slot.hash), |found| *found == index) {
            entry.remove();
        }
        if self.tables[slot.group.index()].is_empty() {
            self.tables[slot.group.index()] = HashTable::new();
        }
        self.free.push(index);
        self.bytes -= slot.bytes;
        Some(slot)
    }

    /// Takes it as the one used last.
    pub(crate) fn touch(&mut self, index: u32) {
        if self.newest != index {
            self.unlink(index);
            self.link_newest(index);
        }
    }

    /// Counts it anew after `by` bytes were added or taken.
    pub(crate) fn resize(&mut self, index: u32, by: isize) {
        if let Some(slot) = self.get_mut(index) {
            slot.bytes = slot.bytes.saturating_add_signed(by);
            self.bytes = self.bytes.saturating_add_signed(by);
        }
    }

    /// The one that was not used for longest.
    pub(crate) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// The one that was used next after it.
    pub(crate) fn newer(&self, index: u32) -> Option<u32> {
        self.get(index).map(|slot| slot.newer).filter(|newer| *newer != NONE)
    }

    /// Those of a group.
    pub(crate) fn of_group(&self, group: KeyGroup) -> impl Iterator<Item = (u32, &Slot)> {
        self.tables[group.index()].iter().filter_map(|index| Some((*index, self.get(*index)?)))
    }

    fn link_newest(&mut self, index: u32) {
        let before = self.newest;
        if let Some(slot) = self.get_mut(index) {
            slot.older = before;
            slot.newer = NONE;
        }
        match self.get_mut(before) {
            Some(slot) => slot.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: u32) {
        let Some((newer, older)) = self.get(index).map(|slot| (slot.newer, slot.older)) else { return };
        match self.get_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.get_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }
}
