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
