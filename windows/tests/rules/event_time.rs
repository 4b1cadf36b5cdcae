//! Watermarks on their way through topologies.

use std::collections::BTreeMap;
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_engine::{Engine, EngineOptions, WatermarkMetrics};
use galerna_topology::prelude::*;
use galerna_windows::{Count, EventTime, Firing, Late, Window, WindowBounds, WindowResult, WindowTopology};
use proptest::prelude::*;

use crate::Reading;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn end<K, R>(result: &WindowResult<K, R>) -> i64 {
    match result.bounds {
        WindowBounds::Time { end, .. } => end.millis(),
        WindowBounds::Count { last, .. } => last as i64,
    }
}

#[tokio::test]
async fn the_least_of_two_sources_holds_and_the_metrics_say_who() {
    let harness = Harness::new();
    let (fast, slow) = (harness.feed::<Reading>(), harness.feed::<Reading>());
    let results = harness.seen();
    let mut topology = TopologyBuilder::new("two");
    topology.message_timeout(None);
    let clocked = || EventTime::of(|r: &Reading| r.1).lag(secs(1)).idle_after(secs(30));
    let fasts = topology.spout("fast", fast.spout()).outputs();
    let fasts = topology.event_time("fast-clock", clocked(), fasts).outputs();
    let slows = topology.spout("slow", slow.spout()).outputs();
    let slows = topology.event_time("slow-clock", clocked(), slows).outputs();
    let fasts = topology.map("pass", |r: Reading| r).shuffle(fasts).parallelism(2).outputs();
    let window = Window::tumbling(secs(10)).event_time(|r: &Reading| r.1).by(|r| r.0).aggregate(Count);
    let windowed =
        topology.window("window", window, fasts).key_by(slows, |r: &Reading| r.0).parallelism(2).outputs();
    topology.bolt("results", results.bolt()).global(windowed.results);
    let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
    let seen = || {
        let mut seen: Vec<(i64, &str, u64)> = results
            .values()
            .into_iter()
            .map(|r: WindowResult<&str, u64>| (end(&r), r.key, r.value))
            .collect();
        seen.sort_unstable();
        seen
    };
    let watermark = |component: &str| run.metrics().component(component).and_then(|c| c.watermark.clone());

    assert_eq!(watermark("window"), None, "nobody has said anything");
    fast.emit(0, ("a", 1_000, 0));
    fast.emit(1, ("b", 25_000, 0));
    run.settle().await;
    run.advance(secs(1)).await;
    assert_eq!(watermark("pass").and_then(|w| w.at_ms), Some(24_000));
    let expected = WatermarkMetrics {
        at_ms: None,
        behind_ms: 0,
        held_by: Some("slow-clock/0".to_owned()),
        idle: Vec::new(),
    };
    assert_eq!(watermark("window"), Some(expected), "the other source may be anywhere");
    assert_eq!(seen(), []);

    slow.emit(0, ("a", 12_000, 0));
    run.settle().await;
    run.advance(secs(1)).await;
    assert_eq!(seen(), [(10_000, "a", 1)]);
    let expected = WatermarkMetrics {
        at_ms: Some(11_000),
        behind_ms: 13_000,
        held_by: Some("slow-clock/0".to_owned()),
        idle: Vec::new(),
    };
    assert_eq!(watermark("window"), Some(expected));

    // The slow one is silent for too long: the other one goes on alone.
    run.advance(secs(20)).await;
    fast.emit(2, ("b", 26_000, 0));
    run.settle().await;
    run.advance(secs(10)).await;
    assert_eq!(seen(), [(10_000, "a", 1), (20_000, "a", 1)]);
    let state = watermark("window").expect("it has been told");
    assert_eq!((state.at_ms, state.idle), (Some(25_000), vec!["slow-clock/0".to_owned()]));

    // It comes back, and is waited for again.
    slow.emit(1, ("c", 27_000, 0));
    fast.emit(3, ("b", 60_000, 0));
    run.settle().await;
    run.advance(secs(1)).await;
    assert_eq!(seen(), [(10_000, "a", 1), (20_000, "a", 1)]);
    assert_eq!(watermark("window").and_then(|w| w.held_by), Some("slow-clock/0".to_owned()));

    // It ends, and the other one too.
    slow.done();
    run.settle().await;
    assert_eq!(watermark("window").and_then(|w| w.at_ms), Some(59_000));
    fast.done();
    run.settle().await;
    assert_eq!(seen().last(), Some(&(70_000, "b", 1)));
    assert_eq!((fast.acked().len(), slow.acked().len()), (4, 2));
}

/// Keeps tuples until it is drained.
#[derive(Clone, Default)]
struct Hoards(Vec<(Reading, u32)>);

impl AsyncBolt for Hoards {
    type Input = Reading;
    type Outputs = Output<Reading>;

    async fn execute(&mut self, reading: Reading, _: &mut Emitter<Output<Reading>>) -> Result<(), Fault> {
        self.0.push((reading, 0));
        Ok(())
    }

    async fn drain(&mut self, out: &mut Emitter<Output<Reading>>) {
        for (reading, _) in self.0.drain(..) {
            out.emit_unanchored(reading);
        }
    }
}

#[tokio::test]
async fn a_bolt_finishes_with_what_it_keeps_before_a_watermark_passes() {
    let harness = Harness::new();
    let (feed, results, late) =
        (harness.feed::<Reading>(), harness.seen(), harness.seen::<Late<&str, Reading>>());
    let mut topology = TopologyBuilder::new("hoarding");
    topology.message_timeout(None);
    let readings = topology.spout("feed", feed.spout()).outputs();
    let readings = topology.event_time("clock", EventTime::of(|r: &Reading| r.1), readings).outputs();
    let readings = topology.async_bolt("hoard", Hoards::default()).shuffle(readings).outputs();
    let window = Window::tumbling(secs(10)).event_time(|r: &Reading| r.1).by(|r| r.0).aggregate(Count);
    let windowed = topology.window("window", window, readings).outputs();
    topology.bolt("results", results.bolt()).global(windowed.results);
    topology.bolt("late", late.bolt()).global(windowed.late);
    let run = harness.start(topology.build().expect("it is fine")).await.expect("it starts");
    for (id, time) in [1_000, 2_000, 12_000].into_iter().enumerate() {
        feed.emit(id as u64, ("a", time, 0));
    }
    run.settle().await;
    run.advance(secs(1)).await;
    let values: Vec<u64> = results.values().into_iter().map(|r: WindowResult<&str, u64>| r.value).collect();
    assert_eq!((values, late.count()), (vec![2], 0));
}

#[tokio::test]
async fn a_topology_without_event_time_is_told_nothing() {
    let harness = Harness::new();
    let (feed, seen) = (harness.feed::<i64>(), harness.seen::<i64>());
    let mut topology = TopologyBuilder::new("plain");
    let numbers = topology.spout("feed", feed.spout()).outputs();
    let numbers = topology.map("map", |n: i64| n).shuffle(numbers).parallelism(2).outputs();
    topology.bolt("seen", seen.bolt()).shuffle(numbers);
    let topology = topology.build().expect("it is fine");
    assert!(topology.observes_watermarks().into_iter().all(|hears| !hears));
    let run = harness.start(topology).await.expect("it starts");
    feed.emit(1, 1);
    feed.done();
    run.running().finished().await;
    assert!(run.metrics().components.iter().all(|component| component.watermark.is_none()));
}

/// Readings out of order by less than a lag, with some later than that.
fn readings() -> impl Strategy<Value = Vec<(u8, i64)>> {
    prop::collection::vec((0u8..5, 0i64..3_000), 1..400).prop_map(|steps| {
        let times = steps.iter().enumerate();
        times.map(|(number, (key, off))| (*key, number as i64 * 100 - off)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever the parallelism, the batches and the fusing: what comes within the lag is counted exactly once, in its window.
    #[test]
    fn in_any_topology_what_is_in_time_is_counted_exactly_once(
        readings in readings(), tasks in 1usize..4, windows in 1usize..4, batch in 1usize..40, fuse: bool, waits: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let counted = runtime.block_on(run(readings.clone(), tasks, windows, batch, fuse, waits));
        let mut expected: BTreeMap<(u8, i64), u64> = BTreeMap::new();
        for (key, time) in readings {
            *expected.entry((key, time.div_euclid(1_000) * 1_000 + 1_000)).or_default() += 1;
        }
        prop_assert_eq!(counted, expected);
    }
}

async fn run(
    readings: Vec<(u8, i64)>,
    tasks: usize,
    windows: usize,
    batch: usize,
    fuse: bool,
    waits: bool,
) -> BTreeMap<(u8, i64), u64> {
    let harness = Harness::new();
    let (feed, results, late) =
        (harness.feed::<(u8, i64)>(), harness.seen(), harness.seen::<Late<u8, (u8, i64)>>());
    let mut topology = TopologyBuilder::new("any");
    topology.message_timeout(None);
    let stream = topology.spout("feed", feed.spout()).batch(batch).outputs();
    let clocked = EventTime::of(|r: &(u8, i64)| r.1).lag(secs(3)).interval(Duration::from_millis(1));
    let stream = topology.event_time("clock", clocked, stream).batch(batch).outputs();
    let stream =
        topology.map("map", |r: (u8, i64)| r).shuffle(stream).parallelism(tasks).batch(batch).outputs();
    let stream = match waits {
        true => topology.async_bolt("waits", Yields).shuffle(stream).parallelism(tasks).outputs(),
        false => {
            topology.filter("all", |_: &(u8, i64)| true).local_or_shuffle(stream).parallelism(tasks).outputs()
        }
    };
    let window = Window::tumbling(secs(1)).event_time(|r: &(u8, i64)| r.1).by(|r| r.0).aggregate(Count);
    let windowed = topology.window("window", window, stream).parallelism(windows).outputs();
    topology.bolt("results", results.bolt()).global(windowed.results);
    topology.bolt("late", late.bolt()).global(windowed.late);
    let options = EngineOptions { fuse, ..EngineOptions::default() };
    let running = Engine::submit(topology.build().expect("it is fine"), options).await.expect("it starts");
    let all = readings.len();
    readings.into_iter().enumerate().for_each(|(id, reading)| feed.emit(id as u64, reading));
    feed.done();
    tokio::time::timeout(secs(60), running.finished()).await.expect("all is done at the end of the stream");
    assert_eq!((feed.acked().len(), late.count()), (all, 0));
    let mut counted = BTreeMap::new();
    for result in results.values() {
        let result: WindowResult<u8, u64> = result;
        assert_eq!(result.firing, Firing::OnTime);
        assert_eq!(counted.insert((result.key, end(&result)), result.value), None, "one result a window");
    }
    running.drain(secs(5)).await;
    counted
}

/// Gives others a turn at each tuple.
#[derive(Clone)]
struct Yields;

impl AsyncBolt for Yields {
    type Input = (u8, i64);
    type Outputs = Output<(u8, i64)>;

    async fn execute(&mut self, reading: (u8, i64), out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        tokio::task::yield_now().await;
        out.emit(reading);
        Ok(())
    }
}
