//! What a restart finds: the last whole checkpoint, of those that are kept; states of other versions and of other components.

use std::num::NonZeroUsize;
use std::time::Duration;

use galerna_engine::{CheckpointOptions, Engine, EngineError, EngineOptions, Running};
use galerna_state::StateOptions;
use galerna_state::prelude::*;
use galerna_topology::Data;
use galerna_topology::prelude::*;

use crate::place::{Place, on_both};
use crate::source::Source;
use crate::words::{Shape, counts, counts_of, start, until, words};

on_both! {
    as_many_checkpoints_are_kept_as_asked_for_and_each_is_whole
    a_checkpoint_that_was_not_committed_is_not_restored
    state_of_an_older_version_is_migrated_and_goes_on
    state_that_the_program_does_not_know_is_refused_with_what_to_do
}

const NEVER: Duration = Duration::from_secs(100_000);

fn held(running: &Running) -> u64 {
    running.metrics().checkpoints.unwrap().held_acks
}

async fn as_many_checkpoints_are_kept_as_asked_for_and_each_is_whole(place: &Place) {
    let source = Source::default();
    let options = CheckpointOptions {
        keep: NonZeroUsize::new(2).unwrap(),
        ..CheckpointOptions::shared(place.open().await).every(NEVER)
    };
    let options = EngineOptions { checkpoints: Some(options), ..EngineOptions::default() };
    let running = Engine::submit(words(&source, Shape::default()), options).await.unwrap();
    let mut at = Vec::new();
    for round in 0..5_u64 {
        (0..20).for_each(|n| source.send(format!("word-{}", n % (round + 2))));
        until("all is counted", || held(&running) == 20).await;
        let id = running.checkpoint().await.unwrap().id;
        at.push((id, source.counts()));
        until("all is acked", || source.is_empty()).await;
    }
    drop(running);
    let store = place.open().await;
    let kept = store.list().await.unwrap();
    assert_eq!(kept.iter().map(|entry| entry.id).collect::<Vec<_>>(), [at[3].0, at[4].0]);
    for (entry, (_, then)) in kept.iter().zip(&at[3..]) {
        let manifest = entry.manifest.as_ref().unwrap();
        assert_eq!(&counts_of(&*store, Some(manifest)).await, then);
    }
}

async fn a_checkpoint_that_was_not_committed_is_not_restored(place: &Place) {
    let source = Source::default();
    let running = start(place, &source, Shape::default(), NEVER).await;
    (0..30).for_each(|n| source.send(format!("word-{}", n % 7)));
    until("all is counted", || held(&running) == 30).await;
    let committed = running.checkpoint().await.unwrap().id;
    until("all is acked", || source.is_empty()).await;
    let then = source.counts();
    drop(running);
    // Parts of a checkpoint, and nobody who commits it.
    let store = place.open().await;
    let options = StateOptions { budget_bytes: 1 << 20, spill: None, clock: std::sync::Arc::new(|| 0) };
    let state = TaskState::new("count", 0, galerna_state::KeyGroups::all(), options).unwrap();
    state.value::<u64>("count").unwrap().set("word-1", &1_000).unwrap();
    let id = store.begin().await.unwrap();
    store.put(id, state.snapshot(id, None).unwrap()).await.unwrap();
    drop(store);
    let running = start(place, &source, Shape { tasks: 3, ..Shape::default() }, NEVER).await;
    assert_eq!(running.last_checkpoint(), Some(committed));
    source.send("word-1");
    until("it is counted", || held(&running) == 1).await;
    assert!(running.checkpoint().await.unwrap().id > committed);
    until("all is acked", || source.is_empty()).await;
    drop(running);
    let now = counts(place).await;
    assert_eq!(now["word-1"], then["word-1"] + 1);
    assert_eq!(now, source.counts());
}

/// Sets a state of this name and version to 1, and says what it was.
struct Keeps<V>(StateSpec, Option<ValueState<V>>);

impl<V> Keeps<V> {
    fn new(spec: &StateSpec) -> Self {
        Self(spec.clone(), None)
    }
}

impl<V: Data + Sync + serde::Serialize + serde::de::DeserializeOwned + From<u32>> Bolt for Keeps<V> {
    type Input = String;
    type Outputs = ();

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.1 = Some(context.state()?.value(&self.0)?);
        Ok(())
    }

    fn execute(&mut self, word: String, _: &mut Emitter<()>) -> Result<(), Fault> {
        let state = self.1.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        Ok(state.set(&word, &V::from(1))?)
    }
}

/// A topology whose component `id` keeps that.
fn keeping<V>(source: &Source, id: &'static str, spec: &StateSpec) -> Topology
where
    V: Data + Sync + serde::Serialize + serde::de::DeserializeOwned + From<u32>,
{
    let mut topology = TopologyBuilder::new("words");
    let sent = topology.spout("source", source.spout(true)).outputs();
    let spec = spec.clone();
    topology.bolt(id, move || Keeps::<V>::new(&spec)).keyed_by(sent, String::clone);
    topology.build().unwrap()
}

async fn submit(place: &Place, topology: Topology, drop_orphaned: bool) -> Result<Running, EngineError> {
    let checkpoints =
        CheckpointOptions { drop_orphaned, ..CheckpointOptions::shared(place.open().await).every(NEVER) };
    let options = EngineOptions { checkpoints: Some(checkpoints), ..EngineOptions::default() };
    Engine::submit(topology, options).await
}

/// Runs it until a word is in a checkpoint.
async fn run(place: &Place, source: &Source, topology: Topology, word: &str) {
    let running = submit(place, topology, false).await.unwrap();
    source.send(word);
    until("it is in state", || held(&running) == 1).await;
    running.checkpoint().await.unwrap();
    until("all is acked", || source.is_empty()).await;
    running.stop().await;
}

async fn state_of_an_older_version_is_migrated_and_goes_on(place: &Place) {
    let source = Source::default();
    run(place, &source, keeping::<u32>(&source, "keeps", &StateSpec::new("state")), "first").await;
    let text = |n: u32| Ok(format!("was {n}"));
    let second = StateSpec::new("state").version(2).migrate(1, text);
    #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    struct Text(String);
    impl From<u32> for Text {
        fn from(n: u32) -> Self {
            Self(format!("is {n}"))
        }
    }
    run(place, &source, keeping::<Text>(&source, "keeps", &second), "second").await;
    let store = place.open().await;
    let manifest = store.latest().await.unwrap().unwrap();
    assert_eq!(manifest.components["keeps"].states["state"].version, 2);
    let options = StateOptions { budget_bytes: 1 << 20, spill: None, clock: std::sync::Arc::new(|| 0) };
    let state = TaskState::new("keeps", 0, galerna_state::KeyGroups::all(), options).unwrap();
    state.restore(&*store, &manifest).await.unwrap();
    let values = state.value::<Text>(&second).unwrap();
    assert_eq!(values.get("first").unwrap(), Some(Text("was 1".into())));
    assert_eq!(values.get("second").unwrap(), Some(Text("is 1".into())));
    drop((values, state, store));
    // Who has no way from it is told which version it is, and that nothing leads on.
    let third = keeping::<Text>(&source, "keeps", &StateSpec::new("state").version(3));
    let error = submit(place, third, false).await.unwrap_err().to_string();
    assert!(error.contains("could not start task 0 of `keeps`") && error.contains("migrate"), "{error}");
}

async fn state_that_the_program_does_not_know_is_refused_with_what_to_do(place: &Place) {
    let source = Source::default();
    let of = |version| StateSpec::new("count").version(version);
    run(place, &source, keeping::<u32>(&source, "count", &of(2)), "word").await;
    let refused = async |topology| submit(place, topology, false).await.unwrap_err().to_string();
    let newer = refused(keeping::<u32>(&source, "count", &of(1))).await;
    assert!(newer.contains("could not start task 0 of `count`") && newer.contains("version 2"), "{newer}");

    let orphaned = refused(keeping::<u32>(&source, "total", &of(1))).await;
    assert!(orphaned.contains("has state of `count`, which the topology does not have"), "{orphaned}");
    submit(place, keeping::<u32>(&source, "total", &of(1)), true).await.unwrap().stop().await;
    // Its last checkpoint had no state of it.
    submit(place, keeping::<u32>(&source, "count", &of(1)), true).await.unwrap();
}
