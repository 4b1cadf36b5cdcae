//! State in a running topology, wired by hand: each task of the bolt has the key groups whose tuples come to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_state::{
    CheckpointStore, FolderCheckpoints, KeyGroup, KeyGroups, Manifest, StateOptions, TaskState, ValueState,
};
use galerna_topology::prelude::*;

/// Counts words, in state. Panics once, at `panics`, after it has counted others.
struct Count {
    tasks: Arc<Vec<TaskState>>,
    count: Option<ValueState<u64>>,
    panics: Arc<AtomicBool>,
}

impl Bolt for Count {
    type Input = String;
    type Outputs = Output<(String, u64)>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.count = Some(self.tasks[context.task()].value("count")?);
        Ok(())
    }

    fn execute(&mut self, word: String, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let count = self.count.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        if word == "panics" && !self.panics.swap(true, Ordering::SeqCst) {
            panic!("on purpose");
        }
        let n = count.update(&word, |n| n.unwrap_or(0) + 1)?;
        out.emit((word, n));
        Ok(())
    }
}

fn states(tasks: usize) -> Arc<Vec<TaskState>> {
    let shares = KeyGroups::shares(tasks).expect("shares");
    let state = |(task, groups)| {
        let options = StateOptions { budget_bytes: 1 << 20, spill: None, clock: Arc::new(|| 0) };
        TaskState::new("count", task as u32, groups, options).expect("a state")
    };
    Arc::new(shares.into_iter().enumerate().map(state).collect())
}

/// Counts these words, on the state of these tasks; how many roots were acked and failed.
async fn run(words: &[String], tasks: &Arc<Vec<TaskState>>) -> (usize, usize) {
    let harness = Harness::new();
    let feed = harness.feed::<String>();
    let seen = harness.seen::<(String, u64)>();
    let mut topology = TopologyBuilder::new("words");
    let stream = topology.spout("feed", feed.spout()).outputs();
    let by_group = |word: &String, tasks: usize, chosen: &mut Vec<usize>| {
        chosen.extend(KeyGroup::of(word).map(|group| group.task(tasks)));
    };
    let (states, panics) = (Arc::clone(tasks), Arc::new(AtomicBool::new(false)));
    let counts = topology
        .bolt("count", move || Count { tasks: states.clone(), count: None, panics: panics.clone() })
        .custom(stream, by_group)
        .parallelism(tasks.len())
        .outputs();
    topology.bolt("seen", seen.bolt()).shuffle(counts);
    let run = harness.start(topology.build().expect("built")).await.expect("started");
    for (id, word) in words.iter().enumerate() {
        feed.emit(id as u64, word.clone());
    }
    run.settle().await;
    let (acked, failed) = (feed.acked().len(), feed.failed().len());
    run.drain(Duration::from_secs(10)).await;
    (acked, failed)
}

fn counts(tasks: &[TaskState]) -> BTreeMap<String, u64> {
    let all = tasks
        .iter()
        .map(|task| task.value::<u64>("count").expect("a handle").collect::<String>().expect("read"));
    all.flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_survive_a_panic_a_restart_and_another_number_of_tasks() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FolderCheckpoints::open(folder.path(), "words").await.expect("opened");
    let mut words: Vec<String> = (0..2000).map(|n| format!("word-{}", n * n % 61)).collect();
    words.insert(1000, "panics".to_owned());
    let mut expected = BTreeMap::new();
    let mut previous: Option<Manifest> = None;

    for tasks in [1, 4, 2] {
        let states = states(tasks);
        if let Some(manifest) = &previous {
            for state in states.iter() {
                state.restore(&store, manifest).await.expect("restored");
            }
        }
        // The tuple at which the bolt panics fails, and no other: its successor goes on with the same state.
        assert_eq!(run(&words, &states).await, (2000, 1), "{tasks} tasks");
        words
            .iter()
            .filter(|word| *word != "panics")
            .for_each(|word| *expected.entry(word.clone()).or_insert(0) += 1);
        assert_eq!(counts(&states), expected, "{tasks} tasks");

        let id = store.begin().await.expect("begun");
        let base = previous.as_ref().map(|manifest| manifest.id);
        let mut parts = Vec::new();
        for state in states.iter() {
            parts.push(store.put(id, state.snapshot(id, base).expect("a snapshot")).await.expect("put"));
        }
        let manifest =
            Manifest::assemble(id, "words", 0, previous.as_ref(), &parts, BTreeMap::new()).expect("whole");
        store.commit(&manifest).await.expect("committed");
        previous = store.latest().await.expect("read");
    }
}
