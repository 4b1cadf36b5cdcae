//! Checkpoints of what is served: each task of the host's has its own.

use std::path::PathBuf;
use std::time::Duration;

use galerna_engine::{CheckpointOptions, EngineOptions};
use galerna_state::{CheckpointError, FolderCheckpoints};
use serde_json::Value;

use crate::host_pipe::name;
use crate::message::Handshake;

/// How long the child before this one may take to end, whose worker was killed, and how often that is looked at.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOKED_AT_EVERY: Duration = Duration::from_millis(100);

/// How a part of a topology is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServeOptions {
    /// The folder of the checkpoints of what keeps state: the same on all machines on which the host may start a task, so a shared one
    /// where there are several. Each task has a folder in it, by the names of topology and component and the host's id of the task,
    /// which Storm does not change as long as the topology lives. Without one, state is lost when a child ends.
    pub checkpoints: Option<PathBuf>,
}

/// A folder's name: what some file system might not take is left out.
fn folder_name(text: &str) -> String {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.chars().map(|c| if fine(c) { c } else { '_' }).collect()
}

/// The engine's options for the task that the handshake names.
pub(crate) async fn engine_options(
    handshake: &Handshake,
    options: &ServeOptions,
    keeps_state: bool,
) -> Result<EngineOptions, CheckpointError> {
    let mut engine = EngineOptions::default();
    let Some(folder) = options.checkpoints.as_ref().filter(|_| keeps_state) else { return Ok(engine) };
    let text = |value: Option<&Value>, otherwise: &str| {
        value.and_then(Value::as_str).unwrap_or(otherwise).to_owned()
    };
    let topology = text(handshake.conf.get("topology.name"), "topology");
    let component = text(handshake.context.get("componentid"), "component");
    let task = handshake.context.get("taskid").and_then(Value::as_i64).unwrap_or_default();
    let place = folder.join(folder_name(&topology)).join(format!("{}-{task}", folder_name(&component)));
    let name = name(handshake);
    let mut waited = Duration::ZERO;
    let store = loop {
        match FolderCheckpoints::open(&place, &*name).await {
            Err(CheckpointError::InUse { .. }) if waited < PATIENCE => {
                tokio::time::sleep(LOOKED_AT_EVERY).await;
                waited += LOOKED_AT_EVERY;
            }
            opened => break opened?,
        }
    };
    engine.checkpoints = Some(CheckpointOptions::new(store));
    Ok(engine)
}
