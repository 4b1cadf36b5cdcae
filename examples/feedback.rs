//! A cycle: what a bolt emits on one of its outputs comes back to it.
//!
//! Each number is halved if it is even and tripled plus one if it is odd, until it is 1. A root is done when its number
//! has arrived there, however often it went round.
//!
//! `cargo run --example feedback`

use std::time::Duration;

use galerna::prelude::*;

/// A number on its way, where it began, and how many steps it has taken.
type Walk = (u64, u64, u32);

outputs! {
    struct Walked {
        /// Not at 1 yet.
        again: Walk,
        /// Where it began, and the steps it took.
        arrived: (u64, u32),
    }
}

struct Step;

impl Bolt for Step {
    type Input = Walk;
    type Outputs = Walked;

    fn execute(&mut self, (start, at, steps): Walk, out: &mut Emitter<Walked>) -> Result<(), Fault> {
        match at {
            1 => out.arrived.emit((start, steps)),
            even if even % 2 == 0 => out.again.emit((start, even / 2, steps + 1)),
            odd => out.again.emit((start, 3 * odd + 1, steps + 1)),
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut topology = TopologyBuilder::new("feedback");
    let starts = topology.spout("starts", || IteratorSpout::new((1..=27).map(|n| (n, n, 0)))).outputs();
    // The bolt is not declared yet, so the stream is named; `feedback` marks the edge that closes the cycle.
    let again = Stream::<Walk>::named("step", "again").feedback();
    let walked = topology.bolt("step", || Step).shuffle(starts).shuffle(again).parallelism(2).outputs();
    topology
        .for_each("print", |(start, steps): (u64, u32)| println!("{start} takes {steps} steps"))
        .global(walked.arrived);

    let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
    running.finished().await;
    let report = running.drain(Duration::from_secs(5)).await;
    let acked = report.metrics.component("starts").map_or(0, |starts| starts.acked);
    println!("{acked} roots are done");
    Ok(())
}
