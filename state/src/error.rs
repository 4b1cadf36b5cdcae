//! What can go wrong with state in a task.

use std::fmt;

use crate::KeyGroup;
use crate::spec::StateKind;
use crate::spill::SpillError;

/// Why state was not read, changed, declared or restored. Unless said otherwise nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A key or a value has no serialised form.
    #[error("the {what} cannot be encoded: {cause}; its type must serialise to MessagePack")]
    Encode {
        /// `key`, `value`, `field` or `item`.
        what: &'static str,
        /// What serde said.
        cause: String,
    },
    /// What is stored is not of the type that the bolt asks for.
    #[error(
        "state `{state}` of component `{component}`, key group {group}: the {what} does not decode as {wanted}: {cause}; if its \
         type has changed, raise the state's version and add a migration"
    )]
    Decode {
        /// The component.
        component: String,
        /// The state.
        state: String,
        /// The key's group.
        group: KeyGroup,
        /// `key`, `value`, `field` or `item`.
        what: &'static str,
        /// The type that was asked for.
        wanted: &'static str,
        /// What serde said.
        cause: String,
    },
    /// The key belongs to another task.
    #[error(
        "state `{state}` of component `{component}`: key group {group} is not one of task {task}; group the bolt's input by the \
         key that its state is kept by"
    )]
    NotOwned {
        /// The component.
        component: String,
        /// The task that was asked.
        task: u32,
        /// The state.
        state: String,
        /// The key's group.
        group: KeyGroup,
    },
    /// There is no room in memory, and nowhere to spill to, or one key alone needs more than the budget.
    #[error(
        "state `{state}` of component `{component}` needs {needed} bytes, its task may use {budget}{}; raise the budget{}",
        if *.spills { " and one key has to fit" } else { "" },
        if *.spills { ", or keep less under one key" } else { ", or give the task a place to spill to" }
    )]
    Budget {
        /// The component.
        component: String,
        /// The state.
        state: String,
        /// Bytes in memory after the change.
        needed: usize,
        /// Bytes that the task may use.
        budget: usize,
        /// Whether keys can go to disk.
        spills: bool,
    },
    /// Keys could not be written to disk, or read from it.
    #[error("component `{component}`: {cause}")]
    Spill {
        /// The component.
        component: String,
        /// What happened.
        cause: SpillError,
    },
    /// A bolt without state asks for it.
    #[error(
        "component `{component}` keeps no state: subscribe it with `keyed_by`, by the key that its state is kept by"
    )]
    NotKept {
        /// The component.
        component: String,
    },
    /// A declaration that cannot be.
    #[error("state `{state}` of component `{component}`: {problem}")]
    Declaration {
        /// The component.
        component: String,
        /// The state.
        state: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Its kind changed.
    #[error(
        "state `{state}` of component `{component}` is kept as a {found}, not a {declared}; give the new one another name"
    )]
    Kind {
        /// The component.
        component: String,
        /// The state.
        state: String,
        /// What is kept.
        found: StateKind,
        /// What was declared.
        declared: StateKind,
    },
    /// A later version of the program wrote it.
    #[error(
        "state `{state}` of component `{component}` is of version {found}, this program knows {known}; run the newer program, or \
         restore a checkpoint that was taken before it"
    )]
    Newer {
        /// The component.
        component: String,
        /// The state.
        state: String,
        /// Its version.
        found: u32,
        /// The version that was declared.
        known: u32,
    },
    /// There is no way from its version to the one declared.
    #[error(
        "state `{state}` of component `{component}` is of version {found}, {known} is declared, and there is no migration from \
         version {missing}; add `.migrate({missing}, …)` to its declaration"
    )]
    NoMigration {
        /// The component.
        component: String,
        /// The state.
        state: String,
        /// Its version.
        found: u32,
        /// The version that was declared.
        known: u32,
        /// The version from which no migration leads on.
        missing: u32,
    },
    /// A migration refused a value.
    #[error(
        "state `{state}` of component `{component}`, key group {group}: the migration from version {from} failed: {cause}"
    )]
    Migration {
        /// The component.
        component: String,
        /// The state.
        state: String,
        /// The key's group.
        group: KeyGroup,
        /// The version that it starts from.
        from: u32,
        /// What it said.
        cause: String,
    },
    /// Bytes that are not what was written.
    #[error("state `{state}` of component `{component}`, key group {group}, in {file}: {problem}")]
    Corrupt {
        /// The component.
        component: String,
        /// The state.
        state: String,
        /// The key group.
        group: KeyGroup,
        /// Where the bytes are from.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A number of tasks that cannot share the key groups.
    #[error("{tasks} tasks cannot share the 4096 key groups; give the component from 1 to 4096 tasks")]
    Tasks {
        /// The number asked for.
        tasks: usize,
    },
    /// A key group is to come in that is here already, or to go that is not.
    #[error("component `{component}`, task {task}: key groups {groups} {problem}")]
    Groups {
        /// The component.
        component: String,
        /// The task.
        task: u32,
        /// Which.
        groups: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl StateError {
    pub(crate) fn encode(what: &'static str, cause: &impl fmt::Display) -> Self {
        Self::Encode { what, cause: cause.to_string() }
    }

    /// Whether the same may succeed later: a full disk that has room again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Spill { cause, .. } if cause.is_transient())
    }
}
