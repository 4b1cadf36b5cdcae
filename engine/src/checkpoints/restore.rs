//! State of all tasks, new or from the last checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use galerna_state::{CheckpointError, KeyGroups, Manifest, StateOptions, TaskState};
use galerna_topology::{Clock, Topology};

use super::{CheckpointOptions, KeyedStateOptions, KnownIds};
use crate::clock::nanos;
use crate::error::EngineError;

/// What a topology begins with.
pub(crate) struct Restored {
    /// By component and task; of those that keep state.
    pub(crate) states: BTreeMap<(usize, usize), TaskState>,
    /// The checkpoint that it is of, if there is one.
    pub(crate) manifest: Option<Manifest>,
    /// By component; of spouts.
    pub(crate) known: Vec<KnownIds>,
}

/// Makes the state of all tasks, and fills it from the last checkpoint.
pub(crate) async fn restore(
    topology: &Topology,
    clock: &dyn Clock,
    options: &KeyedStateOptions,
    checkpoints: Option<&CheckpointOptions>,
) -> Result<Restored, EngineError> {
    let failed = |reason: String| EngineError::Restore { topology: topology.name().clone(), reason };
    let of_store = |error: CheckpointError| failed(error.to_string());
    let mut states = BTreeMap::new();
    for (at, component) in topology.components().iter().enumerate() {
        if !component.settings.keeps_state {
            continue;
        }
        let tasks = component.settings.tasks();
        let shares = KeyGroups::shares(tasks).map_err(|error| failed(error.to_string()))?;
        for (task, groups) in shares.into_iter().enumerate() {
            let spill = options.spill.as_ref().map(|make| make(&component.id, task)).transpose();
            let options = StateOptions {
                budget_bytes: (options.budget_bytes / tasks).max(1),
                spill: spill.map_err(|error| failed(error.to_string()))?,
                clock: options.clock.clone(),
            };
            let state = TaskState::new(&*component.id, task as u32, groups, options);
            states.insert((at, task), state.map_err(|error| failed(error.to_string()))?);
        }
    }
    if checkpoints.is_none() && !states.is_empty() {
        tracing::warn!(
            topology = &**topology.name(),
            "it keeps state and takes no checkpoints: its state is lost when the process ends"
        );
    }
    for spout in topology.at_least_once().into_iter().filter(|_| checkpoints.is_some()) {
        tracing::warn!(
            topology = &**topology.name(),
            spout,
            "the spout does not say that its messages have stable ids (`Spout::STABLE_IDS`): what it delivers again after a crash may count again"
        );
    }
    let (grace, restored) =
        checkpoints.map_or((0, 0), |options| (nanos(options.redelivery), nanos(options.restored_redelivery)));
    let known: Vec<KnownIds> = topology.components().iter().map(|_| KnownIds::new(grace, restored)).collect();
    let Some(CheckpointOptions { store, drop_orphaned, .. }) = checkpoints else {
        return Ok(Restored { states, manifest: None, known });
    };
    let Some(manifest) = store.latest().await.map_err(of_store)? else {
        return Ok(Restored { states, manifest: None, known });
    };
    if manifest.topology != **topology.name() {
        let found = &manifest.topology;
        return Err(failed(format!(
            "its checkpoints are of topology `{found}`; give each topology a store of its own"
        )));
    }
    let has_state = |id: &str| topology.component(id).is_some_and(|component| component.settings.keeps_state);
    let orphaned: Vec<&str> =
        manifest.components.keys().filter(|id| !has_state(id)).map(String::as_str).collect();
    if !orphaned.is_empty() && !drop_orphaned {
        return Err(EngineError::OrphanedState {
            topology: topology.name().clone(),
            checkpoint: manifest.id.0,
            components: orphaned.join("`, `"),
        });
    }
    for state in states.values() {
        state.restore(&**store, &manifest).await.map_err(of_store)?;
    }
    for (spout, ids) in &manifest.in_doubt {
        let at = topology.components().iter().position(|component| *component.id == **spout);
        if let Some(at) = at {
            let ids = ids.iter().filter_map(|id| std::str::from_utf8(id).ok().map(Arc::from));
            known[at].restored(ids, nanos(clock.now()));
        }
    }
    tracing::info!(topology = &**topology.name(), checkpoint = %manifest.id, "restored from a checkpoint");
    Ok(Restored { states, manifest: Some(manifest), known })
}
