//! State back from a checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{BlockPlace, CheckpointError, CheckpointStore, Manifest};
use crate::block::BlockHeader;
use crate::{StateError, TaskState};

/// Blocks that are close to each other are read at once, up to so many bytes.
const READ_BYTES: u64 = 8 << 20;
/// Bytes between blocks that are read along.
const GAP_BYTES: u64 = 64 << 10;

impl TaskState {
    /// Fills this state, which is new and empty, with what a checkpoint has of its component in its key groups, whichever tasks
    /// wrote them. Declare states before or after: versions are brought up when both are known. The next snapshot can build
    /// on this checkpoint.
    ///
    /// Not undone by cancellation or an error: then drop it, and begin with a new one.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] for a block that is not what was written, with state, key group and file;
    /// [`StateError::Newer`] and its like for states that are declared already; [`StateError::Budget`] or
    /// [`StateError::Spill`] when there is no room; what the store said.
    pub async fn restore(
        &self,
        store: &dyn CheckpointStore,
        manifest: &Manifest,
    ) -> Result<(), CheckpointError> {
        let (component, by_file) = {
            let cells = self.cells.lock();
            if cells.slots.len() > 0 || !cells.pending.is_empty() || !cells.on_disk.is_empty() {
                return Err(CheckpointError::State(StateError::Groups {
                    component: cells.component.clone(),
                    task: cells.task,
                    groups: cells.owned.to_string(),
                    problem: "have state already; restore into a new task",
                }));
            }
            let mut by_file: BTreeMap<Arc<str>, Vec<(BlockHeader, BlockPlace)>> = BTreeMap::new();
            let states = manifest.components.get(&cells.component).map(|component| &component.states);
            for (name, state) in states.into_iter().flatten() {
                for (group, place) in state.blocks.iter().filter(|(group, _)| cells.owned.contains(**group)) {
                    let header = BlockHeader {
                        component: cells.component.clone(),
                        state: name.clone(),
                        kind: state.kind,
                        version: state.version,
                        group: *group,
                    };
                    by_file.entry(Arc::clone(&place.file)).or_default().push((header, place.clone()));
                }
            }
            (cells.component.clone(), by_file)
        };
        for (file, mut blocks) in by_file {
            blocks.sort_by_key(|(_, place)| place.offset);
            let mut blocks = blocks.as_slice();
            while let Some(((header, first), _)) = blocks.split_first() {
                let reach = run(blocks).ok_or_else(|| {
                    CheckpointError::State(header.corrupt(&file, "the manifest has a place that cannot be"))
                })?;
                let (now, later) = blocks.split_at(reach.blocks);
                blocks = later;
                let bytes = store.read(&file, first.offset, reach.length).await;
                let bytes = bytes.map_err(|error| match error {
                    CheckpointError::Corrupt { problem, .. } => {
                        CheckpointError::State(header.corrupt(&file, problem))
                    }
                    error => error,
                })?;
                let cells = &mut *self.cells.lock();
                for (header, place) in now {
                    let from = (place.offset - first.offset) as usize;
                    let block = bytes.get(from..from + place.length as usize).unwrap_or_default();
                    cells.restore_block(block.to_vec(), &file, Some(header), 0)?;
                }
            }
        }
        tracing::debug!(component, checkpoint = %manifest.id, "state was restored");
        // What is as it was restored counts as changed in generation 0.
        self.cells.lock().snapshots.insert(manifest.id, 0);
        Ok(())
    }
}

/// Blocks that are read at once.
struct Run {
    blocks: usize,
    length: u64,
}

/// How many blocks, ordered by place, are read with the first; `None` when a place is beyond all numbers.
fn run(blocks: &[(BlockHeader, BlockPlace)]) -> Option<Run> {
    let (_, first) = blocks.first()?;
    let mut run = Run { blocks: 1, length: first.length };
    let mut end = first.offset.checked_add(first.length)?;
    for (_, place) in &blocks[1..] {
        let next = place.offset.checked_add(place.length)?;
        let length = next.max(end) - first.offset;
        if place.offset > end.saturating_add(GAP_BYTES) || length > READ_BYTES {
            break;
        }
        end = end.max(next);
        run = Run { blocks: run.blocks + 1, length };
    }
    Some(run)
}
