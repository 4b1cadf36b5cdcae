//! The state of one task.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use galerna_lock::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::block::read_block;
use crate::cell::Cell;
use crate::cells::{Declared, Place, TaskCells};
use crate::checkpoint::DeclaredState;
use crate::key_group::hash_key;
use crate::pending::Pending;
use crate::spec::{StateKind, StateSpec};
use crate::spill::Spill;
use crate::{Clock, KeyGroup, KeyGroups, ListState, MapState, StateError, ValueState};

/// The state of one task of a component: handles come from it, snapshots are taken of it. Clones are the same state.
///
/// It is locked for the time of one operation, by which only its task and who takes snapshots ever meet; nothing awaits.
#[derive(Clone)]
pub struct TaskState {
    pub(crate) cells: Arc<Mutex<TaskCells>>,
    copies: Arc<Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>>,
}

/// What a task's state may use.
pub struct StateOptions {
    /// Bytes in memory: keys, values and about 200 bytes a key besides. A component's budget is divided by its tasks.
    pub budget_bytes: usize,
    /// Where keys go beyond that; without, more is an error.
    pub spill: Option<Box<dyn Spill>>,
    /// What times to live are counted by.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for StateOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateOptions")
            .field("budget_bytes", &self.budget_bytes)
            .field("spills", &self.spill.is_some())
            .finish_non_exhaustive()
    }
}

/// How much a task keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSize {
    /// Keys in memory, of all states.
    pub keys_in_memory: usize,
    /// Bytes that they count for.
    pub bytes_in_memory: usize,
    /// Bytes that they may count for.
    pub budget_bytes: usize,
    /// Key groups of which some keys may be on disk.
    pub groups_on_disk: usize,
}

/// A state that was restored and that nobody has declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndeclaredState {
    /// Its name.
    pub name: String,
    /// What is kept under its keys.
    pub kind: StateKind,
    /// The version that it was stored with.
    pub version: u32,
}

impl TaskState {
    /// The empty state of task `task` of `component`, which owns these key groups.
    ///
    /// # Errors
    /// [`StateError::Declaration`] when the component's name is empty or longer than 1,024 bytes.
    pub fn new(
        component: impl Into<String>,
        task: u32,
        groups: KeyGroups,
        options: StateOptions,
    ) -> Result<Self, StateError> {
        let component = component.into();
        if component.is_empty() || component.len() > 1024 {
            let problem = "the component's name must have 1 to 1024 bytes".to_owned();
            return Err(StateError::Declaration { component, state: String::new(), problem });
        }
        let StateOptions { budget_bytes, spill, clock } = options;
        let cells = TaskCells::new(component, task, groups, budget_bytes, spill, clock);
        Ok(Self { cells: Arc::new(Mutex::new(cells)), copies: Arc::default() })
    }

    /// What a bolt keeps of its state in a form of its own, made by `make` when there is none of this name and type. It lives as long as
    /// the task: a bolt that panicked and is made anew finds it as it was. No snapshot has it: before one is taken the bolt puts what
    /// has changed into its state, in `checkpoint`.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn working_copy<T: Send + 'static, E>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<Mutex<T>>, E> {
        let found = self.copies.lock().get(name).cloned();
        if let Some(copy) = found.and_then(|copy| copy.downcast::<Mutex<T>>().ok()) {
            return Ok(copy);
        }
        let copy = Arc::new(Mutex::new(make()?));
        self.copies.lock().insert(name.to_owned(), copy.clone());
        Ok(copy)
    }

    /// One value a key. Declared again by the same name, as after a panic, it is the same state.
    ///
    /// # Errors
    /// [`StateError::Declaration`], [`StateError::Kind`]; [`StateError::Newer`], [`StateError::NoMigration`] or
    /// [`StateError::Migration`] when what was restored cannot become this version; [`StateError::Budget`] or
    /// [`StateError::Spill`] when there is no room for it.
    pub fn value<V: Serialize + DeserializeOwned>(
        &self,
        spec: impl Into<StateSpec>,
    ) -> Result<ValueState<V>, StateError> {
        Ok(ValueState::new(self.clone(), self.declare(StateKind::Value, spec.into())?))
    }

    /// Values by field under each key.
    ///
    /// # Errors
    /// As [`TaskState::value`].
    pub fn map<F, V>(&self, spec: impl Into<StateSpec>) -> Result<MapState<F, V>, StateError>
    where
        F: Serialize + DeserializeOwned,
        V: Serialize + DeserializeOwned,
    {
        Ok(MapState::new(self.clone(), self.declare(StateKind::Map, spec.into())?))
    }

    /// Items under each key, in the order in which they were pushed.
    ///
    /// # Errors
    /// As [`TaskState::value`].
    pub fn list<T: Serialize + DeserializeOwned>(
        &self,
        spec: impl Into<StateSpec>,
    ) -> Result<ListState<T>, StateError> {
        Ok(ListState::new(self.clone(), self.declare(StateKind::List, spec.into())?))
    }

    /// The key groups of this task.
    pub fn groups(&self) -> KeyGroups {
        self.cells.lock().owned.clone()
    }

    /// How much it keeps.
    pub fn size(&self) -> StateSize {
        let cells = self.cells.lock();
        StateSize {
            keys_in_memory: cells.slots.len(),
            bytes_in_memory: cells.slots.bytes(),
            budget_bytes: cells.budget,
            groups_on_disk: cells.on_disk.len(),
        }
    }

    /// States that were restored and that nobody has declared: after all handles are made, what the new program has no use
    /// for. They go on into snapshots until they are dropped.
    pub fn undeclared(&self) -> Vec<UndeclaredState> {
        let cells = self.cells.lock();
        let pending = cells.pending.iter();
        pending
            .map(|(name, state)| UndeclaredState {
                name: name.clone(),
                kind: state.kind,
                version: state.version,
            })
            .collect()
    }

    /// The states that were declared, by name.
    pub fn declared(&self) -> Vec<DeclaredState> {
        let cells = self.cells.lock();
        let states = cells.states.iter();
        let mut declared: Vec<DeclaredState> =
            states.map(|state| DeclaredState::new(&cells.component, state.kind, &state.spec)).collect();
        declared.sort_unstable_by(|one, other| one.state.cmp(&other.state));
        declared
    }

    /// Drops states that nobody has declared.
    pub fn drop_undeclared(&self) {
        self.cells.lock().pending.clear();
    }

    fn declare(&self, kind: StateKind, spec: StateSpec) -> Result<u16, StateError> {
        self.cells.lock().declare(kind, spec)
    }
}

impl fmt::Debug for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = self.cells.lock();
        f.debug_struct("TaskState")
            .field("component", &cells.component)
            .field("task", &cells.task)
            .field("groups", &cells.owned)
            .field("keys_in_memory", &cells.slots.len())
            .finish_non_exhaustive()
    }
}

impl TaskCells {
    pub(crate) fn find_state(&self, name: &str) -> Option<u16> {
        self.states.iter().position(|state| state.spec.name() == name).map(|n| n as u16)
    }

    fn declare(&mut self, kind: StateKind, spec: StateSpec) -> Result<u16, StateError> {
        let component = self.component.clone();
        let state = spec.name().to_owned();
        let kept = self.find_state(&state);
        if let Some(problem) = spec.problem() {
            return Err(StateError::Declaration { component, state, problem });
        }
        if let Some(index) = kept {
            let declared = &self.states[usize::from(index)];
            if declared.kind != kind {
                return Err(StateError::Kind { component, state, found: declared.kind, declared: kind });
            }
            let (version, new) = (declared.spec.current_version(), spec.current_version());
            if version != new {
                let problem = format!("it is declared twice, with versions {version} and {new}; use one");
                return Err(StateError::Declaration { component, state, problem });
            }
            self.expires |= spec.life().is_some();
            self.states[usize::from(index)].spec = spec;
            return Ok(index);
        }
        if self.states.len() >= usize::from(u16::MAX) {
            let problem = "a component has at most 65,535 states; use a map".to_owned();
            return Err(StateError::Declaration { component, state, problem });
        }
        if let Some(pending) = self.pending.get(&state) {
            check_restorable(&component, kind, &spec, pending.kind, pending.version)?;
        }
        self.expires |= spec.life().is_some();
        let index = self.states.len() as u16;
        let mut changed = Self::unchanged();
        // The task that they came from may have emptied them since the last checkpoint.
        self.moved_in.iter().for_each(|group| changed[group.index()] = self.generation);
        self.states.push(Declared { kind, spec, changed });
        if let Some(pending) = self.pending.remove(&state)
            && let Err(error) = self.adopt(index, &pending)
        {
            // As it was: what has been taken over is dropped again.
            for block in pending.blocks.values() {
                if let Ok((header, found)) = read_block(&block.bytes) {
                    for (key, _) in found {
                        let hash = hash_key(key);
                        self.remove(&Place { state: index, group: header.group, hash, key })?;
                    }
                }
            }
            self.states.pop();
            self.pending.insert(state, pending);
            return Err(error);
        }
        Ok(index)
    }

    /// Takes over what was restored of a state that is declared now.
    fn adopt(&mut self, state: u16, pending: &Pending) -> Result<(), StateError> {
        let migrated = self.states[usize::from(state)].spec.current_version() != pending.version;
        if migrated {
            // In the next snapshot all of it is of the new version.
            self.states[usize::from(state)].changed.fill(self.generation);
        }
        for (group, block) in &pending.blocks {
            self.take_block(state, &block.bytes, &block.file)?;
            if !migrated {
                self.states[usize::from(state)].changed[group.index()] = block.changed;
            }
        }
        Ok(())
    }

    /// Puts the cells of a block, which was checked, into a declared state, migrated.
    pub(crate) fn take_block(&mut self, state: u16, bytes: &[u8], file: &str) -> Result<(), StateError> {
        let declared = &self.states[usize::from(state)];
        let spec = declared.spec.clone();
        let (kind, name) = (declared.kind, spec.name().to_owned());
        let corrupt = |component: &str, group: KeyGroup, problem: String| StateError::Corrupt {
            component: component.to_owned(),
            state: name.clone(),
            group,
            file: file.to_owned(),
            problem,
        };
        let (header, found) =
            read_block(bytes).map_err(|problem| corrupt(&self.component, KeyGroup::of_hash(0), problem))?;
        check_restorable(&self.component, kind, &spec, header.kind, header.version)?;
        let now = self.now();
        for (key, body) in found {
            let hash = hash_key(key);
            if KeyGroup::of_hash(hash) != header.group {
                let problem = "a key in it belongs to another key group".to_owned();
                return Err(corrupt(&self.component, header.group, problem));
            }
            let mut cell = Cell::decode(header.kind, body)
                .map_err(|problem| corrupt(&self.component, header.group, problem))?;
            for from in header.version..spec.current_version() {
                cell.convert(|bytes| spec.step(from, bytes)).map_err(|cause| StateError::Migration {
                    component: self.component.clone(),
                    state: name.clone(),
                    group: header.group,
                    from,
                    cause,
                })?;
            }
            self.expires |= cell.first_expiry() != crate::cell::NEVER;
            if !cell.expire(now) {
                continue;
            }
            self.put_restored(&Place { state, group: header.group, hash, key }, cell)?;
        }
        Ok(())
    }
}

/// Whether what is stored can become what is declared.
pub(crate) fn check_restorable(
    component: &str,
    kind: StateKind,
    spec: &StateSpec,
    found: StateKind,
    version: u32,
) -> Result<Vec<u32>, StateError> {
    DeclaredState::new(component, kind, spec).steps_from(found, version)
}
