//! All that one task keeps: found, changed, expired and spilled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::cell::{CELL_OVERHEAD, Cell, NEVER};
use crate::checkpoint::CheckpointId;
use crate::key_group::{KEY_GROUPS, hash_key};
use crate::pending::Pending;
use crate::slots::Slots;
use crate::spec::{StateKind, StateSpec};
use crate::spill::{Spill, SpillError, SpilledCell};
use crate::{Clock, KeyGroup, KeyGroups, StateError};

/// Cells looked at for what is gone, an operation: what is gone is gone from memory soon, and no operation pays for many.
const EXPIRE_AT_ONCE: usize = 32;

/// Longest key or value: lengths are stored in 32 bits.
const LONGEST: usize = 1 << 30;

/// A state that was declared.
pub(crate) struct Declared {
    pub(crate) kind: StateKind,
    pub(crate) spec: StateSpec,
    /// By key group: in which generation it was last changed.
    pub(crate) changed: Vec<u64>,
}

/// A key of a state.
pub(crate) struct Place<'a> {
    pub(crate) state: u16,
    pub(crate) group: KeyGroup,
    pub(crate) hash: u64,
    pub(crate) key: &'a [u8],
}

pub(crate) struct TaskCells {
    pub(crate) component: String,
    pub(crate) task: u32,
    pub(crate) owned: KeyGroups,
    pub(crate) states: Vec<Declared>,
    /// What was restored and is not declared yet, by name.
    pub(crate) pending: BTreeMap<String, Pending>,
    pub(crate) slots: Slots,
    /// Cells by when they are looked at for what is gone.
    due: BTreeSet<(i64, u32)>,
    pub(crate) budget: usize,
    pub(crate) spill: Option<Box<dyn Spill>>,
    /// Groups that came from other tasks: what older checkpoints have of them does not count.
    pub(crate) moved_in: KeyGroups,
    /// Groups of which keys may be on disk.
    pub(crate) on_disk: KeyGroups,
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether anything can be gone.
    pub(crate) expires: bool,
    /// When the disk is looked at next for what is gone.
    next_purge: i64,
    /// Counts snapshots; changes are stamped with it.
    pub(crate) generation: u64,
    /// The last generation that each snapshot has.
    pub(crate) snapshots: BTreeMap<CheckpointId, u64>,
    scratch: Vec<u8>,
}

impl TaskCells {
    pub(crate) fn new(
        component: String,
        task: u32,
        owned: KeyGroups,
        budget: usize,
        spill: Option<Box<dyn Spill>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            component,
            task,
            owned,
            states: Vec::new(),
            pending: BTreeMap::new(),
            slots: Slots::new(),
            due: BTreeSet::new(),
            budget,
            spill,
            moved_in: KeyGroups::none(),
            on_disk: KeyGroups::none(),
            clock,
            expires: false,
            next_purge: i64::MIN,
            generation: 1,
            snapshots: BTreeMap::new(),
            scratch: Vec::new(),
        }
    }

    /// The clock's time; of no meaning while nothing can be gone.
    pub(crate) fn now(&self) -> i64 {
        if self.expires { self.clock.now() } else { i64::MIN }
    }

    /// When what is written now into a state is gone.
    pub(crate) fn expiry(&self, state: u16) -> i64 {
        match self.states[usize::from(state)].spec.life() {
            None => NEVER,
            Some(life) => {
                let life = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
                self.clock.now().saturating_add(life).min(NEVER - 1)
            }
        }
    }

    pub(crate) fn name(&self, state: u16) -> String {
        self.states[usize::from(state)].spec.name().to_owned()
    }

    pub(crate) fn spill_failed(&self, cause: SpillError) -> StateError {
        StateError::Spill { component: self.component.clone(), cause }
    }

    /// Works on the place of a key.
    pub(crate) fn at<K: Serialize + ?Sized, T>(
        &mut self,
        state: u16,
        key: &K,
        work: impl FnOnce(&mut Self, &Place<'_>) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        rmp_serde::encode::write(&mut bytes, key).map_err(|cause| StateError::encode("key", &cause))?;
        check_length("key", &bytes)?;
        let hash = hash_key(&bytes);
        let group = KeyGroup::of_hash(hash);
        let done = if self.owned.contains(group) {
            self.expire_due(EXPIRE_AT_ONCE)
                .and_then(|()| work(self, &Place { state, group, hash, key: &bytes }))
        } else {
            Err(StateError::NotOwned {
                component: self.component.clone(),
                task: self.task,
                state: self.name(state),
                group,
            })
        };
        self.scratch = bytes;
        done
    }

    /// The cell under a key in memory, where it is brought to from disk; taken as used.
    pub(crate) fn load(&mut self, place: &Place<'_>) -> Result<Option<u32>, StateError> {
        if let Some(index) = self.slots.find(place.state, place.hash, place.key) {
            self.slots.touch(index);
            return Ok(Some(index));
        }
        if !self.on_disk.contains(place.group) {
            return Ok(None);
        }
        let Some(spill) = &mut self.spill else { return Ok(None) };
        let read = spill.get(place.state, place.group, place.key);
        let Some(body) = read.map_err(|cause| self.spill_failed(cause))? else { return Ok(None) };
        let mut cell = self.decode_spilled(place.state, place.group, &body)?;
        if !cell.expire(self.now()) {
            return Ok(None);
        }
        self.make_room(place.state, CELL_OVERHEAD + place.key.len() + cell.bytes(), None)?;
        let index = self.slots.insert(place.state, place.hash, place.key, cell);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.stored = true;
            slot.changed = false;
        }
        self.enlist(index);
        Ok(Some(index))
    }

    pub(crate) fn decode_spilled(
        &self,
        state: u16,
        group: KeyGroup,
        body: &[u8],
    ) -> Result<Cell, StateError> {
        let declared = &self.states[usize::from(state)];
        Cell::decode(declared.kind, body).map_err(|problem| StateError::Corrupt {
            component: self.component.clone(),
            state: declared.spec.name().to_owned(),
            group,
            file: "the file of spilled keys".to_owned(),
            problem: format!("{problem}; restart the topology, which restores its last checkpoint"),
        })
    }

    /// Puts the cell under a key that is not in memory.
    pub(crate) fn insert(&mut self, place: &Place<'_>, cell: Cell) -> u32 {
        let index = self.slots.insert(place.state, place.hash, place.key, cell);
        let stored = self.on_disk.contains(place.group);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.stored = stored;
        }
        index
    }

    /// Puts a cell that comes from a snapshot or another task under a key that has none.
    pub(crate) fn put_restored(&mut self, place: &Place<'_>, cell: Cell) -> Result<(), StateError> {
        self.make_room(place.state, CELL_OVERHEAD + place.key.len() + cell.bytes(), None)?;
        let index = self.insert(place, cell);
        self.enlist(index);
        Ok(())
    }

    /// Sets the value under a key, whatever was there.
    pub(crate) fn set_value(&mut self, place: &Place<'_>, item: crate::cell::Item) -> Result<(), StateError> {
        match self.slots.find(place.state, place.hash, place.key) {
            Some(index) => {
                self.slots.touch(index);
                let before = self.slots.get(index).map_or(0, |slot| slot.cell.bytes());
                let grows = item.bytes.len() as isize - before as isize;
                self.make_room(place.state, grows.max(0) as usize, Some(index))?;
                if let Some(slot) = self.slots.get_mut(index) {
                    slot.cell = Cell::Value(item);
                }
                self.slots.resize(index, grows);
                self.changed(place, index);
            }
            None => {
                let needed = CELL_OVERHEAD + place.key.len() + item.bytes.len();
                self.make_room(place.state, needed, None)?;
                let index = self.insert(place, Cell::Value(item));
                self.changed(place, index);
            }
        }
        Ok(())
    }

    /// Changes the cell under a key, or `empty` when there is none. `grows` is the most bytes that the change adds; the
    /// change tells the bytes that it added, less those that it took.
    pub(crate) fn change<T>(
        &mut self,
        place: &Place<'_>,
        grows: usize,
        empty: fn() -> Cell,
        change: impl FnOnce(&mut Cell, i64) -> (T, isize),
    ) -> Result<T, StateError> {
        let found = self.load(place)?;
        let needed = if found.is_some() { grows } else { CELL_OVERHEAD + place.key.len() + grows };
        self.make_room(place.state, needed, found)?;
        let index = found.unwrap_or_else(|| self.insert(place, empty()));
        let now = self.now();
        // It is there: it was found or put there, and what makes room keeps it.
        let Some(slot) = self.slots.get_mut(index) else {
            unreachable!("a cell vanished while it was changed")
        };
        let (done, grown) = change(&mut slot.cell, now);
        let is_empty = match &slot.cell {
            Cell::Value(_) => false,
            Cell::Map(fields) => fields.is_empty(),
            Cell::List(items) => items.is_empty(),
        };
        self.slots.resize(index, grown);
        self.changed(place, index);
        if is_empty {
            self.remove(place)?;
        }
        Ok(done)
    }

    /// Stamps a change.
    fn changed(&mut self, place: &Place<'_>, index: u32) {
        self.states[usize::from(place.state)].changed[place.group.index()] = self.generation;
        if let Some(slot) = self.slots.get_mut(index) {
            slot.changed = true;
        }
        self.enlist(index);
    }

    /// Removes what is under a key.
    pub(crate) fn remove(&mut self, place: &Place<'_>) -> Result<(), StateError> {
        let found = self.slots.find(place.state, place.hash, place.key);
        let stored = match found.and_then(|index| self.slots.get(index)) {
            Some(slot) => slot.stored,
            None => self.on_disk.contains(place.group),
        };
        if stored && let Some(spill) = &mut self.spill {
            let removed = spill.remove(place.state, place.group, place.key);
            removed.map_err(|cause| self.spill_failed(cause))?;
        }
        if let Some(index) = found {
            self.drop_slot(index);
        }
        if stored || found.is_some() {
            self.states[usize::from(place.state)].changed[place.group.index()] = self.generation;
        }
        Ok(())
    }

    pub(crate) fn drop_slot(&mut self, index: u32) {
        if let Some(slot) = self.slots.remove(index)
            && slot.due != NEVER
        {
            self.due.remove(&(slot.due, index));
        }
    }

    /// Sees to it that the cell is looked at when the first of it is gone, or before.
    fn enlist(&mut self, index: u32) {
        if !self.expires {
            return;
        }
        let Some(slot) = self.slots.get_mut(index) else { return };
        // A map is not read through for each change: its new item is gone no earlier than those that were there, unless
        // the clock went back.
        let first = match &slot.cell {
            Cell::Value(item) => item.expires,
            _ if slot.due != NEVER => return,
            cell => cell.first_expiry(),
        };
        if first < slot.due {
            if slot.due != NEVER {
                self.due.remove(&(slot.due, index));
            }
            slot.due = first;
            self.due.insert((first, index));
        }
    }

    /// Drops what is gone in memory, looking at no more than `most` cells.
    pub(crate) fn expire_due(&mut self, most: usize) -> Result<(), StateError> {
        if self.due.is_empty() {
            return Ok(());
        }
        let now = self.now();
        for _ in 0..most {
            let Some((at, index)) = self.due.first().copied().filter(|(at, _)| *at <= now) else { break };
            let Some(slot) = self.slots.get_mut(index) else { break };
            let before = slot.cell.bytes();
            let left = slot.cell.expire(now);
            let (state, group, after) = (slot.state, slot.group, slot.cell.bytes());
            if left {
                slot.changed |= after != before;
                slot.due = NEVER;
                self.due.remove(&(at, index));
                self.slots.resize(index, after as isize - before as isize);
                self.enlist(index);
            } else {
                // An older form of it, that never goes, may be on disk.
                if slot.stored
                    && let Some(spill) = &mut self.spill
                {
                    let removed = spill.remove(state, group, &slot.key);
                    removed.map_err(|cause| self.spill_failed(cause))?;
                }
                self.drop_slot(index);
            }
            if !left || after != before {
                self.states[usize::from(state)].changed[group.index()] = self.generation;
            }
        }
        Ok(())
    }

    /// Drops what is gone on disk.
    pub(crate) fn expire_on_disk(&mut self) -> Result<(), StateError> {
        if !self.expires || self.on_disk.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let Some(spill) = &mut self.spill else { return Ok(()) };
        let removed = spill.remove_expired(now).map_err(|cause| self.spill_failed(cause))?;
        for (state, group) in removed {
            if let Some(declared) = self.states.get_mut(usize::from(state)) {
                declared.changed[group.index()] = self.generation;
            }
        }
        Ok(())
    }

    /// Sends the keys used longest ago to disk until `needed` more bytes fit, and a tenth of the budget besides so that this
    /// is rare. `keep` stays.
    pub(crate) fn make_room(
        &mut self,
        state: u16,
        needed: usize,
        keep: Option<u32>,
    ) -> Result<(), StateError> {
        if self.slots.bytes() + needed <= self.budget {
            return Ok(());
        }
        self.expire_due(usize::MAX)?;
        let kept = keep.and_then(|index| self.slots.get(index)).map_or(0, |slot| slot.bytes);
        let alone = if self.spill.is_some() { kept } else { self.slots.bytes() };
        if self.slots.bytes() + needed <= self.budget {
            return Ok(());
        }
        if alone + needed > self.budget {
            return Err(StateError::Budget {
                component: self.component.clone(),
                state: self.name(state),
                needed: alone + needed,
                budget: self.budget,
                spills: self.spill.is_some(),
            });
        }
        let now = self.now();
        if now >= self.next_purge {
            self.expire_on_disk()?;
            let lives = self.states.iter().filter_map(|state| state.spec.life());
            let least =
                lives.min().map_or(i64::MAX, |life| i64::try_from(life.as_millis()).unwrap_or(i64::MAX));
            self.next_purge = now.saturating_add((least / 8).max(1));
        }
        let target = (self.budget - self.budget / 10).max(kept + needed);
        let (mut victims, mut freed) = (Vec::new(), 0);
        let mut next = self.slots.oldest();
        while let Some(index) = next
            && self.slots.bytes() + needed - freed > target
        {
            next = self.slots.newer(index);
            if Some(index) != keep {
                freed += self.slots.get(index).map_or(0, |slot| slot.bytes);
                victims.push(index);
            }
        }
        self.send_to_disk(&victims, now)
    }

    fn send_to_disk(&mut self, victims: &[u32], now: i64) -> Result<(), StateError> {
        let mut bodies = Vec::new();
        let mut ends = Vec::new();
        let unsaved: Vec<_> = victims
            .iter()
            .filter_map(|index| self.slots.get(*index))
            .filter(|slot| slot.changed || !slot.stored)
            .collect();
        for slot in &unsaved {
            slot.cell.encode(now, &mut bodies);
            ends.push(bodies.len());
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let cells: Vec<_> = unsaved
            .iter()
            .zip(starts.zip(&ends))
            .map(|(slot, (start, end))| SpilledCell {
                state: slot.state,
                group: slot.group,
                key: &slot.key,
                body: &bodies[start..*end],
                expires: slot.cell.last_expiry(),
            })
            .collect();
        if let (Some(spill), false) = (&mut self.spill, cells.is_empty()) {
            let written = spill.put(&cells);
            written.map_err(|cause| self.spill_failed(cause))?;
        }
        for index in victims {
            if let Some(slot) = self.slots.get(*index) {
                self.on_disk.insert(slot.group);
            }
            self.drop_slot(*index);
        }
        Ok(())
    }

    /// Visits every cell of a state in a group, in memory and on disk, without what is gone; in no order.
    pub(crate) fn visit(
        &mut self,
        state: u16,
        group: KeyGroup,
        mut visit: impl FnMut(&[u8], &Cell) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let now = self.now();
        for (_, slot) in self.slots.of_group(group).filter(|(_, slot)| slot.state == state) {
            if slot.cell.last_expiry() > now {
                visit(&slot.key, &slot.cell)?;
            }
        }
        if !self.on_disk.contains(group) {
            return Ok(());
        }
        let Some(mut spill) = self.spill.take() else { return Ok(()) };
        let mut outcome = Ok(());
        let read = spill.visit(state, group, &mut |key, body| {
            // What is in memory is newer.
            if outcome.is_err() || self.slots.find(state, hash_key(key), key).is_some() {
                return;
            }
            outcome = self
                .decode_spilled(state, group, body)
                .and_then(|mut cell| if cell.expire(now) { visit(key, &cell) } else { Ok(()) });
        });
        self.spill = Some(spill);
        read.map_err(|cause| self.spill_failed(cause))?;
        outcome
    }

    /// Drops all of some groups.
    pub(crate) fn drop_groups(&mut self, groups: &KeyGroups) -> Result<(), StateError> {
        for group in groups.iter() {
            if self.on_disk.contains(group)
                && let Some(spill) = &mut self.spill
            {
                let removed = spill.remove_group(group);
                removed.map_err(|cause| self.spill_failed(cause))?;
                self.on_disk.remove(group);
            }
            let slots: Vec<u32> = self.slots.of_group(group).map(|(index, _)| index).collect();
            slots.into_iter().for_each(|index| self.drop_slot(index));
            self.pending.values_mut().for_each(|pending| pending.remove(group));
        }
        self.owned = self.owned.difference(groups);
        Ok(())
    }

    /// By key group: never changed.
    pub(crate) fn unchanged() -> Vec<u64> {
        vec![0; KEY_GROUPS]
    }
}

/// Refuses what is too long to be stored.
pub(crate) fn check_length(what: &'static str, bytes: &[u8]) -> Result<(), StateError> {
    if bytes.len() <= LONGEST {
        return Ok(());
    }
    Err(StateError::encode(what, &format!("it has {} bytes, the most is {LONGEST}", bytes.len())))
}
