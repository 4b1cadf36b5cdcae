//! Checkpoints: committed whole or not at all, whatever fails; restored by any number of tasks.

mod crash;
mod damage;
mod folder;
mod kill;
mod mongo;
mod power;
mod stores;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use galerna_state::{
    CheckpointError, CheckpointId, CheckpointStore, KeyGroup, KeyGroups, Manifest, StateOptions, TaskState,
};

/// What a topology with two components keeps, as plain maps.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Content {
    pub(crate) counts: BTreeMap<u32, u64>,
    pub(crate) recent: BTreeMap<u32, Vec<u64>>,
    pub(crate) in_doubt: BTreeSet<Vec<u8>>,
}

/// A topology that is nothing but its state: `count` keeps a value a key, `join` a list.
pub(crate) struct Topology {
    pub(crate) count: Vec<TaskState>,
    pub(crate) join: Vec<TaskState>,
    /// The last checkpoint that is known to be committed.
    pub(crate) previous: Option<Manifest>,
    pub(crate) content: Content,
}

pub(crate) fn tasks(component: &str, tasks: usize) -> Vec<TaskState> {
    let shares = KeyGroups::shares(tasks).expect("shares");
    let numbered = shares.into_iter().enumerate();
    numbered
        .map(|(task, groups)| {
            let options = StateOptions { budget_bytes: 1 << 30, spill: None, clock: Arc::new(|| 0) };
            TaskState::new(component, task as u32, groups, options).expect("a state")
        })
        .collect()
}

fn of<'a>(states: &'a [TaskState], key: &u32) -> &'a TaskState {
    &states[KeyGroup::of(key).expect("a group").task(states.len())]
}

impl Topology {
    pub(crate) fn new(parallelism: usize) -> Self {
        Self {
            count: tasks("count", parallelism),
            join: tasks("join", 1),
            previous: None,
            content: Content::default(),
        }
    }

    /// Counts a key, and remembers the number under it.
    pub(crate) fn execute(&mut self, key: u32, number: u64) {
        let mut counts = of(&self.count, &key).value::<u64>("count").expect("a handle");
        let count = counts.update(&key, |n| n.unwrap_or(0) + number).expect("counted");
        self.content.counts.insert(key, count);
        let mut recent = of(&self.join, &key).list::<u64>("recent").expect("a handle");
        recent.push(&key, &number).expect("pushed");
        self.content.recent.entry(key).or_default().push(number);
        self.content.in_doubt = [number.to_le_bytes().to_vec()].into();
    }

    fn snapshots(&self, id: CheckpointId) -> Vec<galerna_state::Part> {
        let base = self.previous.as_ref().map(|previous| previous.id);
        let tasks = self.count.iter().chain(&self.join);
        tasks.map(|task| task.snapshot(id, base).expect("a snapshot")).collect()
    }

    /// Takes a checkpoint as an engine does. `attempted` gets the content when its commit begins.
    pub(crate) async fn checkpoint(
        &mut self,
        store: &dyn CheckpointStore,
        attempted: &mut Vec<(CheckpointId, Content)>,
    ) -> Result<CheckpointId, CheckpointError> {
        let id = store.begin().await?;
        let mut parts = Vec::new();
        for part in self.snapshots(id) {
            parts.push(store.put(id, part).await?);
        }
        let in_doubt = [("spout".to_owned(), self.content.in_doubt.clone())].into();
        let manifest = Manifest::assemble(id, "t", 7, self.previous.as_ref(), &parts, in_doubt)?;
        attempted.push((id, self.content.clone()));
        store.commit(&manifest).await?;
        self.count.iter().chain(&self.join).for_each(|task| task.committed(id));
        self.previous = Some(manifest);
        Ok(id)
    }

    /// A new topology from a checkpoint, and what it keeps then.
    pub(crate) async fn restore(
        store: &dyn CheckpointStore,
        manifest: &Manifest,
        parallelism: usize,
    ) -> Result<Self, CheckpointError> {
        let mut restored = Self::new(parallelism);
        for task in restored.count.iter().chain(&restored.join) {
            task.restore(store, manifest).await?;
        }
        for task in &restored.count {
            let all = task.value::<u64>("count").expect("a handle").collect::<u32>().expect("read");
            restored.content.counts.extend(all);
        }
        for task in &restored.join {
            let all = task.list::<u64>("recent").expect("a handle").collect::<u32>().expect("read");
            restored.content.recent.extend(all);
        }
        restored.content.in_doubt = manifest.in_doubt.get("spout").cloned().unwrap_or_default();
        restored.previous = Some(manifest.clone());
        Ok(restored)
    }

    /// The topology of the last checkpoint.
    pub(crate) async fn recover(store: &dyn CheckpointStore, parallelism: usize) -> Self {
        match store.latest().await.expect("the last checkpoint can be read") {
            Some(manifest) => Self::restore(store, &manifest, parallelism).await.expect("restored"),
            None => Self::new(parallelism),
        }
    }
}
