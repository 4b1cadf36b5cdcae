//! The counts are exact.

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
        .for_each("check", |n: u64| if n == 3 { Err(Fault::new("three")) } else { Ok(()) })
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
            0 => Err(Fault::new("a multiple of four")),
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

impl Bolt for Sink {
    type Input = u64;
    type Outputs = ();
    fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }
    fn execute_batch(&mut self, batch: Batch<u64>, _: &mut Emitter<()>) {
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
                topology.bolt("it", || Sink).shuffle(stream);
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
