//! How long a tuple takes at a steady rate: `cargo bench -p galerna-engine --bench latency`.
//!
//! A spout emits so many tuples a second (what is due is emitted each millisecond, or as each becomes due at low rates) to a
//! bolt and from there to a sink, neither fused; the complete latency is the engine's own, every tuple counted. Criterion
//! measures how long work takes at full speed, so this is a program of its own.

use std::time::{Duration, Instant};

use galerna_engine::{Engine, EngineOptions};
use galerna_topology::prelude::*;

/// How long each rate is kept up.
const SECONDS: u64 = 10;

struct Paced {
    rate: u64,
    began: Option<Instant>,
    emitted: u64,
}

impl Paced {
    /// Tuples that must have been emitted by now.
    fn due(&mut self) -> u64 {
        let began = *self.began.get_or_insert_with(Instant::now);
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        (micros.saturating_mul(self.rate) / 1_000_000).min(self.rate * SECONDS)
    }
}

impl Spout for Paced {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let due = self.due();
        while self.emitted < due && out.room() > 0 {
            out.root(self.emitted).emit(self.emitted);
            self.emitted += 1;
        }
        if self.emitted == self.rate * SECONDS {
            return Ok(Next::Done);
        }
        Ok(if self.emitted < due { Next::Ready } else { Next::Idle })
    }

    async fn ready(&mut self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Identity;

impl Bolt for Identity {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, n: u64, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        out.emit(n);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{:>12} {:>12} {:>10} {:>10} {:>10}", "tuples/s", "acked", "p50 us", "p99 us", "max us");
    for rate in [500, 10_000, 100_000, 1_000_000] {
        let mut topology = TopologyBuilder::new("paced");
        let numbers = topology.spout("numbers", move || Paced { rate, began: None, emitted: 0 }).outputs();
        // Two executors each keep the hops from being fused.
        let same = topology.bolt("identity", || Identity).shuffle(numbers).parallelism(2).outputs();
        topology
            .for_each("sink", |n: u64| {
                std::hint::black_box(n);
            })
            .shuffle(same)
            .parallelism(2);
        let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
        running.finished().await;
        let metrics = running.metrics();
        let numbers = metrics.component("numbers").ok_or("no spout")?;
        let (c, micros) = (numbers.complete, |ms: f64| ms * 1e3);
        println!(
            "{rate:>12} {:>12} {:>10.0} {:>10.0} {:>10.0}",
            numbers.acked,
            micros(c.p50_ms),
            micros(c.p99_ms),
            micros(c.max_ms)
        );
        running.stop().await;
    }
    Ok(())
}
