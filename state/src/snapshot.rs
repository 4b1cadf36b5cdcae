//! What a task writes for a checkpoint, and what it hands to another task.

use crate::block::{BlockHeader, BlockWriter, read_block};
use crate::cells::TaskCells;
use crate::checkpoint::CheckpointId;
use crate::pending::{Pending, PendingBlock};
use crate::spec::StateKind;
use crate::{KeyGroup, KeyGroups, StateError, TaskState};

/// What one task writes for one checkpoint: the key groups that changed since another.
#[derive(Debug, Clone)]
pub struct Part {
    /// The component.
    pub component: String,
    /// The task.
    pub task: u32,
    /// The task's key groups.
    pub groups: KeyGroups,
    /// The checkpoint of which the key groups that did not change are to be taken; without one, all are here.
    pub base: Option<CheckpointId>,
    /// Its states, with where their blocks are in `bytes`.
    pub states: Vec<PartState>,
    /// The blocks.
    pub bytes: Vec<u8>,
}

/// A state in a [`Part`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartState {
    /// Its name.
    pub name: String,
    /// What is kept under its keys.
    pub kind: StateKind,
    /// The version of its blocks.
    pub version: u32,
    /// The key groups that changed, in order.
    pub changed: Vec<PartBlock>,
}

/// A key group that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartBlock {
    /// Which.
    pub group: KeyGroup,
    /// Where its block begins in the bytes of the part.
    pub offset: u64,
    /// The length of its block; 0 when the group is empty and has none.
    pub length: u64,
}

/// Key groups on their way from one task to another, with all that is in them.
#[derive(Debug, Clone)]
pub struct MovedGroups {
    groups: KeyGroups,
    blocks: Vec<Vec<u8>>,
}

impl MovedGroups {
    /// Which.
    pub fn groups(&self) -> &KeyGroups {
        &self.groups
    }

    /// Bytes of what is in them.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }
}

impl TaskState {
    /// Takes the snapshot for a checkpoint: what changed since the task's snapshot for the checkpoint `base`, or all when
    /// that is `None` or was not taken of, or restored to, this state. Reads what is on disk, so it may block.
    ///
    /// # Errors
    /// [`StateError::Spill`], [`StateError::Corrupt`]: nothing was changed.
    pub fn snapshot(&self, checkpoint: CheckpointId, base: Option<CheckpointId>) -> Result<Part, StateError> {
        self.cells.lock().snapshot(checkpoint, base)
    }

    /// Says that a checkpoint was committed: older ones are no bases any more.
    pub fn committed(&self, checkpoint: CheckpointId) {
        self.cells.lock().snapshots.retain(|id, _| *id >= checkpoint);
    }

    /// Copies key groups of this task, to be moved. They stay until [`TaskState::release`]; what is changed in between is lost.
    ///
    /// # Errors
    /// [`StateError::Groups`] when one is not this task's; [`StateError::Spill`], [`StateError::Corrupt`].
    pub fn export(&self, groups: &KeyGroups) -> Result<MovedGroups, StateError> {
        self.cells.lock().export(groups)
    }

    /// Drops key groups of this task, which another has taken over.
    ///
    /// # Errors
    /// [`StateError::Groups`] when one is not this task's; [`StateError::Spill`], after which some may be empty.
    pub fn release(&self, groups: &KeyGroups) -> Result<(), StateError> {
        let cells = &mut *self.cells.lock();
        cells.check_owned(groups)?;
        cells.drop_groups(groups)
    }

    /// Takes over key groups of another task of the component. The next snapshot has all of them.
    ///
    /// # Errors
    /// [`StateError::Groups`] when one is this task's already; [`StateError::Corrupt`]; [`StateError::Budget`] or
    /// [`StateError::Spill`] when there is no room. Nothing is taken over then.
    pub fn import(&self, moved: &MovedGroups) -> Result<(), StateError> {
        let cells = &mut *self.cells.lock();
        let there = cells.owned.intersection(&moved.groups);
        if !there.is_empty() {
            return Err(cells.wrong_groups(&there, "are here already"));
        }
        let taken = moved.blocks.iter().try_for_each(|block| {
            let generation = cells.generation;
            cells.restore_block(block.clone(), "a key group that is moved", None, generation).map(drop)
        });
        match taken {
            Ok(()) => {
                for declared in &mut cells.states {
                    moved.groups.iter().for_each(|group| declared.changed[group.index()] = cells.generation);
                }
                cells.owned = cells.owned.union(&moved.groups);
                cells.moved_in = cells.moved_in.union(&moved.groups);
                Ok(())
            }
            Err(error) => {
                cells.drop_groups(&moved.groups)?;
                Err(error)
            }
        }
    }
}

impl TaskCells {
    fn wrong_groups(&self, groups: &KeyGroups, problem: &'static str) -> StateError {
        StateError::Groups {
            component: self.component.clone(),
            task: self.task,
            groups: groups.to_string(),
            problem,
        }
    }

    fn check_owned(&self, groups: &KeyGroups) -> Result<(), StateError> {
        let foreign = groups.difference(&self.owned);
        if foreign.is_empty() { Ok(()) } else { Err(self.wrong_groups(&foreign, "are not of this task")) }
    }

    fn header(&self, state: u16, group: KeyGroup) -> BlockHeader {
        let declared = &self.states[usize::from(state)];
        BlockHeader {
            component: self.component.clone(),
            state: declared.spec.name().to_owned(),
            kind: declared.kind,
            version: declared.spec.current_version(),
            group,
        }
    }

    /// Appends the block of a state in a group; its length, 0 when there is nothing in it.
    fn write_block(&mut self, state: u16, group: KeyGroup, into: &mut Vec<u8>) -> Result<u64, StateError> {
        let now = self.now();
        let header = self.header(state, group);
        let start = into.len();
        let mut writer = BlockWriter::new(&header, into);
        let written = self.visit(state, group, |key, cell| {
            writer.cell(key, |body| cell.encode(now, body));
            Ok(())
        });
        let length = writer.finish();
        if written.is_err() {
            into.truncate(start);
        }
        written.map(|()| length)
    }

    fn snapshot(&mut self, checkpoint: CheckpointId, base: Option<CheckpointId>) -> Result<Part, StateError> {
        self.expire_due(usize::MAX)?;
        self.expire_on_disk()?;
        let base = base.filter(|base| self.snapshots.contains_key(base));
        // All that was ever changed counts as changed since generation 0; without a base, so does what was not.
        let since = base.and_then(|base| self.snapshots.get(&base).copied());
        let wanted = |changed: u64| since.is_none_or(|since| changed > since);
        let mut bytes = Vec::new();
        let mut states = Vec::new();
        for state in 0..self.states.len() as u16 {
            let mut changed = Vec::new();
            for group in self.owned.clone().iter() {
                if !wanted(self.states[usize::from(state)].changed[group.index()]) {
                    continue;
                }
                let offset = bytes.len() as u64;
                let length = self.write_block(state, group, &mut bytes)?;
                if length > 0 || since.is_some() {
                    changed.push(PartBlock { group, offset, length });
                }
            }
            let declared = &self.states[usize::from(state)];
            states.push(PartState {
                name: declared.spec.name().to_owned(),
                kind: declared.kind,
                version: declared.spec.current_version(),
                changed,
            });
        }
        for (name, pending) in &self.pending {
            let mut changed = Vec::new();
            for (group, block) in pending.blocks.iter().filter(|(_, block)| wanted(block.changed)) {
                let (offset, length) = (bytes.len() as u64, block.bytes.len() as u64);
                bytes.extend_from_slice(&block.bytes);
                changed.push(PartBlock { group: *group, offset, length });
            }
            let (kind, version) = (pending.kind, pending.version);
            states.push(PartState { name: name.clone(), kind, version, changed });
        }
        self.snapshots.insert(checkpoint, self.generation);
        self.generation += 1;
        let (component, groups) = (self.component.clone(), self.owned.clone());
        Ok(Part { component, task: self.task, groups, base, states, bytes })
    }

    fn export(&mut self, groups: &KeyGroups) -> Result<MovedGroups, StateError> {
        self.check_owned(groups)?;
        let mut blocks = Vec::new();
        for group in groups.iter() {
            for state in 0..self.states.len() as u16 {
                let mut block = Vec::new();
                if self.write_block(state, group, &mut block)? > 0 {
                    blocks.push(block);
                }
            }
            let pending = self.pending.values().filter_map(|pending| pending.blocks.get(&group));
            blocks.extend(pending.map(|block| block.bytes.clone()));
        }
        Ok(MovedGroups { groups: groups.clone(), blocks })
    }

    /// Puts a block into its state, or keeps it until that is declared. `expected`: what the block has to be of. The stamp of
    /// the last change is `changed`.
    pub(crate) fn restore_block(
        &mut self,
        bytes: Vec<u8>,
        file: &str,
        expected: Option<&BlockHeader>,
        changed: u64,
    ) -> Result<(), StateError> {
        let corrupt = |problem: String| match expected {
            Some(expected) => expected.corrupt(file, problem),
            None => StateError::Corrupt {
                component: self.component.clone(),
                state: String::new(),
                group: KeyGroup::of_hash(0),
                file: file.to_owned(),
                problem,
            },
        };
        let (header, _) = read_block(&bytes).map_err(corrupt)?;
        if let Some(expected) = expected
            && header != *expected
        {
            return Err(expected.corrupt(
                file,
                format!(
                    "the bytes there are of state `{}` of component `{}`, version {}, key group {}",
                    header.state, header.component, header.version, header.group
                ),
            ));
        }
        if let Some(state) = self.find_state(&header.state) {
            self.take_block(state, &bytes, file)?;
            let migrated = self.states[usize::from(state)].spec.current_version() != header.version;
            let stamp = if migrated { self.generation } else { changed };
            self.states[usize::from(state)].changed[header.group.index()] = stamp;
            return Ok(());
        }
        let (kind, version) = (header.kind, header.version);
        let pending = self.pending.entry(header.state.clone()).or_insert_with(|| Pending {
            kind,
            version,
            blocks: Default::default(),
        });
        if (pending.kind, pending.version) != (kind, version) {
            let problem = format!(
                "it is a {kind} of version {version}, other groups are a {} of version {}",
                pending.kind, pending.version
            );
            return Err(header.corrupt(file, problem));
        }
        pending.blocks.insert(header.group, PendingBlock { bytes, file: file.to_owned(), changed });
        Ok(())
    }
}
