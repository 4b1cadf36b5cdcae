//! Children killed at random, and nothing lost.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use galerna_engine::{Engine, EngineOptions, Metrics};
use galerna_lock::Mutex;
use galerna_multilang::{SerializedStream, ShellTopology};
use galerna_topology::prelude::*;

use crate::support::python;

const KILLS: usize = 100;
const SEED: u64 = 20_261_130;

/// What was emitted and what became of it.
#[derive(Default)]
struct Books {
    emitted: AtomicU64,
    acked: Mutex<BTreeMap<u64, u64>>,
    failed: AtomicU64,
    enough: AtomicBool,
}

/// Emits numbers, at most some at a time, and each that fails again.
struct Numbers {
    books: Arc<Books>,
    next: u64,
    again: VecDeque<u64>,
}

impl Spout for Numbers {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let number = match self.again.pop_front() {
            Some(number) => number,
            None if self.books.enough.load(Ordering::SeqCst) => {
                return Ok(Next::After(Duration::from_millis(5)));
            }
            None => {
                self.next += 1;
                self.next
            }
        };
        self.books.emitted.fetch_add(1, Ordering::SeqCst);
        out.root(number).emit(number);
        Ok(Next::Ready)
    }

    async fn acked(&mut self, ids: &mut Vec<u64>) {
        let mut acked = self.books.acked.lock();
        ids.drain(..).for_each(|id| *acked.entry(id).or_default() += 1);
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        self.books.failed.fetch_add(failed.len() as u64, Ordering::SeqCst);
        self.again.extend(failed.drain(..).map(|failed| failed.id));
    }
}

/// The process ids of the children that live.
fn children(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("the folder is there");
    let mut pids: Vec<String> =
        files.map(|file| file.expect("it is read").file_name().to_string_lossy().into_owned()).collect();
    pids.sort();
    pids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_children_killed_at_random_lose_nothing() {
    let pids = tempfile_folder();
    let books = Arc::new(Books::default());
    let seen = Arc::new(Mutex::new(BTreeMap::<u64, u64>::new()));
    let mut topology = TopologyBuilder::new("kills");
    topology.message_timeout(Duration::from_secs(600));
    let (of_spout, of_sink) = (books.clone(), seen.clone());
    let numbers = topology
        .spout("numbers", move || Numbers { books: of_spout.clone(), next: 0, again: VecDeque::new() })
        .max_pending(500)
        .outputs();
    let mortal = python("mortal.py", &[]).pid_dir(pids.path()).longest_pause(Duration::from_millis(5));
    let passed = topology
        .shell_bolt::<Output<u64>>("mortal", mortal)
        .shuffle(numbers.serialized())
        .parallelism(4)
        .tick_every(Duration::from_millis(20))
        .outputs();
    topology
        .for_each("seen", move |number: u64| *of_sink.lock().entry(number).or_default() += 1)
        .shuffle(passed);
    let running = Engine::submit(topology.build().expect("it is sound"), EngineOptions::default());
    let running = running.await.expect("it starts");

    let mut random = fastrand::Rng::with_seed(SEED);
    let mut killed = 0;
    while killed < KILLS {
        // Between two kills some tuples get through, however fast the machine is.
        let before = books.acked.lock().len();
        let more = random.usize(1..200);
        while books.acked.lock().len() < before + more {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let alive = children(pids.path());
        if alive.is_empty() {
            continue;
        }
        let victim = &alive[random.usize(..alive.len())];
        let status = Command::new("kill").args(["-KILL", victim]).status().expect("kill runs");
        killed += usize::from(status.success());
        // It is not chosen again while its death goes unnoticed.
        let _ = std::fs::remove_file(pids.path().join(victim));
    }
    books.enough.store(true, Ordering::SeqCst);
    let settled = || {
        let ended = books.acked.lock().values().sum::<u64>() + books.failed.load(Ordering::SeqCst);
        ended == books.emitted.load(Ordering::SeqCst)
    };
    let restarts =
        |metrics: &Metrics| metrics.component("mortal").expect("it is there").counters["child_restarts"];
    // For a while, since what failed last is emitted again.
    let mut quiet = 0;
    while quiet < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let noticed = restarts(&running.metrics()) >= KILLS as u64;
        quiet = if settled() && noticed { quiet + 1 } else { 0 };
    }
    let report = running.drain(Duration::from_secs(60)).await;

    let acked = books.acked.lock().clone();
    let (emitted, failed) = (books.emitted.load(Ordering::SeqCst), books.failed.load(Ordering::SeqCst));
    let numbers = acked.len() as u64;
    assert_eq!(*acked.last_key_value().expect("some were acked").0, numbers, "every number was acked");
    assert!(acked.values().all(|times| *times == 1), "each number was acked once");
    assert_eq!(emitted, numbers + failed, "each emit ended once");
    assert!(failed > 0, "no kill hit a tuple");
    let seen = seen.lock();
    assert_eq!(seen.len() as u64, numbers, "every number went downstream");
    let again: u64 = seen.values().map(|times| times - 1).sum();
    assert!(again <= failed, "{again} came twice, {failed} failed");
    let spout = report.metrics.component("numbers").expect("it is there");
    assert_eq!((spout.acked, spout.failures()), (numbers, failed));
    assert_eq!(restarts(&report.metrics), KILLS as u64);
}

fn tempfile_folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder can be made")
}
