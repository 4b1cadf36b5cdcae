//! What spouts do wrong, and that others take their place.

use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_multilang::ShellTopology;
use galerna_topology::prelude::*;

use crate::support::python;

/// Of nine numbers in three lives, each comes once, and why the first two ended is told.
async fn is_replaced(fault: &str, reason: &str) {
    let place = tempfile::tempdir().expect("a folder can be made");
    let place = place.path().join("place");
    let harness = Harness::new();
    let seen = harness.seen::<u64>();
    let mut topology = TopologyBuilder::new("counting");
    let spout =
        python("counting.py", &[fault, &place.display().to_string()]).timeout(Duration::from_secs(10));
    let numbers = topology.shell_spout::<Output<u64>>("numbers", spout).outputs();
    topology.bolt("seen", seen.bolt()).shuffle(numbers);
    let run = harness.start(topology.build().expect("it is sound")).await.expect("it starts");
    let mut steps = 0;
    while seen.count() < 9 {
        // Its pauses and timeouts are of the test's clock.
        run.clock().advance(Duration::from_millis(20));
        tokio::time::sleep(Duration::from_millis(3)).await;
        steps += 1;
        assert!(steps < 20_000, "`{fault}`: {:#?}", run.metrics());
    }
    assert_eq!(seen.values(), (1..=9).collect::<Vec<_>>(), "`{fault}`");
    let metrics = run.metrics();
    let numbers = metrics.component("numbers").expect("it is there");
    assert_eq!(numbers.counters["child_restarts"], 2, "`{fault}`");
    let told = numbers.last_error.as_ref().map(|error| error.reason.clone()).unwrap_or_default();
    assert!(told.contains(reason) && told.contains("counting.py"), "`{fault}`: {told}");
    run.drain(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_spout_that_dies_is_replaced() {
    is_replaced("exit", "exit status: 3").await;
}

#[tokio::test]
async fn a_spout_that_hangs_is_replaced() {
    is_replaced("hang", "has said nothing for 10 s").await;
}

#[tokio::test]
async fn a_spout_that_breaks_the_protocol_is_replaced() {
    is_replaced("print", "`one more`").await;
    is_replaced("ack", "which only bolts can").await;
}
