//! Ending a topology so that another program goes on from its checkpoint.

use galerna_engine::CheckpointReport;
use galerna_state::{CheckpointId, DeclaredState, PlannedState, StateFate, UpgradePlan};
use serde::{Deserialize, Serialize};

/// What a new program would make of a topology's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeView {
    /// The name under which it was submitted.
    pub name: String,
    /// Which checkpoint it is about.
    pub checkpoint: u64,
    /// Whether the new program starts from it as it is.
    pub starts: bool,
    /// Components of which nothing is declared any more: it starts only if it drops their state.
    pub orphaned_components: Vec<String>,
    /// Every state that is stored or declared.
    pub states: Vec<StateView>,
    /// What is to be done, a sentence each.
    pub advice: Vec<String>,
}

/// What becomes of one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateView {
    /// The component.
    pub component: String,
    /// The state's name.
    pub state: String,
    /// `new`, `claimed`, `migrated`, `orphaned` or `refused`.
    pub fate: String,
    /// The versions that it goes through, from the stored one on; none of what is new or refused.
    pub versions: Vec<u32>,
    /// Bytes of it in the checkpoint.
    pub bytes: u64,
    /// Why it is refused, and what to do.
    pub reason: Option<String>,
}

impl From<&PlannedState> for StateView {
    fn from(planned: &PlannedState) -> Self {
        let (fate, versions, reason) = match &planned.fate {
            StateFate::New => ("new", Vec::new(), None),
            StateFate::Claimed { version } => ("claimed", vec![*version], None),
            StateFate::Migrated { versions } => ("migrated", versions.clone(), None),
            StateFate::Orphaned { version } => ("orphaned", vec![*version], None),
            StateFate::Refused(error) => ("refused", Vec::new(), Some(error.to_string())),
        };
        Self {
            component: planned.component.clone(),
            state: planned.state.clone(),
            fate: fate.to_owned(),
            versions,
            bytes: planned.bytes,
            reason,
        }
    }
}

impl UpgradeView {
    pub(crate) fn new(name: &str, checkpoint: CheckpointId, plan: &UpgradePlan) -> Self {
        let orphaned = plan.orphaned_components();
        Self {
            name: name.to_owned(),
            checkpoint: checkpoint.0,
            starts: plan.refused().next().is_none() && orphaned.is_empty(),
            orphaned_components: orphaned.into_iter().map(str::to_owned).collect(),
            states: plan.states.iter().map(StateView::from).collect(),
            advice: plan.advice(),
        }
    }

    /// Whether the new program starts, if it may drop the state of components that it does not have.
    pub fn starts_dropping_orphaned(&self) -> bool {
        self.states.iter().all(|state| state.fate != "refused")
    }
}

/// What to do at an upgrade.
#[derive(Debug, Clone, Default)]
pub struct Upgrade {
    /// The states that the new program declares ([`Engine::declared_states`](galerna_engine::Engine::declared_states)). With them it is
    /// looked at first whether it starts from the checkpoint.
    pub declares: Option<Vec<DeclaredState>>,
    /// The new program drops the state of components that it does not have (`CheckpointOptions::drop_orphaned`).
    pub drop_orphaned: bool,
    /// How long what is pending is waited for; see [`Topologies::begin_kill`](crate::Topologies::begin_kill).
    pub wait: Option<std::time::Duration>,
}

/// An upgrade that has begun.
#[derive(Debug, Clone)]
pub struct BegunUpgrade {
    /// The checkpoint that was taken before the topology began to end. What it does until then is in one more.
    pub checkpoint: CheckpointReport,
    /// What the new program makes of it, where that was asked.
    pub plan: Option<UpgradeView>,
}
