//! A topology that counts words in state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use galerna_engine::{CheckpointOptions, Engine, EngineOptions, Running};
use galerna_state::prelude::*;
use galerna_state::{CheckpointStore, KeyGroups, Manifest, StateOptions};
use galerna_topology::prelude::*;

use crate::place::{PATIENCE, Place};
use crate::source::Source;

/// Resolves when the condition holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Counts words.
#[derive(Default)]
pub(crate) struct Count {
    count: Option<ValueState<u64>>,
}

impl Bolt for Count {
    type Input = String;
    type Outputs = Output<(String, u64)>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.count = Some(context.state()?.value("count")?);
        Ok(())
    }

    fn execute(&mut self, word: String, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let count = self.count.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        if word.starts_with("panics") && count.get(&word)?.is_none() {
            count.set(&word, &0)?;
            panic!("on purpose");
        }
        let n = count.update(&word, |n| n.unwrap_or(0) + 1)?;
        out.emit((word, n));
        Ok(())
    }
}

/// How a topology of words is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) spouts: usize,
    pub(crate) tasks: usize,
    pub(crate) executors: usize,
    pub(crate) waits: bool,
    pub(crate) fails: bool,
    pub(crate) stable: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { spouts: 1, tasks: 2, executors: 2, waits: false, fails: false, stable: true }
    }
}

/// Source, a bolt that may fail, one that may wait, the count by two ways, and an end.
pub(crate) fn words(source: &Source, shape: Shape) -> Topology {
    let mut topology = TopologyBuilder::new("words");
    let sent = topology.spout("source", source.spout(shape.stable)).parallelism(shape.spouts).outputs();
    let seen = Arc::new(AtomicU64::new(0));
    let checked = topology.bolt("check", move || Check { seen: seen.clone(), fails: shape.fails });
    let checked = checked.shuffle(sent).parallelism(2).outputs();
    let passed = if shape.waits {
        let call = |word: String| async move {
            tokio::task::yield_now().await;
            Ok::<_, Fault>(word)
        };
        topology.map_async("call", 8, call).shuffle(checked).parallelism(2).outputs()
    } else {
        checked
    };
    let counts = topology
        .bolt("count", Count::default)
        .keyed_by(passed, String::clone)
        .parallelism(shape.executors)
        .tasks(shape.tasks)
        .outputs();
    topology.for_each("end", |_: (String, u64)| ()).shuffle(counts);
    topology.build().expect("built")
}

/// Fails every seventh tuple, if it is to.
struct Check {
    seen: Arc<AtomicU64>,
    fails: bool,
}

impl Bolt for Check {
    type Input = String;
    type Outputs = Output<String>;

    fn execute(&mut self, word: String, out: &mut Emitter<Output<String>>) -> Result<(), Fault> {
        if self.fails && self.seen.fetch_add(1, Ordering::Relaxed) % 7 == 6 {
            return Err(Fault::transient("every seventh"));
        }
        out.emit(word);
        Ok(())
    }
}

/// A topology of words, with its checkpoints in this place.
pub(crate) async fn start(place: &Place, source: &Source, shape: Shape, interval: Duration) -> Running {
    // Acks are lost that are as old as that on a slow machine.
    let redelivery = Duration::from_secs(600);
    let checkpoints =
        CheckpointOptions { redelivery, ..CheckpointOptions::shared(place.open().await).every(interval) };
    let options = EngineOptions { checkpoints: Some(checkpoints), ..EngineOptions::default() };
    Engine::submit(words(source, shape), options).await.expect("submitted")
}

/// What the last checkpoint says of the counts.
pub(crate) async fn counts(place: &Place) -> BTreeMap<String, u64> {
    let store = place.open().await;
    counts_of(&*store, store.latest().await.expect("read").as_ref()).await
}

/// What a checkpoint says of the counts.
pub(crate) async fn counts_of(
    store: &dyn CheckpointStore,
    manifest: Option<&Manifest>,
) -> BTreeMap<String, u64> {
    let options = StateOptions { budget_bytes: 64 << 20, spill: None, clock: Arc::new(|| 0) };
    let state = TaskState::new("count", 0, KeyGroups::all(), options).expect("a state");
    if let Some(manifest) = manifest {
        state.restore(store, manifest).await.expect("restored");
    }
    let counts = state.value::<u64>("count").expect("a handle").collect().expect("read");
    counts.into_iter().collect()
}
