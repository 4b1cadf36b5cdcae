//! Windows in state against a model, over crashes: each window fires once, with each of its tuples once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use galerna_engine::{CheckpointOptions, Engine, EngineOptions, Running};
use galerna_state::prelude::*;
use galerna_state::{
    CheckpointError, CheckpointStore, FolderCheckpoints, KeyGroups, SimulatedFiles, StateOptions,
};
use galerna_topology::prelude::*;
use galerna_windows::{EventTime, Fold, Window, WindowBounds, WindowResult, WindowTopology};
use tokio::sync::Notify;

/// How long a test waits for something, in real time.
const PATIENCE: Duration = Duration::from_secs(60);

type Message = (String, i64, u64);

/// A log that is read from where it was acked to: in order, also again.
#[derive(Clone, Default)]
struct Log {
    state: Arc<Mutex<State>>,
    more: Arc<Notify>,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    next: usize,
    acked: BTreeSet<usize>,
    connection: u64,
}

impl Log {
    fn send(&self, message: Message) {
        self.state.lock().unwrap().messages.push(message);
        self.more.notify_one();
    }

    fn is_acked(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.acked.len() == state.messages.len()
    }

    /// What was not acked comes again, in order.
    fn disconnect(&self) {
        let mut state = self.state.lock().unwrap();
        state.connection += 1;
        state.next = 0;
    }

    fn reader(&self) -> impl Fn() -> Reader + Send + Sync + 'static {
        let (log, connection) = (self.clone(), self.state.lock().unwrap().connection);
        move || Reader { log: log.clone(), connection }
    }
}

struct Reader {
    log: Log,
    connection: u64,
}

impl Spout for Reader {
    type MessageId = usize;
    type Outputs = Output<Message>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let mut state = self.log.state.lock().unwrap();
        if state.connection != self.connection {
            return Ok(Next::Idle);
        }
        while state.acked.contains(&state.next) {
            state.next += 1;
        }
        let at = state.next;
        let Some(message) = state.messages.get(at).cloned() else { return Ok(Next::Idle) };
        state.next += 1;
        drop(state);
        out.root_with_stable_id(at, at.to_string()).emit(message);
        Ok(Next::Ready)
    }

    async fn ready(&mut self) {
        self.log.more.notified().await;
    }

    async fn acked(&mut self, ids: &mut Vec<usize>) {
        let mut state = self.log.state.lock().unwrap();
        if state.connection == self.connection {
            state.acked.extend(ids.drain(..));
        }
    }
}

/// Keeps how often each window fired, and with what.
#[derive(Default)]
struct Ledger {
    fired: Option<MapState<(i64, i64), Vec<u64>>>,
}

impl Bolt for Ledger {
    type Input = WindowResult<String, u64>;
    type Outputs = ();

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.fired = Some(context.state()?.map("fired")?);
        Ok(())
    }

    fn execute(&mut self, result: Self::Input, _: &mut Emitter<()>) -> Result<(), Fault> {
        let fired = self.fired.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        let WindowBounds::Time { start, end } = result.bounds else {
            return Err(Fault::permanent("no times"));
        };
        let window = (start.millis(), end.millis());
        let mut values = fired.get(&result.key, &window)?.unwrap_or_default();
        values.push(result.value);
        Ok(fired.insert(&result.key, &window, &values)?)
    }
}

fn window(sliding: bool) -> Window<Message> {
    match sliding {
        true => Window::sliding(Duration::from_millis(30), Duration::from_millis(10)),
        false => Window::tumbling(Duration::from_millis(20)),
    }
}

async fn open(files: &SimulatedFiles) -> FolderCheckpoints {
    let start = Instant::now();
    loop {
        match FolderCheckpoints::open_on(files.clone(), "checkpoints", "windows").await {
            Err(CheckpointError::InUse { .. }) if start.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            opened => return opened.expect("opened"),
        }
    }
}

async fn start(
    files: &SimulatedFiles,
    log: &Log,
    sliding: bool,
    tasks: usize,
    interval: Duration,
) -> Running {
    let mut topology = TopologyBuilder::new("windows");
    let messages = topology.spout("log", log.reader()).outputs();
    let clocked = EventTime::of(|message: &Message| message.1).lag(Duration::from_millis(5));
    let clocked = topology.event_time("clock", clocked, messages).outputs();
    let sum = Fold::new(
        0,
        |sum: &mut u64, message: Message| *sum += message.2,
        |sum: &mut u64, later: &u64| *sum += later,
    );
    let window = window(sliding)
        .event_time(|message: &Message| message.1)
        .by(|message: &Message| message.0.clone())
        .aggregate(sum);
    let windows = topology.window_in_state("window", window, clocked).parallelism(tasks).outputs();
    topology
        .bolt("ledger", Ledger::default)
        .keyed_by(windows.results, |result: &WindowResult<String, u64>| result.key.clone())
        .parallelism(2);
    let options = EngineOptions {
        checkpoints: Some(CheckpointOptions::new(open(files).await).every(interval)),
        ..EngineOptions::default()
    };
    Engine::submit(topology.build().expect("built"), options).await.expect("submitted")
}

async fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (files, log, sliding) = (SimulatedFiles::new(), Log::default(), random.bool());
    let (size, slide) = if sliding { (30, 10) } else { (20, 20) };
    let mut expected: BTreeMap<(String, i64), u64> = BTreeMap::new();
    let mut recent: VecDeque<Message> = VecDeque::new();
    let mut at = 1_000;
    let crashes = random.usize(2..6);
    for crash in 0..crashes {
        let interval = Duration::from_millis(random.u64(1..15));
        let running = start(&files, &log, sliding, random.usize(1..5), interval).await;
        for _ in 0..random.usize(1..6) {
            for _ in 0..random.usize(1..150) {
                at += random.i64(0..3);
                // Out of order, by less than the lag.
                let message = (format!("key-{}", random.u8(0..6)), at - random.i64(0..5), random.u64(1..100));
                let mut start = (message.1 - size).div_euclid(slide) * slide + slide;
                while start <= message.1 {
                    *expected.entry((message.0.clone(), start)).or_default() += message.2;
                    start += slide;
                }
                recent.push_back(message);
            }
            recent.drain(..).for_each(|message| log.send(message));
            tokio::time::sleep(Duration::from_millis(random.u64(0..10))).await;
        }
        if crash + 1 < crashes {
            drop(running);
            log.disconnect();
            continue;
        }
        // Completes all windows before it.
        log.send(("end".to_owned(), at + 10_000, 0));
        let begun = Instant::now();
        let complete = || {
            let metrics = running.metrics();
            let watermark = metrics.component("window").and_then(|window| window.watermark.clone());
            watermark.and_then(|watermark| watermark.at_ms).is_some_and(|reached| reached > at + 5_000)
        };
        while !log.is_acked() || !complete() {
            assert!(begun.elapsed() < PATIENCE, "seed {seed}: {:#?}", running.metrics());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(
            running.metrics().component("window").expect("it is there").counters.get("late"),
            Some(&0)
        );
        assert!(running.drain(Duration::from_secs(30)).await.drained);
    }
    let store = open(&files).await;
    let options = StateOptions { budget_bytes: 64 << 20, spill: None, clock: Arc::new(|| 0) };
    let state = TaskState::new("ledger", 0, KeyGroups::all(), options).expect("a state");
    state.restore(&store, &store.latest().await.expect("read").expect("one")).await.expect("restored");
    let fired =
        state.map::<(i64, i64), Vec<u64>>("fired").expect("a handle").collect::<String>().expect("read");
    let fired: BTreeMap<(String, i64), Vec<u64>> = fired
        .into_iter()
        .flat_map(|(key, windows)| {
            windows.into_iter().map(move |((start, _), values)| ((key.clone(), start), values))
        })
        .collect();
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(window, sum)| (window, vec![sum])).collect();
    let wrong: Vec<_> =
        expected.iter().filter(|(window, values)| fired.get(*window) != Some(*values)).collect();
    let got: Vec<_> = wrong.iter().map(|(window, _)| fired.get(*window)).collect();
    assert!(wrong.is_empty(), "seed {seed}: {wrong:?} is {got:?}");
    let other: Vec<_> =
        fired.keys().filter(|window| !expected.contains_key(*window) && window.0 != "end").collect();
    assert!(other.is_empty(), "seed {seed}: {other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_window_fires_once_with_each_tuple_once_whatever_crashes() {
    for seed in 0..30 {
        run(seed).await;
    }
}
