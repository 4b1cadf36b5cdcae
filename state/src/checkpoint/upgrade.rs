//! What a new program would make of a checkpoint.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Manifest;
use crate::spec::problem;
use crate::{StateError, StateKind, StateSpec};

/// A state that a component declares, as it can be told to another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredState {
    /// The component.
    pub component: String,
    /// The state's name.
    pub state: String,
    /// What is kept under its keys.
    pub kind: StateKind,
    /// The version of its values.
    pub version: u32,
    /// The versions from which there is a migration to the next.
    #[serde(default)]
    pub migrates_from: Vec<u32>,
}

impl DeclaredState {
    pub(crate) fn new(component: &str, kind: StateKind, spec: &StateSpec) -> Self {
        Self {
            component: component.to_owned(),
            state: spec.name().to_owned(),
            kind,
            version: spec.current_version(),
            migrates_from: spec.migrates_from(),
        }
    }

    /// The versions to migrate from, one after the other, of what is stored as this.
    pub(crate) fn steps_from(&self, found: StateKind, version: u32) -> Result<Vec<u32>, StateError> {
        let (component, state) = (self.component.clone(), self.state.clone());
        if found != self.kind {
            return Err(StateError::Kind { component, state, found, declared: self.kind });
        }
        let known = self.version;
        if version > known {
            return Err(StateError::Newer { component, state, found: version, known });
        }
        match (version..known).find(|from| !self.migrates_from.contains(from)) {
            Some(missing) => {
                Err(StateError::NoMigration { component, state, found: version, known, missing })
            }
            None => Ok((version..known).collect()),
        }
    }
}

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

    /// Components of which nothing that is stored is declared any more. A topology does not start without them unless it is told to drop
    /// their state.
    pub fn orphaned_components(&self) -> Vec<&str> {
        let mut components: Vec<&str> = self.states.iter().map(|state| &*state.component).collect();
        components.dedup();
        let all_orphaned = |component: &&str| {
            let mut of = self.states.iter().filter(|state| state.component == **component);
            of.all(|state| matches!(state.fate, StateFate::Orphaned { .. }))
        };
        components.into_iter().filter(all_orphaned).collect()
    }

    /// What is to be done, a sentence each; the first says whether the new topology would start.
    pub fn advice(&self) -> Vec<String> {
        let (refused, gone) = (self.refused().count(), self.orphaned_components());
        let mut advice = vec![match (refused, gone.is_empty()) {
            (0, true) => "It starts from this checkpoint.".to_owned(),
            (0, false) => format!(
                "It starts from this checkpoint only with `CheckpointOptions::drop_orphaned`, which loses the state of `{}`; else keep the \
                 names of these components.",
                gone.join("`, `")
            ),
            (1, _) => {
                "It does not start from this checkpoint: one state is refused. Mend its declaration first."
                    .to_owned()
            }
            (n, _) => format!(
                "It does not start from this checkpoint: {n} states are refused. Mend their declarations first."
            ),
        }];
        if self.states.iter().any(|state| matches!(state.fate, StateFate::Migrated { .. })) {
            advice.push(
                "What it migrates the program of before cannot read any more: keep a copy of the checkpoints until the new one is trusted."
                    .to_owned(),
            );
        }
        if self.orphaned().any(|state| !gone.contains(&&*state.component)) {
            advice.push(
                "Orphaned states of components that are there stay in checkpoints until `TaskState::drop_undeclared`, and are claimed \
                 again if they are declared again."
                    .to_owned(),
            );
        }
        advice
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
    let told = |declared: &StateDeclaration| {
        let StateDeclaration { component, kind, spec } = declared;
        (DeclaredState::new(component, *kind, spec), spec.problem())
    };
    plan(manifest, declared.iter().map(told).collect())
}

/// As [`plan_upgrade`], of what another process has told.
pub fn plan_declared(manifest: &Manifest, declared: &[DeclaredState]) -> UpgradePlan {
    let checked = |declared: &DeclaredState| {
        (declared.clone(), problem(&declared.state, declared.version, &declared.migrates_from))
    };
    plan(manifest, declared.iter().map(checked).collect())
}

fn plan(manifest: &Manifest, declared: Vec<(DeclaredState, Option<String>)>) -> UpgradePlan {
    let stored = |component: &str, state: &str| manifest.components.get(component)?.states.get(state);
    let bytes = |component: &str, state: &str| {
        stored(component, state).map_or(0, |state| state.blocks.values().map(|block| block.length).sum())
    };
    let mut known = BTreeSet::new();
    let mut states = Vec::new();
    for (declared, problem) in declared {
        let (component, state) = (declared.component.clone(), declared.state.clone());
        let twice = !known.insert((component.clone(), state.clone()));
        let problem = problem.or_else(|| twice.then(|| "it is declared twice".to_owned()));
        let bytes = bytes(&component, &state);
        let fate = match (problem, stored(&component, &state)) {
            (Some(problem), _) => StateFate::Refused(StateError::Declaration {
                component: component.clone(),
                state: state.clone(),
                problem,
            }),
            (None, None) => StateFate::New,
            (None, Some(found)) => match declared.steps_from(found.kind, found.version) {
                Err(error) => StateFate::Refused(error),
                Ok(steps) if steps.is_empty() => StateFate::Claimed { version: found.version },
                Ok(mut versions) => {
                    versions.push(declared.version);
                    StateFate::Migrated { versions }
                }
            },
        };
        states.push(PlannedState { component, state, bytes, fate });
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
