//! What a checkpoint consists of.
//!
//! A manifest is stored as: the magic `GKM1`, the format (u32), the XXH3-64 (seed 0) of the rest, and MessagePack. Little-endian.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use xxhash_rust::xxh3::xxh3_64;

use crate::cell::Reader;
use crate::checkpoint::{CheckpointError, CheckpointId, StoredPart};
use crate::{KeyGroup, KeyGroups, StateKind};

const MAGIC: [u8; 4] = *b"GKM1";
/// The format that is written.
const FORMAT: u32 = 1;

/// A whole checkpoint: where each key group of each state is, and what else a restart needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its number; later ones have higher ones.
    pub id: CheckpointId,
    /// The topology that it is of.
    pub topology: String,
    /// When it was taken, in milliseconds since 1970 by the wall clock; for people.
    pub taken_at: i64,
    /// The components that keep state.
    pub components: BTreeMap<String, ComponentManifest>,
    /// By spout: the message ids of roots whose effect is in this checkpoint, and whose ack had not reached the source when
    /// it was taken. Delivered again after a restart, they are acked and not worked on.
    pub in_doubt: BTreeMap<String, BTreeSet<Vec<u8>>>,
}

/// One component in a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ComponentManifest {
    /// Which key groups each task had.
    pub tasks: BTreeMap<u32, KeyGroups>,
    /// Its states, by name.
    pub states: BTreeMap<String, StateManifest>,
}

/// One state in a [`ComponentManifest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateManifest {
    /// What is kept under its keys.
    pub kind: StateKind,
    /// The version of its values.
    pub version: u32,
    /// Where its key groups are that are not empty.
    pub blocks: BTreeMap<KeyGroup, BlockPlace>,
}

/// Where a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockPlace {
    /// The file, by its name in the store.
    pub file: Arc<str>,
    /// Its first byte.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// The file, by its number in the table of files; first byte; length.
type StoredBlock = (KeyGroup, u32, u64, u64);

#[derive(Serialize, Deserialize)]
struct Stored {
    id: CheckpointId,
    topology: String,
    taken_at: i64,
    files: Vec<String>,
    components: BTreeMap<String, StoredComponent>,
    in_doubt: BTreeMap<String, Vec<ByteBuf>>,
}

#[derive(Serialize, Deserialize)]
struct StoredComponent {
    tasks: BTreeMap<u32, KeyGroups>,
    states: BTreeMap<String, (StateKind, u32, Vec<StoredBlock>)>,
}

impl Manifest {
    /// Puts the parts of all tasks together. Key groups that did not change are where `previous` has them.
    ///
    /// # Errors
    /// [`CheckpointError::Incomplete`] when the tasks of a component do not have each key group exactly once, a part is of
    /// another checkpoint or builds on another than `previous`, or tasks have different versions of one state.
    pub fn assemble(
        id: CheckpointId,
        topology: impl Into<String>,
        taken_at: i64,
        previous: Option<&Self>,
        parts: &[StoredPart],
        in_doubt: BTreeMap<String, BTreeSet<Vec<u8>>>,
    ) -> Result<Self, CheckpointError> {
        let incomplete = |problem: String| CheckpointError::Incomplete { id, problem };
        let mut components: BTreeMap<String, ComponentManifest> = BTreeMap::new();
        for part in parts {
            let (name, task) = (&part.component, part.task);
            if part.checkpoint != id {
                return Err(incomplete(format!(
                    "the part of task {task} of component `{name}` is of checkpoint {}",
                    part.checkpoint
                )));
            }
            if let Some(base) = part.base
                && previous.map(|previous| previous.id) != Some(base)
            {
                return Err(incomplete(format!(
                    "the part of task {task} of component `{name}` builds on checkpoint {base}, which is not the one before"
                )));
            }
            let component = components.entry(name.clone()).or_default();
            for (other, groups) in &component.tasks {
                let both = groups.intersection(&part.groups);
                if !both.is_empty() {
                    return Err(incomplete(format!(
                        "tasks {other} and {task} of component `{name}` both have key groups {both}"
                    )));
                }
            }
            if component.tasks.insert(task, part.groups.clone()).is_some() {
                return Err(incomplete(format!("there are two parts of task {task} of component `{name}`")));
            }
            add(component, part, previous).map_err(incomplete)?;
        }
        for (name, component) in &components {
            let all = component.tasks.values().fold(KeyGroups::none(), |all, groups| all.union(groups));
            let missing = KeyGroups::all().difference(&all);
            if !missing.is_empty() {
                return Err(incomplete(format!("no task of component `{name}` wrote key groups {missing}")));
            }
        }
        Ok(Self { id, topology: topology.into(), taken_at, components, in_doubt })
    }

    /// The names of the files that it refers to.
    pub fn files(&self) -> BTreeSet<Arc<str>> {
        let states = self.components.values().flat_map(|component| component.states.values());
        states.flat_map(|state| state.blocks.values()).map(|block| Arc::clone(&block.file)).collect()
    }

    /// Bytes of its blocks.
    pub fn bytes(&self) -> u64 {
        let states = self.components.values().flat_map(|component| component.states.values());
        states.flat_map(|state| state.blocks.values()).map(|block| block.length).sum()
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, String> {
        let files: Vec<String> = self.files().iter().map(|file| file.to_string()).collect();
        let number =
            |file: &str| files.binary_search_by(|other| other.as_str().cmp(file)).unwrap_or(0) as u32;
        let components = self.components.iter().map(|(name, component)| {
            let states = component.states.iter().map(|(name, state)| {
                let blocks = state.blocks.iter();
                let blocks = blocks.map(|(group, b)| (*group, number(&b.file), b.offset, b.length));
                (name.clone(), (state.kind, state.version, blocks.collect()))
            });
            let states = states.collect();
            (name.clone(), StoredComponent { tasks: component.tasks.clone(), states })
        });
        let in_doubt = self
            .in_doubt
            .iter()
            .map(|(spout, ids)| (spout.clone(), ids.iter().map(|id| ByteBuf::from(id.clone())).collect()));
        let stored = Stored {
            id: self.id,
            topology: self.topology.clone(),
            taken_at: self.taken_at,
            components: components.collect(),
            in_doubt: in_doubt.collect(),
            files: files.clone(),
        };
        let body = rmp_serde::to_vec(&stored).map_err(|cause| cause.to_string())?;
        let mut bytes = Vec::with_capacity(body.len() + 16);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&xxh3_64(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8], place: &str) -> Result<Self, CheckpointError> {
        let corrupt = |problem: String| CheckpointError::Corrupt { place: place.to_owned(), problem };
        let mut reader = Reader(bytes);
        if reader.array().map_err(corrupt)? != MAGIC {
            return Err(corrupt("it does not begin as the manifest of a checkpoint".to_owned()));
        }
        let format = reader.u32().map_err(corrupt)?;
        let checksum = reader.u64().map_err(corrupt)?;
        if format > FORMAT {
            return Err(CheckpointError::Newer { place: place.to_owned(), found: format, known: FORMAT });
        }
        if format == 0 || xxh3_64(reader.0) != checksum {
            return Err(corrupt("its checksum is wrong: bytes of it were changed or cut off".to_owned()));
        }
        let stored: Stored = rmp_serde::from_slice(reader.0)
            .map_err(|cause| corrupt(format!("it does not decode: {cause}")))?;
        let files: Vec<Arc<str>> = stored.files.iter().map(|file| Arc::from(file.as_str())).collect();
        let mut components = BTreeMap::new();
        for (name, component) in stored.components {
            let mut states = BTreeMap::new();
            for (name, (kind, version, stored)) in component.states {
                let mut blocks = BTreeMap::new();
                for (group, file, offset, length) in stored {
                    let file = files.get(file as usize).map(Arc::clone);
                    let file =
                        file.ok_or_else(|| corrupt("it refers to a file without a name".to_owned()))?;
                    blocks.insert(group, BlockPlace { file, offset, length });
                }
                states.insert(name, StateManifest { kind, version, blocks });
            }
            components.insert(name, ComponentManifest { tasks: component.tasks, states });
        }
        let in_doubt = stored.in_doubt.into_iter();
        let in_doubt =
            in_doubt.map(|(spout, ids)| (spout, ids.into_iter().map(ByteBuf::into_vec).collect())).collect();
        let Stored { id, topology, taken_at, .. } = stored;
        Ok(Self { id, topology, taken_at, components, in_doubt })
    }
}

/// Adds the states of one task; `Err` says what does not fit.
fn add(
    component: &mut ComponentManifest,
    part: &StoredPart,
    previous: Option<&Manifest>,
) -> Result<(), String> {
    let base = part.base.and(previous).and_then(|previous| previous.components.get(&part.component));
    for state in &part.states {
        let of_state = format!("state `{}` of component `{}`", state.name, part.component);
        let (kind, version) = (state.kind, state.version);
        let entry = component.states.entry(state.name.clone());
        let manifest = entry.or_insert_with(|| StateManifest { kind, version, blocks: BTreeMap::new() });
        if (manifest.kind, manifest.version) != (kind, version) {
            return Err(format!(
                "{of_state} is a {} of version {} at one task, and a {kind} of version {version} at another",
                manifest.kind, manifest.version
            ));
        }
        let changed: BTreeMap<KeyGroup, _> =
            state.changed.iter().map(|block| (block.group, (block.offset, block.length))).collect();
        if let Some(before) = base.and_then(|component| component.states.get(&state.name)) {
            for (group, place) in &before.blocks {
                if part.groups.contains(*group) && !changed.contains_key(group) {
                    if (before.kind, before.version) != (kind, version) {
                        return Err(format!(
                            "{of_state} has changed its version, and key group {group} was not written"
                        ));
                    }
                    manifest.blocks.insert(*group, place.clone());
                }
            }
        }
        for (group, (offset, length)) in changed.into_iter().filter(|(_, (_, length))| *length > 0) {
            let file = part.file.clone().ok_or_else(|| format!("{of_state} has blocks, and no file"))?;
            manifest.blocks.insert(group, BlockPlace { file, offset, length });
        }
    }
    Ok(())
}
