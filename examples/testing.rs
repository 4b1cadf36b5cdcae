//! How a topology is tested: feed tuples, move the clock, look at what was seen, acked and failed.
//!
//! Written as a program so that it runs here; in a crate of one's own, the body of `main` is a `#[tokio::test]`.
//!
//! `cargo run --example testing`

use std::time::Duration;

use galerna::engine::testing::Harness;
use galerna::prelude::*;

/// What is tested: says how many tuples came in each minute.
#[derive(Default)]
struct PerMinute(u64);

impl Bolt for PerMinute {
    type Input = &'static str;
    type Outputs = Output<u64>;

    fn execute(&mut self, input: &'static str, _: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        if input.is_empty() {
            return Err(Fault::permanent("it is empty"));
        }
        self.0 += 1;
        Ok(())
    }

    fn tick(&mut self, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        out.emit(std::mem::take(&mut self.0));
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let minute = Duration::from_secs(60);
    let harness = Harness::new();
    // A spout in the hands of the test, and a bolt that remembers what it sees.
    let (feed, seen) = (harness.feed::<&str>(), harness.seen::<u64>());

    let mut topology = TopologyBuilder::new("testing");
    let words = topology.spout("feed", feed.spout()).outputs();
    let counts = topology.bolt("count", PerMinute::default).shuffle(words).tick_every(minute).outputs();
    topology.bolt("seen", seen.bolt()).shuffle(counts);
    let run = harness.start(topology.build()?).await?;

    feed.emit(1, "the");
    feed.emit(2, "cow");
    feed.emit(3, "");
    // Until nothing is under way any more; no test sleeps.
    run.settle().await;
    assert_eq!(feed.acked(), [1, 2]);
    assert_eq!(feed.failed()[0].id, 3);
    assert_eq!(feed.failed()[0].failure.fault, Fault::permanent("it is empty"));
    assert!(seen.values().is_empty(), "the minute is not over");

    // Time passes only here, so a minute takes no time at all.
    run.advance(minute).await;
    feed.emit(4, "jumped");
    run.settle().await;
    run.advance(minute).await;
    assert_eq!(seen.values(), [2, 1]);

    println!("counted {:?} in two minutes that took none", seen.values());
    run.drain(minute).await;
    Ok(())
}
