//! Executors of windows, counts and joins are changed while all of them are busy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use galerna_engine::{CheckpointOptions, Engine, EngineOptions, Running};
use galerna_state::prelude::*;
use galerna_state::{CheckpointStore, FolderCheckpoints, KeyGroups, SimulatedFiles, StateOptions};
use galerna_topology::prelude::*;
use galerna_windows::{
    EventTime, Fold, Join, Joined, Late, Side, Window, WindowBounds, WindowResult, WindowTopology,
};

const KEYS: u64 = 64;
const TASKS: usize = 8;
/// Milliseconds of a window; a millisecond passes with each number.
const SIZE: u64 = 1_000;

/// Numbers in order, as fast as they are taken, until it is told to end.
struct Numbers {
    next: u64,
    until: Arc<AtomicU64>,
}

impl Spout for Numbers {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if self.next >= self.until.load(Ordering::Relaxed) {
            return Ok(Next::Done);
        }
        out.root_with_stable_id(self.next, self.next.to_string()).emit(self.next);
        self.next += 1;
        Ok(Next::Ready)
    }
}

/// Counts by key, and fails a number that is not the one behind the last of its key.
#[derive(Default)]
struct Count(Option<ValueState<u64>>);

impl Bolt for Count {
    type Input = u64;
    type Outputs = ();

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.0 = Some(context.state()?.value("count")?);
        Ok(())
    }

    fn execute(&mut self, n: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        let counts = self.0.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        let before = counts.get(&(n % KEYS))?.unwrap_or(0);
        if n != before * KEYS + n % KEYS {
            return Err(Fault::permanent(format!("{n} came out of order, after {before} others")));
        }
        Ok(counts.set(&(n % KEYS), &(before + 1))?)
    }
}

/// Nothing is to be late.
fn fault(late: impl std::fmt::Debug) -> Result<(), Fault> {
    Err(Fault::permanent(format!("{late:?}")))
}

/// Waits until so many more were executed by a component.
async fn executed(running: &Running, component: &str, more: u64) {
    let executed = || running.metrics().component(component).expect("it is there").executed;
    let (from, begun) = (executed(), std::time::Instant::now());
    while executed() < from + more {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:#?}", running.metrics());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// From one to four to two executors of each of these components, under load.
async fn rebalance(running: &Running, components: &[&str], more: u64) {
    let handle = running.handle();
    executed(running, components[0], more).await;
    for (from, to) in [(1, 4), (4, 2), (2, TASKS), (TASKS, 1)] {
        for component in components {
            let done = handle.rebalance(component, to).await.expect("it can be");
            assert_eq!((done.from, done.to, &*done.component), (from, to, *component));
            println!("`{component}`, {from} to {to} executors: pause {:?}", done.pause);
        }
        executed(running, components[0], more).await;
    }
}

/// All roots ended well, and none is left.
async fn finish(running: Running, until: &AtomicU64) -> u64 {
    until.store(0, Ordering::Relaxed);
    running.finished().await;
    let report = running.drain(Duration::from_secs(60)).await;
    assert!(report.drained, "{report:#?}");
    let numbers = report.metrics.component("numbers").expect("it is there");
    assert_eq!((numbers.acked, numbers.failures()), (numbers.emitted, 0));
    numbers.emitted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn windows_and_counts_in_state_are_exact_while_executors_go_from_one_to_four_to_two() {
    let until = Arc::new(AtomicU64::new(u64::MAX));
    let sums = Arc::<Mutex<BTreeMap<(u64, i64), Vec<u64>>>>::default();
    let mut topology = TopologyBuilder::new("counts");
    let numbers = {
        let until = until.clone();
        topology
            .spout("numbers", move || Numbers { next: 0, until: until.clone() })
            .max_pending(20_000)
            .outputs()
    };
    let numbers = topology.event_time("clock", EventTime::of(|n: &u64| *n as i64), numbers).outputs();
    topology.bolt("count", Count::default).keyed_by(&numbers, |n: &u64| n % KEYS).parallelism(1).tasks(TASKS);
    let window = Window::tumbling(Duration::from_millis(SIZE))
        .event_time(|n: &u64| *n as i64)
        .by(|n: &u64| n % KEYS)
        .aggregate(Fold::new(
            0,
            |sum: &mut u64, n: u64| *sum += n,
            |sum: &mut u64, later: &u64| *sum += later,
        ));
    let windows = topology.window_in_state("window", window, numbers).parallelism(1).tasks(TASKS).outputs();
    let seen = sums.clone();
    topology
        .for_each("results", move |result: WindowResult<u64, u64>| {
            let WindowBounds::Time { start, .. } = result.bounds else { return };
            seen.lock().unwrap().entry((result.key, start.millis())).or_default().push(result.value);
        })
        .global(windows.results);
    topology.for_each("late", |late: Late<u64, u64>| fault(late)).global(windows.late);
    let files = SimulatedFiles::new();
    let store = FolderCheckpoints::open_on(files.clone(), "checkpoints", "counts").await.expect("opened");
    let checkpoints = CheckpointOptions::new(store).every(Duration::from_millis(25));
    let options = EngineOptions { checkpoints: Some(checkpoints), ..EngineOptions::default() };
    let running = Engine::submit(topology.build().expect("built"), options).await.expect("submitted");
    rebalance(&running, &["count", "window"], 5_000).await;
    let emitted = finish(running, &until).await;

    let mut expected: BTreeMap<(u64, i64), Vec<u64>> = BTreeMap::new();
    for n in 0..emitted {
        expected.entry((n % KEYS, (n / SIZE * SIZE) as i64)).or_insert_with(|| vec![0])[0] += n;
    }
    let sums = sums.lock().unwrap().clone();
    let wrong: Vec<_> = expected.iter().filter(|(window, sum)| sums.get(*window) != Some(*sum)).collect();
    assert!(
        wrong.is_empty() && sums.len() == expected.len(),
        "{} of {}: {wrong:?}",
        sums.len(),
        expected.len()
    );

    let store = FolderCheckpoints::open_on(files, "checkpoints", "counts").await.expect("opened");
    let options = StateOptions { budget_bytes: 64 << 20, spill: None, clock: Arc::new(|| 0) };
    let state = TaskState::new("count", 0, KeyGroups::all(), options).expect("a state");
    let manifest = store.latest().await.expect("read").expect("a checkpoint");
    state.restore(&store, &manifest).await.expect("restored");
    let counts: BTreeMap<u64, u64> =
        state.value("count").expect("a handle").collect().expect("read").into_iter().collect();
    let expected = (0..KEYS).map(|key| (key, emitted / KEYS + u64::from(key < emitted % KEYS)));
    assert_eq!(counts, expected.collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_join_finds_each_pair_once_while_executors_go_from_one_to_four_to_two() {
    let until = Arc::new(AtomicU64::new(u64::MAX));
    let mut topology = TopologyBuilder::new("pairs");
    topology.message_timeout(None);
    let numbers = {
        let until = until.clone();
        topology
            .spout("numbers", move || Numbers { next: 0, until: until.clone() })
            .max_pending(20_000)
            .outputs()
    };
    let numbers = topology.event_time("clock", EventTime::of(|n: &u64| *n as i64), numbers).outputs();
    let even = topology.filter("even", |n: &u64| n.is_multiple_of(2)).shuffle(&numbers).outputs();
    let odd = topology.filter("odd", |n: &u64| !n.is_multiple_of(2)).shuffle(&numbers).outputs();
    let join = Join::full(|n: &u64| n / 2, |n: &u64| n / 2)
        .event_time(|n: &u64| *n as i64, |n: &u64| *n as i64)
        .between(Duration::ZERO, Duration::from_millis(10));
    let joined = topology.join("join", join, even, odd).parallelism(1).tasks(TASKS).outputs();
    let pairs = Arc::<Mutex<BTreeMap<u64, u64>>>::default();
    let seen = pairs.clone();
    topology
        .for_each("pairs", move |pair: Joined<u64, u64, u64>| {
            // The last one may be alone.
            if let (Some(_), Some(_)) = (pair.left, pair.right) {
                *seen.lock().unwrap().entry(pair.key).or_default() += 1;
            }
        })
        .global(joined.joined);
    topology.for_each("late", |late: Late<u64, Side<u64, u64>>| fault(late)).global(joined.late);
    let running =
        Engine::submit(topology.build().expect("built"), EngineOptions::default()).await.expect("submitted");
    rebalance(&running, &["join"], 5_000).await;
    let emitted = finish(running, &until).await;
    assert_eq!(*pairs.lock().unwrap(), (0..emitted / 2).map(|key| (key, 1)).collect());
}
