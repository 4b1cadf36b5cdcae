//! Components in JavaScript, in both kinds of frames, and the log and metrics of components.

use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_multilang::{SerializedStream, ShellCommand, ShellTopology};
use galerna_topology::FaultKind;
use galerna_topology::prelude::*;
use serde::{Deserialize, Serialize};

use crate::support::folder;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Named {
    name: String,
    number: f64,
}

fn node(arguments: &[&str]) -> ShellCommand {
    ShellCommand::from(["node", "double.js"].iter().chain(arguments)).folder(folder())
}

async fn doubles(command: ShellCommand) {
    let harness = Harness::new();
    let (fed, seen) = (harness.feed::<Named>(), harness.seen::<Named>());
    let mut topology = TopologyBuilder::new("doubles");
    let numbers = topology.spout("numbers", fed.spout()).outputs();
    let doubled = topology.shell_bolt::<Output<Named>>("double", command).shuffle(numbers.serialized());
    let doubled = doubled.outputs();
    topology.bolt("seen", seen.bolt()).shuffle(doubled);
    let run = harness.start(topology.build().expect("it is sound")).await.expect("it starts");
    for id in 0..1000u32 {
        fed.emit(id.into(), Named { name: "né\n\"x\"".to_owned(), number: f64::from(id) + 0.5 });
    }
    run.until("all are done", || fed.acked().len() == 1000).await;
    let values = seen.values();
    assert_eq!(values[7], Named { name: "né\n\"x\"né\n\"x\"".to_owned(), number: 15.0 });
    let sum: f64 = values.iter().map(|value| value.number).sum();
    assert_eq!(sum, 1_000_000.0);
    let gauges = run.metrics().component("double").expect("it is there").gauges.clone();
    assert_eq!(gauges["last_doubled"][&0], 999.5);
    // What has no form outside fails, and nothing else does.
    fed.emit(1000, Named { name: String::new(), number: f64::NAN });
    run.until("it has failed", || !fed.failed().is_empty()).await;
    let failure = fed.failed()[0].failure.clone();
    assert_eq!(failure.fault.kind(), FaultKind::Permanent);
    assert!(failure.reason().contains("NaN is no number in JSON"), "{failure}");
    // It answers heartbeats for as long as it lives.
    for _ in 0..60 {
        run.advance(SECOND).await;
    }
    assert_eq!(run.metrics().component("double").expect("it is there").counters["child_restarts"], 0);
    run.drain(SECOND).await;
}

#[tokio::test]
async fn a_bolt_in_javascript_doubles_numbers() {
    doubles(node(&[])).await;
}

#[tokio::test]
async fn a_bolt_in_javascript_asks_for_frames_in_messagepack() {
    doubles(node(&["msgpack"])).await;
}
