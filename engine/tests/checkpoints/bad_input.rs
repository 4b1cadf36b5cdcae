//! What goes wrong with checkpoints, and what is said of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use galerna_engine::{CheckpointOptions, Engine, EngineError, EngineOptions, Running};
use galerna_state::prelude::*;
use galerna_state::{FolderCheckpoints, SimulatedFiles};
use galerna_topology::prelude::*;

use crate::source::Source;
use crate::words::{Shape, until, words};

const NEVER: Duration = Duration::from_secs(100_000);

/// Runs a topology on these files.
async fn submit(
    files: &SimulatedFiles,
    topology: Topology,
    drop_orphaned: bool,
) -> Result<Running, EngineError> {
    let name = topology.name().clone();
    let store = FolderCheckpoints::open_on(files.clone(), "checkpoints", &*name).await.expect("opened");
    let checkpoints = CheckpointOptions { drop_orphaned, ..CheckpointOptions::new(store).every(NEVER) };
    let options = EngineOptions { checkpoints: Some(checkpoints), ..EngineOptions::default() };
    Engine::submit(topology, options).await
}

/// Files with a checkpoint of counts of words.
async fn with_checkpoint() -> SimulatedFiles {
    let (files, source) = (SimulatedFiles::new(), Source::default());
    let running = submit(&files, words(&source, Shape::default()), false).await.unwrap();
    (0..100).for_each(|n| source.send(format!("word-{n}")));
    until("all is counted", || running.metrics().checkpoints.unwrap().held_acks == 100).await;
    assert!(running.drain(Duration::from_secs(30)).await.drained);
    files
}

async fn error(files: &SimulatedFiles, topology: Topology) -> String {
    submit(files, topology, false).await.expect_err("refused").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_acks_wait_and_the_topology_runs_on() {
    let (files, source) = (SimulatedFiles::new(), Source::default());
    let running = submit(&files, words(&source, Shape::default()), false).await.unwrap();
    let metrics = || running.metrics().checkpoints.unwrap();
    for round in 1..=3 {
        (0..10).for_each(|n| source.send(format!("word-{n}")));
        until("all is counted", || metrics().held_acks == 10 * round).await;
        files.limit(Some(files.bytes() + 10));
        let failure = running.checkpoint().await.unwrap_err().to_string();
        assert!(
            failure.contains("the disk is full while writing") && failure.contains("free some space"),
            "{failure}"
        );
        let metrics = metrics();
        assert_eq!((metrics.failed, metrics.committed, metrics.held_acks), (round, 0, 10 * round));
        assert_eq!(metrics.last_error, Some(failure));
    }
    assert_eq!(source.numbers().1, 0);
    files.limit(None);
    let report = running.checkpoint().await.unwrap();
    assert_eq!(report.in_doubt, 30);
    until("all is acked", || source.is_empty()).await;
    let metrics = metrics();
    assert_eq!((metrics.failed, metrics.committed, metrics.last_error), (3, 1, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_cut_in_half_is_refused_with_what_to_do() {
    let source = Source::default();
    for (ending, says) in [
        (".manifest", "its checksum is wrong: bytes of it were changed or cut off"),
        (".blocks", "state `count` of component `count`"),
    ] {
        let files = with_checkpoint().await;
        let folder = Path::new("checkpoints");
        let names = galerna_state::FileSystem::list(&files, folder).unwrap();
        let name = names.iter().find(|name| name.ends_with(ending)).expect("a file");
        files.damage(&folder.join(name), |bytes| bytes.truncate(bytes.len() / 2)).unwrap();
        let error = error(&files, words(&source, Shape::default())).await;
        assert!(error.contains("the state of topology `words` could not be made ready"), "{error}");
        assert!(error.contains(says) && error.contains(name.as_str()), "{error}");
        assert!(error.contains("back from a copy"), "{error}");
    }
}

/// A bolt with a state of this name and version.
fn other(id: &'static str, state: &'static str, version: u32) -> Topology {
    struct Other(StateSpec);
    impl Bolt for Other {
        type Input = String;
        type Outputs = ();

        fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
            context.state()?.value::<u64>(&self.0)?;
            Ok(())
        }

        fn execute(&mut self, _: String, _: &mut Emitter<()>) -> Result<(), Fault> {
            Ok(())
        }
    }
    let mut topology = TopologyBuilder::new("words");
    let sent = topology.spout("source", Source::default().spout(true)).outputs();
    let spec = StateSpec::new(state).version(version);
    topology.bolt(id, move || Other(spec.clone())).keyed_by(sent, String::clone);
    topology.build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_that_the_program_does_not_know_is_refused_with_what_to_do() {
    // Written by version 2 of the state.
    let files = SimulatedFiles::new();
    let (source, spec) = (Source::default(), StateSpec::new("count").version(2));
    let running = submit(&files, newer(&source, spec), false).await.unwrap();
    source.send("word");
    until("it is counted", || running.metrics().checkpoints.unwrap().held_acks == 1).await;
    running.drain(Duration::from_secs(30)).await;
    let newer = error(&files, other("count", "count", 1)).await;
    assert!(newer.contains("could not start task 0 of `count`") && newer.contains("version 2"), "{newer}");

    let orphaned = error(&files, other("total", "count", 1)).await;
    assert!(orphaned.contains("has state of `count`, which the topology does not have"), "{orphaned}");
    submit(&files, other("total", "count", 1), true).await.unwrap().stop().await;
    // Its last checkpoint had no state of it.
    submit(&files, other("count", "count", 1), true).await.unwrap();
}

fn newer(source: &Source, spec: StateSpec) -> Topology {
    struct Newer(StateSpec, Option<ValueState<u64>>);
    impl Bolt for Newer {
        type Input = String;
        type Outputs = ();

        fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
            self.1 = Some(context.state()?.value(&self.0)?);
            Ok(())
        }

        fn execute(&mut self, word: String, _: &mut Emitter<()>) -> Result<(), Fault> {
            self.1.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?.set(&word, &1)?;
            Ok(())
        }
    }
    let mut topology = TopologyBuilder::new("words");
    let sent = topology.spout("source", source.spout(true)).outputs();
    topology.bolt("count", move || Newer(spec.clone(), None)).keyed_by(sent, String::clone);
    topology.build().unwrap()
}

/// Says no to a checkpoint, or panics at it, while it is told to.
struct Unwilling(Arc<std::sync::atomic::AtomicU8>);

impl Bolt for Unwilling {
    type Input = String;
    type Outputs = ();

    fn execute(&mut self, _: String, _: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }

    fn checkpoint(&mut self, _: &mut Emitter<()>) -> Result<(), Fault> {
        match self.0.load(std::sync::atomic::Ordering::SeqCst) {
            1 => Err(Fault::transient("not now")),
            2 => panic!("on purpose"),
            _ => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bolt_that_cannot_take_part_costs_the_checkpoint_and_nothing_else() {
    let (files, source) = (SimulatedFiles::new(), Source::default());
    let mood = Arc::<std::sync::atomic::AtomicU8>::default();
    let mut topology = TopologyBuilder::new("words");
    let sent = topology.spout("source", source.spout(true)).outputs();
    let unwilling = Arc::clone(&mood);
    topology.bolt("unwilling", move || Unwilling(unwilling.clone())).keyed_by(sent, String::clone);
    let running = submit(&files, topology.build().unwrap(), false).await.unwrap();
    source.send("word");
    for (told, says) in [(1, "not now"), (2, "on purpose")] {
        mood.store(told, std::sync::atomic::Ordering::SeqCst);
        let failure = running.checkpoint().await.unwrap_err().to_string();
        assert!(
            failure.contains("task 0 of `unwilling` has no snapshot") && failure.contains(says),
            "{failure}"
        );
    }
    mood.store(0, std::sync::atomic::Ordering::SeqCst);
    running.checkpoint().await.unwrap();
    until("all is acked", || source.is_empty()).await;
    assert_eq!(running.metrics().component("unwilling").unwrap().errors, 2);
}
