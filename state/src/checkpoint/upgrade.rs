//! What a new program would make of a checkpoint.

use std::collections::BTreeSet;
use std::fmt;

use super::Manifest;
use crate::task_state::check_restorable;
use crate::{StateError, StateKind, StateSpec};

/// A state that a component of the new topology declares.
#[derive(Debug, Clone)]
pub struct StateDeclaration {
    /// The component.
    pub component: String,
    /// What it keeps under its keys.
    pub kind: StateKind,
    /// The rest.
    pub spec: StateSpec,
}

/// What becomes of a state.
#[derive(Debug)]
pub enum StateFate {
    /// The checkpoint has none of this name: it begins empty.
    New,
    /// It is taken over as it is.
    Claimed {
        /// Its version.
        version: u32,
    },
    /// It is taken over after migrations.
    Migrated {
        /// The versions that it goes through, from the stored one to the declared one.
        versions: Vec<u32>,
    },
    /// No component declares it.
    Orphaned {
        /// Its version.
        version: u32,
    },
    /// It cannot become what is declared.
    Refused(StateError),
}

/// One state in an [`UpgradePlan`].
#[derive(Debug)]
pub struct PlannedState {
    /// The component.
    pub component: String,
    /// The state.
    pub state: String,
    /// Bytes of it in the checkpoint.
    pub bytes: u64,
    /// What becomes of it.
    pub fate: StateFate,
}

/// What a new topology makes of a checkpoint. As text: a line a state.
#[derive(Debug)]
pub struct UpgradePlan {
    /// Every state that is stored or declared, by component and name.
    pub states: Vec<PlannedState>,
}

impl UpgradePlan {
    /// The states that cannot become what is declared: with one of them the new topology does not start.
    pub fn refused(&self) -> impl Iterator<Item = &PlannedState> {
        self.states.iter().filter(|state| matches!(state.fate, StateFate::Refused(_)))
    }

    /// The states that no component declares: they stay in checkpoints until they are dropped.
    pub fn orphaned(&self) -> impl Iterator<Item = &PlannedState> {
        self.states.iter().filter(|state| matches!(state.fate, StateFate::Orphaned { .. }))
    }
}

impl fmt::Display for UpgradePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for PlannedState { component, state, bytes, fate } in &self.states {
            write!(f, "{component}/{state}: ")?;
            match fate {
                StateFate::New => writeln!(f, "new, begins empty")?,
                StateFate::Claimed { version } => writeln!(f, "claimed, version {version}, {bytes} bytes")?,
                StateFate::Migrated { versions } => {
                    let versions: Vec<String> = versions.iter().map(u32::to_string).collect();
                    writeln!(f, "migrated, versions {}, {bytes} bytes", versions.join(" -> "))?;
                }
                StateFate::Orphaned { version } => {
                    writeln!(f, "orphaned, version {version}, {bytes} bytes: no component declares it")?;
                }
                StateFate::Refused(error) => writeln!(f, "refused: {error}")?,
            }
        }
        Ok(())
    }
}

/// What a topology that declares these states would make of a checkpoint. Values are not looked at: a migration may still
/// refuse one.
pub fn plan_upgrade(manifest: &Manifest, declared: &[StateDeclaration]) -> UpgradePlan {
    let stored = |component: &str, state: &str| manifest.components.get(component)?.states.get(state);
    let bytes = |component: &str, state: &str| {
        stored(component, state).map_or(0, |state| state.blocks.values().map(|block| block.length).sum())
    };
    let mut known = BTreeSet::new();
    let mut states = Vec::new();
    for StateDeclaration { component, kind, spec } in declared {
        let state = spec.name();
        let twice = !known.insert((component.clone(), state.to_owned()));
        let problem = spec.problem().or_else(|| twice.then(|| "it is declared twice".to_owned()));
        let fate = match (problem, stored(component, state)) {
            (Some(problem), _) => StateFate::Refused(StateError::Declaration {
                component: component.clone(),
                state: state.to_owned(),
                problem,
            }),
            (None, None) => StateFate::New,
            (None, Some(found)) => {
                match check_restorable(component, *kind, spec, found.kind, found.version) {
                    Err(error) => StateFate::Refused(error),
                    Ok(steps) if steps.is_empty() => StateFate::Claimed { version: found.version },
                    Ok(mut versions) => {
                        versions.push(spec.current_version());
                        StateFate::Migrated { versions }
                    }
                }
            }
        };
        let bytes = bytes(component, state);
        states.push(PlannedState { component: component.clone(), state: state.to_owned(), bytes, fate });
    }
    for (component, manifest) in &manifest.components {
        for (state, found) in &manifest.states {
            if !known.contains(&(component.clone(), state.clone())) {
                let fate = StateFate::Orphaned { version: found.version };
                let bytes = bytes(component, state);
                states.push(PlannedState { component: component.clone(), state: state.clone(), bytes, fate });
            }
        }
    }
    states.sort_by(|a, b| (&a.component, &a.state).cmp(&(&b.component, &b.state)));
    UpgradePlan { states }
}
