//! The counts are exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_topology::prelude::*;

use crate::bolts::{Held, Holding, take};

#[tokio::test]
async fn every_tuple_is_counted_where_it_was() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("counts");
    let stream = topology.spout("feed", feed.spout()).outputs();
    let split = topology.flat_map("split", |n: u64| 0..n).shuffle(stream).outputs();
    topology
        .for_each("check", |n: u64| if n == 3 { Err(Fault::transient("three")) } else { Ok(()) })
        .shuffle(&split);
    topology.for_each("copies", |_: u64| ()).all(&split).parallelism(2);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (1..=5).for_each(|n| feed.emit(n, n));
    run.settle().await;
    let metrics = run.metrics();
    let of = |id: &str| metrics.component(id).unwrap();
    let counts =
        |id: &str| (of(id).executed, of(id).emitted, of(id).transferred, of(id).acked, of(id).failures());
    assert_eq!(counts("feed"), (0, 5, 5, 3, 2));
    assert_eq!(counts("split"), (5, 15, 45, 5, 0));
    assert_eq!(counts("check"), (15, 0, 0, 13, 2));
    assert_eq!(counts("copies"), (30, 0, 0, 30, 0));
    assert_eq!(of("copies").by_task, [15, 15]);
    assert_eq!(of("check").failed["error"], 2);
    assert_eq!(of("check").last_error.as_ref().unwrap().reason, "three");
    assert_eq!((of("feed").complete.count, of("check").execute.count, of("feed").pending), (3, 15, 0));
    let json = serde_json::to_value(&metrics).unwrap();
    assert_eq!(json["components"][2]["failed"]["error"], 2);
    assert_eq!(json["components"][0]["states"][0], "no_data");
}

#[tokio::test]
async fn latencies_are_of_the_topologys_clock() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let held = Held::default();
    let hands = held.clone();
    let mut topology = TopologyBuilder::new("latency");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    feed.emit(1, 1);
    run.settle().await;
    run.advance(Duration::from_millis(1_500)).await;
    take(&held, 1).ack();
    run.settle().await;
    let metrics = run.metrics();
    let complete = metrics.component("feed").unwrap().complete;
    assert_eq!((complete.count, complete.max_ms), (1, 1_500.0));
    let hold = metrics.component("hold").unwrap();
    assert_eq!((hold.process.max_ms, hold.acked, hold.execute.max_ms), (1_500.0, 1, 0.0));
}

/// Acks, keeps and fails, by the number modulo 4; what is kept is acked when the bolt drains or ticks.
#[derive(Default)]
struct Mixed(Vec<Anchor>);

impl Mixed {
    fn take(&mut self, n: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
        match n % 4 {
            0 => Err(Fault::transient("a multiple of four")),
            1 => {
                self.0.push(out.keep());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Bolt for Mixed {
    type Input = u64;
    type Outputs = ();
    fn execute(&mut self, n: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
        self.take(n, out)
    }
    fn tick(&mut self, _: &mut Emitter<()>) -> Result<(), Fault> {
        self.0.drain(..).for_each(Anchor::ack);
        Ok(())
    }
}

impl AsyncBolt for Mixed {
    type Input = u64;
    type Outputs = ();
    async fn execute(&mut self, n: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
        self.take(n, out)
    }
    async fn tick(&mut self, _: &mut Emitter<()>) -> Result<(), Fault> {
        self.0.drain(..).for_each(Anchor::ack);
        Ok(())
    }
}

/// Acks batches as a whole.
struct Sink;

impl BatchBolt for Sink {
    type Input = u64;
    type Outputs = ();
    fn execute(&mut self, batch: Batch<u64>, _: &mut Emitter<()>) {
        batch.ack();
    }
}

#[tokio::test]
async fn the_process_latency_counts_each_acked_tuple_once() {
    let second = Duration::from_secs(1);
    for (what, acked, slowest) in [("bolt", 15, 1_000.0), ("async bolt", 15, 1_000.0), ("sink", 20, 0.0)] {
        let harness = Harness::new();
        let feed = harness.feed::<u64>();
        let mut topology = TopologyBuilder::new("process");
        let stream = topology.spout("feed", feed.spout()).outputs();
        match what {
            "bolt" => {
                topology.bolt("it", Mixed::default).shuffle(stream).tick_every(second);
            }
            "async bolt" => {
                topology.async_bolt("it", Mixed::default).shuffle(stream).tick_every(second);
            }
            _ => {
                topology.batch_bolt("it", || Sink).shuffle(stream);
            }
        }
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        (1..=20).for_each(|n| feed.emit(n, n));
        run.settle().await;
        run.advance(second).await;
        let metrics = run.metrics();
        let it = metrics.component("it").unwrap();
        assert_eq!((it.executed, it.acked, it.process.count), (20, acked, acked), "{what}");
        assert_eq!(it.process.max_ms, slowest, "{what}");
        assert_eq!(it.failures(), 20 - acked, "{what}");
    }
}

/// Takes half a second for each tuple, keeps the even ones, and acks what it kept two seconds later.
#[derive(Default)]
struct Writer {
    begun: Arc<AtomicU64>,
    kept: Option<(Anchor, Duration)>,
}

impl AsyncBolt for Writer {
    type Input = u64;
    type Outputs = ();

    async fn execute(&mut self, n: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
        let clock = out.context().clock().clone();
        let executed = clock.sleep_until(clock.now() + Duration::from_millis(500));
        self.begun.fetch_add(1, Ordering::SeqCst);
        executed.await;
        if n.is_multiple_of(2) {
            self.kept = Some((out.keep(), clock.now() + Duration::from_secs(2)));
        }
        Ok(())
    }

    async fn progress(&mut self, out: &mut Emitter<()>) -> Result<(), Fault> {
        let Some((_, until)) = &self.kept else { return std::future::pending().await };
        out.context().clock().sleep_until(*until).await;
        if let Some((anchor, _)) = self.kept.take() {
            anchor.ack();
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_bolt_that_waits_is_busy_while_it_has_a_tuple_unsettled() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let begun = Arc::<AtomicU64>::default();
    let mut topology = TopologyBuilder::new("busy");
    let stream = topology.spout("feed", feed.spout()).outputs();
    let count = begun.clone();
    let writer = move || Writer { begun: count.clone(), kept: None };
    topology.async_bolt("write", writer).shuffle(stream).parallelism(2);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    let busy = |millis: f64| {
        let metrics = run.metrics();
        let write = metrics.component("write").unwrap();
        let share = if millis > 0.0 { millis / (2 * metrics.uptime_ms) as f64 } else { 0.0 };
        assert_eq!((write.executors, write.busy_ms, write.busy), (2, millis, share));
    };
    let half = Duration::from_millis(500);
    run.advance(half).await;
    busy(0.0);

    feed.emit(1, 1);
    run.until("the first is executed", || begun.load(Ordering::SeqCst) == 1).await;
    run.clock().advance(half / 2);
    busy(250.0);
    run.advance(half / 2).await;
    busy(500.0);
    run.advance(half).await;
    busy(500.0);

    feed.emit(2, 2);
    run.until("the second is executed", || begun.load(Ordering::SeqCst) == 2).await;
    run.advance(half).await;
    for millis in [1_000.0, 1_500.0, 2_000.0, 2_500.0] {
        busy(millis);
        run.advance(half).await;
    }
    run.until("the second is acked", || feed.acked() == [1, 2]).await;
    run.advance(half).await;
    busy(3_000.0);

    let metrics = run.metrics();
    let write = metrics.component("write").unwrap();
    assert_eq!((write.acked, write.execute.max_ms, write.process.max_ms), (2, 500.0, 2_000.0));
}
