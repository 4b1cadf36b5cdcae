//! What goes wrong with checkpoints, and what is said of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use galerna_engine::{CheckpointOptions, Engine, EngineError, EngineOptions, Running};
use galerna_state::{FolderCheckpoints, KeyedBolt, SimulatedFiles};
use galerna_topology::prelude::*;

use crate::source::Source;
use crate::words::{Count, Shape, counts_of, until, words};

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

/// One number for each of the other keys, and all others for the hot one, as fast as they are taken.
struct Lopsided {
    next: u64,
}

const HOT: u64 = 1_000_000;
const OTHERS: u64 = 10;

impl Spout for Lopsided {
    type MessageId = u64;
    type Outputs = Output<String>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let at = self.next;
        if at >= HOT + OTHERS {
            return Ok(Next::Done);
        }
        self.next += 1;
        let word = match (at % (HOT / OTHERS), at / (HOT / OTHERS)) {
            (0, other) if other < OTHERS => format!("other-{other}"),
            _ => "hot".to_owned(),
        };
        out.root(at).emit(word);
        Ok(Next::Ready)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_a_million_times_hotter_than_the_others_is_named_and_all_are_counted() {
    let files = SimulatedFiles::new();
    let mut topology = TopologyBuilder::new("words");
    let words = topology.spout("source", || Lopsided { next: 0 }).max_pending(10_000).outputs();
    topology.bolt("count", Count::default).keyed_by(words, String::clone).parallelism(4);
    let store = FolderCheckpoints::open_on(files.clone(), "checkpoints", "words").await.unwrap();
    let checkpoints = CheckpointOptions::new(store).every(Duration::from_millis(200));
    let options = EngineOptions { checkpoints: Some(checkpoints), ..EngineOptions::default() };
    let running = Engine::submit(topology.build().unwrap(), options).await.unwrap();
    running.finished().await;
    let report = running.drain(Duration::from_secs(60)).await;
    assert!(report.drained, "{report:#?}");
    let count = report.metrics.component("count").unwrap();
    let hot = count.hot_key.as_ref().expect("it is named");
    assert!(hot.key.contains("hot") && hot.share > 0.99, "{hot:?}");
    assert_eq!((report.metrics.component("source").unwrap().acked, count.errors), (HOT + OTHERS, 0));
    let store = FolderCheckpoints::open_on(files, "checkpoints", "words").await.unwrap();
    let manifest = galerna_state::CheckpointStore::latest(&store).await.unwrap();
    let mut counts = counts_of(&store, manifest.as_ref()).await;
    assert_eq!(counts.remove("hot"), Some(HOT));
    assert_eq!(counts.len() as u64, OTHERS);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}
