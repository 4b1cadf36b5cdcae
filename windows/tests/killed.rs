//! A process with windows and counts in state is killed at random moments: in the end all is as without that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use galerna_engine::{CheckpointOptions, Engine, EngineOptions, Running};
use galerna_state::prelude::*;
use galerna_state::{CheckpointStore, FolderCheckpoints, KeyGroups, StateOptions};
use galerna_topology::prelude::*;
use galerna_windows::{EventTime, Fold, Join, Joined, Window, WindowBounds, WindowResult, WindowTopology};

const FOLDER: &str = "GALERNA_WINDOWS_TEST_FOLDER";
const MESSAGES: &str = "GALERNA_WINDOWS_TEST_MESSAGES";
const LAST: &str = "GALERNA_WINDOWS_TEST_LAST";
const TEST: &str = "whatever_kills_the_process_each_message_counts_once";

/// Milliseconds of a window.
const SIZE: i64 = 50;
/// Milliseconds that two messages of a pair are apart at most.
const REACH: i64 = 12;

type Message = (String, i64, u64);

/// Message number `n`: out of order by less than ten milliseconds.
fn message(n: u64) -> Message {
    (format!("key-{}", n * n % 11), (n * 2 + n * 7919 % 9) as i64, n % 13 + 1)
}

/// Completes all windows before it.
fn end(messages: u64) -> Message {
    ("end".to_owned(), messages as i64 * 2 + 100_000, 0)
}

/// A source outside of the process: it remembers what was acked in a file.
struct Source {
    acks: PathBuf,
    acked: BTreeSet<u64>,
    next: u64,
    messages: u64,
    last: bool,
}

/// The numbers of the messages that were acked.
fn acked(file: &Path) -> Vec<u64> {
    let bytes = std::fs::read(file).unwrap_or_default();
    bytes.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

impl Spout for Source {
    type MessageId = u64;
    type Outputs = Output<Message>;

    async fn open(&mut self, _: &TaskContext) -> Result<(), Fault> {
        self.acked = acked(&self.acks).into_iter().collect();
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        while self.acked.contains(&self.next) {
            self.next += 1;
        }
        let n = self.next;
        let message = match n {
            n if n < self.messages => message(n),
            n if n == self.messages && self.last => end(n),
            _ => return Ok(Next::Idle),
        };
        self.next += 1;
        out.root_with_stable_id(n, n.to_string()).emit(message);
        // So that there is something left to kill.
        if n.is_multiple_of(50) { Ok(Next::After(Duration::from_millis(1))) } else { Ok(Next::Ready) }
    }

    async fn acked(&mut self, ids: &mut Vec<u64>) {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(&self.acks).expect("opened");
        file.write_all(&bytes).expect("written");
        self.acked.extend(ids.drain(..));
    }
}

/// Keeps the results of windows, and how often each came.
#[derive(Default)]
struct Results(Option<MapState<i64, Vec<u64>>>);

impl Bolt for Results {
    type Input = WindowResult<String, u64>;
    type Outputs = ();

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.0 = Some(context.state()?.map("results")?);
        Ok(())
    }

    fn execute(&mut self, result: Self::Input, _: &mut Emitter<()>) -> Result<(), Fault> {
        let results = self.0.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        let WindowBounds::Time { start, .. } = result.bounds else { return Err(Fault::permanent("no time")) };
        let mut values = results.get(&result.key, &start.millis())?.unwrap_or_default();
        values.push(result.value);
        Ok(results.insert(&result.key, &start.millis(), &values)?)
    }
}

/// Counts by key.
#[derive(Default)]
struct Count(Option<ValueState<u64>>);

impl Bolt for Count {
    type Input = Message;
    type Outputs = ();

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.0 = Some(context.state()?.value("count")?);
        Ok(())
    }

    fn execute(&mut self, message: Message, _: &mut Emitter<()>) -> Result<(), Fault> {
        let count = self.0.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        count.update(&message.0, |n| n.unwrap_or(0) + 1)?;
        Ok(())
    }
}

type Paired = Joined<String, Message, Message>;

/// Counts pairs by their times.
#[derive(Default)]
struct Pairs(Option<MapState<(i64, Option<i64>), u64>>);

impl Bolt for Pairs {
    type Input = Paired;
    type Outputs = ();

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.0 = Some(context.state()?.map("pairs")?);
        Ok(())
    }

    fn execute(&mut self, pair: Paired, _: &mut Emitter<()>) -> Result<(), Fault> {
        let pairs = self.0.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        let left = pair.left.ok_or_else(|| Fault::permanent("no left one"))?;
        let times = (left.1, pair.right.map(|right| right.1));
        let n = pairs.get(&pair.key, &times)?.unwrap_or(0);
        Ok(pairs.insert(&pair.key, &times, &(n + 1))?)
    }
}

async fn submit(folder: &Path, messages: u64, last: bool) -> Running {
    let mut topology = TopologyBuilder::new("killed");
    let acks = folder.join("acks");
    let source = move || Source { acks: acks.clone(), acked: BTreeSet::new(), next: 0, messages, last };
    let sent = topology.spout("source", source).outputs();
    let clocked = EventTime::of(|message: &Message| message.1).lag(Duration::from_millis(10));
    let clocked = topology.event_time("clock", clocked, sent).outputs();
    let window = Window::tumbling(Duration::from_millis(SIZE as u64))
        .event_time(|message: &Message| message.1)
        .by(|message: &Message| message.0.clone())
        .aggregate(Fold::new(
            0,
            |sum: &mut u64, message: Message| *sum += message.2,
            |sum: &mut u64, later: &u64| *sum += later,
        ));
    let windows = topology.window_in_state("window", window, clocked.clone()).parallelism(3).outputs();
    let key = |result: &WindowResult<String, u64>| result.key.clone();
    topology.bolt("results", Results::default).keyed_by(windows.results, key).parallelism(2);
    topology
        .bolt("count", Count::default)
        .keyed_by(clocked.clone(), |message: &Message| message.0.clone())
        .parallelism(2);
    // Each message with the ones of its key shortly before and after it.
    let even =
        topology.filter("even", |message: &Message| message.1 % 2 == 0).shuffle(clocked.clone()).outputs();
    let join = Join::left(|one: &Message| one.0.clone(), |other: &Message| other.0.clone())
        .event_time(|one: &Message| one.1, |other: &Message| other.1)
        .between(Duration::from_millis(REACH as u64), Duration::from_millis(REACH as u64));
    let pairs = topology.join_in_state("join", join, even, clocked).parallelism(2).outputs();
    topology
        .bolt("pairs", Pairs::default)
        .keyed_by(pairs.joined, |pair: &Paired| pair.key.clone())
        .parallelism(2);
    let store = FolderCheckpoints::open(folder.join("checkpoints"), "killed").await.expect("opened");
    // Acks are lost that are as old as that on a slow machine.
    let redelivery = Duration::from_secs(600);
    let checkpoints =
        CheckpointOptions { redelivery, ..CheckpointOptions::new(store).every(Duration::from_millis(15)) };
    let options = EngineOptions { checkpoints: Some(checkpoints), ..EngineOptions::default() };
    Engine::submit(topology.build().expect("built"), options).await.expect("submitted")
}

/// What the child does: it runs until it is killed or, the last one, until all is done.
async fn run(folder: &Path) {
    let messages = std::env::var(MESSAGES).expect("how many").parse().expect("a number");
    let last = std::env::var(LAST).is_ok();
    let running = submit(folder, messages, last).await;
    println!("\nruns");
    loop {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let metrics = running.metrics();
        let watermark = metrics.component("window").and_then(|window| window.watermark.clone()?.at_ms);
        let complete = watermark.is_some_and(|at| at > messages as i64 * 2 + 50_000);
        let acked: BTreeSet<u64> = acked(&folder.join("acks")).into_iter().collect();
        if last && complete && acked.len() as u64 > messages {
            assert!(running.drain(Duration::from_secs(30)).await.drained);
            // Nobody reads its output any more, which would be an error of the test's.
            std::process::exit(0);
        }
    }
}

/// Ends a process however the test does.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn spawn(folder: &Path, messages: u64, last: bool) -> Killed {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([TEST, "--exact", "--nocapture"]).env(FOLDER, folder).env(MESSAGES, messages.to_string());
    if last {
        command.env(LAST, "");
    }
    let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started"));
    let lines = BufReader::new(child.0.stdout.take().expect("its output")).lines();
    let runs = lines.map_while(Result::ok).any(|line| line == "runs");
    if !runs {
        let mut said = String::new();
        let mut stderr = child.0.stderr.take().expect("its errors");
        std::io::Read::read_to_string(&mut stderr, &mut said).expect("read");
        panic!("it did not run: {said}");
    }
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_kills_the_process_each_message_counts_once() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return run(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let acks = folder.path().join("acks");
    let mut random = fastrand::Rng::with_seed(7);
    let mut messages = 0;
    for _ in 0..30 {
        messages += random.u64(200..2_000);
        let before = acked(&acks).len();
        let child = spawn(folder.path(), messages, false);
        // Mostly after a commit, at any moment of the next ones.
        let begun = std::time::Instant::now();
        while acked(&acks).len() == before && random.u8(0..200) > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is acked");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(random.u64(0..60))).await;
        drop(child);
        // The last acks did not arrive.
        let kept = (acked(&acks).len()).saturating_sub(random.usize(0..300));
        if let Ok(file) = std::fs::OpenOptions::new().write(true).open(&acks) {
            file.set_len(kept as u64 * 8).expect("cut");
        }
    }
    let mut child = spawn(folder.path(), messages, true);
    let ended = child.0.wait().expect("it ends");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.0.stderr.take().expect("its errors"), &mut said).expect("read");
    assert!(ended.success(), "{ended}: {said}");

    let store = FolderCheckpoints::open(folder.path().join("checkpoints"), "killed").await.expect("opened");
    let manifest = store.latest().await.expect("read").expect("a checkpoint");
    let restored = |component: &'static str| {
        let options = StateOptions { budget_bytes: 64 << 20, spill: None, clock: Arc::new(|| 0) };
        TaskState::new(component, 0, KeyGroups::all(), options).expect("a state")
    };
    let (counts, results, pairs) = (restored("count"), restored("results"), restored("pairs"));
    pairs.restore(&store, &manifest).await.expect("restored");
    counts.restore(&store, &manifest).await.expect("restored");
    results.restore(&store, &manifest).await.expect("restored");
    let mut counted: BTreeMap<String, u64> =
        counts.value::<u64>("count").unwrap().collect().unwrap().into_iter().collect();
    assert_eq!(counted.remove("end"), Some(1));
    let fired: BTreeMap<(String, i64), Vec<u64>> = results
        .map::<i64, Vec<u64>>("results")
        .unwrap()
        .collect::<String>()
        .unwrap()
        .into_iter()
        .flat_map(|(key, windows)| {
            windows.into_iter().map(move |(start, values)| ((key.clone(), start), values))
        })
        .collect();
    let (mut expected_counts, mut sums) = (BTreeMap::new(), BTreeMap::new());
    for n in 0..messages {
        let (key, at, value) = message(n);
        *expected_counts.entry(key.clone()).or_insert(0) += 1;
        *sums.entry((key, at.div_euclid(SIZE) * SIZE)).or_insert(0) += value;
    }
    assert_eq!(counted, expected_counts);
    let expected: BTreeMap<_, _> = sums.into_iter().map(|(window, sum)| (window, vec![sum])).collect();
    let wrong: Vec<_> =
        expected.iter().filter(|(window, values)| fired.get(*window) != Some(*values)).take(10).collect();
    assert!(
        wrong.is_empty() && fired.len() == expected.len(),
        "{wrong:?}, {} of {}",
        fired.len(),
        expected.len()
    );
    let mut by_key: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for n in 0..messages {
        let (key, at, _) = message(n);
        by_key.entry(key).or_default().push(at);
    }
    let mut expected: BTreeMap<(String, i64, Option<i64>), u64> = BTreeMap::new();
    for (key, times) in &mut by_key {
        times.sort_unstable();
        for left in times.iter().filter(|at| *at % 2 == 0) {
            let (from, until) = (
                times.partition_point(|at| *at < left - REACH),
                times.partition_point(|at| *at <= left + REACH),
            );
            for right in &times[from..until] {
                *expected.entry((key.clone(), *left, Some(*right))).or_default() += 1;
            }
        }
    }
    let found = pairs.map::<(i64, Option<i64>), u64>("pairs").unwrap().collect::<String>().unwrap();
    let found: BTreeMap<_, _> = found
        .into_iter()
        .flat_map(|(key, pairs)| {
            pairs.into_iter().map(move |((left, right), n)| ((key.clone(), left, right), n))
        })
        .filter(|((key, ..), _)| key != "end")
        .collect();
    let wrong: Vec<_> = expected.iter().filter(|(pair, n)| found.get(*pair) != Some(*n)).take(10).collect();
    assert!(
        wrong.is_empty() && found.len() == expected.len(),
        "{wrong:?}, {} of {}",
        found.len(),
        expected.len()
    );
}
